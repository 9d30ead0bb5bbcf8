//! The load: one publisher and its subscribers, in any of the dialects, every delivery checked.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, GroupId, UserId};
use chat_transport_ws::proto::{ClientOp, Frames, Hello, HubOp, Publish, SUBPROTOCOL, WireOutcome};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The size of a message: what a text of 64 bytes takes, headers included, without signature.
const PAYLOAD: usize = 124;
const DEADLINE: Duration = Duration::from_secs(60);

/// What a hub speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Our protocol, class ephemeral.
    Ephemeral,
    /// Our protocol, class durable: every subscriber acknowledges.
    Durable,
    /// Whatever a publisher sends, the others get.
    Plain,
}

type Socket = WebSocketStream<TcpStream>;

fn room() -> Channel {
    Channel::Group(GroupId([7; 32]))
}

async fn connect(address: SocketAddr, path: &str, dialect: Dialect) -> Socket {
    let stream = TcpStream::connect(address).await.expect("the hub listens");
    stream.set_nodelay(true).expect("TCP");
    let mut request = format!("ws://{address}/{path}")
        .into_client_request()
        .expect("a valid URL");
    if dialect != Dialect::Plain {
        let name = SUBPROTOCOL.parse().expect("a valid header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", name);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(16 * 1024);
    tokio_tungstenite::client_async_with_config(request, stream, Some(config))
        .await
        .expect("the handshake")
        .0
}

/// Connects and, in our dialect, says who we are.
async fn enter(address: SocketAddr, dialect: Dialect, number: usize) -> Socket {
    let path = match (dialect, number) {
        (Dialect::Plain, 0) => "publish",
        (Dialect::Plain, _) => "subscribe",
        _ => "hub",
    };
    let mut socket = connect(address, path, dialect).await;
    if dialect == Dialect::Plain {
        return socket;
    }
    let mut device = [0; 32];
    device[..8].copy_from_slice(&number.to_le_bytes());
    let mut ops = Vec::new();
    ClientOp::Hello(Hello {
        user: UserId::new(&format!("user-{number}")).expect("a valid name"),
        device: DeviceId(device),
        resume: false,
        token: None,
        will: None,
    })
    .encode(&mut ops);
    if number > 0 {
        ClientOp::Subscribe(room()).encode(&mut ops);
    }
    socket.send(Message::binary(ops)).await.expect("it is open");
    let done = |op: &HubOp<'_>| match op {
        HubOp::Subscribed { granted, .. } => *granted,
        HubOp::Welcome(_) => number == 0,
        _ => false,
    };
    loop {
        let message = next(&mut socket).await;
        if Frames::from_hub(&message).any(|op| done(&op.expect("ours"))) {
            return socket;
        }
    }
}

async fn next(socket: &mut Socket) -> Bytes {
    loop {
        match socket.next().await.expect("open").expect("whole") {
            Message::Binary(bytes) => return bytes,
            Message::Ping(_) => {}
            other => panic!("not of this load: {other:?}"),
        }
    }
}

/// What all subscribers together saw.
#[derive(Default)]
struct Tally {
    received: Cell<u64>,
    doubled: Cell<u64>,
    reordered: Cell<u64>,
    wanted: Cell<u64>,
    reached: Notify,
}

impl Tally {
    fn take(&self, last: &mut u64, payload: &[u8]) {
        let number = u64::from_le_bytes(*payload.first_chunk().expect("numbered"));
        if number == *last {
            self.doubled.set(self.doubled.get() + 1);
        } else if number != *last + 1 {
            // What is left out counts here too, and in the sum at the end.
            self.reordered.set(self.reordered.get() + 1);
        }
        *last = number;
        self.received.set(self.received.get() + 1);
        if self.received.get() == self.wanted.get() {
            self.reached.notify_one();
        }
    }

    async fn reach(&self, wanted: u64) {
        self.wanted.set(wanted);
        while self.received.get() < wanted {
            timeout(DEADLINE, self.reached.notified())
                .await
                .expect("every message arrives");
        }
    }
}

