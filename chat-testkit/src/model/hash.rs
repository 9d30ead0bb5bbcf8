//! Short hashes that tell states apart: of whatever a machine shows of itself, and of bytes.

/// Hashes what is written to it.
pub(super) struct Hashing(pub(super) u64);

impl core::fmt::Write for Hashing {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = mix(self.0, u64::from_le_bytes(word));
        }
        Ok(())
    }
}

/// A step of a hash.
pub(super) fn mix(state: u64, word: u64) -> u64 {
    let wide = u128::from(state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (wide as u64) ^ ((wide >> 64) as u64).rotate_left(29)
}

/// A hash of these parts.
pub(super) fn hash_of(parts: &[&[u8]]) -> u64 {
    let mut hash = 0x517c_c1b7_2722_0a95;
    for part in parts {
        hash = mix(hash, part.len() as u64);
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash, u64::from_le_bytes(word));
        }
    }
    hash
}
