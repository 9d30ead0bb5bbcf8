//! Persisted forms: what lies in `Conversations`, `Outbox`, `Streams`, `Inbox` and `DeadLetters`.
//!
//! Guarantees: keys are big-endian, so rows of a table sort by conversation, epoch and number; a
//! row that does not decode, or has bytes left over, is an error and never skipped.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::causal::Heard;
use super::inbox::{Held, Stream};
use super::outbox::{At, Entry, Life};
use super::state::{Conv, Txn};
use super::timeline::{Failed, Stuck};
use super::types::{Ack, FailReason, SortKey, Unsendable};
use crate::content::Content;
use crate::effect::{RestoreError, Row, Table};
use crate::hlc::Hlc;
use crate::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId, TxnId, UserId};
use crate::time::{Timestamp, UnixMillis};
use crate::wire::delivery::{Dep, Refusal};
pub(super) use crate::wire::to_vec as encode;

pub(super) fn decode<'a, T: Deserialize<'a>>(row: &'a Row) -> Result<T, RestoreError> {
    match postcard::take_from_bytes(&row.value) {
        Ok((value, [])) => Ok(value),
        _ => Err(RestoreError::of(row)),
    }
}

/// Bytes that are written and read as one run. serde takes `&[u8]` for a list of numbers and
/// writes them one by one; what is stored is the same.
#[derive(Clone, Copy)]
pub(super) struct Run<'a>(pub(super) &'a [u8]);

impl Serialize for Run<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Run<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

pub(super) fn user(name: &str, row: &Row) -> Result<UserId, RestoreError> {
    UserId::new(name).map_err(|_| RestoreError::of(row))
}

/// A place on the screen as stored.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Place(u64, [u8; 32], u64, u64);

impl From<SortKey> for Place {
    fn from(sort: SortKey) -> Self {
        Self(sort.hlc.0, sort.device.0, sort.epoch.0, sort.seq)
    }
}

impl From<Place> for SortKey {
    fn from(Place(hlc, device, epoch, seq): Place) -> Self {
        Self {
            hlc: Hlc(hlc),
            device: DeviceId(device),
            epoch: Epoch(epoch),
            seq,
        }
    }
}

/// A message id without its conversation, which the key names.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct StoredId([u8; 32], u64, u64);

impl StoredId {
    pub(super) fn of(id: &MessageId) -> Self {
        Self(id.stream.device.0, id.stream.epoch.0, id.seq.0)
    }

