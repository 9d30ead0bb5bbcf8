//! Time as data. The core never reads a clock: every input carries a [`Timestamp`] from the
//! caller's monotonic clock, and wall time enters apart as [`UnixMillis`].
//!
//! Guarantees: arithmetic saturates, so no deadline wraps; [`Clock`] never runs backwards, so a
//! caller whose clock steps back gets the last value again.

use core::fmt;
use core::time::Duration;

/// A point on the caller's monotonic clock, in microseconds since an origin the caller chooses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// The end of time: a deadline that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// A timestamp `micros` µs after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A timestamp `millis` ms after the origin, saturating.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// A timestamp `secs` s after the origin, saturating.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The timestamp `by` earlier, stopping at the origin.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }
}

impl core::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// Wall-clock time: milliseconds since the Unix epoch, UTC. Used for display order, epochs and
/// expiry across restarts, never for authority.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This time plus `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The time from `earlier` to `self`, zero when `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Both readings of one moment, as the machines take them: deadlines run on `mono`, what must
/// survive a restart is stored as `wall`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic time.
    pub mono: Timestamp,
    /// Wall time.
    pub wall: UnixMillis,
}

impl Now {
    /// When, on the monotonic clock, the wall clock will read `wall`; now when it already has.
    pub fn mono_at(&self, wall: UnixMillis) -> Timestamp {
        self.mono + wall.saturating_since(self.wall)
    }
}

/// Ties the caller's monotonic clock to wall time and keeps it from running backwards.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    last: Timestamp,
    anchor: Timestamp,
    wall: UnixMillis,
}

impl Clock {
    /// A clock that reads `wall` at `now`.
    pub fn new(wall: UnixMillis, now: Timestamp) -> Self {
        Self {
            last: now,
            anchor: now,
            wall,
        }
    }

    /// Accepts the caller's `now`; returns it, or the latest value seen when it lies behind.
    pub fn advance(&mut self, now: Timestamp) -> Timestamp {
        self.last = self.last.max(now);
        self.last
    }

    /// Accepts the caller's `now` and returns both readings of it.
    pub fn read(&mut self, now: Timestamp) -> Now {
        let mono = self.advance(now);
        Now {
            mono,
            wall: self.wall_at(mono),
        }
    }

    /// The latest time seen.
    pub fn now(&self) -> Timestamp {
        self.last
    }

    /// Corrects the wall clock: it reads `wall` at `now`. Steps in either direction are legal.
    pub fn set_wall(&mut self, wall: UnixMillis, now: Timestamp) {
        self.anchor = self.advance(now);
        self.wall = wall;
    }

    /// Wall time at `at`.
    pub fn wall_at(&self, at: Timestamp) -> UnixMillis {
        if at >= self.anchor {
            self.wall.plus(at.saturating_since(self.anchor))
        } else {
            let back = self.anchor.saturating_since(at).as_millis();
            UnixMillis(
                self.wall
                    .0
                    .saturating_sub(u64::try_from(back).unwrap_or(u64::MAX)),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(
            Timestamp::ZERO.saturating_since(Timestamp::MAX),
            Duration::ZERO
        );
        assert_eq!(
            Timestamp::from_secs(1).saturating_sub(Duration::MAX),
            Timestamp::ZERO
        );
        assert_eq!(
            UnixMillis(u64::MAX).plus(Duration::MAX),
            UnixMillis(u64::MAX)
        );
    }

    #[test]
    fn a_clock_that_steps_back_reads_its_latest_value() {
        let mut clock = Clock::new(UnixMillis(5_000), Timestamp::from_secs(10));
        assert_eq!(
            clock.advance(Timestamp::from_secs(12)),
            Timestamp::from_secs(12)
        );
        assert_eq!(
            clock.advance(Timestamp::from_secs(11)),
            Timestamp::from_secs(12)
        );
        assert_eq!(clock.wall_at(Timestamp::from_secs(12)), UnixMillis(7_000));
        assert_eq!(clock.wall_at(Timestamp::from_secs(9)), UnixMillis(4_000));
    }
}
