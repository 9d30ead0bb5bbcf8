//! The codec: one text message and one acknowledgement, encoded and decoded with the signature
//! left out; the signature apart; the yardstick is the same message as JSON.

use std::hint::black_box;

use benches::{Cpu, NoCrypto};
use chat_core::channel::{Channel, TopicId};
use chat_core::content::Content;
use chat_core::id::{ConvId, UserId};
use chat_core::identity::{DeviceKey, Ed25519, PublicKey, Signer, Verifier};
use chat_core::wire::{self, Body, BoundedBytes, BoundedVec, delivery};
use criterion::{Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Json {
    v: u8,
    kind: String,
    id: String,
    from: String,
    conv: String,
    seq: u64,
    at: u64,
    text: String,
}

fn data() -> Body {
    let conv = ConvId([7; 32]);
    let body = Content::text("x".repeat(64))
        .encode(conv)
        .expect("64 bytes fit");
    Body::Data(delivery::Data {
        conv: conv.0,
        epoch: 1_800_000_000_000,
        base: 990,
        sent_before: 0,
        base_roster: 0,
        prev_roster: 0,
        roster: 0,
        attempt: 1,
        push: false,
        prior: None,
        wedged: false,
        first: delivery::Message {
            seq: 1_000,
            hlc: 1_800_000_000_000 << 16,
            ttl_ms: 2_592_000_000,
            deps: BoundedVec::default(),
            body: BoundedBytes::try_from(body).expect("64 bytes fit"),
        },
        more: BoundedVec::default(),
    })
}

fn codec(c: &mut Cpu) {
    let user = UserId::new("alice").expect("a valid name");
    let channel = Channel::Conv(TopicId([3; 16]));
    let fake = NoCrypto(PublicKey([5; 32]));
    let body = data();
    let frame = wire::encode(&body, &user, &channel, &fake).expect("it fits");
    let key = DeviceKey::from_secret([1; 32]);
    let json = serde_json::to_vec(&Json {
        v: 1,
        kind: "message".into(),
        id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        from: "alice".into(),
        conv: "aaaaaaaaaaaaaaaaaaaaaaaaaa".into(),
        seq: 1_000,
        at: 1_800_000_000_000,
        text: "x".repeat(64),
    })
    .expect("plain data");
    eprintln!(
        "bytes: frame {} (of which key and signature 96), json {}",
        frame.len(),
        json.len()
    );

    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("encode text 64 B, unsigned", |b| {
        b.iter(|| wire::encode(black_box(&body), &user, &channel, &fake));
    });
    group.bench_function("decode text 64 B, unverified", |b| {
        b.iter(|| {
            wire::open(
                wire::header(black_box(&frame)).expect("whole"),
                &channel,
                &fake,
            )
        });
    });
    group.bench_function("yardstick: JSON encode", |b| {
        let value: Json = serde_json::from_slice(&json).expect("ours");
        b.iter(|| serde_json::to_vec(black_box(&value)));
    });
    group.bench_function("yardstick: JSON decode", |b| {
        b.iter(|| serde_json::from_slice::<Json>(black_box(&json)));
    });
    group.finish();

    let mut group = c.benchmark_group("signature");
    group.bench_function("sign", |b| b.iter(|| key.sign(black_box(&frame))));
    let signature = key.sign(&frame);
    group.bench_function("verify, strict", |b| {
        b.iter(|| Ed25519.verify(&key.public_key(), black_box(&frame), &signature));
    });
    group.finish();
}

criterion_group! {
    name = all;
    config = benches::criterion();
    targets = codec
}
criterion_main!(all);
