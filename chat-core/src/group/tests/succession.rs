//! Succession by certificate: the rules of reliability 1.5 and 1.6, one scenario each, and the holes
//! that the prototype found (1.8).

use super::super::*;
use super::net::{Net, name, user};
use crate::effect::Effect;

pub(super) const MINUTE: u64 = 60_000;

pub(super) fn leader(net: &Net, node: usize, id: GroupId) -> String {
    let view = net.nodes[node].groups.view(id).unwrap();
    view.leader.unwrap().to_string()
}

pub(super) fn strict(names: &[&str], seed: u64) -> Net {
    let mut net = Net::new(names, seed);
    net.rules = Rules::strict();
    net
}

/// Everybody who lives has one head, one leader, one visible roster, and nothing is unsettled.
pub(super) fn agreed(net: &Net, id: GroupId) {
    let mut seen = None;
    for node in net.nodes.iter().filter(|node| node.alive && node.up) {
        let Some(view) = node.groups.view(id) else {
            continue;
        };
        if !matches!(view.mine, Membership::Member | Membership::Leader) {
            continue;
        }
        assert_eq!(view.unsettled, 0, "{}", node.me.user);
        let state = (view.hash, view.leader, view.roster);
        assert_eq!(
            *seen.get_or_insert(state.clone()),
            state,
            "{}",
            node.me.user
        );
    }
}

#[test]
fn g4_the_most_senior_member_follows_a_leader_that_is_silent() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 40);
    let id = net.full();
    net.take_events(3);
    net.crash(0);
    net.pass(50_000);
    assert_eq!(leader(&net, 3, id), "ann", "not before its time");
    net.pass(40_000);
    assert_eq!(leader(&net, 3, id), "bob");
    let view = net.nodes[3].groups.view(id).unwrap();
    assert!(view.majority && view.round == 2);
    let told = net.take_events(3);
    let how = Passing::Succeeded { majority: true };
    let passed = Change::Leader {
        user: user("bob"),
        how,
    };
    assert!(told.iter().any(|event| matches!(event,
        GroupEvent::Changed { change, by, round: 2, .. } if *change == passed && *by == user("bob"))));
    // The new leader works.
    net.run(1, |g, now| g.kick(id, &user("ann"), "gone", now))
        .unwrap();
    net.pass(3_000);
    net.restart(0);
    net.pass(MINUTE);
    assert_eq!(net.mine(0, id), Some(Membership::Kicked));
    agreed(&net, id);
}

#[test]
fn ig9_nobody_succeeds_a_leader_because_of_its_own_outage() {
    let mut net = Net::new(&["ann", "bob", "cat"], 41);
    let id = net.full();
    net.down(1);
    net.pass(10 * MINUTE);
    net.up(1);
    net.pass(2 * MINUTE);
    assert_eq!(net.nodes[1].groups.view(id).unwrap().round, 1);
    // Connected, but it hears nobody: alone it is too few.
    net.split(&[&[1], &[0, 2]]);
    net.pass(10 * MINUTE);
    assert_eq!(net.nodes[1].groups.view(id).unwrap().round, 1);
    net.cut.clear();
    net.pass(2 * MINUTE);
    assert_eq!(leader(&net, 1, id), "ann");
    agreed(&net, id);
}

#[test]
fn ig9_who_stood_still_reads_before_it_asks() {
    let mut net = Net::new(&["ann", "bob"], 46);
    let id = net.full();
    let asks = |net: &Net| net.nodes[1].groups.groups[&id].canvass.is_some();
    // Bob's process stood still for long; what ann said meanwhile lies unread.
    let still = |now: Now, seconds| Now {
        mono: now.mono + Duration::from_secs(seconds),
        ..now
    };
    net.run(1, |g, now| g.handle_timeout(still(now, 120)));
    assert!(!asks(&net));
    // There was nothing: now it asks.
    let config = GroupConfig::default();
    let soon = config.window + config.spread;
    net.run(1, |g, now| {
        g.handle_timeout(still(now, 120 + soon.as_secs() + 1))
    });
    assert!(asks(&net));
}

#[cfg(feature = "probe")]
#[test]
fn who_asks_before_it_reads_is_found() {
    crate::probe::plant(Some("group-asks-before-it-reads"));
    let found = std::panic::catch_unwind(ig9_who_stood_still_reads_before_it_asks).is_err();
    crate::probe::plant(None);
    assert!(found);
}

