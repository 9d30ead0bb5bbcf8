//! The hub on tokio: what its tasks share, the listener and the handle.

use core::task::Waker;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use chat_core::time::{Clock, Now, Timestamp, UnixMillis};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::admission::Admission;
use super::ahead::ReadAhead;
use super::auth::Authenticator;
use super::builder::HubBuilder;
use super::driver::drive;
use super::handshake::{self, Origins};
use super::limits::Limits;
use super::link;
use super::state::{Batch, ConnId, Frame, HubStats, Machine, Pulled};
use super::store::Writer;
use crate::client::config;

/// As a client's, with less for reading: a hub has many connections, most of them idle, and
/// [`ReadAhead`] reads for all of them.
fn buffers() -> WebSocketConfig {
    config().read_buffer_size(512)
}

pub(super) fn wall_now() -> UnixMillis {
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
    admission: Arc<Admission>,
    settings: Settings,
}

/// What was set up.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) origins: Origins,
    pub(super) path: String,
}

impl Shared {
    pub(super) fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    pub(super) fn authenticator(&self) -> &dyn Authenticator {
        &*self.settings.authenticator
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self, inner: &mut Inner) -> Now {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        inner.clock.read(Timestamp::from_micros(micros))
    }

    /// [`Machine::poll_frames`], on the path of every delivery: it sets no timer and wakes
    /// nobody, and the time of the last input is exact enough for it.
    pub(super) fn pull(
        &self,
        id: ConnId,
        ready: bool,
        waker: &Waker,
        out: &mut VecDeque<Frame>,
    ) -> Pulled {
        let mut inner = self.lock();
        let mono = inner.clock.now();
        let now = Now {
            mono,
            wall: inner.clock.wall_at(mono),
        };
        inner.machine.poll_frames(id, ready, waker, now, out)
    }

    /// The driver's turn: time passes; the next batch if it has room for one, all that is
    /// gathered if `all`; when to come again.
    pub(super) fn tick(
        &self,
        room: bool,
        all: bool,
        wakes: &mut Vec<Waker>,
    ) -> (Option<Batch>, Instant) {
        let mut inner = self.lock();
        let mut now = self.now(&mut inner);
        inner.clock.set_wall(wall_now(), now.mono);
        inner.machine.handle_timeout(now);
        inner.machine.drain_wakes(wakes);
        if all {
            // What waits for company is due.
            now.mono = Timestamp::MAX;
        }
        let batch = if room {
            inner.machine.poll_batch(now)
        } else {
            None
        };
        inner.asleep_until = inner.machine.poll_timeout();
        let micros = inner.asleep_until.as_micros().min(1 << 50);
        drop(inner);
        wakes.drain(..).for_each(Waker::wake);
        (batch, self.started + Duration::from_micros(micros))
    }

    /// An input came that makes [`Self::tick`] due earlier.
    pub(super) async fn due_early(&self) {
        self.driver.notified().await;
    }

    pub(super) fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// The store failed: nothing can be accepted any more.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.stop.send_replace(true);
        self.with(&mut Vec::new(), |machine, now| machine.shut_down(now));
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
    /// Nothing chosen yet but the default [`Limits`] and [`OwnerRules`](super::OwnerRules).
    pub fn builder() -> HubBuilder {
        HubBuilder::new()
    }

    pub(super) fn run(mut machine: Machine, settings: Settings, writer: Option<Writer>) -> Self {
        let mut clock = Clock::new(wall_now(), Timestamp::ZERO);
        machine.finish_restore(clock.read(Timestamp::ZERO));
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                machine,
                clock,
                asleep_until: Timestamp::ZERO,
            }),
            started: Instant::now(),
            driver: Notify::new(),
            stop: watch::Sender::new(false),
            failed: AtomicBool::new(false),
            admission: Arc::default(),
            settings,
        });
        let driver = tokio::spawn(drive(Arc::clone(&shared), writer));
        Self {
            shared,
            driver: Arc::new(Mutex::new(Some(driver))),
        }
    }

    /// Serves an accepted TCP connection from the upgrade to its end.
    pub async fn serve_socket(&self, socket: TcpStream, peer: SocketAddr) {
        let shared = &self.shared;
        let Some(_place) = shared.admission.admit(Some(peer.ip()), shared.limits()) else {
            tracing::debug!(%peer, "too many connections");
            return;
        };
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let mut upgrade = Upgrade::from_peer(peer);
        let token = &mut upgrade.token;
        let callback = |request: &_, response: _| {
            let (response, found) = handshake::check(
                &shared.settings.path,
                &shared.settings.origins,
                request,
                response,
            )?;
            *token = found;
            Ok(response)
        };
        let accepting = tokio_tungstenite::accept_hdr_async_with_config(
            ReadAhead::new(socket),
            callback,
            Some(buffers()),
        );
        match timeout(shared.limits().handshake, Box::pin(accepting)).await {
            Ok(Ok(mut ws)) => link::serve(shared, &mut ws, upgrade).await,
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
        let Some(_place) = self.shared.admission.admit(ip, self.shared.limits()) else {
            return;
        };
        let io = ReadAhead::new(io);
        let mut ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(buffers())).await;
        link::serve(&self.shared, &mut ws, upgrade).await;
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
    pub(super) fn run(hub: Hub, listener: TcpListener, local_addr: SocketAddr) -> Self {
        let accept = tokio::spawn(accept(hub.clone(), listener));
        Self {
            hub,
            local_addr,
            accept,
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its URL for a [`WsConnector`](crate::WsConnector) on this machine.
    pub fn url(&self) -> String {
        format!("ws://{}{}", self.local_addr, self.hub.shared.settings.path)
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

#[cfg(test)]
mod tests;
