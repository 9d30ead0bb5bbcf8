//! How requests and sessions end: cancel, expiry, rejection, block, close (S2–S6, S15).

use std::time::Duration;

use chat_core::Event;
use chat_core::delivery::{Ack, FailReason};
use chat_core::event::{IdentityEvent, SessionEvent};
use chat_core::session::{CloseReason, Rejection, RequestError, SessionState};
use chat_core::time::Timestamp;

use crate::suite::stage::is_prompt;
use crate::suite::{Command, INVITE_TTL, Node, Refusal, Stage, World};

fn told(reason: &str) -> Rejection {
    let reason = reason.to_owned();
    Rejection::Told { reason }
}

/// The invitee's prompt goes away, and accepting it then is refused.
pub async fn s2_a_cancelled_request_is_withdrawn<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.ask(alice, Command::Cancel(invite)).await;
    assert_eq!(s.withdrawn(bob, invite).await, CloseReason::Cancelled);
    s.refused(bob, Command::Accept(invite)).await;
}

/// The requester's record decides: who accepted meanwhile leaves again.
pub async fn s2_a_cancel_that_crosses_the_accept_wins<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.cut(bob).await;
    s.ask(alice, Command::Cancel(invite)).await;
    s.ask(bob, Command::Accept(invite)).await;
    s.opened(bob, alice).await;
    s.mend(bob).await;
    assert_eq!(s.closed(bob, alice).await, CloseReason::Cancelled);
    s.never(alice, "a session that it cancelled", |event| {
        use chat_core::event::SessionEvent;
        matches!(event, Event::Session(SessionEvent::Opened { .. }))
    })
    .await;
}

/// Messages sent meanwhile come back as failed.
pub async fn s2_what_was_said_in_a_session_that_never_was_fails<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.cut(bob).await;
    s.ask(alice, Command::Cancel(invite)).await;
    s.ask(bob, Command::Accept(invite)).await;
    let conv = s.opened(bob, alice).await;
    let id = s.say(bob, conv, "thanks for asking").await;
    s.mend(bob).await;
    assert_eq!(s.fails(bob, id).await, FailReason::Gone);
    s.hears_nothing(alice).await;
}

/// Nobody answers.
pub async fn s3_a_request_expires_on_both_sides<W: World>(s: &mut Stage<W>) {
    s.world.config().session.invite_ttl = s.lasting(INVITE_TTL, 12);
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    assert_eq!(s.closed(alice, bob).await, CloseReason::Expired);
    assert_eq!(s.withdrawn(bob, invite).await, CloseReason::Expired);
    s.refused(bob, Command::Accept(invite)).await;
    // Asking again is a new request.
    assert_ne!(invite, s.requested(alice, bob).await);
}

/// The requester decides, whatever the invitee believed.
pub async fn s3_an_accept_after_the_time_opens_nothing<W: World>(s: &mut Stage<W>) {
    let ttl = s.lasting(INVITE_TTL, 16);
    s.world.config().session.invite_ttl = ttl;
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.world.wait(ttl / 4).await;
    s.cut(bob).await;
    s.ask(bob, Command::Accept(invite)).await;
    s.opened(bob, alice).await;
    assert_eq!(s.closed(alice, bob).await, CloseReason::Expired);
    s.mend(bob).await;
    assert_eq!(s.closed(bob, alice).await, CloseReason::Expired);
}

async fn story<W: World>(s: &mut Stage<W>, at: Node, about: Node) -> (SessionState, usize) {
    let other = s.user(about);
    s.hold(at).await;
    let events = s.kept(at, |event| {
        format!("{event:?}").contains(other.as_str()).then_some(())
    });
    (s.world.session(at, &other).await, events.len())
}

