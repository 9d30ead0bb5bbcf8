//! Who is speaking: one Ed25519 key per device, every frame signed, trust on first use
//! (DESIGN section 4, e2ee section 3).

mod key;
mod pins;

pub use key::{DeviceKey, Ed25519, PublicKey, Signature, Signer, Verifier, WeakKey};
pub use pins::{IdentityEvent, Pins, Standing};

use crate::id::{DeviceId, UserId};

/// The proven sender of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The name it speaks for.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
}
