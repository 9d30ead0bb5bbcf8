//! One state of a search: the members' machines and disks, the frames in flight, and what the
//! judges remember of the path.

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use chat_core::channel::{Channel, Class};
use chat_core::config::GroupConfig;
use chat_core::effect::{Effect, Outgoing, Row, RowOp, Table};
use chat_core::group::{GroupEvent, Groups, Membership, Rules};
use chat_core::id::{GroupId, GroupName, UserId};
use chat_core::identity::{Sender, Signer as _};
use chat_core::link::LinkState;
use chat_core::rng::Rng;
use chat_core::time::{Now, Timestamp, UnixMillis};
use chat_core::wire::{self, Body};
use chat_core::{Transmit, TransmitId};

use super::Case;
use super::hash::{Hashing, hash_of, mix};
use crate::oracle::{self, At, Seen, Verdict, chain::Log};
use crate::sim::{FakeSigner, FakeVerifier, Ledger};

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The frame with this hash arrives.
    Deliver(u64),
    /// Time passes at a member.
    Wait(usize),
    /// The member removes another.
    Kick(usize, usize),
    /// The leader offers the lead.
    HandOver(usize, usize),
    /// The member leaves.
    Leave(usize),
    /// Somebody who is out asks to be let in.
    Join(usize),
    /// The leader lets in who asks longest.
    Approve(usize),
}

/// An event, and how the member that it happens to gets through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub event: Event,
    /// It crashes then, and starts again; were its rows durable by then?
    pub crash: Option<bool>,
}

/// A frame in flight to one member.
#[derive(Debug)]
struct Flight {
    to: usize,
    from: Sender,
    channel: Channel,
    body: Body,
    bytes: Bytes,
}

/// One member.
#[derive(Clone)]
struct Node {
    groups: Groups,
    disk: BTreeMap<(Table, Bytes), Bytes>,
    now: Timestamp,
    lives: u64,
    /// Of everything above.
    hash: u64,
}

/// What does not change on the way.
pub(super) struct World {
    names: Vec<Sender>,
    ledger: Arc<Ledger>,
    config: GroupConfig,
    group: GroupId,
    /// Every entry of all paths.
    log: Log,
}

/// See the module.
#[derive(Clone)]
pub(super) struct State {
    nodes: Vec<Rc<Node>>,
    flights: BTreeMap<u64, Rc<Flight>>,
    judges: oracle::Groups,
    /// What was ever kept and promised on this path.
    facts: BTreeSet<u64>,
    pub(super) waits: u8,
    pub(super) commands: u8,
    pub(super) crashes: u8,
}

/// What one input to a machine led to.
#[derive(Default)]
struct Outcome {
    rows: Vec<RowOp>,
    /// Frames that wait for the rows, and those that do not.
    gated: Vec<Outgoing>,
    free: Vec<Outgoing>,
    offered: bool,
    /// It said something that matters to others.
    spoke: bool,
}

impl Node {
    fn clock(&self) -> Now {
        Now {
            mono: self.now,
            wall: UnixMillis(1_000_000 + self.now.as_micros() / 1_000),
        }
    }

    fn rehash(&mut self) {
        let mut hash = Hashing(self.lives);
        let shown = write!(hash, "{:?} {:?}", self.groups, self.now);
        shown.expect("hashing takes everything");
        for ((table, key), value) in &self.disk {
            hash.0 = mix(hash.0, hash_of(&[&[*table as u8], key, value]));
        }
        self.hash = hash.0;
    }
}

impl World {
    fn signer(&self, n: usize) -> FakeSigner {
        FakeSigner::new(n as u64 + 1, self.ledger.clone())
    }

    fn machine(&self, n: usize, lives: u64) -> Groups {
        let mut seed = [n as u8; 32];
        seed[..8].copy_from_slice(&lives.to_le_bytes());
        Groups::new(
            self.names[n].clone(),
            Arc::new(self.signer(n)),
            Arc::new(FakeVerifier(self.ledger.clone())),
            self.config.clone(),
            Rng::from_seed(seed),
        )
    }
}

