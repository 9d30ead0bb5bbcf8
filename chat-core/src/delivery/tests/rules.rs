//! One test per rule.

use super::net::{CONV, Net, channel, sender};
use super::*;
use crate::wire::delivery as frames;

fn net(nodes: usize) -> Net {
    Net::new(nodes, nodes > 2, DeliveryConfig::default(), 1)
}

fn logs(net: &Net, n: usize) -> Vec<&str> {
    net.nodes[n].log.iter().map(|(_, says)| &says[..]).collect()
}

fn count(net: &Net, n: usize, is: impl Fn(&DeliveryEvent) -> bool) -> usize {
    net.nodes[n].events.iter().filter(|e| is(e)).count()
}

fn carried(first: MessageId, attempt: u32) -> Carried {
    Carried {
        first,
        attempt,
        more: 0,
    }
}

fn first_data(net: &Net) -> frames::Data {
    let data = net.wire.iter().find_map(|frame| match &frame.body {
        Body::Data(data) => Some(data.clone()),
        _ => None,
    });
    data.expect("a message is on the wire")
}

#[test]
fn q1_messages_arrive_once_in_order_and_are_called_delivered() {
    let mut net = net(2);
    for says in ["0:1", "0:2", "0:3"] {
        net.send(0, says);
    }
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
    assert_eq!(net.found, None);
    let delivered = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { ack, .. } if *ack == Ack::Delivered);
    assert_eq!(count(&net, 0, delivered), 3);
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
            net.commit_all();
            while !net.wire.is_empty() {
                let frame = net.wire.remove(0);
                net.hand_over(&frame);
                net.commit_all();
            }
            net.pass(Duration::from_millis(5));
        }
        for node in 1..nodes {
            assert_eq!(logs(&net, node), texts, "{nodes} nodes");
        }
    }
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
fn q6_expiry_is_told_on_both_sides() {
    let config = DeliveryConfig {
        content_ttl: Duration::from_secs(5),
        ..DeliveryConfig::default()
    };
    let mut net = Net::new(2, false, config, 1);
    net.send(0, "0:1");
    net.settle();
    net.down(1);
    let lost = net.send(0, "0:2");
    net.commit_all();
    net.wire.clear();
    net.pass(Duration::from_secs(6));
    net.commit_all();
    assert!(net.failed.contains(&lost));
    net.wire.clear();
    net.up(1);
    net.settle();
    assert_eq!(net.gaps(1, 0), 1, "a hello repeats until the base is known");
}

/// A message of 0 to 1 runs out while 1 is away for an hour, and all that was said of it is lost.
fn unaware(config: DeliveryConfig) -> Net {
    let mut net = Net::new(2, false, config, 1);
    net.send(0, "0:1");
    net.settle();
    net.down(1);
    net.send(0, "0:2");
    for _ in 0..60 {
        net.pass(Duration::from_secs(60));
        net.commit_all();
        net.wire.clear();
    }
    net.up(1);
    net
}

#[test]
fn q6_an_expired_tail_is_announced_until_its_receiver_has_heard_of_it() {
    let config = DeliveryConfig {
        content_ttl: Duration::from_secs(5),
        ..DeliveryConfig::default()
    };
    let mut net = unaware(config.clone());
    net.settle();
    assert_eq!(net.gaps(1, 0), 1, "without any sign of it");
    net.wire.clear();
    net.pass(Duration::from_secs(600));
    assert!(net.wire.is_empty(), "and then no more");

    let mut net = unaware(config.clone());
    net.send(1, "1:1");
    for _ in 0..20 {
        net.commit_all();
        while !net.wire.is_empty() {
            net.deliver(0);
        }
        net.pass(Duration::from_millis(250));
    }
    assert_eq!(net.gaps(1, 0), 1, "soon after a sign of it");

    let mut net = unaware(config.clone());
    net.down(1);
    net.crash(0);
    net.commit_all();
    net.wire.clear();
    net.up(1);
    net.settle();
    assert_eq!(net.gaps(1, 0), 1, "also by the next life");

    let mut net = unaware(config);
    net.down(1);
    net.pass(Duration::from_secs(7 * 24 * 3_600));
    net.commit_all();
    net.pass(Duration::from_secs(600));
    net.wire.clear();
    net.pass(Duration::from_secs(3_600));
    assert!(net.wire.is_empty(), "but not for ever");
}

