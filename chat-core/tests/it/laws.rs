//! Laws for all values: what is encoded decodes to the same, and no two channels share the bytes
//! that a signature covers.

use chat_core::channel::{Channel, TopicId};
use chat_core::id::{GroupId, LobbyName, UserId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::entries;
use crate::fill::BUILDERS;

/// Names over few letters, so that two of them often share a beginning or are equal.
fn name() -> impl Strategy<Value = String> {
    "[ab/+#*>.$ =\u{0}ä\u{202e}]{1,4}"
}

fn channel() -> impl Strategy<Value = Channel> {
    let user = || name().prop_map(|name| UserId::new(&name).expect("short"));
    let byte = || prop_oneof![Just(0_u8), Just(1), Just(b'a')];
    prop_oneof![
        user().prop_map(Channel::Inbox),
        user().prop_map(Channel::Presence),
        name().prop_map(|name| Channel::Lobby(LobbyName::new(&name).expect("short"))),
        byte().prop_map(|byte| Channel::Conv(TopicId([byte; 16]))),
        byte().prop_map(|byte| Channel::Group(GroupId([byte; 32]))),
    ]
}

fn signed(channel: &Channel) -> Vec<u8> {
    let mut bytes = Vec::new();
    channel.signed_bytes(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn every_kind_round_trips(kind in 0..BUILDERS.len(), entropy in vec(any::<u8>(), 0..512)) {
        let mut bytes = vec![u8::try_from(kind).unwrap()];
        bytes.extend(entropy);
        entries::frame_roundtrip(&bytes);
    }

    #[test]
    fn signed_channels_are_injective_and_none_begins_another(a in channel(), b in channel()) {
        let (x, y) = (signed(&a), signed(&b));
        prop_assert_eq!(a == b, x == y);
        prop_assert_eq!(a == b, x.starts_with(&y));
        prop_assert_eq!(a == b, a.path() == b.path());
        prop_assert_eq!(Channel::from_signed_bytes(&x), Some(a));
    }

    #[test]
    fn channels_and_names_survive_any_bytes(bytes in vec(any::<u8>(), 0..300), text in ".{0,80}") {
        entries::channel_codec(&bytes);
        entries::channel_codec(text.as_bytes());
        entries::escaping(text.as_bytes());
        entries::content_decode(&bytes);
    }

    #[test]
    fn escaping_a_name_harms_no_address(name in name()) {
        entries::escaping(name.as_bytes());
    }
}
