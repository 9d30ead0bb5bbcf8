//! One open connection. Ops are gathered into one WebSocket message per flush, and a received
//! message is taken apart into a bounded queue.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chat_client::transport::{
    Capabilities, Handle, Inbound, Outbound, SendOutcome, Token, Transport, TransportError,
};
use chat_core::link::DownReason;
use futures_util::{Sink, Stream};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{CAPABILITIES, TokenSource};
use crate::proto::{
    ClientOp, CloseReason, Frames, HubOp, MAX_FATES, Publish, Welcome, WireOutcome,
};

/// A batch is handed to the socket when it is this long.
const BATCH_BYTES: usize = 16 * 1024;
/// So many frames may wait for the hub's answer.
const MAX_IN_FLIGHT: usize = MAX_FATES as usize;
/// So many deliveries may wait for an ack; older ones come again after the next connect.
const MAX_UNACKED: usize = 64 * 1024;
/// The hub must answer a close within this.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Handles are unique in the process, so one of an older connection is never mistaken for ours.
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

#[derive(PartialEq, Eq)]
enum Closing {
    No,
    /// The batch with `Bye` goes out.
    Flush,
    /// Our close frame is sent; the hub's is awaited.
    Await,
    Done,
}

/// A connection to a hub.
pub(super) struct WsTransport {
    ws: WebSocketStream<TcpStream>,
    inbound: VecDeque<Inbound>,
    /// Ops not yet handed to the socket.
    batch: Vec<u8>,
    /// The length of the batch before, at most that of a full one: what the next may need.
    usual: usize,
    in_flight: usize,
    max_frame: usize,
    unacked: BTreeMap<u64, (u64, u64)>,
    /// The hub said that it closes, why, and when to come back.
    farewell: Option<TransportError>,
    heard: Instant,
    silence: Duration,
    watchdog: Pin<Box<Sleep>>,
    tokens: Option<Arc<dyn TokenSource>>,
    renewal: Renewal,
    closing: Closing,
}

/// A newer token for a connection whose token runs out.
enum Renewal {
    /// It does not, or nobody has another.
    Never,
    Due(Pin<Box<Sleep>>),
    Asking(Pin<Box<dyn Future<Output = Result<String, String>> + Send>>),
}

/// The error of a close code.
pub(super) fn closed(code: u16, text: &str) -> TransportError {
    TransportError::new(match CloseReason::from_code(code) {
        Some(CloseReason::TokenRefused) => DownReason::Refused(text.to_owned()),
        Some(CloseReason::Replaced) => DownReason::Conflict,
        Some(CloseReason::TryLater | CloseReason::TooMany) => DownReason::TryLater,
        Some(CloseReason::TokenExpired) => {
            DownReason::Other("the token ran out; a newer one is needed".to_owned())
        }
        Some(CloseReason::Protocol | CloseReason::TooLarge | CloseReason::SlowConsumer) => {
            DownReason::Other(format!("the hub closed with {code}: {text}"))
        }
        _ => DownReason::Lost,
    })
}

/// The error of the socket.
pub(super) fn lost(error: &Error) -> TransportError {
    tracing::debug!(%error, "the connection to the hub ended");
    match error {
        Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_) => {
            TransportError::new(DownReason::Other(error.to_string()))
        }
        _ => TransportError::lost(),
    }
}

impl WsTransport {
    /// The connection after `welcome`; `rest` came in the same message.
    pub(super) fn open(
        ws: WebSocketStream<TcpStream>,
        welcome: &Welcome,
        rest: &[u8],
        tokens: Option<Arc<dyn TokenSource>>,
    ) -> Result<Self, TransportError> {
        let max_frame = usize::try_from(welcome.max_frame)
            .map_or(CAPABILITIES.max_frame, |m| m.min(CAPABILITIES.max_frame));
        // Two missed pings, and one second for the way.
        let silence =
            Duration::from_millis(u64::from(welcome.ping_ms.max(100)) * 2) + Duration::from_secs(1);
        let mut transport = Self {
            ws,
            inbound: VecDeque::new(),
            batch: Vec::new(),
            usual: 0,
            in_flight: 0,
            max_frame,
            unacked: BTreeMap::new(),
            farewell: None,
            heard: Instant::now(),
            silence,
            watchdog: Box::pin(sleep(silence)),
            tokens,
            renewal: Renewal::Never,
            closing: Closing::No,
        };
        transport.inbound.push_back(Inbound::Up {
            resumed: welcome.resumed,
            max_frame,
        });
        transport.take_apart(rest)?;
        Ok(transport)
    }

