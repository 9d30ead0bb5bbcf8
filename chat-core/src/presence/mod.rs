//! Presence: who is there, by lease, incarnation and merge (rules P1–P14, reliability section 3).
//!
//! Each device publishes records of itself, ordered by (incarnation, connection, sequence); the
//! greatest wins, whatever order they arrive in (P2). A record is a lease: every observer lets it
//! run out by its own clock (P3). Guarantees: `Left`, `Lost` and `Unknown` are different things
//! and only the device's own goodbye makes it `Left`; a last will of an earlier connection changes
//! nothing; our own outage makes nobody offline (P7); everything works by beats alone where the
//! transport has neither a last will nor a last value (P12).
//!
//! A lobby in which everybody beats costs N² deliveries: keep it to some hundred people, or raise
//! `beat` and `ttl` with its size (P11).

mod machine;
mod own;
mod person;
mod record;
#[cfg(test)]
mod tests;

use crate::id::UserId;
use crate::time::UnixMillis;

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
    /// After our own outage: what changed meanwhile, in one event (P13). Those named here get no
    /// `Changed`; read their views.
    Resynced {
        /// Who is there now and was not; a return within `rejoin` is told as `Changed` (P4).
        joined: Vec<UserId>,
        /// Who was there and is not.
        left: Vec<UserId>,
    },
}
