//! Whole clients over mosquitto, where it loses what it accepted.

use core::time::Duration;
use std::collections::BTreeMap;

use chat_client::store::MemoryStore;
use chat_client::{Chat, Client, Event, EventStream, Identity};
use chat_core::config::Config;
use chat_core::delivery::Ack;
use chat_core::id::UserId;
use chat_core::identity::DeviceKey;
use chat_core::link::{DownReason, LinkState};
use chat_testkit::broker::{Broker, Memory, Mosquitto};
use chat_testkit::proxy::Proxy;
use chat_transport_mqtt::{MqttConnector, Version};
use tokio::time::timeout;

use chat_testkit::peer::user;

/// Each has 64 messages under way at most, so that all together fill the mailbox.
const SENDERS: u8 = 20;
const EACH: usize = 500;
/// Of one conversation, with kills in between.
const BURST: usize = 600;
const KILLS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(120);

fn name(n: u8) -> UserId {
    user(&format!("sender-{n}"))
}

async fn open(user: UserId, key: u8, rows: &MemoryStore, to: &MqttConnector) -> Client {
    let identity = Identity::new(user, DeviceKey::from_secret([key; 32]));
    let mut config = Config::lan();
    // This test is about the mailbox, and not about how fast strangers may be.
    config.budget.frames_per_second = 100_000;
    config.budget.burst = 100_000;
    config.delivery.retransmit_rate = 1_000;
    config.delivery.rto_max = Duration::from_secs(2);
    let builder = Client::builder(identity).store(rows.clone()).config(config);
    builder.transport(to.clone()).open().await.unwrap()
}

async fn caught_up(client: &Client) {
    let up = client.link_until(|state| *state == LinkState::CaughtUp);
    timeout(DEADLINE, up)
        .await
        .expect("it connects in time")
        .unwrap();
}

/// A chat of two, and what the second is told.
async fn pair(to: &MqttConnector) -> ([Client; 2], Chat, EventStream) {
    let rows = MemoryStore::new;
    let alice = open(user("alice"), 1, &rows(), to).await;
    let bob = open(user("bob"), 2, &rows(), to).await;
    let mut events = bob.events().await.unwrap();
    caught_up(&bob).await;
    let request = alice.request("bob").send().await.unwrap();
    let asked = async {
        loop {
            if let Some(Event::Request(request)) = events.next().await {
                return request.accept().await.unwrap();
            }
        }
    };
    timeout(DEADLINE, asked).await.expect("asked in time");
    let chat = timeout(DEADLINE, request.accepted())
        .await
        .expect("in time")
        .unwrap();
    ([alice, bob], chat, events)
}

#[tokio::test]
async fn a_broker_that_is_killed_and_forgets_everything_loses_no_message() {
    for version in [Version::V5, Version::V311] {
        let mut broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
        let to = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
        let (_clients, chat, mut events) = pair(&to.version(version)).await;
        let sending = tokio::spawn(async move {
            let mut last = None;
            for n in 0..BURST {
                last = Some(chat.send(n.to_string().as_str()).await.unwrap());
            }
            last.unwrap()
        });
        let mut next = 0;
        while next < BURST {
            let event = timeout(DEADLINE, events.next()).await.expect("in time");
            let Some(Event::Message(message)) = event else {
                continue;
            };
            assert_eq!(message.content.fallback(), next.to_string());
            next += 1;
            if next % (BURST / (KILLS + 1)) == 0 && next < BURST {
                broker.kill();
                broker.restart(Memory::Lost).unwrap();
            }
        }
        let last = sending.await.unwrap();
        timeout(DEADLINE, last.until(Ack::Delivered))
            .await
            .expect("in time")
            .unwrap();
    }
}

