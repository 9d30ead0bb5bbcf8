//! Bytes per frame: what a bill and a slow link are made of. The protocol document pins them.

use chat_core::channel::{Channel, TopicId};
use chat_core::content::Content;
use chat_core::id::ConvId;
use chat_core::wire::{self, Body, BoundedBytes, BoundedStr, BoundedVec, delivery, presence};

use crate::document::DOCUMENT;
use crate::entries::Checksum;
use crate::support::user;

const CONV: ConvId = ConvId([9; 32]);
const EPOCH: u64 = 1_790_000_000_000;

fn size(channel: &Channel, body: impl Into<Body>) -> usize {
    let frame = wire::encode(&body.into(), &user("annabel"), channel, &Checksum).expect("small");
    frame.len()
}

fn message(seq: u64) -> delivery::Message {
    let body = Content::text("x".repeat(64))
        .encode(CONV)
        .expect("a golden body encodes");
    delivery::Message {
        seq,
        hlc: EPOCH << 16,
        ttl_ms: 30 * 86_400_000,
        deps: BoundedVec::default(),
        body: BoundedBytes::try_from(body).expect("a golden body encodes"),
    }
}

#[test]
fn frames_have_the_published_sizes() {
    let conv = Channel::Conv(TopicId([3; 16]));
    let data = delivery::Data {
        conv: CONV.0,
        epoch: EPOCH,
        base: 990,
        sent_before: 0,
        base_roster: 0,
        prev_roster: 0,
        roster: 0,
        attempt: 1,
        push: false,
        prior: None,
        wedged: false,
        first: message(1_000),
        more: BoundedVec::default(),
    };
    let batch = delivery::Data {
        more: BoundedVec::take_from((1_001..).map(message)),
        ..data.clone()
    };
    assert_eq!(batch.more.len(), delivery::MAX_BATCH - 1);
    let hint = |device| delivery::Dep {
        device: [device; 8],
        epoch: EPOCH,
        seq: 1_000,
        roster: 40,
    };
    let mut answer = data.clone();
    answer.first.deps = BoundedVec::take_from((0..).map(hint));
    assert_eq!(answer.first.deps.len(), delivery::MAX_DEPS);
    let ack = delivery::Ack {
        streams: BoundedVec::take_from([delivery::StreamAck {
            device: [8; 32],
            conv: CONV.0,
            epoch: EPOCH,
            contig: 1_000,
            bitmap: 0,
            window: 128,
            read: 1_000,
            refused: BoundedVec::default(),
        }]),
    };
    let typing = delivery::Typing {
        conv: CONV.0,
        active: true,
    };
    let presence = presence::Presence {
        incarnation: EPOCH,
        conn: 3,
        seq: 200,
        status: 1,
        text: BoundedStr::default(),
        text_ttl_ms: None,
        ttl_ms: 75_000,
        idle_min: Some(0),
    };
    let sizes = [
        ("a text of 64 bytes", size(&conv, data)),
        (
            "a text of 64 bytes after eight others spoke",
            size(&conv, answer),
        ),
        ("64 texts of 64 bytes in one frame", size(&conv, batch)),
        (
            "an acknowledgement of one stream",
            size(&Channel::Inbox(user("bob")), ack),
        ),
        ("typing", size(&conv, typing)),
        (
            "presence",
            size(&Channel::Presence(user("annabel")), presence),
        ),
    ];
    for (what, bytes) in sizes {
        let row = format!("| {what} | {bytes} |");
        println!("{row}");
        assert!(DOCUMENT.contains(&row), "docs/protocol.md lacks {row}");
    }
}
