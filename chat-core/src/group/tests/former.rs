//! What was said before the lead passed: a leave that was signed, a promise that was given, two
//! entries for one place. Each scenario once counted for too much or for too little.

use bytes::Bytes;

use super::super::entry::Entry;
use super::super::op::Op;
use super::super::*;
use super::net::{Net, name, user};
use crate::wire::BoundedVec;
use crate::wire::group::{Entries, GroupBeat};

const MINUTE: u64 = 60_000;

/// Bob leaves and asks to come back; ann hears it, and bob hears nothing of her.
fn bob_leaves_and_returns(net: &mut Net, id: GroupId) -> RequestId {
    net.cut.insert((0, 1));
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.pass(1_000);
    let request = net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    assert_eq!(net.mine(1, id), Some(Membership::Asking));
    request
}

#[test]
fn ig6_who_comes_back_while_it_leads_stays_whoever_logs_its_leave() {
    let mut net = Net::new(&["ann", "bob"], 80);
    let id = net.full();
    let request = bob_leaves_and_returns(&mut net, id);
    net.run(0, |g, now| g.approve(id, request, now)).unwrap();
    net.cut.insert((1, 0));
    net.pass(3 * MINUTE);
    assert_eq!(net.mine(1, id), Some(Membership::Leader), "alone of two");
    net.cut.clear();
    net.pass(5 * MINUTE);
    for node in [0, 1] {
        assert_eq!(net.users(node, id), ["ann", "bob"], "node {node}");
        assert_eq!(net.nodes[node].groups.view(id).unwrap().unsettled, 0);
    }
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
}

#[test]
fn ig5_the_leave_of_a_leader_that_came_back_and_is_alone_is_settled() {
    let mut net = Net::new(&["ann", "bob"], 81);
    let id = net.full();
    bob_leaves_and_returns(&mut net, id);
    assert_eq!(net.users(0, id), ["ann"], "the leave is logged");
    net.cut.insert((1, 0));
    net.pass(3 * MINUTE);
    net.run(1, |g, now| g.kick(id, &user("ann"), "", now))
        .unwrap();
    net.cut.clear();
    net.pass(5 * MINUTE);
    assert_eq!(net.mine(0, id), Some(Membership::Kicked));
    let bob = net.nodes[1].groups.view(id).unwrap();
    assert_eq!(
        (bob.mine, bob.unsettled, bob.roster.len()),
        (Membership::Leader, 0, 1)
    );
}

#[test]
fn g12_a_leader_alone_that_left_elsewhere_closes_the_group() {
    let mut net = Net::new(&["ann", "bob"], 82);
    let id = net.full();
    net.cut.insert((0, 1));
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.pass(1_000);
    assert_eq!(net.users(0, id), ["ann"]);
    net.cut.insert((1, 0));
    // Bob leads, and ann, whom it asks to lead in its place, is removed: it forgets that it leaves.
    net.pass(3 * MINUTE);
    net.run(1, |g, now| g.kick(id, &user("ann"), "", now))
        .unwrap();
    if let Some(group) = net.nodes[1].groups.groups.get_mut(&id) {
        group.record.leaving = None;
    }
    net.pass(MINUTE);
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
    net.cut.clear();
    net.pass(5 * MINUTE);
    let bob = net.nodes[1].groups.view(id).unwrap();
    assert_eq!((bob.mine, bob.unsettled), (Membership::Left, 0));
    assert!(net.nodes[1].groups.is_closed(id));
}

/// Another entry of the same author for the place of this one.
fn twin(entry: &Bytes, signer: &dyn Signer) -> Bytes {
    let mut draft = Entry::open(entry).unwrap().draft;
    draft.op = Op::Meta {
        name: name("other"),
    };
    Entry::sign(draft, signer).unwrap().bytes
}

fn page(id: GroupId, entries: &[Bytes]) -> Body {
    let list = entries.iter().map(|one| one.to_vec().try_into().unwrap());
    let entries = Entries {
        group: id.0,
        head: 0,
        entries: BoundedVec::take_from(list),
    };
    entries.into()
}

#[test]
fn ig9_two_entries_of_a_former_leader_say_nothing_against_the_next() {
    let mut net = Net::new(&["ann", "bob", "cat"], 83);
    let id = net.full();
    net.run(0, |g, now| g.rename(id, &name("first"), now))
        .unwrap();
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.pass(1_000);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(30_000);
    let chain = net.nodes[2].groups.chain(id).unwrap();
    assert_eq!(chain.roster.leader.user, user("bob"));
    let of = |who: usize| {
        let mine = |entry: &Entry| entry.draft.author == net.nodes[who].me.user;
        let entries = (2..=chain.index()).filter_map(|index| chain.entry(index));
        entries.rev().find(mine).unwrap().bytes
    };
    let (former, reigning) = (of(0), of(1));
    let (ann, bob) = (net.nodes[0].me.clone(), net.nodes[1].me.clone());
    let twins = [
        (twin(&former, &*net.nodes[0].signer), ann, false),
        (twin(&reigning, &*net.nodes[1].signer), bob, true),
    ];
    for (twin, from, distrusted) in twins {
        net.run(2, |g, now| {
            g.handle_frame(&from, &page(id, &[twin]), now);
        });
        let events = net.take_events(2);
        let told = |event: &GroupEvent| matches!(event, GroupEvent::Equivocation { leader, .. } if *leader == from.user);
        assert!(events.iter().any(told), "{}", from.user);
        let group = &net.nodes[2].groups.groups[&id];
        let reigns = group.chain.as_ref().unwrap().roster.term;
        assert_eq!(group.distrust == Some(reigns), distrusted, "{}", from.user);
    }
}

#[test]
fn ig7_who_promised_a_round_reports_nothing_more_to_the_leader_before() {
    let mut net = Net::new(&["ann", "bob", "cat"], 84);
    net.rules = Rules::strict();
    let id = net.full();
    net.pass(15_000);
    // What ann says now reaches nobody in time.
    net.cut.extend([(0, 1), (0, 2)]);
    let head = net.nodes[0].groups.chain(id).unwrap().head();
    let before = net.nodes[0].groups.view(id).unwrap().committed;
    assert_eq!(before, head.index);
    net.run(0, |g, now| g.rename(id, &name("late"), now))
        .unwrap();
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let late = page(id, &[chain.bytes(head.index + 1).unwrap().clone()]);
    let promised = |net: &Net| net.nodes[2].groups.groups[&id].record.promised.round;
    for _ in 0..40_000 {
        if promised(&net) > head.term.round {
            break;
        }
        net.pass(5);
    }
    assert_eq!(promised(&net), 2, "cat supports bob");
    net.cut.extend([(1, 0), (1, 2)]);
    // Now cat gets the entry, and a beat from before it.
    let ann = net.nodes[0].me.clone();
    let beat = GroupBeat {
        group: id.0,
        head: head.into(),
        commit: before,
    };
    net.run(2, |g, now| g.handle_frame(&ann, &late, now));
    net.run(2, |g, now| g.handle_frame(&ann, &beat.into(), now));
    net.pass(1_000);
    let committed = net.nodes[0].groups.view(id).unwrap().committed;
    assert_eq!(committed, before, "bob may claim without the entry");
    net.cut.clear();
    net.pass(2 * MINUTE);
    let heads = [0, 1, 2].map(|node| net.nodes[node].groups.chain(id).unwrap().head());
    assert!(
        heads
            .iter()
            .all(|one| one.term.round > 1 && *one == heads[0])
    );
}
