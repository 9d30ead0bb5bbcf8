//! Whole clients over a transport, for the tests of that, and what all brokers must endure.

use core::time::Duration;
use std::collections::BTreeMap;

use chat_client::store::MemoryStore;
use chat_client::transport::Connector;
use chat_client::{Chat, Client, Event, Identity};
use chat_core::config::Config;
use chat_core::delivery::Ack;
use chat_core::id::UserId;
use chat_core::identity::DeviceKey;
use chat_core::link::LinkState;

use crate::peer::user;

/// How long anything may take that must happen.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Each has so many messages under way at most that all together overflow any mailbox.
const SENDERS: u8 = 20;
const EACH: usize = 500;

/// What `future` gives.
///
/// # Panics
/// It did not happen within [`DEADLINE`].
pub async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    let waited = tokio::time::timeout(DEADLINE, future).await;
    waited.expect("it happens in time")
}

/// A client that repeats soon, and whom nobody takes for a flood.
///
/// # Panics
/// It does not open.
pub async fn open(
    user: UserId,
    key: u8,
    rows: &MemoryStore,
    to: &(impl Connector + Clone),
) -> Client {
    let identity = Identity::new(user, DeviceKey::from_secret([key; 32]));
    let mut config = Config::lan();
    config.budget.frames_per_second = 100_000;
    config.budget.burst = 100_000;
    config.delivery.retransmit_rate = 1_000;
    config.delivery.rto_max = Duration::from_secs(2);
    let builder = Client::builder(identity).store(rows.clone()).config(config);
    let opened = builder.transport(to.clone()).open().await;
    opened.expect("its own rows open")
}

/// Until it has caught up.
///
/// # Panics
/// It does not.
pub async fn caught_up(client: &Client) {
    let up = client.link_until(|state| *state == LinkState::CaughtUp);
    within(up).await.expect("it runs");
}

/// 10,000 messages to who is away, and more than its mailbox holds: the broker drops some of what
/// it called accepted, and the outboxes of the senders make up for it. `overflowed` says whether
/// it dropped some.
///
/// # Panics
/// One is lost, comes twice or out of order.
pub async fn ten_thousand_messages_to_who_is_away_all_arrive_in_order(
    to: &(impl Connector + Clone),
    overflowed: impl AsyncFn() -> bool,
) {
    let rows = MemoryStore::new();
    let bob = open(user("bob"), 100, &rows, to).await;
    let mut events = bob.events().await.expect("it runs");
    caught_up(&bob).await;
    let accepting = tokio::spawn(async move {
        let mut accepted = 0;
        while accepted < SENDERS {
            if let Some(Event::Request(request)) = events.next().await {
                request.accept().await.expect("it stands");
                accepted += 1;
            }
        }
    });
    let mut chats: Vec<(Client, Chat)> = Vec::new();
    for n in 0..SENDERS {
        let client = open(sender(n), n + 1, &MemoryStore::new(), to).await;
        let request = client.request("bob").send().await.expect("it may ask");
        let chat = within(request.accepted()).await.expect("he says yes");
        chats.push((client, chat));
    }
    within(accepting).await.expect("he answers all");
    let left = bob.shutdown(Duration::from_secs(5)).await;
    left.expect("it ran");

    let mut last = Vec::new();
    for (_, chat) in &chats {
        let mut sent = None;
        for n in 0..EACH {
            let text = n.to_string();
            sent = Some(chat.send(text.as_str()).await.expect("there is room"));
        }
        last.push(sent.expect("some were sent"));
    }
    for sent in &last {
        assert!(sent.ack() < Ack::Delivered, "he is away");
    }
    within(async {
        while !overflowed().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let bob = open(user("bob"), 100, &rows, to).await;
    let mut events = bob.events().await.expect("it runs");
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
        let delivered = within(sent.until(Ack::Delivered)).await;
        delivered.expect("the client runs");
    }
    assert!((0..SENDERS).all(|n| next[&sender(n)] == EACH));
}

fn sender(n: u8) -> UserId {
    user(&format!("sender-{n}"))
}
