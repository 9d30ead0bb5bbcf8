//! What the store keeps.
//!
//! `Groups`: the group id → [`Record`], with the promise; group id ‖ tag ‖ name → what is not yet
//! settled in the log: `i` an invitation to us, `j` a request → [`Waiting`], `k` a kick by its hash, `l` a leave by its
//! instance, `o` an abandoned branch by its last hash. `Chain`: group id ‖ index, big-endian → the
//! entry as signed. Guarantee: key order is the order of restoring.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::{Nonce, from_bytes, to_bytes};
use super::proof::LeftProof;
use super::term::Hash;
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
    /// Our last promise to a candidate, ourselves included.
    pub promised: Promise,
    /// Kicks of ours, the leader, that wait for the change before them.
    pub wanted: Vec<WantedKick>,
}

/// The highest round that we promised, and for whom. A greater one replaces it, nothing lowers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Promise {
    pub round: u64,
    pub candidate: [u8; 32],
    pub base: Hash,
}

/// Whom to remove next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WantedKick {
    pub user: String,
    pub instances: Vec<([u8; 32], Nonce)>,
    pub reason: String,
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
    pub grant: Grant,
}

/// Whether a request still needs an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Grant {
    /// It does.
    Open,
    /// We said yes, or an invitation did, and the log is not ready. That ends with our lead: what no
    /// log says was not decided.
    Approved,
    /// The leader of an abandoned branch let it in.
    Adopted,
}

#[derive(Serialize, Deserialize)]
struct WaitingRow {
    user: String,
    device: [u8; 32],
    nonce: Nonce,
    note: String,
    since: u64,
    grant: Grant,
}

/// A row of the `Groups` table.
#[derive(Debug)]
pub(super) enum GroupRow {
    Own(GroupId, Record),
    Join(GroupId, RequestId, Waiting),
    /// A kick, as signed.
    Kick(GroupId, Bytes),
    Left(GroupId, LeftProof, UserId),
    /// An invitation to us.
    Ticket(GroupId, Vec<u8>),
    /// The entries of an abandoned branch, as signed.
    Orphan(GroupId, Hash, Vec<Bytes>),
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
            grant: self.grant,
        })
    }

    /// True when it needs no other answer.
    pub(super) fn is_granted(&self) -> bool {
        self.grant != Grant::Open
    }
}

pub(super) fn group_key(group: GroupId) -> Bytes {
    Bytes::copy_from_slice(&group.0)
}

pub(super) fn ticket_key(group: GroupId) -> Vec<u8> {
    tagged(group, b'i', &[])
}

fn tagged(group: GroupId, tag: u8, name: &[u8]) -> Vec<u8> {
    [&group.0[..], &[tag], name].concat()
}

pub(super) fn join_key(group: GroupId, request: RequestId) -> Vec<u8> {
    tagged(group, b'j', &request.0)
}

pub(super) fn kick_key(group: GroupId, kick: &Hash) -> Vec<u8> {
    tagged(group, b'k', kick)
}

pub(super) fn left_key(group: GroupId, instance: &(DeviceId, Nonce)) -> Vec<u8> {
    tagged(group, b'l', &[&instance.0.0[..], &instance.1].concat())
}

pub(super) fn left_row(proof: &LeftProof, user: &UserId) -> Vec<u8> {
    [&proof.to_bytes()[..], user.as_str().as_bytes()].concat()
}

pub(super) fn orphan_key(group: GroupId, last: &Hash) -> Vec<u8> {
    tagged(group, b'o', last)
}

pub(super) fn orphan_row(entries: &[Bytes]) -> Vec<u8> {
    let entries: Vec<&[u8]> = entries.iter().map(|entry| &entry[..]).collect();
    to_bytes(&entries)
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
    let (tag, name) = rest.split_first()?;
    match tag {
        b'j' => {
            let request = RequestId(name.try_into().ok()?);
            let row: WaitingRow = from_bytes(value)?;
            let waiting = Waiting {
                user: UserId::new(&row.user).ok()?,
                device: DeviceId(row.device),
                nonce: row.nonce,
                note: row.note,
                since: UnixMillis(row.since),
                grant: row.grant,
            };
            Some(GroupRow::Join(group, request, waiting))
        }
        b'i' if name.is_empty() => Some(GroupRow::Ticket(group, value.to_vec())),
        b'k' => Some(GroupRow::Kick(group, Bytes::copy_from_slice(value))),
        b'l' => {
            let (proof, user) = value.split_at_checked(112)?;
            let user = UserId::new(core::str::from_utf8(user).ok()?).ok()?;
            Some(GroupRow::Left(group, LeftProof::from_bytes(proof)?, user))
        }
        b'o' => {
            let entries: Vec<&[u8]> = from_bytes(value)?;
            let entries = entries.into_iter().map(Bytes::copy_from_slice).collect();
            Some(GroupRow::Orphan(group, name.try_into().ok()?, entries))
        }
        _ => None,
    }
}

pub(super) fn read_chain_key(key: &[u8]) -> Option<(GroupId, u64)> {
    let (group, index) = key.split_first_chunk::<32>()?;
    Some((GroupId(*group), u64::from_be_bytes(index.try_into().ok()?)))
}
