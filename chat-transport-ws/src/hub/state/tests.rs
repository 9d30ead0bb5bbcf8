//! The hub without sockets or disk: a clock by hand, rows in a map, wakers that count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use chat_core::channel::Class;
use chat_core::id::GroupId;
use chat_core::time::UnixMillis;
use proptest::prelude::*;

use super::*;
use crate::hub::auth::OwnerRules;
use crate::proto::{Frames, Hello, Publish, WireOutcome, WireWill};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a connection was handed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Welcome(bool),
    Frame {
        lane: u64,
        seq: u64,
        live: bool,
        bytes: Vec<u8>,
    },
    Sent(u64, &'static str),
    Subscribed(bool),
    CaughtUp,
    Gap,
    Closing(u16),
    Ping,
}

struct Bench {
    machine: Machine,
    now: Now,
    disk: BTreeMap<Key, Bytes>,
    woken: Arc<Count>,
}

fn group() -> Channel {
    Channel::Group(GroupId([7; 32]))
}

fn presence(name: &str) -> Channel {
    Channel::Presence(UserId::new(name).unwrap())
}

impl Bench {
    fn new(limits: Limits, durable: bool) -> Self {
        Self {
            machine: Machine::new(limits, Arc::new(OwnerRules), durable),
            now: Now {
                mono: Timestamp::from_secs(1),
                wall: UnixMillis(1_000_000),
            },
            disk: BTreeMap::new(),
            woken: Arc::default(),
        }
    }

    fn open(&mut self, name: &str) -> ConnId {
        self.open_with(name, None)
    }

    fn open_with(&mut self, name: &str, will: Option<WireWill<'_>>) -> ConnId {
        let hello = Hello {
            user: UserId::new(name).unwrap(),
            device: DeviceId([1; 32]),
            resume: true,
            token: None,
            will,
        };
        self.machine.handle_open(&hello, self.now).unwrap()
    }

    fn op(&mut self, id: ConnId, op: ClientOp<'_>) {
        self.machine.handle_op(id, op, self.now);
    }

    fn subscribe(&mut self, id: ConnId, channel: Channel) {
        self.op(id, ClientOp::Subscribe(channel));
    }

    fn publish(&mut self, id: ConnId, token: u64, bytes: &[u8]) {
        self.publish_as(id, token, Class::Durable, None, bytes);
    }

    fn publish_as(
        &mut self,
        id: ConnId,
        token: u64,
        class: Class,
        ttl_ms: Option<u64>,
        bytes: &[u8],
    ) {
        self.op(
            id,
            ClientOp::Publish(Publish {
                token,
                channel: group(),
                class,
                ttl_ms,
                last_value: false,
                dedup: None,
                bytes,
            }),
        );
    }

    fn ack(&mut self, id: ConnId, got: &Got) {
        if let Got::Frame { lane, seq, .. } = got {
            self.op(
                id,
                ClientOp::Ack {
                    lane: *lane,
                    seq: *seq,
                },
            );
        }
    }

    /// One pull, as a task makes it whose socket took everything.
    fn pull_once(&mut self, id: ConnId) -> (Vec<Got>, Pulled) {
        let mut out = VecDeque::new();
        let waker = Waker::from(Arc::clone(&self.woken));
        let pulled = self
            .machine
            .poll_frames(id, true, &waker, self.now, &mut out);
        let mut got = Vec::new();
        for frame in out {
            let bytes = match frame {
                Frame::Ping => {
                    got.push(Got::Ping);
                    continue;
                }
                Frame::Shared(bytes) => bytes.to_vec(),
                Frame::Own(bytes) => bytes,
            };
            got.extend(Frames::from_hub(&bytes).map(|op| match op.unwrap() {
                HubOp::Welcome(welcome) => Got::Welcome(welcome.resumed),
                HubOp::Deliver {
                    lane,
                    seq,
                    live,
                    bytes,
                    ..
                } => Got::Frame {
                    lane,
                    seq,
                    live,
                    bytes: bytes.to_vec(),
                },
                HubOp::Sent { token, outcome } => Got::Sent(
                    token,
                    match outcome {
                        WireOutcome::Accepted => "accepted",
                        WireOutcome::NoReceiver => "nobody",
                        WireOutcome::Refused(_) => "refused",
                    },
                ),
                HubOp::Subscribed { granted, .. } => Got::Subscribed(granted),
                HubOp::CaughtUp => Got::CaughtUp,
                HubOp::Gap(_) => Got::Gap,
                HubOp::Closing { code, .. } => Got::Closing(code),
                HubOp::Refused { .. } => panic!("the server says that"),
            }));
        }
        (got, pulled)
    }

    fn pull(&mut self, id: ConnId) -> Vec<Got> {
        let mut all = Vec::new();
        loop {
            let (got, pulled) = self.pull_once(id);
            all.extend(got);
            if !pulled.more {
                return all;
            }
        }
    }

    fn frames(&mut self, id: ConnId) -> Vec<Vec<u8>> {
        (self.pull(id).into_iter())
            .filter_map(|got| match got {
                Got::Frame { bytes, .. } => Some(bytes),
                _ => None,
            })
            .collect()
    }

