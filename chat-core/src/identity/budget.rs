//! How many frames a sender may make us work on.
//!
//! The key in a frame is only a claim until the signature is checked, so checking is what costs,
//! and charging a key for frames that it did not sign would let anybody silence it. Hence:
//!
//! 1. [`Budget::allow`] before the check. It charges nothing.
//! 2. [`Budget::charge`] when the signature held: the key pays from its own bucket.
//! 3. [`Budget::charge_junk`] when it did not: one bucket for all junk pays.
//!
//! Guarantees: a proven key (one with a valid frame in memory) is refused only for frames that it
//! signed itself, whatever junk names it; a key that proves itself too often is refused without
//! a check; while the junk bucket is empty no key that is not proven costs a check. So junk in
//! invented names costs at most `frames_per_second` checks per second, and a newcomer then gets
//! in by repeating itself. Junk in the name of a proven key always costs its check (about 40 µs):
//! it cannot be told from that key's frames any cheaper, and its rate is the transport's business.
//!
//! A frame of a key that somebody else replays is charged to that key: only its machine can tell
//! that it is old. Who can both read and write a channel (a fellow member, the broker) can so
//! use up another's budget while it floods; retransmits get through once it stops.
//!
//! A bucket is one number, the time at which it is full again (the GCRA form of a token bucket).
//! Beyond `max_senders` the bucket that has been full longest is dropped, which loses nothing of
//! the limit; when none is full, newcomers share one bucket.

use crate::config::BudgetConfig;
use crate::deadline::DeadlineIndex;
use crate::identity::PublicKey;
use crate::rng::Rng;
use crate::time::Timestamp;

/// When a bucket is full again, in nanoseconds of the monotonic clock.
type FullAt = u64;

/// Token buckets per signing key, one for newcomers without room, and one for junk.
#[derive(Debug)]
pub struct Budget {
    /// Nanoseconds that one frame costs.
    cost: u64,
    /// How far ahead of now a bucket's `FullAt` may be for one more frame.
    ahead: u64,
    max_senders: usize,
    senders: DeadlineIndex<PublicKey, FullAt>,
    shared: FullAt,
    junk: FullAt,
}

impl Budget {
    /// Full buckets; look-ups are keyed from `rng`.
    pub fn new(config: &BudgetConfig, rng: &Rng) -> Self {
        let cost = (1_000_000_000 / u64::from(config.frames_per_second.max(1))).max(1);
        Self {
            cost,
            ahead: cost.saturating_mul(u64::from(config.burst.saturating_sub(1))),
            max_senders: config.max_senders,
            senders: DeadlineIndex::new(rng),
            shared: 0,
            junk: 0,
        }
    }

    /// Whether a frame that names `key` is worth a signature check. Charges nothing.
    pub fn allow(&mut self, key: &PublicKey, now: Timestamp) -> bool {
        let now = nanos(now);
        match self.senders.due(key) {
            Some(full) => self.has_room(full, now),
            None => {
                self.has_room(self.junk, now)
                    && (self.can_enter(now) || self.has_room(self.shared, now))
            }
        }
    }

    /// The signature held: `key` pays.
    pub fn charge(&mut self, key: &PublicKey, now: Timestamp) {
        let now = nanos(now);
        if let Some(full) = self.senders.due(key) {
            self.senders.set(*key, self.paid(full, now));
        } else if self.can_enter(now) {
            if self.senders.len() >= self.max_senders {
                self.senders.pop_due(now);
            }
            self.senders.set(*key, self.paid(0, now));
        } else {
            crate::probe::mark("budget-shared");
            self.shared = self.paid(self.shared, now);
        }
    }

    /// The signature did not hold: nobody is known to have sent it.
    pub fn charge_junk(&mut self, now: Timestamp) {
        self.junk = self.paid(self.junk, nanos(now));
    }

    fn can_enter(&mut self, now: u64) -> bool {
        self.senders.len() < self.max_senders || self.senders.first_due(now).is_some()
    }

    const fn has_room(&self, full: FullAt, now: u64) -> bool {
        full <= now.saturating_add(self.ahead)
    }

    fn paid(&self, full: FullAt, now: u64) -> FullAt {
        full.max(now).saturating_add(self.cost)
    }
}

