//! Two endpoints talk over a wire in memory, without a client, a runtime or a clock. What you
//! write yourself is the drive loop: six steps, numbered below.
//!
//! Run it: `cargo run -p chat-core --example custom_loop`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use chat_core::channel::Channel;
use chat_core::config::Config;
use chat_core::content::Content;
use chat_core::delivery::{Ack, DeliveryEvent};
use chat_core::effect::RowOp;
use chat_core::id::{TxnId, UserId};
use chat_core::identity::{DeviceKey, Ed25519};
use chat_core::link::LinkEvent;
use chat_core::sealer::Plain;
use chat_core::session::SessionEvent;
use chat_core::time::{Timestamp, UnixMillis};
use chat_core::{Endpoint, Event, Fate, Identity, Output, Transmit};

type Failure = Box<dyn std::error::Error>;

struct Node {
    endpoint: Endpoint,
    /// The channels that the broker delivers to us.
    heard: BTreeSet<Channel>,
    /// Our store. A real one is on disk, and its rows go into `Endpoint::open` after a restart.
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    /// What we say when the chat is open, or when we are spoken to.
    line: Option<&'static str>,
    /// What we said has arrived.
    heard_out: bool,
}

impl Node {
    fn open(name: &str, secret: u8, line: &'static str) -> Result<Self, Failure> {
        let identity = Identity {
            user: UserId::new(name)?,
            // A real key is random and kept; see `chat_client::keyfile`.
            signer: Arc::new(DeviceKey::from_secret([secret; 32])),
            verifier: Arc::new(Ed25519),
            sealer: Box::new(Plain),
        };
        // All randomness comes from the seed, all time from the caller. A real seed is random.
        let wall = UnixMillis(1_800_000_000_000);
        let (seed, rows) = ([secret; 32], []);
        Ok(Self {
            endpoint: Endpoint::open(
                identity,
                Config::default(),
                seed,
                rows,
                wall,
                Timestamp::ZERO,
            )?,
            heard: BTreeSet::new(),
            rows: BTreeMap::new(),
            line: Some(line),
            heard_out: false,
        })
    }

    /// Obeys the endpoint until it wants nothing more.
    fn drain(&mut self, wire: &mut VecDeque<Transmit>, now: Timestamp) -> Result<(), Failure> {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                // 1. Rows: one transaction, then say that it is durable. Here that is at once; where
                //    it takes time, whatever names this id in `after` must be held back until then.
                Output::Persist { id, rows } => {
                    for op in rows {
                        match op {
                            RowOp::Put { table, key, value } => self
                                .rows
                                .insert((table as u8, key.to_vec()), value.to_vec()),
                            RowOp::Delete { table, key } => {
                                self.rows.remove(&(table as u8, key.to_vec()))
                            }
                        };
                    }
                    self.endpoint.handle_persisted(id, now);
                }
                // 2. Frames: hand them to the broker, in order, and report what it said.
                Output::Transmit(frame) => {
                    self.endpoint.handle_acked(frame.id, Fate::Taken, now);
                    wire.push_back(frame);
                }
                // 3. The connection: do as told, report what came of it. Never retry: the endpoint
                //    asks again, later and later.
                Output::Connect { will: _ } => {
                    let up = LinkEvent::Up {
                        resumed: false,
                        marks_backlog: false,
                    };
                    self.endpoint.handle_link(&up, now);
                }
                Output::Subscribe(channel) => {
                    self.heard.insert(channel.clone());
                    self.endpoint
                        .handle_link(&LinkEvent::Subscribed(channel), now);
                }
                Output::Unsubscribe(channel) => {
                    self.heard.remove(&channel);
                }
                Output::Disconnect => self.heard.clear(),
                // 4. Events: tell the application.
                Output::Event { event, after: _ } => self.told(event, now)?,
                other => return Err(format!("an output of a later version: {other:?}").into()),
            }
        }
        Ok(())
    }

    /// The application: accepts every chat, answers what is said.
    fn told(&mut self, event: Event, now: Timestamp) -> Result<(), Failure> {
        let me = self.endpoint.user().clone();
        match event {
            Event::Session(SessionEvent::Requested {
                peer, invite, note, ..
            }) => {
                println!("{me} is asked by {peer}: {note}");
                self.endpoint.accept(invite, now)?;
            }
            Event::Session(SessionEvent::Opened { conv, ours, .. }) if ours => {
                if let Some(line) = self.line.take() {
                    let content = Content::text(line);
                    self.endpoint.send(conv, TxnId([1; 16]), content, now)?;
                }
            }
            Event::Delivery(DeliveryEvent::Received(message)) => {
                let conv = message.id.stream.conv;
                println!("{me} reads: {}", message.content.fallback());
                self.endpoint.acknowledge(conv, message.pos, now);
                if let Some(line) = self.line.take() {
                    let content = Content::text(line);
                    self.endpoint.send(conv, TxnId([2; 16]), content, now)?;
                }
            }
            Event::Delivery(DeliveryEvent::Progress {
                ack: Ack::Delivered,
                ..
            }) => {
                println!("{me} knows that it arrived, after {now}");
                self.heard_out = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let mut nodes = [
        Node::open("alice", 1, "hello")?,
        Node::open("bob", 2, "hello yourself")?,
    ];
    let mut now = Timestamp::ZERO;
    for node in &mut nodes {
        node.endpoint.connect(now);
    }
    let bob = nodes[1].endpoint.user().clone();
    nodes[0].endpoint.request(&bob, "It is me", now)?;

    while nodes.iter().any(|node| !node.heard_out) {
        let mut wire = VecDeque::new();
        for node in &mut nodes {
            node.drain(&mut wire, now)?;
        }
        // 5. What arrived. Our own frames may come back: the endpoint drops them.
        for frame in wire {
            for node in &mut nodes {
                if node.heard.contains(&frame.channel) {
                    node.endpoint
                        .handle_inbound(&frame.channel, &frame.bytes, true, now);
                }
            }
        }
        // 6. Time: sleep until the earliest deadline, or less. Here the clock jumps.
        let due = nodes.iter().filter_map(|node| node.endpoint.poll_timeout());
        now = now.max(due.min().ok_or("nobody waits for anything")?);
        for node in &mut nodes {
            node.endpoint.handle_timeout(now);
        }
    }
    Ok(())
}
