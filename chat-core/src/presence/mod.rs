//! Presence: who is there, by lease, incarnation and merge (rules P1–P14, reliability section 3).
//!
//! Each device publishes records of itself, ordered by (incarnation, connection, sequence); the
//! greatest wins, whatever order they arrive in (P2). A record is a lease: every observer lets it
//! run out by its own clock (P3). Guarantees: `Left`, `Lost` and `Unknown` are different things
//! and only the device's own goodbye makes it `Left`; a last will of an earlier connection changes
//! nothing; our own outage makes nobody offline (P7); everything works by beats alone where the
//! transport has neither a last will nor a last value (P12).
//!
//! Above [`PresenceConfig::crowd`] people the application is told counts and a sample instead of
//! everybody, and in lobbies everybody speaks less often, so that neither events nor deliveries
//! grow with the square of their number (P11). A follower's partition that heals is one event
//! (P13). Who of a group is here is told apart: [`Companies`]. A status text runs out by itself at every observer (P1).
//!
//! [`PresenceConfig::crowd`]: crate::config::PresenceConfig::crowd

mod company;
mod following;
mod machine;
mod own;
mod person;
mod record;
mod rows;
mod telling;
#[cfg(test)]
mod tests;

use crate::id::{GroupId, UserId};
use crate::time::UnixMillis;

pub use company::{Companies, Follow};
pub use machine::PresenceMachine;

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

impl Status {
    /// True for somebody who is there.
    pub const fn is_here(self) -> bool {
        matches!(
            self,
            Self::Away | Self::Idle | Self::Active | Self::DoNotDisturb
        )
    }
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
    /// After our own outage, or after a partition that had cut off several others at once: what
    /// changed, in one event (P13). Those named here get no `Changed`; read their views.
    Resynced {
        /// Who is there now and was not. After our own outage a return within `rejoin` is told as
        /// `Changed` (P4).
        joined: Vec<UserId>,
        /// Who was there and is not.
        left: Vec<UserId>,
    },
    /// More people than `crowd` are known: how many are how, and some of those who changed since
    /// the last one (P11). At most once per `crowd_every`; whoever changed is in a sample in the
    /// end, unless it changed back.
    Crowd {
        /// How many are how.
        counts: Counts,
        /// At most `crowd_sample` people, those that are followed first. They get no `Changed`.
        sample: Vec<(UserId, PresenceView)>,
    },
    /// The members of a group that is watched (P11): told with every change up to `crowd` members,
    /// above that at most once per `crowd_every`.
    Room {
        /// Which.
        group: GroupId,
        /// How many users are in, ourselves included.
        members: u32,
        /// How many of them are how.
        counts: Counts,
        /// Those that changed, or some of them in a large group.
        sample: Vec<(UserId, PresenceView)>,
    },
}

/// Who of a group is here (P11).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomPresence {
    /// How many users are in, ourselves included.
    pub members: u32,
    /// How many of them are how; all unknown before the leader of a large group said something.
    pub counts: Counts,
    /// Every member by name up to `crowd`; above that, those whom the leader named last.
    pub people: Vec<(UserId, PresenceView)>,
    /// True when `people` are all members.
    pub whole: bool,
}

/// How many people are how (P11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each counts the status of that name")]
pub struct Counts {
    pub active: u32,
    pub idle: u32,
    pub away: u32,
    pub do_not_disturb: u32,
    pub left: u32,
    pub lost: u32,
    pub unknown: u32,
}

impl Counts {
    /// How many are there.
    pub const fn here(&self) -> u32 {
        self.active + self.idle + self.away + self.do_not_disturb
    }

    fn add(&mut self, status: Status) {
        *match status {
            Status::Active => &mut self.active,
            Status::Idle => &mut self.idle,
            Status::Away => &mut self.away,
            Status::DoNotDisturb => &mut self.do_not_disturb,
            Status::Left => &mut self.left,
            Status::Lost => &mut self.lost,
            Status::Unknown => &mut self.unknown,
        } += 1;
    }
}
