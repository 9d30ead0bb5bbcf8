//! Who holds more than the others when branches meet, or sits by a membership that it ended
//! elsewhere: each scenario once kept a group without a leader, or somebody without an answer.

use super::super::op::{Admission, Op};
use super::super::*;
use super::net::{Net, user};
use crate::delivery::Standing;

const MINUTE: u64 = 60_000;

fn leader(net: &Net, node: usize, id: GroupId) -> String {
    let view = net.nodes[node].groups.view(id).unwrap();
    view.leader.unwrap().to_string()
}

fn strict(names: &[&str], seed: u64) -> Net {
    let mut net = Net::new(names, seed);
    net.rules = Rules::strict();
    net
}

#[test]
fn ig5_who_was_let_in_after_a_refusal_learns_it_from_a_member_that_asks_it() {
    let mut net = Net::new(&["ann", "bob", "cat"], 70);
    let id = net.create();
    net.admit(0, 1, id);
    let request = net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    net.run(0, |g, now| g.deny(id, request, "full", now))
        .unwrap();
    net.pass(1_000);
    assert_eq!(net.mine(2, id), Some(Membership::Denied));
    net.down(2);
    let asking = net.nodes[2].groups.groups[&id].record.asking.clone();
    let admission = Admission {
        user: user("cat"),
        device: net.nodes[2].me.device,
        nonce: asking.unwrap().nonce,
    };
    net.run(0, |g, now| {
        let index = g.append(id, Op::Admit(vec![admission]), now).unwrap();
        g.publish(id, index);
    });
    net.pass(1_000);
    // Bob needs another member to succeed ann, and cat does not know that it is one.
    net.crash(0);
    net.up(2);
    net.pass(5 * MINUTE);
    assert_eq!(net.mine(2, id), Some(Membership::Member));
    assert_eq!(leader(&net, 2, id), "bob");
}

#[test]
fn ig5_who_left_on_a_branch_that_lost_supports_until_the_log_shows_it() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 71);
    let id = net.full();
    net.split(&[&[0, 1], &[2, 3]]);
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 3, id), "cat");
    net.run(3, |g, now| g.leave(id, now)).unwrap();
    net.pass(5_000);
    net.admit(2, 3, id);
    // A hand-over is worth more than cat's claim of the same round.
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.pass(1_000);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(1_000);
    // Dan hears of bob's branch from ann, and nobody of cat's from dan.
    net.cut.clear();
    net.cut.extend([(2, 0), (2, 1), (2, 3), (3, 1)]);
    let follows = |net: &Net, node: usize| {
        let chain = net.nodes[node].groups.chain(id).unwrap();
        chain.roster.leader.user == user("bob")
    };
    for _ in 0..20_000 {
        if follows(&net, 3) {
            break;
        }
        net.pass(5);
    }
    assert!(follows(&net, 3), "bob's branch won");
    net.crash(0);
    net.crash(1);
    net.cut.clear();
    assert_eq!(net.mine(3, id), Some(Membership::Asking));
    net.pass(6 * MINUTE);
    assert_eq!(leader(&net, 2, id), "cat");
    assert_eq!(net.mine(3, id), Some(Membership::Member));
}

#[test]
fn hole_10_an_applicant_that_holds_the_greater_log_shows_it_to_a_leader_that_beats() {
    let mut net = Net::new(&["ann", "bob", "cat"], 72);
    let id = net.create();
    net.admit(0, 1, id);
    net.split(&[&[1], &[0, 2]]);
    net.admit(0, 2, id);
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 1, id), "bob", "alone of two");
    net.cut.clear();
    net.split(&[&[0], &[1, 2]]);
    for _ in 0..1_000 {
        if net.mine(2, id) == Some(Membership::Asking) {
            break;
        }
        net.pass(10);
    }
    assert_eq!(net.mine(2, id), Some(Membership::Asking), "bob's log won");
    net.crash(1);
    net.cut.clear();
    net.pass(5 * MINUTE);
    assert_eq!(net.mine(2, id), Some(Membership::Member));
    assert_eq!(leader(&net, 2, id), "ann");
}

#[test]
fn g14_an_approval_that_no_log_shows_ends_with_the_lead() {
    let mut net = strict(&["ann", "bob", "cat", "dan", "eve"], 73);
    let id = net.create();
    net.admit(0, 1, id);
    net.admit(0, 2, id);
    let dan = net.run(3, |g, now| g.join(id, "", now)).unwrap();
    let eve = net.run(4, |g, now| g.join(id, "", now)).unwrap();
    net.pass(15_000);
    net.split(&[&[0], &[1, 2], &[3], &[4]]);
    for request in [dan, eve] {
        net.run(0, |g, now| g.approve(id, request, now)).unwrap();
    }
    let unsettled = |net: &Net| net.nodes[0].groups.view(id).unwrap().unsettled;
    assert_eq!(unsettled(&net), 1, "eve waits until dan is committed");
    net.crash(4);
    net.pass(3 * MINUTE);
    net.cut.clear();
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 0, id), "bob");
    assert_eq!(unsettled(&net), 0);
    let asks = &net.nodes[1].groups.view(id).unwrap().requests;
    assert!(asks.iter().any(|one| one.user == user("eve")), "{asks:?}");
}

