//! A small network for the machine: nodes with disks that lose what was not yet durable, and
//! links that lose, repeat and reorder. The checkers return what they found, so that planted bugs
//! can be shown to be caught.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

pub(super) type Disk = BTreeMap<(Table, Bytes), Bytes>;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) me: Sender,
    pub(super) machine: Delivery,
    pub(super) disk: Disk,
    pub(super) routes: BTreeMap<ConvId, Route>,
    batches: VecDeque<Vec<RowOp>>,
    committed: u64,
    queued: u64,
    gated: VecDeque<(u64, Effect<DeliveryEvent>)>,
    /// Ids in the order in which they durably entered the inbox log.
    pub(super) log: Vec<(MessageId, String)>,
    pub(super) events: Vec<DeliveryEvent>,
    pub(super) lives: u64,
    pub(super) up: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) wire: Vec<Frame>,
    pub(super) now: Now,
    pub(super) rng: Rng,
    pub(super) config: DeliveryConfig,
    pub(super) group: bool,
    /// What every id was seen to say (ID6).
    pub(super) bound: BTreeMap<MessageId, String>,
    /// Durable sends per node, in order.
    pub(super) accepted: Vec<Vec<(MessageId, String)>>,
    pub(super) failed: BTreeSet<MessageId>,
    pub(super) found: Option<String>,
    /// No checks of durable logs once a receiver's disk went back.
    pub(super) rolled_back: bool,
}

pub(super) fn sender(n: usize) -> Sender {
    Sender {
        user: UserId::new(&format!("user{n}")).unwrap(),
        device: DeviceId([n as u8 + 1; 32]),
    }
}

pub(super) const CONV: ConvId = ConvId([9; 32]);

pub(super) fn channel(group: bool) -> Channel {
    if group {
        Channel::Group(CONV.into())
    } else {
        Channel::Conv(crate::channel::TopicId([7; 16]))
    }
}

fn text(content: &Content) -> String {
    content.fallback().to_owned()
}

impl Net {
    pub(super) fn new(nodes: usize, group: bool, config: DeliveryConfig, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut net = Self {
            nodes: Vec::new(),
            wire: Vec::new(),
            now: Now {
                mono: Timestamp::from_secs(1),
                wall: UnixMillis(1_700_000_000_000),
            },
            rng: Rng::from_seed(bytes),
            config,
            group,
            bound: BTreeMap::new(),
            accepted: vec![Vec::new(); nodes],
            failed: BTreeSet::new(),
            found: None,
            rolled_back: false,
        };
        for n in 0..nodes {
            let machine = net.machine(n, Epoch(net.now.wall.0), 0);
            net.nodes.push(Node {
                me: sender(n),
                machine,
                disk: Disk::new(),
                routes: BTreeMap::new(),
                batches: VecDeque::new(),
                committed: 0,
                queued: 0,
                gated: VecDeque::new(),
                log: Vec::new(),
                events: Vec::new(),
                lives: 0,
                up: false,
            });
        }
        let members: Vec<usize> = (0..nodes).collect();
        for n in 0..nodes {
            net.open(n, &members, 1, 0);
            net.up(n);
        }
        net
    }

    fn machine(&self, n: usize, epoch: Epoch, life: u64) -> Delivery {
        let rng = self.rng.child(&format!("{n}/{life}"));
        Delivery::new(sender(n), epoch, self.config.clone(), Box::new(Plain), rng)
    }

    pub(super) fn open(&mut self, n: usize, members: &[usize], roster: u64, since: u64) {
        let roster = if self.group { roster } else { 0 };
        let before = self.nodes[n].routes.get(&CONV);
        let recipients = members
            .iter()
            .filter(|m| **m != n)
            .map(|m| {
                let who = (sender(*m).user, sender(*m).device);
                // Who is new in a route was admitted at its index.
                let since = before.map_or(0, |route| {
                    route.recipients.get(&who).copied().unwrap_or(roster)
                });
                (who, since)
            })
            .collect();
        let mut left = before.map_or_else(BTreeMap::new, |route| route.left.clone());
        for (_, device) in before.iter().flat_map(|route| route.recipients.keys()) {
            left.insert(*device, roster);
        }
        left.retain(|device, _| members.iter().all(|m| sender(*m).device != *device));
        let route = Route::new(channel(self.group), recipients, roster, self.group)
            .since(since)
            .left(left);
        self.nodes[n].routes.insert(CONV, route.clone());
        self.nodes[n].machine.open(CONV, route, self.now);
        self.drain(n);
    }

