//! The world: one heap of events ordered by (time, sequence), the nodes, the brokers, and the
//! oracles that watch. Everything that happens follows from the seed and the script.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use chat_core::Endpoint;
use chat_core::config::Config;
use chat_core::id::{GroupId, LobbyName, UserId};
use chat_core::identity::Signer as _;
use chat_core::time::Timestamp;

use super::broker::{Broker, Frame};
use super::clock::NodeClock;
use super::crypto::{FakeSigner, FakeVerifier, Ledger};
use super::event::{Happening, Input, Reaction, Timed};
use super::node::Node;
use super::rng::Draw;
use super::script::Script;
use super::swarm::Swarm;
use crate::oracle::{At, Oracles, Seen, Settled, Verdict, View, Violation};

/// One millisecond in µs of true time.
pub(crate) const MS: u64 = 1_000;
/// How often the oracles look at every node.
const PROBE: u64 = 2_500 * MS;

/// A simulated world.
#[derive(Debug)]
pub(crate) struct World {
    /// True time, µs.
    pub(crate) now: u64,
    pub(super) seed: u64,
    pub(super) swarm: Swarm,
    pub(super) config: Config,
    pub(super) script: Script,
    heap: BinaryHeap<Timed>,
    sequence: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) brokers: Vec<Broker>,
    pub(super) bridge_cut: u64,
    pub(super) bridge_last: [u64; 2],
    /// Faults are still allowed.
    pub(super) faulty: bool,
    pub(super) ledger: Arc<Ledger>,
    pub(super) next_device: u64,
    pub(super) net: Draw,
    pub(super) disk: Draw,
    pub(super) app: Draw,
    pub(super) oracles: Oracles,
    pub(super) lobby: LobbyName,
    pub(super) group: Option<GroupId>,
    pub(super) next_text: u64,
    /// Frames seen lately, for forgeries.
    pub(super) recent: VecDeque<Rc<Frame>>,
    pub(super) marks: BTreeMap<&'static str, u64>,
    /// The first violation; the run stops there.
    pub(super) broken: Option<Violation>,
    pub(super) settled: Option<Settled>,
    unsettled: Option<Violation>,
    /// Events handled.
    pub(crate) steps: u64,
    /// Digest of everything that happened.
    pub(crate) digest: u64,
    trace: Option<String>,
}

impl World {
    /// A world at its beginning.
    pub(crate) fn new(seed: u64, swarm: Swarm, script: Script, traced: bool) -> Self {
        let ledger = Arc::new(Ledger::default());
        let mut clocks = Draw::new(seed, "clocks");
        let count = swarm.users.len();
        let nodes =
            swarm
                .users
                .iter()
                .zip(&swarm.brokers)
                .enumerate()
                .map(|(index, (user, broker))| {
                    let rate = if swarm.skewed {
                        clocks.range(970_000, 1_030_000)
                    } else {
                        1_000_000
                    };
                    let skew = clocks.below(4_000) as i64 - 2_000;
                    let name = UserId::new(&format!("user{user}")).expect("a plain name");
                    Node::new(
                        index,
                        *user,
                        name,
                        *broker,
                        NodeClock::new(rate, skew),
                        count,
                    )
                });
        let brokers = 1 + usize::from(swarm.brokers.contains(&1));
        let broker = |_| {
            Broker::new(
                swarm.mailboxes,
                swarm.mailbox_cap,
                swarm.retains,
                swarm.dedups,
            )
        };
        let lobby = LobbyName::new("hall").expect("a plain name");
        let mut world = Self {
            now: 0,
            seed,
            config: swarm.config(),
            heap: BinaryHeap::with_capacity(1_024),
            sequence: 0,
            nodes: nodes.collect(),
            brokers: (0..brokers).map(broker).collect(),
            bridge_cut: 0,
            bridge_last: [0; 2],
            faulty: true,
            next_device: 1,
            net: Draw::new(seed, "net"),
            disk: Draw::new(seed, "disk"),
            app: Draw::new(seed, "app"),
            oracles: Oracles::new(&swarm, lobby.clone(), ledger.clone()),
            ledger,
            lobby,
            group: None,
            next_text: 0,
            recent: VecDeque::new(),
            marks: BTreeMap::new(),
            broken: None,
            settled: None,
            unsettled: None,
            steps: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            trace: traced.then(String::new),
            swarm,
            script,
        };
        for index in 0..world.script.len() {
            let at = world.script[index].0 * MS;
            world.push(at, Happening::Op(index));
        }
        world.push(world.swarm.safety_ms * MS, Happening::Heal);
        world.push(PROBE, Happening::Probe);
        for node in 0..count {
            world.new_device(node);
        }
        for node in 0..count {
            world.start(node);
        }
        world
    }

    /// Runs to its end: converged, exempt, or broken.
    pub(crate) fn run(&mut self, bound_ms: u64) {
        let end = (self.swarm.safety_ms + bound_ms) * MS;
        while self.broken.is_none() && self.settled.is_none() {
            let Some(next) = self.heap.pop() else { break };
            self.now = next.at;
            self.steps += 1;
            if self.now > end {
                self.broken = self.unsettled.take();
                break;
            }
            self.handle(next.what);
        }
        let marks = self.oracles.marks();
        for (name, count) in marks {
            *self.marks.entry(name).or_default() += count;
        }
    }