#[test]
fn q6_a_restart_still_knows_that_a_member_is_to_hear_of_an_expired_tail() {
    let config = DeliveryConfig {
        content_ttl: Duration::from_secs(5),
        ..DeliveryConfig::default()
    };
    let mut net = Net::new(3, true, config, 1);
    for n in 0..3 {
        net.open(n, &[n], 1, 0);
        net.open(n, &[0, 1, 2], 5, 5);
    }
    net.down(1);
    net.send(0, "0:1");
    net.settle();
    assert_eq!(net.failed.len(), 1);
    net.crash(0);
    net.settle();
    net.wire.clear();
    net.up(1);
    net.settle();
    assert_eq!((net.gaps(1, 0), net.gaps(2, 0)), (1, 0));
}

#[test]
fn q8_q9_a_restart_sends_the_same_id_and_a_copy_is_not_told_twice() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    net.commit_all();
    let before = first_data(&net);
    net.now.wall = net.now.wall.plus(Duration::from_millis(40));
    net.crash(0);
    net.commit_all();
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1"]);
    assert_eq!(net.nodes[1].log[0].0, id);
    let copy = frames::Data {
        attempt: before.attempt + 1,
        ..before
    };
    let (from, now) = (sender(0), net.now);
    let machine = &mut net.nodes[1].machine;
    machine.handle_data(&from, &copy, Standing::Current, now);
    net.drain(1);
    assert_eq!(net.nodes[1].log.len(), 1);
    let acked = net
        .wire
        .iter()
        .any(|f| matches!(&f.body, Body::Ack(ack) if ack.streams[0].contig == 1));
    assert!(acked, "a copy is acknowledged again at once");
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

/// Kills either side after every number of durable transactions and delivered frames.
#[test]
fn q14_a_crash_between_any_two_effects_loses_and_doubles_nothing() {
    for victim in 0..2 {
        for cut in 0..24 {
            let mut net = net(2);
            let mut steps = 0;
            for n in 1..=3 {
                net.send(0, &format!("0:{n}"));
            }
            while steps < cut {
                steps += 1;
                let mut moved = net.commit(steps % 2);
                if steps % 3 == 0 && !net.wire.is_empty() {
                    let frame = net.wire.remove(0);
                    net.hand_over(&frame);
                    moved = true;
                }
                if !moved {
                    net.pass(Duration::from_millis(100));
                }
            }
            net.now.wall = net.now.wall.plus(Duration::from_millis(40));
            net.crash(victim);
            net.settle();
            net.send(0, "0:9");
            net.settle();
            net.check_order();
            assert_eq!(net.found, None, "victim {victim} after {cut} steps");
            let accepted: Vec<&str> = net.accepted[0].iter().map(|(_, s)| &s[..]).collect();
            assert_eq!(logs(&net, 1), accepted, "victim {victim} after {cut} steps");
            assert_eq!(net.gaps(1, 0), 0);
        }
    }
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

#[test]
fn s15_a_closed_conversation_fails_what_it_owes_and_opens_again_without_reuse() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.settle();
    let lost = net.send(0, "0:2");
    net.nodes[0].machine.close(CONV, FailReason::Gone, net.now);
    net.drain(0);
    net.commit_all();
    assert!(net.failed.contains(&lost));
    let closed = net.nodes[0]
        .machine
        .send(CONV, TxnId([1; 16]), Content::text("x"), net.now);
    assert!(matches!(closed, Err(SendError::NotOpen(_))));
    net.wire.clear();
    net.open(0, &[0, 1], 0, 0);
    let id = net.send(0, "0:3");
    assert!(id.seq > lost.seq);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:3"]);
    assert_eq!(net.gaps(1, 0), 1);
}

#[test]
fn s11_what_another_wake_opens_is_greeted_at_the_next_and_not_at_once() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.commit_all();
    net.wire.clear();
    net.nodes[0].routes.clear();
    net.crash(0);
    net.commit_all();
    net.nodes[0].machine.handle_timeout(net.now);
    net.open(0, &[0, 1], 0, 0);
    let due = net.nodes[0].machine.poll_timeout();
    assert!(due.is_some_and(|due| due > net.now.mono), "{due:?}");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1"]);
}

#[test]
fn s5_reading_in_a_closed_conversation_is_told_to_nobody() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.settle();
    let sort = net.nodes[1].events.iter().find_map(|e| match e {
        DeliveryEvent::Received(received) => Some(received.sort),
        _ => None,
    });
    let now = net.now;
    net.nodes[1].machine.close(CONV, FailReason::Gone, now);
    net.nodes[1].machine.mark_read(CONV, sort.unwrap(), now);
    net.drain(1);
    net.wire.clear();
    for _ in 0..20 {
        net.pass(Duration::from_millis(250));
        net.commit_all();
    }
    assert!(net.wire.is_empty(), "{:?}", net.wire.first());
}

