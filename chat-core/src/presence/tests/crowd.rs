//! Crowds, partitions, texts that run out, and who follows whom.

use super::*;

const BEAT: u64 = 20_000;

fn hear(machine: &mut PresenceMachine, name: &str, seq: u64, code: u8, now: Now) {
    let from = sender(name, 1);
    machine.handle_record(&from, &record((1, 1, seq), code), true, now);
}

fn name(n: u64) -> String {
    format!("p{n:03}")
}

fn crowd_of(people: u64, config: impl FnOnce(&mut PresenceConfig)) -> PresenceMachine {
    let mut settings = Config::default().presence;
    settings.crowd = 20;
    settings.crowd_sample = 4;
    config(&mut settings);
    let mut machine = machine_with(settings);
    connect(&mut machine, at(0));
    for n in 0..people {
        hear(&mut machine, &name(n), 1, ACTIVE, at(n));
    }
    machine
}

/// (counts, who is named) of every `Crowd`; panics on `Changed`.
fn crowds(machine: &mut PresenceMachine) -> Vec<(Counts, Vec<String>)> {
    let told = events(machine).into_iter().map(|event| match event {
        PresenceEvent::Crowd { counts, sample } => {
            let names = sample.into_iter().map(|(user, _)| user.as_str().to_owned());
            (counts, names.collect())
        }
        _ => panic!("in a crowd nobody is told alone: {event:?}"),
    });
    told.collect()
}

#[test]
fn p11_a_crowd_is_told_as_counts_and_a_sample_at_a_bounded_rate() {
    let mut machine = crowd_of(20, |_| {});
    assert_eq!(changes(&mut machine).len(), 20, "twenty are no crowd yet");
    for n in 20..100 {
        hear(&mut machine, &name(n), 1, ACTIVE, at(1_000 + n));
    }
    run(&mut machine, at(2_000));
    let first = crowds(&mut machine);
    assert_eq!(first.len(), 1, "one event for eighty people: {first:?}");
    assert!(first[0].1.len() <= 4);
    // Everybody changes all the time for a minute: seven events at the most.
    for step in 0..60u64 {
        let now = 2_000 + step * 1_000;
        for n in 0..100 {
            let code = if step % 2 == 0 { AWAY } else { DND };
            hear(&mut machine, &name(n), 2 + step, code, at(now));
        }
        run(&mut machine, at(now + 999));
    }
    let told = crowds(&mut machine);
    assert!((6..=7).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|(_, sample)| sample.len() <= 4));
    assert_eq!(told.last().unwrap().0.here(), 100);
    // When they come to rest everybody is named who needs to be, and then it is quiet.
    let mut last = 0;
    for step in 0..30u64 {
        let now = 70_000 + step * 10_000;
        for n in 0..100 {
            hear(&mut machine, &name(n), 100 + step, DND, at(now - 5_000));
        }
        run(&mut machine, at(now));
        if !crowds(&mut machine).is_empty() {
            last = step;
        }
    }
    assert!((1..29).contains(&last), "{last}");
    assert!(machine.people.iter().all(|(_, person)| !person.is_news()));
    let counts = machine.counts(machine.people.keys());
    assert_eq!((counts.do_not_disturb, counts.here()), (100, 100));
}

#[test]
fn p11_who_is_followed_is_named_first() {
    let mut machine = crowd_of(60, |_| {});
    machine.watch(&user(&name(42)), at(100));
    run(&mut machine, at(30_000));
    drain(&mut machine);
    for n in 0..60 {
        hear(&mut machine, &name(n), 2, AWAY, at(30_001));
    }
    run(&mut machine, at(45_000));
    let told = crowds(&mut machine);
    assert!(told.iter().any(|(_, names)| names.contains(&name(42))));
}

