//! 1:1 sessions: request, accept, reject, cancel, expire, close, block (rules S1–S10, S15).

use crate::channel::Channel;
use crate::config::SessionConfig;
use crate::effect::{Effects, RestoreError, Row};
use crate::id::{ConvId, DeviceId, InviteId, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use crate::wire::Body;

/// Why a session or a request is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// Somebody left the session.
    Left {
        /// Who.
        by: UserId,
        /// In their words.
        reason: String,
    },
    /// The request was refused, and we were told (S4).
    Rejected {
        /// In their words.
        reason: String,
    },
    /// Nobody answered in time (S3).
    Expired,
    /// The requester took it back (S2).
    Cancelled,
    /// A crossing or newer request took its place (S1).
    Superseded,
    /// We blocked the peer (S5).
    Blocked,
    /// The other side has no such session any more.
    Gone,
    /// Another of our own devices dealt with it (S8).
    AnsweredElsewhere {
        /// True when it was accepted there.
        accepted: bool,
    },
}

/// Where the negotiation with one peer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// Nothing under way.
    Idle,
    /// We asked.
    Inviting {
        /// Our request.
        invite: InviteId,
    },
    /// They asked.
    Invited {
        /// Their request.
        invite: InviteId,
    },
    /// Both said yes.
    Active {
        /// The request that opened it.
        invite: InviteId,
        /// Its private channel (S10).
        channel: Channel,
        /// The peer's joined devices (S8).
        devices: Vec<DeviceId>,
    },
    /// We left, the peer has not confirmed.
    Closing,
    /// Over.
    Closed(CloseReason),
}

/// How a request is refused (S4).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// Indistinguishable from "not seen".
    Silent,
    /// The requester is told.
    Told {
        /// In our words.
        reason: String,
    },
}

/// What happened in a negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A peer asks to chat; answer with `accept` or `reject`.
    Requested {
        /// Who asks.
        peer: UserId,
        /// The request.
        invite: InviteId,
        /// In their words.
        note: String,
    },
    /// A request that was shown is off the table without our answer (S2, S3, S8, S9).
    Withdrawn {
        /// Who asked.
        peer: UserId,
        /// The request.
        invite: InviteId,
        /// Why.
        why: CloseReason,
    },
    /// The session is on. Told again with more `devices` when another device joins (S8).
    Opened {
        /// The other person.
        peer: UserId,
        /// The conversation.
        conv: ConvId,
        /// Its private channel (S10).
        channel: Channel,
        /// The peer's joined devices.
        devices: Vec<DeviceId>,
        /// True when our own request opened it.
        ours: bool,
    },
    /// The session, or our request, is over.
    Closed {
        /// The other person.
        peer: UserId,
        /// The conversation.
        conv: ConvId,
        /// Why.
        why: CloseReason,
    },
}

/// Why a request was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// One cannot chat with oneself.
    #[error("the peer is yourself; name somebody else")]
    Oneself,
    /// There is a session with this peer.
    #[error("a session with this peer is open; send in it")]
    AlreadyOpen,
    /// A request of ours is under way.
    #[error("a request to this peer is under way; wait for its answer or cancel it")]
    AlreadyAsked {
        /// It.
        invite: InviteId,
    },
    /// The peer is blocked here.
    #[error("the peer is blocked; unblock it first")]
    Blocked,
    /// The peer refused lately (S6).
    #[error("the peer refused; ask again after {until}")]
    CoolingDown {
        /// When a new request is allowed.
        until: Timestamp,
    },
    /// The note is too long.
    #[error("the note has {bytes} bytes; shorten it to 512")]
    NoteTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many peers.
    #[error("{max} peers are remembered; close or forget one first")]
    TooManyPeers {
        /// The limit.
        max: usize,
    },
}

/// Why an answer, a cancel or a close was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// No such request stands.
    #[error("no such request stands; it was answered, cancelled or has expired")]
    NoSuchInvite,
    /// No session with this peer.
    #[error("there is no session with this peer; request one")]
    NoSession,
    /// The text is too long.
    #[error("the text has {bytes} bytes; shorten it to 512")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// All 1:1 negotiations of one device.