const fn nanos(at: Timestamp) -> u64 {
    at.as_micros().saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn budget(frames_per_second: u32, burst: u32, max_senders: usize) -> Budget {
        let config = BudgetConfig {
            frames_per_second,
            burst,
            max_senders,
            ..BudgetConfig::default()
        };
        Budget::new(&config, &Rng::from_seed([1; 32]))
    }

    fn key(n: u32) -> PublicKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        PublicKey(key)
    }

    /// How many of `n` honest frames of `key` pass at `now`.
    fn pass(budget: &mut Budget, key: &PublicKey, n: u32, now: Timestamp) -> u32 {
        (0..n)
            .filter(|_| {
                let allowed = budget.allow(key, now);
                if allowed {
                    budget.charge(key, now);
                }
                allowed
            })
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn a_sender_gets_its_burst_and_then_its_rate() {
        let mut budget = budget(10, 5, 8);
        let (a, b) = (key(1), key(2));
        assert_eq!(pass(&mut budget, &a, 100, Timestamp::ZERO), 5);
        assert_eq!(pass(&mut budget, &b, 100, Timestamp::ZERO), 5);
        assert_eq!(pass(&mut budget, &a, 100, Timestamp::from_millis(99)), 0);
        assert_eq!(pass(&mut budget, &a, 100, Timestamp::from_millis(100)), 1);
        assert_eq!(pass(&mut budget, &a, 100, Timestamp::from_secs(60)), 5);
    }

    #[test]
    fn junk_in_a_proven_name_takes_nothing_from_it() {
        let mut budget = budget(10, 5, 8);
        let honest = key(1);
        assert_eq!(pass(&mut budget, &honest, 1, Timestamp::ZERO), 1);
        for second in 1..=60 {
            let now = Timestamp::from_secs(second);
            for _ in 0..10_000 {
                assert!(budget.allow(&honest, now));
                budget.charge_junk(now);
            }
            assert_eq!(pass(&mut budget, &honest, 5, now), 5);
        }
    }

    #[test]
    fn junk_in_invented_names_is_checked_at_the_rate_only() {
        let mut budget = budget(10, 5, 8);
        let honest = key(1);
        assert_eq!(pass(&mut budget, &honest, 1, Timestamp::ZERO), 1);
        let mut checks = 0;
        for tick in 0..10_000 {
            let now = Timestamp::from_millis(tick);
            if budget.allow(&key(1_000 + u32::try_from(tick).unwrap()), now) {
                budget.charge_junk(now);
                checks += 1;
            }
        }
        assert!((100..=5 + 100).contains(&checks), "{checks} checks in 10 s");
        assert_eq!(budget.senders.len(), 1, "junk takes no room");
        assert_eq!(pass(&mut budget, &honest, 5, Timestamp::from_secs(10)), 5);
    }

    #[test]
    fn a_newcomer_gets_in_during_a_junk_flood_by_repeating_itself() {
        let mut budget = budget(10, 5, 8);
        let newcomer = key(7);
        for _ in 0..5 {
            budget.charge_junk(Timestamp::ZERO);
        }
        // Ten frames per millisecond, in random order one of them its own.
        let mut rng = Rng::from_seed([9; 32]);
        let entered = (1..10_000).find(|tick| {
            let now = Timestamp::from_millis(*tick);
            let own = rng.below(10);
            (0..10).any(|slot| {
                if slot == own {
                    return pass(&mut budget, &newcomer, 1, now) == 1;
                }
                if budget.allow(&key(1_000), now) {
                    budget.charge_junk(now);
                }
                false
            })
        });
        assert!(entered.is_some(), "not within 10 s");
    }

    #[test]
    fn strangers_beyond_the_bound_share_one_bucket_until_one_is_idle() {
        let mut budget = budget(10, 5, 2);
        let now = Timestamp::ZERO;
        assert_eq!(pass(&mut budget, &key(1), 5, now), 5);
        assert_eq!(pass(&mut budget, &key(2), 1, now), 1);
        let through: u32 = (10..30).map(|n| pass(&mut budget, &key(n), 1, now)).sum();
        assert_eq!(through, 5, "twenty strangers have five frames together");
        // Key 2 is idle after 100 ms and makes room; key 1 keeps its debt.
        let later = Timestamp::from_millis(100);
        assert_eq!(pass(&mut budget, &key(40), 9, later), 5);
        assert_eq!(pass(&mut budget, &key(1), 9, later), 1);
        assert_eq!(budget.senders.len(), 2);
    }

    #[test]
    fn extreme_settings_and_times_do_not_overflow() {
        let mut budget = budget(u32::MAX, u32::MAX, 1);
        for now in [Timestamp::MAX, Timestamp::ZERO] {
            for n in 0..3 {
                budget.allow(&key(n), now);
                budget.charge(&key(n), now);
                budget.charge_junk(now);
            }
        }
        assert_eq!(budget.senders.len(), 1);
    }
}
