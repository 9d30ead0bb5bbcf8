//! Groups through the client.

#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use chat_client::store::MemoryStore;
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Client, Event, EventStream, IncomingJoin, JoinFailed, Room};
use chat_core::delivery::Ack;
use chat_core::group::{Change, GroupError, GroupEvent};
use chat_core::id::{GroupName, LobbyName};
use support::*;

async fn next_join(events: &mut EventStream) -> IncomingJoin {
    next(events, |event| match event {
        Event::JoinRequest(join) => Some(join),
        _ => None,
    })
    .await
}

async fn member(
    name: &str,
    broker: &MemoryBroker,
    room: &Room,
    leader: &mut EventStream,
) -> (Client, EventStream, Room) {
    let client = open(name, broker, MemoryStore::new()).await;
    let events = client.events().await.unwrap();
    let joining = tokio::spawn(client.join(room.group()).note("me too").into_future());
    let request = next_join(leader).await;
    assert_eq!(
        (request.group(), &request.request().user),
        (room.group(), client.user())
    );
    assert_eq!(request.request().note, "me too");
    soon(request.approve()).await.unwrap();
    let theirs = soon(joining).await.unwrap().unwrap();
    (client, events, theirs)
}

#[tokio::test(start_paused = true)]
async fn a_group_is_found_joined_used_and_left() {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let mut alices = alice.events().await.unwrap();
    let lobby = LobbyName::new("plaza").unwrap();
    let room = alice
        .create_group(&GroupName::new("ops").unwrap())
        .await
        .unwrap();
    soon(alice.enter_lobby(&lobby)).await.unwrap();
    caught_up(&alice).await;

    let carol = open("carol", &broker, MemoryStore::new()).await;
    let mut carols = carol.events().await.unwrap();
    soon(carol.enter_lobby(&lobby)).await.unwrap();
    let listing = next(&mut carols, |event| match event {
        Event::Lobby(chat_core::event::LobbyEvent::GroupListed { listing, .. }) => Some(listing),
        _ => None,
    })
    .await;
    assert_eq!(
        (listing.group, &listing.leader),
        (room.group(), alice.user())
    );
    assert_eq!(soon(carol.listings(&lobby)).await.unwrap().len(), 1);

    let denied = tokio::spawn(carol.join(listing.group).into_future());
    soon(next_join(&mut alices).await.deny("not you"))
        .await
        .unwrap();
    let failed = soon(denied).await.unwrap().unwrap_err();
    assert!(
        matches!(&failed, JoinFailed::Denied { reason } if reason == "not you"),
        "{failed}"
    );
    assert!(soon(carol.group(room.group())).await.unwrap().is_none());

    let (bob, mut bobs, bobs_room) = member("bob", &broker, &room, &mut alices).await;
    let (_dave, mut daves, daves_room) = member("dave", &broker, &room, &mut alices).await;
    let again = soon(bob.join(room.group())).await.unwrap();
    assert_eq!(again.id(), bobs_room.id(), "a member gets the room at once");

    let sent = soon(room.send("welcome")).await.unwrap();
    soon(sent.until(Ack::Delivered)).await.unwrap();
    assert_eq!(next_message(&mut bobs).await.content.fallback(), "welcome");
    let reply = soon(bobs_room.send("thanks")).await.unwrap();
    soon(reply.until(Ack::Delivered)).await.unwrap();
    assert_eq!(next_message(&mut alices).await.content.fallback(), "thanks");

    let refused = soon(bobs_room.kick(alice.user(), "coup"))
        .await
        .unwrap_err();
    assert!(matches!(
        refused.refused(),
        Some(GroupError::NotLeader { .. })
    ));
    soon(room.rename(&GroupName::new("ops 2").unwrap()))
        .await
        .unwrap();
    soon(room.kick(&user("dave"), "bye")).await.unwrap();
    next(&mut daves, |event| match event {
        Event::Group(GroupEvent::Removed { reason, .. }) => (reason == "bye").then_some(()),
        _ => None,
    })
    .await;
    assert!(soon(daves_room.send("me?")).await.is_err());

    let leave = soon(room.leave()).await.unwrap();
    assert_eq!(leave.plan().successor.as_ref(), Some(bob.user()));
    soon(leave.commit()).await.unwrap();
    next(&mut bobs, |event| match event {
        Event::Group(GroupEvent::LeadOffered { by, .. }) => (by == user("alice")).then_some(()),
        _ => None,
    })
    .await;
    soon(bobs_room.answer_offer(true)).await.unwrap();
    next(&mut bobs, |event| match event {
        Event::Group(GroupEvent::Changed {
            change: Change::Left { user: who },
            ..
        }) => (who == user("alice")).then_some(()),
        _ => None,
    })
    .await;
    let view = soon(bobs_room.view()).await.unwrap();
    assert_eq!(view.leader.as_ref(), Some(bob.user()));
    assert_eq!((view.roster.len(), view.name.as_str()), (1, "ops 2"));
    assert_eq!(soon(bob.groups()).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn group_calls_may_be_dropped_at_any_await_point() {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, MemoryStore::new()).await;
    let mut alices = alice.events().await.unwrap();
    let name = GroupName::new("ops").unwrap();
    for polls in 0..6 {
        poll_then_drop(alice.create_group(&name), polls).await;
    }
    let room = soon(alice.create_group(&name)).await.unwrap();
    caught_up(&alice).await;
    for polls in 0..6 {
        let bob = open(&format!("bob {polls}"), &broker, MemoryStore::new()).await;
        poll_then_drop(bob.join(room.group()).send(), polls).await;
        poll_then_drop(bob.join(room.group()).into_future(), polls).await;
        poll_then_drop(bob.join(room.group()).withdraw(), polls).await;
        let joining = tokio::spawn(bob.join(room.group()).into_future());
        let theirs = soon(async {
            tokio::pin!(joining);
            loop {
                let event = tokio::select! {
                    room = &mut joining => return room.unwrap().unwrap(),
                    event = alices.next() => event,
                };
                if let Some(Event::JoinRequest(join)) = event {
                    poll_then_drop(join.approve(), polls).await;
                    // It may have been approved, or withdrawn, before.
                    soon(join.approve()).await.ok();
                }
            }
        })
        .await;
        poll_then_drop(theirs.view(), polls).await;
        poll_then_drop(room.rename(&name), polls).await;
        poll_then_drop(room.hand_over(bob.user()), polls).await;
        poll_then_drop(theirs.answer_offer(false), polls).await;
        soon(theirs.answer_offer(false)).await.ok();
        tokio::time::sleep(Duration::from_secs(120)).await;
        poll_then_drop(room.kick(bob.user(), "out"), polls).await;
        soon(room.kick(bob.user(), "out")).await.ok();
        let view = soon(room.view()).await.unwrap();
        assert_eq!(view.roster.len(), 1, "{view:?}");
        let leave = soon(room.leave()).await.unwrap();
        assert!(leave.plan().closes);
        soon(bob.shutdown(Duration::from_secs(5))).await.unwrap();
    }
    let leave = soon(room.leave()).await.unwrap();
    poll_then_drop(leave.commit(), 3).await;
}
