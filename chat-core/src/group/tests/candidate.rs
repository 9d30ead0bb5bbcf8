//! Who asks for the lead, who is heard when it does, and who takes it back.

use super::super::canvass::Canvassing;
use super::super::promise::{LIVES, LOWER, MAX_STEP, PROMISED};
use super::super::proof::{Cause, SupportProof};
use super::super::term::Head;
use super::super::validity::MAX_JUMP;
use super::super::*;
use super::net::{Fake, Net, user};
use super::succession::{MINUTE, leader};
use crate::wire::group::{Refuse, Support};

/// Bob of `names` is about to ask: ann is gone, and nobody else hears him.
fn headless(names: &[&str], seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(names, seed);
    let id = net.full();
    net.crash(0);
    net.pass(45_000);
    let others: Vec<_> = (2..names.len()).collect();
    net.split(&[&[1], &others]);
    (net, id)
}

fn head(net: &Net, node: usize, id: GroupId) -> Head {
    net.nodes[node].groups.chain(id).unwrap().head()
}

fn held(net: &mut Net, node: usize, id: GroupId) -> &mut Group {
    net.nodes[node].groups.groups.get_mut(&id).unwrap()
}

fn canvass(net: &Net, id: GroupId) -> Option<&Canvassing> {
    net.nodes[1].groups.groups[&id].canvass.as_ref()
}

/// `signer` promises bob's round, and `from` passes that on.
fn support(net: &mut Net, id: GroupId, from: &Sender, signer: &Fake, spoil: bool) {
    let (round, base) = canvass(net, id).map(|it| (it.round, it.base)).unwrap();
    let cause = Cause {
        group: id,
        round,
        base,
        candidate: net.nodes[1].me.device,
    };
    let mut proof = SupportProof::sign(&cause, signer);
    proof.signature.0[0] ^= u8::from(spoil);
    let support = Support {
        group: id.0,
        round,
        base: base.hash,
        proof: proof.to_bytes().to_vec().try_into().unwrap(),
    };
    net.run(1, |g, now| g.handle_frame(from, &support.into(), now));
}

/// Node `from` refuses bob's canvass.
fn refuse(net: &mut Net, id: GroupId, from: usize, why: u8, head: Head, promised: u64) {
    let from = net.nodes[from].me.clone();
    let refuse = Refuse {
        group: id.0,
        why,
        head: head.into(),
        promised,
        heard_ms: 0,
    };
    net.run(1, |g, now| g.handle_frame(&from, &refuse.into(), now));
}

fn supports(net: &Net, id: GroupId) -> usize {
    canvass(net, id).unwrap().supports.len()
}

#[test]
fn r3_only_a_member_that_signed_it_itself_supports() {
    let (mut net, id) = headless(&["ann", "bob", "cat", "dan", "eve"], 110);
    net.run(1, |g, now| g.canvass(id, now));
    let cat = net.nodes[2].me.clone();
    let by = |net: &Net, node: usize| Fake(net.nodes[node].signer.0);
    let (cats, dans) = (by(&net, 2), by(&net, 3));
    let zed = Fake(crate::identity::PublicKey([99; 32]));
    let stranger = Sender {
        user: user("zed"),
        device: zed.0.device(),
    };
    support(&mut net, id, &stranger, &zed, false);
    support(&mut net, id, &cat, &zed, false);
    support(&mut net, id, &cat, &dans, false);
    support(&mut net, id, &cat, &cats, true);
    assert_eq!(supports(&net, id), 0);
    support(&mut net, id, &cat, &cats, false);
    assert_eq!(supports(&net, id), 1);
}

#[test]
fn r3_asking_again_loses_no_support() {
    let (mut net, id) = headless(&["ann", "bob", "cat", "dan", "eve"], 111);
    net.run(1, |g, now| g.canvass(id, now));
    let (cat, signer) = (net.nodes[2].me.clone(), Fake(net.nodes[2].signer.0));
    support(&mut net, id, &cat, &signer, false);
    net.run(1, |g, now| g.canvass(id, now));
    assert_eq!(supports(&net, id), 1);
}