    pub(super) fn leave(&mut self, n: usize) {
        self.nodes[n].routes.remove(&CONV);
        self.nodes[n]
            .machine
            .close(CONV, FailReason::Gone, self.now);
        self.drain(n);
    }

    pub(super) fn up(&mut self, n: usize) {
        self.nodes[n].up = true;
        self.nodes[n].machine.handle_up(self.now);
        self.drain(n);
    }

    pub(super) fn down(&mut self, n: usize) {
        self.nodes[n].up = false;
        self.nodes[n].machine.handle_down(self.now);
        self.drain(n);
    }

    pub(super) fn send(&mut self, n: usize, text: &str) -> MessageId {
        let txn = TxnId(self.rng.bytes());
        let id = self.nodes[n]
            .machine
            .send(CONV, txn, Content::text(text), self.now)
            .expect("the outbox has room");
        self.drain(n);
        id
    }

    fn find(&mut self, what: String) {
        self.found.get_or_insert(what);
    }

    /// Takes the effects of one input: rows make one transaction, what is gated waits for it.
    pub(super) fn drain(&mut self, n: usize) {
        let mut rows = Vec::new();
        let mut rest = Vec::new();
        while let Some(effect) = self.nodes[n].machine.effects().pop() {
            match effect {
                Effect::Row(op) => rows.push(op),
                other => rest.push(other),
            }
        }
        if !rows.is_empty() {
            self.nodes[n].batches.push_back(rows);
            self.nodes[n].queued += 1;
            let batch = PersistId(self.nodes[n].queued);
            self.nodes[n].machine.handle_batched(batch);
        }
        let after = self.nodes[n].queued;
        self.flush(n);
        for effect in rest {
            let waits = match &effect {
                Effect::Send(frame) => frame.gated,
                Effect::Emit { gated, .. } => *gated,
                Effect::Row(_) => unreachable!("rows were sorted out above"),
            };
            if waits && self.nodes[n].committed < after {
                self.nodes[n].gated.push_back((after, effect));
            } else {
                self.release(n, effect);
            }
        }
    }

    fn flush(&mut self, n: usize) {
        if self.nodes[n].machine.is_ready() {
            self.nodes[n].machine.flush(self.now);
            self.drain(n);
        }
    }

    fn release(&mut self, n: usize, effect: Effect<DeliveryEvent>) {
        match effect {
            Effect::Send(frame) => self.route(n, frame),
            Effect::Emit { event, .. } => self.on_event(n, event),
            Effect::Row(_) => unreachable!("rows are not released"),
        }
    }

    fn route(&mut self, n: usize, frame: Outgoing) {
        if !self.nodes[n].up {
            return;
        }
        if let Body::Data(data) = &frame.body {
            let ids: Vec<_> = frame.carries.unwrap().ids().collect();
            assert_eq!(
                ids.len(),
                data.messages().count(),
                "what is carried is named"
            );
            for (id, message) in ids.into_iter().zip(data.messages()) {
                assert_eq!(id.seq.0, message.seq);
                if !message.body.is_empty() {
                    let content = Content::decode(CONV, &message.body).unwrap();
                    self.bind(id, text(&content));
                }
            }
        }
        for to in 0..self.nodes.len() {
            let hears = match &frame.channel {
                Channel::Inbox(user) => self.nodes[to].me.user == *user,
                _ => to != n,
            };
            if hears {
                self.wire.push(Frame {
                    from: n,
                    to,
                    body: frame.body.clone(),
                });
            }
        }
    }

    fn bind(&mut self, id: MessageId, says: String) {
        let old = self.bound.entry(id).or_insert_with(|| says.clone());
        if *old != says {
            let what = format!("ID6: {id:?} says {old:?} and {says:?}");
            self.find(what);
        }
    }

