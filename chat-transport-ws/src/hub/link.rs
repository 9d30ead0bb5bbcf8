//! The task of one connection: pulls frames from the machine and writes them, reads ops and feeds
//! them in. Frames are joined per wake-up: all are fed, then flushed once.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::auth::{AuthError, Credentials, Grant};
use super::server::{Shared, Upgrade};
use super::state::{ConnId, Frame, OpenError};
use crate::proto::{ClientOp, CloseReason, Frames, HubOp};

/// The peer must answer a close within this.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Messages read before what they caused is written.
const READ_TURN: usize = 32;
/// A larger buffer is given back once it is empty.
const KEEP_FRAMES: usize = 64;

enum End {
    /// The peer is gone.
    Gone,
    /// Say why, then close.
    Closing(CloseReason),
}

/// Serves a connection until it ends.
///
/// The task of a connection lives as long as that: what happens once, at either end, is boxed, and
/// the socket is borrowed, so that the task holds it once.
pub(super) async fn serve<S>(shared: &Shared, ws: &mut WebSocketStream<S>, upgrade: Upgrade)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some((open, wakes)) = Box::pin(open(shared, ws, upgrade)).await else {
        return;
    };
    let mut link = Link {
        shared,
        ws,
        open,
        frames: VecDeque::new(),
        flushing: false,
        blocked: false,
        readable: Arc::new(Readable {
            due: AtomicBool::new(true),
            task: AtomicWaker::new(),
        }),
        renewal: None,
        wakes,
    };
    let end = poll_fn(|cx| link.poll_turn(cx)).await;
    let Link {
        ws, frames, open, ..
    } = link;
    // The session is free before the goodbyes, which may take seconds.
    drop(open);
    let reason = match end {
        End::Gone => None,
        End::Closing(reason) => Some(reason),
    };
    let farewell = timeout(CLOSE_DEADLINE, farewell(ws, frames, reason, ""));
    let _in_time = Box::pin(farewell).await;
}

/// Takes the first message and makes the connection known, or says why not.
async fn open<'a, S>(
    shared: &'a Shared,
    ws: &mut WebSocketStream<S>,
    upgrade: Upgrade,
) -> Option<(Open<'a>, Vec<Waker>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reason, text, after) = match hello(shared, ws, upgrade).await? {
        Ok(opened) => return Some(opened),
        Err(refusal) => refusal,
    };
    refuse(ws, reason, &text, after).await;
    None
}

type Refusal = (CloseReason, String, Option<Duration>);

/// `None` when the connection ended by itself.
async fn hello<'a, S>(
    shared: &'a Shared,
    ws: &mut WebSocketStream<S>,
    upgrade: Upgrade,
) -> Option<Result<(Open<'a>, Vec<Waker>), Refusal>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let silent = || (CloseReason::Protocol, "say hello first".to_owned(), None);
    let limit = shared.limits().handshake;
    let Ok(first) = timeout(limit, first_message(ws)).await else {
        return Some(Err(silent()));
    };
    let first = first?;
    let mut frames = Frames::from_client(&first);
    let Some(Ok(ClientOp::Hello(mut hello))) = frames.next() else {
        return Some(Err(silent()));
    };
    let mut credentials = Credentials {
        token: upgrade.token.or_else(|| hello.token.map(str::to_owned)),
        user: hello.user.clone(),
        device: hello.device,
        peer: upgrade.peer,
    };
    let holds = match authenticate(shared, credentials.clone()).await {
        Ok(grant) => {
            hello.user = grant.user;
            grant.holds
        }
        Err(AuthError::Denied { text }) => {
            return Some(Err((CloseReason::TokenRefused, text, None)));
        }
        Err(AuthError::TryLater { after }) => {
            let text = "try later".to_owned();
            return Some(Err((CloseReason::TryLater, text, Some(after))));
        }
    };
    credentials.token = None;
    let mut wakes = Vec::new();
    let opened = shared.with(&mut wakes, |machine, now| {
        let id = machine.handle_open(&hello, now)?;
        machine.handle_token(id, holds, now);
        for op in frames {
            match op {
                Ok(op) => machine.handle_op(id, op, now),
                Err(_) => machine.close(id, CloseReason::Protocol, now),
            }
        }
        Ok(id)
    });
    Some(match opened {
        Ok(id) => {
            // Only a token that runs out is ever replaced.
            let credentials = holds.is_some().then(|| Box::new(credentials));
            let open = Open {
                shared,
                id,
                credentials,
            };
            Ok((open, wakes))
        }
        Err(error) => {
            let (reason, after) = match error {
                OpenError::Will => (CloseReason::TokenRefused, None),
                OpenError::TooMany => (CloseReason::TooMany, Some(Duration::from_secs(30))),
                OpenError::Full | OpenError::Stopping => {
                    (CloseReason::TryLater, Some(Duration::from_secs(5)))
                }
            };
            Err((reason, error.to_string(), after))
        }
    })
}

