//! A transport that does not keep its word, over any other: to show what the suite notices, what
//! the checker of the rig notices, and what the core survives.
//!
//! The sender's acknowledgement is end to end, so a frame that vanishes, comes twice or comes late
//! costs time and no message. What nothing makes good is a subscription that is promised and not
//! there.

use core::task::{Context, Poll, Waker};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chat_client::transport::{
    Capabilities, ConnectOptions, Connector, FencingLeases, Inbound, Outbound, SendOutcome,
    Transport, TransportError,
};
use chat_core::channel::Channel;

/// What it does wrong; by default nothing. A count of zero means never, and counts go on over
/// connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vices {
    /// Every so many frames one is not sent, and called accepted.
    pub drops: u64,
    /// Every so many frames one is delivered twice.
    pub repeats: u64,
    /// Every so many frames one is delivered after the one that follows it at once.
    pub shuffles: u64,
    /// Of every so many frames the fate of one is never told.
    pub mute: u64,
    /// Every so many subscriptions one is confirmed and not made.
    pub deaf: u64,
    /// A connection that ends loses its subscriptions, and the next one is called resumed.
    pub forgets: bool,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    told: AtomicU64,
    delivered: AtomicU64,
    repeatable: AtomicU64,
    subscribed: AtomicU64,
}

/// True for every `period`th call.
fn falls(count: &AtomicU64, period: u64) -> bool {
    let before = count.fetch_add(1, Ordering::Relaxed);
    period != 0 && (before + 1).is_multiple_of(period)
}

/// A connector whose connections have [`Vices`].
#[derive(Clone, Debug)]
pub struct Broken<C> {
    inner: C,
    vices: Vices,
    counts: Arc<Counts>,
}

impl<C: Connector> Broken<C> {
    /// Breaks `inner`.
    pub fn new(inner: C, vices: Vices) -> Self {
        Self {
            inner,
            vices,
            counts: Arc::default(),
        }
    }
}

#[async_trait::async_trait]
impl<C: Connector> Connector for Broken<C> {
    fn capabilities(&self) -> &'static Capabilities {
        self.inner.capabilities()
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(BrokenTransport {
            inner: self.inner.connect(options).await?,
            vices: self.vices,
            counts: self.counts.clone(),
            ready: VecDeque::new(),
            late: None,
            heard: BTreeSet::new(),
            waker: None,
        }))
    }
}

struct BrokenTransport {
    inner: Box<dyn Transport>,
    vices: Vices,
    counts: Arc<Counts>,
    /// To be handed up before anything else.
    ready: VecDeque<Inbound>,
    /// Waits for the frame after it.
    late: Option<Inbound>,
    /// Subscribed over this connection.
    heard: BTreeSet<Channel>,
    waker: Option<Waker>,
}

impl BrokenTransport {
    /// Hands up what we made ourselves.
    fn tell(&mut self, inbound: Inbound) {
        self.ready.push_back(inbound);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Puts what `inbound` comes to into `ready`.
    fn pass(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Up { max_frame, .. } if self.vices.forgets => {
                let resumed = true;
                self.ready.push_back(Inbound::Up { resumed, max_frame });
            }
            Inbound::Sent { .. } if falls(&self.counts.told, self.vices.mute) => {}
            Inbound::Received { ref channel, .. }
                if self.vices.forgets && !self.heard.contains(channel) => {}
            Inbound::Received {
                channel,
                bytes,
                handle,
                live,
            } => {
                if falls(&self.counts.repeatable, self.vices.repeats) {
                    self.ready.push_back(Inbound::Received {
                        channel: channel.clone(),
                        bytes: bytes.clone(),
                        handle: None,
                        live,
                    });
                }
                let frame = Inbound::Received {
                    channel,
                    bytes,
                    handle,
                    live,
                };
                let late = falls(&self.counts.delivered, self.vices.shuffles);
                if late && self.late.is_none() {
                    self.late = Some(frame);
                } else {
                    self.ready.push_back(frame);
                    self.ready.extend(self.late.take());
                }
            }
            other => self.ready.push_back(other),
        }
    }
}

impl Transport for BrokenTransport {
    fn capabilities(&self) -> &'static Capabilities {
        self.inner.capabilities()
    }

    fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        self.inner.leases()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>> {
        loop {
            if let Some(inbound) = self.ready.pop_front() {
                return Poll::Ready(Ok(inbound));
            }
            self.waker = Some(cx.waker().clone());
            match self.inner.poll_recv(cx) {
                Poll::Ready(Ok(inbound)) => self.pass(inbound),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // Nothing follows: late it is all the same.
                Poll::Pending => match self.late.take() {
                    Some(late) => return Poll::Ready(Ok(late)),
                    None => return Poll::Pending,
                },
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(cx)
    }

    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError> {
        match item {
            Outbound::Send { token, .. } if falls(&self.counts.sent, self.vices.drops) => {
                let outcome = SendOutcome::Accepted;
                self.tell(Inbound::Sent { token, outcome });
                Ok(())
            }
            Outbound::Subscribe(channel) if falls(&self.counts.subscribed, self.vices.deaf) => {
                let granted = true;
                self.tell(Inbound::Subscribed { channel, granted });
                Ok(())
            }
            item => {
                if let Outbound::Subscribe(channel) = &item {
                    self.heard.insert(channel.clone());
                }
                self.inner.start_send(item)
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_close(cx)
    }
}
