//! Seeded randomness: SHA-256 in counter mode over a 32-byte seed.
//!
//! Guarantees: the same seed and the same calls give the same values; a child generator is
//! independent of how much its parent has been used, so a draw added in one machine moves no
//! value in another. Good enough for invite secrets as long as the seed is.

use core::time::Duration;

use sha2::{Digest, Sha256};

/// A deterministic generator.
#[derive(Clone)]
pub struct Rng {
    seed: [u8; 32],
    block: [u8; 32],
    used: usize,
    counter: u64,
}

impl core::fmt::Debug for Rng {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rng")
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

impl Rng {
    /// A generator for `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            seed,
            block: [0; 32],
            used: 32,
            counter: 0,
        }
    }

    /// A generator for the part of the program called `label`, independent of this one's state.
    #[must_use]
    pub fn child(&self, label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"chat/v1/rng-child\0");
        hash.update(self.seed);
        hash.update(label.as_bytes());
        Self::from_seed(hash.finalize().into())
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.block.len() {
                let mut hash = Sha256::new();
                hash.update(self.seed);
                hash.update(self.counter.to_le_bytes());
                self.block = hash.finalize().into();
                self.counter = self.counter.wrapping_add(1);
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }

    /// `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A `u64`.
    pub fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A value in `0..bound`, zero when `bound` is zero. The bias is below 2⁻³² for any bound
    /// that fits 32 bits, which is all that jitter needs.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64)
            .expect("a 64-bit value times a bound, shifted by 64, fits 64 bits")
    }

    /// A duration in `0..=max`: full jitter.
    pub fn jitter(&mut self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.below(micros.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_values() {
        let mut a = Rng::from_seed([7; 32]);
        let mut b = Rng::from_seed([7; 32]);
        assert_eq!((0..100).map(|_| a.next_u64()).collect::<Vec<_>>(), {
            (0..100).map(|_| b.next_u64()).collect::<Vec<_>>()
        });
    }

    #[test]
    fn a_child_does_not_depend_on_how_much_its_parent_was_used() {
        let mut parent = Rng::from_seed([1; 32]);
        let mut early = parent.child("session");
        parent.next_u64();
        let mut late = parent.child("session");
        assert_eq!(early.next_u64(), late.next_u64());
        assert_ne!(parent.child("a").next_u64(), parent.child("b").next_u64());
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::from_seed([3; 32]);
        assert!((0..1_000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
        assert!(rng.jitter(Duration::from_millis(5)) <= Duration::from_millis(5));
    }
}
