//! What we publish of ourselves.

use std::collections::BTreeSet;

use super::*;
use crate::presence::record::Record;

#[test]
fn p1_an_explicit_choice_beats_automatic_idling() {
    let mut machine = machine_with(Config::default().presence);
    connect(&mut machine, at(0));
    machine.touch(at(0));
    run(&mut machine, at(299_000));
    assert!(frames(&mut machine).iter().all(|(_, r)| r.status == ACTIVE));
    run(&mut machine, at(301_000));
    assert_eq!(frames(&mut machine).last().unwrap().1.status, 2);
    machine.touch(at(310_000));
    assert_eq!(frames(&mut machine).last().unwrap().1.status, ACTIVE);
    machine.set(Status::DoNotDisturb, "busy", None, at(320_000));
    run(&mut machine, at(2_000_000));
    let (_, last) = frames(&mut machine).pop().unwrap();
    assert_eq!((last.status, &*last.text), (DND, "busy"));
}

#[test]
fn p5_leave_publishes_a_goodbye_at_once_that_beats_the_will() {
    let mut machine = machine_with(Config::default().presence);
    let lobby = Channel::Lobby(LobbyName::new("all").unwrap());
    machine.enter(lobby.clone(), at(0));
    let will = machine.will();
    connect(&mut machine, at(0));
    run(&mut machine, at(5_000));
    drain(&mut machine);
    machine.leave(at(6_000));
    let sent: Vec<Effect<PresenceEvent>> = drain(&mut machine);
    let mut channels = Vec::new();
    for effect in &sent {
        let Effect::Send(frame) = effect else {
            continue;
        };
        assert!(!frame.gated);
        channels.push(frame.channel.clone());
        let Body::Presence(goodbye) = &frame.body else {
            panic!("only presence is sent");
        };
        assert_eq!(goodbye.status, LEFT);
        assert!(Record::new(goodbye) > Record::new(&will));
    }
    assert_eq!(channels, [Channel::Presence(user("me")), lobby]);
    // Silence after it.
    machine.set(Status::Active, "still here", None, at(7_000));
    run(&mut machine, at(200_000));
    assert!(frames(&mut machine).is_empty());
}

#[test]
fn p8_a_reconnect_publishes_after_a_random_delay_with_the_same_incarnation() {
    let mut machine = machine_with(Config::default().presence);
    let mut delays = BTreeSet::new();
    for conn in 1..=20u64 {
        let base = conn * 100_000;
        let will = machine.will();
        assert_eq!((will.incarnation, will.conn, will.seq), (1, conn, u64::MAX));
        assert_eq!(will.status, LOST);
        connect(&mut machine, at(base));
        let due = machine.poll_timeout().unwrap();
        assert!(due <= at(base + 2_000).mono);
        delays.insert(due.saturating_since(at(base).mono));
        run(&mut machine, at(base + 2_000));
        let (frame, first) = frames(&mut machine).remove(0);
        assert_eq!((first.incarnation, first.conn, first.seq), (1, conn, 1));
        assert!(frame.last_value);
        assert_eq!(frame.class, Class::Ephemeral);
        machine.handle_down(at(base + 50_000));
    }
    assert!(delays.len() > 10, "the delay is random");
}

#[test]
fn p8_a_will_of_an_attempt_that_never_spoke_does_not_outrank_the_next_connection() {
    let mut machine = machine_with(Config::default().presence);
    // The transport came up with this will and broke before `Connected`.
    let unused = machine.will();
    let used = machine.will();
    connect(&mut machine, at(0));
    run(&mut machine, at(2_000));
    let (_, first) = frames(&mut machine).remove(0);
    assert!(Record::new(&first) > Record::new(&unused));
    assert!(Record::new(&first) < Record::new(&used));
}

