//! What arrives: the inbox and its bounds, what cannot be read, who reads and who types.

use super::net::{CONV, Net, sender};
use super::short::{count, first_data, logs, net, progress};
use super::*;
use crate::wire::delivery as frames;

#[test]
fn q5_a_full_inbox_closes_the_window_and_acknowledging_opens_it() {
    let config = DeliveryConfig {
        max_inbox: 16,
        ..DeliveryConfig::default()
    };
    let mut net = Net::new(2, false, config, 1);
    for n in 1..=9 {
        net.send(0, &format!("0:{n}"));
    }
    net.settle();
    assert_eq!(net.nodes[1].log.len(), 4, "a quarter of the inbox");
    assert_eq!(net.nodes[0].machine.outbox_size().0, 5);
    for pos in [4, 8] {
        net.nodes[1].machine.acknowledge(CONV, pos, net.now);
        net.drain(1);
        net.settle();
    }
    assert_eq!(net.nodes[1].log.len(), 9);
    assert_eq!(net.found, None);
}

#[test]
fn q13_poison_is_put_aside_refused_and_passed_over() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.send(0, "0:2");
    net.commit_all();
    for frame in &mut net.wire {
        if let Body::Data(data) = &mut frame.body
            && data.first.seq == 1
        {
            data.first.body = vec![0xff; 3].try_into().unwrap();
        }
    }
    net.settle();
    assert_eq!(logs(&net, 1), ["0:2"]);
    let dead = |e: &DeliveryEvent| matches!(e, DeliveryEvent::DeadLetter { .. });
    assert_eq!(count(&net, 1, dead), 1);
    assert_eq!(net.failed.len(), 1);
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
    assert!(
        net.nodes[1]
            .disk
            .keys()
            .any(|(t, _)| *t == Table::DeadLetters)
    );
}

#[test]
fn impossible_lists_of_messages_change_nothing() {
    let mut net = net(2);
    net.send_all(0, ["0:1", "0:2"]);
    net.lose();
    net.pass(Duration::from_secs(5));
    let good = first_data(&net);
    let second = good.more[0].clone();
    net.wire.clear();
    let lists = [
        vec![good.first.clone()],
        vec![frames::Message {
            seq: 129,
            ..second.clone()
        }],
        vec![frames::Message {
            seq: u64::MAX,
            ..second.clone()
        }],
        vec![
            frames::Message {
                seq: 3,
                ..second.clone()
            },
            second,
        ],
    ];
    for more in lists {
        let bad = frames::Data {
            more: wire::BoundedVec::take_from(more),
            ..good.clone()
        };
        let now = net.now;
        let machine = &mut net.nodes[1].machine;
        machine.handle_data(&sender(0), &bad, Standing::Current, now);
        assert!(machine.effects().pop().is_none());
    }
}

#[test]
fn q12_reading_is_told_forward_only_and_when_all_have_read() {
    let mut net = net(3);
    net.send(0, "0:1");
    let last = net.send(0, "0:2");
    net.settle();
    for reader in [1, 2] {
        assert_eq!(count(&net, 0, progress(Ack::Displayed)), 0);
        net.read_all(reader);
        net.settle();
    }
    assert_eq!(count(&net, 0, progress(Ack::Displayed)), 2);
    let seen = (last.stream.epoch, last.seq);
    assert_eq!(net.nodes[0].machine.displayed_up_to(CONV), seen);
    net.crash(0);
    assert_eq!(net.nodes[0].machine.displayed_up_to(CONV), seen);
}

#[test]
fn q4_typing_is_throttled_and_lapses() {
    let mut net = net(2);
    for _ in 0..3 {
        let now = net.now;
        net.nodes[0].machine.set_typing(CONV, true, now);
        net.drain(0);
    }
    assert_eq!(net.wire.len(), 1);
    net.deliver(0);
    let told = |active| move |e: &DeliveryEvent| matches!(e, DeliveryEvent::Typing { active: a, .. } if *a == active);
    assert_eq!(count(&net, 1, told(true)), 1);
    net.pass(Duration::from_secs(13));
    assert_eq!(count(&net, 1, told(false)), 1);
}

#[test]
fn s5_reading_in_a_closed_conversation_is_told_to_nobody() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.settle();
    let sort = net.last_received(1);
    let now = net.now;
    net.nodes[1].machine.close(CONV, FailReason::Gone, now);
    net.nodes[1].machine.mark_read(CONV, sort, now);
    net.drain(1);
    net.wire.clear();
    for _ in 0..20 {
        net.pass(Duration::from_millis(250));
        net.commit_all();
    }
    assert!(net.wire.is_empty(), "{:?}", net.wire.first());
}

#[test]
fn a_place_acknowledged_out_of_turn_leaves_those_before_it_to_be_told_again() {
    let mut net = net(2);
    net.send_all(0, ["0:1", "0:2", "0:3"]);
    net.settle();
    let now = net.now;
    net.nodes[1].machine.acknowledge_only(CONV, 2, now);
    net.drain(1);
    net.commit_all();
    net.nodes[1].events.clear();
    net.crash(1);
    let again: Vec<u64> = net.nodes[1]
        .events
        .iter()
        .filter_map(|event| match event {
            DeliveryEvent::Received(received) => Some(received.pos),
            _ => None,
        })
        .collect();
    assert_eq!(again, [1, 3]);
}

#[test]
fn s13_what_the_transport_says_it_dropped_is_asked_for() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.settle();
    net.send(0, "0:2");
    net.lose();
    let now = net.now;
    net.nodes[1].machine.handle_gap(CONV, now);
    net.drain(1);
    net.commit_all();
    let answered = net.wire.iter().any(|f| matches!(&f.body, Body::Ack(_)));
    assert!(answered, "the sender is told what is here");
    net.wire.clear();
    net.nodes[0].machine.handle_inbox_gap(now);
    net.pass(Duration::ZERO);
    let asked = net.wire.iter().any(|f| matches!(&f.body, Body::Hello(_)));
    assert!(asked, "whose acknowledgements may be lost is asked again");
}