    fn take_apart(&mut self, message: &[u8]) -> Result<(), TransportError> {
        for op in Frames::from_hub(message) {
            let op = op.map_err(|e| TransportError::new(DownReason::Other(e.to_string())))?;
            match op {
                HubOp::Deliver {
                    lane,
                    seq,
                    live,
                    channel,
                    bytes,
                } => {
                    let handle = (seq != 0).then(|| self.handle_for(lane, seq));
                    self.inbound.push_back(Inbound::Received {
                        channel,
                        // A slice of the read buffer would keep all of it alive.
                        bytes: Bytes::copy_from_slice(bytes),
                        handle,
                        live,
                    });
                }
                HubOp::Sent {
                    token,
                    count,
                    outcome,
                } => {
                    let outcome = match outcome {
                        WireOutcome::Accepted => SendOutcome::Accepted,
                        WireOutcome::NoReceiver => SendOutcome::NoReceiver,
                        WireOutcome::Refused(text) => SendOutcome::Refused(text.to_owned()),
                        WireOutcome::TooFast(ms) => SendOutcome::Refused(format!(
                            "more frames than the hub takes; not before {ms} ms"
                        )),
                        WireOutcome::Denied => SendOutcome::denied("you may not publish there"),
                        WireOutcome::TooLarge => {
                            SendOutcome::too_large("the frame is too large for the hub")
                        }
                    };
                    for step in 0..count {
                        self.in_flight = self.in_flight.saturating_sub(1);
                        self.inbound.push_back(Inbound::Sent {
                            token: Token(token.saturating_add(step.into())),
                            outcome: outcome.clone(),
                        });
                    }
                }
                HubOp::Subscribed { channel, granted } => {
                    self.inbound
                        .push_back(Inbound::Subscribed { channel, granted });
                }
                HubOp::CaughtUp => self.inbound.push_back(Inbound::CaughtUp),
                HubOp::Gap(channel) => self.inbound.push_back(Inbound::Gap(channel)),
                HubOp::Closing { code, retry_ms } => {
                    let mut error = closed(code, "closing");
                    error.retry_after = retry_ms.map(|ms| Duration::from_millis(ms.into()));
                    self.farewell = Some(error);
                }
                HubOp::TokenHolds { ms } if self.tokens.is_some() => {
                    let early = Duration::from_millis(ms / 4 * 3);
                    self.renewal = Renewal::Due(Box::pin(sleep(early)));
                }
                HubOp::TokenHolds { .. } => {}
                // A second answer to `Hello` is nothing we can use.
                HubOp::Welcome(_) | HubOp::Refused { .. } => {
                    return Err(closed(CloseReason::Protocol.code(), "a second welcome"));
                }
            }
        }
        Ok(())
    }

    fn handle_for(&mut self, lane: u64, seq: u64) -> Handle {
        let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        if self.unacked.len() == MAX_UNACKED {
            self.unacked.pop_first();
        }
        self.unacked.insert(handle, (lane, seq));
        Handle(handle)
    }

