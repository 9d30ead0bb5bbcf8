//! The hash chain that one device holds: what may follow, which of two branches wins, the fold
//! (reliability 1.4).
//!
//! Guarantees: an entry is taken only when its place, its hash link, its operation and its
//! signature hold; the head, ordered by (term, index, lower hash), never decreases, whatever
//! arrives in whatever order; two chains with one head fold to one roster.
//!
//! Bound: [`MAX_ENTRIES`] entries. From [`SOFT_ENTRIES`] on a leader takes nobody in and renames
//! nothing, so that there is always room to leave, to kick and to hand over.

use bytes::Bytes;

use super::entry::Entry;
use super::roster::{News, Roster};
use super::term::{Hash, Head, Term};
use crate::id::{DeviceId, GroupId, UserId};
use crate::identity::Verifier;
use crate::probe::{mark, planted};
use crate::wire::group::{Entries, Fetch, MAX_ENTRY, MAX_HAVE, Place};
use crate::wire::{BoundedBytes, BoundedVec};

/// The most entries of a chain.
pub(super) const MAX_ENTRIES: u64 = 8_192;
/// From here on a leader appends only what lets people go.
pub(super) const SOFT_ENTRIES: u64 = 4_096;
/// Bytes of entries in one frame; with one full entry more it still fits a control frame.
pub(super) const PAGE: usize = 12 * 1024;

/// Other branches that are being read; the one that grew least lately goes first.
const MAX_SIDES: usize = 4;

/// A chain of one group, never empty.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub group: GroupId,
    links: Vec<Link>,
    pub roster: Roster,
    /// Branches that are valid as far as they were read, and not greater so far.
    sides: Vec<Self>,
}

#[derive(Clone)]
struct Link {
    bytes: Bytes,
    hash: Hash,
    term: Term,
}

/// What became of some entries.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    /// The first index that is new or rewritten.
    pub from: Option<u64>,
    /// What the new entries changed, with their index and round.
    pub news: Vec<(u64, u64, News)>,
    /// Something does not attach: the entries before it are missing here.
    pub gap: bool,
    /// Another branch grew.
    pub aside: bool,
    /// The entries of ours that a greater branch replaced, oldest first.
    pub undone: Vec<Entry>,
    /// Valid entries of a branch that stays the lower one, from where it leaves ours.
    pub lower: Vec<Entry>,
    /// This leader signed two entries for one place of this term.
    pub equivocation: Option<(UserId, Term, u64)>,
}

impl Chain {
    /// The chain that `genesis` founds.
    pub(super) fn found(bytes: &Bytes, group: GroupId, verifier: &dyn Verifier) -> Option<Self> {
        let entry = Entry::open(bytes)?;
        let founds = GroupId(entry.hash) == group && entry.verify(verifier);
        founds.then(|| Self::from_genesis(&entry)).flatten()
    }

    /// The chain of a first entry that was checked when it was stored.
    pub(super) fn begin(bytes: &Bytes, group: GroupId) -> Option<Self> {
        let entry = Entry::open(bytes)?;
        (entry.group() == group)
            .then(|| Self::from_genesis(&entry))
            .flatten()
    }

    /// Adds an entry whose signature was checked when it was stored; everything else is checked
    /// again.
    pub(super) fn extend(&mut self, bytes: &Bytes, verifier: &dyn Verifier) -> Option<()> {
        let entry = Entry::open(bytes)?;
        let fits = self.attaches(&entry) && self.roster.allows(&entry, verifier);
        fits.then(|| {
            self.push(&entry);
        })
    }

    fn from_genesis(entry: &Entry) -> Option<Self> {
        Some(Self {
            group: GroupId(entry.hash),
            roster: Roster::found(entry)?,
            links: vec![Link::of(entry)],
            sides: Vec::new(),
        })
    }

    /// The index of the head.
    pub(super) fn index(&self) -> u64 {
        self.links.len() as u64
    }

    /// The hash of the head.
    pub(super) fn hash(&self) -> Hash {
        self.tip().hash
    }

    /// The head.
    pub(super) fn head(&self) -> Head {
        let tip = self.tip();
        Head {
            term: tip.term,
            index: self.index(),
            hash: tip.hash,
        }
    }

    fn tip(&self) -> &Link {
        self.links.last().expect("a chain starts with its genesis")
    }