/// Nothing that the requester can see differs from a request that nobody looked at.
pub async fn s4_a_silent_rejection_looks_like_not_seen<W: World>(s: &mut Stage<W>) {
    let alice = s.join("alice").await;
    let (bob, carol) = (s.join("bobby").await, s.join("carol").await);
    s.forget(alice);
    let to_bob = s.requested(alice, bob).await;
    let to_carol = s.requested(alice, carol).await;
    s.ask(bob, Command::Reject(to_bob, Rejection::Silent)).await;
    s.world.wait(Duration::from_secs(2)).await;
    let (state, events) = story(s, alice, bob).await;
    assert_eq!(state, SessionState::Inviting { invite: to_bob });
    let unseen = story(s, alice, carol).await;
    assert_eq!(unseen.0, SessionState::Inviting { invite: to_carol });
    assert_eq!(events, unseen.1, "the rejection showed");
    // Neither of them is there for her.
    for who in [bob, carol] {
        let user = s.user(who);
        let view = s.world.presence(alice, &user).await;
        assert!(view.is_none_or(|view| !view.status.is_here()));
    }
    s.refused(bob, Command::Accept(to_bob)).await;
}

/// Whoever wants to be told is told.
pub async fn s4_a_told_rejection_gives_the_reason<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.ask(bob, Command::Reject(invite, told("busy"))).await;
    let reason = "busy".to_owned();
    assert_eq!(s.closed(alice, bob).await, CloseReason::Rejected { reason });
    s.refused(bob, Command::Accept(invite)).await;
    s.refused(alice, Command::Cancel(invite)).await;
}

/// The requester learns it on return.
pub async fn s4_a_told_rejection_waits_for_who_is_away<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.kill(alice).await;
    s.ask(bob, Command::Reject(invite, told("no"))).await;
    s.world.wait(Duration::from_millis(100)).await;
    s.revive(alice).await;
    let reason = "no".to_owned();
    assert_eq!(s.closed(alice, bob).await, CloseReason::Rejected { reason });
}

/// One may block somebody whom one never met.
pub async fn s5_a_block_before_any_contact_shows_nothing<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let stranger = s.user(alice);
    s.ask(bob, Command::Block(stranger)).await;
    let invite = s.request(alice, bob).await;
    s.never(bob, "a request of who is blocked", is_prompt).await;
    let user = s.user(bob);
    assert_eq!(
        s.world.session(alice, &user).await,
        SessionState::Inviting { invite },
        "the block showed"
    );
}

/// The blocked one talks into the void and is not told.
pub async fn s5_a_block_ends_the_session_without_a_word<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    s.say(alice, conv, "before").await;
    s.hears(bob, &["before"]).await;
    let pest = s.user(alice);
    s.ask(bob, Command::Block(pest)).await;
    assert_eq!(s.closed(bob, alice).await, CloseReason::Blocked);
    s.forget(alice);
    let id = s.say(alice, conv, "after").await;
    s.hears_nothing(bob).await;
    let user = s.user(bob);
    s.never(alice, "a sign of the block", |event| match event {
        Event::Session(_) => true,
        Event::Delivery(chat_core::delivery::DeliveryEvent::Progress { id: told, ack }) => {
            *told == id && *ack >= Ack::Delivered
        }
        _ => false,
    })
    .await;
    assert!(matches!(
        s.world.session(alice, &user).await,
        SessionState::Active { .. }
    ));
}

/// Nothing is held against who is unblocked: its request, still standing, is shown.
pub async fn s5_who_is_unblocked_can_ask_again<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let stranger = s.user(alice);
    s.ask(bob, Command::Block(stranger.clone())).await;
    let invite = s.request(alice, bob).await;
    s.never(bob, "a request of who is blocked", is_prompt).await;
    s.ask(bob, Command::Unblock(stranger)).await;
    assert_eq!(s.shown(bob, alice).await, invite);
    s.ask(bob, Command::Accept(invite)).await;
    s.opened(alice, bob).await;
}

