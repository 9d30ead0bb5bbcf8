//! The ten rules, and every guard rail, against a server that does what the test says.

use core::time::Duration;
use std::time::Instant;

use chat_client::transport::{Connector, Inbound, Outbound, SendOutcome, Token};
use chat_core::channel::Class;
use chat_core::link::DownReason;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::script::{DEADLINE, Said, Script};
use chat_testkit::peer::{Peer, conv, inbox, within};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn rule5_a_server_that_says_nothing_is_given_up_in_time() {
    let script = Script::new().await;
    let connector = script.connector();
    let start = Instant::now();
    let (error, _held) = tokio::join!(Peer::connect(&connector, "alice"), script.0.accept());
    assert!(error.is_err());
    assert!(start.elapsed() < 20 * DEADLINE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn rule5_a_server_that_greets_and_then_says_nothing_is_given_up_in_time() {
    let script = Script::new().await;
    let connector = script.connector();
    let serve = async {
        let mut wire = script.welcome(MIB).await;
        wire.until_barrier().await;
        wire
    };
    let (error, _held) = tokio::join!(Peer::connect(&connector, "alice"), serve);
    let error = error.expect_err("no barrier came back");
    assert!(matches!(error.reason, DownReason::Other(_)), "{error}");
}

#[tokio::test]
async fn rule5_a_server_that_answers_nothing_takes_a_bounded_number_and_ends_in_time() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    let reading = tokio::spawn(async move { while wire.said().await.is_some() {} });
    let start = Instant::now();
    let mut taken = 0;
    let ended = within(async {
        loop {
            let (_, item) = peer.frame(&conv(1), Class::Durable, &[7; 1_000]);
            if peer.try_put(item).await {
                taken += 1;
            } else if let Ok(Err(error)) = timeout(DEADLINE / 50, peer.next()).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(ended.reason, DownReason::Other(_)), "{ended}");
    assert!(start.elapsed() < 20 * DEADLINE, "{:?}", start.elapsed());
    assert!((256..2_048).contains(&taken), "{taken} frames were taken");
    within(reading).await.unwrap();
}

#[tokio::test]
async fn rule1_nothing_is_retried_and_nobody_reconnects() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    peer.send(&conv(1), b"x").await;
    wire.until_barrier().await;
    drop(wire);
    assert_eq!(peer.end().await.reason, DownReason::Lost);
    // The library had its chance when it lost the connection.
    let again = timeout(Duration::from_millis(300), script.0.accept()).await;
    assert!(again.is_err(), "only the core connects");
}

#[tokio::test]
async fn rule2_and_3_a_frame_is_accepted_once_and_only_when_the_server_had_it() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    let token = peer.send(&conv(1), b"x").await;
    let (before, barrier) = wire.until_barrier().await;
    assert_eq!(before.len(), 1, "rule 7: one publish for one send");
    // Strange answers are no answers.
    for nonsense in [barrier.clone() + "0", barrier.clone() + "x"] {
        wire.answer(&nonsense).await;
    }
    assert!(
        timeout(Duration::from_millis(100), peer.next())
            .await
            .is_err()
    );
    wire.answer(&barrier).await;
    assert_eq!(peer.fate(token).await, SendOutcome::Accepted);
    wire.answer(&barrier).await;
    let next = peer.send(&conv(1), b"y").await;
    wire.echo().await;
    let only = peer.next().await.unwrap();
    let outcome = SendOutcome::Accepted;
    assert_eq!(
        only,
        Inbound::Sent {
            token: next,
            outcome
        }
    );
}

#[tokio::test]
async fn rule2_what_is_in_flight_at_a_cut_is_unknown_and_what_was_answered_is_told_first() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    let known = peer.send(&conv(1), b"x").await;
    wire.echo().await;
    peer.send(&conv(1), b"y").await;
    wire.until_barrier().await;
    tokio::spawn(wire.hang_up());
    let outcome = SendOutcome::Accepted;
    assert_eq!(
        peer.next().await,
        Ok(Inbound::Sent {
            token: known,
            outcome
        })
    );
    assert_eq!(peer.next().await.unwrap_err().reason, DownReason::Lost);
}

#[tokio::test]
async fn rule7_frames_are_published_once_each_and_in_order() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    for n in 0..100u8 {
        peer.send(&conv(1), &[n]).await;
    }
    let mut bodies = Vec::new();
    while bodies.len() < 100 {
        for said in wire.echo().await {
            let Said::Publish { subject, body } = said else {
                panic!("{said:?}");
            };
            assert!(subject.starts_with("chat.v1.out.now.conv."), "{subject}");
            bodies.extend(body);
        }
    }
    assert_eq!(bodies, (0..100).collect::<Vec<u8>>());
}

