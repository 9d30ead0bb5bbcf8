use std::collections::BTreeSet;

use proptest::prelude::*;

use super::machine::PresenceMachine;
use super::record::{Device, Record};
use super::*;
use crate::channel::{Channel, Class};
use crate::config::{Config, PresenceConfig};
use crate::effect::{Effect, Outgoing, Row, RowOp, Table};
use crate::id::{DeviceId, Epoch, LobbyName, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use crate::wire::presence::Presence;
use crate::wire::{Body, BoundedStr};

const ACTIVE: u8 = 1;
const AWAY: u8 = 3;
const DND: u8 = 4;
const LEFT: u8 = 5;
const LOST: u8 = 6;
const TTL: u64 = 75_000;
const GRACE: u64 = 15_000;
const WALL: u64 = 1_800_000_000_000;

fn at(millis: u64) -> Now {
    Now {
        mono: Timestamp::from_millis(millis),
        wall: UnixMillis(WALL + millis),
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn sender(name: &str, device: u8) -> Sender {
    Sender {
        user: user(name),
        device: DeviceId([device; 32]),
    }
}

fn record(key: (u64, u64, u64), status: u8) -> Presence {
    Presence {
        incarnation: key.0,
        conn: key.1,
        seq: key.2,
        status,
        text: BoundedStr::default(),
        ttl_ms: TTL,
        idle_min: Some(0),
    }
}

fn machine_with(config: PresenceConfig) -> PresenceMachine {
    let rng = Rng::from_seed([5; 32]);
    PresenceMachine::new(sender("me", 0), Epoch(1), config, rng)
}

/// Connected and caught up at time zero, watching `bob`.
fn observer() -> PresenceMachine {
    let mut machine = machine_with(Config::default().presence);
    machine.watch(&user("bob"), at(0));
    connect(&mut machine, at(0));
    drain(&mut machine);
    machine
}

fn connect(machine: &mut PresenceMachine, now: Now) {
    machine.handle_up(now);
    machine.handle_caught_up(now);
}

fn drain(machine: &mut PresenceMachine) -> Vec<Effect<PresenceEvent>> {
    core::iter::from_fn(|| machine.effects().pop()).collect()
}

fn events(machine: &mut PresenceMachine) -> Vec<PresenceEvent> {
    let told = drain(machine)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Emit { event, .. } => Some(event),
            _ => None,
        });
    told.collect()
}

/// (who, status) of every `Changed`.
fn changes(machine: &mut PresenceMachine) -> Vec<(String, Status)> {
    let changed = events(machine).into_iter().map(|event| match event {
        PresenceEvent::Changed { user, view } => (user.as_str().to_owned(), view.status),
        PresenceEvent::Resynced { .. } => panic!("no resync here: {event:?}"),
    });
    changed.collect()
}

fn frames(machine: &mut PresenceMachine) -> Vec<(Outgoing, Presence)> {
    let sent = drain(machine)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(frame) => match frame.body.clone() {
                Body::Presence(record) => Some((frame, record)),
                _ => None,
            },
            _ => None,
        });
    sent.collect()
}

fn rows(machine: &mut PresenceMachine) -> Vec<RowOp> {
    let rows = drain(machine)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Row(op) => Some(op),
            _ => None,
        });
    rows.collect()
}

fn status(machine: &PresenceMachine, name: &str) -> Status {
    machine.view(&user(name)).expect("the user is known").status
}

/// Runs every timer up to `until`.
fn run(machine: &mut PresenceMachine, until: Now) {
    let mut rounds = 0;
    while let Some(due) = machine.poll_timeout().filter(|due| *due <= until.mono) {
        let now = at(due.as_micros().div_ceil(1_000));
        machine.handle_timeout(now);
        assert!(machine.poll_timeout().is_none_or(|next| next > now.mono));
        rounds += 1;
        assert!(rounds < 100_000, "timers loop");
    }
    machine.handle_timeout(until);
}

#[test]
fn p1_a_user_is_the_best_of_its_devices() {
    let mut machine = observer();
    let ladder = [
        (1, AWAY, Status::Away),
        (2, 2, Status::Idle),
        (3, ACTIVE, Status::Active),
        (4, DND, Status::DoNotDisturb),
    ];
    for (device, code, best) in ladder {
        let now = at(u64::from(device));
        machine.handle_record(&sender("bob", device), &record((1, 1, 1), code), true, now);
        assert_eq!(status(&machine, "bob"), best);
    }
    // They go one by one, the best first.
    for (device, _, _) in ladder.into_iter().rev() {
        let now = at(100);
        machine.handle_record(
            &sender("bob", device),
            &record((1, 1, u64::MAX), LEFT),
            true,
            now,
        );
    }
    let told: Vec<Status> = changes(&mut machine).into_iter().map(|(_, s)| s).collect();
    assert_eq!(
        told,
        [
            Status::Away,
            Status::Idle,
            Status::Active,
            Status::DoNotDisturb,
            Status::Active,
            Status::Idle,
            Status::Away,
            Status::Left
        ]
    );
}

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
    machine.set(Status::DoNotDisturb, "busy", at(320_000));
    run(&mut machine, at(2_000_000));
    let (_, last) = frames(&mut machine).pop().unwrap();
    assert_eq!((last.status, &*last.text), (DND, "busy"));
}

