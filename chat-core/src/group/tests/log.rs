//! The log itself: what is taken, what is refused, which branch wins.

use core::slice;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::chain::{Chain, SOFT_ENTRIES};
use super::super::entry::{Draft, Entry};
use super::super::op::{Admission, MAX_BATCH, MAX_DEVICES, Op, Warrant};
use super::super::proof::LeftProof;
use super::super::term::{Seniority, Term};
use super::super::*;
use super::net::{Fake, FakeVerifier, machine, name, user};
use crate::identity::{DeviceKey, Ed25519, PublicKey};
#[cfg(feature = "probe")]
use crate::probe;
use crate::wire::BoundedVec;
use crate::wire::group::Entries;

pub(super) const ANN: Fake = Fake(PublicKey([1; 32]));
pub(super) const BOB: Fake = Fake(PublicKey([2; 32]));

pub(super) fn first(signer: &dyn Signer) -> Entry {
    let seniority = Seniority {
        round: 1,
        index: 1,
        place: 0,
    };
    let draft = Draft {
        group: GroupId([0; 32]),
        term: Term {
            round: 1,
            majority: true,
            seniority,
            claimant: signer.public_key().device(),
        },
        index: 1,
        prev: [0; 32],
        op: Op::Genesis {
            name: name("ops"),
            nonce: [1; 16],
            policy: Policy::Available,
            quorum: 2,
        },
        author: user("ann"),
        at: UnixMillis(5),
    };
    Entry::sign(draft, signer).unwrap()
}

#[test]
fn g1_a_first_entry_has_nothing_before_it() {
    let good = first(&ANN).draft;
    let founds = |draft: Draft| {
        let entry = Entry::sign(draft, &ANN).unwrap();
        Chain::found(&entry.bytes, GroupId(entry.hash), &FakeVerifier).is_some()
    };
    assert!(founds(good.clone()));
    let mut bad = vec![good.clone(); 4];
    bad[0].group = GroupId([1; 32]);
    bad[1].prev = [1; 32];
    bad[2].index = 2;
    bad[3].term.round = 2;
    for draft in bad {
        assert!(!founds(draft.clone()), "{draft:?}");
    }
}

#[test]
fn an_admission_of_nobody_is_refused() {
    let chain = with_bob();
    assert!(!takes(&chain, next(&chain, Op::Admit(Vec::new()), &ANN)));
}

pub(super) fn begin(signer: &dyn Signer, verifier: &dyn Verifier) -> Chain {
    let genesis = first(signer);
    Chain::found(&genesis.bytes, GroupId(genesis.hash), verifier).unwrap()
}

pub(super) fn draft(chain: &Chain, op: Op) -> Draft {
    Draft {
        group: chain.group,
        term: chain.roster.term,
        index: chain.index() + 1,
        prev: chain.hash(),
        op,
        author: chain.roster.leader.user.clone(),
        at: UnixMillis(9),
    }
}

pub(super) fn next(chain: &Chain, op: Op, signer: &dyn Signer) -> Bytes {
    Entry::sign(draft(chain, op), signer).unwrap().bytes
}

pub(super) fn meta(text: &str) -> Op {
    Op::Meta { name: name(text) }
}

pub(super) fn let_in(who: &str, signer: &dyn Signer, nonce: u8) -> Op {
    Op::Admit(vec![Admission {
        user: user(who),
        device: signer.public_key().device(),
        nonce: [nonce; 16],
    }])
}

pub(super) fn with_bob() -> Chain {
    let mut chain = begin(&ANN, &FakeVerifier);
    let admit = next(&chain, let_in("bob", &BOB, 2), &ANN);
    assert_eq!(chain.accept(&[admit], &FakeVerifier).from, Some(2));
    chain
}

/// True when `entry` is taken.
pub(super) fn takes(chain: &Chain, entry: Bytes) -> bool {
    let mut copy = chain.clone();
    let taken = copy.accept(&[entry], &FakeVerifier).from.is_some();
    assert_eq!(taken, copy.head() != chain.head());
    taken
}

