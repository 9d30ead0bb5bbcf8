//! Against a real mosquitto: what a script can only pretend.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use chat_client::transport::{Outbound, SendOutcome};
use chat_core::channel::{Channel, Class};
use chat_core::id::{LobbyName, escape};
use chat_core::link::DownReason;
use chat_testkit::broker::{Broker, Memory, Mosquitto};
use chat_transport_mqtt::{MqttConnector, Version};

use crate::BOTH;
use crate::raw::{Seen, Wire};
use chat_testkit::peer::{Delivery, Peer, conv, inbox, presence, with_will};

fn start(recipe: Mosquitto) -> Broker {
    Broker::start(recipe).expect("mosquitto runs")
}

fn to(broker: &Broker, version: Version) -> MqttConnector {
    let url = format!("mqtt://{}", broker.address());
    MqttConnector::from_url(&url).unwrap().version(version)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Alice has a last will, which is published a second after her end, and Bob watches.
async fn watched(version: Version) -> (Broker, MqttConnector, Peer, Peer) {
    let broker = start(Mosquitto::new());
    // MQTT 3.1.1 has no delay: it comes long before that.
    let delay = if version == Version::V5 { 1 } else { 600 };
    let connector = to(&broker, version).will_delay(seconds(delay)).unwrap();
    let mut bob = Peer::connect(&connector, "bob").await.unwrap();
    assert!(bob.subscribe(&presence("alice")).await);
    let will = with_will("alice", b"gone");
    let alice = Peer::connect_as(&connector, will).await.unwrap();
    (broker, connector, bob, alice)
}

#[tokio::test]
async fn p2_a_will_is_published_when_a_connection_dies_and_kept() {
    for version in BOTH {
        let (_broker, connector, mut bob, alice) = watched(version).await;
        let dropped = Instant::now();
        drop(alice);
        let Delivery {
            bytes,
            handle,
            live,
            ..
        } = bob.delivery().await;
        assert_eq!((&*bytes, handle, live), (&b"gone"[..], None, true));
        let waited = dropped.elapsed();
        let late = waited > Duration::from_millis(900);
        assert!(late || version == Version::V311, "{waited:?}");
        // Kept for who comes later.
        let mut carol = Peer::connect(&connector, "carol").await.unwrap();
        assert!(carol.subscribe(&presence("alice")).await);
        let Delivery { bytes, live, .. } = carol.delivery().await;
        assert_eq!((&*bytes, live), (&b"gone"[..], false));
    }
}

#[tokio::test]
async fn p2_a_goodbye_and_a_quick_return_leave_no_will() {
    for version in BOTH {
        let (_broker, connector, mut bob, alice) = watched(version).await;
        alice.close().await.unwrap();
        if version == Version::V5 {
            // Back within the delay.
            drop(
                Peer::connect_as(&connector, with_will("alice", b"blink"))
                    .await
                    .unwrap(),
            );
        }
        let mut alice = Peer::connect_as(&connector, with_will("alice", b"late"))
            .await
            .unwrap();
        if version == Version::V5 {
            // Past the delay: what comes next would come behind it.
            tokio::time::sleep(seconds(2)).await;
        }
        assert_eq!(
            alice
                .keep(&presence("alice"), Class::Ephemeral, b"here")
                .await,
            SendOutcome::Accepted
        );
        assert_eq!(&*bob.delivery().await.bytes, b"here");
    }
}

#[tokio::test]
async fn the_last_value_is_kept_and_told_apart_from_news() {
    for version in BOTH {
        let broker = start(Mosquitto::new());
        let connector = to(&broker, version);
        let mut alice = Peer::connect(&connector, "alice").await.unwrap();
        for bytes in [b"1", b"2"] {
            assert_eq!(
                alice
                    .keep(&presence("alice"), Class::Ephemeral, bytes)
                    .await,
                SendOutcome::Accepted
            );
        }
        // Behind both, by the order of one connection.
        alice.publish(&conv(1), b"x").await;
        let mut bob = Peer::connect(&connector, "bob").await.unwrap();
        assert!(bob.subscribe(&presence("alice")).await);
        let Delivery { bytes, live, .. } = bob.delivery().await;
        assert_eq!((&*bytes, live), (&b"2"[..], false));
        alice.keep(&presence("alice"), Class::Ephemeral, b"3").await;
        let Delivery { bytes, live, .. } = bob.delivery().await;
        assert_eq!((&*bytes, live), (&b"3"[..], true));
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_also_after_kill_9() {
    for version in BOTH {
        let mut broker = start(Mosquitto::new().persistent());
        let connector = to(&broker, version);
        let mut bob = Peer::connect(&connector, "bob").await.unwrap();
        assert!(!bob.resumed);
        assert!(bob.subscribe(&inbox("bob")).await);
        let mut alice = Peer::connect(&connector, "alice").await.unwrap();
        for n in 0..30_u8 {
            assert_eq!(
                alice.publish(&inbox("bob"), &[n]).await,
                SendOutcome::Accepted
            );
        }
        // Ten are durable here, then everything dies.
        for n in 0..10 {
            let Delivery { bytes, handle, .. } = bob.delivery().await;
            assert_eq!(*bytes, [n]);
            bob.put(Outbound::Ack(handle.unwrap())).await.unwrap();
        }
        // The acknowledgements have arrived: this comes back behind them.
        bob.publish(&conv(1), b"x").await;
        broker.kill();
        assert_eq!(bob.end().await.reason, DownReason::Lost);
        broker.restart(Memory::Kept).unwrap();
        let mut bob = Peer::connect(&connector, "bob").await.unwrap();
        assert!(bob.resumed);
        let mut missing: BTreeSet<u8> = (10..30).collect();
        while !missing.is_empty() {
            let Delivery {
                channel,
                bytes,
                handle,
                ..
            } = bob.delivery().await;
            assert_eq!(channel, inbox("bob"));
            missing.remove(&bytes[0]);
            bob.put(Outbound::Ack(handle.unwrap())).await.unwrap();
        }
        // A broker without its disk knows nobody.
        broker.restart(Memory::Lost).unwrap();
        let bob = Peer::connect(&connector, "bob").await.unwrap();
        assert!(!bob.resumed);
    }
}

#[tokio::test]
async fn nobody_there_is_told_by_mqtt_5() {
    for (version, outcome) in [
        (Version::V5, SendOutcome::NoReceiver),
        (Version::V311, SendOutcome::Accepted),
    ] {
        let broker = start(Mosquitto::new());
        let mut alice = Peer::connect(&to(&broker, version), "alice").await.unwrap();
        assert_eq!(alice.publish(&inbox("nobody"), b"x").await, outcome);
    }
}

#[tokio::test]
async fn our_own_frames_come_back_over_3_1_1_only() {
    for version in BOTH {
        let broker = start(Mosquitto::new());
        let connector = to(&broker, version);
        let mut alice = Peer::connect(&connector, "alice").await.unwrap();
        let mut bob = Peer::connect(&connector, "bob").await.unwrap();
        assert!(alice.subscribe(&conv(1)).await);
        alice.publish(&conv(1), b"mine").await;
        bob.publish(&conv(1), b"yours").await;
        if version == Version::V311 {
            assert_eq!(&*alice.delivery().await.bytes, b"mine");
        }
        assert_eq!(&*alice.delivery().await.bytes, b"yours");
    }
}

#[tokio::test]
async fn rule_10_a_limit_of_the_broker_is_announced() {
    let broker = start(Mosquitto::new().option("max_packet_size 20000"));
    let mut alice = Peer::connect(&to(&broker, Version::V5), "alice")
        .await
        .unwrap();
    assert!(
        (19_000..20_000).contains(&alice.max_frame),
        "{}",
        alice.max_frame
    );
    let large = vec![0; alice.max_frame];
    let mut bob = Peer::connect(&to(&broker, Version::V5), "bob")
        .await
        .unwrap();
    assert!(bob.subscribe(&inbox("bob")).await);
    assert_eq!(
        alice.publish(&inbox("bob"), &large).await,
        SendOutcome::Accepted
    );
    assert_eq!(bob.delivery().await.bytes, large);
}

#[tokio::test]
async fn a_broker_that_stands_still_is_noticed() {
    let broker = start(Mosquitto::new());
    let connector = to(&broker, Version::V5).keep_alive(seconds(1)).unwrap();
    let connector = connector.reply_timeout(seconds(1)).unwrap();
    let mut alice = Peer::connect(&connector, "alice").await.unwrap();
    broker.freeze().unwrap();
    assert_eq!(alice.end().await.reason, DownReason::Lost);
    assert!(Peer::connect(&connector, "alice").await.is_err());
    broker.thaw().unwrap();
    Peer::connect(&connector, "alice").await.unwrap();
}

const ACL: &str = include_str!("../../../examples/mosquitto/acl");

#[tokio::test]
async fn the_access_rules_let_a_user_write_only_what_is_theirs() {
    for version in BOTH {
        let broker = start(Mosquitto::new().acl(ACL));
        let connector = to(&broker, version).sender_level();
        let mut alice = Peer::connect(&connector, "alice").await.unwrap();
        for channel in [inbox("alice"), presence("bob/x"), conv(1)] {
            assert!(alice.subscribe(&channel).await);
        }
        // A refused frame looks like any other in 3.1.1; it is not delivered either way.
        let denied = |outcome: SendOutcome| match version {
            Version::V5 => assert!(outcome.is_refusal(), "{outcome:?}"),
            _ => assert_eq!(outcome, SendOutcome::Accepted),
        };
        let mut mallory = Peer::connect(&connector, "mallory").await.unwrap();
        denied(mallory.publish(&presence("bob/x"), b"forged").await);
        // Without the level of the sender.
        let plain = to(&broker, version);
        let mut plain = Peer::connect(&plain, "mallory2").await.unwrap();
        denied(plain.publish(&inbox("alice"), b"nobody").await);
        // In the name of another.
        let mut raw = Wire::dial(broker.address(), "mallory").await;
        let forged = format!("chat/v1/inbox/alice/{}", escape("bob/x"));
        raw.publish(&forged, Some(1), false, b"forged").await;
        assert_eq!(raw.read().await, Some(Seen::PubAck(1)));
        // Whoever they are, by name.
        let mut bob = Peer::connect(&connector, "bob/x").await.unwrap();
        bob.keep(&presence("bob/x"), Class::Ephemeral, b"here")
            .await;
        assert_eq!(
            bob.publish(&inbox("alice"), b"hello").await,
            SendOutcome::Accepted
        );
        mallory.publish(&inbox("alice"), b"me").await;
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(alice.delivery().await.bytes);
        }
        assert_eq!(got, ["here", "hello", "me"]);
        bob.publish(&conv(1), b"together").await;
        assert_eq!(&*alice.delivery().await.bytes, b"together");
    }
}

const CONFIG: &str = include_str!("../../../examples/mosquitto/mosquitto.conf");
/// By `mosquitto_passwd`: `secret2` for `b/ob`.
const PASSWORDS: &str = "b=2Fob:$7$101$3Yvk/BCS0qFvos/k$uFhKUqOiGqGxG+RAhpO8iiue+hXh+F1jlue\
        pUmhv9o/7/IIG4E4gAy2TH00w9hjXj1xIfkG/cRgf1vEUfCn9IA==\n";

#[tokio::test]
async fn the_configuration_of_the_example_asks_for_a_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("passwd"), PASSWORDS).unwrap();
    std::fs::write(folder.path().join("acl"), ACL).unwrap();
    let here = folder.path().to_str().unwrap();
    let config = CONFIG.replace("/etc/mosquitto", here);
    let broker = start(Mosquitto::new().option(&config));
    for version in BOTH {
        let connector = to(&broker, version).sender_level();
        for (name, password) in [("b/ob", "wrong"), ("b/ob", ""), ("alice", "secret2")] {
            let to = connector.clone().password(password);
            let error = Peer::connect(&to, name).await.err().unwrap();
            assert!(matches!(error.reason, DownReason::Refused(_)), "{error}");
        }
        let connector = connector.password("secret2");
        let mut bob = Peer::connect(&connector, "b/ob").await.unwrap();
        assert_eq!(bob.max_frame, 64 * 1024, "what is announced fits");
        assert!(bob.subscribe(&inbox("b/ob")).await);
        assert_eq!(
            bob.keep(&presence("b/ob"), Class::Ephemeral, b"here").await,
            SendOutcome::Accepted
        );
        let denied = bob.publish(&presence("alice"), b"forged").await;
        assert_eq!(denied.is_refusal(), version == Version::V5);
    }
    // An account for all: the broker cannot tell who is who.
    let connector = to(&broker, Version::V5)
        .sender_level()
        .login("b=2Fob", "secret2");
    let mut alice = Peer::connect(&connector, "alice").await.unwrap();
    let denied = alice
        .keep(&presence("alice"), Class::Ephemeral, b"here")
        .await;
    assert_eq!(denied, SendOutcome::Accepted, "at most once: nobody says");
    let denied = alice.publish(&presence("alice"), b"here").await;
    assert!(denied.is_refusal());
}

