//! Negotiation and resume (rules S1–S15).

use chat_core::Event;
use chat_core::session::{SessionEvent, SessionState};

use crate::suite::{Command, Stage, World};

fn is_prompt(event: &Event) -> bool {
    matches!(event, Event::Session(SessionEvent::Requested { .. }))
}

/// Both asked, so both consented: no second prompt, one conversation, one private channel.
pub async fn s1_crossing_requests_open_one_session_without_a_prompt<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let (to_bob, to_alice) = (s.user(bob), s.user(alice));
    s.ask(
        alice,
        Command::Request {
            peer: to_bob.clone(),
            note: String::new(),
        },
    )
    .await;
    s.ask(
        bob,
        Command::Request {
            peer: to_alice.clone(),
            note: String::new(),
        },
    )
    .await;
    let conv = s.opened(alice, bob).await;
    assert_eq!(conv, s.opened(bob, alice).await);
    s.never(alice, "a prompt", is_prompt).await;
    s.say(alice, conv, "both asked").await;
    s.hears(bob, &["both asked"]).await;
    let channel = |state| match state {
        SessionState::Active { channel, .. } => channel,
        other => panic!("the session is {other:?}"),
    };
    let ours = channel(s.world.session(alice, &to_bob).await);
    assert_eq!(ours, channel(s.world.session(bob, &to_alice).await));
}

/// The invitee's prompt goes away, and accepting it then is refused.
pub async fn s2_a_cancelled_request_is_withdrawn<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.ask(alice, Command::Cancel(invite)).await;
    s.expect(bob, "the withdrawal", |event| match event {
        Event::Session(SessionEvent::Withdrawn { invite: gone, .. }) if *gone == invite => Some(()),
        _ => None,
    })
    .await;
    s.refused(bob, Command::Accept(invite)).await;
}
