//! A small network of group machines: frames may be lost, doubled and reordered, a crash keeps
//! only what was flushed, gated frames and events leave only after their rows. Every row that
//! reaches a disk is checked against what no run may ever show.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::chain::Chain;
use super::super::entry::Entry;
use super::super::op::Op;
use super::super::roster::Way;
use super::super::term::{Hash, Head, Term};
use super::super::{GroupEvent, Groups, Membership, Policy, Rules};
use crate::channel::Channel;
use crate::config::GroupConfig;
use crate::effect::{Effect, Outgoing, Row, RowOp, Table};
use crate::id::{DeviceId, GroupId, GroupName, UserId};
use crate::identity::{PublicKey, Sender, Signature, Signer, Verifier};
use crate::rng::Rng;
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire::{self, Body};

/// Signs with a keyed hash: as good as a signature as long as nobody cheats with another's key.
#[derive(Debug)]
pub(super) struct Fake(pub PublicKey);

fn mac(key: &PublicKey, message: &[u8]) -> Signature {
    let mut hash = Sha256::new();
    hash.update(key.0);
    hash.update(message);
    let half: [u8; 32] = hash.finalize().into();
    let mut out = [0; 64];
    out[..32].copy_from_slice(&half);
    Signature(out)
}

impl Signer for Fake {
    fn public_key(&self) -> PublicKey {
        self.0
    }

    fn sign(&self, message: &[u8]) -> Signature {
        mac(&self.0, message)
    }
}

#[derive(Debug)]
pub(super) struct FakeVerifier;

impl Verifier for FakeVerifier {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        mac(key, message).0 == signature.0
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(super) fn name(text: &str) -> GroupName {
    GroupName::new(text).unwrap()
}

enum Step {
    Rows(Vec<RowOp>),
    Frame(Box<Outgoing>),
    Event(GroupEvent),
}

/// One device.
pub(super) struct Node {
    pub me: Sender,
    pub signer: Arc<Fake>,
    pub groups: Groups,
    pub disk: BTreeMap<(Table, Bytes), Bytes>,
    pub up: bool,
    pub alive: bool,
    /// Told events, oldest first.
    pub events: Vec<GroupEvent>,
    flow: VecDeque<Step>,
    config: GroupConfig,
    lives: u64,
    heads: BTreeMap<GroupId, Head>,
    durable: BTreeMap<GroupId, Head>,
    /// Instances whose kick it applied, and those of them whose kick is durable.
    kicked: BTreeSet<(DeviceId, [u8; 16])>,
    kicked_durably: BTreeSet<(DeviceId, [u8; 16])>,
}

struct Flight {
    to: usize,
    from: Sender,
    body: Body,
}

/// All devices, the wire between them and the clock.
pub(super) struct Net {
    pub nodes: Vec<Node>,
    pub now: Timestamp,
    pub rng: Rng,
    /// What groups are created with.
    pub rules: Rules,
    /// Per cent.
    pub loss: u64,
    pub duplicates: u64,
    /// The longest delay, in ms.
    pub delay: u64,
    /// Flush after every input; otherwise only on request.
    pub prompt: bool,
    /// What was sent, beats and reports of heads left out.
    pub trace: Vec<String>,
    /// Pairs between which nothing passes, in this direction.
    pub cut: BTreeSet<(usize, usize)>,
    /// IG7: heads that a strict group committed.
    committed: Vec<Head>,
    flights: BTreeMap<(Timestamp, u64), Flight>,
    sent: u64,
    places: BTreeMap<(GroupId, Term, u64), Hash>,
    rosters: BTreeMap<(GroupId, Hash), Hash>,
}

pub(super) fn machine(me: &Sender, signer: &Arc<Fake>, config: &GroupConfig, seed: u64) -> Groups {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8] = signer.0.0[0];
    Groups::new(
        me.clone(),
        signer.clone(),
        Arc::new(FakeVerifier),
        config.clone(),
        Rng::from_seed(bytes).child(me.user.as_str()),
    )
}

