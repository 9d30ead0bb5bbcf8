//! Safety numbers: what two people compare, by voice or by a code on a screen, to know that
//! nobody stands between them (e2ee section 3).
//!
//! Guarantees: the same from either side and in whatever order the devices are listed; another
//! user or device on either side gives another number. The hash is iterated, so that finding
//! keys whose 60 digits agree costs 5,200 hashes a try.

use core::fmt;

use sha2::{Digest, Sha512};

use crate::id::{DeviceId, UserId};

const ITERATIONS: u32 = 5_200;
const GROUPS: usize = 12;

/// The safety number of two users. `Display` shows 12 groups of 5 digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SafetyNumber([u8; 64]);

impl SafetyNumber {
    /// The number for two users, each with all devices trusted for it. Takes some milliseconds.
    pub fn of(a: (&UserId, &[DeviceId]), b: (&UserId, &[DeviceId])) -> Self {
        let mut sides = [side(a), side(b)];
        sides.sort_unstable();
        let mut input = b"chat/v1/safety\0".to_vec();
        for side in &sides {
            input.extend_from_slice(&(side.len() as u64).to_le_bytes());
            input.extend_from_slice(side);
        }
        let mut digest: [u8; 64] = Sha512::digest(&input).into();
        for _ in 1..ITERATIONS {
            let mut hash = Sha512::new();
            hash.update(digest);
            hash.update(&input);
            digest = hash.finalize().into();
        }
        Self(digest)
    }

    /// The full digest, for a code that a camera reads.
    pub const fn digest(&self) -> &[u8; 64] {
        &self.0
    }
}

fn side((user, devices): (&UserId, &[DeviceId])) -> Vec<u8> {
    let mut devices = devices.to_vec();
    devices.sort_unstable();
    devices.dedup();
    let name = user.as_str().as_bytes();
    let mut out = Vec::with_capacity(16 + name.len() + 32 * devices.len());
    out.extend_from_slice(&(name.len() as u64).to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&(devices.len() as u64).to_le_bytes());
    for device in devices {
        out.extend_from_slice(&device.0);
    }
    out
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, five) in self.0.chunks_exact(5).take(GROUPS).enumerate() {
            let value = five
                .iter()
                .fold(0_u64, |v, byte| (v << 8) | u64::from(*byte));
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{:05}", value % 100_000)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn the_number_is_the_same_from_either_side_and_in_any_order() {
        let (a, b) = (user("ann"), user("bob"));
        let (one, two, three) = (DeviceId([1; 32]), DeviceId([2; 32]), DeviceId([3; 32]));
        let number = SafetyNumber::of((&a, &[one, two]), (&b, &[three]));
        let turned = SafetyNumber::of((&b, &[three]), (&a, &[two, one, two]));
        assert_eq!(number, turned);
        // Computed apart from this code, after the protocol page.
        let expected = "98984 67598 04135 86784 06351 16410 31913 82815 88879 16502 50429 70230";
        assert_eq!(number.to_string(), expected);
    }

    #[test]
    fn another_device_on_either_side_gives_another_number() {
        let (a, b) = (user("ann"), user("bob"));
        let (one, two) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let number = SafetyNumber::of((&a, &[one]), (&b, &[two]));
        assert_ne!(number, SafetyNumber::of((&a, &[one, two]), (&b, &[two])));
        assert_ne!(number, SafetyNumber::of((&a, &[two]), (&b, &[one])));
        assert_ne!(
            number,
            SafetyNumber::of((&a, &[one]), (&user("bo"), &[two]))
        );
    }
}
