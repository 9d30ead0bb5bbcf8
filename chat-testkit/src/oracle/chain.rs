//! A second reader of group logs, written apart from the core's: it takes entries off the wire,
//! reads their bytes by hand and folds them by itself (IG1, IG3, IG12).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chat_core::id::DeviceId;
use chat_core::identity::PublicKey;

use super::Violation;
use crate::sim::Ledger;

const DOMAIN: &[u8] = b"chat/v1/group-entry\0";
const SIGNATURE: usize = 64;

type Nonce = [u8; 16];

/// What an entry does, as far as the roster and the lead are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Genesis(Nonce),
    Admit(Vec<(String, [u8; 32], Nonce)>),
    Kick(String, Vec<([u8; 32], Nonce)>),
    Left([u8; 32], Nonce),
    Claim,
    Handover([u8; 32]),
    Other,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub round: u64,
    pub claimant: [u8; 32],
    pub index: u64,
    pub prev: [u8; 32],
    pub author: String,
    pub key: [u8; 32],
    pub op: Op,
}

/// Members by device: user, nonce, index of admission.
pub(super) type Members = BTreeMap<[u8; 32], (String, Nonce, u64)>;

/// What a chain folds to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fold {
    pub members: Members,
    pub leader: Option<[u8; 32]>,
    gone: BTreeSet<([u8; 32], Nonce)>,
    /// The last entry hands over to this device.
    pub heir: Option<[u8; 32]>,
}

/// All entries ever seen on the wire.
#[derive(Debug)]
pub(super) struct Log {
    ledger: Arc<Ledger>,
    known: BTreeMap<[u8; 32], Entry>,
    places: HashMap<(u64, [u8; 32], u64), [u8; 32]>,
    seen: BTreeSet<Vec<u8>>,
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

    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
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
}

impl Entry {
    /// Reads the signed part of an entry.
    pub(super) fn read(covered: &[u8]) -> Option<Self> {
        let mut r = Reader(covered);
        let _group: [u8; 32] = r.fixed()?;
        let round = r.number()?;
        let _majority = r.take(1)?;
        let _seniority = (r.number()?, r.number()?, r.take(1)?);
        let claimant = r.fixed()?;
        let (index, prev) = (r.number()?, r.fixed()?);
        let (author, key) = (r.text()?, r.fixed()?);
        let _at = r.number()?;
        let code = *r.take(1)?.first()?;
        let mut body = Reader(r.block()?);
        if !r.0.is_empty() {
            return None;
        }
        let op = match code {
            1 => {
                let _name = body.text()?;
                Op::Genesis(body.fixed()?)
            }
            2 => {
                let count = body.number()?;
                let one =
                    |body: &mut Reader<'_>| Some((body.text()?, body.fixed()?, body.fixed()?));
                Op::Admit((0..count).map(|_| one(&mut body)).collect::<Option<_>>()?)
            }
            3 => {
                let user = body.text()?;
                let count = body.number()?;
                let one = |body: &mut Reader<'_>| Some((body.fixed()?, body.fixed()?));
                Op::Kick(
                    user,
                    (0..count).map(|_| one(&mut body)).collect::<Option<_>>()?,
                )
            }
            4 => {
                let key = PublicKey(body.fixed()?);
                Op::Left(key.device().0, body.fixed()?)
            }
            5 => Op::Claim,
            6 => Op::Handover(body.fixed()?),
            _ => Op::Other,
        };
        Some(Self {
            round,
            claimant,
            index,
            prev,
            author,
            key,
            op,
        })
    }

    fn device(&self) -> DeviceId {
        PublicKey(self.key).device()
    }
}

