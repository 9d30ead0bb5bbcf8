//! At the edge of a rule: bounds that are met exactly, and the words of those who have no say.

use super::super::promise::{LIVES, LOWER};
use super::super::*;
use super::net::{Net, name, user};
use crate::wire::group::{JoinReq, Propose, Refuse, Removed, Support};
use crate::wire::{BoundedBytes, BoundedStr};

/// A group of `names` whose leader is gone, and which nobody leads yet.
fn headless(names: &[&str], seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(names, seed);
    let id = net.full();
    net.crash(0);
    net.pass(45_000);
    assert_eq!(round(&net, id), 1, "too early for the others");
    (net, id)
}

fn round(net: &Net, id: GroupId) -> u64 {
    net.nodes[1].groups.view(id).unwrap().round
}

/// Node `from` refuses the canvass of node 1.
fn refuse(net: &mut Net, id: GroupId, from: usize, why: u8) {
    let from = net.nodes[from].me.clone();
    let head = net.nodes[1].groups.chain(id).unwrap().head();
    let refuse = Refuse {
        group: id.0,
        why,
        head: head.into(),
        promised: 0,
        heard_ms: 0,
    };
    net.run(1, |g, now| g.handle_frame(&from, &refuse.into(), now));
}

#[test]
fn a_table_that_is_full_takes_a_group_for_one_that_is_over() {
    let config = GroupConfig {
        max_groups: 2,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann"], 80, &config);
    let first = net.create();
    net.create();
    let third = net.run(0, |g, now| g.create(&name("ops"), Rules::default(), now));
    assert!(matches!(third, Err(GroupError::Full { max: 2, .. })));
    net.run(0, |g, now| g.leave(first, now)).unwrap();
    net.create();
    assert_eq!(net.mine(0, first), None);
}

#[test]
fn r3_who_knows_no_more_than_we_ends_no_canvass() {
    let (mut net, id) = headless(&["ann", "bob", "cat"], 81);
    net.split(&[&[1], &[2]]);
    net.run(1, |g, now| g.canvass(id, now));
    refuse(&mut net, id, 2, LOWER);
    assert!(net.nodes[1].groups.groups[&id].canvass.is_some());
}

#[test]
fn r3_a_candidate_that_is_outvoted_does_not_claim() {
    for against in [1, 2] {
        let (mut net, id) = headless(&["ann", "bob", "cat", "dan", "eve"], 82);
        net.split(&[&[1, 2], &[3, 4]]);
        net.run(1, |g, now| g.canvass(id, now));
        for node in [3, 4].into_iter().take(against) {
            refuse(&mut net, id, node, LIVES);
        }
        net.pass(6_000);
        let claimed = round(&net, id) > 1;
        assert_eq!(claimed, against < 2, "two of two are for it");
    }
}

#[test]
fn r2_a_promise_of_another_round_is_none() {
    let (mut net, id) = headless(&["ann", "bob", "cat"], 83);
    net.split(&[&[1], &[2]]);
    net.run(1, |g, now| g.canvass(id, now));
    let cat = net.nodes[2].me.clone();
    let head = net.nodes[1].groups.chain(id).unwrap().head();
    let support = Support {
        group: id.0,
        round: 9,
        base: head.hash,
        proof: BoundedBytes::try_from(vec![0; 96]).unwrap(),
    };
    net.run(1, |g, now| g.handle_frame(&cat, &support.into(), now));
    let held = &net.nodes[1].groups.groups[&id];
    assert!(held.canvass.as_ref().unwrap().supports.is_empty());
}

#[test]
fn g19_the_largest_batch_is_let_in() {
    let names: Vec<_> = ('a'..='x').map(|c| format!("u{c}")).collect();
    let mut all = vec!["ann"];
    all.extend(names.iter().map(String::as_str));
    let mut net = Net::new(&all, 84);
    let id = net.create();
    let mut requests = Vec::new();
    for node in 1..all.len() {
        requests.push(net.run(node, |g, now| g.join(id, "", now)).unwrap());
    }
    net.pass(1_000);
    let steps: Vec<_> = requests.into_iter().map(BatchStep::Approve).collect();
    net.run(0, |g, now| g.apply(id, &steps, now)).unwrap();
    assert_eq!(net.users(0, id).len(), 25);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().index, 2);
}

#[test]
fn g14_one_user_has_a_bounded_number_of_waiting_devices() {
    let names: Vec<_> = (1..=9).map(|n| format!("bob{n}")).collect();
    let mut all = vec!["ann", "cat"];
    all.extend(names.iter().map(String::as_str));
    let mut net = Net::new(&all, 85);
    let id = net.create();
    for node in 1..all.len() {
        net.run(node, |g, now| g.join(id, "", now)).unwrap();
        net.pass(1_000);
    }
    let waiting = net.nodes[0].groups.view(id).unwrap().requests;
    let counts: Vec<_> = waiting
        .iter()
        .map(|w| (w.user.as_str(), w.devices))
        .collect();
    assert_eq!(counts, [("cat", 1), ("bob", 8)]);
}