#[test]
fn a_group_of_two_lives_on_without_its_leader() {
    let mut net = Net::new(&["ann", "bob"], 42);
    let id = net.full();
    net.crash(0);
    net.pass(2 * MINUTE);
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
    net.restart(0);
    net.pass(MINUTE);
    assert_eq!(net.mine(0, id), Some(Membership::Member));
    agreed(&net, id);
}

#[test]
fn g14_whoever_leads_next_answers_a_request_that_the_first_leader_never_did() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 43);
    let id = net.create();
    net.admit(0, 1, id);
    net.admit(0, 2, id);
    net.run(3, |g, now| g.join(id, "hi", now)).unwrap();
    net.pass(1_000);
    net.crash(0);
    // Also when the applicant is away by then.
    net.down(3);
    net.pass(2 * MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
    let waiting = net.nodes[1].groups.view(id).unwrap().requests;
    assert_eq!(waiting.len(), 1);
    assert!(net.take_events(1).iter().any(
        |event| matches!(event, GroupEvent::JoinRequested { request, .. } if request.note == "hi")
    ));
    net.run(1, |g, now| g.approve(id, waiting[0].request, now))
        .unwrap();
    net.pass(1_000);
    net.up(3);
    net.pass(2 * MINUTE);
    assert_eq!(net.mine(3, id), Some(Membership::Member));
    agreed(&net, id);
}

#[test]
fn g14_what_the_first_leader_refused_is_not_asked_again() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 44);
    let id = net.create();
    net.admit(0, 1, id);
    net.admit(0, 2, id);
    let request = net.run(3, |g, now| g.join(id, "hi", now)).unwrap();
    net.pass(1_000);
    net.run(0, |g, now| g.deny(id, request, "no", now)).unwrap();
    net.pass(1_000);
    net.crash(0);
    net.pass(2 * MINUTE);
    assert_eq!(net.nodes[1].groups.view(id).unwrap().requests, []);
}

/// Ann and bob on one side, cat, dan and eve on the other; fay asks on the first side, gus on the
/// second.
pub(super) fn halves(seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(&["ann", "bob", "cat", "dan", "eve", "fay", "gus"], seed);
    let id = net.create();
    for joiner in 1..5 {
        net.admit(0, joiner, id);
    }
    net.split(&[&[0, 1, 5], &[2, 3, 4, 6]]);
    net.pass(3 * MINUTE);
    (net, id)
}

#[test]
fn g6_kicks_leaves_and_admissions_of_both_halves_count_when_they_meet() {
    let (mut net, id) = halves(45);
    assert_eq!(leader(&net, 1, id), "ann");
    assert_eq!(leader(&net, 3, id), "cat");
    net.run(0, |g, now| g.kick(id, &user("dan"), "spam", now))
        .unwrap();
    net.run(0, |g, now| g.rename(id, &name("lost"), now))
        .unwrap();
    net.admit(0, 5, id);
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.admit(2, 6, id);
    net.run(2, |g, now| g.kick(id, &user("eve"), "rude", now))
        .unwrap();
    net.pass(5_000);
    assert_eq!(net.users(0, id), ["ann", "cat", "eve", "fay"]);
    assert_eq!(net.users(2, id), ["ann", "bob", "cat", "dan", "gus"]);
    net.take_events(0);
    net.cut.clear();
    net.pass(5 * MINUTE);
    for node in [0, 2, 5, 6] {
        let held = &net.nodes[node].groups.groups[&id];
        assert!(held.orphans.is_empty(), "all of it is settled");
        let mut users = net.users(node, id);
        users.sort();
        assert_eq!(users, ["ann", "cat", "fay", "gus"], "node {node}");
    }
    agreed(&net, id);
    assert_eq!(net.mine(3, id), Some(Membership::Kicked));
    let told = net.take_events(0);
    let forked = told.iter().find_map(|event| match event {
        GroupEvent::Forked { undone, .. } => Some(undone.clone()),
        _ => None,
    });
    let renamed = Change::Renamed { name: name("lost") };
    assert!(forked.unwrap().contains(&(user("ann"), renamed)));
    assert_eq!(net.nodes[0].groups.view(id).unwrap().name, name("ops"));
}

