//! A hub and clients over loopback: who gets what.

use chat_client::transport::{Inbound, Outbound, SendOutcome};
use chat_core::channel::Class;
use chat_core::link::DownReason;
use chat_testkit::peer::Delivery;

use crate::common::*;

#[tokio::test]
async fn a_frame_reaches_the_others_and_not_its_sender() {
    let hub = bind(memory()).await;
    let mut a = who(&hub, "a").join(&[group()]).await;
    let mut b = who(&hub, "b").join(&[group()]).await;
    assert_eq!(a.publish(&group(), b"one").await, SendOutcome::Accepted);
    assert_eq!(b.publish(&group(), b"two").await, SendOutcome::Accepted);
    assert_eq!(b.delivery().await.bytes, &b"one"[..]);
    assert_eq!(a.delivery().await.bytes, &b"two"[..]);
}

#[tokio::test]
async fn nobody_there_is_said() {
    let hub = bind(memory()).await;
    let mut a = who(&hub, "a").join(&[inbox("a")]).await;
    assert_eq!(a.publish(&inbox("b"), b"x").await, SendOutcome::NoReceiver);
    assert_eq!(a.publish(&inbox("a"), b"x").await, SendOutcome::NoReceiver);
}

#[tokio::test]
async fn inboxes_are_read_by_their_owner_and_presence_is_written_by_its_owner() {
    let hub = bind(memory()).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    assert!(!a.subscribe(&inbox("b")).await);
    assert!(a.subscribe(&presence("b")).await);
    let outcome = a.publish(&presence("b"), b"lie").await;
    assert!(outcome.is_refusal(), "{outcome:?}");
    let refused = who(&hub, "a")
        .device(2)
        .will(presence("b"), b"lie")
        .connect()
        .await;
    assert!(matches!(
        refused.unwrap_err().reason,
        DownReason::Refused(_)
    ));
}

#[tokio::test]
async fn an_offline_mailbox_is_delivered_in_order_until_acknowledged() {
    let hub = bind(memory()).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    let b = who(&hub, "b").join(&[inbox("b")]).await;
    b.close().await.unwrap();
    for n in 0..5u8 {
        assert_eq!(a.publish(&inbox("b"), &[n]).await, SendOutcome::Accepted);
    }
    for round in 0..2 {
        let mut b = who(&hub, "b").connect().await.unwrap();
        assert!(b.resumed);
        let backlog = b.backlog().await;
        let found: Vec<_> = (backlog.iter())
            .map(|inbound| match inbound {
                Inbound::Received {
                    bytes,
                    handle,
                    live,
                    ..
                } => {
                    assert!(*live);
                    (bytes[0], handle.unwrap())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            found.iter().map(|f| f.0).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4],
            "{round}"
        );
        if round == 1 {
            for (_, handle) in found {
                b.put(Outbound::Ack(handle)).await.unwrap();
            }
            b.flush().await.unwrap();
        }
        b.close().await.unwrap();
    }
    let mut b = who(&hub, "b").connect().await.unwrap();
    assert_eq!(b.backlog().await, []);
    assert_eq!(hub.stats().stored_bytes, 0);
}

#[tokio::test]
async fn the_last_value_comes_first_and_is_not_live() {
    let hub = bind(memory()).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    for value in [b"old", b"new"] {
        let kept = a.keep(&presence("a"), Class::Ephemeral, value).await;
        assert_eq!(kept, SendOutcome::Accepted);
    }
    let mut b = who(&hub, "b").join(&[presence("a")]).await;
    let told = Delivery {
        channel: presence("a"),
        bytes: (&b"new"[..]).into(),
        handle: None,
        live: false,
    };
    assert_eq!(b.delivery().await, told);
    b.caught_up().await;
}

#[tokio::test]
async fn the_will_is_published_at_death_and_not_at_goodbye_or_takeover() {
    let hub = bind(memory()).await;
    let mut watcher = who(&hub, "w").join(&[presence("a")]).await;
    let a = || who(&hub, "a").will(presence("a"), b"gone");
    a().connect().await.unwrap().close().await.unwrap();
    let mut first = a().connect().await.unwrap();
    let mut second = a().connect().await.unwrap();
    assert_eq!(first.end().await.reason, DownReason::Conflict);
    let kept = second.keep(&presence("a"), Class::Ephemeral, b"here").await;
    assert_eq!(kept, SendOutcome::Accepted);
    assert_eq!(watcher.delivery().await.bytes, &b"here"[..]);
    drop(second);
    assert_eq!(watcher.delivery().await.bytes, &b"gone"[..]);
}

#[tokio::test]
async fn a_stopping_hub_asks_to_come_back_later() {
    let hub = bind(memory()).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    let (ended, done) = tokio::join!(a.end(), hub.shutdown(DEADLINE));
    assert!(done);
    assert_eq!(ended.reason, DownReason::TryLater);
    assert!(ended.retry_after.is_some());
}