/// Tells the machine when the connection ends in whatever way, the task being dropped included.
struct Open<'a> {
    shared: &'a Shared,
    id: ConnId,
    /// Whom it speaks for, where a newer token may come.
    credentials: Option<Box<Credentials>>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let id = self.id;
        (self.shared).with(&mut Vec::new(), |machine, now| {
            machine.handle_closed(id, now)
        });
    }
}

async fn first_message<S>(ws: &mut WebSocketStream<S>) -> Option<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match ws.next().await? {
            Ok(Message::Binary(message)) => return Some(message),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            // Anything else is no hello, and is told so.
            Ok(_) => return Some(Bytes::new()),
            Err(_) => return None,
        }
    }
}

async fn authenticate(shared: &Shared, credentials: Credentials) -> Result<Grant, AuthError> {
    let user = credentials.user.clone();
    let answer = shared.authenticator().authenticate(credentials);
    let Ok(answer) = timeout(shared.limits().handshake, answer).await else {
        return Err(AuthError::TryLater {
            after: Duration::from_secs(5),
        });
    };
    answer.and_then(|grant| {
        if grant.user == user {
            return Ok(grant);
        }
        Err(AuthError::Denied {
            text: "the token is another user's".to_owned(),
        })
    })
}

async fn refuse<S>(
    ws: &mut WebSocketStream<S>,
    reason: CloseReason,
    text: &str,
    after: Option<Duration>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = Vec::new();
    HubOp::Refused {
        code: reason.code(),
        text,
        retry_ms: after.map(|d| u32::try_from(d.as_millis()).unwrap_or(u32::MAX)),
    }
    .encode(&mut bytes);
    let frames = VecDeque::from([Frame::Own(bytes)]);
    let _in_time = timeout(CLOSE_DEADLINE, farewell(ws, frames, Some(reason), text)).await;
}

/// Writes the last frames and the close, and waits for the peer's. We close TCP first.
async fn farewell<S>(
    ws: &mut WebSocketStream<S>,
    frames: VecDeque<Frame>,
    reason: Option<CloseReason>,
    text: &str,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for frame in frames {
        if ws.feed(message(frame)).await.is_err() {
            return;
        }
    }
    let close = reason.map(|reason| CloseFrame {
        code: reason.code().into(),
        reason: text.chars().take(100).collect::<String>().into(),
    });
    // An error here means that the peer closed before us.
    if ws.send(Message::Close(close)).await.is_err() && ws.flush().await.is_err() {
        return;
    }
    while let Some(Ok(_)) = ws.next().await {}
    // After a broken frame the rest is unreadable; a socket closed with unread bytes would reset
    // the connection and take our goodbye with it.
    let io = ws.get_mut();
    if io.shutdown().await.is_ok() {
        let mut rest = [0; 512];
        while io.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    }
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Shared(bytes) => Message::Binary(bytes),
        Frame::Own(bytes) => Message::binary(bytes),
        Frame::Ping => Message::Ping(Bytes::new()),
    }
}

/// Wakes the task for reading and remembers that: a task that was woken to write a frame need not
/// look at its socket's other half.
struct Readable {
    due: AtomicBool,
    task: AtomicWaker,
}

impl Readable {
    fn is_due(&self) -> bool {
        self.due.swap(false, Ordering::AcqRel)
    }

    fn again(&self) {
        self.due.store(true, Ordering::Release);
    }
}

impl Wake for Readable {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again();
        self.task.wake();
    }
}

/// The authenticator at work on a newer token.
type Renewal<'a> = Pin<Box<dyn Future<Output = Result<Grant, AuthError>> + Send + 'a>>;

