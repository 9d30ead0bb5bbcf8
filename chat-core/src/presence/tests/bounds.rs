//! Limits, and what is stored.

use super::*;
use crate::presence::record::Device;

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
        (b"bob", &[1, 1, 1, 0]),
        (b"bob", &[9, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (b"bob", &[1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (b"bob", &[1, 1, 77, 0, 0, 0, 0, 0, 0, 0, 0]),
        (b"", &[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (&[0xff], &[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
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