#[test]
fn p2_newness_is_the_key_and_not_the_order_of_arrival() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &record((2, 1, 5), DND), true, at(1));
    for old in [(2, 1, 4), (2, 1, 5), (2, 0, 99), (1, 9, 9)] {
        machine.handle_record(&bob, &record(old, ACTIVE), true, at(2));
        assert_eq!(status(&machine, "bob"), Status::DoNotDisturb);
    }
    machine.handle_record(&bob, &record((3, 0, 0), ACTIVE), true, at(3));
    assert_eq!(status(&machine, "bob"), Status::Active);
}

#[test]
fn p2_a_late_will_of_an_earlier_connection_changes_nothing() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &record((1, 2, 1), ACTIVE), true, at(0));
    drain(&mut machine);
    machine.handle_record(&bob, &record((1, 1, u64::MAX), LOST), true, at(1_000));
    run(&mut machine, at(30_000));
    assert_eq!(status(&machine, "bob"), Status::Active);
    assert_eq!(changes(&mut machine), []);
}

#[test]
fn p3_a_lease_runs_out_by_the_observers_monotonic_clock() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &record((1, 1, 1), ACTIVE), true, at(1_000));
    // The wall clock leaps a day ahead and back: nothing happens.
    for wall in [WALL + 86_400_000, 0] {
        let leap = Now {
            mono: at(2_000).mono,
            wall: UnixMillis(wall),
        };
        machine.handle_timeout(leap);
    }
    run(&mut machine, at(1_000 + TTL + GRACE - 1));
    assert_eq!(status(&machine, "bob"), Status::Active);
    run(&mut machine, at(1_000 + TTL + GRACE));
    assert_eq!(status(&machine, "bob"), Status::Lost);
}

#[test]
fn p3_no_record_can_ask_for_an_endless_lease() {
    let mut machine = observer();
    let mut greedy = record((1, 1, 1), ACTIVE);
    greedy.ttl_ms = u64::MAX;
    machine.handle_record(&sender("bob", 1), &greedy, true, at(0));
    run(&mut machine, at(300_000 + GRACE));
    assert_eq!(status(&machine, "bob"), Status::Lost);
}

#[test]
fn p4_a_hidden_tab_that_beats_once_a_minute_never_flaps() {
    let mut machine = observer();
    for minute in 0..120u64 {
        let now = at(minute * 60_000);
        run(&mut machine, now);
        machine.handle_record(
            &sender("bob", 1),
            &record((1, 1, minute + 1), ACTIVE),
            true,
            now,
        );
    }
    assert_eq!(changes(&mut machine), [("bob".into(), Status::Active)]);
}

#[test]
fn p4_a_return_within_the_rejoin_time_is_no_join_after_an_outage() {
    for (away, joins) in [(60_000, false), (400_000, true)] {
        let mut machine = observer();
        let bob = sender("bob", 1);
        machine.handle_record(&bob, &record((1, 1, 1), ACTIVE), true, at(0));
        machine.handle_record(&bob, &record((1, 1, u64::MAX), LEFT), true, at(1_000));
        machine.handle_down(at(2_000));
        drain(&mut machine);
        let back = at(1_000 + away);
        machine.handle_up(back);
        machine.handle_record(&bob, &record((1, 2, 1), ACTIVE), true, back);
        machine.handle_caught_up(back);
        let told = events(&mut machine);
        assert_eq!(told.len(), 1);
        assert_eq!(
            matches!(told[0], PresenceEvent::Resynced { .. }),
            joins,
            "{told:?}"
        );
    }
}

#[test]
fn p5_a_goodbye_is_instant_and_a_silent_death_waits_for_the_grace() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &record((1, 1, 1), ACTIVE), true, at(0));
    machine.handle_record(&bob, &record((1, 1, u64::MAX), LEFT), true, at(10));
    assert_eq!(status(&machine, "bob"), Status::Left);
    // The will of the same connection, fired by an unclean close after the goodbye.
    machine.handle_record(&bob, &record((1, 1, u64::MAX), LOST), true, at(11));
    run(&mut machine, at(100_000));
    assert_eq!(status(&machine, "bob"), Status::Left);

    let carl = sender("carl", 2);
    machine.handle_record(&carl, &record((1, 1, 1), ACTIVE), true, at(100_000));
    machine.handle_record(&carl, &record((1, 1, u64::MAX), LOST), true, at(101_000));
    drain(&mut machine);
    run(&mut machine, at(101_000 + GRACE - 1));
    assert_eq!(status(&machine, "carl"), Status::Active);
    run(&mut machine, at(101_000 + GRACE));
    assert_eq!(changes(&mut machine), [("carl".into(), Status::Lost)]);
}

