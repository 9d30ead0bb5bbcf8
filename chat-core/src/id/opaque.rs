//! Names that we derive: fixed bytes, compared and ordered as bytes, shown in base32.

use core::fmt;

use sha2::{Digest, Sha256};

use super::UserId;

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

fn base32(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            fmt::Write::write_char(f, char::from(BASE32[(bits >> held) as usize & 31]))?;
        }
    }
    if held > 0 {
        fmt::Write::write_char(f, char::from(BASE32[(bits << (5 - held)) as usize & 31]))?;
    }
    Ok(())
}

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                base32(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                base32(&self.0[..5], f)
            }
        }
    };
}

opaque!(
    /// A device: SHA-256 over `"chat/v1/device"` and its Ed25519 public key. A lost disk means a
    /// new key and so a new device.
    DeviceId, 32
);
opaque!(
    /// A conversation: for two people the hash of their sorted names (rule S1), for a group its
    /// [`GroupId`].
    ConvId, 32
);
opaque!(
    /// A group: the hash of its signed create record (rule G1).
    GroupId, 32
);
opaque!(
    /// One chat request (rules S1, S7); random, compared as bytes for the tie-break.
    InviteId, 16
);
opaque!(
    /// One join request (rule G14).
    RequestId, 16
);
opaque!(
    /// The caller's own name for a send, which makes it idempotent (reliability 2.2).
    TxnId, 16
);

impl ConvId {
    /// The conversation of two people, the same from either side (rule S1).
    pub fn between(a: &UserId, b: &UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut hash = Sha256::new();
        hash.update(b"chat/v1/dm\0");
        for name in [low, high] {
            hash.update((name.as_str().len() as u64).to_le_bytes());
            hash.update(name.as_str().as_bytes());
        }
        Self(hash.finalize().into())
    }
}

impl From<GroupId> for ConvId {
    fn from(group: GroupId) -> Self {
        Self(group.0)
    }
}

impl From<ConvId> for GroupId {
    fn from(conv: ConvId) -> Self {
        Self(conv.0)
    }
}

/// One process life of a device: `max(stored + 1, wall clock in ms)`, durable before anything is
/// sent (reliability 2.2). It is also the presence incarnation (rule P2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

/// A position in a stream; the first message has 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

/// The messages that one device sent to one conversation in one epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId {
    /// The conversation.
    pub conv: ConvId,
    /// The sending device.
    pub device: DeviceId,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A message: bound to one content for ever (invariant ID6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its place there.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_a_pair_has_one_conversation_from_either_side() {
        let (a, b) = (UserId::new("a").unwrap(), UserId::new("b").unwrap());
        assert_eq!(ConvId::between(&a, &b), ConvId::between(&b, &a));
        let (ab, c) = (UserId::new("ab").unwrap(), UserId::new("c").unwrap());
        let bc = UserId::new("bc").unwrap();
        assert_ne!(ConvId::between(&ab, &c), ConvId::between(&a, &bc));
    }

    #[test]
    fn ids_show_in_base32() {
        assert_eq!(InviteId([0; 16]).to_string(), "a".repeat(26));
        assert_eq!(
            InviteId([255; 16]).to_string(),
            format!("{}4", "7".repeat(25))
        );
        assert_eq!(format!("{:?}", DeviceId([0xff; 32])), "77777777");
    }
}
