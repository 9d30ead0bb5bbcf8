//! Every part of what a proof says is signed: a proof of one thing is none of another.

use super::super::proof::{Cause, LeftProof, SupportProof, Ticket};
use super::super::term::Head;
use super::super::*;
use super::net::{Fake, FakeVerifier, Net, user};
use crate::identity::PublicKey;
use crate::time::UnixMillis;
use crate::wire::BoundedStr;
use crate::wire::group::JoinReq;

const ANN: Fake = Fake(PublicKey([1; 32]));
const ONE: GroupId = GroupId([1; 32]);
const OTHER: GroupId = GroupId([2; 32]);

#[test]
fn g12_a_leave_is_of_one_membership_of_one_group() {
    let proof = LeftProof::sign(ONE, [7; 16], &ANN);
    assert!(proof.holds(ONE, &FakeVerifier));
    assert!(!proof.holds(OTHER, &FakeVerifier));
    let moved = LeftProof {
        nonce: [8; 16],
        ..proof
    };
    assert!(!moved.holds(ONE, &FakeVerifier));
}

#[test]
fn r2_a_promise_is_of_one_round_to_one_candidate_on_one_head() {
    let net = &mut Net::new(&["ann", "bob"], 91);
    let id = net.full();
    let head = |net: &Net| net.nodes[0].groups.chain(id).unwrap().head();
    let before: Head = head(net);
    net.run(0, |g, now| g.rename(id, &super::net::name("x"), now))
        .unwrap();
    let cause = Cause {
        group: id,
        round: 3,
        base: head(net),
        candidate: net.nodes[1].me.device,
    };
    let proof = SupportProof::sign(&cause, &ANN);
    assert!(proof.holds(&cause, &FakeVerifier));
    let others = [
        Cause {
            group: OTHER,
            ..cause
        },
        Cause { round: 4, ..cause },
        Cause {
            base: before,
            ..cause
        },
        Cause {
            candidate: net.nodes[0].me.device,
            ..cause
        },
    ];
    for other in others {
        assert!(!proof.holds(&other, &FakeVerifier), "{other:?}");
    }
}

#[test]
fn g15_an_invitation_is_for_one_person_of_one_group_until_its_time() {
    let until = UnixMillis(5_000);
    let ticket = Ticket::sign(ONE, &user("bob"), 4, until, &ANN);
    assert!(ticket.holds(ONE, &user("bob"), &FakeVerifier));
    assert!(!ticket.holds(OTHER, &user("bob"), &FakeVerifier));
    assert!(!ticket.holds(ONE, &user("cat"), &FakeVerifier));
    let forged = [
        Ticket {
            index: 5,
            ..ticket.clone()
        },
        Ticket {
            until: UnixMillis(6_000),
            ..ticket
        },
    ];
    for forged in forged {
        assert!(
            !forged.holds(ONE, &user("bob"), &FakeVerifier),
            "{forged:?}"
        );
    }
}

#[test]
fn g15_who_finds_an_invitation_of_somebody_else_must_ask() {
    let mut net = Net::new(&["ann", "bob", "cat"], 92);
    let id = net.create();
    net.run(0, |g, now| g.invite(id, &user("bob"), now))
        .unwrap();
    net.pass(1_000);
    let asks = JoinReq {
        group: id.0,
        request: [9; 16],
        nonce: [9; 16],
        note: BoundedStr::truncated(""),
        ticket: net.nodes[1].groups.ticket(id),
        withdrawn: false,
    };
    let cat = net.nodes[2].me.clone();
    net.run(0, |g, now| g.handle_frame(&cat, &asks.into(), now));
    assert_eq!(net.users(0, id), ["ann"]);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().requests.len(), 1);
}
