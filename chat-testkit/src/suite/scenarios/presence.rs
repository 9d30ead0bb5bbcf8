//! Presence (P1–P14): left, lost and unknown are different things.

use std::time::Duration;

use chat_core::Event;
use chat_core::id::{LobbyName, UserId};
use chat_core::presence::{PresenceEvent, PresenceView, Status};

use crate::suite::{CROWD, Command, Fault, Node, Stage, World};

async fn pair<W: World>(s: &mut Stage<W>) -> (Node, Node) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.chat(alice, bob).await;
    s.sees(alice, bob, "here", is_here).await;
    s.sees(bob, alice, "here", is_here).await;
    (alice, bob)
}

fn is_here(view: &PresenceView) -> bool {
    view.status.is_here()
}

fn is_gone(view: &PresenceView) -> bool {
    matches!(view.status, Status::Left | Status::Lost)
}

/// Every status of `user` that was told and kept on `node`.
fn statuses<W: World>(s: &Stage<W>, node: Node, user: &UserId) -> Vec<Status> {
    s.kept(node, |event| match event {
        Event::Presence(PresenceEvent::Changed { user: told, view }) if told == user => {
            Some(view.status)
        }
        _ => None,
    })
}

async fn never_gone<W: World>(s: &mut Stage<W>, node: Node, other: Node) {
    s.hold(node).await;
    let user = s.user(other);
    let told = statuses(s, node, &user);
    let gone = |status: &Status| matches!(status, Status::Left | Status::Lost);
    assert!(!told.iter().any(gone), "{user} was never gone: {told:?}");
}

/// What one says of oneself is what the other sees.
pub async fn p1_status_and_text_are_seen_by_the_peer<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    let busy = Command::SetPresence(Status::DoNotDisturb, "in a meeting".to_owned(), None);
    s.ask(bob, busy).await;
    s.sees(alice, bob, "busy", |view| {
        view.status == Status::DoNotDisturb && view.text == "in a meeting"
    })
    .await;
    let back = Command::SetPresence(Status::Active, String::new(), None);
    s.ask(bob, back).await;
    s.sees(alice, bob, "back", |view| {
        view.status == Status::Active && view.text.is_empty()
    })
    .await;
}

/// A text with a time of its own is over when that is, and the status stays.
pub async fn p1_a_status_text_is_over_in_its_own_time<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    let ttl = Some(Duration::from_millis(1_500));
    let busy = Command::SetPresence(Status::DoNotDisturb, "back in a second".to_owned(), ttl);
    s.ask(bob, busy).await;
    s.sees(alice, bob, "busy", |view| view.text == "back in a second")
        .await;
    s.sees(alice, bob, "busy without words", |view| {
        view.status == Status::DoNotDisturb && view.text.is_empty()
    })
    .await;
}

/// The observer counts for itself: the text of somebody who cannot be heard is over as well.
pub async fn p1_a_status_text_is_over_though_nobody_says_so<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    let ttl = s.lasting(Duration::from_secs(120), 10);
    let busy = Command::SetPresence(Status::Away, "lunch".to_owned(), Some(ttl));
    s.ask(bob, busy).await;
    s.sees(alice, bob, "at lunch", |view| view.text == "lunch")
        .await;
    s.cut(alice).await;
    s.sees(alice, bob, "unknown, at lunch", |view| {
        view.status == Status::Unknown && view.text == "lunch"
    })
    .await;
    s.world.wait(ttl).await;
    s.sees(alice, bob, "unknown", |view| {
        view.status == Status::Unknown && view.text.is_empty()
    })
    .await;
}

/// A session that ends takes nobody out of sight whom the application follows by itself.
pub async fn p9_closing_a_chat_does_not_end_a_watch<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    let user = s.user(bob);
    s.ask(alice, Command::Watch(user.clone())).await;
    let (peer, reason) = (user.clone(), "bye".to_owned());
    s.ask(alice, Command::Close { peer, reason }).await;
    s.closed(alice, bob).await;
    s.closed(bob, alice).await;
    let away = Command::SetPresence(Status::Away, "brb".to_owned(), None);
    s.ask(bob, away).await;
    s.sees(alice, bob, "away", |view| view.text == "brb").await;
    s.stop(alice).await;
    s.revive(alice).await;
    s.sees(alice, bob, "away after a restart", |view| {
        view.text == "brb"
    })
    .await;
    s.ask(alice, Command::Unwatch(user.clone())).await;
    assert_eq!(s.world.presence(alice, &user).await, None);
}

