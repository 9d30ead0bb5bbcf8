//! What goes out: tokens, windows, refusals.

use core::time::Duration;
use std::time::Instant;

use chat_client::transport::{Inbound, SendOutcome, TransportError};
use chat_core::channel::Class;
use chat_testkit::peer::{conv, inbox, presence};
use chat_transport_mqtt::Version;

use super::{SHORT, THREE, both, pair};
use crate::BOTH;
use crate::raw::{Script, Seen};

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