    /// One message off the socket. `Ready(Ok(false))` when the hub closed.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, TransportError>> {
        match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
            Some(Ok(message)) => {
                self.heard = Instant::now();
                match message {
                    Message::Binary(message) => self.take_apart(&message)?,
                    Message::Close(Some(frame)) => {
                        let error = closed(frame.code.into(), &frame.reason);
                        self.farewell.get_or_insert(error);
                    }
                    _ => {}
                }
                Poll::Ready(Ok(true))
            }
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                Poll::Ready(Err(closed(
                    CloseReason::TooLarge.code(),
                    "the hub sent a message over the limit",
                )))
            }
            Some(Err(error)) => Poll::Ready(Err(lost(&error))),
            None => Poll::Ready(Ok(false)),
        }
    }

    /// Asks for a newer token when it is time, and offers it to the hub.
    fn poll_renewal(&mut self, cx: &mut Context<'_>) -> Result<(), TransportError> {
        loop {
            match &mut self.renewal {
                Renewal::Never => return Ok(()),
                Renewal::Due(sleep) => {
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Ok(());
                    }
                    self.renewal = match self.tokens.clone() {
                        Some(tokens) => {
                            Renewal::Asking(Box::pin(async move { tokens.token().await }))
                        }
                        None => Renewal::Never,
                    };
                }
                Renewal::Asking(asking) => {
                    let Poll::Ready(answer) = asking.as_mut().poll(cx) else {
                        return Ok(());
                    };
                    self.renewal = match answer {
                        Ok(token) if super::fits(&token) => {
                            ClientOp::Token(&token).encode(&mut self.batch);
                            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                                return Err(error);
                            }
                            Renewal::Never
                        }
                        // The next connection asks again.
                        Ok(_) => {
                            tracing::debug!("a newer token does not fit a header");
                            Renewal::Never
                        }
                        Err(why) => {
                            tracing::debug!(why, "no newer token");
                            Renewal::Never
                        }
                    };
                }
            }
        }
    }

    fn over(&mut self) -> TransportError {
        self.farewell.take().unwrap_or_else(TransportError::lost)
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<TransportError> {
        loop {
            ready!(self.watchdog.as_mut().poll(cx));
            let deadline = self.heard + self.silence;
            if deadline <= Instant::now() {
                return Poll::Ready(TransportError::lost());
            }
            self.watchdog.as_mut().reset(deadline);
        }
    }

    /// Hands the batch to the socket's buffer.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        ready!(Pin::new(&mut self.ws).poll_ready(cx)).map_err(|e| lost(&e))?;
        if !self.batch.is_empty() {
            self.usual = self.batch.len().min(BATCH_BYTES);
            let message = Message::binary(core::mem::take(&mut self.batch));
            (Pin::new(&mut self.ws).start_send(message)).map_err(|e| lost(&e))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Transport for WsTransport {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>> {
        loop {
            if let Some(inbound) = self.inbound.pop_front() {
                return Poll::Ready(Ok(inbound));
            }
            match self.poll_message(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Err(self.over())),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(self.farewell.take().unwrap_or(error)));
                }
                Poll::Pending => {
                    self.poll_renewal(cx)?;
                    return self.poll_silence(cx).map(Err);
                }
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.in_flight >= MAX_IN_FLIGHT {
            // Answers arrive through `poll_recv`, which wakes the same task.
            ready!(self.poll_flush(cx))?;
            return Poll::Pending;
        }
        if self.batch.len() >= BATCH_BYTES {
            return self.poll_batch(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError> {
        if self.batch.capacity() == 0 {
            self.batch.reserve(self.usual);
        }
        match item {
            Outbound::Send {
                token,
                channel,
                bytes,
                class,
                ttl,
                last_value,
                dedup,
            } => {
                if bytes.len() > self.max_frame {
                    self.inbound.push_back(Inbound::Sent {
                        token,
                        outcome: SendOutcome::too_large(format!(
                            "the frame has {} bytes, the hub takes {}",
                            bytes.len(),
                            self.max_frame
                        )),
                    });
                    return Ok(());
                }
                self.in_flight += 1;
                ClientOp::Publish(Publish {
                    token: token.0,
                    channel,
                    class,
                    ttl_ms: ttl.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
                    last_value,
                    dedup,
                    bytes: &bytes,
                })
                .encode(&mut self.batch);
            }
            Outbound::Subscribe(channel) => ClientOp::Subscribe(channel).encode(&mut self.batch),
            Outbound::Unsubscribe(channel) => {
                ClientOp::Unsubscribe(channel).encode(&mut self.batch);
            }
            Outbound::Ack(handle) => {
                if let Some((lane, seq)) = self.unacked.remove(&handle.0) {
                    ClientOp::Ack { lane, seq }.encode(&mut self.batch);
                }
            }
            other => {
                return Err(TransportError::new(DownReason::Other(format!(
                    "this transport does not know {other:?}"
                ))));
            }
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        ready!(self.poll_batch(cx))?;
        Pin::new(&mut self.ws).poll_flush(cx).map_err(|e| lost(&e))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.closing == Closing::No {
            ClientOp::Bye.encode(&mut self.batch);
            self.heard = Instant::now();
            self.silence = CLOSE_DEADLINE;
            (self.watchdog.as_mut()).reset(self.heard + CLOSE_DEADLINE);
            self.closing = Closing::Flush;
        }
        loop {
            let step = match self.closing {
                Closing::Done => return Poll::Ready(Ok(())),
                Closing::No | Closing::Flush => match self.poll_flush(cx) {
                    Poll::Ready(Ok(())) => match Pin::new(&mut self.ws).poll_close(cx) {
                        Poll::Ready(_) => {
                            self.closing = Closing::Await;
                            continue;
                        }
                        Poll::Pending => Poll::Pending,
                    },
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                Closing::Await => match self.poll_message(cx) {
                    Poll::Ready(Ok(true)) => {
                        // Nobody will read it.
                        self.inbound.clear();
                        continue;
                    }
                    // The hub has seen `Bye` once it answers the close; how TCP ends is no matter.
                    Poll::Ready(_) => {
                        self.closing = Closing::Done;
                        continue;
                    }
                    Poll::Pending => Poll::Pending,
                },
            };
            return match step {
                Poll::Pending => match self.watchdog.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(TransportError::lost())),
                    Poll::Pending => Poll::Pending,
                },
                done => done,
            };
        }
    }
}
