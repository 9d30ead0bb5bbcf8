//! tungstenite alone: through a relay that knows nothing, and through our hub with its
//! acknowledgements.

use std::net::SocketAddr;
use std::rc::Rc;

use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, GroupId, UserId};
use chat_transport_ws::proto::{ClientOp, Frames, Hello, HubOp, Publish, SUBPROTOCOL, WireOutcome};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::path::{Open, Path, Tally};

type Socket = WebSocketStream<TcpStream>;

/// Messages that wait for the socket.
const QUEUE: usize = 1_024;

struct Raw {
    queue: mpsc::Sender<String>,
    _tasks: JoinSet<()>,
}

#[async_trait::async_trait(?Send)]
impl Path for Raw {
    async fn send(&mut self, message: String) {
        self.queue.send(message).await.expect("its task runs");
    }
}

async fn connect(address: SocketAddr, path: &str) -> Socket {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("TCP");
    let mut request = format!("ws://{address}/{path}")
        .into_client_request()
        .expect("a valid URL");
    if path == "hub" {
        let name = SUBPROTOCOL.parse().expect("a valid header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", name);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(16 * 1024);
    let upgrade = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
    upgrade.await.expect("the handshake").0
}

/// Writes what waits, flushed once for all of it.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut messages: mpsc::Receiver<String>,
    mut encode: impl FnMut(String) -> Message,
) {
    while let Some(message) = messages.recv().await {
        sink.feed(encode(message)).await.expect("open");
        while let Ok(message) = messages.try_recv() {
            sink.feed(encode(message)).await.expect("open");
        }
        sink.flush().await.expect("open");
    }
}

/// The relay beside us.
pub(crate) async fn relay(address: SocketAddr, subscribers: usize) -> Open {
    let tally = Tally::new(subscribers, false);
    let mut tasks = JoinSet::new();
    for _ in 0..subscribers {
        let (_, mut source) = connect(address, "subscribe/0").await.split();
        let tally = Rc::clone(&tally);
        tasks.spawn_local(async move {
            let mut last = 0;
            while let Some(message) = source.next().await {
                tally.take(&mut last, &message.expect("open").into_data());
            }
        });
    }
    let (sink, _) = connect(address, "publish/0").await.split();
    let (queue, messages) = mpsc::channel(QUEUE);
    tasks.spawn_local(write(sink, messages, Message::binary::<String>));
    let path = Box::new(Raw {
        queue,
        _tasks: tasks,
    });
    Open { path, tally }
}

fn room() -> Channel {
    Channel::Group(GroupId([7; 32]))
}

/// Connects to the hub and says who we are; subscribes except as number 0.
async fn enter(address: SocketAddr, number: usize) -> Socket {
    let mut socket = connect(address, "hub").await;
    let mut device = [0; 32];
    device[..8].copy_from_slice(&number.to_le_bytes());
    let mut ops = Vec::new();
    ClientOp::Hello(Hello {
        user: UserId::new(&format!("raw-{number}")).expect("a valid name"),
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
    let there = |op: HubOp<'_>| match op {
        HubOp::Subscribed { granted, .. } => granted,
        HubOp::Welcome(_) => number == 0,
        _ => false,
    };
    while let Some(message) = socket.next().await {
        let message = message.expect("open").into_data();
        if Frames::from_hub(&message).any(|op| there(op.expect("ours"))) {
            return socket;
        }
    }
    panic!("the hub closed");
}

/// Our hub, class durable: it acknowledges, and so do the subscribers.
pub(crate) async fn acknowledged(address: SocketAddr, subscribers: usize) -> Open {
    let tally = Tally::new(subscribers, true);
    let mut tasks = JoinSet::new();
    for number in 1..=subscribers {
        let (sink, source) = enter(address, number).await.split();
        tasks.spawn_local(subscriber(sink, source, Rc::clone(&tally)));
    }
    let (sink, mut source) = enter(address, 0).await.split();
    let (queue, messages) = mpsc::channel(QUEUE);
    let mut token = 0;
    tasks.spawn_local(write(sink, messages, move |message| {
        token += 1;
        let mut op = Vec::with_capacity(message.len() + 80);
        ClientOp::Publish(Publish {
            token,
            channel: room(),
            class: Class::Durable,
            ttl_ms: None,
            last_value: false,
            dedup: None,
            bytes: message.as_bytes(),
        })
        .encode(&mut op);
        Message::binary(op)
    }));
    let confirmed = Rc::clone(&tally);
    tasks.spawn_local(async move {
        while let Some(message) = source.next().await {
            let message = message.expect("open").into_data();
            for op in Frames::from_hub(&message) {
                if let HubOp::Sent { count, outcome, .. } = op.expect("ours") {
                    assert_eq!(outcome, WireOutcome::Accepted);
                    (0..count).for_each(|_| confirmed.confirm());
                }
            }
        }
    });
    let path = Box::new(Raw {
        queue,
        _tasks: tasks,
    });
    Open { path, tally }
}

async fn subscriber(
    mut sink: SplitSink<Socket, Message>,
    mut source: SplitStream<Socket>,
    tally: Rc<Tally>,
) {
    let (mut last, mut acks) = (0, Vec::new());
    while let Some(message) = source.next().await {
        let mut next = Some(message);
        while let Some(message) = next {
            let message = message.expect("open").into_data();
            for op in Frames::from_hub(&message) {
                if let HubOp::Deliver {
                    lane, seq, bytes, ..
                } = op.expect("ours")
                {
                    tally.take(&mut last, bytes);
                    ClientOp::Ack { lane, seq }.encode(&mut acks);
                }
            }
            next = source.next().now_or_never().flatten();
        }
        if !acks.is_empty() {
            let acks = Message::binary(core::mem::take(&mut acks));
            sink.send(acks).await.expect("open");
        }
    }
}
