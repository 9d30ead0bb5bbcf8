//! Disks that go back or away, and nodes that die: what they took along is exempt, and nothing else.

use chat_core::effect::{RowOp, Table};
use chat_core::id::TxnId;

use super::*;

fn accepted(bench: &Bench, seq: u64) -> Event {
    told(DeliveryEvent::Accepted {
        id: bench.id(seq),
        txn: TxnId([seq as u8; 16]),
        sort: SortKey {
            hlc: Hlc(seq),
            device: bench.at(0, 0).device,
            epoch: Epoch(1),
            seq,
        },
    })
}

fn delivered(bench: &Bench, seq: u64) -> Event {
    told(DeliveryEvent::Progress {
        id: bench.id(seq),
        ack: Ack::Delivered,
    })
}

/// The row of a message that waits for one before it.
fn held(bench: &Bench, seq: u64) -> [RowOp; 1] {
    let stream = bench.id(seq).stream;
    let key = [
        &stream.conv.0[..],
        &stream.device.0[..],
        &stream.epoch.0.to_be_bytes()[..],
        &seq.to_be_bytes()[..],
    ];
    [RowOp::Put {
        table: Table::Streams,
        key: key.concat().into(),
        value: Bytes::new(),
    }]
}

fn settled(bench: &Bench, oracle: &mut Delivery) -> Result<(u64, u64), &'static str> {
    let rows = crate::sim::Rows::new();
    let view = |node| super::super::View {
        at: bench.at(node, 100),
        endpoint: None,
        killed: false,
        paused: false,
        rows: &rows,
    };
    let verdict = oracle.settled(&[view(0), view(1)]);
    verdict
        .map(|_| oracle.exempt())
        .map_err(|broken| broken.rule)
}

#[test]
fn id3_what_is_called_delivered_and_was_nowhere_bites_also_for_the_dead() {
    let bench = Bench::new();
    let judged = |there: bool| {
        let mut oracle = delivery(&bench, &[1]);
        oracle
            .see(bench.at(0, 2), Seen::Event(&accepted(&bench, 1)))
            .unwrap();
        if there {
            let rows = held(&bench, 1);
            oracle.see(bench.at(1, 3), Seen::Stored(&rows)).unwrap();
        }
        oracle.see(bench.at(1, 4), Seen::Killed).unwrap();
        oracle.see(bench.at(0, 5), Seen::Event(&delivered(&bench, 1)))
    };
    assert_eq!(rule(judged(false)), "ID3");
    judged(true).unwrap();
}

#[test]
fn id4_a_sender_that_went_back_is_excused_for_what_came_after_the_backup_only() {
    let bench = Bench::new();
    let judged = |after: bool| {
        let mut oracle = delivery(&bench, &[1]);
        let (copied, taken) = if after { (2, 3) } else { (3, 2) };
        for now in 2..=3 {
            if now == copied {
                oracle.see(bench.at(0, now), Seen::BackedUp).unwrap();
            }
            if now == taken {
                oracle
                    .see(bench.at(0, now), Seen::Event(&accepted(&bench, 1)))
                    .unwrap();
            }
        }
        oracle.see(bench.at(0, 4), Seen::RolledBack).unwrap();
        settled(&bench, &mut oracle)
    };
    assert_eq!(judged(false), Err("ID4"));
    assert_eq!(judged(true), Ok((1, 1)));
}

#[test]
fn id4_a_receiver_that_went_back_is_excused_for_what_it_had_only() {
    let bench = Bench::new();
    let judged = |had: bool| {
        let mut oracle = delivery(&bench, &[1]);
        oracle
            .see(bench.at(0, 2), Seen::Event(&accepted(&bench, 1)))
            .unwrap();
        oracle.see(bench.at(1, 3), Seen::BackedUp).unwrap();
        if had {
            let rows = held(&bench, 1);
            oracle.see(bench.at(1, 4), Seen::Stored(&rows)).unwrap();
        }
        oracle.see(bench.at(1, 5), Seen::RolledBack).unwrap();
        settled(&bench, &mut oracle)
    };
    assert_eq!(judged(false), Err("ID4"));
    assert_eq!(judged(true), Ok((1, 0)), "it came, and was lost");
}

#[test]
fn id4_what_is_accepted_anew_is_owed_under_its_new_id() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[1]);
    let first = accepted(&bench, 1);
    oracle.see(bench.at(0, 2), Seen::Event(&first)).unwrap();
    oracle.see(bench.at(0, 3), Seen::BackedUp).unwrap();
    oracle.see(bench.at(0, 4), Seen::RolledBack).unwrap();
    let Event::Delivery(DeliveryEvent::Accepted { txn, sort, .. }) = first else {
        panic!("it was made so");
    };
    let id = bench.id(7);
    let again = told(DeliveryEvent::Accepted { id, txn, sort });
    oracle.see(bench.at(0, 5), Seen::Event(&again)).unwrap();
    assert_eq!(settled(&bench, &mut oracle), Err("ID4"));
    let mut got = received(&bench, 7, 1, false);
    got.content = Content::text("m1");
    oracle.received(bench.at(1, 6), &got).unwrap();
    assert_eq!(settled(&bench, &mut oracle), Ok((1, 0)));
}
