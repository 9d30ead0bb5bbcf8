//! The timeline: everything a conversation shows, one row per item, in display order (ID8).
//!
//! Guarantees: rows sort by (clock, device, epoch, number), the same on every device that has the
//! same messages; an item holds its own message whole, so that it reads without any other row.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rows::{self, Run, StoredId};
use super::types::{Ack, FailReason, Received, SortKey, Standing, TimelineItem, Unsendable};
use crate::content::Content;
use crate::effect::{RestoreError, Row};
use crate::hlc::Hlc;
use crate::id::{ConvId, DeviceId, Epoch};

#[derive(Serialize, Deserialize)]
enum Item<'a> {
    Received {
        id: StoredId,
        from: &'a str,
        pos: u64,
        flags: u8,
        #[serde(borrow)]
        body: Run<'a>,
    },
    Sent {
        id: StoredId,
        ack: u8,
        failed: Option<Failed>,
        wedged: Option<Stuck>,
        #[serde(borrow)]
        body: Run<'a>,
    },
    Gap {
        from: &'a str,
        first: StoredId,
        count: u64,
    },
}

/// Why a message will not arrive, as stored.
#[derive(Serialize, Deserialize)]
pub(super) enum Failed {
    Expired,
    Refused([u8; 32], u8),
    Gone,
    Cancelled,
    Unsendable(Stuck),
}

/// Why the broker never takes a message, as stored.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Stuck {
    TooLarge,
    Denied,
}

impl From<Unsendable> for Stuck {
    fn from(why: Unsendable) -> Self {
        match why {
            Unsendable::TooLarge => Self::TooLarge,
            Unsendable::Denied => Self::Denied,
        }
    }
}

impl From<Stuck> for Unsendable {
    fn from(why: Stuck) -> Self {
        match why {
            Stuck::TooLarge => Self::TooLarge,
            Stuck::Denied => Self::Denied,
        }
    }
}

impl From<&FailReason> for Failed {
    fn from(why: &FailReason) -> Self {
        match why {
            FailReason::Expired => Self::Expired,
            FailReason::Refused { by, code } => Self::Refused(by.0, *code),
            FailReason::Gone => Self::Gone,
            FailReason::Cancelled => Self::Cancelled,
            FailReason::Unsendable(why) => Self::Unsendable((*why).into()),
        }
    }
}

impl From<Failed> for FailReason {
    fn from(why: Failed) -> Self {
        match why {
            Failed::Expired => Self::Expired,
            Failed::Refused(by, code) => Self::Refused {
                by: DeviceId(by),
                code,
            },
            Failed::Gone => Self::Gone,
            Failed::Cancelled => Self::Cancelled,
            Failed::Unsendable(why) => Self::Unsendable(why.into()),
        }
    }
}

const LATE: u8 = 1;
const FORMER: u8 = 2;
const SUSPECT: u8 = 4;
const CAUSAL_GAP: u8 = 8;

const KEY: usize = 32 + 8 + 32 + 8 + 8;

pub(super) fn key(conv: ConvId, sort: &SortKey) -> Bytes {
    let mut key = Vec::with_capacity(KEY);
    key.extend_from_slice(&conv.0);
    key.extend_from_slice(&sort.hlc.0.to_be_bytes());
    key.extend_from_slice(&sort.device.0);
    key.extend_from_slice(&sort.epoch.0.to_be_bytes());
    key.extend_from_slice(&sort.seq.to_be_bytes());
    key.into()
}

fn parse_key(row: &Row) -> Option<(ConvId, SortKey)> {
    let key = <&[u8; KEY]>::try_from(&row.key[..]).ok()?;
    let u64_at = |at: usize| Some(u64::from_be_bytes(key[at..at + 8].try_into().ok()?));
    let sort = SortKey {
        hlc: Hlc(u64_at(32)?),
        device: DeviceId(key[40..72].try_into().ok()?),
        epoch: Epoch(u64_at(72)?),
        seq: u64_at(80)?,
    };
    Some((ConvId(key[..32].try_into().ok()?), sort))
}

pub(super) fn encode_received(received: &Received, body: &[u8]) -> Vec<u8> {
    let mut flags = 0;
    for (set, flag) in [
        (received.late, LATE),
        (received.standing == Standing::Former, FORMER),
        (received.clock_suspect, SUSPECT),
        (received.causal_gap, CAUSAL_GAP),
    ] {
        if set {
            flags |= flag;
        }
    }
    rows::encode(&Item::Received {
        id: StoredId::of(&received.id),
        from: received.from.as_str(),
        pos: received.pos,
        flags,
        body: Run(body),
    })
}

pub(super) fn encode_sent(
    id: &crate::id::MessageId,
    ack: Ack,
    failed: Option<&FailReason>,
    wedged: Option<Unsendable>,
    body: &[u8],
) -> Vec<u8> {
    rows::encode(&Item::Sent {
        id: StoredId::of(id),
        ack: match ack {
            Ack::Queued => 0,
            Ack::HandedOff => 1,
            Ack::Delivered => 2,
            Ack::Displayed => 3,
        },
        failed: failed.map(Failed::from),
        wedged: wedged.map(Stuck::from),
        body: Run(body),
    })
}

pub(super) fn encode_gap(
    from: &crate::id::UserId,
    first: &crate::id::MessageId,
    count: u64,
) -> Vec<u8> {
    rows::encode(&Item::Gap {
        from: from.as_str(),
        first: StoredId::of(first),
        count,
    })
}

pub(super) fn read(row: &Row) -> Result<TimelineItem, RestoreError> {
    let bad = || RestoreError::of(row);
    let (conv, sort) = parse_key(row).ok_or_else(bad)?;
    let content = |body: &[u8]| Content::decode(conv, body).map_err(|_| bad());
    Ok(match rows::decode::<Item<'_>>(row)? {
        Item::Received {
            id,
            from,
            pos,
            flags,
            body,
        } => TimelineItem::Received(Received {
            id: id.within(conv),
            from: rows::user(from, row)?,
            content: content(body.0)?,
            sort,
            pos,
            late: flags & LATE != 0,
            redelivered: false,
            standing: if flags & FORMER == 0 {
                Standing::Current
            } else {
                Standing::Former
            },
            clock_suspect: flags & SUSPECT != 0,
            causal_gap: flags & CAUSAL_GAP != 0,
        }),
        Item::Sent {
            id,
            ack,
            failed,
            wedged,
            body,
        } => TimelineItem::Sent {
            id: id.within(conv),
            content: content(body.0)?,
            sort,
            ack: match ack {
                0 => Ack::Queued,
                1 => Ack::HandedOff,
                2 => Ack::Delivered,
                3 => Ack::Displayed,
                _ => return Err(bad()),
            },
            failed: failed.map(FailReason::from),
            wedged: wedged.map(Unsendable::from),
        },
        Item::Gap { from, first, count } => TimelineItem::Gap {
            from: rows::user(from, row)?,
            first: first.within(conv),
            count,
            sort,
        },
    })
}
