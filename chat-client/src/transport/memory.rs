//! A broker inside the process, for tests, documentation and programs that need no network.
//!
//! It keeps a durable mailbox per (user, device), last values and last wills, waits for manual
//! acknowledgement and marks the end of a backlog. It starts no task, opens no socket and reads no
//! clock: the same calls in the same order give the same deliveries. Faults are switched on by
//! [`MemoryBroker::cut`] and its neighbours.

use core::fmt;
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chat_core::Will;
use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, UserId};
use chat_core::link::DownReason;

use super::{
    Capabilities, ConnectOptions, Connector, Handle, Inbound, Mailbox, Outbound, SendOutcome,
    Transport, TransportError,
};

/// What the in-process broker can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    name: "memory",
    broker_ack: true,
    reason_codes: true,
    no_receiver_hint: true,
    manual_ack: true,
    mailbox: Mailbox::Bounded,
    last_will: true,
    last_value: true,
    backlog_marker: true,
    dedup: false,
    ttl: false,
    no_echo: true,
    acl_subscribe: false,
    acl_publish: false,
    cas: false,
    max_frame: 256 * 1024,
};

/// Frames that one mailbox keeps; the oldest is dropped for the next, and a `Gap` says so.
const MAX_STORED: usize = 10_000;
/// Answers and ephemeral frames waiting for one connection: ephemeral ones are dropped beyond it,
/// and a client with that many unread answers may not send.
const MAX_QUEUED: usize = 1_024;

/// The broker. Clones are the same broker.
#[derive(Clone, Default)]
pub struct MemoryBroker(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    conns: BTreeMap<u64, Conn>,
    boxes: BTreeMap<(UserId, DeviceId), Stored>,
    last: BTreeMap<Channel, Bytes>,
    next: u64,
    offline: BTreeSet<UserId>,
    stalled: BTreeSet<UserId>,
    drop_next: u64,
    down: bool,
}

