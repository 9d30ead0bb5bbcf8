//! What the broker will never take: wedged, skipped, retried, given up (Q2).

use super::net::{CONV, Net, sender};
use super::sending::carried;
use super::short::{count, logs, net};
use super::*;
use crate::config::WedgePolicy;

/// Numbers of the messages in the frames under way, frame by frame.
fn under_way(net: &Net) -> Vec<Vec<u64>> {
    let data = |frame: &net::Frame| match &frame.body {
        Body::Data(data) => Some(data.messages().map(|m| m.seq).collect()),
        _ => None,
    };
    net.wire.iter().filter_map(data).collect()
}

/// The broker refuses what is on the wire for good, as one frame that begins with `id`.
fn deny(net: &mut Net, id: MessageId, more: u64) {
    net.commit_all();
    net.wire.clear();
    let frame = Carried {
        more,
        ..carried(id, 1)
    };
    let fate = Fate::Never(Unsendable::Denied);
    let now = net.now;
    net.nodes[0].machine.handle_handed_off(frame, fate, now);
    net.drain(0);
    net.commit_all();
}

fn is_wedged(id: MessageId) -> impl Fn(&DeliveryEvent) -> bool {
    move |event| matches!(event, DeliveryEvent::Wedged { id: of, .. } if *of == id)
}

fn say_aside(net: &mut Net, text: &str) -> MessageId {
    let content = Content::Other {
        kind: 0xc001,
        fallback: text.into(),
        payload: vec![],
    };
    let txn = TxnId(net.rng.bytes());
    let sent = net.nodes[0].machine.send(CONV, txn, content, net.now);
    net.drain(0);
    net.commit_all();
    sent.unwrap()
}

fn retry(net: &mut Net, id: MessageId) -> bool {
    let now = net.now;
    let again = net.nodes[0].machine.retry(&id, now);
    net.drain(0);
    again
}

#[test]
fn q2_those_behind_a_wedged_message_wait_until_it_is_retried() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    deny(&mut net, id, 0);
    assert_eq!(count(&net, 0, is_wedged(id)), 1);
    let wedged = Some((id, Unsendable::Denied));
    assert_eq!(net.nodes[0].machine.wedged(CONV), wedged);
    net.send(0, "0:2");
    for _ in 0..600 {
        net.round(Duration::from_secs(1));
        assert_eq!(under_way(&net), [[0; 0]; 0], "it waits for a decision");
    }
    assert!(logs(&net, 1).is_empty());
    assert!(retry(&mut net, id));
    assert!(!retry(&mut net, id), "it is not wedged any more");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2"]);
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
    assert_eq!(net.found, None);
}

#[test]
fn q2_nothing_is_said_while_all_waits_for_a_decision() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    deny(&mut net, id, 0);
    // An index may wake once too early, and then knows better.
    net.round(Duration::from_secs(10));
    assert!(net.wire.is_empty());
    let idle = net.nodes[0].machine.poll_timeout();
    let expiry = Timestamp::from_secs(1) + DeliveryConfig::default().content_ttl;
    assert_eq!(idle, Some(expiry), "only its time to live runs");
}

#[test]
fn q2_a_wedged_message_that_is_cancelled_leaves_no_gap_and_holds_up_nobody() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    deny(&mut net, id, 0);
    net.send(0, "0:2");
    let now = net.now;
    assert!(net.nodes[0].machine.cancel(&id, now));
    net.drain(0);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:2"]);
    assert_eq!(net.gaps(1, 0), 0);
    let why = FailReason::Cancelled;
    assert!(
        net.nodes[0]
            .events
            .contains(&DeliveryEvent::Failed { id, why })
    );
    assert_eq!(net.found, None);
}

/// An earlier copy may be out: who has it keeps it, who misses it is told of a gap (ID6).
#[test]
fn q2_what_is_given_up_after_a_copy_left_is_a_gap_to_who_misses_it() {
    let mut net = net(3);
    let id = net.send(0, "0:1");
    net.commit_all();
    net.wire.retain(|frame| frame.to == 1);
    net.round(Duration::ZERO);
    // The connection breaks before the broker says anything; the next copy is denied.
    net.down(0);
    net.up(0);
    net.wire.clear();
    for _ in 0..2 {
        net.pass(Duration::from_secs(30));
        net.commit_all();
    }
    assert_eq!(under_way(&net)[0], [1], "another copy");
    deny(&mut net, id, 0);
    assert_eq!(count(&net, 0, is_wedged(id)), 1);
    let now = net.now;
    assert!(net.nodes[0].machine.cancel(&id, now));
    net.drain(0);
    net.send(0, "0:2");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2"]);
    assert_eq!(logs(&net, 2), ["0:2"]);
    assert_eq!(net.gaps(2, 0), 1);
    let why = FailReason::Unsendable(Unsendable::Denied);
    assert!(
        net.nodes[0]
            .events
            .contains(&DeliveryEvent::Failed { id, why })
    );
    assert_eq!(net.found, None);
}