#[test]
fn g15_an_invitation_lets_nobody_else_in() {
    let mut net = Net::new(&["ann", "bob", "cat"], 86);
    let id = net.create();
    net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    net.run(0, |g, now| g.invite(id, &user("bob"), now))
        .unwrap();
    net.pass(5_000);
    assert_eq!(net.users(0, id), ["ann"]);
    assert_eq!(net.mine(2, id), Some(Membership::Asking));
}

#[test]
fn g17_an_invitation_of_before_the_kick_is_worth_nothing_after_it() {
    let mut net = Net::new(&["ann", "bob"], 87);
    let id = net.create();
    net.run(0, |g, now| g.invite(id, &user("bob"), now))
        .unwrap();
    net.pass(1_000);
    let ticket = net.nodes[1].groups.ticket(id);
    assert!(!ticket.is_empty());
    net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(3_000);
    assert_eq!(net.users(0, id), ["ann", "bob"]);
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.pass(3_000);
    let again = JoinReq {
        group: id.0,
        request: [9; 16],
        nonce: [9; 16],
        note: BoundedStr::truncated(""),
        ticket,
        withdrawn: false,
    };
    let bob = net.nodes[1].me.clone();
    net.run(0, |g, now| g.handle_frame(&bob, &again.into(), now));
    assert_eq!(net.users(0, id), ["ann"]);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().requests.len(), 1);
}

#[test]
fn g18_only_a_device_that_sits_answers_an_offer() {
    let mut net = Net::new(&["ann", "bob1", "bob2"], 88);
    let id = net.create();
    net.admit(0, 1, id);
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    let offer = net.nodes[0].groups.groups[&id].record.offer.clone();
    let (_, number) = offer.clone().expect("it is open");
    let decline = Propose {
        group: id.0,
        action: 3,
        index: number,
        proof: BoundedBytes::default(),
    };
    let other = net.nodes[2].me.clone();
    net.run(0, |g, now| {
        g.handle_frame(&other, &decline.clone().into(), now)
    });
    assert_eq!(net.nodes[0].groups.groups[&id].record.offer, offer);
    let asked = net.nodes[1].me.clone();
    net.run(0, |g, now| g.handle_frame(&asked, &decline.into(), now));
    assert_eq!(net.nodes[0].groups.groups[&id].record.offer, None);
}

#[test]
fn g11_the_word_alone_tells_a_victim() {
    let mut net = Net::new(&["ann", "bob", "cat"], 89);
    let id = net.full();
    net.split(&[&[0, 2], &[1]]);
    net.run(0, |g, now| g.kick(id, &user("bob"), "spam", now))
        .unwrap();
    net.pass(500);
    assert_eq!(net.mine(1, id), Some(Membership::Member));
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let entry = chain.bytes(chain.index()).unwrap().to_vec();
    let word = Removed {
        group: id.0,
        entry: entry.try_into().unwrap(),
    };
    let ann = net.nodes[0].me.clone();
    net.run(1, |g, now| g.handle_frame(&ann, &word.into(), now));
    assert_eq!(net.mine(1, id), Some(Membership::Kicked));
}

#[test]
fn an_abandoned_branch_is_shown_in_full_pages() {
    let mut net = Net::new(&["ann"], 90);
    let id = net.create();
    for n in 0..39 {
        net.run(0, |g, now| g.rename(id, &name(&format!("{n}")), now))
            .unwrap();
    }
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let all: Vec<_> = (1..=40).map(|i| chain.bytes(i).unwrap().clone()).collect();
    let pages = orphans::pages(id, &all);
    let sizes: Vec<_> = pages.iter().map(|page| page.entries.len()).collect();
    assert_eq!(sizes, [32, 8]);
}

#[test]
fn g10_a_member_is_a_device_of_this_person_that_no_kick_names() {
    let mut net = Net::new(&["ann", "bob", "cat"], 93);
    let id = net.create();
    net.admit(0, 1, id);
    let other = net.create();
    let (bob, cat) = (net.nodes[1].me.clone(), net.nodes[2].me.clone());
    let posing = Sender {
        user: cat.user.clone(),
        ..bob.clone()
    };
    let member = |net: &Net, group, from: &Sender| net.nodes[0].groups.is_member(group, from);
    assert!(member(&net, id, &bob));
    for (group, from) in [(id, &cat), (id, &posing), (other, &bob)] {
        assert!(!member(&net, group, from), "{}", from.user);
    }
    let nonce = net.nodes[1].groups.seat(id).unwrap();
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.hidden.insert((bob.device, nonce));
    assert!(!member(&net, id, &bob));
}

#[test]
fn g23_only_a_group_whose_last_member_left_is_closed() {
    let mut net = Net::new(&["ann"], 94);
    let (one, two) = (net.create(), net.create());
    net.run(0, |g, now| g.leave(one, now)).unwrap();
    let groups = &net.nodes[0].groups;
    assert!(groups.is_closed(one) && !groups.is_closed(two));
    let known: BTreeSet<_> = groups.iter().collect();
    assert_eq!(known, BTreeSet::from([one, two]));
}