    pub(super) fn within(self, conv: ConvId) -> MessageId {
        MessageId {
            stream: StreamId {
                conv,
                device: DeviceId(self.0),
                epoch: Epoch(self.1),
            },
            seq: Seq(self.2),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ConvRow {
    lives: Vec<(u64, u64, u64)>,
    last_roster: u64,
    displayed: (u64, u64),
    ended: Vec<(u64, u64)>,
    notice: Option<u64>,
    hlc: u64,
    pos: u64,
    shown: Option<Place>,
    read: Option<Place>,
    heard: Vec<Dep>,
}

pub(super) fn encode_conv(it: &Conv, hlc: Hlc) -> Vec<u8> {
    encode(&ConvRow {
        lives: it
            .out
            .lives
            .iter()
            .map(|(epoch, life)| (epoch.0, life.sent_before, life.next))
            .collect(),
        last_roster: it.out.last_roster,
        displayed: (it.out.displayed.0.0, it.out.displayed.1),
        ended: it.out.ended.iter().map(|at| (at.0.0, at.1)).collect(),
        notice: it.out.notice.map(|until| until.0),
        hlc: hlc.0,
        pos: it.pos,
        shown: it.shown.map(Place::from),
        read: it.read.map(Place::from),
        heard: it.heard.iter().map(|one| one.dep).collect(),
    })
}

pub(super) fn restore_conv(row: &Row, it: &mut Conv) -> Result<Hlc, RestoreError> {
    let stored: ConvRow = decode(row)?;
    for (epoch, sent_before, next) in stored.lives {
        it.out
            .lives
            .insert(Epoch(epoch), Life { sent_before, next });
    }
    it.out.last_roster = stored.last_roster;
    it.out.displayed = (Epoch(stored.displayed.0), stored.displayed.1);
    it.out.ended = stored.ended.iter().map(|at| (Epoch(at.0), at.1)).collect();
    it.out.notice = stored.notice.map(UnixMillis);
    it.pos = stored.pos;
    it.shown = stored.shown.map(SortKey::from);
    it.read = stored.read.map(SortKey::from);
    it.heard = stored.heard.into_iter().map(Heard::from).collect();
    Ok(Hlc(stored.hlc))
}

#[derive(Serialize, Deserialize)]
struct OutboxRow<'a> {
    txn: [u8; 16],
    hlc: u64,
    roster: u64,
    prev_roster: u64,
    expires: u64,
    failed: Option<Failed>,
    delivered: bool,
    /// Why it cannot be sent for now; then also whether a copy may be out.
    wedged: Option<(Stuck, bool)>,
    deps: Vec<Dep>,
    #[serde(borrow)]
    body: Run<'a>,
}

pub(super) fn encode_outbox(
    entry: &Entry,
    end: Option<&FailReason>,
    wedged: Option<Unsendable>,
) -> Vec<u8> {
    encode(&OutboxRow {
        txn: entry.txn.0,
        hlc: entry.hlc.0,
        roster: entry.roster,
        prev_roster: entry.prev_roster,
        expires: entry.expires.0,
        failed: end.map(Failed::from),
        delivered: entry.ack >= Ack::Delivered,
        wedged: wedged.map(|why| (why.into(), entry.copies > 0)),
        deps: entry.deps.clone(),
        body: Run(&entry.body),
    })
}

/// A message that is owed; why it failed, or cannot be sent, if so.
#[expect(
    clippy::type_complexity,
    reason = "it is taken apart where it is called"
)]
pub(super) fn restore_outbox(
    row: &Row,
) -> Result<(ConvId, At, Entry, Option<FailReason>, Option<Unsendable>), RestoreError> {
    let (conv, rest) = split_conv(row)?;
    let (epoch, seq) = two_u64(rest).ok_or_else(|| RestoreError::of(row))?;
    let stored: OutboxRow<'_> = decode(row)?;
    let entry = Entry {
        txn: TxnId(stored.txn),
        hlc: Hlc(stored.hlc),
        roster: stored.roster,
        prev_roster: stored.prev_roster,
        expires: UnixMillis(stored.expires),
        deps: stored.deps,
        body: Bytes::copy_from_slice(stored.body.0),
        devices: 0,
        users: 0,
        storing: 0,
        sends: 0,
        sent_at: Timestamp::ZERO,
        copies: u32::from(stored.wedged.is_none_or(|(_, left)| left)),
        aside: Content::is_aside(stored.body.0),
        failed: stored.failed.is_some(),
        ack: if stored.delivered {
            Ack::Delivered
        } else {
            Ack::Queued
        },
    };
    let end = stored.failed.map(FailReason::from);
    let wedged = stored.wedged.map(|(why, _)| why.into());
    Ok((conv, (Epoch(epoch), seq), entry, end, wedged))
}

#[derive(Serialize, Deserialize)]
struct StreamRow<'a> {
    user: &'a str,
    epoch: u64,
    sent_before: u64,
    contig: u64,
    read: u64,
    last: (u64, u64),
    refused: Vec<(u64, u8)>,
}

pub(super) fn encode_stream(stream: &Stream) -> Vec<u8> {
    encode(&StreamRow {
        user: stream.user.as_str(),
        epoch: stream.epoch.0,
        sent_before: stream.sent_before,
        contig: stream.contig,
        read: stream.read,
        last: (stream.last.0.0, stream.last.1),
        refused: stream.refused.iter().map(|r| (r.seq, r.code)).collect(),
    })
}

#[derive(Serialize, Deserialize)]
struct HeldRow<'a> {
    hlc: u64,
    expires: u64,
    former: bool,
    suspect: bool,
    roster: u64,
    deps: Vec<Dep>,
    #[serde(borrow)]
    body: Option<Run<'a>>,
}

pub(super) fn encode_held(held: &Held) -> Vec<u8> {
    encode(&HeldRow {
        hlc: held.hlc.0,
        expires: held.expires.0,
        former: held.former,
        suspect: held.suspect,
        roster: held.roster,
        deps: held.deps.clone(),
        body: held.body.as_deref().map(Run),
    })
}

/// What is stored of a stream.
pub(super) struct StoredStream {
    epoch: Epoch,
    sent_before: u64,
    contig: u64,
    read: u64,
    last: (Hlc, u64),
    refused: Vec<Refusal>,
}

impl StoredStream {
    pub(super) fn put_into(self, stream: &mut Stream) {
        stream.epoch = self.epoch;
        stream.sent_before = self.sent_before;
        stream.contig = self.contig;
        stream.read = self.read;
        stream.last = self.last;
        stream.refused = self.refused;
    }
}

/// A row of `Streams`.
pub(super) enum StreamItem {
    State(UserId, StoredStream),
    Held(Epoch, u64, Held),
}

