//! Who leads, and what everybody is told (G2, G13, G18, and that a leader cut off signs nothing).

use chat_core::Event;
use chat_core::event::GroupEvent;
use chat_core::group::{Change, GroupError, Membership, Passing};
use chat_core::id::{ConvId, GroupId};

use crate::suite::stage::group_name;
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

/// The lead passes with the consent of who takes it, and with it the rights.
pub async fn g18_the_lead_passes_to_who_accepts<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    let heir = s.user(carol);
    s.ask(alice, Command::HandOver(group, heir.clone())).await;
    let by = s.offered(carol, group).await;
    assert_eq!(by, s.user(alice));
    s.led_by(alice, group, alice).await;
    s.ask(carol, Command::AnswerOffer(group, true)).await;
    let passed = Change::Leader {
        user: heir.clone(),
        how: Passing::HandedOver,
    };
    for node in [alice, bob, carol] {
        s.changes(node, group, &passed).await;
        s.led_by(node, group, carol).await;
    }
    s.stands(alice, group, Membership::Member).await;
    s.stands(carol, group, Membership::Leader).await;
    let name = group_name("still mine");
    let refusal = s.refused(alice, Command::Rename(group, name)).await;
    let leader = heir;
    assert_eq!(refusal, Refusal::Group(GroupError::NotLeader { leader }));
    let dave = s.join("dave").await;
    s.admit(carol, group, dave).await;
    s.say(dave, conv, "thanks, carol").await;
    for node in [alice, bob, carol] {
        s.hears(node, &["thanks, carol"]).await;
    }
}

/// A no leaves everything as it was.
pub async fn g18_a_declined_lead_stays<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, _conv) = three(s).await;
    let heir = s.user(bob);
    s.ask(alice, Command::HandOver(group, heir.clone())).await;
    s.offered(bob, group).await;
    s.ask(bob, Command::AnswerOffer(group, false)).await;
    let who = s
        .group_event(alice, group, "a no", |event| match event {
            GroupEvent::LeadDeclined { by, .. } => Some(by.clone()),
            _ => None,
        })
        .await;
    assert_eq!(who, heir);
    s.led_by(bob, group, alice).await;
    let name = group_name("as before");
    s.ask(alice, Command::Rename(group, name.clone())).await;
    s.changes(carol, group, &Change::Renamed { name }).await;
}

/// Until an absent target accepts, the old leader leads.
pub async fn g18_the_old_leader_holds_until_the_target_is_back<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, _conv) = three(s).await;
    s.stop(bob).await;
    let heir = s.user(bob);
    s.ask(alice, Command::HandOver(group, heir)).await;
    let name = group_name("meanwhile");
    s.ask(alice, Command::Rename(group, name.clone())).await;
    s.changes(carol, group, &Change::Renamed { name }).await;
    s.revive(bob).await;
    s.offered(bob, group).await;
    s.ask(bob, Command::AnswerOffer(group, true)).await;
    for node in [alice, bob, carol] {
        s.led_by(node, group, bob).await;
    }
}

/// The new leader dies right after it said yes: it leads when it is back.
pub async fn g18_a_yes_outlives_the_death_of_who_said_it<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, _conv) = three(s).await;
    let heir = s.user(bob);
    s.ask(alice, Command::HandOver(group, heir)).await;
    s.offered(bob, group).await;
    s.cut(bob).await;
    s.ask(bob, Command::AnswerOffer(group, true)).await;
    s.world.wait(std::time::Duration::from_millis(50)).await;
    s.kill(bob).await;
    s.world.fault(Fault::Revive(bob)).await;
    s.mend(bob).await;
    for node in [alice, bob, carol] {
        s.led_by(node, group, bob).await;
    }
}

