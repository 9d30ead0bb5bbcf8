//! The hash chain that one device holds: what may follow, which of two branches wins, the fold
//! (reliability 1.4).
//!
//! Guarantees: an entry is taken only when its place, its hash link, its operation and its
//! signature hold; the head, ordered by (term, index, lower hash), never decreases, whatever
//! arrives in whatever order; two chains with one head fold to one roster.
//!
//! Bound: [`MAX_ENTRIES`] entries. From [`SOFT_ENTRIES`] on a leader takes nobody in and renames
//! nothing, so that there is always room to leave, to kick and to hand over.

use core::cmp::Reverse;

use bytes::Bytes;

use super::entry::{Entry, Hash, Term};
use super::roster::{News, Roster};
use crate::id::{GroupId, UserId};
use crate::identity::Verifier;
use crate::probe::{mark, planted};
use crate::wire::group::{Entries, Fetch, MAX_ENTRY, MAX_HAVE, Place};
use crate::wire::{BoundedBytes, BoundedVec};

/// The most entries of a chain.
pub(super) const MAX_ENTRIES: u64 = 8_192;
/// From here on a leader appends only what lets people go.
pub(super) const SOFT_ENTRIES: u64 = 4_096;
/// Bytes of entries in one frame; with one full entry more it still fits a control frame.
const PAGE: usize = 12 * 1024;

/// A chain of one group, never empty.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub group: GroupId,
    links: Vec<Link>,
    pub roster: Roster,
}

#[derive(Clone, Debug)]
struct Link {
    bytes: Bytes,
    hash: Hash,
    term: Term,
}

/// A head; the greater wins.
pub(super) type Head = (Term, u64, Reverse<Hash>);

/// What became of some entries.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    /// The first index that is new or rewritten.
    pub from: Option<u64>,
    /// What the new entries changed, with their index and round.
    pub news: Vec<(u64, u64, News)>,
    /// Something does not attach: the entries before it are missing here.
    pub gap: bool,
    /// This leader signed two entries for one place, at this index.
    pub equivocation: Option<(UserId, u64)>,
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
        (tip.term, self.index(), Reverse(tip.hash))
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
        for (at, bytes) in entries.iter().enumerate() {
            let Some(entry) = Entry::open(bytes) else {
                break;
            };
            if entry.group() != self.group {
                break;
            }
            if self
                .link(entry.draft.index)
                .is_some_and(|l| l.hash == entry.hash)
            {
                continue;
            }
            if self.attaches(&entry) {
                if !self.roster.allows(&entry, verifier)
                    || !(entry.verify(verifier) || planted("group-entry-by-anyone"))
                {
                    mark("group-entry-refused");
                    break;
                }
                self.grow(&entry, &mut done);
            } else {
                let before = self.link(entry.draft.index.saturating_sub(1));
                if before.is_some_and(|link| link.hash == entry.draft.prev) {
                    self.fork(&entry, &entries[at..], verifier, &mut done);
                } else {
                    done.gap = true;
                }
                break;
            }
        }
        done
    }

    /// The chain as it was at `index`.
    fn up_to(&self, index: u64, verifier: &dyn Verifier) -> Option<Self> {
        let mut chain = Self::begin(self.bytes(1)?, self.group)?;
        for at in 2..=index {
            chain.extend(self.bytes(at)?, verifier)?;
        }
        Some(chain)
    }

    fn grow(&mut self, entry: &Entry, done: &mut Accepted) {
        let index = entry.draft.index;
        done.from.get_or_insert(index);
        for news in self.push(entry) {
            done.news.push((index, entry.draft.term.round, news));
        }
    }

    /// Another branch that leaves ours before `first`: the greater head wins.
    fn fork(
        &mut self,
        first: &Entry,
        entries: &[Bytes],
        verifier: &dyn Verifier,
        done: &mut Accepted,
    ) {
        let index = first.draft.index;
        let author = first.key.device();
        let known =
            self.roster.seats.contains_key(&author) || self.roster.past(author).next().is_some();
        // Folding again costs more than one signature, so that comes first.
        if !known || first.draft.term.claimant != author || !first.verify(verifier) {
            mark("group-fork-refused");
            return;
        }
        let Some(mut branch) = self.up_to(index - 1, verifier) else {
            return;
        };
        let mut taken = Accepted::default();
        for entry in entries.iter().map_while(Entry::open) {
            if !branch.attaches(&entry)
                || !branch.roster.allows(&entry, verifier)
                || !entry.verify(verifier)
            {
                break;
            }
            branch.grow(&entry, &mut taken);
        }
        if taken.from.is_none() {
            return;
        }
        if self
            .link(index)
            .is_some_and(|own| own.term == first.draft.term)
        {
            mark("group-equivocation");
            done.equivocation = Some((first.draft.author.clone(), index));
        }
        if branch.head() > self.head() || planted("group-head-decreases") {
            mark("group-branch-replaced");
            *self = branch;
            done.news.retain(|(at, ..)| *at < index);
            done.news.append(&mut taken.news);
            done.from = Some(done.from.unwrap_or(index).min(index));
        }
    }

    /// The places to name in a fetch: the head, then ever larger steps back.
    pub(super) fn have(&self) -> Fetch {
        let mut have = Vec::new();
        let (mut index, mut step) = (self.index(), 1);
        while let Some(link) = self.link(index) {
            have.push(Place {
                index,
                hash: link.hash,
            });
            if have.len() >= 4 {
                step *= 2;
            }
            if have.len() == MAX_HAVE - 1 {
                index = index.min(2);
            }
            index = match index {
                0 | 1 => 0,
                _ => index.saturating_sub(step).max(1),
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
            .filter(|place| self.link(place.index).is_some_and(|l| l.hash == place.hash))
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

impl Link {
    fn of(entry: &Entry) -> Self {
        Self {
            bytes: entry.bytes.clone(),
            hash: entry.hash,
            term: entry.draft.term,
        }
    }
}
