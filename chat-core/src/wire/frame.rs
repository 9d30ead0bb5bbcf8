//! Encoding, signing, verifying and decoding one frame.
//!
//! Cost: [`encode`] makes one allocation, of the exact size; [`header`] none; [`open`] one for the
//! signed message, one for the sender's name and one per text, byte string or list of the body
//! (lists grow by doubling). What `open` holds at once stays below eight times the frame and 4 KiB.

use bytes::{Buf as _, Bytes};
use postcard::ser_flavors::Size;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Body, MAGIC, VERSION};
use crate::channel::Channel;
use crate::id::{IdError, UserId};
use crate::identity::{PublicKey, Signature, Signer, Verifier};

const FIXED: usize = 4 + 32;
const SIGNATURE: usize = 64;
/// A frame whose two blocks are empty.
const SMALLEST: usize = FIXED + 2 + 2 + SIGNATURE;
const DOMAIN: &[u8] = b"chat/v1/frame\0";

/// Why bytes are no frame for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than its kind may be.
    #[error("the frame has {len} bytes, its kind allows {max}; the sender must split it")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Shorter than the smallest frame.
    #[error("the frame is cut off; wait for a whole copy")]
    Truncated,
    /// Not ours.
    #[error("the bytes are no chat frame; drop them")]
    NotAFrame,
    /// A version that this build does not speak.
    #[error("the frame is of version {version}; update this program to read it")]
    UnknownVersion {
        /// The version it names.
        version: u8,
    },
    /// A kind that this build does not know; later versions may add kinds.
    #[error("the frame is of the unknown kind {kind:#04x}; skip it")]
    UnknownKind {
        /// The kind it names.
        kind: u8,
    },
    /// The signature does not fit the key, the channel or the bytes.
    #[error("the signature does not fit; drop the frame and count it")]
    BadSignature,
    /// The sender's name breaks the rules for names.
    #[error("the sender's name is refused: {0}")]
    BadUser(#[from] IdError),
    /// The body does not decode.
    #[error("the body of kind {kind:#04x} does not decode; drop the frame and count it")]
    BadBody {
        /// The kind.
        kind: u8,
    },
}

/// Why a frame cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// It would be longer than its kind may be.
    #[error("the frame would have {len} bytes, its kind allows {max}; send less at a time")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

/// Who a frame says it is from, before its signature is checked.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The kind code.
    pub kind: u8,
    /// The signing device.
    pub key: PublicKey,
    covered: &'a [u8],
    signature: Signature,
}

/// A frame whose signature holds.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The signing device.
    pub key: PublicKey,
    /// The name it signs for. Whether that key may speak for that name is the pins' business.
    pub user: UserId,
    /// What it says.
    pub body: Body,
}

/// The kind code of `bytes`, if they look like a frame at all.
pub fn peek_kind(bytes: &[u8]) -> Option<u8> {
    (bytes.get(..2)? == MAGIC)
        .then(|| bytes.get(3).copied())
        .flatten()
}

/// Reads the fixed header: no allocation, nothing that the frame can size.
///
/// # Errors
/// [`DecodeError`] for anything that cannot be a frame of this version.
pub fn header(bytes: &[u8]) -> Result<Header<'_>, DecodeError> {
    if bytes.len() < 2 || bytes[..2] != MAGIC {
        return Err(DecodeError::NotAFrame);
    }
    let (Some(&version), Some(&kind)) = (bytes.get(2), bytes.get(3)) else {
        return Err(DecodeError::Truncated);
    };
    if version != VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    if !Body::is_known(kind) {
        return Err(DecodeError::UnknownKind { kind });
    }
    let max = Body::frame_limit(kind);
    if bytes.len() > max {
        return Err(DecodeError::TooLarge {
            len: bytes.len(),
            max,
        });
    }
    if bytes.len() < SMALLEST {
        return Err(DecodeError::Truncated);
    }
    let (covered, signature) = bytes.split_at(bytes.len() - SIGNATURE);
    let key = covered[4..FIXED]
        .try_into()
        .expect("the slice has 32 bytes");
    let signature = signature.try_into().expect("the slice has 64 bytes");
    Ok(Header {
        kind,
        key: PublicKey(key),
        covered,
        signature: Signature(signature),
    })
}

