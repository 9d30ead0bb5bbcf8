//! Seeded random runs: everything fails at random, then heals, and all must agree.

use super::super::*;
use super::net::{Net, name};
use crate::rng::Rng;

/// Runs of a test; raise it to hunt.
const RUNS: u64 = 40;

fn random_config() -> GroupConfig {
    GroupConfig {
        checkpoint_every: 7,
        ..GroupConfig::default()
    }
}

/// One random run; panics when something is shown that no run may show.
pub(super) fn random_run(seed: u64) {
    let mut net = Net::with(
        &["ann", "bob", "cat", "dan", "bob2"],
        seed,
        &random_config(),
    );
    let mut rng = Rng::from_seed([9; 32]).child(&seed.to_string());
    let id = net.create();
    net.loss = rng.below(30);
    net.duplicates = rng.below(30);
    net.delay = 1 + rng.below(4_000);
    net.prompt = rng.below(2) == 0;
    // Who left and did not ask to come back; what a crash took may be forgotten.
    let mut left = [false; 5];
    for _ in 0..120 {
        let node = rng.below(5) as usize;
        match step(&mut net, &mut rng, node, id) {
            Some(Word::Leave) => left[node] = true,
            Some(Word::Join) => left[node] = false,
            None => {}
        }
        if rng.below(8) == 0 && !net.prompt && net.nodes[node].alive {
            // Between the effects of one command.
            net.crash(node);
        }
        if rng.below(3) > 0 {
            for node in 0..5 {
                net.flush(node);
            }
        }
        net.pass(rng.below(6_000));
        for (node, left) in left.iter_mut().enumerate() {
            let declined = |e: &GroupEvent| matches!(e, GroupEvent::LeadDeclined { .. });
            *left &= net.nodes[node].alive && !net.take_events(node).iter().any(declined);
            let back = *left && net.mine(node, id) == Some(Membership::Member);
            assert!(!back, "G12, seed {seed}: {node} left and is in");
        }
    }
    heal(&mut net, id);
    agree(&net, id, seed);
}

/// What an application said, and was not refused.
enum Word {
    Join,
    Leave,
}

fn step(net: &mut Net, rng: &mut Rng, node: usize, id: GroupId) -> Option<Word> {
    if !net.nodes[node].alive {
        if rng.below(2) == 0 {
            net.restart(node);
        }
        return None;
    }
    let other = net.nodes[rng.below(5) as usize].me.user.clone();
    let pick = rng.below(20);
    // Refusals are part of the run: most commands come from the wrong member at the wrong time.
    let refused = match pick {
        0..=4 => net.run(node, |g, now| g.join(id, "let me in", now)).err(),
        5..=8 => settle(net, node, id, pick > 5).err(),
        9 => net.run(node, |g, now| g.withdraw(id, now)).err(),
        10 => net.run(node, |g, now| g.kick(id, &other, "", now)).err(),
        11 => net.run(node, |g, now| g.leave(id, now)).err(),
        12 | 13 => net.run(node, |g, now| g.hand_over(id, &other, now)).err(),
        14 | 15 => {
            let accept = rng.below(4) > 0;
            net.run(node, |g, now| g.answer_offer(id, accept, now))
                .err()
        }
        16 => net
            .run(node, |g, now| g.rename(id, &name("dev"), now))
            .err(),
        17 => {
            net.crash(node);
            None
        }
        _ => {
            if net.nodes[node].up {
                net.down(node);
            } else {
                net.up(node);
            }
            None
        }
    };
    match (pick, refused) {
        (0..=4, None) => Some(Word::Join),
        (11, None) => Some(Word::Leave),
        _ => None,
    }
}

/// The application answers what waits at `node`.
fn settle(net: &mut Net, node: usize, id: GroupId, admit: bool) -> Result<(), GroupError> {
    let waiting = net.nodes[node].groups.view(id).map(|view| view.requests);
    let requests: Vec<_> = waiting
        .unwrap_or_default()
        .into_iter()
        .map(|request| request.request)
        .collect();
    if admit && !requests.is_empty() {
        let steps: Vec<_> = requests.into_iter().map(BatchStep::Approve).collect();
        return net.run(node, |g, now| g.apply(id, &steps, now));
    }
    for request in requests {
        net.run(node, |g, now| g.deny(id, request, "no", now))?;
    }
    Ok(())
}

fn heal(net: &mut Net, id: GroupId) {
    (net.loss, net.duplicates, net.delay, net.prompt) = (0, 0, 50, true);
    for node in 0..5 {
        net.flush(node);
        if !net.nodes[node].alive {
            net.restart(node);
        } else if !net.nodes[node].up {
            net.up(node);
        }
    }
    for round in 0..60 {
        net.pass(10_000);
        for node in 0..5 {
            // Nobody answers an offer that does not stand.
            let _none = net.run(node, |g, now| g.answer_offer(id, true, now));
            let _not_leader = settle(net, node, id, round % 2 == 0);
        }
    }
    net.pass(70_000);
}

fn agree(net: &Net, id: GroupId, seed: u64) {
    let views: Vec<_> = net
        .nodes
        .iter()
        .filter_map(|node| Some((node.me.clone(), node.groups.view(id)?)))
        .collect();
    let best = views.iter().map(|(_, v)| (v.round, v.index)).max().unwrap();
    let roster = &views
        .iter()
        .find(|(_, v)| (v.round, v.index) == best)
        .unwrap()
        .1
        .roster;
    let mut leaders = 0;
    for (me, view) in &views {
        let listed = roster.iter().any(|member| member.device == me.device);
        match view.mine {
            Membership::Member | Membership::Leader => {
                assert_eq!(
                    (view.round, view.index),
                    best,
                    "seed {seed}: {} is behind",
                    me.user
                );
                assert_eq!(view.roster, *roster);
                assert!(listed, "seed {seed}: {} thinks that it is in", me.user);
                leaders += usize::from(view.mine == Membership::Leader);
            }
            // A closed group answers nobody; the request lapses in its time.
            Membership::Asking => assert!(roster.is_empty(), "IG6, seed {seed}: {}", me.user),
            Membership::Leaving => panic!("G12, seed {seed}: {} never got out", me.user),
            Membership::Left | Membership::Kicked | Membership::Denied => {
                assert!(!listed, "seed {seed}: {} is out and listed", me.user);
            }
        }
    }
    assert_eq!(
        leaders,
        usize::from(!roster.is_empty()),
        "seed {seed}: one leader"
    );
}

#[test]
fn ig_random_runs_heal_and_never_fork() {
    for seed in 0..RUNS {
        random_run(seed);
    }
}

#[cfg(feature = "probe")]
#[test]
fn planted_bugs_are_found() {
    use crate::probe;

    for bug in [
        "group-publish-before-persist",
        "group-left-ignored",
        "group-leave-not-sticky",
        "group-asks-once",
        "group-kick-one-device",
    ] {
        probe::plant(Some(bug));
        let found = (0..500).find(|seed| std::panic::catch_unwind(|| random_run(*seed)).is_err());
        probe::plant(None);
        assert!(found.is_some(), "{bug} survives");
    }
    probe::take_marks();
    (0..300).for_each(random_run);
    let marks = probe::take_marks();
    for mark in [
        "group-admitted-after-withdraw",
        "group-asks-around",
        "group-checkpoint",
        "group-closed",
        "group-gap",
        "group-handover-repeated",
        "group-late-answer",
        "group-late-request",
        "group-request-replaced",
        "group-stale-beat",
    ] {
        assert!(
            marks.contains_key(mark),
            "{mark} is never reached: {marks:?}"
        );
    }
}
