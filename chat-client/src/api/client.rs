//! A running client, and how to open one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use chat_core::Endpoint;
use chat_core::config::Config;
use chat_core::id::{DeviceId, TxnId, UserId};
use chat_core::identity::{DeviceKey, Ed25519, Signer, Verifier};
use chat_core::link::{LinkEvent, LinkState};
use chat_core::rng::Rng;
use chat_core::sealer::{Plain, Sealer};
use chat_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::{CallError, ClientError, EventStream, OpenError};
use crate::clock::{Clock, SystemWall, WallClock};
use crate::driver::{Board, Call, Command, Desk, Done, Driver, Parts};
use crate::store::Store;
use crate::transport::Connector;

/// Calls that wait for the driver; further callers wait for room.
const COMMANDS: usize = 256;

/// Who a client is.
#[derive(Debug)]
pub struct Identity {
    user: UserId,
    signer: Arc<dyn Signer>,
    verifier: Arc<dyn Verifier>,
    sealer: Box<dyn Sealer>,
}

impl Identity {
    /// `user` on the device of `key`. See [`crate::keyfile`] for where to keep the key.
    pub fn new(user: UserId, key: DeviceKey) -> Self {
        Self::with_signer(user, Arc::new(key))
    }

    /// `user` on the device of a key that lives elsewhere.
    pub fn with_signer(user: UserId, signer: Arc<dyn Signer>) -> Self {
        Self {
            user,
            signer,
            verifier: Arc::new(Ed25519),
            sealer: Box::new(Plain),
        }
    }

    /// Checks signatures with `verifier` instead of Ed25519.
    #[must_use]
    pub fn verifier(self, verifier: Arc<dyn Verifier>) -> Self {
        Self { verifier, ..self }
    }

    /// Seals message bodies with `sealer`.
    #[must_use]
    pub fn sealer(self, sealer: Box<dyn Sealer>) -> Self {
        Self { sealer, ..self }
    }
}

/// Opens a client.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    identity: Identity,
    store: Option<Arc<dyn Store>>,
    connector: Option<Arc<dyn Connector>>,
    config: Config,
    seed: Option<[u8; 32]>,
    wall: Arc<dyn WallClock>,
}

impl Builder {
    /// Where its rows live.
    pub fn store(self, store: impl Store) -> Self {
        Self {
            store: Some(Arc::new(store)),
            ..self
        }
    }

    /// How it connects.
    pub fn transport(self, connector: impl Connector) -> Self {
        Self {
            connector: Some(Arc::new(connector)),
            ..self
        }
    }

    /// Other times and bounds than the defaults.
    pub fn config(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// Randomness from `seed` instead of the operating system: for tests that must repeat. A
    /// known seed lets others guess the secrets of sessions.
    pub fn seed(self, seed: [u8; 32]) -> Self {
        Self {
            seed: Some(seed),
            ..self
        }
    }

    /// Another wall clock than the system's.
    pub fn wall_clock(self, wall: impl WallClock) -> Self {
        Self {
            wall: Arc::new(wall),
            ..self
        }
    }

    /// Loads the store, starts the driver in a task of the current tokio runtime and begins to
    /// connect. It works offline: [`Client::link`] tells how the connection does.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    ///
    /// # Cancel safety
    /// A dropped future has opened nothing.
    pub async fn open(self) -> Result<Client, OpenError> {
        let store = self.store.ok_or(OpenError::NoStore)?;
        let connector = self.connector.ok_or(OpenError::NoTransport)?;
        let rows = store.load().await?;
        let seed = match self.seed {
            Some(seed) => seed,
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(|e| OpenError::Entropy(e.to_string()))?;
                seed
            }
        };
        let mut clock = Clock::new(self.wall);
        let (now, _) = clock.read();
        let Identity {
            user,
            signer,
            verifier,
            sealer,
        } = self.identity;
        let identity = chat_core::Identity {
            user: user.clone(),
            signer,
            verifier,
            sealer,
        };
        // The core gets its own branch, so that ids made here tell nothing of its secrets.
        let rng = Rng::from_seed(seed);
        let core_seed = rng.child("core").bytes();
        let endpoint = Endpoint::open(identity, self.config, core_seed, rows, clock.wall(), now)?;

        let (commands, received) = mpsc::channel(COMMANDS);
        let (done, rung) = Done::new();
        let (link_sender, link) = watch::channel(endpoint.link().clone());
        let fate = Arc::new(OnceLock::new());
        let inner = Inner {
            user,
            device: endpoint.device(),
            commands,
            store: store.clone(),
            done: done.clone(),
            link,
            fate: fate.clone(),
            // A life of its own even under a fixed seed: a transaction id must not come again.
            rng: Mutex::new(rng.child(&format!("client {}", endpoint.epoch().0))),
        };
        let driver = Driver::new(Parts {
            endpoint,
            board: Board::new(link_sender),
            clock,
            store,
            connector,
            commands: received,
            done,
            rung,
            fate,
        });
        tokio::spawn(driver.run());
        Ok(Client(Arc::new(inner)))
    }
}

pub(crate) struct Inner {
    user: UserId,
    device: DeviceId,
    commands: mpsc::Sender<Command>,
    pub(super) store: Arc<dyn Store>,
    pub(super) done: Arc<Done>,
    link: watch::Receiver<LinkState>,
    fate: Arc<OnceLock<ClientError>>,
    rng: Mutex<Rng>,
}

/// A running client: one device of one user. Cheap to clone. When the last clone, chat, room and
/// pending call is gone, it says goodbye and stops.
#[derive(Clone)]
pub struct Client(pub(super) Arc<Inner>);