#[test]
fn p5_a_restart_of_the_broker_is_no_leave_storm() {
    let mut machine = observer();
    for n in 1..=50 {
        machine.handle_record(
            &sender(&format!("u{n}"), n),
            &record((1, 1, 1), ACTIVE),
            true,
            at(0),
        );
    }
    drain(&mut machine);
    // Every connection dies, every will fires, all are back within the grace.
    for n in 1..=50 {
        let will = record((1, 1, u64::MAX), LOST);
        machine.handle_record(&sender(&format!("u{n}"), n), &will, true, at(1_000));
    }
    for n in 1..=50 {
        let back = at(2_000 + u64::from(n) * 100);
        run(&mut machine, back);
        machine.handle_record(
            &sender(&format!("u{n}"), n),
            &record((1, 2, 1), ACTIVE),
            true,
            back,
        );
    }
    run(&mut machine, at(30_000));
    assert_eq!(changes(&mut machine), []);
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
    machine.set(Status::Active, "still here", at(7_000));
    run(&mut machine, at(200_000));
    assert!(frames(&mut machine).is_empty());
}

#[test]
fn p6_nothing_is_told_while_the_snapshot_arrives() {
    let mut machine = observer();
    for (name, device) in [("bob", 1), ("carl", 2)] {
        machine.handle_record(
            &sender(name, device),
            &record((1, 1, 1), ACTIVE),
            true,
            at(0),
        );
    }
    machine.handle_down(at(1_000));
    drain(&mut machine);
    machine.handle_up(at(400_000));
    machine.handle_record(
        &sender("bob", 1),
        &record((1, 1, u64::MAX), LEFT),
        true,
        at(400_010),
    );
    machine.handle_record(
        &sender("carl", 2),
        &record((1, 1, 9), ACTIVE),
        true,
        at(400_020),
    );
    machine.handle_record(
        &sender("dora", 3),
        &record((1, 1, 1), AWAY),
        true,
        at(400_030),
    );
    assert!(events(&mut machine).is_empty());
    machine.handle_caught_up(at(400_100));
    let told = events(&mut machine);
    assert_eq!(
        told[0],
        PresenceEvent::Resynced {
            joined: vec![user("dora")],
            left: vec![user("bob")]
        }
    );
    // Carl was there all along: only his own view is new again.
    assert_eq!(told.len(), 2);
    assert!(matches!(&told[1], PresenceEvent::Changed { user, .. } if user.as_str() == "carl"));
}

#[test]
fn p6_whoever_is_not_seen_after_an_outage_is_lost_when_the_lease_is_over() {
    let mut machine = observer();
    machine.handle_record(&sender("bob", 1), &record((1, 1, 1), ACTIVE), true, at(0));
    machine.handle_down(at(1_000));
    connect(&mut machine, at(1_000_000));
    assert_eq!(status(&machine, "bob"), Status::Unknown);
    drain(&mut machine);
    run(&mut machine, at(1_000_000 + TTL + GRACE));
    assert_eq!(changes(&mut machine), [("bob".into(), Status::Lost)]);
}

#[test]
fn p7_our_own_outage_makes_the_others_unknown_and_never_gone() {
    let mut machine = observer();
    machine.handle_record(&sender("bob", 1), &record((1, 1, 1), DND), true, at(0));
    drain(&mut machine);
    machine.handle_down(at(1_000));
    let view = machine.view(&user("bob")).unwrap();
    assert_eq!(
        (view.status, view.last_known),
        (Status::Unknown, Some(Status::DoNotDisturb))
    );
    assert_eq!(changes(&mut machine), [("bob".into(), Status::Unknown)]);
    // However long it lasts, and told once only.
    machine.handle_timeout(at(100_000_000));
    machine.handle_down(at(100_000_000));
    assert_eq!(status(&machine, "bob"), Status::Unknown);
    assert_eq!(changes(&mut machine), []);
}

#[test]
fn p7_a_record_heard_on_a_connection_that_broke_at_once_is_no_proof_later() {
    let mut machine = observer();
    machine.handle_down(at(1_000));
    machine.handle_record(
        &sender("bob", 1),
        &record((1, 1, 1), ACTIVE),
        true,
        at(2_000),
    );
    machine.handle_down(at(3_000));
    assert_eq!(status(&machine, "bob"), Status::Unknown);
}

