use super::*;
use crate::effect::{Effect, RowOp};
use crate::time::UnixMillis;

fn pins(max_pins: usize) -> Pins {
    let config = BudgetConfig {
        max_pins,
        ..BudgetConfig::default()
    };
    Pins::new(&config, &Rng::from_seed([1; 32]))
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn at(secs: u64) -> Now {
    Now {
        mono: Timestamp::from_secs(secs),
        wall: UnixMillis(secs * 1_000),
    }
}

fn drain(pins: &mut Pins) -> (Vec<IdentityEvent>, Vec<Row>) {
    let (mut events, mut rows) = (Vec::new(), Vec::new());
    while let Some(effect) = pins.effects().pop() {
        match effect {
            Effect::Emit { event, .. } => events.push(event),
            Effect::Row(RowOp::Put { table, key, value }) => rows.push(Row { table, key, value }),
            other => panic!("unexpected {other:?}"),
        }
    }
    (events, rows)
}

fn is_trusted(standing: &Standing) -> bool {
    matches!(standing, Standing::Trusted(_))
}

#[test]
fn the_first_key_is_pinned_and_another_is_refused_until_trusted() {
    let (mut pins, ann) = (pins(8), user("ann"));
    let (first, second) = (key(1), key(2));
    let sender = Sender {
        user: ann.clone(),
        device: first.device(),
    };
    let standing = pins.handle_claim(&first, &ann, at(1));
    assert_eq!(standing, Standing::Trusted(sender));
    let pinned = IdentityEvent::Pinned {
        user: ann.clone(),
        device: first.device(),
    };
    assert_eq!(drain(&mut pins).0, [pinned]);

    for _ in 0..3 {
        let standing = pins.handle_claim(&second, &ann, at(2));
        assert_eq!(standing, Standing::Refused);
    }
    let changed = IdentityEvent::KeyChanged {
        user: ann.clone(),
        known: vec![first.device()],
        device: second.device(),
    };
    assert_eq!(drain(&mut pins).0, [changed], "told once");

    pins.trust(&ann, second.device(), at(3));
    for key in [first, second] {
        assert!(is_trusted(&pins.handle_claim(&key, &ann, at(4))));
    }
    assert_eq!(pins.devices(&ann), [first.device(), second.device()]);
}

#[test]
fn refused_devices_are_told_sixteen_at_a_time_per_hour() {
    let (mut pins, ann) = (pins(8), user("ann"));
    pins.handle_claim(&key(0), &ann, at(0));
    drain(&mut pins);
    for n in 1..100 {
        pins.handle_claim(&key(n), &ann, at(1));
    }
    assert_eq!(drain(&mut pins).0.len(), MAX_DEVICES);
    pins.handle_claim(&key(200), &ann, at(3_602));
    assert_eq!(drain(&mut pins).0.len(), 1);
    assert!(pins.users.get(&ann).unwrap().told.len() <= MAX_DEVICES);
}

#[test]
fn strangers_write_nothing_until_they_are_kept() {
    let mut pins = pins(8);
    let (ann, bob) = (user("ann"), user("bob"));
    pins.handle_claim(&key(1), &ann, at(1));
    assert!(drain(&mut pins).1.is_empty());
    pins.keep(&ann);
    pins.keep(&ann);
    assert_eq!(drain(&mut pins).1.len(), 1);
    // Kept before it ever spoke: stored with its first key.
    pins.keep(&bob);
    assert!(drain(&mut pins).1.is_empty());
    pins.handle_claim(&key(2), &bob, at(1));
    assert_eq!(drain(&mut pins).1.len(), 1);
}

#[test]
fn pins_survive_a_restart() {
    let (mut before, ann) = (pins(8), user("a/ä"));
    before.keep(&ann);
    before.handle_claim(&key(1), &ann, at(1));
    before.trust(&ann, key(2).device(), at(1));
    let (_, rows) = drain(&mut before);
    let mut after = pins(8);
    for row in &rows {
        after.restore(row).unwrap();
    }
    assert_eq!(after.devices(&ann), before.devices(&ann));
    let standing = after.handle_claim(&key(3), &ann, at(1));
    assert_eq!(standing, Standing::Refused);
}

#[test]
fn a_damaged_row_is_refused() {
    let (mut donor, ann) = (pins(8), user("ann"));
    donor.keep(&ann);
    donor.handle_claim(&key(1), &ann, at(1));
    let row = drain(&mut donor).1.pop().unwrap();
    let mut cases = vec![
        Row {
            key: Bytes::from_static(b""),
            ..row.clone()
        },
        Row {
            key: Bytes::from_static(b"\xff"),
            ..row.clone()
        },
        Row {
            key: Bytes::from_static("e\u{301}".as_bytes()),
            ..row.clone()
        },
        Row {
            value: [&row.value[..], b"x"].concat().into(),
            ..row.clone()
        },
        Row {
            value: Bytes::from_static(&[2, 1]),
            ..row.clone()
        },
    ];
    cases.extend((0..row.value.len()).map(|end| Row {
        value: row.value.slice(..end),
        ..row.clone()
    }));
    for case in cases {
        assert_eq!(pins(8).restore(&case), Err(RestoreError::of(&case)));
    }
}

#[test]
fn the_least_recently_heard_stranger_is_forgotten_and_contacts_stay() {
    let mut pins = pins(3);
    let [ann, bob, cat, dan] = ["ann", "bob", "cat", "dan"].map(user);
    pins.handle_claim(&key(1), &ann, at(1));
    pins.keep(&ann);
    pins.handle_claim(&key(2), &bob, at(2));
    pins.handle_claim(&key(3), &cat, at(3));
    pins.handle_claim(&key(2), &bob, at(4));
    pins.handle_claim(&key(4), &dan, at(5));
    assert!(pins.devices(&cat).is_empty(), "heard least recently");
    for name in [&ann, &bob, &dan] {
        assert_eq!(pins.devices(name).len(), 1);
    }
    assert_eq!(pins.users.len(), 3);
    assert_eq!(pins.strangers.len(), 2);
    pins.keep(&bob);
    assert_eq!(pins.strangers.len(), 1, "bob left the order of eviction");
}

#[test]
fn when_all_are_kept_strangers_are_refused_and_contacts_told() {
    let mut pins = pins(1);
    let (ann, bob) = (user("ann"), user("bob"));
    pins.keep(&ann);
    assert_eq!(pins.handle_claim(&key(2), &bob, at(1)), Standing::Refused);
    drain(&mut pins);
    pins.trust(&bob, key(2).device(), at(1));
    let told = drain(&mut pins).0;
    assert_eq!(told, [IdentityEvent::NoRoom { user: bob.clone() }]);
    assert_eq!(pins.users.len(), 1);
}

#[test]
fn a_flood_of_strangers_stays_within_the_bound_and_off_the_disk() {
    let mut pins = pins(64);
    let ann = user("ann");
    pins.keep(&ann);
    pins.handle_claim(&key(1), &ann, at(0));
    drain(&mut pins);
    for n in 0..5_000_u64 {
        let standing = pins.handle_claim(&key(2), &user(&format!("s{n}")), at(n));
        assert!(is_trusted(&standing));
        assert!(drain(&mut pins).1.is_empty());
        assert!(pins.users.len() <= 64 && pins.strangers.len() <= 63);
        if n < 10 {
            assert!(is_trusted(&pins.handle_claim(&key(1), &ann, at(n))));
        }
    }
    assert_eq!(pins.devices(&ann), [key(1).device()], "a contact stays");
}

#[test]
fn the_seventeenth_device_replaces_the_one_trusted_longest() {
    let (mut pins, ann) = (pins(8), user("ann"));
    for n in 0..=16 {
        pins.trust(&ann, key(n).device(), at(1));
    }
    let devices = pins.devices(&ann);
    assert_eq!(devices.len(), MAX_DEVICES);
    assert!(!devices.contains(&key(0).device()));
    let (_, rows) = drain(&mut pins);
    let mut after = self::pins(8);
    after.restore(rows.last().unwrap()).unwrap();
    assert_eq!(after.devices(&ann), devices);
}

#[test]
fn a_device_that_is_distrusted_is_refused_for_good_and_no_other_takes_its_place() {
    let (mut pins, ann) = (pins(8), user("ann"));
    let (first, second) = (key(1), key(2));
    pins.handle_claim(&first, &ann, at(1));
    assert!(
        !pins.distrust(&ann, second.device(), at(2)),
        "never trusted"
    );
    assert!(pins.distrust(&ann, first.device(), at(2)));
    assert!(!pins.distrust(&ann, first.device(), at(2)), "once");
    let (events, rows) = drain(&mut pins);
    let distrusted = IdentityEvent::Distrusted {
        user: ann.clone(),
        device: first.device(),
    };
    assert_eq!(events.last(), Some(&distrusted));
    let mut again = Pins::new(&BudgetConfig::default(), &Rng::from_seed([1; 32]));
    again.restore(rows.last().expect("it is stored")).unwrap();
    for pins in [&mut pins, &mut again] {
        for key in [&first, &second] {
            let standing = pins.handle_claim(key, &ann, at(3));
            assert!(!is_trusted(&standing), "{key:?}");
        }
        pins.keep_met(&ann, &[first.device()]);
        assert_eq!(pins.devices(&ann), []);
        pins.trust(&ann, second.device(), at(4));
        assert!(is_trusted(&pins.handle_claim(&second, &ann, at(5))));
        assert!(!is_trusted(&pins.handle_claim(&first, &ann, at(5))));
    }
    // One of several goes, the others stay.
    pins.trust(&ann, first.device(), at(6));
    assert!(pins.distrust(&ann, first.device(), at(7)));
    assert!(is_trusted(&pins.handle_claim(&second, &ann, at(8))));
}
