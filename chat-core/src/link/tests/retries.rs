//! How connections end, and when the next is tried.

use super::*;

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
