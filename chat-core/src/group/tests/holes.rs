//! Holes of the first drafts of the protocol (reliability 1.8), each with the rule that closed it. The
//! others are in [`super::succession`].

use super::super::*;
use super::net::{Net, user};
use super::succession::{MINUTE, agreed, halves, leader, strict};

/// Ann hands over to bob, who claims by the hand-over alone; the round that cat is in then.
fn claim_by_handover(mut net: Net) -> u64 {
    let id = net.full();
    net.pass(MINUTE);
    net.crash(0);
    net.crash(1);
    let (ann, bob) = (&net.nodes[0], &net.nodes[1]);
    let chain = net.nodes[2].groups.chain(id).unwrap();
    let term = chain.roster.term;
    let sign = |at: &super::net::Node, term, index, prev, op| {
        let draft = entry::Draft {
            group: id,
            term,
            index,
            prev,
            op,
            author: at.me.user.clone(),
            at: UnixMillis(1),
        };
        entry::Entry::sign(draft, &*at.signer).unwrap()
    };
    let to = bob.me.device;
    let pass = op::Op::Handover { to, agreed: true };
    let handed = sign(ann, term, chain.index() + 1, chain.hash(), pass);
    let reign = Term {
        round: 2,
        majority: true,
        seniority: chain.roster.seats[&to].seniority,
        claimant: to,
    };
    let claim = op::Op::Claim(op::Warrant::Handover);
    let claim = sign(bob, reign, chain.index() + 2, handed.hash, claim);
    let entries = [handed.bytes, claim.bytes];
    net.run(2, |g, now| g.absorb(id, &entries, now));
    net.nodes[2].groups.view(id).unwrap().round
}

#[test]
fn hole_3_in_a_strict_group_a_hand_over_replaces_no_certificate() {
    let names = ["ann", "bob", "cat"];
    assert_eq!(claim_by_handover(strict(&names, 70)), 1);
    assert_eq!(claim_by_handover(Net::new(&names, 70)), 2);
    // With a certificate the lead passes.
    let mut net = strict(&names, 71);
    let id = net.full();
    net.pass(MINUTE);
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.pass(1_000);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
    let chain = net.nodes[2].groups.chain(id).unwrap();
    let claim = chain.entry(chain.roster.claimed).unwrap().draft.op;
    assert!(matches!(claim, op::Op::Claim(op::Warrant::Certificate(_))));
}

#[test]
fn hole_5_a_kick_of_the_reigning_leader_is_logged_although_it_beats_on() {
    // A majority stands behind cat, so ann does not defend itself (R7).
    let (mut net, id) = halves(72);
    assert!(net.nodes[3].groups.view(id).unwrap().majority);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    net.pass(2_000);
    net.crash(4);
    // Cat is heard and hears nothing, so it cannot know that it must go.
    net.cut = [0, 1, 3, 5, 6].map(|node| (node, 2)).into();
    net.pass(6 * MINUTE);
    assert_ne!(leader(&net, 3, id), "cat");
    assert!(!net.users(3, id).contains(&"cat".to_owned()));
    net.cut.clear();
    net.pass(2 * MINUTE);
    assert_eq!(net.mine(2, id), Some(Membership::Kicked));
    agreed(&net, id);
}

#[test]
fn hole_7_a_lame_leader_supports_whoever_asks() {
    let (mut net, id) = halves(73);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    net.pass(1_000);
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let kick = chain.bytes(chain.index()).unwrap().clone();
    for node in [0, 1, 4] {
        net.crash(node);
    }
    // Dan is not heard for so long that cat keeps the lead as a caretaker.
    net.cut.insert((3, 2));
    net.pass(MINUTE);
    net.run(2, |g, now| g.absorb(id, &[kick], now));
    assert_eq!(leader(&net, 2, id), "cat");
    let base = net.nodes[2].groups.chain(id).unwrap().head();
    let canvass = crate::wire::group::Canvass {
        group: id.0,
        round: base.term.round + 1,
        base: base.into(),
    };
    let dan = net.nodes[3].me.clone();
    net.run(2, |g, now| g.handle_frame(&dan, &canvass.into(), now));
    let promised = &net.nodes[2].groups.groups[&id].record.promised;
    assert_eq!(promised.round, base.term.round + 1);
    assert_eq!(promised.candidate, dan.device.0);
}

#[test]
fn hole_8_a_kick_of_somebody_who_is_not_in_is_logged_too() {
    let (mut net, id) = halves(74);
    net.admit(0, 5, id);
    net.down(5);
    net.run(0, |g, now| g.kick(id, &user("fay"), "", now))
        .unwrap();
    net.pass(2_000);
    net.cut.clear();
    net.pass(5 * MINUTE);
    // On cat's branch, which won, fay never was; the log says all the same that it is out.
    let fay = net.nodes[5].me.device;
    let chain = net.nodes[2].groups.chain(id).unwrap();
    let past: Vec<_> = chain.roster.past(fay).map(|gone| gone.way).collect();
    assert_eq!(past, [roster::Way::Kicked]);
    net.up(5);
    net.pass(2 * MINUTE);
    assert_eq!(net.mine(5, id), Some(Membership::Kicked));
    agreed(&net, id);
}

#[test]
fn hole_12_a_leader_that_promised_a_greater_round_asks_until_it_reigns_above_it() {
    let mut net = strict(&["ann", "bob", "cat"], 75);
    let id = net.full();
    net.pass(MINUTE);
    let bob = net.nodes[1].me.device;
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.record.promised.round = 5;
    held.record.promised.candidate = bob.0;
    let refused = net.run(0, |g, now| g.kick(id, &user("cat"), "", now));
    assert_eq!(refused, Err(GroupError::NoMajority));
    // Nobody hears it when it asks first.
    net.split(&[&[0], &[1], &[2]]);
    net.pass(20_000);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().round, 1);
    net.cut.clear();
    net.pass(MINUTE);
    let view = net.nodes[2].groups.view(id).unwrap();
    assert!(view.round > 5 && view.leader == Some(user("ann")));
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    net.pass(MINUTE);
    assert_eq!(net.users(1, id), ["ann", "bob"]);
}

#[cfg(feature = "probe")]
#[test]
fn planted_bugs_of_a_lame_leader_are_found() {
    use crate::probe;

    probe::plant(Some("group-lame-beats-count"));
    let law = hole_5_a_kick_of_the_reigning_leader_is_logged_although_it_beats_on;
    let found = std::panic::catch_unwind(law).is_err();
    probe::plant(None);
    assert!(found, "group-lame-beats-count survives");
}