struct Conn {
    me: (UserId, DeviceId),
    queue: VecDeque<Inbound>,
    will: Option<Will>,
    /// Stored frames up to this id were handed to this connection.
    read: u64,
    marker_due: bool,
    end: Option<DownReason>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Stored {
    channels: BTreeSet<Channel>,
    frames: BTreeMap<u64, (Channel, Bytes)>,
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts every connection of `user`, as a dead network does: last wills are published, mailboxes
    /// stay. The user may connect again at once.
    pub fn cut(&self, user: &UserId) {
        self.state()
            .end(DownReason::Lost, |conn| conn.me.0 == *user);
    }

    /// Cuts every connection of `user` and refuses new ones until [`Self::online`].
    pub fn offline(&self, user: &UserId) {
        let mut state = self.state();
        state.offline.insert(user.clone());
        state.end(DownReason::Lost, |conn| conn.me.0 == *user);
    }

    /// Lets `user` connect again.
    pub fn online(&self, user: &UserId) {
        self.state().offline.remove(user);
    }

    /// Says `reason` to every connection of `user` and ends it.
    pub fn refuse(&self, user: &UserId, reason: &str) {
        self.state()
            .end(DownReason::Refused(reason.to_owned()), |conn| {
                conn.me.0 == *user
            });
    }

    /// Delivers nothing more to `user` and takes nothing from it, with the connection up, until
    /// [`Self::resume`].
    pub fn stall(&self, user: &UserId) {
        self.state().stalled.insert(user.clone());
    }

    /// Ends [`Self::stall`].
    pub fn resume(&self, user: &UserId) {
        let mut state = self.state();
        state.stalled.remove(user);
        state.wake_all();
    }

    /// Acknowledges the next `frames` published frames and loses them.
    pub fn drop_next(&self, frames: u64) {
        self.state().drop_next = frames;
    }

    /// The broker dies: connections end without last wills, mailboxes, subscriptions and last
    /// values are forgotten, and nobody connects until [`Self::restart`].
    pub fn kill(&self) {
        let mut state = self.state();
        for conn in state.conns.values_mut() {
            conn.will = None;
        }
        state.end(DownReason::Lost, |_| true);
        state.boxes.clear();
        state.last.clear();
        state.down = true;
    }

    /// Ends [`Self::kill`].
    pub fn restart(&self) {
        self.state().down = false;
    }

    /// The broker goes down and comes back over its disk: connections end without last wills, and
    /// what is stored stays.
    pub fn bounce(&self) {
        let mut state = self.state();
        for conn in state.conns.values_mut() {
            conn.will = None;
        }
        state.end(DownReason::Lost, |_| true);
    }

    /// How many unacknowledged frames are kept for a device.
    pub fn stored(&self, user: &UserId, device: DeviceId) -> usize {
        let state = self.state();
        let stored = state.boxes.get(&(user.clone(), device));
        stored.map_or(0, |stored| stored.frames.len())
    }

    /// How many connections are up.
    pub fn connections(&self) -> usize {
        self.state().conns.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Connector for MemoryBroker {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        let mut state = self.state();
        if state.down || state.offline.contains(&options.user) {
            return Err(TransportError::lost());
        }
        let me = (options.user, options.device);
        state.end(DownReason::Conflict, |conn| conn.me == me);
        let resumed = state.boxes.contains_key(&me);
        state.boxes.entry(me.clone()).or_default();
        let id = state.next_id();
        let up = Inbound::Up {
            resumed,
            max_frame: CAPABILITIES.max_frame,
        };
        let conn = Conn {
            me,
            queue: VecDeque::from([up]),
            will: options.will,
            read: 0,
            marker_due: resumed,
            end: None,
            waker: None,
        };
        state.conns.insert(id, conn);
        Ok(Box::new(MemoryTransport {
            broker: self.clone(),
            id,
        }))
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn wake_all(&mut self) {
        for conn in self.conns.values_mut() {
            conn.wake();
        }
    }

    /// Ends connections and publishes their wills.
    fn end(&mut self, reason: DownReason, which: impl Fn(&Conn) -> bool) {
        let mut wills = Vec::new();
        for conn in self.conns.values_mut() {
            if conn.end.is_none() && which(conn) {
                conn.end = Some(reason.clone());
                conn.queue.clear();
                conn.wake();
                wills.extend(conn.will.take().map(|will| (conn.me.clone(), will)));
            }
        }
        for (me, will) in wills {
            self.publish(&me, &will.channel, &will.bytes, Class::Ephemeral, true);
        }
    }

    /// Delivers to every subscribed device but the publishing one; false when there is none.
    fn publish(
        &mut self,
        from: &(UserId, DeviceId),
        channel: &Channel,
        bytes: &Bytes,
        class: Class,
        last_value: bool,
    ) -> bool {
        if self.drop_next > 0 {
            self.drop_next -= 1;
            return true;
        }
        if last_value {
            self.last.insert(channel.clone(), bytes.clone());
        }
        let id = self.next_id();
        let mut received = false;
        for (device, stored) in &mut self.boxes {
            if device == from || !stored.channels.contains(channel) {
                continue;
            }
            let conn = self
                .conns
                .values_mut()
                .find(|conn| conn.me == *device && conn.end.is_none());
            match class {
                Class::Durable => {
                    received = true;
                    stored.frames.insert(id, (channel.clone(), bytes.clone()));
                    let lost = (stored.frames.len() > MAX_STORED)
                        .then(|| stored.frames.pop_first())
                        .flatten();
                    if let Some(conn) = conn {
                        if let Some((_, (lost, _))) = lost {
                            conn.queue.push_back(Inbound::Gap(lost));
                        }
                        conn.wake();
                    }
                }
                _ => {
                    let Some(conn) = conn else { continue };
                    received = true;
                    if conn.queue.len() < MAX_QUEUED {
                        conn.queue.push_back(Inbound::Received {
                            channel: channel.clone(),
                            bytes: bytes.clone(),
                            handle: None,
                            live: true,
                        });
                        conn.wake();
                    }
                }
            }
        }
        received
    }

    fn handle(&mut self, id: u64, item: Outbound) {
        let Some(me) = self.conns.get(&id).map(|conn| conn.me.clone()) else {
            return;
        };
        match item {
            Outbound::Send {
                token,
                channel,
                bytes,
                class,
                last_value,
                ..
            } => {
                let outcome = if bytes.len() > CAPABILITIES.max_frame {
                    SendOutcome::too_large("the frame is too large")
                } else if self.publish(&me, &channel, &bytes, class, last_value) {
                    SendOutcome::Accepted
                } else {
                    SendOutcome::NoReceiver
                };
                self.answer(id, Inbound::Sent { token, outcome });
            }
            Outbound::Subscribe(channel) => {
                if let Some(stored) = self.boxes.get_mut(&me) {
                    stored.channels.insert(channel.clone());
                }
                let last = self.last.get(&channel).cloned();
                let subscribed = Inbound::Subscribed {
                    channel: channel.clone(),
                    granted: true,
                };
                self.answer(id, subscribed);
                if let Some(bytes) = last {
                    let received = Inbound::Received {
                        channel,
                        bytes,
                        handle: None,
                        live: false,
                    };
                    self.answer(id, received);
                }
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.marker_due = true;
                }
            }
            Outbound::Unsubscribe(channel) => {
                if let Some(stored) = self.boxes.get_mut(&me) {
                    stored.channels.remove(&channel);
                    stored.frames.retain(|_, (stored, _)| *stored != channel);
                }
            }
            Outbound::Ack(Handle(frame)) => {
                let read = self.conns.get(&id).map_or(0, |conn| conn.read);
                if frame <= read
                    && let Some(stored) = self.boxes.get_mut(&me)
                {
                    stored.frames.remove(&frame);
                }
            }
        }
    }

    fn answer(&mut self, id: u64, item: Inbound) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.queue.push_back(item);
            conn.wake();
        }
    }

