//! The hub on tokio: the listener, the task that keeps time and feeds the disk, and the handle.

use core::task::Waker;
use core::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use chat_core::time::{Clock, Now, Timestamp, UnixMillis};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::admission::Admission;
use super::auth::{AccessRules, AllowAll, Authenticator, OwnerRules};
use super::handshake::{self, Origins};
use super::limits::Limits;
use super::link;
use super::state::{HubStats, Machine};
use super::store::{CommitError, RedbDisk, StoreError, Writer, spawn_writer};
use crate::client::config;

/// Small, so that a stalled reader shows after some 200 KB and not after megabytes.
const SEND_BUFFER: u32 = 64 * 1024;
const BACKLOG: u32 = 1024;

/// Why a hub does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Nothing was said about who may connect.
    #[error("choose who may connect: authenticator(..), or allow_all() for a demo")]
    NoAuthenticator,
    /// Nothing was said about where frames are kept.
    #[error("choose where frames are kept: store(path), or in_memory()")]
    NoStore,
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({source}); choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives us no thread.
    #[error("no thread for the store ({source}); free resources and try again")]
    Thread {
        /// What the system says.
        source: std::io::Error,
    },
}

#[derive(Debug, Clone)]
enum Keep {
    Memory,
    File(PathBuf),
}

/// How a hub is set up.
#[derive(Debug, Clone)]
#[must_use]
pub struct HubBuilder {
    limits: Limits,
    authenticator: Option<Arc<dyn Authenticator>>,
    access: Arc<dyn AccessRules>,
    keep: Option<Keep>,
    origins: Origins,
    path: String,
}

impl HubBuilder {
    /// Asks `authenticator` about every connection.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Lets everybody be whoever they say. For demos and tests on one machine.
    pub fn allow_all(self) -> Self {
        self.authenticator(AllowAll)
    }

    /// Other rules than [`OwnerRules`].
    pub fn access(mut self, rules: impl AccessRules) -> Self {
        self.access = Arc::new(rules);
        self
    }

    /// Keeps nothing when the process ends: "accepted" then means that the hub's memory has it.
    pub fn in_memory(mut self) -> Self {
        self.keep = Some(Keep::Memory);
        self
    }

    /// Keeps durable frames in this file; "accepted" means that it is on disk. The mailboxes are
    /// also held in memory, within [`Limits::stored_bytes`].
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.keep = Some(Keep::File(path.into()));
        self
    }

    /// Other limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets web pages of this origin connect, such as `https://chat.example`. May be repeated.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        self.origins.listed.insert(origin.to_ascii_lowercase());
        self
    }

    /// Lets every web page connect: only where tokens are no cookies.
    pub fn allow_any_origin(mut self) -> Self {
        self.origins.any = true;
        self
    }

    /// The path of the upgrade; `/hub` unless said.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Starts the hub without a listener, for [`Hub::serve_upgraded`] and [`Hub::serve_socket`].
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn start(self) -> Result<Hub, HubError> {
        let authenticator = self.authenticator.ok_or(HubError::NoAuthenticator)?;
        let keep = self.keep.ok_or(HubError::NoStore)?;
        let mut limits = self.limits;
        limits.max_frame = limits.max_frame.min(crate::proto::MAX_FRAME);
        let wall = wall_now();
        let started = Instant::now();
        let durable = matches!(keep, Keep::File(_));
        let mut machine = Machine::new(limits.clone(), self.access, durable);
        let writer = match keep {
            Keep::Memory => None,
            Keep::File(path) => {
                let disk = RedbDisk::open(&path)?;
                disk.read(|key, value| machine.restore(key, value, wall))?;
                Some(spawn_writer(disk).map_err(|source| HubError::Thread { source })?)
            }
        };
        let mut clock = Clock::new(wall, Timestamp::ZERO);
        machine.finish_restore(clock.read(Timestamp::ZERO));
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                machine,
                clock,
                asleep_until: Timestamp::ZERO,
            }),
            started,
            driver: Notify::new(),
            stop: watch::Sender::new(false),
            failed: AtomicBool::new(false),
            limits,
            authenticator,
            admission: Arc::default(),
            origins: self.origins,
            path: self.path,
        });
        let driver = tokio::spawn(drive(Arc::clone(&shared), writer));
        Ok(Hub {
            shared,
            driver: Arc::new(Mutex::new(Some(driver))),
        })
    }

    /// Starts the hub and listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn bind(self, address: SocketAddr) -> Result<HubHandle, HubError> {
        let listener = listen(address).map_err(|source| HubError::Listen { address, source })?;
        let local_addr =
            (listener.local_addr()).map_err(|source| HubError::Listen { address, source })?;
        let hub = self.start()?;
        let accept = tokio::spawn(accept(hub.clone(), listener));
        Ok(HubHandle {
            hub,
            local_addr,
            accept,
        })
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn wall_now() -> UnixMillis {
    let since = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    clock: Clock,
    /// The driver sleeps until then.
    asleep_until: Timestamp,
}

