//! The driver: one task that owns an endpoint, its transport and the way to its store.
//!
//! Each turn: drain the core's outputs → commit rows → tell events and write frames → due timers →
//! commands → receive. The last two only while the local queues have room; after a bounded number
//! of turns the task yields.
//!
//! Guarantees:
//! - a frame or an event waits in order for the rows it depends on;
//! - a delivery is acknowledged to the broker only after every row that its processing queued;
//! - a call is answered after every row that it queued is durable;
//! - a failed store stops the client at once; nothing is retried here;
//! - every queue has a bound, and an application that does not read stops the receiving, not the
//!   timers, commands and acknowledgements.

mod leases;
mod pipeline;
mod told;
mod track;
mod wire;

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chat_core::id::ConvId;
use chat_core::link::LinkEvent;
use chat_core::time::Timestamp;
use chat_core::{Endpoint, Event, Fate, Output, PersistId};
use leases::Leases;
use pipeline::Pipeline;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};
use wire::{Item, Wire};

use crate::api::{ClientError, ShutdownReport, Stats};
use crate::clock::Clock;
use crate::store::Store;
use crate::transport::{Connector, Inbound, SendOutcome};

pub(crate) use told::{Board, FEED, Feed, JoinEnd, Told};
pub(crate) use track::Follower;

/// Turns of the loop before the task yields.
const MAX_TURNS: u32 = 16;
/// Commands, and deliveries, per turn.
const MAX_BATCH: u32 = 64;
/// Events that wait for rows; beyond it nothing is received until the store has caught up.
const MAX_EVENTS: usize = 4_096;
/// How long a client whose last handle was dropped takes to leave.
const FAREWELL: Duration = Duration::from_secs(5);
/// A suspend is noticed at the latest after this long awake.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// What a call works on.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) endpoint: Endpoint,
    pub(crate) board: Board,
    pub(crate) stats: Stats,
}

pub(crate) type Reply = Box<dyn FnOnce() + Send>;
pub(crate) type Call = Box<dyn FnOnce(&mut Desk, Timestamp) -> Reply + Send>;

pub(crate) enum Command {
    /// Answered once every row it queued, and every row before those, is durable.
    Change(Call),
    /// Answered at once.
    Ask(Call),
    Shutdown(Duration, oneshot::Sender<ShutdownReport>),
}

/// What an application is done with in one conversation.
#[derive(Debug, Default)]
struct Places {
    /// Everything up to here.
    up_to: u64,
    /// And these, which were taken out of turn: at most as many as the inbox holds.
    only: BTreeSet<u64>,
}

/// What applications are done with.
#[derive(Debug)]
pub(crate) struct Done {
    positions: Mutex<BTreeMap<ConvId, Places>>,
    bell: mpsc::Sender<()>,
}

impl Done {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<()>) {
        let (bell, rung) = mpsc::channel(1);
        let done = Self {
            positions: Mutex::default(),
            bell,
        };
        (Arc::new(done), rung)
    }

    /// Everything up to `pos`.
    pub(crate) fn post(&self, conv: ConvId, pos: u64) {
        self.change(conv, |places| {
            places.up_to = pos.max(places.up_to);
            places.only.retain(|only| *only > pos);
        });
    }

    /// This place; those before it may still be open.
    pub(crate) fn post_only(&self, conv: ConvId, pos: u64) {
        self.change(conv, |places| {
            if pos > places.up_to {
                places.only.insert(pos);
            }
        });
    }

    fn change(&self, conv: ConvId, change: impl FnOnce(&mut Places)) {
        let mut positions = self
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(positions.entry(conv).or_default());
        drop(positions);
        // A full bell has been rung already; a closed one means that nobody asks any more.
        self.bell.try_send(()).ok();
    }

    fn take(&self) -> BTreeMap<ConvId, Places> {
        core::mem::take(
            &mut *self
                .positions
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Writing out what is queued, before the farewell.
    Flushing {
        until: Instant,
        deadline: Instant,
    },
    Leaving {
        deadline: Instant,
    },
}

pub(crate) struct Parts {
    pub(crate) endpoint: Endpoint,
    pub(crate) board: Board,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) done: Arc<Done>,
    pub(crate) rung: mpsc::Receiver<()>,
    pub(crate) fate: Arc<OnceLock<ClientError>>,
}