    fn write_batch(&mut self) -> bool {
        let Some(batch) = self.machine.poll_batch(self.now) else {
            return false;
        };
        for (key, value) in batch.rows {
            match value {
                Some(value) => drop(self.disk.insert(key, value)),
                None => drop(self.disk.remove(&key)),
            }
        }
        self.machine.handle_written(self.now);
        true
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall = self.now.wall.plus(time);
        self.machine.handle_timeout(self.now);
    }

    /// kill -9, and a start from what is on disk.
    fn restart(&mut self) {
        let limits = self.machine.limits.clone();
        self.machine = Machine::new(limits, Arc::new(OwnerRules), true);
        for (key, value) in &self.disk {
            let key = Key::from_bytes(&key.to_bytes()).unwrap();
            self.machine.restore(key, value, self.now.wall).unwrap();
        }
        self.machine.finish_restore(self.now);
    }

    fn log_rows(&self) -> usize {
        self.disk
            .keys()
            .filter(|key| matches!(key, Key::Log(..)))
            .count()
    }
}

fn small() -> Limits {
    Limits {
        queue_frames: 4,
        mailbox_frames: 8,
        ..Limits::default()
    }
}

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

#[derive(Clone, Debug)]
enum Step {
    Connect(usize),
    Drop(usize),
    Publish(usize),
    /// Pull, and acknowledge the frames whose bit is set.
    Read(usize, u8),
    Write,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3usize).prop_map(Step::Connect),
        1 => (0..3usize).prop_map(Step::Drop),
        6 => (0..3usize).prop_map(Step::Publish),
        4 => (0..3usize, any::<u8>()).prop_map(|(who, mask)| Step::Read(who, mask)),
        4 => Just(Step::Write),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

const NAMES: [&str; 3] = ["x", "y", "z"];

proptest! {
    /// Whatever happens, an accepted frame reaches every other subscriber, in order, and not
    /// again once its ack is on disk.
    #[test]
    fn accepted_frames_reach_everybody_in_order(steps in steps()) {
        let mut b = Bench::new(Limits { queue_frames: 3, ..Limits::default() }, true);
        let mut conns: [Option<ConnId>; 3] = [None; 3];
        for who in 0..3 {
            let id = b.open(NAMES[who]);
            b.subscribe(id, group());
            conns[who] = Some(id);
        }
        b.write_batch();
        let mut next = 1u64;
        let mut accepted: Vec<(usize, u64)> = Vec::new();
        let mut seen: [Vec<u64>; 3] = Default::default();
        let mut last: [u64; 3] = [0; 3];
        let read = |b: &mut Bench, id: ConnId, who: usize, mask: u8,
                        accepted: &mut Vec<(usize, u64)>, last: &mut [u64; 3],
                        seen: &mut [Vec<u64>; 3]| -> Result<(), TestCaseError> {
            for (n, got) in b.pull(id).iter().enumerate() {
                match got {
                    Got::Frame { seq, bytes, .. } => {
                        prop_assert!(*seq > last[who], "in order");
                        last[who] = *seq;
                        seen[who].push(u64::from_be_bytes(bytes[..].try_into().unwrap()));
                        if mask & (1 << (n % 8)) != 0 {
                            b.ack(id, got);
                        }
                    }
                    Got::Sent(token, outcome) => {
                        prop_assert_eq!(*outcome, "accepted");
                        accepted.push((who, *token));
                    }
                    Got::Gap => prop_assert!(false, "nothing overflows here"),
                    _ => {}
                }
            }
            Ok(())
        };
        for step in steps {
            match step {
                Step::Connect(who) => {
                    conns[who] = Some(b.open(NAMES[who]));
                    last[who] = 0;
                }
                Step::Drop(who) => if let Some(id) = conns[who].take() {
                    b.machine.handle_closed(id, b.now);
                },
                Step::Publish(who) => if let Some(id) = conns[who] {
                    b.publish(id, next, &next.to_be_bytes());
                    next += 1;
                },
                Step::Read(who, mask) => if let Some(id) = conns[who] {
                    read(&mut b, id, who, mask, &mut accepted, &mut last, &mut seen)?;
                },
                Step::Write => {
                    b.pass(Duration::from_secs(1));
                    b.write_batch();
                    for id in conns.into_iter().flatten() {
                        b.machine.handle_heard(id, b.now);
                    }
                }
                Step::Restart => {
                    b.restart();
                    conns = [None; 3];
                }
            }
        }
        for who in 0..3 {
            let id = b.open(NAMES[who]);
            last[who] = 0;
            read(&mut b, id, who, 0xff, &mut accepted, &mut last, &mut seen)?;
        }
        for (from, token) in &accepted {
            for (who, seen) in seen.iter().enumerate() {
                prop_assert_eq!(seen.contains(token), who != *from, "{} to {}", token, who);
            }
        }
        for id in b.machine.conns.ids() {
            b.machine.handle_closed(id, b.now);
        }
        b.pass(Duration::from_secs(2));
        b.write_batch();
        b.restart();
        for name in NAMES {
            let id = b.open(name);
            prop_assert_eq!(b.frames(id).len(), 0, "all was acknowledged");
        }
        prop_assert_eq!(b.machine.stats().stored_bytes, 0);
        prop_assert_eq!(b.log_rows(), 0);
    }
}
