//! Two programs with one client id: each connection ends the other's.
//!
//! MQTT 5 has a reason code for it, which old brokers do not send and 3.1.1 does not have. There a
//! takeover is a connection that the broker closes in good order, soon after it came up, again and
//! again, while it answers all the time and keeps the session. A broker that restarts mostly refuses
//! connections in between, or has forgotten the session, and that ends the count. It takes many ends,
//! because a false alarm stops a client for good, and two programs that fight are quick.

use core::time::Duration;

use tokio::time::Instant;

/// A connection that lived longer was not fought over.
const SHORT: Duration = Duration::from_secs(30);
/// So many in a row, within twice [`SHORT`], are a fight.
const ENDS: usize = 12;

#[derive(Debug, Default)]
pub(crate) struct Takeovers {
    ends: Vec<Instant>,
}

impl Takeovers {
    /// A connection did not come up, or ended in a way that speaks for something else.
    pub(crate) fn unlike(&mut self) {
        self.ends.clear();
    }

    /// The broker closed a connection without a reason; `resumed` when it had kept the session for
    /// it. True when that is a takeover.
    pub(crate) fn closed(&mut self, resumed: bool, came_up: Instant, now: Instant) -> bool {
        if !resumed || now - came_up > SHORT {
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
    fn s11_short_connections_in_a_row_are_a_takeover_from_the_twelfth_on() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        let ends =
            (0..14).map(|n| takeovers.closed(true, now + n * SECOND, now + (n + 1) * SECOND));
        let ends: Vec<bool> = ends.collect();
        assert_eq!(ends[..11], [false; 11]);
        assert_eq!(ends[11..], [true; 3]);
    }

    #[test]
    fn a_restart_a_long_life_and_long_pauses_are_none() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        for _ in 0..5 {
            for _ in 1..ENDS {
                assert!(!takeovers.closed(true, now, now + SECOND));
            }
            takeovers.unlike();
        }
        for _ in 0..ENDS {
            assert!(!takeovers.closed(true, now, now + SHORT + SECOND));
        }
        let mut takeovers = Takeovers::default();
        for n in 0..20 {
            let end = now + 6 * SECOND * n;
            assert!(!takeovers.closed(true, end, end));
        }
    }

    #[test]
    fn a_broker_that_keeps_crashing_and_forgets_the_session_is_none() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        for _ in 0..10 {
            for _ in 2..ENDS {
                assert!(!takeovers.closed(true, now, now + SECOND));
            }
            assert!(!takeovers.closed(false, now, now + SECOND));
        }
    }
}
