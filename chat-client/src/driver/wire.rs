//! The connection side of the driver: one ordered queue of what must go out, and the transport.
//!
//! The queue keeps the core's order; its head waits for rows that must be durable first. It ends
//! with its connection: what was on the way has an unknown fate, and the core repeats it.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, UserId};
use chat_core::link::DownReason;
use chat_core::{PersistId, Transmit, TransmitId, Will};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::pipeline::Pipeline;
use crate::transport::{
    ConnectOptions, Connector, FencingLeases, Handle, Inbound, Outbound, Token, Transport,
    TransportError,
};

/// Frames that wait for a slow transport: beyond the first bound ephemeral frames are dropped,
/// beyond the second all, and their machines repeat them. Receiving goes on, so that two peers
/// that both write cannot block each other.
const MAX_EPHEMERAL: usize = 1_024;
const MAX_QUEUED: usize = 4_096;
/// Frames whose fate the transport owes; no more are handed over at the bound.
const MAX_IN_FLIGHT: usize = 4_096;
/// An orderly end that takes longer is cut short.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) enum Item {
    Transmit(Transmit),
    Subscribe(Channel),
    Unsubscribe(Channel),
    Ack(Handle, Option<PersistId>),
    Connect(Option<Will>),
    Disconnect,
}

enum Conn {
    Idle,
    Opening(Opening),
    Up(Box<dyn Transport>),
    Closing(Box<dyn Transport>, Pin<Box<Sleep>>),
}

/// A connection attempt in a task of its own: polling it never runs a client library's connect
/// inside the driver, and dropping it stops it.
struct Opening(JoinHandle<Result<Box<dyn Transport>, TransportError>>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) struct Wire {
    connector: Arc<dyn Connector>,
    user: UserId,
    device: DeviceId,
    queue: VecDeque<Item>,
    conn: Conn,
    in_flight: BTreeSet<TransmitId>,
    unflushed: bool,
    /// A disconnect is queued: nothing of this connection is of interest any more, and an
    /// acknowledgement of its deliveries must not reach the next one.
    ending: bool,
    dropped: u64,
}

impl Wire {
    pub(super) fn new(connector: Arc<dyn Connector>, user: UserId, device: DeviceId) -> Self {
        Self {
            connector,
            user,
            device,
            queue: VecDeque::new(),
            conn: Conn::Idle,
            in_flight: BTreeSet::new(),
            unflushed: false,
            ending: false,
            dropped: 0,
        }
    }

    pub(super) fn marks_backlog(&self) -> bool {
        self.connector.capabilities().backlog_marker
    }

