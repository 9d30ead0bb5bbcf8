//! The smallest complete transport: a TCP broker that forwards lines, and the client side of it.
//!
//! The broker keeps what is sent to a device that is away, in memory and within a bound, and that is
//! all: no acknowledgement, no last will, no last value. The core makes up for the rest, so the same
//! program runs over it unchanged; `tests/custom.rs` proves it with the conformance suite.
//!
//! ```text
//! client → broker   hello DEVICE, then: sub CHANNEL | unsub CHANNEL | pub CHANNEL FRAME | now CHANNEL FRAME
//! broker → client   ok CHANNEL | no CHANNEL | msg CHANNEL FRAME
//! ```
//!
//! `now` is for frames that are worth nothing later. Channels and frames are in hexadecimal. Run it:
//! `cargo run -p chat-examples --example custom_transport`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chat_client::store::MemoryStore;
use chat_client::transport::{
    Capabilities, ConnectOptions, Connector, Inbound, InboundHalf, Mailbox, Outbound, OutboundHalf,
    SendOutcome, Transport, TransportError, channel,
};
use chat_client::{Client, Event, Identity, keyfile};
use chat_core::channel::{Channel, Class};
use chat_core::delivery::Ack;
use chat_core::id::UserId;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::io::{BufReader, Lines, ReadHalf, Take, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What it can do. Everything that is `false` here, the core does itself.
pub const CAPABILITIES: Capabilities = Capabilities {
    name: "lines",
    broker_ack: false,
    reason_codes: false,
    no_receiver_hint: false,
    manual_ack: false,
    mailbox: Mailbox::Bounded,
    last_will: false,
    last_value: false,
    backlog_marker: false,
    dedup: false,
    ttl: false,
    no_echo: false,
    acl_subscribe: false,
    acl_publish: false,
    cas: false,
    max_frame: 64 * 1024,
};

/// A frame and a channel in hexadecimal, with room for the rest.
const MAX_LINE: u64 = 2 * 64 * 1024 + 2 * 1024;
/// Whoever takes longer to say hello, or to read a line, is cut off.
const DEADLINE: Duration = Duration::from_secs(5);
/// Lines waiting for one connection. Who falls behind is cut off, and its mailbox keeps the rest.
const BACKLOG: usize = 1_024;
/// Lines kept for a device that is away. What comes then is dropped; its sender repeats it.
const KEPT: usize = 1_024;
/// Devices known, and channels of one device. Beyond it the broker refuses.
const KNOWN: usize = 1_024;

// ---- the client side -------------------------------------------------------------------------

/// Opens connections to a [`serve`]d broker.
#[derive(Clone, Debug)]
pub struct LineConnector {
    /// Where it listens.
    pub broker: SocketAddr,
}

#[async_trait::async_trait]
impl Connector for LineConnector {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    // No retry and no deadline: the client has the deadline, the core decides what comes next.
    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        let socket = TcpStream::connect(self.broker).await;
        open(socket.map_err(lost)?, &options).await
    }
}

/// A connection over any stream of bytes.
///
/// # Errors
/// The stream ended.
pub async fn open(
    socket: impl Socket,
    options: &ConnectOptions,
) -> Result<Box<dyn Transport>, TransportError> {
    let (read, mut write) = lines(socket);
    let hello = format!("hello {}\n", options.device);
    say(&mut write, &hello).await.map_err(lost)?;
    let (transport, io) = channel(&CAPABILITIES, BACKLOG);
    let up = Inbound::Up {
        // The core then asks for its channels anew, which does no harm.
        resumed: false,
        max_frame: CAPABILITIES.max_frame,
    };
    let told = io.inbound.send_inbound(up).await;
    told.expect("the transport is here");
    // Both tasks end with the connection; the client learns of it when both halves are gone.
    tokio::spawn(reader(read, io.inbound.clone()));
    tokio::spawn(writer(write, io.outbound, io.inbound));
    Ok(Box::new(transport))
}

fn lost(_error: io::Error) -> TransportError {
    TransportError::lost()
}

