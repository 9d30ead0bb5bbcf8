//! What a machine wants done: rows to store, frames to send, events to tell. A machine never acts;
//! it queues effects, and the endpoint (or a test) drains them in order.
//!
//! Guarantees: order is kept; a frame or event marked `gated` must not leave before every row
//! queued so far is durable (reliability 2.4).

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::channel::{Channel, Class};
use crate::id::{MessageId, Seq};
use crate::wire::Body;

/// The tables of a store. A store keeps them apart and returns all but the on-demand ones
/// ([`Table::is_on_demand`]) when an endpoint opens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Table {
    /// Epoch, incarnation, settings.
    Meta = 1,
    /// Which keys speak for which user.
    Pins = 2,
    /// One row per peer with a session, an invite or a block.
    Sessions = 3,
    /// Per conversation: counters and cursors.
    Conversations = 4,
    /// Messages that some recipient has not acknowledged.
    Outbox = 5,
    /// Per incoming stream: watermark, window, retired epochs.
    Streams = 6,
    /// Delivered to the inbox, not yet acknowledged by the application.
    Inbox = 7,
    /// Per group: promises, requests, settings.
    Groups = 8,
    /// Group log entries, as signed.
    Chain = 9,
    /// Contacts: last known presence.
    Contacts = 10,
    /// Everything a conversation shows, in display order. Read on demand.
    Timeline = 11,
    /// Poison items with their cause. Read on demand.
    DeadLetters = 12,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 12] = [
        Self::Meta,
        Self::Pins,
        Self::Sessions,
        Self::Conversations,
        Self::Outbox,
        Self::Streams,
        Self::Inbox,
        Self::Groups,
        Self::Chain,
        Self::Contacts,
        Self::Timeline,
        Self::DeadLetters,
    ];

    /// True for tables that grow with history: they are not loaded when an endpoint opens.
    pub const fn is_on_demand(self) -> bool {
        matches!(self, Self::Timeline | Self::DeadLetters)
    }
}

/// A change to one row. The rows of one [`Persist`](crate::Output::Persist) are one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RowOp {
    /// Insert or replace.
    Put {
        /// The table.
        table: Table,
        /// The key; rows of a table are ordered by it.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Remove; a missing row is fine.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Bytes,
    },
}

/// A stored row, handed back when an endpoint opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// A stored row that its machine cannot read. The store is damaged or of a later version; nothing
/// is dropped, the endpoint refuses to open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "row {key:02x?} of {table:?} does not decode; restore a backup or use the version that wrote it"
)]
pub struct RestoreError {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: Bytes,
}

impl RestoreError {
    /// The error for `row`.
    pub fn of(row: &Row) -> Self {
        Self {
            table: row.table,
            key: row.key.clone(),
        }
    }
}

/// Messages of one stream that travel in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The first of them.
    pub first: MessageId,
    /// Which copy of the first this is. No two frames have the first message and the attempt in
    /// common.
    pub attempt: u32,
    /// Bit `i` set: the message that is `1 + i` after the first is here too.
    pub more: u64,
}

impl Carried {
    /// The messages.
    pub fn ids(self) -> impl Iterator<Item = MessageId> {
        let after = (0..64).filter(move |bit| self.more & (1 << bit) != 0);
        core::iter::once(0)
            .chain(after.map(|bit| bit + 1))
            .map(move |step| MessageId {
                seq: Seq(self.first.seq.0.saturating_add(step)),
                ..self.first
            })
    }
}

/// A frame to send, not yet encoded or signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub channel: Channel,
    /// What.
    pub body: Body,
    /// How the transport should treat it.
    pub class: Class,
    /// After this time it is worth nothing.
    pub ttl: Option<Duration>,
    /// The transport should keep it as the channel's last value.
    pub last_value: bool,
    /// Must wait until every row queued before it is durable.
    pub gated: bool,
    /// The messages in it, for the broker's dedup window and its acknowledgement.
    pub carries: Option<Carried>,
}

impl Outgoing {
    /// A durable frame without a deadline.
    pub fn durable(channel: Channel, body: impl Into<Body>) -> Self {
        Self {
            channel,
            body: body.into(),
            class: Class::Durable,
            ttl: None,
            last_value: false,
            gated: false,
            carries: None,
        }
    }

    /// A frame that is worth nothing later.
    pub fn ephemeral(channel: Channel, body: impl Into<Body>) -> Self {
        Self {
            class: Class::Ephemeral,
            ..Self::durable(channel, body)
        }
    }

    /// The same frame, after every row queued before it is durable.
    #[must_use]
    pub fn gated(self) -> Self {
        Self {
            gated: true,
            ..self
        }
    }

    /// The same frame with a time to live.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }
}

/// One thing a machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // it moves once, from queue to queue: a box would cost more
pub enum Effect<E> {
    /// Change a row.
    Row(RowOp),
    /// Send a frame.
    Send(Outgoing),
    /// Tell an event; `gated` as in [`Outgoing`].
    Emit {
        /// The event.
        event: E,
        /// Must wait until every row queued before it is durable.
        gated: bool,
    },
}

/// The ordered queue of a machine's effects.
#[derive(Clone, Debug)]
pub struct Effects<E>(VecDeque<Effect<E>>);

impl<E> Default for Effects<E> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<E> Effects<E> {
    /// Insert or replace a row.
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.0.push_back(Effect::Row(RowOp::Put {
            table,
            key: key.into(),
            value: value.into(),
        }));
    }

    /// Remove a row.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.0.push_back(Effect::Row(RowOp::Delete {
            table,
            key: key.into(),
        }));
    }

    /// Send a frame.
    pub fn send(&mut self, frame: Outgoing) {
        self.0.push_back(Effect::Send(frame));
    }

    /// Tell an event at once.
    pub fn emit(&mut self, event: E) {
        self.0.push_back(Effect::Emit {
            event,
            gated: false,
        });
    }

    /// Tell an event once every row queued before it is durable.
    pub fn emit_gated(&mut self, event: E) {
        self.0.push_back(Effect::Emit { event, gated: true });
    }

    /// The next effect.
    pub fn pop(&mut self) -> Option<Effect<E>> {
        self.0.pop_front()
    }

    /// True when nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
