//! One entry of the log: what it says, its wire form, its hash and its signature
//! (reliability 1.2).
//!
//! Guarantees: the signature and the hash cover the bytes as carried, nothing is decoded, encoded
//! again and compared; an operation that this version does not know is no entry, so a log is never
//! folded past something that was not understood.
//!
//! Codes of operations: 1 Genesis, 2 Admit, 3 Kick, 4 Left, 5 Claim, 6 Handover, 7 Void and 8 Fence
//! (kept for succession by certificate), 9 Meta, 10 Checkpoint.

use core::cmp::Reverse;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{DeviceId, GroupId, GroupName, UserId};
use crate::identity::{PublicKey, Signature, Signer, Verifier};
use crate::time::UnixMillis;
use crate::wire::group::MAX_ENTRY;
use crate::wire::{BoundedStr, BoundedVec};

/// Admissions in one entry: the most that always fit [`MAX_ENTRY`], whatever the names.
pub(super) const MAX_BATCH: usize = 24;
/// Devices of one user that a kick names.
pub(super) const MAX_DEVICES: usize = 64;

const ENTRY_DOMAIN: &[u8] = b"chat/v1/group-entry\0";
const LEFT_DOMAIN: &[u8] = b"chat/v1/group-left\0";
const SIGNATURE: usize = 64;

/// Tells two memberships of one device apart.
pub(super) type Nonce = [u8; 16];
/// SHA-256 over an entry as carried.
pub(super) type Hash = [u8; 32];

/// Where an instance was admitted; the earlier, the more senior.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seniority {
    /// The round of the term that admitted it.
    pub round: u64,
    /// The index of the entry.
    pub index: u64,
    /// The place within the entry.
    pub place: u8,
}

/// A reign. Greater terms win; the claimant is part of it, so no two devices own one term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Term {
    /// Grows with every claim.
    pub round: u64,
    /// A majority stood behind the claim.
    pub majority: bool,
    /// The claimant's admission.
    pub seniority: Seniority,
    /// Who reigns.
    pub claimant: DeviceId,
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        let key = |t: &Self| (t.round, t.majority, Reverse(t.seniority), t.claimant);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One instance that is let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Admission {
    pub user: UserId,
    pub device: DeviceId,
    pub nonce: Nonce,
}

/// What an entry does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// The group begins; the author is its first member and leads.
    Genesis {
        name: GroupName,
        nonce: Nonce,
        /// 1 Available, 2 Strict; unused while the lead passes only by hand-over.
        policy: u8,
        /// How many must support a claim.
        quorum: u8,
    },
    /// Lets instances in, all or none (G19).
    Admit(Vec<Admission>),
    /// Removes every device of a user. The instances are named, so that a kick still means
    /// something on another branch of the log.
    Kick {
        user: UserId,
        instances: Vec<(DeviceId, Nonce)>,
        reason: String,
    },
    /// An instance leaves; it signed that itself.
    Left(LeftProof),
    /// The author reigns from here, because the entry before hands over to it.
    Claim,
    /// The lead goes to this device; only its claim may follow.
    Handover { to: DeviceId },
    /// The group has another name.
    Meta { name: GroupName },
    /// The digest of the state before this entry.
    Checkpoint { state: Hash },
}

/// "I leave", signed by the leaver itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LeftProof {
    pub key: PublicKey,
    pub nonce: Nonce,
    pub signature: Signature,
}

impl LeftProof {
    pub(super) fn sign(group: GroupId, nonce: Nonce, signer: &dyn Signer) -> Self {
        Self {
            key: signer.public_key(),
            nonce,
            signature: signer.sign(&Self::message(group, nonce)),
        }
    }

    pub(super) fn holds(&self, group: GroupId, verifier: &dyn Verifier) -> bool {
        verifier.verify(
            &self.key,
            &Self::message(group, self.nonce),
            &self.signature,
        )
    }

    pub(super) fn instance(&self) -> (DeviceId, Nonce) {
        (self.key.device(), self.nonce)
    }

