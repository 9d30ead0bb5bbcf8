//! Makes a [`Transport`] out of a reader task and a writer task.
//!
//! Guarantees: both queues are bounded; what was queued before the end of a connection is read
//! before the end; a dropped half ends the connection; a dropped transport tells both halves.
//!
//! The writer flushes whenever its queue is empty: [`Transport::poll_flush`] has nothing to do.

use core::future::poll_fn;
use core::task::{Context, Poll};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::queue::{Receiver, Refused, Sender, queue};
use super::{Capabilities, Inbound, Outbound, Transport, TransportError};

/// A transport with `capacity` places in each direction, and the side that does the I/O.
///
/// Size it above the number of frames that a broker may have in flight towards us: a reader that
/// waits for room cannot answer keep-alives.
pub fn channel(caps: &'static Capabilities, capacity: usize) -> (ChannelTransport, IoSide) {
    let (out, outbound) = queue(capacity);
    let (inbound_sender, inbound) = queue(capacity);
    let dropped = Arc::new(AtomicU64::new(0));
    let transport = ChannelTransport {
        caps,
        out: Some(out),
        inbound,
        dropped: dropped.clone(),
    };
    let io = IoSide {
        outbound: OutboundHalf { queue: outbound },
        inbound: InboundHalf {
            queue: inbound_sender,
            dropped,
        },
    };
    (transport, io)
}

/// The transport was dropped: stop, there is nobody to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transport was dropped; end the connection")]
pub struct Dropped;

/// The end that the client polls.
#[derive(Debug)]
pub struct ChannelTransport {
    caps: &'static Capabilities,
    /// `None` once it closes.
    out: Option<Sender<Outbound>>,
    inbound: Receiver<Result<Inbound, TransportError>>,
    dropped: Arc<AtomicU64>,
}

