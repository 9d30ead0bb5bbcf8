//! Messages in groups (G10, G16, Q1, Q16, ID8).

use std::time::Duration;

use chat_core::Event;
use chat_core::delivery::{Ack, DeliveryEvent};
use chat_core::id::{ConvId, GroupId};

use crate::suite::{Command, Fault, Node, Stage, World};

async fn four<W: World>(s: &mut Stage<W>) -> ([Node; 4], GroupId, ConvId) {
    let nodes = [
        s.join("alice").await,
        s.join("bob").await,
        s.join("carol").await,
        s.join("dave").await,
    ];
    let (group, conv) = s.group(&nodes).await;
    (nodes, group, conv)
}

/// Everybody else hears it, and it is delivered when the last one has it.
pub async fn g10_a_message_reaches_every_member<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, dave], _group, conv) = four(s).await;
    let id = s.say(bob, conv, "hello all").await;
    for node in [alice, carol, dave] {
        s.hears(node, &["hello all"]).await;
    }
    s.reaches(bob, id, Ack::Delivered).await;
    s.hears_nothing(bob).await;
}

/// Delivered means by all, displayed means by all.
pub async fn q16_in_a_group_the_ladder_waits_for_the_last<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, dave], _group, conv) = four(s).await;
    s.stop(dave).await;
    let id = s.say(alice, conv, "everybody?").await;
    for node in [bob, carol] {
        let up_to = s.message(node).await.sort;
        s.ask(node, Command::MarkRead { conv, up_to }).await;
    }
    s.never(alice, "a delivery to all", |event| {
        matches!(event, Event::Delivery(DeliveryEvent::Progress { id: told, ack })
            if *told == id && *ack >= Ack::Delivered)
    })
    .await;
    s.revive(dave).await;
    s.reaches(alice, id, Ack::Delivered).await;
    let up_to = s.message(dave).await.sort;
    s.ask(dave, Command::MarkRead { conv, up_to }).await;
    s.reaches(alice, id, Ack::Displayed).await;
}

/// All talk at once: each in its own order everywhere, and one screen.
pub async fn id8_a_busy_group_has_one_screen<W: World>(s: &mut Stage<W>) {
    let (nodes, _group, conv) = four(s).await;
    for number in 0..15 {
        for node in nodes {
            let text = format!("{} {number}", s.user(node));
            s.say(node, conv, &text).await;
        }
        s.world.wait(Duration::from_millis(3)).await;
    }
    for node in nodes {
        let mut next = [0; 4];
        for _ in 0..45 {
            let message = s.message(node).await;
            let from = nodes
                .iter()
                .position(|other| s.user(*other) == message.from)
                .expect("a member");
            let text = format!("{} {}", message.from, next[from]);
            assert_eq!(message.content.fallback(), text, "on {node:?}");
            next[from] += 1;
        }
        s.hears_nothing(node).await;
    }
    assert_eq!(s.same_screens(&nodes, conv).await.len(), 60);
}

/// More than is in flight at once.
pub async fn q1_a_burst_in_a_group_arrives_once_and_in_order<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, dave], _group, conv) = four(s).await;
    s.say_all(alice, conv, "alice", 0..150).await;
    for node in [bob, carol, dave] {
        s.hears_all(node, "alice", 0..150).await;
        s.hears_nothing(node).await;
    }
}

