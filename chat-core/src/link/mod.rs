//! The connection: states, backoff with full jitter, resubscription, `CaughtUp` (rules S11–S14, Q7).
//!
//! Guarantees: after every connection the whole desired set is in place before `Connected` is
//! told (S12, S14), whatever the transport remembers; a broker that comes and goes is met with
//! growing pauses, because only a connection that caught up counts as a success; a report that
//! belongs to an earlier connection does no harm.

mod machine;
#[cfg(test)]
mod tests;

use core::fmt;
use core::time::Duration;

use crate::channel::Channel;
use crate::time::Timestamp;

pub use machine::Link;

/// What the application sees of the connection. `Connected` is not `CaughtUp` (S14).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// Opening a connection.
    Connecting {
        /// Attempts since the last success, from 1.
        attempt: u32,
    },
    /// Connected, every subscription confirmed; a backlog may still be arriving.
    Connected {
        /// The transport kept our session: nothing was missed there (S11, S12).
        resumed: bool,
    },
    /// The backlog is in: what is shown is current.
    CaughtUp,
    /// No connection.
    Disconnected {
        /// Since when.
        since: Timestamp,
        /// The next attempt.
        retry_at: Timestamp,
        /// What went wrong.
        reason: DownReason,
    },
    /// Gave up: the application must act (credentials, address).
    Failed {
        /// What went wrong.
        reason: DownReason,
    },
    /// Closed on request.
    Closed,
}

/// Why a connection ended or did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// The network or the broker went away.
    Lost,
    /// It did not come up in time.
    TimedOut,
    /// The broker refused us; trying again cannot help.
    Refused(String),
    /// Another connection of this device took over (S11).
    Conflict,
    /// The broker asks us to come back later.
    TryLater,
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the connection was lost"),
            Self::TimedOut => f.write_str("it did not answer in time"),
            Self::Refused(words) => write!(f, "it refused us: {words}"),
            Self::Conflict => f.write_str("another connection of this device took over"),
            Self::TryLater => f.write_str("it asks us to come back later"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// What the driver reports of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// The transport is connected.
    Up {
        /// It kept our session: subscriptions and queued frames are still there.
        resumed: bool,
        /// It will report [`LinkEvent::CaughtUp`] when the backlog is delivered.
        marks_backlog: bool,
    },
    /// The largest frame that the connection carries, in bytes. Comes before `Up`; until the next
    /// one it holds. Without any only the bounds of the wire format hold.
    MaxFrame(usize),
    /// The transport is gone; every frame in flight has an unknown fate.
    Down {
        /// Why.
        reason: DownReason,
        /// Do not try again earlier.
        retry_after: Option<Duration>,
    },
    /// A subscription is in place.
    Subscribed(Channel),
    /// A subscription was refused.
    SubscribeRefused(Channel),
    /// The backlog of all subscriptions has been delivered.
    CaughtUp,
    /// The transport knows that it dropped something on this channel.
    Gap(Channel),
    /// The network may be reachable again: try now (Q7).
    Reachable,
}

/// What the link wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkOutput {
    /// Open a connection.
    Connect,
    /// Close it.
    Disconnect,
    /// Ask for a channel.
    Subscribe(Channel),
    /// No longer.
    Unsubscribe(Channel),
    /// The state changed.
    State(LinkState),
    /// The broker refuses this channel for good.
    Refused(Channel),
}
