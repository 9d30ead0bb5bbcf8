//! The binary wire format, version 1.
//!
//! ```text
//! magic c7 68 | version | kind | device key (32) | user len, user | body len, body | tail … | signature (64)
//! ```
//!
//! The signature covers a domain tag, the kind, the channel and *the bytes as carried*: nothing
//! is decoded, re-encoded and compared (postcard is not canonical). It is verified before
//! anything that the frame can size. Guarantees: a frame over its limit is refused by its length
//! alone and one of an unknown kind by that, neither costs a signature check; an extension tail
//! is ignored; trailing bytes inside a body are an error. The first byte is never `{`, which marks
//! JSON. Integers longer than they need be decode (postcard takes them), which is harmless: what
//! is hashed or signed is always the bytes as carried.

mod bounded;
pub mod delivery;
mod frame;
pub mod group;
pub mod presence;
pub mod session;

pub use bounded::{BoundedBytes, BoundedStr, BoundedVec, TooLarge};
pub(crate) use frame::to_vec;
pub use frame::{DecodeError, EncodeError, Header, Opened, encode, header, open, peek_kind};

/// First bytes of every frame.
pub const MAGIC: [u8; 2] = [0xc7, 0x68];
/// The version written and understood.
pub const VERSION: u8 = 1;
/// The largest frame that carries content.
pub const MAX_FRAME: usize = 64 * 1024;
/// The largest frame of any other kind.
pub const MAX_CONTROL_FRAME: usize = 16 * 1024;

macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident($ty:ty) = $code:literal,)*) => {
        /// What a frame says.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Body {
            $($(#[$doc])* $variant($ty),)*
        }

        impl Body {
            /// The kind code on the wire.
            pub const fn kind(&self) -> u8 {
                match self {
                    $(Self::$variant(_) => $code,)*
                }
            }

            /// Every kind code that this version knows, with its name.
            pub const KINDS: &'static [(u8, &'static str)] = &[$(($code, stringify!($variant)),)*];

            const fn is_known(kind: u8) -> bool {
                matches!(kind, $($code)|*)
            }

            fn decode(kind: u8, bytes: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $($code => frame::decode_exact(kind, bytes).map(Self::$variant),)*
                    _ => Err(DecodeError::UnknownKind { kind }),
                }
            }

            fn encoded_len(&self) -> usize {
                match self {
                    $(Self::$variant(body) => frame::encoded_len(body),)*
                }
            }

            fn encode_into(&self, out: Vec<u8>) -> Vec<u8> {
                match self {
                    $(Self::$variant(body) => frame::encode_body(body, out),)*
                }
            }
        }

        $(impl From<$ty> for Body {
            fn from(body: $ty) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

bodies! {
    /// See [`session::Request`].
    Request(session::Request) = 0x10,
    /// See [`session::Accept`].
    Accept(session::Accept) = 0x11,
    /// See [`session::Confirm`].
    Confirm(session::Confirm) = 0x12,
    /// See [`session::Reject`].
    Reject(session::Reject) = 0x13,
    /// See [`session::Cancel`].
    Cancel(session::Cancel) = 0x14,
    /// See [`session::Gone`].
    Gone(session::Gone) = 0x15,
    /// See [`session::Elsewhere`].
    Elsewhere(session::Elsewhere) = 0x16,
    /// See [`session::Close`].
    Close(session::Close) = 0x17,
    /// See [`session::CloseAck`].
    CloseAck(session::CloseAck) = 0x18,
    /// See [`session::OwnHello`].
    OwnHello(session::OwnHello) = 0x19,
    /// See [`session::Blocks`].
    Blocks(session::Blocks) = 0x1a,
    /// See [`delivery::Data`].
    Data(delivery::Data) = 0x20,
    /// See [`delivery::Ack`].
    Ack(delivery::Ack) = 0x21,
    /// See [`delivery::Retired`].
    Retired(delivery::Retired) = 0x22,
    /// See [`delivery::Hello`].
    Hello(delivery::Hello) = 0x23,
    /// See [`delivery::Typing`].
    Typing(delivery::Typing) = 0x24,
    /// See [`presence::Presence`].
    Presence(presence::Presence) = 0x30,
    /// See [`presence::Seek`].
    Seek(presence::Seek) = 0x31,
    /// See [`presence::GroupCard`].
    GroupCard(presence::GroupCard) = 0x32,
    /// See [`presence::Company`].
    Company(presence::Company) = 0x33,
    /// See [`group::GroupBeat`].
    GroupBeat(group::GroupBeat) = 0x40,
    /// See [`group::GroupAck`].
    GroupAck(group::GroupAck) = 0x41,
    /// See [`group::Entries`].
    Entries(group::Entries) = 0x42,
    /// See [`group::Fetch`].
    Fetch(group::Fetch) = 0x43,
    /// See [`group::JoinReq`].
    JoinReq(group::JoinReq) = 0x44,
    /// See [`group::JoinAnswer`].
    JoinAnswer(group::JoinAnswer) = 0x45,
    /// See [`group::Propose`].
    Propose(group::Propose) = 0x46,
    /// See [`group::Offer`].
    Offer(group::Offer) = 0x47,
    /// See [`group::Removed`].
    Removed(group::Removed) = 0x48,
    /// See [`group::Canvass`].
    Canvass(group::Canvass) = 0x49,
    /// See [`group::Support`].
    Support(group::Support) = 0x4a,
    /// See [`group::Refuse`].
    Refuse(group::Refuse) = 0x4b,
    /// See [`group::GroupInvite`].
    GroupInvite(group::GroupInvite) = 0x4c,
}

impl Body {
    /// The largest frame that may carry this kind.
    pub const fn frame_limit(kind: u8) -> usize {
        if kind == 0x20 {
            MAX_FRAME
        } else {
            MAX_CONTROL_FRAME
        }
    }
}