/// Asking again is refused; returns until when.
async fn cool_down<W: World>(s: &mut Stage<W>, from: Node, to: Node) -> Timestamp {
    let command = Command::Request {
        peer: s.user(to),
        note: String::new(),
    };
    let refusal = s.refused(from, command).await;
    match refusal {
        Refusal::Request(RequestError::CoolingDown { until }) => until,
        other => panic!("{other:?}"),
    }
}

/// Asking again at once is refused; being asked by the other one is not.
pub async fn s6_who_was_refused_must_wait<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let invite = s.requested(alice, bob).await;
    s.ask(bob, Command::Reject(invite, told("no"))).await;
    s.closed(alice, bob).await;
    cool_down(s, alice, bob).await;
    let invite = s.requested(bob, alice).await;
    s.ask(alice, Command::Accept(invite)).await;
    s.opened(bob, alice).await;
}

/// Each begins when the one before is over, and lasts twice as long.
pub async fn s6_the_cool_down_doubles_with_every_refusal<W: World>(s: &mut Stage<W>) {
    let first = s.lasting(Duration::from_secs(30), 5);
    s.world.config().session.cool_down = first;
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let mut ends = Vec::new();
    for wait in [first, 2 * first] {
        let invite = s.requested(alice, bob).await;
        s.ask(bob, Command::Reject(invite, told("no"))).await;
        s.closed(alice, bob).await;
        ends.push(cool_down(s, alice, bob).await);
        s.world.wait(wait + Duration::from_secs(1)).await;
    }
    s.requested(alice, bob).await;
    let between = ends[1].saturating_since(ends[0]);
    assert!(between >= 2 * first, "{ends:?}");
}

/// The pair has one conversation for ever (ID1), and its screen goes on.
pub async fn s6_a_new_session_of_the_same_pair_is_the_same_conversation<W: World>(
    s: &mut Stage<W>,
) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    s.say(alice, conv, "first").await;
    s.hears(bob, &["first"]).await;
    let (peer, reason) = (s.user(alice), "later".to_owned());
    s.ask(bob, Command::Close { peer, reason }).await;
    let by = s.user(bob);
    let reason = "later".to_owned();
    assert_eq!(s.closed(alice, bob).await, CloseReason::Left { by, reason });
    assert_eq!(s.chat(alice, bob).await, conv);
    s.say(alice, conv, "second").await;
    s.hears(bob, &["second"]).await;
    assert_eq!(s.texts(bob, conv).await, ["first", "second"]);
}

/// A closed session takes no messages, and what was said stays.
pub async fn s15_closing_keeps_the_history<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    s.say(alice, conv, "keep this").await;
    s.hears(bob, &["keep this"]).await;
    assert_eq!(s.texts(bob, conv).await, ["keep this"]);
    let (peer, reason) = (s.user(bob), String::new());
    s.ask(alice, Command::Close { peer, reason }).await;
    s.closed(alice, bob).await;
    s.closed(bob, alice).await;
    for node in [alice, bob] {
        let txn = s.txn();
        let content = chat_core::content::Content::text("too late");
        s.refused(node, Command::Send { conv, txn, content }).await;
        assert_eq!(s.texts(node, conv).await, ["keep this"]);
    }
}

/// The sender learns that nobody will read it.
pub async fn q15_what_was_queued_for_a_closed_session_fails_as_gone<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    s.cut(bob).await;
    let first = s.say(bob, conv, "one").await;
    let second = s.say(bob, conv, "two").await;
    let (peer, reason) = (s.user(bob), "moving on".to_owned());
    s.ask(alice, Command::Close { peer, reason }).await;
    s.mend(bob).await;
    assert_eq!(s.fails(bob, first).await, FailReason::Gone);
    assert_eq!(s.fails(bob, second).await, FailReason::Gone);
    s.hears_nothing(alice).await;
}

