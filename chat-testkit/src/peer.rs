//! A client's end of a connection, one call at a time and with a deadline on every wait: what the
//! tests of a transport drive it with, below the client and its driver.

use core::fmt;
use core::future::poll_fn;
use core::task::Poll;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use chat_client::transport::{
    ConnectOptions, Connector, FencingLeases, Handle, Inbound, Outbound, SendOutcome, Token,
    Transport, TransportError,
};
use chat_core::Will;
use chat_core::channel::{Channel, Class, TopicId};
use chat_core::id::{DeviceId, UserId};

/// How long anything may take that must happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What `future` gives.
///
/// # Panics
/// It did not happen within [`DEADLINE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(DEADLINE, future).await;
    waited.expect("it happens in time")
}

/// A user.
///
/// # Panics
/// The name is none.
pub fn user(name: &str) -> UserId {
    UserId::new(name).expect("tests use valid names")
}

/// Where one's mail arrives.
pub fn inbox(name: &str) -> Channel {
    Channel::Inbox(user(name))
}

/// Where one's presence is told.
pub fn presence(name: &str) -> Channel {
    Channel::Presence(user(name))
}

/// A private conversation.
pub fn conv(n: u8) -> Channel {
    Channel::Conv(TopicId([n; 16]))
}

/// Device 7 of `name`, without a last will.
pub fn options(name: &str) -> ConnectOptions {
    ConnectOptions::new(user(name), DeviceId([7; 32]), None)
}

/// Device 7 of `name`, whose presence says `bytes` when it is gone.
pub fn with_will(name: &str, bytes: &'static [u8]) -> ConnectOptions {
    let will = Will {
        channel: presence(name),
        bytes: Bytes::from_static(bytes),
    };
    ConnectOptions::new(user(name), DeviceId([7; 32]), Some(will))
}

/// A frame that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where.
    pub channel: Channel,
    /// What.
    pub bytes: Bytes,
    /// To acknowledge it by.
    pub handle: Option<Handle>,
    /// Not kept from earlier.
    pub live: bool,
}

/// An open connection.
pub struct Peer {
    transport: Box<dyn Transport>,
    /// What came while something else was waited for.
    early: VecDeque<Inbound>,
    tokens: u64,
    /// The broker still had the session.
    pub resumed: bool,
    /// The largest frame that may be sent.
    pub max_frame: usize,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("early", &self.early).finish()
    }
}

impl Peer {
    /// Connects [`options`].
    ///
    /// # Errors
    /// Of the transport.
    pub async fn connect(to: &impl Connector, name: &str) -> Result<Self, TransportError> {
        Self::connect_as(to, options(name)).await
    }

    /// Connects, up to `Up`.
    ///
    /// # Errors
    /// Of the transport.
    ///
    /// # Panics
    /// Something else comes before `Up`.
    pub async fn connect_as(
        to: &impl Connector,
        options: ConnectOptions,
    ) -> Result<Self, TransportError> {
        let mut peer = Self {
            transport: within(to.connect(options)).await?,
            early: VecDeque::new(),
            tokens: 0,
            resumed: false,
            max_frame: 0,
        };
        match peer.next().await? {
            Inbound::Up { resumed, max_frame } => {
                peer.resumed = resumed;
                peer.max_frame = max_frame;
            }
            other => panic!("`Up` comes first, and not {other:?}"),
        }
        Ok(peer)
    }

    /// Connected, and subscribed to its inbox.
    ///
    /// # Panics
    /// Either failed.
    pub async fn at_inbox(to: &impl Connector, name: &str) -> Self {
        let mut peer = Self::connect(to, name).await.expect("it connects");
        assert!(peer.subscribe(&inbox(name)).await);
        peer
    }

    async fn fresh(&mut self) -> Result<Inbound, TransportError> {
        within(poll_fn(|cx| {
            // What was put goes out meanwhile; how the connection ends is told below.
            let _ = self.transport.poll_flush(cx);
            self.transport.poll_recv(cx)
        }))
        .await
    }

