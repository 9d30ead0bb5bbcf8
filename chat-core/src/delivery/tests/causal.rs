//! Nobody is told an answer before its question (ID9).

use super::net::{CONV, Net, sender};
use super::short::{first_data, logs, net};
use super::*;

/// What is on the way to `to` is lost; all else arrives.
fn without(net: &mut Net, to: usize) {
    net.commit_all();
    net.wire.retain(|frame| frame.to != to);
    net.round(Duration::ZERO);
}

fn received(net: &Net, n: usize) -> Vec<(String, bool)> {
    let told = net.nodes[n].events.iter().filter_map(|event| match event {
        DeliveryEvent::Received(it) => Some((it.content.fallback().to_owned(), it.causal_gap)),
        _ => None,
    });
    told.collect()
}

fn plain(texts: &[&str]) -> Vec<(String, bool)> {
    texts
        .iter()
        .map(|text| ((*text).to_owned(), false))
        .collect()
}

/// Three members; 2 lacks the question of 0 and has the answer of 1.
fn asked_and_answered() -> Net {
    let mut net = net(3);
    net.send(0, "0:1");
    without(&mut net, 2);
    assert_eq!(logs(&net, 1), ["0:1"]);
    net.wire.clear();
    net.send(1, "1:1");
    net.commit_all();
    net.round(Duration::ZERO);
    net
}

#[test]
fn id9_an_answer_waits_for_its_question() {
    let mut net = asked_and_answered();
    net.send(1, "1:2");
    net.commit_all();
    net.round(Duration::ZERO);
    assert!(received(&net, 2).is_empty(), "the question is missing");
    assert_eq!(logs(&net, 0), ["1:1", "1:2"]);
    net.settle();
    assert_eq!(received(&net, 2), plain(&["0:1", "1:1", "1:2"]));
    assert_eq!(net.nodes[1].machine.outbox_size(), (0, 0));
    assert_eq!(net.found, None);
}

#[test]
fn id9_it_waits_no_longer_than_it_may_and_is_flagged() {
    let mut net = asked_and_answered();
    net.down(0);
    net.send(1, "1:2");
    net.commit_all();
    for _ in 0..39 {
        net.round(Duration::from_millis(250));
    }
    assert!(received(&net, 2).is_empty());
    for _ in 0..8 {
        net.round(Duration::from_millis(250));
    }
    let told = [("1:1".to_owned(), true), ("1:2".to_owned(), false)];
    assert_eq!(
        received(&net, 2),
        told,
        "one is out of order, both are there"
    );
    net.up(0);
    net.settle();
    assert_eq!(received(&net, 2)[2..], plain(&["0:1"]));
    assert_eq!(net.found, None);
}

#[test]
fn id9_what_waits_is_acknowledged_and_outlives_a_restart() {
    let mut net = asked_and_answered();
    for _ in 0..12 {
        net.commit_all();
        net.wire.retain(|frame| frame.from != 0 || frame.to != 2);
        net.round(Duration::from_millis(250));
    }
    assert_eq!(net.nodes[1].machine.outbox_size(), (0, 0));
    assert!(received(&net, 2).is_empty());
    net.crash_later(2);
    net.settle();
    assert_eq!(received(&net, 2), plain(&["0:1", "1:1"]));
    assert_eq!(net.found, None);
}

#[test]
fn id9_who_left_is_not_waited_for() {
    let mut net = asked_and_answered();
    net.down(0);
    net.open(2, &[1, 2], 2, 0);
    net.commit_all();
    assert_eq!(received(&net, 2), plain(&["1:1"]));
}

/// It was let in on a branch that is not here.
#[test]
fn id9_whom_no_log_here_knows_is_waited_for() {
    let mut net = asked_and_answered();
    assert!(received(&net, 2).is_empty());
    let of = &mut net.nodes[2];
    let mut route = of.routes[&CONV].clone();
    route
        .recipients
        .retain(|(_, device), _| *device != sender(0).device);
    route.roster = 9;
    of.machine.open(CONV, route.clone(), net.now);
    net.drain(2);
    net.commit_all();
    assert!(received(&net, 2).is_empty());
    // By that log it left before it wrote: so it came back elsewhere.
    route.left.insert(sender(0).device, 1);
    let of = &mut net.nodes[2];
    of.machine.open(CONV, route.clone(), net.now);
    net.drain(2);
    net.commit_all();
    assert!(received(&net, 2).is_empty());
    route.left.insert(sender(0).device, 2);
    let of = &mut net.nodes[2];
    of.machine.open(CONV, route, net.now);
    net.drain(2);
    net.commit_all();
    assert_eq!(received(&net, 2), plain(&["1:1"]), "it left after it wrote");
}

