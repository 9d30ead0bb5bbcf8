//! Presence: who is there, by lease, incarnation and merge (rules P1–P14, reliability section 3).

use core::time::Duration;

use crate::channel::Channel;
use crate::config::PresenceConfig;
use crate::effect::{Effects, RestoreError, Row};
use crate::id::{Epoch, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire;

/// What a user lets others see.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Said goodbye.
    Left,
    /// Fell silent; nobody said goodbye (P5).
    Lost,
    /// Nothing is known: we are cut off, or only an old record was seen (P7).
    Unknown,
    /// Away.
    Away,
    /// There, but idle.
    Idle,
    /// There.
    Active,
    /// There, not to be disturbed.
    DoNotDisturb,
}

/// A user as seen from here: a view over its devices (P1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceView {
    /// The best status over the user's devices.
    pub status: Status,
    /// What it was when we last knew, while `status` is `Unknown` (P7).
    pub last_known: Option<Status>,
    /// Status text.
    pub text: String,
    /// When the user was last active, rounded to a minute (P9).
    pub last_seen: Option<UnixMillis>,
    /// It keeps coming and going.
    pub unstable: bool,
}

/// Somebody's presence changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceEvent {
    /// One user's view changed.
    Changed {
        /// Who.
        user: UserId,
        /// How it looks now.
        view: PresenceView,
    },
    /// After our own outage: what changed meanwhile, in one event (P13).
    Resynced {
        /// Who is there now and was not.
        joined: Vec<UserId>,
        /// Who was there and is not.
        left: Vec<UserId>,
    },
}

/// Our own presence and everybody else's.
#[derive(Debug)]
pub struct PresenceMachine {}

impl PresenceMachine {
    /// Nobody known yet; `incarnation` is the delivery epoch (P2).
    pub fn new(_me: Sender, _incarnation: Epoch, _config: PresenceConfig, _rng: Rng) -> Self {
        unimplemented!()
    }

    /// Takes back a row of [`Table::Contacts`](crate::effect::Table::Contacts).
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, _row: &Row, _now: Now) -> Result<(), RestoreError> {
        unimplemented!()
    }

    /// Says how we are; `Left`, `Lost` and `Unknown` read as `Away`.
    pub fn set(&mut self, _status: Status, _text: &str, _now: Now) {
        unimplemented!()
    }

    /// The user did something: idle time starts anew (P10).
    pub fn touch(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Also publish on this lobby.
    pub fn enter(&mut self, _lobby: Channel, _now: Now) {
        unimplemented!()
    }

    /// No longer.
    pub fn exit(&mut self, _lobby: &Channel, _now: Now) {
        unimplemented!()
    }

    /// Follow `user` (the endpoint subscribes to its presence channel).
    pub fn watch(&mut self, _user: &UserId, _now: Now) {
        unimplemented!()
    }

    /// No longer.
    pub fn unwatch(&mut self, _user: &UserId, _now: Now) {
        unimplemented!()
    }

    /// The last will for the next connection: that connection's number and `seq = MAX` (P2).
    pub fn will(&self) -> wire::presence::Presence {
        unimplemented!()
    }

    /// Connected (again): publish after a random delay (P8), restart silence clocks.
    pub fn handle_up(&mut self, _now: Now) {
        unimplemented!()
    }

    /// The backlog is in: tell `Resynced` (P13).
    pub fn handle_caught_up(&mut self, _now: Now) {
        unimplemented!()
    }

    /// We are cut off: the others become `Unknown` (P7).
    pub fn handle_down(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Says goodbye before an orderly stop (P5).
    pub fn leave(&mut self, _now: Now) {
        unimplemented!()
    }

    /// A presence record. `live` is false for a last value of unknown age (reliability 3.2).
    pub fn handle_record(
        &mut self,
        _from: &Sender,
        _record: &wire::presence::Presence,
        _live: bool,
        _now: Now,
    ) {
        unimplemented!()
    }

    /// Any other verified frame from this device: it is alive (reliability 3.2).
    pub fn handle_sign_of_life(&mut self, _from: &Sender, _now: Now) {
        unimplemented!()
    }

    /// Somebody in `lobby` asks who is here: answer after a random delay.
    pub fn handle_seek(&mut self, _lobby: &Channel, _now: Now) {
        unimplemented!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, _now: Now) {
        unimplemented!()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        unimplemented!()
    }

    /// How `user` looks.
    pub fn view(&self, _user: &UserId) -> Option<PresenceView> {
        unimplemented!()
    }

    /// Everybody known.
    pub fn iter(&self) -> impl Iterator<Item = (&UserId, PresenceView)> {
        core::iter::empty()
    }

    /// How long our records hold.
    pub fn ttl(&self) -> Duration {
        unimplemented!()
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<PresenceEvent> {
        unimplemented!()
    }
}
