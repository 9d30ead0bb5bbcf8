//! What a scenario can do to a world, and the stage that keeps its events in order.

use std::collections::VecDeque;
use std::time::Duration;

use chat_core::Event;
use chat_core::content::Content;
use chat_core::delivery::{DeliveryEvent, Received, SendError, SortKey, TimelineItem};
use chat_core::group::{GroupError, GroupView, LeavePlan};
use chat_core::id::{
    ConvId, DeviceId, GroupId, GroupName, InviteId, LobbyName, MessageId, RequestId, TxnId, UserId,
};
use chat_core::lobby::GroupListing;
use chat_core::presence::{PresenceView, Status};
use chat_core::session::{AnswerError, Rejection, RequestError, SessionEvent, SessionState};

/// A device in a world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node(pub usize);

/// What an application asks its endpoint for.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the endpoint's command of that name")]
pub enum Command {
    Request {
        peer: UserId,
        note: String,
    },
    Accept(InviteId),
    Reject(InviteId, Rejection),
    Cancel(InviteId),
    Close {
        peer: UserId,
        reason: String,
    },
    Block(UserId),
    Unblock(UserId),
    Send {
        conv: ConvId,
        txn: TxnId,
        content: Content,
    },
    CancelSend(MessageId),
    MarkRead {
        conv: ConvId,
        up_to: SortKey,
    },
    Typing {
        conv: ConvId,
        active: bool,
    },
    CreateGroup(GroupName),
    Join {
        group: GroupId,
        note: String,
    },
    Withdraw(GroupId),
    Approve(GroupId, RequestId),
    Deny(GroupId, RequestId, String),
    Kick {
        group: GroupId,
        user: UserId,
        reason: String,
    },
    PlanLeave(GroupId),
    Leave(GroupId),
    HandOver(GroupId, UserId),
    AnswerOffer(GroupId, bool),
    Rename(GroupId, GroupName),
    SetPresence(Status, String),
    Watch(UserId),
    EnterLobby(LobbyName),
    Trust(UserId, DeviceId),
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the value of the command of that name")]
pub enum Answer {
    Done,
    Invite(InviteId),
    Conv(ConvId),
    Message(MessageId),
    Cancelled(bool),
    Group(GroupId),
    Request(RequestId),
    Plan(LeavePlan),
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the error of the core")]
pub enum Refusal {
    Request(RequestError),
    Answer(AnswerError),
    Send(SendError),
    Group(GroupError),
}

/// What may go wrong. Every cell supports all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The cable is cut: the connection dies without a goodbye and none comes up.
    Cut(Node),
    /// The cable is mended; the node reconnects by itself.
    Mend(Node),
    /// The process dies without a goodbye; its store survives.
    Kill(Node),
    /// The process starts again over its store.
    Revive(Node),
    /// The process says goodbye and stops in good order; its store survives.
    Stop(Node),
    /// The broker starts again; what it stored survives.
    RestartBroker,
}

/// A place where devices talk.
#[allow(
    async_fn_in_trait,
    reason = "a world is driven by one test, its futures need not be Send"
)]
pub trait World: Sized {
    /// True when waiting costs nothing: long timeouts can be lived through.
    const VIRTUAL_TIME: bool;

    /// An empty world with a broker.
    async fn start() -> Self;

    /// A new device of `user`, connected and caught up. Devices of one user trust each other, and
    /// everybody trusts all devices of a user.
    async fn join(&mut self, user: &str) -> Node;

    /// Runs a command.
    async fn run(&mut self, node: Node, command: Command) -> Result<Answer, Refusal>;

    /// The next event of `node`, or `None` when none came within `within`.
    async fn event(&mut self, node: Node, within: Duration) -> Option<Event>;

    /// Makes something go wrong, or right again.
    async fn fault(&mut self, fault: Fault);

    /// Lets time pass; events are kept.
    async fn wait(&mut self, time: Duration);

    /// What `conv` shows on `node`, in display order.
    async fn timeline(&mut self, node: Node, conv: ConvId) -> Vec<TimelineItem>;

    /// Where the negotiation with `peer` stands.
    async fn session(&mut self, node: Node, peer: &UserId) -> SessionState;

    /// How `group` looks.
    async fn group(&mut self, node: Node, group: GroupId) -> Option<GroupView>;

    /// How `user` looks.
    async fn presence(&mut self, node: Node, user: &UserId) -> Option<PresenceView>;

    /// The groups shown in `lobby`.
    async fn listings(&mut self, node: Node, lobby: &LobbyName) -> Vec<GroupListing>;
}

/// How long a stage waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a stage watches for what must not happen.
const QUIET: Duration = Duration::from_millis(600);

/// A world with people on it: names instead of nodes, and every event kept until it is asked for.
#[derive(Debug)]
pub struct Stage<W> {
    /// The world.
    pub world: W,
    kept: Vec<VecDeque<Event>>,
    users: Vec<UserId>,
    txn: u64,
}

