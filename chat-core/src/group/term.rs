//! Terms and heads, and their order (reliability 1.2).
//!
//! Guarantees: a total order that everybody computes from signed bytes alone. The claimant is part
//! of its term, so two owners of one term cannot exist.

use core::cmp::{Ordering, Reverse};

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::probe::planted;
use crate::wire::group::{Head as WireHead, Term as WireTerm};

/// SHA-256 over an entry as carried.
pub(super) type Hash = [u8; 32];

/// Where an instance was admitted; the earlier, the more senior.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seniority {
    /// The round of the term that admitted it.
    pub round: u64,
    /// The index of the entry.
    pub index: u64,
    /// The place within the entry.
    pub place: u8,
}

/// A reign. Greater terms win.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Term {
    /// Grows with every claim.
    pub round: u64,
    /// A majority stood behind the claim.
    pub majority: bool,
    /// The claimant's admission.
    pub seniority: Seniority,
    /// Who reigns.
    pub claimant: DeviceId,
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |t: &Self| {
            let majority = t.majority && !planted("group-term-ignores-majority");
            (t.round, majority, Reverse(t.seniority), t.claimant)
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The last entry of a log. The greater one wins; of two at one place the lower hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub term: Term,
    pub index: u64,
    pub hash: Hash,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |h: &Self| (h.term, h.index, Reverse(h.hash));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Head {
    /// The form that signatures cover: every field at its full width, little-endian.
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        let term = &self.term;
        [
            &term.round.to_le_bytes()[..],
            &[u8::from(term.majority)],
            &term.seniority.round.to_le_bytes(),
            &term.seniority.index.to_le_bytes(),
            &[term.seniority.place],
            &term.claimant.0,
            &self.index.to_le_bytes(),
            &self.hash,
        ]
        .concat()
    }
}

impl From<WireTerm> for Term {
    fn from(wire: WireTerm) -> Self {
        Self {
            round: wire.round,
            majority: wire.majority,
            seniority: Seniority {
                round: wire.since_round,
                index: wire.since_index,
                place: wire.since_place,
            },
            claimant: DeviceId(wire.claimant),
        }
    }
}

impl From<Term> for WireTerm {
    fn from(term: Term) -> Self {
        Self {
            round: term.round,
            majority: term.majority,
            since_round: term.seniority.round,
            since_index: term.seniority.index,
            since_place: term.seniority.place,
            claimant: term.claimant.0,
        }
    }
}

impl From<WireHead> for Head {
    fn from(wire: WireHead) -> Self {
        Self {
            term: wire.term.into(),
            index: wire.index,
            hash: wire.hash,
        }
    }
}

impl From<Head> for WireHead {
    fn from(head: Head) -> Self {
        Self {
            term: head.term.into(),
            index: head.index,
            hash: head.hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(round: u64, majority: bool, index: u64, claimant: u8) -> Term {
        Term {
            round,
            majority,
            seniority: Seniority {
                round: 1,
                index,
                place: 0,
            },
            claimant: DeviceId([claimant; 32]),
        }
    }

    #[test]
    fn ig1_terms_go_by_round_then_majority_then_seniority_then_claimant() {
        let rising = [
            term(1, true, 1, 9),
            term(2, false, 8, 9),
            term(2, false, 3, 1),
            term(2, true, 9, 1),
            term(2, true, 3, 1),
            term(2, true, 3, 2),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn of_two_heads_at_one_place_the_lower_hash_wins() {
        let head = |index, hash| Head {
            term: term(1, true, 1, 1),
            index,
            hash: [hash; 32],
        };
        assert!(head(2, 1) > head(2, 2));
        assert!(head(3, 2) > head(2, 1));
    }
}
