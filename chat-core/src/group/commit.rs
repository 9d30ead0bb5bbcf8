//! What a majority holds, and what a leader may do because of it (R6, IG7).
//!
//! Guarantees: only entries of the leader's own term are counted as committed; in a strict group a
//! leader signs only while a majority answered within the time of suspicion, changes the roster
//! only when its claim and the change before are committed, and counts nobody, itself included,
//! who promised a greater round.

use super::chain::Chain;
use super::term::Head;
use super::types::{GroupError, Guarantee, LeaseHint, Policy};
use super::{Group, Groups, Timer};
use crate::channel::Channel;
use crate::effect::Outgoing;
use crate::id::{DeviceId, GroupId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::{Now, Timestamp};
use crate::wire::group::{GroupAck, Refuse};

/// Members that acknowledge every beat of an available group: the most senior ones, and so many of
/// the others on average.
const SAMPLE: u64 = 16;

/// The last word of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// The highest index of our log that it holds.
    pub index: u64,
    pub at: Timestamp,
    /// Since when it holds the claim of the reigning term.
    pub knows: Option<Timestamp>,
}

impl Group {
    /// How final a removal is.
    pub(super) fn guarantee(&self) -> Guarantee {
        let Some(chain) = &self.chain else {
            return Guarantee::Converging;
        };
        let holder = Some(LeaseHint::Held(chain.roster.leader.device));
        match chain.roster.policy {
            Policy::Available => Guarantee::Converging,
            Policy::Strict if self.lease == holder => Guarantee::Fenced,
            Policy::Strict => Guarantee::Led,
        }
    }
}

impl Groups {
    /// The chain that we lead and may sign for now.
    pub(super) fn reign(&self, group: GroupId, now: Now) -> Result<&Chain, GroupError> {
        let held = self.groups.get(&group).ok_or(GroupError::NoSuchGroup)?;
        if held.chain.as_ref().is_some_and(|chain| chain.roster.closed) {
            return Err(GroupError::Closed);
        }
        let chain = held.inside(&self.me).ok_or(GroupError::NotMember)?;
        if chain.roster.leader.device != self.me.device {
            let leader = chain.roster.leader.user.clone();
            return Err(GroupError::NotLeader { leader });
        }
        if chain.roster.heir.is_some() {
            return Err(GroupError::HandingOver);
        }
        if !self.up {
            return Err(GroupError::Offline);
        }
        if !self.has_lease(held, chain, now) && !planted("group-no-lease") {
            mark("group-no-majority");
            return Err(GroupError::NoMajority);
        }
        Ok(chain)
    }

    fn has_lease(&self, held: &Group, chain: &Chain, now: Now) -> bool {
        if chain.roster.policy == Policy::Available {
            return true;
        }
        let live =
            |device: &&DeviceId| **device == self.me.device || self.is_live(held, **device, now);
        let count = chain.roster.seats.keys().filter(live).count();
        held.record.promised.round <= chain.roster.term.round && count >= chain.roster.majority()
    }

    /// True when the device answered us, the leader, lately.
    pub(super) fn is_live(&self, held: &Group, device: DeviceId, now: Now) -> bool {
        let acked = held.acks.get(&device);
        acked.is_some_and(|acked| now.mono.saturating_since(acked.at) < self.config.suspect)
    }

    /// In a strict group the roster changes only on committed ground.
    pub(super) fn ready(&self, group: GroupId) -> bool {
        let Some(held) = self.groups.get(&group) else {
            return false;
        };
        let Some(chain) = &held.chain else {
            return false;
        };
        let roster = &chain.roster;
        let changed = if planted("group-two-uncommitted-changes") {
            0
        } else {
            roster.changed
        };
        let ready =
            roster.policy == Policy::Available || held.committed >= roster.claimed.max(changed);
        if !ready {
            mark("group-waits-for-commit");
        }
        ready
    }

