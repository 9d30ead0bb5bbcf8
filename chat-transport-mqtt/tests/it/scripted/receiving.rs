//! What comes in: subscriptions, acknowledgements, stored values, what is not ours.

use chat_client::transport::{Inbound, Outbound, TransportError};
use chat_testkit::peer::{Delivery, conv, inbox, presence};
use chat_transport_mqtt::Version;

use super::{SHORT, both, pair};
use crate::BOTH;
use crate::raw::{Script, Seen};

#[tokio::test]
async fn a_refused_subscription_is_told() {
    for (version, code, granted) in [
        (Version::V5, 1, true),
        (Version::V5, 0x87, false),
        // At most once is not what we asked for.
        (Version::V5, 0, false),
        (Version::V311, 1, true),
        (Version::V311, 0x80, false),
    ] {
        let (mut peer, mut wire) = pair(version).await;
        let broker = async {
            let Some(Seen::Subscribe {
                id,
                filter,
                options,
            }) = wire.next().await
            else {
                panic!("a subscription");
            };
            assert_eq!(filter, "chat/v1/inbox/a=2Fb");
            // At least once, and in MQTT 5 not what we say ourselves.
            assert_eq!(options, if version == Version::V5 { 0b101 } else { 1 });
            wire.suback(id, code).await;
        };
        let channel = inbox("a/b");
        let (told, ()) = tokio::join!(peer.subscribe(&channel), broker);
        assert_eq!(told, granted, "{version:?} {code:#x}");
        peer.put(Outbound::Unsubscribe(channel)).await.unwrap();
        let Some(Seen::Unsubscribe { id, filter }) = wire.next().await else {
            panic!("the end of a subscription");
        };
        assert_eq!(filter, "chat/v1/inbox/a=2Fb");
        wire.unsuback(id).await;
    }
}

#[tokio::test]
async fn a_message_is_acknowledged_by_the_client_and_not_before() {
    let (mut peer, mut wire) = pair(Version::V311).await;
    for id in 1..=3 {
        wire.publish("chat/v1/inbox/a", Some(id), false, b"x").await;
    }
    let mut handles = Vec::new();
    for _ in 0..3 {
        handles.push(peer.delivery().await.handle.unwrap());
    }
    peer.send(&conv(1), b"nothing before this").await;
    assert!(matches!(wire.next().await, Some(Seen::Publish { .. })));
    for (handle, id) in [(handles[2], 3), (handles[0], 1)] {
        peer.put(Outbound::Ack(handle)).await.unwrap();
        assert_eq!(wire.next().await, Some(Seen::PubAck(id)));
    }
}

#[tokio::test]
async fn rule_5_a_subscription_that_nobody_answers_ends_the_connection() {
    let script = Script::new(Version::V5).await;
    let to = script.connector().reply_timeout(SHORT).unwrap();
    let (mut peer, _wire, _) = both(&script, &to, false, &[]).await;
    peer.put(Outbound::Subscribe(conv(1))).await.unwrap();
    assert_eq!(peer.end().await, TransportError::lost());
}

#[tokio::test]
async fn frames_at_most_once_are_dropped_when_nobody_reads() {
    let (mut peer, mut wire) = pair(Version::V311).await;
    for _ in 0..2_000 {
        wire.publish("chat/v1/inbox/a", None, false, b"x").await;
    }
    // All was read off the socket: this comes back behind it.
    let token = peer.send(&conv(1), b"x").await;
    let Some(Seen::Publish { id, .. }) = wire.next().await else {
        panic!("a publish");
    };
    wire.puback(id.unwrap(), 0).await;
    let mut received = 0;
    loop {
        match peer.next().await.unwrap() {
            Inbound::Received {
                handle: None,
                live: true,
                ..
            } => received += 1,
            Inbound::Sent { token: told, .. } => break assert_eq!(told, token),
            other => panic!("{other:?}"),
        }
    }
    assert!((1_024..=2_000).contains(&received), "{received}");
}

#[tokio::test]
async fn a_stored_value_is_told_apart_from_what_is_said_now() {
    let (mut peer, mut wire) = pair(Version::V5).await;
    wire.publish("chat/v1/presence/b", None, true, b"stored")
        .await;
    wire.publish("chat/v1/presence/b", None, false, b"live")
        .await;
    for (bytes, live) in [("stored", false), ("live", true)] {
        let told = Delivery {
            channel: presence("b"),
            bytes: bytes.into(),
            handle: None,
            live,
        };
        assert_eq!(peer.delivery().await, told);
    }
}

#[tokio::test]
async fn stored_values_wait_for_a_client_that_reads_nothing() {
    let (mut peer, mut wire) = pair(Version::V311).await;
    for n in 0..2_000_u32 {
        let topic = "chat/v1/presence/b";
        wire.publish(topic, None, true, &n.to_be_bytes()).await;
    }
    for n in 0..2_000_u32 {
        assert_eq!(*peer.delivery().await.bytes, n.to_be_bytes());
    }
}

#[tokio::test]
async fn rule_9_what_is_not_ours_is_acknowledged_counted_and_dropped() {
    for version in BOTH {
        let script = Script::new(version).await;
        let to = script.connector();
        let (mut peer, mut wire, _) = both(&script, &to, false, &[]).await;
        for (id, topic) in [
            (1, "other/topic"),
            (2, "chat/v1/inbox/=41"),
            (3, "chat/v1/inbox/a/b"),
        ] {
            wire.publish(topic, Some(id), false, b"x").await;
            assert_eq!(wire.next().await, Some(Seen::PubAck(id)));
        }
        wire.publish("$SYS/broker", None, false, b"x").await;
        wire.publish("chat/v1/inbox/a", Some(4), false, b"ours")
            .await;
        assert_eq!(&*peer.delivery().await.bytes, b"ours");
        assert_eq!(to.dropped(), 4);
    }
}

#[tokio::test]
async fn rule_10_a_packet_over_our_limit_is_skipped_and_does_not_come_again() {
    for version in BOTH {
        let script = Script::new(version).await;
        let to = script.connector();
        let (mut peer, mut wire, _) = both(&script, &to, false, &[]).await;
        for size in [65_537, 100_000, 3_000_000] {
            wire.publish("chat/v1/inbox/a", Some(1), false, &vec![0; size])
                .await;
            assert_eq!(wire.next().await, Some(Seen::PubAck(1)), "{size}");
            wire.publish("chat/v1/inbox/a", None, false, &vec![0; size])
                .await;
            wire.publish("chat/v1/inbox/a", Some(2), false, &vec![1; 65_536])
                .await;
            let Delivery { bytes, handle, .. } = peer.delivery().await;
            assert_eq!(bytes, vec![1; 65_536]);
            peer.put(Outbound::Ack(handle.unwrap())).await.unwrap();
            assert_eq!(wire.next().await, Some(Seen::PubAck(2)));
        }
        assert_eq!(to.dropped(), 6);
    }
}