/// What was said before its author knew of a reader, who was in already.
#[test]
fn id9_a_reader_that_its_author_learns_of_later_waits_too() {
    for answered in [false, true] {
        let mut net = net(4);
        // 3 was let in by place 2 of the log; 1 does not know that yet.
        for n in [0, 2] {
            net.open(n, &[0, 1, 2, 3], 2, 0);
        }
        net.open(1, &[0, 1, 2], 1, 0);
        net.send(0, "0:1");
        without(&mut net, 3);
        assert_eq!(logs(&net, 1), ["0:1"]);
        if answered {
            net.send(1, "1:1");
            net.settle();
        }
        net.wire.clear();
        net.open(1, &[0, 1, 2, 3], 2, 0);
        net.send(1, "1:2");
        net.commit_all();
        let named: Vec<_> = first_data(&net)
            .first
            .deps
            .iter()
            .map(|dep| dep.seq)
            .collect();
        assert_eq!(named, [1], "answered: {answered}");
    }
}

/// What a member is told while it is put out counts when it comes back.
#[test]
fn id9_what_a_conversation_tells_as_it_closes_is_named_when_it_opens_again() {
    let mut net = net(3);
    net.send(0, "0:1");
    net.send(0, "0:2");
    net.commit_all();
    // Only the second arrives, and waits for the first.
    let second = net.wire.iter().find_map(|frame| match &frame.body {
        Body::Data(data) if data.first.seq == 2 => Some(data.clone()),
        _ => None,
    });
    let second = second.expect("each is sent by itself");
    net.wire.clear();
    let now = net.now;
    let of = &mut net.nodes[1].machine;
    of.handle_data(&sender(0), &second, Standing::Current, now);
    net.leave(1);
    net.commit_all();
    assert_eq!(logs(&net, 1), ["0:2"]);
    net.wire.clear();
    net.open(1, &[0, 1, 2], 1, 0);
    net.send(1, "1:1");
    net.commit_all();
    let named: Vec<_> = first_data(&net)
        .first
        .deps
        .iter()
        .map(|dep| dep.seq)
        .collect();
    assert_eq!(named, [2]);
}

#[test]
fn id9_g16_a_newcomer_does_not_wait_for_what_was_said_before_it_came() {
    let mut net = net(4);
    net.leave(2);
    for n in [0, 1, 3] {
        net.open(n, &[0, 1, 3], 2, 0);
    }
    net.send(0, "0:1");
    net.settle();
    for n in [0, 1, 3] {
        net.open(n, &[0, 1, 2, 3], 3, 0);
    }
    net.open(2, &[0, 1, 2, 3], 3, 3);
    net.send(1, "1:1");
    net.commit_all();
    assert_eq!(first_data(&net).first.deps.len(), 1);
    net.round(Duration::ZERO);
    net.commit_all();
    assert_eq!(received(&net, 2), plain(&["1:1"]));
}

#[test]
fn id9_two_devices_need_no_hints() {
    let mut net = net(2);
    for _ in 0..3 {
        net.send(0, "0:1");
        net.round(Duration::ZERO);
        net.send(1, "1:1");
        net.commit_all();
        let answer = first_data(&net);
        assert!(answer.first.deps.is_empty());
        net.round(Duration::ZERO);
    }
}

#[test]
fn id9_hints_name_the_latest_of_each_and_at_most_eight() {
    let mut net = net(11);
    for n in 1..11 {
        net.send(n, &format!("{n}:1"));
        net.send(n, &format!("{n}:2"));
        net.round(Duration::ZERO);
    }
    net.wire.clear();
    net.send(0, "0:1");
    net.send(0, "0:2");
    net.commit_all();
    let frames = net.wire.iter().filter_map(|frame| match &frame.body {
        Body::Data(data) if frame.to == 1 => Some(data.clone()),
        _ => None,
    });
    let frames: Vec<_> = frames.collect();
    let messages: Vec<_> = frames
        .iter()
        .flat_map(wire::delivery::Data::messages)
        .collect();
    let deps: Vec<_> = messages[0].deps.iter().map(|dep| dep.device[0]).collect();
    assert_eq!(deps, [4, 5, 6, 7, 8, 9, 10, 11], "the oldest are left out");
    assert!(messages[0].deps.iter().all(|dep| dep.seq == 2));
    assert!(messages[1].deps.is_empty(), "the first one says it");
}

/// The order of hand-over is one thing; no message is lost for it, whatever is in the way.
#[test]
fn id9_more_than_may_wait_is_told_flagged() {
    let mut net = asked_and_answered();
    net.down(0);
    let too_many = super::super::causal::MAX_PARKED;
    net.nodes[2].machine.parked = too_many;
    net.send(1, "1:2");
    net.commit_all();
    net.round(Duration::ZERO);
    net.commit_all();
    let told = [("1:1".to_owned(), true), ("1:2".to_owned(), false)];
    assert_eq!(received(&net, 2), told);
}
