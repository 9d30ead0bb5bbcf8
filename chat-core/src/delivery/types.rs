//! What delivery takes and tells: routes, events, errors, and the places of messages.

use std::collections::BTreeMap;

use crate::channel::Channel;
use crate::content::{Content, ContentError};
use crate::hlc::Hlc;
use crate::id::{ConvId, DeviceId, Epoch, MessageId, TxnId, UserId};

/// The place of a message on every screen: the same on every device (ID8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SortKey {
    /// The sender's clock at accept.
    pub hlc: Hlc,
    /// The sender's device.
    pub device: DeviceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its sequence number.
    pub seq: u64,
}

/// How far a message got; only moves up (semantics 2.0, "Ack ladder").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Ack {
    /// Durable here.
    Queued,
    /// The broker has it.
    HandedOff,
    /// Durable on a device of every recipient.
    Delivered,
    /// Every recipient's user has seen it.
    Displayed,
}

/// Why a message will not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailReason {
    /// Its time ran out (Q6).
    Expired,
    /// A recipient refuses it for good: undecodable there, or against its policy (Q13).
    Refused {
        /// Whose device.
        by: DeviceId,
        /// The code on the wire.
        code: u8,
    },
    /// The session or the membership is over (S2, G9).
    Gone,
    /// We took it back before it left (Q3).
    Cancelled,
    /// The broker will never take it, and it was given up (Q2). Who has it from an earlier copy
    /// keeps it.
    Unsendable(Unsendable),
}

/// Why the broker will never take a message as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsendable {
    /// Larger than what the broker carries: retry over a wider connection, or cancel it.
    TooLarge,
    /// The broker does not let us write there: retry when its rules allow it, or cancel it.
    Denied,
}

/// Whether the author was a member when it wrote (G9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Standing {
    /// A current member or the peer of the session.
    Current,
    /// Written while a member, arrived after it left or was removed: show it as such.
    Former,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Its id.
    pub id: MessageId,
    /// Who wrote it.
    pub from: UserId,
    /// What it says.
    pub content: Content,
    /// Its place on the screen.
    pub sort: SortKey,
    /// Its place in this device's inbox log of the conversation; acknowledge it (reliability 2.3).
    pub pos: u64,
    /// It belongs above something that was already shown.
    pub late: bool,
    /// It was told before, in a run that ended before it was acknowledged.
    pub redelivered: bool,
    /// The author's membership.
    pub standing: Standing,
    /// Its sender's clock lies too far ahead to be believed.
    pub clock_suspect: bool,
    /// Its author had been told something that did not come here in time (ID9).
    pub causal_gap: bool,
}

/// What a timeline holds at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimelineItem {
    /// Somebody else's message.
    Received(Received),
    /// Our own.
    Sent {
        /// Its id.
        id: MessageId,
        /// What it says.
        content: Content,
        /// Its place on the screen.
        sort: SortKey,
        /// How far it got.
        ack: Ack,
        /// Why it failed, if it did.
        failed: Option<FailReason>,
        /// Why it cannot be sent for now, if so (Q2).
        wedged: Option<Unsendable>,
    },
    /// Messages that will never come (Q5, Q6, ID7).
    Gap {
        /// Whose.
        from: UserId,
        /// The first missing message.
        first: MessageId,
        /// How many.
        count: u64,
        /// Where it shows.
        sort: SortKey,
    },
}

