//! Every log that was ever seen, by the hashes of its entries: what each head folds to, judged once
//! by the second judge in `certificate` (IG1, IG3, IG8, IG12).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use chat_core::identity::PublicKey;

use super::certificate::Fold;
use super::entry::{Entry, Hash, Term, message};
use crate::sim::Ledger;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    ledger: Arc<Ledger>,
    known: HashMap<Hash, Entry>,
    folds: HashMap<Hash, Rc<Result<Fold, String>>>,
    seen: HashMap<Vec<u8>, Option<Hash>>,
    /// Devices whose disk went back: they may sign a place twice, which others report.
    forgetful: HashSet<[u8; 32]>,
}

impl Log {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            known: HashMap::new(),
            folds: HashMap::new(),
            seen: HashMap::new(),
            forgetful: HashSet::new(),
        }
    }

    /// How many different entries were read.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// The disk of this device went back.
    pub(crate) fn forgets(&mut self, device: [u8; 32]) {
        self.forgetful.insert(device);
    }

    /// True when a device that may have signed twice owns the term.
    pub(crate) fn may_differ(&self, term: &Term) -> bool {
        self.forgetful.contains(&term.claimant)
    }

    /// Takes an entry off the wire or off a disk; `None` when its key holder did not sign it or
    /// does not own its term.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Option<Hash> {
        if let Some(known) = self.seen.get(bytes) {
            return *known;
        }
        let entry = Entry::read(bytes).filter(|entry| {
            let signed = message(bytes)
                .is_some_and(|message| self.ledger.signed(&PublicKey(entry.key), &message));
            signed && entry.device().0 == entry.term.claimant
        });
        let hash = entry.as_ref().map(|entry| entry.hash);
        self.seen.insert(bytes.to_vec(), hash);
        let entry = entry?;
        self.known.insert(entry.hash, entry);
        hash
    }

    /// What the log that ends with this entry folds to, if it is one and all of it is known.
    pub(crate) fn good(&mut self, head: Hash) -> Option<Fold> {
        self.fold(head)?.as_ref().as_ref().ok().cloned()
    }

    /// The entry at `index` of the log that ends with `head`.
    pub(crate) fn back(&self, head: Hash, index: u64) -> Option<Hash> {
        let mut at = head;
        loop {
            let entry = self.known.get(&at)?;
            match entry.index.cmp(&index) {
                core::cmp::Ordering::Equal => return Some(at),
                core::cmp::Ordering::Less => return None,
                core::cmp::Ordering::Greater => at = entry.prev,
            }
        }
    }

    /// The entry with this hash.
    pub(crate) fn entry(&self, hash: &Hash) -> Option<&Entry> {
        self.known.get(hash)
    }

    /// What the log that ends with this entry folds to, or why it is no log; `None` when a part of
    /// it was never seen.
    pub(crate) fn fold(&mut self, head: Hash) -> Option<Rc<Result<Fold, String>>> {
        let mut todo = Vec::new();
        let mut at = head;
        let mut state = loop {
            if let Some(known) = self.folds.get(&at) {
                break Some(known.clone());
            }
            let entry = self.known.get(&at)?;
            todo.push(at);
            if entry.index <= 1 {
                break None;
            }
            at = entry.prev;
        };
        for hash in todo.into_iter().rev() {
            let entry = self.known.get(&hash)?;
            let next = match state.as_deref() {
                None => Fold::found(entry),
                Some(Ok(before)) => before.follow(entry, &self.ledger),
                Some(Err(why)) => Err(why.clone()),
            };
            let next = Rc::new(next);
            self.folds.insert(hash, next.clone());
            state = Some(next);
        }
        state
    }
}
