//! What a member does: follows the log, serves it, fetches what it lacks (G9–G13, G16, G20).
//!
//! Guarantees: entries are stored before anything is told or reported about them; every roster
//! change since our own admission is told once, with its author (G13); a change from before is
//! not ours to see (G16). Only members and former members are served, the latter up to the entry
//! that removed them.

use bytes::Bytes;

use super::chain::{Accepted, Chain};
use super::roster::Way;
use super::rows::Stage;
use super::types::{Change, GroupEvent, Verdict};
use super::{Groups, Timer, rows};
use crate::channel::Channel;
use crate::delivery::Standing;
use crate::effect::{Outgoing, Table};
use crate::id::{GroupId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::BoundedVec;
use crate::wire::group::{Entries, Fetch, GroupAck, GroupBeat, Removed};

/// Quiet beats after which a member asks around.
const QUIET: u32 = 3;

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
        let old_term = group.chain.as_ref().map(|chain| chain.roster.term);
        let old_index = group.chain.as_ref().map_or(0, Chain::index);
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
        if let Some((leader, index)) = done.equivocation.take()
            && group.reported < index
        {
            group.reported = index;
            self.effects
                .emit(GroupEvent::Equivocation { group: id, leader });
        }
        let absorbed = Absorbed {
            progress: done.from.is_some(),
            gap: done.gap,
        };
        let Some(from) = done.from else {
            return absorbed;
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
        let passed = old_term.is_some_and(|term| term != chain.roster.term);
        self.settle_own(id, passed, &done, was_inside);
        if led && !self.leading(id) {
            self.drop_joins(id);
        }
        let group = self.groups.get_mut(&id).expect("it was just settled");
        if let Some(chain) = &group.chain {
            let seats = &chain.roster.seats;
            group.acks.retain(|device, _| seats.contains_key(device));
        }
        if self.up && group.inside(&self.me).is_some() && group.leading(&self.me).is_none() {
            let spread = self.config.beat / 4;
            if self.timers.due(&(id, Timer::Ack)).is_none() {
                self.after(id, Timer::Ack, core::time::Duration::ZERO, spread, now);
            }
        }
        self.arm(id, now);
        absorbed
    }

    /// Our own part after the log changed: are we in, are we out, what is there to tell.
    fn settle_own(&mut self, id: GroupId, passed: bool, done: &Accepted, was_inside: bool) {
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
        let still = |nonce| roster.sits(self.me.device, nonce);
        if let Some(seat) = roster.seats.get(&self.me.device) {
            let asked = record.asking.as_ref().map(|asking| asking.nonce);
            if record.nonce != Some(seat.nonce) && asked != Some(seat.nonce) {
                // A late copy of a request that we gave up was granted.
                mark("group-admitted-unasked");
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
                return Some((seat.seniority.index, u64::MAX));
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
            let word = done.news.iter().find(|(index, ..)| *index == until);
            if let Some((.., (by, Change::Kicked { reason, .. }))) = word {
                self.effects.emit_gated(GroupEvent::Removed {
                    group: id,
                    by: by.clone(),
                    reason: reason.clone(),
                });
            }
        }
        if !saved {
            self.save(id);
        }
    }

    /// True when the log of this group is ours to follow.
    fn follows(&self, id: GroupId) -> bool {
        self.groups
            .get(&id)
            .is_some_and(|group| group.record.asking.is_some() || group.inside(&self.me).is_some())
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
        let absorbed = self.absorb(id, &entries, now);
        if let Some(group) = self.groups.get_mut(&id).filter(|_| absorbed.progress) {
            group.heard = Some(now.mono);
        }
        let more = self.chain(id).map_or(0, Chain::index) < body.head;
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
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            let asking = group.record.asking.as_ref();
            let answered = asking.is_some_and(|asking| !asking.stage.is_pending());
            // Was a late copy of our request granted after all? Asked rarely: most often it was not.
            if answered && self.rng.below(4) == 0 {
                self.want(id, &from.user, now);
            }
            return;
        };
        let theirs = (beat.round, beat.index);
        let ours = (chain.roster.term.round, chain.index());
        let (same, members) = (chain.hash() == beat.hash, chain.roster.seats.len());
        if chain.roster.leader.device == from.device {
            group.heard = Some(now.mono);
        }
        if theirs > ours || (theirs == ours && !same) {
            self.want(id, &from.user, now);
        } else if theirs < ours && self.rng.below(members as u64) < 3 {
            // A leader that lost its latest entries, or reigns no more: a few of us tell it.
            mark("group-stale-beat");
            if self.served.admit(id, from.device, now.mono) {
                self.send_head(id, &from.user);
            }
        }
    }

    /// Serves the log from the newest place that both hold.
    pub(super) fn handle_fetch(&mut self, from: &Sender, fetch: &Fetch, now: Now) {
        let id = GroupId(fetch.group);
        let Some(chain) = self.chain(id) else {
            return;
        };
        let seat = chain.roster.seats.get(&from.device);
        let until = if seat.is_some_and(|seat| seat.user == from.user) {
            Some(chain.index())
        } else {
            let past = chain.roster.past(from.device);
            let own = past.filter(|gone| gone.user == from.user);
            own.map(|gone| gone.until).max()
        };
        let Some(until) = until else {
            mark("group-fetch-by-stranger");
            return;
        };
        let common = chain.common(&fetch.have);
        let newest = fetch.have.iter().map(|place| place.index).max();
        let behind = newest.is_some_and(|index| index > chain.index());
        let page = (common < until).then(|| chain.page(common + 1, until));
        if behind {
            self.want(id, &from.user, now);
        }
        if let Some(page) = page
            && self.served.admit(id, from.device, now.mono)
        {
            self.mail(&from.user, page);
        }
    }

    /// Wants what `user` holds beyond our head. Members before strangers; bounded in rate.
    pub(super) fn want(&mut self, id: GroupId, user: &UserId, now: Now) {
        if !self.up || !self.follows(id) {
            return;
        }
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let sits = |user: &UserId| {
            let chain = group.chain.as_ref();
            chain.is_some_and(|chain| chain.roster.devices(user).next().is_some())
        };
        let pending = self.timers.due(&(id, Timer::Fetch)).is_some();
        if pending
            && group
                .source
                .as_ref()
                .is_some_and(|held| sits(held) && !sits(user))
        {
            return;
        }
        group.source = Some(user.clone());
        if pending {
            return;
        }
        let gap = self.config.beat / 10;
        let wait = group.fetched.map_or(core::time::Duration::ZERO, |at| {
            gap.saturating_sub(now.mono.saturating_since(at))
        });
        if wait.is_zero() {
            self.fetch(id, now);
        } else {
            self.after(id, Timer::Fetch, wait, gap, now);
        }
    }

    /// Asks the chosen source.
    pub(super) fn fetch(&mut self, id: GroupId, now: Now) {
        let source = self.groups.get_mut(&id).and_then(|g| g.source.take());
        if let Some(user) = source.filter(|_| self.up && self.follows(id)) {
            self.send_fetch(id, &user, now);
        }
    }

    fn send_fetch(&mut self, id: GroupId, user: &UserId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.fetched = Some(now.mono);
        let fetch = group.chain.as_ref().map_or_else(
            || Fetch {
                group: id.0,
                have: BoundedVec::default(),
            },
            Chain::have,
        );
        let frame = Outgoing::ephemeral(Channel::Inbox(user.clone()), fetch);
        self.effects.send(frame.gated());
    }

    /// Reports our head to the leader.
    pub(super) fn report_head(&mut self, id: GroupId) {
        let leader = self.chain(id).map(|chain| chain.roster.leader.clone());
        if let Some(leader) = leader.filter(|leader| leader.device != self.me.device)
            && self.up
        {
            self.send_head(id, &leader.user);
        }
    }

    fn send_head(&mut self, id: GroupId, user: &UserId) {
        let Some(chain) = self.chain(id) else {
            return;
        };
        let head = GroupAck {
            group: id.0,
            round: chain.roster.term.round,
            index: chain.index(),
            hash: chain.hash(),
        };
        let frame = Outgoing::ephemeral(Channel::Inbox(user.clone()), head);
        self.effects.send(frame.gated());
    }

    /// A member that heard no leader for a while asks it and one other, so that entries spread
    /// also while nobody beats.
    pub(super) fn sync(&mut self, id: GroupId, now: Now) {
        let beat = self.config.beat;
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let Some(chain) = group.inside(&self.me).filter(|_| self.up) else {
            return;
        };
        let quiet = group
            .heard
            .is_none_or(|at| now.mono.saturating_since(at) >= beat * QUIET);
        let leader = chain.roster.leader.clone();
        let mut others = chain.roster.members();
        others.retain(|m| m.device != self.me.device && m.device != leader.device);
        self.after(id, Timer::Sync, beat * QUIET, beat, now);
        if !quiet {
            return;
        }
        if leader.device != self.me.device {
            self.send_fetch(id, &leader.user, now);
        }
        let pick = usize::try_from(self.rng.below(others.len() as u64)).unwrap_or(0);
        if let Some(other) = others.get(pick) {
            mark("group-asks-around");
            self.send_fetch(id, &other.user, now);
        }
    }

    /// May `from` write to `group`, citing log index `roster`? A newer index than ours makes us
    /// fetch the log.
    ///
    /// G9, G10: what counts is whether this device was in at the index that it cites; what a
    /// former member wrote before it went is taken and marked. G20: an index is taken however old,
    /// because without encryption there is nothing to seal again.
    pub fn judge(&mut self, group: GroupId, from: &Sender, roster: u64, now: Now) -> Verdict {
        let Some(held) = self.groups.get(&group) else {
            return Verdict::Stranger;
        };
        let asking = held.record.asking.is_some();
        let leaving = held.record.leaving.is_some() && held.record.leaving == held.record.nonce;
        let Some(chain) = held.inside(&self.me).filter(|_| !leaving) else {
            return if asking {
                Verdict::NotYet
            } else {
                Verdict::Stranger
            };
        };
        if roster > chain.index() {
            self.want(group, &from.user, now);
            return Verdict::NotYet;
        }
        let seat = chain.roster.seats.get(&from.device);
        if seat.is_some_and(|s| s.user == from.user && s.seniority.index <= roster) {
            return Verdict::Take(Standing::Current);
        }
        let mut past = chain.roster.past(from.device);
        let was_in =
            past.any(|gone| gone.user == from.user && gone.since <= roster && roster < gone.until);
        if was_in || planted("group-former-writes-on") {
            mark("group-former-member");
            return Verdict::Take(Standing::Former);
        }
        Verdict::Stranger
    }
}
