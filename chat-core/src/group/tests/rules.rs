//! Each rule on a network that works, or fails in one chosen way.

use super::super::*;
use super::net::{Net, name, user};
use crate::delivery::Standing;

fn changes(events: &[GroupEvent]) -> Vec<&Change> {
    let mut changes = Vec::new();
    for event in events {
        if let GroupEvent::Changed { change, .. } = event {
            changes.push(change);
        }
    }
    changes
}

#[test]
fn g1_a_group_is_named_by_its_signed_first_entry() {
    let mut net = Net::new(&["ann", "bob"], 1);
    let first = net.create();
    let second = net.create();
    assert_ne!(first, second);
    let chain = net.nodes[0].groups.chain(first).unwrap();
    let entry = entry::Entry::open(chain.bytes(1).unwrap()).unwrap();
    assert_eq!(GroupId(entry.hash), first);
    assert_eq!(net.mine(0, first), Some(Membership::Leader));
    assert!(matches!(
        net.take_events(0)[..],
        [
            GroupEvent::Changed {
                change: Change::Created,
                round: 1,
                index: 1,
                ..
            },
            GroupEvent::Changed { .. }
        ]
    ));
}

#[test]
fn g2_a_leader_goes_only_after_its_successor_leads() {
    let mut net = Net::new(&["ann", "bob", "cat"], 2);
    let id = net.full();
    let plan = net.nodes[0].groups.plan_leave(id).unwrap();
    assert_eq!((plan.successor, plan.closes), (Some(user("bob")), false));
    net.run(0, |g, now| g.leave(id, now)).unwrap();
    net.pass(20_000);
    // G18: nothing happened yet, the target has not agreed.
    assert_eq!(net.mine(0, id), Some(Membership::Leaving));
    assert_eq!(net.users(2, id), ["ann", "bob", "cat"]);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(30_000);
    assert_eq!(net.mine(0, id), Some(Membership::Left));
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
    assert_eq!(net.users(2, id), ["bob", "cat"]);
    let view = net.nodes[2].groups.view(id).unwrap();
    assert_eq!((view.leader, view.round), (Some(user("bob")), 2));
}

