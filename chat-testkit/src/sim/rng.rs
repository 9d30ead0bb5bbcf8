//! Randomness of a run: one root seed, split per subsystem with [`chat_core::rng::Rng`] children,
//! so that a draw added in one place moves no value in another. The draws themselves use a small
//! fast generator, because the network alone makes tens of thousands per run.

use chat_core::rng::Rng;

/// A fast generator (SplitMix64) for one subsystem.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// The generator of the subsystem `label` of run `seed`.
    pub fn new(seed: u64, label: &str) -> Self {
        Self(root(seed).child(label).next_u64())
    }

    /// A `u64`.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value in `0..bound`, zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A value in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// An index in `0..len`; `len` must not be zero.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1_000) < u64::from(per_mille)
    }

    /// True in `rate` of 10,000 cases.
    pub fn in_ten_thousand(&mut self, rate: u32) -> bool {
        rate > 0 && self.below(10_000) < u64::from(rate)
    }

    /// One of `items`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }

    /// About exponential with this mean, at least a fifth and at most eight times of it: the sum
    /// of a geometric number of halves, in integers so that every machine agrees.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // -ln(u) for u = (r + 1) / 2^64, as leading zeros (times ln 2) plus a linear part.
        let r = self.draw();
        let zeros = u64::from(r.leading_zeros());
        let fraction = (r << (zeros + 1).min(63)) >> 54;
        let log2 = (zeros << 10) + (1_024 - fraction.min(1_024));
        let value = mean.saturating_mul(log2).saturating_mul(710) >> 20;
        value.clamp(mean / 5, mean.saturating_mul(8))
    }
}

/// The 32-byte seed for the endpoint `label` of run `seed`.
pub fn endpoint_seed(seed: u64, label: &str) -> [u8; 32] {
    root(seed).child(label).bytes()
}

fn root(seed: u64) -> Rng {
    let mut bytes = [0x5e; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Rng::from_seed(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_has_its_mean() {
        let mut draw = Draw::new(1, "x");
        let sum: u64 = (0..20_000).map(|_| draw.exponential(1_000)).sum();
        assert!((950..1_150).contains(&(sum / 20_000)), "{}", sum / 20_000);
    }

    #[test]
    fn subsystems_are_independent() {
        assert_ne!(Draw::new(1, "net").draw(), Draw::new(1, "disk").draw());
        assert_eq!(Draw::new(1, "net").draw(), Draw::new(1, "net").draw());
        assert!((0..100).all(|_| Draw::new(9, "r").range(3, 5) <= 5));
    }
}
