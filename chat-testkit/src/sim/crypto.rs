//! Perfect cryptography, fast: a signature is valid exactly when its key holder made it. A
//! [`Ledger`] remembers every signature, which makes forgery something an oracle can see (IG12).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use chat_core::identity::{PublicKey, Signature, Signer, Verifier};

/// Everything that was ever signed in one run.
#[derive(Default)]
pub struct Ledger(Mutex<HashSet<[u64; 2]>>);

impl core::fmt::Debug for Ledger {
    /// No state of a signer: two that hold the same key are the same, whoever else signed what.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    /// True when the holder of `key` signed `message`.
    pub fn signed(&self, key: &PublicKey, message: &[u8]) -> bool {
        self.contains(&digest(key, message))
    }

    /// True when `signature` is the one that the holder of `key` made over `message`.
    pub fn made(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
        let digest = digest(key, message);
        spell(digest).0 == *signature && self.contains(&digest)
    }

    fn contains(&self, digest: &[u64; 2]) -> bool {
        let set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.contains(digest)
    }

    fn insert(&self, digest: [u64; 2]) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.insert(digest);
    }
}

/// Signs for one simulated device and records it.
#[derive(Clone, Debug)]
pub struct FakeSigner {
    key: PublicKey,
    ledger: Arc<Ledger>,
}

impl FakeSigner {
    /// The signer of device number `number`.
    pub fn new(number: u64, ledger: Arc<Ledger>) -> Self {
        let mut key = [0xd0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Self {
            key: PublicKey(key),
            ledger,
        }
    }
}

impl Signer for FakeSigner {
    fn public_key(&self) -> PublicKey {
        self.key
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let digest = digest(&self.key, message);
        self.ledger.insert(digest);
        spell(digest)
    }

    fn agree(&self, other: &PublicKey) -> Option<[u8; 32]> {
        let (a, b) = (self.key.min(*other), self.key.max(*other));
        let signature = spell(digest(&a, &b.0));
        signature.0.first_chunk().copied()
    }
}

/// Accepts what the ledger knows, and nothing else.
#[derive(Clone, Debug)]
pub struct FakeVerifier(pub Arc<Ledger>);

impl Verifier for FakeVerifier {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let digest = digest(key, message);
        spell(digest).0 == signature.0 && self.0.contains(&digest)
    }
}

fn spell(digest: [u64; 2]) -> Signature {
    let mut out = [0x51; 64];
    out[..8].copy_from_slice(&digest[0].to_le_bytes());
    out[8..16].copy_from_slice(&digest[1].to_le_bytes());
    Signature(out)
}

fn digest(key: &PublicKey, message: &[u8]) -> [u64; 2] {
    let mut state = [
        0x243f_6a88_85a3_08d3u64,
        0x1319_8a2e_0370_7344 ^ message.len() as u64,
    ];
    for part in [&key.0[..], message] {
        let mut chunks = part.chunks_exact(8);
        for chunk in &mut chunks {
            fold(
                &mut state,
                u64::from_le_bytes(chunk.try_into().expect("a chunk has 8 bytes")),
            );
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        fold(&mut state, u64::from_le_bytes(last));
    }
    fold(&mut state, 0);
    fold(&mut state, 1);
    state
}

fn fold(state: &mut [u64; 2], word: u64) {
    let [a, b] = *state;
    let wide = u128::from(a ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
    let mixed = (wide as u64) ^ ((wide >> 64) as u64);
    *state = [
        b.rotate_left(23) ^ mixed,
        (a ^ mixed.rotate_left(41)).wrapping_add(word),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_verifies() {
        let ledger = Arc::new(Ledger::default());
        let (a, b) = (
            FakeSigner::new(1, ledger.clone()),
            FakeSigner::new(2, ledger.clone()),
        );
        let verifier = FakeVerifier(ledger.clone());
        let signature = a.sign(b"hello");
        assert!(verifier.verify(&a.public_key(), b"hello", &signature));
        assert!(!verifier.verify(&a.public_key(), b"hellp", &signature));
        assert!(!verifier.verify(&b.public_key(), b"hello", &signature));
        let forged = spell(digest(&a.public_key(), b"never said"));
        assert!(!verifier.verify(&a.public_key(), b"never said", &forged));
        assert!(ledger.signed(&a.public_key(), b"hello"));
    }
}