/// Two devices are one person: the best of them counts, and one that goes takes nobody away.
pub async fn p1_a_person_is_the_best_of_its_devices<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let (phone, laptop) = (s.join("bob").await, s.join("bob").await);
    s.chat(alice, phone).await;
    s.sees(alice, phone, "here", is_here).await;
    let away = Command::SetPresence(Status::Away, String::new(), None);
    s.ask(phone, away).await;
    s.sees(alice, phone, "active on the laptop", |view| {
        view.status == Status::Active
    })
    .await;
    s.stop(laptop).await;
    s.sees(alice, phone, "away on the phone", |view| {
        view.status == Status::Away
    })
    .await;
    s.stop(phone).await;
    s.sees(alice, phone, "gone", |view| view.status == Status::Left)
        .await;
}

/// The will of the life that was killed comes late and changes nothing.
pub async fn p2_a_late_will_does_not_hide_who_is_back<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.hold(alice).await;
    s.forget(alice);
    for _ in 0..3 {
        s.kill(bob).await;
        s.revive(bob).await;
    }
    s.sees(alice, bob, "back", is_here).await;
    never_gone(s, alice, bob).await;
    s.sees(alice, bob, "still here", is_here).await;
}

/// Beats renew the lease for as long as it takes; in real time for two leases and more.
pub async fn p3_who_stays_is_seen_for_hours<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.hold(alice).await;
    s.forget(alice);
    let pause = s.lasting(Duration::from_secs(200), 3);
    for _ in 0..6 {
        s.world.wait(pause).await;
        s.sees(alice, bob, "here", is_here).await;
    }
    never_gone(s, alice, bob).await;
}

/// A cable that is mended within the grace is no absence.
pub async fn p4_a_short_break_is_no_absence<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.hold(alice).await;
    s.forget(alice);
    s.cut(bob).await;
    s.world.wait(Duration::from_millis(200)).await;
    s.mend(bob).await;
    s.sees(alice, bob, "here", is_here).await;
    never_gone(s, alice, bob).await;
}

/// A goodbye is seen at once, and is not a loss.
pub async fn p5_a_goodbye_is_left_at_once<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.hold(alice).await;
    s.forget(alice);
    s.stop(bob).await;
    s.sees(alice, bob, "gone", |view| view.status == Status::Left)
        .await;
    s.hold(alice).await;
    let user = s.user(bob);
    assert_eq!(statuses(s, alice, &user), [Status::Left]);
    s.revive(bob).await;
    s.sees(alice, bob, "back", is_here).await;
}

/// A death is told after the grace, and never as a goodbye.
pub async fn p5_a_death_is_lost_and_never_left<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.hold(alice).await;
    s.forget(alice);
    s.kill(bob).await;
    s.sees(alice, bob, "lost", |view| view.status == Status::Lost)
        .await;
    s.hold(alice).await;
    let user = s.user(bob);
    let told = statuses(s, alice, &user);
    assert!(
        !told.contains(&Status::Left),
        "it said no goodbye: {told:?}"
    );
    s.revive(bob).await;
    s.sees(alice, bob, "back", is_here).await;
}

/// The broker comes back: nobody has gone, and nobody came.
pub async fn p5_a_restart_of_the_broker_is_no_leave_storm<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.hold(alice).await;
    s.hold(bob).await;
    s.forget(alice);
    s.forget(bob);
    s.restart_broker(&[alice, bob]).await;
    s.sees(alice, bob, "here", is_here).await;
    s.sees(bob, alice, "here", is_here).await;
    never_gone(s, alice, bob).await;
    never_gone(s, bob, alice).await;
}

/// My own outage says nothing about others.
pub async fn p7_my_own_outage_makes_the_others_unknown<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.hold(alice).await;
    s.forget(alice);
    s.cut(alice).await;
    s.sees(alice, bob, "unknown", |view| {
        view.status == Status::Unknown && view.last_known == Some(Status::Active)
    })
    .await;
    s.world.wait(Duration::from_millis(200)).await;
    s.mend(alice).await;
    s.sees(alice, bob, "here", is_here).await;
    never_gone(s, alice, bob).await;
}