    fn link(&self, index: u64) -> Option<&Link> {
        let at = usize::try_from(index.checked_sub(1)?).ok()?;
        self.links.get(at)
    }

    /// The entry at `index`, as signed.
    pub(super) fn bytes(&self, index: u64) -> Option<&Bytes> {
        self.link(index).map(|link| &link.bytes)
    }

    /// The head that the entry at `index` was.
    #[cfg(test)]
    pub(super) fn place(&self, index: u64) -> Option<Head> {
        let link = self.link(index)?;
        Some(Head {
            term: link.term,
            index,
            hash: link.hash,
        })
    }

    /// The entry at `index`.
    pub(super) fn entry(&self, index: u64) -> Option<Entry> {
        Entry::open(self.bytes(index)?)
    }

    /// Who led when the entry at `index` was the head.
    pub(super) fn leader_at(&self, index: u64) -> Option<DeviceId> {
        self.link(index).map(|link| link.term.claimant)
    }

    /// The term of the entry at `index`.
    pub(super) fn term_at(&self, index: u64) -> Option<Term> {
        self.link(index).map(|link| link.term)
    }

    /// True when this very entry is ours.
    pub(super) fn holds(&self, index: u64, hash: &Hash) -> bool {
        self.link(index).is_some_and(|link| link.hash == *hash)
    }

    fn attaches(&self, entry: &Entry) -> bool {
        entry.group() == self.group
            && entry.draft.index == self.index() + 1
            && entry.draft.index <= MAX_ENTRIES
            && entry.draft.prev == self.hash()
    }

    fn push(&mut self, entry: &Entry) -> Vec<News> {
        self.links.push(Link::of(entry));
        self.roster.apply(entry)
    }

    /// Takes what fits of `entries`, oldest first. Everything else changes nothing.
    pub(super) fn accept(&mut self, entries: &[Bytes], verifier: &dyn Verifier) -> Accepted {
        let mut done = Accepted::default();
        for entry in entries.iter().map_while(Entry::open) {
            if entry.group() != self.group {
                break;
            }
            let index = entry.draft.index;
            if self.holds(index, &entry.hash) {
                continue;
            }
            if self.attaches(&entry) {
                if !self.takes(&entry, verifier) {
                    mark("group-entry-refused");
                    break;
                }
                self.grow(&entry, &mut done);
            } else if !self.branch_off(&entry, verifier, &mut done) {
                break;
            }
        }
        if done.aside {
            self.compare(&mut done);
        }
        done
    }

    /// Everything but the place of an entry.
    fn takes(&self, entry: &Entry, verifier: &dyn Verifier) -> bool {
        self.roster.allows(entry, verifier)
            && (entry.verify(verifier) || planted("group-entry-by-anyone"))
    }

    fn grow(&mut self, entry: &Entry, done: &mut Accepted) {
        let index = entry.draft.index;
        done.from.get_or_insert(index);
        for news in self.push(entry) {
            done.news.push((index, entry.draft.term.round, news));
        }
    }

    /// The chain as it was at `index`. It was valid, so it is only folded again.
    fn up_to(&self, index: u64) -> Option<Self> {
        let mut chain = Self::begin(self.bytes(1)?, self.group)?;
        for at in 2..=index {
            chain.push(&self.entry(at)?);
        }
        Some(chain)
    }

    /// Takes an entry of another branch; false when it does not fit.
    fn branch_off(&mut self, entry: &Entry, verifier: &dyn Verifier, done: &mut Accepted) -> bool {
        let index = entry.draft.index;
        if self.sides.iter().any(|side| side.holds(index, &entry.hash)) {
            return true;
        }
        if let Some(at) = self.sides.iter().position(|side| side.attaches(entry)) {
            let mut side = self.sides.remove(at);
            let taken = side.takes(entry, verifier);
            if taken {
                side.push(entry);
                done.aside = true;
            }
            self.sides.push(side);
            return taken;
        }
        let before = index.saturating_sub(1);
        let chains = || core::iter::once(&*self).chain(&self.sides);
        let Some(trunk) = chains().find(|chain| chain.holds(before, &entry.draft.prev)) else {
            done.gap = true;
            return false;
        };
        // Folding again costs more than one signature, so that comes first.
        let author = entry.key.device();
        let known = chains().any(|chain| {
            chain.roster.seats.contains_key(&author) || chain.roster.past(author).next().is_some()
        });
        if !known || entry.draft.term.claimant != author || !entry.verify(verifier) {
            mark("group-fork-refused");
            return false;
        }
        let Some(mut side) = trunk.up_to(before) else {
            return false;
        };
        if !side.takes(entry, verifier) {
            mark("group-fork-refused");
            return false;
        }
        side.push(entry);
        if self.term_at(index) == Some(entry.draft.term) {
            mark("group-equivocation");
            let term = entry.draft.term;
            done.equivocation = Some((entry.draft.author.clone(), term, index));
        }
        if self.sides.len() == MAX_SIDES {
            mark("group-side-dropped");
            self.sides.remove(0);
        }
        self.sides.push(side);
        done.aside = true;
        true
    }