#[tokio::test]
async fn an_eavesdropper_reads_no_inbox_but_its_own() {
    let broker = start(Mosquitto::new().acl(ACL));
    let connector = to(&broker, Version::V5).sender_level();
    // Wildcards in names, as they are and as the login escapes them.
    let names = ["mallory", "+", "#", "alice/+", "alice/#", "%u"];
    let mut ears = Vec::new();
    for name in names {
        for login in [name.to_owned(), escape(name)] {
            for filter in ["#", "chat/v1/inbox/#", "chat/v1/inbox/+/+", "+/+/+/+/+"] {
                let mut wire = Wire::dial(broker.address(), &login).await;
                wire.subscribe(filter).await;
                ears.push((name, login.clone(), wire));
            }
        }
    }
    let mut alice = Peer::connect(&connector, "alice").await.unwrap();
    let mut bob = Peer::connect(&connector, "bob").await.unwrap();
    assert!(alice.subscribe(&inbox("alice")).await);
    assert_eq!(
        bob.publish(&inbox("alice"), b"secret").await,
        SendOutcome::Accepted
    );
    assert_eq!(&*alice.delivery().await.bytes, b"secret");
    for name in names {
        bob.publish(&inbox(name), b"own").await;
    }
    // What the broker has for them comes before its answer to a ping.
    for (name, login, wire) in &mut ears {
        wire.write(&[0xc0, 0]).await;
        let mut heard = Vec::new();
        loop {
            match wire.read().await.expect("nobody is thrown out") {
                Seen::Publish { topic, .. } => heard.push(topic),
                Seen::Pong => break,
                _ => {}
            }
        }
        // A login that is not escaped owns no topic, unless it needs no escape.
        let own = (*login == escape(name)).then(|| format!("chat/v1/inbox/{login}/bob"));
        assert_eq!(heard, Vec::from_iter(own), "{login}");
    }
}