/// Does not keep the client running.
#[derive(Clone, Debug)]
pub(super) struct WeakClient(Weak<Inner>);

impl WeakClient {
    pub(super) fn upgrade(&self) -> Result<Client, ClientError> {
        self.0.upgrade().map(Client).ok_or(ClientError::Closed)
    }
}

/// How a client stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Messages that some recipient has not acknowledged. They are durable, and sent after the
    /// next open.
    pub unflushed: u64,
    /// Everything queued was handed to the broker and the connection closed in good order, before
    /// the deadline.
    pub clean: bool,
}

impl ShutdownReport {
    pub(crate) fn new(unflushed: u64, clean: bool) -> Self {
        Self { unflushed, clean }
    }
}

/// Counters since the client opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The core's.
    pub core: chat_core::Stats,
    /// How often the driver's task was woken.
    pub polls: u64,
    /// How many turns its loop made.
    pub turns: u64,
    /// Frames dropped because the transport took none; their senders repeat what matters.
    pub dropped: u64,
}

impl Client {
    /// A client for `identity`; give it a store and a transport, then open it.
    pub fn builder(identity: Identity) -> Builder {
        Builder {
            identity,
            store: None,
            connector: None,
            config: Config::default(),
            seed: None,
            wall: Arc::new(SystemWall),
        }
    }

    /// Whose client it is.
    pub fn user(&self) -> &UserId {
        &self.0.user
    }

    /// Which device.
    pub fn device(&self) -> DeviceId {
        self.0.device
    }

    /// The connection as it is now.
    pub fn link(&self) -> LinkState {
        self.0.link.borrow().clone()
    }

    /// Waits until the connection is in a state that `wanted` accepts, and returns that.
    ///
    /// # Errors
    /// [`ClientError`] when the client stops first.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn link_until(
        &self,
        mut wanted: impl FnMut(&LinkState) -> bool,
    ) -> Result<LinkState, ClientError> {
        let mut link = self.0.link.clone();
        let state = link.wait_for(|state| wanted(state)).await;
        state.map(|state| state.clone()).map_err(|_| self.fate())
    }

    /// Tries to connect now: the network may be reachable again, or what the application had to
    /// mend is mended.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn reconnect(&self) -> Result<(), ClientError> {
        self.change(|desk, now| {
            desk.endpoint.handle_link(&LinkEvent::Reachable, now);
            desk.endpoint.connect(now);
        })
        .await
    }

    /// What happens, from now on; the first stream also gets what happened before it. It holds
    /// [a bounded number](EventStream) of events, and its end means that the client stopped.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// A stream that nobody got is closed, with the events in it; call this once, at the start.
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        let weak = self.downgrade();
        let done = self.0.done.clone();
        self.ask(move |desk, _| EventStream::new(desk.board.open_stream(), done, weak))
            .await
    }

    /// Counters.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.ask(|desk, _| desk.stats).await
    }

    /// Hands over what is queued, says goodbye and stops, for all clones. It takes at most about
    /// `deadline`. When it returns and no other handle is left, the store can be opened again.
    ///
    /// # Errors
    /// [`ClientError`] when it does not run any more.
    ///
    /// # Cancel safety
    /// Once begun, the client stops, also when the future is dropped.
    pub async fn shutdown(self, deadline: Duration) -> Result<ShutdownReport, ClientError> {
        let (sender, report) = oneshot::channel();
        self.command(Command::Shutdown(deadline, sender)).await?;
        report.await.map_err(|_| self.fate())
    }

    pub(super) fn downgrade(&self) -> WeakClient {
        WeakClient(Arc::downgrade(&self.0))
    }

    pub(super) fn fate(&self) -> ClientError {
        self.0.fate.get().cloned().unwrap_or(ClientError::Closed)
    }

    pub(super) fn txn(&self) -> TxnId {
        let mut rng = self.0.rng.lock().unwrap_or_else(PoisonError::into_inner);
        TxnId(rng.bytes())
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        let sent = self.0.commands.send(command).await;
        sent.map_err(|_| self.fate())
    }

    /// Runs `call` on the endpoint; returns once every row it queued is durable.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Desk, Timestamp) -> T + Send + 'static,
    ) -> Result<T, ClientError> {
        let (sender, answer) = oneshot::channel();
        self.command(Command::Change(replying(call, sender)))
            .await?;
        answer.await.map_err(|_| self.fate())
    }

    /// Runs `call` on the endpoint; returns at once.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Desk, Timestamp) -> T + Send + 'static,
    ) -> Result<T, ClientError> {
        let (sender, answer) = oneshot::channel();
        self.command(Command::Ask(replying(call, sender))).await?;
        answer.await.map_err(|_| self.fate())
    }

    /// As [`Self::change`], for calls that can be refused.
    pub(super) async fn attempt<T: Send + 'static, E: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Desk, Timestamp) -> Result<T, E> + Send + 'static,
    ) -> Result<T, CallError<E>> {
        self.change(call).await?.map_err(CallError::Refused)
    }
}

fn replying<T: Send + 'static>(
    call: impl FnOnce(&mut Desk, Timestamp) -> T + Send + 'static,
    sender: oneshot::Sender<T>,
) -> Call {
    Box::new(move |desk, now| {
        let answer = call(desk, now);
        // Whoever dropped the call does not want the answer.
        Box::new(move || drop(sender.send(answer)))
    })
}

impl core::fmt::Debug for Inner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("user", &self.user)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}
