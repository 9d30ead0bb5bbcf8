//! The contract of a transport: one connection to one broker, polled by one owner.
//!
//! A [`Connector`] opens connections; a [`Transport`] lives as long as one of them. Nothing is
//! retried, resubscribed or backed off here: the core decides, where it is tested without a
//! network. Ten rules (reference, "The minimal Transport contract"), each proved by the suite:
//!
//! 1. nothing is retried below the core;
//! 2. nothing accepted by [`Transport::start_send`] disappears without [`Inbound::Sent`] or the
//!    end of the connection;
//! 3. no token resolves twice;
//! 4. an [`Outbound::Ack`] never reaches another connection than the one that delivered;
//! 5. every queue is bounded, every await has a deadline;
//! 6. a client library's event loop has its own task and is never cancelled;
//! 7. one `Send` makes at most one broker publish;
//! 8. [`Inbound::Up`] comes first, and says whether the broker kept the session;
//! 9. packets, topics and subjects that are not ours are counted and dropped;
//! 10. limits are announced in `Up`, not discovered by a disconnect.

mod channel;
mod lease;
pub mod memory;
mod queue;

pub use channel::{ChannelTransport, Dropped, InboundHalf, IoSide, OutboundHalf, channel};
pub use lease::{FencingLease, FencingLeases, LeaseError};

use core::fmt;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use chat_core::channel::{Channel, Class};
use chat_core::delivery::Unsendable;
use chat_core::id::{DeviceId, UserId};
use chat_core::link::DownReason;

/// Correlates an [`Outbound::Send`] with its [`Inbound::Sent`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Names a delivery for [`Outbound::Ack`]; opaque to the client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle(pub u64);

/// What goes down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outbound {
    /// Publish a frame.
    Send {
        /// Comes back in [`Inbound::Sent`].
        token: Token,
        /// Where to.
        channel: Channel,
        /// The frame.
        bytes: Bytes,
        /// How to treat it.
        class: Class,
        /// After this time it is worth nothing; a broker may drop it then.
        ttl: Option<Duration>,
        /// Keep it as the channel's last value.
        last_value: bool,
        /// For the broker's dedup window.
        dedup: Option<[u8; 16]>,
    },
    /// Deliver this channel from now on; answered by [`Inbound::Subscribed`].
    Subscribe(Channel),
    /// No longer, and forget what is stored of it for us.
    Unsubscribe(Channel),
    /// The frame of this delivery is durable here: the broker may forget it.
    Ack(Handle),
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendOutcome {
    /// The broker took it; where it cannot acknowledge, it was written to the socket.
    Accepted,
    /// The broker took it and knows that nobody will get it.
    NoReceiver,
    /// The broker refused this copy; it may take another.
    Refused(String),
    /// It will never be taken as it is: what it carries waits for the application (rule Q2).
    Never {
        /// Why.
        why: Unsendable,
        /// In the transport's words, for a log.
        words: String,
    },
}

impl SendOutcome {
    /// True when the broker did not take the frame.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Never { .. })
    }

    /// The frame is larger than what the broker carries.
    pub fn too_large(words: impl Into<String>) -> Self {
        let words = words.into();
        let why = Unsendable::TooLarge;
        Self::Never { why, words }
    }

    /// The broker does not let us write there.
    pub fn denied(words: impl Into<String>) -> Self {
        let words = words.into();
        let why = Unsendable::Denied;
        Self::Never { why, words }
    }
}

/// What comes up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inbound {
    /// Connected. Always the first.
    Up {
        /// The broker kept our session: subscriptions and stored frames are still there.
        resumed: bool,
        /// The largest frame.
        max_frame: usize,
    },
    /// A frame.
    Received {
        /// Where it was published.
        channel: Channel,
        /// A private copy, not a slice of a read buffer.
        bytes: Bytes,
        /// To acknowledge once durable; `None` when there is nothing to acknowledge.
        handle: Option<Handle>,
        /// False for a stored last value of unknown age.
        live: bool,
    },
    /// The fate of a frame.
    Sent {
        /// Which.
        token: Token,
        /// What.
        outcome: SendOutcome,
    },
    /// A subscription is in place, or refused.
    Subscribed {
        /// Which.
        channel: Channel,
        /// False when the broker refuses it.
        granted: bool,
    },
    /// What was stored for us has been delivered; only with [`Capabilities::backlog_marker`].
    CaughtUp,
    /// Something on this channel was dropped.
    Gap(Channel),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason:?}{}", retry_after.map(|d| format!(", not before {d:?}")).unwrap_or_default())]
