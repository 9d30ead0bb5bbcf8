//! History and live messages without a seam.

#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::time::Duration;

use chat_client::store::MemoryStore;
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Timeline, TimelineError};
use chat_core::delivery::{Ack, TimelineItem};
use support::*;

fn text(item: &TimelineItem) -> &str {
    match item {
        TimelineItem::Received(received) => received.content.fallback(),
        TimelineItem::Sent { content, .. } => content.fallback(),
        other => panic!("no message: {other:?}"),
    }
}

async fn texts(timeline: &mut Timeline, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let item = soon(timeline.next()).await.expect("not the end").unwrap();
        texts.push(text(&item).to_owned());
    }
    texts
}

async fn assert_quiet(timeline: &mut Timeline) {
    let more = tokio::time::timeout(Duration::from_secs(30), timeline.next()).await;
    assert!(more.is_err(), "more: {more:?}");
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("{i}")).collect()
}

#[tokio::test(start_paused = true)]
async fn history_runs_into_live_without_seam_or_repeat() {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let bob = open("bob", &broker, MemoryStore::new()).await;
    let mut events = bob.events().await.unwrap();
    let (chat, answer) = meet(&alice, &bob, &mut events).await;
    drop(events);
    for i in 0..150 {
        let from = if i % 3 == 0 { &answer } else { &chat };
        let sent = soon(from.send(format!("{i}"))).await.unwrap();
        soon(sent.until(Ack::Delivered)).await.unwrap();
    }
    let mut theirs = answer.timeline().from_beginning();
    assert_eq!(texts(&mut theirs, 100).await, numbers(0..100));
    // These arrive while the history is being read.
    let mut last = None;
    for i in 150..200 {
        last = Some(soon(chat.send(format!("{i}"))).await.unwrap());
    }
    soon(last.unwrap().until(Ack::Delivered)).await.unwrap();
    assert_eq!(texts(&mut theirs, 100).await, numbers(100..200));
    for i in 200..220 {
        soon(answer.send(format!("{i}"))).await.unwrap();
        assert_eq!(texts(&mut theirs, 1).await, numbers(i..i + 1));
    }
    assert_quiet(&mut theirs).await;

    let mut latest = chat.timeline().latest(5);
    assert_eq!(texts(&mut latest, 5).await, numbers(215..220));
    soon(chat.send("220")).await.unwrap();
    assert_eq!(texts(&mut latest, 1).await, ["220"]);
    assert_quiet(&mut latest).await;
}

#[tokio::test(start_paused = true)]
async fn one_pages_back_to_the_beginning() {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let bob = open("bob", &broker, MemoryStore::new()).await;
    let mut events = bob.events().await.unwrap();
    let (chat, _answer) = meet(&alice, &bob, &mut events).await;
    for i in 0..25 {
        soon(chat.send(format!("{i}"))).await.unwrap();
    }
    let mut latest = chat.timeline().latest(1);
    let item = soon(latest.next()).await.unwrap().unwrap();
    assert_eq!(text(&item), "24");
    let mut place = sort(&item);
    let mut collected = Vec::new();
    loop {
        let page = soon(chat.page_before(place, 10)).await.unwrap();
        let Some(first) = page.first() else { break };
        place = sort(first);
        let page = page.iter().map(|item| text(item).to_owned());
        collected.splice(0..0, page);
    }
    assert_eq!(collected, numbers(0..24));
    let mut after = chat.timeline().after(place);
    assert_eq!(texts(&mut after, 24).await, numbers(1..25));
}

fn sort(item: &TimelineItem) -> chat_core::delivery::SortKey {
    match item {
        TimelineItem::Received(received) => received.sort,
        TimelineItem::Sent { sort, .. } | TimelineItem::Gap { sort, .. } => *sort,
        other => panic!("no place: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn reading_a_timeline_acknowledges_and_it_reopens_after_the_last_read() {
    let broker = MemoryBroker::new();
    let store = MemoryStore::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let bob = open("bob", &broker, store.clone()).await;
    let mut events = bob.events().await.unwrap();
    let (chat, answer) = meet(&alice, &bob, &mut events).await;
    drop(events);
    for i in 0..10 {
        let sent = soon(chat.send(format!("{i}"))).await.unwrap();
        soon(sent.until(Ack::Delivered)).await.unwrap();
    }
    let mut timeline = answer.timeline().from_last_read();
    let mut fifth = None;
    for _ in 0..5 {
        fifth = soon(timeline.next()).await;
    }
    let fifth = fifth.unwrap().unwrap();
    soon(answer.mark_read(sort(&fifth))).await.unwrap();
    // Its end shows that nothing keeps the client.
    drop((timeline, answer));
    soon(bob.shutdown(Duration::from_secs(5))).await.unwrap();

    let bob = open("bob", &broker, store).await;
    let answer = bob.chat(&user("alice")).await.unwrap().unwrap();
    let mut timeline = answer.timeline().from_last_read();
    assert_eq!(texts(&mut timeline, 5).await, numbers(5..10));
    assert_quiet(&mut timeline).await;
    let mut events = bob.events().await.unwrap();
    let again = next_message(&mut events).await;
    assert_eq!(
        (again.content.fallback(), again.redelivered),
        ("4", true),
        "the fifth was taken, and no next one after it"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unread_timeline_costs_nothing_and_says_that_it_lagged() {
    const MESSAGES: usize = 2_500;
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let bob = open("bob", &broker, MemoryStore::new()).await;
    let mut events = bob.events().await.unwrap();
    let (chat, answer) = meet(&alice, &bob, &mut events).await;
    let mut idle = answer.timeline().from_beginning();
    assert_quiet(&mut idle).await;
    for i in 0..MESSAGES {
        let sent = soon(chat.send(format!("{i}"))).await.unwrap();
        if i % 50 == 0 {
            soon(sent.until(Ack::Delivered)).await.unwrap();
        }
        next_message(&mut events).await;
    }
    let (mut seen, mut lagged) = (Vec::new(), 0);
    while seen.len() < MESSAGES {
        match soon(idle.next()).await.expect("not the end") {
            Ok(item) => seen.push(text(&item).to_owned()),
            Err(TimelineError::Lagged) => lagged += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(seen, numbers(0..MESSAGES));
    assert_eq!(lagged, 1);
    drop((chat, answer));
    soon(bob.shutdown(Duration::from_secs(5))).await.unwrap();
    let end = soon(async {
        loop {
            match idle.next().await {
                Some(Err(TimelineError::Lagged)) => {}
                end => return end.is_none(),
            }
        }
    });
    assert!(
        end.await,
        "the end of a stopped client is the end of its timelines"
    );
}
