//! What one device remembers of its negotiation with one peer.
//!
//! Laws: our request never stands together with a session or with theirs; every session is
//! decided by the device that made its request, so no two records decide one thing (S1, S2, S3).

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::types::{CloseReason, SessionState};
use crate::channel::{Channel, TopicId};
use crate::id::{ConvId, DeviceId, InviteId, UserId};
use crate::time::UnixMillis;

/// Decided requests that are remembered per peer and direction; the oldest goes first (S15).
pub(super) const MAX_ENDS: usize = 32;
/// Devices per peer whose newest request is remembered; the oldest entry goes first.
pub(super) const MAX_HEARD: usize = 16;
/// Sessions per peer that we have left and the peer has not acknowledged; the oldest goes first.
pub(super) const MAX_CLOSINGS: usize = 4;

/// The secret of a request, kept out of logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret(pub(super) [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// How a request ended, remembered so that a late copy meets the same decision (S7, S15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    Cancelled,
    Expired,
    /// Closed, after it was a session or instead of becoming one.
    Closed,
    Superseded,
    /// A newer request of another of their devices took its place before anybody answered; it
    /// stands again when it is repeated and nothing else does. Not a decision: any end replaces it.
    Displaced,
    /// Refused, and the requester was told; the answer is repeated.
    Told(String),
    /// Refused without a word (S4).
    Silenced,
    /// Dealt with by another of our own devices (S8).
    Elsewhere,
}

impl End {
    /// The code in a `Gone` frame.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Cancelled => 1,
            Self::Expired => 2,
            Self::Superseded | Self::Displaced => 4,
            _ => 3,
        }
    }
}

/// The ends of the latest [`MAX_ENDS`] requests in one direction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ends(pub(super) VecDeque<(InviteId, End)>);

impl Ends {
    pub(super) fn of(&self, invite: InviteId) -> Option<&End> {
        self.0.iter().find(|(id, _)| *id == invite).map(|(_, e)| e)
    }

    /// Remembers `end`; the first decision on a request stands.
    pub(super) fn note(&mut self, invite: InviteId, end: End) {
        match self.0.iter_mut().find(|(id, _)| *id == invite) {
            Some((_, known)) if *known == End::Displaced => return *known = end,
            Some(_) => return,
            None => {}
        }
        if self.0.len() == MAX_ENDS {
            self.0.pop_front();
        }
        self.0.push_back((invite, end));
    }

    /// What was displaced is decided now: it never stands again.
    pub(super) fn settle_displaced(&mut self) {
        for (_, end) in &mut self.0 {
            if *end == End::Displaced {
                *end = End::Superseded;
            }
        }
    }

    pub(super) fn forget(&mut self, invite: InviteId) {
        self.0.retain(|(id, _)| *id != invite);
    }
}

/// Our standing request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ours {
    pub(super) invite: InviteId,
    pub(super) secret: Secret,
    pub(super) note: String,
    pub(super) sent_at: u64,
    pub(super) ttl_ms: u64,
    pub(super) expires: UnixMillis,
}

/// Their standing request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Theirs {
    pub(super) invite: InviteId,
    pub(super) secret: Secret,
    pub(super) device: DeviceId,
    pub(super) note: String,
    pub(super) expires: UnixMillis,
    /// Whether this process has told `Requested`; not stored.
    pub(super) shown: bool,
}

/// An open session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Session {
    pub(super) invite: InviteId,
    pub(super) secret: Secret,
    /// True when our own request opened it: then our record decides.
    pub(super) ours: bool,
    /// The peer's joined devices, ascending (S8).
    pub(super) devices: Vec<DeviceId>,
    /// We accepted and the requester has not confirmed: `Accept` is repeated, at most until then.
    pub(super) unconfirmed: Option<UnixMillis>,
    /// Our own crossing request, which stands again when theirs turns out to be void (S1, S2).
    pub(super) over: Option<Ours>,
}

/// A session we left: `Close` is repeated to these devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Closing {
    pub(super) invite: InviteId,
    pub(super) reason: String,
    pub(super) waiting: Vec<DeviceId>,
    pub(super) until: UnixMillis,
}

/// Refusals in a row and when the next request may come (S6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CoolDown {
    pub(super) refusals: u32,
    pub(super) until: UnixMillis,
}

