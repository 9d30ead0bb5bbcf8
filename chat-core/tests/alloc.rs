//! What encoding and decoding allocate, measured per thread: the figures that `wire/frame.rs`
//! promises, and a bound on what a hostile frame can make us hold (reliability 6.1).

#[allow(
    dead_code,
    reason = "shared with the other tests, which use more of it"
)]
#[path = "it/entries.rs"]
mod entries;
#[allow(
    dead_code,
    reason = "shared with the other tests, which use more of it"
)]
#[path = "it/fill.rs"]
mod fill;
#[allow(
    dead_code,
    reason = "shared with the other tests, which use more of it"
)]
#[path = "it/support.rs"]
mod support;

use allocation_counter::{AllocationInfo, measure};
use chat_core::rng::Rng;
use chat_core::wire::{self, Body};

use entries::{AcceptAll, Checksum};
use support::{body_of, forge, frames, home, samples, user};

fn open(frame: &[u8], kind: u8) -> AllocationInfo {
    let channel = home(kind);
    measure(|| {
        // The outcome is another test's business; it is freed here.
        let _ = wire::header(frame).and_then(|header| wire::open(header, &channel, &AcceptAll));
    })
}

#[test]
fn encoding_makes_one_allocation() {
    let ann = user("ann");
    for body in samples() {
        let channel = home(body.kind());
        let mut frame = None;
        let info = measure(|| frame = wire::encode(&body, &ann, &channel, &Checksum).ok());
        let len = frame.expect("samples are small").len() as u64;
        assert_eq!(info.count_total, 1, "kind {:#x}", body.kind());
        assert!(info.bytes_max <= len + 320, "{} for {len}", info.bytes_max);
    }
}

#[test]
fn reading_a_header_makes_none_and_opening_a_message_few() {
    let data = 0x20;
    let (_, frame) = frames(&Checksum).into_iter().find(|f| f.0 == data).unwrap();
    let info = measure(|| assert!(wire::header(&frame).is_ok()));
    assert_eq!(info.count_total, 0);
    // The signed message, the sender's name and the content. The sample names an older epoch,
    // and has two more messages, all three with hints.
    assert_eq!(open(&frame, data).count_total, 3 + 1 + 1 + 1 + 2 * 2);
}

#[test]
fn what_fails_its_signature_costs_one_allocation_of_its_size() {
    for (kind, frame) in frames(&Checksum) {
        let mut frame = frame.to_vec();
        frame[10] ^= 1;
        let channel = home(kind);
        let info = measure(|| {
            let header = wire::header(&frame).expect("the header is whole");
            assert!(wire::open(header, &channel, &Checksum).is_err());
        });
        assert_eq!(info.count_total, 1);
        assert!(info.bytes_max <= frame.len() as u64 + 320);
    }
}

#[test]
fn no_frame_makes_us_hold_more_than_eight_times_its_size() {
    let mut rng = Rng::from_seed([0x33; 32]);
    // Lengths that lie: 2^63, 2^33, 60 000, the most that small bounds take.
    let lies: [&[u8]; 6] = [
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        &[0x80, 0x80, 0x80, 0x80, 0x20],
        &[0xe0, 0xd4, 0x03],
        &[32],
        &[16],
        &[8],
    ];
    let mut worst = (0, 0);
    for (kind, frame) in frames(&Checksum) {
        let body = body_of(&frame);
        for at in 0..body.len() {
            for lie in lies {
                for fill in [0x00, 0x01, 0x7f, 0xff] {
                    let most = Body::frame_limit(kind) - 256;
                    for total in [at + lie.len(), 1_000, most] {
                        let mut bomb = [&body[..at], lie].concat();
                        bomb.resize(total.max(bomb.len()), fill);
                        worst = worst.max(check(kind, &bomb));
                    }
                }
            }
        }
        for _ in 0..200 {
            let mut noise = vec![0; rng.below(2_000) as usize];
            rng.fill(&mut noise);
            worst = worst.max(check(kind, &noise));
        }
    }
    println!("the most held is {} % of a frame of {} B", worst.0, worst.1);
}

/// Opens `body` as `kind` and returns (peak in per cent of the frame, its length).
fn check(kind: u8, body: &[u8]) -> (u64, u64) {
    let frame = forge(kind, b"ann", body, b"");
    let len = frame.len() as u64;
    let peak = open(&frame, kind).bytes_max;
    assert!(
        peak <= 8 * len + 4_096,
        "kind {kind:#x} of {len} B held {peak} B"
    );
    (peak * 100 / len, len)
}