    fn next_for(&mut self, id: u64) -> Option<Result<Inbound, TransportError>> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Some(Err(TransportError::lost()));
        };
        if let Some(reason) = &conn.end {
            return Some(Err(TransportError::new(reason.clone())));
        }
        if self.stalled.contains(&conn.me.0) {
            return None;
        }
        if let Some(item) = conn.queue.pop_front() {
            return Some(Ok(item));
        }
        let stored = self.boxes.get(&conn.me)?;
        if let Some((frame, (channel, bytes))) = stored.frames.range(conn.read + 1..).next() {
            conn.read = *frame;
            return Some(Ok(Inbound::Received {
                channel: channel.clone(),
                bytes: bytes.clone(),
                handle: Some(Handle(*frame)),
                live: true,
            }));
        }
        core::mem::take(&mut conn.marker_due).then_some(Ok(Inbound::CaughtUp))
    }
}

impl Conn {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct MemoryTransport {
    broker: MemoryBroker,
    id: u64,
}

impl Transport for MemoryTransport {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>> {
        let mut state = self.broker.state();
        if let Some(item) = state.next_for(self.id) {
            return Poll::Ready(item);
        }
        if let Some(conn) = state.conns.get_mut(&self.id) {
            conn.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut state = self.broker.state();
        let State { conns, stalled, .. } = &mut *state;
        let Some(conn) = conns.get_mut(&self.id) else {
            return Poll::Ready(Err(TransportError::lost()));
        };
        if let Some(reason) = &conn.end {
            return Poll::Ready(Err(TransportError::new(reason.clone())));
        }
        if conn.queue.len() >= MAX_QUEUED || stalled.contains(&conn.me.0) {
            conn.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError> {
        self.broker.state().handle(self.id, item);
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if let Some(conn) = self.broker.state().conns.get_mut(&self.id) {
            conn.will = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let mut state = self.broker.state();
        let Some(conn) = state.conns.remove(&self.id) else {
            return;
        };
        if let Some(will) = conn.will {
            state.publish(&conn.me, &will.channel, &will.bytes, Class::Ephemeral, true);
        }
    }
}

#[cfg(test)]
mod tests;
