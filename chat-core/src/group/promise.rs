//! A member promises a round to one candidate (reliability 1.5).
//!
//! Guarantees: at most one promise per round, each greater than the one before; it is durable
//! before it leaves; only for a candidate in our roster whose head is at least ours, and only when
//! the leader is silent or must go, or the lead is the candidate's anyway.
//!
//! Honest limit: members that collude may burn rounds while the leader is silent, at most
//! [`MAX_STEP`] at a time.

use super::proof::{Cause, SupportProof};
use super::rows::Promise;
use super::term::Head;
use super::{Group, Groups};
use crate::channel::Channel;
use crate::effect::Outgoing;
use crate::id::{DeviceId, GroupId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::group::{Canvass, Refuse, Support};

/// The refuser's head is greater.
pub(super) const LOWER: u8 = 1;
/// The leader lives.
pub(super) const LIVES: u8 = 2;
/// The round is promised, or a greater one.
pub(super) const PROMISED: u8 = 3;
/// The candidate is not in the roster that counts.
const STRANGER: u8 = 4;
/// How far beyond all that we know a round may lie.
pub(super) const MAX_STEP: u64 = 4_096;
/// Answers to one canvass, on average, in a group of many.
const ANSWERS: u64 = 64;

impl Groups {
    /// Somebody wants to lead.
    pub(super) fn handle_canvass(&mut self, from: &Sender, canvass: &Canvass, now: Now) {
        let id = GroupId(canvass.group);
        let base = Head::from(canvass.base);
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let lower = base < chain.head();
        if group.inside(&self.me).is_none() {
            // We may be the only ones left who hold the greater head.
            if lower && self.served.admit(id, from.device, now.mono) {
                mark("group-former-corrects");
                self.send_head(id, &from.user);
            }
            return;
        }
        let many = chain.roster.seats.len() as u64;
        if self.rng.below(many) >= ANSWERS || !self.served.admit(id, from.device, now.mono) {
            return;
        }
        match self.consider(&self.groups[&id], from, canvass.round, base, now) {
            Ok(()) => self.promise(id, from, canvass.round, base, now),
            Err(why) => self.refuse(id, from, why, now),
        }
        if base
            > self.groups[&id]
                .chain
                .as_ref()
                .map_or(base, super::Chain::head)
        {
            self.want(id, &from.user, now);
        }
    }

    /// May we promise this round to this candidate?
    fn consider(
        &self,
        group: &Group,
        from: &Sender,
        round: u64,
        base: Head,
        now: Now,
    ) -> Result<(), u8> {
        let chain = group.chain.as_ref().ok_or(STRANGER)?;
        let roster = &chain.roster;
        let seat = roster.seats.get(&from.device);
        if seat.is_none_or(|seat| seat.user != from.user) || !group.sees(from.device) {
            return Err(STRANGER);
        }
        if base < chain.head() && !planted("group-supports-lower-head") {
            return Err(LOWER);
        }
        let promised = &group.record.promised;
        let again = promised.round == round
            && promised.candidate == from.device.0
            && promised.base == base.hash;
        let free = round > promised.round || planted("group-promises-twice");
        let known = promised.round.max(roster.term.round);
        if !again && (!free || round <= roster.term.round || round - known.min(round) > MAX_STEP) {
            return Err(PROMISED);
        }
        if again || self.is_willing(group, from.device, now) {
            Ok(())
        } else {
            Err(LIVES)
        }
    }

    /// Is there a reason for another leader, or is the lead this candidate's anyway?
    fn is_willing(&self, group: &Group, candidate: DeviceId, now: Now) -> bool {
        let Some(chain) = &group.chain else {
            return false;
        };
        let roster = &chain.roster;
        let reigning = roster.leader.device == self.me.device && roster.heir.is_none();
        let silent = !reigning && self.is_silent(group, now);
        silent
            || roster.leader.device == candidate
            || roster.heir.is_some_and(|heir| heir.device == candidate)
            || super::lame::is_lame(group)
            || group.distrust == Some(roster.term)
            || self.defends(group, candidate, now)
    }

    fn promise(&mut self, id: GroupId, from: &Sender, round: u64, base: Head, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.canvass = None;
        group.record.promised = Promise {
            round,
            candidate: from.device.0,
            base: base.hash,
        };
        let stored = !planted("group-promise-not-stored");
        if stored {
            self.save(id);
        }
        mark("group-promise");
        let cause = Cause {
            group: id,
            round,
            base,
            candidate: from.device,
        };
        let proof = SupportProof::sign(&cause, &*self.signer).to_bytes();
        let body = Support {
            group: id.0,
            round,
            base: base.hash,
            proof: proof.to_vec().try_into().expect("a proof has 96 bytes"),
        };
        let frame = Outgoing::durable(Channel::Inbox(from.user.clone()), body);
        self.effects.send(Outgoing {
            gated: stored,
            ..frame
        });
        let reigns = self.groups[&id].leading(&self.me);
        if reigns.is_none_or(|chain| chain.roster.heir.is_some()) {
            self.canvass_later(id, self.config.window * 2, now);
        }
    }

    fn refuse(&mut self, id: GroupId, from: &Sender, why: u8, now: Now) {
        let group = &self.groups[&id];
        let Some(chain) = &group.chain else {
            return;
        };
        let heard = self.silence(group, now).as_millis();
        let body = Refuse {
            group: id.0,
            why,
            head: chain.head().into(),
            promised: group.record.promised.round,
            heard_ms: u64::try_from(heard).unwrap_or(u64::MAX),
        };
        let frame = Outgoing::ephemeral(Channel::Inbox(from.user.clone()), body);
        self.effects.send(frame.gated());
    }
}