impl Net {
    /// Everybody is connected, nothing fails.
    pub(super) fn new(names: &[&str], seed: u64) -> Self {
        Self::with(names, seed, &GroupConfig::default())
    }

    pub(super) fn with(names: &[&str], seed: u64, config: &GroupConfig) -> Self {
        let mut net = Self {
            nodes: Vec::new(),
            now: Timestamp::from_secs(1),
            rng: Rng::from_seed([seed as u8; 32]).child(&seed.to_string()),
            rules: Rules::default(),
            loss: 0,
            duplicates: 0,
            delay: 20,
            prompt: true,
            trace: Vec::new(),
            cut: BTreeSet::new(),
            committed: Vec::new(),
            flights: BTreeMap::new(),
            sent: 0,
            places: BTreeMap::new(),
            rosters: BTreeMap::new(),
        };
        for (i, text) in names.iter().enumerate() {
            let key = PublicKey([i as u8 + 1; 32]);
            // A trailing digit is the device, not the person.
            let person = text.trim_end_matches(|c: char| c.is_ascii_digit());
            let me = Sender {
                user: user(person),
                device: key.device(),
            };
            let signer = Arc::new(Fake(key));
            net.nodes.push(Node {
                groups: machine(&me, &signer, config, seed),
                me,
                signer,
                disk: BTreeMap::new(),
                up: false,
                alive: true,
                events: Vec::new(),
                flow: VecDeque::new(),
                config: config.clone(),
                lives: seed,
                heads: BTreeMap::new(),
                durable: BTreeMap::new(),
                kicked: BTreeSet::new(),
                kicked_durably: BTreeSet::new(),
            });
        }
        for node in 0..net.nodes.len() {
            net.up(node);
        }
        net
    }

    pub(super) fn clock(&self) -> Now {
        Now {
            mono: self.now,
            wall: UnixMillis(1_000_000 + self.now.as_micros() / 1_000),
        }
    }

    /// One input to one machine, with all that follows from it.
    pub(super) fn run<T>(&mut self, node: usize, input: impl FnOnce(&mut Groups, Now) -> T) -> T {
        let now = self.clock();
        let out = input(&mut self.nodes[node].groups, now);
        self.drain(node);
        if self.prompt {
            self.flush(node);
        }
        out
    }

    /// The frames that one input alone leads to; they go nowhere, and no row is kept.
    pub(super) fn frames(
        &mut self,
        node: usize,
        input: impl FnOnce(&mut Groups, Now),
    ) -> Vec<Outgoing> {
        let now = self.clock();
        let groups = &mut self.nodes[node].groups;
        input(groups, now);
        let effects = core::iter::from_fn(|| groups.effects().pop());
        let frames = effects.filter_map(|effect| match effect {
            Effect::Send(frame) => Some(frame),
            _ => None,
        });
        frames.collect()
    }

    fn drain(&mut self, at: usize) {
        let mut rows = Vec::new();
        let mut gated = VecDeque::new();
        let node = &mut self.nodes[at];
        let mut free = Vec::new();
        while let Some(effect) = node.groups.effects().pop() {
            match effect {
                Effect::Row(row) => rows.push(row),
                Effect::Send(frame) if frame.gated => gated.push_back(Step::Frame(frame.into())),
                Effect::Send(frame) => free.push(frame),
                Effect::Emit { event, gated: true } => gated.push_back(Step::Event(event)),
                Effect::Emit { event, .. } => node.events.push(event),
            }
        }
        if !rows.is_empty() {
            node.flow.push_back(Step::Rows(rows));
        }
        node.flow.append(&mut gated);
        let ids: Vec<_> = node.groups.groups.keys().copied().collect();
        for id in ids {
            self.check(at, id);
        }
        for frame in free {
            self.send(at, frame);
        }
    }

