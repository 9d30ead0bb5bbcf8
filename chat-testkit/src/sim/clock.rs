//! The clocks of one node: a monotonic one with its own rate, restarted at each boot, and a wall
//! clock that drifts with it and can be stepped.

use chat_core::time::{Timestamp, UnixMillis};

/// Wall time at the start of every run.
pub(crate) const START_MS: u64 = 1_760_000_000_000;
const PPM: u128 = 1_000_000;

/// Times of the simulation itself are microseconds since its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeClock {
    rate_ppm: u64,
    boot_true: u64,
    boot_local: u64,
    skew_ms: i64,
}

impl NodeClock {
    /// A clock that runs at `rate_ppm` millionths of true time, its wall off by `skew_ms`.
    pub(crate) fn new(rate_ppm: u64, skew_ms: i64) -> Self {
        Self {
            rate_ppm,
            boot_true: 0,
            boot_local: 0,
            skew_ms,
        }
    }

    /// Restarts the monotonic clock at true time `at`, reading `local`.
    pub(crate) fn boot(&mut self, at: u64, local: u64) {
        (self.boot_true, self.boot_local) = (at, local);
    }

    /// Steps the wall clock.
    pub(crate) fn step(&mut self, by_ms: i64) {
        self.skew_ms += by_ms;
    }

    /// Monotonic time at true time `at`.
    pub(crate) fn mono(&self, at: u64) -> Timestamp {
        let gone = u128::from(at - self.boot_true) * u128::from(self.rate_ppm) / PPM;
        Timestamp::from_micros(self.boot_local + gone as u64)
    }

    /// Wall time at true time `at`.
    pub(crate) fn wall(&self, at: u64) -> UnixMillis {
        let gone = u128::from(at) * u128::from(self.rate_ppm) / PPM / 1_000;
        UnixMillis((START_MS + gone as u64).saturating_add_signed(self.skew_ms))
    }

    /// The first true time at which the monotonic clock reads `local` or more.
    pub(crate) fn true_at(&self, local: Timestamp) -> u64 {
        let gone = u128::from(local.as_micros().saturating_sub(self.boot_local)) * PPM;
        let gone = gone.div_ceil(u128::from(self.rate_ppm));
        self.boot_true
            .saturating_add(u64::try_from(gone).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_true_time_and_not_before() {
        for rate in [970_000, 1_000_000, 1_030_000, 999_999] {
            let mut clock = NodeClock::new(rate, -5);
            clock.boot(1_234_567, 99);
            for local in [99, 100, 1_000_003, 77_777_777] {
                let at = clock.true_at(Timestamp::from_micros(local));
                assert!(clock.mono(at).as_micros() >= local);
                assert!(at == 1_234_567 || clock.mono(at - 1).as_micros() < local);
            }
        }
    }
}
