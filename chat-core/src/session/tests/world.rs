//! Machines on a scripted network in virtual time. What a machine wants done is done at once:
//! rows become durable, frames go in flight (one copy per device of the addressee), events are
//! logged. A restart keeps the rows and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use core::time::Duration;

use crate::channel::Channel;
use crate::config::SessionConfig;
use crate::effect::{Effect, Row, RowOp, Table};
use crate::id::{DeviceId, InviteId, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::session::{SessionEvent, SessionState, Sessions};
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire::Body;

pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1_800);
/// Deliveries after which a run counts as endless.
const MAX_DELIVERIES: usize = 5_000;

pub(super) struct Node {
    pub(super) me: Sender,
    pub(super) sessions: Sessions,
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    lives: u32,
    /// What the application knows from events: whose session is open on which channel.
    pub(super) open: BTreeMap<UserId, Channel>,
}

#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) number: usize,
    from: Sender,
    pub(super) to: String,
    body: Body,
}

/// Sender, receiver and what the frame says.
type Repeat = (String, String, String);

pub(super) struct World {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) flights: Vec<Flight>,
    pub(super) now: Now,
    pub(super) log: String,
    salt: u64,
    sent: usize,
    pub(super) deliveries: usize,
    invites: Vec<InviteId>,
    channels: Vec<Channel>,
    /// While time passes: frames are counted instead of logged one by one.
    repeats: Option<BTreeMap<Repeat, (usize, Flight)>>,
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Device `b2` belongs to user `b`.
pub(super) fn owner(device: &str) -> UserId {
    user(device.trim_end_matches(|c: char| c.is_ascii_digit()))
}

fn device_id(name: &str) -> DeviceId {
    let mut id = [0; 32];
    id[..name.len()].copy_from_slice(name.as_bytes());
    DeviceId(id)
}

pub(super) fn device_name(id: DeviceId) -> String {
    let text: Vec<u8> = id.0.iter().copied().take_while(|b| *b != 0).collect();
    String::from_utf8(text).unwrap()
}

fn rng(name: &str, salt: u64, lives: u32) -> Rng {
    Rng::from_seed([7; 32]).child(&format!("{name}/{salt}/{lives}"))
}

/// Rare repeats, so that a week passes quickly.
fn config() -> SessionConfig {
    SessionConfig {
        resend_max: LONGEST_WAIT,
        ..SessionConfig::default()
    }
}