    /// Everything queued becomes durable and leaves.
    pub(super) fn flush(&mut self, at: usize) {
        while let Some(step) = self.nodes[at].flow.pop_front() {
            match step {
                Step::Rows(rows) => {
                    for row in rows {
                        self.store(at, row);
                    }
                }
                Step::Frame(frame) => self.send(at, *frame),
                Step::Event(event) => self.nodes[at].events.push(event),
            }
        }
        let node = &mut self.nodes[at];
        if node.alive {
            node.durable = node.heads.clone();
            node.kicked_durably = node.kicked.clone();
            let commits = node.groups.groups.values().filter_map(|group| {
                let chain = group.leading(&node.me)?;
                let strict = chain.roster.policy == Policy::Strict;
                (strict && group.committed > 0).then(|| chain.place(group.committed))?
            });
            self.committed.extend(commits);
            self.committed.dedup();
        }
    }

    fn store(&mut self, at: usize, row: RowOp) {
        let disk = &mut self.nodes[at].disk;
        match row {
            RowOp::Put { table, key, value } => {
                if table == Table::Chain {
                    let entry = Entry::open(&value).unwrap();
                    let place = (entry.group(), entry.draft.term, entry.draft.index);
                    let held = *self.places.entry(place).or_insert(entry.hash);
                    assert_eq!(held, entry.hash, "IG1: two entries at {place:?}");
                }
                disk.insert((table, key), value);
            }
            RowOp::Delete { table, key } => {
                disk.remove(&(table, key));
            }
        }
    }

    /// IG2: the head never decreases in one life. IG3: the roster is the fold, one head one roster.
    fn check(&mut self, at: usize, id: GroupId) {
        let node = &mut self.nodes[at];
        let Some(chain) = &node.groups.groups[&id].chain else {
            return;
        };
        let head = chain.head();
        let roster = &chain.roster;
        for member in node.groups.groups[&id].visible() {
            let instance = (member.device, roster.seats[&member.device].nonce);
            let back = node.kicked.contains(&instance)
                && roster.leader.device != member.device
                && roster.voided.is_empty();
            assert!(!back, "IG4: {} sees {} again", node.me.user, member.user);
        }
        let last = node.heads.insert(id, head);
        if last == Some(head) {
            return;
        }
        let gone = roster
            .gone
            .iter()
            .filter(|(_, gone)| gone.way == Way::Kicked);
        node.kicked.extend(gone.map(|(instance, _)| *instance));
        assert!(
            last.is_none_or(|last| last <= head),
            "IG2: {}",
            node.me.user
        );
        let seats: BTreeSet<_> = chain
            .roster
            .seats
            .iter()
            .map(|(device, seat)| (*device, seat.nonce))
            .collect();
        assert_eq!(seats, fold(chain), "IG3: {}", node.me.user);
        for head in &self.committed {
            let lost = chain.head() > *head && !chain.holds(head.index, &head.hash);
            assert!(!lost, "IG7: {} lost {}", node.me.user, head.index);
        }
        let digest = chain.roster.digest();
        let held = *self.rosters.entry((id, chain.hash())).or_insert(digest);
        assert_eq!(held, digest, "IG3: one head, one roster");
    }

    fn send(&mut self, at: usize, frame: Outgoing) {
        if !self.nodes[at].up {
            return;
        }
        let from = self.nodes[at].me.clone();
        let signer = self.nodes[at].signer.clone();
        if let Some(line) = spell(&frame) {
            self.trace.push(format!("{} {line}", from.user));
        }
        wire::encode(&frame.body, &from.user, &frame.channel, &*signer)
            .expect("every frame fits its limit");
        for to in 0..self.nodes.len() {
            let node = &self.nodes[to];
            let reached = match &frame.channel {
                Channel::Inbox(user) => node.me.user == *user,
                Channel::Group(_) => true,
                other => panic!("group frames do not travel on {other:?}"),
            };
            if !reached || to == at || self.cut.contains(&(at, to)) {
                continue;
            }
            let copies = 1 + u64::from(self.rng.below(100) < self.duplicates);
            for _ in 0..copies {
                if self.rng.below(100) < self.loss {
                    continue;
                }
                let ms = 1 + self.rng.below(self.delay.max(1));
                let due = Timestamp::from_micros(self.now.as_micros() + ms * 1_000);
                self.sent += 1;
                let flight = Flight {
                    to,
                    from: from.clone(),
                    body: frame.body.clone(),
                };
                self.flights.insert((due, self.sent), flight);
            }
        }
    }

