//! Whom an invitation lets in, and until when (G15).

use super::super::proof::Ticket;
use super::super::*;
use super::net::{Fake, Net, name, user};
use crate::wire::BoundedStr;
use crate::wire::group::{GroupInvite, JoinReq};

fn ticket(net: &Net, by: usize, id: GroupId, index: u64, until: UnixMillis) -> Ticket {
    let signer = Fake(net.nodes[by].signer.0);
    Ticket::sign(id, &user("cat"), index, until, &signer)
}

fn later(net: &Net) -> UnixMillis {
    net.clock().wall.plus(Duration::from_secs(60))
}

/// Cat hears of this ticket from `from`; how often it is told of an invitation.
fn invite(net: &mut Net, from: usize, id: GroupId, ticket: &Ticket) -> usize {
    let from = net.nodes[from].me.clone();
    let invite = GroupInvite {
        group: id.0,
        name: BoundedStr::truncated("ops"),
        ticket: ticket.to_bytes().try_into().unwrap(),
    };
    net.run(2, |g, now| g.handle_frame(&from, &invite.into(), now));
    let told = net.take_events(2);
    let invited = |event: &&GroupEvent| matches!(event, GroupEvent::Invited { .. });
    told.iter().filter(invited).count()
}

/// Cat asks with this ticket; true when it is in at once.
fn lets_in(net: &mut Net, id: GroupId, ticket: &Ticket) -> bool {
    let asks = JoinReq {
        group: id.0,
        request: [9; 16],
        nonce: [9; 16],
        note: BoundedStr::truncated(""),
        ticket: ticket.to_bytes().try_into().unwrap(),
        withdrawn: false,
    };
    let cat = net.nodes[2].me.clone();
    net.run(0, |g, now| g.handle_frame(&cat, &asks.into(), now));
    net.users(0, id).contains(&"cat".to_owned())
}

/// Ann leads, bob is in, cat is not.
fn with_two(seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], seed);
    let id = net.create();
    net.admit(0, 1, id);
    (net, id)
}

#[test]
fn g15_an_invitation_is_told_when_its_signer_brings_it_in_time() {
    let (mut net, id) = with_two(160);
    let now = net.clock().wall;
    let until = later(&net);
    let good = ticket(&net, 0, id, 2, until);
    let mut forged = good.clone();
    forged.signature.0[0] ^= 1;
    assert_eq!(invite(&mut net, 0, id, &forged), 0);
    assert_eq!(invite(&mut net, 1, id, &good), 0, "passed on by bob");
    let over = ticket(&net, 0, id, 2, now);
    assert_eq!(invite(&mut net, 0, id, &over), 0);
    assert_eq!(invite(&mut net, 0, id, &good), 1);
    assert_eq!(invite(&mut net, 0, id, &good), 0, "it is known");
    let other = net.create();
    let second = ticket(&net, 0, other, 1, until);
    assert_eq!(invite(&mut net, 0, other, &second), 1);
    assert_eq!(net.nodes[2].groups.tickets.len(), 2);
}

#[test]
fn g15_a_member_is_not_invited() {
    let (mut net, id) = with_two(161);
    net.admit(0, 2, id);
    let good = ticket(&net, 0, id, 3, later(&net));
    assert_eq!(invite(&mut net, 0, id, &good), 0);
    assert_eq!(net.nodes[2].groups.tickets, []);
}

#[test]
fn g15_an_invitation_is_used_up_and_others_are_not() {
    let (mut net, id) = with_two(162);
    let other = net.run(1, |g, now| g.create(&name("b"), Rules::default(), now));
    let other = other.unwrap();
    let second = ticket(&net, 1, other, 1, later(&net));
    assert_eq!(invite(&mut net, 1, other, &second), 1);
    net.run(0, |g, now| g.invite(id, &user("cat"), now))
        .unwrap();
    net.pass(1_000);
    net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.pass(3_000);
    assert_eq!(net.mine(2, id), Some(Membership::Member));
    let held: Vec<_> = net.nodes[2]
        .groups
        .tickets
        .iter()
        .map(|(of, _)| *of)
        .collect();
    assert_eq!(held, [other]);
    let row = |group| (Table::Groups, Bytes::from(rows::ticket_key(group)));
    assert!(!net.nodes[2].disk.contains_key(&row(id)));
    assert!(net.nodes[2].disk.contains_key(&row(other)));
}

#[test]
fn g15_who_asks_already_is_in_with_the_invitation() {
    let (mut net, id) = with_two(163);
    net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    net.run(0, |g, now| g.invite(id, &user("cat"), now))
        .unwrap();
    assert_eq!(net.users(0, id), ["ann", "bob", "cat"]);
}

#[test]
fn g15_only_who_led_and_is_still_in_lets_people_in() {
    let (mut net, id) = with_two(164);
    let until = later(&net);
    let now = net.clock().wall;
    let bobs = ticket(&net, 1, id, 2, until);
    assert!(!lets_in(&mut net, id, &bobs), "bob does not lead");
    let (mut net, id) = with_two(164);
    let over = ticket(&net, 0, id, 2, now);
    assert!(!lets_in(&mut net, id, &over));
    let (mut net, id) = with_two(164);
    // Dan led and left.
    net.admit(0, 3, id);
    net.run(0, |g, now| g.hand_over(id, &user("dan"), now))
        .unwrap();
    net.pass(1_000);
    net.run(3, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(2_000);
    let index = net.nodes[3].groups.view(id).unwrap().index;
    let dans = ticket(&net, 3, id, index, until);
    net.run(3, |g, now| g.hand_over(id, &user("ann"), now))
        .unwrap();
    net.pass(1_000);
    net.run(0, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(2_000);
    net.run(3, |g, now| g.leave(id, now)).unwrap();
    net.pass(2_000);
    assert_eq!(net.users(0, id), ["ann", "bob"]);
    assert!(!lets_in(&mut net, id, &dans));
}

#[test]
fn g15_an_invitation_outlives_the_removal_of_others_and_its_holder_s_own_leave() {
    let (mut net, id) = with_two(165);
    net.admit(0, 2, id);
    net.admit(0, 3, id);
    let index = net.nodes[0].groups.view(id).unwrap().index;
    let good = ticket(&net, 0, id, index, later(&net));
    net.run(2, |g, now| g.leave(id, now)).unwrap();
    net.pass(2_000);
    net.run(0, |g, now| g.kick(id, &user("dan"), "", now))
        .unwrap();
    assert!(lets_in(&mut net, id, &good));
}

#[test]
fn g15_g17_an_invitation_of_after_the_kick_lets_in_again() {
    let (mut net, id) = with_two(166);
    net.admit(0, 2, id);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    let kicked = net.nodes[0].groups.view(id).unwrap().index;
    let until = later(&net);
    let before = ticket(&net, 0, id, kicked - 1, until);
    assert!(!lets_in(&mut net, id, &before));
    let (mut net, id) = with_two(166);
    net.admit(0, 2, id);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    let after = ticket(&net, 0, id, kicked, until);
    assert!(lets_in(&mut net, id, &after));
}
