use core::time::Duration;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::{Config, LinkConfig};
use crate::id::UserId;
use crate::rng::Rng;
use crate::time::{Now, UnixMillis};

fn at(millis: u64) -> Now {
    Now {
        mono: Timestamp::from_millis(millis),
        wall: UnixMillis(1_000_000 + millis),
    }
}

fn channel(n: u8) -> Channel {
    Channel::Inbox(UserId::new(&format!("user-{n}")).unwrap())
}

fn link(seed: u8) -> Link {
    Link::new(LinkConfig::default(), Rng::from_seed([seed; 32]))
}

fn drain(link: &mut Link) -> Vec<LinkOutput> {
    core::iter::from_fn(|| link.poll_output()).collect()
}

const fn up(resumed: bool, marks_backlog: bool) -> LinkEvent {
    LinkEvent::Up {
        resumed,
        marks_backlog,
    }
}

const fn down(reason: DownReason) -> LinkEvent {
    LinkEvent::Down {
        reason,
        retry_after: None,
    }
}

/// The pause after a failure at `now`, with the timer run.
fn pause(link: &mut Link, now: Now) -> Duration {
    let LinkState::Disconnected {
        since, retry_at, ..
    } = link.state().clone()
    else {
        panic!("not waiting: {:?}", link.state());
    };
    assert_eq!(since, now.mono);
    assert_eq!(link.poll_timeout(), Some(retry_at));
    retry_at.saturating_since(since)
}

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
fn q7_backoff_doubles_with_full_jitter_and_a_flapping_broker_does_not_reset_it() {
    for seed in 0..20 {
        let mut link = link(seed);
        let mut now = at(0);
        link.open(now);
        for n in 0..12u32 {
            // Up and Connected, but never caught up.
            link.handle_link(&up(false, true), now);
            assert!(link.is_up());
            link.handle_link(&down(DownReason::Lost), now);
            let pause = pause(&mut link, now);
            let ceiling = Duration::from_millis(500 << n.min(20)).min(Duration::from_secs(60));
            assert!(pause <= ceiling, "{pause:?} after {n} failures");
            now = Now {
                mono: now.mono + pause,
                ..now
            };
            link.handle_timeout(now);
            assert_eq!(link.state(), &LinkState::Connecting { attempt: n + 2 });
        }
        link.handle_link(&up(false, true), now);
        link.handle_link(&LinkEvent::CaughtUp, now);
        link.handle_link(&down(DownReason::Lost), now);
        assert!(pause(&mut link, now) <= Duration::from_millis(500));
    }
}

#[test]
fn q7_jitter_uses_the_whole_range() {
    let pauses: Vec<Duration> = (0..64)
        .map(|seed| {
            let mut link = link(seed);
            link.open(at(0));
            link.handle_link(&down(DownReason::Lost), at(0));
            pause(&mut link, at(0))
        })
        .collect();
    assert!(pauses.iter().any(|p| *p < Duration::from_millis(100)));
    assert!(pauses.iter().any(|p| *p > Duration::from_millis(400)));
}

#[test]
fn q7_retry_after_is_obeyed_even_when_the_network_looks_reachable() {
    let mut link = link(1);
    link.open(at(0));
    link.handle_link(
        &LinkEvent::Down {
            reason: DownReason::TryLater,
            retry_after: Some(Duration::from_secs(30)),
        },
        at(10),
    );
    assert_eq!(link.poll_timeout(), Some(at(30_010).mono));
    drain(&mut link);
    link.handle_link(&LinkEvent::Reachable, at(1_000));
    assert_eq!(drain(&mut link), []);
    link.handle_timeout(at(30_010));
    assert!(drain(&mut link).contains(&LinkOutput::Connect));
}

#[test]
fn q7_reachability_retries_at_once() {
    let mut link = link(1);
    link.open(at(0));
    for _ in 0..10 {
        link.handle_link(&down(DownReason::Lost), at(0));
        link.handle_link(&LinkEvent::Reachable, at(0));
        assert!(matches!(link.state(), LinkState::Connecting { .. }));
    }
}

#[test]
fn q7_a_connection_that_does_not_come_up_is_closed_and_retried() {
    let mut link = link(1);
    link.open(at(0));
    drain(&mut link);
    assert_eq!(link.poll_timeout(), Some(at(10_000).mono));
    link.handle_timeout(at(10_000));
    assert_eq!(drain(&mut link)[0], LinkOutput::Disconnect);
    // Its driver then reports what we know already, or even that it came up.
    let before = link.state().clone();
    link.handle_link(&down(DownReason::Lost), at(10_001));
    assert_eq!(link.state(), &before);
    link.handle_link(&up(false, true), at(10_002));
    assert_eq!(link.state(), &before);
    assert_eq!(drain(&mut link), [LinkOutput::Disconnect]);
}

