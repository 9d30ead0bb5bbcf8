//! What a member does: follows the log and tells what it says (G11–G13, G16).
//!
//! Guarantees: entries are stored before anything is told or reported about them; every roster
//! change since our own admission is told once, with its author (G13); a change from before is
//! not ours to see (G16). What a greater branch undoes is told before what it decided instead, and
//! its kicks, leaves and admissions are adopted in the same transaction.

use bytes::Bytes;

use super::chain::{Accepted, Chain};
use super::entry::Entry;
use super::op::Op;
use super::proof::LeftProof;
use super::roster::Way;
use super::rows::{Asking, Stage};
use super::term::Head;
use super::types::{Change, GroupEvent};
use super::{Groups, Timer, rows};
use crate::effect::Table;
use crate::id::{GroupId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::group::{Entries, GroupBeat, Removed};

/// What absorbing entries led to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Absorbed {
    pub progress: bool,
    pub gap: bool,
}

impl Groups {
    /// Takes entries into the log: stores them, tells what they changed, arms what follows.
    pub(super) fn absorb(&mut self, id: GroupId, entries: &[Bytes], now: Now) -> Absorbed {
        let Some(group) = self.groups.get_mut(&id) else {
            return Absorbed::default();
        };
        let led = group.leading(&self.me).is_some();
        let was_inside = group.inside(&self.me).is_some();
        let old = group.chain.as_ref().map(|chain| {
            let roster = &chain.roster;
            (roster.term, roster.leader.device, chain.index())
        });
        let mut rest = entries;
        let mut founded = false;
        if group.chain.is_none() {
            let Some((first, others)) = entries.split_first() else {
                return Absorbed::default();
            };
            group.chain = Chain::found(first, id, &*self.verifier);
            founded = group.chain.is_some();
            rest = others;
        }
        let Some(chain) = &mut group.chain else {
            return Absorbed {
                progress: false,
                gap: true,
            };
        };
        let mut done = chain.accept(rest, &*self.verifier);
        if founded {
            let by = chain.roster.leader.user.clone();
            done.from = Some(1);
            done.news.insert(0, (1, 1, (by, Change::Created)));
        }
        if let Some((leader, term, index)) = done.equivocation.take() {
            // It says nothing against whoever reigns since.
            if term == chain.roster.term {
                group.distrust = Some(chain.roster.term);
            }
            if group.reported < Some((term, index)) {
                group.reported = Some((term, index));
                self.effects
                    .emit(GroupEvent::Equivocation { group: id, leader });
            }
        }
        let absorbed = Absorbed {
            progress: done.from.is_some() || done.aside,
            gap: done.gap,
        };
        if done.from.is_some() {
            self.store(id, &mut done, old.map_or(0, |(.., index)| index));
        }
        if !done.undone.is_empty() || !done.lower.is_empty() {
            let branch = if done.undone.is_empty() {
                &done.lower
            } else {
                &done.undone
            };
            self.adopt(id, branch, now);
            self.hide(id);
            self.keep_branch(id, branch, &done.undone);
        }
        if done.from.is_none() {
            self.heed_own_leave(id, now);
            self.work(id, now);
            return absorbed;
        }
        self.hide(id);
        self.drop_settled_branches(id);
        let chain = self.chain(id).expect("it just grew");
        let (term, leader) = (chain.roster.term, chain.roster.leader.device);
        let passed = old.is_some_and(|(before, ..)| before != term);
        self.settle_own(id, passed, &done, was_inside, now);
        let leads = self.leading(id);
        let group = self.groups.get_mut(&id).expect("it was just settled");
        group.current = false;
        (group.cited, group.cleared) = (0, 0);
        if passed {
            group.committed = 0;
            group.canvass = None;
            group.refused = 0;
            for acked in group.acks.values_mut() {
                acked.knows = None;
            }
        }
        if let Some(chain) = &group.chain {
            let seats = &chain.roster.seats;
            group.acks.retain(|device, _| seats.contains_key(device));
        }
        if led && !leads {
            self.stop_leading(id);
        } else if leads && !led {
            self.tell_requests(id, &[]);
        }
        self.count_commit(id);
        self.hear(id, now);
        if let Some((_, before, _)) = old.filter(|(_, before, _)| *before != leader) {
            self.note_deposed(id, before, now);
        }
        self.schedule_ack(id, true, now);
        if passed {
            self.tell_new_leader(id, now);
        }
        self.arm(id, now);
        self.work(id, now);
        absorbed
    }