fn at<'a>(names: &'a [Sender], n: usize, node: &Node) -> At<'a> {
    At {
        now: node.now.as_micros(),
        mono: node.now,
        node: n,
        user: &names[n].user,
        device: names[n].device,
    }
}

fn drain(groups: &mut Groups) -> Outcome {
    let mut out = Outcome::default();
    while let Some(effect) = groups.effects().pop() {
        match effect {
            Effect::Row(row) => out.rows.push(row),
            Effect::Send(frame) => {
                let chatter = matches!(frame.body, Body::Fetch(_) | Body::GroupAck(_));
                out.spoke |= !chatter;
                if frame.gated {
                    out.gated.push(frame);
                } else {
                    out.free.push(frame);
                }
            }
            Effect::Emit { event, .. } => {
                out.offered |= matches!(event, GroupEvent::LeadOffered { .. });
            }
        }
    }
    out
}

impl State {
    /// A group whose members are all in and quiet, and the world around it.
    pub(super) fn begin(case: &Case) -> (World, Self) {
        let ledger = Arc::new(Ledger::default());
        let config = GroupConfig::default().with_beat(Duration::from_secs(1));
        let count = case.members + case.guests;
        let names = (0..count).map(|n| {
            let key = FakeSigner::new(n as u64 + 1, ledger.clone()).public_key();
            Sender {
                user: UserId::new(&format!("user{n}")).expect("a plain name"),
                device: key.device(),
            }
        });
        let mut world = World {
            names: names.collect(),
            log: Log::new(ledger.clone()),
            group: GroupId([0; 32]),
            config,
            ledger,
        };
        let judges = oracle::Groups::new(world.ledger.clone(), &world.config, false, u64::MAX);
        let nodes = (0..count).map(|n| {
            let mut groups = world.machine(n, 0);
            let now = Timestamp::from_secs(100);
            let wall = UnixMillis(1_000_000 + now.as_micros() / 1_000);
            groups.handle_up(Now { mono: now, wall });
            Rc::new(Node {
                groups,
                disk: BTreeMap::new(),
                now,
                lives: 0,
                hash: 0,
            })
        });
        let mut state = Self {
            nodes: nodes.collect(),
            flights: BTreeMap::new(),
            judges,
            facts: BTreeSet::new(),
            waits: case.waits,
            commands: case.commands,
            crashes: case.crashes,
        };
        let found = state.found(&mut world, case);
        found.expect("nothing goes wrong before the search");
        if case.silent {
            let patience = world.config.succeed - world.config.beat / 4;
            for n in 1..case.members {
                let due = state.nodes[n].now + patience;
                state
                    .pass(&mut world, n, due)
                    .expect("silence harms nobody");
            }
        }
        state.flights.clear();
        (world, state)
    }

