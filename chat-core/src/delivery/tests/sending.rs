//! What is sent, taken back, handed off and repeated: the outbox and its frames.

use super::net::{CONV, Net, channel};
use super::short::{count, first_data, logs, net, progress};
use super::*;

#[test]
fn q1_messages_arrive_once_in_order_and_are_called_delivered() {
    let mut net = net(2);
    net.send_all(0, ["0:1", "0:2", "0:3"]);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
    assert_eq!(net.found, None);
    assert_eq!(count(&net, 0, progress(Ack::Delivered)), 3);
}

/// The delay of an acknowledgement bounds no rate: a thousand messages of one sender take less time
/// than sixteen such delays.
#[test]
fn q1_half_a_window_is_acknowledged_without_delay() {
    for nodes in [2, 4] {
        let mut net = net(nodes);
        let texts: Vec<String> = (0..1_000).map(|n| format!("0:{n}")).collect();
        for says in &texts {
            net.send(0, says);
        }
        for _ in 0..100 {
            net.round(Duration::from_millis(5));
        }
        for node in 1..nodes {
            assert_eq!(logs(&net, node), texts, "{nodes} nodes");
        }
    }
}

/// Who has nothing more to send waits for nobody's delay; who has, says that more follows.
#[test]
fn q1_the_end_of_a_burst_is_acknowledged_without_delay() {
    for nodes in [2, 4] {
        let mut net = net(nodes);
        net.down(0);
        let texts: Vec<String> = (0..70).map(|n| format!("0:{n}")).collect();
        for says in &texts {
            net.send(0, says);
        }
        net.commit_all();
        net.up(0);
        net.pass(Duration::ZERO);
        let pushes = net.wire.iter().filter_map(|frame| match &frame.body {
            Body::Data(data) => Some((data.messages().count(), data.push)),
            _ => None,
        });
        let mut pushes: Vec<_> = pushes.collect();
        // The wire has a copy for each recipient.
        pushes.dedup();
        assert_eq!(pushes, [(64, false), (6, true)]);
        for _ in 0..10 {
            net.round(Duration::from_millis(5));
        }
        let delivered = count(&net, 0, progress(Ack::Delivered));
        assert_eq!(delivered, 70, "{nodes} nodes");
        assert_eq!(logs(&net, 1), texts);
    }
}

#[test]
fn what_waits_together_shares_frames_and_counts_as_if_it_came_alone() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.commit_all();
    assert_eq!(
        first_data(&net).messages().count(),
        1,
        "the first leaves at once"
    );
    net.wire.clear();
    net.down(0);
    let texts: Vec<_> = (2..=150).map(|n| format!("0:{n}")).collect();
    for text in &texts {
        net.send(0, text);
    }
    net.commit_all();
    net.up(0);
    net.pass(Duration::ZERO);
    let frames: Vec<_> = net
        .wire
        .iter()
        .filter_map(|frame| match &frame.body {
            Body::Data(data) => Some(data.messages().map(|m| m.seq).collect::<Vec<_>>()),
            _ => None,
        })
        .collect();
    let seqs = |range: core::ops::RangeInclusive<u64>| range.collect::<Vec<_>>();
    assert_eq!(
        frames,
        [seqs(2..=65), seqs(66..=128)],
        "one window, in two frames"
    );
    net.settle();
    let all: Vec<_> = (1..=150).map(|n| format!("0:{n}")).collect();
    assert_eq!(logs(&net, 1), all);
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
}

#[test]
fn q3_what_never_left_can_be_taken_back_and_leaves_no_gap() {
    let mut net = net(2);
    net.down(0);
    net.send(0, "0:1");
    let id = net.send(0, "0:2");
    net.send(0, "0:3");
    assert!(net.nodes[0].machine.cancel(&id, net.now));
    assert!(!net.nodes[0].machine.cancel(&id, net.now), "only once");
    net.drain(0);
    net.up(0);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:3"]);
    assert_eq!(net.gaps(1, 0), 0);
    assert!(net.failed.contains(&id));
    let late = net.send(0, "0:4");
    net.commit_all();
    assert!(!net.nodes[0].machine.cancel(&late, net.now), "it left");
}

#[test]
fn q3_what_is_taken_back_before_it_is_durable_leaves_empty() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    assert!(net.nodes[0].machine.cancel(&id, net.now));
    net.drain(0);
    net.commit(0);
    assert!(net.wire.is_empty(), "its end is not durable yet");
    net.commit_all();
    assert!(first_data(&net).first.body.is_empty());
    net.settle();
    assert!(logs(&net, 1).is_empty());
}