    fn on_event(&mut self, n: usize, event: DeliveryEvent) {
        match &event {
            DeliveryEvent::Accepted { id, .. } => {
                let row = self.nodes[n]
                    .disk
                    .iter()
                    .filter(|((table, _), _)| *table == Table::Timeline)
                    .find_map(|((_, key), value)| {
                        let row = Row {
                            table: Table::Timeline,
                            key: key.clone(),
                            value: value.clone(),
                        };
                        match Delivery::read_timeline(&row).unwrap() {
                            TimelineItem::Sent {
                                id: of, content, ..
                            } if of == *id => Some(text(&content)),
                            _ => None,
                        }
                    });
                match row {
                    Some(says) => {
                        self.bind(*id, says.clone());
                        self.accepted[n].retain(|(_, old)| *old != says);
                        self.accepted[n].push((*id, says));
                    }
                    None => self.find(format!("accepted {id:?} is not on the timeline")),
                }
            }
            DeliveryEvent::Failed { id, .. } => {
                self.failed.insert(*id);
            }
            DeliveryEvent::Progress { id, ack } if *ack == Ack::Delivered && !self.rolled_back => {
                let route = self.nodes[n].routes[&CONV].clone();
                for node in 0..self.nodes.len() {
                    let me = &self.nodes[node].me;
                    if route.recipients.contains_key(&(me.user.clone(), me.device))
                        && !self.has_durably(node, id)
                    {
                        let what = format!("ID3: {id:?} is called delivered, {node} has it not");
                        self.find(what);
                    }
                }
            }
            DeliveryEvent::Received(received)
                if !self.nodes[n].log.iter().any(|(id, _)| *id == received.id) =>
            {
                self.find(format!("{:?} was told before it was durable", received.id));
            }
            _ => {}
        }
        self.nodes[n].events.push(event);
    }

    fn has_durably(&self, n: usize, id: &MessageId) -> bool {
        let held = rows::held_key(CONV, id.stream.device, id.stream.epoch, id.seq.0);
        self.nodes[n].log.iter().any(|(got, _)| got == id)
            || self.nodes[n].disk.contains_key(&(Table::Streams, held))
            || self.nodes[n].events.iter().any(|event| {
                matches!(event, DeliveryEvent::Gap { first, count, .. }
                    if first.stream == id.stream
                        && (first.seq.0..first.seq.0 + count).contains(&id.seq.0))
            })
            // Passed over: it was before its admission.
            || self.nodes[n].routes.get(&CONV).is_some_and(|route| route.since > 0)
    }

    /// Makes the oldest transaction durable; false when there is none.
    pub(super) fn commit(&mut self, n: usize) -> bool {
        let Some(batch) = self.nodes[n].batches.pop_front() else {
            return false;
        };
        for op in batch {
            match op {
                RowOp::Put { table, key, value } => {
                    if table == Table::Inbox {
                        self.on_inbox_row(n, &key, &value);
                    }
                    self.nodes[n].disk.insert((table, key), value);
                }
                RowOp::Delete { table, key } => {
                    self.nodes[n].disk.remove(&(table, key));
                }
            }
        }
        self.nodes[n].committed += 1;
        while let Some((after, _)) = self.nodes[n].gated.front()
            && *after <= self.nodes[n].committed
        {
            let (_, effect) = self.nodes[n].gated.pop_front().unwrap();
            self.release(n, effect);
        }
        let batch = PersistId(self.nodes[n].committed);
        self.nodes[n].machine.handle_persisted(batch);
        self.flush(n);
        true
    }

    fn on_inbox_row(&mut self, n: usize, key: &Bytes, value: &Bytes) {
        let row = Row {
            table: Table::Inbox,
            key: key.clone(),
            value: value.clone(),
        };
        let (_, _, item) = rows::restore_inbox(&row).unwrap();
        let TimelineItem::Received(received) = Delivery::read_timeline(&item).unwrap() else {
            panic!("an inbox row holds a received message");
        };
        let says = text(&received.content);
        if self.nodes[n].log.iter().any(|(id, _)| *id == received.id) {
            let what = format!("ID1: {:?} entered the log of {n} twice", received.id);
            self.find(what);
        }
        self.bind(received.id, says.clone());
        self.nodes[n].log.push((received.id, says));
    }

    pub(super) fn commit_all(&mut self) {
        for n in 0..self.nodes.len() {
            while self.commit(n) {}
        }
    }

    /// Kills a node and starts it again from what was durable.
    pub(super) fn crash(&mut self, n: usize) {
        let disk = self.nodes[n].disk.clone();
        self.restart(n, disk);
    }

