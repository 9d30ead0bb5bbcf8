//! An applicant asks to be let in (G14, G15).
//!
//! It repeats its request until the answer is final: an admission proved by the log, or a refusal;
//! merely to have been seen is not enough, for whoever saw it may be gone. An invitation that it
//! holds goes with it.
//!
//! Limit: a refusal is signed by its sender, but an applicant that holds no log cannot tell who
//! leads. Somebody who reads the group's channel can refuse in the leader's place; asking again
//! is always possible.

use core::time::Duration;

use super::handover::LEAVE;
use super::joins::{ADMITTED, BUSY, DENIED};
use super::proof::LeftProof;
use super::rows::{Asking, Stage};
use super::types::{GroupError, GroupEvent, Membership};
use super::{Groups, RESEND_FIRST, Timer, check_text};
use crate::channel::Channel;
use crate::effect::Outgoing;
use crate::id::{GroupId, RequestId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::BoundedStr;
use crate::wire::group::{JoinAnswer, JoinReq, Propose};

impl Groups {
    /// Asks to join. Asking again while a request stands names that one.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn join(&mut self, group: GroupId, note: &str, now: Now) -> Result<RequestId, GroupError> {
        check_text(note)?;
        if let Some(held) = self.groups.get(&group) {
            let open = |asking: &&Asking| asking.stage == Stage::Open;
            if let Some(asking) = held.record.asking.as_ref().filter(open) {
                return Ok(RequestId(asking.request));
            }
            if held.chain.as_ref().is_some_and(|chain| chain.roster.closed) {
                return Err(GroupError::Closed);
            }
            if matches!(
                held.standing(&self.me),
                Some(Membership::Member | Membership::Leader)
            ) || held.leading(&self.me).is_some()
            {
                return Err(GroupError::AlreadyMember);
            }
        } else {
            self.make_room()?;
        }
        let held = self.groups.get(&group);
        let earlier = held.and_then(|held| held.record.asking.as_ref());
        let asking = Asking {
            request: self.rng.bytes(),
            // A late copy of a request that we gave up then asks for the same membership.
            nonce: earlier.map_or_else(|| self.rng.bytes(), |asking| asking.nonce),
            note: note.to_owned(),
            until: now.wall.plus(self.config.join_ttl).0,
            stage: Stage::Open,
        };
        let request = RequestId(asking.request);
        let held = self.groups.entry(group).or_default();
        held.record.asking = Some(asking);
        held.backoff = RESEND_FIRST;
        self.save(group);
        self.arm_lapses(group, now);
        if self.up {
            self.resend(group, now);
        }
        Ok(request)
    }

    /// Takes our request back (G14). Should it have been granted meanwhile, we leave again.
    ///
    /// # Errors
    /// [`GroupError::NoSuchRequest`].
    pub fn withdraw(&mut self, group: GroupId, now: Now) -> Result<(), GroupError> {
        let held = self.groups.get_mut(&group).ok_or(GroupError::NoSuchGroup)?;
        let asking = held.record.asking.as_mut();
        let open = asking.filter(|asking| asking.stage == Stage::Open);
        open.ok_or(GroupError::NoSuchRequest)?.stage = Stage::Withdrawn;
        held.backoff = RESEND_FIRST;
        self.save(group);
        if self.up {
            self.resend(group, now);
        }
        Ok(())
    }

    /// The leader answers us.
    pub(super) fn handle_answer(&mut self, from: &Sender, answer: &JoinAnswer, now: Now) {
        let id = GroupId(answer.group);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let asking = group.record.asking.as_mut();
        let Some(asking) = asking.filter(|asking| asking.request == answer.request) else {
            self.handle_refusal_of_other(id, from, answer);
            return;
        };
        match answer.answer {
            ADMITTED => {
                // Two leaders, two answers: what the log says counts, and we ask until we see it.
                let again = match asking.stage {
                    Stage::Denied => Some(Stage::Open),
                    Stage::Over => Some(Stage::Withdrawn),
                    Stage::Open | Stage::Withdrawn => None,
                };
                if let Some(stage) = again {
                    mark("group-admitted-after-answer");
                    asking.stage = stage;
                    group.backoff = RESEND_FIRST;
                    self.save(id);
                    self.arm(id, now);
                }
                self.want(id, &from.user, now);
            }
            BUSY => {
                let retry = Duration::from_secs(answer.retry.into());
                group.backoff = retry.min(self.config.join_resend_max);
            }
            DENIED if asking.stage.is_pending() => {
                let told = asking.stage == Stage::Open;
                asking.stage = if told { Stage::Denied } else { Stage::Over };
                self.save(id);
                if told {
                    let reason = answer.reason.to_string();
                    let event = GroupEvent::Denied { group: id, reason };
                    self.effects.emit_gated(event);
                }
            }
            _ => {}
        }
    }

    /// Repeats our request or our leave, ever more slowly.
    pub(super) fn resend(&mut self, id: GroupId, now: Now) {
        let ticket = self.ticket(id);
        let Some(group) = self.groups.get_mut(&id).filter(|_| self.up) else {
            return;
        };
        let most = self.config.join_resend_max.max(Duration::from_millis(100));
        let wait = group.backoff.clamp(most.min(RESEND_FIRST), most);
        group.backoff = (wait * 2).min(most);
        let leads = group.leading(&self.me).is_some();
        let mut frames = Vec::new();
        let asking = group.record.asking.as_ref();
        if let Some(asking) = asking.filter(|asking| asking.stage.is_pending()) {
            let body = JoinReq {
                group: id.0,
                request: asking.request,
                nonce: asking.nonce,
                note: BoundedStr::truncated(&asking.note),
                ticket,
                withdrawn: asking.stage == Stage::Withdrawn,
            };
            frames.push(Outgoing::durable(Channel::Group(id), body));
        }
        if let (Some(nonce), Some(chain), false) = (group.record.leaving, &group.chain, leads) {
            let proof = LeftProof::sign(id, nonce, &*self.signer).to_bytes();
            let body = Propose {
                group: id.0,
                action: LEAVE,
                index: chain.index(),
                proof: proof.to_vec().try_into().expect("a proof has 112 bytes"),
            };
            let leader = chain.roster.leader.user.clone();
            frames.push(Outgoing::durable(Channel::Inbox(leader), body));
        }
        if !frames.is_empty() && !planted("group-asks-once") {
            self.after(id, Timer::Resend, wait, wait / 4, now);
        }
        for frame in frames {
            self.effects.send(frame.gated());
        }
    }

    /// The lead passed: what the leader before may not have logged is repeated at once (G12, G14).
    pub(super) fn tell_new_leader(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id).filter(|_| self.up) else {
            return;
        };
        let asking = group.record.asking.as_ref();
        let asks = asking.is_some_and(|asking| asking.stage.is_pending());
        if group.leading(&self.me).is_none() && (asks || group.record.leaving.is_some()) {
            mark("group-repeats-to-new-leader");
            group.backoff = RESEND_FIRST;
            self.resend(id, now);
        }
    }

    /// Our request was not answered in time.
    pub(super) fn lapse(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let due = |asking: &Asking| asking.until <= now.wall.0;
        let Some(asking) = group.record.asking.take_if(|asking| due(asking)) else {
            self.arm_lapses(id, now);
            return;
        };
        if group.record.nonce.is_none() {
            self.forget(id);
        } else {
            self.save(id);
        }
        if asking.stage == Stage::Open {
            mark("group-join-expired");
            self.effects
                .emit_gated(GroupEvent::JoinExpired { group: id });
        }
    }
}
