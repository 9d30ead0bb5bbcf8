//! Frames that an enemy writes: each gives a typed error or a decoded body, never a panic
//! (reliability 6).

use chat_core::id::{IdError, UserId};
use chat_core::identity::{DeviceKey, Ed25519};
use chat_core::rng::Rng;
use chat_core::wire::{
    self, Body, BoundedBytes, BoundedVec, DecodeError, EncodeError, MAX_CONTROL_FRAME, MAX_FRAME,
    VERSION, group,
};

use crate::entries::{self, Checksum};
use crate::support::{FIXED, body_of, forge, frames, home, samples};

const OFFER: u8 = 0x47;
const DATA: u8 = 0x20;

fn decode(frame: &[u8]) -> Result<Body, DecodeError> {
    entries::frame_decode(frame)
}

#[test]
fn every_truncation_is_a_typed_error() {
    for (kind, frame) in frames(&Checksum) {
        for end in 0..frame.len() {
            let cut = &frame[..end];
            let opened = wire::header(cut).and_then(|h| wire::open(h, &home(kind), &Checksum));
            let error = opened.expect_err("a part of a frame is no frame");
            assert!(
                matches!(
                    error,
                    DecodeError::NotAFrame | DecodeError::Truncated | DecodeError::BadSignature
                ),
                "{error} at {end}"
            );
            // Behind a signature that holds, a cut body is an error too.
            assert!(decode(cut).is_err(), "kind {kind:#x} cut at {end}");
        }
    }
}

