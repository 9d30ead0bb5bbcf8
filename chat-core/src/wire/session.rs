//! Frames of the 1:1 negotiation (rules S1–S10). They travel on inboxes; `Close` and `CloseAck`
//! too, so that they arrive when the private topic is already gone.

use serde::{Deserialize, Serialize};

use super::{BoundedBytes, BoundedStr, BoundedVec};

/// The most devices of one person in one session (S8).
pub const MAX_JOINED: usize = 16;

/// "May I talk with you?" Carries the secret from which the private topic is derived (S10); the
/// debug form leaves it out, so that it enters no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Random; the lower of two crossing requests sets the parameters (S1).
    pub invite: [u8; 16],
    /// Mixed into the private topic (S10).
    pub secret: [u8; 32],
    /// Whom it is for, so that a copy on another inbox is refused.
    pub to: BoundedStr<256>,
    /// A line of text shown with the request.
    pub note: BoundedStr<512>,
    /// Milliseconds from `sent_at` until it lapses (S9).
    pub ttl_ms: u64,
    /// The requester's wall clock, for display and ageing in mailboxes; grows from each request
    /// of a device to its next, so that a late copy of an older one is known as such.
    pub sent_at: u64,
}

impl core::fmt::Debug for Request {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Request")
            .field("invite", &self.invite)
            .field("to", &self.to)
            .field("note", &self.note)
            .field("ttl_ms", &self.ttl_ms)
            .field("sent_at", &self.sent_at)
            .finish_non_exhaustive()
    }
}

/// "Yes." Repeated until `Confirm` or `Gone` answers it (S2, S3, S7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The request it answers.
    pub invite: [u8; 16],
    /// The device that made the request: its record decides, its siblings stay silent.
    pub inviter: [u8; 32],
    /// The answering device's own crossing request, which this acceptance replaces (S1).
    pub over: Option<[u8; 16]>,
}

/// The requester's record says the session is on; names every device that is joined (S8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// The request it confirms.
    pub invite: [u8; 16],
    /// The devices that are joined, in ascending order; the first leads (S8).
    pub joined: BoundedVec<[u8; 32], MAX_JOINED>,
}

/// "No", told to the requester. A silent rejection sends nothing (S4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The request it answers.
    pub invite: [u8; 16],
    /// A line of text.
    pub reason: BoundedStr<512>,
}

/// The requester takes its request back (S2, S9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The request.
    pub invite: [u8; 16],
}

/// The answer to an `Accept` that came too late (S2, S3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The request.
    pub invite: [u8; 16],
    /// 1 cancelled, 2 expired, 3 closed, 4 superseded; unknown codes read as closed.
    pub why: u8,
}

/// To one's own other devices: the request was dealt with here (S8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Who made the request.
    pub peer: BoundedStr<256>,
    /// The request.
    pub invite: [u8; 16],
    /// True when it was accepted, false when it was rejected.
    pub accepted: bool,
}

/// "I leave this session."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The request that opened the session.
    pub invite: [u8; 16],
    /// A line of text.
    pub reason: BoundedStr<512>,
}

/// Answers `Close`, also for a session that is unknown here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseAck {
    /// The request that opened the session.
    pub invite: [u8; 16],
}

/// To one's own other devices: here I am, this is my key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnHello {
    /// Say so too, and tell me whom you block.
    pub ask: bool,
}

/// To one of one's own other devices: whom this one blocks, sealed, so that nobody who reads the
/// inbox learns of it (S5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// The device that can open it.
    pub to: [u8; 32],
    /// Never used twice between two devices.
    pub nonce: [u8; 24],
    /// A list of [`BlockMark`], padded.
    pub sealed: BoundedBytes<8192>,
}

/// Somebody is blocked, or no longer; the later mark counts. Travels inside [`Blocks`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMark {
    /// Whom it is about.
    pub peer: BoundedStr<256>,
    /// When, in ms by the clock of the device that decided, later than what it knew.
    pub stamp: u64,
    /// Blocked, or no longer.
    pub blocked: bool,
}
