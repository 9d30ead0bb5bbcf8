//! The bare core as a world: endpoints, a small broker and a virtual clock; no runtime. Frames
//! take a moment, rows are durable a moment later, and nothing is ever lost but what a fault
//! takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_core::channel::{Channel, Class};
use chat_core::config::Config;
use chat_core::delivery::{Delivery, TimelineItem};
use chat_core::effect::{Row, RowOp, Table};
use chat_core::group::GroupView;
use chat_core::id::{ConvId, GroupId, LobbyName, UserId};
use chat_core::identity::{DeviceKey, Ed25519, Signer};
use chat_core::link::{DownReason, LinkEvent};
use chat_core::lobby::GroupListing;
use chat_core::presence::PresenceView;
use chat_core::sealer::Plain;
use chat_core::session::SessionState;
use chat_core::time::{Timestamp, UnixMillis};
use chat_core::{Endpoint, Event, Identity, Output, PersistId, TransmitId, Will};

use super::world::{Answer, Command, Fault, Node, Refusal, World, name};

/// One way through the broker.
const HOP: Duration = Duration::from_millis(3);
/// From a batch to its being durable.
const FSYNC: Duration = Duration::from_millis(5);
const WALL: u64 = 1_800_000_000_000;

#[derive(Debug)]
enum Happens {
    Frame {
        node: usize,
        life: u32,
        channel: Channel,
        bytes: Bytes,
        live: bool,
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
    will: Option<Will>,
    disk: BTreeMap<(Table, Bytes), Bytes>,
    subscribed: BTreeSet<Channel>,
    mailbox: VecDeque<(Channel, Bytes)>,
    events: VecDeque<Event>,
}

/// The bare core.
#[derive(Debug)]
pub struct PureWorld {
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happens>,
    order: u64,
    devices: Vec<Device>,
    last_values: BTreeMap<Channel, (usize, Bytes)>,
}

impl PureWorld {
    fn after(&mut self, wait: Duration, what: Happens) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), what);
    }

    fn boot(&mut self, node: usize) {
        let device = &mut self.devices[node];
        device.life += 1;
        let signer: Arc<dyn Signer> = Arc::new(DeviceKey::from_secret(device.key));
        let identity = Identity {
            user: device.user.clone(),
            signer,
            verifier: Arc::new(Ed25519),
            sealer: Box::new(Plain),
        };
        let rows = device
            .disk
            .iter()
            .filter(|((table, _), _)| !table.is_on_demand())
            .map(|((table, key), value)| Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            })
            .collect::<Vec<_>>();
        let mut seed = device.key;
        seed[31] = device.life as u8;
        let wall = UnixMillis(WALL + self.now.as_micros() / 1_000);
        let mut endpoint = Endpoint::open(identity, Config::lan(), seed, rows, wall, self.now)
            .expect("its own rows open");
        endpoint.connect(self.now);
        device.process = Some(Process {
            endpoint,
            pending: VecDeque::new(),
            held: VecDeque::new(),
            durable: None,
            connected: false,
        });
        self.drain(node);
    }

    /// Does what the endpoint wants, in order.
    fn drain(&mut self, node: usize) {
        while let Some(process) = &mut self.devices[node].process {
            let Some(output) = process.endpoint.poll_output() else {
                break;
            };
            let life = self.devices[node].life;
            match output {
                Output::Persist { id, rows } => {
                    let process = self.devices[node].process.as_mut().expect("seen above");
                    process.pending.push_back((id, rows));
                    self.after(FSYNC, Happens::Durable { node, life, id });
                }
                other => {
                    let process = self.devices[node].process.as_mut().expect("seen above");
                    let must_wait = gate(&other)
                        .is_some_and(|id| process.durable.is_none_or(|durable| id > durable));
                    // One queue for all: a frame never overtakes an earlier one that waits.
                    if must_wait || !process.held.is_empty() {
                        process.held.push_back(other);
                    } else {
                        self.obey(node, other);
                    }
                }
            }
        }
    }

    fn release(&mut self, node: usize) {
        while let Some(process) = &mut self.devices[node].process {
            let ready = process.held.front().is_some_and(|output| {
                gate(output).is_none_or(|id| process.durable.is_some_and(|durable| id <= durable))
            });
            if !ready {
                break;
            }
            let output = process.held.pop_front().expect("the front was ready");
            self.obey(node, output);
        }
    }

    fn obey(&mut self, node: usize, output: Output) {
        let life = self.devices[node].life;
        match output {
            Output::Transmit(frame) => {
                let connected = self.devices[node]
                    .process
                    .as_ref()
                    .is_some_and(|process| process.connected);
                if connected {
                    self.after(
                        2 * HOP,
                        Happens::Acked {
                            node,
                            life,
                            id: frame.id,
                        },
                    );
                    self.publish(
                        node,
                        &frame.channel,
                        &frame.bytes,
                        frame.class,
                        frame.last_value,
                    );
                }
            }
            Output::Subscribe(channel) => self.subscribe(node, channel),
            Output::Unsubscribe(channel) => {
                self.devices[node].subscribed.remove(&channel);
            }
            Output::Connect { will } => {
                if self.devices[node].cut {
                    let event = LinkEvent::Down {
                        reason: DownReason::Lost,
                        retry_after: None,
                    };
                    self.after(HOP, Happens::Link { node, life, event });
                    return;
                }
                self.devices[node].will = will;
                let resumed = !self.devices[node].subscribed.is_empty();
                if let Some(process) = &mut self.devices[node].process {
                    process.connected = true;
                }
                let event = LinkEvent::Up {
                    resumed,
                    marks_backlog: true,
                };
                self.after(HOP, Happens::Link { node, life, event });
                for (channel, bytes) in core::mem::take(&mut self.devices[node].mailbox) {
                    self.after(
                        2 * HOP,
                        Happens::Frame {
                            node,
                            life,
                            channel,
                            bytes,
                            live: true,
                        },
                    );
                }
                self.after(
                    4 * HOP,
                    Happens::Link {
                        node,
                        life,
                        event: LinkEvent::CaughtUp,
                    },
                );
            }
            Output::Disconnect => {
                self.devices[node].will = None;
                if let Some(process) = &mut self.devices[node].process {
                    process.connected = false;
                }
            }
            Output::Event { event, .. } => self.devices[node].events.push_back(event),
            other => unreachable!("an output that this world does not know: {other:?}"),
        }
    }

    fn subscribe(&mut self, node: usize, channel: Channel) {
        let life = self.devices[node].life;
        self.devices[node].subscribed.insert(channel.clone());
        let event = LinkEvent::Subscribed(channel.clone());
        self.after(2 * HOP, Happens::Link { node, life, event });
        if let Some((from, bytes)) = self.last_values.get(&channel).cloned()
            && from != node
        {
            self.after(
                2 * HOP,
                Happens::Frame {
                    node,
                    life,
                    channel,
                    bytes,
                    live: false,
                },
            );
        }
    }

    fn publish(&mut self, from: usize, channel: &Channel, bytes: &Bytes, class: Class, last: bool) {
        if last {
            self.last_values
                .insert(channel.clone(), (from, bytes.clone()));
        }
        for node in 0..self.devices.len() {
            if node == from || !self.devices[node].subscribed.contains(channel) {
                continue;
            }
            let connected = self.devices[node]
                .process
                .as_ref()
                .is_some_and(|process| process.connected);
            if connected {
                let life = self.devices[node].life;
                let frame = Happens::Frame {
                    node,
                    life,
                    channel: channel.clone(),
                    bytes: bytes.clone(),
                    live: true,
                };
                self.after(2 * HOP, frame);
            } else if class == Class::Durable {
                self.devices[node]
                    .mailbox
                    .push_back((channel.clone(), bytes.clone()));
            }
        }
    }

    /// The connection dies without a goodbye: the broker publishes the will.
    fn sever(&mut self, node: usize) {
        if let Some(process) = &mut self.devices[node].process {
            process.connected = false;
        }
        if let Some(will) = self.devices[node].will.take() {
            self.publish(node, &will.channel, &will.bytes, Class::Ephemeral, true);
        }
    }

    fn happen(&mut self, what: Happens) {
        let (node, life) = match &what {
            Happens::Frame { node, life, .. }
            | Happens::Durable { node, life, .. }
            | Happens::Acked { node, life, .. }
            | Happens::Link { node, life, .. }
            | Happens::Released { node, life } => (*node, *life),
        };
        let now = self.now;
        let device = &mut self.devices[node];
        if device.life != life {
            // A frame on its way to a process that died goes back to the mailbox: it was not
            // acknowledged.
            if let Happens::Frame {
                channel,
                bytes,
                live: true,
                ..
            } = what
                && device.subscribed.contains(&channel)
            {
                device.mailbox.push_back((channel, bytes));
            }
            return;
        }
        let Some(process) = &mut device.process else {
            if let Happens::Frame {
                channel,
                bytes,
                live: true,
                ..
            } = what
            {
                device.mailbox.push_back((channel, bytes));
            }
            return;
        };
        match what {
            Happens::Frame {
                channel,
                bytes,
                live,
                ..
            } => {
                if process.connected {
                    process.endpoint.handle_inbound(&channel, &bytes, live, now);
                } else if live {
                    device.mailbox.push_back((channel, bytes));
                }
            }
            Happens::Durable { id, .. } => {
                while process
                    .pending
                    .front()
                    .is_some_and(|(first, _)| *first <= id)
                {
                    let (_, rows) = process.pending.pop_front().expect("seen above");
                    for op in rows {
                        match op {
                            RowOp::Put { table, key, value } => {
                                device.disk.insert((table, key), value);
                            }
                            RowOp::Delete { table, key } => {
                                device.disk.remove(&(table, key));
                            }
                        }
                    }
                }
                process.durable = process.durable.max(Some(id));
                process.endpoint.handle_persisted(id, now);
                self.after(Duration::ZERO, Happens::Released { node, life });
            }
            Happens::Acked { id, .. } => process.endpoint.handle_acked(id, true, now),
            Happens::Link { event, .. } => {
                let stale = !process.connected && !matches!(event, LinkEvent::Down { .. });
                if !stale {
                    process.endpoint.handle_link(&event, now);
                }
            }
            Happens::Released { .. } => self.release(node),
        }
        self.drain(node);
    }

    /// The next moment at which something happens, no later than `until`.
    fn step(&mut self, until: Timestamp) -> bool {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let due = self
            .devices
            .iter()
            .enumerate()
            .filter_map(|(node, device)| {
                Some((device.process.as_ref()?.endpoint.poll_timeout()?, node))
            })
            .min();
        let next = match (queued, due) {
            (Some(a), Some((b, _))) => a.min(b),
            (Some(a), None) => a,
            (None, Some((b, _))) => b,
            (None, None) => return false,
        };
        if next > until {
            return false;
        }
        self.now = self.now.max(next);
        if queued == Some(next) {
            let (_, what) = self.queue.pop_first().expect("seen above");
            self.happen(what);
        } else if let Some((_, node)) = due {
            let now = self.now;
            if let Some(process) = &mut self.devices[node].process {
                process.endpoint.handle_timeout(now);
            }
            self.drain(node);
        }
        true
    }

    fn advance(&mut self, until: Timestamp) {
        let mut steps = 0u32;
        while self.step(until) {
            steps += 1;
            assert!(
                steps < 2_000_000,
                "the world makes no progress at {:?}",
                self.now
            );
        }
        self.now = self.now.max(until);
    }
}

