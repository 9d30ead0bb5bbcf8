//! Groups and messages together.

use std::time::Duration;

use super::net::{Net, user};
use crate::Event;
use crate::content::Content;
use crate::delivery::{DeliveryEvent, FailReason, SendError};
use crate::group::Membership;
use crate::id::{GroupId, TxnId};

/// A group of all, led by the first.
fn room(net: &mut Net) -> GroupId {
    let name = "ops".parse().unwrap();
    let group = net.nodes[0].endpoint.create_group(&name, net.now).unwrap();
    for node in 1..net.nodes.len() {
        let joiner = &mut net.nodes[node].endpoint;
        let request = joiner.join(group, "", net.now).unwrap();
        net.run(Duration::from_secs(1));
        let leader = &mut net.nodes[0].endpoint;
        leader.approve(group, request, net.now).unwrap();
        net.run(Duration::from_secs(1));
    }
    group
}

fn failed(net: &Net, node: usize) -> Vec<FailReason> {
    let events = net.nodes[node].events.iter();
    events
        .filter_map(|event| match event {
            Event::Delivery(DeliveryEvent::Failed { why, .. }) => Some(why.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn g12_who_leaves_writes_no_more_until_its_leave_is_off() {
    let mut net = Net::new(&["ann", "bob"]);
    let group = room(&mut net);
    net.say(0, group.into(), "before");
    // A leader stays until somebody takes over, and bob does not want to.
    net.nodes[0].endpoint.leave(group, net.now).unwrap();
    let ann = &mut net.nodes[0].endpoint;
    let txn = TxnId([9; 16]);
    let refused = ann.send(group.into(), txn, Content::text("after"), net.now);
    assert!(matches!(refused, Err(SendError::NotOpen(_))), "{refused:?}");
    // What was taken before keeps its id.
    let known = TxnId(1u128.to_be_bytes());
    ann.send(group.into(), known, Content::text("before"), net.now)
        .unwrap();
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[1].heard(), ["before"]);
    let bob = &mut net.nodes[1].endpoint;
    bob.answer_offer(group, false, net.now).unwrap();
    net.run(Duration::from_secs(1));
    net.say(0, group.into(), "I stay");
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[1].heard(), ["before", "I stay"]);
}

#[test]
fn g12_what_was_under_way_ends_with_the_membership_and_not_with_the_wish_to_come_back() {
    let mut net = Net::new(&["ann", "bob", "cat"]);
    let group = room(&mut net);
    // Nobody hears bob: its message and its leave stay under way.
    net.say(1, group.into(), "late");
    let bob = &mut net.nodes[1].endpoint;
    bob.leave(group, net.now).unwrap();
    bob.join(group, "", net.now).unwrap();
    assert_eq!(bob.group(group).unwrap().mine, Membership::Asking);
    net.nodes[1].drain(net.now);
    assert_eq!(failed(&net, 1), []);
    net.nodes[1].frames.clear();
    net.run(Duration::from_secs(30));
    let request = net.nodes[0].endpoint.group(group).unwrap().requests[0].clone();
    assert_eq!(request.user, user("bob"));
    let ann = &mut net.nodes[0].endpoint;
    ann.approve(group, request.request, net.now).unwrap();
    net.run(Duration::from_secs(2));
    let bob = &net.nodes[1].endpoint;
    assert_eq!(bob.group(group).unwrap().mine, Membership::Member);
    net.say(1, group.into(), "back");
    net.run(Duration::from_secs(2));
    let heard = net.nodes[0].heard();
    let came = heard.contains(&"late".to_owned());
    assert_eq!(failed(&net, 1).contains(&FailReason::Gone), !came);
    assert!(heard.contains(&"back".to_owned()));
}