#[test]
fn ig12_only_what_the_reigning_leader_signed_is_taken() {
    let chain = with_bob();
    assert!(takes(&chain, next(&chain, meta("x"), &ANN)));
    // The right form, the wrong signer; in the leader's name; with its own term.
    assert!(!takes(&chain, next(&chain, meta("x"), &BOB)));
    let mut forged = draft(&chain, meta("x"));
    forged.term.claimant = BOB.public_key().device();
    forged.author = user("bob");
    assert!(!takes(
        &chain,
        Entry::sign(forged.clone(), &BOB).unwrap().bytes
    ));
    forged.op = Op::Claim(Warrant::Handover);
    forged.term.round += 1;
    forged.term.seniority = chain.roster.seats[&forged.term.claimant].seniority;
    assert!(!takes(&chain, Entry::sign(forged, &BOB).unwrap().bytes));
    // A changed byte anywhere.
    let good = next(&chain, meta("x"), &ANN);
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        assert!(!takes(&chain, bad.into()), "byte {at}");
    }
    // A leave that the leaver did not sign.
    let mut proof = LeftProof::sign(chain.group, [2; 16], &BOB);
    assert!(takes(
        &chain,
        next(
            &chain,
            Op::Left {
                proof: proof.clone(),
                user: user("bob")
            },
            &ANN
        )
    ));
    proof.signature.0[3] ^= 1;
    assert!(!takes(
        &chain,
        next(
            &chain,
            Op::Left {
                proof,
                user: user("bob")
            },
            &ANN
        )
    ));
}

#[test]
fn g2_the_log_lets_no_leader_leave_or_be_kicked_while_others_remain() {
    let chain = with_bob();
    let proof = LeftProof::sign(chain.group, [1; 16], &ANN);
    assert!(!takes(
        &chain,
        next(
            &chain,
            Op::Left {
                proof,
                user: user("ann")
            },
            &ANN
        )
    ));
    let kick = Op::Kick {
        user: user("ann"),
        instances: vec![(ANN.public_key().device(), [1; 16])],
        reason: String::new(),
    };
    assert!(!takes(&chain, next(&chain, kick, &ANN)));
}

#[test]
fn g12_an_instance_that_went_never_returns() {
    let mut chain = with_bob();
    let proof = LeftProof::sign(chain.group, [2; 16], &BOB);
    for op in [
        Op::Left {
            proof,
            user: user("bob"),
        },
        let_in("bob", &BOB, 2),
    ] {
        let entry = next(&chain, op, &ANN);
        chain.accept(&[entry], &FakeVerifier);
    }
    assert_eq!((chain.index(), chain.roster.seats.len()), (4, 1));
    // Another instance of the same device is welcome, and replaced by a third.
    for nonce in [3, 4] {
        let entry = next(&chain, let_in("bob", &BOB, nonce), &ANN);
        chain.accept(&[entry], &FakeVerifier);
        assert!(chain.roster.sits(BOB.public_key().device(), [nonce; 16]));
    }
    assert_eq!((chain.roster.seats.len(), chain.roster.gone.len()), (2, 2));
}

#[test]
fn g18_after_a_hand_over_only_the_heir_may_go_on() {
    let mut chain = with_bob();
    let to = BOB.public_key().device();
    let over = next(&chain, Op::Handover { to, agreed: true }, &ANN);
    chain.accept(&[over], &FakeVerifier);
    assert!(!takes(&chain, next(&chain, meta("x"), &ANN)));
    let mut claim = draft(&chain, Op::Claim(Warrant::Handover));
    claim.author = user("bob");
    claim.term = Term {
        round: 2,
        majority: true,
        seniority: chain.roster.seats[&to].seniority,
        claimant: to,
    };
    for spoil in [
        |claim: &mut Draft| claim.term.round = 1,
        |claim: &mut Draft| claim.term.round += 65_536,
        |claim: &mut Draft| claim.term.seniority.index = 1,
        |claim: &mut Draft| claim.term.majority = false,
        |claim: &mut Draft| claim.author = user("ann"),
    ] {
        let mut bad = claim.clone();
        spoil(&mut bad);
        assert!(!takes(&chain, Entry::sign(bad, &BOB).unwrap().bytes));
    }
    assert!(takes(&chain, Entry::sign(claim, &BOB).unwrap().bytes));
}

#[test]
fn a_checkpoint_of_another_state_is_refused() {
    let chain = with_bob();
    let state = chain.roster.digest();
    assert!(takes(&chain, next(&chain, Op::Checkpoint { state }, &ANN)));
    let state = [7; 32];
    assert!(!takes(&chain, next(&chain, Op::Checkpoint { state }, &ANN)));
}

#[test]
fn two_entries_for_one_place_prove_equivocation_and_all_keep_the_lower() {
    let base = with_bob();
    let both = [meta("x"), meta("y")].map(|op| next(&base, op, &ANN));
    let mut heads = Vec::new();
    for order in [[0, 1], [1, 0]] {
        let mut chain = base.clone();
        assert!(
            chain
                .accept(&[both[order[0]].clone()], &FakeVerifier)
                .equivocation
                .is_none()
        );
        let proof = chain.accept(&[both[order[1]].clone()], &FakeVerifier);
        assert_eq!(proof.equivocation, Some((user("ann"), base.roster.term, 3)));
        heads.push(chain.head());
    }
    assert_eq!(heads[0], heads[1]);
}

