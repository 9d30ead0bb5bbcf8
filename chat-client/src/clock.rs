//! The clocks of a client: monotonic time from tokio, so that tests may pause it, and wall time
//! from a [`WallClock`].
//!
//! Guarantees: the core's time never runs backwards; after a suspend, which stands the monotonic
//! clock still, the time that the wall clock saw is added, so that leases and deadlines count it.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chat_core::time::{Timestamp, UnixMillis};
use tokio::time::Instant;

/// The wall clock may differ by this much before the core is told.
const DRIFT: i64 = 1_000;
/// A step ahead by more than this is taken for a suspend.
const SUSPEND: i64 = 5_000;

/// Tells the wall time.
pub trait WallClock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since the Unix epoch, UTC. May step in both directions.
    fn now(&self) -> UnixMillis;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWall;

impl WallClock for SystemWall {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A wall clock that moves with tokio's, also while that is paused: for tests that must repeat.
#[derive(Clone, Copy, Debug)]
pub struct TokioWall {
    start: UnixMillis,
    origin: Instant,
}

impl TokioWall {
    /// Reads `start` now. Call it inside a runtime.
    pub fn starting_at(start: UnixMillis) -> Self {
        Self {
            start,
            origin: Instant::now(),
        }
    }
}

impl WallClock for TokioWall {
    fn now(&self) -> UnixMillis {
        self.start.plus(self.origin.elapsed())
    }
}

/// What the driver must tell the core about wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) wall: UnixMillis,
    /// The machine slept: connections are likely dead, the network may be another.
    pub(crate) slept: bool,
}

#[derive(Debug)]
pub(crate) struct Clock {
    wall: Arc<dyn WallClock>,
    origin: Instant,
    skipped: Duration,
    /// Both readings at the last step.
    anchor: (Instant, UnixMillis),
}

impl Clock {
    pub(crate) fn new(wall: Arc<dyn WallClock>) -> Self {
        let origin = Instant::now();
        let anchor = (origin, wall.now());
        Self {
            wall,
            origin,
            skipped: Duration::ZERO,
            anchor,
        }
    }

    pub(crate) fn wall(&self) -> UnixMillis {
        self.anchor.1
    }

    /// The time, and what happened to the wall clock since the last reading.
    pub(crate) fn read(&mut self) -> (Timestamp, Option<Step>) {
        let now = Instant::now();
        let wall = self.wall.now();
        let expected = self.anchor.1.plus(now.duration_since(self.anchor.0));
        let drift = wall.0.cast_signed().wrapping_sub(expected.0.cast_signed());
        let step = (drift.abs() > DRIFT).then(|| {
            let slept = drift > SUSPEND;
            if slept {
                self.skipped += Duration::from_millis(drift.unsigned_abs());
            }
            self.anchor = (now, wall);
            Step { wall, slept }
        });
        (self.at(now), step)
    }

    fn at(&self, now: Instant) -> Timestamp {
        Timestamp::ZERO + now.duration_since(self.origin) + self.skipped
    }

    /// When tokio's clock will show `at`; `None` when that is beyond what it can show.
    pub(crate) fn instant(&self, at: Timestamp) -> Option<Instant> {
        let since = at.saturating_since(Timestamp::ZERO + self.skipped);
        self.origin.checked_add(since)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Set(Mutex<u64>);

    impl WallClock for Set {
        fn now(&self) -> UnixMillis {
            UnixMillis(*self.0.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspend_counts_and_a_step_back_does_not() {
        let wall = Arc::new(Set(Mutex::new(100_000)));
        let mut clock = Clock::new(wall.clone());
        assert_eq!(clock.read(), (Timestamp::ZERO, None));
        tokio::time::advance(Duration::from_secs(2)).await;
        *wall.0.lock().unwrap() = 102_900;
        assert_eq!(clock.read(), (Timestamp::from_secs(2), None));

        *wall.0.lock().unwrap() = 3_702_000;
        let slept = Step {
            wall: UnixMillis(3_702_000),
            slept: true,
        };
        assert_eq!(clock.read(), (Timestamp::from_secs(3_602), Some(slept)));
        assert_eq!(clock.read(), (Timestamp::from_secs(3_602), None));
        let due = clock.instant(Timestamp::from_secs(3_603)).unwrap();
        assert_eq!(due - Instant::now(), Duration::from_secs(1));

        *wall.0.lock().unwrap() = 50_000;
        let back = Step {
            wall: UnixMillis(50_000),
            slept: false,
        };
        assert_eq!(clock.read(), (Timestamp::from_secs(3_602), Some(back)));
    }
}