#[test]
fn ig4_a_member_that_a_kick_names_does_not_ask_to_lead() {
    let (mut net, id) = headless(&["ann", "bob", "cat"], 112);
    let bob = net.nodes[1].me.device;
    let nonce = net.nodes[1].groups.seat(id).unwrap();
    held(&mut net, 1, id).hidden.insert((bob, nonce));
    net.run(1, |g, now| g.canvass(id, now));
    assert!(canvass(&net, id).is_none());
}

#[test]
fn ig11_a_candidate_asks_for_no_round_that_no_log_would_take() {
    for (promised, asks) in [(MAX_JUMP, true), (MAX_JUMP + 1, false)] {
        let (mut net, id) = headless(&["ann", "bob", "cat"], 113);
        held(&mut net, 1, id).record.promised.round = promised;
        net.run(1, |g, now| g.canvass(id, now));
        let round = canvass(&net, id).map(|it| it.round);
        assert_eq!(round, asks.then_some(promised + 1));
    }
}

#[test]
fn ig11_a_refusal_makes_a_candidate_skip_only_so_many_rounds() {
    let (mut net, id) = headless(&["ann", "bob", "cat"], 114);
    let at = head(&net, 1, id);
    let most = 1 + MAX_STEP / 4;
    refuse(&mut net, id, 2, PROMISED, at, most + 1);
    assert_eq!(held(&mut net, 1, id).refused, 0);
    refuse(&mut net, id, 2, PROMISED, at, most);
    assert_eq!(held(&mut net, 1, id).refused, most);
    refuse(&mut net, id, 2, PROMISED, at, 3);
    assert_eq!(held(&mut net, 1, id).refused, most, "nothing lowers it");
}

#[test]
fn r3_who_knows_more_ends_a_canvass_and_is_asked_for_it() {
    let (mut net, id) = headless(&["ann", "bob", "cat"], 115);
    net.run(1, |g, now| g.canvass(id, now));
    let ours = head(&net, 1, id);
    let mut lower = ours;
    lower.index -= 1;
    refuse(&mut net, id, 2, LOWER, lower, 0);
    assert!(canvass(&net, id).is_some());
    let mut greater = ours;
    greater.index += 1;
    net.trace.clear();
    refuse(&mut net, id, 2, LOWER, greater, 0);
    assert!(canvass(&net, id).is_none());
    assert!(
        net.trace
            .iter()
            .any(|line| line.starts_with("bob to cat: fetch"))
    );
}

#[test]
fn r3_a_leader_that_answers_ends_the_canvass_at_once_and_a_member_does_not() {
    let (mut net, id) = headless(&["ann", "bob", "cat", "dan"], 116);
    net.run(1, |g, now| g.canvass(id, now));
    let at = head(&net, 1, id);
    refuse(&mut net, id, 2, LIVES, at, 0);
    assert!(canvass(&net, id).is_some());
    refuse(&mut net, id, 0, LIVES, at, 0);
    assert!(canvass(&net, id).is_none());
    let now = net.clock();
    assert_eq!(held(&mut net, 1, id).heard, Some(now.mono));
}

#[test]
fn r7_a_leader_that_was_deposed_does_not_heed_the_one_that_deposed_it() {
    let (mut net, id) = headless(&["ann", "bob", "cat", "dan"], 117);
    let (bob, now) = (net.nodes[1].me.device, net.clock());
    held(&mut net, 1, id).deposed = Some((bob, now.mono));
    net.run(1, |g, now| g.canvass(id, now));
    let at = head(&net, 1, id);
    refuse(&mut net, id, 0, LIVES, at, 0);
    assert!(canvass(&net, id).is_some());
}

#[test]
fn r2_a_candidate_without_enough_support_promises_itself_nothing() {
    for (helpers, skips) in [(0, 0), (1, 2)] {
        let mut net = Net::new(&["ann", "bob", "cat", "dan", "eve"], 118);
        net.rules.quorum = 3;
        let id = net.full();
        net.crash(0);
        net.pass(45_000);
        net.split(&[&[1], &[2, 3, 4]]);
        net.run(1, |g, now| g.canvass(id, now));
        for node in (2..5).take(helpers) {
            let (from, signer) = (net.nodes[node].me.clone(), Fake(net.nodes[node].signer.0));
            support(&mut net, id, &from, &signer, false);
        }
        net.run(1, |g, now| g.close_canvass(id, now));
        let group = held(&mut net, 1, id);
        assert_eq!(group.record.promised.round, 0, "{helpers}");
        // Whoever promised it cannot promise it again for another head.
        assert_eq!(group.refused, skips, "{helpers}");
    }
}