#[test]
fn q2_a_wedge_outlives_its_process_and_the_next_connection_tries_it() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    net.send(0, "0:2");
    deny(&mut net, id, 0);
    net.nodes[0].events.clear();
    net.crash_later(0);
    assert_eq!(count(&net, 0, is_wedged(id)), 1, "told again");
    net.send(0, "0:3");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
    assert_eq!(net.found, None);
}

#[test]
fn q2_skip_and_mark_fails_it_at_once() {
    let config = DeliveryConfig {
        wedge: WedgePolicy::SkipAndMark,
        ..DeliveryConfig::default()
    };
    let mut net = Net::new(2, false, config, 1);
    let id = net.send(0, "0:1");
    deny(&mut net, id, 0);
    net.send(0, "0:2");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:2"]);
    let why = FailReason::Unsendable(Unsendable::Denied);
    assert!(
        net.nodes[0]
            .events
            .contains(&DeliveryEvent::Failed { id, why })
    );
    assert_eq!(count(&net, 0, is_wedged(id)), 0);
    assert_eq!(net.gaps(1, 0), 0);
}

#[test]
fn q2_what_nobody_sees_never_blocks_and_passes_what_is_wedged() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    deny(&mut net, id, 0);
    net.send(0, "0:2");
    let refused = say_aside(&mut net, "0:3");
    deny(&mut net, refused, 0);
    assert_eq!(count(&net, 0, is_wedged(refused)), 0, "skipped");
    say_aside(&mut net, "0:4");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:4"]);
    retry(&mut net, id);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:4", "0:1", "0:2"], "once, and all");
    assert_eq!(net.gaps(1, 0), 0);
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
    assert_eq!(net.found, None);
}

/// What was held behind a loss is shown once its author says that it is wedged below.
#[test]
fn q2_what_was_held_is_let_past_and_survives_a_restart_of_its_receiver() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    say_aside(&mut net, "0:2");
    let aside = net
        .wire
        .iter()
        .position(|frame| matches!(&frame.body, Body::Data(data) if data.first.seq == 2));
    let aside = net.wire[aside.unwrap()].clone();
    net.hand_over(&aside);
    net.commit_all();
    assert!(
        logs(&net, 1).is_empty(),
        "no word of a wedge: it waits its turn"
    );
    deny(&mut net, id, 0);
    net.wire.clear();
    let Body::Data(mut data) = aside.body else {
        panic!("a message was picked");
    };
    data.wedged = true;
    for _ in 0..2 {
        let (machine, now) = (&mut net.nodes[1].machine, net.now);
        machine.handle_data(&sender(0), &data, Standing::Current, now);
        net.drain(1);
        net.commit_all();
        assert_eq!(logs(&net, 1), ["0:2"]);
    }
    net.crash(1);
    retry(&mut net, id);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:2", "0:1"]);
    assert_eq!(net.found, None);
}

#[test]
fn q2_messages_that_were_refused_together_go_alone_and_one_is_wedged() {
    let mut net = net(2);
    net.down(0);
    let first = net.send(0, "0:1");
    net.send(0, "0:2");
    net.send(0, "0:3");
    net.commit_all();
    net.up(0);
    net.pass(Duration::ZERO);
    assert_eq!(under_way(&net), [[1, 2, 3]]);
    deny(&mut net, first, 0b11);
    assert_eq!(under_way(&net), [[1], [2], [3]]);
    assert_eq!(net.nodes[0].machine.wedged(CONV), None);
    let second = MessageId {
        seq: Seq(2),
        ..first
    };
    net.settle_after_denying(second);
    assert_eq!(logs(&net, 1), ["0:1"]);
    assert_eq!(count(&net, 0, is_wedged(second)), 1);
    retry(&mut net, second);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
}

impl Net {
    /// All but `id` arrives, and that is refused.
    fn settle_after_denying(&mut self, id: MessageId) {
        self.wire
            .retain(|frame| !matches!(&frame.body, Body::Data(data) if data.first.seq == id.seq.0));
        let (machine, now) = (&mut self.nodes[0].machine, self.now);
        let fate = Fate::Never(Unsendable::Denied);
        machine.handle_handed_off(carried(id, 2), fate, now);
        self.drain(0);
        self.settle();
    }
}

#[test]
fn q2_a_message_too_large_for_this_connection_is_wedged_until_a_wider_one() {
    let mut net = net(2);
    net.down(0);
    let id = net.send(0, &format!("0:{}", "9".repeat(4_000)));
    net.commit_all();
    let now = net.now;
    net.nodes[0].machine.handle_max_frame(2_000, now);
    net.up(0);
    net.settle();
    let wedged = Some((id, Unsendable::TooLarge));
    assert_eq!(net.nodes[0].machine.wedged(CONV), wedged);
    net.down(0);
    let now = net.now;
    net.nodes[0].machine.handle_max_frame(64_000, now);
    net.up(0);
    net.settle();
    assert_eq!(logs(&net, 1).len(), 1);
}
