//! A client over a file: what was accepted outlives the process.

#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::time::Duration;

use chat_client::store::{MemoryStore, RedbStore};
use chat_client::transport::memory::MemoryBroker;
use chat_core::delivery::{Ack, TimelineItem};
use chat_core::link::LinkState;
use support::*;

#[tokio::test]
async fn a_chat_and_its_history_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alice.redb");
    let broker = MemoryBroker::new();
    let bob = open("bob", &broker, MemoryStore::new()).await;
    let mut events = bob.events().await.unwrap();
    let alice = open("alice", &broker, RedbStore::open(&path).unwrap()).await;
    let (chat, _answer) = meet(&alice, &bob, &mut events).await;
    let sent = chat.send("kept").await.unwrap();
    soon(sent.until(Ack::Delivered)).await.unwrap();
    broker.offline(&user("alice"));
    let gone = |state: &LinkState| !matches!(state, LinkState::CaughtUp);
    soon(alice.link_until(gone)).await.unwrap();
    chat.send("queued").await.unwrap();
    drop((chat, sent));
    let report = soon(alice.shutdown(Duration::from_secs(5))).await.unwrap();
    assert_eq!(report.unflushed, 1);

    broker.online(&user("alice"));
    let store = RedbStore::open(&path).unwrap();
    let alice = open("alice", &broker, store).await;
    let chat = alice.chat(&user("bob")).await.unwrap().expect("it is open");
    for expected in ["kept", "queued"] {
        let received = next_message(&mut events).await;
        assert_eq!(received.content.fallback(), expected);
    }
    let mut timeline = chat.timeline().from_beginning();
    for expected in ["kept", "queued"] {
        let item = soon(timeline.next()).await.unwrap().unwrap();
        let TimelineItem::Sent { content, .. } = item else {
            panic!("ours: {item:?}")
        };
        assert_eq!(content.fallback(), expected);
    }
}
