//! Delivery: epoch streams from an outbox to an inbox, for 1:1 and groups alike (rules Q1–Q9,
//! Q13–Q17, reliability section 2).

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::channel::Channel;
use crate::config::DeliveryConfig;
use crate::content::{Content, ContentError};
use crate::effect::{Effects, RestoreError, Row};
use crate::hlc::Hlc;
use crate::id::{ConvId, DeviceId, Epoch, MessageId, TxnId, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::sealer::Sealer;
use crate::time::{Now, Timestamp};
use crate::wire;

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
    /// The devices that must acknowledge, each with its user.
    pub recipients: BTreeSet<(UserId, DeviceId)>,
    /// The log index the recipients were computed from (G10); 0 in 1:1.
    pub roster: u64,
    /// True for groups: acknowledgements are slower and bundled.
    pub group: bool,
    /// The log index of our own admission: messages that cite an older one are not ours (G16); 0
    /// in 1:1.
    pub since: u64,
}

impl Route {
    /// A route.
    pub fn new(
        channel: Channel,
        recipients: BTreeSet<(UserId, DeviceId)>,
        roster: u64,
        group: bool,
    ) -> Self {
        Self {
            channel,
            recipients,
            roster,
            group,
            since: 0,
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
}

/// Outboxes and inboxes of one device.
#[derive(Debug)]
pub struct Delivery {}

impl Delivery {
    /// Empty. `epoch` is this process's; its row must be durable before the first frame leaves.
    pub fn new(
        _me: Sender,
        _epoch: Epoch,
        _config: DeliveryConfig,
        _sealer: Box<dyn Sealer>,
        _rng: Rng,
    ) -> Self {
        unimplemented!()
    }

    /// Takes back a row of `Conversations`, `Outbox`, `Streams` or `Inbox`.
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, _row: &Row, _now: Now) -> Result<(), RestoreError> {
        unimplemented!()
    }

    /// After the restored rows: arms timers and tells again, as `redelivered`, what the
    /// application did not acknowledge.
    pub fn resume(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Opens a conversation or changes who gets its messages. Messages that wait only for a
    /// recipient that is gone are done; who is new gets what is sent from now on.
    pub fn open(&mut self, _conv: ConvId, _route: Route, _now: Now) {
        unimplemented!()
    }

    /// Closes it: what is unacknowledged fails with `why` (Q15).
    pub fn close(&mut self, _conv: ConvId, _why: FailReason, _now: Now) {
        unimplemented!()
    }

    /// Takes a message. Idempotent by `txn`: the same content again gives the same id.
    ///
    /// # Errors
    /// [`SendError`] hands the content back.
    pub fn send(
        &mut self,
        _conv: ConvId,
        _txn: TxnId,
        _content: Content,
        _now: Now,
    ) -> Result<MessageId, SendError> {
        unimplemented!()
    }

    /// Takes back a message that never left (Q3); false when it is too late.
    pub fn cancel(&mut self, _id: &MessageId, _now: Now) -> bool {
        unimplemented!()
    }

    /// The user has seen everything up to `up_to`; moves forward only (Q12).
    pub fn mark_read(&mut self, _conv: ConvId, _up_to: SortKey, _now: Now) {
        unimplemented!()
    }

    /// The application is done with everything up to `pos` of this inbox.
    pub fn acknowledge(&mut self, _conv: ConvId, _pos: u64, _now: Now) {
        unimplemented!()
    }

    /// The user types, or stopped.
    pub fn set_typing(&mut self, _conv: ConvId, _active: bool, _now: Now) {
        unimplemented!()
    }

    /// A message. The caller has checked that `from` may write to the conversation.
    pub fn handle_data(
        &mut self,
        _from: &Sender,
        _data: &wire::delivery::Data,
        _standing: Standing,
        _now: Now,
    ) {
        unimplemented!()
    }

    /// Acknowledgements; those for other devices are ignored.
    pub fn handle_ack(&mut self, _from: &Sender, _ack: &wire::delivery::Ack, _now: Now) {
        unimplemented!()
    }

    /// A receiver closed an epoch of ours.
    pub fn handle_retired(
        &mut self,
        _from: &Sender,
        _retired: &wire::delivery::Retired,
        _now: Now,
    ) {
        unimplemented!()
    }

    /// What a sender still owes.
    pub fn handle_hello(&mut self, _from: &Sender, _hello: &wire::delivery::Hello, _now: Now) {
        unimplemented!()
    }

    /// Somebody types.
    pub fn handle_typing(&mut self, _from: &Sender, _typing: &wire::delivery::Typing, _now: Now) {
        unimplemented!()
    }

    /// The broker took (or did not take) this attempt of a message.
    pub fn handle_handed_off(&mut self, _id: &MessageId, _attempt: u32, _taken: bool, _now: Now) {
        unimplemented!()
    }

    /// Connected: `Hello` on every conversation that owes, retransmit timers run again (S11–S13).
    pub fn handle_up(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Cut off: retransmit timers stand still (Q7).
    pub fn handle_down(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, _now: Now) {
        unimplemented!()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        unimplemented!()
    }

    /// The epoch that new messages get: this life's, or a later one after a rollback was found.
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }

    /// Messages in the outbox, and their bytes.
    pub fn outbox_size(&self) -> (usize, usize) {
        unimplemented!()
    }

    /// The key of a timeline row: rows of a conversation sort as they show.
    pub fn timeline_key(_conv: ConvId, _sort: &SortKey) -> Bytes {
        unimplemented!()
    }

    /// Reads a row of [`Table::Timeline`](crate::effect::Table::Timeline).
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn read_timeline(_row: &Row) -> Result<TimelineItem, RestoreError> {
        unimplemented!()
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<DeliveryEvent> {
        unimplemented!()
    }
}