#[test]
fn p7_a_last_value_of_unknown_age_is_not_trusted_before_a_live_frame() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &record((1, 1, 7), ACTIVE), false, at(0));
    let view = machine.view(&user("bob")).unwrap();
    assert_eq!(
        (view.status, view.last_known, view.last_seen),
        (Status::Unknown, Some(Status::Active), None)
    );
    let mut confirmed = machine;
    // Any frame of that device, or its next beat, is proof.
    confirmed.handle_sign_of_life(&bob, at(1_000));
    assert_eq!(status(&confirmed, "bob"), Status::Active);

    let mut silent = observer();
    silent.handle_record(&bob, &record((1, 1, 7), ACTIVE), false, at(0));
    run(&mut silent, at(TTL + GRACE));
    assert_eq!(status(&silent, "bob"), Status::Lost);
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
fn p9_last_seen_is_rounded_and_can_be_switched_off() {
    let mut machine = observer();
    let mut idle = record((1, 1, 1), 2);
    idle.idle_min = Some(10);
    machine.handle_record(&sender("bob", 1), &idle, true, at(31_000));
    let seen = machine.view(&user("bob")).unwrap().last_seen.unwrap();
    assert_eq!(seen.0 % 60_000, 0);
    assert_eq!(seen.0, (WALL + 31_000 - 600_000) / 60_000 * 60_000);

    let mut shy = record((1, 1, 1), ACTIVE);
    shy.idle_min = None;
    machine.handle_record(&sender("carl", 2), &shy, true, at(31_000));
    assert_eq!(machine.view(&user("carl")).unwrap().last_seen, None);

    let mut config = Config::default().presence;
    config.share_last_seen = false;
    let mut shy = machine_with(config);
    connect(&mut shy, at(0));
    run(&mut shy, at(60_000));
    assert!(frames(&mut shy).iter().all(|(_, r)| r.idle_min.is_none()));
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
    machine.set(Status::Away, "", at(20_000));
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
        machine.set(Status::Active, &format!("text {n}"), at(5_000 + n * 10));
    }
    run(&mut machine, at(8_000));
    let texts: Vec<String> = frames(&mut machine)
        .iter()
        .map(|(_, r)| r.text.to_string())
        .collect();
    assert_eq!(texts, ["text 0", "text 9"]);
    // Saying the same again is no change.
    machine.set(Status::Active, "text 9", at(12_000));
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
fn p12_beats_alone_carry_everything() {
    // Neither last values nor wills: two machines exchange what they publish, frame by frame.
    let mut alice = PresenceMachine::new(
        sender("alice", 1),
        Epoch(1),
        Config::default().presence,
        Rng::from_seed([1; 32]),
    );
    let mut bob = PresenceMachine::new(
        sender("bob", 2),
        Epoch(1),
        Config::default().presence,
        Rng::from_seed([2; 32]),
    );
    alice.watch(&user("bob"), at(0));
    connect(&mut alice, at(0));
    connect(&mut bob, at(0));
    let mut told = Vec::new();
    for step in 0..2_400u64 {
        let now = at(step * 100);
        if step == 300 {
            bob.set(Status::DoNotDisturb, "", now);
        }
        // Bob dies at two minutes.
        if step < 1_200 {
            bob.handle_timeout(now);
            for (frame, record) in frames(&mut bob) {
                assert_eq!(frame.channel, Channel::Presence(user("bob")));
                alice.handle_record(&sender("bob", 2), &record, true, now);
            }
        }
        alice.handle_timeout(now);
        told.extend(changes(&mut alice).into_iter().map(|(_, status)| status));
    }
    assert_eq!(told, [Status::Active, Status::DoNotDisturb, Status::Lost]);
}

#[test]
fn p13_after_our_outage_one_event_says_who_came_and_who_went() {
    let mut machine = observer();
    for n in 1..=20 {
        machine.handle_record(
            &sender(&format!("u{n:02}"), n),
            &record((1, 1, 1), ACTIVE),
            true,
            at(0),
        );
    }
    drain(&mut machine);
    machine.handle_down(at(1_000));
    assert_eq!(changes(&mut machine).len(), 20);
    machine.handle_up(at(60_000));
    for n in 1..=10 {
        let beat = record((1, 1, 5), ACTIVE);
        machine.handle_record(&sender(&format!("u{n:02}"), n), &beat, true, at(60_001));
    }
    for n in 11..=20 {
        let goodbye = record((1, 1, u64::MAX), LEFT);
        machine.handle_record(&sender(&format!("u{n:02}"), n), &goodbye, true, at(60_001));
    }
    for n in 21..=30 {
        let first = record((1, 1, 1), ACTIVE);
        machine.handle_record(&sender(&format!("u{n:02}"), n), &first, true, at(60_001));
    }
    machine.handle_caught_up(at(60_100));
    let told = events(&mut machine);
    let resynced: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            PresenceEvent::Resynced { joined, left } => Some((joined.len(), left.len())),
            _ => None,
        })
        .collect();
    assert_eq!(resynced, [(10, 10)]);
    assert_eq!(told.len(), 11);
    machine.handle_caught_up(at(60_200));
    assert!(events(&mut machine).is_empty());
}

