//! What the log takes: one thing wrong is enough to refuse an entry (IG1, IG7, IG8, IG12).

use super::super::chain::Chain;
use super::super::entry::{Draft, Entry};
use super::super::op::{Admission, Op, Warrant};
use super::super::proof::{Cause, LeftProof, SupportProof};
use super::super::roster::Seat;
use super::super::term::Seniority;
use super::super::validity::MAX_JUMP;
use super::super::work::kick_op;
use super::super::*;
use super::log::{ANN, BOB, begin, draft, let_in, next, takes, with_bob};
use super::net::{Fake, FakeVerifier, user};
use crate::identity::PublicKey;

const CAT: Fake = Fake(PublicKey([3; 32]));
const DAN: Fake = Fake(PublicKey([4; 32]));
const EVE: Fake = Fake(PublicKey([5; 32]));
const ZED: Fake = Fake(PublicKey([9; 32]));

/// Ann leads bob, cat, dan and eve.
fn five() -> Chain {
    let mut chain = begin(&ANN, &FakeVerifier);
    for (name, signer) in [("bob", &BOB), ("cat", &CAT), ("dan", &DAN), ("eve", &EVE)] {
        let entry = next(&chain, let_in(name, signer, 1), &ANN);
        chain.accept(&[entry], &FakeVerifier);
    }
    assert_eq!(chain.roster.seats.len(), 5);
    chain
}

/// Bob wants to lead from here on.
struct Case {
    chain: Chain,
    round: u64,
    majority: bool,
    supporters: Vec<Fake>,
    sort: bool,
    spoil: fn(&mut Cause),
    draft: fn(&mut Draft),
}

impl Case {
    fn new(chain: Chain, supporters: &[Fake]) -> Self {
        let count = supporters.len() + 1;
        Self {
            round: chain.roster.term.round + 1,
            majority: count > chain.roster.seats.len() / 2,
            chain,
            supporters: supporters.iter().map(|one| Fake(one.0)).collect(),
            sort: true,
            spoil: |_| {},
            draft: |_| {},
        }
    }

    fn entry(&self) -> Bytes {
        let device = BOB.0.device();
        let mut cause = Cause {
            group: self.chain.group,
            round: self.round,
            base: self.chain.head(),
            candidate: device,
        };
        (self.spoil)(&mut cause);
        let signs = |signer: &Fake| SupportProof::sign(&cause, signer);
        let mut supports: Vec<_> = self.supporters.iter().map(signs).collect();
        if self.sort {
            supports.sort_by_key(|one| one.key.0);
        }
        let mut claim = draft(&self.chain, Op::Claim(Warrant::Certificate(supports)));
        claim.author = user("bob");
        claim.term = Term {
            round: self.round,
            majority: self.majority,
            seniority: self.chain.roster.seats[&device].seniority,
            claimant: device,
        };
        (self.draft)(&mut claim);
        Entry::sign(claim, &BOB).unwrap().bytes
    }

    fn holds(&self) -> bool {
        takes(&self.chain, self.entry())
    }
}

fn fakes(all: &[&Fake]) -> Vec<Fake> {
    all.iter().map(|one| Fake(one.0)).collect()
}

#[test]
fn ig8_a_certificate_holds_with_distinct_members_who_signed_this_very_cause() {
    let all = fakes(&[&CAT, &DAN]);
    assert!(Case::new(five(), &all).holds());
    let twice = fakes(&[&CAT, &CAT]);
    assert!(!Case::new(five(), &twice).holds(), "one of them twice");
    let stranger = fakes(&[&CAT, &ZED]);
    assert!(!Case::new(five(), &stranger).holds());
    let itself = fakes(&[&CAT, &BOB]);
    assert!(!Case::new(five(), &itself).holds(), "it counts anyway");
    let unsorted = Case {
        sort: false,
        ..Case::new(five(), &fakes(&[&DAN, &CAT]))
    };
    assert!(!unsorted.holds());
    let spoils: [fn(&mut Cause); 4] = [
        |cause| cause.round += 1,
        |cause| cause.base.index -= 1,
        |cause| cause.candidate = CAT.0.device(),
        |cause| cause.group = GroupId([1; 32]),
    ];
    for spoil in spoils {
        let case = Case {
            spoil,
            ..Case::new(five(), &all)
        };
        assert!(!case.holds());
    }
}

#[test]
fn ig8_a_certificate_needs_the_quorum_and_tells_a_majority_as_it_is() {
    for (supporters, majority, holds) in [
        (fakes(&[]), false, false),
        (fakes(&[&CAT]), false, true),
        (fakes(&[&CAT]), true, false),
        (fakes(&[&CAT, &DAN]), true, true),
        (fakes(&[&CAT, &DAN]), false, false),
    ] {
        let case = Case {
            majority,
            ..Case::new(five(), &supporters)
        };
        let count = supporters.len();
        assert_eq!(case.holds(), holds, "{count} {majority}");
    }
}

#[test]
fn ig1_a_claim_is_its_claimants_own_by_its_own_seat() {
    let drafts: [fn(&mut Draft); 3] = [
        |claim| claim.term.claimant = CAT.0.device(),
        |claim| claim.author = user("cat"),
        |claim| claim.term.seniority.index += 1,
    ];
    for draft in drafts {
        let case = Case {
            draft,
            ..Case::new(five(), &fakes(&[&CAT, &DAN]))
        };
        assert!(!case.holds());
    }
}