/// Who went while I was cut off is gone when I am back and the lease is over.
pub async fn p13_who_went_during_my_outage_is_gone_in_time<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    let carol = s.join("carol").await;
    s.chat(alice, carol).await;
    s.sees(alice, carol, "here", is_here).await;
    s.cut(alice).await;
    s.kill(bob).await;
    s.stop(carol).await;
    let outage = s.lasting(Duration::from_secs(30), 10);
    s.world.wait(outage).await;
    s.mend(alice).await;
    s.sees(alice, bob, "gone", is_gone).await;
    s.sees(alice, carol, "gone", is_gone).await;
}

/// Two who were cut off together and come back are one event, not one each.
pub async fn p13_a_partition_that_heals_is_one_event<W: World>(s: &mut Stage<W>) {
    // Who comes back within a beat comes back together.
    let ttl = s.world.config().presence.ttl;
    s.world.config().presence.beat = ttl * 5 / 8;
    s.lasting(ttl, 8);
    let (alice, bob) = pair(s).await;
    let carol = s.join("carol").await;
    s.chat(alice, carol).await;
    s.sees(alice, carol, "here", is_here).await;
    s.cut(bob).await;
    s.cut(carol).await;
    for other in [bob, carol] {
        s.sees(alice, other, "lost", |view| view.status == Status::Lost)
            .await;
    }
    s.hold(alice).await;
    s.forget(alice);
    for other in [bob, carol] {
        s.world.fault(Fault::Mend(other)).await;
    }
    let joined = s
        .expect(alice, "the end of the partition", |event| match event {
            Event::Presence(PresenceEvent::Resynced { joined, .. }) => Some(joined.clone()),
            _ => None,
        })
        .await;
    assert_eq!(joined, [s.user(bob), s.user(carol)]);
    for other in [bob, carol] {
        let user = s.user(other);
        assert_eq!(statuses(s, alice, &user), [], "told once");
    }
}

/// Above a bound a lobby is told as counts and a few names, and nobody is told alone.
pub async fn p11_a_crowd_is_told_as_counts<W: World>(s: &mut Stage<W>) {
    let lobby = LobbyName::new("hall").expect("a valid name");
    let alice = s.join("alice").await;
    s.ask(alice, Command::EnterLobby(lobby.clone())).await;
    for n in 0..=CROWD {
        let node = s.join(&format!("guest {n}")).await;
        s.ask(node, Command::EnterLobby(lobby.clone())).await;
    }
    let all = u32::try_from(CROWD + 1).expect("a small number");
    s.expect(alice, "a crowd", |event| match event {
        Event::Presence(PresenceEvent::Crowd { counts, .. }) if counts.here() == all => Some(()),
        _ => None,
    })
    .await;
    s.forget(alice);
    let away = Command::SetPresence(Status::Away, String::new(), None);
    s.ask(Node(1), away).await;
    let user = s.user(Node(1));
    s.expect(alice, "one of them by name", |event| match event {
        Event::Presence(PresenceEvent::Crowd { counts, sample }) if counts.away == 1 => {
            sample.iter().find(|(told, _)| *told == user).map(|_| ())
        }
        _ => None,
    })
    .await;
    assert_eq!(statuses(s, alice, &user), []);
}

/// Up to a crowd everybody in a group is seen by name, and a change is told with the counts.
pub async fn p11_members_of_a_group_are_seen_one_by_one<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol) = (
        s.join("alice").await,
        s.join("bob").await,
        s.join("carol").await,
    );
    let (group, _) = s.group(&[alice, bob, carol]).await;
    assert_eq!(s.world.company(alice, group).await, None, "nobody asked");
    s.ask(alice, Command::WatchGroup(group)).await;
    let all = s.company(alice, group, "of three", |view| view.counts.here() == 3);
    let all = all.await;
    assert!(all.whole);
    let users: Vec<_> = all.people.iter().map(|(user, _)| user.clone()).collect();
    assert_eq!(users, [s.user(alice), s.user(bob), s.user(carol)]);
    s.forget(alice);
    s.stop(carol).await;
    let who = s.user(carol);
    s.expect(alice, "one who left", |event| match event {
        Event::Presence(PresenceEvent::Room {
            group: of,
            members: 3,
            counts,
            sample,
        }) if *of == group && counts.left == 1 => {
            sample.iter().find(|(user, _)| *user == who).map(|_| ())
        }
        _ => None,
    })
    .await;
    let left = s.company(alice, group, "with one gone", |view| view.counts.left == 1);
    assert_eq!(left.await.counts.here(), 2);
    s.ask(alice, Command::UnwatchGroup(group)).await;
    assert_eq!(s.world.company(alice, group).await, None);
}

