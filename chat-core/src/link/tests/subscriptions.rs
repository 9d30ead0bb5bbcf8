//! What is asked of a connection, when it counts as connected and as caught up.

use super::*;

#[test]
fn s12_connected_waits_for_every_subscription_after_a_lost_session() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.subscribe(channel(2), at(0));
    assert_eq!(drain(&mut link), []);
    link.open(at(0));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::State(LinkState::Connecting { attempt: 1 }),
            LinkOutput::Connect
        ]
    );
    link.handle_link(&up(false, true), at(10));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::Subscribe(channel(1)),
            LinkOutput::Subscribe(channel(2))
        ]
    );
    link.handle_link(&LinkEvent::Subscribed(channel(2)), at(20));
    assert!(!link.is_up());
    assert_eq!(drain(&mut link), []);
    link.handle_link(&LinkEvent::Subscribed(channel(1)), at(30));
    assert!(link.is_up());
    assert_eq!(
        drain(&mut link),
        [LinkOutput::State(LinkState::Connected { resumed: false })]
    );
}

#[test]
fn s11_a_kept_session_needs_only_what_changed_while_away() {
    let mut link = link(1);
    for n in 1..=3 {
        link.subscribe(channel(n), at(0));
    }
    link.open(at(0));
    link.handle_link(&up(false, true), at(1));
    for n in 1..=3 {
        link.handle_link(&LinkEvent::Subscribed(channel(n)), at(2));
    }
    link.handle_link(&LinkEvent::CaughtUp, at(3));
    link.handle_link(&down(DownReason::Lost), at(1_000));
    link.unsubscribe(&channel(1), at(1_001));
    link.subscribe(channel(4), at(1_001));
    link.handle_timeout(at(1_600));
    drain(&mut link);
    link.handle_link(&up(true, true), at(1_700));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::Unsubscribe(channel(1)),
            LinkOutput::Subscribe(channel(4))
        ]
    );
    link.handle_link(&LinkEvent::Subscribed(channel(4)), at(1_710));
    assert_eq!(link.state(), &LinkState::Connected { resumed: true });
}

#[test]
fn s12_after_an_attempt_of_unknown_fate_a_resumed_session_is_not_trusted() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(false, true), at(10));
    link.handle_link(&LinkEvent::Subscribed(channel(1)), at(20));
    link.handle_link(&down(DownReason::Lost), at(30));
    pause(&mut link, at(30));
    link.handle_timeout(at(60_000));
    // The broker restarted, took this attempt and began a session; its answer was lost.
    link.handle_timeout(at(120_000));
    assert!(matches!(link.state(), LinkState::Disconnected { .. }));
    link.handle_timeout(at(300_000));
    drain(&mut link);
    link.handle_link(&up(true, true), at(300_010));
    assert!(drain(&mut link).contains(&LinkOutput::Subscribe(channel(1))));
    assert!(!link.is_up());
}

#[test]
fn s11_what_had_an_unknown_fate_at_the_cut_is_asked_again_after_a_resume() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(false, true), at(1));
    link.handle_link(&LinkEvent::Subscribed(channel(1)), at(2));
    link.handle_link(&LinkEvent::CaughtUp, at(3));
    link.unsubscribe(&channel(1), at(4));
    link.subscribe(channel(2), at(4));
    link.handle_link(&down(DownReason::Lost), at(5));
    link.handle_timeout(at(600));
    drain(&mut link);
    link.handle_link(&up(true, true), at(700));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::Unsubscribe(channel(1)),
            LinkOutput::Subscribe(channel(2))
        ]
    );
}

#[test]
fn s12_a_refused_channel_is_told_and_does_not_block() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(false, true), at(1));
    drain(&mut link);
    link.handle_link(&LinkEvent::SubscribeRefused(channel(1)), at(2));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::Refused(channel(1)),
            LinkOutput::State(LinkState::Connected { resumed: false })
        ]
    );
    // Twice said is once told.
    link.handle_link(&LinkEvent::SubscribeRefused(channel(1)), at(3));
    assert_eq!(drain(&mut link), []);
}

#[test]
fn s12_an_unanswered_subscription_is_repeated_and_a_silent_broker_given_up() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(false, true), at(0));
    drain(&mut link);
    for round in 1..5 {
        link.handle_timeout(at(round * 5_000));
        assert_eq!(drain(&mut link), [LinkOutput::Subscribe(channel(1))]);
    }
    link.handle_timeout(at(25_000));
    let outputs = drain(&mut link);
    assert_eq!(outputs[0], LinkOutput::Disconnect);
    assert!(matches!(
        link.state(),
        LinkState::Disconnected {
            reason: DownReason::TimedOut,
            ..
        }
    ));
}

#[test]
fn s12_subscriptions_made_while_connected_are_asked_at_once() {
    let mut link = link(1);
    link.open(at(0));
    link.handle_link(&up(false, true), at(1));
    drain(&mut link);
    link.subscribe(channel(7), at(2));
    link.subscribe(channel(7), at(3));
    assert_eq!(drain(&mut link), [LinkOutput::Subscribe(channel(7))]);
    assert!(link.is_up());
    link.unsubscribe(&channel(7), at(4));
    assert_eq!(drain(&mut link), [LinkOutput::Unsubscribe(channel(7))]);
    // Its late answer means nothing.
    link.handle_link(&LinkEvent::Subscribed(channel(7)), at(5));
    link.subscribe(channel(7), at(6));
    assert_eq!(drain(&mut link), [LinkOutput::Subscribe(channel(7))]);
}

#[test]
fn s14_without_a_marker_quiet_time_means_caught_up() {
    let mut link = link(1);
    link.open(at(0));
    link.handle_link(&up(false, false), at(1_000));
    assert_eq!(link.state(), &LinkState::Connected { resumed: false });
    link.handle_traffic(at(1_400));
    link.handle_timeout(at(1_500));
    assert_eq!(link.state(), &LinkState::Connected { resumed: false });
    link.handle_timeout(at(1_900));
    assert_eq!(link.state(), &LinkState::CaughtUp);
}

#[test]
fn s14_endless_traffic_cannot_hold_back_caught_up() {
    let mut link = link(1);
    link.open(at(0));
    link.handle_link(&up(false, false), at(0));
    let mut now = 0;
    while link.state() != &LinkState::CaughtUp {
        now += 100;
        link.handle_traffic(at(now));
        link.handle_timeout(at(now));
        assert!(now <= 5_000);
    }
    assert_eq!(now, 5_000);
}

#[test]
fn s14_a_marker_before_the_last_confirmation_counts_after_it() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(true, true), at(1));
    link.handle_link(&LinkEvent::CaughtUp, at(2));
    assert!(!link.is_up());
    drain(&mut link);
    link.handle_link(&LinkEvent::Subscribed(channel(1)), at(3));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::State(LinkState::Connected { resumed: true }),
            LinkOutput::State(LinkState::CaughtUp)
        ]
    );
}

#[test]
fn what_was_asked_of_a_dead_connection_is_not_asked_of_the_next() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(false, false), at(1));
    link.handle_link(&down(DownReason::Lost), at(2));
    assert!(!drain(&mut link).contains(&LinkOutput::Subscribe(channel(1))));
}