    /// Counts again what more than half of the members are known to hold.
    pub(super) fn count_commit(&mut self, id: GroupId) {
        let me = self.me.device;
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        if chain.roster.leader.device != me {
            return;
        }
        let bound = chain.roster.policy == Policy::Strict
            && group.record.promised.round > chain.roster.term.round;
        let held = |device: &DeviceId| {
            if *device == me {
                if bound { 0 } else { chain.index() }
            } else {
                group.acks.get(device).map_or(0, |acked| acked.index)
            }
        };
        let mut heads: Vec<_> = chain.roster.seats.keys().map(held).collect();
        heads.sort_unstable_by(|a, b| b.cmp(a));
        let most = heads.get(heads.len() / 2).copied().unwrap_or(0);
        let own = most >= chain.roster.claimed || planted("group-commit-counts-old-terms");
        if own {
            group.committed = group.committed.max(most);
        }
    }

    /// A member's head: feeds what is committed; one beyond ours means that we lack something.
    pub(super) fn handle_head(&mut self, from: &Sender, ack: &GroupAck, now: Now) {
        let id = GroupId(ack.group);
        let head = Head::from(ack.head);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let ours = group.chain.as_ref().map(Chain::head);
        if group.inside(&self.me).is_none() {
            self.recall(id, from, ours.is_none_or(|ours| head > ours), now);
            // A leader that takes us for a member asks us alone: we hear no beat of the group.
            if ours.is_some_and(|ours| head < ours) {
                self.correct(id, from, now);
            }
        }
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let seat = chain.roster.seats.get(&from.device);
        if seat.is_none_or(|seat| seat.user != from.user) {
            // Whoever holds the greater log shows it, member or not; it proves itself.
            if head > chain.head() {
                self.want(id, &from.user, now);
            }
            return;
        }
        if !chain.holds(head.index, &head.hash) {
            self.want(id, &from.user, now);
            return;
        }
        if group.leading(&self.me).is_none() {
            return;
        }
        let acked = group.acks.entry(from.device).or_insert(Acked {
            index: 0,
            at: now.mono,
            knows: None,
        });
        if head.index >= chain.roster.claimed {
            acked.knows.get_or_insert(now.mono);
        }
        acked.index = acked.index.max(head.index);
        acked.at = now.mono;
        self.count_commit(id);
        self.work(id, now);
    }

    /// After a beat: does the leader need to hear from us?
    pub(super) fn schedule_ack(&mut self, id: GroupId, news: bool, now: Now) {
        let Some(group) = self.groups.get(&id).filter(|_| self.up) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            return;
        };
        if chain.roster.leader.device == self.me.device
            || self.timers.due(&(id, Timer::Ack)).is_some()
        {
            return;
        }
        let strict = chain.roster.policy == Policy::Strict;
        let members = chain.roster.seats.len() as u64;
        let own = chain.roster.seats.get(&self.me.device);
        let own = own.map(|seat| seat.seniority);
        let seats = chain.roster.seats.values();
        let senior = seats.filter(|seat| Some(seat.seniority) < own).count() as u64;
        if !strict && !news && senior >= SAMPLE && self.rng.below(members) >= SAMPLE {
            return;
        }
        let spread = self.config.beat / if strict { 50 } else { 4 };
        self.after(id, Timer::Ack, core::time::Duration::ZERO, spread, now);
    }

    /// Reports our head to the leader.
    pub(super) fn report_head(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id).filter(|_| self.up) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            return;
        };
        let leader = &chain.roster.leader;
        if leader.device == self.me.device {
            return;
        }
        let user = leader.user.clone();
        self.send_head(id, &user);
    }

    /// Shows our head to `user`. In a strict group a leader hears instead that we promised a greater
    /// round: whatever we hold of its log counts for it no more (IG7).
    pub(super) fn send_head(&mut self, id: GroupId, user: &UserId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let (roster, head) = (&chain.roster, chain.head().into());
        let promised = group.record.promised.round;
        let bound = roster.policy == Policy::Strict && promised > roster.term.round;
        let counts = roster.leader.user == *user && roster.leader.device != self.me.device;
        let channel = Channel::Inbox(user.clone());
        let frame = if bound && counts && !planted("group-acks-after-promise") {
            mark("group-promised-beyond");
            let refuse = Refuse {
                group: id.0,
                why: super::promise::PROMISED,
                head,
                promised,
                heard_ms: 0,
            };
            Outgoing::ephemeral(channel, refuse)
        } else {
            Outgoing::ephemeral(channel, GroupAck { group: id.0, head })
        };
        self.effects.send(frame.gated());
    }
}