#[test]
fn p9_a_lobby_learns_no_last_activity() {
    let mut machine = machine_with(Config::default().presence);
    machine.enter(Channel::Lobby(LobbyName::new("all").unwrap()), at(0));
    connect(&mut machine, at(0));
    run(&mut machine, at(60_000));
    let sent = frames(&mut machine);
    let lobby: Vec<_> = sent
        .iter()
        .filter(|(frame, _)| matches!(frame.channel, Channel::Lobby(_)))
        .collect();
    assert!(!lobby.is_empty());
    for (frame, record) in lobby {
        assert_eq!(record.idle_min, None);
        assert!(!frame.last_value);
    }
    assert!(sent.iter().any(|(_, record)| record.idle_min == Some(0)));
}

#[test]
fn p10_activity_alone_publishes_nothing() {
    let mut machine = machine_with(Config::default().presence);
    connect(&mut machine, at(0));
    run(&mut machine, at(10_000));
    drain(&mut machine);
    for n in 0..100 {
        machine.touch(at(10_000 + n));
    }
    assert!(frames(&mut machine).is_empty());
    // And with the user away only the minutes change, with the beats.
    machine.set(Status::Away, "", None, at(20_000));
    run(&mut machine, at(200_000));
    let idle: Vec<Option<u32>> = frames(&mut machine)
        .iter()
        .map(|(_, r)| r.idle_min)
        .collect();
    assert_eq!(idle.first(), Some(&Some(0)));
    assert_eq!(idle.last(), Some(&Some(3)));
    assert!(idle.len() <= 11);
}

#[test]
fn p10_own_changes_are_debounced_and_the_last_one_wins() {
    let mut machine = machine_with(Config::default().presence);
    connect(&mut machine, at(0));
    run(&mut machine, at(5_000));
    drain(&mut machine);
    for n in 0..10 {
        machine.set(
            Status::Active,
            &format!("text {n}"),
            None,
            at(5_000 + n * 10),
        );
    }
    run(&mut machine, at(8_000));
    let texts: Vec<String> = frames(&mut machine)
        .iter()
        .map(|(_, r)| r.text.to_string())
        .collect();
    assert_eq!(texts, ["text 0", "text 9"]);
    // Saying the same again is no change.
    machine.set(Status::Active, "text 9", None, at(12_000));
    assert!(frames(&mut machine).is_empty());
}

#[test]
fn p11_questions_in_a_lobby_are_answered_once_and_not_more_often_than_changes() {
    let mut machine = machine_with(Config::default().presence);
    let lobby = Channel::Lobby(LobbyName::new("all").unwrap());
    machine.enter(lobby.clone(), at(0));
    connect(&mut machine, at(0));
    run(&mut machine, at(2_000));
    drain(&mut machine);
    for n in 0..10_000 {
        machine.handle_seek(&lobby, at(3_000 + n));
        machine.handle_timeout(at(3_000 + n));
    }
    let sent = frames(&mut machine);
    assert!((1..=7).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|(frame, _)| frame.channel == lobby));
}

#[test]
fn ip5_a_user_publishes_at_most_every_two_seconds() {
    let mut machine = machine_with(Config::default().presence);
    connect(&mut machine, at(0));
    let mut last: Option<u64> = None;
    for step in 0..6_000u64 {
        let now = at(step * 10);
        if step % 3 == 0 {
            machine.set(Status::Active, &format!("{step}"), None, now);
        }
        machine.handle_timeout(now);
        for _ in frames(&mut machine) {
            assert!(last.is_none_or(|last| step * 10 - last >= 2_000));
            last = Some(step * 10);
        }
    }
    assert!(last.is_some());
}

#[test]
fn ip6_after_a_restart_of_the_broker_publishes_are_spread() {
    let due: Vec<u64> = (0..100u8)
        .map(|n| {
            let rng = Rng::from_seed([n; 32]);
            let config = Config::default().presence;
            let mut machine = PresenceMachine::new(sender("x", n), Epoch(1), config, rng);
            connect(&mut machine, at(0));
            machine.poll_timeout().unwrap().as_micros() / 200_000
        })
        .collect();
    // Ten slots of 200 ms: none gets more than three times its share.
    for slot in 0..=10 {
        assert!(due.iter().filter(|at| **at == slot).count() <= 30);
    }
}
