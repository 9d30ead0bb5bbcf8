//! The encryption seam: message bodies pass through a [`Sealer`] at transmit and at receipt, so
//! that an end-to-end crate can come later without touching another machine (DESIGN section 4).

use core::fmt;

use crate::id::{ConvId, MessageId};
use crate::identity::Sender;

/// What became of a sealed body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsealed {
    /// The plaintext.
    Plain(Vec<u8>),
    /// Not readable yet: do not acknowledge, try again on a later copy.
    NotYet,
    /// Never readable: refuse it so that the sender stops.
    Never,
}

/// Seals and opens bodies. The outbox keeps plaintext and seals at each transmit (e2ee 4.5).
pub trait Sealer: Send + fmt::Debug {
    /// Seals `body` of message `id`. `None`: not now (keys are being replaced); it is tried again.
    fn seal(&mut self, id: &MessageId, body: &[u8]) -> Option<Vec<u8>>;
    /// Opens what `from` sealed for `conv`.
    fn open(&mut self, conv: ConvId, from: &Sender, id: &MessageId, sealed: &[u8]) -> Unsealed;
}

/// No encryption: passes bodies through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Sealer for Plain {
    fn seal(&mut self, _id: &MessageId, body: &[u8]) -> Option<Vec<u8>> {
        Some(body.to_vec())
    }

    fn open(&mut self, _conv: ConvId, _from: &Sender, _id: &MessageId, sealed: &[u8]) -> Unsealed {
        Unsealed::Plain(sealed.to_vec())
    }
}
