//! An endpoint with a disk, driven by hand: small limits, so that a short play reaches them, and
//! the promises of the endpoint checked at every step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::config::Config;
use chat_core::content::Content;
use chat_core::effect::{Row, RowOp, Table};
use chat_core::event::{GroupEvent, SessionEvent};
use chat_core::id::{GroupName, LobbyName, TxnId, UserId};
use chat_core::identity::Verifier;
use chat_core::link::LinkEvent;
use chat_core::sealer::Plain;
use chat_core::time::{Timestamp, UnixMillis};
use chat_core::{Endpoint, Event, Fate, Identity, OpenError, Output, PersistId};

use crate::entries::{Checksum, Keyed};

pub(crate) type Disk = BTreeMap<(Table, Bytes), Bytes>;

const WALL: UnixMillis = UnixMillis(1_800_000_000_000);
/// Outputs of one input: far above what the limits below allow.
const MAX_OUTPUTS: usize = 4_000;

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a valid name")
}

pub(crate) fn lobby() -> LobbyName {
    LobbyName::new("plaza").expect("a valid name")
}

pub(crate) fn config() -> Config {
    let mut config = Config::lan();
    config.session.max_peers = 8;
    config.session.max_pending = 3;
    config.presence.max_watched = 8;
    config.delivery.max_outbox = 12;
    config.delivery.max_outbox_bytes = 4_096;
    config.delivery.max_inbox = 6;
    config.delivery.window = 8;
    config.group.max_roster = 4;
    config.group.max_joins = 3;
    config.group.max_groups = 4;
    config.group.checkpoint_every = 4;
    config.budget.max_senders = 4;
    config.budget.max_pins = 8;
    config
}

pub(crate) fn open(
    name: &str,
    key: u8,
    verifier: Arc<dyn Verifier>,
    rows: Vec<Row>,
    now: Timestamp,
) -> Result<Endpoint, OpenError> {
    let identity = Identity {
        user: user(name),
        signer: Arc::new(Keyed(key)),
        verifier,
        sealer: Box::new(Plain),
    };
    let wall = WALL.plus(now.saturating_since(Timestamp::ZERO));
    Endpoint::open(identity, config(), [key; 32], rows, wall, now)
}

/// What a store returns of `disk` when an endpoint opens.
pub(crate) fn rows(disk: &Disk) -> Vec<Row> {
    let kept = disk.iter().filter(|((table, _), _)| !table.is_on_demand());
    kept.map(|((table, key), value)| Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    })
    .collect()
}

/// An endpoint, its disk, and what it wanted.
pub(crate) struct Node {
    name: &'static str,
    key: u8,
    verifier: Arc<dyn Verifier>,
    pub(crate) endpoint: Endpoint,
    pub(crate) disk: Disk,
    /// Outputs not yet obeyed.
    held: VecDeque<Output>,
    /// While true no row is written: a store that does not answer.
    pub(crate) stalled: bool,
    /// Whether a connection can be had.
    pub(crate) network: bool,
    pub(crate) frames: Vec<(Channel, Bytes)>,
    pub(crate) events: Vec<Event>,
    /// Every channel it ever asked for.
    pub(crate) channels: Vec<Channel>,
    durable: Option<PersistId>,
}

impl Node {
    pub(crate) fn new(
        name: &'static str,
        key: u8,
        verifier: Arc<dyn Verifier>,
        disk: Disk,
        now: Timestamp,
    ) -> Self {
        let endpoint = open(name, key, verifier.clone(), rows(&disk), now);
        let mut node = Self {
            name,
            key,
            verifier,
            endpoint: endpoint.expect("what an endpoint wrote opens again"),
            disk,
            held: VecDeque::new(),
            stalled: false,
            network: true,
            frames: Vec::new(),
            events: Vec::new(),
            channels: Vec::new(),
            durable: None,
        };
        node.endpoint.connect(now);
        node.settle(now);
        node
    }

