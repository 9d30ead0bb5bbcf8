//! The ten rules of a transport, and every guard rail, against a broker that does what the test
//! says.

use core::time::Duration;
use std::time::Instant;

use chat_client::transport::{Connector, Inbound, Outbound, SendOutcome, TransportError};
use chat_core::channel::Class;
use chat_core::link::DownReason;
use chat_testkit::peer::{Delivery, Peer, conv, inbox, options, presence, with_will};
use chat_transport_mqtt::{MqttConnector, Version};

use crate::BOTH;
use crate::raw::{Hello, Script, Seen, Wire};

/// MQTT 5: receive maximum 3.
const THREE: &[u8] = &[0x21, 0, 3];
const SHORT: Duration = Duration::from_millis(300);

async fn both(
    script: &Script,
    to: &MqttConnector,
    session: bool,
    properties: &[u8],
) -> (Peer, Wire, Hello) {
    let (peer, (wire, hello)) = tokio::join!(
        Peer::connect(to, "a/b"),
        script.welcome(session, properties)
    );
    (peer.unwrap(), wire, hello)
}

async fn pair(version: Version) -> (Peer, Wire) {
    let script = Script::new(version).await;
    let (peer, wire, _) = both(&script, &script.connector(), false, &[]).await;
    (peer, wire)
}

fn refused(error: &TransportError) -> bool {
    matches!(error.reason, DownReason::Refused(_))
}

#[tokio::test]
async fn connect_says_who_we_are_and_asks_for_a_lasting_session() {
    for version in BOTH {
        let script = Script::new(version).await;
        let to = script.connector().password("secret");
        let to = to.session_expiry(Duration::from_secs(60)).unwrap();
        let to = to.will_delay(Duration::from_secs(9)).unwrap();
        let (peer, (_wire, hello)) = tokio::join!(
            Peer::connect_as(&to, with_will("a/b", b"gone")),
            script.welcome(true, &[])
        );
        assert!(peer.unwrap().resumed);
        let v5 = version == Version::V5;
        let delay = v5.then_some(9);
        assert_eq!(hello.client_id, format!("a=2Fb.{}", "07".repeat(32)));
        assert_eq!(hello.user.as_deref(), Some("a=2Fb"));
        assert_eq!(hello.password.as_deref(), Some("secret"));
        assert_eq!((hello.clean, hello.expiry), (false, v5.then_some(60)));
        assert_eq!(
            hello.will.unwrap(),
            ("chat/v1/presence/a=2Fb".into(), "gone".into(), true, delay)
        );
        // Rule 10: what we take is announced.
        assert_eq!(
            hello.receive_maximum.is_some() && hello.max_packet.is_some(),
            v5
        );
    }
}

#[tokio::test]
async fn a_refused_connection_says_whether_to_come_again() {
    let cases = [
        (Version::V311, 1, "Refused"),
        (Version::V311, 2, "Refused"),
        (Version::V311, 3, "TryLater"),
        (Version::V311, 4, "Refused"),
        (Version::V311, 5, "Refused"),
        (Version::V5, 0x80, "Other"),
        (Version::V5, 0x86, "Refused"),
        (Version::V5, 0x87, "Refused"),
        (Version::V5, 0x88, "TryLater"),
        (Version::V5, 0x89, "TryLater"),
        (Version::V5, 0x8a, "Refused"),
        (Version::V5, 0x97, "TryLater"),
        (Version::V5, 0x9f, "TryLater"),
    ];
    for (version, code, expected) in cases {
        let script = Script::new(version).await;
        let to = script.connector();
        let broker = async {
            let mut wire = script.accept().await;
            wire.read().await;
            wire.connack(false, code, &[]).await;
            wire
        };
        let (refused, _wire) = tokio::join!(Peer::connect(&to, "a"), broker);
        let reason = format!("{:?}", refused.err().unwrap().reason);
        assert!(
            reason.starts_with(expected),
            "{version:?} {code:#x}: {reason}"
        );
    }
}

