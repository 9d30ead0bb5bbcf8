//! Endpoints joined in memory. Rows are durable when the test says so, frames arrive when it says
//! so; every output is kept for comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::channel::Channel;
use crate::config::Config;
use crate::content::Content;
use crate::delivery::DeliveryEvent;
use crate::effect::{Row, RowOp, Table};
use crate::id::{ConvId, TxnId, UserId};
use crate::identity::{DeviceKey, Ed25519};
use crate::link::LinkEvent;
use crate::sealer::Plain;
use crate::session::SessionEvent;
use crate::time::{Timestamp, UnixMillis};
use crate::{Endpoint, Event, Identity, OpenError, Output};

pub(super) const WALL: UnixMillis = UnixMillis(1_800_000_000_000);

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(super) fn identity(name: &str, key: u8) -> Identity {
    Identity {
        user: user(name),
        signer: Arc::new(DeviceKey::from_secret([key; 32])),
        verifier: Arc::new(Ed25519),
        sealer: Box::new(Plain),
    }
}

/// Opens over `rows`, with the wall clock at `wall`.
pub(super) fn open(
    name: &str,
    key: u8,
    rows: Vec<Row>,
    wall: UnixMillis,
    now: Timestamp,
) -> Result<Endpoint, OpenError> {
    Endpoint::open(
        identity(name, key),
        Config::lan(),
        [key; 32],
        rows,
        wall,
        now,
    )
}

/// An endpoint, its disk and everything it ever wanted.
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) disk: BTreeMap<(Table, Bytes), Bytes>,
    pub(super) frames: Vec<(Channel, Bytes)>,
    /// What it listens to.
    pub(super) subscribed: BTreeSet<Channel>,
    pub(super) events: Vec<Event>,
    /// Every output as text: the trace.
    pub(super) trace: Vec<String>,
}

impl Node {
    /// Connected and caught up.
    pub(super) fn new(name: &str, key: u8, now: Timestamp) -> Self {
        Self::with(name, key, &Config::lan(), now)
    }

    fn with(name: &str, key: u8, config: &Config, now: Timestamp) -> Self {
        let (id, config) = (identity(name, key), config.clone());
        let endpoint = Endpoint::open(id, config, [key; 32], Vec::new(), WALL, now).unwrap();
        let mut node = Self {
            endpoint,
            disk: BTreeMap::new(),
            frames: Vec::new(),
            subscribed: BTreeSet::new(),
            events: Vec::new(),
            trace: Vec::new(),
        };
        node.endpoint.connect(now);
        node.drain(now);
        node
    }

    /// What its store would return.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.disk
            .iter()
            .filter(|((table, _), _)| !table.is_on_demand())
            .map(|((table, key), value)| Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            })
            .collect()
    }

    /// Obeys every output; rows are durable at once.
    pub(super) fn drain(&mut self, now: Timestamp) {
        while let Some(output) = self.endpoint.poll_output() {
            self.trace.push(format!("{now} {output:?}"));
            match output {
                Output::Persist { id, rows } => {
                    for op in rows {
                        match op {
                            RowOp::Put { table, key, value } => {
                                self.disk.insert((table, key), value);
                            }
                            RowOp::Delete { table, key } => {
                                self.disk.remove(&(table, key));
                            }
                        }
                    }
                    self.endpoint.handle_persisted(id, now);
                }
                Output::Transmit(frame) => {
                    self.endpoint
                        .handle_acked(frame.id, crate::Fate::Taken, now);
                    self.frames.push((frame.channel, frame.bytes));
                }
                Output::Connect { .. } => {
                    let up = LinkEvent::Up {
                        resumed: false,
                        marks_backlog: true,
                    };
                    self.endpoint.handle_link(&up, now);
                    self.endpoint.handle_link(&LinkEvent::CaughtUp, now);
                }
                Output::Subscribe(channel) => {
                    self.subscribed.insert(channel.clone());
                    self.endpoint
                        .handle_link(&LinkEvent::Subscribed(channel), now);
                }
                Output::Event { event, .. } => self.events.push(event),
                Output::Unsubscribe(channel) => drop(self.subscribed.remove(&channel)),
                Output::Disconnect => {}
            }
        }
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Delivery(DeliveryEvent::Received(message)) => {
                    Some(message.content.fallback().to_owned())
                }
                _ => None,
            })
            .collect()
    }
}

/// Several nodes and the time.
pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Timestamp,
    /// Deliveries by kind of frame.
    pub(super) delivered: BTreeMap<u8, usize>,
    txn: u128,
}

impl Net {
    pub(super) fn new(names: &[&str]) -> Self {
        Self::with(names, &Config::lan())
    }

    pub(super) fn with(names: &[&str], config: &Config) -> Self {
        let now = Timestamp::from_secs(1);
        let nodes = names
            .iter()
            .zip(1u8..)
            .map(|(name, key)| Node::with(name, key, config, now))
            .collect();
        let mut net = Self {
            nodes,
            now,
            delivered: BTreeMap::new(),
            txn: 0,
        };
        net.run(Duration::from_secs(1));
        net
    }

    /// Carries frames to everybody else until it is quiet at this moment.
    pub(super) fn carry(&mut self) {
        loop {
            let mut quiet = true;
            for from in 0..self.nodes.len() {
                self.nodes[from].drain(self.now);
                for (channel, bytes) in std::mem::take(&mut self.nodes[from].frames) {
                    quiet = false;
                    for to in (0..self.nodes.len()).filter(|to| *to != from) {
                        if self.nodes[to].subscribed.contains(&channel) {
                            *self.delivered.entry(bytes[3]).or_default() += 1;
                            let endpoint = &mut self.nodes[to].endpoint;
                            endpoint.handle_inbound(&channel, &bytes, true, self.now);
                        }
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Lets time pass in small steps, with all timers and frames.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.carry();
            self.now = self.now + Duration::from_millis(50);
            for node in &mut self.nodes {
                if node
                    .endpoint
                    .poll_timeout()
                    .is_some_and(|at| at <= self.now)
                {
                    node.endpoint.handle_timeout(self.now);
                }
            }
        }
        self.carry();
    }

    pub(super) fn say(&mut self, from: usize, conv: ConvId, text: &str) {
        self.txn += 1;
        let txn = TxnId(self.txn.to_be_bytes());
        self.nodes[from]
            .endpoint
            .send(conv, txn, Content::text(text), self.now)
            .unwrap();
    }

    /// An open session of the first two nodes.
    pub(super) fn chat(&mut self) -> ConvId {
        let bob = self.nodes[1].endpoint.user().clone();
        self.nodes[0].endpoint.request(&bob, "", self.now).unwrap();
        self.run(Duration::from_millis(200));
        let invite = self.nodes[1]
            .events
            .iter()
            .find_map(|event| match event {
                Event::Session(SessionEvent::Requested { invite, .. }) => Some(*invite),
                _ => None,
            })
            .expect("the request is shown");
        let conv = self.nodes[1].endpoint.accept(invite, self.now).unwrap();
        self.run(Duration::from_millis(500));
        conv
    }
}