#[test]
fn ig6_who_was_let_in_by_a_half_that_lost_is_in_without_another_answer() {
    let (mut net, id) = halves(46);
    net.admit(0, 5, id);
    // Nobody of that half but the newcomer itself is left.
    net.crash(0);
    net.crash(1);
    net.cut.clear();
    net.pass(5 * MINUTE);
    assert_eq!(net.mine(5, id), Some(Membership::Member));
    assert_eq!(net.nodes[2].groups.view(id).unwrap().requests, []);
    agreed(&net, id);
}

#[test]
fn ig4_a_kick_wins_over_an_admission_on_the_other_side() {
    let (mut net, id) = halves(47);
    net.admit(2, 6, id);
    net.run(2, |g, now| g.kick(id, &user("gus"), "", now))
        .unwrap();
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    net.pass(2_000);
    net.cut.clear();
    net.pass(6 * MINUTE);
    // Cat led the half that won; it had to go, and another logged that.
    assert_eq!(net.mine(2, id), Some(Membership::Kicked));
    assert_ne!(leader(&net, 3, id), "cat");
    assert_eq!(net.mine(6, id), Some(Membership::Kicked));
    agreed(&net, id);
}

#[test]
fn g8_leaders_that_kick_each_other_are_both_out() {
    let (mut net, id) = halves(48);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    net.run(2, |g, now| g.kick(id, &user("ann"), "", now))
        .unwrap();
    net.pass(2_000);
    net.cut.clear();
    net.pass(6 * MINUTE);
    for node in [0, 2] {
        assert_eq!(net.mine(node, id), Some(Membership::Kicked), "node {node}");
    }
    let mut users = net.users(3, id);
    users.sort();
    assert_eq!(users, ["bob", "dan", "eve"]);
    agreed(&net, id);
}

#[test]
fn r7_a_minority_cannot_keep_the_lead_of_a_group_whose_leader_is_there() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan", "eve", "fay", "gus"], 49);
    let id = net.full();
    // Fay and gus hear nobody else, and elect one of them.
    net.split(&[&[0, 1, 2, 3, 4], &[5, 6]]);
    net.pass(4 * MINUTE);
    assert_eq!(leader(&net, 5, id), "fay");
    assert_eq!(leader(&net, 1, id), "ann");
    net.cut.clear();
    net.pass(2 * MINUTE);
    assert_eq!(leader(&net, 5, id), "ann");
    agreed(&net, id);
}

#[test]
fn r9_after_a_fence_late_orders_of_a_former_leader_count_for_nothing() {
    let mut net = Net::new(&["ann", "bob", "cat"], 50);
    let id = net.full();
    // What ann signs on the old branch, and shows to nobody.
    let old = net.nodes[0].groups.chain(id).unwrap().clone();
    let seat = old.roster.seats[&net.nodes[2].me.device].clone();
    let draft = entry::Draft {
        group: id,
        term: old.roster.term,
        index: old.index() + 1,
        prev: old.hash(),
        op: op::Op::Kick {
            user: user("cat"),
            instances: vec![(net.nodes[2].me.device, seat.nonce)],
            reason: "revenge".to_owned(),
        },
        author: user("ann"),
        at: UnixMillis(1),
    };
    let late = entry::Entry::sign(draft, &*net.nodes[0].signer).unwrap();
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.pass(1_000);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
    let fences = &net.nodes[2].groups.chain(id).unwrap().roster.fences;
    assert_eq!(fences.len(), 1);
    for node in [1, 2] {
        net.run(node, |g, now| {
            g.absorb(id, core::slice::from_ref(&late.bytes), now)
        });
    }
    net.pass(MINUTE);
    assert_eq!(net.users(1, id), ["ann", "bob", "cat"]);
    agreed(&net, id);
}

#[test]
fn r9_while_the_leader_hears_nobody_no_time_to_show_anything_passes() {
    let mut net = Net::new(&["ann", "bob", "cat"], 57);
    let id = net.full();
    net.split(&[&[0], &[1, 2]]);
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
    net.cut.clear();
    net.pass(20_000);
    assert_eq!(leader(&net, 0, id), "bob", "ann knows it");
    net.down(1);
    net.pass(10_000);
    net.up(1);
    net.pass(50_000);
    let fences = |net: &Net| net.nodes[1].groups.chain(id).unwrap().roster.fences.len();
    assert_eq!((leader(&net, 2, id).as_str(), fences(&net)), ("bob", 0));
    net.pass(MINUTE);
    assert_eq!((leader(&net, 2, id).as_str(), fences(&net)), ("bob", 1));
}