impl<W: World> Stage<W> {
    /// An empty stage.
    pub async fn start() -> Self {
        Self {
            world: W::start().await,
            kept: Vec::new(),
            users: Vec::new(),
            txn: 0,
        }
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
        while let Some(event) = self.world.event(node, PATIENCE).await {
            if let Some(found) = pick(&event) {
                return found;
            }
            self.kept[node.0].push_back(event);
        }
        panic!(
            "{node:?} waited {PATIENCE:?} for {what}; it saw {:#?}",
            self.kept[node.0]
        );
    }

    /// Asserts that no event, kept or new, is picked while it is quiet.
    pub async fn never(&mut self, node: Node, what: &str, mut pick: impl FnMut(&Event) -> bool) {
        while let Some(event) = self.world.event(node, QUIET).await {
            self.kept[node.0].push_back(event);
            if self.kept[node.0].len() > 10_000 {
                panic!("{node:?} is flooded with events");
            }
        }
        if let Some(event) = self.kept[node.0].iter().find(|event| pick(event)) {
            panic!("{node:?} must not see {what}: {event:#?}");
        }
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

    /// A request from `from`, shown to `to`.
    pub async fn requested(&mut self, from: Node, to: Node) -> InviteId {
        let command = Command::Request {
            peer: self.user(to),
            note: String::new(),
        };
        self.ask(from, command).await;
        self.shown(to, from).await
    }

    /// Waits until a request from `from` is shown to `to`.
    pub async fn shown(&mut self, to: Node, from: Node) -> InviteId {
        let asker = self.user(from);
        self.expect(to, "a request", |event| match event {
            Event::Session(SessionEvent::Requested { peer, invite, .. }) if *peer == asker => {
                Some(*invite)
            }
            _ => None,
        })
        .await
    }

    /// Waits until the session with `peer` is open on `node`.
    pub async fn opened(&mut self, node: Node, peer: Node) -> ConvId {
        let other = self.user(peer);
        self.expect(node, "an open session", |event| match event {
            Event::Session(SessionEvent::Opened { peer, conv, .. }) if *peer == other => {
                Some(*conv)
            }
            _ => None,
        })
        .await
    }

    /// An open session between two nodes.
    pub async fn chat(&mut self, a: Node, b: Node) -> ConvId {
        let invite = self.requested(a, b).await;
        self.ask(b, Command::Accept(invite)).await;
        let conv = self.opened(a, b).await;
        assert_eq!(
            conv,
            self.opened(b, a).await,
            "both sides name the conversation alike"
        );
        conv
    }

    /// Sends a text; returns its id.
    pub async fn say(&mut self, node: Node, conv: ConvId, text: &str) -> MessageId {
        self.txn += 1;
        let mut txn = [0; 16];
        txn[..8].copy_from_slice(&self.txn.to_be_bytes());
        let command = Command::Send {
            conv,
            txn: TxnId(txn),
            content: Content::text(text),
        };
        match self.ask(node, command).await {
            Answer::Message(id) => id,
            other => panic!("a send gave {other:?}"),
        }
    }

    /// Waits for the next message of any text.
    pub async fn message(&mut self, node: Node) -> Received {
        self.expect(node, "a message", |event| match event {
            Event::Delivery(DeliveryEvent::Received(message)) => Some(message.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for these texts, in this order, and for no other before them.
    pub async fn hears(&mut self, node: Node, texts: &[&str]) {
        for text in texts {
            let message = self.message(node).await;
            assert_eq!(message.content.fallback(), *text, "on {node:?}");
        }
    }

    /// Waits until `id` got as far as `ack`.
    pub async fn reaches(&mut self, node: Node, id: MessageId, ack: chat_core::delivery::Ack) {
        self.expect(
            node,
            &format!("{ack:?} of a message"),
            |event| match event {
                Event::Delivery(DeliveryEvent::Progress { id: told, ack: got })
                    if *told == id && *got >= ack =>
                {
                    Some(())
                }
                _ => None,
            },
        )
        .await;
    }

    /// The texts that `conv` shows on `node`, in display order.
    pub async fn texts(&mut self, node: Node, conv: ConvId) -> Vec<String> {
        let items = self.world.timeline(node, conv).await;
        items
            .iter()
            .map(|item| match item {
                TimelineItem::Received(message) => message.content.fallback().to_owned(),
                TimelineItem::Sent { content, .. } => content.fallback().to_owned(),
                TimelineItem::Gap { count, .. } => format!("<gap of {count}>"),
                other => format!("{other:?}"),
            })
            .collect()
    }
}

/// A valid name.
pub(super) fn name(user: &str) -> UserId {
    UserId::new(user).expect("scenario names are valid")
}
