//! How people get out of groups: kicks and leaves (G2, G9, G11–G13, G17).

use std::time::Duration;

use chat_core::Event;
use chat_core::delivery::{Ack, DeliveryEvent, FailReason, Standing};
use chat_core::event::GroupEvent;
use chat_core::group::{Change, GroupError, Membership};
use chat_core::id::{ConvId, GroupId, UserId};

use crate::suite::{Answer, Command, Fault, Node, Refusal, Stage, World};

async fn three<W: World>(s: &mut Stage<W>) -> (Node, Node, Node, GroupId, ConvId) {
    let (alice, bob, carol) = (
        s.join("alice").await,
        s.join("bob").await,
        s.join("carol").await,
    );
    let (group, conv) = s.group(&[alice, bob, carol]).await;
    (alice, bob, carol, group, conv)
}

async fn kick<W: World>(s: &mut Stage<W>, leader: Node, group: GroupId, victim: Node) {
    let (user, reason) = (s.user(victim), "rude".to_owned());
    let command = Command::Kick {
        group,
        user,
        reason,
    };
    s.ask(leader, command).await;
}

async fn removed<W: World>(s: &mut Stage<W>, victim: Node, group: GroupId) -> (UserId, String) {
    s.group_event(victim, group, "its removal", |event| match event {
        GroupEvent::Removed { by, reason, .. } => Some((by.clone(), reason.clone())),
        _ => None,
    })
    .await
}

/// The victim learns who did it and why; the others see it; it hears nothing any more.
pub async fn g11_a_victim_learns_who_removed_it_and_why<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    kick(s, alice, group, bob).await;
    let (by, reason) = removed(s, bob, group).await;
    assert_eq!((by, reason.as_str()), (s.user(alice), "rude"));
    s.stands(bob, group, Membership::Kicked).await;
    let (user, reason) = (s.user(bob), "rude".to_owned());
    let kicked = Change::Kicked { user, reason };
    s.changes(carol, group, &kicked).await;
    s.counts(alice, group, 2).await;
    s.counts(carol, group, 2).await;
    s.say(alice, conv, "without bob").await;
    s.hears(carol, &["without bob"]).await;
    s.hears_nothing(bob).await;
}

/// A victim that was away learns it on return.
pub async fn g11_a_victim_that_was_away_learns_it_on_return<W: World>(s: &mut Stage<W>) {
    let (alice, bob, _carol, group, _conv) = three(s).await;
    s.stop(bob).await;
    kick(s, alice, group, bob).await;
    s.world.wait(Duration::from_millis(100)).await;
    s.stop(alice).await;
    s.revive(bob).await;
    let (by, reason) = removed(s, bob, group).await;
    assert_eq!((by, reason.as_str()), (s.user(alice), "rude"));
    s.stands(bob, group, Membership::Kicked).await;
}

/// A kick stands across the death of whoever signed it.
pub async fn g11_a_kick_outlives_the_death_of_the_leader<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    s.cut(bob).await;
    kick(s, alice, group, bob).await;
    s.counts(carol, group, 2).await;
    s.kill(alice).await;
    s.revive(alice).await;
    s.counts(alice, group, 2).await;
    s.mend(bob).await;
    removed(s, bob, group).await;
    s.say(alice, conv, "still without bob").await;
    s.hears(carol, &["still without bob"]).await;
    s.hears_nothing(bob).await;
}

/// Who is out sends nothing any more, and is told so.
pub async fn g9_a_victim_cannot_write_any_more<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    kick(s, alice, group, bob).await;
    removed(s, bob, group).await;
    let content = chat_core::content::Content::text("let me explain");
    let txn = s.txn();
    let refusal = s.refused(bob, Command::Send { conv, txn, content }).await;
    assert!(matches!(refusal, Refusal::Send(_)), "{refusal:?}");
    s.hears_nothing(alice).await;
    s.hears_nothing(carol).await;
}

/// A person is kicked with all its devices.
pub async fn g9_a_kick_removes_every_device<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let (phone, laptop) = (s.join("bob").await, s.join("bob").await);
    let (group, conv) = s.group(&[alice, phone, laptop]).await;
    kick(s, alice, group, phone).await;
    for device in [phone, laptop] {
        removed(s, device, group).await;
        s.stands(device, group, Membership::Kicked).await;
    }
    s.counts(alice, group, 1).await;
    s.say(alice, conv, "alone at last").await;
    s.hears_nothing(phone).await;
    s.hears_nothing(laptop).await;
}

/// What the victim wrote before it knew is shown as mail of a former member, or comes back to it
/// as failed: never as a member's word, and never lost without a word.
pub async fn g9_late_mail_of_a_victim_is_marked_or_fails<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    s.cut(bob).await;
    let id = s.say(bob, conv, "you will not kick me").await;
    kick(s, alice, group, bob).await;
    s.counts(carol, group, 2).await;
    s.mend(bob).await;
    removed(s, bob, group).await;
    s.hold(bob).await;
    let failed = s.kept(bob, |event| match event {
        Event::Delivery(DeliveryEvent::Failed { id: told, why }) if *told == id => {
            Some(why.clone())
        }
        _ => None,
    });
    for node in [alice, carol] {
        s.hold(node).await;
        let heard = s.kept(node, |event| match event {
            Event::Delivery(DeliveryEvent::Received(message)) => Some(message.standing),
            _ => None,
        });
        assert!(
            heard.iter().all(|standing| *standing == Standing::Former),
            "{node:?} took it for a member's word"
        );
        assert!(
            !heard.is_empty() || failed == [FailReason::Gone],
            "{node:?} never heard it, and bob was told {failed:?}"
        );
    }
}

