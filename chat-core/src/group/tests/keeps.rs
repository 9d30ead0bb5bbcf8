//! What the fold remembers, and what is kept of abandoned branches across a restart.

use bytes::Bytes;

use super::super::chain::Chain;
use super::super::entry::{Draft, Entry};
use super::super::op::{Admission, Op, Warrant};
use super::super::proof::{Cause, SupportProof};
use super::super::roster::Former;
use super::super::*;
use super::log::{ANN, BOB, draft, let_in, next, with_bob};
use super::net::{FakeVerifier, Net, user};
use super::succession::{MINUTE, halves};

fn sender(signer: &super::net::Fake, name: &str) -> Sender {
    Sender {
        user: user(name),
        device: signer.0.device(),
    }
}

/// `signer` claims behind `chain`, with the support of `helper` when there is one.
pub(super) fn claim(
    chain: &mut Chain,
    signer: &super::net::Fake,
    name: &str,
    helper: Option<&super::net::Fake>,
) {
    let device = signer.0.device();
    let round = chain.roster.term.round + 1;
    let cause = Cause {
        group: chain.group,
        round,
        base: chain.head(),
        candidate: device,
    };
    let supports: Vec<_> = helper
        .map(|helper| SupportProof::sign(&cause, helper))
        .into_iter()
        .collect();
    let claim = Draft {
        author: user(name),
        term: Term {
            round,
            majority: supports.len() + 1 > chain.roster.seats.len() / 2,
            seniority: chain.roster.seats[&device].seniority,
            claimant: device,
        },
        ..draft(chain, Op::Claim(Warrant::Certificate(supports)))
    };
    let entry = Entry::sign(claim, signer).unwrap().bytes;
    let done = chain.accept(&[entry], &FakeVerifier);
    assert_eq!(done.from, Some(chain.index()));
}

#[test]
fn r7_r9_a_claim_notes_the_reign_before_and_whom_that_had_deposed() {
    let mut chain = with_bob();
    let (ann, bob) = (sender(&ANN, "ann"), sender(&BOB, "bob"));
    let first = chain.roster.term;
    claim(&mut chain, &BOB, "bob", None);
    let former = Former {
        term: first,
        last: 2,
        leader: ann.clone(),
        orderly: false,
        deposed: None,
        at: UnixMillis(9),
    };
    assert_eq!(chain.roster.former, Some(former));
    let second = chain.roster.term;
    claim(&mut chain, &ANN, "ann", Some(&BOB));
    let former = Former {
        term: second,
        last: 3,
        leader: bob.clone(),
        orderly: false,
        deposed: Some(ann.device),
        at: UnixMillis(9),
    };
    assert_eq!(chain.roster.former, Some(former));
    // Ann goes on under a greater term: nobody was deposed by that.
    claim(&mut chain, &ANN, "ann", Some(&BOB));
    let former = chain.roster.former.clone().unwrap();
    assert_eq!((former.orderly, former.deposed), (true, Some(bob.device)));
    claim(&mut chain, &BOB, "bob", Some(&ANN));
    let former = chain.roster.former.clone().unwrap();
    assert_eq!((former.orderly, former.deposed), (false, None));
}

#[test]
fn ig11_the_fold_remembers_so_many_fences_and_voided_kicks() {
    let chain = with_bob();
    let mut roster = chain.roster.clone();
    let mut fold = |op: Op| {
        let entry = Entry::sign(draft(&chain, op), &ANN).unwrap();
        roster.apply(&entry);
        (roster.fences.clone(), roster.voided.len())
    };
    for round in 1..=256 {
        let mut term = chain.roster.term;
        term.round = round;
        let (fences, _) = fold(Op::Fence { term, last: 1 });
        assert_eq!(fences.len() as u64, round);
    }
    let mut term = chain.roster.term;
    term.round = 257;
    let (fences, _) = fold(Op::Fence { term, last: 1 });
    assert_eq!(fences.len(), 256);
    assert_eq!(fences.keys().next().unwrap().round, 2, "the lowest goes");
    for n in 1..=1_025u16 {
        let mut kick = [0; 32];
        kick[..2].copy_from_slice(&n.to_le_bytes());
        let (_, voided) = fold(Op::Void { kick });
        assert_eq!(voided, usize::from(n).min(1_024));
    }
}

