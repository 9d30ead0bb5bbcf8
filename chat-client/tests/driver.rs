//! The driver over the in-process broker, under a paused clock.

#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::future::IntoFuture;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chat_client::store::MemoryStore;
use chat_client::transport::memory::MemoryBroker;
use chat_client::{CallError, ClientError, Event, Failed, RequestFailed};
use chat_core::delivery::{Ack, DeliveryEvent};
use chat_core::link::LinkState;
use chat_core::presence::Status;
use chat_core::session::Rejection;
use support::*;

#[tokio::test(start_paused = true)]
async fn two_people_meet_talk_part_and_meet_again() {
    let (broker, _alice, bob, mut events, chat, answer) =
        pair(MemoryStore::new(), MemoryStore::new()).await;

    let sent = chat.send("one").await.unwrap();
    soon(sent.until(Ack::Delivered)).await.unwrap();
    let one = next_message(&mut events).await;
    assert_eq!(one.content.fallback(), "one");
    assert_eq!(one.from, user("alice"));
    answer.mark_read(one.sort).await.unwrap();
    soon(sent.until(Ack::Displayed)).await.unwrap();

    broker.offline(&user("bob"));
    let away = chat.send("two").await.unwrap();
    soon(away.until(Ack::HandedOff)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(away.ack() < Ack::Delivered);
    assert!(matches!(
        bob.link(),
        LinkState::Disconnected { .. } | LinkState::Connecting { .. }
    ));

    broker.online(&user("bob"));
    bob.reconnect().await.unwrap();
    soon(away.until(Ack::Delivered)).await.unwrap();
    let two = next_message(&mut events).await;
    assert_eq!((two.content.fallback(), two.redelivered), ("two", false));

    let back = answer.send("three").await.unwrap();
    soon(back.until(Ack::Delivered)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_a_typed_error() {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let bob = open("bob", &broker, MemoryStore::new()).await;
    let mut events = bob.events().await.unwrap();
    let pending = alice.request("bob").note("please").send().await.unwrap();
    let request = next(&mut events, |event| match event {
        Event::Request(request) => Some(request),
        _ => None,
    })
    .await;
    assert_eq!((request.peer(), request.note()), (&user("alice"), "please"));
    let told = Rejection::Told {
        reason: "busy".into(),
    };
    request.reject(told).await.unwrap();
    let failed = soon(pending.accepted()).await.unwrap_err();
    assert!(
        matches!(&failed, RequestFailed::Rejected { reason } if reason == "busy"),
        "{failed}"
    );
    let again = alice.request("bob").send().await.unwrap_err();
    assert!(again.is_retryable(), "cooling down: {again}");
    let nobody = alice.request("").send().await.unwrap_err();
    assert!(matches!(nobody, RequestFailed::Name(_)));

    let silent = alice.request("carol").send().await.unwrap();
    let invite = silent.invite();
    let attached = alice.request("carol").send().await.unwrap();
    assert_eq!(attached.invite(), invite);
    silent.cancel().await.unwrap();
    let cancelled = soon(attached.accepted()).await.unwrap_err();
    assert!(matches!(cancelled, RequestFailed::Cancelled), "{cancelled}");
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_and_nothing_is_acknowledged_before_it_is_durable() {
    let (disk, bobs_disk) = (Moody::new(), Moody::new());
    let (broker, _alice, bob, mut events, chat, _answer) =
        pair(disk.clone(), bobs_disk.clone()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let bobs = || broker.stored(bob.user(), bob.device());
    assert_eq!(bobs(), 0, "all was acknowledged");

    disk.hold();
    let mut sending = Box::pin(chat.send("slow"));
    let early = tokio::time::timeout(Duration::from_secs(30), &mut sending).await;
    assert!(early.is_err(), "send returned before its row was durable");
    let before = bob.stats().await.unwrap().core;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bob.stats().await.unwrap().core.frames_in, before.frames_in);

    bobs_disk.hold();
    disk.release();
    let sent = soon(sending).await.unwrap();
    soon(sent.until(Ack::HandedOff)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(bobs() > 0, "acknowledged to the broker before durable");
    assert!(
        sent.ack() < Ack::Delivered,
        "acknowledged to the peer before durable"
    );
    let told = tokio::time::timeout(Duration::from_secs(1), async {
        next_message(&mut events).await
    });
    assert!(told.await.is_err(), "told before durable");

    bobs_disk.release();
    soon(sent.until(Ack::Delivered)).await.unwrap();
    assert_eq!(next_message(&mut events).await.content.fallback(), "slow");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bobs(), 0);
}

#[tokio::test(start_paused = true)]
async fn sends_that_wait_for_a_commit_share_the_next_one() {
    let disk = Moody::new();
    let (_broker, _alice, _bob, _events, chat, _answer) =
        pair(disk.clone(), MemoryStore::new()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    disk.hold();
    let before = disk.commits.load(Ordering::Relaxed);
    let sends: Vec<_> = (0..20)
        .map(|i| {
            let chat = chat.clone();
            tokio::spawn(async move { chat.send(format!("{i}")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    disk.release();
    for send in sends {
        soon(send).await.unwrap().unwrap();
    }
    let commits = disk.commits.load(Ordering::Relaxed) - before;
    assert!(commits <= 4, "{commits} commits for 20 sends");
}

#[tokio::test(start_paused = true)]
async fn a_failed_store_stops_everything_at_once() {
    let disk = Moody::new();
    let (broker, alice, _bob, mut events, chat, _answer) =
        pair(disk.clone(), MemoryStore::new()).await;
    let sent = chat.send("before").await.unwrap();
    soon(sent.until(Ack::Delivered)).await.unwrap();
    let mut alices = alice.events().await.unwrap();
    assert_eq!(next_message(&mut events).await.content.fallback(), "before");

    let waiting = tokio::spawn({
        let sent = sent.clone();
        async move { sent.until(Ack::Displayed).await }
    });
    tokio::task::yield_now().await;
    disk.break_down();
    let error = soon(chat.send("after")).await.unwrap_err();
    let stopped = matches!(&error, CallError::Stopped(ClientError::Store(_)));
    assert!(stopped, "{error}");
    let waited = soon(waiting).await.unwrap().unwrap_err();
    assert!(matches!(waited, Failed::Stopped(ClientError::Store(_))));
    let later = soon(alice.set_presence(Status::Away, "")).await;
    assert!(matches!(later, Err(ClientError::Store(_))));
    soon(async { while alices.next().await.is_some() {} }).await;
    assert_eq!(broker.connections(), 1, "only bob's connection is left");
    let commits = disk.commits.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(
        disk.commits.load(Ordering::Relaxed),
        commits,
        "it tried again"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_driver_sleeps() {
    let (_broker, alice, _bob, _events, _chat, _answer) =
        pair(MemoryStore::new(), MemoryStore::new()).await;
    caught_up(&alice).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = alice.stats().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let after = alice.stats().await.unwrap();
    let (polls, turns) = (after.polls - before.polls, after.turns - before.turns);
    // A beat of its own and one of the peer every 30 s or so, each with a frame and its fate.
    assert!(polls < 1_500, "{polls} polls in an hour of silence");
    assert!(turns < 4 * polls, "{turns} turns in {polls} polls");
}

#[tokio::test(start_paused = true)]
async fn an_offline_driver_sleeps_too() {
    let broker = MemoryBroker::new();
    broker.offline(&user("alice"));
    let alice = open("alice", &broker, MemoryStore::new()).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let polls = alice.stats().await.unwrap().polls;
    assert!(polls < 1_000, "{polls} polls in an hour without a network");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_read_stops_the_receiving_and_loses_nothing() {
    const MESSAGES: usize = 6_000;
    let (_broker, _alice, bob, mut events, chat, answer) =
        pair(MemoryStore::new(), MemoryStore::new()).await;

    let sender = tokio::spawn(async move {
        let mut last = None;
        for i in 0..MESSAGES {
            last = Some(loop {
                match chat.send(format!("{i}")).await {
                    Ok(sent) => break sent,
                    Err(full) if full.is_retryable() => {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            });
        }
        last.expect("something was sent")
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    let frames = bob.stats().await.unwrap().core.frames_in;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let stats = bob.stats().await.unwrap();
    assert!(
        stats.core.frames_in < 5_000,
        "{} frames taken in",
        stats.core.frames_in
    );
    let grown = stats.core.frames_in - frames;
    assert_eq!(grown, 0, "it went on receiving while nobody read");
    soon(answer.send("I still talk")).await.unwrap();

    let mut read = 0;
    while read < MESSAGES {
        match soon(events.next()).await.expect("bob runs") {
            Event::Message(received) => {
                assert_eq!(received.content.fallback(), format!("{read}"));
                read += 1;
            }
            Event::Delivery(DeliveryEvent::Gap { .. }) => panic!("a gap"),
            _ => {}
        }
    }
    let last = soon(sender).await.unwrap();
    soon(last.until(Ack::Delivered)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_says_goodbye_and_reports() {
    let store = MemoryStore::new();
    let (broker, alice, _bob, mut events, chat, _answer) =
        pair(store.clone(), MemoryStore::new()).await;
    soon(chat.send("bye").await.unwrap().until(Ack::Delivered))
        .await
        .unwrap();
    let other = alice.clone();
    let report = soon(alice.shutdown(Duration::from_secs(5))).await.unwrap();
    assert_eq!((report.unflushed, report.clean), (0, true));
    let status = next(&mut events, |event| match event {
        Event::Presence(chat_core::event::PresenceEvent::Changed { user: who, view })
            if who == user("alice") && view.status != Status::Active =>
        {
            Some(view.status)
        }
        _ => None,
    })
    .await;
    assert_eq!(status, Status::Left);
    let error = other.set_presence(Status::Active, "").await.unwrap_err();
    assert!(matches!(error, ClientError::Closed));

    broker.offline(&user("bob"));
    let alice = open("alice", &broker, store).await;
    let chat = alice.chat(&user("bob")).await.unwrap().unwrap();
    chat.send("are you there").await.unwrap();
    drop(chat);
    let report = soon(alice.shutdown(Duration::from_secs(5))).await.unwrap();
    assert_eq!(report.unflushed, 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_dropped_leaves_in_good_order() {
    let (broker, alice, _bob, mut events, chat, _answer) =
        pair(MemoryStore::new(), MemoryStore::new()).await;
    let mut alices = alice.events().await.unwrap();
    drop(alice);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(broker.connections(), 2, "a chat keeps its client running");
    drop(chat);
    soon(async { while alices.next().await.is_some() {} }).await;
    assert_eq!(broker.connections(), 1);
    let left = next(&mut events, |event| match event {
        Event::Presence(chat_core::event::PresenceEvent::Changed { view, .. }) => {
            (view.status == Status::Left).then_some(())
        }
        _ => None,
    });
    left.await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_being_handled_is_told_again_after_a_restart() {
    let store = MemoryStore::new();
    let (broker, _alice, bob, mut events, chat, answer) =
        pair(MemoryStore::new(), store.clone()).await;
    for text in ["done", "half done"] {
        let sent = chat.send(text).await.unwrap();
        soon(sent.until(Ack::Delivered)).await.unwrap();
    }
    assert_eq!(next_message(&mut events).await.content.fallback(), "done");
    let half = next_message(&mut events).await;
    assert!(!half.redelivered);
    drop((answer, events));
    soon(bob.shutdown(Duration::from_secs(5))).await.unwrap();

    let bob = open("bob", &broker, store.clone()).await;
    let mut events = bob.events().await.unwrap();
    let again = next_message(&mut events).await;
    assert_eq!((again.id, again.redelivered), (half.id, true));
    // Asking for the next one says that this one is done.
    let none = tokio::time::timeout(Duration::from_secs(60), next_message(&mut events)).await;
    assert!(none.is_err());
    soon(bob.shutdown(Duration::from_secs(5))).await.unwrap();

    let bob = open("bob", &broker, store).await;
    let mut events = bob.events().await.unwrap();
    let none = tokio::time::timeout(Duration::from_secs(60), next_message(&mut events)).await;
    assert!(none.is_err(), "told again although it was done");
}

#[tokio::test(start_paused = true)]
async fn lost_frames_and_a_dead_broker_lose_no_message() {
    let (broker, _alice, _bob, mut events, chat, _answer) =
        pair(MemoryStore::new(), MemoryStore::new()).await;
    broker.drop_next(3);
    let mut sent = Vec::new();
    for i in 0..10 {
        sent.push(chat.send(format!("{i}")).await.unwrap());
    }
    broker.kill();
    tokio::time::sleep(Duration::from_secs(30)).await;
    broker.restart();
    for sent in &sent {
        soon(sent.until(Ack::Delivered)).await.unwrap();
    }
    for i in 0..10 {
        let received = next_message(&mut events).await;
        assert_eq!(received.content.fallback(), format!("{i}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_says_why() {
    let (broker, alice, _bob, _events, chat, _answer) =
        pair(MemoryStore::new(), MemoryStore::new()).await;
    broker.offline(&user("bob"));
    let mut alices = alice.events().await.unwrap();
    let sent = chat.send("never").await.unwrap();
    chat.close("off").await.unwrap();
    let failed = soon(sent.until(Ack::Delivered)).await.unwrap_err();
    assert!(matches!(failed, Failed::Message(_)), "{failed}");
    let id = next(&mut alices, |event| match event {
        Event::Delivery(DeliveryEvent::Failed { id, .. }) => Some(id),
        _ => None,
    })
    .await;
    assert_eq!(id, sent.id());
}

#[tokio::test(start_paused = true)]
async fn s1_requests_that_cross_lead_both_to_the_chat() {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let bob = open("bob", &broker, MemoryStore::new()).await;
    caught_up(&alice).await;
    caught_up(&bob).await;
    let one = tokio::spawn(alice.request("bob").into_future());
    let other = tokio::spawn(bob.request("alice").into_future());
    let (one, other) = (soon(one).await.unwrap(), soon(other).await.unwrap());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.id(), other.id());
    let sent = soon(one.send("met")).await.unwrap();
    soon(sent.until(Ack::Delivered)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_followed_is_not_forgotten() {
    let (_broker, _alice, _bob, mut events, chat, answer) =
        pair(MemoryStore::new(), MemoryStore::new()).await;
    let first = soon(chat.send("first")).await.unwrap();
    soon(first.until(Ack::Delivered)).await.unwrap();
    for i in 0..4_500 {
        let sent = soon(chat.send(format!("{i}"))).await.unwrap();
        if i % 30 == 0 {
            soon(sent.until(Ack::Delivered)).await.unwrap();
        }
        next_message(&mut events).await;
    }
    let mut latest = answer.timeline().latest(1);
    let Some(Ok(chat_core::delivery::TimelineItem::Received(last))) = soon(latest.next()).await
    else {
        panic!("no message")
    };
    answer.mark_read(last.sort).await.unwrap();
    soon(first.until(Ack::Displayed)).await.unwrap();
}
