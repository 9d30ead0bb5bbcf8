//! How connections and sessions begin, are kept, and end.

use super::*;

#[test]
fn a_waker_is_kept_after_caught_up() {
    let mut b = Bench::new(Limits::default(), false);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    assert_eq!(b.pull(reader).last(), Some(&Got::CaughtUp));
    b.publish(a, 1, b"x");
    let mut wakes = Vec::new();
    b.machine.drain_wakes(&mut wakes);
    wakes.into_iter().for_each(Waker::wake);
    assert_eq!(b.woken.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_session_that_stays_away_is_forgotten_with_all_its_rows() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.write_batch();
    b.machine.handle_closed(reader, b.now);
    b.publish(a, 1, b"x");
    b.write_batch();
    b.machine.handle_closed(a, b.now);
    b.pass(b.machine.limits.mailbox_age);
    b.pass(SWEEP);
    b.write_batch();
    b.pass(SWEEP);
    b.write_batch();
    assert_eq!(b.disk.keys().collect::<Vec<_>>(), Vec::<&Key>::new());
    let stats = b.machine.stats();
    assert_eq!(
        (stats.sessions, stats.channels, stats.stored_bytes),
        (0, 0, 0)
    );
}

#[test]
fn a_subscriber_whose_row_found_no_room_comes_back_later() {
    let mut b = Bench::new(Limits::default(), true);
    let reader = b.open("r");
    b.subscribe(reader, group());
    b.pull(reader);
    assert!(b.machine.poll_batch(b.now).is_some());
    b.machine.handle_full(b.now);
    assert_eq!(b.pull(reader), [Got::Closing(CloseReason::TryLater.code())]);
}

#[test]
fn a_silent_connection_is_pinged_and_then_closed() {
    let mut b = Bench::new(Limits::default(), false);
    let (quiet, alive) = (b.open("q"), b.open("l"));
    let mut pings = 0;
    let mut closed = None;
    for second in 0..60 {
        b.pass(Duration::from_secs(1));
        b.machine.handle_heard(alive, b.now);
        for got in b.pull(quiet) {
            match got {
                Got::Ping => pings += 1,
                Got::Closing(code) => closed = closed.or(Some((second, code))),
                _ => {}
            }
        }
        assert!(!b.pull(alive).iter().any(|g| matches!(g, Got::Closing(_))));
    }
    assert_eq!(pings, 2);
    let (second, code) = closed.unwrap();
    assert_eq!(code, CloseReason::Silent.code());
    assert!((40..=50).contains(&second), "{second}");
}

#[test]
fn a_connection_that_takes_nothing_is_closed_and_its_frames_wait() {
    let mut b = Bench::new(Limits::default(), false);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.pull(reader);
    b.machine.handle_blocked(reader, true, b.now);
    b.publish(a, 1, b"x");
    b.pass(Duration::from_secs(16));
    let mut out = VecDeque::new();
    let pulled = b
        .machine
        .poll_frames(reader, false, Waker::noop(), b.now, &mut out);
    assert_eq!(pulled.closing, Some(CloseReason::SlowConsumer));
    b.machine.handle_closed(reader, b.now);
    let reader = b.open("r");
    assert_eq!(b.frames(reader), [b"x"]);
}

#[test]
fn the_will_goes_out_once_at_death_only() {
    let mut b = Bench::new(Limits::default(), false);
    let will = || {
        Some(WireWill {
            channel: presence("a"),
            bytes: b"gone",
        })
    };
    let watcher = b.open("w");
    b.subscribe(watcher, presence("a"));
    b.pull(watcher);
    let first = b.open_with("a", will());
    b.op(first, ClientOp::Bye);
    b.machine.handle_closed(first, b.now);
    let second = b.open_with("a", will());
    let third = b.open_with("a", will());
    assert_eq!(
        b.pull(second).last(),
        Some(&Got::Closing(CloseReason::Replaced.code()))
    );
    b.machine.handle_closed(second, b.now);
    assert_eq!(b.frames(watcher), Vec::<Vec<u8>>::new());
    b.machine.close(third, CloseReason::Silent, b.now);
    b.machine.handle_closed(third, b.now);
    assert_eq!(b.frames(watcher), [b"gone"]);
}

#[test]
fn unsubscribing_releases_what_was_kept() {
    let mut b = Bench::new(Limits::default(), true);
    let (a, reader) = (b.open("a"), b.open("r"));
    b.subscribe(reader, group());
    b.publish(a, 1, b"x");
    b.write_batch();
    b.pull(a);
    b.op(reader, ClientOp::Unsubscribe(group()));
    assert_eq!(b.machine.stats().stored_bytes, 0);
    b.pass(Duration::from_secs(2));
    b.write_batch();
    assert_eq!(b.log_rows(), 0);
    b.publish(a, 2, b"y");
    assert_eq!(b.pull(a), [Got::Sent(2, "nobody")]);
}

#[test]
fn a_token_that_runs_out_closes_the_connection_unless_another_came() {
    let limits = Limits {
        ping: Duration::from_secs(3_600),
        ..Limits::default()
    };
    let mut b = Bench::new(limits, false);
    let id = b.open("a");
    let holds = Some(Duration::from_secs(60));
    b.machine.handle_token(id, holds, b.now);
    assert_eq!(b.pull(id)[1..], [Got::TokenHolds]);
    b.pass(Duration::from_secs(50));
    b.machine.handle_token(id, holds, b.now);
    b.pass(Duration::from_secs(30));
    let got = b.pull(id);
    assert!(got.contains(&Got::TokenHolds), "{got:?}");
    assert!(
        !got.iter().any(|got| matches!(got, Got::Closing(_))),
        "{got:?}"
    );
    b.pass(Duration::from_secs(36));
    let closing = Got::Closing(CloseReason::TokenExpired.code());
    assert_eq!(b.pull(id).last(), Some(&closing));
}
