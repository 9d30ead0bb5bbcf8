//! The one function that turns a name into a piece of an address.
//!
//! `A-Z a-z 0-9 - _` stay; every other byte of the UTF-8 form becomes `=XX`. What would grow past
//! [`MAX_ESCAPED`] bytes becomes `=H` and 43 characters of base64url SHA-256 (`H` is no
//! hexadecimal digit, so the two forms never meet).
//!
//! Guarantees: injective (up to SHA-256); the output has no wildcard, separator, `$`, space,
//! control or non-ASCII byte on any transport, is never empty for a non-empty input, and is at
//! most 120 bytes long.

use sha2::{Digest, Sha256};

/// The longest escaped form.
const MAX_ESCAPED: usize = 120;
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Why an address piece decodes to no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnescapeError {
    /// The piece is the hash of a long name, which only the signed frame carries in full.
    #[error("the address holds a hash; read the full name from the signed frame")]
    Hashed,
    /// The piece was not written by [`escape`].
    #[error("the address was not written by this library; drop what came on it")]
    Foreign,
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Escapes `name` for use as one level of a topic, one token of a subject or one key.
pub fn escape(name: &str) -> String {
    let size: usize = name.bytes().map(|b| if is_plain(b) { 1 } else { 3 }).sum();
    if size > MAX_ESCAPED {
        return hashed(name);
    }
    let mut out = String::with_capacity(size);
    for byte in name.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('=');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

fn hashed(name: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let mut out = String::with_capacity(45);
    out.push_str("=H");
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in digest {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 6 {
            held -= 6;
            out.push(char::from(BASE64URL[(bits >> held) as usize & 63]));
        }
    }
    out.push(char::from(BASE64URL[(bits << (6 - held)) as usize & 63]));
    out
}

/// Undoes [`escape`], strictly: only what it can have written is accepted.
///
/// # Errors
/// [`UnescapeError::Hashed`] for the hash form, [`UnescapeError::Foreign`] for anything else.
pub fn unescape(piece: &str) -> Result<String, UnescapeError> {
    if let Some(hash) = piece.strip_prefix("=H") {
        let ours = hash.len() == 43 && hash.bytes().all(is_plain);
        return Err(if ours {
            UnescapeError::Hashed
        } else {
            UnescapeError::Foreign
        });
    }
    if piece.is_empty() || piece.len() > MAX_ESCAPED {
        return Err(UnescapeError::Foreign);
    }
    let digit = |b: u8| {
        HEX.iter()
            .position(|h| *h == b)
            .and_then(|v| u8::try_from(v).ok())
    };
    let mut out = Vec::with_capacity(piece.len());
    let mut bytes = piece.bytes();
    while let Some(byte) = bytes.next() {
        if is_plain(byte) {
            out.push(byte);
        } else if byte == b'=' {
            let high = bytes.next().and_then(digit).ok_or(UnescapeError::Foreign)?;
            let low = bytes.next().and_then(digit).ok_or(UnescapeError::Foreign)?;
            let value = high << 4 | low;
            if is_plain(value) {
                return Err(UnescapeError::Foreign);
            }
            out.push(value);
        } else {
            return Err(UnescapeError::Foreign);
        }
    }
    String::from_utf8(out).map_err(|_| UnescapeError::Foreign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_forms() {
        assert_eq!(escape("alice-1_B"), "alice-1_B");
        assert_eq!(
            escape("a/b+#*>. $\0é"),
            "a=2Fb=2B=23=2A=3E=2E=20=24=00=C3=A9"
        );
        let long = escape(&"x".repeat(121));
        assert_eq!(long.len(), 45);
        assert!(long.starts_with("=H"));
        assert_eq!(unescape(&long), Err(UnescapeError::Hashed));
    }

    #[test]
    fn foreign_pieces_are_refused() {
        for piece in [
            "", "=", "=2", "=2f", "=41", "a.b", "=H", "=Hxyz", "=FF", "é", "a b",
        ] {
            assert_eq!(unescape(piece), Err(UnescapeError::Foreign), "{piece:?}");
        }
    }

    proptest! {
        #[test]
        fn output_is_safe_everywhere(name in "\\PC{1,200}|[\\x00-\\x7f]{1,80}") {
            let piece = escape(&name);
            prop_assert!(!piece.is_empty() && piece.len() <= MAX_ESCAPED);
            prop_assert!(piece.bytes().all(|b| is_plain(b) || b == b'='));
        }

        #[test]
        fn injective_and_reversible(a in "[\\x00-\\x7féß/+#]{1,39}", b in "[\\x00-\\x7féß/+#]{1,39}") {
            prop_assert_eq!(escape(&a) == escape(&b), a == b);
            if escape(&a).len() <= MAX_ESCAPED && !escape(&a).starts_with("=H") {
                prop_assert_eq!(unescape(&escape(&a)), Ok(a));
            }
        }

        #[test]
        fn whatever_decodes_encodes_back(piece in "[=0-9A-Fa-z_]{0,24}") {
            if let Ok(name) = unescape(&piece) {
                prop_assert_eq!(escape(&name), piece);
            }
        }
    }
}