    /// Lets `ms` pass: frames arrive, timers fall due.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = Timestamp::from_micros(self.now.as_micros() + ms * 1_000);
        loop {
            let frame = self.flights.keys().next().map(|(due, _)| *due);
            let timer = self
                .nodes
                .iter()
                .filter(|node| node.alive)
                .filter_map(|node| node.groups.poll_timeout())
                .min();
            let Some(next) = [frame, timer].into_iter().flatten().min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if frame.is_some_and(|due| due <= next) {
                let (_, flight) = self.flights.pop_first().unwrap();
                let to = &self.nodes[flight.to];
                if to.alive && to.up {
                    self.run(flight.to, |groups, now| {
                        groups.handle_frame(&flight.from, &flight.body, now);
                    });
                }
                continue;
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].alive {
                    self.run(node, |groups, now| {
                        groups.handle_timeout(now);
                        assert!(groups.poll_timeout().is_none_or(|at| at > now.mono));
                    });
                }
            }
        }
        self.now = end;
    }

    pub(super) fn up(&mut self, node: usize) {
        self.nodes[node].up = true;
        self.run(node, Groups::handle_up);
    }

    pub(super) fn down(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.run(node, Groups::handle_down);
    }

    /// Nothing passes between the sides; all stay connected.
    pub(super) fn split(&mut self, sides: &[&[usize]]) {
        for (i, side) in sides.iter().enumerate() {
            for (j, other) in sides.iter().enumerate() {
                if i != j {
                    let pairs = side
                        .iter()
                        .flat_map(|a| other.iter().map(move |b| (*a, *b)));
                    self.cut.extend(pairs);
                }
            }
        }
    }

    /// What was not flushed is lost.
    pub(super) fn crash(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        (node.alive, node.up) = (false, false);
        node.flow.clear();
    }

    /// Starts again from the disk.
    pub(super) fn restart(&mut self, at: usize) {
        let now = self.clock();
        let node = &mut self.nodes[at];
        node.lives += 1_000;
        node.groups = machine(&node.me, &node.signer, &node.config, node.lives);
        // IG2 across a crash: what was durable is the least that it starts with.
        node.heads = node.durable.clone();
        node.kicked = node.kicked_durably.clone();
        for ((table, key), value) in &node.disk {
            let row = Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            };
            node.groups.restore(&row, now).unwrap();
        }
        (node.alive, node.up) = (true, false);
        self.run(at, Groups::resume);
        self.up(at);
    }

    pub(super) fn mine(&self, node: usize, id: GroupId) -> Option<Membership> {
        self.nodes[node].groups.view(id).map(|view| view.mine)
    }

    pub(super) fn users(&self, node: usize, id: GroupId) -> Vec<String> {
        let view = self.nodes[node].groups.view(id).unwrap();
        view.roster.iter().map(|m| m.user.to_string()).collect()
    }

    pub(super) fn take_events(&mut self, node: usize) -> Vec<GroupEvent> {
        core::mem::take(&mut self.nodes[node].events)
    }

    /// `joiner` asks, `leader` approves, and it is in.
    pub(super) fn admit(&mut self, leader: usize, joiner: usize, id: GroupId) {
        let request = self.run(joiner, |g, now| g.join(id, "", now)).unwrap();
        self.pass(1_000);
        self.run(leader, |g, now| g.approve(id, request, now))
            .unwrap();
        self.pass(3_000);
    }

    /// A group that node 0 leads.
    pub(super) fn create(&mut self) -> GroupId {
        let rules = self.rules;
        self.run(0, |g, now| g.create(&name("ops"), rules, now))
            .unwrap()
    }

    /// A group led by node 0 with all others in it.
    pub(super) fn full(&mut self) -> GroupId {
        let id = self.create();
        for joiner in 1..self.nodes.len() {
            self.admit(0, joiner, id);
        }
        id
    }
}