impl CoolDown {
    pub(super) fn refuse(&mut self, first: Duration, now: UnixMillis) {
        let factor = 1u32.checked_shl(self.refusals).unwrap_or(u32::MAX);
        self.refusals = self.refusals.saturating_add(1);
        self.until = now.plus(first.saturating_mul(factor));
    }
}

/// Everything about one peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Record {
    pub(super) out: Option<Ours>,
    pub(super) inn: Option<Theirs>,
    pub(super) session: Option<Session>,
    pub(super) closings: Vec<Closing>,
    /// How our requests ended.
    pub(super) ours: Ends,
    /// How their requests ended.
    pub(super) theirs: Ends,
    /// The newest request of each device, by its `sent_at`.
    pub(super) heard: Vec<(DeviceId, u64)>,
    /// The session that ended last.
    pub(super) ended: Option<InviteId>,
    pub(super) last: Option<CloseReason>,
    pub(super) blocked: bool,
    /// When that was decided, on whichever of our devices; zero: never.
    pub(super) block_stamp: u64,
    /// We asked this peer or had a session with it: no stranger, not evicted.
    pub(super) contact: bool,
    /// The peer refuses us.
    pub(super) refused_us: CoolDown,
    /// We refuse the peer.
    pub(super) refused_them: CoolDown,
    /// `sent_at` of our newest request.
    pub(super) last_sent: u64,
    /// Repeats since the last news; not stored.
    pub(super) attempts: u32,
    /// When it changed last, for eviction; not stored.
    pub(super) touched: u64,
}

impl Record {
    pub(super) fn state(&self, conv: ConvId, me: &UserId) -> SessionState {
        if let Some(session) = &self.session {
            return SessionState::Active {
                invite: session.invite,
                channel: session.channel(conv),
                devices: session.devices.clone(),
            };
        }
        if let Some(out) = &self.out {
            return SessionState::Inviting { invite: out.invite };
        }
        if let Some(inn) = &self.inn {
            return SessionState::Invited { invite: inn.invite };
        }
        match &self.last {
            Some(CloseReason::Left { by, .. }) if by == me && !self.closings.is_empty() => {
                SessionState::Closing
            }
            Some(why) => SessionState::Closed(why.clone()),
            None => SessionState::Idle,
        }
    }

    /// True when something must be repeated until it is answered.
    pub(super) fn repeats(&self) -> bool {
        self.out.is_some()
            || !self.closings.is_empty()
            || self
                .session
                .as_ref()
                .is_some_and(|s| s.unconfirmed.is_some())
    }

    /// True when a session is open and nothing about it is repeated.
    pub(super) fn is_confirmed(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|s| s.unconfirmed.is_none())
    }

    /// When something lapses.
    pub(super) fn lapses(&self, up: bool) -> Option<UnixMillis> {
        let session = self.session.as_ref().and_then(|s| s.unconfirmed);
        let closings = self.closings.iter().map(|c| c.until);
        // While we are away nobody can answer.
        closings
            .chain(session)
            .filter(|_| up)
            .chain(self.out.as_ref().map(|o| o.expires))
            .chain(self.inn.as_ref().map(|i| i.expires))
            .min()
    }

    /// True when nothing is under way and the peer is a stranger: the record may go.
    pub(super) fn is_evictable(&self) -> bool {
        !self.contact && !self.blocked && self.inn.is_none() && self.is_settled()
    }

    /// True when neither a request of ours, a session nor a farewell is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.out.is_none() && self.session.is_none() && self.closings.is_empty()
    }

    /// True when we never asked this peer nor had a session with it: it is told nothing.
    pub(super) fn is_stranger(&self) -> bool {
        !self.contact && self.ended.is_none() && self.ours.0.is_empty()
    }

    /// True for a request from somebody we never dealt with.
    pub(super) fn is_pending_stranger(&self) -> bool {
        !self.contact && self.inn.is_some()
    }
}

impl Session {
    /// The private channel: nobody can compute it from the pair alone (S10).
    pub(super) fn channel(&self, conv: ConvId) -> Channel {
        let mut hash = Sha256::new();
        hash.update(b"chat/v1/topic\0");
        hash.update(conv.0);
        hash.update(self.invite.0);
        hash.update(self.secret.0);
        let digest: [u8; 32] = hash.finalize().into();
        let (topic, _) = digest
            .split_first_chunk()
            .expect("a digest of 32 bytes has a first 16");
        Channel::Conv(TopicId(*topic))
    }
}
