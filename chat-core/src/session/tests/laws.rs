//! Laws under arbitrary scripts: both sides agree once the network behaves, a restart changes no
//! state, nothing runs for ever.

use core::time::Duration;

use proptest::prelude::*;

use super::world::{LONGEST_WAIT, World, device_name, restored, user};
use crate::rng::Rng;
use crate::session::{Rejection, SessionState};

#[derive(Clone, Debug)]
enum Op {
    Request(usize, usize),
    Accept(usize, usize),
    Reject(usize, usize, bool),
    Cancel(usize, usize),
    Close(usize, usize),
    Block(usize, usize),
    Unblock(usize, usize),
    Forget(usize, usize),
    Deliver(usize),
    Duplicate(usize),
    Drop(usize),
    Restart(usize),
    /// The process dies while this frame is handled: nothing of it became durable or left.
    CrashDuring(usize),
    Down(usize),
    Up(usize),
    Sleep(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..12usize;
    prop_oneof![
        4 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Request(a, b)),
        4 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Accept(a, b)),
        1 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(a, b, t)| Op::Reject(a, b, t)),
        2 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Cancel(a, b)),
        2 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Close(a, b)),
        1 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Block(a, b)),
        1 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Unblock(a, b)),
        1 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Forget(a, b)),
        12 => (0..64usize).prop_map(Op::Deliver),
        2 => (0..64usize).prop_map(Op::Duplicate),
        3 => (0..64usize).prop_map(Op::Drop),
        1 => n.clone().prop_map(Op::Restart),
        1 => (0..64usize).prop_map(Op::CrashDuring),
        1 => n.clone().prop_map(Op::Down),
        1 => n.prop_map(Op::Up),
        2 => (1..120_000u64).prop_map(Op::Sleep),
        1 => Just(Op::Sleep(86_400_000 * 8)),
    ]
}

/// Runs `op`; true when it lets one side drop a session that the other may keep for as long as it
/// is silent: a block, or repeats given up after a week.
fn run(world: &mut World, names: &[&str], op: &Op) -> bool {
    let name = |i: usize| names[i % names.len()];
    let peer = |i: usize| super::world::owner(name(i));
    let standing = |world: &World, at: usize, of: usize| {
        let record = world.nodes[name(at)].sessions.peers.record(&peer(of))?;
        record.inn.as_ref().map(|inn| inn.invite)
    };
    let pick =
        |world: &World, i: usize| (!world.flights.is_empty()).then(|| i % world.flights.len());
    match *op {
        Op::Request(a, b) => {
            let _ = world.with(name(a), |s, now| s.request(&peer(b), "", now));
        }
        Op::Accept(a, b) => {
            if let Some(invite) = standing(world, a, b) {
                let _ = world.with(name(a), |s, now| s.accept(invite, now));
            }
        }
        Op::Reject(a, b, told) => {
            let reason = String::new();
            let how = if told {
                Rejection::Told { reason }
            } else {
                Rejection::Silent
            };
            if let Some(invite) = standing(world, a, b) {
                let _ = world.with(name(a), |s, now| s.reject(invite, &how, now));
            }
        }
        Op::Cancel(a, b) => {
            let state = world.nodes[name(a)].sessions.state(&peer(b));
            if let SessionState::Inviting { invite } = state {
                let _ = world.with(name(a), |s, now| s.cancel(invite, now));
            }
        }
        Op::Close(a, b) => {
            let _ = world.with(name(a), |s, now| s.close(&peer(b), "", now));
        }
        Op::Block(a, b) => {
            world.with(name(a), |s, now| s.block(&peer(b), now));
            return true;
        }
        Op::Unblock(a, b) => world.with(name(a), |s, now| s.unblock(&peer(b), now)),
        Op::Forget(a, b) => {
            world.with(name(a), |s, now| s.forget(&peer(b), now));
        }
        Op::Deliver(i) => {
            if let Some(i) = pick(world, i) {
                world.deliver(i, false);
            }
        }
        Op::Duplicate(i) => {
            if let Some(i) = pick(world, i) {
                world.deliver(i, true);
            }
        }
        Op::Drop(i) => {
            if let Some(i) = pick(world, i) {
                world.flights.remove(i);
            }
        }
        Op::Restart(a) => {
            world.restart(name(a));
            online(world, name(a));
        }
        Op::CrashDuring(i) => {
            if let Some(i) = pick(world, i) {
                let flight = world.flights.remove(i);
                let at = flight.to.clone();
                world.crash_during(&at, &flight);
                online(world, &at);
            }
        }
        Op::Down(a) => world.with(name(a), |s, now| s.handle_down(now)),
        Op::Up(a) => online(world, name(a)),
        Op::Sleep(ms) => {
            world.sleep(Duration::from_millis(ms));
            return ms > 86_400_000;
        }
    }
    false
}

fn online(world: &mut World, name: &str) {
    world.with(name, |s, now| s.handle_up(now));
    world.with(name, |s, now| s.handle_caught_up(now));
}

/// The network behaves from now on.
fn settle(world: &mut World, names: &[&str], strays: bool) {
    for name in names {
        for peer in names {
            let peer = super::world::owner(peer);
            world.with(name, |s, now| s.unblock(&peer, now));
        }
        online(world, name);
    }
    for _ in 0..4 {
        world.deliver_all();
        world.sleep(LONGEST_WAIT + Duration::from_secs(1));
        world.deliver_all();
        if strays {
            speak(world, names);
        }
    }
}

