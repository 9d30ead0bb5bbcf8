//! What becomes of frames: accepted, kept, dropped at a bound, paced.

use super::*;

#[test]
fn a_frame_is_accepted_once_it_is_on_disk() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    assert_eq!(b.pull(reader), [Got::Welcome(false)]);
    b.write_batch();
    assert_eq!(b.pull(reader), [Got::Subscribed(true), Got::CaughtUp]);
    b.publish(a, 1, b"x");
    assert_eq!(b.pull(a), [Got::Welcome(false)]);
    assert_eq!(b.frames(reader), [b"x"]);
    assert!(b.write_batch());
    assert_eq!(b.pull(a), [Got::Sent(1, "accepted")]);
    assert_eq!(b.log_rows(), 1);
}

#[test]
fn a_frame_that_all_acknowledged_before_its_batch_left_is_not_written() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.write_batch();
    b.pull(a);
    b.pull(reader);
    b.publish(a, 1, b"x");
    for got in b.pull(reader) {
        b.ack(reader, &got);
    }
    assert_eq!(b.pull(a), [Got::Sent(1, "accepted")]);
    assert!(!b.write_batch(), "nobody waits for the disk");
    b.pass(Duration::from_secs(2));
    assert!(b.write_batch(), "the cursor is written in time");
    assert_eq!(b.log_rows(), 0);
}

#[test]
fn accepted_frames_survive_a_kill_and_numbers_are_not_used_twice() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.publish(a, 1, b"one");
    b.publish(a, 2, b"two");
    b.write_batch();
    for got in b
        .pull(reader)
        .iter()
        .filter(|g| matches!(g, Got::Frame { seq: 1, .. }))
    {
        b.ack(reader, got);
    }
    b.pass(Duration::from_secs(2));
    b.write_batch();
    b.restart();
    let a = b.open("a");
    b.publish(a, 3, b"three");
    let reader = b.open("r");
    let got = b.pull(reader);
    assert_eq!(got[0], Got::Welcome(true));
    let bytes: Vec<_> = got[1..3]
        .iter()
        .map(|g| match g {
            Got::Frame { bytes, seq, .. } => (*seq, bytes.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bytes, [(2, b"two".to_vec()), (3, b"three".to_vec())]);
    assert_eq!(got[3..], [Got::CaughtUp]);
}

#[test]
fn q5_overflow_drops_the_oldest_and_tells_a_gap_at_that_point() {
    for durable in [false, true] {
        let mut b = Bench::new(small(), durable);
        let (a, reader) = (b.open("a"), b.open("r"));
        b.subscribe(reader, group());
        b.write_batch();
        b.pull(reader);
        b.machine.handle_closed(reader, b.now);
        for n in 0..12u8 {
            b.publish(a, u64::from(n), &[n]);
            b.write_batch();
            b.pull(a);
        }
        if durable {
            b.restart();
        }
        let reader = b.open("r");
        let got = b.pull(reader);
        assert_eq!(got[..2], [Got::Welcome(true), Got::Gap]);
        let bytes: Vec<u8> = got
            .iter()
            .filter_map(|g| match g {
                Got::Frame { bytes, .. } => Some(bytes[0]),
                _ => None,
            })
            .collect();
        assert_eq!(bytes, [4, 5, 6, 7, 8, 9, 10, 11]);
        // Told until something after it is acknowledged.
        b.machine.handle_closed(reader, b.now);
        let reader = b.open("r");
        let got = b.pull(reader);
        assert_eq!(got[1], Got::Gap);
        got.iter().for_each(|g| b.ack(reader, g));
        b.machine.handle_closed(reader, b.now);
        let reader = b.open("r");
        assert_eq!(b.pull(reader), [Got::Welcome(true), Got::CaughtUp]);
    }
}

#[test]
fn a_slow_reader_continues_from_the_log_in_order() {
    let mut b = Bench::new(
        Limits {
            queue_frames: 4,
            ..Limits::default()
        },
        false,
    );
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.pull(reader);
    for n in 0..100u8 {
        b.publish(a, 1, &[n]);
        assert_eq!(
            b.pull(a).last(),
            Some(&Got::Sent(1, "accepted")),
            "nobody waits for it"
        );
    }
    assert!(b.machine.stats().queued_bytes < 1000);
    let all: Vec<_> = (0..100u8).map(|n| vec![n]).collect();
    assert_eq!(b.frames(reader), all);
    b.publish(a, 1, b"live");
    assert_eq!(b.frames(reader), [b"live"]);
}

#[test]
fn of_ephemeral_frames_a_slow_reader_gets_the_latest() {
    let mut b = Bench::new(
        Limits {
            queue_frames: 4,
            ..Limits::default()
        },
        false,
    );
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.pull(reader);
    for n in 0..100u8 {
        b.publish_as(a, 1, Class::Ephemeral, None, &[n]);
    }
    assert_eq!(b.frames(reader), [[0], [1], [2], [3], [99]]);
}

#[test]
fn frames_past_their_time_to_live_are_not_delivered_and_leave_no_gap() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.write_batch();
    b.machine.handle_closed(reader, b.now);
    b.publish_as(a, 1, Class::Durable, Some(1000), b"short");
    b.publish(a, 2, b"long");
    b.write_batch();
    b.pass(Duration::from_secs(2));
    let reader = b.open("r");
    assert_eq!(b.frames(reader), [b"long"]);
    b.machine.handle_closed(reader, b.now);
    b.pass(SWEEP);
    b.pass(SWEEP);
    b.write_batch();
    assert_eq!(b.log_rows(), 1);
    // What is too old is told.
    b.pass(b.machine.limits.mailbox_age - SWEEP);
    b.pass(Duration::from_secs(2));
    b.write_batch();
    assert_eq!((b.log_rows(), b.machine.stats().dropped), (0, 1));
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_that_was_accepted() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.publish(a, 1, b"kept");
    b.write_batch();
    b.machine.handle_closed(reader, b.now);
    b.publish(a, 2, b"refused");
    b.pull(a);
    assert!(b.machine.poll_batch(b.now).is_some());
    b.machine.handle_full(b.now);
    assert_eq!(b.pull(a), [Got::Sent(2, "refused")]);
    b.publish(a, 3, b"refused too");
    assert_eq!(b.pull(a), [Got::Sent(3, "refused")]);
    assert!(b.machine.stats().full);
    b.pass(FULL_RETRY);
    assert!(b.write_batch(), "it is tried again");
    b.publish(a, 4, b"again");
    b.write_batch();
    assert_eq!(b.pull(a), [Got::Sent(4, "accepted")]);
    b.restart();
    let reader = b.open("r");
    assert_eq!(b.frames(reader), [b"kept".to_vec(), b"again".to_vec()]);
}