#[test]
fn g2_an_offer_to_a_device_of_our_own_that_left_is_dropped() {
    let mut net = Net::new(&["ann1", "ann2", "bob"], 2);
    let id = net.create();
    net.admit(0, 1, id);
    net.run(0, |g, now| g.leave(id, now)).unwrap();
    net.admit(0, 2, id);
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.pass(30_000);
    net.run(2, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(30_000);
    assert_eq!(net.mine(0, id), Some(Membership::Left));
    assert_eq!(net.mine(2, id), Some(Membership::Leader));
}

#[test]
fn g3_the_most_senior_other_person_follows() {
    let mut net = Net::new(&["ann1", "ann2", "zoe", "bob"], 3);
    let id = net.full();
    let plan = net.nodes[0].groups.plan_leave(id).unwrap();
    assert_eq!(plan.successor, Some(user("zoe")));
    assert_eq!(net.nodes[3].groups.plan_leave(id).unwrap().successor, None);
}

#[test]
fn g9_a_message_counts_by_the_roster_that_it_cites() {
    let mut net = Net::new(&["ann", "bob", "cat"], 4);
    let id = net.full();
    let index = net.nodes[1].groups.audience(id).unwrap().index;
    net.run(0, |g, now| g.kick(id, &user("bob"), "spam", now))
        .unwrap();
    net.pass(3_000);
    let bob = net.nodes[1].me.clone();
    let cat = net.nodes[2].me.clone();
    let mut judge = |from: &Sender, at| net.run(2, |g, now| g.judge(id, from, at, now));
    assert_eq!(judge(&bob, index), Verdict::Take(Standing::Former));
    assert_eq!(judge(&bob, index + 1), Verdict::Stranger);
    assert_eq!(judge(&bob, 1), Verdict::Stranger);
    assert_eq!(judge(&bob, index + 9), Verdict::NotYet);
    assert_eq!(judge(&cat, index + 1), Verdict::Take(Standing::Current));
    let forged = Sender {
        user: user("ann"),
        ..cat
    };
    assert_eq!(judge(&forged, index + 1), Verdict::Stranger);
    assert_eq!(net.nodes[1].groups.audience(id), None);
}

#[test]
fn g10_a_newer_roster_makes_us_fetch_it() {
    let mut net = Net::new(&["ann", "bob", "cat"], 5);
    let id = net.full();
    net.down(2);
    net.run(0, |g, now| g.rename(id, &name("dev"), now))
        .unwrap();
    net.pass(100);
    net.loss = 100;
    net.up(2);
    net.pass(2_000);
    net.loss = 0;
    let ann = net.nodes[0].me.clone();
    let index = net.nodes[0].groups.view(id).unwrap().index;
    let verdict = net.run(2, |g, now| g.judge(id, &ann, index, now));
    assert_eq!(verdict, Verdict::NotYet);
    net.pass(2_000);
    let verdict = net.run(2, |g, now| g.judge(id, &ann, index, now));
    assert_eq!(verdict, Verdict::Take(Standing::Current));
}

#[test]
fn g11_a_victim_learns_who_removed_it_and_why() {
    let mut net = Net::new(&["ann", "bob", "cat"], 6);
    let id = net.full();
    net.take_events(1);
    net.run(0, |g, now| g.kick(id, &user("bob"), "spam", now))
        .unwrap();
    net.pass(500);
    assert_eq!(net.mine(1, id), Some(Membership::Kicked));
    let told = net.take_events(1);
    assert!(told.contains(&GroupEvent::Removed {
        group: id,
        by: user("ann"),
        reason: "spam".to_owned(),
    }));
    assert_eq!(
        told.len(),
        2,
        "the change and the word, once each: {told:?}"
    );
}

#[test]
fn g11_a_victim_that_missed_the_word_learns_it_from_the_log() {
    let mut net = Net::new(&["ann", "bob", "cat"], 7);
    let id = net.full();
    net.down(1);
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.run(0, |g, now| g.rename(id, &name("secret"), now))
        .unwrap();
    net.pass(5_000);
    net.up(1);
    net.pass(60_000);
    assert_eq!(net.mine(1, id), Some(Membership::Kicked));
    // It is not served what came after.
    let view = net.nodes[1].groups.view(id).unwrap();
    assert_eq!(view.name, name("ops"));
}

#[test]
fn g12_a_leave_stands_until_the_log_shows_it() {
    let mut net = Net::new(&["ann", "bob", "cat"], 8);
    let id = net.full();
    net.crash(0);
    net.down(2);
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    assert_eq!(net.mine(1, id), Some(Membership::Leaving));
    assert_eq!(net.nodes[1].groups.audience(id), None);
    let cat = net.nodes[2].me.clone();
    let verdict = net.run(1, |g, now| g.judge(id, &cat, 3, now));
    assert_eq!(verdict, Verdict::Stranger);
    net.pass(100_000);
    net.crash(1);
    net.restart(1);
    assert_eq!(net.mine(1, id), Some(Membership::Leaving));
    net.restart(0);
    net.up(2);
    net.pass(100_000);
    assert_eq!(net.mine(1, id), Some(Membership::Left));
    assert_eq!(net.users(2, id), ["ann", "cat"]);
}

#[test]
fn g13_every_change_is_told_once_with_its_author() {
    let mut net = Net::new(&["ann", "bob", "cat"], 9);
    let id = net.full();
    net.run(0, |g, now| g.rename(id, &name("dev"), now))
        .unwrap();
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.pass(30_000);
    let told = net.take_events(2);
    let (cat, bob) = (user("cat"), user("bob"));
    assert_eq!(
        changes(&told),
        [
            &Change::Admitted { user: cat },
            &Change::Renamed { name: name("dev") },
            &Change::Left { user: bob },
        ]
    );
    assert!(
        matches!(&told[3], GroupEvent::Changed { by, .. } if *by == user("bob")),
        "{told:?}"
    );
}

#[test]
fn g14_a_request_waits_for_its_leader_and_is_told_again_after_a_restart() {
    let mut net = Net::new(&["ann", "bob"], 10);
    let id = net.create();
    net.crash(0);
    let request = net.run(1, |g, now| g.join(id, "hi", now)).unwrap();
    assert_eq!(net.run(1, |g, now| g.join(id, "hi", now)), Ok(request));
    net.pass(300_000);
    assert_eq!(net.mine(1, id), Some(Membership::Asking));
    net.restart(0);
    net.pass(100_000);
    let asks = |events: &[GroupEvent]| {
        let ask = |e: &&GroupEvent| matches!(e, GroupEvent::JoinRequested { request: r, .. } if r.request == request && r.note == "hi");
        events.iter().filter(ask).count()
    };
    assert_eq!(asks(&net.take_events(0)), 1);
    net.crash(0);
    net.restart(0);
    assert_eq!(asks(&net.take_events(0)), 1);
    net.run(0, |g, now| g.approve(id, request, now)).unwrap();
    let again = net.run(0, |g, now| g.approve(id, request, now));
    assert_eq!(again, Err(GroupError::NoSuchRequest));
    net.pass(2_000);
    assert_eq!(net.mine(1, id), Some(Membership::Member));
}

#[test]
fn g14_a_refusal_that_got_lost_is_given_again_with_its_reason() {
    let mut net = Net::new(&["ann", "bob"], 16);
    let id = net.create();
    let request = net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    net.down(1);
    net.run(0, |g, now| g.deny(id, request, "members only", now))
        .unwrap();
    net.pass(1_000);
    net.up(1);
    net.pass(120_000);
    let denied = |event: &GroupEvent| match event {
        GroupEvent::Denied { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    let told: Vec<_> = net.take_events(1).iter().filter_map(denied).collect();
    assert_eq!(told, ["members only"]);
}

#[test]
fn g14_a_withdrawn_request_is_gone_also_when_its_copies_come_late() {
    let mut net = Net::new(&["ann", "bob"], 11);
    let id = net.create();
    net.duplicates = 100;
    net.delay = 4_000;
    net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_500);
    net.run(1, |g, now| g.withdraw(id, now)).unwrap();
    net.pass(60_000);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().requests, []);
    assert_eq!(net.nodes[1].groups.view(id), None);
    let again = net.run(1, |g, now| g.withdraw(id, now));
    assert_eq!(again, Err(GroupError::NoSuchRequest));
}

#[test]
fn g14_a_withdrawal_that_crosses_the_admission_becomes_a_leave() {
    let mut net = Net::new(&["ann", "bob"], 12);
    let id = net.create();
    let request = net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    net.down(1);
    net.run(0, |g, now| g.approve(id, request, now)).unwrap();
    net.run(1, |g, now| g.withdraw(id, now)).unwrap();
    net.up(1);
    net.pass(60_000);
    assert_eq!(net.users(0, id), ["ann"]);
    assert_eq!(net.mine(1, id), Some(Membership::Left));
    assert!(
        !net.take_events(1)
            .contains(&GroupEvent::Joined { group: id })
    );
}

#[test]
fn g14_an_unanswered_request_lapses_on_both_sides() {
    let config = GroupConfig {
        join_ttl: Duration::from_secs(600),
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob"], 13, &config);
    let id = net.create();
    net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(700_000);
    assert!(
        net.take_events(1)
            .contains(&GroupEvent::JoinExpired { group: id })
    );
    assert_eq!(net.nodes[1].groups.view(id), None);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().requests, []);
    let settled = |e: &GroupEvent| matches!(e, GroupEvent::JoinSettled { .. });
    assert!(net.take_events(0).iter().any(settled));
}

#[test]
fn g14_beyond_the_bound_applicants_are_told_busy_and_get_in_later() {
    let config = GroupConfig {
        max_joins: 1,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob", "cat"], 14, &config);
    let id = net.create();
    let bob = net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.pass(10_000);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().requests.len(), 1);
    net.run(0, |g, now| g.deny(id, bob, "no", now)).unwrap();
    net.pass(120_000);
    let denied = GroupEvent::Denied {
        group: id,
        reason: "no".to_owned(),
    };
    assert!(net.take_events(1).contains(&denied));
    assert_eq!(net.mine(1, id), Some(Membership::Denied));
    let waiting = net.nodes[0].groups.view(id).unwrap().requests;
    assert_eq!(waiting[0].user, user("cat"));
}

#[test]
fn g14_several_devices_of_one_user_are_one_request() {
    let mut net = Net::new(&["ann", "bob1", "bob2"], 15);
    let id = net.create();
    for device in [1, 2] {
        net.run(device, |g, now| g.join(id, "", now)).unwrap();
        net.pass(1_000);
    }
    let waiting = net.nodes[0].groups.view(id).unwrap().requests;
    assert_eq!(waiting.len(), 1);
    net.run(0, |g, now| g.approve(id, waiting[0].request, now))
        .unwrap();
    net.pass(3_000);
    assert_eq!(net.users(1, id), ["ann", "bob", "bob"]);
    assert_eq!(net.mine(2, id), Some(Membership::Member));
    // A kick takes both.
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.pass(3_000);
    assert_eq!(net.mine(1, id), Some(Membership::Kicked));
    assert_eq!(net.mine(2, id), Some(Membership::Kicked));
}

#[test]
fn g16_who_was_away_finds_the_roster_on_return() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 16);
    let id = net.create();
    net.admit(0, 1, id);
    net.down(1);
    net.admit(0, 2, id);
    net.admit(0, 3, id);
    net.up(1);
    net.pass(20_000);
    assert_eq!(net.users(1, id), ["ann", "bob", "cat", "dan"]);
}