#[test]
fn r3_support_for_a_head_that_grew_meanwhile_makes_nobody_lead() {
    let (mut net, id) = headless(&["ann", "bob", "cat"], 119);
    net.run(1, |g, now| g.canvass(id, now));
    let (cat, signer) = (net.nodes[2].me.clone(), Fake(net.nodes[2].signer.0));
    let other = net.nodes[1].groups.chain(id).unwrap().place(2).unwrap();
    let bob = net.nodes[1].me.device;
    let open = held(&mut net, 1, id).canvass.as_mut().unwrap();
    open.base = other;
    let cause = Cause {
        group: id,
        round: open.round,
        base: other,
        candidate: bob,
    };
    let proof = SupportProof::sign(&cause, &signer);
    assert_eq!(proof.key.device(), cat.device);
    open.supports.insert(proof.key.0, proof);
    net.run(1, |g, now| g.close_canvass(id, now));
    assert_eq!(held(&mut net, 1, id).record.promised.round, 0);
    assert_eq!(leader(&net, 1, id), "ann");
}

#[test]
fn r7_only_who_was_deposed_defends_itself_and_not_for_long() {
    let mut net = Net::new(&["ann", "bob", "cat"], 120);
    let id = net.full();
    let (ann, bob) = (net.nodes[0].me.device, net.nodes[1].me.device);
    let start = net.clock();
    held(&mut net, 2, id).deposed = Some((ann, start.mono));
    let suspect = GroupConfig::default().suspect.as_millis() as u64;
    let defends = |net: &Net, who| {
        let groups = &net.nodes[2].groups;
        groups.defends(&groups.groups[&id], who, net.clock())
    };
    assert!(defends(&net, ann));
    assert!(!defends(&net, bob));
    net.now = net.now + Duration::from_millis(suspect - 1);
    assert!(defends(&net, ann));
    net.now = net.now + Duration::from_millis(1);
    assert!(!defends(&net, ann));
}

#[test]
fn r7_a_leader_that_was_away_lets_the_lead_go() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan", "eve"], 121);
    let id = net.full();
    // Bob and cat alone: a minority deposes ann while she is away.
    net.split(&[&[0], &[1, 2], &[3, 4]]);
    net.down(0);
    net.down(3);
    net.down(4);
    net.pass(4 * MINUTE);
    assert_eq!(leader(&net, 1, id), "bob");
    assert!(!net.nodes[1].groups.view(id).unwrap().majority);
    net.cut.clear();
    net.trace.clear();
    for node in [0, 3, 4] {
        net.up(node);
    }
    net.pass(MINUTE);
    let asks = |line: &String| line.contains("I want to lead");
    assert!(!net.trace.iter().any(asks), "{:#?}", net.trace);
    assert_eq!(leader(&net, 0, id), "bob");
}

#[test]
fn r7_who_had_deposed_the_new_leader_itself_does_not_defend_itself() {
    let mut net = Net::new(&["ann", "bob", "cat"], 122);
    let id = net.full();
    let (ann, bob, cat) = (0, 1, 2);
    let me = |net: &Net, node: usize| net.nodes[node].me.clone();
    // Cat leads now, and bob heard the one before it.
    for (before, had_deposed, noted) in [
        (ann, None, true),
        (ann, Some(bob), true),
        (ann, Some(cat), false),
        (bob, None, false),
    ] {
        let (leader, former) = (me(&net, cat), me(&net, before));
        let deposed = had_deposed.map(|node| me(&net, node).device);
        let (old, at) = (me(&net, ann).device, net.clock().wall);
        let now = net.clock().mono;
        let group = held(&mut net, bob, id);
        group.beat_at = Some(now);
        let roster = &mut group.chain.as_mut().unwrap().roster;
        roster.leader = leader;
        roster.former = Some(roster::Former {
            term: roster.term,
            last: 1,
            leader: former,
            orderly: false,
            deposed,
            at,
        });
        roster.term.majority = false;
        net.frames(bob, |g, now| g.note_deposed(id, old, now));
        let wrong = held(&mut net, bob, id).deposed;
        assert_eq!(
            wrong,
            noted.then_some((old, now)),
            "{before} {had_deposed:?}"
        );
    }
}