#[test]
fn g10_who_left_is_not_waited_for() {
    let mut net = net(3);
    net.down(2);
    net.send(0, "0:1");
    net.settle();
    assert_eq!(net.nodes[0].machine.outbox_size().0, 1);
    net.open(0, &[0, 1], 2, 0);
    net.commit_all();
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
    let delivered = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { ack, .. } if *ack == Ack::Delivered);
    assert_eq!(count(&net, 0, delivered), 1);
}

#[test]
fn id2_id4_one_dead_member_holds_up_nobody_when_the_sender_restarts() {
    let mut net = net(3);
    net.down(2);
    let mut said = Vec::new();
    for life in 1..=3 {
        for n in 1..=2 {
            said.push(format!("0:{}", life * 10 + n));
            net.send(0, said.last().unwrap());
        }
        for _ in 0..40 {
            net.commit_all();
            while !net.wire.is_empty() {
                let frame = net.wire.remove(0);
                net.hand_over(&frame);
                net.commit_all();
            }
            net.pass(Duration::from_millis(250));
        }
        assert_eq!(logs(&net, 1), said, "within ten seconds");
        net.now.wall = net.now.wall.plus(Duration::from_millis(40));
        net.crash(0);
    }
    assert_eq!(net.gaps(1, 0), 0);
    // Had it only been away, it gets all of it too.
    net.up(2);
    net.settle();
    assert_eq!(logs(&net, 2), said);
    assert_eq!((net.gaps(2, 0), net.gaps(1, 0)), (0, 0));
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
    assert_eq!(net.found, None);
}

#[test]
fn id4_what_a_dead_member_never_takes_keeps_nothing_from_the_living() {
    let mut net = net(3);
    net.down(2);
    for n in 1..=6 {
        for m in 1..=25 {
            net.send(0, &format!("0:{}", n * 100 + m));
        }
        net.settle();
    }
    assert_eq!(net.nodes[1].log.len(), 150);
    net.send(0, "0:999");
    net.commit_all();
    net.wire.clear();
    net.settle();
    assert_eq!(net.nodes[1].log.len(), 151, "it was lost once");
}