/// Who was away finds everything said meanwhile, and the roster.
pub async fn g16_who_was_away_finds_everything<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, dave], group, conv) = four(s).await;
    s.stop(carol).await;
    s.say_all(alice, conv, "alice", 0..30).await;
    s.say_all(bob, conv, "bob", 0..30).await;
    s.message(dave).await;
    let (user, reason) = (s.user(dave), String::new());
    s.world.wait(Duration::from_millis(300)).await;
    let kick = Command::Kick {
        group,
        user,
        reason,
    };
    s.ask(alice, kick).await;
    s.counts(bob, group, 3).await;
    s.revive(carol).await;
    s.counts(carol, group, 3).await;
    let mut heard = Vec::new();
    for _ in 0..60 {
        heard.push(s.message(carol).await.content.fallback().to_owned());
    }
    for who in ["alice", "bob"] {
        let theirs: Vec<_> = heard.iter().filter(|text| text.starts_with(who)).collect();
        let wanted: Vec<_> = (0..30).map(|number| format!("{who} {number}")).collect();
        assert_eq!(theirs, wanted.iter().collect::<Vec<_>>());
    }
    s.hears_nothing(carol).await;
    s.same_screens(&[alice, carol], conv).await;
}

/// A member dies amid the burst.
pub async fn q14_a_member_that_dies_amid_a_burst_hears_everything<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, _dave], _group, conv) = four(s).await;
    s.say_all(alice, conv, "alice", 0..40).await;
    s.hears_all(bob, "alice", 0..10).await;
    s.kill(bob).await;
    s.say_all(alice, conv, "alice", 40..60).await;
    s.revive(bob).await;
    s.hears_all(bob, "alice", 10..60).await;
    s.hears_all(carol, "alice", 0..60).await;
    s.hears_nothing(bob).await;
}

/// The sender dies amid the burst.
pub async fn q9_a_sender_that_dies_amid_a_burst_reaches_everybody<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, dave], _group, conv) = four(s).await;
    s.cut(bob).await;
    s.say_all(bob, conv, "bob", 0..20).await;
    s.world.wait(Duration::from_millis(50)).await;
    s.kill(bob).await;
    s.world.fault(Fault::Revive(bob)).await;
    s.mend(bob).await;
    s.say_all(bob, conv, "bob", 20..30).await;
    for node in [alice, carol, dave] {
        s.hears_all(node, "bob", 0..30).await;
        s.hears_nothing(node).await;
    }
}

/// The leader is not needed to talk.
pub async fn g10_members_talk_without_the_leader<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, dave], _group, conv) = four(s).await;
    s.stop(alice).await;
    s.say(bob, conv, "she is away").await;
    s.hears(carol, &["she is away"]).await;
    s.hears(dave, &["she is away"]).await;
    s.revive(alice).await;
    s.hears(alice, &["she is away"]).await;
}

/// The broker goes down while all talk.
pub async fn s13_a_group_survives_a_restart_of_the_broker<W: World>(s: &mut Stage<W>) {
    let (nodes, group, conv) = four(s).await;
    for node in nodes {
        let text = format!("{} 0", s.user(node));
        s.say(node, conv, &text).await;
    }
    s.world.fault(Fault::RestartBroker).await;
    for node in nodes {
        let text = format!("{} 1", s.user(node));
        s.say(node, conv, &text).await;
    }
    for node in nodes {
        for _ in 0..6 {
            s.message(node).await;
        }
        s.hears_nothing(node).await;
        s.counts(node, group, 4).await;
    }
    s.same_screens(&nodes, conv).await;
}

/// A monologue needs nobody.
pub async fn q16_alone_in_a_group_everything_is_delivered<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let group = s.create(alice, "notes").await;
    let conv = ConvId::from(group);
    let id = s.say(alice, conv, "milk").await;
    s.reaches(alice, id, Ack::Delivered).await;
    assert_eq!(s.texts(alice, conv).await, ["milk"]);
}

/// Typing in a group says who types.
pub async fn q4_typing_in_a_group_says_who<W: World>(s: &mut Stage<W>) {
    let ([alice, bob, carol, dave], _group, conv) = four(s).await;
    s.ask(carol, Command::Typing { conv, active: true }).await;
    let who = s.user(carol);
    for node in [alice, bob, dave] {
        s.expect(node, "typing", |event| match event {
            Event::Delivery(DeliveryEvent::Typing { user, active, .. })
                if *active && *user == who =>
            {
                Some(())
            }
            _ => None,
        })
        .await;
    }
}
