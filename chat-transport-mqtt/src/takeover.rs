//! Two programs with one client id: each connection ends the other's.
//!
//! MQTT 5 has a reason code for it, which old brokers do not send and 3.1.1 does not have. There a
//! takeover is a connection that the broker closes in good order, soon after it came up, again and
//! again, while it answers all the time. A broker that restarts or is gone refuses connections in
//! between, and that ends the count.

use core::time::Duration;

use tokio::time::Instant;

/// A connection that lived longer was not fought over.
const SHORT: Duration = Duration::from_secs(30);
/// So many in a row, within twice [`SHORT`], are a fight.
const ENDS: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Takeovers {
    ends: Vec<Instant>,
}

impl Takeovers {
    /// A connection did not come up, or ended in a way that speaks for something else.
    pub(crate) fn unlike(&mut self) {
        self.ends.clear();
    }

    /// The broker closed a connection without a reason. True when that is a takeover.
    pub(crate) fn closed(&mut self, came_up: Instant, now: Instant) -> bool {
        if now - came_up > SHORT {
            self.ends.clear();
            return false;
        }
        self.ends.retain(|end| now - *end <= 2 * SHORT);
        self.ends.push(now);
        if self.ends.len() > ENDS {
            self.ends.remove(0);
        }
        self.ends.len() >= ENDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn s11_short_connections_in_a_row_are_a_takeover_from_the_fifth_on() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        let ends = (0..7).map(|n| takeovers.closed(now + n * SECOND, now + (n + 1) * SECOND));
        let ends: Vec<bool> = ends.collect();
        assert_eq!(ends, [false, false, false, false, true, true, true]);
    }

    #[test]
    fn a_restart_a_long_life_and_long_pauses_are_none() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        for _ in 0..5 {
            for _ in 0..4 {
                assert!(!takeovers.closed(now, now + SECOND));
            }
            takeovers.unlike();
        }
        for _ in 0..5 {
            assert!(!takeovers.closed(now, now + SHORT + SECOND));
        }
        let mut takeovers = Takeovers::default();
        for n in 0..10 {
            let end = now + 20 * SECOND * n;
            assert!(!takeovers.closed(end, end));
        }
    }
}