#[test]
fn strict_a_minority_changes_nothing_and_a_majority_loses_nothing() {
    let mut net = strict(&["ann", "bob", "cat", "dan", "eve"], 51);
    let id = net.full();
    net.pass(MINUTE);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().committed, 5);
    net.split(&[&[0, 1], &[2, 3, 4]]);
    net.pass(MINUTE);
    let refused = net.run(0, |g, now| g.kick(id, &user("dan"), "", now));
    assert_eq!(refused, Err(GroupError::NoMajority));
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 3, id), "cat");
    net.run(2, |g, now| g.kick(id, &user("eve"), "", now))
        .unwrap();
    net.pass(MINUTE);
    net.cut.clear();
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 0, id), "cat");
    assert_eq!(net.users(0, id), ["ann", "bob", "cat", "dan"]);
    agreed(&net, id);
}

#[test]
fn strict_changes_wait_for_each_other() {
    let mut net = strict(&["ann", "bob", "cat", "dan"], 52);
    let id = net.full();
    net.pass(MINUTE);
    for who in ["bob", "cat"] {
        net.run(0, |g, now| g.kick(id, &user(who), "", now))
            .unwrap();
    }
    assert_eq!(net.users(0, id), ["ann", "cat", "dan"]);
    net.pass(MINUTE);
    assert_eq!(net.users(3, id), ["ann", "dan"]);
    agreed(&net, id);
}

#[test]
fn hole_1_after_a_split_vote_a_later_round_decides() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan", "eve"], 53);
    net.rules = Rules::strict();
    let id = net.full();
    net.crash(0);
    net.pass(40_000);
    // Bob and cat ask at the same moment for the same round; each gets one other vote.
    net.split(&[&[1, 3], &[2, 4]]);
    for node in [1, 2] {
        net.run(node, |g, now| g.canvass(id, now));
    }
    net.pass(2_000);
    for node in 1..5 {
        let round = net.nodes[node].groups.groups[&id].record.promised.round;
        assert_eq!(round, if node > 2 { 2 } else { 0 });
    }
    net.cut.clear();
    net.pass(4 * MINUTE);
    agreed(&net, id);
    assert_ne!(leader(&net, 4, id), "ann");
}

#[test]
fn hole_2_who_promised_a_greater_round_acknowledges_the_old_leader_no_more() {
    let mut net = strict(&["ann", "bob", "cat"], 54);
    let id = net.full();
    net.pass(MINUTE);
    let bob = net.nodes[1].me.clone();
    let base = net.nodes[1].groups.chain(id).unwrap().head();
    net.nodes[2].groups.groups.get_mut(&id).unwrap().heard = None;
    net.nodes[2].groups.up_since = Timestamp::ZERO;
    let canvass = crate::wire::group::Canvass {
        group: id.0,
        round: 2,
        base: base.into(),
    };
    net.now = net.now + Duration::from_secs(40);
    net.run(2, |g, now| g.handle_frame(&bob, &canvass.into(), now));
    assert_eq!(net.nodes[2].groups.groups[&id].record.promised.round, 2);
    net.run(2, |g, _| g.report_head(id));
    let said = "cat to ann: refusal: promised".to_owned();
    assert!(net.trace.contains(&said), "it says so instead");
    // The leader reigns on under a greater term.
    net.pass(MINUTE);
    let view = net.nodes[2].groups.view(id).unwrap();
    assert!(view.round > 2);
    agreed(&net, id);
}

#[test]
fn hole_4_an_applicant_asks_on_when_the_one_who_saw_it_is_gone() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 55);
    let id = net.create();
    net.admit(0, 1, id);
    net.admit(0, 2, id);
    net.split(&[&[1, 2], &[0, 3]]);
    net.run(3, |g, now| g.join(id, "", now)).unwrap();
    net.pass(2_000);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().requests.len(), 1);
    net.crash(0);
    net.cut.clear();
    net.pass(4 * MINUTE);
    let node = usize::from(net.mine(1, id) != Some(Membership::Leader)) + 1;
    let waiting = net.nodes[node].groups.view(id).unwrap().requests;
    assert_eq!(waiting.len(), 1);
}