#[tokio::test]
async fn hostile_names_reach_their_owner_and_nobody_else() {
    let broker = start(Mosquitto::new());
    let long = "#/".repeat(100);
    let names = [
        "alice",
        "+",
        "#",
        "alice/+",
        "alice/#",
        "/",
        "//",
        "$SYS",
        "$share/x/#",
        "%u",
        "..",
        "a b",
        "\u{0}",
        "\r\n",
        "=2B",
        "=H",
        "ALICE",
        "Alice",
        "alice ",
        "al\u{ad}ice",
        "\u{202e}ecila",
        "é",
        "日本",
        "\u{1f600}",
        "*",
        ">",
        "a.b",
        &long,
    ];
    let connector = to(&broker, Version::V5);
    let mut ear = Wire::dial(broker.address(), "ear").await;
    ear.subscribe("chat/v1/#").await;
    let mut peers = BTreeMap::new();
    for name in names {
        let mut peer = Peer::connect(&connector, name).await.unwrap();
        let lobby = Channel::Lobby(LobbyName::new(name).unwrap());
        assert!(peer.subscribe(&inbox(name)).await);
        assert!(peer.subscribe(&lobby).await);
        peers.insert(name, (peer, lobby));
    }
    let mut sender = Peer::connect(&connector, "sender").await.unwrap();
    for (name, (_, lobby)) in &peers {
        for channel in [&inbox(name), lobby] {
            assert_eq!(
                sender.publish(channel, name.as_bytes()).await,
                SendOutcome::Accepted
            );
        }
    }
    for (name, (_, lobby)) in &peers {
        sender.publish(lobby, b"end").await;
        sender.publish(&inbox(name), b"end").await;
    }
    for (name, (peer, lobby)) in &mut peers {
        for (channel, bytes) in [
            (&inbox(name), name.as_bytes()),
            (&*lobby, name.as_bytes()),
            (&*lobby, b"end"),
            (&inbox(name), b"end"),
        ] {
            let Delivery {
                channel: told,
                bytes: got,
                handle,
                ..
            } = peer.delivery().await;
            assert_eq!((&told, &*got), (channel, bytes), "{name:?}");
            peer.put(Outbound::Ack(handle.unwrap())).await.unwrap();
        }
    }
    // Two topics each, all different: who listens to everything can tell, and nobody collides.
    let mut topics = BTreeMap::new();
    while topics.len() < 2 * names.len() {
        let Some(Seen::Publish {
            topic, payload, id, ..
        }) = ear.read().await
        else {
            continue;
        };
        ear.puback(id.unwrap(), 0).await;
        let before = topics.entry(topic).or_insert_with(|| payload.clone());
        assert_eq!(*before, payload, "two names share a topic");
    }
}