/// A frame in words; `None` for those that only say that all is well.
fn spell(frame: &Outgoing) -> Option<String> {
    let to = match &frame.channel {
        Channel::Inbox(user) => format!("to {user}"),
        _ => "to all".to_owned(),
    };
    let what = match &frame.body {
        Body::GroupBeat(_) | Body::GroupAck(_) => return None,
        Body::Canvass(canvass) => format!("I want to lead in round {}", canvass.round),
        Body::Support(support) => format!("support in round {}", support.round),
        Body::Refuse(refuse) => {
            let word = [
                "?",
                "mine is greater",
                "the leader lives",
                "promised",
                "who are you",
            ];
            format!("refusal: {}", word[usize::from(refuse.why)])
        }
        Body::GroupInvite(_) => "join us".to_owned(),
        Body::Entries(page) => {
            let one = |bytes: &[u8]| {
                let entry = Entry::open(&Bytes::copy_from_slice(bytes)).unwrap();
                let op = format!("{:?}", entry.draft.op);
                let end = op.find([' ', '(', '{']).unwrap_or(op.len());
                format!(" {}:{}", entry.draft.index, &op[..end])
            };
            let list: String = page.entries.iter().map(|entry| one(entry)).collect();
            format!("entries{list}")
        }
        Body::Fetch(fetch) => format!("fetch after {}", fetch.have.first().map_or(0, |p| p.index)),
        Body::JoinReq(ask) if ask.withdrawn => "join request withdrawn".to_owned(),
        Body::JoinReq(_) => "join request".to_owned(),
        Body::JoinAnswer(answer) => {
            let word = ["?", "seen", "admitted", "denied", "busy"][usize::from(answer.answer)];
            format!("answer: {word} {}", &*answer.reason)
        }
        Body::Propose(propose) => {
            let word = ["?", "I leave", "I will lead", "I will not lead"];
            format!("proposal: {}", word[usize::from(propose.action)])
        }
        Body::Offer(_) => "will you lead?".to_owned(),
        Body::Removed(_) => "you are out".to_owned(),
        other => panic!("not a group frame: {other:?}"),
    };
    Some(format!("{to}: {}", what.trim_end()))
}

/// The roster by a second, separately written fold.
fn fold(chain: &Chain) -> BTreeSet<(DeviceId, [u8; 16])> {
    let mut seats: BTreeMap<DeviceId, (UserId, [u8; 16])> = BTreeMap::new();
    let mut burnt = BTreeSet::new();
    for index in 1..=chain.index() {
        let entry = Entry::open(chain.bytes(index).unwrap()).unwrap();
        let device = entry.key.device();
        match entry.draft.op {
            Op::Genesis { nonce, .. } => {
                seats.insert(device, (entry.draft.author, nonce));
            }
            op @ (Op::Admit(_) | Op::Kick { .. } | Op::Batch { .. }) => {
                let kicked: Vec<_> = op
                    .removals()
                    .into_iter()
                    .flat_map(|one| one.instances)
                    .collect();
                burnt.extend(kicked.iter().copied());
                seats.retain(|device, (_, nonce)| !kicked.contains(&(*device, *nonce)));
                for one in op.admissions().to_vec() {
                    let own = (one.device, one.nonce);
                    if burnt.contains(&own) {
                        continue;
                    }
                    if let Some((_, old)) = seats.insert(one.device, (one.user, one.nonce))
                        && old != one.nonce
                    {
                        burnt.insert((one.device, old));
                    }
                }
            }
            Op::Left { proof, .. } => {
                let (device, nonce) = proof.instance();
                burnt.insert((device, nonce));
                seats.retain(|of, (_, held)| (*of, *held) != (device, nonce));
            }
            Op::Claim(_)
            | Op::Handover { .. }
            | Op::Void { .. }
            | Op::Fence { .. }
            | Op::Meta { .. }
            | Op::Checkpoint { .. } => {}
        }
    }
    seats
        .into_iter()
        .map(|(d, (_, nonce))| (d, nonce))
        .collect()
}
