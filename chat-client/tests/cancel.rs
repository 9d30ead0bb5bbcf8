//! Every public async method is dropped at every await point: nothing is lost, nothing doubled.

#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use chat_client::store::MemoryStore;
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Chat, Client, Event, EventStream};
use chat_core::content::Content;
use chat_core::delivery::{Ack, TimelineItem};
use chat_core::id::{LobbyName, TxnId};
use chat_core::presence::Status;
use chat_core::session::SessionState;
use support::*;

/// More polls than any of the calls needs.
const POLLS: usize = 8;

struct World {
    broker: MemoryBroker,
    alice: Client,
    bob: Client,
    events: EventStream,
    chat: Chat,
    answer: Chat,
    disk: Moody,
}

async fn world() -> World {
    let broker = MemoryBroker::new();
    let disk = Moody::new();
    let alice = open("alice", &broker, disk.clone()).await;
    let bob = open("bob", &broker, MemoryStore::new()).await;
    let mut events = bob.events().await.unwrap();
    let (chat, answer) = meet(&alice, &bob, &mut events).await;
    World {
        broker,
        alice,
        bob,
        events,
        chat,
        answer,
        disk,
    }
}

#[tokio::test(start_paused = true)]
async fn send_with_may_be_dropped_and_repeated() {
    let mut world = world().await;
    for polls in 0..POLLS {
        for held in [false, true] {
            let txn = TxnId([polls as u8 * 2 + u8::from(held); 16]);
            let text = format!("{polls} {held}");
            if held {
                world.disk.hold();
            }
            let dropped = poll_then_drop(world.chat.send_with(txn, text.as_str()), polls).await;
            if held {
                assert!(dropped.is_none(), "not durable, not sent");
                world.disk.release();
            }
            let sent = soon(world.chat.send_with(txn, text.as_str()))
                .await
                .unwrap();
            soon(sent.until(Ack::Delivered)).await.unwrap();
            let received = next_message(&mut world.events).await;
            assert_eq!(received.content, Content::text(text));
            assert_eq!(received.id, sent.id());
        }
    }
    let more = tokio::time::timeout(Duration::from_secs(60), next_message(&mut world.events));
    assert!(more.await.is_err(), "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn send_may_be_dropped_and_takes_at_most_one() {
    let mut world = world().await;
    for polls in 0..POLLS {
        let sent = poll_then_drop(world.chat.send(format!("{polls}")), polls).await;
        let marker = soon(world.chat.send("marker")).await.unwrap();
        soon(marker.until(Ack::Delivered)).await.unwrap();
        let first = next_message(&mut world.events).await;
        if first.content == Content::text("marker") {
            assert!(sent.is_none(), "it was taken");
        } else {
            assert_eq!(first.content, Content::text(format!("{polls}")));
            let second = next_message(&mut world.events).await;
            assert_eq!(second.content, Content::text("marker"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_may_be_dropped_at_any_time() {
    let mut world = world().await;
    for polls in 0..POLLS {
        let sent = soon(world.chat.send("x")).await.unwrap();
        let early = poll_then_drop(sent.until(Ack::Delivered), polls).await;
        assert!(early.is_none_or(|early| early.is_ok()));
        soon(sent.until(Ack::Delivered)).await.unwrap();
        let early = poll_then_drop(world.events.next(), polls).await;
        if !matches!(early, Some(Some(Event::Message(_)))) {
            next_message(&mut world.events).await;
        }
        poll_then_drop(sent.cancel(), polls).await;
        poll_then_drop(world.alice.link_until(|_| false), polls).await;
    }
    let more = tokio::time::timeout(Duration::from_secs(60), next_message(&mut world.events));
    assert!(more.await.is_err(), "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn a_timeline_may_be_dropped_between_and_within_items() {
    let world = world().await;
    for polls in 0..POLLS {
        let text = format!("{polls}");
        let sent = soon(world.chat.send(text)).await.unwrap();
        soon(sent.until(Ack::Delivered)).await.unwrap();
    }
    let mut timeline = world.answer.timeline().from_beginning();
    for polls in 0..POLLS {
        let item = match poll_then_drop(timeline.next(), polls).await {
            Some(item) => item,
            None => soon(timeline.next()).await,
        };
        let Some(Ok(TimelineItem::Received(received))) = item else {
            panic!("no message: {item:?}")
        };
        assert_eq!(received.content, Content::text(format!("{polls}")));
    }
    let end = tokio::time::timeout(Duration::from_secs(60), timeline.next()).await;
    assert!(end.is_err(), "nothing came twice: {end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_may_be_dropped_and_made_again() {
    for polls in 0..2 * POLLS {
        let broker = MemoryBroker::new();
        let alice = open("alice", &broker, MemoryStore::new()).await;
        let bob = open("bob", &broker, MemoryStore::new()).await;
        let mut events = bob.events().await.unwrap();
        let early = poll_then_drop(alice.request("bob").into_future(), polls).await;
        assert!(early.is_none(), "bob has not answered");
        let pending = soon(alice.request("bob").send()).await.unwrap();
        let request = next(&mut events, |event| match event {
            Event::Request(request) => Some(request),
            _ => None,
        })
        .await;
        assert_eq!(request.invite(), pending.invite(), "one request, not two");
        poll_then_drop(request.accept(), polls).await;
        let again = soon(request.accept()).await;
        let theirs = soon(bob.chat(&user("alice"))).await.unwrap();
        assert!(again.is_ok() || theirs.is_some());
        poll_then_drop(pending.accepted(), polls).await;
        let chat = soon(alice.request("bob")).await.unwrap();
        let sent = soon(chat.send("hi")).await.unwrap();
        soon(sent.until(Ack::Delivered)).await.unwrap();
        poll_then_drop(chat.close("bye"), polls).await;
        // Either the drop came first and this closes, or it is closed.
        soon(chat.close("bye")).await.ok();
        let state = soon(alice.session(&user("bob"))).await.unwrap();
        assert!(!matches!(state, SessionState::Active { .. }), "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn harmless_calls_may_be_dropped_and_repeated() {
    let world = world().await;
    let alice = &world.alice;
    let bob = user("bob");
    let lobby = LobbyName::new("plaza").unwrap();
    let sent = soon(world.answer.send("hi")).await.unwrap();
    soon(sent.until(Ack::Delivered)).await.unwrap();
    let mut timeline = world.chat.timeline().latest(1);
    let Some(Ok(TimelineItem::Received(received))) = soon(timeline.next()).await else {
        panic!("no message")
    };
    for polls in 0..POLLS {
        poll_then_drop(alice.set_presence(Status::Idle, "x"), polls).await;
        poll_then_drop(alice.touch(), polls).await;
        poll_then_drop(alice.watch(&bob), polls).await;
        poll_then_drop(alice.enter_lobby(&lobby), polls).await;
        poll_then_drop(alice.listings(&lobby), polls).await;
        poll_then_drop(alice.exit_lobby(&lobby), polls).await;
        poll_then_drop(alice.people(), polls).await;
        poll_then_drop(alice.presence(&bob), polls).await;
        poll_then_drop(alice.sessions(), polls).await;
        poll_then_drop(alice.session(&bob), polls).await;
        poll_then_drop(alice.devices(&bob), polls).await;
        poll_then_drop(alice.trust(&bob, world.bob.device()), polls).await;
        poll_then_drop(alice.stats(), polls).await;
        poll_then_drop(alice.chat(&bob), polls).await;
        poll_then_drop(alice.groups(), polls).await;
        poll_then_drop(alice.reconnect(), polls).await;
        poll_then_drop(world.chat.typing(true), polls).await;
        poll_then_drop(world.chat.mark_read(received.sort), polls).await;
        poll_then_drop(world.chat.page_before(received.sort, 5), polls).await;
        poll_then_drop(alice.events(), polls).await;
    }
    soon(world.chat.mark_read(received.sort)).await.unwrap();
    soon(sent.until(Ack::Displayed)).await.unwrap();
    let stranger = user("mallory");
    for polls in 0..POLLS {
        poll_then_drop(alice.block(&stranger), polls).await;
        soon(alice.block(&stranger)).await.unwrap();
        poll_then_drop(alice.unblock(&stranger), polls).await;
        soon(alice.unblock(&stranger)).await.unwrap();
    }
    let after = soon(world.chat.send("still alive")).await.unwrap();
    soon(after.until(Ack::Delivered)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn opening_may_be_dropped_and_repeated_and_a_shutdown_goes_on() {
    let broker = MemoryBroker::new();
    let store = MemoryStore::new();
    for polls in 0..POLLS {
        drop(poll_then_drop(open("alice", &broker, store.clone()), polls).await);
        let alice = soon(open("alice", &broker, store.clone())).await;
        caught_up(&alice).await;
        let mut events = alice.events().await.unwrap();
        let watcher = alice.clone();
        let begun = polls > 0;
        poll_then_drop(alice.shutdown(Duration::from_secs(5)), polls).await;
        if begun {
            soon(async { while events.next().await.is_some() {} }).await;
            assert_eq!(broker.connections(), 0);
            assert!(watcher.stats().await.is_err());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_world_leaves_no_connection() {
    let World { broker, .. } = world().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(broker.connections(), 0);
}
