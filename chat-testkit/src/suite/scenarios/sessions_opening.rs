//! How sessions come about: requests, glare, acceptance, several devices (S1, S7–S10).

use std::time::Duration;

use chat_core::session::{CloseReason, Rejection, SessionState};

use crate::suite::stage::is_prompt;
use crate::suite::{Command, Fault, INVITE_TTL, Stage, World};

/// Both asked, so both consented: no second prompt, one conversation, one private channel.
pub async fn s1_crossing_requests_open_one_session_without_a_prompt<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.request(alice, bob).await;
    s.request(bob, alice).await;
    let conv = s.opened(alice, bob).await;
    assert_eq!(conv, s.opened(bob, alice).await);
    s.say(alice, conv, "both asked").await;
    s.hears(bob, &["both asked"]).await;
    s.never(alice, "a prompt", is_prompt).await;
    assert_eq!(s.channel(alice, bob).await, s.channel(bob, alice).await);
}

/// Neither heard of the other's request before both came back.
pub async fn s1_crossing_requests_of_two_who_were_cut_off_open_one_session<W: World>(
    s: &mut Stage<W>,
) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.cut(alice).await;
    s.cut(bob).await;
    s.request(alice, bob).await;
    s.request(bob, alice).await;
    s.mend(alice).await;
    s.mend(bob).await;
    let conv = s.opened(alice, bob).await;
    s.opened(bob, alice).await;
    s.say(bob, conv, "we meant the same").await;
    s.hears(alice, &["we meant the same"]).await;
    s.never(alice, "a prompt", is_prompt).await;
    s.never(bob, "a prompt", is_prompt).await;
    assert_eq!(s.channel(alice, bob).await, s.channel(bob, alice).await);
}

/// Whoever asks the one that asks has said yes.
pub async fn s1_asking_back_is_accepting<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    assert_eq!(s.request(bob, alice).await, invite);
    let conv = s.opened(alice, bob).await;
    s.opened(bob, alice).await;
    s.never(alice, "a prompt", is_prompt).await;
    s.say(bob, conv, "yes").await;
    s.hears(alice, &["yes"]).await;
}

/// The answer is durable before it leaves, and is given again in the next life.
pub async fn s7_an_accept_outlives_the_death_of_who_said_it<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.world.fault(Fault::Cut(bob)).await;
    s.ask(bob, Command::Accept(invite)).await;
    s.opened(bob, alice).await;
    s.kill(bob).await;
    s.world.fault(Fault::Revive(bob)).await;
    s.mend(bob).await;
    let conv = s.opened(bob, alice).await;
    assert_eq!(conv, s.opened(alice, bob).await);
    s.say(bob, conv, "still yes").await;
    s.hears(alice, &["still yes"]).await;
}

/// The answer reaches the requester's next life.
pub async fn s7_an_accept_waits_for_a_requester_that_died<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.kill(alice).await;
    s.ask(bob, Command::Accept(invite)).await;
    let conv = s.opened(bob, alice).await;
    s.say(bob, conv, "are you there?").await;
    s.revive(alice).await;
    assert_eq!(conv, s.opened(alice, bob).await);
    s.hears(alice, &["are you there?"]).await;
}

/// A request that never left is made in the next life.
pub async fn s7_a_request_outlives_the_death_of_the_requester<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.cut(alice).await;
    let invite = s.request(alice, bob).await;
    // Durable before it could leave.
    s.world.wait(Duration::from_millis(50)).await;
    s.kill(alice).await;
    s.world.fault(Fault::Revive(alice)).await;
    s.mend(alice).await;
    assert_eq!(invite, s.shown(bob, alice).await);
    s.ask(bob, Command::Accept(invite)).await;
    s.opened(alice, bob).await;
}

/// The other devices take their prompt away, and may not answer any more.
pub async fn s8_the_first_device_to_accept_settles_the_others<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let (phone, laptop) = (s.join("bob").await, s.join("bob").await);
    let invite = s.requested(alice, phone).await;
    s.shown(laptop, alice).await;
    s.ask(phone, Command::Accept(invite)).await;
    let conv = s.opened(alice, phone).await;
    let why = s.withdrawn(laptop, invite).await;
    assert_eq!(why, CloseReason::AnsweredElsewhere { accepted: true });
    s.refused(laptop, Command::Accept(invite)).await;
    s.say(alice, conv, "to the phone").await;
    s.hears(phone, &["to the phone"]).await;
    s.hears_nothing(laptop).await;
}

/// Neither knew of the other: both said yes, and both hear everything.
pub async fn s8_two_devices_that_accept_at_once_are_both_joined<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let (phone, laptop) = (s.join("bob").await, s.join("bob").await);
    let invite = s.requested(alice, phone).await;
    s.shown(laptop, alice).await;
    s.cut(phone).await;
    s.cut(laptop).await;
    s.ask(phone, Command::Accept(invite)).await;
    s.ask(laptop, Command::Accept(invite)).await;
    s.mend(phone).await;
    s.mend(laptop).await;
    let conv = s.opened(phone, alice).await;
    s.opened(laptop, alice).await;
    let bob = s.user(phone);
    loop {
        // Told again when the second device joins.
        s.opened(alice, phone).await;
        if let SessionState::Active { devices, .. } = s.world.session(alice, &bob).await
            && devices.len() == 2
        {
            break;
        }
    }
    s.say(alice, conv, "to both").await;
    s.hears(phone, &["to both"]).await;
    s.hears(laptop, &["to both"]).await;
}

