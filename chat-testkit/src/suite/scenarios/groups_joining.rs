//! How groups begin and people get in (G1, G14, G16, G17).

use std::time::Duration;

use chat_core::event::GroupEvent;
use chat_core::group::{BatchStep, Change, GroupError, Membership};
use chat_core::id::{GroupId, RequestId, UserId};

use crate::suite::{Command, Fault, JOIN_TTL, Node, Refusal, Stage, World};

async fn settled<W: World>(s: &mut Stage<W>, leader: Node, group: GroupId, gone: RequestId) {
    s.group_event(leader, group, "a settled request", |event| match event {
        GroupEvent::JoinSettled { request, .. } if *request == gone => Some(()),
        _ => None,
    })
    .await;
}

/// Who goes and who comes in one step: everybody sees both or neither, and a step that fails is
/// named.
pub async fn g19_removals_and_admissions_happen_together_or_not_at_all<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol) = (
        s.join("alice").await,
        s.join("bob").await,
        s.join("carol").await,
    );
    let (dave, erin) = (s.join("dave").await, s.join("erin").await);
    let (group, _) = s.group(&[alice, bob, carol]).await;
    let mut requests = Vec::new();
    for node in [dave, erin] {
        s.knock(node, group).await;
        requests.push(s.knocked(alice, group, node).await);
    }
    let kick = |user: UserId| BatchStep::Kick {
        user,
        reason: "moved on".to_owned(),
    };
    let mut steps: Vec<_> = requests.into_iter().map(BatchStep::Approve).collect();
    steps.push(kick(s.user(bob)));
    let before = s.counts(alice, group, 3).await;
    let stranger = s.user(dave);
    let broken = [&steps[..], &[kick(stranger.clone())]].concat();
    let mixed = [&[BatchStep::HandOver(s.user(carol))], &steps[..]].concat();
    for (batch, step, why) in [
        (broken, 3, GroupError::NoSuchMember { user: stranger }),
        (mixed, 0, GroupError::Mixed),
    ] {
        let refused = s.refused(alice, Command::Apply(group, batch)).await;
        let why = Box::new(why);
        assert_eq!(refused, Refusal::Group(GroupError::InBatch { step, why }));
    }
    let same = s.counts(alice, group, 3).await;
    assert_eq!((same.index, same.roster), (before.index, before.roster));
    s.ask(alice, Command::Apply(group, steps)).await;
    for node in [dave, erin] {
        s.joined(node, group).await;
    }
    s.stands(bob, group, Membership::Kicked).await;
    for node in [alice, carol, dave, erin] {
        let view = s.counts(node, group, 4).await;
        assert_eq!(view.index, before.index + 1, "one entry");
        let users: Vec<_> = view.roster.iter().map(|member| &member.user).collect();
        assert!(!users.contains(&&s.user(bob)));
    }
    for user in [s.user(dave), s.user(erin)] {
        s.changes(carol, group, &Change::Admitted { user }).await;
    }
}

async fn denied<W: World>(s: &mut Stage<W>, node: Node, group: GroupId) -> String {
    s.group_event(node, group, "a refusal", |event| match event {
        GroupEvent::Denied { reason, .. } => Some(reason.clone()),
        _ => None,
    })
    .await
}

/// The creator leads, alone at first, and both sides name the group alike.
pub async fn g1_whoever_creates_a_group_leads_it<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.changes(alice, group, &Change::Created).await;
    s.stands(alice, group, Membership::Leader).await;
    s.admit(alice, group, bob).await;
    s.stands(bob, group, Membership::Member).await;
    let ours = s.counts(alice, group, 2).await;
    let theirs = s.counts(bob, group, 2).await;
    assert_eq!(ours.roster, theirs.roster);
    assert_eq!(ours.name, theirs.name);
    assert_eq!(ours.leader, theirs.leader);
    assert_eq!((ours.round, ours.index), (theirs.round, theirs.index));
    let other = s.create(alice, "friends").await;
    assert_ne!(group, other, "a name names nothing");
}

