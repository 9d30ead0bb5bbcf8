//! The log and the session: what a device finds when it comes back.

use chat_client::transport::{Inbound, Outbound, SendOutcome};
use chat_core::channel::Class;
use chat_core::link::DownReason;
use chat_testkit::broker::Memory;

use super::{builder, connector, jetstream};
use chat_testkit::peer::{Peer, conv, inbox, presence, within};
use futures_util::{FutureExt as _, StreamExt as _};

#[tokio::test]
async fn a_frame_waits_for_who_is_away_until_it_is_durable_there() {
    let broker = jetstream();
    let to = connector(&broker);
    let bob = Peer::at_inbox(&to, "bob").await;
    bob.close().await.unwrap();
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(
            alice.publish(&inbox("bob"), text.as_bytes()).await,
            SendOutcome::Accepted
        );
    }

    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert!(bob.resumed);
    let first = bob.delivery().await;
    assert_eq!((&*first.bytes, first.live), (&b"one"[..], true));
    assert_eq!(bob.delivery().await.bytes, "two");
    let third = bob.delivery().await;
    bob.caught_up().await;
    // The second is not durable when the process dies.
    bob.ack(&first).await;
    bob.ack(&third).await;
    bob.close().await.unwrap();

    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    let again = bob.delivery().await;
    assert_eq!(again.bytes, "two");
    let after = bob.delivery().await;
    assert_eq!(after.bytes, "three", "cursors know no holes");
    // Rule 4: a handle of an earlier connection means nothing.
    bob.put(Outbound::Ack(first.handle.unwrap())).await.unwrap();
    bob.put(Outbound::Ack(third.handle.unwrap())).await.unwrap();
    bob.ack(&again).await;
    bob.close().await.unwrap();
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert_eq!(bob.delivery().await.bytes, "three");
    alice.close().await.unwrap();
}

#[tokio::test]
async fn closing_waits_for_subscriptions_that_were_asked_for() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    for n in 0..10 {
        let mut bob = Peer::connect(&to, "bob").await.unwrap();
        bob.put(Outbound::Subscribe(conv(n))).await.unwrap();
        bob.close().await.unwrap();
        assert_eq!(alice.publish(&conv(n), &[n]).await, SendOutcome::Accepted);
        let mut bob = Peer::connect(&to, "bob").await.unwrap();
        assert!(bob.resumed);
        let delivery = bob.delivery().await;
        assert_eq!(
            (delivery.channel.clone(), &*delivery.bytes),
            (conv(n), &[n][..])
        );
        bob.ack(&delivery).await;
        bob.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_server_keeps_the_log_and_the_session() {
    let mut broker = jetstream();
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    assert!(bob.subscribe(&conv(1)).await);
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    assert_eq!(
        alice.publish(&inbox("bob"), b"before").await,
        SendOutcome::Accepted
    );
    assert_eq!(bob.delivery().await.bytes, "before");
    broker.kill();
    assert_eq!(bob.end().await.reason, DownReason::Lost);
    assert_eq!(alice.end().await.reason, DownReason::Lost);
    assert_eq!(
        Peer::connect(&to, "bob").await.err().unwrap().reason,
        DownReason::Lost
    );
    broker.restart(Memory::Kept).unwrap();

    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    assert_eq!(
        alice.publish(&conv(1), b"after").await,
        SendOutcome::Accepted
    );
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert!(bob.resumed, "subscribed as before");
    let mut texts = [bob.delivery().await.bytes, bob.delivery().await.bytes];
    texts.sort_unstable();
    assert_eq!(texts, ["after", "before"]);
    bob.caught_up().await;
    assert_eq!(
        alice.publish(&conv(1), b"live").await,
        SendOutcome::Accepted
    );
    assert_eq!(bob.delivery().await.bytes, "live");
}

#[tokio::test]
async fn a_server_that_lost_everything_is_no_resumed_session() {
    let mut broker = jetstream();
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    broker.restart(Memory::Lost).unwrap();
    bob.end().await;
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert!(!bob.resumed);
    assert!(bob.subscribe(&inbox("bob")).await);
    bob.caught_up().await;
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    alice.publish(&inbox("bob"), b"new").await;
    assert_eq!(bob.delivery().await.bytes, "new");
}

#[tokio::test]
async fn a_log_that_was_made_anew_is_read_from_its_beginning() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    for _ in 0..5 {
        alice.publish(&inbox("bob"), b"old").await;
        let delivery = bob.delivery().await;
        bob.ack(&delivery).await;
    }
    bob.close().await.unwrap();
    let raw = async_nats::connect(super::url(&broker)).await.unwrap();
    raw.request("$JS.API.STREAM.DELETE.chat_v1_log", "".into())
        .await
        .unwrap();
    // Who publishes into nothing hears so, and the next connection makes the log again.
    alice.send(&inbox("bob"), b"lost").await;
    assert!(matches!(alice.end().await.reason, DownReason::Other(_)));
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert!(!bob.resumed, "its places mean nothing here");
    assert!(bob.subscribe(&inbox("bob")).await);
    alice.publish(&inbox("bob"), b"new").await;
    assert_eq!(bob.delivery().await.bytes, "new");
}