#[test]
fn hole_6_a_lame_leader_with_nobody_alive_stays_a_caretaker() {
    let (mut net, id) = halves(56);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    net.pass(1_000);
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let kick = chain.bytes(chain.index()).unwrap().clone();
    for node in [0, 1, 3, 4] {
        net.crash(node);
    }
    net.pass(MINUTE);
    net.run(2, |g, now| g.absorb(id, &[kick], now));
    assert!(lame::is_lame(&net.nodes[2].groups.groups[&id]));
    net.pass(5 * MINUTE);
    assert_eq!(leader(&net, 2, id), "cat");
    net.restart(3);
    net.restart(4);
    net.pass(5 * MINUTE);
    assert_eq!(net.mine(2, id), Some(Membership::Kicked));
    agreed(&net, id);
}

#[test]
fn hole_9_a_hand_over_to_somebody_who_vanishes_blocks_nobody() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 57);
    let id = net.full();
    net.run(0, |g, now| g.hand_over(id, &user("dan"), now))
        .unwrap();
    net.pass(1_000);
    net.run(3, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.crash(3);
    net.pass(3 * MINUTE);
    let view = net.nodes[2].groups.view(id).unwrap();
    assert!(view.round > 1 && view.leader != Some(user("dan")));
    net.restart(3);
    net.pass(MINUTE);
    agreed(&net, id);
}

#[test]
fn hole_10_a_former_member_that_holds_the_only_copy_serves_it() {
    let mut net = Net::new(&["ann", "bob", "cat"], 58);
    let id = net.full();
    net.down(2);
    net.run(0, |g, now| g.rename(id, &name("dev"), now))
        .unwrap();
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.pass(2_000);
    net.crash(0);
    net.up(2);
    net.run(2, |g, now| g.send_fetch(id, &user("bob"), now));
    net.pass(1_000);
    assert_eq!(net.users(2, id), ["ann", "cat"]);
}