#[test]
fn ig2_a_shorter_branch_never_wins() {
    let base = with_bob();
    let mut long = base.clone();
    for text in ["x", "y"] {
        let entry = next(&long, meta(text), &ANN);
        long.accept(&[entry], &FakeVerifier);
    }
    let before = long.head();
    for i in 0..20 {
        let other = next(&base, meta(&format!("z{i}")), &ANN);
        let done = long.accept(slice::from_ref(&other), &FakeVerifier);
        assert_eq!(long.head(), before);
        let lower: Vec<_> = done.lower.iter().map(|entry| entry.hash).collect();
        assert_eq!(lower, [Entry::open(&other).unwrap().hash]);
    }
}

#[test]
fn a_machine_tells_an_equivocation_once_and_follows_the_winner() {
    let signer = Arc::new(BOB);
    let me = Sender {
        user: user("bob"),
        device: BOB.public_key().device(),
    };
    let now = Now {
        mono: Timestamp::from_secs(5),
        wall: UnixMillis(5),
    };
    let mut groups = machine(&me, &signer, &GroupConfig::default(), 1);
    groups.handle_up(now);
    let genesis = first(&ANN);
    let id = GroupId(genesis.hash);
    groups.join(id, "", now).unwrap();
    let nonce = groups.groups[&id].record.asking.as_ref().unwrap().nonce;
    let mut chain = begin(&ANN, &FakeVerifier);
    let admit = next(&chain, let_in("bob", &BOB, nonce[0]), &ANN);
    let mut drafted = Entry::open(&admit).unwrap().draft;
    drafted.op = Op::Admit(vec![Admission {
        user: user("bob"),
        device: me.device,
        nonce,
    }]);
    let admit = Entry::sign(drafted, &ANN).unwrap().bytes;
    chain.accept(slice::from_ref(&admit), &FakeVerifier);
    let both = [meta("x"), meta("y"), meta("z")].map(|op| next(&chain, op, &ANN));
    let from = Sender {
        user: user("ann"),
        device: ANN.public_key().device(),
    };
    for list in [
        vec![genesis.bytes, admit],
        vec![both[0].clone()],
        vec![both[1].clone()],
        vec![both[2].clone()],
        vec![both[0].clone()],
    ] {
        let entries = list.iter().map(|entry| entry.to_vec().try_into().unwrap());
        let body = Entries {
            group: id.0,
            head: 3,
            entries: BoundedVec::take_from(entries),
        };
        groups.handle_frame(&from, &body.into(), now);
    }
    let mut told = 0;
    while let Some(effect) = groups.effects().pop() {
        if let crate::effect::Effect::Emit { event, .. } = effect {
            told += usize::from(matches!(event, GroupEvent::Equivocation { .. }));
        }
    }
    assert_eq!(told, 1);
    let winner = both.iter().map(|entry| Entry::open(entry).unwrap().hash);
    assert_eq!(groups.chain(id).unwrap().hash(), winner.min().unwrap());
}

#[test]
fn real_keys_sign_and_restore_a_log() {
    let (ann, bob) = (
        DeviceKey::from_secret([1; 32]),
        DeviceKey::from_secret([2; 32]),
    );
    let mut chain = begin(&ann, &Ed25519);
    let forged = next(&chain, let_in("bob", &bob, 2), &bob);
    assert!(chain.accept(&[forged], &Ed25519).from.is_none());
    let admit = next(&chain, let_in("bob", &bob, 2), &ann);
    chain.accept(&[admit], &Ed25519);
    let left = Op::Left {
        proof: LeftProof::sign(chain.group, [2; 16], &bob),
        user: user("bob"),
    };
    let left = next(&chain, left, &ann);
    assert_eq!(chain.accept(&[left], &Ed25519).from, Some(3));
    let mut again = Chain::begin(chain.bytes(1).unwrap(), chain.group).unwrap();
    for index in 2..=3 {
        again.extend(chain.bytes(index).unwrap(), &Ed25519).unwrap();
    }
    assert_eq!(again.head(), chain.head());
    assert_eq!(again.roster, chain.roster);
    assert!(Chain::begin(chain.bytes(2).unwrap(), chain.group).is_none());
}

#[test]
fn the_largest_batch_fits_an_entry() {
    let chain = begin(&ANN, &FakeVerifier);
    let one = |i: usize| Admission {
        user: user(&"x".repeat(256)),
        device: DeviceId([i as u8; 32]),
        nonce: [i as u8; 16],
    };
    let batch = Op::Admit((0..MAX_BATCH).map(one).collect());
    assert!(takes(&chain, next(&chain, batch, &ANN)));
    let instances = (0..MAX_DEVICES)
        .map(|i| (DeviceId([i as u8; 32]), [i as u8; 16]))
        .collect();
    let kick = Op::Kick {
        user: user(&"x".repeat(256)),
        instances,
        reason: "y".repeat(512),
    };
    assert!(takes(&chain, next(&chain, kick, &ANN)));
}

