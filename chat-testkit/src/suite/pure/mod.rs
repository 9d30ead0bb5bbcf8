//! The bare core as a world: endpoints, a small broker and a virtual clock; no runtime. Frames
//! take a moment, rows are durable a moment later, and nothing is ever lost but what a fault
//! takes, or a [`Flaw`] of the broker.

mod broker;
mod flaw;
mod run;

pub use flaw::Flaw;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_client::transport::{Capabilities, Mailbox};
use chat_core::channel::{Channel, Class};
use chat_core::config::Config;
use chat_core::delivery::{Delivery, TimelineItem};
use chat_core::effect::{Row, RowOp, Table};
use chat_core::group::GroupView;
use chat_core::id::{ConvId, GroupId, LobbyName, UserId};
use chat_core::identity::{DeviceKey, Ed25519, Signer};
use chat_core::link::{DownReason, LinkEvent};
use chat_core::lobby::GroupListing;
use chat_core::presence::{PresenceView, RoomPresence};
use chat_core::sealer::Plain;
use chat_core::session::SessionState;
use chat_core::time::{Timestamp, UnixMillis};
use chat_core::{Endpoint, Event, Fate, Identity, Output, PersistId, TransmitId, Will};

use super::apply::apply;
use super::world::{Answer, Command, Fault, Node, Refusal, World, config, name};

/// One way through the broker.
const HOP: Duration = Duration::from_millis(3);
/// How much later a shuffled frame comes.
const LATE: Duration = Duration::from_millis(40);
/// From a batch to its being durable.
const FSYNC: Duration = Duration::from_millis(5);
const WALL: u64 = 1_800_000_000_000;

/// What the broker does unless it has a [`Flaw`].
const WHOLE: Capabilities = Capabilities {
    name: "pure",
    broker_ack: true,
    reason_codes: false,
    no_receiver_hint: false,
    manual_ack: true,
    mailbox: Mailbox::Bounded,
    last_will: true,
    last_value: true,
    backlog_marker: true,
    dedup: false,
    ttl: false,
    no_echo: true,
    acl_subscribe: false,
    acl_publish: false,
    cas: false,
    max_frame: usize::MAX,
};

/// What it does with [`Flaw::bare`].
const BARE: Capabilities = Capabilities {
    mailbox: Mailbox::None,
    last_will: false,
    last_value: false,
    backlog_marker: false,
    ..WHOLE
};

#[derive(Debug)]
enum Happens {
    Frame {
        node: usize,
        life: u32,
        channel: Channel,
        bytes: Bytes,
        live: bool,
        class: Class,
    },
    Durable {
        node: usize,
        life: u32,
        id: PersistId,
    },
    Acked {
        node: usize,
        life: u32,
        id: TransmitId,
        fate: Fate,
    },
    Link {
        node: usize,
        life: u32,
        event: LinkEvent,
    },
    Released {
        node: usize,
        life: u32,
    },
}

#[derive(Debug)]
struct Process {
    endpoint: Endpoint,
    pending: VecDeque<(PersistId, Vec<RowOp>)>,
    /// Outputs that wait for a batch, in order.
    held: VecDeque<Output>,
    durable: Option<PersistId>,
    connected: bool,
}

#[derive(Debug)]
struct Device {
    user: UserId,
    key: [u8; 32],
    process: Option<Process>,
    life: u32,
    cut: bool,
    barred: bool,
    will: Option<Will>,
    disk: BTreeMap<(Table, Bytes), Bytes>,
    subscribed: BTreeSet<Channel>,
    mailbox: VecDeque<(Channel, Bytes)>,
    events: VecDeque<Event>,
}

/// The bare core, over a broker that may have a [`Flaw`].
#[derive(Debug)]
pub struct PureWorld {
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happens>,
    order: u64,
    devices: Vec<Device>,
    last_values: BTreeMap<Channel, (usize, Bytes)>,
    published: u64,
    subscriptions: u64,
    config: Config,
    flaw: Flaw,
}

impl World for PureWorld {
    const VIRTUAL_TIME: bool = true;

    async fn start() -> Self {
        Self {
            now: Timestamp::from_secs(1),
            queue: BTreeMap::new(),
            order: 0,
            devices: Vec::new(),
            last_values: BTreeMap::new(),
            published: 0,
            subscriptions: 0,
            config: config(),
            flaw: Flaw::planted(),
        }
    }

