//! Bounds, hostile input, damaged rows.

use core::time::Duration;

#[cfg(feature = "probe")]
use super::world::World;
use crate::channel::Channel;
use crate::config::SessionConfig;
use crate::effect::{Effect, Row, Table};
use crate::id::{DeviceId, InviteId, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::session::{
    AnswerError, CloseReason, Rejection, RequestError, SessionEvent, SessionState, Sessions,
};
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire::session as wire;
use crate::wire::{Body, BoundedStr, BoundedVec};

const DAY: u64 = 86_400_000;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn sender(name: &str, device: u8) -> Sender {
    Sender {
        user: user(name),
        device: DeviceId([device; 32]),
    }
}

fn now() -> Now {
    Now {
        mono: Timestamp::from_secs(10),
        wall: UnixMillis(1_000 * DAY),
    }
}

fn later(by: Duration) -> Now {
    Now {
        mono: now().mono + by,
        wall: now().wall.plus(by),
    }
}

/// The machine of user `me`, connected and caught up.
fn machine(config: SessionConfig) -> Sessions {
    let mut sessions = Sessions::new(sender("me", 1), config, Rng::from_seed([1; 32]));
    sessions.handle_up(now());
    sessions.handle_caught_up(now());
    sessions
}

fn request(invite: u8) -> wire::Request {
    wire::Request {
        invite: [invite; 16],
        secret: [invite; 32],
        to: BoundedStr::truncated("me"),
        note: BoundedStr::default(),
        ttl_ms: DAY,
        sent_at: now().wall.0,
    }
}

/// A machine whose peer asked and was accepted.
fn accepted(config: SessionConfig) -> (Sessions, Sender) {
    let mut sessions = machine(config);
    let peer = sender("peer", 2);
    sessions.handle_frame(&peer, &request(7).into(), now());
    sessions
        .accept(InviteId([7; 16]), now())
        .expect("it stands");
    (sessions, peer)
}

fn effects(sessions: &mut Sessions) -> Vec<Effect<SessionEvent>> {
    core::iter::from_fn(|| sessions.effects().pop()).collect()
}

fn sent(sessions: &mut Sessions) -> Vec<Body> {
    let sends = effects(sessions).into_iter().filter_map(|e| match e {
        Effect::Send(frame) => Some(frame.body),
        _ => None,
    });
    sends.collect()
}

fn bounded(max_peers: usize, max_pending: usize) -> SessionConfig {
    SessionConfig {
        max_peers,
        max_pending,
        ..SessionConfig::default()
    }
}

#[test]
fn strangers_requests_are_bounded_and_the_newest_is_refused_without_a_word() {
    let mut sessions = machine(bounded(100, 2));
    for (i, name) in ["p", "q", "r"].into_iter().enumerate() {
        let body = request(u8::try_from(i).unwrap()).into();
        assert!(sessions.handle_frame(&sender(name, 9), &body, now()));
    }
    assert_eq!(sessions.state(&user("r")), SessionState::Idle);
    assert_eq!(sessions.refused(), 1);
    assert_eq!(sessions.iter().count(), 2);
    assert_eq!(sent(&mut sessions), []);
    // An answer makes room.
    let silent = Rejection::Silent;
    sessions.reject(InviteId([0; 16]), &silent, now()).unwrap();
    assert!(sessions.handle_frame(&sender("r", 9), &request(2).into(), now()));
    assert!(matches!(
        sessions.state(&user("r")),
        SessionState::Invited { .. }
    ));
}

#[test]
fn the_table_is_bounded_and_only_idle_strangers_make_room() {
    let mut sessions = machine(bounded(2, 2));
    sessions.request(&user("friend"), "", now()).unwrap();
    // A stranger that only left a tombstone is evicted for the next one.
    let cancel = |i: u8| Body::from(wire::Cancel { invite: [i; 16] });
    assert!(sessions.handle_frame(&sender("p", 9), &cancel(1), now()));
    assert!(sessions.handle_frame(&sender("q", 9), &request(2).into(), now()));
    assert!(sessions.peers.record(&user("p")).is_none());
    // Now both places are taken by something under way.
    let full = RequestError::TooManyPeers { max: 2 };
    assert_eq!(sessions.request(&user("r"), "", now()), Err(full));
    effects(&mut sessions);
    assert!(sessions.handle_frame(&sender("r", 9), &request(3).into(), now()));
    assert_eq!(sessions.refused(), 1);
    assert_eq!(effects(&mut sessions), []);
    // A block always fits.
    sessions.block(&user("s"), now());
    assert!(sessions.is_blocked(&user("s")));
}

#[test]
fn a_row_of_an_evicted_record_is_deleted() {
    let mut sessions = machine(bounded(1, 1));
    let cancel = Body::from(wire::Cancel { invite: [1; 16] });
    sessions.handle_frame(&sender("p", 9), &cancel, now());
    effects(&mut sessions);
    sessions.request(&user("q"), "", now()).unwrap();
    let deleted = effects(&mut sessions).into_iter().any(
        |e| matches!(e, Effect::Row(crate::effect::RowOp::Delete { key, .. }) if &key[..] == b"p"),
    );
    assert!(deleted);
}

#[test]
fn a_request_for_somebody_else_makes_no_sense() {
    let mut sessions = machine(SessionConfig::default());
    let mut body = request(1);
    body.to = BoundedStr::truncated("other");
    assert!(!sessions.handle_frame(&sender("p", 9), &body.into(), now()));
    assert_eq!(effects(&mut sessions), []);
}

#[test]
fn an_id_in_use_by_another_peer_is_refused() {
    let mut sessions = machine(SessionConfig::default());
    assert!(sessions.handle_frame(&sender("p", 8), &request(1).into(), now()));
    assert!(!sessions.handle_frame(&sender("thief", 9), &request(1).into(), now()));
    sessions.accept(InviteId([1; 16]), now()).unwrap();
    assert_eq!(sessions.state(&user("thief")), SessionState::Idle);
    assert!(sessions.is_joined(&sender("p", 8)));
}

#[test]
fn s9_no_claim_keeps_a_request_alive_for_more_than_thirty_days() {
    for sent_at in [0, now().wall.0, u64::MAX] {
        let mut sessions = machine(SessionConfig::default());
        let mut body = request(1);
        body.ttl_ms = u64::MAX;
        body.sent_at = sent_at;
        assert!(sessions.handle_frame(&sender("p", 9), &body.into(), now()));
        let shown = sent_at != 0;
        let state = sessions.state(&user("p"));
        assert_eq!(matches!(state, SessionState::Invited { .. }), shown);
        sessions.handle_timeout(later(Duration::from_millis(30 * DAY)));
        assert_eq!(sessions.state(&user("p")), SessionState::Idle);
        assert_eq!(sessions.poll_timeout(), None);
    }
}

#[test]
fn s9_a_request_without_a_lifetime_is_not_shown() {
    let mut sessions = machine(SessionConfig::default());
    let mut body = request(1);
    body.ttl_ms = 0;
    assert!(sessions.handle_frame(&sender("p", 9), &body.into(), now()));
    assert_eq!(effects(&mut sessions), []);
}

#[test]
fn strangers_get_no_answer_to_anything() {
    let mut sessions = machine(SessionConfig::default());
    let invite = [7; 16];
    let frames: [Body; 7] = [
        wire::Accept {
            invite,
            inviter: [1; 32],
            over: Some([8; 16]),
        }
        .into(),
        wire::Confirm {
            invite,
            joined: BoundedVec::take_from([[1; 32]]),
        }
        .into(),
        wire::Reject {
            invite,
            reason: BoundedStr::default(),
        }
        .into(),
        wire::Cancel { invite }.into(),
        wire::Gone { invite, why: 77 }.into(),
        wire::Close {
            invite,
            reason: BoundedStr::default(),
        }
        .into(),
        wire::CloseAck { invite }.into(),
    ];
    for body in &frames {
        sessions.handle_frame(&sender("p", 9), body, now());
    }
    let conv = crate::id::ConvId::between(&user("me"), &user("p"));
    sessions.handle_stray(&sender("p", 9), conv, now());
    assert_eq!(sent(&mut sessions), []);
    assert_eq!(sessions.state(&user("p")), SessionState::Idle);
}

#[test]
fn s8_elsewhere_is_believed_only_from_our_own_other_devices() {
    let mut sessions = machine(SessionConfig::default());
    sessions.handle_frame(&sender("p", 9), &request(1).into(), now());
    let elsewhere = Body::from(wire::Elsewhere {
        peer: BoundedStr::truncated("p"),
        invite: [1; 16],
        accepted: true,
    });
    let invited = SessionState::Invited {
        invite: InviteId([1; 16]),
    };
    assert!(!sessions.handle_frame(&sender("p", 9), &elsewhere, now()));
    assert_eq!(sessions.state(&user("p")), invited);
    // Our own frame comes back.
    assert!(sessions.handle_frame(&sender("me", 1), &elsewhere, now()));
    assert_eq!(sessions.state(&user("p")), invited);
    assert!(sessions.handle_frame(&sender("me", 2), &elsewhere, now()));
    let why = CloseReason::AnsweredElsewhere { accepted: true };
    assert_eq!(sessions.state(&user("p")), SessionState::Closed(why));
    // Nothing else makes sense among our own devices.
    assert!(!sessions.handle_frame(&sender("me", 2), &request(3).into(), now()));
}

#[test]
fn s8_a_device_beyond_the_bound_leaves() {
    let mut sessions = machine(SessionConfig::default());
    sessions.handle_frame(&sender("p", 9), &request(1).into(), now());
    sessions.accept(InviteId([1; 16]), now()).unwrap();
    let confirm = Body::from(wire::Confirm {
        invite: [1; 16],
        joined: BoundedVec::take_from((100..116).map(|d| [d; 32])),
    });
    // Only the device that asked may say so.
    assert!(!sessions.handle_frame(&sender("p", 8), &confirm, now()));
    assert!(sessions.is_joined(&sender("p", 9)));
    assert!(sessions.handle_frame(&sender("p", 9), &confirm, now()));
    let why = CloseReason::AnsweredElsewhere { accepted: true };
    assert_eq!(sessions.state(&user("p")), SessionState::Closed(why));
}

#[test]
fn an_acceptance_of_a_siblings_request_is_not_ours_to_answer() {
    let mut sessions = machine(SessionConfig::default());
    sessions.request(&user("p"), "", now()).unwrap();
    effects(&mut sessions);
    let accept = Body::from(wire::Accept {
        invite: [7; 16],
        inviter: [2; 32],
        over: None,
    });
    assert!(sessions.handle_frame(&sender("p", 9), &accept, now()));
    assert_eq!(effects(&mut sessions), []);
}

#[test]
fn refused_commands_say_why() {
    let mut sessions = machine(SessionConfig::default());
    let peer = user("p");
    let long = "x".repeat(513);
    let too_long = Err(AnswerError::TooLong { bytes: 513 });
    assert_eq!(
        sessions.request(&user("me"), "", now()),
        Err(RequestError::Oneself)
    );
    assert_eq!(
        sessions.request(&peer, &long, now()),
        Err(RequestError::NoteTooLong { bytes: 513 })
    );
    assert_eq!(sessions.close(&peer, &long, now()), too_long);
    assert_eq!(
        sessions.close(&peer, "", now()),
        Err(AnswerError::NoSession)
    );
    let none = InviteId([9; 16]);
    let silent = Rejection::Silent;
    assert_eq!(sessions.cancel(none, now()), Err(AnswerError::NoSuchInvite));
    assert_eq!(
        sessions.reject(none, &silent, now()),
        Err(AnswerError::NoSuchInvite)
    );
    let invite = sessions.request(&peer, "", now()).unwrap();
    assert_eq!(
        sessions.request(&peer, "", now()),
        Err(RequestError::AlreadyAsked { invite })
    );
    // Our own request cannot be answered by ourselves.
    assert_eq!(
        sessions.accept(invite, now()),
        Err(AnswerError::NoSuchInvite)
    );
}

#[test]
fn s10_the_channel_depends_on_the_secret() {
    let open = |secret: u8| {
        let mut sessions = machine(SessionConfig::default());
        let mut body = request(1);
        body.secret = [secret; 32];
        sessions.handle_frame(&sender("p", 9), &body.into(), now());
        sessions.accept(InviteId([1; 16]), now()).unwrap();
        match sessions.state(&user("p")) {
            SessionState::Active { channel, .. } => channel,
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(open(1), open(2));
    assert_eq!(open(1), open(1));
    assert!(matches!(open(1), Channel::Conv(_)));
}

#[test]
fn damaged_rows_are_refused_and_secrets_stay_out_of_logs() {
    let mut sessions = machine(SessionConfig::default());
    sessions.request(&user("p"), "hi", now()).unwrap();
    let secret = sessions.peers.record(&user("p")).unwrap().out.clone();
    let secret = format!("{:?}", secret.unwrap().secret.0);
    assert!(!format!("{sessions:?}").contains(&secret));
    let Some(Effect::Row(crate::effect::RowOp::Put { key, value, .. })) = sessions.effects().pop()
    else {
        panic!("the row comes first");
    };
    let row = |key: &[u8], value: &[u8]| Row {
        table: Table::Sessions,
        key: key.to_vec().into(),
        value: value.to_vec().into(),
    };
    let mut fresh = machine(SessionConfig::default());
    for cut in 0..value.len() {
        assert!(fresh.restore(&row(&key, &value[..cut]), now()).is_err());
    }
    let mut other = value.to_vec();
    other[0] = 2;
    assert!(fresh.restore(&row(&key, &other), now()).is_err());
    other[0] = 1;
    other.push(0);
    assert!(fresh.restore(&row(&key, &other), now()).is_err());
    assert!(fresh.restore(&row(b"", &value), now()).is_err());
    assert!(fresh.restore(&row(b"\xff", &value), now()).is_err());
    assert_eq!(fresh.iter().count(), 0);
    fresh.restore(&row(&key, &value), now()).unwrap();
    assert_eq!(fresh.state(&user("p")), sessions.state(&user("p")));
}

#[test]
fn q7_waits_grow_to_the_longest_and_start_over_on_reconnecting() {
    let config = SessionConfig::default();
    let mut sessions = machine(config.clone());
    sessions.request(&user("p"), "", now()).unwrap();
    let mut at = now();
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        let due = sessions.poll_timeout().unwrap();
        let wait = due.saturating_since(at.mono);
        assert!(wait >= config.resend_first / 4 && wait <= config.resend_max);
        longest = longest.max(wait);
        at = later(due.saturating_since(now().mono));
        sessions.handle_timeout(at);
    }
    assert!(longest > config.resend_max / 2);
    sessions.handle_down(at);
    sessions.handle_up(at);
    let wait = sessions.poll_timeout().unwrap().saturating_since(at.mono);
    assert!(wait <= config.resend_first);
}

/// The checkers bite: each planted bug breaks what it should.
#[cfg(feature = "probe")]
#[test]
fn planted_bugs_are_found() {
    use crate::probe::plant;

    let cancel = Body::from(wire::Cancel { invite: [1; 16] });
    let asked = |sessions: &mut Sessions| {
        sessions.handle_frame(&sender("p", 9), &request(1).into(), now());
        effects(sessions)
            .iter()
            .any(|e| matches!(e, Effect::Emit { .. }))
    };

    plant(Some("session-forget-cancel"));
    let mut sessions = machine(SessionConfig::default());
    sessions.handle_frame(&sender("p", 9), &cancel, now());
    assert!(asked(&mut sessions), "S9");

    plant(Some("session-block-leaks"));
    let mut sessions = machine(SessionConfig::default());
    sessions.block(&user("p"), now());
    assert!(asked(&mut sessions), "S5");

    plant(Some("session-silent-reject-tells"));
    let mut sessions = machine(SessionConfig::default());
    assert!(asked(&mut sessions));
    let silent = Rejection::Silent;
    sessions.reject(InviteId([1; 16]), &silent, now()).unwrap();
    assert!(!sent(&mut sessions).is_empty(), "S4");

    plant(Some("session-send-before-persist"));
    let mut sessions = machine(SessionConfig::default());
    sessions.request(&user("p"), "", now()).unwrap();
    let early = |e: &Effect<SessionEvent>| matches!(e, Effect::Send(frame) if !frame.gated);
    assert!(effects(&mut sessions).iter().any(early));

    plant(Some("session-glare-higher-wins-on-one-side"));
    let mut world = World::with_lowest(&["a1", "b1"], "a1");
    for (at, peer) in [("a1", "b"), ("b1", "a")] {
        world
            .with(at, |s, now| s.request(&user(peer), "", now))
            .unwrap();
    }
    world.deliver_all();
    plant(None);
    assert_ne!(
        world.state("a1", "b").split_whitespace().nth(3),
        world.state("b1", "a").split_whitespace().nth(3),
        "S1: both are on the same channel"
    );
}

#[test]
fn s3_an_acceptance_is_not_given_up_while_nobody_can_answer() {
    let open = |sessions: &Sessions| {
        let state = sessions.state(&user("peer"));
        matches!(state, SessionState::Active { .. })
    };
    let (mut sessions, peer) = accepted(SessionConfig::default());
    sessions.handle_down(now());
    // The requester confirms at once; we are away for longer than a request stands.
    let week = Duration::from_millis(9 * DAY);
    sessions.handle_timeout(later(week));
    assert!(open(&sessions), "given up unheard");
    assert!(
        sessions
            .poll_timeout()
            .is_none_or(|at| at > later(week).mono)
    );
    sessions.handle_up(later(week));
    assert!(open(&sessions));
    let confirm = wire::Confirm {
        invite: [7; 16],
        joined: BoundedVec::take_from([[1; 32]]),
    };
    sessions.handle_frame(&peer, &confirm.into(), later(week));
    sessions.handle_caught_up(later(week));
    let month = 4 * week;
    sessions.handle_timeout(later(month));
    assert!(open(&sessions));
}

#[test]
fn s3_an_acceptance_that_nobody_answers_is_given_up() {
    let (mut sessions, _) = accepted(SessionConfig::default());
    sessions.handle_down(now());
    let week = Duration::from_millis(9 * DAY);
    sessions.handle_up(later(week));
    sessions.handle_caught_up(later(week));
    sessions.handle_timeout(later(week + SessionConfig::default().resend_max));
    assert_eq!(
        sessions.state(&user("peer")),
        SessionState::Closed(CloseReason::Expired)
    );
}

/// The requester opened the session, its only confirmation was lost, and then it was away.
#[test]
fn s3_the_requester_is_told_of_an_acceptance_that_was_given_up() {
    let (mut sessions, peer) = accepted(SessionConfig::default());
    effects(&mut sessions);
    let gone = later(SessionConfig::default().invite_ttl);
    sessions.handle_timeout(gone);
    let closes = |sessions: &mut Sessions| {
        let ours = |body: &Body| matches!(body, Body::Close(close) if close.invite == [7; 16]);
        sent(sessions).iter().filter(|body| ours(body)).count()
    };
    assert_ne!(closes(&mut sessions), 0, "told at once");
    let again = gone.mono + SessionConfig::default().resend_first;
    sessions.handle_timeout(Now {
        mono: again,
        ..gone
    });
    assert_ne!(closes(&mut sessions), 0, "and repeated");
    let ack = wire::CloseAck { invite: [7; 16] };
    sessions.handle_frame(&peer, &ack.into(), gone);
    assert_eq!(sessions.poll_timeout(), None);
}

#[test]
fn s3_a_farewell_outlasts_a_cut_that_nobody_has_noticed() {
    let (mut sessions, _) = accepted(SessionConfig {
        invite_ttl: Duration::from_secs(10),
        ..SessionConfig::default()
    });
    sessions
        .close(&user("peer"), "", now())
        .expect("it is open");
    effects(&mut sessions);
    let minutes = later(Duration::from_secs(300));
    sessions.handle_timeout(minutes);
    let told = sent(&mut sessions);
    assert!(told.iter().any(|body| matches!(body, Body::Close(_))));
    assert_eq!(sessions.state(&user("peer")), SessionState::Closing);
}

#[test]
fn s3_a_farewell_is_not_given_up_while_nobody_can_hear_it() {
    let (mut sessions, _) = accepted(SessionConfig::default());
    sessions.handle_down(now());
    sessions
        .close(&user("peer"), "", now())
        .expect("it is open");
    effects(&mut sessions);
    let week = later(Duration::from_millis(9 * DAY));
    sessions.handle_timeout(week);
    assert_eq!(sessions.state(&user("peer")), SessionState::Closing);
    sessions.handle_up(week);
    let told = sent(&mut sessions);
    assert!(told.iter().any(|body| matches!(body, Body::Close(_))));
}
