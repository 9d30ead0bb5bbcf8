//! What outlives a connection, and who else may use its name.

use chat_client::transport::{Outbound, TransportError};
use chat_core::link::DownReason;
use chat_testkit::peer::{Peer, conv, inbox, presence};
use chat_transport_mqtt::Version;

use super::{THREE, both};
use crate::BOTH;
use crate::raw::{Script, Seen};

#[tokio::test]
async fn rule_1_with_a_full_window_a_resumed_or_lost_session_is_sent_nothing_again() {
    for session in [true, false] {
        let script = Script::new(Version::V5).await;
        let to = script.connector();
        let (mut peer, mut wire, _) = both(&script, &to, false, THREE).await;
        for n in 0..10_u8 {
            peer.send(&conv(1), &[n]).await;
        }
        for _ in 0..3 {
            assert!(matches!(wire.next().await, Some(Seen::Publish { .. })));
        }
        drop(wire);
        assert_eq!(peer.end().await, TransportError::lost());
        let (mut peer, mut wire, _) = both(&script, &to, session, THREE).await;
        assert_eq!(peer.resumed, session);
        // What the core repeats is the first that comes, in its order, as something new.
        for n in 0..10_u8 {
            peer.send(&conv(1), &[n]).await;
        }
        for n in 0..10_u8 {
            let Some(Seen::Publish {
                id,
                payload,
                dup: false,
                ..
            }) = wire.next().await
            else {
                panic!("a publish");
            };
            assert_eq!(*payload, [n]);
            wire.puback(id.unwrap(), 0).await;
        }
    }
}

#[tokio::test]
async fn rule_4_a_handle_of_an_earlier_connection_acknowledges_nothing() {
    for version in BOTH {
        let script = Script::new(version).await;
        let to = script.connector();
        let (mut old, mut wire, _) = both(&script, &to, false, &[]).await;
        wire.publish("chat/v1/inbox/a", Some(5), false, b"old")
            .await;
        let stale = old.delivery().await.handle.unwrap();
        drop(wire);
        old.end().await;
        // The same packet id, of another message.
        let (mut peer, mut wire, _) = both(&script, &to, false, &[]).await;
        wire.publish("chat/v1/inbox/a", Some(5), false, b"new")
            .await;
        let fresh = peer.delivery().await.handle.unwrap();
        peer.put(Outbound::Ack(stale)).await.unwrap();
        let token = peer.send(&conv(1), b"after it").await;
        let Some(Seen::Publish { id: Some(id), .. }) = wire.next().await else {
            panic!("nothing of the stale one is on the wire");
        };
        wire.puback(id, 0).await;
        peer.fate(token).await;
        // The fresh one counts, once.
        for _ in 0..2 {
            peer.put(Outbound::Ack(fresh)).await.unwrap();
        }
        peer.send(&conv(1), b"last").await;
        assert_eq!(wire.next().await, Some(Seen::PubAck(5)));
        assert!(matches!(wire.next().await, Some(Seen::Publish { .. })));
    }
}

#[tokio::test]
async fn s11_after_many_short_connections_we_look_and_a_word_that_is_not_signed_proves_nothing() {
    for kept in [None, Some(&b"not a frame"[..])] {
        let script = Script::new(Version::V311).await;
        let to = script.connector();
        for _ in 0..5 {
            let (mut peer, wire, _) = both(&script, &to, true, &[]).await;
            drop(wire);
            assert_eq!(peer.end().await.reason, DownReason::Lost);
        }
        let broker = async {
            let (mut wire, hello) = script.welcome(false, &[]).await;
            assert!(hello.client_id.ends_with(".probe") && hello.clean && hello.will.is_none());
            let Some(Seen::Subscribe { id, filter, .. }) = wire.read().await else {
                panic!("a subscription");
            };
            assert_eq!(filter, "chat/v1/presence/a=2Fb");
            wire.suback(id, 1).await;
            if let Some(kept) = kept {
                wire.publish(&filter, None, true, kept).await;
            }
            assert_eq!(wire.next().await, Some(Seen::Disconnect));
            let (wire, hello) = script.welcome(true, &[]).await;
            assert!(!hello.clean && !hello.client_id.contains("probe"));
            wire
        };
        let (peer, _wire) = tokio::join!(Peer::connect(&to, "a/b"), broker);
        assert!(peer.unwrap().resumed);
    }
}

#[tokio::test]
async fn s11_connections_that_are_reset_again_and_again_are_a_bad_network() {
    let script = Script::new(Version::V311).await;
    let to = script.connector();
    for _ in 0..20 {
        let (mut peer, wire, _) = both(&script, &to, true, &[]).await;
        wire.reset();
        assert_eq!(peer.end().await.reason, DownReason::Lost);
    }
}

#[tokio::test]
async fn a_name_too_long_for_a_topic_is_known_again_after_a_resume() {
    let script = Script::new(Version::V5).await;
    let to = script.connector();
    let long = "日".repeat(60);
    let (mut peer, mut wire, _) = both(&script, &to, false, &[]).await;
    peer.put(Outbound::Subscribe(presence(&long)))
        .await
        .unwrap();
    let Some(Seen::Subscribe { filter, .. }) = wire.next().await else {
        panic!("a subscription");
    };
    assert!(filter.starts_with("chat/v1/presence/=H"));
    drop(wire);
    peer.end().await;
    let (mut peer, mut wire, _) = both(&script, &to, true, &[]).await;
    wire.publish(&filter, None, false, b"x").await;
    assert_eq!(peer.delivery().await.channel, presence(&long));
}

#[tokio::test]
async fn an_inbox_with_a_long_name_is_known_in_a_new_process() {
    let script = Script::new(Version::V5).await;
    let long = "日".repeat(60);
    let first = script.connector();
    let (peer, (mut wire, _)) =
        tokio::join!(Peer::connect(&first, &long), script.welcome(true, &[]));
    let mut peer = peer.unwrap();
    // What the broker stored for us comes before we asked for anything.
    let (_, topic) = (0, format!("chat/v1/inbox/{}", chat_core::id::escape(&long)));
    wire.publish(&topic, Some(1), false, b"stored").await;
    assert_eq!(peer.delivery().await.channel, inbox(&long));
}