async fn subscriber(mut socket: Socket, dialect: Dialect, tally: Rc<Tally>) {
    let (mut last, mut acks) = (0, Vec::new());
    let mut take = |message: &[u8], acks: &mut Vec<u8>| {
        if dialect == Dialect::Plain {
            return tally.take(&mut last, message);
        }
        for op in Frames::from_hub(message) {
            if let HubOp::Deliver {
                lane, seq, bytes, ..
            } = op.expect("ours")
            {
                tally.take(&mut last, bytes);
                if seq > 0 {
                    ClientOp::Ack { lane, seq }.encode(acks);
                }
            }
        }
    };
    loop {
        let message = next(&mut socket).await;
        take(&message, &mut acks);
        while let Some(message) = next(&mut socket).now_or_never() {
            take(&message, &mut acks);
        }
        if !acks.is_empty() {
            let acks = Message::binary(core::mem::take(&mut acks));
            socket.send(acks).await.expect("open");
        }
    }
}

/// A publisher and its subscribers.
pub(crate) struct Room {
    publisher: Socket,
    dialect: Dialect,
    subscribers: u64,
    sent: u64,
    answered: u64,
    tally: Rc<Tally>,
    tasks: JoinSet<()>,
}

impl Room {
    pub(crate) async fn open(address: SocketAddr, dialect: Dialect, subscribers: usize) -> Self {
        let room = Self {
            publisher: enter(address, dialect, 0).await,
            dialect,
            subscribers: 0,
            sent: 0,
            answered: 0,
            tally: Rc::default(),
            tasks: JoinSet::new(),
        };
        room.grow(address, subscribers).await
    }

    /// And so many more.
    pub(crate) async fn grow(mut self, address: SocketAddr, subscribers: usize) -> Self {
        for _ in 0..subscribers {
            self.subscribers += 1;
            let number = usize::try_from(self.subscribers).expect("few");
            let socket = enter(address, self.dialect, number).await;
            let task = subscriber(socket, self.dialect, Rc::clone(&self.tally));
            self.tasks.spawn_local(task);
        }
        self
    }

    fn message(&mut self) -> Message {
        self.sent += 1;
        let mut payload = vec![0; PAYLOAD];
        payload[..8].copy_from_slice(&self.sent.to_le_bytes());
        if self.dialect == Dialect::Plain {
            return Message::binary(payload);
        }
        let class = if self.dialect == Dialect::Durable {
            Class::Durable
        } else {
            Class::Ephemeral
        };
        let mut op = Vec::with_capacity(256);
        ClientOp::Publish(Publish {
            token: self.sent,
            channel: room(),
            class,
            ttl_ms: None,
            last_value: false,
            dedup: None,
            bytes: &payload,
        })
        .encode(&mut op);
        Message::binary(op)
    }

    /// Publishes so many messages with at most `window` under way; returns when all arrived and
    /// the hub answered for each.
    pub(crate) async fn carry(&mut self, messages: u64, window: u64) {
        let end = self.sent + messages;
        while self.sent < end {
            let arrived = self.tally.received.get() / self.subscribers;
            let until = end.min(arrived + window);
            if self.sent < until {
                while self.sent < until {
                    let message = self.message();
                    self.publisher.feed(message).await.expect("open");
                }
                self.publisher.flush().await.expect("open");
            }
            // Until the oldest has arrived everywhere.
            let wanted = (self.sent + 1).saturating_sub(window).max(arrived + 1);
            self.tally.reach(wanted * self.subscribers).await;
        }
        self.tally.reach(end * self.subscribers).await;
        while self.dialect != Dialect::Plain && self.answered < end {
            let message = timeout(DEADLINE, next(&mut self.publisher)).await;
            for op in Frames::from_hub(&message.expect("every message is answered")) {
                if let HubOp::Sent { outcome, .. } = op.expect("ours") {
                    assert_eq!(outcome, WireOutcome::Accepted);
                    self.answered += 1;
                }
            }
        }
    }

    /// # Panics
    /// When anything was lost, doubled or reordered.
    pub(crate) fn check(&self, name: &str) {
        let tally = &self.tally;
        assert_eq!(tally.doubled.get(), 0, "{name} doubled");
        assert_eq!(tally.reordered.get(), 0, "{name} reordered");
        let all = self.sent * self.subscribers;
        assert_eq!(tally.received.get(), all, "{name} lost or made up");
    }
}
