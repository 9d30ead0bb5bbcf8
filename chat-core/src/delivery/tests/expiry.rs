//! What runs out, and what clocks that jump must not make run out.

use super::net::Net;
use super::short::{count, logs, net, short_lived};
use super::*;

#[test]
fn q6_expiry_is_told_on_both_sides() {
    let mut net = Net::new(2, false, short_lived(), 1);
    net.send(0, "0:1");
    net.settle();
    net.down(1);
    let lost = net.send(0, "0:2");
    net.lose();
    net.pass(Duration::from_secs(6));
    net.commit_all();
    assert!(net.failed.contains(&lost));
    net.wire.clear();
    net.up(1);
    net.settle();
    assert_eq!(net.gaps(1, 0), 1, "a hello repeats until the base is known");
}

/// A message of 0 to 1 runs out while 1 is away for an hour, and all that was said of it is lost.
fn unaware() -> Net {
    let mut net = Net::new(2, false, short_lived(), 1);
    net.send(0, "0:1");
    net.settle();
    net.down(1);
    net.send(0, "0:2");
    for _ in 0..60 {
        net.pass(Duration::from_secs(60));
        net.lose();
    }
    net.up(1);
    net
}

#[test]
fn q6_an_expired_tail_is_announced_until_its_receiver_has_heard_of_it() {
    let mut net = unaware();
    net.settle();
    assert_eq!(net.gaps(1, 0), 1, "without any sign of it");
    net.wire.clear();
    net.pass(Duration::from_secs(600));
    assert!(net.wire.is_empty(), "and then no more");

    let mut net = unaware();
    net.send(1, "1:1");
    for _ in 0..20 {
        net.commit_all();
        while !net.wire.is_empty() {
            net.deliver(0);
        }
        net.pass(Duration::from_millis(250));
    }
    assert_eq!(net.gaps(1, 0), 1, "soon after a sign of it");

    let mut net = unaware();
    net.down(1);
    net.crash(0);
    net.lose();
    net.up(1);
    net.settle();
    assert_eq!(net.gaps(1, 0), 1, "also by the next life");

    let mut net = unaware();
    net.down(1);
    net.pass(Duration::from_secs(7 * 24 * 3_600));
    net.commit_all();
    net.pass(Duration::from_secs(600));
    net.wire.clear();
    net.pass(Duration::from_secs(3_600));
    assert!(net.wire.is_empty(), "but not for ever");
}

#[test]
fn q6_id7_what_a_crash_keeps_from_being_told_is_told_by_the_next_life_and_then_no_more() {
    let mut net = Net::new(2, false, short_lived(), 1);
    net.send(0, "0:1");
    net.settle();
    net.down(1);
    let lost = net.send(0, "0:2");
    net.commit_all();
    net.pass(Duration::from_secs(6));
    net.commit_all();
    net.up(1);
    net.settle();
    let failed = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Failed { id, .. } if *id == lost);
    let gap = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Gap { .. });
    for n in [0, 1] {
        net.nodes[n].events.clear();
        net.crash(n);
        net.commit_all();
    }
    assert_eq!(
        (count(&net, 0, failed), count(&net, 1, gap)),
        (0, 0),
        "both were told"
    );

    // Again, and now each dies when its rows are durable and nothing was told.
    let mut net = unaware_of_one(net);
    let lost = net.1;
    let net = &mut net.0;
    let failed = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Failed { id, .. } if *id == lost);
    assert_eq!(count(net, 0, failed), 1, "by the next life");
    net.nodes[0].events.clear();
    net.commit_all();
    net.settle();
    net.crash(0);
    net.commit_all();
    assert_eq!(count(net, 0, failed), 0, "and then no more");
}

/// A message of 0 runs out, its rows become durable, and 0 dies before anything is told.
fn unaware_of_one(mut net: Net) -> (Net, MessageId) {
    net.down(1);
    let lost = net.send(0, "0:3");
    net.commit_all();
    net.pass(Duration::from_secs(6));
    // The rows that are deleted once it was told are not drained yet.
    while net.commit(0) {}
    net.nodes[0].events.clear();
    net.crash(0);
    net.commit_all();
    (net, lost)
}

#[test]
fn id4_a_wall_clock_that_jumps_gives_nothing_up_that_may_still_come() {
    let mut net = net(2);
    net.send_all(0, ["0:1", "0:2", "0:3"]);
    net.commit_all();
    net.wire.remove(0);
    net.hand_over_first();
    let true_wall = net.now.wall;
    net.now.wall = true_wall.plus(Duration::from_secs(40 * 24 * 3_600));
    net.hand_over_first();
    let mut now = net.now;
    now.mono = now.mono + Duration::from_secs(1);
    net.nodes[1].machine.handle_timeout(now);
    net.drain(1);
    net.now = Now {
        wall: true_wall,
        ..now
    };
    net.settle();
    assert_eq!(net.gaps(1, 0), 0);
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
}

#[test]
fn id4_a_wall_clock_that_jumps_while_we_are_down_gives_nothing_up_either() {
    let mut net = net(2);
    net.send_all(0, ["0:1", "0:2"]);
    net.commit_all();
    net.wire.remove(0);
    net.hand_over_first();
    net.commit_all();
    let true_wall = net.now.wall;
    net.now.wall = true_wall.plus(Duration::from_secs(40 * 24 * 3_600));
    net.crash(1);
    net.now.mono = net.now.mono + Duration::from_secs(1);
    let now = net.now;
    net.nodes[1].machine.handle_timeout(now);
    net.drain(1);
    net.now.wall = true_wall;
    net.settle();
    assert_eq!(net.gaps(1, 0), 0);
    assert_eq!(logs(&net, 1), ["0:1", "0:2"]);
}

/// The clock was wrong when the timer was set: the message is neither sent nor kept for the
/// difference.
#[test]
fn q6_what_runs_out_by_a_clock_that_is_set_forward_fails_soon() {
    let mut net = Net::new(2, false, short_lived(), 1);
    net.down(1);
    let id = net.send(0, "0:1");
    net.lose();
    let hour = Duration::from_secs(3_600);
    let mut now = net.now;
    now.wall = now.wall.plus(hour);
    net.now = now;
    for _ in 0..40 {
        net.pass(Duration::from_millis(100));
        net.lose();
    }
    assert!(net.failed.contains(&id), "its time to live is five seconds");
}