#[test]
fn g17_an_admission_of_who_is_in_changes_nothing() {
    let chain = with_bob();
    // The leader may come back by another membership, but under no other name.
    let leader = Op::Admit(vec![Admission {
        user: user("eve"),
        device: ANN.0.device(),
        nonce: [8; 16],
    }]);
    for op in [let_in("bob", &BOB, 2), leader] {
        let mut after = chain.clone();
        let entry = next(&chain, op, &ANN);
        let done = after.accept(&[entry], &FakeVerifier);
        assert_eq!((done.from, done.news.len()), (Some(3), 0));
        assert_eq!(after.roster.seats, chain.roster.seats);
        assert_eq!(after.roster.gone, chain.roster.gone);
    }
}

/// Dan follows cat, and has seen all of ann's branch: a kick, a leave and an admission.
pub(super) fn between(seed: u64) -> (Net, GroupId, Vec<Bytes>) {
    let (mut net, id) = halves(seed);
    net.run(0, |g, now| g.kick(id, &user("eve"), "", now))
        .unwrap();
    net.admit(0, 5, id);
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.pass(2_000);
    let all: Vec<_> = (0..net.nodes.len()).collect();
    let alone: Vec<_> = all.iter().map(std::slice::from_ref).collect();
    net.split(&alone);
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let common = chain.common_with(net.nodes[3].groups.chain(id).unwrap());
    let rest = common + 1..=chain.index();
    let branch: Vec<_> = rest.map(|at| chain.bytes(at).unwrap().clone()).collect();
    net.run(3, |g, now| g.absorb(id, &branch, now));
    (net, id, branch)
}

/// What dan keeps of it, in its own words.
fn kept(net: &Net, id: GroupId) -> Vec<String> {
    let held = &net.nodes[3].groups.groups[&id];
    let kicks = held.sticky.iter().map(|one| format!("{one:?}"));
    let lefts = held.lefts.iter().map(|one| format!("{one:?}"));
    let joins = held.joins.iter().map(|one| format!("{one:?}"));
    let branches = held.orphans.iter().map(|one| format!("{one:?}"));
    let hidden = held.hidden.iter().map(|one| format!("{one:?}"));
    let all = kicks.chain(lefts).chain(joins).chain(branches);
    all.chain(hidden).collect()
}

#[test]
fn ig4_what_is_kept_of_another_branch_survives_a_restart() {
    let (mut net, id, branch) = between(220);
    let held = &net.nodes[3].groups.groups[&id];
    let sizes = [held.sticky.len(), held.lefts.len(), held.hidden.len()];
    assert_eq!(sizes, [1, 1, 2]);
    assert_eq!(held.orphans.values().collect::<Vec<_>>(), [&branch]);
    assert_eq!(held.joins.len(), 1);
    let before = kept(&net, id);
    net.crash(3);
    net.restart(3);
    assert_eq!(kept(&net, id), before);
}

#[test]
fn ig4_each_abandoned_branch_is_kept_until_the_log_has_settled_it() {
    let (mut net, id, branch) = between(221);
    let held = |net: &Net| net.nodes[3].groups.groups[&id].orphans.clone();
    let rows = |net: &Net| {
        let of =
            |(table, key): &&(Table, Bytes)| *table == Table::Groups && key.get(32) == Some(&b'o');
        net.nodes[3].disk.keys().filter(of).count()
    };
    // Another branch that ann signed, from the same place: it kicks dan.
    let mut other =
        Chain::begin(net.nodes[3].groups.chain(id).unwrap().bytes(1).unwrap(), id).unwrap();
    let first = Entry::open(&branch[0]).unwrap().draft.index;
    for index in 2..first {
        let entry = net.nodes[3]
            .groups
            .chain(id)
            .unwrap()
            .bytes(index)
            .unwrap()
            .clone();
        other.extend(&entry, &FakeVerifier).unwrap();
    }
    let seat = other.roster.seats[&net.nodes[4].me.device].clone();
    let kick = Op::Kick {
        user: seat.user,
        instances: vec![(net.nodes[4].me.device, seat.nonce)],
        reason: "other".to_owned(),
    };
    let second = next(&other, kick, &*net.nodes[0].signer);
    net.run(3, |g, now| g.absorb(id, std::slice::from_ref(&second), now));
    let both: BTreeSet<_> = held(&net).into_values().collect();
    assert_eq!(both, BTreeSet::from([branch.clone(), vec![second]]));
    assert_eq!(rows(&net), 2);
    // The same again changes nothing.
    net.run(3, |g, now| g.absorb(id, &branch, now));
    assert_eq!((held(&net).len(), rows(&net)), (2, 2));
    // All meet, all is logged, nothing is kept.
    net.cut.clear();
    net.pass(5 * MINUTE);
    assert_eq!((held(&net).len(), rows(&net)), (0, 0));
}
