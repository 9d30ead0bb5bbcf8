//! Crashes, restored stores, and conversations that close and open again.

use super::net::{CONV, Net, sender};
use super::short::{first_data, logs, net, short_lived, stream_ack};
use super::*;
use crate::wire::delivery as frames;

#[test]
fn q8_q9_a_restart_sends_the_same_id_and_a_copy_is_not_told_twice() {
    let mut net = net(2);
    let id = net.send(0, "0:1");
    net.commit_all();
    let before = first_data(&net);
    net.crash_later(0);
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
fn q9_who_repeats_a_send_after_a_restart_hears_how_it_ended() {
    let mut net = Net::new(2, false, short_lived(), 1);
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
                    net.hand_over_first();
                    moved = true;
                }
                if !moved {
                    net.pass(Duration::from_millis(100));
                }
            }
            net.crash_later(victim);
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
fn id2_who_misses_something_older_passes_over_a_newer_epoch() {
    let mut net = net(3);
    net.down(2);
    net.send(0, "0:1");
    net.settle();
    net.send(0, "0:2");
    net.lose();
    net.crash_later(0);
    net.lose();
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
        push: false,
        prior: Some(Box::new(frames::OpenStream {
            epoch: older.0,
            base: 1,
            next: 3,
            sent_before: 0,
            base_roster: 0,
            last_roster: 1,
        })),
        wedged: false,
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
fn id3_a_restored_receiver_is_counted_once_for_each_message() {
    let mut net = net(3);
    let first = net.send(0, "0:1");
    net.settle();
    net.send(0, "0:2");
    net.lose();
    // Node 1 lost the first message and has the second: twice, above a watermark that is higher.
    for _ in 0..2 {
        let ack = frames::StreamAck {
            bitmap: 1,
            ..stream_ack(first, 0)
        };
        net.hear_ack(0, 1, ack);
    }
    assert_eq!(net.nodes[0].machine.outbox_size().0, 1, "2 has it not");
}

#[test]
fn id6_an_ack_from_the_future_opens_a_new_epoch_and_renames_what_is_owed() {
    let mut net = net(2);
    let old = net.send(0, "0:1");
    net.lose();
    net.hear_ack(0, 1, stream_ack(old, 7));
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
fn s11_what_another_wake_opens_is_greeted_at_the_next_and_not_at_once() {
    let mut net = net(2);
    net.send(0, "0:1");
    net.lose();
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
