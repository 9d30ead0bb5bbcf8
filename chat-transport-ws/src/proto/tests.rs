//! Golden bytes, round trips and hostile bytes.

use chat_core::channel::{Channel, Class, TopicId};
use chat_core::id::{DeviceId, GroupId, LobbyName, UserId};
use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bob() -> UserId {
    UserId::new("bob").unwrap()
}

fn client_ops() -> Vec<ClientOp<'static>> {
    vec![
        ClientOp::Hello(Hello {
            user: bob(),
            device: DeviceId([2; 32]),
            resume: true,
            token: Some("t"),
            will: Some(WireWill {
                channel: Channel::Presence(bob()),
                bytes: b"w",
            }),
        }),
        ClientOp::Publish(Publish {
            token: 300,
            channel: Channel::Conv(TopicId([1; 16])),
            class: Class::Durable,
            ttl_ms: Some(1000),
            last_value: false,
            dedup: Some([3; 16]),
            bytes: b"hi",
        }),
        ClientOp::Subscribe(Channel::Inbox(bob())),
        ClientOp::Unsubscribe(Channel::Lobby(LobbyName::new("x").unwrap())),
        ClientOp::Ack { lane: 1, seq: 2 },
        ClientOp::Bye,
        ClientOp::Token("newer"),
    ]
}

fn hub_ops() -> Vec<HubOp<'static>> {
    vec![
        HubOp::Welcome(Welcome {
            resumed: true,
            max_frame: 65536,
            ping_ms: 20_000,
            mailbox_frames: 100,
            mailbox_bytes: 1 << 20,
            mailbox_secs: 60,
            publish_per_second: 100,
            publish_burst: 1_000,
        }),
        HubOp::Refused {
            code: 4001,
            text: "no",
            retry_ms: Some(5),
        },
        HubOp::Deliver {
            lane: 1,
            seq: 2,
            live: true,
            channel: Channel::Group(GroupId([1; 32])),
            bytes: b"hi",
        },
        HubOp::Sent {
            token: 300,
            count: 17,
            outcome: WireOutcome::Accepted,
        },
        HubOp::Sent {
            token: 1,
            count: 1,
            outcome: WireOutcome::Refused("full"),
        },
        HubOp::Sent {
            token: 1,
            count: 1,
            outcome: WireOutcome::TooFast(20),
        },
        HubOp::Sent {
            token: 1,
            count: 1,
            outcome: WireOutcome::Denied,
        },
        HubOp::Sent {
            token: 1,
            count: 1,
            outcome: WireOutcome::TooLarge,
        },
        HubOp::TokenHolds { ms: 60_000 },
        HubOp::Subscribed {
            channel: Channel::Inbox(bob()),
            granted: true,
        },
        HubOp::CaughtUp,
        HubOp::Gap(Channel::Inbox(bob())),
        HubOp::Closing {
            code: 4005,
            retry_ms: None,
        },
    ]
}

fn all_bytes() -> Vec<Vec<u8>> {
    let of = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        f(&mut out);
        out
    };
    let client = client_ops();
    let hub = hub_ops();
    let mut all: Vec<_> = client.iter().map(|op| of(&|out| op.encode(out))).collect();
    all.extend(hub.iter().map(|op| of(&|out| op.encode(out))));
    all
}

#[test]
fn the_bytes_on_the_wire_do_not_change() {
    let found: String = all_bytes().iter().map(|b| hex(b) + "\n").collect();
    assert_eq!(found, include_str!("golden.txt"));
}

#[test]
fn many_frames_in_one_message_come_out_in_order() {
    let mut message = Vec::new();
    let ops = client_ops();
    ops.iter().for_each(|op| op.encode(&mut message));
    let found: Vec<_> = Frames::from_client(&message).map(Result::unwrap).collect();
    assert_eq!(found, ops);
    let mut message = Vec::new();
    let ops = hub_ops();
    ops.iter().for_each(|op| op.encode(&mut message));
    let found: Vec<_> = Frames::from_hub(&message).map(Result::unwrap).collect();
    assert_eq!(found, ops);
}

#[test]
fn an_unknown_op_is_skipped_and_another_version_is_not() {
    let mut message = vec![VERSION, 0x7f, 1, 0, 0, 0, 9];
    ClientOp::Bye.encode(&mut message);
    let found: Vec<_> = Frames::from_client(&message).collect();
    assert_eq!(found, [Ok(ClientOp::Bye)]);
    let found: Vec<_> = Frames::from_client(&[2, 0x06, 0, 0, 0, 0]).collect();
    assert_eq!(found, [Err(ProtoError::Version { found: 2 })]);
}

#[test]
fn lies_about_lengths_and_trailing_bytes_are_errors() {
    for message in [
        &[VERSION][..],
        &[VERSION, 0x06, 1, 0, 0, 0],
        &[VERSION, 0x06, 0xff, 0xff, 0xff, 0xff],
    ] {
        let found: Vec<_> = Frames::from_client(message).collect();
        assert_eq!(found, [Err(ProtoError::Truncated)]);
    }
    let found: Vec<_> = Frames::from_client(&[VERSION, 0x06, 1, 0, 0, 0, 0]).collect();
    assert_eq!(found, [Err(ProtoError::Body { op: 0x06 })]);
}

#[test]
fn payloads_over_their_limit_are_errors() {
    let big = vec![0; MAX_FRAME + 1];
    let mut out = Vec::new();
    ClientOp::Publish(Publish {
        token: 1,
        channel: Channel::Inbox(bob()),
        class: Class::Durable,
        ttl_ms: None,
        last_value: false,
        dedup: None,
        bytes: &big,
    })
    .encode(&mut out);
    assert_eq!(
        Frames::from_client(&out).next(),
        Some(Err(ProtoError::Body { op: 0x02 }))
    );
}

#[test]
fn every_truncation_and_every_flipped_bit_is_survived() {
    for bytes in all_bytes() {
        for end in 0..bytes.len() {
            decode_any(&bytes[..end]);
        }
        for bit in 0..bytes.len() * 8 {
            let mut hurt = bytes.clone();
            hurt[bit / 8] ^= 1 << (bit % 8);
            decode_any(&hurt);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        decode_any(&bytes);
    }

    #[test]
    fn any_body_is_survived(op in prop_oneof![1u8..8, 0x41u8..0x49],
        body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let mut message = vec![VERSION, op];
        message.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        message.extend(body);
        decode_any(&message);
    }

    #[test]
    fn publish_round_trips(token: u64, ttl_ms: Option<u64>, last_value: bool, durable: bool,
        dedup: Option<[u8; 16]>, bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let op = ClientOp::Publish(Publish {
            token, channel: Channel::Inbox(bob()), ttl_ms, last_value, dedup, bytes: &bytes,
            class: if durable { Class::Durable } else { Class::Ephemeral },
        });
        let mut out = Vec::new();
        op.encode(&mut out);
        prop_assert_eq!(Frames::from_client(&out).next(), Some(Ok(op)));
    }
}
