//! A client's end of a connection, one call at a time.

use core::future::{Future, poll_fn};
use core::task::Poll;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use chat_client::transport::{
    ConnectOptions, Connector, FencingLeases, Handle, Inbound, Outbound, SendOutcome, Token,
    Transport, TransportError,
};
use chat_core::channel::{Channel, Class, TopicId};
use chat_core::id::{DeviceId, UserId};

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.expect("it happens in time")
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn inbox(name: &str) -> Channel {
    Channel::Inbox(user(name))
}

pub(crate) fn presence(name: &str) -> Channel {
    Channel::Presence(user(name))
}

pub(crate) fn conv(n: u8) -> Channel {
    Channel::Conv(TopicId([n; 16]))
}

pub(crate) fn frame(token: u64, channel: &Channel, class: Class, bytes: &[u8]) -> Outbound {
    Outbound::Send {
        token: Token(token),
        channel: channel.clone(),
        bytes: Bytes::copy_from_slice(bytes),
        class,
        ttl: None,
        last_value: false,
        dedup: None,
    }
}

/// A delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) channel: Channel,
    pub(crate) bytes: Bytes,
    pub(crate) handle: Option<Handle>,
    pub(crate) live: bool,
}

pub(crate) struct Peer {
    transport: Box<dyn Transport>,
    /// What came while something else was waited for.
    early: VecDeque<Inbound>,
    tokens: u64,
    pub(crate) resumed: bool,
    pub(crate) max_frame: usize,
}

impl Peer {
    pub(crate) async fn connect(to: &impl Connector, name: &str) -> Result<Self, TransportError> {
        let options = ConnectOptions::new(user(name), DeviceId([7; 32]), None);
        let transport = in_time(to.connect(options)).await?;
        let mut peer = Self {
            transport,
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
            other => panic!("`Up` comes first, not {other:?}"),
        }
        Ok(peer)
    }

    /// Connected, and subscribed to its inbox.
    pub(crate) async fn at_inbox(to: &impl Connector, name: &str) -> Self {
        let mut peer = Self::connect(to, name).await.unwrap();
        assert!(peer.subscribe(&inbox(name)).await);
        peer
    }

    pub(crate) async fn next(&mut self) -> Result<Inbound, TransportError> {
        match self.early.pop_front() {
            Some(item) => Ok(item),
            None => in_time(poll_fn(|cx| self.transport.poll_recv(cx))).await,
        }
    }

    /// The next item that `pick` takes; the others stay for later.
    pub(crate) async fn find<T>(
        &mut self,
        pick: impl Fn(&Inbound) -> Option<T>,
    ) -> Result<T, TransportError> {
        let mut passed = VecDeque::new();
        let found = loop {
            let item = self.next().await?;
            match pick(&item) {
                Some(found) => break found,
                None => passed.push_back(item),
            }
        };
        passed.append(&mut self.early);
        self.early = passed;
        Ok(found)
    }

    pub(crate) async fn put(&mut self, item: Outbound) -> Result<(), TransportError> {
        in_time(poll_fn(|cx| self.transport.poll_ready(cx))).await?;
        self.transport.start_send(item)
    }

    /// True when it takes one more at once.
    pub(crate) async fn try_put(&mut self, item: Outbound) -> bool {
        let ready = poll_fn(|cx| Poll::Ready(self.transport.poll_ready(cx))).await;
        match ready {
            Poll::Ready(Ok(())) => self.transport.start_send(item).is_ok(),
            _ => false,
        }
    }

    pub(crate) async fn send(&mut self, channel: &Channel, bytes: &[u8]) -> Token {
        self.tokens += 1;
        let item = frame(self.tokens, channel, Class::Durable, bytes);
        self.put(item).await.unwrap();
        Token(self.tokens)
    }

    pub(crate) async fn whisper(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        self.tokens += 1;
        let item = frame(self.tokens, channel, Class::Ephemeral, bytes);
        self.put(item).await.unwrap();
        self.fate(Token(self.tokens)).await
    }

    pub(crate) async fn leave_value(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        self.tokens += 1;
        let mut item = frame(self.tokens, channel, Class::Ephemeral, bytes);
        if let Outbound::Send { last_value, .. } = &mut item {
            *last_value = true;
        }
        self.put(item).await.unwrap();
        self.fate(Token(self.tokens)).await
    }

    pub(crate) async fn fate(&mut self, token: Token) -> SendOutcome {
        self.find(|item| match item {
            Inbound::Sent { token: of, outcome } if *of == token => Some(outcome.clone()),
            _ => None,
        })
        .await
        .unwrap()
    }

    pub(crate) async fn publish(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        let token = self.send(channel, bytes).await;
        self.fate(token).await
    }

    pub(crate) async fn subscribe(&mut self, channel: &Channel) -> bool {
        self.put(Outbound::Subscribe(channel.clone()))
            .await
            .unwrap();
        self.find(|item| match item {
            Inbound::Subscribed {
                channel: of,
                granted,
            } if of == channel => Some(*granted),
            _ => None,
        })
        .await
        .unwrap()
    }

    pub(crate) async fn delivery(&mut self) -> Delivery {
        self.find(|item| match item {
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
        .unwrap()
    }

    pub(crate) async fn ack(&mut self, delivery: &Delivery) {
        let handle = delivery.handle.expect("it can be acknowledged");
        self.put(Outbound::Ack(handle)).await.unwrap();
    }

    pub(crate) async fn caught_up(&mut self) {
        let marked = self.find(|item| matches!(item, Inbound::CaughtUp).then_some(()));
        marked.await.unwrap();
    }

    pub(crate) fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        self.transport.leases()
    }

    /// Why the connection ended.
    pub(crate) async fn end(&mut self) -> TransportError {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }

    pub(crate) async fn close(mut self) -> Result<(), TransportError> {
        in_time(poll_fn(|cx| self.transport.poll_close(cx))).await
    }
}
