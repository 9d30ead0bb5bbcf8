//! What the endpoint wants its driver to do, as one ordered queue.

use core::time::Duration;

use bytes::Bytes;

use crate::channel::{Channel, Class};
use crate::delivery::Unsendable;
use crate::effect::RowOp;
use crate::event::Event;

/// Names one [`Output::Persist`]; ids grow by one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PersistId(pub u64);

/// Names one [`Transmit`]; ids grow by one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransmitId(pub u64);

/// A signed frame for the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Reported back in [`Endpoint::handle_acked`](crate::Endpoint::handle_acked).
    pub id: TransmitId,
    /// Where to.
    pub channel: Channel,
    /// The frame; a retransmit shares nothing, a fan-out may share it.
    pub bytes: Bytes,
    /// How to treat it.
    pub class: Class,
    /// After this time it is worth nothing.
    pub ttl: Option<Duration>,
    /// Keep it as the channel's last value where the transport can.
    pub last_value: bool,
    /// For a broker's dedup window: differs between attempts (semantics 2.0, "Dedup").
    pub dedup: Option<[u8; 16]>,
    /// Must not leave before this is durable.
    pub after: Option<PersistId>,
}

/// What became of a [`Transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The broker acknowledged it.
    Taken,
    /// The broker refused this copy, or nobody can say: what needs it is sent again.
    NotTaken,
    /// The broker will never take it as it is (Q2).
    Never(Unsendable),
}

/// The frame a broker publishes when our connection dies (rule P2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub channel: Channel,
    /// The signed frame.
    pub bytes: Bytes,
}

/// One thing for the driver to do. Obey them in order; `after` says what must be durable first,
/// and is the only reason to hold one back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Output {
    /// Store these rows in one transaction, then call
    /// [`Endpoint::handle_persisted`](crate::Endpoint::handle_persisted). A driver may join
    /// several into one fsync, in order. A failed fsync means: stop.
    Persist {
        /// Its id.
        id: PersistId,
        /// The rows.
        rows: Vec<RowOp>,
    },
    /// Hand a frame to the transport; report its fate with
    /// [`Endpoint::handle_acked`](crate::Endpoint::handle_acked).
    Transmit(Transmit),
    /// Ask the transport to deliver this channel.
    Subscribe(Channel),
    /// No longer.
    Unsubscribe(Channel),
    /// Open a connection with this last will.
    Connect {
        /// Published by the broker when the connection dies, where it can.
        will: Option<Will>,
    },
    /// Close the connection.
    Disconnect,
    /// Tell the application.
    Event {
        /// What happened.
        event: Event,
        /// Must not be told before this is durable.
        after: Option<PersistId>,
    },
}