#[test]
fn p14_whenever_the_process_dies_it_is_lost_in_time_and_never_a_zombie() {
    // Killed right after its n-th frame, whatever that was, with and without a last will.
    for with_will in [false, true] {
        for killed_after in 1..=12usize {
            let mut bob = PresenceMachine::new(
                sender("bob", 2),
                Epoch(1),
                Config::default().presence,
                Rng::from_seed([2; 32]),
            );
            let will = bob.will();
            connect(&mut bob, at(0));
            let mut machine = observer();
            let mut sent = 0;
            let mut died = 0;
            for step in 0..2_000u64 {
                let now = at(step * 100);
                if step % 70 == 3 {
                    bob.set(Status::Active, &format!("{step}"), now);
                }
                bob.handle_timeout(now);
                run(&mut machine, now);
                for (_, record) in frames(&mut bob).into_iter().take(killed_after - sent) {
                    machine.handle_record(&sender("bob", 2), &record, true, now);
                    sent += 1;
                }
                if sent == killed_after {
                    died = step * 100;
                    break;
                }
            }
            assert_eq!(sent, killed_after);
            if with_will {
                machine.handle_record(&sender("bob", 2), &will, true, at(died + 10));
                run(&mut machine, at(died + 10 + GRACE));
            } else {
                run(&mut machine, at(died + TTL + GRACE));
            }
            assert_eq!(status(&machine, "bob"), Status::Lost);
        }
    }
}

#[test]
fn a_sign_of_life_renews_a_lease_but_revives_nobody() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &record((1, 1, 1), ACTIVE), true, at(0));
    for n in 1..10 {
        run(&mut machine, at(n * 60_000));
        machine.handle_sign_of_life(&bob, at(n * 60_000));
    }
    assert_eq!(status(&machine, "bob"), Status::Active);
    machine.handle_record(&bob, &record((1, 1, u64::MAX), LOST), true, at(600_000));
    // A frame that was still on its way.
    machine.handle_sign_of_life(&bob, at(600_100));
    run(&mut machine, at(600_000 + GRACE));
    assert_eq!(status(&machine, "bob"), Status::Lost);
    machine.handle_sign_of_life(&bob, at(700_000));
    assert_eq!(status(&machine, "bob"), Status::Lost);
}

#[test]
fn flapping_is_shown_as_unstable_until_it_calms_down() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    let mut now = 0;
    for conn in 1..=3 {
        machine.handle_record(&bob, &record((1, conn, 1), ACTIVE), true, at(now));
        machine.handle_record(
            &bob,
            &record((1, conn, u64::MAX), LEFT),
            true,
            at(now + 100),
        );
        now += 200;
    }
    // Five flips by now, of which the first appearance is none.
    assert!(machine.view(&user("bob")).unwrap().unstable);
    machine.handle_record(&bob, &record((1, 4, 1), ACTIVE), true, at(now));
    drain(&mut machine);
    for beat in 1..=10 {
        let now = at(now + beat * 20_000);
        run(&mut machine, now);
        machine.handle_record(&bob, &record((1, 4, 1 + beat), ACTIVE), true, now);
    }
    let view = machine.view(&user("bob")).unwrap();
    assert!(!view.unstable);
    // Calm again is told once.
    assert_eq!(changes(&mut machine), [("bob".into(), Status::Active)]);
}

