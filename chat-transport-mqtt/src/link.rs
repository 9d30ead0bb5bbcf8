//! One open connection: a task in which a reader, a writer and a teller run side by side.
//!
//! The reader never publishes and never waits for the writer; the writer never waits for the
//! application. Guarantees (the ten rules of `chat_client::transport`):
//! - a frame is published once, and its token answered once or not at all (2, 3, 7): everything
//!   that is known of a connection goes with it;
//! - handles are unique in the process, so an acknowledgement of another connection is none (4);
//! - whatever the broker owes has a deadline, as has every write (5). The clock of the broker's
//!   debts stands still while the application reads nothing, because we do not read either;
//! - what is not ours, or too large, is acknowledged, counted and dropped (9), so that it cannot
//!   come again and again.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use chat_client::transport::{
    Handle, Inbound, InboundHalf, Outbound, OutboundHalf, SendOutcome, Token, TransportError,
};
use chat_core::channel::{Channel, Class};
use chat_core::id::UserId;
use chat_core::link::DownReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connector::{Lasting, Settings};
use crate::dial::Carrier;
use crate::packet::{Codec, Id, Packet, Publish};
use crate::recent::{Addresses, Channels};
use crate::topic::Topics;
use crate::window::{Asked, Window};
use crate::{MAX_FRAME, Version};

const READ_BYTES: usize = 4 * 1024;
/// Packets are gathered up to this before they are written.
const BATCH_BYTES: usize = 16 * 1024;
/// Fates of frames at most once that the client has not read yet.
const MAX_TOLD: usize = 256;
/// Foreign packets whose acknowledgement waits for a slow socket. More and the broker is no broker.
const MAX_FOREIGN: usize = 4_096;
/// Deliveries that the client has not acknowledged: as many as there are packet ids.
const MAX_UNACKED: usize = 65_535;
/// The broker closes after our DISCONNECT within this.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Handles are unique in the process, so one of an older connection is never mistaken for ours.
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

/// What was agreed with the broker.
pub(crate) struct Limits {
    pub(crate) resumed: bool,
    pub(crate) max_frame: usize,
    pub(crate) in_flight: u16,
    /// Topics that may be named by a number.
    pub(crate) aliases: u16,
    /// Seconds.
    pub(crate) keep_alive: u16,
    /// It keeps last values.
    pub(crate) retain: bool,
    pub(crate) came_up: Instant,
}

/// Whose connection it is.
pub(crate) struct Me {
    pub(crate) user: UserId,
    pub(crate) client_id: String,
}

/// Why a connection is over.
enum End {
    /// The client dropped it.
    Dropped,
    /// The client closed it in good order.
    Closed,
    /// The broker closed the socket without a reason.
    Cut,
    /// For a reason.
    For(TransportError),
}

fn silent(what: &str) -> End {
    tracing::debug!(what, "the broker does not answer");
    End::For(TransportError::lost())
}

pub(crate) struct Link {
    topics: Topics,
    version: Version,
    me: Me,
    limits: Limits,
    keep_alive: Duration,
    reply_timeout: Duration,
    lasting: Arc<Lasting>,
    inbound: InboundHalf,
    state: Mutex<State>,
    /// For the writer: room, an acknowledgement, or other deadlines.
    to_write: Notify,
    to_tell: Notify,
}

struct State {
    window: Window,
    /// Handle → packet id.
    unacked: BTreeMap<u64, Id>,
    /// To acknowledge without the client.
    foreign: Vec<Id>,
    told: VecDeque<(Token, SendOutcome)>,
    heard: Instant,
    /// The reader waits for the client.
    blocked: bool,
    /// When the broker's debts are due at the earliest, after the reader waited.
    not_before: Instant,
    closing: bool,
}

