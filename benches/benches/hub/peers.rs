//! The hubs: ours, and the yardsticks beside it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message as AxumMessage, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use bytes::Bytes;
use chat_transport_ws::hub::{Hub, HubBuilder, Limits};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::WebSocketConfig;

/// Where the yardsticks' broadcast queues end; far above the window.
const QUEUE: usize = 4_096;

/// Serves until the standard input ends.
pub(crate) fn serve(server: &str, connections: usize) {
    let name = server.to_owned();
    std::thread::spawn(move || match name.as_str() {
        "floor" => floor(connections, connections),
        "floor of 10" => floor(connections, 10),
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                match name.as_str() {
                    "memory" => ours(false).await,
                    "disk" => ours(true).await,
                    "tungstenite" => plain().await,
                    "axum" => axum_example().await,
                    other => panic!("no server is called {other}"),
                }
            });
        }
    });
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("it ends some day");
}

fn ready(address: SocketAddr) {
    println!("{address}");
}

/// Everybody may come from here.
pub(crate) fn builder() -> HubBuilder {
    let mut limits = Limits::default();
    limits.connections_per_ip = limits.connections;
    limits.connections_per_user = limits.connections;
    limits.publish_per_second = 0;
    Hub::builder().allow_all().limits(limits)
}

async fn ours(disk: bool) {
    let builder = builder();
    let folder = tempfile::tempdir().expect("a folder");
    let builder = if disk {
        builder.store(folder.path().join("hub.redb"))
    } else {
        builder.in_memory()
    };
    let hub = builder.bind(([127, 0, 0, 1], 0).into()).await;
    let hub = hub.expect("a free port");
    ready(hub.local_addr());
    core::future::pending().await
}

async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    ready(listener.local_addr().expect("bound"));
    listener
}

/// A queue for each room, by the path's last part.
type Rooms = Arc<Mutex<BTreeMap<String, broadcast::Sender<Bytes>>>>;

/// tokio-tungstenite with small buffers; joins what is queued, then flushes.
async fn plain() {
    let listener = listen().await;
    let rooms = Rooms::default();
    loop {
        let (stream, _) = listener.accept().await.expect("descriptors");
        stream.set_nodelay(true).expect("TCP");
        tokio::spawn(plain_connection(stream, rooms.clone()));
    }
}

async fn plain_connection(stream: TcpStream, rooms: Rooms) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(4 * 1024);
    let mut path = String::new();
    let look = |request: &Request, response: Response| {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let upgrade = tokio_tungstenite::accept_hdr_async_with_config(stream, look, Some(config));
    let mut socket = upgrade.await.expect("a handshake");
    let publishes = path.starts_with("/publish/");
    let room = path.rsplit('/').next().unwrap_or_default().to_owned();
    let queue = {
        let mut rooms = rooms.lock().expect("nobody panics with it");
        let queue = rooms.entry(room);
        queue.or_insert_with(|| broadcast::channel(QUEUE).0).clone()
    };
    if publishes {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(bytes) = message {
                // Nobody may be there.
                let _receivers = queue.send(bytes);
            }
        }
        return;
    }
    let mut messages = queue.subscribe();
    loop {
        tokio::select! {
            message = messages.recv() => {
                let mut message = message.expect("nobody lags that far");
                loop {
                    if socket.feed(Message::Binary(message)).await.is_err() {
                        return;
                    }
                    let Ok(more) = messages.try_recv() else { break };
                    message = more;
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
            read = socket.next() => {
                let Some(Ok(_)) = read else { return };
            }
        }
    }
}

/// The shape of axum's chat example: split, a broadcast queue, `send` for each message.
async fn axum_example() {
    let (queue, _) = broadcast::channel::<Bytes>(QUEUE);
    let subscribe = |upgrade: WebSocketUpgrade, State(queue): State<broadcast::Sender<Bytes>>| async move {
        upgrade.on_upgrade(move |socket| axum_subscriber(socket, queue))
    };
    let publish = |upgrade: WebSocketUpgrade, State(queue): State<broadcast::Sender<Bytes>>| async move {
        upgrade.on_upgrade(move |mut socket: WebSocket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                if let AxumMessage::Binary(bytes) = message {
                    // Nobody may be there.
                    let _receivers = queue.send(bytes);
                }
            }
        })
    };
    let app = Router::new()
        .route("/subscribe/0", any(subscribe))
        .route("/publish/0", any(publish))
        .with_state(queue);
    let listener = axum::serve::ListenerExt::tap_io(listen().await, |stream| {
        stream.set_nodelay(true).expect("TCP");
    });
    axum::serve(listener, app).await.expect("it serves");
}

async fn axum_subscriber(socket: WebSocket, queue: broadcast::Sender<Bytes>) {
    let mut messages = queue.subscribe();
    let (mut sink, mut source) = socket.split();
    let mut sending = tokio::spawn(async move {
        while let Ok(message) = messages.recv().await {
            if sink.send(AxumMessage::Binary(message)).await.is_err() {
                break;
            }
        }
    });
    let mut receiving = tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
    tokio::select! {
        _ = &mut sending => receiving.abort(),
        _ = &mut receiving => sending.abort(),
    }
}

/// The least that a hub can do: one thread, blocking sockets, what one read brought written once to
/// each socket of its room. Rooms fill up in the order in which clients connect, each with its
/// publisher first. It believes its publishers, and that they speak in turn.
fn floor(connections: usize, room: usize) {
    let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
    ready(listener.local_addr().expect("bound"));
    let accepted = (0..connections).map(|_| {
        let (stream, _) = listener.accept().expect("descriptors");
        stream.set_nodelay(true).expect("TCP");
        let socket = tungstenite::accept(stream).expect("a handshake");
        socket.get_ref().try_clone().expect("descriptors")
    });
    let sockets: Vec<StdStream> = accepted.collect();
    let mut rooms: Vec<(&[StdStream], Vec<u8>)> = sockets
        .chunks(room)
        .map(|room| (room, Vec::new()))
        .collect();
    let (mut write, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    for turn in (0..rooms.len()).cycle() {
        let (room, read) = &mut rooms[turn];
        let [publisher, subscribers @ ..] = *room else {
            return;
        };
        let Ok(count @ 1..) = (&*publisher).read(&mut buffer) else {
            return;
        };
        read.extend_from_slice(&buffer[..count]);
        let mut at = 0;
        // Final binary frames under 126 bytes, masked: header 2, mask 4.
        while let [0x82, length, rest @ ..] = &read[at..]
            && let length = usize::from(length & 0x7f)
            && let Some((mask, rest)) = rest.split_first_chunk::<4>()
            && rest.len() >= length
        {
            write.extend_from_slice(&[0x82, read[at + 1] & 0x7f]);
            let unmasked = rest[..length].iter().zip(mask.iter().cycle());
            write.extend(unmasked.map(|(byte, mask)| byte ^ mask));
            at += 6 + length;
        }
        read.drain(..at);
        for mut subscriber in subscribers {
            if subscriber.write_all(&write).is_err() {
                return;
            }
        }
        write.clear();
    }
}