    fn found(&mut self, world: &mut World, case: &Case) -> Verdict {
        let rules = if case.strict {
            Rules::strict()
        } else {
            Rules::default()
        };
        let name = GroupName::new("ops").expect("a plain name");
        let node = Rc::make_mut(&mut self.nodes[0]);
        let now = node.clock();
        let group = node.groups.create(&name, rules, now);
        world.group = group.expect("there is room");
        self.judges.founded(world.group);
        for n in 0..self.nodes.len() {
            self.connected(world, n)?;
        }
        self.finish(world, 0, None)?;
        let group = world.group;
        for n in 1..case.members {
            let node = Rc::make_mut(&mut self.nodes[n]);
            let now = node.clock();
            node.groups.join(group, "", now).expect("it is free to ask");
            self.finish(world, n, None)?;
        }
        // Everything arrives in order, and whoever asks is let in when the leader may.
        for _ in 0..400 {
            while let Some((hash, _)) = self.flights.first_key_value() {
                let hash = *hash;
                self.deliver(world, hash, None)?;
            }
            let view = self.nodes[0].groups.view(group).expect("it was founded");
            let whole = |node: &Rc<Node>| {
                let theirs = node.groups.view(group);
                theirs.is_some_and(|theirs| theirs.hash == view.hash)
            };
            let ready = view.roster.len() == case.members
                && view.committed == view.index
                && self.nodes[..case.members].iter().all(whole);
            if ready {
                return Ok(());
            }
            if let Some(request) = view.requests.first() {
                let node = Rc::make_mut(&mut self.nodes[0]);
                let now = node.clock();
                // Refused while a majority is not known to be there; asked again.
                let _later = node.groups.approve(group, request.request, now);
                self.finish(world, 0, None)?;
            }
            let next = self
                .nodes
                .iter()
                .filter_map(|n| n.groups.poll_timeout())
                .min();
            let next = next.expect("a group never sleeps");
            for n in 0..case.members {
                let due = next.max(self.nodes[n].now);
                self.pass(world, n, due)?;
            }
        }
        panic!("the group does not come together")
    }

    /// Time passes at one member alone, up to `end`; everything that falls due happens.
    fn pass(&mut self, world: &mut World, n: usize, end: Timestamp) -> Verdict {
        loop {
            let node = Rc::make_mut(&mut self.nodes[n]);
            let Some(due) = node.groups.poll_timeout().filter(|due| *due <= end) else {
                node.now = end;
                node.rehash();
                return Ok(());
            };
            node.now = node.now.max(due);
            let now = node.clock();
            node.groups.handle_timeout(now);
            self.finish(world, n, None)?;
        }
    }

    /// What tells states apart.
    pub(super) fn hash(&self) -> u64 {
        let budget = [self.waits, self.commands, self.crashes];
        let mut hash = hash_of(&[&budget]);
        for node in &self.nodes {
            hash = mix(hash, node.hash);
        }
        for flight in self.flights.keys() {
            hash = mix(hash, *flight);
        }
        self.facts.iter().fold(hash, |hash, fact| mix(hash, *fact))
    }

    /// Everything that may happen next.
    pub(super) fn choices(&self, world: &World) -> Vec<Act> {
        let mut events: Vec<Event> = self.flights.keys().map(|h| Event::Deliver(*h)).collect();
        let count = self.nodes.len();
        if self.waits > 0 {
            events.extend((0..count).map(Event::Wait));
        }
        if self.commands > 0 {
            for n in 0..count {
                let view = self.nodes[n].groups.view(world.group);
                if view.as_ref().is_some_and(|view| !view.requests.is_empty()) {
                    events.push(Event::Approve(n));
                }
                match view.map(|view| view.mine) {
                    Some(Membership::Leader) => {
                        let others = (0..count).filter(|other| *other != n);
                        events.extend(others.clone().map(|other| Event::Kick(n, other)));
                        events.extend(others.take(1).map(|other| Event::HandOver(n, other)));
                    }
                    Some(Membership::Member) => events.push(Event::Leave(n)),
                    Some(Membership::Asking | Membership::Leaving) => {}
                    _ => events.push(Event::Join(n)),
                }
            }
        }
        let ways: &[Option<bool>] = match self.crashes {
            0 => &[None],
            _ => &[None, Some(false), Some(true)],
        };
        let with = |event: Event| {
            let ways = ways.iter().copied();
            ways.map(move |crash| Act { event, crash })
        };
        events.into_iter().flat_map(with).collect()
    }

    /// The state after `act`; `None` when nothing comes of it.
    pub(super) fn after(&self, world: &mut World, act: Act) -> (Self, Verdict) {
        let mut next = self.clone();
        next.crashes -= u8::from(act.crash.is_some());
        let verdict = next.happen(world, act);
        (next, verdict)
    }