#[tokio::test]
async fn a_broker_that_knows_only_3_1_1_is_told_apart() {
    let script = Script::new(Version::V5).await;
    let to = script.connector();
    let broker = async {
        let mut wire = script.accept().await;
        wire.read().await;
        wire.write(&[0x20, 2, 0, 1]).await;
        wire
    };
    let (error, _wire) = tokio::join!(Peer::connect(&to, "a"), broker);
    let error = error.err().unwrap();
    assert!(
        refused(&error) && error.to_string().contains("V311"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broker_without_acknowledgements_is_refused() {
    let script = Script::new(Version::V5).await;
    let to = script.connector();
    // Maximum QoS 0.
    let (error, _wire) = tokio::join!(Peer::connect(&to, "a"), script.welcome(false, &[0x24, 0]));
    assert!(refused(&error.err().unwrap()));
}

#[tokio::test]
async fn rule_5_a_connect_that_nobody_answers_ends() {
    let script = Script::new(Version::V5).await;
    let to = script.connector().reply_timeout(SHORT).unwrap();
    let (ended, _wire) = tokio::join!(to.connect(options("a")), script.accept());
    assert_eq!(ended.err(), Some(TransportError::lost()));
}

#[tokio::test]
async fn rules_2_3_7_a_token_is_one_publish_and_one_answer() {
    for version in BOTH {
        let (mut peer, mut wire) = pair(version).await;
        let tokens = [
            peer.send(&conv(1), b"1").await,
            peer.send(&conv(1), b"2").await,
        ];
        let mut ids = Vec::new();
        for expected in [b"1", b"2"] {
            let Some(Seen::Publish {
                topic,
                id,
                retain,
                dup,
                payload,
            }) = wire.next().await
            else {
                panic!("a publish");
            };
            assert_eq!(topic, format!("chat/v1/conv/{}", "01".repeat(16)));
            assert_eq!((retain, dup, &*payload), (false, false, &expected[..]));
            ids.push(id.unwrap());
        }
        // Out of order, twice, and for what was never sent.
        for id in [ids[1], ids[1], 9_999, ids[0], ids[0]] {
            wire.puback(id, 0).await;
        }
        for token in [tokens[1], tokens[0]] {
            let sent = Inbound::Sent {
                token,
                outcome: SendOutcome::Accepted,
            };
            assert_eq!(peer.next().await, Ok(sent));
        }
        // Nothing more came up before this.
        wire.publish("chat/v1/inbox/a", None, false, b"end").await;
        assert!(matches!(peer.next().await, Ok(Inbound::Received { .. })));
    }
}

#[tokio::test]
async fn a_frame_at_most_once_is_answered_when_it_is_written() {
    let (mut peer, mut wire) = pair(Version::V5).await;
    let (token, item) = peer.frame(&presence("a/b"), Class::Ephemeral, b"x");
    peer.put(item).await.unwrap();
    assert_eq!(peer.fate(token).await, SendOutcome::Accepted);
    let seen = wire.next().await.unwrap();
    assert!(matches!(
        seen,
        Seen::Publish {
            id: None,
            retain: false,
            ..
        }
    ));
    assert_eq!(
        peer.keep(&presence("a/b"), Class::Ephemeral, b"y").await,
        SendOutcome::Accepted
    );
    let seen = wire.next().await.unwrap();
    assert!(matches!(
        seen,
        Seen::Publish {
            id: None,
            retain: true,
            ..
        }
    ));
}

#[tokio::test]
async fn reasons_of_refusal_become_outcomes() {
    let (mut peer, mut wire) = pair(Version::V5).await;
    for (reason, kind, words) in [
        (0x00, "Accepted", "Accepted"),
        (0x10, "NoReceiver", "NoReceiver"),
        (0x87, "Never { why: Denied", "NotAuthorized"),
        (0x90, "Never { why: Denied", "TopicNameInvalid"),
        (0x97, "Refused", "QuotaExceeded"),
        (0x83, "Refused", "Implementation"),
    ] {
        let token = peer.send(&conv(1), b"x").await;
        let Some(Seen::Publish { id: Some(id), .. }) = wire.next().await else {
            panic!("a publish");
        };
        wire.puback(id, reason).await;
        let fate = peer.fate(token).await;
        assert_eq!(fate.is_refusal(), reason > 0x10, "{fate:?}");
        let fate = format!("{fate:?}");
        assert!(fate.starts_with(kind), "{reason:#x}: {fate}");
        assert!(fate.contains(words), "{reason:#x}: {fate}");
    }
}

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
async fn rule_1_with_a_full_window_a_resumed_or_lost_session_is_sent_nothing_again() {
    for session in [true, false] {
        let script = Script::new(Version::V5).await;
        let to = script.connector();
        let (mut peer, mut wire, _) = both(&script, &to, false, THREE).await;
        for n in 0..10_u8 {
            peer.send(&conv(1), &[n]).await;
        }
        for _ in 0..3 {
            assert!(matches!(wire.next().await, Some(Seen::Publish { .. })));
        }
        drop(wire);
        assert_eq!(peer.end().await, TransportError::lost());
        let (mut peer, mut wire, _) = both(&script, &to, session, THREE).await;
        assert_eq!(peer.resumed, session);
        // What the core repeats is the first that comes, in its order, as something new.
        for n in 0..10_u8 {
            peer.send(&conv(1), &[n]).await;
        }
        for n in 0..10_u8 {
            let Some(Seen::Publish {
                id,
                payload,
                dup: false,
                ..
            }) = wire.next().await
            else {
                panic!("a publish");
            };
            assert_eq!(*payload, [n]);
            wire.puback(id.unwrap(), 0).await;
        }
    }
}

#[tokio::test]
async fn rule_4_a_handle_of_an_earlier_connection_acknowledges_nothing() {
    for version in BOTH {
        let script = Script::new(version).await;
        let to = script.connector();
        let (mut old, mut wire, _) = both(&script, &to, false, &[]).await;
        wire.publish("chat/v1/inbox/a", Some(5), false, b"old")
            .await;
        let stale = old.delivery().await.handle.unwrap();
        drop(wire);
        old.end().await;
        // The same packet id, of another message.
        let (mut peer, mut wire, _) = both(&script, &to, false, &[]).await;
        wire.publish("chat/v1/inbox/a", Some(5), false, b"new")
            .await;
        let fresh = peer.delivery().await.handle.unwrap();
        peer.put(Outbound::Ack(stale)).await.unwrap();
        let token = peer.send(&conv(1), b"after it").await;
        let Some(Seen::Publish { id: Some(id), .. }) = wire.next().await else {
            panic!("nothing of the stale one is on the wire");
        };
        wire.puback(id, 0).await;
        peer.fate(token).await;
        // The fresh one counts, once.
        for _ in 0..2 {
            peer.put(Outbound::Ack(fresh)).await.unwrap();
        }
        peer.send(&conv(1), b"last").await;
        assert_eq!(wire.next().await, Some(Seen::PubAck(5)));
        assert!(matches!(wire.next().await, Some(Seen::Publish { .. })));
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
async fn rule_5_the_window_is_the_smaller_of_ours_and_the_brokers() {
    for (ours, theirs, window) in [(100, THREE, 3), (2, THREE, 2), (2, &[][..], 2)] {
        let script = Script::new(Version::V5).await;
        let to = script.connector().in_flight(ours).unwrap();
        let (mut peer, mut wire, _) = both(&script, &to, false, theirs).await;
        for _ in 0..window + 1 {
            peer.send(&conv(1), b"x").await;
        }
        let mut first = 0;
        for _ in 0..window {
            let Some(Seen::Publish { id, .. }) = wire.next().await else {
                panic!("a publish");
            };
            first = id.unwrap();
        }
        let more = tokio::time::timeout(Duration::from_millis(50), wire.read()).await;
        assert!(more.is_err(), "the window is {window}");
        wire.puback(first, 0).await;
        assert!(matches!(wire.next().await, Some(Seen::Publish { .. })));
    }
}

#[tokio::test]
async fn rule_5_a_broker_that_never_acknowledges_costs_bounded_memory_and_the_connection() {
    for version in BOTH {
        let script = Script::new(version).await;
        let to = script.connector().reply_timeout(SHORT).unwrap();
        let (mut peer, mut wire, _) = both(&script, &to, false, &[]).await;
        let started = Instant::now();
        let mut taken = 0;
        // Until it takes no more, or the connection ends: both are fine, and one must happen.
        while started.elapsed() < SHORT && taken < 1_000_000 {
            let (_, item) = peer.frame(&conv(1), Class::Durable, b"x");
            if peer.try_put(item).await {
                taken += 1;
            } else {
                tokio::task::yield_now().await;
            }
        }
        assert!(
            taken <= 100 + 1_024 + 1,
            "{taken} were taken without an answer"
        );
        let (end, ()) = tokio::join!(peer.end(), async { while wire.next().await.is_some() {} });
        assert_eq!(end, TransportError::lost());
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
async fn rule_5_a_broker_that_reads_nothing_ends_the_connection() {
    let script = Script::new(Version::V5).await;
    let to = script.connector().reply_timeout(SHORT).unwrap();
    let (mut peer, _wire, _) = both(&script, &to, false, &[]).await;
    let large = vec![0; 60_000];
    // At most once, so that it is the socket that is full and not the window.
    loop {
        let (_, item) = peer.frame(&conv(1), Class::Ephemeral, &large);
        if peer.put(item).await.is_err() {
            return;
        }
        // Fates must be read: their number is bounded too.
        while tokio::time::timeout(Duration::ZERO, peer.next())
            .await
            .is_ok_and(|it| it.is_ok())
        {}
    }
}

#[tokio::test]
async fn a_silent_broker_is_tried_and_given_up() {
    let script = Script::new(Version::V5).await;
    // The broker's own keep-alive counts: one second.
    let to = script.connector().reply_timeout(SHORT).unwrap();
    let (mut peer, mut wire, hello) = both(&script, &to, false, &[0x13, 0, 1]).await;
    assert_eq!(hello.keep_alive, 20);
    let started = Instant::now();
    let (end, ping) = tokio::join!(peer.end(), wire.read());
    assert_eq!((end, ping), (TransportError::lost(), Some(Seen::Ping)));
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn rule_6_the_connection_lives_while_nobody_reads_it() {
    let script = Script::new(Version::V5).await;
    let to = script.connector().reply_timeout(SHORT).unwrap();
    let (mut peer, mut wire, _) = both(&script, &to, false, &[0x13, 0, 1]).await;
    // More than there is room for, and a subscription that is answered behind it.
    peer.put(Outbound::Subscribe(conv(1))).await.unwrap();
    let Some(Seen::Subscribe { id, .. }) = wire.next().await else {
        panic!("a subscription");
    };
    for n in 1..=2_000 {
        wire.publish("chat/v1/inbox/a", Some(n), false, b"x").await;
    }
    // Longer than any deadline, and pings go on.
    for _ in 0..2 {
        assert_eq!(wire.read().await, Some(Seen::Ping));
        wire.write(&[0xd0, 0]).await;
    }
    for _ in 0..2_000 {
        assert_eq!(peer.delivery().await.channel, inbox("a"));
    }
    // What the broker owes is due from now on.
    tokio::time::sleep(SHORT / 3).await;
    wire.suback(id, 1).await;
    let answer = peer.next().await;
    assert!(
        matches!(answer, Ok(Inbound::Subscribed { granted: true, .. })),
        "{answer:?}"
    );
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
async fn a_broker_without_last_values_is_not_asked_to_keep_one() {
    let script = Script::new(Version::V5).await;
    // Retain is not available.
    let (mut peer, mut wire, _) = both(&script, &script.connector(), false, &[0x25, 0]).await;
    assert_eq!(
        peer.keep(&presence("a/b"), Class::Ephemeral, b"x").await,
        SendOutcome::Accepted
    );
    let seen = wire.next().await.unwrap();
    assert!(matches!(seen, Seen::Publish { retain: false, .. }));
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
async fn rule_10_the_brokers_limit_is_announced_and_kept() {
    let script = Script::new(Version::V5).await;
    let to = script.connector();
    // Maximum packet size 2,000.
    let (mut peer, mut wire, _) = both(&script, &to, false, &[0x27, 0, 0, 7, 0xd0]).await;
    let max = peer.max_frame;
    assert!((1_000..2_000).contains(&max), "{max}");
    let outcome = peer.publish(&conv(1), &vec![0; max + 1]).await;
    assert!(outcome.is_refusal());
    peer.send(&inbox(&"é".repeat(90)), &vec![0; max]).await;
    let Some(Seen::Publish { topic, payload, .. }) = wire.next().await else {
        panic!("only what fits is on the wire");
    };
    assert!(payload.len() == max && topic.len() + max + 10 <= 2_000);
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

#[tokio::test]
async fn nonsense_ends_the_connection_with_words() {
    for bytes in [
        &[0xf0, 0][..],
        // A length of five bytes.
        &[0x30, 0xff, 0xff, 0xff, 0xff, 1],
        // A PUBLISH exactly once.
        &[0x34, 6, 0, 1, b'a', 0, 1, 0],
        // A second CONNACK.
        &[0x20, 3, 0, 0, 0],
        &[0x40, 1, 0],
        // Four megabytes that are no PUBLISH.
        &[0x90, 0xff, 0xff, 0xff, 1],
    ] {
        let (mut peer, mut wire) = pair(Version::V5).await;
        wire.write(bytes).await;
        let error = peer.end().await;
        assert!(
            matches!(error.reason, DownReason::Other(_)),
            "{bytes:x?}: {error}"
        );
    }
}

#[tokio::test]
async fn the_broker_says_why_it_closes() {
    for (bytes, expected) in [
        (&[0xe0, 0][..], DownReason::Lost),
        (&[0xe0, 1, 0x8e], DownReason::Conflict),
        (&[0xe0, 2, 0x8e, 0], DownReason::Conflict),
        (&[0xe0, 1, 0x8b], DownReason::TryLater),
        (&[0xe0, 2, 0x89, 0], DownReason::TryLater),
        (&[0xe0, 1, 0x8d], DownReason::Lost),
    ] {
        let (mut peer, mut wire) = pair(Version::V5).await;
        wire.write(bytes).await;
        assert_eq!(peer.end().await.reason, expected, "{bytes:x?}");
    }
    let (mut peer, mut wire) = pair(Version::V5).await;
    wire.write(&[0xe0, 1, 0x87]).await;
    assert!(refused(&peer.end().await));
}

#[tokio::test]
async fn s11_after_many_short_connections_we_look_and_a_word_that_is_not_signed_proves_nothing() {
    for kept in [None, Some(&b"not a frame"[..])] {
        let script = Script::new(Version::V311).await;
        let to = script.connector();
        for _ in 0..5 {
            let (mut peer, wire, _) = both(&script, &to, true, &[]).await;
            drop(wire);
            assert_eq!(peer.end().await.reason, DownReason::Lost);
        }
        let broker = async {
            let (mut wire, hello) = script.welcome(false, &[]).await;
            assert!(hello.client_id.ends_with(".probe") && hello.clean && hello.will.is_none());
            let Some(Seen::Subscribe { id, filter, .. }) = wire.read().await else {
                panic!("a subscription");
            };
            assert_eq!(filter, "chat/v1/presence/a=2Fb");
            wire.suback(id, 1).await;
            if let Some(kept) = kept {
                wire.publish(&filter, None, true, kept).await;
            }
            assert_eq!(wire.next().await, Some(Seen::Disconnect));
            let (wire, hello) = script.welcome(true, &[]).await;
            assert!(!hello.clean && !hello.client_id.contains("probe"));
            wire
        };
        let (peer, _wire) = tokio::join!(Peer::connect(&to, "a/b"), broker);
        assert!(peer.unwrap().resumed);
    }
}

#[tokio::test]
async fn s11_connections_that_are_reset_again_and_again_are_a_bad_network() {
    let script = Script::new(Version::V311).await;
    let to = script.connector();
    for _ in 0..20 {
        let (mut peer, wire, _) = both(&script, &to, true, &[]).await;
        wire.reset();
        assert_eq!(peer.end().await.reason, DownReason::Lost);
    }
}

#[tokio::test]
async fn closing_says_goodbye_after_everything_else_and_dropping_says_nothing() {
    for version in BOTH {
        let (mut peer, mut wire) = pair(version).await;
        peer.send(&conv(1), b"last").await;
        let broker = async {
            assert!(matches!(wire.next().await, Some(Seen::Publish { .. })));
            assert_eq!(wire.next().await, Some(Seen::Disconnect));
            drop(wire);
        };
        let (closed, ()) = tokio::join!(peer.close(), broker);
        assert_eq!(closed, Ok(()));
        let (peer, mut wire) = pair(version).await;
        drop(peer);
        assert_eq!(wire.next().await, None, "the will is for this");
    }
}

#[tokio::test]
async fn a_name_too_long_for_a_topic_is_known_again_after_a_resume() {
    let script = Script::new(Version::V5).await;
    let to = script.connector();
    let long = "日".repeat(60);
    let (mut peer, mut wire, _) = both(&script, &to, false, &[]).await;
    peer.put(Outbound::Subscribe(presence(&long)))
        .await
        .unwrap();
    let Some(Seen::Subscribe { filter, .. }) = wire.next().await else {
        panic!("a subscription");
    };
    assert!(filter.starts_with("chat/v1/presence/=H"));
    drop(wire);
    peer.end().await;
    let (mut peer, mut wire, _) = both(&script, &to, true, &[]).await;
    wire.publish(&filter, None, false, b"x").await;
    assert_eq!(peer.delivery().await.channel, presence(&long));
}

#[tokio::test]
async fn an_inbox_with_a_long_name_is_known_in_a_new_process() {
    let script = Script::new(Version::V5).await;
    let long = "日".repeat(60);
    let first = script.connector();
    let (peer, (mut wire, _)) =
        tokio::join!(Peer::connect(&first, &long), script.welcome(true, &[]));
    let mut peer = peer.unwrap();
    // What the broker stored for us comes before we asked for anything.
    let (_, topic) = (0, format!("chat/v1/inbox/{}", chat_core::id::escape(&long)));
    wire.publish(&topic, Some(1), false, b"stored").await;
    assert_eq!(peer.delivery().await.channel, inbox(&long));
}