    pub(super) fn restart(&mut self, n: usize, disk: Disk) {
        let key = (Table::Meta, Bytes::from_static(b"epoch"));
        let stored = disk
            .get(&key)
            .map_or(0, |v| u64::from_le_bytes(v[..].try_into().unwrap()));
        let epoch = Epoch((stored + 1).max(self.now.wall.0));
        self.nodes[n].lives += 1;
        let mut machine = self.machine(n, epoch, self.nodes[n].lives);
        for ((table, key), value) in &disk {
            let row = Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            };
            if !table.is_on_demand() && *table != Table::Meta {
                machine.restore(&row, self.now).unwrap();
            }
        }
        let node = &mut self.nodes[n];
        node.disk = disk;
        node.disk.insert(key, epoch.0.to_le_bytes().to_vec().into());
        node.batches.clear();
        node.gated.clear();
        node.committed = node.queued;
        node.machine = machine;
        let routes = node.routes.clone();
        for (conv, route) in routes {
            self.nodes[n].machine.open(conv, route, self.now);
        }
        self.nodes[n].machine.resume(self.now);
        self.drain(n);
        self.up(n);
    }

    pub(super) fn pass(&mut self, by: Duration) {
        self.now.mono = self.now.mono + by;
        self.now.wall = self.now.wall.plus(by);
        for n in 0..self.nodes.len() {
            self.tick(n);
        }
    }

    fn tick(&mut self, n: usize) {
        let machine = &mut self.nodes[n].machine;
        if machine.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            machine.handle_timeout(self.now);
            assert!(machine.poll_timeout().is_none_or(|at| at > self.now.mono));
        }
        self.drain(n);
    }

    /// Delivers the frame at `index`.
    pub(super) fn deliver(&mut self, index: usize) {
        let frame = self.wire.swap_remove(index);
        self.hand_over(&frame);
    }

    pub(super) fn hand_over(&mut self, frame: &Frame) {
        let from = self.nodes[frame.from].me.clone();
        let node = &mut self.nodes[frame.to];
        if !node.up {
            return;
        }
        let (machine, now) = (&mut node.machine, self.now);
        match &frame.body {
            Body::Data(data) => machine.handle_data(&from, data, Standing::Current, now),
            Body::Ack(ack) => machine.handle_ack(&from, ack, now),
            Body::Retired(retired) => machine.handle_retired(&from, retired, now),
            Body::Hello(hello) => machine.handle_hello(&from, hello, now),
            Body::Typing(typing) => machine.handle_typing(&from, typing, now),
            other => panic!("delivery sends no {other:?}"),
        }
        self.drain(frame.to);
    }

    pub(super) fn hand_over_first(&mut self) {
        let frame = self.wire.remove(0);
        self.hand_over(&frame);
    }

    /// Everything that is on its way and what it leads to arrives, in order; then time passes.
    pub(super) fn round(&mut self, by: Duration) {
        self.commit_all();
        while !self.wire.is_empty() {
            self.hand_over_first();
            self.commit_all();
        }
        self.pass(by);
    }

    /// Everything arrives, in order, until nothing moves for a while.
    pub(super) fn settle(&mut self) {
        for _ in 0..400 {
            self.round(Duration::from_millis(250));
        }
        self.commit_all();
    }

    /// ID2: what one sender said stands in every log in the order in which it was accepted.
    pub(super) fn check_order(&mut self) {
        for n in 0..self.nodes.len() {
            for from in 0..self.nodes.len() {
                let prefix = format!("{from}:");
                let numbers: Vec<u64> = self.nodes[n]
                    .log
                    .iter()
                    .filter_map(|(_, says)| says.strip_prefix(&prefix)?.parse().ok())
                    .collect();
                if !numbers.is_sorted_by(|a, b| a < b) && !self.rolled_back {
                    let what = format!("ID2: {n} has {numbers:?} of {from}");
                    self.find(what);
                }
            }
        }
    }

    pub(super) fn gaps(&self, n: usize, from: usize) -> u64 {
        self.nodes[n]
            .events
            .iter()
            .filter_map(|event| match event {
                DeliveryEvent::Gap {
                    from: of, count, ..
                } if *of == sender(from).user => Some(*count),
                _ => None,
            })
            .sum()
    }
}
