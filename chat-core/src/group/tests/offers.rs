//! Offers, hand-overs and leaves at their edges (G2, G12, G18).

use super::super::handover::LEAVE;
use super::super::proof::LeftProof;
use super::super::*;
use super::net::{Net, user};
use super::succession::{MINUTE, leader, strict};
use crate::wire::group::{Offer, Propose};

fn says(net: &Net, line: &str) -> usize {
    net.trace.iter().filter(|said| *said == line).count()
}

fn offer(net: &mut Net, to: usize, from: usize, id: GroupId, offer: u64) {
    let from = net.nodes[from].me.clone();
    let offer = Offer { group: id.0, offer };
    net.run(to, |g, now| g.handle_frame(&from, &offer.into(), now));
}

fn asked(events: &[GroupEvent]) -> usize {
    let asks = |event: &&GroupEvent| matches!(event, GroupEvent::LeadOffered { .. });
    events.iter().filter(asks).count()
}

#[test]
fn g18_nobody_is_asked_who_is_not_in() {
    let mut net = Net::new(&["ann", "bob"], 140);
    let id = net.full();
    let refused = net.run(0, |g, now| g.hand_over(id, &user("zed"), now));
    let nobody = GroupError::NoSuchMember { user: user("zed") };
    assert_eq!(refused, Err(nobody));
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
}

#[test]
fn g18_only_the_leader_offers_and_each_offer_is_told_once() {
    let mut net = Net::new(&["ann", "bob", "cat"], 141);
    let id = net.full();
    net.take_events(2);
    offer(&mut net, 2, 1, id, 5);
    assert_eq!(asked(&net.take_events(2)), 0, "bob does not lead");
    offer(&mut net, 2, 0, id, 5);
    offer(&mut net, 2, 0, id, 5);
    assert_eq!(asked(&net.take_events(2)), 1);
    offer(&mut net, 2, 0, id, 6);
    assert_eq!(asked(&net.take_events(2)), 1, "another offer");
    assert_eq!(
        net.nodes[2].groups.groups[&id].offered,
        Some((6, None)),
        "the newest stands"
    );
}

#[test]
fn g18_an_answer_that_got_lost_is_given_again() {
    for (accept, words) in [
        (true, "cat to ann: proposal: I will lead"),
        (false, "cat to ann: proposal: I will not lead"),
    ] {
        let mut net = Net::new(&["ann", "bob", "cat"], 142);
        let id = net.full();
        net.split(&[&[0], &[1, 2]]);
        offer(&mut net, 2, 0, id, 5);
        net.run(2, |g, now| g.answer_offer(id, accept, now))
            .unwrap();
        assert_eq!(says(&net, words), 1);
        net.take_events(2);
        offer(&mut net, 2, 0, id, 5);
        assert_eq!(says(&net, words), 2);
        assert_eq!(asked(&net.take_events(2)), 0);
    }
}

#[test]
fn g18_an_offer_to_somebody_who_is_out_is_dropped() {
    let mut net = Net::new(&["ann", "bob", "cat"], 143);
    let id = net.full();
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.take_events(0);
    net.pass(12_000);
    assert_eq!(net.nodes[0].groups.groups[&id].record.offer, None);
    let declined = GroupEvent::LeadDeclined {
        group: id,
        by: user("bob"),
    };
    assert!(net.take_events(0).contains(&declined));
}

#[test]
fn g18_what_a_member_accepted_ends_when_the_lead_passes() {
    let mut net = Net::new(&["ann", "bob", "cat"], 144);
    let id = net.full();
    let held = net.nodes[2].groups.groups.get_mut(&id).unwrap();
    held.record.accepted = Some(5);
    held.offered = Some((5, Some(true)));
    net.crash(0);
    net.pass(2 * MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
    let held = &net.nodes[2].groups.groups[&id];
    assert_eq!((held.record.accepted, held.offered), (None, None));
}

#[test]
fn g12_who_left_says_so_again_to_who_takes_it_for_a_member() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 145);
    let id = net.full();
    net.run(2, |g, now| g.leave(id, now)).unwrap();
    net.run(0, |g, now| g.kick(id, &user("dan"), "", now))
        .unwrap();
    net.pass(2_000);
    assert_eq!(net.mine(2, id), Some(Membership::Left));
    net.trace.clear();
    for node in [2, 3] {
        offer(&mut net, node, 1, id, 5);
    }
    assert_eq!(says(&net, "cat to bob: proposal: I leave"), 1);
    assert_eq!(says(&net, "dan to bob: proposal: I leave"), 0);
    net.down(2);
    offer(&mut net, 2, 1, id, 5);
    assert_eq!(says(&net, "cat to bob: proposal: I leave"), 1, "cut off");
}

