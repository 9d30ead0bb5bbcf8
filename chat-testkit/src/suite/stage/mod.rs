//! The stage: a world with people on it, whose events are kept in order until they are asked for.
//! Every wait has a deadline.

mod groups;
mod messages;
mod sessions;

pub(crate) use groups::group_name;
pub(crate) use sessions::is_prompt;

use std::collections::VecDeque;
use std::time::Duration;

use chat_client::transport::Mailbox;
use chat_core::Event;
use chat_core::id::UserId;
use chat_core::link::LinkState;
use chat_core::presence::PresenceView;

use super::world::{Answer, Command, Fault, Node, Refusal, World, name};

/// How long a stage waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a stage watches for what must not happen.
const QUIET: Duration = Duration::from_millis(600);
/// Between two looks at a view.
const GLANCE: Duration = Duration::from_millis(50);
/// More events than any scenario causes on one node.
const FLOOD: usize = 10_000;

/// A world with people on it: names instead of nodes, and every event kept until it is asked for.
#[derive(Debug)]
pub struct Stage<W> {
    /// The world.
    pub world: W,
    kept: Vec<VecDeque<Event>>,
    users: Vec<UserId>,
    txn: u64,
    patience: Duration,
}

impl<W: World> Stage<W> {
    /// An empty stage.
    pub async fn start() -> Self {
        Self {
            world: W::start().await,
            kept: Vec::new(),
            users: Vec::new(),
            txn: 0,
            patience: PATIENCE,
        }
    }

    /// A time that a scenario waits out: `long` where waiting costs nothing, so many seconds where
    /// time is real. From now on what must happen may take that much longer.
    pub fn lasting(&mut self, long: Duration, seconds: u64) -> Duration {
        let short = Duration::from_secs(seconds);
        let time = if W::VIRTUAL_TIME { long } else { short };
        self.patience += time;
        time
    }

    /// A new device of `user`.
    pub async fn join(&mut self, user: &str) -> Node {
        let node = self.world.join(user).await;
        assert_eq!(node.0, self.kept.len(), "nodes are numbered in order");
        self.kept.push(VecDeque::new());
        self.users.push(name(user));
        node
    }

    /// Whose device `node` is.
    pub fn user(&self, node: Node) -> UserId {
        self.users[node.0].clone()
    }

    /// Runs a command that must be taken.
    pub async fn ask(&mut self, node: Node, command: Command) -> Answer {
        let shown = format!("{command:?}");
        self.world
            .run(node, command)
            .await
            .unwrap_or_else(|refusal| panic!("{node:?}: {shown} was refused: {refusal:?}"))
    }

    /// Runs a command that must be refused.
    pub async fn refused(&mut self, node: Node, command: Command) -> Refusal {
        let shown = format!("{command:?}");
        match self.world.run(node, command).await {
            Ok(answer) => panic!("{node:?}: {shown} was taken: {answer:?}"),
            Err(refusal) => refusal,
        }
    }