#[tokio::test]
async fn rule8_a_subscription_is_granted_when_the_server_has_it() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    peer.put(Outbound::Subscribe(inbox("alice"))).await.unwrap();
    let (before, barrier) = wire.until_barrier().await;
    assert_eq!(before[0].subject(), "chat.v1.out.*.inbox.alice");
    assert!(
        timeout(Duration::from_millis(100), peer.next())
            .await
            .is_err()
    );
    wire.answer(&barrier).await;
    let channel = inbox("alice");
    let granted = Inbound::Subscribed {
        channel,
        granted: true,
    };
    assert_eq!(peer.next().await, Ok(granted));
}

#[tokio::test]
async fn rule9_foreign_messages_are_counted_and_dropped() {
    let script = Script::new().await;
    let connector = script.connector();
    let serve = async {
        let mut wire = script.welcome(MIB).await;
        wire.echo().await;
        wire
    };
    let (peer, mut wire) = tokio::join!(Peer::connect(&connector, "alice"), serve);
    let mut peer = peer.unwrap();
    peer.put(Outbound::Subscribe(inbox("alice"))).await.unwrap();
    let before = wire.echo().await;
    let Said::Subscribe { sid, .. } = before[0].clone() else {
        panic!("{before:?}");
    };
    for subject in [
        "chat.v1.out.evil.inbox.alice",
        "chat.v1.out.now.inbox.bob",
        "chat.v1.in.inbox.alice",
        "other",
    ] {
        wire.deliver(subject, &sid, b"x").await;
    }
    let large = vec![0; 256 * 1024 + 1];
    wire.deliver("chat.v1.out.now.inbox.alice", &sid, &large)
        .await;
    wire.deliver("chat.v1.out.now.inbox.alice", "999", b"x")
        .await;
    wire.deliver("chat.v1.out.now.inbox.alice", &sid, b"ours")
        .await;
    let delivery = peer.delivery().await;
    assert_eq!((&*delivery.bytes, delivery.handle), (&b"ours"[..], None));
    assert_eq!(connector.counters().foreign, 5);
}

#[tokio::test]
async fn rule10_the_limit_of_the_server_is_announced_and_kept() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(10_000).await;
    assert!(
        (8_000..10_000).contains(&peer.max_frame),
        "{}",
        peer.max_frame
    );
    let large = vec![0; peer.max_frame + 1];
    let fits = large[1..].to_vec();
    let refused = peer.publish(&conv(1), &large).await;
    assert!(refused.is_refusal(), "{refused:?}");
    let token = peer.send(&conv(1), &fits).await;
    wire.echo().await;
    assert_eq!(peer.fate(token).await, SendOutcome::Accepted);
}

#[tokio::test]
async fn a_denied_frame_is_refused_and_the_others_are_not() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    wire.denied = Some("conv.0101");
    let serving = tokio::spawn(async move {
        loop {
            wire.echo().await;
        }
    });
    for _ in 0..50 {
        let bad = peer.send(&conv(1), b"x").await;
        let good = peer.send(&conv(2), b"y").await;
        assert!(peer.fate(bad).await.is_refusal());
        assert_eq!(peer.fate(good).await, SendOutcome::Accepted);
    }
    serving.abort();
}

#[tokio::test]
async fn ephemeral_frames_ask_once_per_channel_until_one_is_denied() {
    let (one, two) = (conv(1), conv(2));
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    let (first, before) = tokio::join!(peer.whisper(&one, b"x"), wire.echo());
    assert_eq!(first, SendOutcome::Accepted);
    let subject = before[0].subject().to_owned();
    for body in [b"y", b"z"] {
        assert_eq!(peer.whisper(&one, body).await, SendOutcome::Accepted);
        let said = wire.said().await;
        let (subject, body) = (subject.clone(), body.to_vec());
        assert_eq!(said, Some(Said::Publish { subject, body }), "no barrier");
    }
    let complaint = format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n");
    wire.write(&complaint).await;
    // What is behind the complaint shows that it was heard.
    let (other, _) = tokio::join!(peer.whisper(&two, b"x"), wire.echo());
    assert_eq!(other, SendOutcome::Accepted);
    wire.denied = Some("conv.0101");
    let (denied, _) = tokio::join!(peer.whisper(&one, b"x"), wire.echo());
    assert!(denied.is_refusal(), "{denied:?}");
}

