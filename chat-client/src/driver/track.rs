//! How far one message of ours got, for who follows it. A watch channel would do the same with
//! eight lists of waiters for each message.
//!
//! Guarantees: a follower that waits sees every end; it is told when nobody will say more.

use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_core::delivery::{Ack, FailReason};
use tokio::sync::Notify;

/// How far a message of ours got.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) ack: Ack,
    pub(crate) failed: Option<FailReason>,
}

#[derive(Debug)]
struct Known {
    progress: Progress,
    /// The least that a follower waits for; short of it nobody is woken.
    awaited: Option<Ack>,
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    over: AtomicBool,
    changed: Notify,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that tells.
#[derive(Debug)]
pub(crate) struct Track(Arc<Shared>);

impl Track {
    pub(crate) fn new() -> Self {
        let queued = Progress {
            ack: Ack::Queued,
            failed: None,
        };
        Self(Arc::new(Shared {
            known: Mutex::new(Known {
                progress: queued,
                awaited: None,
            }),
            over: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn follow(&self) -> Follower {
        Follower(Arc::clone(&self.0))
    }

    pub(crate) fn is_followed(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// It got as far as `ack`; what failed gets no further.
    pub(crate) fn reached(&self, ack: Ack) {
        let mut known = self.0.known();
        if known.progress.failed.is_none() && known.progress.ack < ack {
            known.progress.ack = ack;
            // Who waits for more says so again.
            let woken = known.awaited.take_if(|awaited| *awaited <= ack).is_some();
            drop(known);
            if woken {
                self.0.changed.notify_waiters();
            }
        }
    }

    pub(crate) fn failed(&self, why: FailReason) {
        self.0.known().progress.failed = Some(why);
        self.0.changed.notify_waiters();
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

/// The end that listens.
#[derive(Clone, Debug)]
pub(crate) struct Follower(Arc<Shared>);

impl Follower {
    /// As known now.
    pub(crate) fn progress(&self) -> Progress {
        self.0.known().progress.clone()
    }

    /// Waits until it got as far as `ack`, or failed; `None` when it did not and nobody will say
    /// more.
    ///
    /// Cancel safe.
    pub(crate) async fn until(&self, ack: Ack) -> Option<Progress> {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let over = self.0.over.load(Ordering::Acquire);
            {
                let mut known = self.0.known();
                if known.progress.failed.is_some() || known.progress.ack >= ack {
                    return Some(known.progress.clone());
                }
                known.awaited = Some(known.awaited.map_or(ack, |awaited| awaited.min(ack)));
            }
            if over {
                return None;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_follower_sees_the_end_and_that_nobody_says_more() {
        let track = Track::new();
        let (first, second) = (track.follow(), track.follow());
        assert!(track.is_followed());
        let third = track.follow();
        let waiting = tokio::spawn(async move { first.until(Ack::Delivered).await });
        let early = tokio::spawn(async move { third.until(Ack::HandedOff).await });
        let never = tokio::spawn(async move { second.until(Ack::Displayed).await });
        tokio::task::yield_now().await;
        track.reached(Ack::HandedOff);
        track.reached(Ack::Delivered);
        track.reached(Ack::HandedOff);
        let seen = timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(seen.ack, Ack::Delivered);
        let seen = timeout(DEADLINE, early).await.unwrap().unwrap().unwrap();
        assert!(seen.ack >= Ack::HandedOff);
        let late = track.follow();
        drop(track);
        assert!(timeout(DEADLINE, never).await.unwrap().unwrap().is_none());
        let known = late.until(Ack::Delivered).await;
        assert!(known.is_some(), "what was said before counts");
    }

    #[tokio::test]
    async fn what_failed_gets_no_further() {
        let track = Track::new();
        let follower = track.follow();
        track.failed(FailReason::Expired);
        track.reached(Ack::Delivered);
        let ended = follower.until(Ack::Delivered).await.unwrap();
        assert_eq!(ended.ack, Ack::Queued);
        drop(follower);
        assert!(!track.is_followed());
    }
}