    pub(super) fn to_bytes(&self) -> [u8; 112] {
        let mut out = [0; 112];
        out[..32].copy_from_slice(&self.key.0);
        out[32..48].copy_from_slice(&self.nonce);
        out[48..].copy_from_slice(&self.signature.0);
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let (nonce, rest) = rest.split_first_chunk::<16>()?;
        Some(Self {
            key: PublicKey(*key),
            nonce: *nonce,
            signature: Signature(rest.try_into().ok()?),
        })
    }

    fn message(group: GroupId, nonce: Nonce) -> Vec<u8> {
        [LEFT_DOMAIN, &group.0, &nonce].concat()
    }
}

/// What is to be signed.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Zeros for Genesis, whose hash it is.
    pub group: GroupId,
    pub term: Term,
    pub index: u64,
    pub prev: Hash,
    pub op: Op,
    pub author: UserId,
    pub at: UnixMillis,
}

/// A decoded entry. Its signature may be wrong: see [`Entry::verify`].
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub draft: Draft,
    pub key: PublicKey,
    pub hash: Hash,
    pub bytes: Bytes,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    group: [u8; 32],
    round: u64,
    majority: bool,
    seniority: Seniority,
    claimant: [u8; 32],
    index: u64,
    prev: [u8; 32],
    author: &'a str,
    key: [u8; 32],
    at: u64,
    code: u8,
    body: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WireGenesis {
    name: BoundedStr<256>,
    nonce: Nonce,
    policy: u8,
    quorum: u8,
}

#[derive(Serialize, Deserialize)]
struct WireAdmission {
    user: BoundedStr<256>,
    device: [u8; 32],
    nonce: Nonce,
}

#[derive(Serialize, Deserialize)]
struct WireKick {
    user: BoundedStr<256>,
    instances: BoundedVec<([u8; 32], Nonce), MAX_DEVICES>,
    reason: BoundedStr<512>,
}

/// The only cause of a claim that this version knows.
const BY_HANDOVER: u8 = 1;

impl Entry {
    /// Signs `draft`; `None` when it is longer than [`MAX_ENTRY`].
    pub(super) fn sign(draft: Draft, signer: &dyn Signer) -> Option<Self> {
        let key = signer.public_key();
        let (code, body) = draft.op.encode();
        let wire = WireEntry {
            group: draft.group.0,
            round: draft.term.round,
            majority: draft.term.majority,
            seniority: draft.term.seniority,
            claimant: draft.term.claimant.0,
            index: draft.index,
            prev: draft.prev,
            author: draft.author.as_str(),
            key: key.0,
            at: draft.at.0,
            code,
            body: &body,
        };
        let mut bytes = to_bytes(&wire);
        let signature = signer.sign(&signed_message(&bytes));
        bytes.extend_from_slice(&signature.0);
        (bytes.len() <= MAX_ENTRY).then(|| Self {
            hash: hash(&bytes),
            bytes: bytes.into(),
            key,
            draft,
        })
    }

    /// Reads an entry without checking its signature.
    pub(super) fn open(bytes: &Bytes) -> Option<Self> {
        if bytes.len() > MAX_ENTRY {
            return None;
        }
        let (covered, _) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE)?)?;
        let wire: WireEntry<'_> = from_bytes(covered)?;
        Some(Self {
            draft: Draft {
                group: GroupId(wire.group),
                term: Term {
                    round: wire.round,
                    majority: wire.majority,
                    seniority: wire.seniority,
                    claimant: DeviceId(wire.claimant),
                },
                index: wire.index,
                prev: wire.prev,
                op: Op::decode(wire.code, wire.body)?,
                author: user(wire.author)?,
                at: UnixMillis(wire.at),
            },
            key: PublicKey(wire.key),
            hash: hash(bytes),
            bytes: bytes.clone(),
        })
    }

    /// True when the key that it names signed it.
    pub(super) fn verify(&self, verifier: &dyn Verifier) -> bool {
        let (covered, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE);
        let signature = signature.try_into().expect("the slice has 64 bytes");
        verifier.verify(&self.key, &signed_message(covered), &Signature(signature))
    }

    /// The group that it belongs to: for Genesis the one that it founds.
    pub(super) fn group(&self) -> GroupId {
        match self.draft.op {
            Op::Genesis { .. } => GroupId(self.hash),
            _ => self.draft.group,
        }
    }
}

