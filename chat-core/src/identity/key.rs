//! Device keys, signatures and the two traits that let a simulator replace them.
//!
//! Guarantees: verification is strict (small-order points and non-canonical encodings are
//! refused), so a weak key can sign for nobody; a device key is never handed to a transport.

use core::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::id::DeviceId;

/// An Ed25519 public key as carried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The device that owns this key.
    pub fn device(&self) -> DeviceId {
        let mut hash = Sha256::new();
        hash.update(b"chat/v1/device");
        hash.update(self.0);
        DeviceId(hash.finalize().into())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{:?}", DeviceId(self.0))
    }
}

/// An Ed25519 signature as carried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sig:{:02x}{:02x}{:02x}…",
            self.0[0], self.0[1], self.0[2]
        )
    }
}

/// Signs for one device.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The key whose signatures these are.
    fn public_key(&self) -> PublicKey;
    /// Signs `message`. Callers separate domains; see [`crate::wire`].
    fn sign(&self, message: &[u8]) -> Signature;
    /// A secret that nobody but the owners of this key and of `other` can compute; the same for
    /// both. `None` when `other` is no good, or when this signer cannot: what is shared between
    /// the devices of one user stays on this one then (S5).
    fn agree(&self, other: &PublicKey) -> Option<[u8; 32]> {
        let _ = other;
        None
    }
}

/// Checks signatures.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// True when `signature` over `message` was made with the private part of `key`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
}

/// The real verifier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519;

impl Verifier for Ed25519 {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&key.0) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        !key.is_weak() && key.verify_strict(message, &signature).is_ok()
    }
}

/// The key is of small order: anybody can sign with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key is weak; make another")]
pub struct WeakKey;

/// A device's private key. `Debug` shows only the device id; the key is wiped when dropped.
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// The key for 32 secret bytes from a secure source. Keep them: another key is another device.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&secret))
    }

    /// The secret bytes, to store them.
    pub fn to_secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.public_key().device()
    }
}

impl Signer for DeviceKey {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    /// X25519 over the same keys, which is safe next to Ed25519 signatures
    /// (<https://eprint.iacr.org/2021/509>).
    fn agree(&self, other: &PublicKey) -> Option<[u8; 32]> {
        let theirs = VerifyingKey::from_bytes(&other.0).ok()?;
        if theirs.is_weak() {
            return None;
        }
        let point = theirs.to_montgomery().mul_clamped(self.0.to_scalar_bytes());
        Some(point.to_bytes())
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.device()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let (a, b) = (
            DeviceKey::from_secret([1; 32]),
            DeviceKey::from_secret([2; 32]),
        );
        let signature = a.sign(b"hello");
        assert!(Ed25519.verify(&a.public_key(), b"hello", &signature));
        assert!(!Ed25519.verify(&a.public_key(), b"hallo", &signature));
        assert!(!Ed25519.verify(&b.public_key(), b"hello", &signature));
        assert_ne!(a.device(), b.device());
    }

    #[test]
    fn weak_keys_sign_for_nobody() {
        // The identity point, with the signature that plain verification accepts for any message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!Ed25519.verify(&PublicKey(identity), b"anything", &Signature(signature)));
        assert!(!Ed25519.verify(&PublicKey([0; 32]), b"anything", &Signature([0; 64])));
    }

    #[test]
    fn two_keys_agree_on_a_secret_and_a_weak_key_on_none() {
        let key = |n: u8| DeviceKey::from_secret([n; 32]);
        let secret = key(1).agree(&key(2).public_key());
        assert!(secret.is_some());
        assert_eq!(secret, key(2).agree(&key(1).public_key()));
        assert_ne!(secret, key(3).agree(&key(1).public_key()));
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(key(1).agree(&PublicKey(identity)), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = DeviceKey::from_secret([0x41; 32]);
        assert!(!format!("{key:?}").contains("65, 65"));
        assert_eq!(
            DeviceKey::from_secret(key.to_secret()).device(),
            key.device()
        );
    }
}