/// What all tasks of a hub share.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    started: Instant,
    driver: Notify,
    stop: watch::Sender<bool>,
    failed: AtomicBool,
    limits: Limits,
    authenticator: Arc<dyn Authenticator>,
    admission: Arc<Admission>,
    origins: Origins,
    path: String,
}

impl Shared {
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn authenticator(&self) -> &dyn Authenticator {
        &*self.authenticator
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self, inner: &mut Inner) -> Now {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        inner.clock.read(Timestamp::from_micros(micros))
    }

    /// One input to the machine; wakes whom it concerns after the lock is released.
    pub(super) fn with<R>(
        &self,
        wakes: &mut Vec<Waker>,
        input: impl FnOnce(&mut Machine, Now) -> R,
    ) -> R {
        let mut inner = self.lock();
        let now = self.now(&mut inner);
        let result = input(&mut inner.machine, now);
        inner.machine.drain_wakes(wakes);
        let early = inner.machine.poll_timeout() < inner.asleep_until;
        if early {
            inner.asleep_until = Timestamp::ZERO;
        }
        drop(inner);
        wakes.drain(..).for_each(Waker::wake);
        if early {
            self.driver.notify_one();
        }
        result
    }
}

/// Keeps time and carries batches to the writer and back, until the hub stops and everything
/// gathered is written.
async fn drive(shared: Arc<Shared>, mut writer: Option<Writer>) {
    run(&shared, &mut writer).await;
    if let Some(writer) = writer {
        writer.close().await;
    }
}

async fn run(shared: &Shared, writer: &mut Option<Writer>) {
    let mut stop = shared.stop.subscribe();
    let mut stopping = false;
    let mut in_flight = false;
    let mut wakes = Vec::new();
    loop {
        let (batch, deadline) = {
            let mut inner = shared.lock();
            let mut now = shared.now(&mut inner);
            inner.clock.set_wall(wall_now(), now.mono);
            inner.machine.handle_timeout(now);
            inner.machine.drain_wakes(&mut wakes);
            if stopping {
                // What waits for company is written now.
                now.mono = Timestamp::MAX;
            }
            let batch = (writer.is_some() && !in_flight)
                .then(|| inner.machine.poll_batch(now))
                .flatten();
            inner.asleep_until = inner.machine.poll_timeout();
            (batch, inner.asleep_until)
        };
        wakes.drain(..).for_each(Waker::wake);
        if let (Some(writer), Some(batch)) = (writer.as_ref(), batch) {
            // One at a time, so there is always room; a closed channel shows as a lost result.
            in_flight = writer.batches.send(batch).await.is_ok();
        } else if stopping && !in_flight {
            return;
        }
        let until = shared.started + Duration::from_micros(deadline.as_micros().min(1 << 50));
        let result = async {
            match writer.as_mut() {
                Some(writer) => writer.results.recv().await,
                None => core::future::pending().await,
            }
        };
        tokio::select! {
            _ = shared.driver.notified() => {}
            _ = tokio::time::sleep_until(until), if !stopping => {}
            _ = stop.wait_for(|stop| *stop), if !stopping => stopping = true,
            result = result => {
                in_flight = false;
                match result {
                    Some(Ok(())) => shared.with(&mut wakes, |m, now| m.handle_written(now)),
                    Some(Err(CommitError::Full)) => {
                        tracing::warn!("the hub's disk is full; durable frames are refused");
                        shared.with(&mut wakes, |m, now| m.handle_full(now));
                        if stopping {
                            return;
                        }
                    }
                    failed => {
                        let text = match failed {
                            Some(Err(CommitError::Failed(text))) => text,
                            _ => "its thread ended".to_owned(),
                        };
                        tracing::error!(%text, "the hub's store failed; the hub stops");
                        shared.failed.store(true, Ordering::Release);
                        shared.stop.send_replace(true);
                        shared.with(&mut wakes, |m, now| m.shut_down(now));
                        return;
                    }
                }
            }
        }
    }
}