    fn happen(&mut self, world: &mut World, act: Act) -> Verdict {
        let group = world.group;
        let n = match act.event {
            Event::Deliver(hash) => return self.deliver(world, hash, act.crash),
            Event::Wait(n) => {
                self.waits -= 1;
                return self.wait(world, n, act.crash);
            }
            Event::Kick(n, _)
            | Event::HandOver(n, _)
            | Event::Leave(n)
            | Event::Join(n)
            | Event::Approve(n) => n,
        };
        self.commands -= 1;
        let node = Rc::make_mut(&mut self.nodes[n]);
        let now = node.clock();
        // A refusal is an answer like any other.
        let _refused = match act.event {
            Event::Kick(_, other) => {
                let user = &world.names[other].user;
                node.groups.kick(group, user, "", now).err()
            }
            Event::HandOver(_, other) => {
                let user = &world.names[other].user;
                node.groups.hand_over(group, user, now).err()
            }
            Event::Join(_) => node.groups.join(group, "", now).err(),
            Event::Approve(_) => {
                let view = node.groups.view(group);
                let first = view.and_then(|view| view.requests.first().map(|one| one.request));
                first.and_then(|request| node.groups.approve(group, request, now).err())
            }
            _ => node.groups.leave(group, now).err(),
        };
        self.finish(world, n, act.crash)
    }

    /// Until the member says something that matters, or the time of suspicion is over.
    fn wait(&mut self, world: &mut World, n: usize, crash: Option<bool>) -> Verdict {
        let end = self.nodes[n].now + world.config.suspect;
        loop {
            let node = Rc::make_mut(&mut self.nodes[n]);
            let due = node.groups.poll_timeout().filter(|due| *due <= end);
            node.now = node.now.max(due.unwrap_or(end));
            let now = node.clock();
            node.groups.handle_timeout(now);
            let out = drain(&mut node.groups);
            let last = due.is_none() || out.spoke;
            self.obey(world, n, out, crash.filter(|_| last))?;
            if last {
                return Ok(());
            }
        }
    }

    fn deliver(&mut self, world: &mut World, hash: u64, crash: Option<bool>) -> Verdict {
        let Some(flight) = self.flights.remove(&hash) else {
            return Ok(());
        };
        let n = flight.to;
        let place = at(&world.names, n, &self.nodes[n]);
        let seen = Seen::Arrives(&flight.channel, &flight.bytes, true);
        self.judges.with_log(&mut world.log).see(place, seen)?;
        let node = Rc::make_mut(&mut self.nodes[n]);
        let now = node.clock();
        node.groups.handle_frame(&flight.from, &flight.body, now);
        self.finish(world, n, crash)
    }

    fn finish(&mut self, world: &mut World, n: usize, crash: Option<bool>) -> Verdict {
        let node = Rc::make_mut(&mut self.nodes[n]);
        let out = drain(&mut node.groups);
        self.obey(world, n, out, crash)
    }

    /// Rows become durable and frames leave, unless the member crashes before.
    fn obey(&mut self, world: &mut World, n: usize, out: Outcome, crash: Option<bool>) -> Verdict {
        let lost = crash == Some(false);
        for frame in &out.free {
            self.send(world, n, frame, true)?;
        }
        for frame in &out.gated {
            self.send(world, n, frame, false)?;
        }
        if !lost && !out.rows.is_empty() {
            self.store(world, n, &out.rows)?;
        }
        if !lost {
            for frame in &out.gated {
                self.send(world, n, frame, true)?;
            }
        }
        if out.offered && crash.is_none() {
            let node = Rc::make_mut(&mut self.nodes[n]);
            let now = node.clock();
            // Whoever is asked to lead says yes, unless the offer is over by now.
            let _over = node.groups.answer_offer(world.group, true, now);
            return self.finish(world, n, None);
        }
        if crash.is_some() {
            self.restart(world, n)?;
        }
        Rc::make_mut(&mut self.nodes[n]).rehash();
        self.look(world, n)
    }

