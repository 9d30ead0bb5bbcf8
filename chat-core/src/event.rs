//! What the application is told.

pub use crate::delivery::DeliveryEvent;
pub use crate::group::GroupEvent;
pub use crate::identity::IdentityEvent;
pub use crate::link::LinkState;
pub use crate::lobby::LobbyEvent;
pub use crate::presence::PresenceEvent;
pub use crate::session::SessionEvent;

use crate::channel::Channel;
use crate::id::UserId;
use crate::wire::DecodeError;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The connection changed state (rule S14).
    Link(LinkState),
    /// A chat request or a session.
    Session(SessionEvent),
    /// A message or what became of one.
    Delivery(DeliveryEvent),
    /// Somebody's presence.
    Presence(PresenceEvent),
    /// A group.
    Group(GroupEvent),
    /// A lobby.
    Lobby(LobbyEvent),
    /// A key was pinned or changed.
    Identity(IdentityEvent),
    /// A peer or a broker sent what it should not. Rate-limited: `count` says how many.
    PeerFault {
        /// Who signed it, when that is proven.
        from: Option<UserId>,
        /// Where it came.
        channel: Channel,
        /// What was wrong.
        fault: Fault,
        /// How many such since the last event.
        count: u64,
    },
}

/// What was wrong with something that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are no frame for us.
    Decode(DecodeError),
    /// The key is not trusted to speak for the user.
    Untrusted,
    /// The kind does not belong on this channel, or not from this sender.
    Misplaced,
    /// The sender exceeds its budget.
    Flood,
    /// The broker refuses this channel to us.
    Refused,
    /// A frame of ours is larger than the connection carries and was not sent. Messages are
    /// refused by `send` with [`SendError::TooLarge`](crate::delivery::SendError::TooLarge).
    TooLarge,
}
