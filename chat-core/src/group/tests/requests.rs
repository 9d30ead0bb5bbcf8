//! Who asks to be let in, and what it is told (G14, G17).

use super::super::op::Op;
use super::super::rows::{Grant, Waiting};
use super::super::*;
use super::net::{Net, user};
use super::succession::{MINUTE, strict};
use crate::wire::group::{JoinAnswer, JoinReq};
use crate::wire::{BoundedBytes, BoundedStr};

fn last_op(net: &Net, id: GroupId) -> Op {
    let chain = net.nodes[0].groups.chain(id).unwrap();
    chain.entry(chain.index()).unwrap().draft.op
}

fn kick(who: &str) -> BatchStep {
    BatchStep::Kick {
        user: user(who),
        reason: String::new(),
    }
}

/// A request that waits at ann, whatever its membership.
fn waits(net: &mut Net, id: GroupId, name: u8, nonce: [u8; 16], grant: Grant) {
    let waiting = Waiting {
        user: net.nodes[1].me.user.clone(),
        device: net.nodes[1].me.device,
        nonce,
        note: String::new(),
        since: net.clock().wall,
        grant,
    };
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.joins.insert(RequestId([name; 16]), waiting);
}

#[test]
fn g17_an_approval_logs_no_membership_that_is_or_was() {
    let mut net = Net::new(&["ann", "bob", "cat"], 175);
    let id = net.full();
    let nonce = net.nodes[1].groups.seat(id).unwrap();
    let index = |net: &Net| net.nodes[0].groups.view(id).unwrap().index;
    let sits = index(&net);
    waits(&mut net, id, 7, nonce, Grant::Open);
    net.run(0, |g, now| g.approve(id, RequestId([7; 16]), now))
        .unwrap();
    assert_eq!(index(&net), sits);
    waits(&mut net, id, 7, nonce, Grant::Open);
    let steps = [BatchStep::Approve(RequestId([7; 16])), kick("cat")];
    net.run(0, |g, now| g.apply(id, &steps, now)).unwrap();
    assert!(last_op(&net, id).admissions().is_empty());
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    let went = index(&net);
    waits(&mut net, id, 7, nonce, Grant::Open);
    net.run(0, |g, now| g.approve(id, RequestId([7; 16]), now))
        .unwrap();
    assert_eq!(index(&net), went);
}

/// Bob asks anew under the name 8, for this membership.
fn asks(net: &mut Net, id: GroupId, nonce: [u8; 16]) -> Vec<JoinAnswer> {
    let asks = JoinReq {
        group: id.0,
        request: [8; 16],
        nonce,
        note: BoundedStr::truncated(""),
        ticket: BoundedBytes::default(),
        withdrawn: false,
    };
    let bob = net.nodes[1].me.clone();
    let frames = net.frames(0, |g, now| g.handle_frame(&bob, &asks.into(), now));
    let answers = frames.into_iter().filter_map(|frame| match frame.body {
        Body::JoinAnswer(answer) => Some(answer),
        _ => None,
    });
    answers.collect()
}

#[test]
fn g14_a_request_named_anew_stays_granted_for_the_same_membership_only() {
    for (held, nonce, grant) in [
        (Grant::Approved, [7; 16], Grant::Approved),
        (Grant::Approved, [6; 16], Grant::Open),
        (Grant::Open, [7; 16], Grant::Open),
    ] {
        let mut net = strict(&["ann", "bob", "cat", "dan"], 176);
        let id = net.create();
        net.admit(0, 2, id);
        net.admit(0, 3, id);
        net.pass(MINUTE);
        // A change that no majority holds yet keeps what was approved waiting.
        net.split(&[&[0], &[2, 3]]);
        net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
            .unwrap();
        waits(&mut net, id, 7, [7; 16], held);
        asks(&mut net, id, nonce);
        let joins = &net.nodes[0].groups.groups[&id].joins;
        assert_eq!(joins.len(), 1);
        assert_eq!(joins[&RequestId([8; 16])].grant, grant);
        // A request that was given up is refused when a copy comes late.
        let settled = &net.nodes[0].groups.groups[&id].settled;
        let given_up = settled.iter().any(|(name, ..)| *name == RequestId([7; 16]));
        assert_eq!(
            given_up,
            (held, grant) != (Grant::Approved, Grant::Approved)
        );
    }
}

#[test]
fn g14_only_who_is_told_busy_is_told_when_to_ask_again() {
    for (max, code, retry) in [(1, 1, 0), (0, 4, 60)] {
        let config = GroupConfig {
            max_joins: max,
            ..GroupConfig::default()
        };
        let mut net = Net::with(&["ann", "bob"], 177, &config);
        let id = net.create();
        let answers = asks(&mut net, id, [7; 16]);
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].answer, answers[0].retry), (code, retry));
    }
}

#[test]
fn g14_who_is_told_busy_waits_as_long_as_it_is_told() {
    let config = GroupConfig {
        max_joins: 0,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob"], 178, &config);
    let id = net.create();
    net.run(1, |g, now| g.join(id, "", now)).unwrap();
    // What was due when the answer came is the last for a minute.
    net.pass(4_000);
    net.trace.clear();
    net.pass(54_000);
    let asked = net
        .trace
        .iter()
        .filter(|line| line.contains("join request"));
    assert_eq!(asked.count(), 0);
    net.pass(30_000);
    let asked = net
        .trace
        .iter()
        .filter(|line| line.contains("join request"));
    assert_eq!(asked.count(), 1);
}

#[test]
fn g14_what_a_leader_approved_is_open_again_when_it_leads_no_more() {
    let mut net = strict(&["ann", "bob", "cat", "dan", "eve"], 179);
    let id = net.create();
    net.admit(0, 2, id);
    net.admit(0, 3, id);
    net.admit(0, 4, id);
    net.pass(MINUTE);
    net.split(&[&[0, 1], &[2, 3, 4]]);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    waits(&mut net, id, 7, [7; 16], Grant::Approved);
    net.pass(4 * MINUTE);
    net.cut.clear();
    net.pass(10_000);
    assert!(!net.nodes[0].groups.leading(id));
    let held = &net.nodes[0].groups.groups[&id];
    assert!(held.joins.values().all(|one| one.grant == Grant::Open));
    assert!(held.record.wanted.is_empty());
    assert!(held.acks.is_empty());
}

#[test]
fn g14_who_is_in_asks_for_nothing() {
    let mut net = Net::new(&["ann", "bob"], 181);
    let id = net.full();
    for node in [0, 1] {
        let refused = net.run(node, |g, now| g.join(id, "", now));
        assert_eq!(refused, Err(GroupError::AlreadyMember));
    }
}

#[test]
fn g14_a_member_tells_who_asks_that_it_is_in() {
    let mut net = Net::new(&["ann", "bob", "cat"], 182);
    let id = net.full();
    let asks = JoinReq {
        group: id.0,
        request: [8; 16],
        nonce: net.nodes[2].groups.seat(id).unwrap(),
        note: BoundedStr::truncated(""),
        ticket: BoundedBytes::default(),
        withdrawn: false,
    };
    let cat = net.nodes[2].me.clone();
    let frames = net.frames(1, |g, now| g.handle_frame(&cat, &asks.into(), now));
    let answers: Vec<_> = frames
        .into_iter()
        .filter_map(|frame| match frame.body {
            Body::JoinAnswer(answer) => Some(answer.answer),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [joins::ADMITTED]);
}
