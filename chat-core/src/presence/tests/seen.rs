//! How others are seen: leases, wills, outages.

use super::*;

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
            bob.set(Status::DoNotDisturb, "", None, now);
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
                    bob.set(Status::Active, &format!("{step}"), None, now);
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

/// The lease of what comes before we are connected would never run: it is told as unknown.
#[test]
fn p7_a_record_heard_while_subscribing_shows_nobody_as_there() {
    let mut machine = observer();
    machine.handle_down(at(1_000));
    let bob = sender("bob", 1);
    machine.handle_record(&bob, &record((1, 1, 1), ACTIVE), true, at(2_000));
    machine.handle_record(&bob, &record((1, 1, 2), ACTIVE), true, at(3_000));
    assert_eq!(status(&machine, "bob"), Status::Unknown);
    connect(&mut machine, at(500_000));
    machine.handle_record(&bob, &record((1, 1, 3), ACTIVE), true, at(501_000));
    assert_eq!(status(&machine, "bob"), Status::Active);
}

#[cfg(feature = "probe")]
#[test]
fn the_planted_bugs_bite() {
    use crate::probe::plant;

    let late_will = |machine: &mut PresenceMachine| {
        let bob = sender("bob", 1);
        machine.handle_record(&bob, &record((1, 2, 1), ACTIVE), true, at(0));
        machine.handle_record(&bob, &record((1, 1, u64::MAX), LOST), true, at(1));
        run(machine, at(GRACE + 1));
    };
    let outage = |machine: &mut PresenceMachine| {
        machine.handle_record(&sender("bob", 1), &record((1, 1, 1), ACTIVE), true, at(0));
        machine.handle_down(at(1));
    };
    let last_value = |machine: &mut PresenceMachine| {
        machine.handle_record(&sender("bob", 1), &record((1, 1, 1), ACTIVE), false, at(0));
    };
    type Story<'a> = &'a dyn Fn(&mut PresenceMachine);
    let cases: [(&str, Story<'_>, Status); 3] = [
        ("presence-merge-by-arrival", &late_will, Status::Active),
        ("presence-offline-when-cut", &outage, Status::Unknown),
        ("presence-trust-last-value", &last_value, Status::Unknown),
    ];
    for (bug, story, right) in cases {
        for planted in [None, Some(bug)] {
            plant(planted);
            let mut machine = observer();
            story(&mut machine);
            assert_eq!(status(&machine, "bob") == right, planted.is_none(), "{bug}");
        }
    }
    plant(None);
}
