//! Groups: who is waited for, who is owed what, who came later or left.

use super::net::{CONV, Net, channel, sender};
use super::short::{count, logs, net, progress, short_lived, stream_ack};
use super::*;
use crate::delivery::outbox::Who;
use crate::wire::delivery as frames;

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
    assert_eq!(count(&net, 0, progress(Ack::Delivered)), 1);
}

#[test]
fn g10_a_group_of_one_has_delivered_everything() {
    let mut net = net(3);
    net.open(0, &[0], 2, 0);
    let id = net.send(0, "0:1");
    net.commit_all();
    assert_eq!(net.nodes[0].machine.outbox_size().0, 0);
    let done = |e: &DeliveryEvent| matches!(e, DeliveryEvent::Progress { id: of, ack } if *of == id && *ack == Ack::Delivered);
    assert_eq!(count(&net, 0, done), 1);
    assert!(net.wire.is_empty());
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
            net.round(Duration::from_millis(250));
        }
        assert_eq!(logs(&net, 1), said, "within ten seconds");
        net.crash_later(0);
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
    net.lose();
    net.settle();
    assert_eq!(net.nodes[1].log.len(), 151, "it was lost once");
}

#[test]
fn q6_a_restart_still_knows_that_a_member_is_to_hear_of_an_expired_tail() {
    let mut net = Net::new(3, true, short_lived(), 1);
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
    let mut net = net(3);
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
    let mut net = net(3);
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
fn g16_what_a_rollback_renames_is_not_owed_to_who_joined_later() {
    let mut net = net(3);
    for n in [0, 1] {
        net.open(n, &[0, 1], 1, 0);
    }
    let old = net.send(0, "0:1");
    net.lose();
    for n in [0, 1] {
        net.open(n, &[0, 1, 2], 2, 0);
    }
    net.open(2, &[0, 1, 2], 2, 2);
    // A later life of ours had told node 1 more.
    net.hear_ack(0, 1, stream_ack(old, 7));
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
fn q12_a_device_that_came_later_has_not_seen_for_its_user_what_it_was_not_sent() {
    let mut net = net(3);
    net.down(1);
    let id = net.send(0, "0:1");
    net.settle();
    let mut route = net.nodes[0].routes[&CONV].clone();
    let later = (sender(1).user, DeviceId([9; 32]));
    route.recipients.insert(later, 5);
    route.roster = 5;
    let now = net.now;
    net.nodes[0].machine.open(CONV, route, now);
    let ack = frames::StreamAck {
        read: 1,
        ..stream_ack(id, 1)
    };
    net.hear_ack(0, 2, ack.clone());
    net.commit_all();
    assert_eq!(count(&net, 0, progress(Ack::Displayed)), 0);
    net.hear_ack(0, 1, ack);
    net.commit_all();
    assert_eq!(count(&net, 0, progress(Ack::Displayed)), 1);
}

/// A person with two devices of which one has the message, and a person who has nothing of it.
fn two_devices_and_one(since: u64) -> (Net, MessageId, [Who; 2]) {
    let mut net = net(3);
    let mut route = net.nodes[0].routes[&CONV].clone();
    let other = (sender(1).user, DeviceId([0xfe; 32]));
    route.recipients.insert(other.clone(), since);
    route.roster = since;
    let now = net.now;
    net.nodes[0].machine.open(CONV, route.clone(), now);
    net.nodes[0].routes.insert(CONV, route);
    let id = net.send(0, "0:1");
    net.commit_all();
    net.hear_ack(0, 1, stream_ack(id, 1));
    (net, id, [(sender(1).user, sender(1).device), other])
}

fn without(net: &mut Net, gone: &[&Who]) {
    let mut route = net.nodes[0].routes[&CONV].clone();
    route.recipients.retain(|who, _| !gone.contains(&who));
    route.roster += 1;
    let now = net.now;
    net.nodes[0].machine.open(CONV, route.clone(), now);
    net.nodes[0].routes.insert(CONV, route);
    net.drain(0);
    net.commit_all();
}

#[test]
fn id4_a_person_who_goes_counts_once_whatever_its_devices_have() {
    let (mut net, id, [had, missed]) = two_devices_and_one(5);
    without(&mut net, &[&had, &missed]);
    assert_eq!(count(&net, 0, progress(Ack::Delivered)), 0, "2 has it not");
    net.hear_ack(0, 2, stream_ack(id, 1));
    net.commit_all();
    assert_eq!(count(&net, 0, progress(Ack::Delivered)), 1);
}

#[test]
fn id4_a_device_that_had_it_goes_and_the_other_hears_of_it_later() {
    let (mut net, id, [had, missed]) = two_devices_and_one(5);
    without(&mut net, &[&had]);
    net.hear_ack(0, 2, stream_ack(id, 1));
    net.commit_all();
    assert_eq!(
        count(&net, 0, progress(Ack::Delivered)),
        0,
        "who is left has it not"
    );
    without(&mut net, &[&missed]);
    assert_eq!(count(&net, 0, progress(Ack::Delivered)), 1);
}
