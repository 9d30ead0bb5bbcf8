//! Which entry may follow a head (reliability 1.4). Its place in the chain and its own signature
//! are the chain's business.
//!
//! Guarantees: only the owner of the reigning term adds to it, and after a hand-over nothing but a
//! claim follows; a claim holds by the hand-over before it, or by a certificate of distinct members
//! who each promised this round to this claimant on this very head. In a strict group an entry
//! changes one seat at most, or in a batch ([`super::batch`]) so few that all majorities before and
//! after it share a member (IG7).

use super::entry::{Draft, Entry, Nonce};
use super::op::{MAX_SUPPORTS, Op, Warrant};
use super::proof::{Cause, SupportProof};
use super::roster::{MAX_ROSTER, Roster};
use super::term::Head;
use super::types::Policy;
use crate::id::DeviceId;
use crate::identity::Verifier;
use crate::probe::planted;

/// How far a claim may jump ahead of the reigning round.
pub(super) const MAX_JUMP: u64 = 65_536;
/// The most members of a strict group: the certificate of a majority must fit one entry.
pub(super) const MAX_STRICT: usize = 2 * MAX_SUPPORTS + 1;

impl Roster {
    /// How many must stand behind a claim, the claimant included.
    pub(super) fn needed(&self) -> usize {
        if planted("group-one-suffices") {
            return 1;
        }
        match self.policy {
            Policy::Available => usize::from(self.quorum)
                .min(self.seats.len().saturating_sub(1))
                .max(1),
            Policy::Strict => self.majority(),
        }
    }

    /// More than half of the members.
    pub(super) fn majority(&self) -> usize {
        self.seats.len() / 2 + 1
    }

    /// True for the membership that leads. An earlier one of the same device goes like any.
    pub(super) fn reigns(&self, (device, nonce): &(DeviceId, Nonce)) -> bool {
        *device == self.leader.device && self.sits(*device, *nonce)
    }

    /// The most members that a log may hold.
    pub(super) fn capacity(&self) -> usize {
        match self.policy {
            Policy::Available => MAX_ROSTER,
            Policy::Strict => MAX_STRICT,
        }
    }

    /// Whether `entry` may follow.
    pub(super) fn allows(&self, entry: &Entry, verifier: &dyn Verifier) -> bool {
        let Draft { term, author, .. } = &entry.draft;
        let device = entry.key.device();
        if self.closed || term.claimant != device {
            return false;
        }
        if let Op::Claim(warrant) = &entry.draft.op {
            return self.allows_claim(entry, warrant, device, verifier);
        }
        let by_leader = device == self.leader.device
            && *author == self.leader.user
            && *term == self.term
            && self.heir.is_none();
        if !by_leader && !planted("group-entry-by-anyone") {
            return false;
        }
        let strict = self.policy == Policy::Strict;
        match &entry.draft.op {
            Op::Genesis { .. } | Op::Claim(_) => false,
            Op::Admit(list) => {
                !list.is_empty()
                    && self.seats.len() + list.len() <= self.capacity()
                    && (!strict || list.len() == 1)
            }
            Op::Kick { instances, .. } => {
                let sits = |(device, nonce): &&(DeviceId, _)| self.sits(*device, *nonce);
                !instances.is_empty()
                    && instances.iter().all(|one| !self.reigns(one))
                    && (!strict || instances.iter().filter(sits).count() <= 1)
            }
            Op::Left { proof, user } => {
                let (leaver, nonce) = proof.instance();
                let fits = match self.seats.get(&leaver).filter(|seat| seat.nonce == nonce) {
                    Some(seat) => seat.user == *user,
                    None => !self.gone.contains_key(&(leaver, nonce)),
                };
                // G2: the leader goes last.
                let last = !self.reigns(&(leaver, nonce)) || self.seats.len() == 1;
                fits && last && proof.holds(entry.draft.group, verifier)
            }
            Op::Handover { to, .. } => *to != self.leader.device && self.seats.contains_key(to),
            Op::Void { .. } => self.seats.len() == 1,
            Op::Fence { term, .. } => *term < self.term,
            Op::Meta { .. } => true,
            Op::Checkpoint { state } => *state == self.digest(),
            Op::Batch {
                removals,
                admissions,
            } => self.allows_batch(removals, admissions),
        }
    }

    fn allows_claim(
        &self,
        entry: &Entry,
        warrant: &Warrant,
        device: DeviceId,
        verifier: &dyn Verifier,
    ) -> bool {
        let Draft { term, author, .. } = &entry.draft;
        let seat = self.seats.get(&device);
        let may = seat.is_some_and(|seat| {
            seat.user == *author
                && seat.seniority == term.seniority
                && term.round > self.term.round
                && term.round - self.term.round <= MAX_JUMP
        });
        if !may {
            return false;
        }
        match warrant {
            Warrant::Handover => {
                self.policy == Policy::Available
                    && term.majority
                    && self.heir.is_some_and(|heir| heir.device == device)
            }
            Warrant::Certificate(supports) => {
                let count = supports.len() + 1;
                let cause = Cause {
                    group: entry.draft.group,
                    round: term.round,
                    base: Head {
                        term: self.term,
                        index: entry.draft.index.saturating_sub(1),
                        hash: entry.draft.prev,
                    },
                    candidate: device,
                };
                let sits = |proof: &SupportProof| {
                    let of = proof.key.device();
                    of != device
                        && (self.seats.contains_key(&of) || planted("group-support-by-stranger"))
                };
                (count >= self.needed())
                    && (term.majority == (count >= self.majority())
                        || planted("group-majority-unchecked"))
                    && supports.is_sorted_by(|a, b| a.key.0 < b.key.0)
                    && supports.iter().all(sits)
                    && supports.iter().all(|proof| proof.holds(&cause, verifier))
            }
        }
    }
}
