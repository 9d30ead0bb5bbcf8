//! A claim begins a term: by the hand-over before it, or by a certificate (reliability 1.4).
//!
//! Guarantee: the claimant promises its own round in the transaction that stores the claim, and
//! the claim is durable before anybody sees it.

use super::Groups;
use super::commit::Acked;
use super::op::{Op, Warrant};
use super::proof::SupportProof;
use super::rows::Promise;
use super::term::Term;
use super::types::{GroupEvent, Policy};
use crate::id::{DeviceId, GroupId};
use crate::probe::{mark, planted};
use crate::time::Now;

impl Groups {
    /// Takes the lead when the log ends with a hand-over to us: at once when we accepted it or were
    /// not asked (R8), otherwise the application is asked first. In a strict group a hand-over only
    /// spares the wait, members must support us.
    pub(super) fn claim(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id).filter(|_| self.up) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            return;
        };
        let heir = chain.roster.heir;
        let Some(heir) = heir.filter(|heir| heir.device == self.me.device) else {
            return;
        };
        if heir.agreed && group.record.accepted.is_none() {
            let index = chain.index();
            let by = chain.roster.leader.user.clone();
            if group.offered.is_none() {
                mark("group-handover-unasked");
                group.offered = Some((index, None));
                self.effects
                    .emit_gated(GroupEvent::LeadOffered { group: id, by });
            }
            return;
        }
        if chain.roster.policy == Policy::Strict {
            self.canvass(id, now);
            return;
        }
        let round = chain.roster.term.round.max(group.record.promised.round) + 1;
        self.claim_as(id, round, true, Warrant::Handover, now);
    }

    /// Takes the lead with the support of these members.
    pub(super) fn claim_by_certificate(
        &mut self,
        id: GroupId,
        round: u64,
        mut supports: Vec<SupportProof>,
        now: Now,
    ) {
        let Some(chain) = self.chain(id) else {
            return;
        };
        if planted("group-certificate-too-small") {
            supports.truncate(chain.roster.needed().saturating_sub(2));
        }
        let majority = supports.len() + 1 >= chain.roster.majority();
        let from: Vec<DeviceId> = supports.iter().map(|one| one.key.device()).collect();
        mark(if majority {
            "group-majority-claim"
        } else {
            "group-minority-claim"
        });
        let warrant = Warrant::Certificate(supports);
        if self.claim_as(id, round, majority, warrant, now)
            && let Some(group) = self.groups.get_mut(&id)
        {
            for device in from {
                group.acks.entry(device).or_insert(Acked {
                    index: 0,
                    at: now.mono,
                    knows: None,
                });
            }
        }
    }

    fn claim_as(
        &mut self,
        id: GroupId,
        round: u64,
        majority: bool,
        warrant: Warrant,
        now: Now,
    ) -> bool {
        let me = self.me.device;
        let Some(group) = self.groups.get_mut(&id) else {
            return false;
        };
        let Some(chain) = &group.chain else {
            return false;
        };
        let Some(seat) = chain.roster.seats.get(&me) else {
            return false;
        };
        let term = Term {
            round,
            majority,
            seniority: seat.seniority,
            claimant: me,
        };
        group.record.promised = Promise {
            round,
            candidate: me.0,
            base: chain.hash(),
        };
        self.save(id);
        let Ok(index) = self.append_under(id, term, Op::Claim(warrant), now) else {
            return false;
        };
        self.publish(id, index);
        true
    }
}