fn gate(output: &Output) -> Option<PersistId> {
    match output {
        Output::Transmit(frame) => frame.after,
        Output::Event { after, .. } => *after,
        _ => None,
    }
}

/// Runs `command` on `endpoint`; shared by every world that holds endpoints.
fn run(endpoint: &mut Endpoint, command: Command, now: Timestamp) -> Result<Answer, Refusal> {
    use Answer::{Cancelled, Conv, Done, Group, Invite, Message, Plan, Request};
    let done = |()| Done;
    match command {
        Command::Request { peer, note } => endpoint
            .request(&peer, &note, now)
            .map(Invite)
            .map_err(Refusal::Request),
        Command::Accept(invite) => endpoint
            .accept(invite, now)
            .map(Conv)
            .map_err(Refusal::Answer),
        Command::Reject(invite, how) => endpoint
            .reject(invite, &how, now)
            .map(done)
            .map_err(Refusal::Answer),
        Command::Cancel(invite) => endpoint
            .cancel(invite, now)
            .map(done)
            .map_err(Refusal::Answer),
        Command::Close { peer, reason } => endpoint
            .close_session(&peer, &reason, now)
            .map(done)
            .map_err(Refusal::Answer),
        Command::Block(peer) => {
            endpoint.block(&peer, now);
            Ok(Done)
        }
        Command::Unblock(peer) => {
            endpoint.unblock(&peer, now);
            Ok(Done)
        }
        Command::Send { conv, txn, content } => endpoint
            .send(conv, txn, content, now)
            .map(Message)
            .map_err(Refusal::Send),
        Command::CancelSend(id) => Ok(Cancelled(endpoint.cancel_send(&id, now))),
        Command::MarkRead { conv, up_to } => {
            endpoint.mark_read(conv, up_to, now);
            Ok(Done)
        }
        Command::Typing { conv, active } => {
            endpoint.set_typing(conv, active, now);
            Ok(Done)
        }
        Command::CreateGroup(name) => endpoint
            .create_group(&name, now)
            .map(Group)
            .map_err(Refusal::Group),
        Command::Join { group, note } => endpoint
            .join(group, &note, now)
            .map(Request)
            .map_err(Refusal::Group),
        Command::Withdraw(group) => endpoint
            .withdraw(group, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Approve(group, request) => endpoint
            .approve(group, request, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Deny(group, request, reason) => endpoint
            .deny(group, request, &reason, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Kick {
            group,
            user,
            reason,
        } => endpoint
            .kick(group, &user, &reason, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::PlanLeave(group) => endpoint.plan_leave(group).map(Plan).map_err(Refusal::Group),
        Command::Leave(group) => endpoint.leave(group, now).map(done).map_err(Refusal::Group),
        Command::HandOver(group, user) => endpoint
            .hand_over(group, &user, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::AnswerOffer(group, accept) => endpoint
            .answer_offer(group, accept, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Rename(group, name) => endpoint
            .rename_group(group, &name, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::SetPresence(status, text) => {
            endpoint.set_presence(status, &text, now);
            Ok(Done)
        }
        Command::Watch(user) => {
            endpoint.watch(&user, now);
            Ok(Done)
        }
        Command::EnterLobby(lobby) => {
            endpoint.enter_lobby(&lobby, now);
            Ok(Done)
        }
        Command::Trust(user, device) => {
            endpoint.trust(&user, device, now);
            Ok(Done)
        }
    }
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
        }
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
        let answer = run(&mut process.endpoint, command, now);
        self.drain(node.0);
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
