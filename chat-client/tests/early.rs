//! What happens before an application opens its first stream of events.

#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::time::Duration;

use chat_client::store::MemoryStore;
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Chat, Client, Event};
use chat_core::config::Config;
use chat_core::delivery::Ack;
use support::*;

/// Nobody needs events for that: their requests cross.
async fn meet_silently(a: &Client, b: &Client) -> (Chat, Chat) {
    caught_up(a).await;
    caught_up(b).await;
    let (ours, theirs) = tokio::join!(soon(a.request(b.user())), soon(b.request(a.user())));
    (ours.unwrap(), theirs.unwrap())
}

async fn send(chat: &Chat, range: std::ops::Range<usize>) {
    let mut last = None;
    for i in range {
        last = Some(chat.send(format!("{i}")).await.unwrap());
    }
    soon(last.unwrap().until(Ack::Delivered)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn q5_messages_before_the_first_stream_are_all_told_however_many() {
    const MESSAGES: usize = 1_500;
    let broker = MemoryBroker::new();
    let store = MemoryStore::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let mut config = Config::default();
    config.delivery.max_inbox = 8 * MESSAGES;
    let bob = open_with("bob", &broker, store.clone(), config).await;
    let (chat, answer) = meet_silently(&alice, &bob).await;
    // Many events of other kinds make no message go.
    send(&chat, 0..MESSAGES).await;
    for _ in 0..600 {
        chat.typing(true).await.unwrap();
        chat.typing(false).await.unwrap();
    }
    let sent = soon(chat.send("the last")).await.unwrap();
    soon(sent.until(Ack::Delivered)).await.unwrap();
    let mut events = bob.events().await.unwrap();
    for i in 0..MESSAGES {
        let text = next_message(&mut events).await.content;
        assert_eq!(text.fallback(), format!("{i}"));
    }
    assert_eq!(
        next_message(&mut events).await.content.fallback(),
        "the last"
    );
    drop((events, answer));
    soon(bob.shutdown(Duration::from_secs(5))).await.unwrap();

    // The same for a life that begins with many that were not acknowledged.
    let bob = open("bob", &broker, store).await;
    caught_up(&bob).await;
    let mut events = bob.events().await.unwrap();
    let again = next_message(&mut events).await;
    assert_eq!(again.content.fallback(), "the last");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_lives_on_timelines_alone_keeps_no_events() {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let bob = open("bob", &broker, MemoryStore::new()).await;
    let (chat, answer) = meet_silently(&alice, &bob).await;
    let mut timeline = answer.timeline().from_beginning();
    for round in 0..3 {
        send(&chat, round * 500..(round + 1) * 500).await;
        for _ in 0..500 {
            soon(timeline.next()).await.unwrap().unwrap();
        }
    }
    // The one in hand is acknowledged with the next.
    let mut events = bob.events().await.unwrap();
    let told = next_message(&mut events).await.content;
    assert_eq!(told.fallback(), "1499");
    let more = tokio::time::timeout(
        Duration::from_secs(60),
        next(&mut events, |event| {
            matches!(event, Event::Message(_)).then_some(())
        }),
    );
    assert!(more.await.is_err(), "what is done with is not told");
}
