//! What is lost on the way is fetched from the log, or said.

use core::time::Duration;
use std::time::Instant;

use chat_client::transport::{Inbound, Outbound, SendOutcome};
use chat_core::link::DownReason;
use chat_testkit::broker::NatsServer;
use chat_testkit::proxy::{Line, Proxy};
use chat_transport_nats::NatsConnector;

use super::{builder, connector, jetstream, start};
use chat_testkit::peer::{Peer, conv, inbox, within};

/// More than all queues between the server and a client that does not read hold.
const MANY: u32 = 6_000;

async fn flood(to: &NatsConnector, durable: bool) {
    let mut alice = Peer::connect(to, "alice").await.unwrap();
    let mut tokens = Vec::new();
    for n in 0..MANY {
        if durable {
            tokens.push(alice.send(&inbox("bob"), &n.to_le_bytes()).await);
            if tokens.len() == 256 {
                for token in tokens.drain(..) {
                    assert_eq!(alice.fate(token).await, SendOutcome::Accepted);
                }
            }
        } else if n < MANY / 2 {
            alice.publish(&inbox("bob"), &n.to_le_bytes()).await;
        }
    }
    for token in tokens {
        assert_eq!(alice.fate(token).await, SendOutcome::Accepted);
    }
    alice.close().await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_for_a_while_misses_nothing_durable() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    flood(&to, true).await;
    for n in 0..MANY {
        let delivery = bob.delivery().await;
        assert_eq!(*delivery.bytes, n.to_le_bytes());
        bob.ack(&delivery).await;
    }
    assert!(to.counters().overflows > 0, "the queue was over its bound");
}

#[tokio::test]
async fn an_unacknowledged_flood_stays_in_the_log() {
    let broker = jetstream();
    let to = connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    flood(&to, true).await;
    let mut held = std::collections::VecDeque::new();
    for n in 0..MANY {
        if held.len() == 4_096 {
            let oldest = held.pop_front().unwrap();
            bob.ack(&oldest).await;
        }
        let delivery = bob.delivery().await;
        assert_eq!(*delivery.bytes, n.to_le_bytes());
        held.push_back(delivery);
    }
}

#[tokio::test]
async fn core_only_says_that_something_was_lost() {
    let broker = start(NatsServer::new());
    let to = builder(&broker).core_only().build().unwrap();
    let mut bob = Peer::at_inbox(&to, "bob").await;
    flood(&to, false).await;
    let gap = bob.find(|item| match item {
        Inbound::Gap(channel) => Some(channel.clone()),
        _ => None,
    });
    assert_eq!(gap.await.unwrap(), inbox("bob"));
}

#[tokio::test]
async fn a_mailbox_over_its_bound_keeps_the_newest_and_says_so() {
    let broker = jetstream();
    let to = builder(&broker).mailbox(100).build().unwrap();
    let bob = Peer::at_inbox(&to, "bob").await;
    bob.close().await.unwrap();
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    for n in 0..150u32 {
        assert_eq!(
            alice.publish(&inbox("bob"), &n.to_le_bytes()).await,
            SendOutcome::Accepted
        );
    }
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert_eq!(bob.next().await, Ok(Inbound::Gap(inbox("bob"))));
    for n in 50..150u32 {
        assert_eq!(*bob.delivery().await.bytes, n.to_le_bytes());
    }
    bob.caught_up().await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_noticed_by_pings() {
    for core_only in [false, true] {
        let broker = jetstream();
        let builder = builder(&broker).ping_interval(Duration::from_millis(200));
        let builder = if core_only {
            builder.core_only()
        } else {
            builder
        };
        let mut bob = Peer::at_inbox(&builder.build().unwrap(), "bob").await;
        broker.freeze().unwrap();
        let start = Instant::now();
        assert_eq!(bob.end().await.reason, DownReason::Lost);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
        broker.thaw().unwrap();
    }
}

#[tokio::test]
async fn a_frame_that_a_frozen_server_does_not_acknowledge_has_an_unknown_fate() {
    let broker = jetstream();
    let to = builder(&broker)
        .deadline(Duration::from_secs(1))
        .build()
        .unwrap();
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    broker.freeze().unwrap();
    alice.send(&conv(1), b"x").await;
    let end = within(alice.next()).await.unwrap_err();
    assert!(
        matches!(end.reason, DownReason::Other(_)),
        "not refused, not accepted: {end}"
    );
    broker.thaw().unwrap();
}

#[tokio::test]
async fn a_server_that_goes_down_in_order_is_left_at_once() {
    let broker = jetstream();
    let mut alice = Peer::connect(&connector(&broker), "alice").await.unwrap();
    let pid = broker.pid().unwrap().to_string();
    let sent = std::process::Command::new("sh")
        .args(["-c", "kill -s USR2 $0", &pid])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(alice.end().await.reason, DownReason::TryLater);
}

#[tokio::test]
async fn a_line_that_breaks_soon_every_time_still_brings_the_whole_log() {
    const FRAMES: u32 = 300;
    let broker = jetstream();
    let direct = connector(&broker);
    Peer::at_inbox(&direct, "bob").await.close().await.unwrap();
    let mut alice = Peer::connect(&direct, "alice").await.unwrap();
    for n in 0..FRAMES {
        let frame = [&n.to_le_bytes()[..], &[0; 400]].concat();
        let outcome = alice.publish(&inbox("bob"), &frame).await;
        assert_eq!(outcome, SendOutcome::Accepted);
    }
    // Less than one reading of the log, and the beginning of a connection, need.
    let proxy = Proxy::start(broker.address()).await.unwrap();
    proxy.set(Line::ResetAfter(30_000));
    let to = NatsConnector::from_url(&format!("nats://{}", proxy.address())).unwrap();
    let (mut next, mut connections) = (0, 0);
    while next < FRAMES {
        connections += 1;
        assert!(connections < 500, "{next} frames");
        let Ok(mut bob) = Peer::connect(&to, "bob").await else {
            continue;
        };
        while let Ok(inbound) = bob.next().await {
            let Inbound::Received { bytes, handle, .. } = inbound else {
                continue;
            };
            let n = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            assert!(n <= next, "{n} before {next}");
            next = next.max(n + 1);
            if next == FRAMES || bob.put(Outbound::Ack(handle.unwrap())).await.is_err() {
                break;
            }
        }
    }
}
