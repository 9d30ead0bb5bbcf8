//! One entry of the log: its wire form, its hash and its signature (reliability 1.2).
//!
//! As carried: the postcard encoding of `WireEntry`, in this order group (32), round, majority (1),
//! seniority (round, index, place (1)), claimant (32), index, previous hash (32), author (text), key
//! (32), time in Unix ms, code (1), body (bytes); then the signature (64). Numbers are LEB128
//! varints, texts and byte strings have their length before them. The signature covers
//! `"chat/v1/group-entry\0"` and everything before it, the hash the same domain and all bytes. The
//! bodies are in `op.rs`.
//!
//! Guarantees: the signature and the hash cover the bytes as carried, nothing is decoded, encoded
//! again and compared; an operation that this version does not know is no entry, so a log is never
//! folded past something that was not understood.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{DeviceId, GroupId, GroupName, UserId};
use crate::identity::{PublicKey, Signature, Signer, Verifier};
use crate::time::UnixMillis;
use crate::wire::group::MAX_ENTRY;

use super::op::Op;
use super::term::{Hash, Seniority, Term};

const ENTRY_DOMAIN: &[u8] = b"chat/v1/group-entry\0";
const SIGNATURE: usize = 64;

/// Tells two memberships of one device apart.
pub(super) type Nonce = [u8; 16];

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
pub(super) fn user(text: &str) -> Option<UserId> {
    UserId::new(text).ok().filter(|u| u.as_str() == text)
}

pub(super) fn name(text: &str) -> Option<GroupName> {
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