/// Until it gives up, which it must in time.
async fn gives_up(client: &Client) -> DownReason {
    let failed = client.link_until(|state| matches!(state, LinkState::Failed { .. }));
    let failed = timeout(DEADLINE, failed)
        .await
        .expect("it gives up")
        .unwrap();
    match failed {
        LinkState::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn s11_of_two_programs_with_one_key_one_gives_up() {
    let fight = async |version| {
        let broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
        let to = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
        // Two programs: what one connector learns the other does not know.
        let again = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
        let (to, again) = (to.version(version), again.version(version));
        let one = open(user("alice"), 1, &MemoryStore::new(), &to).await;
        let two = open(user("alice"), 1, &MemoryStore::new(), &again).await;
        let reason = tokio::select! {
            reason = gives_up(&one) => reason,
            reason = gives_up(&two) => reason,
        };
        assert_eq!(reason, DownReason::Conflict);
    };
    tokio::join!(fight(Version::V5), fight(Version::V311));
}

#[tokio::test]
async fn s11_a_line_that_is_cut_again_and_again_is_no_takeover() {
    let endure = async |version| {
        let broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
        let proxy = Proxy::start(broker.address()).await.unwrap();
        let to = MqttConnector::from_url(&format!("mqtt://{}", proxy.address())).unwrap();
        let alice = open(user("alice"), 1, &MemoryStore::new(), &to.version(version)).await;
        for _ in 0..12 {
            caught_up(&alice).await;
            proxy.cut();
            let down = alice.link_until(|state| *state != LinkState::CaughtUp);
            timeout(DEADLINE, down)
                .await
                .expect("it is noticed")
                .unwrap();
        }
        caught_up(&alice).await;
    };
    tokio::join!(endure(Version::V5), endure(Version::V311));
}

/// mosquitto keeps 1,000 messages for who is away, and calls every one of those that it throws
/// away accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_to_who_is_away_are_all_delivered() {
    let broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
    let to = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
    let rows = MemoryStore::new();
    let bob = open(user("bob"), 100, &rows, &to).await;
    let mut events = bob.events().await.unwrap();
    caught_up(&bob).await;
    let accepting = tokio::spawn(async move {
        let mut accepted = 0;
        while accepted < SENDERS {
            if let Some(Event::Request(request)) = events.next().await {
                request.accept().await.unwrap();
                accepted += 1;
            }
        }
    });
    let mut chats: Vec<(Client, Chat)> = Vec::new();
    for n in 0..SENDERS {
        let client = open(name(n), n + 1, &MemoryStore::new(), &to).await;
        let request = client.request("bob").send().await.unwrap();
        let chat = timeout(DEADLINE, request.accepted())
            .await
            .expect("in time")
            .unwrap();
        chats.push((client, chat));
    }
    accepting.await.unwrap();
    bob.shutdown(Duration::from_secs(5)).await.unwrap();

    let mut last = Vec::new();
    for (_, chat) in &chats {
        let mut sent = None;
        for n in 0..EACH {
            sent = Some(chat.send(n.to_string().as_str()).await.unwrap());
        }
        last.push(sent.unwrap());
    }
    // Handed over, as far as the broker says, and thrown away there.
    for sent in &last {
        assert!(sent.ack() < Ack::Delivered);
    }
    let dropped = || {
        broker
            .log()
            .matches("Outgoing messages are being dropped")
            .count()
    };
    timeout(DEADLINE, async {
        while dropped() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the mailbox overflows");

    let bob = open(user("bob"), 100, &rows, &to).await;
    let mut events = bob.events().await.unwrap();
    let mut next: BTreeMap<UserId, usize> = BTreeMap::new();
    let receiving = async {
        while next.values().sum::<usize>() < usize::from(SENDERS) * EACH {
            if let Some(Event::Message(message)) = events.next().await {
                let expected = next.entry(message.from.clone()).or_default();
                assert_eq!(message.content.fallback(), expected.to_string());
                *expected += 1;
            }
        }
    };
    timeout(DEADLINE, receiving)
        .await
        .expect("everything arrives in time");
    for sent in last {
        timeout(DEADLINE, sent.until(Ack::Delivered))
            .await
            .expect("in time")
            .unwrap();
    }
    assert!((0..SENDERS).all(|n| next[&name(n)] == EACH));
}