#[derive(Debug)]
pub struct Sessions {}

impl Sessions {
    /// No sessions yet.
    pub fn new(_me: Sender, _config: SessionConfig, _rng: Rng) -> Self {
        unimplemented!()
    }

    /// Takes back a row of [`Table::Sessions`](crate::effect::Table::Sessions). Call
    /// [`Self::resume`] once after the last one.
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, _row: &Row, _now: Now) -> Result<(), RestoreError> {
        unimplemented!()
    }

    /// After the restored rows: arms timers and tells `Opened` again for every open session, and
    /// `Requested` for every unanswered request.
    pub fn resume(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Asks `peer` to chat. When the peer's own request stands, both have consented: the session
    /// opens at once (S1).
    ///
    /// # Errors
    /// [`RequestError`] says what stands in the way.
    pub fn request(
        &mut self,
        _peer: &UserId,
        _note: &str,
        _now: Now,
    ) -> Result<InviteId, RequestError> {
        unimplemented!()
    }

    /// Says yes to a standing request; returns the conversation.
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it no longer stands.
    pub fn accept(&mut self, _invite: InviteId, _now: Now) -> Result<ConvId, AnswerError> {
        unimplemented!()
    }

    /// Says no to a standing request (S4).
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reject(
        &mut self,
        _invite: InviteId,
        _how: &Rejection,
        _now: Now,
    ) -> Result<(), AnswerError> {
        unimplemented!()
    }

    /// Takes our own request back (S2).
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it no longer stands.
    pub fn cancel(&mut self, _invite: InviteId, _now: Now) -> Result<(), AnswerError> {
        unimplemented!()
    }

    /// Leaves the session with `peer`.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn close(&mut self, _peer: &UserId, _reason: &str, _now: Now) -> Result<(), AnswerError> {
        unimplemented!()
    }

    /// Blocks `peer`, also before any contact; says nothing to anybody (S5).
    pub fn block(&mut self, _peer: &UserId, _now: Now) {
        unimplemented!()
    }

    /// Lifts a block.
    pub fn unblock(&mut self, _peer: &UserId, _now: Now) {
        unimplemented!()
    }

    /// True when `peer` is blocked.
    pub fn is_blocked(&self, _peer: &UserId) -> bool {
        unimplemented!()
    }

    /// A session frame (kinds 0x10–0x18) from `from`, already verified and on our inbox.
    pub fn handle_frame(&mut self, _from: &Sender, _body: &Body, _now: Now) {
        unimplemented!()
    }

    /// Connected (again): unanswered frames are repeated now.
    pub fn handle_up(&mut self, _now: Now) {
        unimplemented!()
    }

    /// The backlog is in: requests that still stand are told (S9).
    pub fn handle_caught_up(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Cut off: what arrives after the next connection may be old, so requests are held back until
    /// the backlog is in (S9); nothing is repeated meanwhile (Q7).
    pub fn handle_down(&mut self, _now: Now) {
        unimplemented!()
    }

    /// True when the device is joined to an open session with us.
    pub fn is_joined(&self, _from: &Sender) -> bool {
        unimplemented!()
    }

    /// Message traffic of `conv` came from a device that is in no session with us: tell it `Gone`
    /// so that it stops (S2), unless that would tell a stranger or a blocked peer anything (S4, S5).
    pub fn handle_stray(&mut self, _from: &Sender, _conv: ConvId, _now: Now) {
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

    /// Where the negotiation with `peer` stands.
    pub fn state(&self, _peer: &UserId) -> SessionState {
        unimplemented!()
    }

    /// Every peer with something other than `Idle`.
    pub fn iter(&self) -> impl Iterator<Item = (&UserId, SessionState)> {
        core::iter::empty()
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<SessionEvent> {
        unimplemented!()
    }
}