#[test]
fn p11_a_crowd_that_goes_is_told_one_by_one_again() {
    let mut machine = crowd_of(30, |_| {});
    run(&mut machine, at(5_000));
    drain(&mut machine);
    for n in 15..30 {
        hear(&mut machine, &name(n), u64::MAX, LEFT, at(6_000));
    }
    // The strangers that left are forgotten; the others go on, and it is no crowd any more.
    for beat in 1..20 {
        run(&mut machine, at(beat * BEAT));
        for n in 0..15 {
            hear(&mut machine, &name(n), 1 + beat, ACTIVE, at(beat * BEAT));
        }
    }
    drain(&mut machine);
    hear(&mut machine, &name(3), 99, AWAY, at(19 * BEAT + 1));
    assert_eq!(changes(&mut machine), [(name(3), Status::Away)]);
}

#[test]
fn p11_our_own_outage_in_a_crowd_is_two_events() {
    let mut machine = crowd_of(60, |_| {});
    run(&mut machine, at(300_000 / 20));
    drain(&mut machine);
    machine.handle_down(at(16_000));
    let told = crowds(&mut machine);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].0.unknown, told[0].1.len()), (60, 0));
    machine.handle_up(at(17_000));
    for n in 0..60 {
        hear(&mut machine, &name(n), 9, ACTIVE, at(17_100));
    }
    machine.handle_caught_up(at(17_200));
    let told = crowds(&mut machine);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0.active, 60);
}

#[test]
fn p11_in_a_crowded_lobby_we_speak_less_often_and_our_lease_is_longer() {
    let spoken = |people: u64| {
        let mut machine = crowd_of(0, |_| {});
        let lobby = Channel::Lobby(LobbyName::new("hall").unwrap());
        machine.enter(lobby.clone(), at(0));
        run(&mut machine, at(10_000));
        frames(&mut machine);
        let (mut told, mut lease) = (0, 0);
        for beat in 0..40 {
            for n in 0..people {
                hear(
                    &mut machine,
                    &name(n),
                    1 + beat,
                    ACTIVE,
                    at(10_001 + beat * BEAT),
                );
            }
            run(&mut machine, at(10_000 + (beat + 1) * BEAT));
            for (frame, record) in frames(&mut machine) {
                if frame.channel == lobby {
                    (told, lease) = (told + 1, record.ttl_ms);
                }
            }
        }
        (told, lease)
    };
    assert_eq!(spoken(10), (40, TTL));
    let (told, lease) = spoken(80);
    assert!((9..=12).contains(&told), "a quarter as often: {told}");
    assert_eq!(lease, TTL + 3 * BEAT);
}

#[test]
fn p13_a_partition_that_heals_is_one_event() {
    let mut machine = observer();
    let others = ["ann", "bob", "cyd", "dan"];
    for (n, other) in (0..).zip(others) {
        machine.watch(&user(other), at(0));
        hear(&mut machine, other, 1, ACTIVE, at(n * 4_000));
    }
    drain(&mut machine);
    run(&mut machine, at(200_000));
    let lost: Vec<_> = changes(&mut machine);
    assert_eq!(lost.len(), 4, "each is lost once: {lost:?}");
    for (n, other) in (0..).zip(others) {
        hear(&mut machine, other, 2, ACTIVE, at(210_000 + n * 4_000));
        assert_eq!(
            status(&machine, other),
            Status::Active,
            "views are up to date"
        );
    }
    run(&mut machine, at(240_000));
    let all = others.map(user).to_vec();
    let resynced = PresenceEvent::Resynced {
        joined: all,
        left: vec![],
    };
    assert_eq!(events(&mut machine), [resynced]);
}

#[test]
fn p13_who_does_not_come_back_holds_the_others_up_for_a_beat_at_most() {
    let mut machine = observer();
    for other in ["ann", "bob", "cyd"] {
        machine.watch(&user(other), at(0));
        hear(&mut machine, other, 1, ACTIVE, at(0));
    }
    run(&mut machine, at(200_000));
    drain(&mut machine);
    hear(&mut machine, "ann", 2, ACTIVE, at(210_000));
    hear(&mut machine, "bob", 2, ACTIVE, at(211_000));
    assert_eq!(events(&mut machine), []);
    run(&mut machine, at(210_000 + BEAT + 2_000));
    let resynced = PresenceEvent::Resynced {
        joined: vec![user("ann"), user("bob")],
        left: vec![],
    };
    assert_eq!(events(&mut machine), [resynced]);
    hear(&mut machine, "cyd", 2, ACTIVE, at(240_000));
    assert_eq!(changes(&mut machine), [("cyd".to_owned(), Status::Active)]);
}

