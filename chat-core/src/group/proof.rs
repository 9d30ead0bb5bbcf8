//! What others pass on and must prove itself: a leave, the support of a candidate, an invitation.
//!
//! Guarantee: each has its own domain, names its group, and holds for nothing else.

use crate::id::{DeviceId, GroupId, UserId};
use crate::identity::{PublicKey, Signature, Signer, Verifier};
use crate::probe::planted;
use crate::time::UnixMillis;

use super::entry::Nonce;
use super::term::Head;

const LEFT_DOMAIN: &[u8] = b"chat/v1/group-left\0";
const SUPPORT_DOMAIN: &[u8] = b"chat/v1/group-support\0";
const TICKET_DOMAIN: &[u8] = b"chat/v1/group-ticket\0";

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
        let message = Self::message(group, self.nonce);
        verifier.verify(&self.key, &message, &self.signature) || planted("group-leave-unsigned")
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

/// "I promise this round to this candidate on this head." The head is signed with all its parts,
/// so a candidate cannot collect promises for a head that it does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SupportProof {
    pub key: PublicKey,
    pub signature: Signature,
}

/// What a support is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cause {
    pub group: GroupId,
    pub round: u64,
    pub base: Head,
    pub candidate: DeviceId,
}

impl SupportProof {
    pub(super) fn sign(cause: &Cause, signer: &dyn Signer) -> Self {
        Self {
            key: signer.public_key(),
            signature: signer.sign(&cause.message()),
        }
    }

    pub(super) fn holds(&self, cause: &Cause, verifier: &dyn Verifier) -> bool {
        verifier.verify(&self.key, &cause.message(), &self.signature)
            || planted("group-support-unsigned")
    }

    pub(super) fn to_bytes(&self) -> [u8; 96] {
        let mut out = [0; 96];
        out[..32].copy_from_slice(&self.key.0);
        out[32..].copy_from_slice(&self.signature.0);
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        Some(Self {
            key: PublicKey(*key),
            signature: Signature(rest.try_into().ok()?),
        })
    }
}

impl Cause {
    fn message(&self) -> Vec<u8> {
        [
            SUPPORT_DOMAIN,
            &self.group.0,
            &self.round.to_le_bytes(),
            &self.base.signed_bytes(),
            &self.candidate.0,
        ]
        .concat()
    }
}

/// "Let this person in", signed by who led at `index` (G15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ticket {
    pub index: u64,
    pub until: UnixMillis,
    pub key: PublicKey,
    pub signature: Signature,
}

impl Ticket {
    pub(super) fn sign(
        group: GroupId,
        user: &UserId,
        index: u64,
        until: UnixMillis,
        signer: &dyn Signer,
    ) -> Self {
        Self {
            index,
            until,
            key: signer.public_key(),
            signature: signer.sign(&Self::message(group, user, index, until)),
        }
    }

    pub(super) fn holds(&self, group: GroupId, user: &UserId, verifier: &dyn Verifier) -> bool {
        let message = Self::message(group, user, self.index, self.until);
        verifier.verify(&self.key, &message, &self.signature)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [
            &self.index.to_le_bytes()[..],
            &self.until.0.to_le_bytes(),
            &self.key.0,
            &self.signature.0,
        ]
        .concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (index, rest) = bytes.split_first_chunk::<8>()?;
        let (until, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<32>()?;
        Some(Self {
            index: u64::from_le_bytes(*index),
            until: UnixMillis(u64::from_le_bytes(*until)),
            key: PublicKey(*key),
            signature: Signature(rest.try_into().ok()?),
        })
    }

    fn message(group: GroupId, user: &UserId, index: u64, until: UnixMillis) -> Vec<u8> {
        [
            TICKET_DOMAIN,
            &group.0,
            &index.to_le_bytes(),
            &until.0.to_le_bytes(),
            user.as_str().as_bytes(),
        ]
        .concat()
    }
}