#[test]
fn s11_one_takeover_is_retried_two_in_a_minute_are_a_fight() {
    let mut link = link(1);
    link.open(at(0));
    link.handle_link(&down(DownReason::Conflict), at(0));
    assert!(matches!(link.state(), LinkState::Disconnected { .. }));
    link.handle_timeout(at(1_000));
    link.handle_link(&down(DownReason::Conflict), at(61_000));
    assert!(matches!(link.state(), LinkState::Disconnected { .. }));
    link.handle_timeout(at(63_000));
    link.handle_link(&down(DownReason::Conflict), at(80_000));
    assert_eq!(
        link.state(),
        &LinkState::Failed {
            reason: DownReason::Conflict
        }
    );
    assert_eq!(link.poll_timeout(), None);
    link.open(at(90_000));
    assert_eq!(link.state(), &LinkState::Connecting { attempt: 1 });
}

#[test]
fn q7_a_refusal_is_final_until_opened_again() {
    let mut link = link(1);
    link.open(at(0));
    let reason = DownReason::Refused("bad password".into());
    link.handle_link(&down(reason.clone()), at(1));
    assert_eq!(link.state(), &LinkState::Failed { reason });
    assert_eq!(link.poll_timeout(), None);
    link.handle_link(&LinkEvent::Reachable, at(2));
    assert!(matches!(link.state(), LinkState::Failed { .. }));
    link.open(at(3));
    assert_eq!(link.state(), &LinkState::Connecting { attempt: 1 });
}

#[test]
fn closing_ends_everything_until_opened() {
    let mut link = link(1);
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(false, false), at(1));
    drain(&mut link);
    link.close(at(2));
    assert_eq!(
        drain(&mut link),
        [LinkOutput::Disconnect, LinkOutput::State(LinkState::Closed)]
    );
    assert_eq!(link.poll_timeout(), None);
    link.handle_link(&down(DownReason::Lost), at(3));
    assert_eq!(link.state(), &LinkState::Closed);
}