#[test]
fn every_single_bit_flip_is_a_typed_error() {
    for (kind, frame) in frames(&Checksum) {
        let mut frame = frame.to_vec();
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            let opened = wire::header(&frame).and_then(|h| wire::open(h, &home(kind), &Checksum));
            let error = opened.map(|o| o.body).expect_err("no bit is free");
            match bit / 8 {
                0 | 1 => assert_eq!(error, DecodeError::NotAFrame),
                2 => assert!(matches!(error, DecodeError::UnknownVersion { .. })),
                3 => assert!(matches!(
                    error,
                    DecodeError::UnknownKind { .. } | DecodeError::BadSignature
                )),
                _ => assert_eq!(error, DecodeError::BadSignature, "bit {bit}"),
            }
            // Behind a signature that holds: a body or an error, no panic.
            if let Err(error) = decode(&frame) {
                assert_ne!(error, DecodeError::BadSignature);
            }
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn the_real_signature_covers_every_bit_too() {
    let key = DeviceKey::from_secret([0x42; 32]);
    let (kind, frame) = frames(&key).into_iter().find(|(k, _)| *k == 0x24).unwrap();
    let mut frame = frame.to_vec();
    for bit in 0..frame.len() * 8 {
        frame[bit / 8] ^= 1 << (bit % 8);
        let opened = wire::header(&frame).and_then(|h| wire::open(h, &home(kind), &Ed25519));
        assert!(opened.is_err(), "bit {bit}");
        frame[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(wire::open(wire::header(&frame).unwrap(), &home(kind), &Ed25519).is_ok());
}

#[test]
fn a_frame_moved_to_another_channel_is_refused() {
    let kinds = frames(&Checksum);
    for (kind, frame) in &kinds {
        for (other, _) in &kinds {
            let opened = wire::open(wire::header(frame).unwrap(), &home(*other), &Checksum);
            assert_eq!(opened.is_ok(), home(*kind) == home(*other));
        }
    }
}

#[test]
fn lengths_that_lie_are_bad_bodies_of_the_right_kind() {
    for (kind, frame) in frames(&Checksum) {
        for at in [FIXED, FIXED + 2 + 3] {
            for lie in [0_u16, 1, 0x7fff, 0xffff] {
                let mut frame = frame.to_vec();
                if frame[at..at + 2] == lie.to_le_bytes() {
                    continue; // That is no lie.
                }
                frame[at..at + 2].copy_from_slice(&lie.to_le_bytes());
                match decode(&frame) {
                    Err(DecodeError::BadBody { kind: named }) => assert_eq!(named, kind),
                    Err(DecodeError::BadUser(IdError::Empty)) => assert_eq!(lie, 0),
                    other => panic!("{other:?} for {lie} at {at} of kind {kind:#x}"),
                }
            }
        }
    }
}

#[test]
fn bytes_after_a_body_are_an_error_and_a_tail_is_ignored() {
    for (sample, (kind, frame)) in samples().into_iter().zip(frames(&Checksum)) {
        let body = body_of(&frame);
        assert_eq!(decode(&forge(kind, b"ann", body, b"")), Ok(sample.clone()));
        let longer = [body, &[0]].concat();
        assert_eq!(
            decode(&forge(kind, b"ann", &longer, b"")),
            Err(DecodeError::BadBody { kind })
        );
        let tail = forge(kind, b"ann", body, b"what a later version adds");
        assert_eq!(decode(&tail), Ok(sample));
    }
}

#[test]
fn numbers_longer_than_needed_decode_and_too_long_ones_do_not() {
    let offer = |index: &[u8]| decode(&forge(OFFER, b"ann", &[&[4; 32], index].concat(), b""));
    assert_eq!(offer(&[0x80, 0x80, 0x00]), offer(&[0x00]));
    assert!(offer(&[0x80, 0x80, 0x00]).is_ok());
    let bad = Err(DecodeError::BadBody { kind: OFFER });
    assert_eq!(offer(&[0xff; 10]), bad);
    assert_eq!(offer(&[0x80; 11]), bad);
    assert_eq!(offer(&[]), bad);
}

#[test]
fn unknown_versions_and_kinds_are_named_before_any_work() {
    let known = |kind| Body::KINDS.iter().any(|(code, _)| *code == kind);
    for byte in 0..=u8::MAX {
        let mut frame = forge(OFFER, b"ann", &[0; 33], b"");
        frame[2] = byte;
        let version = wire::header(&frame).map(|h| h.kind);
        let expected = Err(DecodeError::UnknownVersion { version: byte });
        assert_eq!(version, if byte == VERSION { Ok(OFFER) } else { expected });

        let frame = forge(byte, b"ann", &[0; 33], b"");
        let kind = wire::header(&frame).map(|h| h.kind);
        let expected = Err(DecodeError::UnknownKind { kind: byte });
        assert_eq!(kind, if known(byte) { Ok(byte) } else { expected });
    }
}

#[test]
fn frames_above_their_limit_are_refused_by_length_alone() {
    for (kind, frame) in frames(&Checksum) {
        let max = if kind == DATA {
            MAX_FRAME
        } else {
            MAX_CONTROL_FRAME
        };
        assert_eq!(Body::frame_limit(kind), max);
        let body = body_of(&frame);
        let room = max - forge(kind, b"ann", body, b"").len();
        assert!(decode(&forge(kind, b"ann", body, &vec![0; room])).is_ok());
        let len = max + 1;
        assert_eq!(
            decode(&forge(kind, b"ann", body, &vec![0; room + 1])),
            Err(DecodeError::TooLarge { len, max })
        );
    }
}

#[test]
fn what_is_sent_reaches_the_limit_and_stops_there() {
    let ann = UserId::new("ann").unwrap();
    let entries = |last: usize| {
        let sizes = [group::MAX_ENTRY, last];
        let entries = sizes.map(|len| BoundedBytes::try_from(vec![0; len]).unwrap());
        let body = group::Entries {
            head: 0,
            group: [4; 32],
            entries: BoundedVec::take_from(entries),
        };
        wire::encode(&body.into(), &ann, &home(0x42), &Checksum)
    };
    let max = MAX_CONTROL_FRAME;
    let room = max - entries(3_500).unwrap().len();
    let frame = entries(3_500 + room).unwrap();
    assert_eq!(frame.len(), max);
    assert!(decode(&frame).is_ok());
    let len = max + 1;
    let over = entries(3_500 + room + 1);
    assert_eq!(over, Err(EncodeError::TooLarge { len, max }));
}

#[test]
fn the_smallest_frame_has_104_bytes() {
    let frame = forge(OFFER, b"", b"", b"");
    assert_eq!(frame.len(), 104);
    assert!(wire::header(&frame).is_ok());
    let cut = wire::header(&frame[..103]).map(|h| h.kind);
    assert_eq!(cut, Err(DecodeError::Truncated));
}

#[test]
fn hostile_names_are_refused_or_harmless() {
    let body = [0; 33];
    let named = |name: &str| decode(&forge(OFFER, name.as_bytes(), &body, b"")).map(|_| ());
    for name in ["+", "#", "/", "*", ">", "$SYS", "_INBOX.>", "..", "a b"] {
        assert_eq!(named(name), Ok(()), "{name}");
        entries::escaping(name.as_bytes());
    }
    for name in ["a\0b", "a\u{202e}b", "a\u{200b}b", "a\nb"] {
        assert_eq!(named(name), Ok(()));
        let shown = UserId::new(name).unwrap().to_string();
        assert!(shown.chars().all(|c| c.is_ascii_graphic()), "{shown}");
        entries::escaping(name.as_bytes());
    }
    assert_eq!(named(""), Err(DecodeError::BadUser(IdError::Empty)));
    for bytes in [257, 1_025, 10_000] {
        let error = DecodeError::BadUser(IdError::TooLong { bytes });
        assert_eq!(named(&"x".repeat(bytes)), Err(error));
    }
    let long = "x".repeat(65_536);
    assert_eq!(UserId::new(&long), Err(IdError::TooLong { bytes: 65_536 }));
    // Two spellings of one name must not be two senders.
    let bad = Err(DecodeError::BadBody { kind: OFFER });
    assert_eq!(named("e\u{301}"), bad);
    let invalid = decode(&forge(OFFER, b"\xff\xfe", &body, b""));
    assert_eq!(invalid.map(|_| ()), bad);
}

/// Random bodies behind a header and a signature that hold. `CHAT_RANDOM_FRAMES` asks for another number.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the number of runs is a knob of the caller"
)]
fn random_frames_never_panic() {
    let runs = std::env::var("CHAT_RANDOM_FRAMES");
    let runs: u64 = runs.map_or(1_000_000, |n| n.parse().expect("a number"));
    let mut rng = Rng::from_seed([0x11; 32]);
    let goldens = frames(&Checksum);
    let mut decoded = 0_u64;
    for run in 0..runs {
        let below = |rng: &mut Rng, n: usize| rng.below(n as u64) as usize;
        let frame = match run % 4 {
            // Any bytes at all.
            0 => {
                let mut frame = vec![0; below(&mut rng, 256)];
                rng.fill(&mut frame);
                frame
            }
            // Any body, of bytes that are small more often than not.
            1 => {
                let kind = goldens[below(&mut rng, goldens.len())].0;
                let mut body = vec![0; below(&mut rng, 256)];
                rng.fill(&mut body);
                let mask = [0xff, 0x0f, 0x03, 0x01][below(&mut rng, 4)];
                body.iter_mut().for_each(|byte| *byte &= mask);
                forge(kind, b"ann", &body, b"")
            }
            // A true frame with a few bytes changed.
            2 => {
                let mut frame = goldens[below(&mut rng, goldens.len())].1.to_vec();
                for _ in 0..=below(&mut rng, 4) {
                    let at = 4 + below(&mut rng, frame.len() - 4);
                    frame[at] = rng.bytes::<1>()[0];
                }
                frame
            }
            // The body of one kind under another.
            _ => {
                let kind = goldens[below(&mut rng, goldens.len())].0;
                let body = &goldens[below(&mut rng, goldens.len())].1;
                forge(kind, b"ann", body_of(body), b"")
            }
        };
        decoded += u64::from(decode(&frame).is_ok());
    }
    assert!(decoded > runs / 20, "only {decoded} of {runs} got through");
}
