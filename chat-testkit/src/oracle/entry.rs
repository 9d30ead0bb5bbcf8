//! A second reader of log entries, written apart from the core's from what `docs/protocol.md` and
//! reliability 1.2 say: it reads the signed bytes by hand. It also writes them, for entries that
//! nobody should take.

use core::cmp::Reverse;

use chat_core::id::DeviceId;
use chat_core::identity::{PublicKey, Signature, Signer};
use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"chat/v1/group-entry\0";
const SIGNATURE: usize = 64;

/// Round, majority, place of the admission (the earlier the greater), claimant.
type Rank = (u64, bool, Reverse<(u64, u64, u8)>, [u8; 32]);

/// The hash of an entry.
pub(crate) type Hash = [u8; 32];
/// Tells the memberships of one device apart.
pub(crate) type Nonce = [u8; 16];
/// One membership.
pub(crate) type Instance = ([u8; 32], Nonce);

/// A reign, as the bytes say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    pub(crate) round: u64,
    pub(crate) majority: bool,
    /// Round, index and place of the claimant's admission.
    pub(crate) since: (u64, u64, u8),
    pub(crate) claimant: [u8; 32],
}

impl Term {
    /// Greater terms win.
    pub(crate) fn rank(&self) -> Rank {
        (
            self.round,
            self.majority,
            Reverse(self.since),
            self.claimant,
        )
    }
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the operation of the same name
pub(crate) enum Op {
    Genesis {
        nonce: Nonce,
        strict: bool,
        quorum: u8,
    },
    Admit(Vec<(String, [u8; 32], Nonce)>),
    Kick(Vec<Instance>),
    Left {
        key: [u8; 32],
        nonce: Nonce,
        signature: [u8; 64],
        user: String,
    },
    ClaimByHandover,
    /// Keys and signatures of the supporters.
    Claim(Vec<([u8; 32], [u8; 64])>),
    /// To whom, and whether it said yes before.
    Handover([u8; 32], bool),
    Void(Hash),
    Fence(Term, u64),
    Meta(String),
    Checkpoint,
    /// Whom it removes, and whom it lets in after that.
    Batch(Vec<Instance>, Vec<(String, [u8; 32], Nonce)>),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) group: [u8; 32],
    pub(crate) term: Term,
    pub(crate) index: u64,
    pub(crate) prev: Hash,
    pub(crate) author: String,
    pub(crate) key: [u8; 32],
    pub(crate) op: Op,
    pub(crate) hash: Hash,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(usize::try_from(len).ok()?)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.block()?.to_vec()).ok()
    }

    fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        (0..count).map(|_| one(self)).collect()
    }

    fn term(&mut self) -> Option<Term> {
        Some(Term {
            round: self.number()?,
            majority: self.byte()? == 1,
            since: (self.number()?, self.number()?, self.byte()?),
            claimant: self.fixed()?,
        })
    }
}

fn kick(r: &mut Reader<'_>) -> Option<Vec<Instance>> {
    let _user = r.text()?;
    let instances = r.list(|r| Some((r.fixed()?, r.fixed()?)))?;
    let _reason = r.text()?;
    Some(instances)
}

fn admission(r: &mut Reader<'_>) -> Option<(String, [u8; 32], Nonce)> {
    Some((r.text()?, r.fixed()?, r.fixed()?))
}

fn operation(code: u8, body: &[u8]) -> Option<Op> {
    let mut r = Reader(body);
    let op = match code {
        1 => {
            let _name = r.text()?;
            let nonce = r.fixed()?;
            let strict = match r.byte()? {
                1 => false,
                2 => true,
                _ => return None,
            };
            Op::Genesis {
                nonce,
                strict,
                quorum: r.byte()?,
            }
        }
        2 => Op::Admit(r.list(admission)?),
        3 => Op::Kick(kick(&mut r)?),
        11 => {
            let kicks = r.list(kick)?;
            Op::Batch(kicks.concat(), r.list(admission)?)
        }
        4 => Op::Left {
            key: r.fixed()?,
            nonce: r.fixed()?,
            signature: r.fixed()?,
            user: String::from_utf8(r.rest().to_vec()).ok()?,
        },
        5 => match r.byte()? {
            1 => Op::ClaimByHandover,
            2 => {
                let mut supports = Vec::new();
                while !r.0.is_empty() {
                    supports.push((r.fixed()?, r.fixed()?));
                }
                Op::Claim(supports)
            }
            _ => return None,
        },
        6 => {
            let to = r.fixed()?;
            let agreed = r.byte()? == 1;
            Op::Handover(to, agreed)
        }
        7 => Op::Void(r.fixed()?),
        8 => Op::Fence(r.term()?, r.number()?),
        9 => Op::Meta(String::from_utf8(r.rest().to_vec()).ok()?),
        10 => {
            let _state: Hash = r.fixed()?;
            Op::Checkpoint
        }
        _ => return None,
    };
    r.0.is_empty().then_some(op)
}