async fn accept(hub: Hub, listener: TcpListener) {
    let mut stop = hub.shared.stop.subscribe();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let hub = hub.clone();
                tasks.spawn(async move { hub.serve_socket(socket, peer).await });
            }
            Err(error) => {
                // Out of descriptors, most likely: let some connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    // Connections were asked to close; dropping the set ends those that do not.
    while tasks.join_next().await.is_some() {}
}

/// What the HTTP side knows of an upgraded connection.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Upgrade {
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// The token of its `Authorization` header.
    pub token: Option<String>,
}

impl core::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Upgrade")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Upgrade {
    /// From this peer.
    pub fn from_peer(peer: SocketAddr) -> Self {
        Self {
            peer: Some(peer),
            token: None,
        }
    }

    /// With this token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }
}

/// A running hub. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    driver: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Hub {
    /// Nothing chosen yet but the default [`Limits`] and [`OwnerRules`].
    pub fn builder() -> HubBuilder {
        HubBuilder {
            limits: Limits::default(),
            authenticator: None,
            access: Arc::new(OwnerRules),
            keep: None,
            origins: Origins::default(),
            path: "/hub".to_owned(),
        }
    }

    /// Serves an accepted TCP connection from the upgrade to its end.
    pub async fn serve_socket(&self, socket: TcpStream, peer: SocketAddr) {
        let shared = &self.shared;
        let Some(_place) = shared.admission.admit(Some(peer.ip()), &shared.limits) else {
            tracing::debug!(%peer, "too many connections");
            return;
        };
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let mut upgrade = Upgrade::from_peer(peer);
        let token = &mut upgrade.token;
        let callback = |request: &_, response: _| {
            let (response, found) =
                handshake::check(&shared.path, &shared.origins, request, response)?;
            *token = found;
            Ok(response)
        };
        let accepting =
            tokio_tungstenite::accept_hdr_async_with_config(socket, callback, Some(config()));
        match timeout(shared.limits.handshake, Box::pin(accepting)).await {
            Ok(Ok(ws)) => link::serve(shared, ws, upgrade).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
            Err(_) => tracing::debug!(%peer, "the handshake took too long"),
        }
    }

    /// Serves a connection that an HTTP server has upgraded, to its end. That server has checked
    /// path, origin and subprotocol, and its accept limits apply besides the hub's total.
    pub async fn serve_upgraded<S>(&self, io: S, upgrade: Upgrade)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let ip = upgrade.peer.map(|peer| peer.ip());
        let Some(_place) = self.shared.admission.admit(ip, &self.shared.limits) else {
            return;
        };
        let ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
        link::serve(&self.shared, ws, upgrade).await;
    }

    /// Counters.
    pub fn stats(&self) -> HubStats {
        self.shared.lock().machine.stats()
    }

    /// True after the store failed: the hub has stopped, and what it accepted is in its file.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Asks every client to come back later and writes what is gathered. True when all was
    /// written before `deadline`.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let by = Instant::now() + deadline;
        (self.shared).with(&mut Vec::new(), |machine, now| machine.shut_down(now));
        self.shared.stop.send_replace(true);
        self.shared.driver.notify_one();
        let driver = (self.driver.lock().unwrap_or_else(PoisonError::into_inner)).take();
        match driver {
            Some(driver) => {
                matches!(timeout_at(by, driver).await, Ok(Ok(()))) && !self.has_failed()
            }
            None => !self.has_failed(),
        }
    }
}

/// A hub with its listener. Dropping it stops accepting and cuts the connections.
#[derive(Debug)]
pub struct HubHandle {
    hub: Hub,
    local_addr: SocketAddr,
    accept: JoinHandle<()>,
}

impl HubHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its URL for a [`WsConnector`](crate::WsConnector) on this machine.
    pub fn url(&self) -> String {
        format!("ws://{}{}", self.local_addr, self.hub.shared.path)
    }

    /// The hub.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Counters.
    pub fn stats(&self) -> HubStats {
        self.hub.stats()
    }

    /// Asks every client to come back later, waits for their goodbyes and for the disk. True when
    /// everything ended in good order before `deadline`.
    pub async fn shutdown(mut self, deadline: Duration) -> bool {
        let by = Instant::now() + deadline;
        (self.hub.shared).with(&mut Vec::new(), |machine, now| machine.shut_down(now));
        self.hub.shared.stop.send_replace(true);
        let closed = timeout_at(by, &mut self.accept).await.is_ok();
        let left = by.saturating_duration_since(Instant::now());
        self.hub.shutdown(left).await && closed
    }
}

impl Drop for HubHandle {
    fn drop(&mut self) {
        self.accept.abort();
        // The driver ends as well, after it wrote what is gathered.
        self.hub.shared.stop.send_replace(true);
    }
}
