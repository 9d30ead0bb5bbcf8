//! The load: one publisher and its subscribers, in any of the dialects, every delivery checked.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, GroupId, UserId};
use chat_transport_ws::proto::{ClientOp, Frames, Hello, HubOp, Publish, SUBPROTOCOL, WireOutcome};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
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

/// Members of one room get numbers from its number times this on; the publisher is the first.
const MEMBERS: usize = 10_000;

fn channel(room: usize) -> Channel {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&room.to_le_bytes());
    Channel::Group(GroupId(id))
}

/// What the system may hold for a client that does not read: little, so that it shows soon.
const STALLED_BUFFER: u32 = 4 * 1024;

async fn connect(address: SocketAddr, path: &str, dialect: Dialect, stalls: bool) -> Socket {
    let socket = TcpSocket::new_v4().expect("descriptors");
    if stalls {
        socket.set_recv_buffer_size(STALLED_BUFFER).expect("TCP");
    }
    let stream = socket.connect(address).await.expect("the hub listens");
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

/// Connects and, in our dialect, says who we are. Number 0 of a room is its publisher.
async fn enter(
    address: SocketAddr,
    dialect: Dialect,
    (room, number): (usize, usize),
    stalls: bool,
) -> Socket {
    let path = match (dialect, number) {
        (Dialect::Plain, 0) => format!("publish/{room}"),
        (Dialect::Plain, _) => format!("subscribe/{room}"),
        _ => "hub".to_owned(),
    };
    let mut socket = connect(address, &path, dialect, stalls).await;
    if dialect == Dialect::Plain {
        return socket;
    }
    let name = room * MEMBERS + number;
    let mut device = [0; 32];
    device[..8].copy_from_slice(&name.to_le_bytes());
    let mut ops = Vec::new();
    ClientOp::Hello(Hello {
        user: UserId::new(&format!("user-{name}")).expect("a valid name"),
        device: DeviceId(device),
        resume: false,
        token: None,
        will: None,
    })
    .encode(&mut ops);
    if number > 0 {
        ClientOp::Subscribe(channel(room)).encode(&mut ops);
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
struct Tally {
    started: Instant,
    /// Of each delivery: its message, and the time since that was due.
    delays: RefCell<Vec<(u64, Duration)>>,
    received: Cell<u64>,
    doubled: Cell<u64>,
    reordered: Cell<u64>,
    wanted: Cell<u64>,
    reached: Notify,
}

impl Tally {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            delays: RefCell::default(),
            received: Cell::default(),
            doubled: Cell::default(),
            reordered: Cell::default(),
            wanted: Cell::default(),
            reached: Notify::new(),
        })
    }

    fn take(&self, last: &mut u64, payload: &[u8]) {
        let number = u64::from_le_bytes(*payload.first_chunk().expect("numbered"));
        if number == *last {
            self.doubled.set(self.doubled.get() + 1);
        } else if number != *last + 1 {
            // What is left out counts here too, and in the sum at the end.
            self.reordered.set(self.reordered.get() + 1);
        }
        *last = number;
        let due = u64::from_le_bytes(*payload[8..].first_chunk().expect("dated"));
        if due > 0 {
            let delay = self.started.elapsed() - Duration::from_nanos(due);
            self.delays.borrow_mut().push((number, delay));
        }
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
    number: usize,
    dialect: Dialect,
    subscribers: u64,
    sent: u64,
    answered: u64,
    tally: Rc<Tally>,
    tasks: JoinSet<()>,
}

impl Room {
    pub(crate) async fn open(address: SocketAddr, dialect: Dialect, subscribers: usize) -> Self {
        Self::open_as(0, address, dialect, subscribers).await
    }

    /// The room of this number.
    pub(crate) async fn open_as(
        number: usize,
        address: SocketAddr,
        dialect: Dialect,
        subscribers: usize,
    ) -> Self {
        let room = Self {
            publisher: enter(address, dialect, (number, 0), false).await,
            number,
            dialect,
            subscribers: 0,
            sent: 0,
            answered: 0,
            tally: Tally::new(),
            tasks: JoinSet::new(),
        };
        room.grow(address, subscribers).await
    }

    /// And so many more.
    pub(crate) async fn grow(mut self, address: SocketAddr, subscribers: usize) -> Self {
        for _ in 0..subscribers {
            self.subscribers += 1;
            let number = usize::try_from(self.subscribers).expect("few");
            let socket = enter(address, self.dialect, (self.number, number), false).await;
            let task = subscriber(socket, self.dialect, Rc::clone(&self.tally));
            self.tasks.spawn_local(task);
        }
        self
    }

    /// One more, which reads nothing from then on.
    pub(crate) async fn stall(&self, address: SocketAddr) -> Socket {
        enter(address, self.dialect, (self.number, MEMBERS - 1), true).await
    }

    /// The next message; `due` is zero where no delays are wanted.
    fn message(&mut self, due: Duration) -> Message {
        self.sent += 1;
        let mut payload = vec![0; PAYLOAD];
        payload[..8].copy_from_slice(&self.sent.to_le_bytes());
        let due = u64::try_from(due.as_nanos()).expect("it runs for minutes");
        payload[8..16].copy_from_slice(&due.to_le_bytes());
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
            channel: channel(self.number),
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
                    let message = self.message(Duration::ZERO);
                    self.publisher.feed(message).await.expect("open");
                }
                self.publisher.flush().await.expect("open");
            }
            // Until the oldest has arrived everywhere.
            let wanted = (self.sent + 1).saturating_sub(window).max(arrived + 1);
            self.tally.reach(wanted * self.subscribers).await;
        }
        self.finish().await;
    }

    /// Waits until all has arrived and is answered.
    async fn finish(&mut self) {
        let end = self.sent;
        self.tally.reach(end * self.subscribers).await;
        while self.dialect != Dialect::Plain && self.answered < end {
            let message = timeout(DEADLINE, next(&mut self.publisher)).await;
            for op in Frames::from_hub(&message.expect("every message is answered")) {
                if let HubOp::Sent { count, outcome, .. } = op.expect("ours") {
                    assert_eq!(outcome, WireOutcome::Accepted);
                    self.answered += u64::from(count);
                }
            }
        }
    }

    /// Publishes at fixed times, whether or not the hub keeps up. Returns how long after that time
    /// each delivery was there, and how long it took until each message was everywhere.
    pub(crate) async fn pace(
        &mut self,
        messages: u64,
        every: Duration,
    ) -> (Vec<Duration>, Vec<Duration>) {
        let (first, start) = (self.sent + 1, Instant::now());
        for number in 1..=messages {
            let due = start + every * u32::try_from(number).expect("few");
            // The timer is coarse: sleep a little less, then look.
            tokio::time::sleep_until((due - Duration::from_millis(2)).into()).await;
            while Instant::now() < due {
                tokio::task::yield_now().await;
            }
            let message = self.message(due - self.tally.started);
            self.publisher.send(message).await.expect("open");
        }
        self.finish().await;
        let delays = self.tally.delays.take();
        let mut rooms = vec![Duration::ZERO; usize::try_from(messages).expect("few")];
        for (number, delay) in &delays {
            let room = &mut rooms[usize::try_from(number - first).expect("few")];
            *room = delay.max(room).to_owned();
        }
        (delays.into_iter().map(|(_, delay)| delay).collect(), rooms)
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