#[tokio::test]
async fn s11_a_second_connection_of_a_device_ends_the_first() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut first = Peer::at_inbox(&to, "bob").await;
    let mut second = Peer::connect(&to, "bob").await.unwrap();
    assert!(second.resumed);
    assert_eq!(first.end().await.reason, DownReason::Conflict);
    assert!(second.subscribe(&conv(1)).await, "the second stays");
}

#[tokio::test]
async fn s11_a_write_of_the_session_that_comes_too_late_is_no_conflict() {
    let broker = jetstream();
    let mut bob = Peer::at_inbox(&connector(&broker), "bob").await;
    let raw = async_nats::connect(super::url(&broker)).await.unwrap();
    let key = format!("$KV.chat_v1_session.bob.{}", "07".repeat(32));
    let now = format!("$JS.API.DIRECT.GET.KV_chat_v1_session.{key}");
    let now = raw.request(now, "".into()).await.unwrap();
    // The same, by another connection.
    let mut other = now.payload.to_vec();
    other[4] ^= 1;
    let write = async |expected: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected);
        let answer = raw.request_with_headers(key.clone(), headers, other.clone().into());
        String::from_utf8(answer.await.unwrap().payload.to_vec()).unwrap()
    };
    assert!(write("999").await.contains("wrong last sequence"));
    let forged = format!("chat.v1.session.bob.{}", "07".repeat(32));
    raw.publish(forged, other.clone().into()).await.unwrap();
    assert!(bob.subscribe(&conv(1)).await, "the connection stays");

    let now = format!("$JS.API.DIRECT.GET.KV_chat_v1_session.{key}");
    let now = raw.request(now, "".into()).await.unwrap();
    let revision = now
        .headers
        .unwrap()
        .get("Nats-Sequence")
        .unwrap()
        .to_string();
    assert!(write(&revision).await.contains("seq"));
    assert_eq!(bob.end().await.reason, DownReason::Conflict);
}

#[tokio::test]
async fn forgetting_on_request_and_leaving_a_channel_end_what_is_kept() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    assert!(bob.subscribe(&conv(1)).await);
    bob.put(Outbound::Unsubscribe(conv(1))).await.unwrap();
    bob.close().await.unwrap();
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    alice.publish(&conv(1), b"left").await;
    alice.publish(&inbox("bob"), b"kept").await;
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert_eq!(bob.delivery().await.bytes, "kept");
    bob.caught_up().await;
    bob.close().await.unwrap();
    let fresh = builder(&broker).without_resume().build().unwrap();
    let bob = Peer::connect(&fresh, "bob").await.unwrap();
    assert!(!bob.resumed);
}

#[tokio::test]
async fn the_last_value_of_a_person_is_there_for_who_comes_later() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    for text in ["here", "busy"] {
        let outcome = alice
            .keep(&presence("alice"), Class::Ephemeral, text.as_bytes())
            .await;
        assert_eq!(outcome, SendOutcome::Accepted);
    }
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert!(bob.subscribe(&presence("alice")).await);
    let stored = bob.delivery().await;
    assert_eq!(
        (&*stored.bytes, stored.live, stored.handle),
        (&b"busy"[..], false, None)
    );
    alice
        .keep(&presence("alice"), Class::Ephemeral, b"gone")
        .await;
    let live = bob.delivery().await;
    assert_eq!(
        (&*live.bytes, live.live, live.handle),
        (&b"gone"[..], true, None)
    );
    // Without a connection: what changed is told on return.
    bob.close().await.unwrap();
    alice
        .keep(&presence("alice"), Class::Ephemeral, b"back")
        .await;
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    let stored = bob.delivery().await;
    assert_eq!((&*stored.bytes, stored.live), (&b"back"[..], false));
    bob.caught_up().await;
}

#[tokio::test]
async fn a_duplicate_of_the_same_attempt_is_dropped_by_the_server() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    assert!(bob.subscribe(&conv(1)).await);
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    for (channel, id) in [
        (inbox("bob"), 1),
        (inbox("bob"), 1),
        (conv(1), 1),
        (inbox("bob"), 2),
    ] {
        let (token, mut item) = alice.frame(&channel, Class::Durable, &[id]);
        if let Outbound::Send { dedup, .. } = &mut item {
            *dedup = Some([id; 16]);
        }
        alice.put(item).await.unwrap();
        let outcome = alice.fate(token).await;
        assert_eq!(outcome, SendOutcome::Accepted);
    }
    let mut got: Vec<_> = Vec::new();
    for _ in 0..3 {
        let delivery = bob.delivery().await;
        got.push((delivery.channel, delivery.bytes[0]));
    }
    got.sort();
    let mut expected = vec![(inbox("bob"), 1), (inbox("bob"), 2), (conv(1), 1)];
    expected.sort();
    assert_eq!(got, expected, "one window, and each channel of its own");
}

