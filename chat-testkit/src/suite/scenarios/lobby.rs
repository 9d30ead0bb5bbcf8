//! Lobbies: how strangers find people and groups (P6, P9, G14).

use chat_core::Event;
use chat_core::event::LobbyEvent;
use chat_core::id::{GroupId, LobbyName};
use chat_core::lobby::GroupListing;
use chat_core::presence::Status;

use crate::suite::stage::group_name;
use crate::suite::{Command, Node, Stage, World};

fn hall() -> LobbyName {
    LobbyName::new("hall").expect("scenario names are valid")
}

async fn enter<W: World>(s: &mut Stage<W>, user: &str) -> Node {
    let node = s.join(user).await;
    s.ask(node, Command::EnterLobby(hall())).await;
    node
}

async fn listed<W: World>(
    s: &mut Stage<W>,
    node: Node,
    wanted: impl Fn(&GroupListing) -> bool,
) -> GroupListing {
    s.expect(node, "a group in the lobby", |event| match event {
        Event::Lobby(LobbyEvent::GroupListed { listing, .. }) if wanted(listing) => {
            Some(listing.clone())
        }
        _ => None,
    })
    .await
}

async fn unlisted<W: World>(s: &mut Stage<W>, node: Node, gone: GroupId) {
    s.expect(node, "a group taken down", |event| match event {
        Event::Lobby(LobbyEvent::GroupUnlisted { group, .. }) if *group == gone => Some(()),
        _ => None,
    })
    .await;
}

/// Who comes later sees who is there, and is seen.
pub async fn p6_a_newcomer_sees_everybody_in_the_lobby<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (enter(s, "alice").await, enter(s, "bob").await);
    s.sees(alice, bob, "here", |view| view.status.is_here())
        .await;
    s.sees(bob, alice, "here", |view| view.status.is_here())
        .await;
    let carol = enter(s, "carol").await;
    for other in [alice, bob] {
        s.sees(carol, other, "here", |view| view.status.is_here())
            .await;
        s.sees(other, carol, "here", |view| view.status.is_here())
            .await;
    }
}

/// Who leaves says so to everybody.
pub async fn p5_a_goodbye_reaches_the_lobby<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (enter(s, "alice").await, enter(s, "bob").await);
    s.sees(alice, bob, "here", |view| view.status.is_here())
        .await;
    s.stop(bob).await;
    s.sees(alice, bob, "gone", |view| view.status == Status::Left)
        .await;
}

/// Strangers learn that one is there, not when one was active.
pub async fn p9_the_lobby_learns_no_last_activity<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (enter(s, "alice").await, enter(s, "bob").await);
    s.sees(alice, bob, "here", |view| view.status.is_here())
        .await;
    s.stop(bob).await;
    s.sees(alice, bob, "gone", |view| view.status == Status::Left)
        .await;
    let user = s.user(bob);
    let view = s.world.presence(alice, &user).await.expect("known");
    assert_eq!(view.last_seen, None);
}

/// A group is found by who comes later, and joined by what is shown.
pub async fn g14_a_group_is_found_in_the_lobby_and_joined<W: World>(s: &mut Stage<W>) {
    let alice = enter(s, "alice").await;
    let group = s.create(alice, "chess").await;
    let bob = enter(s, "bob").await;
    let listing = listed(s, bob, |listing| listing.group == group).await;
    assert_eq!(listing.name, group_name("chess"));
    assert_eq!(listing.leader, s.user(alice));
    assert_eq!(listing.members, 1);
    let found = listing.group;
    assert_eq!(s.world.listings(bob, &hall()).await, [listing]);
    s.admit(alice, found, bob).await;
    let carol = enter(s, "carol").await;
    listed(s, carol, |listing| listing.members == 2).await;
}

/// A card follows the name of its group.
pub async fn g13_the_lobby_follows_a_new_name<W: World>(s: &mut Stage<W>) {
    let alice = enter(s, "alice").await;
    let group = s.create(alice, "chess").await;
    let bob = enter(s, "bob").await;
    listed(s, bob, |listing| listing.group == group).await;
    s.ask(alice, Command::Rename(group, group_name("go"))).await;
    listed(s, bob, |listing| listing.name == group_name("go")).await;
    assert_eq!(s.world.listings(bob, &hall()).await.len(), 1);
}

/// The new leader shows the group under its own name.
pub async fn g18_the_lobby_follows_the_lead<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (enter(s, "alice").await, enter(s, "bob").await);
    let carol = enter(s, "carol").await;
    let group = s.create(alice, "chess").await;
    s.admit(alice, group, bob).await;
    let old = s.user(alice);
    listed(s, carol, |listing| listing.leader == old).await;
    let heir = s.user(bob);
    s.ask(alice, Command::HandOver(group, heir.clone())).await;
    s.offered(bob, group).await;
    s.ask(bob, Command::AnswerOffer(group, true)).await;
    listed(s, carol, |listing| listing.leader == heir).await;
    assert_eq!(s.world.listings(carol, &hall()).await.len(), 1);
}

/// The last member leaves, and the group is taken down.
pub async fn g2_a_closed_group_is_taken_out_of_the_lobby<W: World>(s: &mut Stage<W>) {
    let alice = enter(s, "alice").await;
    let group = s.create(alice, "short lived").await;
    let bob = enter(s, "bob").await;
    listed(s, bob, |listing| listing.group == group).await;
    s.ask(alice, Command::Leave(group)).await;
    unlisted(s, bob, group).await;
    assert_eq!(s.world.listings(bob, &hall()).await, []);
}