/// Who shares no more than the first entry gets no log, so a fork right behind the second must be seen.
#[test]
fn ig5_a_fetch_names_the_second_entry_whatever_the_length_of_the_log() {
    let mut chain = begin(&ANN, &FakeVerifier);
    for _ in 2..60 {
        let entry = next(&chain, meta("x"), &ANN);
        chain.accept(&[entry], &FakeVerifier);
        let second = chain.have().have.iter().any(|place| place.index == 2);
        assert!(second, "{} entries", chain.index());
    }
}

#[test]
fn a_fetch_names_places_from_the_head_to_the_genesis_and_the_answer_starts_where_both_agree() {
    let mut chain = begin(&ANN, &FakeVerifier);
    let mut at_40 = None;
    while chain.index() < SOFT_ENTRIES / 8 {
        let entry = next(&chain, meta("x"), &ANN);
        chain.accept(&[entry], &FakeVerifier);
        if chain.index() == 40 {
            at_40 = Some(chain.clone());
        }
    }
    let have = chain.have().have;
    let near: Vec<_> = have[..5]
        .iter()
        .map(|at| chain.index() - at.index)
        .collect();
    assert_eq!(
        near,
        [0, 1, 2, 3, 5],
        "one by one at first, then ever further"
    );
    assert_eq!(have.last().unwrap().index, 1);
    let at_40 = at_40.unwrap();
    assert_eq!(chain.common(&at_40.have().have), 40);
    assert_eq!(at_40.common(&have), at_40.common(&have).min(40));
    // Another branch from 40 on.
    let mut branch = at_40;
    for _ in 0..5 {
        let entry = next(&branch, meta("y"), &ANN);
        branch.accept(&[entry], &FakeVerifier);
    }
    let common = chain.common(&branch.have().have);
    assert!((36..=40).contains(&common), "{common}");
}

/// Entries of two branches of one leader, to be taken in any order.
fn branches() -> (Chain, Vec<Bytes>) {
    let base = with_bob();
    let mut all = vec![base.bytes(2).unwrap().clone()];
    for (text, len) in [("x", 3), ("y", 4), ("z", 4)] {
        let mut branch = base.clone();
        for i in 0..len {
            let entry = next(&branch, meta(&format!("{text}{i}")), &ANN);
            branch.accept(slice::from_ref(&entry), &FakeVerifier);
            all.push(entry);
        }
    }
    (begin(&ANN, &FakeVerifier), all)
}

proptest! {
    /// IG10: whatever arrives in whatever order, the head only grows.
    #[test]
    fn ig10_the_head_only_grows(picks in proptest::collection::vec((0usize..12, 1usize..5), 1..30)) {
        let (mut chain, all) = branches();
        for (from, len) in picks {
            let before = chain.head();
            let batch = &all[from..(from + len).min(all.len())];
            chain.accept(batch, &FakeVerifier);
            prop_assert!(chain.head() >= before);
            let again = chain.head();
            chain.accept(batch, &FakeVerifier);
            prop_assert_eq!(chain.head(), again, "idempotent");
        }
    }

    #[test]
    fn any_bytes_are_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(!takes(&with_bob(), bytes.into()));
    }

    #[test]
    fn an_entry_with_changed_bytes_is_refused(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 1u8..), 1..4),
        cut in 0usize..200,
    ) {
        let chain = with_bob();
        let good = next(&chain, meta("a longer name than before"), &ANN);
        let mut bad = good.to_vec();
        for (at, flip) in changes {
            let at = at.index(bad.len());
            bad[at] ^= flip;
        }
        bad.truncate(bad.len().saturating_sub(cut / 2));
        prop_assert_eq!(takes(&chain, bad.clone().into()), bad == good.to_vec());
    }
}

#[cfg(feature = "probe")]
#[test]
fn planted_bugs_of_the_log_are_found() {
    let laws: [(&str, fn()); 3] = [
        (
            "group-kicked-returns",
            g12_an_instance_that_went_never_returns,
        ),
        (
            "group-entry-by-anyone",
            ig12_only_what_the_reigning_leader_signed_is_taken,
        ),
        ("group-head-decreases", ig2_a_shorter_branch_never_wins),
    ];
    for (bug, law) in laws {
        probe::plant(Some(bug));
        let found = std::panic::catch_unwind(law).is_err();
        probe::plant(None);
        assert!(found, "{bug} survives");
    }
}