    /// The greatest branch wins (IG10: whatever came first).
    fn compare(&mut self, done: &mut Accepted) {
        let Some(side) = self.sides.last() else {
            return;
        };
        let common = self.common_with(side);
        let wins = side.head() > self.head() || planted("group-head-decreases");
        if !wins {
            let rest = common + 1..=side.index();
            done.lower = rest.filter_map(|index| side.entry(index)).collect();
            return;
        }
        mark("group-branch-replaced");
        let mut side = self.sides.pop().expect("it was just looked at");
        let undone = common + 1..=self.index();
        done.undone = undone.filter_map(|index| self.entry(index)).collect();
        side.sides = core::mem::take(&mut self.sides);
        done.news.clear();
        done.from = Some(common + 1);
        let before = side.up_to(common);
        let mut roster = before.map(|chain| chain.roster);
        for index in common + 1..=side.index() {
            let (Some(entry), Some(roster)) = (side.entry(index), &mut roster) else {
                break;
            };
            for news in roster.apply(&entry) {
                done.news.push((index, entry.draft.term.round, news));
            }
        }
        *self = side;
    }

    /// The index of the last entry that both hold.
    pub(super) fn common_with(&self, other: &Self) -> u64 {
        let pairs = self.links.iter().zip(&other.links);
        pairs.take_while(|(a, b)| a.hash == b.hash).count() as u64
    }

    /// The places to name in a fetch: the heads of branches that are being read, our head, then
    /// ever larger steps back.
    pub(super) fn have(&self) -> Fetch {
        let place = |side: &Self| Place {
            index: side.index(),
            hash: side.hash(),
        };
        let mut have: Vec<_> = self.sides.iter().map(place).collect();
        let (mut index, mut step) = (self.index(), 1);
        while let Some(link) = self.link(index) {
            have.push(Place {
                index,
                hash: link.hash,
            });
            if have.len() >= 4 + self.sides.len() {
                step *= 2;
            }
            // Who shares more than the first entry is no stranger, so the second is named: the last
            // two places are those of these two.
            if have.len() == MAX_HAVE - 2 {
                index = index.min(3);
            }
            index = match index {
                0 | 1 => 0,
                2 => 1,
                _ => index.saturating_sub(step).max(2),
            };
        }
        Fetch {
            group: self.group.0,
            have: BoundedVec::take_from(have),
        }
    }

    /// The index of the newest named place that is ours too, 0 when there is none.
    pub(super) fn common(&self, have: &[Place]) -> u64 {
        have.iter()
            .filter(|place| self.holds(place.index, &place.hash))
            .map(|place| place.index)
            .max()
            .unwrap_or(0)
    }

    /// The entries from `from` up to `to` that fit one frame.
    pub(super) fn page(&self, from: u64, to: u64) -> Entries {
        let mut entries: Vec<BoundedBytes<MAX_ENTRY>> = Vec::new();
        let mut bytes = 0;
        for link in (from..=to).map_while(|index| self.link(index)).take(32) {
            bytes += link.bytes.len() + 2;
            if bytes > PAGE && !entries.is_empty() {
                break;
            }
            let entry = link.bytes.to_vec().try_into();
            entries.push(entry.expect("no entry is taken that is longer"));
        }
        Entries {
            group: self.group.0,
            head: to.min(self.index()),
            entries: BoundedVec::take_from(entries),
        }
    }
}

impl core::fmt::Debug for Link {
    /// The hash stands for the bytes.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Link")
            .field("hash", &self.hash)
            .field("term", &self.term)
            .finish_non_exhaustive()
    }
}

impl Link {
    fn of(entry: &Entry) -> Self {
        Self {
            bytes: entry.bytes.clone(),
            hash: entry.hash,
            term: entry.draft.term,
        }
    }
}