#[test]
fn id4_a_wall_clock_that_jumps_gives_nothing_up_that_may_still_come() {
    let mut net = net(2);
    for text in ["0:1", "0:2", "0:3"] {
        net.send(0, text);
    }
    net.commit_all();
    net.wire.remove(0);
    let held = net.wire.remove(0);
    net.hand_over(&held);
    let true_wall = net.now.wall;
    net.now.wall = true_wall.plus(Duration::from_secs(40 * 24 * 3_600));
    let held = net.wire.remove(0);
    net.hand_over(&held);
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
    for text in ["0:1", "0:2"] {
        net.send(0, text);
    }
    net.commit_all();
    net.wire.remove(0);
    let held = net.wire.remove(0);
    net.hand_over(&held);
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

#[test]
fn id2_who_misses_something_older_passes_over_a_newer_epoch() {
    let mut net = net(3);
    net.down(2);
    net.send(0, "0:1");
    net.settle();
    net.send(0, "0:2");
    net.commit_all();
    net.wire.clear();
    net.now.wall = net.now.wall.plus(Duration::from_millis(40));
    net.crash(0);
    net.commit_all();
    net.wire.clear();
    let newer = net.nodes[0].machine.epoch();
    let older = net.nodes[1].log[0].0.stream.epoch;
    let mut data = frames::Data {
        conv: CONV.0,
        epoch: newer.0,
        base: 1,
        sent_before: 2,
        base_roster: 1,
        prev_roster: 1,
        roster: 1,
        attempt: 1,
        prior: Some(Box::new(frames::OpenStream {
            epoch: older.0,
            base: 1,
            next: 3,
            sent_before: 0,
            base_roster: 0,
            last_roster: 1,
        })),
        first: frames::Message {
            seq: 1,
            hlc: net.now.wall.0 << 16,
            ttl_ms: 60_000,
            deps: wire::BoundedVec::default(),
            body: Content::text("0:3")
                .encode(CONV)
                .unwrap()
                .try_into()
                .unwrap(),
        },
        more: wire::BoundedVec::default(),
    };
    let hear = |net: &mut Net, n: usize, data: &frames::Data| {
        let now = net.now;
        let machine = &mut net.nodes[n].machine;
        machine.handle_data(&sender(0), data, Standing::Current, now);
        net.drain(n);
        net.commit_all();
    };
    hear(&mut net, 1, &data);
    assert_eq!(logs(&net, 1), ["0:1"], "the second message comes first");
    // What it misses has expired meanwhile.
    data.prior.as_mut().unwrap().base = 3;
    hear(&mut net, 1, &data);
    assert_eq!(logs(&net, 1), ["0:1", "0:3"]);
    assert_eq!(net.gaps(1, 0), 1);
}

#[test]
fn g16_a_new_member_gets_what_follows_and_no_gap_while_older_messages_are_still_owed() {
    let mut net = net(3);
    // Node 2 is not a member yet, and node 1 is away: the first messages stay owed to it.
    for n in [0, 1] {
        net.open(n, &[0, 1], 1, 0);
    }
    net.nodes[2].machine.close(CONV, FailReason::Gone, net.now);
    net.drain(2);
    net.down(1);
    net.send(0, "0:1");
    net.send(0, "0:2");
    net.settle();
    net.wire.clear();
    net.open(0, &[0, 1, 2], 5, 0);
    net.open(1, &[0, 1, 2], 5, 0);
    net.open(2, &[0, 1, 2], 5, 5);
    net.send(0, "0:3");
    net.settle();
    assert_eq!(logs(&net, 2), ["0:3"], "held up by nobody");
    assert_eq!(net.gaps(2, 0), 0);
    net.up(1);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
    assert_eq!(logs(&net, 2), ["0:3"]);
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
}

#[test]
fn g16_a_restart_owes_nothing_to_who_was_admitted_later() {
    let mut net = Net::new(3, true, DeliveryConfig::default(), 1);
    for n in [0, 1] {
        net.open(n, &[0, 1], 1, 0);
    }
    net.down(1);
    net.send(0, "0:1");
    net.commit_all();
    net.open(0, &[0, 1, 2], 5, 0);
    net.crash(0);
    net.open(1, &[0, 1, 2], 5, 0);
    // Node 2 never comes back.
    net.down(2);
    net.up(1);
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1"]);
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
}

#[test]
fn g16_who_was_out_meanwhile_is_owed_only_what_follows() {
    let mut net = Net::new(3, true, DeliveryConfig::default(), 1);
    net.down(2);
    net.send(0, "0:1");
    net.settle();
    assert_eq!(net.nodes[0].machine.outbox_size().0, 1);
    net.nodes[0]
        .routes
        .insert(CONV, Route::new(channel(true), Default::default(), 1, true));
    net.open(0, &[0, 1, 2], 5, 0);
    net.commit_all();
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
    net.send(0, "0:2");
    net.settle();
    assert_eq!(net.nodes[0].machine.outbox_size().0, 1);
}

#[test]
fn q12_a_device_that_came_later_has_not_seen_for_its_user_what_it_was_not_sent() {
    let mut net = Net::new(3, true, DeliveryConfig::default(), 1);
    net.down(1);
    let id = net.send(0, "0:1");
    net.settle();
    let mut route = net.nodes[0].routes[&CONV].clone();
    let later = (sender(1).user, DeviceId([9; 32]));
    route.recipients.insert(later, 5);
    route.roster = 5;
    let now = net.now;
    net.nodes[0].machine.open(CONV, route, now);
    let ack = frames::Ack {
        streams: wire::BoundedVec::take_from([frames::StreamAck {
            device: sender(0).device.0,
            conv: CONV.0,
            epoch: id.stream.epoch.0,
            contig: 1,
            bitmap: 0,
            window: 64,
            read: 1,
            refused: wire::BoundedVec::default(),
        }]),
    };
    let displayed = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { ack, .. } if *ack == Ack::Displayed);
    net.nodes[0].machine.handle_ack(&sender(2), &ack, now);
    net.drain(0);
    net.commit_all();
    assert_eq!(count(&net, 0, displayed), 0);
    net.nodes[0].machine.handle_ack(&sender(1), &ack, now);
    net.drain(0);
    net.commit_all();
    assert_eq!(count(&net, 0, displayed), 1);
}

