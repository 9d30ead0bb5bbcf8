use proptest::prelude::*;

use super::*;

fn named(topic: &str) -> Address {
    Address {
        topic: topic.to_owned().into(),
        alias: None,
    }
}

const MAX: usize = 1_000;

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V5), Just(Version::V311)]
}

/// What a broker may send, and now and then nonsense.
fn packets(version: Version) -> impl Strategy<Value = Vec<u8>> {
    let codec = Codec::new(version, MAX);
    let wrote = move |write: &dyn Fn(&Codec, &mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&codec, &mut out);
        out.to_vec()
    };
    (
        0..4_u8,
        1..u16::MAX,
        0..2_000_usize,
        "[a-z/]{0,30}",
        any::<Vec<u8>>(),
    )
        .prop_map(move |(kind, id, size, topic, junk)| match kind {
            0 => wrote(&|codec, out| {
                let publish = Publish {
                    address: named(&topic),
                    payload: vec![7; size].into(),
                    id: (id % 2 == 0).then_some(Id(id)),
                    retain: id % 3 == 0,
                };
                codec.publish(publish, out);
            }),
            1 => wrote(&|codec, out| codec.puback(Id(id), out)),
            2 => vec![0xd0, 0],
            _ => {
                let len = u8::try_from(junk.len().min(100)).unwrap();
                let head = junk.first().copied().unwrap_or(0xf0);
                [&[head, len][..], &junk[..len.into()]].concat()
            }
        })
}

/// Everything that comes out of `bytes` handed over in pieces of `piece` bytes.
fn read(version: Version, bytes: &[u8], piece: usize) -> (Vec<Packet>, bool) {
    let (mut codec, mut buf, mut found) = (Codec::new(version, MAX), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buf.extend_from_slice(piece);
        loop {
            match codec.next(&mut buf) {
                Ok(Some(packet)) => found.push(packet),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
        assert!(
            buf.len() <= MAX + 70_000,
            "what cannot be used is not gathered"
        );
    }
    (found, true)
}

proptest! {
    #[test]
    fn how_bytes_are_cut_makes_no_difference(
        (version, stream) in versions().prop_flat_map(|version| {
            (Just(version), prop::collection::vec(packets(version), 0..8))
        }),
        piece in 1..700_usize,
    ) {
        let stream = stream.concat();
        let whole = read(version, &stream, usize::MAX);
        prop_assert_eq!(read(version, &stream, piece), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(
        version in versions(), bytes in any::<Vec<u8>>(), kind in 0..16_u8, piece in 1..9_usize
    ) {
        read(version, &bytes, piece);
        let len = u8::try_from(bytes.len().min(127)).unwrap();
        let framed = [&[kind << 4 | len & 15, len][..], &bytes[..len.into()]].concat();
        read(version, &framed, piece);
        let mut codec = Codec::new(version, MAX);
        codec.welcome(&mut BytesMut::from(&*bytes)).ok();
        codec.welcome(&mut BytesMut::from(&*framed)).ok();
    }

    #[test]
    fn what_is_published_is_what_arrives(
        version in versions(), topic in "[a-z/=]{1,40}", payload in any::<Vec<u8>>(),
        id in prop::option::of(1..u16::MAX), retained in any::<bool>(),
    ) {
        let mut codec = Codec::new(version, MAX);
        let mut buf = BytesMut::new();
        let id = id.map(Id);
        let publish = Publish { address: named(&topic), payload: payload.clone().into(), id, retain: retained };
        codec.publish(publish, &mut buf);
        let expected = Packet::Publish { topic: topic.into(), payload: payload.into(), id, retained };
        prop_assert_eq!(codec.next(&mut buf).unwrap(), Some(expected));
        prop_assert!(buf.is_empty());
    }
}

#[test]
fn a_payload_keeps_no_buffer_alive() {
    let mut codec = Codec::new(Version::V5, MAX);
    let mut buf = BytesMut::with_capacity(64 * 1024);
    let publish = Publish {
        address: named("a"),
        payload: Bytes::from_static(b"x"),
        id: None,
        retain: false,
    };
    codec.publish(publish, &mut buf);
    let start = buf.as_ptr();
    let Some(Packet::Publish { payload, .. }) = codec.next(&mut buf).unwrap() else {
        panic!("a publish");
    };
    // Nobody else holds the buffer, so all of it can be used again.
    buf.reserve(64 * 1024);
    assert_eq!((buf.as_ptr(), &*payload), (start, &b"x"[..]));
}

#[test]
fn a_number_goes_with_the_topic_or_instead_of_it() {
    let codec = Codec::new(Version::V5, MAX);
    let write = |topic: &'static str| {
        let publish = Publish {
            address: Address {
                topic: topic.into(),
                alias: core::num::NonZeroU16::new(3),
            },
            payload: Bytes::from_static(b"x"),
            id: None,
            retain: false,
        };
        let mut out = BytesMut::new();
        codec.publish(publish, &mut out);
        out.to_vec()
    };
    // The topic and its length, the length of the properties, the alias (0x23), the payload.
    assert_eq!(write("ab"), b"\x30\x09\0\x02ab\x03\x23\0\x03x");
    assert_eq!(write(""), b"\x30\x07\0\0\x03\x23\0\x03x");
}