/// One refusal is enough.
pub async fn s8_a_told_rejection_settles_the_other_devices<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let (phone, laptop) = (s.join("bob").await, s.join("bob").await);
    let invite = s.requested(alice, phone).await;
    s.shown(laptop, alice).await;
    let reason = "not now".to_owned();
    let no = Command::Reject(invite, Rejection::Told { reason });
    s.ask(phone, no).await;
    let why = s.withdrawn(laptop, invite).await;
    assert_eq!(why, CloseReason::AnsweredElsewhere { accepted: false });
    s.refused(laptop, Command::Accept(invite)).await;
}

/// It is shown on return, and can be answered although the requester went meanwhile.
pub async fn s9_a_request_waits_for_who_is_away<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.stop(bob).await;
    let invite = s.request(alice, bob).await;
    s.world.wait(Duration::from_millis(200)).await;
    s.stop(alice).await;
    s.revive(bob).await;
    s.meet(alice).await;
    assert_eq!(invite, s.shown(bob, alice).await);
    s.ask(bob, Command::Accept(invite)).await;
    s.opened(bob, alice).await;
    if s.has_mailbox() {
        s.revive(alice).await;
    }
    let conv = s.opened(alice, bob).await;
    s.say(alice, conv, "at last").await;
    s.hears(bob, &["at last"]).await;
}

/// The cancel is applied before anything is shown.
pub async fn s9_a_cancelled_request_is_never_shown_to_who_was_away<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.stop(bob).await;
    let invite = s.request(alice, bob).await;
    s.world.wait(Duration::from_millis(300)).await;
    s.ask(alice, Command::Cancel(invite)).await;
    assert_eq!(s.closed(alice, bob).await, CloseReason::Cancelled);
    s.revive(bob).await;
    s.never(bob, "a request that was taken back", is_prompt)
        .await;
}

/// The prompt comes back until it is answered.
pub async fn s9_an_unanswered_request_is_told_again_after_a_restart<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.kill(bob).await;
    s.revive(bob).await;
    assert_eq!(invite, s.shown(bob, alice).await);
    s.ask(bob, Command::Accept(invite)).await;
    s.opened(alice, bob).await;
    s.kill(bob).await;
    s.revive(bob).await;
    s.never(bob, "a prompt for what was answered", is_prompt)
        .await;
}

/// A request that lay in the mailbox for longer than it stands says nothing.
pub async fn s9_a_request_that_outlived_its_time_is_never_shown<W: World>(s: &mut Stage<W>) {
    let ttl = s.lasting(INVITE_TTL, 8);
    s.world.config().session.invite_ttl = ttl;
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.stop(bob).await;
    s.request(alice, bob).await;
    s.world.wait(ttl / 2).await;
    s.stop(alice).await;
    s.world.wait(ttl).await;
    s.revive(bob).await;
    s.never(bob, "a request of long ago", is_prompt).await;
}

/// The pair names the conversation, the request's secret names the channel.
pub async fn s10_a_new_session_has_a_new_private_channel<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    let first = s.channel(alice, bob).await;
    assert_eq!(first, s.channel(bob, alice).await);
    let (peer, reason) = (s.user(bob), "bye".to_owned());
    s.ask(alice, Command::Close { peer, reason }).await;
    s.closed(bob, alice).await;
    assert_eq!(conv, s.chat(bob, alice).await);
    let second = s.channel(alice, bob).await;
    assert_eq!(second, s.channel(bob, alice).await);
    assert_ne!(first, second);
    s.say(alice, conv, "hello again").await;
    s.hears(bob, &["hello again"]).await;
}

/// What was said and lost with the first session does not turn up in the second.
pub async fn s10_a_message_on_the_way_through_the_old_channel_is_not_mixed_in<W: World>(
    s: &mut Stage<W>,
) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    s.cut(bob).await;
    s.say(alice, conv, "into the old channel").await;
    s.world.wait(Duration::from_millis(50)).await;
    let (peer, reason) = (s.user(bob), String::new());
    s.ask(alice, Command::Close { peer, reason }).await;
    s.mend(bob).await;
    s.closed(bob, alice).await;
    let heard = s.kept(bob, |event| match event {
        chat_core::Event::Delivery(chat_core::delivery::DeliveryEvent::Received(m)) => {
            Some(m.clone())
        }
        _ => None,
    });
    s.forget(bob);
    s.chat(bob, alice).await;
    s.say(alice, conv, "into the new channel").await;
    s.hears(bob, &["into the new channel"]).await;
    // It arrived before the end, or never.
    assert!(heard.len() <= 1);
    s.hears_nothing(bob).await;
}