    fn capabilities(&self) -> &'static Capabilities {
        if self.flaw.bare { &BARE } else { &WHOLE }
    }

    fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    async fn join(&mut self, user: &str) -> Node {
        let node = self.devices.len();
        let key = [u8::try_from(node + 1).expect("few devices"); 32];
        self.devices.push(Device {
            user: name(user),
            key,
            process: None,
            life: 0,
            cut: false,
            barred: false,
            will: None,
            disk: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            mailbox: VecDeque::new(),
            events: VecDeque::new(),
        });
        self.boot(node);
        let now = self.now;
        let all: Vec<(UserId, [u8; 32])> = self
            .devices
            .iter()
            .map(|device| (device.user.clone(), device.key))
            .collect();
        for device in &mut self.devices {
            if let Some(process) = &mut device.process {
                for (user, key) in &all {
                    process
                        .endpoint
                        .trust(user, DeviceKey::from_secret(*key).device(), now);
                }
            }
        }
        for node in 0..self.devices.len() {
            self.drain(node);
        }
        self.advance(self.now + Duration::from_millis(100));
        Node(node)
    }

    async fn run(&mut self, node: Node, command: Command) -> Result<Answer, Refusal> {
        let now = self.now;
        let process = self.devices[node.0]
            .process
            .as_mut()
            .expect("the process runs");
        let answer = apply(&mut process.endpoint, command, now);
        self.drain(node.0);
        self.advance(self.now + FSYNC);
        answer
    }

    async fn event(&mut self, node: Node, within: Duration) -> Option<Event> {
        let until = self.now + within;
        loop {
            if let Some(event) = self.devices[node.0].events.pop_front() {
                return Some(event);
            }
            if !self.step(until) {
                self.now = self.now.max(until);
                return None;
            }
        }
    }

    async fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(Node(node)) => {
                self.devices[node].cut = true;
                self.sever(node);
                let now = self.now;
                if let Some(process) = &mut self.devices[node].process {
                    let down = LinkEvent::Down {
                        reason: DownReason::Lost,
                        retry_after: None,
                    };
                    process.endpoint.handle_link(&down, now);
                }
                self.drain(node);
            }
            Fault::Mend(Node(node)) => {
                self.devices[node].cut = false;
                let now = self.now;
                if let Some(process) = &mut self.devices[node].process {
                    process.endpoint.handle_link(&LinkEvent::Reachable, now);
                }
                self.drain(node);
            }
            Fault::Bar(Node(node)) => self.devices[node].barred = true,
            Fault::Unbar(Node(node)) => self.devices[node].barred = false,
            Fault::Kill(Node(node)) => {
                self.sever(node);
                self.devices[node].process = None;
                self.devices[node].events.clear();
            }
            Fault::Revive(Node(node)) => {
                self.boot(node);
                self.advance(self.now + Duration::from_millis(100));
            }
            Fault::Stop(Node(node)) => {
                let now = self.now;
                if let Some(process) = &mut self.devices[node].process {
                    process.endpoint.disconnect(now);
                }
                self.drain(node);
                self.advance(self.now + Duration::from_millis(100));
                self.devices[node].process = None;
                self.devices[node].events.clear();
            }
            Fault::RestartBroker => {
                for node in 0..self.devices.len() {
                    self.devices[node].will = None;
                    let now = self.now;
                    if let Some(process) = &mut self.devices[node].process {
                        process.connected = false;
                        let down = LinkEvent::Down {
                            reason: DownReason::Lost,
                            retry_after: None,
                        };
                        process.endpoint.handle_link(&down, now);
                    }
                    self.drain(node);
                }
            }
        }
    }

    async fn wait(&mut self, time: Duration) {
        self.advance(self.now + time);
    }

    async fn timeline(&mut self, node: Node, conv: ConvId) -> Vec<TimelineItem> {
        self.advance(self.now + 2 * FSYNC);
        self.devices[node.0]
            .disk
            .iter()
            .filter(|((table, key), _)| {
                *table == Table::Timeline && key.starts_with(conv.as_bytes())
            })
            .map(|((table, key), value)| {
                let row = Row {
                    table: *table,
                    key: key.clone(),
                    value: value.clone(),
                };
                Delivery::read_timeline(&row).expect("its own rows are whole")
            })
            .collect()
    }

    async fn session(&mut self, node: Node, peer: &UserId) -> SessionState {
        self.devices[node.0]
            .process
            .as_ref()
            .expect("the process runs")
            .endpoint
            .session(peer)
    }

    async fn group(&mut self, node: Node, group: GroupId) -> Option<GroupView> {
        self.devices[node.0]
            .process
            .as_ref()
            .expect("the process runs")
            .endpoint
            .group(group)
    }

    async fn company(&mut self, node: Node, group: GroupId) -> Option<RoomPresence> {
        self.devices[node.0]
            .process
            .as_ref()
            .expect("the process runs")
            .endpoint
            .room_presence(group)
    }

    async fn presence(&mut self, node: Node, user: &UserId) -> Option<PresenceView> {
        self.devices[node.0]
            .process
            .as_ref()
            .expect("the process runs")
            .endpoint
            .presence(user)
    }

    async fn listings(&mut self, node: Node, lobby: &LobbyName) -> Vec<GroupListing> {
        self.devices[node.0]
            .process
            .as_ref()
            .expect("the process runs")
            .endpoint
            .listings(lobby)
    }
}

/// Runs a future of this world to its end: nothing in it ever waits, so one poll is enough.
///
/// # Panics
/// When the future is not ready, which is a bug in the world.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = core::pin::pin!(future);
    let mut cx = core::task::Context::from_waker(core::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        core::task::Poll::Ready(value) => value,
        core::task::Poll::Pending => panic!("a pure world never waits"),
    }
}