#[tokio::test]
async fn over_a_websocket_it_is_the_same() {
    for version in BOTH {
        let port = chat_testkit::broker::free_port().unwrap();
        let broker = start(Mosquitto::new().websockets(port));
        let url = format!("ws://127.0.0.1:{port}/mqtt");
        let over = MqttConnector::from_url(&url).unwrap().version(version);
        let mut alice = Peer::connect(&over, "alice").await.unwrap();
        let mut bob = Peer::connect(&to(&broker, version), "bob").await.unwrap();
        assert!(alice.subscribe(&inbox("alice")).await);
        let large = vec![7; 60_000];
        for bytes in [&b"small"[..], &large] {
            assert_eq!(
                bob.publish(&inbox("alice"), bytes).await,
                SendOutcome::Accepted
            );
            assert_eq!(alice.delivery().await.bytes, bytes);
        }
        for _ in 0..100 {
            alice.send(&inbox("bob"), &large).await;
        }
        alice.publish(&inbox("bob"), b"end").await;
        alice.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_window_of_the_broker_is_kept_under_load() {
    for version in BOTH {
        let broker = start(Mosquitto::new());
        let connector = to(&broker, version);
        let mut alice = Peer::connect(&connector, "alice").await.unwrap();
        let mut bob = Peer::connect(&connector, "bob").await.unwrap();
        assert!(bob.subscribe(&inbox("bob")).await);
        for batch in 0..20_u32 {
            let numbers = batch * 100..(batch + 1) * 100;
            let mut tokens = Vec::new();
            for n in numbers.clone() {
                tokens.push(alice.send(&inbox("bob"), &n.to_be_bytes()).await);
            }
            for n in numbers {
                let Delivery { bytes, handle, .. } = bob.delivery().await;
                assert_eq!(*bytes, n.to_be_bytes());
                bob.put(Outbound::Ack(handle.unwrap())).await.unwrap();
            }
            for token in tokens {
                assert_eq!(alice.fate(token).await, SendOutcome::Accepted);
            }
        }
    }
}

#[tokio::test]
async fn frames_at_most_once_are_not_kept_for_who_is_away() {
    let broker = start(Mosquitto::new());
    let connector = to(&broker, Version::V5);
    let mut bob = Peer::connect(&connector, "bob").await.unwrap();
    assert!(bob.subscribe(&inbox("bob")).await);
    bob.close().await.unwrap();
    let mut alice = Peer::connect(&connector, "alice").await.unwrap();
    let (token, item) = alice.frame(&inbox("bob"), Class::Ephemeral, b"typing");
    alice.put(item).await.unwrap();
    assert_eq!(alice.fate(token).await, SendOutcome::Accepted);
    assert_eq!(
        alice.publish(&inbox("bob"), b"kept").await,
        SendOutcome::Accepted
    );
    let mut bob = Peer::connect(&connector, "bob").await.unwrap();
    assert!(bob.resumed);
    assert_eq!(&*bob.delivery().await.bytes, b"kept");
}