    /// Brings the rows of the log in line with it, and tells what another branch undid.
    fn store(&mut self, id: GroupId, done: &mut Accepted, old_index: u64) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let (Some(chain), Some(from)) = (&group.chain, done.from) else {
            return;
        };
        for index in from..=chain.index() {
            if let Some(entry) = chain.bytes(index) {
                self.effects
                    .put(Table::Chain, rows::chain_key(id, index), entry.clone());
            }
        }
        for index in chain.index() + 1..=old_index {
            self.effects
                .delete(Table::Chain, rows::chain_key(id, index));
        }
        if done.undone.is_empty() {
            return;
        }
        let event = GroupEvent::Forked {
            group: id,
            leader: chain.roster.leader.user.clone(),
            round: chain.roster.term.round,
            common: from - 1,
            undone: done.undone.iter().flat_map(undone).collect(),
        };
        self.effects.emit_gated(event);
    }

    /// Our own part after the log changed: are we in, are we out, what is there to tell.
    fn settle_own(
        &mut self,
        id: GroupId,
        passed: bool,
        done: &Accepted,
        was_inside: bool,
        now: Now,
    ) {
        let group = self.groups.get_mut(&id).expect("the caller holds it");
        let (chain, record) = (
            group.chain.as_ref().expect("the caller grew it"),
            &mut group.record,
        );
        let before = record.clone();
        let roster = &chain.roster;
        let mut joined = false;
        if let Some(asking) = &record.asking {
            let instance = (self.me.device, asking.nonce);
            if roster.sits(instance.0, instance.1) || roster.gone.contains_key(&instance) {
                joined = matches!(asking.stage, Stage::Open | Stage::Denied);
                record.nonce = Some(asking.nonce);
                if !joined {
                    mark("group-admitted-after-withdraw");
                    record.leaving = Some(asking.nonce);
                }
                record.asking = None;
                self.timers.remove(&(id, Timer::Lapse));
            }
        }
        if let Some(nonce) = record.nonce
            && record.asking.is_none()
            && !roster.sits(self.me.device, nonce)
            && !roster.went(self.me.device, nonce)
        {
            // The branch that let us in was abandoned.
            if record.leaving == Some(nonce) || group.hidden.contains(&(self.me.device, nonce)) {
                mark("group-orphan-out");
                // Whoever adopts our admission lets this membership in anew: its leave stands (G12).
                if record.leaving == Some(nonce) {
                    let proof = LeftProof::sign(id, nonce, &*self.signer);
                    let own = proof.instance();
                    let row = rows::left_row(&proof, &self.me.user);
                    self.effects
                        .put(Table::Groups, rows::left_key(id, &own), row);
                    group.lefts.insert(own, (proof, self.me.user.clone()));
                    group.hidden.insert(own);
                }
            } else {
                mark("group-orphan-asks");
                record.nonce = None;
                record.asking = Some(Asking {
                    request: nonce,
                    nonce,
                    note: String::new(),
                    until: now.wall.plus(self.config.join_ttl).0,
                    stage: Stage::Open,
                });
            }
        }
        let still = |nonce| roster.sits(self.me.device, nonce);
        if let Some(seat) = roster.seats.get(&self.me.device) {
            let asked = record.asking.as_ref().map(|asking| asking.nonce);
            let own = (self.me.device, seat.nonce);
            if record.nonce != Some(seat.nonce) && asked != Some(seat.nonce) {
                // A late copy of a request that we gave up was granted.
                mark("group-admitted-unasked");
                record.leaving = Some(seat.nonce);
            } else if group.lefts.contains_key(&own) {
                mark("group-left-elsewhere");
                record.leaving = Some(seat.nonce);
            }
        }
        if record.leaving.is_some_and(|nonce| !still(nonce)) || planted("group-leave-not-sticky") {
            record.leaving = None;
        }
        if passed {
            record.offer = None;
        }
        // An offer was to the membership that we had.
        if passed || record.nonce != before.nonce || !record.nonce.is_some_and(still) {
            record.accepted = None;
            group.offered = None;
        }
        let saved = *record == before;
        // What our own membership spans, both ends included.
        let span = record.nonce.and_then(|nonce| {
            if let Some(seat) = roster.seats.get(&self.me.device)
                && seat.nonce == nonce
            {
                let left = group.lefts.contains_key(&(self.me.device, nonce));
                return (!left).then_some((seat.seniority.index, u64::MAX));
            }
            let gone = roster.gone.get(&(self.me.device, nonce))?;
            Some((gone.since, gone.until))
        });
        let kicked = record
            .nonce
            .and_then(|nonce| roster.gone.get(&(self.me.device, nonce)))
            .filter(|gone| gone.way == Way::Kicked)
            .map(|gone| gone.until);
        for (index, round, (by, change)) in &done.news {
            if span.is_none_or(|(since, until)| *index < since || *index > until) {
                continue;
            }
            self.effects.emit_gated(GroupEvent::Changed {
                group: id,
                change: change.clone(),
                by: by.clone(),
                round: *round,
                index: *index,
            });
        }
        if joined {
            self.effects.emit_gated(GroupEvent::Joined { group: id });
        }
        if let Some(until) = kicked.filter(|_| was_inside || joined) {
            let entry = chain.entry(until).map(|entry| entry.draft);
            if let Some(draft) = entry
                && let mut removals = draft.op.removals().into_iter()
                && let Some(removal) = removals.find(|one| one.user == self.me.user)
            {
                self.effects.emit_gated(GroupEvent::Removed {
                    group: id,
                    by: draft.author,
                    reason: removal.reason,
                });
            }
        }
        if !saved {
            self.save(id);
        }
        if joined {
            self.drop_ticket(id);
        }
    }

    /// A branch that lost shows that we left the membership that we sit by: so we leave it here.
    fn heed_own_leave(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let seat = group.chain.as_ref();
        let seat = seat.and_then(|chain| chain.roster.seats.get(&self.me.device));
        let Some(nonce) = seat.map(|seat| seat.nonce) else {
            return;
        };
        let shown = group.lefts.contains_key(&(self.me.device, nonce));
        if shown && group.record.leaving != Some(nonce) {
            mark("group-left-elsewhere");
            group.record.leaving = Some(nonce);
            self.save(id);
            self.arm(id, now);
        }
    }

    /// True when the log of this group is ours to follow.
    pub(super) fn follows(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| {
            group.record.asking.is_some() || group.recalled || group.inside(&self.me).is_some()
        })
    }

    pub(super) fn handle_entries(&mut self, from: &Sender, body: &Entries, now: Now) {
        let id = GroupId(body.group);
        if !self.follows(id) {
            return;
        }
        let entries: Vec<Bytes> = body
            .entries
            .iter()
            .map(|entry| Bytes::copy_from_slice(entry))
            .collect();
        let last = entries.last().and_then(Entry::open);
        let absorbed = self.absorb(id, &entries, now);
        let more = last.is_some_and(|last| last.draft.index < body.head);
        if !more && let Some(group) = self.groups.get_mut(&id) {
            group.recalled = false;
        }
        if absorbed.progress && more {
            // Every page proves itself, so the next one may follow at once.
            self.send_fetch(id, &from.user, now);
        } else if absorbed.gap {
            mark("group-gap");
            self.want(id, &from.user, now);
        }
    }

    /// The word that we are out (G11).
    pub(super) fn handle_removed(&mut self, from: &Sender, removed: &Removed, now: Now) {
        let id = GroupId(removed.group);
        if !self.follows(id) || self.chain(id).is_none() {
            return;
        }
        let entry = Bytes::copy_from_slice(&removed.entry);
        if self.absorb(id, &[entry], now).gap {
            self.want(id, &from.user, now);
        }
    }

    pub(super) fn handle_beat(&mut self, from: &Sender, beat: &GroupBeat, now: Now) {
        let id = GroupId(beat.group);
        let theirs = Head::from(beat.head);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            let asking = group.record.asking.as_ref();
            let answered = asking.is_some_and(|asking| !asking.stage.is_pending());
            let ours = group.chain.as_ref().map(Chain::head);
            let behind = ours.is_some_and(|ours| theirs > ours);
            let ahead = ours.is_some_and(|ours| theirs < ours);
            // Was a late copy of our request granted after all, or did another branch win? Asked
            // rarely: most often not.
            if (answered || behind) && self.rng.below(4) == 0 {
                self.want(id, &from.user, now);
            } else if ahead {
                self.correct(id, from, now);
            }
            return;
        };
        let ours = chain.head();
        let roster = &chain.roster;
        let reigns = roster.leader.device == from.device && roster.heir.is_none();
        let members = roster.seats.len() as u64;
        // A beat of an older term says nothing, whoever sends it.
        let fresh = theirs.term == roster.term;
        let lame = super::lame::is_lame(group) && !planted("group-lame-beats-count");
        if (reigns && fresh) || planted("group-stale-beats-count") {
            group.beat_at = Some(now.mono);
            group.committed = group.committed.max(beat.commit.min(ours.index));
            group.current = theirs == ours;
            if group.current {
                group.cleared = group.cited;
            }
            if !lame && !self.is_deposed(&self.groups[&id], now) {
                let group = self.groups.get_mut(&id).expect("it was just found");
                if group.canvass.take().is_some() {
                    mark("group-canvass-cancelled");
                    self.timers.remove(&(id, Timer::Window));
                    self.canvass_later(id, self.config.succeed, now);
                }
                self.hear(id, now);
            }
            self.schedule_ack(id, false, now);
        }
        if theirs > ours {
            self.want(id, &from.user, now);
        } else if theirs < ours && self.rng.below(members) < 3 {
            // A leader that lost its latest entries, or reigns no more: a few of us tell it.
            mark("group-stale-beat");
            if self.served.admit(id, from.device, now.mono) {
                self.send_head(id, &from.user);
            }
        }
    }
}

/// What undoing an entry takes back, as it was told.
fn undone(entry: &Entry) -> Vec<(UserId, Change)> {
    let op = &entry.draft.op;
    let changes = match op {
        Op::Left { user, .. } => vec![Change::Left { user: user.clone() }],
        Op::Meta { name } => vec![Change::Renamed { name: name.clone() }],
        _ => {
            let kicked = op.removals().into_iter().map(|one| Change::Kicked {
                user: one.user,
                reason: one.reason,
            });
            let admitted = op.admissions().iter().map(|one| Change::Admitted {
                user: one.user.clone(),
            });
            kicked.chain(admitted).collect()
        }
    };
    let by = |change| (entry.draft.author.clone(), change);
    changes.into_iter().map(by).collect()
}
