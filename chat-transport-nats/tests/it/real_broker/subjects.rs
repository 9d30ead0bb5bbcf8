//! Names that mean something to NATS, with somebody who listens to everything.

use std::collections::BTreeSet;

use chat_client::transport::SendOutcome;
use chat_core::channel::Channel;
use chat_core::id::LobbyName;
use chat_testkit::broker::NatsServer;
use futures_util::StreamExt;

use super::{builder, start, url};
use chat_testkit::peer::{Peer, conv, inbox, presence, user, within};

const HOSTILE: [&str; 16] = [
    "*",
    ">",
    "a.*",
    "a.>",
    ".",
    "..",
    "a.",
    ".a",
    "$JS.API.>",
    "$SYS",
    "a b",
    "a\tb",
    "=2A",
    "日本",
    "_INBOX.*",
    "\u{200b}x",
];

#[tokio::test]
async fn no_name_is_a_wildcard_and_every_frame_has_one_reader() {
    for jetstream in [true, false] {
        let recipe = NatsServer::new();
        let broker = start(if jetstream {
            recipe.jetstream()
        } else {
            recipe
        });
        let to = builder(&broker);
        let to = if jetstream { to } else { to.core_only() }.build().unwrap();
        let spy = async_nats::connect(url(&broker)).await.unwrap();
        let mut heard = spy.subscribe("chat.>").await.unwrap();
        spy.flush().await.unwrap();

        let mut names: Vec<String> = HOSTILE.iter().map(|it| (*it).to_owned()).collect();
        names.extend(["bob".to_owned(), "B".repeat(300)]);
        names.retain(|name| chat_core::id::UserId::new(name).is_ok());
        assert!(names.len() > 10, "most are names: {names:?}");
        let mut readers = Vec::new();
        for name in &names {
            let mut reader = Peer::at_inbox(&to, name).await;
            assert!(reader.subscribe(&presence(name)).await);
            let lobby = Channel::Lobby(LobbyName::new(name).unwrap());
            assert!(reader.subscribe(&lobby).await);
            readers.push((name, lobby, reader));
        }
        let mut alice = Peer::connect(&to, "alice").await.unwrap();
        for (name, lobby, _) in &readers {
            for channel in [inbox(name), presence(name), lobby.clone()] {
                let token = alice.send(&channel, name.as_bytes()).await;
                assert_eq!(alice.fate(token).await, SendOutcome::Accepted);
            }
        }
        for (name, lobby, reader) in &mut readers {
            let mut channels = BTreeSet::new();
            for _ in 0..3 {
                let delivery = reader.delivery().await;
                assert_eq!(delivery.bytes, name.as_bytes(), "for nobody else");
                channels.insert(delivery.channel);
            }
            let expected = BTreeSet::from([inbox(name), presence(name), lobby.clone()]);
            assert_eq!(channels, expected);
        }
        // Whoever listens to everything sees subjects of the one form only.
        let mut subjects = BTreeSet::new();
        while subjects.len() < 3 * names.len() * if jetstream { 2 } else { 1 } {
            let message = within(heard.next()).await.unwrap();
            let tokens: Vec<&str> = message.subject.split('.').collect();
            let ours = |b: u8| b.is_ascii_alphanumeric() || b"-_=".contains(&b);
            assert!(
                tokens
                    .iter()
                    .all(|it| !it.is_empty() && it.bytes().all(ours)),
                "{tokens:?}"
            );
            assert!(message.subject.len() < 300);
            subjects.insert(message.subject.to_string());
        }
    }
}

#[tokio::test]
async fn what_others_publish_on_our_subjects_is_counted_and_dropped() {
    let broker = super::jetstream();
    let to = super::connector(&broker);
    let mut bob = Peer::at_inbox(&to, "bob").await;
    let raw = async_nats::connect(url(&broker)).await.unwrap();
    for subject in ["chat.v1.out.log.inbox.bob", "chat.v1.out.evil.inbox.bob"] {
        raw.publish(subject, "forged".into()).await.unwrap();
    }
    raw.publish(
        "chat.v1.in.inbox.bob",
        "junk is for the core to judge".into(),
    )
    .await
    .unwrap();
    raw.flush().await.unwrap();
    let delivery = bob.delivery().await;
    assert!(delivery.bytes.starts_with(b"junk"));
    assert_eq!(to.counters().foreign, 2);
}

#[tokio::test]
async fn two_prefixes_are_two_worlds() {
    let broker = super::jetstream();
    let (one, two) = (
        super::connector(&broker),
        builder(&broker).prefix("chat.v2").build().unwrap(),
    );
    let mut here = Peer::at_inbox(&one, "bob").await;
    let mut there = Peer::at_inbox(&two, "bob").await;
    let mut alice = Peer::connect(&two, "alice").await.unwrap();
    alice.publish(&inbox("bob"), b"there").await;
    assert_eq!(there.delivery().await.bytes, "there");
    let mut alice = Peer::connect(&one, "alice").await.unwrap();
    alice.publish(&inbox("bob"), b"here").await;
    assert_eq!(here.delivery().await.bytes, "here");
    assert_eq!(user("bob").as_str(), "bob");
    assert!(here.subscribe(&conv(1)).await);
}