/// The plan says who follows, and so it happens.
pub async fn g2_a_leader_leaves_by_its_plan<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, conv) = three(s).await;
    let Answer::Plan(plan) = s.ask(alice, Command::PlanLeave(group)).await else {
        panic!("a plan is a plan");
    };
    assert_eq!(plan.successor, Some(s.user(bob)), "the most senior");
    assert!(!plan.closes);
    s.led_by(carol, group, alice).await;
    s.ask(alice, Command::Leave(group)).await;
    s.offered(bob, group).await;
    s.ask(bob, Command::AnswerOffer(group, true)).await;
    s.led_by(carol, group, bob).await;
    s.counts(carol, group, 2).await;
    s.counts(bob, group, 2).await;
    s.stands(alice, group, Membership::Left).await;
    s.say(bob, conv, "we go on").await;
    s.hears(carol, &["we go on"]).await;
    s.hears_nothing(alice).await;
}

/// A leader never leaves the group without a head: when the successor declines, it stays.
pub async fn g2_without_a_successor_the_leader_stays<W: World>(s: &mut Stage<W>) {
    let (alice, bob, _carol, group, _conv) = three(s).await;
    s.ask(alice, Command::Leave(group)).await;
    s.offered(bob, group).await;
    s.ask(bob, Command::AnswerOffer(group, false)).await;
    s.group_event(alice, group, "a no", |event| {
        matches!(event, GroupEvent::LeadDeclined { .. }).then_some(())
    })
    .await;
    s.stands(alice, group, Membership::Leader).await;
    s.counts(bob, group, 3).await;
}

/// Every member is told every change once, in the order of the log, with who did it.
pub async fn g13_everybody_is_told_every_change_once<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, _conv) = three(s).await;
    for node in [alice, bob, carol] {
        s.hold(node).await;
        s.forget(node);
    }
    let from = s.counts(alice, group, 3).await.index;
    let dave = s.join("dave").await;
    s.admit(alice, group, dave).await;
    s.ask(alice, Command::Rename(group, group_name("colleagues")))
        .await;
    s.ask(dave, Command::Leave(group)).await;
    s.counts(alice, group, 3).await;
    let (user, reason) = (s.user(carol), "last".to_owned());
    let command = Command::Kick {
        group,
        user,
        reason,
    };
    s.ask(alice, command).await;
    let mut stories = Vec::new();
    for node in [alice, bob, carol] {
        s.hold(node).await;
        stories.push(s.kept(node, |event| match event {
            Event::Group(GroupEvent::Changed {
                change, by, index, ..
            }) => Some((*index, by.clone(), change.clone())),
            _ => None,
        }));
    }
    let (leader, name) = (s.user(alice), group_name("colleagues"));
    let (dave, carol) = (s.user(dave), s.user(carol));
    let reason = "last".to_owned();
    let wanted = [
        (leader.clone(), Change::Admitted { user: dave.clone() }),
        (leader.clone(), Change::Renamed { name }),
        (dave.clone(), Change::Left { user: dave }),
        (
            leader,
            Change::Kicked {
                user: carol,
                reason,
            },
        ),
    ];
    for story in stories {
        assert!(story.is_sorted_by(|a, b| a.0 < b.0), "in order: {story:?}");
        assert!(story.iter().all(|(index, ..)| *index > from));
        let told: Vec<_> = story.into_iter().map(|(_, by, it)| (by, it)).collect();
        assert_eq!(told, wanted);
    }
}

/// The new name is seen by all, also by who was away.
pub async fn g13_a_new_name_reaches_who_was_away<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol, group, _conv) = three(s).await;
    s.stop(carol).await;
    let name = group_name("colleagues");
    s.ask(alice, Command::Rename(group, name.clone())).await;
    s.changes(bob, group, &Change::Renamed { name: name.clone() })
        .await;
    s.revive(carol).await;
    s.looks(carol, group, "with the new name", |view| view.name == name)
        .await;
}

/// A leader that is cut off signs nothing; back on the network it goes on.
pub async fn g4_a_leader_that_is_cut_off_signs_nothing<W: World>(s: &mut Stage<W>) {
    let (alice, bob, _carol, group, _conv) = three(s).await;
    s.cut(alice).await;
    let name = group_name("from afar");
    let refusal = s.refused(alice, Command::Rename(group, name.clone())).await;
    assert_eq!(refusal, Refusal::Group(GroupError::Offline));
    s.mend(alice).await;
    s.ask(alice, Command::Rename(group, name.clone())).await;
    s.changes(bob, group, &Change::Renamed { name }).await;
}