/// What a member had said before it was kicked reaches those who were away.
pub async fn g9_what_was_said_before_the_kick_still_arrives<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    s.stop(carol).await;
    let id = s.say(bob, conv, "my last word").await;
    s.hears(alice, &["my last word"]).await;
    s.world.wait(Duration::from_millis(100)).await;
    kick(s, alice, group, bob).await;
    removed(s, bob, group).await;
    s.revive(carol).await;
    if s.has_mailbox() {
        s.hears(carol, &["my last word"]).await;
    } else {
        // Nobody but its author could repeat it, who may not any more and is told.
        assert_eq!(s.fails(bob, id).await, FailReason::Gone);
        s.hears_nothing(carol).await;
    }
    s.counts(carol, group, 2).await;
}

/// The roster shrinks everywhere, and the leaver hears nothing any more.
pub async fn g12_a_leave_is_seen_by_everybody<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    s.ask(bob, Command::Leave(group)).await;
    let user = s.user(bob);
    for node in [alice, carol] {
        s.changes(node, group, &Change::Left { user: user.clone() })
            .await;
        s.counts(node, group, 2).await;
    }
    s.stands(bob, group, Membership::Left).await;
    s.say(alice, conv, "we two").await;
    s.hears(carol, &["we two"]).await;
    s.hears_nothing(bob).await;
    let refusal = s.refused(bob, Command::Leave(group)).await;
    assert_eq!(refusal, Refusal::Group(GroupError::NotMember));
}

/// Left while cut off and died: the leave stands, and no traffic from before undoes it.
pub async fn g12_a_leave_sticks<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    s.cut(bob).await;
    s.ask(bob, Command::Leave(group)).await;
    s.say(alice, conv, "stay, bob").await;
    s.world.wait(Duration::from_millis(50)).await;
    s.kill(bob).await;
    s.world.fault(Fault::Revive(bob)).await;
    s.mend(bob).await;
    s.counts(alice, group, 2).await;
    s.counts(carol, group, 2).await;
    s.stands(bob, group, Membership::Left).await;
    s.hears(carol, &["stay, bob"]).await;
    s.say(alice, conv, "gone").await;
    s.hears(carol, &["gone"]).await;
    s.hears_nothing(bob).await;
    s.stands(bob, group, Membership::Left).await;
}

/// A leaver that is away when the leader is back is let go, too.
pub async fn g12_a_leave_waits_for_the_leader<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, _conv) = three(s).await;
    s.stop(alice).await;
    s.ask(bob, Command::Leave(group)).await;
    s.world.wait(Duration::from_millis(200)).await;
    s.revive(alice).await;
    s.counts(alice, group, 2).await;
    s.counts(carol, group, 2).await;
    s.stands(bob, group, Membership::Left).await;
}

/// What waits only for who is gone is done.
pub async fn q15_nobody_waits_for_who_left<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    s.stop(bob).await;
    let id = s.say(alice, conv, "for all").await;
    s.hears(carol, &["for all"]).await;
    s.never(alice, "a delivery to all", |event| {
        matches!(event, Event::Delivery(DeliveryEvent::Progress { id: told, ack })
            if *told == id && *ack >= Ack::Delivered)
    })
    .await;
    kick(s, alice, group, bob).await;
    s.reaches(alice, id, Ack::Delivered).await;
}

/// Only the leader rules, and nobody rules over himself.
pub async fn g13_only_the_leader_changes_the_group<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, _conv) = three(s).await;
    let dave = s.join("dave").await;
    s.knock(dave, group).await;
    let request = s.knocked(alice, group, dave).await;
    let leader = s.user(alice);
    let (user, reason) = (s.user(carol), String::new());
    let kick = |user: UserId| Command::Kick {
        group,
        user,
        reason: reason.clone(),
    };
    let new = crate::suite::stage::group_name("mine now");
    for command in [
        kick(user),
        Command::Approve(group, request),
        Command::Deny(group, request, String::new()),
        Command::Rename(group, new),
        Command::HandOver(group, leader.clone()),
    ] {
        let refusal = s.refused(bob, command).await;
        let leader = leader.clone();
        assert_eq!(refusal, Refusal::Group(GroupError::NotLeader { leader }));
    }
    let refusal = s.refused(alice, kick(leader)).await;
    assert_eq!(refusal, Refusal::Group(GroupError::Oneself));
    let user = s.user(dave);
    let refusal = s.refused(alice, kick(user.clone())).await;
    assert_eq!(refusal, Refusal::Group(GroupError::NoSuchMember { user }));
    let refusal = s.refused(dave, Command::PlanLeave(group)).await;
    assert_eq!(refusal, Refusal::Group(GroupError::NotMember));
    s.counts(alice, group, 3).await;
}

/// The last member turns off the light: the group is closed for good.
pub async fn g2_the_last_member_closes_the_group<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let (group, _conv) = s.group(&[alice, bob]).await;
    s.ask(bob, Command::Leave(group)).await;
    s.counts(alice, group, 1).await;
    let Answer::Plan(plan) = s.ask(alice, Command::PlanLeave(group)).await else {
        panic!("a plan is a plan");
    };
    assert!(plan.closes);
    assert_eq!(plan.successor, None);
    s.ask(alice, Command::Leave(group)).await;
    s.changes(alice, group, &Change::Closed).await;
    s.stands(alice, group, Membership::Left).await;
    s.kill(alice).await;
    s.revive(alice).await;
    s.stands(alice, group, Membership::Left).await;
}