pub(super) fn restore_stream(row: &Row) -> Result<(ConvId, DeviceId, StreamItem), RestoreError> {
    let (conv, rest) = split_conv(row)?;
    let (device, rest) = rest
        .split_first_chunk::<32>()
        .ok_or_else(|| RestoreError::of(row))?;
    let device = DeviceId(*device);
    if rest.is_empty() {
        let stored: StreamRow<'_> = decode(row)?;
        let refused = stored.refused.into_iter();
        let state = StoredStream {
            epoch: Epoch(stored.epoch),
            sent_before: stored.sent_before,
            contig: stored.contig,
            read: stored.read,
            last: (Hlc(stored.last.0), stored.last.1),
            refused: refused.map(|(seq, code)| Refusal { seq, code }).collect(),
        };
        let user = user(stored.user, row)?;
        return Ok((conv, device, StreamItem::State(user, state)));
    }
    let (epoch, seq) = two_u64(rest).ok_or_else(|| RestoreError::of(row))?;
    let stored: HeldRow<'_> = decode(row)?;
    let held = Held {
        hlc: Hlc(stored.hlc),
        expires: UnixMillis(stored.expires),
        due: Timestamp::MAX,
        former: stored.former,
        suspect: stored.suspect,
        roster: stored.roster,
        deps: stored.deps,
        body: stored.body.map(|body| body.0.to_vec()),
    };
    Ok((conv, device, StreamItem::Held(Epoch(epoch), seq, held)))
}

#[derive(Serialize, Deserialize)]
struct TxnRow {
    n: u64,
    txn: [u8; 16],
    conv: [u8; 32],
    id: StoredId,
    hash: [u8; 16],
    end: Option<Failed>,
}

pub(super) fn encode_txn(n: u64, txn: TxnId, known: &Txn) -> Vec<u8> {
    encode(&TxnRow {
        n,
        txn: txn.0,
        conv: known.id.stream.conv.0,
        id: StoredId::of(&known.id),
        hash: known.hash,
        end: known.end.as_ref().map(Failed::from),
    })
}

pub(super) fn restore_txn(row: &Row) -> Result<(u64, TxnId, Txn), RestoreError> {
    let stored: TxnRow = decode(row)?;
    let known = Txn {
        id: stored.id.within(ConvId(stored.conv)),
        hash: stored.hash,
        end: stored.end.map(FailReason::from),
    };
    Ok((stored.n, TxnId(stored.txn), known))
}

#[derive(Serialize, Deserialize)]
struct DeadRow<'a> {
    from: &'a str,
    cause: &'a str,
    bytes: Run<'a>,
}

pub(super) fn encode_dead(from: &UserId, cause: &str, bytes: &[u8]) -> Vec<u8> {
    encode(&DeadRow {
        from: from.as_str(),
        cause,
        bytes: Run(bytes),
    })
}

fn split_conv(row: &Row) -> Result<(ConvId, &[u8]), RestoreError> {
    let (conv, rest) = row
        .key
        .split_first_chunk::<32>()
        .ok_or_else(|| RestoreError::of(row))?;
    Ok((ConvId(*conv), rest))
}

fn two_u64(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    let second = <[u8; 8]>::try_from(rest).ok()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(second)))
}

pub(super) fn conv_key(conv: ConvId) -> Bytes {
    Bytes::copy_from_slice(&conv.0)
}

pub(super) fn outbox_key(conv: ConvId, at: At) -> Bytes {
    [
        &conv.0[..],
        &at.0.0.to_be_bytes()[..],
        &at.1.to_be_bytes()[..],
    ]
    .concat()
    .into()
}

pub(super) fn stream_key(conv: ConvId, device: DeviceId) -> Bytes {
    [conv.0, device.0].concat().into()
}

pub(super) fn held_key(conv: ConvId, device: DeviceId, epoch: Epoch, seq: u64) -> Bytes {
    [
        &conv.0[..],
        &device.0[..],
        &epoch.0.to_be_bytes()[..],
        &seq.to_be_bytes()[..],
    ]
    .concat()
    .into()
}

pub(super) fn inbox_key(conv: ConvId, pos: u64) -> Bytes {
    [&conv.0[..], &pos.to_be_bytes()[..]].concat().into()
}

/// An inbox row is a timeline row with its place in front: it is told again whole.
pub(super) fn encode_inbox(sort: SortKey, item: &[u8]) -> Vec<u8> {
    encode(&(Place::from(sort), Run(item)))
}

pub(super) fn restore_inbox(row: &Row) -> Result<(ConvId, u64, Row), RestoreError> {
    let (conv, pos) = inbox_of(row)?;
    let (place, value): (Place, Run<'_>) = decode(row)?;
    let item = Row {
        table: Table::Timeline,
        key: super::timeline::key(conv, &place.into()),
        value: row.value.slice_ref(value.0),
    };
    Ok((conv, pos, item))
}

fn inbox_of(row: &Row) -> Result<(ConvId, u64), RestoreError> {
    let (conv, rest) = split_conv(row)?;
    let pos = <[u8; 8]>::try_from(rest).map_err(|_| RestoreError::of(row))?;
    Ok((conv, u64::from_be_bytes(pos)))
}