/// Everybody sends a message in every open session.
fn speak(world: &mut World, names: &[&str]) {
    for from in names {
        for to in names {
            let (me, other) = (world.nodes[*from].me.clone(), world.nodes[*to].me.clone());
            if me.user != other.user
                && world.nodes[*from].sessions.is_joined(&other)
                && !world.nodes[*to].sessions.is_joined(&me)
            {
                let conv = crate::id::ConvId::between(&me.user, &other.user);
                world.with(to, |s, now| s.handle_stray(&me, conv, now));
                world.deliver_all();
            }
        }
    }
}

fn agreed(world: &World) -> Result<(), TestCaseError> {
    for (name, node) in &world.nodes {
        for (peer, state) in node.sessions.iter() {
            let SessionState::Active {
                channel, devices, ..
            } = state
            else {
                prop_assert_eq!(node.open.get(peer), None, "{}", name);
                continue;
            };
            prop_assert_eq!(node.open.get(peer), Some(&channel), "{}", name);
            for device in devices {
                let device = device_name(device);
                let other = &world.nodes[&device].sessions;
                let theirs = other.state(&node.me.user);
                let SessionState::Active {
                    channel: same,
                    devices: back,
                    ..
                } = theirs
                else {
                    let text = format!("{name} is in a session, {device} is {theirs:?}");
                    return Err(TestCaseError::fail(text));
                };
                prop_assert_eq!(&channel, &same, "{} and {}", name, device);
                prop_assert!(back.contains(&node.me.device), "{} not at {}", name, device);
            }
        }
    }
    Ok(())
}

fn restart_changes_nothing(world: &World) -> Result<(), TestCaseError> {
    for node in world.nodes.values() {
        let fresh = restored(&node.me, &node.rows, Rng::from_seed([0; 32]), world.now);
        let before: Vec<_> = node.sessions.iter().collect();
        let after: Vec<_> = fresh.iter().collect();
        prop_assert_eq!(before, after);
    }
    Ok(())
}

fn law(names: &[&str], salt: u64, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = World::new(names, salt);
    let mut strays = false;
    for op in ops {
        world.log.push_str(&format!("  {op:?}\n"));
        strays |= run(&mut world, names, op);
        restart_changes_nothing(&world)?;
    }
    world.log.push_str("  settle\n");
    settle(&mut world, names, strays);
    agreed(&world).map_err(|error| TestCaseError::fail(format!("{error}\n{}", world.log)))
}

/// A quarter of what was asked for: one case is a long run.
fn cases() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig {
        cases: asked.cases / 4,
        ..asked
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn s1_s2_s3_s7_two_people_agree(salt in 0u64..64, ops in prop::collection::vec(op(), 0..60)) {
        law(&["a1", "b1"], salt, &ops)?;
    }

    #[test]
    fn s8_two_devices_and_a_peer_agree(salt in 0u64..64, ops in prop::collection::vec(op(), 0..60)) {
        law(&["a1", "b1", "b2"], salt, &ops)?;
    }

    #[test]
    fn s8_two_people_with_two_devices_each_agree(
        salt in 0u64..64,
        ops in prop::collection::vec(op(), 0..80),
    ) {
        law(&["a1", "a2", "b1", "b2"], salt, &ops)?;
    }

    #[test]
    fn three_people_agree(salt in 0u64..64, ops in prop::collection::vec(op(), 0..60)) {
        law(&["a1", "b1", "c1"], salt, &ops)?;
    }
}

/// The laws above must be able to fail: sessions do open in such runs.
#[test]
fn the_laws_are_not_vacuous() {
    let mut world = World::new(&["a1", "b1"], 0);
    let names = ["a1", "b1"];
    for op in [Op::Request(0, 1), Op::Deliver(0), Op::Accept(1, 0)] {
        run(&mut world, &names, &op);
    }
    assert!(agreed(&world).is_err(), "only one side is in it so far");
    settle(&mut world, &names, false);
    assert!(agreed(&world).is_ok());
    let state = world.nodes["a1"].sessions.state(&user("b"));
    assert!(matches!(state, SessionState::Active { .. }));
}

/// Scripts reach every rare branch, so the laws speak about them.
#[cfg(feature = "probe")]
#[test]
fn every_mark_is_reached() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let marks = [
        "session-accept-deferred",
        "session-accept-replayed",
        "session-cancel-came-first",
        "session-cancel-crossed-accept",
        "session-close-overtook-accept",
        "session-closed-by-sibling",
        "session-confirm-after-leaving",
        "session-glare-lost",
        "session-glare-won",
        "session-gone",
        "session-late-accept",
        "session-reject-replayed",
        "session-request-expired-in-mailbox",
        "session-request-in-cool-down",
        "session-request-meets-request",
        "session-request-reinstated",
        "session-second-device-joined",
        "session-stale-request",
        "session-stray",
        "session-superseded",
        "session-two-devices-accepted",
    ];
    crate::probe::take_marks();
    let mut runner = TestRunner::deterministic();
    let mut missing: Vec<_> = marks.to_vec();
    let mut reached = std::collections::BTreeMap::new();
    for salt in 0..2_000 {
        let script = prop::collection::vec(op(), 0..80);
        let ops = script.new_tree(&mut runner).unwrap().current();
        law(&["a1", "b1", "b2"], salt % 64, &ops).unwrap();
        for (mark, times) in crate::probe::take_marks() {
            *reached.entry(mark).or_insert(0) += times;
        }
        missing.retain(|mark| !reached.contains_key(mark));
        if missing.is_empty() {
            return;
        }
    }
    panic!("never reached: {missing:?}; reached: {reached:?}");
}