impl World {
    pub(super) fn new(names: &[&str], salt: u64) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            flights: Vec::new(),
            now: Now {
                mono: Timestamp::from_secs(1),
                wall: UnixMillis(1_700_000_000_000),
            },
            log: String::new(),
            salt,
            sent: 0,
            deliveries: 0,
            invites: Vec::new(),
            channels: Vec::new(),
            repeats: None,
        };
        for name in names {
            world.add(name);
        }
        world
    }

    /// A world in which the first request of `low` has the lowest id.
    pub(super) fn with_lowest(names: &[&str], low: &str) -> Self {
        let first = |name: &str, salt| rng(name, salt, 0).bytes::<16>();
        let salt = (0..)
            .find(|salt| {
                names
                    .iter()
                    .all(|name| *name == low || first(low, *salt) < first(name, *salt))
            })
            .unwrap();
        Self::new(names, salt)
    }

    pub(super) fn add(&mut self, name: &str) {
        let me = Sender {
            user: owner(name),
            device: device_id(name),
        };
        let mut sessions = Sessions::new(me.clone(), config(), rng(name, self.salt, 0));
        sessions.handle_up(self.now);
        sessions.handle_caught_up(self.now);
        let node = Node {
            me,
            sessions,
            rows: BTreeMap::new(),
            lives: 0,
            open: BTreeMap::new(),
        };
        self.nodes.insert(name.to_owned(), node);
    }

    pub(super) fn with<T>(&mut self, name: &str, f: impl FnOnce(&mut Sessions, Now) -> T) -> T {
        let now = self.now;
        let node = self.nodes.get_mut(name).unwrap();
        let result = f(&mut node.sessions, now);
        self.drain(name);
        result
    }

    /// Kills the process. Rows that were handed out are durable.
    pub(super) fn restart(&mut self, name: &str) {
        let now = self.now;
        let node = self.nodes.get_mut(name).unwrap();
        node.lives += 1;
        node.open.clear();
        let seed = rng(name, self.salt, node.lives);
        node.sessions = restored(&node.me, &node.rows, seed, now);
        self.drain(name);
    }

    /// Kills the process while it handles a frame, before its rows are durable: nothing of it
    /// leaves.
    pub(super) fn crash_during(&mut self, name: &str, flight: &Flight) {
        let now = self.now;
        let node = self.nodes.get_mut(name).unwrap();
        node.sessions.handle_frame(&flight.from, &flight.body, now);
        while let Some(effect) = node.sessions.effects().pop() {
            match effect {
                Effect::Send(frame) => assert!(frame.gated, "a frame that waits for no row"),
                Effect::Emit { gated, .. } => assert!(gated, "an event that waits for no row"),
                Effect::Row(_) => {}
            }
        }
        self.restart(name);
    }

    fn drain(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        let from = node.me.clone();
        let mut effects = Vec::new();
        while let Some(effect) = node.sessions.effects().pop() {
            effects.push(effect);
        }
        for effect in effects {
            match effect {
                Effect::Row(RowOp::Put { table, key, value }) => {
                    assert_eq!(table, Table::Sessions);
                    let rows = &mut self.nodes.get_mut(name).unwrap().rows;
                    rows.insert(key.to_vec(), value.to_vec());
                }
                Effect::Row(RowOp::Delete { key, .. }) => {
                    self.nodes.get_mut(name).unwrap().rows.remove(&key[..]);
                }
                Effect::Send(frame) => {
                    let Channel::Inbox(to) = &frame.channel else {
                        panic!("session frames travel on inboxes");
                    };
                    self.launch(name, &from, to, &frame.body);
                }
                Effect::Emit { event, .. } => {
                    self.note_event(name, &event);
                    let text = self.event(&event);
                    let _ = writeln!(self.log, "{name}: {text}");
                }
            }
        }
    }

    fn note_event(&mut self, name: &str, event: &SessionEvent) {
        let open = &mut self.nodes.get_mut(name).unwrap().open;
        match event {
            SessionEvent::Opened { peer, channel, .. } => {
                open.insert(peer.clone(), channel.clone());
            }
            SessionEvent::Closed { peer, .. } => {
                open.remove(peer);
            }
            _ => {}
        }
    }

    fn launch(&mut self, name: &str, from: &Sender, to: &UserId, body: &Body) {
        let text = self.body(body);
        let receivers: Vec<String> = self
            .nodes
            .iter()
            .filter(|(other, node)| node.me.user == *to && *other != name)
            .map(|(other, _)| other.clone())
            .collect();
        for to in receivers {
            let flight = Flight {
                number: 0,
                from: from.clone(),
                to: to.clone(),
                body: body.clone(),
            };
            if let Some(repeats) = &mut self.repeats {
                let entry = repeats
                    .entry((name.to_owned(), to, text.clone()))
                    .or_insert((0, flight));
                entry.0 += 1;
            } else {
                self.fly(flight, name, &text, 1);
            }
        }
    }

    fn fly(&mut self, mut flight: Flight, name: &str, text: &str, times: usize) {
        self.sent += 1;
        flight.number = self.sent;
        let times = if times > 1 {
            format!(" ({times} times)")
        } else {
            String::new()
        };
        let _ = writeln!(
            self.log,
            "{name} -> {} #{}: {text}{times}",
            flight.to, flight.number
        );
        self.flights.push(flight);
    }

    /// Delivers the flight at `index` and, when asked, keeps it in flight as a duplicate.
    pub(super) fn deliver(&mut self, index: usize, keep: bool) {
        self.deliveries += 1;
        assert!(self.deliveries < MAX_DELIVERIES, "the machines never rest");
        let flight = if keep {
            self.flights[index].clone()
        } else {
            self.flights.remove(index)
        };
        let text = self.body(&flight.body);
        let _ = writeln!(self.log, "{} gets #{} {text}", flight.to, flight.number);
        let sense = self.with(&flight.to, |sessions, now| {
            sessions.handle_frame(&flight.from, &flight.body, now)
        });
        if !sense {
            let _ = writeln!(self.log, "{}: makes no sense", flight.to);
        }
    }

    pub(super) fn deliver_all(&mut self) {
        while !self.flights.is_empty() {
            self.deliver(0, false);
        }
    }

    pub(super) fn sleep(&mut self, time: Duration) {
        self.repeats = Some(BTreeMap::new());
        let end = self.now.mono + time;
        loop {
            let next = self
                .nodes
                .iter()
                .filter_map(|(name, node)| Some((node.sessions.poll_timeout()?, name.clone())))
                .min()
                .filter(|(at, _)| *at <= end);
            let Some((at, name)) = next else { break };
            self.advance(at);
            let due = self.with(&name, |sessions, now| {
                sessions.handle_timeout(now);
                sessions.poll_timeout()
            });
            assert!(
                due.is_none_or(|due| due > self.now.mono),
                "a deadline that stays due"
            );
        }
        self.advance(end);
        for ((name, _, text), (times, flight)) in self.repeats.take().unwrap() {
            self.fly(flight, &name, &text, times);
        }
    }

    fn advance(&mut self, to: Timestamp) {
        let by = to.saturating_since(self.now.mono);
        // Wall time is whole milliseconds: round up, as a clock read at or after `to` would.
        let by_wall = Duration::from_millis(u64::try_from(by.as_micros().div_ceil(1_000)).unwrap());
        self.now = Now {
            mono: self.now.mono + by,
            wall: self.now.wall.plus(by_wall),
        };
    }

    pub(super) fn state(&mut self, name: &str, peer: &str) -> String {
        let state = self.nodes[name].sessions.state(&user(peer));
        match state {
            SessionState::Inviting { invite } => format!("Inviting {}", self.invite(invite)),
            SessionState::Invited { invite } => format!("Invited {}", self.invite(invite)),
            SessionState::Active {
                invite,
                channel,
                devices,
            } => {
                let devices: Vec<_> = devices.into_iter().map(device_name).collect();
                format!(
                    "Active {} on {} with {}",
                    self.invite(invite),
                    self.channel(&channel),
                    devices.join(" ")
                )
            }
            SessionState::Closed(why) => format!("Closed {why:?}"),
            other => format!("{other:?}"),
        }
    }

    fn event(&mut self, event: &SessionEvent) -> String {
        match event {
            SessionEvent::Requested { peer, invite, note } => {
                format!("Requested by {peer} {} {note:?}", self.invite(*invite))
            }
            SessionEvent::Withdrawn { peer, invite, why } => {
                format!("Withdrawn by {peer} {} {why:?}", self.invite(*invite))
            }
            SessionEvent::Opened {
                peer,
                channel,
                devices,
                ours,
                ..
            } => {
                let devices: Vec<_> = devices.iter().copied().map(device_name).collect();
                let whose = if *ours { "ours" } else { "theirs" };
                format!(
                    "Opened {peer} on {} with {} ({whose})",
                    self.channel(channel),
                    devices.join(" ")
                )
            }
            SessionEvent::Closed { peer, why, .. } => format!("Closed {peer} {why:?}"),
            SessionEvent::BlockChanged { peer, blocked } => format!("Blocked {peer} {blocked}"),
        }
    }

    fn body(&mut self, body: &Body) -> String {
        let mut id = |raw: [u8; 16]| self.invite(InviteId(raw));
        match body {
            Body::Request(b) => format!("request {}", id(b.invite)),
            Body::Accept(b) => {
                let over = b.over.map(|o| format!(" over {}", id(o)));
                format!("accept {}{}", id(b.invite), over.unwrap_or_default())
            }
            Body::Confirm(b) => {
                let joined: Vec<_> = b.joined.iter().map(|d| device_name(DeviceId(*d))).collect();
                format!("confirm {} joined {}", id(b.invite), joined.join(" "))
            }
            Body::Reject(b) => format!("reject {} {:?}", id(b.invite), &*b.reason),
            Body::Cancel(b) => format!("cancel {}", id(b.invite)),
            Body::Gone(b) => format!("gone {} code {}", id(b.invite), b.why),
            Body::Elsewhere(b) => format!("elsewhere {} accepted={}", id(b.invite), b.accepted),
            Body::Close(b) => format!("close {} {:?}", id(b.invite), &*b.reason),
            Body::CloseAck(b) => format!("close-ack {}", id(b.invite)),
            _ => panic!("not a session frame"),
        }
    }

    fn invite(&mut self, invite: InviteId) -> String {
        format!("x{}", 1 + index_of(&mut self.invites, &invite))
    }

    fn channel(&mut self, channel: &Channel) -> String {
        format!("t{}", 1 + index_of(&mut self.channels, channel))
    }
}

fn index_of<T: Clone + PartialEq>(list: &mut Vec<T>, item: &T) -> usize {
    list.iter().position(|i| i == item).unwrap_or_else(|| {
        list.push(item.clone());
        list.len() - 1
    })
}

/// A fresh machine from stored rows, not connected.
pub(super) fn restored(
    me: &Sender,
    rows: &BTreeMap<Vec<u8>, Vec<u8>>,
    seed: Rng,
    now: Now,
) -> Sessions {
    let mut sessions = Sessions::new(me.clone(), config(), seed);
    for (key, value) in rows {
        let row = Row {
            table: Table::Sessions,
            key: key.clone().into(),
            value: value.clone().into(),
        };
        sessions.restore(&row, now).unwrap();
    }
    sessions.resume(now);
    sessions
}
