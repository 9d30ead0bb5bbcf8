//! Frames in a message: the header, and reading bodies exactly.

use chat_core::channel::Channel;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ClientOp, HubOp, VERSION};

const HEADER: usize = 6;

/// Why a message is not this protocol. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtoError {
    /// The message ends inside a frame, or a length is wrong.
    #[error("the message ends inside a frame; send whole frames")]
    Truncated,
    /// Another version.
    #[error("version {found} is not spoken here; use version {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The body does not decode.
    #[error("the body of op {op:#04x} does not decode; send what the protocol page shows")]
    Body {
        /// The op.
        op: u8,
    },
}

/// A channel as it travels: [`Channel::signed_bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireChannel(pub(crate) Channel);

impl Serialize for WireChannel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(48);
        self.0.signed_bytes(&mut bytes);
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for WireChannel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Channel::from_signed_bytes(bytes)
            .map(Self)
            .ok_or_else(|| D::Error::custom("no channel"))
    }
}

/// Bytes as one run: serde takes a slice for a sequence and writes it number by number.
pub(super) fn run<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Appends one frame.
pub(super) fn put(out: &mut Vec<u8>, op: u8, body: &impl Serialize) {
    let start = out.len();
    out.extend_from_slice(&[VERSION, op, 0, 0, 0, 0]);
    // A Vec<u8> as the writer never fails, and no wire type refuses to serialise.
    let filled = postcard::to_extend(body, core::mem::take(out)).expect("wire types serialise");
    *out = filled;
    let len = u32::try_from(out.len() - start - HEADER).expect("a body is under 4 GiB");
    out[start + 2..start + HEADER].copy_from_slice(&len.to_le_bytes());
}

/// Reads a body to its last byte.
pub(super) fn exact<'a, T: Deserialize<'a>>(op: u8, body: &'a [u8]) -> Result<T, ProtoError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(ProtoError::Body { op }),
    }
}

/// One side's ops.
pub(super) trait Op<'a>: Sized {
    /// `None` for an op this side does not know.
    fn decode(op: u8, body: &'a [u8]) -> Result<Option<Self>, ProtoError>;
}

/// The frames of one message, front to back. Ends at the first error.
#[derive(Debug)]
pub struct Frames<'a, T> {
    rest: &'a [u8],
    kind: core::marker::PhantomData<T>,
}

impl<'a> Frames<'a, ClientOp<'a>> {
    /// What a client sent.
    pub fn from_client(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            kind: core::marker::PhantomData,
        }
    }
}

impl<'a> Frames<'a, HubOp<'a>> {
    /// What a hub sent.
    pub fn from_hub(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            kind: core::marker::PhantomData,
        }
    }
}

impl<'a, T> Frames<'a, T> {
    /// What was not read yet.
    pub(crate) fn remainder(&self) -> &'a [u8] {
        self.rest
    }
}

#[expect(private_bounds, reason = "the two kinds of op are all there are")]
impl<'a, T: Op<'a>> Frames<'a, T> {
    fn step(&mut self) -> Result<Option<T>, ProtoError> {
        let (header, rest) = self
            .rest
            .split_first_chunk::<HEADER>()
            .ok_or(ProtoError::Truncated)?;
        let [version, op, len @ ..] = *header;
        if version != VERSION {
            return Err(ProtoError::Version { found: version });
        }
        let len = usize::try_from(u32::from_le_bytes(len)).map_err(|_| ProtoError::Truncated)?;
        let (body, rest) = rest.split_at_checked(len).ok_or(ProtoError::Truncated)?;
        self.rest = rest;
        T::decode(op, body)
    }
}

impl<'a, T: Op<'a>> Iterator for Frames<'a, T> {
    type Item = Result<T, ProtoError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.step() {
                Ok(Some(op)) => return Some(Ok(op)),
                Ok(None) => {}
                Err(error) => {
                    self.rest = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Reads `message` as either side would: the entry for a fuzzer. What decodes must survive being
/// written and read again.
pub fn decode_any(message: &[u8]) {
    let mut again = Vec::new();
    for op in Frames::from_client(message).map_while(Result::ok) {
        again.clear();
        op.encode(&mut again);
        assert_eq!(Frames::from_client(&again).next(), Some(Ok(op)));
    }
    for op in Frames::from_hub(message).map_while(Result::ok) {
        again.clear();
        op.encode(&mut again);
        assert_eq!(Frames::from_hub(&again).next(), Some(Ok(op)));
    }
}