async fn reader(mut lines: Reader<impl Socket>, inbound: InboundHalf) {
    let read = async {
        while let Ok(Some(line)) = next(&mut lines).await {
            let item = match line.split(' ').collect::<Vec<_>>()[..] {
                [answer @ ("ok" | "no"), channel] => {
                    let granted = answer == "ok";
                    parse(channel).map(|channel| Inbound::Subscribed { channel, granted })
                }
                ["msg", channel, frame] => {
                    parse(channel)
                        .zip(unhex(frame))
                        .map(|(channel, it)| Inbound::Received {
                            channel,
                            bytes: Bytes::from(it),
                            handle: None,
                            live: true,
                        })
                }
                _ => None,
            };
            // What is not ours is dropped.
            if let Some(item) = item
                && inbound.send_inbound(item).await.is_err()
            {
                break;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = inbound.dropped() => {}
    }
}

async fn writer(
    mut write: WriteHalf<impl Socket>,
    mut outbound: OutboundHalf,
    inbound: InboundHalf,
) {
    while let Some(item) = outbound.recv_outbound().await {
        let (line, sent) = match item {
            Outbound::Send {
                token,
                channel,
                bytes,
                class,
                ..
            } => {
                let word = if class == Class::Ephemeral {
                    "now"
                } else {
                    "pub"
                };
                let line = format!("{word} {} {}\n", name(&channel), hex(&bytes));
                (line, Some(token))
            }
            Outbound::Subscribe(channel) => (format!("sub {}\n", name(&channel)), None),
            Outbound::Unsubscribe(channel) => (format!("unsub {}\n", name(&channel)), None),
            // It hands out no handles, so there is nothing to acknowledge.
            _ => continue,
        };
        if say(&mut write, &line).await.is_err() {
            return;
        }
        // This broker answers nothing: written is all that can be known.
        if let Some(token) = sent {
            let outcome = SendOutcome::Accepted;
            if inbound
                .send_inbound(Inbound::Sent { token, outcome })
                .await
                .is_err()
            {
                return;
            }
        }
    }
    // An orderly end. The broker closes its side, and then the reader ends.
    write.shutdown().await.ok();
}

// ---- the broker --------------------------------------------------------------------------------

#[derive(Debug, Default)]
struct Device {
    channels: BTreeSet<String>,
    waiting: VecDeque<String>,
    connection: Option<mpsc::Sender<String>>,
}

/// The broker: what it knows of every device.
#[derive(Clone, Debug, Default)]
pub struct Devices(Arc<Mutex<BTreeMap<String, Device>>>);

impl Devices {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Device>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, channel: &str, frame: &str, keep: bool) {
        let line = format!("msg {channel} {frame}\n");
        for device in self.lock().values_mut() {
            if !device.channels.contains(channel) {
                continue;
            }
            if let Some(connection) = &device.connection
                && connection.try_send(line.clone()).is_err()
            {
                device.connection = None;
            }
            if device.connection.is_none() && keep && device.waiting.len() < KEPT {
                device.waiting.push_back(line.clone());
            }
        }
    }
}

/// Forwards what each device publishes to all that subscribe. Dropping the future ends every
/// connection.
///
/// # Errors
/// No more connections can be accepted.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let devices = Devices::default();
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                sessions.spawn(session(socket, devices.clone()));
            }
            // How a session ended is its client's business.
            Some(_ended) = sessions.join_next() => {}
        }
    }
}

