//! A client that talks to a hub over a real socket, with a deadline on every wait.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers: each test binary uses its own part, and fails by panicking"
)]

use core::future::poll_fn;
use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use chat_client::transport::{
    ConnectOptions, Connector, Handle, Inbound, Outbound, SendOutcome, Token, Transport,
    TransportError,
};
use chat_core::Will;
use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, GroupId, UserId};
use chat_transport_ws::WsConnector;
use chat_transport_ws::hub::{Hub, HubBuilder, HubHandle};
use tokio::time::timeout;

pub const DEADLINE: Duration = Duration::from_secs(10);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .expect("within the deadline")
}

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub fn inbox(name: &str) -> Channel {
    Channel::Inbox(user(name))
}

pub fn presence(name: &str) -> Channel {
    Channel::Presence(user(name))
}

pub fn group() -> Channel {
    Channel::Group(GroupId([7; 32]))
}

pub fn memory() -> HubBuilder {
    Hub::builder().allow_all().in_memory()
}

pub async fn bind(builder: HubBuilder) -> HubHandle {
    within(builder.bind(([127, 0, 0, 1], 0).into()))
        .await
        .unwrap()
}

pub struct Peer {
    transport: Box<dyn Transport>,
    /// Came while something else was awaited.
    set_aside: VecDeque<Inbound>,
    next_token: u64,
    pub resumed: bool,
}

impl core::fmt::Debug for Peer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Peer")
    }
}

pub struct Who {
    pub url: String,
    pub name: &'static str,
    pub device: u8,
    pub token: Option<&'static str>,
    pub will: Option<Will>,
}

pub fn who(hub: &HubHandle, name: &'static str) -> Who {
    Who {
        url: hub.url(),
        name,
        device: 1,
        token: None,
        will: None,
    }
}

impl Who {
    pub fn device(self, device: u8) -> Self {
        Self { device, ..self }
    }

    pub fn token(self, token: &'static str) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    pub fn will(self, channel: Channel, bytes: &'static [u8]) -> Self {
        Self {
            will: Some(Will {
                channel,
                bytes: Bytes::from_static(bytes),
            }),
            ..self
        }
    }

    pub async fn connect(self) -> Result<Peer, TransportError> {
        let mut connector = WsConnector::new(&self.url).unwrap();
        if let Some(token) = self.token {
            connector = connector.with_token(token).unwrap();
        }
        let options = ConnectOptions::new(user(self.name), DeviceId([self.device; 32]), self.will);
        let mut peer = Peer::over(within(connector.connect(options)).await?);
        match peer.recv().await? {
            Inbound::Up { resumed, .. } => peer.resumed = resumed,
            other => panic!("up comes first, not {other:?}"),
        }
        Ok(peer)
    }

    pub async fn join(self, channels: &[Channel]) -> Peer {
        let mut peer = self.connect().await.unwrap();
        for channel in channels {
            assert!(peer.subscribe(channel).await, "subscribe {channel:?}");
        }
        peer
    }
}

impl Peer {
    pub fn over(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            set_aside: VecDeque::new(),
            next_token: 1,
            resumed: false,
        }
    }

    pub async fn recv(&mut self) -> Result<Inbound, TransportError> {
        within(poll_fn(|cx| self.transport.poll_recv(cx))).await
    }

    pub async fn give(&mut self, item: Outbound) -> Result<(), TransportError> {
        within(poll_fn(|cx| self.transport.poll_ready(cx))).await?;
        self.transport.start_send(item)
    }

    pub async fn flush(&mut self) -> Result<(), TransportError> {
        within(poll_fn(|cx| self.transport.poll_flush(cx))).await
    }

    pub async fn send(&mut self, item: Outbound) {
        self.give(item).await.unwrap();
        self.flush().await.unwrap();
    }

    /// The first that `pick` takes; the rest keeps its order.
    pub async fn await_one<T>(&mut self, mut pick: impl FnMut(&Inbound) -> Option<T>) -> T {
        for at in 0..self.set_aside.len() {
            if let Some(found) = pick(&self.set_aside[at]) {
                self.set_aside.remove(at);
                return found;
            }
        }
        loop {
            let inbound = self.recv().await.unwrap();
            if let Some(found) = pick(&inbound) {
                return found;
            }
            self.set_aside.push_back(inbound);
        }
    }

    pub async fn subscribe(&mut self, channel: &Channel) -> bool {
        self.send(Outbound::Subscribe(channel.clone())).await;
        self.await_one(|inbound| match inbound {
            Inbound::Subscribed {
                channel: c,
                granted,
            } if c == channel => Some(*granted),
            _ => None,
        })
        .await
    }

    pub fn publication(&mut self, channel: &Channel, class: Class, bytes: &[u8]) -> Outbound {
        let token = Token(self.next_token);
        self.next_token += 1;
        Outbound::Send {
            token,
            channel: channel.clone(),
            bytes: Bytes::copy_from_slice(bytes),
            class,
            ttl: None,
            last_value: false,
            dedup: None,
        }
    }

    pub async fn outcome(&mut self, item: Outbound) -> SendOutcome {
        let Outbound::Send { token: sent, .. } = item else {
            panic!("a send");
        };
        self.send(item).await;
        self.await_one(|inbound| match inbound {
            Inbound::Sent { token, outcome } if *token == sent => Some(outcome.clone()),
            _ => None,
        })
        .await
    }

    pub async fn publish(&mut self, channel: &Channel, bytes: &[u8]) -> SendOutcome {
        let item = self.publication(channel, Class::Durable, bytes);
        self.outcome(item).await
    }

    pub async fn set_value(&mut self, channel: &Channel, class: Class, bytes: &[u8]) {
        let mut item = self.publication(channel, class, bytes);
        if let Outbound::Send { last_value, .. } = &mut item {
            *last_value = true;
        }
        assert_eq!(self.outcome(item).await, SendOutcome::Accepted);
    }

    pub async fn received(&mut self) -> (Vec<u8>, Option<Handle>, bool) {
        self.await_one(|inbound| match inbound {
            Inbound::Received {
                bytes,
                handle,
                live,
                ..
            } => Some((bytes.to_vec(), *handle, *live)),
            _ => None,
        })
        .await
    }

    pub async fn caught_up(&mut self) {
        self.await_one(|inbound| matches!(inbound, Inbound::CaughtUp).then_some(()))
            .await;
    }

    /// Everything up to `CaughtUp`.
    pub async fn backlog(&mut self) -> Vec<Inbound> {
        let mut backlog = Vec::new();
        loop {
            let next = match self.set_aside.pop_front() {
                Some(next) => next,
                None => self.recv().await.unwrap(),
            };
            if next == Inbound::CaughtUp {
                return backlog;
            }
            backlog.push(next);
        }
    }

    pub async fn ack(&mut self, handle: Handle) {
        self.send(Outbound::Ack(handle)).await;
    }

    pub async fn close(mut self) {
        within(poll_fn(|cx| self.transport.poll_close(cx)))
            .await
            .unwrap();
    }

    pub async fn ended(mut self) -> TransportError {
        loop {
            if let Err(error) = self.recv().await {
                return error;
            }
        }
    }
}

/// Waits until the hub's counters say so.
pub async fn until(hub: &HubHandle, check: impl Fn(chat_transport_ws::hub::HubStats) -> bool) {
    within(async {
        while !check(hub.stats()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
