//! The lead passes to a member that agrees (G2, G18).
//!
//! The leader offers until it is answered; the acceptance is durable before it leaves; the leader
//! logs `Handover` and signs nothing more; the target logs `Claim` and leads. Until the claim
//! arrives the old leader repeats the hand-over. Guarantee: at no time two leaders may sign.

use super::Groups;
use super::chain::Chain;
use super::op::Op;
use super::proof::LeftProof;
use super::roster::Way;
use super::rows::Stage;
use super::types::{GroupError, GroupEvent};
use crate::channel::Channel;
use crate::effect::Outgoing;
use crate::id::{GroupId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::BoundedBytes;
use crate::wire::group::{Offer, Propose};

/// "I leave."
pub(super) const LEAVE: u8 = 1;
const ACCEPT: u8 = 2;
const DECLINE: u8 = 3;

impl Groups {
    /// Asks `user` to lead; it must accept, until then we hold (G18). An open offer to somebody
    /// else is dropped.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn hand_over(&mut self, group: GroupId, user: &UserId, now: Now) -> Result<(), GroupError> {
        if *user == self.me.user {
            return Err(GroupError::Oneself);
        }
        self.reign(group, now)?;
        let visible = self.groups[&group].visible();
        if visible.iter().all(|member| member.user != *user) {
            return Err(GroupError::NoSuchMember { user: user.clone() });
        }
        self.offer(group, user.clone());
        Ok(())
    }

    /// Answers the leader's offer.
    ///
    /// # Errors
    /// [`GroupError::NoOffer`] when none stands, and others.
    pub fn answer_offer(
        &mut self,
        group: GroupId,
        accept: bool,
        now: Now,
    ) -> Result<(), GroupError> {
        let held = self.groups.get_mut(&group).ok_or(GroupError::NoSuchGroup)?;
        if held.inside(&self.me).is_none() {
            return Err(GroupError::NotMember);
        }
        let Some((number, _)) = held.offered else {
            return Err(GroupError::NoOffer);
        };
        held.offered = Some((number, Some(accept)));
        held.record.accepted = accept.then_some(number);
        self.save(group);
        self.send_answer(group, number, accept);
        self.arm(group, now);
        Ok(())
    }

    /// A leader that wants to leave looks for who follows, or closes the group behind it.
    pub(super) fn pursue_leave(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let (Some(nonce), Some(chain)) = (group.record.leaving, group.leading(&self.me)) else {
            return;
        };
        let asking = group.record.asking.as_ref();
        let returns = asking.is_some_and(|asking| asking.stage == Stage::Open);
        if chain.roster.heir.is_some() || returns {
            return;
        }
        match (group.successor(), &group.record.offer) {
            (None, _) if chain.roster.seats.len() > 1 => {
                // Those that are left are kicked on another branch; the log must say so first.
                mark("group-leaves-after-kicks");
            }
            (None, _) => {
                let op = Op::Left {
                    proof: LeftProof::sign(id, nonce, &*self.signer),
                    user: self.me.user.clone(),
                };
                if let Ok(index) = self.append(id, op, now) {
                    mark("group-closed");
                    self.publish(id, index);
                }
            }
            // Whoever does not answer any more cannot keep us from leaving.
            (Some(next), Some((user, _)))
                if self.may_lead(chain, user)
                    && (group.answers(user) || !group.answers(next.user.as_str())) => {}
            (Some(next), _) => self.offer(id, next.user),
        }
    }

    /// True when `user` has a device in, other than this one.
    fn may_lead(&self, chain: &Chain, user: &str) -> bool {
        let mut seats = chain.roster.seats.iter();
        seats.any(|(device, seat)| *device != self.me.device && seat.user.as_str() == user)
    }

    fn offer(&mut self, id: GroupId, user: UserId) {
        let number = self.rng.next_u64();
        if let Some(group) = self.groups.get_mut(&id) {
            group.record.offer = Some((user.as_str().to_owned(), number));
            self.save(id);
            self.send_offer(id);
        }
    }

    fn send_offer(&mut self, id: GroupId) {
        let open = self
            .groups
            .get(&id)
            .and_then(|group| group.record.offer.as_ref());
        let Some((user, offer)) = open.map(|(user, number)| (UserId::new(user), *number)) else {
            return;
        };
        if let (Ok(user), true) = (user, self.up) {
            self.mail(&user, Offer { group: id.0, offer });
        }
    }

    /// Repeats an open offer; drops one to somebody who is out.
    pub(super) fn check_offer(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let (Some((user, _)), Some(chain)) = (&group.record.offer, &group.chain) else {
            return;
        };
        if self.may_lead(chain, user) {
            self.send_offer(id);
        } else {
            self.end_offer(id);
        }
    }

    fn end_offer(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.record.leaving = None;
        let by = group.record.offer.take();
        self.save(id);
        if let Some(Ok(by)) = by.map(|(user, _)| UserId::new(&user)) {
            let event = GroupEvent::LeadDeclined { group: id, by };
            self.effects.emit_gated(event);
        }
    }

    /// The leader asks us. It repeats that, so an answer that got lost is given again.
    pub(super) fn handle_offer(&mut self, from: &Sender, offer: &Offer, _now: Now) {
        let (id, number) = (GroupId(offer.group), offer.offer);
        self.repeat_own_leave(id, from);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            return;
        };
        if chain.roster.leader.device != from.device || chain.roster.heir.is_some() {
            return;
        }
        if group.record.accepted == Some(number) {
            group.offered = Some((number, Some(true)));
        }
        match group.offered {
            Some((known, Some(accept))) if known == number => {
                self.send_answer(id, number, accept);
            }
            Some((known, None)) if known == number => {}
            _ => {
                group.offered = Some((number, None));
                self.effects.emit(GroupEvent::LeadOffered {
                    group: id,
                    by: from.user.clone(),
                });
            }
        }
    }

    /// Somebody takes us for a member although we left: on a branch of the log that it never saw.
    pub(super) fn repeat_own_leave(&mut self, id: GroupId, from: &Sender) {
        let Some(group) = self.groups.get(&id).filter(|_| self.up) else {
            return;
        };
        let (Some(chain), Some(nonce)) = (&group.chain, group.record.nonce) else {
            return;
        };
        let gone = chain.roster.gone.get(&(self.me.device, nonce));
        if gone.is_none_or(|gone| gone.way != Way::Left) {
            return;
        }
        mark("group-leave-repeated");
        let proof = LeftProof::sign(id, nonce, &*self.signer).to_bytes();
        let leave = Propose {
            group: id.0,
            action: LEAVE,
            index: chain.index(),
            proof: proof.to_vec().try_into().expect("a proof has 112 bytes"),
        };
        self.mail(&from.user, leave);
    }

    fn send_answer(&mut self, id: GroupId, number: u64, accept: bool) {
        let Some(leader) = self.chain(id).map(|chain| chain.roster.leader.user.clone()) else {
            return;
        };
        let answer = Propose {
            group: id.0,
            action: if accept { ACCEPT } else { DECLINE },
            index: number,
            proof: BoundedBytes::default(),
        };
        if self.up {
            self.mail(&leader, answer);
        }
    }

    /// A member leaves, or answers our offer.
    pub(super) fn handle_propose(&mut self, from: &Sender, propose: &Propose, now: Now) {
        let id = GroupId(propose.group);
        let Ok(chain) = self.reign(id, now) else {
            return;
        };
        let seat = chain.roster.seats.get(&from.device);
        let sits = seat.is_some_and(|seat| seat.user == from.user);
        match propose.action {
            LEAVE => self.handle_leave(from, propose, now),
            ACCEPT | DECLINE if sits => {
                let open = self.groups[&id].record.offer.clone();
                if open != Some((from.user.as_str().to_owned(), propose.index)) {
                    mark("group-late-answer");
                    return;
                }
                if propose.action == DECLINE && !planted("group-decline-accepts") {
                    self.end_offer(id);
                    return;
                }
                let op = Op::Handover {
                    to: from.device,
                    agreed: true,
                };
                if let Ok(index) = self.append(id, op, now) {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.record.offer = None;
                    }
                    self.save(id);
                    self.publish(id, index);
                }
            }
            _ => {}
        }
    }

    fn handle_leave(&mut self, from: &Sender, propose: &Propose, now: Now) {
        let id = GroupId(propose.group);
        let Some(proof) = LeftProof::from_bytes(&propose.proof) else {
            return;
        };
        let (device, nonce) = proof.instance();
        if device != from.device || !self.served.admit(id, device, now.mono) {
            return;
        }
        let chain = self.chain(id);
        if chain.is_some_and(|chain| chain.roster.sits(device, nonce)) {
            if !proof.holds(id, &*self.verifier) {
                return;
            }
            // A strict group may not be ready; the leaver asks again.
            if self.ready(id) {
                let op = Op::Left {
                    proof,
                    user: from.user.clone(),
                };
                if let Ok(index) = self.append(id, op, now) {
                    self.publish(id, index);
                }
            }
        }
        // The leaver may be behind, and asks again until it sees this.
        let page = self.chain(id).and_then(|chain| {
            let gone = chain.roster.gone.get(&(device, nonce))?;
            Some(chain.page(propose.index.saturating_add(1), gone.until))
        });
        if let Some(page) = page {
            self.mail(&from.user, page);
        }
    }

    /// Repeats the hand-over until the claim arrives; true when one is under way. The target may
    /// have vanished: we still serve the log, but sign nothing.
    pub(super) fn repeat_handover(&mut self, id: GroupId) -> bool {
        let Some(chain) = self.chain(id) else {
            return false;
        };
        let Some(heir) = chain.roster.heir.map(|heir| heir.device) else {
            return false;
        };
        mark("group-handover-repeated");
        let page = chain.page(chain.index(), chain.index());
        let user = chain.roster.seats.get(&heir).map(|seat| seat.user.clone());
        let frame = Outgoing::durable(Channel::Group(id), page.clone());
        self.effects.send(frame.gated());
        if let Some(user) = user {
            self.mail(&user, page);
        }
        true
    }
}