#[test]
fn g10_a_group_of_one_has_delivered_everything() {
    let mut net = Net::new(3, true, DeliveryConfig::default(), 1);
    net.open(0, &[0], 2, 0);
    let id = net.send(0, "0:1");
    net.commit_all();
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
    let done = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { id: of, ack } if *of == id && *ack == Ack::Delivered);
    assert_eq!(count(&net, 0, done), 1);
    assert!(net.wire.is_empty());
}

/// Node 1 says that it has everything up to `contig` of the stream of `id`.
fn ack_of(id: MessageId, contig: u64) -> frames::Ack {
    frames::Ack {
        streams: wire::BoundedVec::take_from([frames::StreamAck {
            device: id.stream.device.0,
            conv: CONV.0,
            epoch: id.stream.epoch.0,
            contig,
            bitmap: 0,
            window: 64,
            read: 0,
            refused: wire::BoundedVec::default(),
        }]),
    }
}

#[test]
fn id6_an_ack_from_the_future_opens_a_new_epoch_and_renames_what_is_owed() {
    let mut net = net(2);
    let old = net.send(0, "0:1");
    net.commit_all();
    net.wire.clear();
    let ack = ack_of(old, 7);
    let now = net.now;
    net.nodes[0].machine.handle_ack(&sender(1), &ack, now);
    net.drain(0);
    net.commit_all();
    let epoch = net.nodes[0].machine.epoch();
    assert!(epoch > old.stream.epoch);
    let stored = &net.nodes[0].disk[&(Table::Meta, Bytes::from_static(b"epoch"))];
    assert_eq!(stored[..], epoch.0.to_le_bytes());
    assert!(
        net.nodes[0]
            .events
            .contains(&DeliveryEvent::RolledBack { epoch })
    );
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1"]);
    assert_eq!(net.nodes[1].log[0].0.stream.epoch, epoch);
    assert_eq!(net.gaps(1, 0), 0);
}

#[test]
fn id3_a_restored_receiver_is_counted_once_for_each_message() {
    let mut net = net(3);
    let epoch = net.send(0, "0:1").stream.epoch;
    net.settle();
    net.send(0, "0:2");
    net.commit_all();
    net.wire.clear();
    // Node 1 lost the first message and has the second: twice, above a watermark that is higher.
    for _ in 0..2 {
        let ack = frames::Ack {
            streams: wire::BoundedVec::take_from([frames::StreamAck {
                device: sender(0).device.0,
                conv: CONV.0,
                epoch: epoch.0,
                contig: 0,
                bitmap: 1,
                window: 64,
                read: 0,
                refused: wire::BoundedVec::default(),
            }]),
        };
        let now = net.now;
        net.nodes[0].machine.handle_ack(&sender(1), &ack, now);
    }
    net.drain(0);
    assert_eq!(net.nodes[0].machine.outbox_size().0, 1, "2 has it not");
}