    /// The process dies; what was not yet obeyed is lost.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        let endpoint = open(
            self.name,
            self.key,
            self.verifier.clone(),
            rows(&self.disk),
            now,
        );
        self.endpoint = endpoint.expect("what an endpoint wrote opens again");
        self.held.clear();
        self.durable = None;
        self.stalled = false;
        self.endpoint.connect(now);
        self.settle(now);
    }

    /// Lets time pass up to `now` and obeys; afterwards nothing may be due.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        for _ in 0..64 {
            self.endpoint.handle_timeout(now);
            let quiet = self.take_outputs(now);
            if quiet {
                let due = self.endpoint.poll_timeout();
                assert!(
                    due.is_none_or(|due| due > now),
                    "{due:?} is due at {now} after a timeout at {now}"
                );
                return self.check();
            }
        }
        panic!("{} does not come to rest at {now}", self.name);
    }

    /// True when there was nothing to do.
    fn take_outputs(&mut self, now: Timestamp) -> bool {
        let mut taken = 0;
        while let Some(output) = self.endpoint.poll_output() {
            self.held.push_back(output);
            taken += 1;
            assert!(taken < MAX_OUTPUTS, "outputs without end");
        }
        // What waits for no row goes out even while the store does not answer.
        let mut events_wait = false;
        for output in std::mem::take(&mut self.held) {
            let goes = !self.stalled
                || match &output {
                    Output::Persist { .. } => false,
                    Output::Transmit(frame) => frame.after <= self.durable,
                    Output::Event { after, .. } => !events_wait && *after <= self.durable,
                    _ => true,
                };
            if goes {
                self.obey(output, now);
                taken += 1;
            } else {
                events_wait |= matches!(output, Output::Event { .. });
                self.held.push_back(output);
            }
        }
        taken == 0
    }

    fn obey(&mut self, output: Output, now: Timestamp) {
        match output {
            Output::Persist { id, rows } => {
                assert!(self.durable < Some(id), "ids grow");
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
                self.durable = Some(id);
                self.endpoint.handle_persisted(id, now);
            }
            Output::Transmit(frame) => {
                assert!(frame.after <= self.durable, "a frame waits for a later row");
                let fate = if self.network {
                    Fate::Taken
                } else {
                    Fate::NotTaken
                };
                self.endpoint.handle_acked(frame.id, fate, now);
                if self.network {
                    self.frames.push((frame.channel, frame.bytes));
                }
            }
            Output::Event { event, after } => {
                assert!(after <= self.durable, "an event waits for a later row");
                self.events.push(event);
            }
            Output::Connect { .. } if self.network => {
                let up = LinkEvent::Up {
                    resumed: false,
                    marks_backlog: true,
                };
                self.endpoint.handle_link(&up, now);
                self.endpoint.handle_link(&LinkEvent::CaughtUp, now);
            }
            Output::Connect { .. } => self.cut(now),
            Output::Subscribe(channel) => {
                if self.network {
                    let placed = LinkEvent::Subscribed(channel.clone());
                    self.endpoint.handle_link(&placed, now);
                }
                if !self.channels.contains(&channel) {
                    self.channels.push(channel);
                }
            }
            _ => {}
        }
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, now: Timestamp) {
        let down = LinkEvent::Down {
            reason: chat_core::link::DownReason::Lost,
            retry_after: None,
        };
        self.endpoint.handle_link(&down, now);
    }

    /// The limits of `config()` hold, whatever came.
    fn check(&self) {
        let config = config();
        let stats = self.endpoint.stats();
        assert!(stats.outbox <= config.delivery.max_outbox as u64);
        assert!(stats.outbox_bytes <= config.delivery.max_outbox_bytes as u64);
        assert!(self.endpoint.sessions().len() <= config.session.max_peers);
        assert!(self.endpoint.groups().len() <= config.group.max_groups);
        assert!(self.endpoint.people().len() <= config.presence.max_watched + 1);
        let mut sizes: BTreeMap<Table, usize> = BTreeMap::new();
        for (table, _) in self.disk.keys() {
            *sizes.entry(*table).or_default() += 1;
        }
        let size = |table| sizes.get(&table).copied().unwrap_or_default();
        assert!(size(Table::Sessions) <= config.session.max_peers);
        assert!(size(Table::Outbox) <= config.delivery.max_outbox);
        assert!(size(Table::Pins) <= 2 * config.budget.max_pins);
        assert!(size(Table::Contacts) <= 2 * config.presence.max_watched);
    }
}

