//! The endpoint: one device of one user, all machines composed behind one ordered output queue.
//!
//! Guarantees:
//! - the rows of one input are one [`Output::Persist`], queued before every frame and event of
//!   that input; what must wait for it says so in `after` (reliability 2.4);
//! - no frame leaves before this life's epoch is durable (reliability 2.2);
//! - network inputs never fail: what is wrong is dropped, counted and told as
//!   [`Event::PeerFault`](crate::Event::PeerFault);
//! - undrained output is legal; while any is queued, [`Endpoint::poll_timeout`] means "now".
//!
//! The files: `open` starts from stored rows, `commands` is what an application asks for,
//! `inbound` checks and routes frames, `drain` turns machine effects into outputs and tells the
//! other machines, `own` keeps what our own devices share, `faults` counts what was wrong, `views` answers questions.

mod commands;
mod drain;
mod faults;
mod inbound;
mod open;
mod own;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use drain::Staged;
use faults::Faults;

use crate::channel::Channel;
use crate::config::ConfigError;
use crate::delivery::Delivery;
use crate::effect::{Carried, Outgoing, RestoreError, RowOp};
use crate::group::Groups;
use crate::id::{ConvId, DeviceId, GroupId, UserId};
use crate::identity::{Budget, Pins, PublicKey, Sender, Signer, Verifier};
use crate::link::{Link, LinkEvent};
use crate::lobby::Lobbies;
use crate::output::{Fate, Output, PersistId, TransmitId};
use crate::presence::{Companies, PresenceMachine};
use crate::rng::Rng;
use crate::sealer::Sealer;
use crate::session::Sessions;
use crate::slots::{Slot, Slots};
use crate::time::{Clock, Timestamp, UnixMillis};

/// Frames kept for the next connection. Beyond it the oldest goes: its machine repeats it.
const MAX_PARKED: usize = 1_024;
/// Broker acknowledgements awaited. Beyond it the oldest counts as unknown.
const MAX_TRACKED: usize = 4_096;

/// Who an endpoint is and how it proves that.
#[derive(Debug)]
pub struct Identity {
    /// The name others reach it by.
    pub user: UserId,
    /// Its device key.
    pub signer: Arc<dyn Signer>,
    /// Checks everybody's signatures.
    pub verifier: Arc<dyn Verifier>,
    /// Seals message bodies.
    pub sealer: Box<dyn Sealer>,
}

/// Why an endpoint did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A stored row cannot be read.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The store belongs to another user or device.
    #[error("the store belongs to another identity; open it with that one or use an empty store")]
    ForeignStore,
}

/// Counters since the endpoint opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames that arrived.
    pub frames_in: u64,
    /// Frames handed to the transport.
    pub frames_out: u64,
    /// Frames dropped because of a [`Fault`](crate::Fault).
    pub faults: u64,
    /// Frames that waited for a connection and were given up at the bound.
    pub parked_dropped: u64,
    /// Messages in the outbox now.
    pub outbox: u64,
    /// Bytes in the outbox now.
    pub outbox_bytes: u64,
    /// Rows written or deleted.
    pub rows: u64,
}

/// The private channels of one open session. While a channel is being replaced, both are heard
/// (S10).
#[derive(Debug)]
struct Topic {
    peer: UserId,
    current: Channel,
    former: Option<Channel>,
}