#[test]
fn q5_a_full_outbox_hands_the_content_back() {
    let config = DeliveryConfig {
        max_outbox: 2,
        ..DeliveryConfig::default()
    };
    let mut net = Net::new(2, false, config, 1);
    net.send(0, "0:1");
    net.send(0, "0:2");
    let content = Content::text("0:3");
    let refused = net.nodes[0]
        .machine
        .send(CONV, TxnId([3; 16]), content.clone(), net.now);
    let limit = "max_outbox";
    assert_eq!(refused, Err(SendError::Full { content, limit }));
    net.settle();
    net.send(0, "0:3");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
}

#[test]
fn q17_a_transaction_names_one_content() {
    let mut net = net(2);
    let txn = TxnId([5; 16]);
    let now = net.now;
    let mut send = |says: &str| {
        net.nodes[0]
            .machine
            .send(CONV, txn, Content::text(says), now)
    };
    let id = send("a").unwrap();
    assert_eq!(send("a"), Ok(id));
    assert_eq!(send("b"), Err(SendError::TxnReused(Content::text("b"))));
    net.drain(0);
    net.settle();
    net.crash(0);
    let machine = &mut net.nodes[0].machine;
    assert_eq!(
        machine.send(CONV, txn, Content::text("a"), now),
        Ok(id),
        "known after the message is done, and after a restart"
    );
}

pub(super) fn carried(first: MessageId, attempt: u32) -> Carried {
    Carried {
        first,
        attempt,
        more: 0,
    }
}

#[test]
fn q7_nothing_is_sent_while_down_and_what_the_broker_refused_is_sent_again() {
    let mut net = net(2);
    net.down(0);
    let id = net.send(0, "0:1");
    net.commit_all();
    net.pass(Duration::from_secs(600));
    assert!(net.wire.is_empty());
    net.up(0);
    net.pass(Duration::ZERO);
    net.commit_all();
    let first = first_data(&net);
    net.wire.clear();
    let now = net.now;
    net.nodes[0]
        .machine
        .handle_handed_off(carried(id, first.attempt), Fate::NotTaken, now);
    net.pass(Duration::from_secs(2));
    let second = first_data(&net);
    assert!(second.attempt > first.attempt, "a new id for the broker");
    for _ in 0..2 {
        net.nodes[0]
            .machine
            .handle_handed_off(carried(id, second.attempt), Fate::Taken, now);
        net.drain(0);
    }
    assert_eq!(count(&net, 0, progress(Ack::HandedOff)), 1);
    assert_eq!(channel(false).path().0, "conv");
}

#[test]
fn q7_a_full_window_to_who_is_away_is_probed_and_does_not_fill_its_mailbox() {
    let mut net = net(2);
    for n in 0..100 {
        net.send(0, &format!("0:{n}"));
    }
    net.commit_all();
    // An hour in small steps: more is in flight than there are tokens in one round trip.
    let mut copies = 0;
    for _ in 0..36_000 {
        net.pass(Duration::from_millis(100));
        net.commit_all();
        copies += net.wire.len();
        net.wire.clear();
    }
    // The window, one bucket of copies, and a probe a minute.
    assert!((100..220).contains(&copies), "{copies} frames");
}

#[test]
fn q7_a_retransmit_shares_a_frame_and_has_an_attempt_of_its_own() {
    let mut net = net(2);
    for text in ["0:1", "0:2", "0:3"] {
        net.send(0, text);
        net.commit_all();
    }
    let first = first_data(&net);
    net.wire.clear();
    net.pass(Duration::from_secs(5));
    let again = first_data(&net);
    assert_eq!((again.first.seq, again.messages().count()), (1, 3));
    assert!(again.attempt > first.attempt);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
}

#[test]
fn s11_a_reconnect_says_what_is_owed_before_it_repeats() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.lose();
    net.down(0);
    net.up(0);
    net.pass(Duration::ZERO);
    assert!(matches!(net.wire[0].body, Body::Hello(_)));
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1"]);
}

#[test]
fn an_end_is_final_and_is_never_told_displayed() {
    let mut net = net(2);
    net.down(0);
    net.send(0, "0:1");
    let cancelled = net.send(0, "0:2");
    net.send(0, "0:3");
    assert!(net.nodes[0].machine.cancel(&cancelled, net.now));
    net.drain(0);
    net.commit_all();
    net.crash(0);
    net.up(0);
    net.settle();
    net.read_all(1);
    net.settle();
    assert_eq!(count(&net, 0, progress(Ack::Displayed)), 2);
    let wrong =
        |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { id, .. } if *id == cancelled);
    assert_eq!(count(&net, 0, wrong), 0);
}
