//! What the tests of this crate share: a client's end of a connection, and MQTT by hand.
#![allow(dead_code, reason = "each test program uses what it needs")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

pub(crate) mod raw;

use core::future::{Future, poll_fn};
use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use chat_client::transport::{
    ConnectOptions, Connector, Inbound, Outbound, SendOutcome, Token, Transport, TransportError,
};
use chat_core::Will;
use chat_core::channel::{Channel, Class, TopicId};
use chat_core::id::{DeviceId, UserId};
use chat_transport_mqtt::{MqttConnector, Version};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const BOTH: [Version; 2] = [Version::V5, Version::V311];

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(DEADLINE, future).await;
    waited.expect("it happens in time")
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

pub(crate) fn options(name: &str) -> ConnectOptions {
    ConnectOptions::new(user(name), DeviceId([7; 32]), None)
}

pub(crate) fn with_will(name: &str, bytes: &'static [u8]) -> ConnectOptions {
    let will = Will {
        channel: presence(name),
        bytes: Bytes::from_static(bytes),
    };
    ConnectOptions::new(user(name), DeviceId([7; 32]), Some(will))
}

/// A client's end of a connection.
pub(crate) struct Peer {
    transport: Box<dyn Transport>,
    kept: VecDeque<Inbound>,
    next: u64,
    pub(crate) resumed: bool,
    pub(crate) max_frame: usize,
}

impl Peer {
    pub(crate) async fn connect(to: &MqttConnector, name: &str) -> Result<Self, TransportError> {
        Self::connect_as(to, options(name)).await
    }

    pub(crate) async fn connect_as(
        to: &MqttConnector,
        options: ConnectOptions,
    ) -> Result<Self, TransportError> {
        let transport = within(to.connect(options)).await?;
        let mut peer = Self {
            transport,
            kept: VecDeque::new(),
            next: 0,
            resumed: false,
            max_frame: 0,
        };
        match peer.recv().await? {
            Inbound::Up { resumed, max_frame } => {
                peer.resumed = resumed;
                peer.max_frame = max_frame;
            }
            other => panic!("`Up` comes first, and not {other:?}"),
        }
        Ok(peer)
    }

    /// The next that was not kept by another call.
    pub(crate) async fn recv(&mut self) -> Result<Inbound, TransportError> {
        match self.kept.pop_front() {
            Some(item) => Ok(item),
            None => within(poll_fn(|cx| self.transport.poll_recv(cx))).await,
        }
    }

    /// The first that `pick` takes; what comes before it is kept.
    pub(crate) async fn wait<T>(
        &mut self,
        mut pick: impl FnMut(&Inbound) -> Option<T>,
    ) -> Result<T, TransportError> {
        for place in 0..self.kept.len() {
            if let Some(found) = pick(&self.kept[place]) {
                self.kept.remove(place);
                return Ok(found);
            }
        }
        loop {
            let item = within(poll_fn(|cx| self.transport.poll_recv(cx))).await?;
            if let Some(found) = pick(&item) {
                return Ok(found);
            }
            self.kept.push_back(item);
        }
    }

    pub(crate) async fn give(&mut self, item: Outbound) -> Result<(), TransportError> {
        within(poll_fn(|cx| self.transport.poll_ready(cx))).await?;
        self.transport.start_send(item)
    }

    /// True when it would take one more now.
    pub(crate) async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| core::task::Poll::Ready(self.transport.poll_ready(cx).is_ready())).await
    }

    pub(crate) fn take(&mut self, item: Outbound) {
        self.transport.start_send(item).unwrap();
    }

    pub(crate) fn frame(
        &mut self,
        channel: &Channel,
        class: Class,
        bytes: &[u8],
    ) -> (Token, Outbound) {
        self.next += 1;
        let token = Token(self.next);
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

    /// Publishes a durable frame without waiting for its fate.
    pub(crate) async fn send(&mut self, channel: &Channel, bytes: &[u8]) -> Token {
        let (token, item) = self.frame(channel, Class::Durable, bytes);
        self.give(item).await.unwrap();
        token
    }

    /// Publishes a last value.
    pub(crate) async fn keep(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        let (token, mut item) = self.frame(channel, Class::Ephemeral, bytes);
        if let Outbound::Send { last_value, .. } = &mut item {
            *last_value = true;
        }
        self.give(item).await.unwrap();
        self.fate(token).await
    }

    pub(crate) async fn fate(&mut self, token: Token) -> SendOutcome {
        let fate = self.wait(|item| match item {
            Inbound::Sent {
                token: told,
                outcome,
            } if *told == token => Some(outcome.clone()),
            _ => None,
        });
        fate.await.unwrap()
    }

    pub(crate) async fn publish(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        let token = self.send(channel, bytes).await;
        self.fate(token).await
    }

    pub(crate) async fn subscribe(&mut self, channel: &Channel) -> bool {
        self.give(Outbound::Subscribe(channel.clone()))
            .await
            .unwrap();
        let answer = self.wait(|item| match item {
            Inbound::Subscribed {
                channel: told,
                granted,
            } if told == channel => Some(*granted),
            _ => None,
        });
        answer.await.unwrap()
    }

    /// The next frame: where, what, and whether it is live. Not acknowledged.
    pub(crate) async fn received(
        &mut self,
    ) -> (Channel, Bytes, Option<chat_client::transport::Handle>, bool) {
        let received = self.wait(|item| match item {
            Inbound::Received {
                channel,
                bytes,
                handle,
                live,
            } => Some((channel.clone(), bytes.clone(), *handle, *live)),
            _ => None,
        });
        received.await.unwrap()
    }

    /// How the connection ends.
    pub(crate) async fn end(mut self) -> TransportError {
        loop {
            if let Err(error) = within(poll_fn(|cx| self.transport.poll_recv(cx))).await {
                return error;
            }
        }
    }

    pub(crate) async fn close(mut self) -> Result<(), TransportError> {
        within(poll_fn(|cx| self.transport.poll_close(cx))).await
    }
}