/// One device of one user.
#[derive(Debug)]
pub struct Endpoint {
    me: Sender,
    signer: Arc<dyn Signer>,
    verifier: Arc<dyn Verifier>,
    /// Our other devices that were heard.
    siblings: BTreeMap<DeviceId, PublicKey>,
    rng: Rng,
    clock: Clock,
    pins: Pins,
    budget: Budget,
    sessions: Sessions,
    presence: PresenceMachine,
    company: Companies,
    lobbies: Lobbies,
    delivery: Delivery,
    groups: Groups,
    link: Link,
    topics: Slots<ConvId, Topic>,
    /// Which session a private channel belongs to.
    private: Slots<Channel, Slot<ConvId>>,
    /// Groups that list us, and the membership whose messages are under way.
    rooms: BTreeMap<GroupId, Option<[u8; 16]>>,
    faults: Faults,
    stats: Stats,
    rows: Vec<RowOp>,
    staged: Vec<Staged>,
    parked: VecDeque<Outgoing>,
    tracked: BTreeMap<TransmitId, Carried>,
    out: VecDeque<Output>,
    next_persist: u64,
    durable: Option<PersistId>,
    epoch_row: PersistId,
    /// The link wants a connection, and the epoch that its will names is not durable yet.
    connect_waits: bool,
    next_transmit: u64,
    /// What the connection carries, or the last one did.
    max_frame: usize,
}

impl Endpoint {
    /// The driver's report on the connection.
    pub fn handle_link(&mut self, event: &LinkEvent, now: Timestamp) {
        let now = self.clock.read(now);
        if let LinkEvent::MaxFrame(bytes) = event {
            self.max_frame = *bytes;
            self.delivery.handle_max_frame(*bytes, now);
        }
        if let LinkEvent::Gap(channel) = event {
            match channel {
                Channel::Conv(_) => {
                    if let Some(topic) = self.private.get(channel).copied() {
                        let conv = *self.topics.key(topic);
                        self.delivery.handle_gap(conv, now);
                    }
                }
                Channel::Group(group) => self.delivery.handle_gap(ConvId::from(*group), now),
                Channel::Inbox(_) => self.delivery.handle_inbox_gap(now),
                Channel::Presence(_) | Channel::Lobby(_) => {}
            }
        }
        self.link.handle_link(event, now);
        self.settle(now);
    }

    /// The fate of a transmit.
    pub fn handle_acked(&mut self, id: TransmitId, fate: Fate, now: Timestamp) {
        let now = self.clock.read(now);
        if let Some(carried) = self.tracked.remove(&id) {
            self.delivery.handle_handed_off(carried, fate, now);
            self.settle(now);
        }
    }

    /// Everything up to and including `id` is durable.
    pub fn handle_persisted(&mut self, id: PersistId, now: Timestamp) {
        self.clock.advance(now);
        self.durable = self.durable.max(Some(id));
        self.delivery.handle_persisted(id);
        if core::mem::take(&mut self.connect_waits) {
            self.connect_durably();
            let now = self.clock.read(now);
            self.settle(now);
        }
    }

    /// Time passed. Harmless when nothing is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let now = self.clock.read(now);
        self.link.handle_timeout(now);
        self.sessions.handle_timeout(now);
        self.groups.handle_timeout(now);
        self.delivery.handle_timeout(now);
        self.presence.handle_timeout(now);
        self.lobbies.handle_timeout(now);
        self.settle(now);
    }

    /// The wall clock reads `wall` at `now`: call it when the system clock was set, and after a
    /// suspend.
    pub fn handle_wall(&mut self, wall: UnixMillis, now: Timestamp) {
        self.clock.set_wall(wall, now);
        self.handle_timeout(now);
    }

    /// The next thing to do; see [`Output`]. Messages leave last: those that became durable since
    /// the last time share frames and signatures.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.out.is_empty() && self.delivery.is_ready() {
            let now = self.clock.read(self.clock.now());
            self.delivery.flush(now);
            self.settle(now);
        }
        self.out.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest; a past time (read it as "now") while
    /// outputs are queued.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if !self.out.is_empty() || self.delivery.is_ready() {
            return Some(self.clock.now());
        }
        [
            self.link.poll_timeout(),
            self.sessions.poll_timeout(),
            self.groups.poll_timeout(),
            self.delivery.poll_timeout(),
            self.presence.poll_timeout(),
            self.company.poll_timeout(),
            self.lobbies.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