    /// Waits for the first event, kept or new, for which `pick` gives something; the others are
    /// kept in order.
    pub async fn expect<T>(
        &mut self,
        node: Node,
        what: &str,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> T {
        if let Some(found) = self.take(node, &mut pick) {
            return found;
        }
        let mut left = FLOOD;
        while let Some(event) = self.world.event(node, self.patience).await {
            if let Some(found) = pick(&event) {
                return found;
            }
            self.kept[node.0].push_back(event);
            left -= 1;
            assert!(left > 0, "{node:?} is flooded with events");
        }
        panic!(
            "{node:?} ({}) waited {:?} for {what}; it saw {:#?}",
            self.users[node.0], self.patience, self.kept[node.0]
        );
    }

    /// Asserts that no event, kept or new, is picked while it is quiet.
    pub async fn never(&mut self, node: Node, what: &str, pick: impl FnMut(&Event) -> bool) {
        self.hold(node).await;
        let mut pick = pick;
        if let Some(event) = self.kept[node.0].iter().find(|event| pick(event)) {
            panic!("{node:?} must not see {what}: {event:#?}");
        }
    }

    /// Keeps what happens on `node` until nothing more does.
    pub async fn hold(&mut self, node: Node) {
        while let Some(event) = self.world.event(node, QUIET).await {
            self.kept[node.0].push_back(event);
            assert!(
                self.kept[node.0].len() < FLOOD,
                "{node:?} is flooded with events"
            );
        }
    }

    /// What `pick` finds in the kept events of `node`, oldest first.
    pub fn kept<T>(&self, node: Node, pick: impl FnMut(&Event) -> Option<T>) -> Vec<T> {
        self.kept[node.0].iter().filter_map(pick).collect()
    }

    /// Drops the kept events of `node`.
    pub fn forget(&mut self, node: Node) {
        self.kept[node.0].clear();
    }

    fn take<T>(&mut self, node: Node, pick: &mut impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let kept = &mut self.kept[node.0];
        let (at, found) = kept
            .iter()
            .enumerate()
            .find_map(|(at, event)| pick(event).map(|found| (at, found)))?;
        kept.remove(at);
        Some(found)
    }

    /// Cuts the cable of `node` and waits until it noticed.
    pub async fn cut(&mut self, node: Node) {
        self.forget_links(node);
        self.world.fault(Fault::Cut(node)).await;
        self.expect(node, "the loss of the connection", |event| match event {
            Event::Link(LinkState::Disconnected { .. }) => Some(()),
            _ => None,
        })
        .await;
    }

    /// Mends the cable of `node` and waits until it has caught up.
    pub async fn mend(&mut self, node: Node) {
        self.forget_links(node);
        self.world.fault(Fault::Mend(node)).await;
        self.caught_up(node).await;
    }

    /// From now on the broker refuses for good what `node` writes to conversations.
    pub async fn bar(&mut self, node: Node) {
        self.world.fault(Fault::Bar(node)).await;
    }

    /// It no longer does.
    pub async fn unbar(&mut self, node: Node) {
        self.world.fault(Fault::Unbar(node)).await;
    }

    /// Kills the process of `node`; what it had told and nobody had asked for is gone.
    pub async fn kill(&mut self, node: Node) {
        self.world.fault(Fault::Kill(node)).await;
        self.forget(node);
    }

    /// Stops the process of `node` in good order.
    pub async fn stop(&mut self, node: Node) {
        self.world.fault(Fault::Stop(node)).await;
        self.forget(node);
    }

    /// Starts the process of `node` again and waits until it has caught up.
    pub async fn revive(&mut self, node: Node) {
        self.forget(node);
        self.world.fault(Fault::Revive(node)).await;
        self.caught_up(node).await;
    }

    /// Starts the process of `node` again, whose cable is cut.
    pub async fn revive_offline(&mut self, node: Node) {
        self.forget(node);
        self.world.fault(Fault::Revive(node)).await;
    }

    /// True when the broker keeps durable frames for who is away.
    pub fn has_mailbox(&self) -> bool {
        self.world.capabilities().mailbox != Mailbox::None
    }

    /// After `sender`, which is stopped, said something to who was away and is back: where the
    /// broker kept nothing, it arrives once both are there, so `sender` starts again.
    pub async fn meet(&mut self, sender: Node) {
        if !self.has_mailbox() {
            self.revive(sender).await;
        }
    }

    /// Starts the broker again and waits until `nodes` have noticed and caught up.
    pub async fn restart_broker(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.hold(*node).await;
            self.forget_links(*node);
        }
        self.world.fault(Fault::RestartBroker).await;
        for node in nodes {
            self.caught_up(*node).await;
        }
    }

    /// Waits until `node` has caught up.
    pub async fn caught_up(&mut self, node: Node) {
        self.expect(node, "having caught up", |event| match event {
            Event::Link(LinkState::CaughtUp) => Some(()),
            _ => None,
        })
        .await;
    }

    fn forget_links(&mut self, node: Node) {
        self.kept[node.0].retain(|event| !matches!(event, Event::Link(_)));
    }

    /// Waits until `node` sees `other` as `wanted` says.
    pub async fn sees(
        &mut self,
        node: Node,
        other: Node,
        what: &str,
        wanted: impl Fn(&PresenceView) -> bool,
    ) {
        let user = self.user(other);
        let mut waited = Duration::ZERO;
        loop {
            let view = self.world.presence(node, &user).await;
            if view.as_ref().is_some_and(&wanted) {
                return;
            }
            assert!(
                waited < self.patience,
                "{node:?} waited {waited:?} to see {user} {what}: {view:?}"
            );
            self.world.wait(GLANCE).await;
            waited += GLANCE;
        }
    }
}
