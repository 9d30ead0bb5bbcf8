//! The hub without sockets or disk: a clock by hand, rows in a map, wakers that count.

mod connections;
mod frames;
mod laws;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use chat_core::channel::Class;
use chat_core::id::GroupId;
use chat_core::time::UnixMillis;

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
    TokenHolds,
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
            let fates = |op: &HubOp<'_>| match op {
                HubOp::Sent { count, .. } => *count,
                _ => 1,
            };
            let ops = Frames::from_hub(&bytes).map(Result::unwrap);
            let each = ops.flat_map(|op| (0..fates(&op)).map(move |step| (step, op.clone())));
            got.extend(each.map(|(step, op)| match op {
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
                HubOp::Sent { token, outcome, .. } => Got::Sent(
                    token + u64::from(step),
                    match outcome {
                        WireOutcome::Accepted => "accepted",
                        WireOutcome::NoReceiver => "nobody",
                        WireOutcome::Refused(_) => "refused",
                        WireOutcome::TooFast(_) => "too fast",
                        WireOutcome::Denied => "denied",
                        WireOutcome::TooLarge => "too large",
                    },
                ),
                HubOp::Subscribed { granted, .. } => Got::Subscribed(granted),
                HubOp::CaughtUp => Got::CaughtUp,
                HubOp::Gap(_) => Got::Gap,
                HubOp::Closing { code, .. } => Got::Closing(code),
                HubOp::TokenHolds { .. } => Got::TokenHolds,
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
