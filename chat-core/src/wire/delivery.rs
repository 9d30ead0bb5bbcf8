//! Frames of the delivery protocol (reliability section 2). `Data` travels on the conversation's
//! channel; acknowledgements go to the sender's inbox.

use serde::{Deserialize, Serialize};

use super::{BoundedBytes, BoundedVec};

/// The largest sealed body. With header and signature it stays under the 64 KiB frame limit.
pub const MAX_BODY: usize = 48 * 1024;

/// Causal hints of one message.
pub const MAX_DEPS: usize = 8;

/// A causal hint: "I had been told this message, the latest of its device, before I wrote"
/// (reliability 2.2, ID9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dep {
    /// The first bytes of the stream's device: a hint that names another one by chance costs a
    /// wait, and decides nothing.
    pub device: [u8; 8],
    /// Its epoch.
    pub epoch: u64,
    /// The sequence number.
    pub seq: u64,
    /// The `roster` that it cites: who was admitted after that does not wait for it.
    pub roster: u64,
}

/// Messages in one [`Data`] frame.
pub const MAX_BATCH: usize = 64;

/// One message in a [`Data`] frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The place in the stream, from 1.
    pub seq: u64,
    /// Hybrid logical clock at accept: the display order.
    pub hlc: u64,
    /// Milliseconds left to live at transmit.
    pub ttl_ms: u64,
    /// What its author had been told since its previous message, where somebody may lack it.
    pub deps: BoundedVec<Dep, MAX_DEPS>,
    /// The sealed content. Empty: the message was taken back before it ever left (Q3), and its
    /// number is to be passed over; with a clock of 0 it was given up although a copy may have left
    /// (Q2), and its number is a gap to who has none.
    pub body: BoundedBytes<MAX_BODY>,
}

/// Messages of one stream: (signer's device, `epoch`, `conv`). What waits together travels
/// together, because a signature costs more than all the rest of a message; each counts as if it
/// had come alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The conversation.
    pub conv: [u8; 32],
    /// The sender's epoch.
    pub epoch: u64,
    /// The lowest sequence number neither acknowledged by all nor expired.
    pub base: u64,
    /// How many messages this device sent to the conversation in all earlier epochs: what is
    /// missing at the tail of a closed epoch, or of a whole one, shows here (reliability 2.6).
    pub sent_before: u64,
    /// The `roster` of the message before `base`, whatever its epoch: when it lies before a
    /// receiver's admission, nothing below `base` was meant for it. 0 when there is none.
    pub base_roster: u64,
    /// The `roster` of the message before the first one here, likewise.
    pub prev_roster: u64,
    /// The index of the group log that the recipients of all messages here, and of those between
    /// them, were computed from (G10); 0 in 1:1.
    pub roster: u64,
    /// Which copy of the first message this is; grows with each (Q7, Q8) and starts higher in each
    /// process life.
    pub attempt: u32,
    /// Nothing follows until the sender hears from a receiver, or has something new: it is to be
    /// acknowledged without delay.
    pub push: bool,
    /// The latest older epoch that is still owed to somebody. A receiver that misses something
    /// of it passes over this frame without a word: what it misses comes first (ID2).
    pub prior: Option<Box<OpenStream>>,
    /// Something before the first message, of this epoch, cannot be sent for now: what nobody sees
    /// by itself is taken out of turn (Q2).
    pub wedged: bool,
    /// The first message.
    pub first: Message,
    /// Others, numbers rising, all within 64 of the first.
    pub more: BoundedVec<Message, { MAX_BATCH - 1 }>,
}

impl Data {
    /// All messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        core::iter::once(&self.first).chain(self.more.iter())
    }

    /// The last message.
    pub fn last(&self) -> &Message {
        self.more.last().unwrap_or(&self.first)
    }
}

/// A message that its receiver refused for good (Q13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which message.
    pub seq: u64,
    /// 1 undecodable, 2 refused by policy, 3 not a member; unknown codes read as policy.
    pub code: u8,
}

/// What one receiver durably has of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAck {
    /// The device that sends the stream.
    pub device: [u8; 32],
    /// The conversation.
    pub conv: [u8; 32],
    /// The sender's epoch.
    pub epoch: u64,
    /// Everything up to here is durable.
    pub contig: u64,
    /// Bit `i` set: `contig + 2 + i` is durable too (`contig + 1` is by definition missing).
    pub bitmap: u128,
    /// How many more messages beyond `contig` the receiver takes.
    pub window: u16,
    /// Everything up to here was displayed to the user, 0 when that is not told.
    pub read: u64,
    /// Messages that will never be taken.
    pub refused: BoundedVec<Refusal, 16>,
}

/// Acknowledgements for one sender, several streams at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The streams.
    pub streams: BoundedVec<StreamAck, 32>,
}

/// "This epoch is closed here; number from above it" (reliability 2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The device whose epoch it was.
    pub device: [u8; 32],
    /// The conversation.
    pub conv: [u8; 32],
    /// Epochs at or below this one are closed.
    pub below: u64,
}

/// One stream that its sender still owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStream {
    /// The epoch.
    pub epoch: u64,
    /// As in [`Data`].
    pub base: u64,
    /// The next sequence number that will be used.
    pub next: u64,
    /// As in [`Data`].
    pub sent_before: u64,
    /// As in [`Data`].
    pub base_roster: u64,
    /// The `roster` of the last message that is still owed to anybody: when it lies before a
    /// receiver's admission, that receiver waits for nothing of this epoch.
    pub last_roster: u64,
}

/// After a reconnect, and when the tail of a stream expired: what I still owe on this channel.
/// The receiver answers with `Ack` (rules S11–S13). An expired tail is announced until every
/// receiver's acknowledgement covers it, at most for another time to live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The conversation.
    pub conv: [u8; 32],
    /// The open streams, oldest epoch first; the receiver closes what is older than the first. It
    /// goes on to the next only when it has all that it is owed of one.
    pub open: BoundedVec<OpenStream, 12>,
}

/// Typing, or no longer typing: worth nothing a few seconds later (Q4, Q6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// The conversation.
    pub conv: [u8; 32],
    /// True while the user types.
    pub active: bool,
}