#[tokio::test]
async fn a_denied_subscription_is_refused_and_asked_again_only_by_the_core() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    peer.put(Outbound::Subscribe(inbox("bob"))).await.unwrap();
    wire.denied = Some("inbox.bob");
    wire.echo().await;
    let channel = inbox("bob");
    let refused = Inbound::Subscribed {
        channel,
        granted: false,
    };
    assert_eq!(peer.next().await, Ok(refused));
    assert!(
        timeout(Duration::from_millis(100), peer.next())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_the_server_says_before_it_closes_is_the_reason() {
    let cases = [
        ("Authorization Violation", "Refused"),
        ("User Authentication Revoked", "Refused"),
        ("Stale Connection", "Lost"),
        ("maximum connections exceeded", "TryLater"),
        ("Unknown Protocol Operation", "Other"),
    ];
    for (text, expected) in cases {
        let script = Script::new().await;
        let (mut peer, mut wire) = script.pair(MIB).await;
        wire.write(&format!("-ERR '{text}'\r\n")).await;
        let (end, ()) = tokio::join!(peer.end(), wire.hang_up());
        let reason = end.reason;
        let told = format!("{reason:?}");
        assert!(told.starts_with(expected), "{text}: {told}");
    }
}

#[tokio::test]
async fn a_refused_welcome_says_whether_to_come_again() {
    for (text, fatal) in [
        ("Authorization Violation", true),
        ("User Authentication Expired", true),
        ("maximum connections exceeded", false),
    ] {
        let script = Script::new().await;
        let connector = script.connector();
        let serve = async {
            let (mut stream, _) = script.0.accept().await.unwrap();
            let info = "INFO {\"server_id\":\"s\",\"version\":\"2.9.10\",\"go\":\"\",\"host\":\"h\",\
                        \"port\":1,\"headers\":true,\"max_payload\":1048576,\"proto\":1}\r\n";
            stream.write_all(info.as_bytes()).await.unwrap();
            let line = format!("-ERR '{text}'\r\n");
            stream.write_all(line.as_bytes()).await.unwrap();
            stream
        };
        let (peer, _held) = tokio::join!(Peer::connect(&connector, "alice"), serve);
        let reason = peer.expect_err("not welcome").reason;
        assert_eq!(
            matches!(reason, DownReason::Refused(_)),
            fatal,
            "{text}: {reason:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_is_left_in_order() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    wire.write("INFO {\"server_id\":\"s\",\"ldm\":true}\r\n")
        .await;
    assert_eq!(peer.end().await.reason, DownReason::TryLater);
}

#[tokio::test]
async fn nonsense_from_the_server_ends_the_connection() {
    for nonsense in [
        "\0\0\0\0\r\n",
        "MSG a b c d e\r\n",
        "HMSG x 1 99 3\r\n",
        "é\r\n",
    ] {
        let script = Script::new().await;
        let (mut peer, mut wire) = script.pair(MIB).await;
        wire.write(nonsense).await;
        within(peer.end()).await;
    }
}

#[tokio::test]
async fn closing_waits_for_what_was_taken() {
    let script = Script::new().await;
    let (mut peer, mut wire) = script.pair(MIB).await;
    peer.send(&conv(1), b"goodbye").await;
    let serve = async {
        let before = wire.echo().await;
        while wire.said().await.is_some() {}
        before
    };
    let (closed, before) = tokio::join!(peer.close(), serve);
    closed.unwrap();
    assert_eq!(before.len(), 1);
}

#[tokio::test]
async fn a_dropped_transport_leaves_nothing_behind() {
    let script = Script::new().await;
    let (peer, mut wire) = script.pair(MIB).await;
    drop(peer);
    assert_eq!(wire.said().await, None, "the socket is closed");
}

#[tokio::test]
async fn the_core_needs_no_jetstream_and_jetstream_says_when_it_is_missing() {
    let script = Script::new().await;
    let connector = script.connector();
    assert!(!connector.capabilities().broker_ack);
    let (mut peer, _wire) = script.pair(MIB).await;
    assert!(!peer.resumed && peer.leases().is_none());
    peer.put(Outbound::Ack(chat_client::transport::Handle(7)))
        .await
        .unwrap();
    assert_eq!(Token(1), peer.send(&conv(1), b"x").await);
}