impl Op {
    /// True when it changes who is in.
    pub(crate) fn changes_roster(&self) -> bool {
        matches!(
            self,
            Self::Admit(_) | Self::Kick(_) | Self::Left { .. } | Self::Batch(..)
        )
    }

    /// Whom it removes.
    pub(crate) fn kicks(&self) -> &[Instance] {
        match self {
            Self::Kick(out) | Self::Batch(out, _) => out,
            _ => &[],
        }
    }

    /// Whom it lets in.
    pub(crate) fn admits(&self) -> &[(String, [u8; 32], Nonce)] {
        match self {
            Self::Admit(fresh) | Self::Batch(_, fresh) => fresh,
            _ => &[],
        }
    }

    /// True when it begins a term.
    pub(crate) fn begins_term(&self) -> bool {
        matches!(
            self,
            Self::Genesis { .. } | Self::ClaimByHandover | Self::Claim(_)
        )
    }
}

impl Entry {
    /// Reads an entry; whether its key holder signed it is another question.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(covered(bytes)?);
        let group = r.fixed()?;
        let term = r.term()?;
        let (index, prev) = (r.number()?, r.fixed()?);
        let (author, key) = (r.text()?, r.fixed()?);
        let _at = r.number()?;
        let code = r.byte()?;
        let body = r.block()?;
        if !r.0.is_empty() {
            return None;
        }
        Some(Self {
            group,
            term,
            index,
            prev,
            author,
            key,
            op: operation(code, body)?,
            hash: hash(bytes),
        })
    }

    /// The device that signed it, if the key did.
    pub(crate) fn device(&self) -> DeviceId {
        PublicKey(self.key).device()
    }
}

/// What the signature covers.
fn covered(bytes: &[u8]) -> Option<&[u8]> {
    let (covered, _) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE)?)?;
    Some(covered)
}

/// The message that the author of an entry signed.
pub(crate) fn message(bytes: &[u8]) -> Option<Vec<u8>> {
    Some([DOMAIN, covered(bytes)?].concat())
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(bytes);
    hash.finalize().into()
}

/// An entry that its author likes: signed, and otherwise whatever is asked for.
pub(crate) struct Forged<'a> {
    pub(crate) group: [u8; 32],
    pub(crate) term: Term,
    pub(crate) index: u64,
    pub(crate) prev: Hash,
    pub(crate) author: &'a str,
    pub(crate) code: u8,
    pub(crate) body: &'a [u8],
}

impl Forged<'_> {
    /// Its bytes.
    pub(crate) fn sign(&self, signer: &dyn Signer) -> Vec<u8> {
        let mut out = self.group.to_vec();
        number(&mut out, self.term.round);
        out.push(u8::from(self.term.majority));
        number(&mut out, self.term.since.0);
        number(&mut out, self.term.since.1);
        out.push(self.term.since.2);
        out.extend(self.term.claimant);
        number(&mut out, self.index);
        out.extend(self.prev);
        block(&mut out, self.author.as_bytes());
        out.extend(signer.public_key().0);
        number(&mut out, 0);
        out.push(self.code);
        block(&mut out, self.body);
        let Signature(signature) = signer.sign(&[DOMAIN, &out].concat());
        out.extend(signature);
        out
    }
}

/// Appends a number as the format spells it.
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes with their length before them.
pub(crate) fn block(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
