//! What the store keeps: one row per group, one per waiting applicant, one per log entry.
//!
//! `Groups`: the group id → [`Record`]; group id ‖ request id → [`Waiting`]. `Chain`: group id ‖
//! index, big-endian → the entry as signed. Guarantees: key order is the order of restoring.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::{Nonce, from_bytes, to_bytes};
use crate::id::{DeviceId, GroupId, RequestId, UserId};
use crate::time::UnixMillis;

/// Our own part in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Our last membership; its instance is our device with this nonce.
    pub nonce: Option<Nonce>,
    /// Our last request, until it is granted or lapses.
    pub asking: Option<Asking>,
    /// The membership that we leave, until the log shows it (G12).
    pub leaving: Option<Nonce>,
    /// Whom we, the leader, ask to lead, and the number of the offer.
    pub offer: Option<(String, u64)>,
    /// The number of the offer that we accepted, until the lead passes.
    pub accepted: Option<u64>,
}

/// A join request of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asking {
    pub request: [u8; 16],
    pub nonce: Nonce,
    pub note: String,
    /// Wall time in ms after which it lapses.
    pub until: u64,
    pub stage: Stage,
}

/// Where a request of ours stands. An answered one is remembered until it lapses: a copy of it may
/// still reach a later leader, and what the log says counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    Open,
    Denied,
    /// We took it back, the leader has not confirmed that yet.
    Withdrawn,
    /// It has.
    Over,
}

impl Stage {
    /// True while it is repeated.
    pub(super) fn is_pending(self) -> bool {
        matches!(self, Self::Open | Self::Withdrawn)
    }
}

/// An applicant that waits for our answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub user: UserId,
    pub device: DeviceId,
    pub nonce: Nonce,
    pub note: String,
    pub since: UnixMillis,
}

#[derive(Serialize, Deserialize)]
struct WaitingRow {
    user: String,
    device: [u8; 32],
    nonce: Nonce,
    note: String,
    since: u64,
}

/// A row of the `Groups` table.
#[derive(Debug)]
pub(super) enum GroupRow {
    Own(GroupId, Record),
    Join(GroupId, RequestId, Waiting),
}

impl Record {
    pub(super) fn to_row(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

impl Waiting {
    pub(super) fn to_row(&self) -> Vec<u8> {
        to_bytes(&WaitingRow {
            user: self.user.as_str().to_owned(),
            device: self.device.0,
            nonce: self.nonce,
            note: self.note.clone(),
            since: self.since.0,
        })
    }
}

pub(super) fn group_key(group: GroupId) -> Bytes {
    Bytes::copy_from_slice(&group.0)
}

pub(super) fn join_key(group: GroupId, request: RequestId) -> Vec<u8> {
    [&group.0[..], &request.0].concat()
}

pub(super) fn chain_key(group: GroupId, index: u64) -> Vec<u8> {
    [&group.0[..], &index.to_be_bytes()].concat()
}

pub(super) fn read_group(key: &[u8], value: &[u8]) -> Option<GroupRow> {
    let (group, rest) = key.split_first_chunk::<32>()?;
    let group = GroupId(*group);
    if rest.is_empty() {
        return Some(GroupRow::Own(group, from_bytes(value)?));
    }
    let request = RequestId(rest.try_into().ok()?);
    let row: WaitingRow = from_bytes(value)?;
    let waiting = Waiting {
        user: UserId::new(&row.user).ok()?,
        device: DeviceId(row.device),
        nonce: row.nonce,
        note: row.note,
        since: UnixMillis(row.since),
    };
    Some(GroupRow::Join(group, request, waiting))
}

pub(super) fn read_chain_key(key: &[u8]) -> Option<(GroupId, u64)> {
    let (group, index) = key.split_first_chunk::<32>()?;
    Some((GroupId(*group), u64::from_be_bytes(index.try_into().ok()?)))
}