pub(crate) struct Driver {
    desk: Desk,
    clock: Clock,
    now: Timestamp,
    rows: Pipeline,
    wire: Wire,
    leases: Leases,
    events: VecDeque<(Option<PersistId>, Event)>,
    replies: VecDeque<(Option<PersistId>, Reply)>,
    commands: mpsc::Receiver<Command>,
    done: Arc<Done>,
    rung: mpsc::Receiver<()>,
    sleep: Pin<Box<Sleep>>,
    phase: Phase,
    leavers: Vec<oneshot::Sender<ShutdownReport>>,
    fate: Arc<OnceLock<ClientError>>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let endpoint = parts.endpoint;
        let (user, device) = (endpoint.user().clone(), endpoint.device());
        Self {
            desk: Desk {
                endpoint,
                board: parts.board,
                stats: Stats::default(),
            },
            clock: parts.clock,
            now: Timestamp::ZERO,
            rows: Pipeline::new(parts.store),
            wire: Wire::new(parts.connector, user, device),
            leases: Leases::new(device),
            events: VecDeque::new(),
            replies: VecDeque::new(),
            commands: parts.commands,
            done: parts.done,
            rung: parts.rung,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            phase: Phase::Running,
            leavers: Vec::new(),
            fate: parts.fate,
        }
    }

    /// Runs until the client is shut down, its last handle is dropped, or its store fails.
    pub(crate) async fn run(mut self) {
        self.now = self.clock.read().0;
        self.desk.endpoint.connect(self.now);
        let result = poll_fn(|cx| self.poll(cx)).await;
        let (fate, clean) = match result {
            Ok(clean) => (ClientError::Closed, clean),
            Err(error) => (error, false),
        };
        tracing::debug!(target: "chat::driver", %fate, "stopped");
        self.fate.set(fate).ok();
        self.desk.board.close();
        let unflushed = self.desk.endpoint.stats().outbox;
        let leavers = core::mem::take(&mut self.leavers);
        // The report comes after the end: the store is free again for whoever opens it next.
        drop(self);
        for leaver in leavers {
            leaver.send(ShutdownReport::new(unflushed, clean)).ok();
        }
    }

    /// Ready when the driver is finished: true when it closed in good order.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ClientError>> {
        self.desk.stats.polls += 1;
        for _ in 0..MAX_TURNS {
            self.desk.stats.turns += 1;
            self.read_clock();
            let mut moved = self.drain();
            moved |= self.poll_rows(cx)?;
            moved |= self.tell(cx);
            moved |= self.poll_send(cx);
            moved |= self.handle_due(cx);
            moved |= self.leases.poll(cx, &mut self.desk.endpoint, self.now);
            moved |= self.poll_acknowledgements(cx);
            if self.may_take_commands() {
                moved |= self.poll_commands(cx);
            }
            if self.may_receive() {
                moved |= self.poll_receive(cx);
            }
            let phase = self.phase;
            if let Some(clean) = self.leave() {
                return Poll::Ready(Ok(clean));
            }
            if !moved && phase == self.phase {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn may_take_commands(&self) -> bool {
        self.rows.has_room() && self.wire.has_room() && self.replies.len() < MAX_EVENTS
    }

    fn may_receive(&self) -> bool {
        self.rows.has_room()
            && self.wire.may_receive()
            && self.events.len() < MAX_EVENTS
            && self.desk.board.has_room()
    }

    fn read_clock(&mut self) {
        let (now, step) = self.clock.read();
        self.now = now;
        if let Some(step) = step {
            self.desk.endpoint.handle_wall(step.wall, now);
            if step.slept {
                self.desk.endpoint.handle_link(&LinkEvent::Reachable, now);
            }
        }
    }

    /// Sorts the core's outputs into the local queues.
    fn drain(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.desk.endpoint.poll_output() {
            any = true;
            match output {
                Output::Persist { id, rows } => self.rows.push(id, rows),
                Output::Transmit(transmit) => self.wire.push(Item::Transmit(transmit)),
                Output::Subscribe(channel) => self.wire.push(Item::Subscribe(channel)),
                Output::Unsubscribe(channel) => self.wire.push(Item::Unsubscribe(channel)),
                Output::Connect { will } => self.wire.push(Item::Connect(will)),
                Output::Disconnect => self.wire.push(Item::Disconnect),
                Output::Event { event, after } => self.events.push_back((after, event)),
                other => tracing::warn!(target: "chat::driver", ?other, "an unknown output"),
            }
        }
        any
    }

    fn poll_rows(&mut self, cx: &mut Context<'_>) -> Result<bool, ClientError> {
        let mut any = false;
        while let Poll::Ready(result) = self.rows.poll(cx) {
            let durable = result.map_err(|error| ClientError::Store(Arc::new(error)))?;
            self.desk.endpoint.handle_persisted(durable, self.now);
            any = true;
        }
        while let Some((after, _)) = self.replies.front() {
            if !self.rows.is_durable(*after) {
                break;
            }
            if let Some((_, reply)) = self.replies.pop_front() {
                reply();
            }
            any = true;
        }
        Ok(any)
    }

    fn tell(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Some((after, _)) = self.events.front() {
            if !self.rows.is_durable(*after) {
                break;
            }
            if let Some((_, event)) = self.events.pop_front() {
                self.desk.board.tell(event);
            }
            any = true;
        }
        any | self.desk.board.poll(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        match self.wire.poll_send(cx, &self.rows) {
            Ok(moved) => moved,
            Err(error) => {
                self.handle_down(error);
                true
            }
        }
    }

    fn handle_down(&mut self, error: crate::transport::TransportError) {
        tracing::debug!(target: "chat::driver", %error, "the connection ended");
        self.leases.end(&mut self.desk.endpoint, self.now);
        let down = LinkEvent::Down {
            reason: error.reason,
            retry_after: error.retry_after,
        };
        self.desk.endpoint.handle_link(&down, self.now);
    }

    /// Handles what is due, or arms the timer for what will be.
    fn handle_due(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.desk.endpoint.poll_timeout();
        if due.is_some_and(|due| due <= self.now) {
            self.desk.endpoint.handle_timeout(self.now);
            return true;
        }
        let core = due.and_then(|due| {
            let latest = Instant::now() + MAX_SLEEP;
            self.clock.instant(due).map(|due| due.min(latest))
        });
        let own = match self.phase {
            Phase::Running => None,
            Phase::Flushing { until, .. } => Some(until),
            Phase::Leaving { deadline } => Some(deadline),
        };
        let Some(next) = core.into_iter().chain(own).min() else {
            return false;
        };
        if self.sleep.deadline() != next {
            self.sleep.as_mut().reset(next);
        }
        self.sleep.as_mut().poll(cx).is_ready()
    }

    fn poll_acknowledgements(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(Some(())) = self.rung.poll_recv(cx) else {
            return false;
        };
        for (conv, places) in self.done.take() {
            let endpoint = &mut self.desk.endpoint;
            endpoint.acknowledge(conv, places.up_to, self.now);
            for pos in &places.only {
                endpoint.acknowledge_only(conv, *pos, self.now);
            }
            let done = |pos| pos <= places.up_to || places.only.contains(&pos);
            self.desk.board.forget_early(conv, done);
        }
        true
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        let mut any = false;
        for _ in 0..MAX_BATCH {
            let command = match self.commands.poll_recv(cx) {
                Poll::Pending => break,
                Poll::Ready(command) => command,
            };
            any = true;
            match command {
                Some(Command::Change(call)) => {
                    let reply = call(&mut self.desk, self.now);
                    self.drain();
                    self.replies.push_back((self.rows.emitted(), reply));
                }
                Some(Command::Ask(call)) => {
                    self.desk.stats.core = self.desk.endpoint.stats();
                    self.desk.stats.dropped = self.wire.dropped();
                    call(&mut self.desk, self.now)();
                }
                Some(Command::Shutdown(deadline, leaver)) => {
                    self.leavers.push(leaver);
                    self.start_leaving(deadline);
                    break;
                }
                None => {
                    self.start_leaving(FAREWELL);
                    break;
                }
            }
        }
        any
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        for _ in 0..MAX_BATCH {
            let Poll::Ready(result) = self.wire.poll_recv(cx) else {
                break;
            };
            any = true;
            match result {
                Ok(item) => self.handle_inbound(item),
                Err(error) => {
                    self.handle_down(error);
                    break;
                }
            }
        }
        any
    }

    fn handle_inbound(&mut self, item: Inbound) {
        let now = self.now;
        let endpoint = &mut self.desk.endpoint;
        match item {
            Inbound::Received {
                channel,
                bytes,
                handle,
                live,
            } => {
                endpoint.handle_inbound(&channel, &bytes, live, now);
                self.drain();
                if let Some(handle) = handle {
                    self.wire.push(Item::Ack(handle, self.rows.emitted()));
                }
            }
            Inbound::Sent { token, outcome } => {
                let fate = match outcome {
                    SendOutcome::Accepted | SendOutcome::NoReceiver => Fate::Taken,
                    SendOutcome::Refused(words) => {
                        tracing::debug!(target: "chat::driver", words, "the broker refused a frame");
                        Fate::NotTaken
                    }
                    SendOutcome::Never { why, words } => {
                        tracing::debug!(target: "chat::driver", words, "the broker never takes a frame");
                        Fate::Never(why)
                    }
                };
                if let Some(id) = self.wire.resolve(token) {
                    endpoint.handle_acked(id, fate, now);
                }
            }
            Inbound::Up { resumed, max_frame } => {
                endpoint.handle_link(&LinkEvent::MaxFrame(max_frame), now);
                let marks_backlog = self.wire.marks_backlog();
                let up = LinkEvent::Up {
                    resumed,
                    marks_backlog,
                };
                endpoint.handle_link(&up, now);
                self.leases.begin(self.wire.leases());
            }
            Inbound::Subscribed { channel, granted } => {
                let event = if granted {
                    LinkEvent::Subscribed(channel)
                } else {
                    LinkEvent::SubscribeRefused(channel)
                };
                endpoint.handle_link(&event, now);
            }
            Inbound::CaughtUp => endpoint.handle_link(&LinkEvent::CaughtUp, now),
            Inbound::Gap(channel) => endpoint.handle_link(&LinkEvent::Gap(channel), now),
        }
    }

    fn start_leaving(&mut self, deadline: Duration) {
        let now = Instant::now();
        // A quarter of the time is kept for the farewell itself.
        self.phase = Phase::Flushing {
            until: now + deadline.mul_f32(0.75),
            deadline: now + deadline,
        };
        self.commands.close();
    }

    /// Moves the end of the client on; `Some` when it is reached.
    fn leave(&mut self) -> Option<bool> {
        match self.phase {
            Phase::Running => None,
            Phase::Flushing { until, deadline } => {
                let flushed = self.wire.is_flushed() && self.rows.is_idle();
                if flushed || Instant::now() >= until {
                    self.desk.endpoint.disconnect(self.now);
                    self.drain();
                    self.phase = Phase::Leaving { deadline };
                }
                None
            }
            Phase::Leaving { deadline } => {
                let closed = self.wire.is_closed() && self.rows.is_idle();
                (closed || Instant::now() >= deadline).then_some(closed)
            }
        }
    }
}
