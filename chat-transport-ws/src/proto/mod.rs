//! What a client and a hub say to each other, version 1.
//!
//! A binary WebSocket message holds one or more frames:
//!
//! ```text
//! version | op | length of the body (4, little endian) | body (postcard)
//! ```
//!
//! Guarantees: decoding allocates nothing that a frame can size but the channel it names, which is
//! bounded; an unknown op is skipped; a body with trailing bytes, a length that lies or another
//! version is an error that ends the connection.

mod client;
mod codec;
mod hub;

pub use client::{ClientOp, Hello, Publish, WireWill};
pub use codec::{Frames, ProtoError, decode_any};
pub use hub::{HubOp, Welcome, WireOutcome};

/// The version of this protocol.
pub const VERSION: u8 = 1;
/// The WebSocket subprotocol that both sides name in the handshake.
pub const SUBPROTOCOL: &str = "chat.hub.v1";
/// The largest WebSocket message either side sends or takes.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// The largest payload of one frame: what the chat protocol calls a frame.
pub const MAX_FRAME: usize = chat_core::wire::MAX_FRAME;
/// The largest last will.
pub const MAX_WILL: usize = chat_core::wire::MAX_CONTROL_FRAME;
/// The longest token.
pub const MAX_TOKEN: usize = 4 * 1024;
/// The longest text of a refusal.
pub const MAX_TEXT: usize = 256;
/// Frames whose fate one [`HubOp::Sent`] tells, and so many a client has under way.
pub const MAX_FATES: u32 = 1_024;

/// Why a hub ends or refuses a connection: the WebSocket close codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// 1000: the client said goodbye.
    Normal,
    /// 1009: a message over the limit.
    TooLarge,
    /// 4001: the token is missing, wrong or expired. Trying again with it cannot help.
    TokenRefused,
    /// 4002: a newer connection of the same device took over.
    Replaced,
    /// 4003: what was sent is not this protocol.
    Protocol,
    /// 4004: the client did not read; what is durable waits for it.
    SlowConsumer,
    /// 4005: the hub is stopping or full.
    TryLater,
    /// 4006: nothing was heard for two ping intervals.
    Silent,
    /// 4007: this user has as many connections as one may have.
    TooMany,
    /// 4008: the token has run out, and no other came in time. A newer one helps.
    TokenExpired,
}

impl CloseReason {
    /// The close code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::TooLarge => 1009,
            Self::TokenRefused => 4001,
            Self::Replaced => 4002,
            Self::Protocol => 4003,
            Self::SlowConsumer => 4004,
            Self::TryLater => 4005,
            Self::Silent => 4006,
            Self::TooMany => 4007,
            Self::TokenExpired => 4008,
        }
    }

    /// The reason for a close code, `None` for a code that the hub does not use.
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1000 => Self::Normal,
            1009 => Self::TooLarge,
            4001 => Self::TokenRefused,
            4002 => Self::Replaced,
            4003 => Self::Protocol,
            4004 => Self::SlowConsumer,
            4005 => Self::TryLater,
            4006 => Self::Silent,
            4007 => Self::TooMany,
            4008 => Self::TokenExpired,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
