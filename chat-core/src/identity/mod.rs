//! Who is speaking: one Ed25519 key per device, every frame signed, trust on first use
//! (DESIGN section 4, e2ee section 3).

mod budget;
mod key;
mod pins;
mod safety;

pub use budget::Budget;
pub use key::{DeviceKey, Ed25519, PublicKey, Signature, Signer, Verifier, WeakKey};
pub use pins::{IdentityEvent, MAX_DEVICES, Pins, Standing};
pub use safety::SafetyNumber;

use crate::id::{DeviceId, UserId};

/// The proven sender of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The name it speaks for.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
}