#[test]
fn ig11_a_claim_jumps_only_so_far_ahead_of_the_reigning_round() {
    let mut chain = five();
    let first = Case {
        round: 9,
        ..Case::new(chain.clone(), &fakes(&[&CAT, &DAN]))
    };
    chain.accept(&[first.entry()], &FakeVerifier);
    assert_eq!(chain.roster.term.round, 9);
    for (round, holds) in [
        (9, false),
        (10, true),
        (9 + MAX_JUMP, true),
        (10 + MAX_JUMP, false),
    ] {
        let case = Case {
            round,
            ..Case::new(chain.clone(), &fakes(&[&CAT, &DAN]))
        };
        assert_eq!(case.holds(), holds, "{round}");
    }
}

#[test]
fn ig12_the_leader_signs_in_its_own_name_and_under_its_own_term() {
    let chain = with_bob();
    let meta = || draft(&chain, super::log::meta("x"));
    let mut named = meta();
    named.author = user("bob");
    let mut older = meta();
    older.term.round = 0;
    for wrong in [named, older] {
        assert!(!takes(&chain, Entry::sign(wrong, &ANN).unwrap().bytes));
    }
}

#[test]
fn ig12_a_hand_over_is_to_another_member_and_a_fence_of_an_earlier_term() {
    let chain = with_bob();
    let over = |to: &Fake| Op::Handover {
        to: to.0.device(),
        agreed: true,
    };
    assert!(takes(&chain, next(&chain, over(&BOB), &ANN)));
    for to in [&ANN, &ZED] {
        assert!(!takes(&chain, next(&chain, over(to), &ANN)));
    }
    let mut term = chain.roster.term;
    let fence = |term| Op::Fence { term, last: 1 };
    assert!(!takes(&chain, next(&chain, fence(term), &ANN)));
    term.majority = false;
    assert!(takes(&chain, next(&chain, fence(term), &ANN)));
}

#[test]
fn g12_a_leave_names_the_person_that_sits_there() {
    let chain = with_bob();
    let leave = |name: &str, nonce: u8| Op::Left {
        proof: LeftProof::sign(chain.group, [nonce; 16], &BOB),
        user: user(name),
    };
    assert!(takes(&chain, next(&chain, leave("bob", 2), &ANN)));
    assert!(!takes(&chain, next(&chain, leave("cat", 2), &ANN)));
    // Of a membership that never was here it only keeps that one out.
    assert!(takes(&chain, next(&chain, leave("bob", 7), &ANN)));
}

#[test]
fn g23_nothing_follows_in_a_group_that_is_closed() {
    let mut chain = begin(&ANN, &FakeVerifier);
    let leave = Op::Left {
        proof: LeftProof::sign(chain.group, [1; 16], &ANN),
        user: user("ann"),
    };
    let entry = next(&chain, leave, &ANN);
    chain.accept(&[entry], &FakeVerifier);
    assert!(chain.roster.closed);
    assert!(!takes(&chain, next(&chain, super::log::meta("x"), &ANN)));
}

#[test]
fn ig11_a_roster_has_only_so_many_seats() {
    for (policy, capacity) in [(Policy::Available, 4_096), (Policy::Strict, 201)] {
        for (seats, fits) in [(capacity - 1, true), (capacity, false)] {
            let mut chain = begin(&ANN, &FakeVerifier);
            chain.roster.policy = policy;
            for n in 1..seats as u64 {
                let mut device = [7; 32];
                device[..8].copy_from_slice(&n.to_le_bytes());
                let seat = Seat {
                    user: user("many"),
                    nonce: [7; 16],
                    seniority: Seniority::default(),
                };
                chain.roster.seats.insert(DeviceId(device), seat);
            }
            let entry = next(&chain, let_in("bob", &BOB, 2), &ANN);
            let entry = Entry::open(&entry).unwrap();
            let allowed = chain.roster.allows(&entry, &FakeVerifier);
            assert_eq!(allowed, fits, "{policy:?} {seats}");
        }
    }
}

#[test]
fn ig7_a_strict_kick_takes_one_seat_at_a_time() {
    let mut chain = begin(&ANN, &FakeVerifier);
    let instances: Vec<_> = [&BOB, &CAT, &ZED]
        .iter()
        .map(|signer| (signer.0.device(), [1; 16]))
        .collect();
    let both = Op::Admit(
        instances[..2]
            .iter()
            .map(|(device, nonce)| Admission {
                user: user("bob"),
                device: *device,
                nonce: *nonce,
            })
            .collect(),
    );
    let entry = next(&chain, both, &ANN);
    chain.accept(&[entry], &FakeVerifier);
    for (policy, named) in [
        (Policy::Available, vec![0, 1, 2]),
        (Policy::Strict, vec![0, 2]),
    ] {
        chain.roster.policy = policy;
        let Some(Op::Kick { instances: out, .. }) =
            kick_op(&user("bob"), &instances, "", &chain.roster)
        else {
            panic!("there is somebody to remove");
        };
        let expected: Vec<_> = named.into_iter().map(|at: usize| instances[at]).collect();
        assert_eq!(out, expected, "{policy:?}");
    }
}
