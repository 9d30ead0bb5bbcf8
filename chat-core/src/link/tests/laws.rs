//! Any history ends with every wanted channel in place.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

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