    /// A frame is queued, or leaves.
    fn send(&mut self, world: &mut World, n: usize, frame: &Outgoing, leaves: bool) -> Verdict {
        let signer = world.signer(n);
        let from = &world.names[n];
        let bytes = wire::encode(&frame.body, &from.user, &frame.channel, &signer);
        let bytes = bytes.expect("every frame fits its limit");
        let transmit = Transmit {
            id: TransmitId(0),
            after: None,
            channel: frame.channel.clone(),
            bytes: bytes.clone(),
            class: Class::Durable,
            ttl: None,
            last_value: false,
            dedup: None,
        };
        let place = at(&world.names, n, &self.nodes[n]);
        let mut judges = self.judges.with_log(&mut world.log);
        if !leaves || !frame.gated {
            judges.see(place, Seen::Transmit(&transmit))?;
        }
        if !leaves {
            return Ok(());
        }
        judges.see(place, Seen::Sent(&transmit))?;
        drop(judges);
        if let Body::Support(support) = &frame.body {
            self.facts.insert(hash_of(&[b"support", &support.proof]));
        }
        for (to, name) in world.names.iter().enumerate() {
            let reached = match &frame.channel {
                Channel::Inbox(user) => name.user == *user,
                _ => true,
            };
            if to != n && reached {
                let flight = Flight {
                    to,
                    from: from.clone(),
                    channel: frame.channel.clone(),
                    body: frame.body.clone(),
                    bytes: bytes.clone(),
                };
                let hash = hash_of(&[&[to as u8], &bytes]);
                self.flights.insert(hash, Rc::new(flight));
            }
        }
        Ok(())
    }

    fn store(&mut self, world: &mut World, n: usize, rows: &[RowOp]) -> Verdict {
        let node = Rc::make_mut(&mut self.nodes[n]);
        for row in rows.iter().cloned() {
            match row {
                RowOp::Put { table, key, value } => {
                    if table == Table::Chain {
                        self.facts.insert(hash_of(&[&[n as u8], &key, &value]));
                    }
                    node.disk.insert((table, key), value);
                }
                RowOp::Delete { table, key } => drop(node.disk.remove(&(table, key))),
            }
        }
        let place = at(&world.names, n, &self.nodes[n]);
        let mut judges = self.judges.with_log(&mut world.log);
        judges.see(place, Seen::Stored(rows))
    }

    /// The judges hear that a member is connected, a moment before it says anything.
    fn connected(&mut self, world: &mut World, n: usize) -> Verdict {
        let place = at(&world.names, n, &self.nodes[n]);
        let place = At {
            mono: place.mono.saturating_sub(Duration::from_micros(1)),
            ..place
        };
        let up = chat_core::Event::Link(LinkState::Connected { resumed: true });
        self.judges
            .with_log(&mut world.log)
            .see(place, Seen::Queued(&up))
    }

    fn restart(&mut self, world: &mut World, n: usize) -> Verdict {
        let place = at(&world.names, n, &self.nodes[n]);
        self.judges
            .with_log(&mut world.log)
            .see(place, Seen::Died)?;
        self.connected(world, n)?;
        let lives = self.nodes[n].lives + 1;
        let mut groups = world.machine(n, lives);
        let node = Rc::make_mut(&mut self.nodes[n]);
        let now = node.clock();
        for ((table, key), value) in &node.disk {
            let row = Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            };
            groups.restore(&row, now).expect("it wrote that itself");
        }
        groups.resume(now);
        groups.handle_up(now);
        (node.groups, node.lives) = (groups, lives);
        let out = drain(&mut node.groups);
        self.obey(world, n, out, None)
    }

    /// The judges look at a member, and compare all.
    fn look(&mut self, world: &mut World, n: usize) -> Verdict {
        let Some(view) = self.nodes[n].groups.view(world.group) else {
            return Ok(());
        };
        let mut judges = self.judges.with_log(&mut world.log);
        judges.look(n, &view)
    }
}