    /// The next that no other call has passed over.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn next(&mut self) -> Result<Inbound, TransportError> {
        match self.early.pop_front() {
            Some(item) => Ok(item),
            None => self.fresh().await,
        }
    }

    /// The first that `pick` takes; the others stay, in their order.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn find<T>(
        &mut self,
        mut pick: impl FnMut(&Inbound) -> Option<T>,
    ) -> Result<T, TransportError> {
        for place in 0..self.early.len() {
            if let Some(found) = pick(&self.early[place]) {
                self.early.remove(place);
                return Ok(found);
            }
        }
        loop {
            let item = self.fresh().await?;
            if let Some(found) = pick(&item) {
                return Ok(found);
            }
            self.early.push_back(item);
        }
    }

    async fn must_find<T>(&mut self, pick: impl FnMut(&Inbound) -> Option<T>) -> T {
        self.find(pick).await.expect("the connection stands")
    }

    /// Puts `item` on its way.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn put(&mut self, item: Outbound) -> Result<(), TransportError> {
        within(poll_fn(|cx| self.transport.poll_ready(cx))).await?;
        self.transport.start_send(item)?;
        match self.flushed().await {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    async fn flushed(&mut self) -> Poll<Result<(), TransportError>> {
        poll_fn(|cx| Poll::Ready(self.transport.poll_flush(cx))).await
    }

    async fn must_put(&mut self, item: Outbound) {
        self.put(item).await.expect("the connection stands");
    }

    /// Whether it takes `item` at once; if not, nothing happened.
    pub async fn try_put(&mut self, item: Outbound) -> bool {
        match poll_fn(|cx| Poll::Ready(self.transport.poll_ready(cx))).await {
            Poll::Ready(Ok(())) => self.transport.start_send(item).is_ok(),
            _ => false,
        }
    }

    /// Waits until all that was put is written.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        within(poll_fn(|cx| self.transport.poll_flush(cx))).await
    }

    /// A frame under a token of its own.
    pub fn frame(&mut self, channel: &Channel, class: Class, bytes: &[u8]) -> (Token, Outbound) {
        self.tokens += 1;
        let token = Token(self.tokens);
        let item = Outbound::Send {
            token,
            channel: channel.clone(),
            bytes: Bytes::copy_from_slice(bytes),
            class,
            ttl: None,
            last_value: false,
            dedup: None,
        };
        (token, item)
    }

    /// Sends a durable frame and does not wait for its fate.
    pub async fn send(&mut self, channel: &Channel, bytes: &[u8]) -> Token {
        let (token, item) = self.frame(channel, Class::Durable, bytes);
        self.must_put(item).await;
        token
    }

    /// Sends a durable frame.
    pub async fn publish(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        let token = self.send(channel, bytes).await;
        self.fate(token).await
    }

    /// Sends a frame that is not kept.
    pub async fn whisper(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        let (token, item) = self.frame(channel, Class::Ephemeral, bytes);
        self.must_put(item).await;
        self.fate(token).await
    }

    /// Sends a last value.
    pub async fn keep(&mut self, channel: &Channel, class: Class, bytes: &[u8]) -> SendOutcome {
        let (token, mut item) = self.frame(channel, class, bytes);
        if let Outbound::Send { last_value, .. } = &mut item {
            *last_value = true;
        }
        self.must_put(item).await;
        self.fate(token).await
    }

    /// What became of a frame.
    ///
    /// # Panics
    /// The connection ended first.
    pub async fn fate(&mut self, token: Token) -> SendOutcome {
        self.must_find(|item| match item {
            Inbound::Sent { token: of, outcome } if *of == token => Some(outcome.clone()),
            _ => None,
        })
        .await
    }

    /// Subscribes; whether that was granted.
    ///
    /// # Panics
    /// The connection ended first.
    pub async fn subscribe(&mut self, channel: &Channel) -> bool {
        self.must_put(Outbound::Subscribe(channel.clone())).await;
        self.must_find(|item| match item {
            Inbound::Subscribed {
                channel: of,
                granted,
            } if of == channel => Some(*granted),
            _ => None,
        })
        .await
    }

    /// The next frame; not acknowledged by that.
    ///
    /// # Panics
    /// The connection ended first.
    pub async fn delivery(&mut self) -> Delivery {
        self.must_find(|item| match item {
            Inbound::Received {
                channel,
                bytes,
                handle,
                live,
            } => Some(Delivery {
                channel: channel.clone(),
                bytes: bytes.clone(),
                handle: *handle,
                live: *live,
            }),
            _ => None,
        })
        .await
    }

    /// Acknowledges.
    ///
    /// # Panics
    /// It has nothing to acknowledge it by, or the connection is over.
    pub async fn ack(&mut self, delivery: &Delivery) {
        let handle = delivery.handle.expect("it can be acknowledged");
        self.must_put(Outbound::Ack(handle)).await;
    }

    /// Waits until all that was kept has been told.
    ///
    /// # Panics
    /// The connection ended first.
    pub async fn caught_up(&mut self) {
        self.must_find(|item| matches!(item, Inbound::CaughtUp).then_some(()))
            .await;
    }

    /// Everything up to `CaughtUp`.
    ///
    /// # Panics
    /// The connection ended first.
    pub async fn backlog(&mut self) -> Vec<Inbound> {
        let mut backlog = Vec::new();
        loop {
            match self.next().await.expect("the connection stands") {
                Inbound::CaughtUp => return backlog,
                item => backlog.push(item),
            }
        }
    }

    /// The leases of the transport.
    pub fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        self.transport.leases()
    }

    /// Waits for the end of the connection; why it ended.
    pub async fn end(&mut self) -> TransportError {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }

    /// Leaves in good order.
    ///
    /// # Errors
    /// The connection ended in another way.
    pub async fn close(mut self) -> Result<(), TransportError> {
        within(poll_fn(|cx| self.transport.poll_close(cx))).await
    }
}
