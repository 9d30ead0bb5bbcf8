//! What the hub keeps on disk, and the batch that is being gathered.
//!
//! Guarantees: one batch is with the writer at a time, the next gathers meanwhile (group commit);
//! the last write to a row wins; a frame that everybody acknowledged before its batch left is not
//! written at all; cursors and deletions wait for company, since losing them only delivers again.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::id::{DeviceId, UserId};
use chat_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ConnId, LaneId, SessionId};

/// Rows that nobody waits for are written this much later.
const LAZY: Duration = Duration::from_secs(1);

/// A row's key. Rows are restored in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Key {
    Lane(LaneId),
    Session(SessionId),
    Sub(LaneId, SessionId),
    Log(LaneId, u64),
    Retained(LaneId),
}

impl Key {
    /// Sorts as bytes like the keys themselves.
    pub(crate) fn to_bytes(self) -> [u8; 17] {
        let (tag, a, b) = match self {
            Self::Lane(lane) => (1, lane.0, 0),
            Self::Session(session) => (2, session.0, 0),
            Self::Sub(lane, session) => (3, lane.0, session.0),
            Self::Log(lane, seq) => (4, lane.0, seq),
            Self::Retained(lane) => (5, lane.0, 0),
        };
        let mut bytes = [tag; 17];
        bytes[1..9].copy_from_slice(&a.to_be_bytes());
        bytes[9..].copy_from_slice(&b.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (a, b) = rest.split_first_chunk::<8>()?;
        let (a, b) = (
            u64::from_be_bytes(*a),
            u64::from_be_bytes(b.try_into().ok()?),
        );
        let key = match tag {
            1 => Self::Lane(LaneId(a)),
            2 => Self::Session(SessionId(a)),
            3 => Self::Sub(LaneId(a), SessionId(b)),
            4 => Self::Log(LaneId(a), b),
            5 => Self::Retained(LaneId(a)),
            _ => return None,
        };
        (key.to_bytes() == bytes).then_some(key)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct SessionRow<'a> {
    pub(super) user: &'a str,
    pub(super) device: [u8; 32],
}

#[derive(Serialize, Deserialize)]
pub(super) struct SubRow {
    pub(super) cursor: u64,
    pub(super) gap: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct LogRow<'a> {
    pub(super) at: u64,
    pub(super) expires: Option<u64>,
    pub(super) from: u64,
    pub(super) bytes: &'a [u8],
}

#[derive(Serialize, Deserialize)]
pub(super) struct RetainedRow<'a> {
    pub(super) expires: Option<u64>,
    pub(super) bytes: &'a [u8],
}

pub(super) fn row(value: &impl Serialize) -> Bytes {
    postcard::to_stdvec(value)
        .expect("row types serialise")
        .into()
}

pub(super) fn lane_row(channel: &Channel) -> Bytes {
    let mut bytes = Vec::with_capacity(48);
    channel.signed_bytes(&mut bytes);
    bytes.into()
}

pub(super) fn session_row(user: &UserId, device: &DeviceId) -> Bytes {
    row(&SessionRow {
        user: user.as_str(),
        device: device.0,
    })
}

/// A stored row that does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {key} of the hub's file does not decode; restore a copy or start with a new file")]
pub struct RestoreError {
    /// The key.
    pub key: String,
}

impl RestoreError {
    pub(crate) fn of(key: impl core::fmt::Debug) -> Self {
        Self {
            key: format!("{key:?}"),
        }
    }
}

/// Rows for one transaction, in order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) rows: Vec<(Key, Option<Bytes>)>,
}

/// Who waits for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gated {
    /// The publisher of this entry.
    Entry(LaneId, u64),
    /// A subscriber.
    Subscribed(ConnId, LaneId),
    /// A publisher whose frame was a duplicate.
    Duplicate(ConnId, u64),
}

#[derive(Debug)]
pub(super) struct Rows {
    durable: bool,
    /// The number of the batch being gathered.
    pub(super) gathering: u64,
    rows: BTreeMap<Key, Option<Bytes>>,
    pub(super) gated: Vec<Gated>,
    /// How many of `gated` still need the disk.
    pub(super) waiting: usize,
    /// When to write what nobody waits for.
    lazy_at: Option<Timestamp>,
    /// With the writer.
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    gated: Vec<Gated>,
    /// For another try when the disk was full.
    rows: Vec<(Key, Option<Bytes>)>,
}

impl Rows {
    pub(super) fn new(durable: bool) -> Self {
        Self {
            durable,
            gathering: 1,
            rows: BTreeMap::new(),
            gated: Vec::new(),
            waiting: 0,
            lazy_at: None,
            in_flight: None,
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Something gathers or is being written.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting > 0 || self.in_flight.is_some()
    }

    pub(super) fn put(&mut self, key: Key, value: impl FnOnce() -> Bytes, now: Timestamp) {
        if self.durable {
            self.rows.insert(key, Some(value()));
            self.lazy_at.get_or_insert(now + LAZY);
        }
    }

    pub(super) fn delete(&mut self, key: Key, now: Timestamp) {
        if self.durable {
            self.rows.insert(key, None);
            self.lazy_at.get_or_insert(now + LAZY);
        }
    }

    /// A row of the batch being gathered is not needed after all.
    pub(super) fn withdraw(&mut self, key: Key) {
        self.rows.remove(&key);
        self.waiting = self.waiting.saturating_sub(1);
    }

    pub(super) fn gate(&mut self, gated: Gated) {
        self.gated.push(gated);
        self.waiting += 1;
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.waiting > 0 {
            return Some(Timestamp::ZERO);
        }
        self.lazy_at
    }

    pub(super) fn poll_batch(&mut self, now: Timestamp) -> Option<Batch> {
        if self.deadline()? > now {
            return None;
        }
        self.lazy_at = None;
        self.gathering += 1;
        self.waiting = 0;
        let rows: Vec<_> = core::mem::take(&mut self.rows).into_iter().collect();
        self.in_flight = Some(InFlight {
            gated: core::mem::take(&mut self.gated),
            rows: rows.clone(),
        });
        Some(Batch { rows })
    }

    /// The batch is durable; who waited for it.
    pub(super) fn written(&mut self) -> Vec<Gated> {
        self.in_flight.take().map(|b| b.gated).unwrap_or_default()
    }

    /// The batch was refused as a whole: its rows gather again, under what came since, but for
    /// those that only carry a frame. Who waited for it.
    pub(super) fn refused(&mut self, now: Timestamp, retry: Duration) -> Vec<Gated> {
        let Some(batch) = self.in_flight.take() else {
            return Vec::new();
        };
        for (key, value) in batch.rows {
            self.rows.entry(key).or_insert(value);
        }
        self.lazy_at = Some(now + retry);
        batch.gated
    }

    /// The frame never existed.
    pub(super) fn drop_row(&mut self, key: Key) {
        self.rows.remove(&key);
    }
}