impl ChannelTransport {
    /// How many frames [`InboundHalf::offer`] dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Transport for ChannelTransport {
    fn capabilities(&self) -> &'static Capabilities {
        self.caps
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>> {
        self.inbound
            .poll_recv(cx)
            .map(|item| item.unwrap_or_else(|| Err(TransportError::lost())))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let Some(out) = &self.out else {
            return Poll::Ready(Err(TransportError::lost()));
        };
        out.poll_room(cx).map_err(|_gone| TransportError::lost())
    }

    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError> {
        let out = self.out.as_ref().ok_or_else(TransportError::lost)?;
        out.try_send(item).map_err(|_item| TransportError::lost())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    /// Waits until the I/O side has written everything and dropped its halves.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.out = None;
        loop {
            match self.inbound.poll_recv(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The end that a transport's tasks hold; usually taken apart for a reader and a writer.
#[derive(Debug)]
pub struct IoSide {
    /// For the writer.
    pub outbound: OutboundHalf,
    /// For the reader, and a clone for the writer's [`Inbound::Sent`].
    pub inbound: InboundHalf,
}

/// What the client hands down.
#[derive(Debug)]
pub struct OutboundHalf {
    queue: Receiver<Outbound>,
}

impl OutboundHalf {
    /// The next item. `None` asks for an orderly end: write what is left, say goodbye, drop both
    /// halves.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn recv_outbound(&mut self) -> Option<Outbound> {
        poll_fn(|cx| self.queue.poll_recv(cx)).await
    }

    /// One more item if one is queued, to write several with one flush.
    pub fn try_recv_outbound(&mut self) -> Option<Outbound> {
        self.queue.try_recv()
    }
}

/// What comes up to the client.
#[derive(Clone, Debug)]
pub struct InboundHalf {
    queue: Sender<Result<Inbound, TransportError>>,
    dropped: Arc<AtomicU64>,
}

impl InboundHalf {
    /// Hands one up, waiting for room.
    ///
    /// # Errors
    /// [`Dropped`]: end the connection.
    ///
    /// # Cancel safety
    /// A dropped future has handed up nothing; the item is lost with it.
    pub async fn send_inbound(&self, item: Inbound) -> Result<(), Dropped> {
        self.queue.send(Ok(item)).await.map_err(|_| Dropped)
    }

    /// Hands one up if there is room, else gives it back.
    ///
    /// # Errors
    /// [`Dropped`]: end the connection.
    pub fn try_send_inbound(&self, item: Inbound) -> Result<Option<Inbound>, Dropped> {
        match self.queue.try_send(Ok(item)) {
            Err(Refused::Full(Ok(item))) => Ok(Some(item)),
            Err(Refused::Gone(_)) => Err(Dropped),
            _ => Ok(None),
        }
    }

    /// Hands one up if there is room, else drops it and counts that: for ephemeral frames, which
    /// must not hold up the others.
    ///
    /// # Errors
    /// [`Dropped`]: end the connection.
    pub fn offer(&self, item: Inbound) -> Result<bool, Dropped> {
        match self.queue.try_send(Ok(item)) {
            Ok(()) => Ok(true),
            Err(Refused::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            Err(Refused::Gone(_)) => Err(Dropped),
        }
    }

    /// Ends the connection for `error`, after everything handed up before. Dropping every half
    /// instead means [`TransportError::lost`].
    ///
    /// # Cancel safety
    /// A dropped future has told nothing.
    pub async fn fail(&self, error: TransportError) {
        // The client may be gone already; then there is nobody to tell.
        self.queue.send(Err(error)).await.ok();
    }

    /// Resolves when the client has dropped the transport.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn dropped(&self) {
        self.queue.gone().await;
    }
}

#[cfg(test)]
mod tests {
    use core::future::poll_fn;

    use chat_core::channel::{Channel, Class};
    use chat_core::id::UserId;
    use chat_core::link::DownReason;

    use super::*;
    use crate::transport::{SendOutcome, Token};

    fn frame(token: u64) -> Outbound {
        Outbound::Send {
            token: Token(token),
            channel: Channel::Inbox(UserId::new("bob").unwrap()),
            bytes: bytes::Bytes::from_static(b"x"),
            class: Class::Durable,
            ttl: None,
            last_value: false,
            dedup: None,
        }
    }

    const UP: Inbound = Inbound::Up {
        resumed: false,
        max_frame: 1,
    };

    #[tokio::test]
    async fn items_pass_in_order_and_a_full_queue_waits_for_room() {
        let (mut transport, mut io) = channel(&crate::transport::memory::CAPABILITIES, 1);
        poll_fn(|cx| transport.poll_ready(cx)).await.unwrap();
        transport.start_send(frame(1)).unwrap();
        let full = poll_fn(|cx| Poll::Ready(transport.poll_ready(cx).is_pending())).await;
        assert!(full);
        assert!(
            transport.start_send(frame(9)).is_err(),
            "no place is reserved"
        );
        assert_eq!(io.outbound.recv_outbound().await, Some(frame(1)));
        poll_fn(|cx| transport.poll_ready(cx)).await.unwrap();
        transport.start_send(frame(2)).unwrap();
        assert_eq!(io.outbound.try_recv_outbound(), Some(frame(2)));
    }

    #[tokio::test]
    async fn ephemeral_frames_are_dropped_and_counted_when_nobody_reads() {
        let (mut transport, io) = channel(&crate::transport::memory::CAPABILITIES, 1);
        io.inbound.send_inbound(UP).await.unwrap();
        assert_eq!(io.inbound.offer(Inbound::CaughtUp), Ok(false));
        assert_eq!(transport.dropped(), 1);
        let back = io.inbound.try_send_inbound(Inbound::CaughtUp);
        assert_eq!(back, Ok(Some(Inbound::CaughtUp)));
        assert_eq!(poll_fn(|cx| transport.poll_recv(cx)).await, Ok(UP));
        drop(transport);
        assert_eq!(io.inbound.offer(Inbound::CaughtUp), Err(Dropped));
        io.inbound.dropped().await;
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_read_before_the_end() {
        let (mut transport, io) = channel(&crate::transport::memory::CAPABILITIES, 4);
        let sent = Inbound::Sent {
            token: Token(1),
            outcome: SendOutcome::Accepted,
        };
        io.inbound.send_inbound(sent.clone()).await.unwrap();
        let refused = TransportError::new(DownReason::Refused("no".into()));
        io.inbound.fail(refused.clone()).await;
        assert_eq!(poll_fn(|cx| transport.poll_recv(cx)).await, Ok(sent));
        assert_eq!(poll_fn(|cx| transport.poll_recv(cx)).await, Err(refused));
        drop(io);
        let lost = poll_fn(|cx| transport.poll_recv(cx)).await;
        assert_eq!(lost, Err(TransportError::lost()));
    }

    #[tokio::test]
    async fn closing_waits_until_the_writer_is_done() {
        let (mut transport, mut io) = channel(&crate::transport::memory::CAPABILITIES, 4);
        poll_fn(|cx| transport.poll_ready(cx)).await.unwrap();
        transport.start_send(frame(1)).unwrap();
        let pending = poll_fn(|cx| Poll::Ready(transport.poll_close(cx).is_pending())).await;
        assert!(pending);
        assert_eq!(io.outbound.recv_outbound().await, Some(frame(1)));
        assert_eq!(io.outbound.recv_outbound().await, None);
        drop(io);
        assert_eq!(poll_fn(|cx| transport.poll_close(cx)).await, Ok(()));
    }
}
