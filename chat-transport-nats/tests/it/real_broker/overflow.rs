//! 10,000 messages to who is away, and mailboxes of 20: the server drops the oldest of each
//! conversation, and the outboxes of the senders cover that.

use core::time::Duration;
use std::collections::BTreeMap;

use chat_client::store::MemoryStore;
use chat_client::{Chat, Client, Event, Identity};
use chat_core::config::Config;
use chat_core::delivery::Ack;
use chat_core::id::UserId;
use chat_core::identity::DeviceKey;
use chat_core::link::LinkState;
use chat_transport_nats::NatsConnector;
use tokio::time::timeout;

use super::{builder, jetstream, url};
use chat_testkit::peer::user;

const SENDERS: u8 = 20;
const EACH: usize = 500;
const DEADLINE: Duration = Duration::from_secs(120);

async fn open(name: &UserId, key: u8, rows: &MemoryStore, to: &NatsConnector) -> Client {
    let identity = Identity::new(name.clone(), DeviceKey::from_secret([key; 32]));
    let mut config = Config::lan();
    // This is about the mailbox, not about how fast a stranger may be.
    config.budget.frames_per_second = 100_000;
    config.budget.burst = 100_000;
    config.delivery.retransmit_rate = 1_000;
    config.delivery.rto_max = Duration::from_secs(2);
    let builder = Client::builder(identity).store(rows.clone()).config(config);
    builder.transport(to.clone()).open().await.unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

fn sender(n: u8) -> UserId {
    user(&format!("sender-{n}"))
}

/// Frames that the server stored and no longer has.
async fn dropped(raw: &async_nats::Client) -> u64 {
    let info = raw.request("$JS.API.STREAM.INFO.chat_v1_log", "".into());
    let info: serde_json::Value = serde_json::from_slice(&info.await.unwrap().payload).unwrap();
    let count = |name: &str| info["state"][name].as_u64().unwrap();
    count("last_seq") - count("messages")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_to_who_is_away_all_arrive_in_order() {
    let broker = jetstream();
    // Per channel: each conversation has a window of 64, so this drops some of each.
    let to = builder(&broker).mailbox(20).build().unwrap();
    let rows = MemoryStore::new();
    let bob = open(&user("bob"), 100, &rows, &to).await;
    let mut events = bob.events().await.unwrap();
    let up = bob.link_until(|state| *state == LinkState::CaughtUp);
    within(up).await.unwrap();
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
        let client = open(&sender(n), n + 1, &MemoryStore::new(), &to).await;
        let request = client.request("bob").send().await.unwrap();
        let chat = within(request.accepted()).await.unwrap();
        chats.push((client, chat));
    }
    within(accepting).await.unwrap();
    bob.shutdown(Duration::from_secs(5)).await.unwrap();

    let mut last = Vec::new();
    for (_, chat) in &chats {
        let mut sent = None;
        for n in 0..EACH {
            sent = Some(chat.send(n.to_string().as_str()).await.unwrap());
        }
        last.push(sent.unwrap());
    }
    // Called stored, and dropped since.
    let raw = async_nats::connect(url(&broker)).await.unwrap();
    within(async {
        while dropped(&raw).await < 100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let bob = open(&user("bob"), 100, &rows, &to).await;
    let mut events = bob.events().await.unwrap();
    let mut next: BTreeMap<UserId, usize> = BTreeMap::new();
    within(async {
        while next.values().sum::<usize>() < usize::from(SENDERS) * EACH {
            if let Some(Event::Message(message)) = events.next().await {
                let expected = next.entry(message.from.clone()).or_default();
                assert_eq!(message.content.fallback(), expected.to_string());
                *expected += 1;
            }
        }
    })
    .await;
    for sent in last {
        within(sent.until(Ack::Delivered)).await.unwrap();
    }
    assert!((0..SENDERS).all(|n| next[&sender(n)] == EACH));
}