/// Checks the signature of a frame received on `channel`, then decodes it.
///
/// # Errors
/// [`DecodeError`]; a frame with a bad signature is never decoded.
pub fn open(
    header: Header<'_>,
    channel: &Channel,
    verifier: &dyn Verifier,
) -> Result<Opened, DecodeError> {
    let (mut message, _) = signed_prefix(header.kind, channel, header.covered.len());
    message.extend_from_slice(header.covered);
    if !verifier.verify(&header.key, &message, &header.signature) {
        return Err(DecodeError::BadSignature);
    }
    let bad = DecodeError::BadBody { kind: header.kind };
    let rest = &header.covered[FIXED..];
    let (user, rest) = take_block(rest).ok_or(bad)?;
    let (body, _tail) = take_block(rest).ok_or(bad)?;
    let text = core::str::from_utf8(user).map_err(|_| bad)?;
    let user = UserId::new(text)?;
    if user.as_str() != text {
        return Err(bad);
    }
    Ok(Opened {
        key: header.key,
        user,
        body: Body::decode(header.kind, body)?,
    })
}

/// Writes and signs a frame for `channel`.
///
/// # Errors
/// [`EncodeError::TooLarge`] when it exceeds [`Body::frame_limit`].
pub fn encode(
    body: &Body,
    user: &UserId,
    channel: &Channel,
    signer: &dyn Signer,
) -> Result<Bytes, EncodeError> {
    let kind = body.kind();
    let name = user.as_str().as_bytes();
    let body_len = body.encoded_len();
    let (len, max) = (SMALLEST + name.len() + body_len, Body::frame_limit(kind));
    if len > max {
        return Err(EncodeError::TooLarge { len, max });
    }
    // The signed message ends with the frame, so both are one buffer and the frame is its tail.
    let (mut out, start) = signed_prefix(kind, channel, len);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&signer.public_key().0);
    put_len(name.len(), &mut out);
    out.extend_from_slice(name);
    put_len(body_len, &mut out);
    let mut out = body.encode_into(out);
    let signature = signer.sign(&out);
    out.extend_from_slice(&signature.0);
    let mut frame = Bytes::from(out);
    frame.advance(start);
    Ok(frame)
}

/// What the signature covers besides the frame, in a buffer with room for `len` more bytes, and
/// where those begin.
fn signed_prefix(kind: u8, channel: &Channel, len: usize) -> (Vec<u8>, usize) {
    let start = DOMAIN.len() + 1 + channel.signed_len();
    let mut message = Vec::with_capacity(start + len);
    message.extend_from_slice(DOMAIN);
    message.push(kind);
    channel.signed_bytes(&mut message);
    (message, start)
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    let len = u16::try_from(len).expect("frames are limited to 64 KiB");
    out.extend_from_slice(&len.to_le_bytes());
}

fn take_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}

pub(super) fn decode_exact<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((body, [])) => Ok(body),
        _ => Err(DecodeError::BadBody { kind }),
    }
}

pub(super) fn encoded_len<T: Serialize>(body: &T) -> usize {
    postcard::serialize_with_flavor(body, Size::default()).expect("wire types always serialise")
}

/// What is shorter is written once and copied; what is longer is measured first.
const SHORT: usize = 384;

/// Any of our serialised forms in one allocation of its exact size.
pub(crate) fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    match postcard::to_slice(value, &mut [0; SHORT]) {
        Ok(bytes) => bytes.to_vec(),
        Err(_too_long) => encode_body(value, Vec::with_capacity(encoded_len(value))),
    }
}

pub(super) fn encode_body<T: Serialize>(body: &T, out: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(body, out).expect("wire types always serialise")
}