/// What happened to messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryEvent {
    /// `send` is durable: the message will arrive or end in a named state.
    Accepted {
        /// Its id.
        id: MessageId,
        /// The caller's name for it.
        txn: TxnId,
        /// Its place on the screen.
        sort: SortKey,
    },
    /// A message arrived.
    Received(Received),
    /// Messages of a stream will never come.
    Gap {
        /// The conversation.
        conv: ConvId,
        /// Whose.
        from: UserId,
        /// The first missing message.
        first: MessageId,
        /// How many.
        count: u64,
        /// Where it shows.
        sort: SortKey,
    },
    /// A message of ours got further with all recipients.
    Progress {
        /// Which.
        id: MessageId,
        /// How far.
        ack: Ack,
    },
    /// One recipient's receipt.
    Receipt {
        /// The last message it covers; all before it are covered too.
        up_to: MessageId,
        /// Whose.
        by: UserId,
        /// `Delivered` or `Displayed`.
        ack: Ack,
    },
    /// A message of ours will not arrive.
    Failed {
        /// Which.
        id: MessageId,
        /// Why.
        why: FailReason,
    },
    /// The broker will never take a message of ours as it is: those behind it in its conversation
    /// wait until it is retried or cancelled, or expires (Q2). Told again by every life that finds
    /// it so.
    Wedged {
        /// Which.
        id: MessageId,
        /// Why.
        why: Unsendable,
    },
    /// Somebody types, or stopped.
    Typing {
        /// Where.
        conv: ConvId,
        /// Who.
        user: UserId,
        /// True while typing.
        active: bool,
    },
    /// A message could not be read and was put aside with its bytes (Q13).
    DeadLetter {
        /// Which.
        id: MessageId,
        /// From whom.
        from: UserId,
        /// Why.
        cause: ContentError,
    },
    /// The store was restored from an older state, or a peer forged; unacknowledged messages were
    /// given new ids (reliability 2.3, "ack from the future").
    RolledBack {
        /// The epoch that is used now.
        epoch: Epoch,
    },
}

/// Why a message was not taken. The content comes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No such open conversation.
    #[error("the conversation is not open; request a session or join the group first")]
    NotOpen(Content),
    /// The outbox is full (Q5).
    #[error("the outbox is full ({limit}); wait until messages are acknowledged")]
    Full {
        /// The content.
        content: Content,
        /// Which limit.
        limit: &'static str,
    },
    /// The content is no good.
    #[error("the content is refused: {why}")]
    Content {
        /// The content.
        content: Content,
        /// Why.
        why: ContentError,
    },
    /// The connection carries no frame that large.
    #[error(
        "the message needs a frame of up to {bytes} bytes and the broker takes {max}; shorten it"
    )]
    TooLarge {
        /// The content.
        content: Content,
        /// What its frame may need.
        bytes: usize,
        /// The largest frame that the broker takes.
        max: usize,
    },
    /// The transaction id is bound to another message.
    #[error("this transaction id was used for other content; use a new one")]
    TxnReused(Content),
}

/// Who gets what is sent to a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// Where messages travel.
    pub channel: Channel,
    /// The devices that must acknowledge, each with its user, and the log index of its admission:
    /// it is owed nothing that cites an older one (G16); 0 in 1:1.
    pub recipients: BTreeMap<(UserId, DeviceId), u64>,
    /// The log index the recipients were computed from (G10); 0 in 1:1.
    pub roster: u64,
    /// True for groups: acknowledgements are slower and bundled.
    pub group: bool,
    /// The log index of our own admission: messages that cite an older one are not ours (G16); 0
    /// in 1:1.
    pub since: u64,
    /// The devices that the log of a group knows to be out, and the index from which: what they
    /// wrote later was for another branch.
    pub left: BTreeMap<DeviceId, u64>,
}

impl Route {
    /// A route.
    pub fn new(
        channel: Channel,
        recipients: BTreeMap<(UserId, DeviceId), u64>,
        roster: u64,
        group: bool,
    ) -> Self {
        Self {
            channel,
            recipients,
            roster,
            group,
            since: 0,
            left: BTreeMap::new(),
        }
    }

    /// The same route for a member that was admitted at `index`.
    #[must_use]
    pub fn since(self, index: u64) -> Self {
        Self {
            since: index,
            ..self
        }
    }

    /// The same route by a log that says who is out, and from which index.
    #[must_use]
    pub fn left(self, left: BTreeMap<DeviceId, u64>) -> Self {
        Self { left, ..self }
    }

    /// When the device whose id begins so went.
    pub(super) fn went(&self, head: [u8; 8]) -> Option<u64> {
        let bound = |rest| {
            let mut id = [rest; 32];
            id[..8].copy_from_slice(&head);
            DeviceId(id)
        };
        let mut all = self.left.range(bound(0)..=bound(0xff));
        all.next().map(|(_, at)| *at)
    }
}