struct Link<'a, S> {
    shared: &'a Shared,
    ws: &'a mut WebSocketStream<S>,
    open: Open<'a>,
    frames: VecDeque<Frame>,
    /// The socket has not taken everything yet.
    flushing: bool,
    /// The machine knows that.
    blocked: bool,
    readable: Arc<Readable>,
    /// The authenticator looks at a newer token; others that come meanwhile are not looked at.
    renewal: Option<Renewal<'a>>,
    wakes: Vec<Waker>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<'_, S> {
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let id = self.open.id;
        self.readable.task.register(cx.waker());
        self.poll_renewal(cx);
        loop {
            let (ready, out) = (!self.flushing, &mut self.frames);
            let pulled = self.shared.pull(id, ready, cx.waker(), out);
            if let Some(reason) = pulled.closing {
                return Poll::Ready(End::Closing(reason));
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => self.flushing = false,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Pending => self.flushing = true,
            }
            if self.flushing != self.blocked {
                self.blocked = self.flushing;
                let blocked = self.blocked;
                (self.shared).with(&mut self.wakes, |m, now| m.handle_blocked(id, blocked, now));
            }
            // `ready` was false before, so nothing was pulled although there is room now.
            if !self.flushing && (pulled.more || !ready) {
                continue;
            }
            if pulled.congested {
                return Poll::Pending;
            }
            if !self.readable.is_due() {
                return Poll::Pending;
            }
            match self.poll_read() {
                Poll::Ready(Ok(())) => {
                    self.poll_renewal(cx);
                    self.readable.again();
                }
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// What the authenticator says of a newer token. When it cannot tell now, the old one holds.
    fn poll_renewal(&mut self, cx: &mut Context<'_>) {
        let Some(renewal) = &mut self.renewal else {
            return;
        };
        let Poll::Ready(answer) = renewal.as_mut().poll(cx) else {
            return;
        };
        self.renewal = None;
        let id = self.open.id;
        self.shared
            .with(&mut self.wakes, |machine, now| match answer {
                Ok(grant) => machine.handle_token(id, grant.holds, now),
                Err(AuthError::Denied { .. }) => machine.close(id, CloseReason::TokenRefused, now),
                Err(AuthError::TryLater { .. }) => {}
            });
    }

    /// Feeds all, then flushes once.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.frames.is_empty() {
            match Pin::new(&mut *self.ws).poll_ready(cx)? {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
            if let Some(frame) = self.frames.pop_front() {
                Pin::new(&mut *self.ws).start_send(message(frame))?;
            }
        }
        if self.frames.capacity() > KEEP_FRAMES {
            self.frames = VecDeque::new();
        }
        Pin::new(&mut *self.ws).poll_flush(cx)
    }

    /// Reads some messages. `Ready` when there was at least one: answers may be due.
    fn poll_read(&mut self) -> Poll<Result<(), End>> {
        let waker = Waker::from(Arc::clone(&self.readable));
        let cx = &mut Context::from_waker(&waker);
        for turn in 0..READ_TURN {
            match Pin::new(&mut *self.ws).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if matches!(message, Message::Close(_)) {
                        return Poll::Ready(Err(End::Gone));
                    }
                    self.handle(&message);
                }
                Poll::Ready(Some(Err(error))) => {
                    let reason = match error {
                        Error::Capacity(_) => CloseReason::TooLarge,
                        Error::Protocol(_) | Error::Utf8(_) => CloseReason::Protocol,
                        _ => return Poll::Ready(Err(End::Gone)),
                    };
                    let id = self.open.id;
                    (self.shared).with(&mut self.wakes, |m, now| m.close(id, reason, now));
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(None) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending if turn == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn handle(&mut self, message: &Message) {
        let id = self.open.id;
        let mut newer = None;
        self.shared.with(&mut self.wakes, |machine, now| {
            // We look at our own queue after this anyway.
            machine.handle_heard(id, now);
            match message {
                Message::Binary(bytes) => {
                    for op in Frames::from_client(bytes) {
                        match op {
                            Ok(ClientOp::Token(token)) => newer = Some(token.to_owned()),
                            Ok(op) => machine.handle_op(id, op, now),
                            Err(_) => machine.close(id, CloseReason::Protocol, now),
                        }
                    }
                }
                Message::Text(_) => machine.close(id, CloseReason::Protocol, now),
                _ => {}
            }
        });
        if newer.is_some()
            && self.renewal.is_none()
            && let Some(credentials) = &self.open.credentials
        {
            let mut credentials = Credentials::clone(credentials);
            credentials.token = newer;
            self.renewal = Some(Box::pin(authenticate(self.shared, credentials)));
        }
    }
}