#[test]
fn g12_a_leave_counts_from_the_device_that_signed_it() {
    let mut net = Net::new(&["ann", "bob1", "bob2"], 146);
    let id = net.full();
    let nonce = net.nodes[1].groups.seat(id).unwrap();
    let proof = LeftProof::sign(id, nonce, &*net.nodes[1].signer).to_bytes();
    let leave = Propose {
        group: id.0,
        action: LEAVE,
        index: 0,
        proof: proof.to_vec().try_into().unwrap(),
    };
    let say = |net: &mut Net, from: usize| {
        let from = net.nodes[from].me.clone();
        net.run(0, |g, now| {
            g.handle_frame(&from, &leave.clone().into(), now)
        });
    };
    say(&mut net, 2);
    assert_eq!(net.nodes[0].groups.size(id), 3);
    net.trace.clear();
    for _ in 0..20 {
        say(&mut net, 1);
    }
    assert_eq!(net.nodes[0].groups.size(id), 2);
    let answers = net
        .trace
        .iter()
        .filter(|line| line.contains("to bob: entries"));
    assert_eq!(answers.count(), serve::RATE as usize);
}

#[test]
fn g12_leaving_twice_is_leaving_once() {
    let mut net = Net::new(&["ann", "bob"], 147);
    let id = net.full();
    net.split(&[&[0], &[1]]);
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    assert_eq!(net.mine(1, id), Some(Membership::Leaving));
}

#[test]
fn r8_a_lame_leader_hands_over_only_to_who_answers() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 148);
    let id = net.full();
    net.pass(15_000);
    let (ann, nonce) = (
        net.nodes[0].me.device,
        net.nodes[0].groups.seat(id).unwrap(),
    );
    let cat = net.nodes[2].me.device;
    let now = net.clock();
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.hidden.insert((ann, nonce));
    let heir = |net: &Net| match net.nodes[0].groups.lame_task(id, now) {
        Some(op::Op::Handover { to, .. }) => Some(to),
        other => {
            assert_eq!(other, None);
            None
        }
    };
    assert_eq!(heir(&net), Some(net.nodes[1].me.device));
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.acks.retain(|device, _| *device == cat);
    assert_eq!(heir(&net), Some(cat));
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.acks.clear();
    assert_eq!(heir(&net), None, "it waits as a caretaker");
}

#[test]
fn r8_a_leader_is_lame_only_while_somebody_else_could_lead() {
    let mut net = Net::new(&["ann", "bob"], 149);
    let id = net.full();
    let instance = |net: &Net, node: usize| {
        let nonce = net.nodes[node].groups.seat(id).unwrap();
        (net.nodes[node].me.device, nonce)
    };
    let (ann, bob) = (instance(&net, 0), instance(&net, 1));
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    assert!(!lame::is_lame(held), "no kick names it");
    held.hidden.insert(ann);
    assert!(lame::is_lame(held));
    held.hidden.insert(bob);
    assert!(!lame::is_lame(held), "bob must go too");
}

#[test]
fn strict_a_rename_holds_up_no_removal() {
    let mut net = strict(&["ann", "bob", "cat", "dan"], 150);
    let id = net.full();
    net.pass(MINUTE);
    net.split(&[&[0], &[1, 2, 3]]);
    let index = net.nodes[0].groups.view(id).unwrap().index;
    net.run(0, |g, now| g.rename(id, &super::net::name("x"), now))
        .unwrap();
    net.run(0, |g, now| g.kick(id, &user("dan"), "", now))
        .unwrap();
    assert_eq!(net.nodes[0].groups.view(id).unwrap().index, index + 2);
}

#[test]
fn r8_the_only_member_voids_the_kick_that_names_it_and_no_other() {
    let mut net = Net::new(&["ann"], 151);
    let id = net.create();
    let own = (
        net.nodes[0].me.device,
        net.nodes[0].groups.seat(id).unwrap(),
    );
    let term = net.nodes[0].groups.chain(id).unwrap().roster.term;
    let kick = |instance| Kick {
        removals: Vec::new(),
        instances: vec![instance],
        term,
        bytes: Bytes::new(),
    };
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.hidden.insert(own);
    for (hash, instance) in [
        ([1; 32], (DeviceId([9; 32]), [9; 16])),
        ([2; 32], own),
        ([3; 32], (DeviceId([8; 32]), [8; 16])),
    ] {
        held.sticky.insert(hash, kick(instance));
    }
    let now = net.clock();
    let task = net.nodes[0].groups.lame_task(id, now);
    assert_eq!(task, Some(op::Op::Void { kick: [2; 32] }));
}
