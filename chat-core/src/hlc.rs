//! The hybrid logical clock that gives every message its place on the screen (semantics 2.0,
//! reliability 2.2).
//!
//! Guarantees: readings of one clock strictly increase; hearing a remote reading moves ours past
//! it, unless it lies more than [`MAX_DRIFT`] ahead: then ours stays and the message is flagged,
//! its own key unchanged, because rewriting it would make two screens disagree.

use core::time::Duration;

use crate::time::UnixMillis;

/// How far ahead of our wall clock a remote reading may move ours.
pub const MAX_DRIFT: Duration = Duration::from_secs(300);

const LOGICAL_BITS: u32 = 16;

/// A reading: milliseconds since the Unix epoch in the upper 48 bits, a counter below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The wall-clock part.
    pub fn wall(self) -> UnixMillis {
        UnixMillis(self.0 >> LOGICAL_BITS)
    }

    fn at(wall: UnixMillis) -> Self {
        Self(wall.0.min(u64::MAX >> LOGICAL_BITS) << LOGICAL_BITS)
    }
}

/// One device's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// A clock that has read `last`.
    pub fn resume(last: Hlc) -> Self {
        Self { last }
    }

    /// A new reading at wall time `wall`.
    pub fn tick(&mut self, wall: UnixMillis) -> Hlc {
        self.last = Hlc::at(wall).max(Hlc(self.last.0.saturating_add(1)));
        self.last
    }

    /// Hears a remote reading; false when it lies too far ahead to be believed.
    pub fn observe(&mut self, remote: Hlc, wall: UnixMillis) -> bool {
        if remote > Hlc::at(wall.plus(MAX_DRIFT)) {
            return false;
        }
        self.last = self.last.max(remote);
        true
    }

    /// The latest reading.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_increase_and_a_poisoned_clock_is_not_followed() {
        let mut clock = HlcClock::default();
        let wall = UnixMillis(1_000_000);
        let first = clock.tick(wall);
        assert!(clock.tick(wall) > first);
        assert!(
            clock.tick(UnixMillis(5)) > first,
            "a wall clock that steps back changes nothing"
        );
        let near = Hlc::at(UnixMillis(1_200_000));
        assert!(clock.observe(near, wall));
        assert!(clock.tick(wall) > near);
        let far = Hlc::at(UnixMillis(9_000_000));
        assert!(!clock.observe(far, wall));
        assert!(clock.tick(wall) < far);
    }
}