/// Serves one connection until it ends.
///
/// # Errors
/// The stream broke.
pub async fn session(socket: impl Socket, devices: Devices) -> io::Result<()> {
    let (mut read, mut write) = lines(socket);
    let hello = timeout(DEADLINE, next(&mut read)).await??;
    let Some(me) = hello
        .as_deref()
        .and_then(|line| line.strip_prefix("hello "))
    else {
        return Ok(());
    };
    // A connection of this device that is still open ends here.
    let (connection, mut feed) = mpsc::channel(BACKLOG);
    let waiting = {
        let mut devices = devices.lock();
        if devices.len() == KNOWN && !devices.contains_key(me) {
            return Ok(());
        }
        let device = devices.entry(me.to_owned()).or_default();
        device.connection = Some(connection);
        core::mem::take(&mut device.waiting)
    };
    for line in waiting {
        say(&mut write, &line).await?;
    }
    loop {
        tokio::select! {
            line = next(&mut read) => {
                let Some(line) = line? else { return Ok(()) };
                match line.split(' ').collect::<Vec<_>>()[..] {
                    ["sub", channel] => {
                        let known = devices.lock().get_mut(me).is_some_and(|device| {
                            device.channels.len() < KNOWN && {
                                device.channels.insert(channel.to_owned());
                                true
                            }
                        });
                        let answer = if known { "ok" } else { "no" };
                        say(&mut write, &format!("{answer} {channel}\n")).await?;
                    }
                    ["unsub", channel] => {
                        if let Some(device) = devices.lock().get_mut(me) {
                            device.channels.remove(channel);
                        }
                    }
                    ["pub", channel, frame] => devices.publish(channel, frame, true),
                    ["now", channel, frame] => devices.publish(channel, frame, false),
                    _ => return Ok(()),
                }
            }
            line = feed.recv() => {
                let Some(line) = line else { return Ok(()) };
                say(&mut write, &line).await?;
            }
        }
    }
}

// ---- lines -------------------------------------------------------------------------------------

/// A stream of bytes in both directions.
pub trait Socket: AsyncRead + AsyncWrite + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Socket for S {}

type Reader<S> = Lines<BufReader<Take<ReadHalf<S>>>>;

fn lines<S: Socket>(socket: S) -> (Reader<S>, WriteHalf<S>) {
    let (read, write) = tokio::io::split(socket);
    (BufReader::new(read.take(MAX_LINE)).lines(), write)
}

/// The next line; a longer one than allowed reads as the end. Nothing is lost when the future is
/// dropped.
async fn next(lines: &mut Reader<impl Socket>) -> io::Result<Option<String>> {
    let line = lines.next_line().await?;
    lines.get_mut().get_mut().set_limit(MAX_LINE);
    Ok(line)
}

async fn say(write: &mut WriteHalf<impl Socket>, line: &str) -> io::Result<()> {
    timeout(DEADLINE, write.write_all(line.as_bytes())).await?
}

fn name(channel: &Channel) -> String {
    let mut bytes = Vec::new();
    channel.signed_bytes(&mut bytes);
    hex(&bytes)
}

fn parse(name: &str) -> Option<Channel> {
    Channel::from_signed_bytes(&unhex(name)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let bytes = (0..text.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

// ---- the same hello as over any other transport ------------------------------------------------

/// What may go wrong.
pub type Failure = Box<dyn std::error::Error>;

async fn client(name: &str, broker: SocketAddr) -> Result<Client, Failure> {
    let identity = Identity::new(UserId::new(name)?, keyfile::generate()?);
    let builder = Client::builder(identity).store(MemoryStore::new());
    Ok(builder.transport(LineConnector { broker }).open().await?)
}

/// Says hello over the broker.
///
/// # Errors
/// What stood in the way.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let broker = listener.local_addr()?;
    let broker_task = tokio::spawn(serve(listener));
    let (alice, bob) = (client("alice", broker).await?, client("bob", broker).await?);

    let mut events = bob.events().await?;
    let request = alice.request("bob").note("over lines").send().await?;
    while let Some(event) = events.next().await {
        match event {
            Event::Request(asked) => {
                println!("{} asks: {}", asked.peer(), asked.note());
                asked.accept().await?;
                let sent = request.accepted().await?.send("hello").await?;
                sent.until(Ack::Delivered).await?;
                break;
            }
            _ => continue,
        }
    }
    println!("bob has it");
    alice.shutdown(Duration::from_secs(1)).await?;
    bob.shutdown(Duration::from_secs(1)).await?;
    broker_task.abort();
    Ok(())
}
