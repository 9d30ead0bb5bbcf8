//! Names. Those that people choose ([`UserId`], [`GroupName`], [`LobbyName`]) are any non-empty
//! unicode text, kept in NFC and never placed raw in an address; those that we derive are fixed
//! arrays of bytes, shown in base32.

mod escape;
mod name;
mod opaque;

pub use escape::{UnescapeError, escape, unescape};
pub use name::{GroupName, IdError, LobbyName, MAX_NAME_BYTES, UserId};
pub use opaque::{
    ConvId, DeviceId, Epoch, GroupId, InviteId, MessageId, RequestId, Seq, StreamId, TxnId,
};