/// Above it nobody but the leader follows anybody: it says how many are here, and names some.
pub async fn p11_a_large_group_is_told_as_counts_by_its_leader<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let group = s.create(alice, "friends").await;
    let mut nodes = vec![alice];
    for n in 0..=CROWD {
        let node = s.join(&format!("guest {n}")).await;
        s.admit(alice, group, node).await;
        nodes.push(node);
    }
    let all = u32::try_from(nodes.len()).expect("a small number");
    let (bob, dave) = (nodes[1], nodes[3]);
    s.counts(bob, group, nodes.len()).await;
    s.ask(bob, Command::WatchGroup(group)).await;
    let told = s.company(bob, group, "of all", |view| view.counts.here() == all);
    assert!(!told.await.whole);
    s.forget(bob);
    let user = s.user(dave);
    let away = Command::SetPresence(Status::Away, String::new(), None);
    s.ask(dave, away).await;
    s.expect(bob, "one of them by name", |event| match event {
        Event::Presence(PresenceEvent::Room {
            members,
            counts,
            sample,
            ..
        }) if *members == all && counts.away == 1 => {
            let named = sample.iter().find(|(told, _)| *told == user);
            named
                .filter(|(_, view)| view.status == Status::Away)
                .map(|_| ())
        }
        _ => None,
    })
    .await;
    assert_eq!(statuses(s, bob, &user), []);
}

/// Whatever it was doing when it died, it is not there for ever.
pub async fn p14_whoever_dies_at_any_step_is_never_a_zombie<W: World>(s: &mut Stage<W>) {
    let ttl = s.world.config().presence.ttl;
    let ttl = s.lasting(ttl, 2);
    let presence = &mut s.world.config().presence;
    (presence.ttl, presence.beat, presence.grace) = (ttl, ttl / 4, ttl / 8);
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    for step in 0..8 {
        s.sees(alice, bob, "here", is_here).await;
        match step % 4 {
            0 => {}
            1 => {
                let command = Command::SetPresence(Status::Away, "brb".to_owned(), None);
                s.ask(bob, command).await;
            }
            2 => {
                s.say(bob, conv, "last words").await;
            }
            _ => {
                s.cut(bob).await;
                s.world.fault(Fault::Mend(bob)).await;
            }
        }
        s.world.wait(Duration::from_millis(7 * step)).await;
        s.kill(bob).await;
        s.sees(alice, bob, "gone", is_gone).await;
        s.revive(bob).await;
    }
}

/// A dead network on his side, without a will that reaches anybody: the lease runs out.
pub async fn p3_silence_ends_with_the_lease<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    let silence = s.lasting(Duration::from_secs(600), 5);
    s.cut(bob).await;
    s.sees(alice, bob, "gone", |view| view.status == Status::Lost)
        .await;
    s.world.wait(silence).await;
    s.sees(alice, bob, "gone", |view| view.status == Status::Lost)
        .await;
    s.mend(bob).await;
    s.sees(alice, bob, "back", is_here).await;
}

/// A peer of an open session is told when one was last active, to the minute.
pub async fn p9_last_seen_is_rounded_and_told_to_contacts<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = pair(s).await;
    s.stop(bob).await;
    s.sees(alice, bob, "gone", |view| view.status == Status::Left)
        .await;
    let user = s.user(bob);
    let view = s.world.presence(alice, &user).await.expect("known");
    let seen = view.last_seen.expect("a contact may know");
    assert_eq!(seen.0 % 60_000, 0, "rounded to a minute");
}
