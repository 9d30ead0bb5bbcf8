//! Presence: IP2–IP5 and P5, P7, by a second model: the records that reached an observer, their
//! keys and the time of the last sign of life.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chat_core::channel::Channel;
use chat_core::config::PresenceConfig;
use chat_core::event::Event;
use chat_core::id::{DeviceId, UserId};
use chat_core::link::LinkState;
use chat_core::presence::{PresenceEvent, Status};
use chat_core::time::Timestamp;
use chat_core::wire::{self, Body};

use super::{At, Marks, Seen, Settled, Verdict, View, Violation};
use crate::sim::{FakeVerifier, Ledger};

const RECORD: u8 = 0x30;
const LEFT: u8 = 5;
const LOST: u8 = 6;

#[derive(Clone, Copy, Debug)]
struct Record {
    key: (u64, u64, u64),
    status: u8,
    ttl_us: u64,
    /// The latest live record of the greatest key.
    live: Option<Timestamp>,
    /// The latest frame of any kind.
    heard: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Observer {
    records: BTreeMap<(UserId, DeviceId), Record>,
    published: VecDeque<u64>,
    down_at: Option<Timestamp>,
}

/// See the module.
#[derive(Debug)]
pub struct Presence {
    verifier: FakeVerifier,
    observers: BTreeMap<usize, Observer>,
    debounce_us: u64,
    slack_us: u64,
    marks: Marks,
}

impl Presence {
    /// For endpoints with this configuration.
    pub fn new(config: &PresenceConfig, ledger: Arc<Ledger>) -> Self {
        let micros = |d: core::time::Duration| d.as_micros() as u64;
        Self {
            verifier: FakeVerifier(ledger),
            observers: BTreeMap::new(),
            debounce_us: micros(config.debounce),
            slack_us: micros(config.grace) + micros(config.beat),
            marks: Marks::default(),
        }
    }

    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        self.marks.list()
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// IP3, IP4, IP5 or P5.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::Started => drop(self.observers.insert(at.node, Observer::default())),
            Seen::Arrives(channel, bytes, live) => self.arrives(at, channel, bytes, live),
            Seen::Event(Event::Link(LinkState::CaughtUp)) => self.caught_up(at),
            Seen::Event(Event::Link(LinkState::Disconnected { .. } | LinkState::Closed)) => {
                self.observers.entry(at.node).or_default().down_at = Some(at.mono);
            }
            Seen::Event(Event::Presence(PresenceEvent::Changed { user, view })) => {
                return self.told(at, user, view.status);
            }
            Seen::Transmit(transmit)
                if matches!(transmit.channel, Channel::Presence(_))
                    && wire::peek_kind(&transmit.bytes) == Some(RECORD) =>
            {
                return self.published(at);
            }
            _ => {}
        }
        Ok(())
    }

    /// The clocks of silence start anew with a connection, for what was heard over it.
    fn caught_up(&mut self, at: At<'_>) {
        let observer = self.observers.entry(at.node).or_default();
        for record in observer.records.values_mut() {
            if record.heard > observer.down_at {
                record.heard = Some(at.mono);
            }
        }
    }

    /// IP5: at most one publish per debounce time, with room for beats and reconnects.
    fn published(&mut self, at: At<'_>) -> Verdict {
        let window = self.debounce_us * 5;
        let times = &mut self.observers.entry(at.node).or_default().published;
        times.push_back(at.now);
        while times.front().is_some_and(|first| at.now - first > window) {
            times.pop_front();
        }
        if times.len() > 12 {
            let text = format!(
                "node {} published {} times in {window} µs",
                at.node,
                times.len()
            );
            return Err(Violation::new("IP5", text));
        }
        Ok(())
    }

    fn arrives(&mut self, at: At<'_>, channel: &Channel, bytes: &[u8], live: bool) {
        let Ok(header) = wire::header(bytes) else {
            return;
        };
        let device = header.key.device();
        if device == at.device {
            return;
        }
        let Ok(opened) = wire::open(header, channel, &self.verifier) else {
            return;
        };
        let observer = self.observers.entry(at.node).or_default();
        let slot = (opened.user, device);
        let Body::Presence(record) = opened.body else {
            if let Some(known) = observer.records.get_mut(&slot) {
                known.heard = Some(at.mono);
            }
            return;
        };
        let key = (record.incarnation, record.conn, record.seq);
        let late_will = record.seq == u64::MAX
            && observer
                .records
                .get(&slot)
                .is_some_and(|known| (known.key.0, known.key.1) > (key.0, key.1));
        let first = !observer.records.contains_key(&slot);
        let known = observer.records.entry(slot).or_insert(Record {
            key,
            status: record.status,
            ttl_us: record.ttl_ms.saturating_mul(1_000),
            live: None,
            heard: None,
        });
        if live {
            known.heard = Some(at.mono);
        }
        let newer = first || key > known.key;
        if key >= known.key {
            known.key = key;
            // A goodbye has the key of its connection's will, and wins.
            if newer || known.status != LEFT {
                known.status = record.status;
            }
            known.ttl_us = record.ttl_ms.saturating_mul(1_000);
            if newer {
                // A copy renews no lease.
                known.live = live.then_some(at.mono);
            }
        }
        if late_will {
            self.marks.hit("oracle-late-will-ignored");
        }
    }

    pub(super) fn told(&mut self, at: At<'_>, user: &UserId, status: Status) -> Verdict {
        let records: Vec<Record> = self
            .observers
            .get(&at.node)
            .into_iter()
            .flat_map(|observer| &observer.records)
            .filter(|((whose, _), _)| whose == user)
            .map(|(_, record)| *record)
            .collect();
        let since = |then: Option<Timestamp>| {
            then.map_or(u64::MAX, |then| {
                at.mono.saturating_since(then).as_micros() as u64
            })
        };
        let there = |record: &Record| record.status != LEFT && record.status != LOST;
        let surely = |record: &Record| {
            there(record) && since(record.live).saturating_add(1_000_000) < record.ttl_us
        };
        let told = |what: &str| {
            format!(
                "node {} is told {user} is {:?}, but {what}: {records:?}",
                at.node, status
            )
        };
        match status {
            Status::Lost | Status::Left => {
                let left = status == Status::Left;
                self.marks.hit(if left {
                    "oracle-told-left"
                } else {
                    "oracle-told-lost"
                });
                if records.iter().any(surely) {
                    return Err(Violation::new("IP4", told("a device is there")));
                }
                // What the store remembers from an earlier process may be told as it was.
                if left
                    && !records.is_empty()
                    && !records.iter().any(|record| record.status == LEFT)
                {
                    return Err(Violation::new("P5", told("nobody said goodbye")));
                }
            }
            Status::Unknown => {}
            _ => {
                self.marks.hit("oracle-told-present");
                let maybe = |record: &Record| {
                    record.status != LEFT && since(record.heard) < record.ttl_us + self.slack_us
                };
                if !records.iter().any(maybe) {
                    return Err(Violation::new(
                        "IP3",
                        told("no device was heard of in time"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// P7: whoever is cut off shows nobody as there; IP3: nobody is shown there for longer than
    /// its lease.
    ///
    /// # Errors
    /// The first who is.
    pub fn probe(&self, nodes: &[View<'_>]) -> Verdict {
        for node in nodes {
            let Some(endpoint) = node.endpoint.filter(|_| !node.paused) else {
                continue;
            };
            let cut_off = matches!(
                endpoint.link(),
                LinkState::Disconnected { .. } | LinkState::Failed { .. } | LinkState::Closed
            );
            for (user, view) in endpoint.people() {
                if user == *node.at.user || !present(view.status) {
                    continue;
                }
                if cut_off {
                    let text = format!(
                        "node {} is cut off and shows {user} as {:?}",
                        node.at.node, view.status
                    );
                    return Err(Violation::new("P7", text));
                }
                let heard = self.observers.get(&node.at.node).is_some_and(|observer| {
                    observer.records.iter().any(|((whose, _), record)| {
                        let gone = record.heard.map_or(u64::MAX, |heard| {
                            node.at.mono.saturating_since(heard).as_micros() as u64
                        });
                        *whose == user && gone < record.ttl_us + self.slack_us
                    })
                });
                if !heard {
                    let text = format!("node {} still shows {user} as there", node.at.node);
                    return Err(Violation::new("IP3", text));
                }
            }
        }
        Ok(())
    }

    /// At the end everybody shows the living as there, the dead as not, and all agree (IP2).
    ///
    /// # Errors
    /// The first view that is wrong.
    pub fn settled(&self, nodes: &[View<'_>]) -> Result<Settled, Violation> {
        let mut agreed: BTreeMap<&UserId, (usize, Status)> = BTreeMap::new();
        for observer in nodes.iter().filter(|node| !node.killed) {
            let me = observer.at.node;
            let missing = |text: String| Err(Violation::new("IP3", text));
            let Some(endpoint) = observer.endpoint else {
                return missing(format!("node {me} is down"));
            };
            if *endpoint.link() != LinkState::CaughtUp {
                return missing(format!(
                    "node {me} has not caught up: {:?}",
                    endpoint.link()
                ));
            }
            for subject in nodes.iter().filter(|node| node.at.user != observer.at.user) {
                let user = subject.at.user;
                let lives = nodes
                    .iter()
                    .any(|node| node.at.user == user && !node.killed);
                let status = endpoint.presence(user).map(|view| view.status);
                if status.is_some_and(present) != lives {
                    return missing(format!(
                        "node {me} shows {user} as {status:?}, lives: {lives}"
                    ));
                }
                let Some(status) = status.filter(|_| lives) else {
                    continue;
                };
                let (other, first) = *agreed.entry(user).or_insert((me, status));
                if first != status {
                    let text = format!(
                        "{user} is {first:?} for node {other} and {status:?} for node {me}"
                    );
                    return Err(Violation::new("IP2", text));
                }
            }
        }
        Ok(Settled::Yes)
    }
}

fn present(status: Status) -> bool {
    matches!(
        status,
        Status::Active | Status::Idle | Status::Away | Status::DoNotDisturb
    )
}