/// Who was away learns on return who left, and in which words.
pub async fn s7_a_close_waits_for_who_is_away<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    s.chat(alice, bob).await;
    s.stop(bob).await;
    let (peer, reason) = (s.user(bob), "goodbye".to_owned());
    s.ask(alice, Command::Close { peer, reason }).await;
    s.closed(alice, bob).await;
    s.world.wait(Duration::from_millis(100)).await;
    s.stop(alice).await;
    s.revive(bob).await;
    s.meet(alice).await;
    let (by, reason) = (s.user(alice), "goodbye".to_owned());
    assert_eq!(s.closed(bob, alice).await, CloseReason::Left { by, reason });
}

/// Waits until `node` hears from another of its devices that `peer` is blocked, or no longer.
async fn block_changes<W: World>(s: &mut Stage<W>, node: Node, peer: Node, wanted: bool) {
    let user = s.user(peer);
    s.expect(node, "the word of the other device", |event| match event {
        Event::Session(SessionEvent::BlockChanged { peer, blocked })
            if *peer == user && *blocked == wanted =>
        {
            Some(())
        }
        _ => None,
    })
    .await;
}

/// Blocked on one device is blocked on all, and so is the end of it; the other side learns nothing.
pub async fn s5_a_block_holds_on_all_devices<W: World>(s: &mut Stage<W>) {
    let (phone, laptop) = (s.join("alice").await, s.join("alice").await);
    let bob = s.join("bob").await;
    let user = s.user(bob);
    s.ask(phone, Command::Block(user.clone())).await;
    block_changes(s, laptop, bob, true).await;
    s.request(bob, laptop).await;
    s.never(laptop, "a request of the blocked", is_prompt).await;
    s.never(phone, "a request of the blocked", is_prompt).await;
    s.never(bob, "any answer", |event| {
        matches!(event, Event::Session(_))
    })
    .await;
    s.ask(laptop, Command::Unblock(user)).await;
    block_changes(s, phone, bob, false).await;
    // His request still stands and is repeated.
    s.shown(phone, bob).await;
}

/// A device that was away, and one that is new, learn of the block all the same.
pub async fn s5_a_block_reaches_a_device_that_was_away<W: World>(s: &mut Stage<W>) {
    let (phone, laptop) = (s.join("alice").await, s.join("alice").await);
    let bob = s.join("bob").await;
    s.chat(bob, laptop).await;
    s.stop(laptop).await;
    let user = s.user(bob);
    s.ask(phone, Command::Block(user)).await;
    s.world.wait(Duration::from_millis(200)).await;
    s.revive(laptop).await;
    block_changes(s, laptop, bob, true).await;
    assert_eq!(s.closed(laptop, bob).await, CloseReason::Blocked);
    let tablet = s.join("alice").await;
    block_changes(s, tablet, bob, true).await;
}

/// A device that is not trusted any more is out of the session, and nothing it says is heard.
pub async fn s8_a_distrusted_device_is_out_of_the_session<W: World>(s: &mut Stage<W>) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    let user = s.user(bob);
    let SessionState::Active { devices, .. } = s.world.session(alice, &user).await else {
        panic!("the session is open");
    };
    s.ask(alice, Command::Distrust(user.clone(), devices[0]))
        .await;
    assert_eq!(s.closed(alice, bob).await, CloseReason::Distrusted);
    s.expect(alice, "the word of the pins", |event| match event {
        Event::Identity(IdentityEvent::Distrusted { user: whose, .. }) if *whose == user => {
            Some(())
        }
        _ => None,
    })
    .await;
    s.closed(bob, alice).await;
    s.request(bob, alice).await;
    s.never(alice, "a request of the distrusted", is_prompt)
        .await;
    // Also after a restart, and until it is trusted again.
    s.stop(alice).await;
    s.revive(alice).await;
    s.never(alice, "a request of the distrusted", is_prompt)
        .await;
    s.ask(alice, Command::Trust(user, devices[0])).await;
    let invite = s.shown(alice, bob).await;
    s.ask(alice, Command::Accept(invite)).await;
    assert_eq!(s.opened(alice, bob).await, conv);
}