/// The note is shown, the answer reaches the applicant, everybody is told who came.
pub async fn g14_a_join_request_is_shown_and_approved<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol) = (
        s.join("alice").await,
        s.join("bob").await,
        s.join("carol").await,
    );
    let (group, _) = s.group(&[alice, bob]).await;
    let asked = s.knock(carol, group).await;
    s.stands(carol, group, Membership::Asking).await;
    let shown = s
        .group_event(alice, group, "a join request", |event| match event {
            GroupEvent::JoinRequested { request, .. } => Some(request.clone()),
            _ => None,
        })
        .await;
    assert_eq!(shown.user, s.user(carol));
    assert_eq!(shown.note, "let me in");
    assert_eq!(shown.request, asked);
    s.ask(alice, Command::Approve(group, asked)).await;
    s.joined(carol, group).await;
    let user = s.user(carol);
    for node in [alice, bob, carol] {
        s.changes(node, group, &Change::Admitted { user: user.clone() })
            .await;
    }
    s.refused(alice, Command::Approve(group, asked)).await;
}

/// The reason reaches the applicant, who may ask again.
pub async fn g14_a_denied_applicant_is_told_why<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.knock(bob, group).await;
    let request = s.knocked(alice, group, bob).await;
    let reason = "members only".to_owned();
    s.ask(alice, Command::Deny(group, request, reason)).await;
    assert_eq!(denied(s, bob, group).await, "members only");
    s.stands(bob, group, Membership::Denied).await;
    s.counts(alice, group, 1).await;
    let again = s.knock(bob, group).await;
    assert_ne!(request, again);
    assert_eq!(s.knocked(alice, group, bob).await, again);
    s.ask(alice, Command::Approve(group, again)).await;
    s.joined(bob, group).await;
}

/// The request lies until the leader is back.
pub async fn g14_a_request_waits_for_the_leader<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.stop(alice).await;
    s.knock(bob, group).await;
    s.world.wait(Duration::from_millis(200)).await;
    s.revive(alice).await;
    let request = s.knocked(alice, group, bob).await;
    s.ask(alice, Command::Approve(group, request)).await;
    s.joined(bob, group).await;
}

/// What was shown and not answered is shown again after a restart.
pub async fn g14_a_request_outlives_the_death_of_the_leader<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.knock(bob, group).await;
    let request = s.knocked(alice, group, bob).await;
    s.kill(alice).await;
    s.revive(alice).await;
    assert_eq!(s.knocked(alice, group, bob).await, request);
    s.ask(alice, Command::Approve(group, request)).await;
    s.joined(bob, group).await;
}

/// The applicant dies after asking: it is in when it is back.
pub async fn g14_an_applicant_that_died_is_in_on_return<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.knock(bob, group).await;
    let request = s.knocked(alice, group, bob).await;
    s.kill(bob).await;
    s.ask(alice, Command::Approve(group, request)).await;
    s.world.wait(Duration::from_millis(100)).await;
    s.revive(bob).await;
    s.joined(bob, group).await;
    let conv = group.into();
    s.say(alice, conv, "welcome").await;
    s.hears(bob, &["welcome"]).await;
}

/// A request that was taken back is gone, and cannot be granted.
pub async fn g14_a_withdrawn_request_is_gone<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.knock(bob, group).await;
    let request = s.knocked(alice, group, bob).await;
    s.ask(bob, Command::Withdraw(group)).await;
    settled(s, alice, group, request).await;
    let refusal = s.refused(alice, Command::Approve(group, request)).await;
    assert_eq!(refusal, Refusal::Group(GroupError::NoSuchRequest));
    s.refused(bob, Command::Withdraw(group)).await;
    s.counts(alice, group, 1).await;
}

/// Taken back while it was being granted: in for a moment, and out again.
pub async fn g14_a_withdrawal_that_crosses_the_admission_wins<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.knock(bob, group).await;
    let request = s.knocked(alice, group, bob).await;
    s.cut(bob).await;
    s.ask(bob, Command::Withdraw(group)).await;
    s.ask(alice, Command::Approve(group, request)).await;
    s.mend(bob).await;
    let user = s.user(bob);
    s.changes(alice, group, &Change::Left { user }).await;
    s.counts(alice, group, 1).await;
}

/// Asking twice is one request.
pub async fn g14_asking_twice_is_one_request<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    let first = s.knock(bob, group).await;
    assert_eq!(s.knock(bob, group).await, first);
    assert_eq!(s.knocked(alice, group, bob).await, first);
    s.never(alice, "a second request", |event| {
        let asks = |event: &GroupEvent| matches!(event, GroupEvent::JoinRequested { .. });
        matches!(event, chat_core::Event::Group(event) if asks(event))
    })
    .await;
}

