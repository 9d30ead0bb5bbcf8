//! A candidate asks for support (reliability 1.5).
//!
//! A canvass binds nobody. It asks for the first round beyond all that the candidate promised or
//! was refused for, so split votes cannot lock the group. When the window closes with enough
//! support, and the head is still the one that was supported, the candidate claims. Refusals of
//! members who hear the leader stop it as long as they outnumber its supporters.
//!
//! Bounds: one canvass per group, as many supports as a certificate holds.

use std::collections::{BTreeMap, BTreeSet};

use super::op::MAX_SUPPORTS;
use super::promise::{LIVES, LOWER, MAX_STEP, PROMISED};
use super::proof::{Cause, SupportProof};
use super::term::Head;
use super::types::Policy;
use super::validity::MAX_JUMP;
use super::{Groups, Timer};
use crate::channel::Channel;
use crate::effect::Outgoing;
use crate::id::{DeviceId, GroupId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::group::{Canvass, Refuse, Support};

/// A canvass of ours.
#[derive(Clone, Debug)]
pub(super) struct Canvassing {
    pub round: u64,
    pub base: Head,
    /// By key, as a certificate lists them.
    pub supports: BTreeMap<[u8; 32], SupportProof>,
    /// Members who say that the leader lives.
    pub against: BTreeSet<DeviceId>,
}

impl Groups {
    /// Asks all members, unless we may not lead or nobody needs to.
    pub(super) fn canvass(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get(&id).filter(|_| self.up) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            return;
        };
        let roster = &chain.roster;
        if !group.sees(self.me.device) || group.canvass.is_some() {
            return;
        }
        let reigns = roster.leader.device == self.me.device && roster.heir.is_none();
        if reigns && !self.must_renew(id) {
            return;
        }
        let promised = group.record.promised.round;
        let beyond = if planted("group-rounds-never-skip") {
            0
        } else {
            promised.max(group.refused)
        };
        let round = roster.term.round.max(beyond) + 1;
        if round > roster.term.round + MAX_JUMP {
            mark("group-rounds-exhausted");
            return;
        }
        mark("group-canvass");
        let base = chain.head();
        let canvassing = Canvassing {
            round,
            base,
            supports: BTreeMap::new(),
            against: BTreeSet::new(),
        };
        let body = Canvass {
            group: id.0,
            round,
            base: base.into(),
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.canvass = Some(canvassing);
        }
        self.timers.remove(&(id, Timer::Succeed));
        let window = self.config.window;
        self.after(id, Timer::Window, window, window / 10, now);
        let frame = Outgoing::ephemeral(Channel::Group(id), body);
        self.effects.send(frame.with_ttl(window).gated());
    }

    /// A leader of a strict group whose members, or who itself, promised a greater round commits
    /// nothing more: it must reign under a greater term.
    pub(super) fn must_renew(&self, id: GroupId) -> bool {
        let Some(group) = self.groups.get(&id) else {
            return false;
        };
        let Some(chain) = group.leading(&self.me) else {
            return false;
        };
        let beyond = group.record.promised.round.max(group.refused);
        chain.roster.policy == Policy::Strict && beyond > chain.roster.term.round
    }

    /// A member promises us the round.
    pub(super) fn handle_support(&mut self, from: &Sender, support: &Support, now: Now) {
        let id = GroupId(support.group);
        let me = self.me.device;
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let (Some(canvass), Some(chain)) = (&mut group.canvass, &group.chain) else {
            return;
        };
        let seat = chain.roster.seats.get(&from.device);
        let fits = support.round == canvass.round
            && support.base == canvass.base.hash
            && seat.is_some_and(|seat| seat.user == from.user);
        let Some(proof) = SupportProof::from_bytes(&support.proof).filter(|_| fits) else {
            return;
        };
        let cause = Cause {
            group: id,
            round: canvass.round,
            base: canvass.base,
            candidate: me,
        };
        if proof.key.device() != from.device
            || canvass.supports.len() >= MAX_SUPPORTS
            || !proof.holds(&cause, &*self.verifier)
        {
            return;
        }
        canvass.against.remove(&from.device);
        canvass.supports.insert(proof.key.0, proof);
        // Nothing is gained by waiting for more than a majority.
        let count = canvass.supports.len() + 1;
        let enough = chain.roster.majority().max(chain.roster.needed());
        if count >= enough {
            self.timers.remove(&(id, Timer::Window));
            self.close_canvass(id, now);
        }
    }

    /// Somebody refuses: catch up, stop, or skip rounds.
    pub(super) fn handle_refuse(&mut self, from: &Sender, refuse: &Refuse, now: Now) {
        let id = GroupId(refuse.group);
        let deposed = self
            .groups
            .get(&id)
            .is_some_and(|group| self.is_deposed(group, now));
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let seat = chain.roster.seats.get(&from.device);
        if seat.is_none_or(|seat| seat.user != from.user) {
            return;
        }
        let leads = chain.roster.leader.device == from.device && chain.roster.heir.is_none();
        let ours = chain.head();
        let most = group.record.promised.round.max(ours.term.round) + MAX_STEP / 4;
        match refuse.why {
            LOWER if Head::from(refuse.head) > ours => {
                group.canvass = None;
                self.canvass_later(id, self.config.window, now);
                self.want(id, &from.user, now);
            }
            LIVES => {
                if let Some(canvass) = &mut group.canvass {
                    canvass.against.insert(from.device);
                }
                if leads && !deposed && !super::lame::is_lame(group) {
                    mark("group-leader-answers");
                    group.canvass = None;
                    self.timers.remove(&(id, Timer::Window));
                    self.canvass_later(id, self.config.succeed, now);
                    self.hear(id, now);
                }
            }
            PROMISED if refuse.promised <= most => {
                group.refused = group.refused.max(refuse.promised);
                if self.must_renew(id) {
                    mark("group-renews");
                    self.canvass(id, now);
                }
            }
            _ => {}
        }
    }

    /// The window is over: claim, or try again later.
    pub(super) fn close_canvass(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(canvass) = group.canvass.take() else {
            return;
        };
        let Some(chain) = group.inside(&self.me).filter(|_| self.up) else {
            return;
        };
        let count = canvass.supports.len() + 1;
        let outvoted = canvass.against.len() >= count;
        let free = group.record.promised.round < canvass.round;
        if count < chain.roster.needed() || chain.head() != canvass.base || outvoted || !free {
            mark("group-canvass-fails");
            if count > 1 {
                // Those who promised this round cannot promise it for another head.
                group.refused = group.refused.max(canvass.round);
            }
            let wait = self.config.window;
            self.canvass_later(id, wait, now);
            return;
        }
        let supports = canvass.supports.into_values().collect();
        self.claim_by_certificate(id, canvass.round, supports, now);
    }
}
