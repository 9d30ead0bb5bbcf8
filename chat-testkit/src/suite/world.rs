//! What a scenario can do to a world.

use std::time::Duration;

use chat_client::transport::Capabilities;
use chat_core::Event;
use chat_core::config::Config;
use chat_core::content::Content;
use chat_core::delivery::{SendError, SortKey, TimelineItem};
use chat_core::group::{BatchStep, GroupError, GroupView, LeavePlan};
use chat_core::id::{
    ConvId, DeviceId, GroupId, GroupName, InviteId, LobbyName, MessageId, RequestId, TxnId, UserId,
};
use chat_core::lobby::GroupListing;
use chat_core::presence::{PresenceView, RoomPresence, Status};
use chat_core::session::{AnswerError, Rejection, RequestError, SessionState};

/// How long a chat request stands in every world.
pub const INVITE_TTL: Duration = Duration::from_secs(600);
/// How long a join request stands in every world.
pub const JOIN_TTL: Duration = Duration::from_secs(600);
/// How long a message is tried in every world.
pub const CONTENT_TTL: Duration = Duration::from_secs(1_200);

/// How many messages an outbox holds in every world.
pub const OUTBOX: usize = 300;
/// How many messages of one sender an application may leave unacknowledged in every world.
pub const UNREAD: usize = 128;

/// More people than this are a crowd in every world.
pub const CROWD: usize = 6;

/// What the endpoints of every world begin with: the times of [`Config::lan`] but for the
/// beat of leaders, and times to live and bounds that can be reached.
pub fn config() -> Config {
    let mut config = Config::lan();
    // Whoever runs a suite beside a compiler must not see a leader change that nobody asked for.
    config.group = config.group.with_beat(Duration::from_secs(1));
    config.session.invite_ttl = INVITE_TTL;
    config.group.join_ttl = JOIN_TTL;
    config.delivery.content_ttl = CONTENT_TTL;
    config.delivery.max_outbox = OUTBOX;
    config.delivery.max_inbox = 4 * UNREAD;
    config.presence.crowd = CROWD;
    config
}

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
    RetrySend(MessageId),
    /// The application is done with everything up to a place of its inbox. Worlds acknowledge
    /// nothing by themselves.
    Acknowledge {
        conv: ConvId,
        pos: u64,
    },
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
    Apply(GroupId, Vec<BatchStep>),
    PlanLeave(GroupId),
    Leave(GroupId),
    HandOver(GroupId, UserId),
    AnswerOffer(GroupId, bool),
    Rename(GroupId, GroupName),
    /// With how long the text holds.
    SetPresence(Status, String, Option<Duration>),
    Unwatch(UserId),
    Watch(UserId),
    WatchGroup(GroupId),
    UnwatchGroup(GroupId),
    EnterLobby(LobbyName),
    Trust(UserId, DeviceId),
    Distrust(UserId, DeviceId),
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
    Retried(bool),
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
    /// The broker refuses for good whatever the node writes to conversations.
    Bar(Node),
    /// It no longer does.
    Unbar(Node),
    /// The broker starts again; what it stored survives.
    RestartBroker,
}

/// A place where devices talk.
#[allow(
    async_fn_in_trait,
    reason = "a world is driven by one test, its futures need not be Send"
)]
pub trait World: Sized {
    /// True when waiting costs nothing: long times can be lived through, and are not shortened.
    const VIRTUAL_TIME: bool;

    /// An empty world with a broker.
    async fn start() -> Self;

    /// What the broker can do; scenarios expect the documented fallback for what it cannot.
    fn capabilities(&self) -> &'static Capabilities;

    /// What devices that join from now on run with.
    fn config(&mut self) -> &mut Config;

    /// A new device of `user`, connected and caught up. Devices of one user trust each other, and
    /// everybody trusts all devices of a user.
    async fn join(&mut self, user: &str) -> Node;

    /// Runs a command; returns when what it changed is durable.
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

    /// Who of a watched group is here.
    async fn company(&mut self, node: Node, group: GroupId) -> Option<RoomPresence>;

    /// How `user` looks.
    async fn presence(&mut self, node: Node, user: &UserId) -> Option<PresenceView>;

    /// The groups shown in `lobby`.
    async fn listings(&mut self, node: Node, lobby: &LobbyName) -> Vec<GroupListing>;
}

/// A valid name.
pub(super) fn name(user: &str) -> UserId {
    UserId::new(user).expect("scenario names are valid")
}