#[test]
fn g17_who_was_kicked_may_ask_again_and_is_a_new_member() {
    let mut net = Net::new(&["ann", "bob", "cat"], 17);
    let id = net.full();
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.pass(3_000);
    net.admit(0, 1, id);
    assert_eq!(net.mine(1, id), Some(Membership::Member));
    assert_eq!(net.users(2, id), ["ann", "cat", "bob"]);
    assert_eq!(
        net.nodes[0].groups.plan_leave(id).unwrap().successor,
        Some(user("cat"))
    );
}

#[test]
fn g18_the_lead_passes_only_to_who_accepts() {
    let mut net = Net::new(&["ann", "bob", "cat"], 18);
    let id = net.full();
    net.run(0, |g, now| g.hand_over(id, &user("cat"), now))
        .unwrap();
    net.pass(25_000);
    let offers = |events: Vec<GroupEvent>| {
        let offer = |e: &GroupEvent| matches!(e, GroupEvent::LeadOffered { .. });
        events.into_iter().filter(offer).count()
    };
    assert_eq!(offers(net.take_events(2)), 1);
    net.run(2, |g, now| g.answer_offer(id, false, now)).unwrap();
    net.pass(1_000);
    let declined = GroupEvent::LeadDeclined {
        group: id,
        by: user("cat"),
    };
    assert!(net.take_events(0).contains(&declined));
    assert_eq!(net.mine(0, id), Some(Membership::Leader));
    net.run(0, |g, now| g.hand_over(id, &user("cat"), now))
        .unwrap();
    net.pass(1_000);
    assert_eq!(offers(net.take_events(2)), 1);
    net.run(2, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(30_000);
    assert_eq!(net.mine(2, id), Some(Membership::Leader));
    assert_eq!(net.mine(0, id), Some(Membership::Member));
    assert_eq!(net.nodes[1].groups.view(id).unwrap().round, 2);
    let refused = net.run(0, |g, now| g.rename(id, &name("x"), now));
    assert_eq!(
        refused,
        Err(GroupError::NotLeader {
            leader: user("cat")
        })
    );
}

#[test]
fn g18_a_target_that_vanishes_leaves_a_leader_that_signs_nothing() {
    let mut net = Net::new(&["ann", "bob", "cat"], 19);
    let id = net.full();
    net.run(0, |g, now| g.hand_over(id, &user("cat"), now))
        .unwrap();
    net.pass(1_000);
    net.run(2, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.crash(2);
    net.pass(30_000);
    let refused = net.run(0, |g, now| g.rename(id, &name("x"), now));
    assert_eq!(refused, Err(GroupError::HandingOver));
    net.crash(0);
    net.restart(0);
    net.restart(2);
    net.pass(40_000);
    assert_eq!(net.mine(2, id), Some(Membership::Leader));
    assert_eq!(net.mine(0, id), Some(Membership::Member));
}

#[test]
fn g14_a_late_copy_of_a_request_that_was_given_up_lets_nobody_in_again() {
    let mut net = Net::new(&["ann", "bob"], 13);
    let id = net.create();
    net.down(1);
    let request = net.run(1, |g, now| g.join(id, "", now)).unwrap();
    let asking = net.nodes[1].groups.groups[&id].record.asking.clone();
    net.run(1, |g, now| g.withdraw(id, now)).unwrap();
    net.up(1);
    net.admit(0, 1, id);
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.pass(10_000);
    assert_eq!(net.users(0, id), ["ann"]);
    let copy = crate::wire::group::JoinReq {
        group: id.0,
        request: request.0,
        nonce: asking.unwrap().nonce,
        note: Default::default(),
        ticket: Default::default(),
        withdrawn: false,
    };
    let bob = net.nodes[1].me.clone();
    net.run(0, |g, now| g.handle_frame(&bob, &copy.into(), now));
    assert_eq!(net.nodes[0].groups.view(id).unwrap().requests, []);
}

#[test]
fn g18_an_offer_ends_with_the_membership_that_it_was_made_to() {
    let mut net = Net::new(&["ann", "bob"], 18);
    let id = net.full();
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.pass(500);
    assert_eq!(net.mine(1, id), Some(Membership::Left));
    net.take_events(1);
    // Back before the leader looked whether its offer still stands.
    net.admit(0, 1, id);
    net.pass(20_000);
    let offered = GroupEvent::LeadOffered {
        group: id,
        by: user("ann"),
    };
    assert!(net.take_events(1).contains(&offered));
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(20_000);
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
}

#[test]
fn g12_who_leads_before_its_request_to_come_back_is_answered_stays() {
    let mut net = Net::new(&["ann", "bob"], 19);
    let id = net.full();
    net.run(0, |g, now| g.hand_over(id, &user("bob"), now))
        .unwrap();
    net.pass(2_000);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.down(1);
    net.run(1, |g, now| g.leave(id, now)).unwrap();
    net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(2_000);
    net.take_events(1);
    net.up(1);
    net.pass(30_000);
    assert_eq!(net.mine(1, id), Some(Membership::Leader));
    let joined = GroupEvent::Joined { group: id };
    assert!(net.take_events(1).contains(&joined));
}

#[test]
fn g19_a_batch_is_let_in_whole_or_not_at_all() {
    let config = GroupConfig {
        max_roster: 3,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob", "cat", "dan"], 20, &config);
    let id = net.create();
    let mut requests = Vec::new();
    for node in 1..4 {
        requests.push(net.run(node, |g, now| g.join(id, "", now)).unwrap());
    }
    net.pass(1_000);
    let steps: Vec<_> = requests.into_iter().map(BatchStep::Approve).collect();
    let refused = net.run(0, |g, now| g.apply(id, &steps, now));
    assert!(matches!(refused, Err(GroupError::Full { max: 3, .. })));
    assert_eq!(net.users(0, id), ["ann"]);
    net.run(0, |g, now| g.apply(id, &steps[..2], now)).unwrap();
    net.pass(2_000);
    assert_eq!(net.users(1, id).len(), 3);
    assert_eq!(net.nodes[1].groups.view(id).unwrap().index, 2);
}

#[test]
fn g23_the_last_member_closes_the_group_for_good() {
    let mut net = Net::new(&["ann", "bob"], 21);
    let id = net.create();
    assert!(net.nodes[0].groups.plan_leave(id).unwrap().closes);
    net.run(0, |g, now| g.leave(id, now)).unwrap();
    assert_eq!(net.mine(0, id), Some(Membership::Left));
    assert_eq!(changes(&net.take_events(0)).last(), Some(&&Change::Closed));
    let refused = net.run(0, |g, now| g.join(id, "", now));
    assert_eq!(refused, Err(GroupError::Closed));
}

#[test]
fn r6_a_leader_that_is_cut_off_signs_nothing() {
    let mut net = Net::new(&["ann", "bob"], 22);
    let id = net.full();
    net.down(0);
    let before = net.nodes[0].groups.view(id).unwrap().index;
    for refused in [
        net.run(0, |g, now| g.rename(id, &name("x"), now)),
        net.run(0, |g, now| g.kick(id, &user("bob"), "", now)),
        net.run(0, |g, now| g.hand_over(id, &user("bob"), now)),
    ] {
        assert_eq!(refused, Err(GroupError::Offline));
    }
    net.pass(60_000);
    assert_eq!(net.nodes[0].groups.view(id).unwrap().index, before);
}

#[test]
fn a_checkpoint_proves_the_fold_and_a_long_log_is_paged() {
    let config = GroupConfig {
        checkpoint_every: 8,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob"], 23, &config);
    let id = net.create();
    for i in 0..100 {
        let to = name(&format!("ops {i}"));
        net.run(0, |g, now| g.rename(id, &to, now)).unwrap();
    }
    net.admit(0, 1, id);
    net.pass(10_000);
    let view = net.nodes[1].groups.view(id).unwrap();
    assert_eq!(view.index, net.nodes[0].groups.view(id).unwrap().index);
    assert!(view.index > 110, "checkpoints are entries: {}", view.index);
    // What was before our time is not told.
    assert_eq!(changes(&net.take_events(1)).len(), 1);
}

#[test]
fn strangers_get_no_log_and_nobody_gets_more_than_its_share() {
    let mut net = Net::new(&["ann", "bob", "eve"], 24);
    let id = net.create();
    net.admit(0, 1, id);
    let fetch = Body::Fetch(crate::wire::group::Fetch {
        group: id.0,
        have: crate::wire::BoundedVec::default(),
    });
    for (node, most) in [(2, 0), (1, serve::RATE as usize)] {
        let from = net.nodes[node].me.clone();
        let mut answers = 0;
        for _ in 0..50 {
            let now = net.clock();
            let groups = &mut net.nodes[0].groups;
            groups.handle_frame(&from, &fetch, now);
            while groups.effects().pop().is_some() {
                answers += 1;
            }
        }
        assert_eq!(answers, most);
    }
}