#[test]
fn hole_11_the_only_member_logs_that_a_kick_of_it_means_nothing() {
    let mut net = Net::new(&["ann", "bob", "cat"], 59);
    let id = net.full();
    // Bob and cat take over; ann, on her side, kicks bob, and bob kicks cat and ann.
    net.split(&[&[0], &[1, 2]]);
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.pass(4 * MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
    for who in ["cat", "ann"] {
        net.run(1, |g, now| g.kick(id, &user(who), "", now))
            .unwrap();
    }
    net.pass(1_000);
    net.cut.clear();
    net.pass(2 * MINUTE);
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
    let chain = net.nodes[1].groups.chain(id).unwrap();
    assert_eq!(chain.roster.voided.len(), 1);
    net.crash(1);
    net.restart(1);
    net.pass(1_000);
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
    assert_eq!(net.nodes[1].groups.view(id).unwrap().unsettled, 0);
}

#[test]
fn a_promise_is_durable_before_it_leaves() {
    let mut net = Net::new(&["ann", "bob", "cat"], 60);
    let id = net.full();
    net.crash(0);
    net.pass(40_000);
    net.prompt = false;
    net.run(1, |g, now| g.canvass(id, now));
    net.flush(1);
    let base = net.nodes[1].groups.chain(id).unwrap().head();
    let canvass = crate::wire::group::Canvass {
        group: id.0,
        round: 2,
        base: base.into(),
    };
    let bob = net.nodes[1].me.clone();
    let now = net.clock();
    let cat = &mut net.nodes[2].groups;
    cat.handle_frame(&bob, &canvass.clone().into(), now);
    let mut stored = false;
    let mut sent = false;
    while let Some(effect) = cat.effects().pop() {
        match effect {
            Effect::Row(_) => stored = true,
            Effect::Send(frame) if matches!(frame.body, Body::Support(_)) => {
                assert!(stored && frame.gated);
                sent = true;
            }
            _ => {}
        }
    }
    assert!(sent);
    // The same candidate gets it again, another does not.
    cat.handle_frame(&bob, &canvass.into(), now);
    let again = core::iter::from_fn(|| cat.effects().pop());
    let again = again.filter(
        |effect| matches!(effect, Effect::Send(frame) if matches!(frame.body, Body::Support(_))),
    );
    assert_eq!(again.count(), 1);
}

#[test]
fn g2_a_leader_leaves_although_the_first_in_line_is_gone() {
    let mut net = Net::new(&["ann", "bob", "cat"], 64);
    let id = net.full();
    net.pass(MINUTE);
    net.crash(1);
    net.run(0, |g, now| g.leave(id, now)).unwrap();
    net.pass(2 * MINUTE);
    net.run(2, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(MINUTE);
    assert_eq!(net.mine(0, id), Some(Membership::Left));
    assert_eq!(leader(&net, 2, id), "cat");
}

#[test]
fn ig11_kicks_and_leaves_of_other_branches_are_bounded() {
    let (mut net, id) = halves(65);
    let old = net.nodes[0].groups.chain(id).unwrap().clone();
    // Ann signs one long branch of kicks, of people who never were.
    let mut branch = Vec::new();
    let (mut prev, mut index) = (old.hash(), old.index());
    for i in 0..sticky::MAX_STICKY as u64 + 20 {
        index += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&i.to_le_bytes());
        let draft = entry::Draft {
            group: id,
            term: old.roster.term,
            index,
            prev,
            op: op::Op::Kick {
                user: user("nobody"),
                instances: vec![(DeviceId([7; 32]), nonce)],
                reason: String::new(),
            },
            author: user("ann"),
            at: UnixMillis(1),
        };
        let entry = entry::Entry::sign(draft, &*net.nodes[0].signer).unwrap();
        prev = entry.hash;
        branch.push(entry.bytes);
    }
    net.run(3, |g, now| g.absorb(id, &branch, now));
    let held = &net.nodes[3].groups.groups[&id];
    assert_eq!(held.sticky.len(), sticky::MAX_STICKY);
    assert!(held.orphans.is_empty(), "too long to be shown to others");
    // They hold here, and a restart finds them.
    net.crash(3);
    net.restart(3);
    assert_eq!(
        net.nodes[3].groups.groups[&id].sticky.len(),
        sticky::MAX_STICKY
    );
}

#[test]
fn g15_an_invitation_lets_its_holder_in_without_a_question() {
    let mut net = Net::new(&["ann", "bob", "cat"], 61);
    let id = net.create();
    net.admit(0, 1, id);
    net.run(0, |g, now| g.invite(id, &user("cat"), now))
        .unwrap();
    net.pass(1_000);
    let invited = GroupEvent::Invited {
        group: id,
        name: name("ops"),
        by: user("ann"),
    };
    assert!(net.take_events(2).contains(&invited));
    // Whoever leads then takes it.
    net.crash(0);
    net.crash(2);
    net.pass(3 * MINUTE);
    net.restart(2);
    net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.pass(MINUTE);
    assert_eq!(net.mine(2, id), Some(Membership::Member));
    assert!(
        !net.take_events(1)
            .iter()
            .any(|e| matches!(e, GroupEvent::JoinRequested { .. }))
    );
}

#[test]
fn g15_a_knock_that_crosses_an_invitation_joins_at_once() {
    for asks_first in [true, false] {
        let mut net = Net::new(&["ann", "bob"], 62);
        let id = net.create();
        net.run(1, |g, now| g.join(id, "", now)).unwrap();
        if asks_first {
            net.pass(1_000);
        }
        net.run(0, |g, now| g.invite(id, &user("bob"), now))
            .unwrap();
        net.pass(5_000);
        assert_eq!(net.mine(1, id), Some(Membership::Member));
    }
}

#[test]
fn a_lost_lease_shortens_the_wait_and_a_held_one_is_told() {
    let mut net = strict(&["ann", "bob", "cat"], 63);
    let id = net.full();
    net.pass(MINUTE);
    let guarantee = |net: &Net| net.nodes[1].groups.view(id).unwrap().guarantee;
    assert_eq!(guarantee(&net), Guarantee::Led);
    let ann = net.nodes[0].me.device;
    for node in [1, 2] {
        net.run(node, |g, now| {
            g.handle_fence_hint(id, LeaseHint::Held(ann), now)
        });
    }
    assert_eq!(guarantee(&net), Guarantee::Fenced);
    net.crash(0);
    net.pass(1_000);
    for node in [1, 2] {
        net.run(node, |g, now| g.handle_fence_hint(id, LeaseHint::Lost, now));
    }
    net.pass(45_000);
    assert_eq!(leader(&net, 2, id), "bob");
    // A hint deposes nobody who is there.
    for node in [1, 2] {
        net.run(node, |g, now| g.handle_fence_hint(id, LeaseHint::Lost, now));
    }
    net.pass(3 * MINUTE);
    assert_eq!(leader(&net, 2, id), "bob");
}
