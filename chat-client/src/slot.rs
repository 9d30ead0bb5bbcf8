//! A bounded sender that can be polled for room: tokio's own has only an async `reserve`.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendError, TrySendError};

type Reserving<T> =
    Pin<Box<dyn Future<Output = Result<mpsc::OwnedPermit<T>, SendError<()>>> + Send>>;

/// One reserved place at most. It allocates only while the queue is full.
pub(crate) struct Slot<T>(State<T>);

enum State<T> {
    Idle(mpsc::Sender<T>),
    Ready(mpsc::OwnedPermit<T>),
    Full(Reserving<T>),
    Closed,
}

/// The receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl<T: Send + 'static> Slot<T> {
    pub(crate) fn new(sender: mpsc::Sender<T>) -> Self {
        Self(State::Idle(sender))
    }

    /// Ready when [`Self::put`] will take one.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        loop {
            self.0 = match core::mem::replace(&mut self.0, State::Closed) {
                State::Idle(sender) => match sender.try_reserve_owned() {
                    Ok(permit) => State::Ready(permit),
                    Err(TrySendError::Full(sender)) => {
                        State::Full(Box::pin(sender.reserve_owned()))
                    }
                    Err(TrySendError::Closed(_)) => State::Closed,
                },
                State::Full(mut future) => match future.as_mut().poll(cx) {
                    Poll::Ready(Ok(permit)) => State::Ready(permit),
                    Poll::Ready(Err(_)) => State::Closed,
                    Poll::Pending => {
                        self.0 = State::Full(future);
                        return Poll::Pending;
                    }
                },
                State::Ready(permit) => {
                    self.0 = State::Ready(permit);
                    return Poll::Ready(Ok(()));
                }
                State::Closed => return Poll::Ready(Err(Gone)),
            };
        }
    }

    /// Queues `item`, after `poll_ready`; gives it back when there is no reserved place.
    pub(crate) fn put(&mut self, item: T) -> Result<(), T> {
        match core::mem::replace(&mut self.0, State::Closed) {
            State::Ready(permit) => {
                self.0 = State::Idle(permit.send(item));
                Ok(())
            }
            other => {
                self.0 = other;
                Err(item)
            }
        }
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Idle(_) => "Slot::Idle",
            State::Ready(_) => "Slot::Ready",
            State::Full(_) => "Slot::Full",
            State::Closed => "Slot::Closed",
        })
    }
}
