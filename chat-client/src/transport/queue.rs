//! A bounded queue between two tasks. The reader takes all that waits at once, so an item costs a
//! short lock on its way in and none on its way out; a burst wakes the reader once.
//!
//! Guarantees: items come out in the order in which they went in; at most `capacity` wait, counting
//! what the reader has taken and not handed out; what was queued before the last sender went is read
//! before the end; a reader that is gone is seen by every sender.

use core::future::poll_fn;
use core::mem::{swap, take};
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The reader is gone; with what was to be queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone<T>(pub(super) T);

/// Why an item was not queued at once; with the item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused<T> {
    Full(T),
    Gone(T),
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// So many the reader has taken and, when it last looked, not handed out.
    taken: usize,
    senders: usize,
    reader: Option<Waker>,
    gone: bool,
    /// Tasks that wait for room, and for the end of the reader. One entry a task.
    for_room: Vec<Waker>,
    for_end: Vec<Waker>,
}

#[derive(Debug)]
struct Shared<T> {
    capacity: usize,
    state: Mutex<State<T>>,
}

impl<T> State<T> {
    fn waits(&self) -> usize {
        self.items.len() + self.taken
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

fn remember(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

/// A queue with `capacity` places, at least one.
pub(super) fn queue<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        capacity: capacity.max(1),
        state: Mutex::new(State {
            items: VecDeque::new(),
            taken: 0,
            senders: 1,
            reader: None,
            gone: false,
            for_room: Vec::new(),
            for_end: Vec::new(),
        }),
    });
    let sender = Sender(Arc::clone(&shared));
    let taken = VecDeque::new();
    (sender, Receiver { shared, taken })
}

#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Queues `item` if there is room.
    pub(super) fn try_send(&self, item: T) -> Result<(), Refused<T>> {
        let mut state = self.0.state();
        if state.gone {
            return Err(Refused::Gone(item));
        }
        if state.waits() >= self.0.capacity {
            return Err(Refused::Full(item));
        }
        state.items.push_back(item);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Ready when there is room: for a queue with one sender, [`Self::try_send`] takes one then.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), Gone<()>>> {
        let mut state = self.0.state();
        if state.gone {
            return Poll::Ready(Err(Gone(())));
        }
        if state.waits() >= self.0.capacity {
            remember(&mut state.for_room, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues `item`, waiting for room. A dropped future has queued nothing.
    pub(super) async fn send(&self, item: T) -> Result<(), Gone<T>> {
        let mut item = Some(item);
        poll_fn(|cx| {
            loop {
                let next = item.take().expect("polled until it is ready");
                match self.try_send(next) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(Refused::Gone(back)) => return Poll::Ready(Err(Gone(back))),
                    Err(Refused::Full(back)) => item = Some(back),
                }
                // Room that came in between is taken in the next round.
                if self.poll_room(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Waits until the reader is gone.
    pub(super) async fn gone(&self) {
        poll_fn(|cx| {
            let mut state = self.0.state();
            if state.gone {
                return Poll::Ready(());
            }
            remember(&mut state.for_end, cx);
            Poll::Pending
        })
        .await;
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.senders -= 1;
        let reader = (state.senders == 0).then(|| state.reader.take()).flatten();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

#[derive(Debug)]
pub(super) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    taken: VecDeque<T>,
}

impl<T> Receiver<T> {
    /// The next item; `None` when there are no more and no senders.
    pub(super) fn poll_recv(&mut self, cx: &Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.try_recv() {
            return Poll::Ready(Some(item));
        }
        let mut state = self.shared.state();
        if !state.items.is_empty() {
            // It came in between.
            drop(state);
            return Poll::Ready(self.try_recv());
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            reader => *reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The next item, if one is there.
    pub(super) fn try_recv(&mut self) -> Option<T> {
        let refill = self.taken.is_empty();
        if !refill && self.taken.len() > 1 {
            return self.taken.pop_front();
        }
        let mut state = self.shared.state();
        if refill {
            swap(&mut state.items, &mut self.taken);
        }
        let item = self.taken.pop_front()?;
        // The first of many makes room for one, the last for all.
        state.taken = self.taken.len();
        let room = take(&mut state.for_room);
        drop(state);
        wake(room);
        Some(item)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.gone = true;
        // Dropped outside of the lock: an item may hold whatever it likes.
        let items = take(&mut state.items);
        let (room, end) = (take(&mut state.for_room), take(&mut state.for_end));
        drop(state);
        drop(items);
        wake(room);
        wake(end);
    }
}

#[cfg(test)]
mod tests {
    use core::future::Future;
    use core::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    async fn next<T>(receiver: &mut Receiver<T>) -> Option<T> {
        let next = poll_fn(|cx| receiver.poll_recv(cx));
        timeout(DEADLINE, next).await.unwrap()
    }

    #[tokio::test]
    async fn items_of_two_tasks_come_once_and_each_in_order() {
        let (sender, mut receiver) = queue(3);
        let other = sender.clone();
        let send = |sender: Sender<(u8, u32)>, who| async move {
            for n in 0..1_000 {
                sender.send((who, n)).await.unwrap();
            }
        };
        let tasks = [tokio::spawn(send(sender, 0)), tokio::spawn(send(other, 1))];
        let mut last = [0; 2];
        while let Some((who, n)) = next(&mut receiver).await {
            assert_eq!(n, last[usize::from(who)]);
            last[usize::from(who)] += 1;
        }
        assert_eq!(last, [1_000, 1_000]);
        for task in tasks {
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_full_queue_takes_no_more_until_it_was_read() {
        let (sender, mut receiver) = queue(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(Refused::Full(3)));
        let full = poll_fn(|cx| Poll::Ready(sender.poll_room(cx).is_pending())).await;
        assert!(full);
        let waiting = tokio::spawn(async move { sender.send(3).await });
        tokio::task::yield_now().await;
        for n in 1..=3 {
            assert_eq!(next(&mut receiver).await, Some(n));
        }
        assert_eq!(timeout(DEADLINE, waiting).await.unwrap().unwrap(), Ok(()));
        assert_eq!(next(&mut receiver).await, None);
    }

    #[tokio::test]
    async fn a_sender_that_waits_sees_that_the_reader_is_gone() {
        let (sender, receiver) = queue(1);
        sender.try_send(1).unwrap();
        let other = sender.clone();
        let waiting = tokio::spawn(async move { sender.send(2).await });
        let watching = tokio::spawn(async move {
            other.gone().await;
            other.try_send(3)
        });
        tokio::task::yield_now().await;
        drop(receiver);
        let waiting = timeout(DEADLINE, waiting).await.unwrap().unwrap();
        assert_eq!(waiting, Err(Gone(2)));
        let watching = timeout(DEADLINE, watching).await.unwrap().unwrap();
        assert_eq!(watching, Err(Refused::Gone(3)));
    }

    #[tokio::test]
    async fn a_send_that_is_given_up_queues_nothing() {
        let (sender, mut receiver) = queue(1);
        sender.try_send(1).unwrap();
        {
            let mut waiting = core::pin::pin!(sender.send(2));
            let pending = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
            assert!(pending);
        }
        assert_eq!(next(&mut receiver).await, Some(1));
        sender.try_send(3).unwrap();
        assert_eq!(next(&mut receiver).await, Some(3));
    }
}