#[test]
fn g12_a_leave_is_repeated_at_once_when_the_lead_passes() {
    let mut net = Net::new(&["ann", "bob", "cat"], 74);
    let id = net.full();
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.pass(1_000);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    while net.nodes[0].groups.chain(id).unwrap().roster.heir.is_none() {
        net.pass(1);
    }
    // Ann signs nothing any more, and cat does not know that yet.
    net.run(2, |g, now| g.leave(id, now)).unwrap();
    net.pass(500);
    assert_eq!(leader(&net, 1, id), "bob");
    assert_eq!(net.mine(2, id), Some(Membership::Left));
}

#[test]
fn g9_who_was_let_in_on_a_branch_that_lost_and_again_here_is_heard() {
    let mut net = Net::new(&["ann", "bob", "cat"], 75);
    let id = net.full();
    net.pass(15_000);
    let cat = net.nodes[2].me.clone();
    let index = net.nodes[1].groups.view(id).unwrap().index;
    // What it cites was its place on the other branch, before or beyond this log.
    for node in [0, 1] {
        let verdict = net.run(node, |g, now| g.judge(id, &cat, 2, now));
        assert_eq!(verdict, Verdict::Take(Standing::Current), "node {node}");
    }
    let verdict = net.run(1, |g, now| g.judge(id, &cat, index + 7, now));
    assert_eq!(verdict, Verdict::NotYet, "the leader may hold more");
    net.pass(12_000);
    let verdict = net.run(1, |g, now| g.judge(id, &cat, index + 7, now));
    assert_eq!(verdict, Verdict::Take(Standing::Current));
    let verdict = net.run(1, |g, now| g.judge(id, &cat, index + 8, now));
    assert_eq!(verdict, Verdict::NotYet, "nobody asked about this place");
}

#[test]
fn g12_a_leave_stands_when_its_membership_is_adopted_by_the_branch_that_won() {
    let mut net = Net::new(&["ann", "bob", "cat"], 76);
    let id = net.create();
    net.admit(0, 1, id);
    net.split(&[&[1], &[0, 2]]);
    net.admit(0, 2, id);
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 1, id), "bob", "alone of two");
    // Cat leaves, and then hears that bob's branch, which knows nothing of it, has won.
    net.down(2);
    net.run(2, |g, now| g.leave(id, now)).unwrap();
    net.cut.clear();
    net.split(&[&[0], &[1, 2]]);
    net.up(2);
    net.pass(MINUTE);
    let lost = &net.nodes[2].groups.chain(id).unwrap().roster;
    assert_eq!(lost.leader.user, user("bob"));
    // Ann shows that she had let cat in.
    net.cut.clear();
    net.pass(5 * MINUTE);
    assert_eq!(net.mine(2, id), Some(Membership::Left));
    assert_eq!(net.users(1, id), ["ann", "bob"]);
}

#[test]
fn ig5_who_was_removed_on_a_greater_branch_learns_that_its_own_lost() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 77);
    let id = net.full();
    net.split(&[&[0, 3], &[1, 2]]);
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
    // Two hand-overs make the other branch the greater one, long after the entry that removes bob.
    for (from, to, name) in [(0, 3, "dan"), (3, 0, "ann")] {
        net.run(from, |g, now| g.hand_over(id, &user(name), now))
            .unwrap();
        net.pass(2_000);
        net.run(to, |g, now| g.answer_offer(id, true, now)).unwrap();
        net.pass(2_000);
    }
    net.cut.clear();
    net.pass(5 * MINUTE);
    assert_eq!(net.mine(1, id), Some(Membership::Kicked));
    assert_eq!(net.users(2, id), ["ann", "cat", "dan"]);
}

#[test]
fn ig5_who_was_removed_on_a_lower_branch_is_found_when_its_support_is_needed() {
    let mut net = Net::new(&["ann", "bob", "cat"], 78);
    let id = net.full();
    net.split(&[&[0], &[1, 2]]);
    let promised = |net: &Net| net.nodes[2].groups.groups[&id].record.promised.round;
    for _ in 0..40_000 {
        if promised(&net) > 1 {
            break;
        }
        net.pass(5);
    }
    // Cat supports bob and never sees its claim.
    net.cut.insert((1, 2));
    net.pass(500);
    assert_eq!(leader(&net, 1, id), "bob");
    for name in ["bob", "cat"] {
        net.run(0, |g, now| g.kick(id, &user(name), "", now))
            .unwrap();
    }
    net.cut.clear();
    net.split(&[&[0, 2], &[1]]);
    net.pass(20_000);
    assert_eq!(net.mine(2, id), Some(Membership::Kicked));
    let chain = net.nodes[1].groups.chain(id).unwrap();
    let claim = chain.bytes(chain.index()).unwrap().clone();
    net.run(0, |g, now| g.absorb(id, &[claim], now));
    // Bob's branch won, and bob is gone before it hears of ann's.
    net.crash(1);
    assert_eq!(leader(&net, 0, id), "bob");
    net.cut.clear();
    net.pass(10 * MINUTE);
    assert_eq!(net.mine(0, id), Some(Membership::Leader));
    assert_eq!(net.users(0, id), ["ann"]);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().unsettled, 0);
    assert_eq!(net.mine(2, id), Some(Membership::Kicked));
}