/// What a real meeting of two looks like: every frame, and the disks at some moments.
pub(crate) struct Meeting {
    /// What ann sent.
    pub(crate) frames: Vec<(Channel, Bytes)>,
    /// Bob's disk: new, with a session, with a group, at the end.
    pub(crate) bob: Vec<Disk>,
    /// Ann's and bob's disk with a session and nothing else.
    pub(crate) pair: (Disk, Disk),
}

pub(crate) static MEETING: LazyLock<Meeting> = LazyLock::new(meet);

fn meet() -> Meeting {
    let mut now = Timestamp::from_secs(1);
    let verifier: Arc<dyn Verifier> = Arc::new(Checksum);
    let mut ann = Node::new("ann", 1, verifier.clone(), Disk::new(), now);
    let mut bob = Node::new("bob", 2, verifier, Disk::new(), now);
    let mut frames = Vec::new();
    let mut run = |ann: &mut Node, bob: &mut Node| {
        for _ in 0..40 {
            now = now + Duration::from_millis(50);
            ann.settle(now);
            bob.settle(now);
            let (from_ann, from_bob) = (
                std::mem::take(&mut ann.frames),
                std::mem::take(&mut bob.frames),
            );
            for (channel, bytes) in &from_ann {
                bob.endpoint.handle_inbound(channel, bytes, true, now);
            }
            for (channel, bytes) in &from_bob {
                ann.endpoint.handle_inbound(channel, bytes, true, now);
            }
            frames.extend(from_ann);
        }
        now
    };
    let mut disks = vec![bob.disk.clone()];
    let now = run(&mut ann, &mut bob);
    ann.endpoint.enter_lobby(&lobby(), now);
    bob.endpoint.enter_lobby(&lobby(), now);
    ann.endpoint
        .request(&user("bob"), "hello", now)
        .expect("a first request");
    let now = run(&mut ann, &mut bob);
    let invite = bob.events.iter().find_map(|event| match event {
        Event::Session(SessionEvent::Requested { invite, .. }) => Some(*invite),
        _ => None,
    });
    let conv = bob
        .endpoint
        .accept(invite.expect("the request is shown"), now)
        .expect("it stands");
    let now = run(&mut ann, &mut bob);
    disks.push(bob.disk.clone());
    let pair = (ann.disk.clone(), bob.disk.clone());
    for (n, text) in [(1, "one"), (2, "two"), (3, "three")] {
        for node in [&mut ann, &mut bob] {
            node.endpoint
                .send(conv, TxnId([n; 16]), Content::text(text), now)
                .expect("the session is open");
        }
    }
    ann.endpoint.set_typing(conv, true, now);
    let group = ann
        .endpoint
        .create_group(&GroupName::new("club").expect("a valid name"), now)
        .expect("the first group");
    let now = run(&mut ann, &mut bob);
    bob.endpoint
        .join(group, "please", now)
        .expect("it is asked");
    let now = run(&mut ann, &mut bob);
    let request = ann.events.iter().find_map(|event| match event {
        Event::Group(GroupEvent::JoinRequested { request, .. }) => Some(request.request),
        _ => None,
    });
    ann.endpoint
        .approve(group, request.expect("it is shown"), now)
        .expect("it stands");
    let now = run(&mut ann, &mut bob);
    disks.push(bob.disk.clone());
    for node in [&mut ann, &mut bob] {
        node.endpoint
            .send(group.into(), TxnId([9; 16]), Content::text("all"), now)
            .expect("both are members");
    }
    let now = run(&mut ann, &mut bob);
    ann.endpoint
        .hand_over(group, &user("bob"), now)
        .expect("bob is a member");
    let now = run(&mut ann, &mut bob);
    disks.push(bob.disk.clone());
    ann.endpoint
        .close_session(&user("bob"), "bye", now)
        .expect("it is open");
    run(&mut ann, &mut bob);
    Meeting {
        frames,
        bob: disks,
        pair,
    }
}
