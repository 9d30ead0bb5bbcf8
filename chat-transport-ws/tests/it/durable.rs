//! A hub with a file: what was accepted outlives it.

use crate::common::*;
use chat_client::transport::{Inbound, SendOutcome};
use chat_core::channel::Class;
use chat_transport_ws::hub::{Hub, HubBuilder, HubError, Limits};

fn on(path: &std::path::Path) -> HubBuilder {
    Hub::builder().allow_all().store(path)
}

fn payloads(backlog: &[Inbound]) -> Vec<u8> {
    (backlog.iter())
        .filter_map(|inbound| match inbound {
            Inbound::Received { bytes, .. } => Some(bytes[0]),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn accepted_frames_and_sessions_outlive_a_killed_hub() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub.redb");
    // The store's thread of a killed hub may hold the file for a moment, so the image is copied,
    // as a crash would leave it.
    let image = dir.path().join("image.redb");
    let hub = bind(on(&file)).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    let b = who(&hub, "b").join(&[inbox("b"), presence("a")]).await;
    b.close().await.unwrap();
    let kept = a.keep(&presence("a"), Class::Durable, b"v").await;
    assert_eq!(kept, SendOutcome::Accepted);
    for n in 0..20u8 {
        assert_eq!(a.publish(&inbox("b"), &[n]).await, SendOutcome::Accepted);
    }
    std::fs::copy(&file, &image).unwrap();
    drop(hub);

    let hub = bind(on(&image)).await;
    let mut b = who(&hub, "b").connect().await.unwrap();
    assert!(b.resumed);
    let backlog = b.backlog().await;
    let live: Vec<_> = (backlog.iter())
        .filter(|inbound| matches!(inbound, Inbound::Received { live: true, .. }))
        .cloned()
        .collect();
    // The value was published while b was away: once as a frame, and as the last value.
    assert_eq!(payloads(&live).iter().filter(|n| **n == b'v').count(), 1);
    let numbers: Vec<_> = payloads(&live).into_iter().filter(|n| *n != b'v').collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(backlog.iter().any(|inbound| matches!(inbound,
        Inbound::Received { live: false, bytes, .. } if &bytes[..] == b"v")));
}

#[tokio::test]
async fn acks_are_kept_by_a_hub_that_stops_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub.redb");
    let hub = bind(on(&file)).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    let mut b = who(&hub, "b").join(&[inbox("b")]).await;
    for n in 0..3u8 {
        assert_eq!(a.publish(&inbox("b"), &[n]).await, SendOutcome::Accepted);
    }
    for _ in 0..2 {
        let delivery = b.delivery().await;
        b.ack(&delivery).await;
    }
    b.close().await.unwrap();
    drop(a);
    assert!(within(hub.shutdown(DEADLINE)).await);

    let hub = bind(on(&file)).await;
    let mut b = who(&hub, "b").connect().await.unwrap();
    assert_eq!(payloads(&b.backlog().await), [2]);
}

#[tokio::test]
async fn q5_an_overflowing_mailbox_tells_a_gap() {
    let mut limits = Limits::default();
    limits.mailbox_frames = 5;
    let dir = tempfile::tempdir().unwrap();
    let hub = bind(on(&dir.path().join("hub.redb")).limits(limits)).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    who(&hub, "b")
        .join(&[inbox("b")])
        .await
        .close()
        .await
        .unwrap();
    for n in 0..8u8 {
        assert_eq!(a.publish(&inbox("b"), &[n]).await, SendOutcome::Accepted);
    }
    let mut b = who(&hub, "b").connect().await.unwrap();
    let backlog = b.backlog().await;
    assert_eq!(backlog[0], Inbound::Gap(inbox("b")));
    assert_eq!(payloads(&backlog), [3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_hub_says_what_it_needs_to_start() {
    let none = Hub::builder().in_memory().start();
    assert!(matches!(none, Err(HubError::NoAuthenticator)));
    assert!(matches!(
        Hub::builder().allow_all().start(),
        Err(HubError::NoStore)
    ));
    let dir = tempfile::tempdir().unwrap();
    let junk = dir.path().join("junk");
    std::fs::write(&junk, [7; 9000]).unwrap();
    let error = Hub::builder().allow_all().store(&junk).start().unwrap_err();
    assert!(matches!(error, HubError::Store(_)), "{error}");
}
