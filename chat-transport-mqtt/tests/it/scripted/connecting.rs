//! How a connection begins, lives and ends.

use core::time::Duration;
use std::time::Instant;

use chat_client::transport::{Connector, Inbound, Outbound, TransportError};
use chat_core::link::DownReason;
use chat_testkit::peer::{Peer, conv, inbox, options, with_will};
use chat_transport_mqtt::Version;

use super::{SHORT, both, pair, refused};
use crate::BOTH;
use crate::raw::{Script, Seen};

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