#[test]
fn a_duplicate_is_accepted_but_not_published_again() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.write_batch();
    b.pull(a);
    b.pull(reader);
    for token in [1, 2] {
        b.op(
            a,
            ClientOp::Publish(Publish {
                token,
                channel: group(),
                class: Class::Durable,
                ttl_ms: None,
                last_value: false,
                dedup: Some([1; 16]),
                bytes: b"x",
            }),
        );
    }
    assert_eq!(b.pull(a), [], "the first is not on disk yet");
    b.write_batch();
    assert_eq!(
        b.pull(a),
        [Got::Sent(1, "accepted"), Got::Sent(2, "accepted")]
    );
    assert_eq!(b.frames(reader).len(), 1);
}

#[test]
fn keys_sort_as_bytes_like_themselves() {
    let (l, s) = (LaneId, SessionId);
    let keys = [
        Key::Lane(l(1)),
        Key::Lane(l(256)),
        Key::Session(s(1)),
        Key::Sub(l(1), s(300)),
        Key::Sub(l(2), s(1)),
        Key::Log(l(1), 255),
        Key::Log(l(1), 256),
        Key::Retained(l(9)),
    ];
    assert!(keys.is_sorted());
    assert!(keys.map(Key::to_bytes).is_sorted());
    assert!(
        keys.iter()
            .all(|k| Key::from_bytes(&k.to_bytes()) == Some(*k))
    );
    assert_eq!(Key::from_bytes(&[9; 17]), None);
    assert_eq!(Key::from_bytes(&[1; 16]), None);
}

#[test]
fn a_connection_that_publishes_too_fast_is_told_so_and_pays_alone() {
    let limits = Limits {
        publish_per_second: 10,
        publish_burst: 3,
        ..Limits::default()
    };
    let mut b = Bench::new(limits, false);
    let (a, other) = (b.open("a"), b.open("b"));
    for n in 0..4 {
        b.publish(a, n, b"x");
    }
    let told: Vec<_> = b.pull(a).split_off(1);
    let nobody = |n| Got::Sent(n, "nobody");
    let wanted = [nobody(0), nobody(1), nobody(2), Got::Sent(3, "too fast")];
    assert_eq!(told, wanted);
    b.publish(other, 9, b"x");
    assert_eq!(b.pull(other)[1..], [nobody(9)]);
    // One more fits after a tenth of a second, and no other.
    b.pass(Duration::from_millis(100));
    b.publish(a, 4, b"x");
    b.publish(a, 5, b"x");
    assert_eq!(b.pull(a), [nobody(4), Got::Sent(5, "too fast")]);
}
