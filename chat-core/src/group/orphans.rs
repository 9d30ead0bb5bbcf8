//! Abandoned branches, kept as proof for whoever leads: it may never have seen them.
//!
//! A holder shows them to the leader until the log has settled everything in them. The leader
//! checks them like any branch ([`super::chain`]). Anybody may hold the only copy, so former
//! members and applicants show theirs too.
//!
//! Bounds: [`MAX_BRANCHES`] of [`MAX_LENGTH`] entries; what is beyond them holds here, but cannot be
//! proved to others.

use bytes::Bytes;

use super::chain::Chain;
use super::entry::Entry;
use super::op::Op;
use super::rows::{self, Grant};
use super::term::Hash;
use super::{Group, Groups, Timer};
use crate::channel::Channel;
use crate::effect::{Outgoing, Table};
use crate::id::GroupId;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::BoundedVec;
use crate::wire::group::Entries;

const MAX_BRANCHES: usize = 8;
const MAX_LENGTH: usize = 256;
/// Pages of one branch that are shown at a time.
const MAX_PAGES: usize = 8;

/// True when `entry` of an abandoned branch says something that the log does not show.
fn is_open(entry: &Entry, group: &Group, chain: &Chain) -> bool {
    let roster = &chain.roster;
    let op = &entry.draft.op;
    if let Op::Left { proof, .. } = op {
        return group.lefts.contains_key(&proof.instance());
    }
    let kick = group.sticky.get(&entry.hash);
    kick.is_some_and(|kick| !kick.settled(&entry.hash, roster))
        || op.admissions().iter().any(|one| {
            let waits = group.joins.values();
            let mut waits = waits.filter(|waiting| waiting.grant == Grant::Adopted);
            waits.any(|waiting| (waiting.device, waiting.nonce) == (one.device, one.nonce))
        })
}

impl Groups {
    /// Keeps the proof of a branch that lost. `undone` is what our own log lost in the same step:
    /// older branches may have left from it.
    pub(super) fn keep_branch(&mut self, id: GroupId, branch: &[Entry], undone: &[Entry]) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let mut all: Vec<(Hash, Vec<Bytes>)> =
            core::mem::take(&mut group.orphans).into_iter().collect();
        let mut gone: Vec<_> = all.iter().map(|(last, _)| *last).collect();
        if let Some(last) = branch.last() {
            let bytes = branch.iter().map(|entry| entry.bytes.clone()).collect();
            all.retain(|(held, _)| *held != last.hash);
            all.push((last.hash, bytes));
        }
        for (last, bytes) in all {
            let mut entries: Vec<_> = bytes.iter().filter_map(Entry::open).collect();
            let Some(first) = entries.first() else {
                continue;
            };
            let start = first.draft.index;
            let prefix = undone.iter().filter(|entry| entry.draft.index < start);
            let mut whole: Vec<_> = prefix.cloned().collect();
            let joins = whole
                .last()
                .is_none_or(|last| last.hash == first.draft.prev);
            if joins {
                whole.append(&mut entries);
                entries = whole;
            }
            entries.retain(|entry| !chain.holds(entry.draft.index, &entry.hash));
            let attached = entries.first().is_some_and(|first| {
                chain.holds(first.draft.index.saturating_sub(1), &first.draft.prev)
            });
            let open = entries.iter().any(|entry| is_open(entry, group, chain));
            if !attached || !open {
                continue;
            }
            if entries.len() > MAX_LENGTH || group.orphans.len() == MAX_BRANCHES {
                mark("group-orphans-full");
                continue;
            }
            let bytes: Vec<_> = entries.into_iter().map(|entry| entry.bytes).collect();
            gone.retain(|held| *held != last);
            let row = rows::orphan_row(&bytes);
            self.effects
                .put(Table::Groups, rows::orphan_key(id, &last), row);
            group.orphans.insert(last, bytes);
        }
        for last in gone {
            self.effects
                .delete(Table::Groups, rows::orphan_key(id, &last));
        }
    }

    /// Drops the branches in which the log has settled everything.
    pub(super) fn drop_settled_branches(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let open = |bytes: &Vec<Bytes>| {
            let mut entries = bytes.iter().filter_map(Entry::open);
            entries.any(|entry| is_open(&entry, group, chain))
        };
        let closed: Vec<_> = group
            .orphans
            .iter()
            .filter(|(_, bytes)| !open(bytes))
            .map(|(last, _)| *last)
            .collect();
        for last in closed {
            group.orphans.remove(&last);
            self.effects
                .delete(Table::Groups, rows::orphan_key(id, &last));
        }
    }

    /// Shows one abandoned branch to the leader, and comes back for the next.
    pub(super) fn push_orphans(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get(&id).filter(|_| self.up) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        if chain.roster.leader.device == self.me.device || planted("group-branch-not-shown") {
            return;
        }
        let pick = self.rng.below(group.orphans.len() as u64);
        let pick = usize::try_from(pick).unwrap_or(0);
        let Some(branch) = group.orphans.values().nth(pick) else {
            return;
        };
        mark("group-orphans-shown");
        let leader = Channel::Inbox(chain.roster.leader.user.clone());
        let pages = pages(id, branch);
        for page in pages.into_iter().take(MAX_PAGES) {
            let frame = Outgoing::ephemeral(leader.clone(), page).gated();
            self.effects.send(frame);
        }
        let beat = self.config.beat;
        self.after(id, Timer::Push, beat * 2, beat, now);
    }
}

/// The entries in frames that fit; they claim no more than they hold.
pub(super) fn pages(group: GroupId, branch: &[Bytes]) -> Vec<Entries> {
    let mut pages = Vec::new();
    let mut rest = branch;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(32).take_while(|entry| {
            bytes += entry.len() + 2;
            bytes <= super::chain::PAGE
        });
        let (page, more) = rest.split_at(fits.count().max(1));
        rest = more;
        let entries = page.iter().map(|entry| {
            let entry = entry.to_vec().try_into();
            entry.expect("no entry is taken that is longer")
        });
        pages.push(Entries {
            group: group.0,
            head: 0,
            entries: BoundedVec::take_from(entries),
        });
    }
    pages
}
