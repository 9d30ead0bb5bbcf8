//! What several tests use.

use bytes::Bytes;
use chat_core::channel::{Channel, TopicId};
use chat_core::id::{GroupId, LobbyName, UserId};
use chat_core::identity::Signer;
use chat_core::wire::{self, Body, MAGIC, VERSION};

use crate::fill::{BUILDERS, Fixed};

/// Magic, version, kind and key.
pub(crate) const FIXED: usize = 4 + 32;
const SIGNATURE: usize = 64;

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a valid name")
}

/// Where the sample of a kind travels: a channel that the kind is used on.
pub(crate) fn home(kind: u8) -> Channel {
    match kind {
        0x10..0x20 => Channel::Inbox(user("bob")),
        0x20..0x30 => Channel::Conv(TopicId([3; 16])),
        0x30 => Channel::Presence(user("ann")),
        0x31..0x40 => Channel::Lobby(LobbyName::new("plaza").expect("a valid name")),
        _ => Channel::Group(GroupId([4; 32])),
    }
}

/// The name of a kind.
pub(crate) fn name(kind: u8) -> &'static str {
    let known = Body::KINDS.iter().find(|(code, _)| *code == kind);
    known.expect("a known kind").1
}

/// One body of every kind with fixed values.
pub(crate) fn samples() -> Vec<Body> {
    let samples: Vec<_> = BUILDERS
        .iter()
        .map(|build| build(&mut Fixed::default()))
        .collect();
    let kinds: Vec<_> = samples.iter().map(Body::kind).collect();
    let known: Vec<_> = Body::KINDS.iter().map(|(code, _)| *code).collect();
    assert_eq!(kinds, known, "add the new kind to `builders!` in fill.rs");
    samples
}

/// One frame of every kind, signed by `signer`.
pub(crate) fn frames(signer: &dyn Signer) -> Vec<(u8, Bytes)> {
    let frame = |body: &Body| {
        let channel = home(body.kind());
        wire::encode(body, &user("ann"), &channel, signer).expect("samples are small")
    };
    samples().iter().map(|b| (b.kind(), frame(b))).collect()
}

/// A frame of `kind` with these blocks and a signature that only an indulgent verifier takes.
pub(crate) fn forge(kind: u8, user: &[u8], body: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut frame = vec![MAGIC[0], MAGIC[1], VERSION, kind];
    frame.extend([7; 32]);
    for block in [user, body] {
        let len = u16::try_from(block.len()).expect("tests forge what fits");
        frame.extend(len.to_le_bytes());
        frame.extend(block);
    }
    frame.extend(tail);
    frame.extend([0; SIGNATURE]);
    frame
}

/// The encoded body of a frame signed by "ann".
pub(crate) fn body_of(frame: &[u8]) -> &[u8] {
    &frame[FIXED + 2 + 3 + 2..frame.len() - SIGNATURE]
}
