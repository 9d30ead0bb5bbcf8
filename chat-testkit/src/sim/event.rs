//! What can happen in a world, ordered by time and then by the order of its making.

use std::rc::Rc;

use chat_core::channel::Channel;
use chat_core::delivery::SortKey;
use chat_core::id::{ConvId, DeviceId, GroupId, InviteId, MessageId, RequestId, UserId};
use chat_core::link::DownReason;
use chat_core::session::Rejection;
use chat_core::{Fate, PersistId, TransmitId};

use super::broker::Frame;

/// Something the application does by itself after a while.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the arguments of the endpoint's commands of the same name
pub(crate) enum Reaction {
    Connect,
    Accept(InviteId),
    Reject(InviteId, Rejection),
    Acknowledge(ConvId, u64),
    MarkRead(ConvId, SortKey),
    Approve(GroupId, RequestId),
    Deny(GroupId, RequestId),
    AnswerOffer(GroupId, bool),
    Trust(UserId, DeviceId),
    Retry(MessageId),
    GiveUp(MessageId),
}

/// Input for one process of one node; what belongs to a connection names it.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A deadline.
    Wake,
    /// An fsync completed.
    Synced(PersistId),
    /// The connection is up: the session was kept?
    Up(u64, bool),
    /// The connection ended.
    Down(u64, DownReason),
    /// A subscription is in place.
    Subscribed(u64, Channel),
    /// The backlog is in.
    CaughtUp(u64),
    /// The fate of a frame.
    Acked(Option<u64>, TransmitId, Fate),
    /// A frame; false for a last value.
    Frame(u64, Rc<Frame>, bool),
    /// A forged or replayed frame, from nowhere.
    Forged(Rc<Frame>),
    /// The application acts.
    React(Reaction),
}

/// What a client says to its broker, with its device number and connection.
#[derive(Clone, Debug)]
pub(crate) enum ToBroker {
    /// Opens a connection.
    Connect(Option<Rc<Frame>>),
    /// Closes it in order.
    Goodbye,
    /// Its connection broke.
    Broken,
    /// Publishes.
    Publish(TransmitId, Rc<Frame>),
    /// Asks for a channel.
    Subscribe(Channel),
    /// No longer.
    Unsubscribe(Channel),
}

/// One event of the world.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// An operation of the script.
    Op(usize),
    /// Input for process `life` of a node.
    Input {
        /// The node.
        node: usize,
        /// Its process.
        life: u64,
        /// The input.
        input: Input,
    },
    /// A client speaks.
    AtBroker {
        /// The client's node.
        node: usize,
        /// Its device number.
        client: u64,
        /// Its connection.
        conn: u64,
        /// What it says.
        what: ToBroker,
    },
    /// A broker publishes by itself: a will, or what came over the bridge.
    Publish {
        /// The broker.
        broker: usize,
        /// The frame.
        frame: Rc<Frame>,
        /// It came over the bridge.
        bridged: bool,
    },
    /// A second copy, much later.
    LateCopy {
        /// The broker.
        broker: usize,
        /// The client.
        client: u64,
        /// The frame.
        frame: Rc<Frame>,
    },
    /// A process starts, unless another did.
    Start {
        /// The node.
        node: usize,
        /// The process that died.
        life: u64,
    },
    /// A pause ends.
    Resume(usize),
    /// A broker starts.
    BrokerUp(usize),
    /// The safety phase ends.
    Heal,
    /// The oracles look at every node.
    Probe,
}

/// An event with its place in time.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    /// True time, µs.
    pub(crate) at: u64,
    /// Order of making.
    pub(crate) sequence: u64,
    /// What.
    pub(crate) what: Happening,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    /// Reversed: the earliest is the greatest, as a binary heap wants it.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