    /// The readable trace so far.
    pub(crate) fn take_trace(&mut self) -> String {
        self.trace.take().unwrap_or_default()
    }

    fn handle(&mut self, what: Happening) {
        match what {
            Happening::Input { node, life, input } => self.input(node, life, input),
            Happening::AtBroker {
                node,
                client,
                conn,
                what,
            } => {
                self.at_broker(node, client, conn, what);
            }
            Happening::Publish {
                broker,
                frame,
                bridged,
            } => self.publish(broker, &frame, bridged),
            Happening::LateCopy {
                broker,
                client,
                frame,
            } => self.late_copy(broker, client, &frame),
            Happening::Op(index) => self.op(index),
            Happening::Start { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].endpoint.is_none() {
                    self.start(node);
                }
            }
            Happening::Resume(node) => self.resume(node),
            Happening::BrokerUp(broker) => self.brokers[broker].up = true,
            Happening::Heal => self.heal(),
            Happening::Probe => self.probe(),
        }
    }

    pub(super) fn push(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        self.heap.push(Timed {
            at: at.max(self.now),
            sequence: self.sequence,
            what,
        });
    }

    pub(super) fn push_input(&mut self, at: u64, node: usize, input: Input) {
        let life = self.nodes[node].life;
        self.push(at, Happening::Input { node, life, input });
    }

    /// A device number, key and signer for `node` that nobody had before.
    pub(super) fn new_device(&mut self, node: usize) {
        let number = self.next_device;
        self.next_device += 1;
        let signer = FakeSigner::new(number, self.ledger.clone());
        self.nodes[node].device_number = number;
        self.nodes[node].device = signer.public_key().device();
    }

    /// The signer and the verifier of `node`.
    pub(super) fn keys(&self, node: usize) -> (Arc<FakeSigner>, Arc<FakeVerifier>) {
        let number = self.nodes[node].device_number;
        (
            Arc::new(FakeSigner::new(number, self.ledger.clone())),
            Arc::new(FakeVerifier(self.ledger.clone())),
        )
    }

    pub(super) fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// Folds `parts` into the digest and, when traced, writes a line.
    pub(super) fn note(&mut self, parts: &[u64], line: impl FnOnce() -> String) {
        for part in [&[self.now][..], parts].into_iter().flatten() {
            self.digest = (self.digest ^ part)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(17);
        }
        if let Some(trace) = &mut self.trace {
            let (s, us) = (self.now / 1_000_000, self.now % 1_000_000);
            let _ = writeln!(trace, "{s:>5}.{us:06} {}", line());
        }
    }

    pub(super) fn see(&mut self, node: usize, seen: Seen<'_>) {
        let place = &self.nodes[node];
        let at = At {
            now: self.now,
            mono: place.clock.mono(self.now),
            node,
            user: &place.user,
            device: place.device,
        };
        let verdict = self.oracles.see(at, seen);
        self.judge(verdict);
    }

    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.broken.is_none()
        {
            self.note(&[0xbad], || format!("VIOLATION {violation}"));
            self.broken = Some(violation);
        }
    }

    fn probe(&mut self) {
        self.push(self.now + PROBE, Happening::Probe);
        let now = self.now;
        let views: Vec<View<'_>> = self
            .nodes
            .iter()
            .map(|node| View {
                at: At {
                    now,
                    mono: node.clock.mono(now),
                    node: node.index,
                    user: &node.user,
                    device: node.device,
                },
                endpoint: node.endpoint.as_ref(),
                killed: node.killed,
                paused: node.paused_until > now,
                rows: node.disk.synced(),
            })
            .collect();
        let waiting: Vec<_> = views
            .iter()
            .filter(|_| !self.faulty && (now / PROBE).is_multiple_of(16))
            .filter_map(|view| Some((view.at.node, view.endpoint?.group(self.group?)?)))
            .flat_map(|(node, view)| {
                view.requests
                    .into_iter()
                    .map(move |one| (node, one.request))
            })
            .collect();
        let verdict = self.oracles.probe(&views);
        let settled = (!self.faulty).then(|| self.oracles.settled(&views));
        drop(views);
        self.judge(verdict);
        // Whoever leads looks at its list of requests now and then.
        for (node, request) in waiting {
            let group = self.group.expect("requests are of the group");
            self.later(node, 500, Reaction::Approve(group, request));
        }
        match settled {
            Some(Ok(settled)) => self.settled = Some(settled),
            Some(Err(missing)) => self.unsettled = Some(missing),
            None => {}
        }
    }

    /// Gives a command to a node that runs, tells the oracles, and obeys what comes out.
    pub(super) fn command<R>(
        &mut self,
        node: usize,
        give: impl FnOnce(&mut Endpoint, Timestamp) -> R,
        tell: impl FnOnce(&mut Self, &R),
    ) -> Option<R> {
        let place = &mut self.nodes[node];
        if place.paused_until > self.now {
            return None;
        }
        let now = place.clock.mono(self.now);
        let result = give(place.endpoint.as_mut()?, now);
        tell(self, &result);
        self.pump(node);
        Some(result)
    }
}