#[test]
fn p13_one_who_was_lost_alone_is_told_at_once() {
    let mut machine = observer();
    hear(&mut machine, "bob", 1, ACTIVE, at(0));
    run(&mut machine, at(200_000));
    drain(&mut machine);
    hear(&mut machine, "bob", 2, ACTIVE, at(210_000));
    assert_eq!(changes(&mut machine), [("bob".to_owned(), Status::Active)]);
}

fn lunch(seq: u64, left: Option<u64>) -> Presence {
    Presence {
        text: BoundedStr::truncated("lunch"),
        text_ttl_ms: left,
        ..record((1, 1, seq), AWAY)
    }
}

fn text(machine: &PresenceMachine, name: &str) -> String {
    machine.view(&user(name)).unwrap().text
}

#[test]
fn p1_a_text_is_over_by_the_observers_clock_and_the_status_stays() {
    let mut machine = observer();
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &lunch(1, Some(30_000)), true, at(0));
    // A beat says what is left.
    machine.handle_record(&bob, &lunch(2, Some(10_000)), true, at(20_000));
    run(&mut machine, at(29_999));
    assert_eq!(text(&machine, "bob"), "lunch");
    drain(&mut machine);
    run(&mut machine, at(30_000));
    assert_eq!(
        (text(&machine, "bob"), status(&machine, "bob")),
        (String::new(), Status::Away)
    );
    assert_eq!(changes(&mut machine), [("bob".to_owned(), Status::Away)]);
    // A copy of the old record, and one that was on its way, bring nothing back.
    machine.handle_record(&bob, &lunch(2, Some(10_000)), true, at(31_000));
    assert_eq!(text(&machine, "bob"), "");
    machine.handle_record(&bob, &lunch(3, None), true, at(32_000));
    run(&mut machine, at(60_000));
    assert_eq!(text(&machine, "bob"), "lunch", "without a time it stays");
}

#[test]
fn p1_our_text_is_over_and_every_record_says_how_much_is_left() {
    let mut machine = observer();
    run(&mut machine, at(5_000));
    drain(&mut machine);
    let ttl = Some(core::time::Duration::from_secs(30));
    machine.set(Status::Away, "lunch", ttl, at(10_000));
    run(&mut machine, at(30_000));
    let said: Vec<_> = frames(&mut machine)
        .into_iter()
        .map(|(_, record)| (record.text.to_string(), record.text_ttl_ms))
        .collect();
    assert_eq!(said[0], ("lunch".to_owned(), Some(30_000)));
    assert_eq!(said[1], ("lunch".to_owned(), Some(10_000)));
    run(&mut machine, at(70_000));
    let (_, last) = frames(&mut machine).pop().unwrap();
    assert_eq!(
        (&*last.text, last.text_ttl_ms, last.status),
        ("", None, AWAY)
    );
}

#[test]
fn p9_a_session_that_ends_leaves_the_watch_of_the_application() {
    let mut machine = observer();
    machine.meet(&user("bob"), at(1));
    machine.part(&user("bob"), at(2));
    assert!(machine.is_watched(&user("bob")));
    machine.meet(&user("bob"), at(3));
    machine.unwatch(&user("bob"), at(4));
    assert!(
        machine.is_watched(&user("bob")),
        "the session still follows"
    );
    // Both survive a restart.
    let last = rows(&mut machine).pop().unwrap();
    let RowOp::Put { table, key, value } = last else {
        panic!("still stored: {last:?}");
    };
    let mut again = machine_with(Config::default().presence);
    again.restore(&Row { table, key, value }, at(5)).unwrap();
    again.part(&user("bob"), at(6));
    assert!(!again.is_watched(&user("bob")));
    assert!(matches!(rows(&mut again)[..], [RowOp::Delete { .. }]));
}