/// Two devices of one person wait as one, and both get in.
pub async fn g14_the_devices_of_one_person_get_in_together<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let (phone, laptop) = (s.join("bob").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.knock(phone, group).await;
    s.knock(laptop, group).await;
    let request = s.knocked(alice, group, phone).await;
    s.looks(alice, group, "for which two devices wait", |view| {
        view.requests.iter().any(|one| one.devices == 2)
    })
    .await;
    s.ask(alice, Command::Approve(group, request)).await;
    s.joined(phone, group).await;
    s.joined(laptop, group).await;
    s.counts(alice, group, 3).await;
    let conv = group.into();
    s.say(alice, conv, "to both").await;
    s.hears(phone, &["to both"]).await;
    s.hears(laptop, &["to both"]).await;
}

/// Nobody answers: both sides forget the request.
pub async fn g14_an_unanswered_request_lapses<W: World>(s: &mut Stage<W>) {
    s.world.config().group.join_ttl = s.lasting(JOIN_TTL, 12);
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.knock(bob, group).await;
    let request = s.knocked(alice, group, bob).await;
    s.group_event(bob, group, "the end of the wait", |event| {
        matches!(event, GroupEvent::JoinExpired { .. }).then_some(())
    })
    .await;
    settled(s, alice, group, request).await;
    s.refused(alice, Command::Approve(group, request)).await;
}

/// What was said before one came is not one's to see, and what is said after is.
pub async fn g16_a_new_member_sees_nothing_from_before<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol) = (
        s.join("alice").await,
        s.join("bob").await,
        s.join("carol").await,
    );
    let (group, conv) = s.group(&[alice, bob]).await;
    s.say_all(alice, conv, "secret", 0..5).await;
    s.hears_all(bob, "secret", 0..5).await;
    s.admit(alice, group, carol).await;
    s.counts(bob, group, 3).await;
    s.say(alice, conv, "welcome").await;
    s.hears(bob, &["welcome"]).await;
    s.hears(carol, &["welcome"]).await;
    s.say(bob, conv, "hi carol").await;
    s.hears(carol, &["hi carol"]).await;
    s.hears_nothing(carol).await;
    let texts = s.texts(carol, conv).await;
    assert!(
        !texts.iter().any(|text| text.contains("secret")),
        "{texts:?}"
    );
}

/// What a member said just before it heard of the newcomer is not the newcomer's.
pub async fn g10_recipients_are_those_that_the_sender_knew<W: World>(s: &mut Stage<W>) {
    let (alice, bob, carol) = (
        s.join("alice").await,
        s.join("bob").await,
        s.join("carol").await,
    );
    let (group, conv) = s.group(&[alice, bob]).await;
    s.cut(bob).await;
    s.say(bob, conv, "among us two").await;
    s.admit(alice, group, carol).await;
    s.mend(bob).await;
    s.hears(alice, &["among us two"]).await;
    s.counts(bob, group, 3).await;
    s.say(bob, conv, "hello carol").await;
    s.hears(carol, &["hello carol"]).await;
    s.hears(alice, &["hello carol"]).await;
    s.hears_nothing(carol).await;
}

/// One that was kicked may ask again; it comes back as a new member, and missed what it missed.
pub async fn g17_who_was_kicked_may_ask_again<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let (group, conv) = s.group(&[alice, bob]).await;
    let since = s.counts(alice, group, 2).await.roster[1].since;
    let (user, reason) = (s.user(bob), "spam".to_owned());
    s.ask(
        alice,
        Command::Kick {
            group,
            user,
            reason,
        },
    )
    .await;
    s.stands(bob, group, Membership::Kicked).await;
    s.say(alice, conv, "now that he is gone").await;
    s.admit(alice, group, bob).await;
    let again = s.counts(alice, group, 2).await.roster[1].since;
    assert!(again > since, "nothing of the old membership is kept");
    s.say(alice, conv, "welcome back").await;
    s.hears(bob, &["welcome back"]).await;
    s.hears_nothing(bob).await;
}

/// The request leaves when the applicant is back on the network.
pub async fn g14_a_request_made_offline_is_sent_on_return<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let group = s.create(alice, "friends").await;
    s.cut(bob).await;
    s.knock(bob, group).await;
    s.world.wait(Duration::from_millis(50)).await;
    s.kill(bob).await;
    s.world.fault(Fault::Revive(bob)).await;
    s.mend(bob).await;
    let request = s.knocked(alice, group, bob).await;
    s.ask(alice, Command::Approve(group, request)).await;
    s.joined(bob, group).await;
}
