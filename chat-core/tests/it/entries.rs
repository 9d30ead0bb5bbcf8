//! What the fuzz targets call. Each takes any bytes and panics when a law is broken; tests call
//! them with random bytes.

use chat_core::channel::{Channel, TopicId};
use chat_core::content::{Content, ContentError};
use chat_core::id::{ConvId, GroupId, LobbyName, UnescapeError, UserId, escape, unescape};
use chat_core::identity::{PublicKey, Signature, Signer, Verifier};
use chat_core::wire::{self, Body, DecodeError, EncodeError};

use crate::fill::{BUILDERS, Entropy};

/// A signature that is no secret: a mix of every byte of key and message. Any change to either
/// changes it, and it costs nothing.
#[derive(Debug)]
pub(crate) struct Checksum;

impl Checksum {
    pub(crate) const KEY: PublicKey = PublicKey([7; 32]);

    fn of(key: &PublicKey, message: &[u8]) -> Signature {
        let mut state = 0xcbf2_9ce4_8422_2325_u64;
        for byte in key.0.iter().chain(message) {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut signature = [0; 64];
        for chunk in signature.chunks_exact_mut(8) {
            chunk.copy_from_slice(&state.to_le_bytes());
            state = state.rotate_left(23).wrapping_mul(0x0100_0000_01b3);
        }
        Signature(signature)
    }
}

impl Signer for Checksum {
    fn public_key(&self) -> PublicKey {
        Self::KEY
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Self::of(&Self::KEY, message)
    }
}

impl Verifier for Checksum {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        Self::of(key, message) == *signature
    }
}

/// Signs like [`Checksum`], with a key of its own.
#[derive(Debug)]
pub(crate) struct Keyed(pub(crate) u8);

impl Signer for Keyed {
    fn public_key(&self) -> PublicKey {
        PublicKey([self.0; 32])
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Checksum::of(&self.public_key(), message)
    }
}

/// Takes every signature, so that what lies behind it is exercised.
#[derive(Debug)]
pub(crate) struct AcceptAll;

impl Verifier for AcceptAll {
    fn verify(&self, _: &PublicKey, _: &[u8], _: &Signature) -> bool {
        true
    }
}

pub(crate) fn channel() -> Channel {
    Channel::Conv(TopicId([3; 16]))
}

/// Any bytes as a frame whose signature holds: a typed error, or a body that survives being
/// encoded and decoded again. Returns which.
pub(crate) fn frame_decode(bytes: &[u8]) -> Result<Body, DecodeError> {
    let opened = wire::open(wire::header(bytes)?, &channel(), &AcceptAll)?;
    let again = wire::encode(&opened.body, &opened.user, &channel(), &Checksum)
        .expect("what fitted a frame fits again: our integers are never longer");
    assert!(again.len() <= bytes.len());
    let reopened = wire::open(
        wire::header(&again).expect("our own frame"),
        &channel(),
        &Checksum,
    )
    .expect("our own frame");
    assert_eq!(reopened.body, opened.body);
    assert_eq!(reopened.user, opened.user);
    Ok(opened.body)
}

/// Any bytes as a choice of kind and fields: what is encoded decodes to the same.
pub(crate) fn frame_roundtrip(bytes: &[u8]) {
    let Some((kind, entropy)) = bytes.split_first() else {
        return;
    };
    let body = BUILDERS[usize::from(*kind) % BUILDERS.len()](&mut Entropy(entropy));
    let user = UserId::new("ann").expect("a plain name");
    let frame = match wire::encode(&body, &user, &channel(), &Checksum) {
        Ok(frame) => frame,
        Err(EncodeError::TooLarge { len, max }) => return assert!(len > max),
        Err(other) => panic!("{other}"),
    };
    assert!(frame.len() <= Body::frame_limit(body.kind()));
    assert_eq!(frame_decode(&frame), Ok(body));
}

/// Any bytes as the signed form of a channel: refused, or exactly what that channel writes. Its
/// address is harmless on every transport.
pub(crate) fn channel_codec(bytes: &[u8]) {
    if let Some(channel) = Channel::from_signed_bytes(bytes) {
        let mut again = Vec::new();
        channel.signed_bytes(&mut again);
        assert_eq!(again, bytes);
        assert_harmless(&channel.path().1);
    }
    // Any short text and any id, the other way round.
    let mut channels = Vec::new();
    if let Ok(text) = core::str::from_utf8(bytes) {
        if let Ok(user) = UserId::new(text) {
            channels.extend([Channel::Inbox(user.clone()), Channel::Presence(user)]);
        }
        channels.extend(LobbyName::new(text).map(Channel::Lobby));
    }
    channels.extend(bytes.first_chunk().map(|id| Channel::Conv(TopicId(*id))));
    channels.extend(bytes.first_chunk().map(|id| Channel::Group(GroupId(*id))));
    for channel in channels {
        let mut signed = Vec::new();
        channel.signed_bytes(&mut signed);
        assert_eq!(Channel::from_signed_bytes(&signed), Some(channel));
    }
}

/// Any text as a name and as a piece of an address.
pub(crate) fn escaping(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(name) = unescape(text) {
        assert_eq!(escape(&name), text);
    }
    if text.is_empty() {
        return;
    }
    let piece = escape(text);
    assert_harmless(&piece);
    match unescape(&piece) {
        Ok(name) => assert_eq!(name, text),
        Err(UnescapeError::Hashed) => assert!(text.len() > 40),
        Err(other) => panic!("{other}: {piece}"),
    }
}

fn assert_harmless(piece: &str) {
    assert!(!piece.is_empty() && piece.len() <= 120, "{piece}");
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=');
    assert!(piece.bytes().all(plain), "{piece}");
}

/// Any bytes as the content of a message: refused, or it survives being encoded again.
pub(crate) fn content_decode(bytes: &[u8]) {
    let conv = ConvId([5; 32]);
    let Ok(content) = Content::decode(conv, bytes) else {
        return;
    };
    match content.encode(conv) {
        Ok(again) => assert_eq!(Content::decode(conv, &again), Ok(content)),
        // What later versions may say is shown, but not written.
        Err(ContentError::ReservedKind | ContentError::Empty | ContentError::TooLong { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}