    /// The leases of the connection, if its broker grants any.
    pub(super) fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        match &self.conn {
            Conn::Up(transport) => transport.leases(),
            _ => None,
        }
    }

    /// Frames dropped because the transport took none.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn push(&mut self, item: Item) {
        if let Item::Transmit(transmit) = &item {
            let bound = match transmit.class {
                Class::Ephemeral => MAX_EPHEMERAL,
                _ => MAX_QUEUED,
            };
            if self.queue.len() >= bound {
                self.dropped += 1;
                return;
            }
        }
        self.ending |= matches!(item, Item::Disconnect);
        self.queue.push_back(item);
    }

    /// False when acknowledgements pile up: a delivery more would queue one more.
    pub(super) fn may_receive(&self) -> bool {
        self.queue.len() < 2 * MAX_QUEUED
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < MAX_EPHEMERAL
    }

    /// Nothing waits to be written, and no fate is owed.
    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && !self.unflushed
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.conn, Conn::Idle) && self.queue.is_empty()
    }

    /// Forgets a token; false when it is not in flight.
    pub(super) fn resolve(&mut self, token: Token) -> Option<TransmitId> {
        let id = TransmitId(token.0);
        self.in_flight.remove(&id).then_some(id)
    }

    /// Writes what may be written. `Ok(true)` when something moved.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        rows: &Pipeline,
    ) -> Result<bool, TransportError> {
        let result = self.send_queue(cx, rows);
        if result.is_err() {
            self.forget();
        }
        result
    }

    fn send_queue(
        &mut self,
        cx: &mut Context<'_>,
        rows: &Pipeline,
    ) -> Result<bool, TransportError> {
        let mut moved = self.poll_opening(cx)?;
        moved |= self.poll_closing(cx);
        while !matches!(self.conn, Conn::Closing(..)) {
            let Some(head) = self.queue.front() else {
                break;
            };
            let after = match head {
                Item::Transmit(transmit) => transmit.after,
                Item::Ack(_, after) => *after,
                _ => None,
            };
            if !rows.is_durable(after) {
                break;
            }
            if !matches!(head, Item::Connect(_) | Item::Disconnect)
                && let Conn::Up(transport) = &mut self.conn
            {
                let full = self.in_flight.len() >= MAX_IN_FLIGHT;
                if full || transport.poll_ready(cx)?.is_pending() {
                    break;
                }
            }
            let Some(item) = self.queue.pop_front() else {
                break;
            };
            self.start(item)?;
            moved = true;
        }
        if let Conn::Up(transport) = &mut self.conn
            && self.unflushed
            && transport.poll_flush(cx)?.is_ready()
        {
            self.unflushed = false;
        }
        // A disconnect at the end of the queue is polled at once, to register its wakers.
        moved |= self.poll_closing(cx);
        Ok(moved)
    }

    fn start(&mut self, item: Item) -> Result<(), TransportError> {
        let item = match item {
            Item::Connect(will) => {
                self.end_connection();
                let connector = self.connector.clone();
                let options = ConnectOptions::new(self.user.clone(), self.device, will);
                let task = tokio::spawn(async move { connector.connect(options).await });
                self.conn = Conn::Opening(Opening(task));
                return Ok(());
            }
            Item::Disconnect => {
                let conn = core::mem::replace(&mut self.conn, Conn::Idle);
                self.end_connection();
                if let Conn::Up(transport) = conn {
                    let deadline = tokio::time::sleep(CLOSE_TIMEOUT);
                    self.conn = Conn::Closing(transport, Box::pin(deadline));
                }
                return Ok(());
            }
            Item::Transmit(transmit) => {
                self.in_flight.insert(transmit.id);
                Outbound::Send {
                    token: Token(transmit.id.0),
                    channel: transmit.channel,
                    bytes: transmit.bytes,
                    class: transmit.class,
                    ttl: transmit.ttl,
                    last_value: transmit.last_value,
                    dedup: transmit.dedup,
                }
            }
            Item::Subscribe(channel) => Outbound::Subscribe(channel),
            Item::Unsubscribe(channel) => Outbound::Unsubscribe(channel),
            Item::Ack(handle, _) => Outbound::Ack(handle),
        };
        // Without a connection the item is void: the core repeats it after the next one is up.
        let Conn::Up(transport) = &mut self.conn else {
            self.in_flight.clear();
            return Ok(());
        };
        self.unflushed = true;
        transport.start_send(item)
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Result<bool, TransportError> {
        let Conn::Opening(Opening(task)) = &mut self.conn else {
            return Ok(false);
        };
        let Poll::Ready(result) = Pin::new(task).poll(cx) else {
            return Ok(false);
        };
        let opened = result.unwrap_or_else(|panic| {
            let words = format!("the connector failed: {panic}");
            Err(TransportError::new(DownReason::Other(words)))
        });
        self.conn = Conn::Up(opened?);
        Ok(true)
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> bool {
        let Conn::Closing(transport, deadline) = &mut self.conn else {
            return false;
        };
        // How a connection ends that nobody wants any more is of no interest.
        let done = transport.poll_close(cx).is_ready() || deadline.as_mut().poll(cx).is_ready();
        if done {
            self.end_connection();
        }
        done
    }

    /// The next thing that came up.
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Inbound, TransportError>> {
        let (Conn::Up(transport), false) = (&mut self.conn, self.ending) else {
            return Poll::Pending;
        };
        let polled = transport.poll_recv(cx);
        if let Poll::Ready(Err(_)) = polled {
            self.forget();
        }
        polled
    }

    /// The connection is over, and with it everything that was meant for it.
    fn forget(&mut self) {
        self.end_connection();
        self.queue
            .retain(|item| matches!(item, Item::Connect(_) | Item::Disconnect));
    }

    fn end_connection(&mut self) {
        self.conn = Conn::Idle;
        self.in_flight.clear();
        self.unflushed = false;
        self.ending = false;
    }
}