impl Fold {
    fn apply(&mut self, entry: &Entry) {
        self.heir = None;
        match &entry.op {
            Op::Genesis(nonce) => {
                let seat = (entry.author.clone(), *nonce, entry.index);
                self.members.insert(entry.claimant, seat);
                self.leader = Some(entry.claimant);
            }
            Op::Admit(list) => {
                for (user, device, nonce) in list {
                    let sits = self
                        .members
                        .get(device)
                        .is_some_and(|seat| seat.1 == *nonce);
                    let leads = self.leader == Some(*device);
                    if sits || leads || self.gone.contains(&(*device, *nonce)) {
                        continue;
                    }
                    self.remove(*device);
                    self.members
                        .insert(*device, (user.clone(), *nonce, entry.index));
                }
            }
            Op::Kick(_, instances) => {
                for instance in instances {
                    self.remove_instance(*instance);
                }
            }
            Op::Left(device, nonce) => self.remove_instance((*device, *nonce)),
            Op::Claim => self.leader = Some(entry.claimant),
            Op::Handover(to) => self.heir = Some(*to),
            Op::Other => {}
        }
    }

    /// Who is not in stays out.
    fn remove_instance(&mut self, instance: ([u8; 32], Nonce)) {
        let seat = self.members.get(&instance.0);
        if seat.is_some_and(|seat| seat.1 == instance.1) {
            self.remove(instance.0);
        } else {
            self.gone.insert(instance);
        }
    }

    fn remove(&mut self, device: [u8; 32]) {
        if let Some((_, nonce, _)) = self.members.remove(&device) {
            self.gone.insert((device, nonce));
        }
    }
}

impl Log {
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            known: BTreeMap::new(),
            places: HashMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// How many different entries were read.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes an entry off the wire. One that its key holder did not sign says nothing.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.seen.contains(bytes) {
            return Ok(());
        }
        let Some((covered, _)) = bytes.split_at_checked(bytes.len().saturating_sub(SIGNATURE))
        else {
            return Ok(());
        };
        let Some(entry) = Entry::read(covered) else {
            return Ok(());
        };
        if !self
            .ledger
            .signed(&PublicKey(entry.key), &[DOMAIN, covered].concat())
        {
            return Ok(());
        }
        self.seen.insert(bytes.to_vec());
        let hash = hash(bytes);
        // A term belongs to its claimant: entries of others are no entries, whoever carries them.
        if entry.device().0 == entry.claimant {
            let place = (entry.round, entry.claimant, entry.index);
            let first = *self.places.entry(place).or_insert(hash);
            if first != hash {
                let text = format!(
                    "two entries at round {}, index {}: {:?} and {:?}",
                    entry.round,
                    entry.index,
                    self.known.get(&first).map(|first| &first.op),
                    entry.op
                );
                return Err(Violation::new("IG1", text));
            }
        }
        self.known.insert(hash, entry);
        Ok(())
    }

    /// Folds the chain whose head is the entry of `leader` at (`round`, `index`); `None` when a
    /// part of it was never on the wire.
    pub(super) fn fold(&self, round: u64, index: u64, leader: [u8; 32]) -> Option<Fold> {
        let mut at = *self.places.get(&(round, leader, index))?;
        let mut chain = Vec::new();
        loop {
            let entry = self.known.get(&at)?;
            chain.push(entry);
            if entry.index == 1 {
                break;
            }
            at = entry.prev;
        }
        let mut fold = Fold::default();
        for entry in chain.iter().rev() {
            fold.apply(entry);
        }
        Some(fold)
    }
}

/// The hash of an entry, by the public derivation of a group's id: domain, then the bytes.
fn hash(bytes: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(bytes);
    hash.finalize().into()
}

/// An entry of a leader that signs what it likes.
#[cfg(test)]
pub(super) fn forge(
    signer: &dyn chat_core::identity::Signer,
    device: DeviceId,
    index: u8,
    body: &[u8],
) -> Vec<u8> {
    let mut out = vec![9; 32];
    out.extend([1, 1, 1, 1, 0]);
    out.extend(device.0);
    out.push(index);
    out.extend([0; 32]);
    out.extend([3, b'a', b'n', b'n']);
    out.extend(signer.public_key().0);
    out.extend([0, 9, body.len() as u8]);
    out.extend(body);
    let signature = signer.sign(&[DOMAIN, &out].concat());
    out.extend(signature.0);
    out
}
