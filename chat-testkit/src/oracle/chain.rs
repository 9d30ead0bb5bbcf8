//! Every log that was ever seen, by the hashes of its entries: what each head folds to, judged once
//! by the second judge in `certificate` (IG1, IG3, IG8, IG12).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use chat_core::identity::PublicKey;

use super::Violation;
use super::certificate::Fold;
use super::entry::{Entry, Hash, Term, message};
use crate::sim::Ledger;

/// See the module.
#[derive(Debug)]
pub(crate) struct Log {
    ledger: Arc<Ledger>,
    known: HashMap<Hash, Entry>,
    places: HashMap<(Term, u64), Hash>,
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
            places: HashMap::new(),
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

    /// An entry that somebody keeps: its place is taken.
    ///
    /// # Errors
    /// IG1: the owner of the term signed another entry for it, which somebody kept.
    pub(crate) fn keep(&mut self, hash: Hash) -> Result<(), Violation> {
        let Some(entry) = self.known.get(&hash) else {
            return Ok(());
        };
        let first = *self.places.entry((entry.term, entry.index)).or_insert(hash);
        if first == hash || self.may_differ(&entry.term) {
            return Ok(());
        }
        let text = format!(
            "two entries at round {}, index {}: {:?} and {:?}",
            entry.term.round,
            entry.index,
            self.known.get(&first).map(|first| &first.op),
            entry.op
        );
        Err(Violation::new("IG1", text))
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