#[tokio::test]
async fn clients_of_both_modes_hear_each_other() {
    let broker = jetstream();
    let whole = connector(&broker);
    let core = builder(&broker).core_only().build().unwrap();
    let mut alice = Peer::at_inbox(&whole, "alice").await;
    let mut bob = Peer::at_inbox(&core, "bob").await;
    alice.publish(&inbox("bob"), b"from the log").await;
    let delivery = bob.delivery().await;
    assert_eq!(
        (&*delivery.bytes, delivery.handle),
        (&b"from the log"[..], None)
    );
    bob.publish(&inbox("alice"), b"in passing").await;
    let delivery = alice.delivery().await;
    assert_eq!(
        (&*delivery.bytes, delivery.handle),
        (&b"in passing"[..], None)
    );
    alice.whisper(&inbox("bob"), b"now").await;
    assert_eq!(bob.delivery().await.bytes, "now");
}

#[tokio::test]
async fn the_marker_follows_everything_that_waited() {
    let broker = jetstream();
    let to = connector(&broker);
    let bob = Peer::at_inbox(&to, "bob").await;
    bob.close().await.unwrap();
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    let tokens: Vec<_> = {
        let mut tokens = Vec::new();
        for n in 0..300u32 {
            tokens.push(alice.send(&inbox("bob"), &n.to_le_bytes()).await);
        }
        tokens
    };
    for token in tokens {
        assert_eq!(alice.fate(token).await, SendOutcome::Accepted);
    }
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    let mut expected = 0u32;
    loop {
        match bob.next().await.unwrap() {
            Inbound::Received { bytes, .. } => {
                assert_eq!(*bytes, expected.to_le_bytes());
                expected += 1;
            }
            Inbound::CaughtUp => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(expected, 300);
}

#[tokio::test]
async fn a_session_that_would_not_fit_into_a_message_is_refused_its_last_channels() {
    let broker = super::start(
        chat_testkit::broker::NatsServer::new()
            .jetstream()
            .option("max_payload: 4096"),
    );
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    let mut granted = 0;
    while bob.subscribe(&conv(granted)).await {
        granted += 1;
    }
    assert!(granted > 30, "{granted}");
    bob.put(Outbound::Unsubscribe(conv(0))).await.unwrap();
    assert!(bob.subscribe(&conv(200)).await, "room for one");
    bob.close().await.unwrap();
    let bob = Peer::connect(&to, "bob").await.unwrap();
    assert!(bob.resumed);
}

#[tokio::test]
async fn large_frames_are_read_a_few_at_a_time_and_what_is_larger_is_passed_over() {
    const FRAMES: u8 = 20;
    let broker = jetstream();
    let to = connector(&broker);
    let bob = Peer::at_inbox(&to, "bob").await;
    bob.close().await.unwrap();
    let raw = async_nats::connect(super::url(&broker)).await.unwrap();
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    for n in 0..FRAMES {
        let frame = vec![n; 200 * 1024];
        let outcome = alice.publish(&inbox("bob"), &frame).await;
        assert_eq!(outcome, SendOutcome::Accepted);
        if n == FRAMES / 2 {
            // Stored there by no client of ours.
            let stored = raw.request("chat.v1.in.inbox.bob", vec![0; 900 * 1024].into());
            let stored = within(stored).await.unwrap();
            assert!(!stored.payload.starts_with(b"{\"error"), "{stored:?}");
        }
    }
    let mut pulls = raw.subscribe("$JS.API.CONSUMER.MSG.NEXT.>").await.unwrap();
    raw.flush().await.unwrap();

    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    for n in 0..FRAMES {
        let delivery = bob.delivery().await;
        assert_eq!(*delivery.bytes, vec![n; 200 * 1024]);
        bob.ack(&delivery).await;
    }
    bob.caught_up().await;
    assert_eq!(to.counters().foreign, 1);
    // Two fit into one reading, and nothing larger than that is asked for but alone.
    raw.flush().await.unwrap();
    let mut asked = 0;
    while let Some(Some(pull)) = pulls.next().now_or_never() {
        let pull: serde_json::Value = serde_json::from_slice(&pull.payload).unwrap();
        assert!(pull["max_bytes"].is_u64() || pull["batch"] == 1, "{pull}");
        asked += 1;
    }
    assert!(asked >= FRAMES / 2, "{asked} pulls");
}
