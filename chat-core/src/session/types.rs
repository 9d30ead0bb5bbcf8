//! What the application hears and says about sessions: states, events, errors.

use crate::channel::Channel;
use crate::id::{ConvId, DeviceId, InviteId, UserId};
use crate::time::Timestamp;

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
    /// The application trusts the peer's device no longer.
    Distrusted,
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
    /// Another of our own devices blocked this peer, or lifts that; it holds here from now on (S5).
    BlockChanged {
        /// Whom.
        peer: UserId,
        /// Blocked, or no longer.
        blocked: bool,
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