impl Link {
    pub(crate) fn new(
        settings: &Settings,
        lasting: Arc<Lasting>,
        me: Me,
        limits: Limits,
        inbound: InboundHalf,
    ) -> Self {
        let state = State {
            window: Window::new(limits.in_flight, settings.reply_timeout),
            unacked: BTreeMap::new(),
            foreign: Vec::new(),
            told: VecDeque::new(),
            heard: limits.came_up,
            blocked: false,
            not_before: limits.came_up,
            closing: false,
        };
        Self {
            topics: settings.topics.clone(),
            version: settings.version,
            me,
            keep_alive: Duration::from_secs(limits.keep_alive.into()),
            limits,
            reply_timeout: settings.reply_timeout,
            lasting,
            inbound,
            state: Mutex::new(state),
            to_write: Notify::new(),
            to_tell: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(
        self,
        carrier: Carrier,
        rest: BytesMut,
        reading: Codec,
        outbound: OutboundHalf,
    ) {
        let up = Inbound::Up {
            resumed: self.limits.resumed,
            max_frame: self.limits.max_frame,
        };
        let (read, write) = tokio::io::split(carrier);
        let end = match self.inbound.send_inbound(up).await {
            Err(_) => End::Dropped,
            Ok(()) => tokio::select! {
                biased;
                () = self.inbound.dropped() => End::Dropped,
                end = self.read(read, rest, reading) => end,
                end = self.write(write, outbound) => end,
                end = self.tell() => end,
            },
        };
        if let Some(error) = self.judge(end) {
            self.inbound.fail(error).await;
        }
    }

    /// What the client is told of an end, if anything.
    fn judge(&self, end: End) -> Option<TransportError> {
        let mut takeovers = (self.lasting.takeovers)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match end {
            End::Cut => {
                let Limits {
                    resumed, came_up, ..
                } = self.limits;
                takeovers.closed(&self.me.client_id, resumed, came_up, Instant::now());
                Some(TransportError::lost())
            }
            End::For(error) => {
                takeovers.unlike(&self.me.client_id);
                Some(error)
            }
            End::Dropped | End::Closed => {
                takeovers.unlike(&self.me.client_id);
                None
            }
        }
    }

    // The reader.

    async fn read(&self, mut half: ReadHalf<Carrier>, mut buf: BytesMut, mut codec: Codec) -> End {
        let mut channels = Channels::default();
        loop {
            loop {
                let packet = match codec.next(&mut buf) {
                    Ok(Some(packet)) => packet,
                    Ok(None) => break,
                    Err(error) => return End::For(error.into()),
                };
                if let Err(end) = self.handle(packet, &mut channels).await {
                    return end;
                }
            }
            buf.reserve(READ_BYTES);
            match half.read_buf(&mut buf).await {
                Ok(1..) => self.state().heard = Instant::now(),
                other => return self.over(other.err()),
            }
        }
    }

    fn over(&self, error: Option<io::Error>) -> End {
        tracing::debug!(?error, "the connection to the broker ended");
        if self.state().closing {
            End::Closed
        } else if error.is_some() {
            // The network broke it: a broker that gives the session to somebody else closes it.
            End::For(TransportError::lost())
        } else {
            End::Cut
        }
    }

    async fn handle(&self, packet: Packet, channels: &mut Channels) -> Result<(), End> {
        match packet {
            Packet::Publish {
                topic,
                payload,
                id,
                retained,
            } => {
                let channel = self.channel(&topic, channels);
                self.handle_publish(channel, payload, id, retained).await
            }
            Packet::Oversize(id) => self.drop_foreign(id),
            Packet::PubAck(id, outcome) => {
                let (waits, token) = {
                    let mut state = self.state();
                    (!state.window.has_room(), state.window.frame(id))
                };
                let Some(token) = token else {
                    return Ok(());
                };
                if waits {
                    self.to_write.notify_one();
                }
                self.deliver(Inbound::Sent { token, outcome }).await
            }
            Packet::SubAck(id, granted) => {
                let channel = self.state().window.subscribe(id);
                let Some(channel) = channel else {
                    return Ok(());
                };
                self.to_write.notify_one();
                self.deliver(Inbound::Subscribed { channel, granted }).await
            }
            Packet::UnsubAck(id) => {
                if self.state().window.unsubscribe(id) {
                    self.to_write.notify_one();
                }
                Ok(())
            }
            Packet::Pong => Ok(()),
            Packet::Closing(error) => Err(End::For(error)),
        }
    }

    fn channel(&self, topic: &[u8], channels: &mut Channels) -> Option<Channel> {
        if let Some(channel) = channels.known(topic) {
            return Some(channel);
        }
        let hashed = (self.lasting.hashed)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let channel = self.topics.channel(topic, &hashed)?;
        channels.learn(topic, &channel);
        Some(channel)
    }

    async fn handle_publish(
        &self,
        channel: Option<Channel>,
        bytes: Bytes,
        id: Option<Id>,
        retained: bool,
    ) -> Result<(), End> {
        let Some(channel) = channel.filter(|_| bytes.len() <= MAX_FRAME) else {
            return self.drop_foreign(id);
        };
        let received = Inbound::Received {
            channel,
            bytes,
            handle: id.map(|id| self.handle_for(id)),
            live: !retained,
        };
        if id.is_some() || retained {
            return self.deliver(received).await;
        }
        match self.inbound.offer(received) {
            Ok(_) => Ok(()),
            Err(_) => Err(End::Dropped),
        }
    }

    fn handle_for(&self, id: Id) -> Handle {
        let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if state.unacked.len() >= MAX_UNACKED {
            state.unacked.pop_first();
        }
        state.unacked.insert(handle, id);
        Handle(handle)
    }

    fn drop_foreign(&self, id: Option<Id>) -> Result<(), End> {
        self.lasting.dropped.fetch_add(1, Ordering::Relaxed);
        let Some(id) = id else {
            return Ok(());
        };
        let mut state = self.state();
        if state.foreign.len() >= MAX_FOREIGN {
            let text = "the broker floods us with what we did not ask for".to_owned();
            return Err(End::For(TransportError::new(DownReason::Other(text))));
        }
        state.foreign.push(id);
        drop(state);
        self.to_write.notify_one();
        Ok(())
    }

    /// Hands one up. While that waits for the client, the broker owes nothing.
    async fn deliver(&self, item: Inbound) -> Result<(), End> {
        let mut sending = pin!(self.inbound.send_inbound(item));
        let first = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
        let sent = match first {
            Poll::Ready(sent) => sent,
            Poll::Pending => {
                self.state().blocked = true;
                let sent = sending.await;
                let mut state = self.state();
                state.blocked = false;
                state.not_before = Instant::now() + self.reply_timeout;
                drop(state);
                self.to_write.notify_one();
                sent
            }
        };
        sent.map_err(|_| End::Dropped)
    }

    // The teller.

    async fn tell(&self) -> End {
        loop {
            let (waits, next) = {
                let mut state = self.state();
                (state.told.len() >= MAX_TOLD, state.told.pop_front())
            };
            let Some((token, outcome)) = next else {
                self.to_tell.notified().await;
                continue;
            };
            if waits {
                self.to_write.notify_one();
            }
            if self
                .inbound
                .send_inbound(Inbound::Sent { token, outcome })
                .await
                .is_err()
            {
                return End::Dropped;
            }
        }
    }

    fn told(&self, token: Token, outcome: SendOutcome) {
        let mut state = self.state();
        let item = Inbound::Sent { token, outcome };
        let item = match state.told.is_empty() {
            true => self.inbound.try_send_inbound(item),
            false => Ok(Some(item)),
        };
        // Where the client has gone, nobody is to be told.
        if let Ok(Some(Inbound::Sent { token, outcome })) = item {
            state.told.push_back((token, outcome));
            self.to_tell.notify_one();
        }
    }

    // The writer.

    async fn write(&self, mut half: WriteHalf<Carrier>, mut outbound: OutboundHalf) -> End {
        let codec = Codec::new(self.version, 0);
        let mut addresses = Addresses::new(self.limits.aliases);
        let mut out = BytesMut::new();
        let mut unwritten = Vec::new();
        let mut wrote = Instant::now();
        let mut ping: Option<Instant> = None;
        loop {
            let item = tokio::select! {
                biased;
                () = self.to_write.notified() => None,
                () = sleep_until(self.next_check(wrote, ping)) => None,
                item = outbound.recv_outbound(), if self.has_room() => match item {
                    Some(item) => Some(item),
                    None => return self.farewell(&mut half, &codec).await,
                },
            };
            for id in core::mem::take(&mut self.state().foreign) {
                codec.puback(id, &mut out);
            }
            let mut next = item;
            while let Some(item) = next {
                let started = self.start(item, &codec, &mut addresses, &mut out, &mut unwritten);
                if let Err(end) = started {
                    return end;
                }
                let more = out.len() < BATCH_BYTES && self.has_room();
                next = if more {
                    outbound.try_recv_outbound()
                } else {
                    None
                };
            }
            match self.check(wrote, ping) {
                Ok(true) => {
                    codec.ping(&mut out);
                    ping = Some(Instant::now());
                }
                Ok(false) => {}
                Err(end) => return end,
            }
            if out.is_empty() {
                continue;
            }
            if let Err(end) = self.put(&mut half, &out).await {
                return end;
            }
            wrote = Instant::now();
            out.clear();
            for token in unwritten.drain(..) {
                self.told(token, SendOutcome::Accepted);
            }
        }
    }

    fn has_room(&self) -> bool {
        let state = self.state();
        state.window.has_room() && state.told.len() < MAX_TOLD
    }

    async fn put(&self, half: &mut WriteHalf<Carrier>, bytes: &[u8]) -> Result<(), End> {
        let written = timeout(self.reply_timeout, async {
            half.write_all(bytes).await?;
            half.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.over(Some(error))),
            Err(_) => Err(silent("it takes nothing more")),
        }
    }

    /// Encodes one. `unwritten` are tokens that are answered once written.
    fn start(
        &self,
        item: Outbound,
        codec: &Codec,
        addresses: &mut Addresses,
        out: &mut BytesMut,
        unwritten: &mut Vec<Token>,
    ) -> Result<(), End> {
        let now = Instant::now();
        match item {
            Outbound::Send { token, bytes, .. } if bytes.len() > self.limits.max_frame => {
                let (len, max) = (bytes.len(), self.limits.max_frame);
                let text = format!("the frame has {len} bytes, the broker takes {max}");
                self.told(token, SendOutcome::too_large(text));
            }
            Outbound::Send {
                token,
                channel,
                bytes,
                class,
                last_value,
                ..
            } => {
                let id = match class {
                    Class::Ephemeral => {
                        unwritten.push(token);
                        None
                    }
                    _ => Some(self.state().window.ask(Asked::Frame(token), now)),
                };
                if last_value && channel == Channel::Presence(self.me.user.clone()) {
                    (self.lasting.takeovers)
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .said(&self.me.client_id, bytes.clone());
                }
                let topic = || self.topics.topic(&channel, &self.me.user);
                let publish = Publish {
                    address: addresses.of(&channel, topic),
                    payload: bytes,
                    id,
                    retain: last_value && self.limits.retain,
                };
                codec.publish(publish, out);
            }
            Outbound::Subscribe(channel) => {
                (self.lasting.hashed)
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .learn(&channel);
                let filter = self.topics.filter(&channel);
                let id = self.state().window.ask(Asked::Subscribe(channel), now);
                codec.subscribe(id, &filter, out);
            }
            Outbound::Unsubscribe(channel) => {
                let id = self.state().window.ask(Asked::Unsubscribe, now);
                codec.unsubscribe(id, &self.topics.filter(&channel), out);
            }
            Outbound::Ack(handle) => {
                let id = self.state().unacked.remove(&handle.0);
                if let Some(id) = id {
                    codec.puback(id, out);
                }
            }
            other => {
                let text = format!("this transport does not know {other:?}");
                return Err(End::For(TransportError::new(DownReason::Other(text))));
            }
        }
        Ok(())
    }

    /// When [`Self::check`] has something to do.
    fn next_check(&self, wrote: Instant, ping: Option<Instant>) -> Instant {
        let state = self.state();
        if state.blocked {
            return wrote + self.keep_alive;
        }
        let ping = match ping.filter(|ping| state.heard < *ping) {
            Some(ping) => (ping + self.reply_timeout).max(state.not_before),
            None => wrote.min(state.heard) + self.keep_alive,
        };
        let answer = state.window.due().map(|due| due.max(state.not_before));
        answer.map_or(ping, |answer| answer.min(ping))
    }

    /// Whether a ping is due; an error when the broker owes something for too long.
    fn check(&self, wrote: Instant, ping: Option<Instant>) -> Result<bool, End> {
        let now = Instant::now();
        let state = self.state();
        if state.blocked {
            return Ok(now >= wrote + self.keep_alive);
        }
        if now >= state.not_before {
            if state.window.due().is_some_and(|due| due <= now) {
                return Err(silent("an acknowledgement is missing"));
            }
            let open = ping.filter(|ping| state.heard < *ping);
            if open.is_some_and(|ping| ping + self.reply_timeout <= now) {
                return Err(silent("a ping was not answered"));
            }
        }
        let open = ping.is_some_and(|ping| state.heard < ping);
        Ok(!open && now >= wrote.min(state.heard) + self.keep_alive)
    }

    /// Says goodbye, so that the will is discarded, and gives the broker time to close.
    async fn farewell(&self, half: &mut WriteHalf<Carrier>, codec: &Codec) -> End {
        self.state().closing = true;
        let mut out = BytesMut::new();
        for id in core::mem::take(&mut self.state().foreign) {
            codec.puback(id, &mut out);
        }
        codec.disconnect(&mut out);
        if let Err(end) = self.put(half, &out).await {
            return end;
        }
        // The reader sees the end; closing before would discard what the broker has not read yet.
        sleep(CLOSE_TIMEOUT).await;
        End::Closed
    }
}