impl Op {
    fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Genesis {
                name,
                nonce,
                policy,
                quorum,
            } => (
                1,
                to_bytes(&WireGenesis {
                    name: BoundedStr::truncated(name.as_str()),
                    nonce: *nonce,
                    policy: *policy,
                    quorum: *quorum,
                }),
            ),
            Self::Admit(list) => (
                2,
                to_bytes(&BoundedVec::<_, MAX_BATCH>::take_from(list.iter().map(
                    |a| WireAdmission {
                        user: BoundedStr::truncated(a.user.as_str()),
                        device: a.device.0,
                        nonce: a.nonce,
                    },
                ))),
            ),
            Self::Kick {
                user,
                instances,
                reason,
            } => (
                3,
                to_bytes(&WireKick {
                    user: BoundedStr::truncated(user.as_str()),
                    instances: BoundedVec::take_from(instances.iter().map(|(d, n)| (d.0, *n))),
                    reason: BoundedStr::truncated(reason),
                }),
            ),
            Self::Left(proof) => (4, proof.to_bytes().to_vec()),
            Self::Claim => (5, vec![BY_HANDOVER]),
            Self::Handover { to } => (6, to.0.to_vec()),
            Self::Meta { name } => (9, name.as_str().as_bytes().to_vec()),
            Self::Checkpoint { state } => (10, state.to_vec()),
        }
    }

    fn decode(code: u8, body: &[u8]) -> Option<Self> {
        Some(match code {
            1 => {
                let wire: WireGenesis = from_bytes(body)?;
                Self::Genesis {
                    name: name(&wire.name)?,
                    nonce: wire.nonce,
                    policy: wire.policy,
                    quorum: wire.quorum,
                }
            }
            2 => {
                let wire: BoundedVec<WireAdmission, MAX_BATCH> = from_bytes(body)?;
                let admit = |a: &WireAdmission| {
                    Some(Admission {
                        user: user(&a.user)?,
                        device: DeviceId(a.device),
                        nonce: a.nonce,
                    })
                };
                Self::Admit(wire.iter().map(admit).collect::<Option<_>>()?)
            }
            3 => {
                let wire: WireKick = from_bytes(body)?;
                Self::Kick {
                    user: user(&wire.user)?,
                    instances: wire
                        .instances
                        .iter()
                        .map(|(device, nonce)| (DeviceId(*device), *nonce))
                        .collect(),
                    reason: wire.reason.to_string(),
                }
            }
            4 => Self::Left(LeftProof::from_bytes(body)?),
            5 if body == [BY_HANDOVER] => Self::Claim,
            6 => Self::Handover {
                to: DeviceId(body.try_into().ok()?),
            },
            9 => Self::Meta {
                name: name(core::str::from_utf8(body).ok()?)?,
            },
            10 => Self::Checkpoint {
                state: body.try_into().ok()?,
            },
            _ => return None,
        })
    }
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(ENTRY_DOMAIN);
    hash.update(bytes);
    hash.finalize().into()
}

fn signed_message(covered: &[u8]) -> Vec<u8> {
    [ENTRY_DOMAIN, covered].concat()
}

/// Names are signed in their normal form; another spelling is no entry.
fn user(text: &str) -> Option<UserId> {
    UserId::new(text).ok().filter(|u| u.as_str() == text)
}

fn name(text: &str) -> Option<GroupName> {
    GroupName::new(text).ok().filter(|n| n.as_str() == text)
}

pub(super) fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("our types always serialise to a growing vector")
}

pub(super) fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}