pub struct TransportError {
    /// Why, and whether trying again can help.
    pub reason: DownReason,
    /// Do not try again earlier.
    pub retry_after: Option<Duration>,
}

impl TransportError {
    /// The network or the broker went away.
    pub fn lost() -> Self {
        Self {
            reason: DownReason::Lost,
            retry_after: None,
        }
    }

    /// For `reason`.
    pub fn new(reason: DownReason) -> Self {
        Self {
            reason,
            retry_after: None,
        }
    }
}

/// How a broker remembers what a client missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mailbox {
    /// Not at all.
    None,
    /// Up to a bound, then it drops; the outbox covers that.
    Bounded,
    /// As a log.
    Log,
}

/// What a transport can do. One `const` per transport is the source of the run-time checks, of
/// the suite's expectations and of the matrix in `docs/capabilities.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Its name in the matrix.
    pub name: &'static str,
    /// The broker acknowledges frames.
    pub broker_ack: bool,
    /// It says why it refuses one.
    pub reason_codes: bool,
    /// It says when nobody will get a frame.
    pub no_receiver_hint: bool,
    /// Deliveries wait for [`Outbound::Ack`] and come again without it.
    pub manual_ack: bool,
    /// It keeps durable frames for subscribers that are away.
    pub mailbox: Mailbox,
    /// It publishes a last will when a connection dies.
    pub last_will: bool,
    /// It keeps the last value of a channel.
    pub last_value: bool,
    /// It says when the backlog is delivered.
    pub backlog_marker: bool,
    /// It drops a duplicate by its dedup id.
    pub dedup: bool,
    /// It drops frames past their time to live.
    pub ttl: bool,
    /// It does not send our own frames back.
    pub no_echo: bool,
    /// It refuses subscriptions that are not allowed.
    pub acl_subscribe: bool,
    /// It refuses frames that are not allowed.
    pub acl_publish: bool,
    /// It grants leases by compare-and-set: [`Transport::leases`].
    pub cas: bool,
    /// The largest frame.
    pub max_frame: usize,
}

/// One connection. The client polls it from one task; a call that returns `Pending` wakes that
/// task when it is worth calling again.
pub trait Transport: Send {
    /// What it can do.
    fn capabilities(&self) -> &'static Capabilities;

    /// Leases over this connection, with [`Capabilities::cas`]. They end with it.
    fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        None
    }

    /// The next thing that came up.
    ///
    /// # Errors
    /// The connection is over; the transport is dropped.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>>;

    /// Ready when [`Self::start_send`] will take one more.
    ///
    /// # Errors
    /// The connection is over.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Takes one, after `poll_ready`.
    ///
    /// # Errors
    /// The connection is over.
    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError>;

    /// Writes out what was taken.
    ///
    /// # Errors
    /// The connection is over.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Writes out what was taken and closes in good order: no last will.
    ///
    /// # Errors
    /// The connection ended in another way.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;
}

/// What a new connection needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Who connects. A broker that checks identities must see this user.
    pub user: UserId,
    /// Which of its devices: names the session that the broker keeps.
    pub device: DeviceId,
    /// What the broker publishes when the connection dies.
    pub will: Option<chat_core::Will>,
}

impl ConnectOptions {
    /// Options for a device of `user`.
    pub fn new(user: UserId, device: DeviceId, will: Option<chat_core::Will>) -> Self {
        Self { user, device, will }
    }
}

/// Opens connections.
#[async_trait::async_trait]
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// What its connections can do.
    fn capabilities(&self) -> &'static Capabilities;

    /// Opens one. The client gives up after its own deadline and drops the future.
    ///
    /// # Errors
    /// [`TransportError`]; `DownReason::Refused` means that trying again cannot help.
    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError>;
}