#[test]
fn contacts_survive_a_restart_and_beats_cost_no_rows() {
    let mut machine = observer();
    machine.watch(&user("never heard"), at(0));
    machine.handle_record(&sender("bob", 1), &record((1, 1, 1), DND), true, at(0));
    machine.handle_record(&sender("stranger", 9), &record((1, 1, 1), DND), true, at(0));
    run(&mut machine, at(30_000));
    drain(&mut machine);
    for n in 1..=25 {
        run(&mut machine, at(30_000 + n * 20_000));
        machine.handle_record(
            &sender("bob", 1),
            &record((1, 1, 1 + n), DND),
            true,
            at(30_000 + n * 20_000),
        );
        machine.handle_sign_of_life(&sender("never heard", 3), at(30_000 + n * 20_000));
    }
    let written = rows(&mut machine);
    assert!(written.len() <= 2, "{}", written.len());
    machine.leave(at(600_000));

    let mut first = observer();
    first.handle_record(&sender("bob", 1), &record((1, 1, 1), DND), true, at(0));
    run(&mut first, at(30_000));
    let mut again = machine_with(Config::default().presence);
    for op in rows(&mut first) {
        let RowOp::Put { table, key, value } = op else {
            panic!("nothing is deleted here");
        };
        assert_eq!(table, Table::Contacts);
        again
            .restore(&Row { table, key, value }, at(1_000_000))
            .unwrap();
    }
    assert_eq!(again.watched().collect::<Vec<_>>(), [&user("bob")]);
    let view = again.view(&user("bob")).unwrap();
    assert_eq!(
        (view.status, view.last_known),
        (Status::Unknown, Some(Status::DoNotDisturb))
    );
    assert_eq!(view.last_seen, Some(UnixMillis(WALL / 60_000 * 60_000)));
    again.unwatch(&user("bob"), at(1_000_001));
    assert!(matches!(rows(&mut again)[..], [RowOp::Delete { .. }]));
    assert_eq!(again.view(&user("bob")), None);
}