#[test]
fn s11_a_connection_replaced_without_a_word_is_told_as_lost() {
    let mut link = link(1);
    link.open(at(0));
    link.handle_link(&up(false, true), at(1));
    drain(&mut link);
    link.handle_link(&up(true, true), at(5));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::State(LinkState::Disconnected {
                since: at(5).mono,
                retry_at: at(5).mono,
                reason: DownReason::Lost
            }),
            LinkOutput::State(LinkState::Connecting { attempt: 1 }),
            LinkOutput::State(LinkState::Connected { resumed: true })
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

/// A broker model: what the session holds after the outputs were obeyed.
#[derive(Default)]
struct Broker {
    session: BTreeSet<Channel>,
}

impl Broker {
    fn obey(&mut self, link: &mut Link, now: Now) {
        while let Some(output) = link.poll_output() {
            match output {
                LinkOutput::Subscribe(channel) => {
                    self.session.insert(channel.clone());
                    link.handle_link(&LinkEvent::Subscribed(channel), now);
                }
                LinkOutput::Unsubscribe(channel) => {
                    self.session.remove(&channel);
                }
                _ => {}
            }
        }
    }
}

fn any_event() -> impl Strategy<Value = LinkEvent> {
    let reason = prop_oneof![
        4 => Just(DownReason::Lost),
        2 => Just(DownReason::TimedOut),
        1 => Just(DownReason::Conflict),
        1 => Just(DownReason::TryLater),
        1 => Just(DownReason::Refused(String::new())),
    ];
    prop_oneof![
        4 => (any::<bool>(), any::<bool>()).prop_map(|(r, m)| up(r, m)),
        3 => (reason, proptest::option::of(0u64..90_000)).prop_map(|(reason, wait)| {
            LinkEvent::Down { reason, retry_after: wait.map(Duration::from_millis) }
        }),
        4 => (0u8..5).prop_map(|n| LinkEvent::Subscribed(channel(n))),
        1 => (0u8..5).prop_map(|n| LinkEvent::SubscribeRefused(channel(n))),
        2 => Just(LinkEvent::CaughtUp),
        1 => Just(LinkEvent::Reachable),
        1 => (0u8..5).prop_map(|n| LinkEvent::Gap(channel(n))),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Link(LinkEvent),
    Subscribe(u8),
    Unsubscribe(u8),
    Open,
    Close,
    Traffic,
    Wait(u64),
    Timer,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any_event().prop_map(Op::Link),
        2 => (0u8..5).prop_map(Op::Subscribe),
        1 => (0u8..5).prop_map(Op::Unsubscribe),
        2 => Just(Op::Open),
        1 => Just(Op::Close),
        1 => Just(Op::Traffic),
        3 => (0u64..20_000).prop_map(Op::Wait),
        3 => Just(Op::Timer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any events in any order: no panic, no loop, and the session of the next good connection is
    /// the desired set, whether or not the broker kept what it had.
    #[test]
    fn s13_any_history_ends_with_the_desired_set_in_place(
        ops in proptest::collection::vec(any_op(), 0..80),
        kept in any::<bool>(),
    ) {
        let mut link = link(9);
        let mut broker = Broker::default();
        let mut desired = BTreeSet::new();
        let mut millis = 0;
        for op in ops {
            let now = at(millis);
            match op {
                Op::Link(event @ LinkEvent::Up { resumed, .. }) => {
                    if !resumed {
                        broker.session.clear();
                    }
                    link.handle_link(&event, now);
                    broker.obey(&mut link, now);
                }
                // A broker confirms only what it holds.
                Op::Link(LinkEvent::Subscribed(channel)) if !broker.session.contains(&channel) => {}
                Op::Link(event) => link.handle_link(&event, now),
                Op::Subscribe(n) => {
                    desired.insert(channel(n));
                    link.subscribe(channel(n), now);
                }
                Op::Unsubscribe(n) => {
                    desired.remove(&channel(n));
                    link.unsubscribe(&channel(n), now);
                }
                Op::Open => link.open(now),
                Op::Close => link.close(now),
                Op::Traffic => link.handle_traffic(now),
                Op::Wait(by) => millis += by,
                Op::Timer => {
                    link.handle_timeout(now);
                    prop_assert!(link.poll_timeout().is_none_or(|at| at > now.mono));
                }
            }
            if matches!(link.state(), LinkState::Closed | LinkState::Failed { .. }) {
                prop_assert_eq!(link.poll_timeout(), None);
            }
        }
        link.handle_link(&down(DownReason::Lost), at(millis));
        link.close(at(millis));
        while link.poll_output().is_some() {}
        link.open(at(millis));
        if !kept {
            broker.session.clear();
        }
        link.handle_link(&up(kept, true), at(millis));
        broker.obey(&mut link, at(millis));
        prop_assert!(link.is_up());
        prop_assert_eq!(&broker.session, &desired);
        link.handle_link(&LinkEvent::CaughtUp, at(millis));
        prop_assert_eq!(link.state(), &LinkState::CaughtUp);
    }

    /// Time alone never makes it loop: each look at the clock moves the deadline on.
    #[test]
    fn q7_deadlines_always_move_on(seed in any::<u8>(), settle in 0u64..3, steps in 1usize..200) {
        let mut config = Config::default().link;
        config.settle = Duration::from_millis(settle);
        let mut link = Link::new(config, Rng::from_seed([seed; 32]));
        link.subscribe(channel(1), at(0));
        link.open(at(0));
        let mut now = at(0);
        for n in 0..steps {
            let Some(due) = link.poll_timeout() else { break };
            prop_assert!(due >= now.mono);
            now.mono = due;
            link.handle_timeout(now);
            prop_assert!(link.poll_timeout().is_none_or(|at| at > now.mono));
            if n % 3 == 0 {
                link.handle_link(&up(n % 2 == 0, false), now);
            }
        }
    }
}

#[test]
fn the_model_broker_sees_every_repeat() {
    let mut link = link(1);
    let mut broker = Broker::default();
    link.subscribe(channel(1), at(0));
    link.open(at(0));
    link.handle_link(&up(false, true), at(1));
    // The first request is lost; the repeat gets through.
    drain(&mut link);
    link.handle_timeout(at(5_001));
    broker.obey(&mut link, at(5_002));
    assert!(link.is_up());
    assert_eq!(broker.session.len(), 1);
}

#[cfg(feature = "probe")]
#[test]
fn the_planted_bugs_bite() {
    use crate::probe::plant;

    for bug in ["link-no-resubscribe", "link-connected-early"] {
        for planted in [None, Some(bug)] {
            plant(planted);
            let mut link = link(1);
            link.subscribe(channel(1), at(0));
            link.open(at(0));
            link.handle_link(&up(false, true), at(1));
            link.handle_link(&LinkEvent::Subscribed(channel(1)), at(2));
            link.handle_link(&down(DownReason::Lost), at(3));
            link.handle_link(&LinkEvent::Reachable, at(4));
            link.handle_link(&up(false, true), at(5));
            // The session was lost: not up before the channel is there again.
            assert_eq!(link.is_up(), planted.is_some(), "{bug}");
        }
    }
    plant(None);
}