#[test]
fn q12_reading_is_told_forward_only_and_when_all_have_read() {
    let mut net = net(3);
    net.send(0, "0:1");
    let last = net.send(0, "0:2");
    net.settle();
    let shown = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { ack, .. } if *ack == Ack::Displayed);
    for reader in [1, 2] {
        assert_eq!(count(&net, 0, shown), 0);
        let sort = net.nodes[reader].events.iter().rev().find_map(|e| match e {
            DeliveryEvent::Received(received) => Some(received.sort),
            _ => None,
        });
        let now = net.now;
        net.nodes[reader]
            .machine
            .mark_read(CONV, sort.unwrap(), now);
        net.drain(reader);
        net.settle();
    }
    assert_eq!(count(&net, 0, shown), 2);
    let seen = (last.stream.epoch, last.seq);
    assert_eq!(net.nodes[0].machine.displayed_up_to(CONV), seen);
    net.crash(0);
    assert_eq!(net.nodes[0].machine.displayed_up_to(CONV), seen);
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
    let sort = net.nodes[1].events.iter().rev().find_map(|e| match e {
        DeliveryEvent::Received(received) => Some(received.sort),
        _ => None,
    });
    let now = net.now;
    net.nodes[1].machine.mark_read(CONV, sort.unwrap(), now);
    net.drain(1);
    net.settle();
    let shown = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { ack, .. } if *ack == Ack::Displayed);
    assert_eq!(count(&net, 0, shown), 2);
    let wrong =
        |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { id, .. } if *id == cancelled);
    assert_eq!(count(&net, 0, wrong), 0);
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
fn s11_a_reconnect_says_what_is_owed_before_it_repeats() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.commit_all();
    net.wire.clear();
    net.down(0);
    net.up(0);
    net.pass(Duration::ZERO);
    assert!(matches!(net.wire[0].body, Body::Hello(_)));
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1"]);
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
        .handle_handed_off(carried(id, first.attempt), false, now);
    net.pass(Duration::from_secs(2));
    let second = first_data(&net);
    assert!(second.attempt > first.attempt, "a new id for the broker");
    let handed = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { ack, .. } if *ack == Ack::HandedOff);
    for _ in 0..2 {
        net.nodes[0]
            .machine
            .handle_handed_off(carried(id, second.attempt), true, now);
        net.drain(0);
    }
    assert_eq!(count(&net, 0, handed), 1);
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
    let texts: Vec<_> = (2..=70).map(|n| format!("0:{n}")).collect();
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
        [seqs(2..=33), seqs(34..=64)],
        "one window, in two frames"
    );
    net.settle();
    let all: Vec<_> = (1..=70).map(|n| format!("0:{n}")).collect();
    assert_eq!(logs(&net, 1), all);
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
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
fn impossible_lists_of_messages_change_nothing() {
    let mut net = net(2);
    for text in ["0:1", "0:2"] {
        net.send(0, text);
    }
    net.commit_all();
    net.wire.clear();
    net.pass(Duration::from_secs(5));
    let good = first_data(&net);
    let second = good.more[0].clone();
    net.wire.clear();
    let lists = [
        vec![good.first.clone()],
        vec![frames::Message {
            seq: 65,
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
fn g16_what_a_rollback_renames_is_not_owed_to_who_joined_later() {
    let mut net = net(3);
    for n in [0, 1] {
        net.open(n, &[0, 1], 1, 0);
    }
    let old = net.send(0, "0:1");
    net.commit_all();
    net.wire.clear();
    for n in [0, 1] {
        net.open(n, &[0, 1, 2], 2, 0);
    }
    net.open(2, &[0, 1, 2], 2, 2);
    // A later life of ours had told node 1 more.
    let ack = ack_of(old, 7);
    let now = net.now;
    net.nodes[0].machine.handle_ack(&sender(1), &ack, now);
    net.drain(0);
    net.commit_all();
    assert!(net.nodes[0].machine.epoch() > old.stream.epoch);
    net.send(0, "0:2");
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2"]);
    assert_eq!(
        logs(&net, 2),
        ["0:2"],
        "it was no member when the first was written"
    );
    assert_eq!(net.gaps(2, 0), 0);
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
}

#[test]
fn q9_who_repeats_a_send_after_a_restart_hears_how_it_ended() {
    let config = DeliveryConfig {
        content_ttl: Duration::from_secs(5),
        ..DeliveryConfig::default()
    };
    let mut net = Net::new(2, false, config, 1);
    let send = |net: &mut Net, n: u8| {
        let now = net.now;
        let text = Content::text("0:1");
        let sent = net.nodes[0].machine.send(CONV, TxnId([n; 16]), text, now);
        net.drain(0);
        sent.unwrap()
    };
    let arrives = send(&mut net, 1);
    net.settle();
    net.down(1);
    let expires = send(&mut net, 2);
    net.commit_all();
    net.pass(Duration::from_secs(6));
    net.commit_all();
    net.crash(0);
    net.nodes[0].events.clear();
    assert_eq!(send(&mut net, 1), arrives);
    assert_eq!(send(&mut net, 2), expires);
    net.commit_all();
    let (delivered, expired) = (Ack::Delivered, FailReason::Expired);
    let wanted = [
        DeliveryEvent::Progress {
            id: arrives,
            ack: delivered,
        },
        DeliveryEvent::Failed {
            id: expires,
            why: expired,
        },
    ];
    for event in wanted {
        assert!(net.nodes[0].events.contains(&event), "{event:?}");
    }
}

#[test]
fn a_place_acknowledged_out_of_turn_leaves_those_before_it_to_be_told_again() {
    let mut net = net(2);
    for text in ["0:1", "0:2", "0:3"] {
        net.send(0, text);
    }
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
    net.commit_all();
    net.wire.clear();
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

#[test]
fn q6_id7_what_a_crash_keeps_from_being_told_is_told_by_the_next_life_and_then_no_more() {
    let config = DeliveryConfig {
        content_ttl: Duration::from_secs(5),
        ..DeliveryConfig::default()
    };
    let mut net = Net::new(2, false, config, 1);
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