#[test]
fn a_damaged_row_is_refused() {
    let mut machine = observer();
    for (key, value) in [
        (&b"bob"[..], &b""[..]),
        (b"bob", &[1, 1, 0]),
        (b"bob", &[9, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (b"bob", &[1, 77, 0, 0, 0, 0, 0, 0, 0, 0]),
        (b"", &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (&[0xff], &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let row = Row {
            table: Table::Contacts,
            key: bytes::Bytes::copy_from_slice(key),
            value: bytes::Bytes::copy_from_slice(value),
        };
        assert!(machine.restore(&row, at(0)).is_err(), "{row:?}");
    }
}

#[test]
fn ip3_strangers_make_room_and_watched_users_stay() {
    let mut config = Config::default().presence;
    config.max_watched = 8;
    let mut machine = machine_with(config);
    machine.watch(&user("bob"), at(0));
    connect(&mut machine, at(0));
    machine.handle_record(&sender("bob", 1), &record((1, 1, 1), ACTIVE), true, at(0));
    for n in 0..1_000u64 {
        let name = format!("stranger {n}");
        machine.handle_record(&sender(&name, 2), &record((1, 1, 1), ACTIVE), true, at(n));
        // One of them keeps talking and so keeps its place.
        machine.handle_record(
            &sender("stranger 0", 2),
            &record((1, 1, 2 + n), ACTIVE),
            true,
            at(n),
        );
        assert!(machine.iter().count() <= 8);
    }
    assert_eq!(status(&machine, "bob"), Status::Active);
    assert_eq!(status(&machine, "stranger 0"), Status::Active);
    assert_eq!(status(&machine, "stranger 999"), Status::Active);
    assert!(machine.view(&user("stranger 1")).is_none());
}

#[test]
fn ip3_a_user_has_at_most_sixteen_devices_and_a_full_table_takes_no_more() {
    let mut config = Config::default().presence;
    config.max_watched = 4;
    let mut machine = machine_with(config);
    connect(&mut machine, at(0));
    for n in 0..4 {
        machine.watch(&user(&format!("w{n}")), at(0));
    }
    machine.handle_record(&sender("w0", 1), &record((1, 1, 1), ACTIVE), true, at(0));
    assert_eq!(status(&machine, "w0"), Status::Active);
    // A stranger and a second device find no place.
    machine.handle_record(&sender("x", 1), &record((1, 1, 1), ACTIVE), true, at(0));
    machine.handle_record(&sender("w0", 2), &record((1, 1, 1), DND), true, at(0));
    assert!(machine.view(&user("x")).is_none());
    assert_eq!(status(&machine, "w0"), Status::Active);

    let mut machine = observer();
    for n in 1..=40 {
        machine.handle_record(
            &sender("bob", n),
            &record((1, 1, 1), ACTIVE),
            true,
            at(u64::from(n)),
        );
    }
    // Twenty-four made room; the other sixteen say goodbye, and nobody is left.
    for n in 25..=40 {
        machine.handle_record(
            &sender("bob", n),
            &record((1, 1, u64::MAX), LEFT),
            true,
            at(100),
        );
    }
    assert_eq!(status(&machine, "bob"), Status::Left);
}

#[test]
fn ip3_strangers_that_are_gone_are_forgotten() {
    let mut machine = observer();
    machine.handle_record(&sender("x", 1), &record((1, 1, 1), ACTIVE), true, at(0));
    run(&mut machine, at(TTL + GRACE + 300_000));
    assert!(machine.view(&user("x")).is_none());
    assert!(machine.view(&user("bob")).is_some());
}

#[test]
fn ip5_a_watched_device_costs_at_most_64_bytes() {
    assert!(size_of::<Device>() <= 64, "{}", size_of::<Device>());
}

#[test]
fn ip5_a_user_publishes_at_most_every_two_seconds() {
    let mut machine = machine_with(Config::default().presence);
    connect(&mut machine, at(0));
    let mut last: Option<u64> = None;
    for step in 0..6_000u64 {
        let now = at(step * 10);
        if step % 3 == 0 {
            machine.set(Status::Active, &format!("{step}"), now);
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

fn any_record() -> impl Strategy<Value = Presence> {
    let seq = prop_oneof![4 => 0u64..4, 1 => Just(u64::MAX)];
    (0u64..3, 0u64..3, seq, 0u8..8, 0u64..3, "[ab]?").prop_map(
        |(incarnation, conn, seq, status, ttl, text)| Presence {
            incarnation,
            conn,
            seq,
            status,
            text: BoundedStr::truncated(&text),
            ttl_ms: ttl * 40_000,
            idle_min: Some(0),
        },
    )
}

proptest! {
    /// Merge is the greater of two records: a total order makes it commutative, associative and
    /// idempotent; what must hold besides is that equal means equal.
    #[test]
    fn ip1_merge_is_a_semilattice(a in any_record(), b in any_record(), c in any_record()) {
        let (a, b, c) = (Record::new(&a), Record::new(&b), Record::new(&c));
        let merge = |x: &Record, y: &Record| x.max(y).clone();
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
        prop_assert_eq!(merge(&a, &a), a);
    }

    /// The machine itself: any set of records, wills included, in any order and any number of
    /// times, ends in the same status once every pending grace is over.
    #[test]
    fn ip1_order_and_repetition_do_not_matter(
        records in proptest::collection::vec(any_record(), 1..12),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40),
    ) {
        let bob = sender("bob", 1);
        let mut straight = observer();
        for record in &records {
            straight.handle_record(&bob, record, true, at(1_000));
        }
        let mut shuffled = observer();
        for index in &order {
            shuffled.handle_record(&bob, index.get(&records), true, at(1_000));
        }
        for record in records.iter().rev() {
            shuffled.handle_record(&bob, record, true, at(1_000));
        }
        for later in [1_000 + GRACE, 1_000 + 40_000 + GRACE, 1_000 + 80_000 + GRACE] {
            run(&mut straight, at(later));
            run(&mut shuffled, at(later));
            let (a, b) = (straight.view(&user("bob")).unwrap(), shuffled.view(&user("bob")).unwrap());
            prop_assert_eq!(a.status, b.status);
            prop_assert_eq!(a.text, b.text);
        }
    }

    /// Same frames, same times, any timer calls between: same views.
    #[test]
    fn ip2_observers_with_the_same_frames_agree(
        frames in proptest::collection::vec((any_record(), 1u8..4, any::<bool>(), 0u64..30_000), 0..40),
        glances in proptest::collection::btree_set(0u64..1_000_000, 0..20),
    ) {
        let mut one = observer();
        let mut other = observer();
        let mut now = 0;
        for (record, device, live, wait) in &frames {
            let before = now;
            now += wait;
            for glance in glances.iter().filter(|at| (before..now).contains(*at)) {
                run(&mut other, at(*glance));
                other.handle_timeout(at(*glance));
            }
            run(&mut one, at(now));
            run(&mut other, at(now));
            for machine in [&mut one, &mut other] {
                machine.handle_record(&sender("bob", *device), record, *live, at(now));
            }
            prop_assert_eq!(one.view(&user("bob")), other.view(&user("bob")));
        }
        run(&mut one, at(now + 1_000_000));
        other.handle_timeout(at(now + 1_000_000));
        let (one, other) = (one.view(&user("bob")).unwrap(), other.view(&user("bob")).unwrap());
        prop_assert_eq!(one.status, other.status);
    }

    /// Any inputs in any order: no panic, no timer that stands still, bounds hold.
    #[test]
    fn any_history_keeps_time_moving(
        ops in proptest::collection::vec((0u8..14, any_record(), 0u8..4, 0u64..100_000), 0..120),
    ) {
        let mut config = Config::default().presence;
        config.max_watched = 3;
        let mut machine = machine_with(config);
        let lobby = Channel::Lobby(LobbyName::new("all").unwrap());
        let mut millis = 0;
        for (op, record, who, wait) in ops {
            let now = at(millis);
            let name = format!("u{who}");
            match op {
                0 => machine.handle_up(now),
                1 => machine.handle_caught_up(now),
                2 => machine.handle_down(now),
                3 => machine.watch(&user(&name), now),
                4 => machine.unwatch(&user(&name), now),
                5 => machine.set(Status::Active, &name, now),
                6 => machine.enter(lobby.clone(), now),
                7 => machine.handle_seek(&lobby, now),
                8 => machine.touch(now),
                9 => machine.handle_sign_of_life(&sender(&name, who), now),
                10 => millis += wait,
                11 => machine.leave(now),
                _ => machine.handle_record(&sender(&name, who), &record, who % 2 == 0, now),
            }
            if op == 10 {
                machine.handle_timeout(at(millis));
                prop_assert!(machine.poll_timeout().is_none_or(|due| due > at(millis).mono));
            }
            prop_assert!(machine.iter().count() <= 3 + machine.watched().count());
            if op == 2 {
                prop_assert!(machine.iter().all(|(_, view)| !view.status.is_here()));
            }
        }
    }
}

/// Every interleaving of `queues`, each kept in its own order.
fn interleave(
    queues: &mut Vec<(usize, Vec<Presence>)>,
    path: &mut Vec<(usize, Presence)>,
    seen: &mut impl FnMut(&[(usize, Presence)]),
) {
    if queues.iter().all(|(_, queue)| queue.is_empty()) {
        seen(path);
        return;
    }
    for n in 0..queues.len() {
        if queues[n].1.is_empty() {
            continue;
        }
        let next = queues[n].1.remove(0);
        path.push((queues[n].0, next.clone()));
        interleave(queues, path, seen);
        path.pop();
        queues[n].1.insert(0, next);
    }
}

/// A model without the machine: per device the greatest key decides, the rest is noise.
fn model(path: &[(usize, Presence)], device: usize) -> Option<u8> {
    let own = path.iter().filter(|(of, _)| *of == device);
    own.max_by_key(|(_, r)| (r.incarnation, r.conn, r.seq))
        .map(|(_, r)| r.status)
}

#[test]
fn ip4_no_interleaving_lets_a_will_override_a_newer_connection() {
    // One device dies in each of three incarnations, its wills late and in any order against the
    // records of the others; a second device beats on.
    let mut queues: Vec<(usize, Vec<Presence>)> = Vec::new();
    for incarnation in 1..=3 {
        let first = record((incarnation, 1, 1), ACTIVE);
        let will = record((incarnation, 1, u64::MAX), LOST);
        queues.push((1, vec![first, will]));
    }
    queues.push((2, vec![record((1, 1, 1), ACTIVE), record((1, 1, 2), DND)]));
    let mut count = 0;
    let bob = |n: usize| sender("bob", u8::try_from(n).unwrap());
    interleave(&mut queues, &mut Vec::new(), &mut |path| {
        count += 1;
        let mut machine = observer();
        for (n, (device, record)) in path.iter().enumerate() {
            machine.handle_record(&bob(*device), record, true, at(n as u64));
            let last = model(&path[..=n], *device).unwrap();
            // Within the grace nobody vanishes; a device whose latest word is no will is there.
            let there = (1..=2).any(|d| model(&path[..=n], d).is_some_and(|s| s != LOST));
            if there {
                assert!(status(&machine, "bob").is_here(), "{path:?} at {n}, {last}");
            }
        }
        run(&mut machine, at(20_000));
        assert_eq!(status(&machine, "bob"), Status::DoNotDisturb);
    });
    // 8 records in queues of 2, 2, 2 and 2.
    assert_eq!(count, 2_520);
}

#[test]
fn ip4_two_devices_with_three_incarnations_each_end_by_their_greatest_record() {
    // Connect, beat, will and takeover, exhaustively per device: three incarnations of two
    // connections, the middle ones taken over (their wills fire late), the last alive or dead.
    for last_alive in [true, false] {
        let mut queues: Vec<(usize, Vec<Presence>)> = Vec::new();
        for incarnation in 1..=2 {
            queues.push((1, vec![record((incarnation, 1, 1), ACTIVE)]));
            queues.push((1, vec![record((incarnation, 1, u64::MAX), LOST)]));
        }
        let mut third = vec![record((3, 1, 1), ACTIVE), record((3, 1, 2), ACTIVE)];
        if !last_alive {
            third.push(record((3, 1, u64::MAX), LOST));
        }
        queues.push((1, third));
        let mut count = 0;
        interleave(&mut queues, &mut Vec::new(), &mut |path| {
            count += 1;
            let mut machine = observer();
            // A second device lives the same life in reverse order of arrival.
            for (n, (_, record)) in path.iter().enumerate() {
                machine.handle_record(&sender("bob", 1), record, true, at(n as u64));
            }
            for (n, (_, record)) in path.iter().rev().enumerate() {
                machine.handle_record(&sender("carl", 2), record, true, at(10 + n as u64));
            }
            run(&mut machine, at(20_000));
            for name in ["bob", "carl"] {
                assert_eq!(status(&machine, name).is_here(), last_alive, "{path:?}");
            }
        });
        assert_eq!(count, if last_alive { 360 } else { 840 });
    }
}
