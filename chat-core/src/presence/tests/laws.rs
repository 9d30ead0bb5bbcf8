//! Laws: merge, agreement, and every order of wills and records.

use proptest::prelude::*;

use super::*;
use crate::presence::record::Record;

fn any_record() -> impl Strategy<Value = Presence> {
    let seq = prop_oneof![4 => 0u64..4, 1 => Just(u64::MAX)];
    (0u64..3, 0u64..3, seq, 0u8..8, 0u64..3, "[ab]?").prop_map(
        |(incarnation, conn, seq, status, ttl, text)| Presence {
            incarnation,
            conn,
            seq,
            status,
            text: BoundedStr::truncated(&text),
            text_ttl_ms: (ttl == 1).then_some(30_000),
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
                5 => machine.set(Status::Active, &name, None, now),
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

proptest! {
    /// IP3: a device that keeps beating is never shown as gone while we are connected, and one
    /// that fell silent never as here for longer than its lease and the grace, whatever outages
    /// and strangers' records lie between.
    #[test]
    fn ip3_the_living_are_here_and_the_dead_are_gone_in_time(
        outages in proptest::collection::btree_map(0u64..200, 1u64..20, 0..4),
        dies_at in 50u64..200,
        late_will in any::<bool>(),
    ) {
        // Steps of five seconds; a beat every fourth.
        let mut machine = observer();
        let bob = sender("bob", 1);
        let mut cut_until = 0;
        let mut heard = None;
        let mut up_at = 0;
        for step in 0..260u64 {
            let now = at(step * 5_000);
            run(&mut machine, now);
            if let Some(length) = outages.get(&step)
                && step >= cut_until
            {
                machine.handle_down(now);
                cut_until = step + length;
            }
            let cut = step < cut_until;
            if step == cut_until && step > 0 {
                connect(&mut machine, now);
                up_at = step;
            }
            if step < dies_at && step % 4 == 0 && !cut {
                machine.handle_record(&bob, &record((1, 2, step + 1), ACTIVE), true, now);
                heard = Some(step);
            }
            if late_will && !cut {
                machine.handle_record(&bob, &record((1, 1, u64::MAX), LOST), true, now);
            }
            let seen = status(&machine, "bob");
            let silent_for = heard.map(|at| (step - at.max(up_at)) * 5_000);
            if cut {
                prop_assert!(!seen.is_here());
            } else if let Some(silent_for) = silent_for {
                if step < dies_at {
                    prop_assert_ne!(seen, Status::Lost, "at step {}", step);
                }
                if silent_for >= TTL + GRACE {
                    prop_assert_eq!(seen, Status::Lost, "at step {}", step);
                }
            }
        }
    }
}
