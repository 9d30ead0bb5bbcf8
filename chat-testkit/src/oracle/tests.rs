//! Every oracle bites: each is fed a run that breaks its rule.

mod damage;

use std::sync::Arc;

use bytes::Bytes;
use chat_core::channel::{Channel, Class, TopicId};
use chat_core::config::{Config, GroupConfig};
use chat_core::content::Content;
use chat_core::delivery::{Ack, DeliveryEvent, FailReason, SortKey};
use chat_core::event::Event;
use chat_core::hlc::Hlc;
use chat_core::id::{ConvId, Epoch, GroupId, InviteId, MessageId, Seq, StreamId, UserId};
use chat_core::identity::Signer as _;
use chat_core::link::LinkState;
use chat_core::presence::Status;
use chat_core::session::{CloseReason, SessionEvent};
use chat_core::time::Timestamp;
use chat_core::wire::{self, BoundedStr};
use chat_core::{Transmit, TransmitId};

use super::chain::Log;
use super::delivery::Got;
use super::entry::{Forged, Term};
use super::{Act, Always, At, Delivery, Groups, Order, Presence, Seen, Sessions, Verdict};
use crate::sim::{FakeSigner, Ledger};

struct Bench {
    ledger: Arc<Ledger>,
    users: Vec<UserId>,
}

impl Bench {
    fn new() -> Self {
        let users = ["ann", "bob"]
            .map(|name| UserId::new(name).unwrap())
            .to_vec();
        Self {
            ledger: Arc::default(),
            users,
        }
    }

    fn signer(&self, node: usize) -> FakeSigner {
        FakeSigner::new(node as u64 + 1, self.ledger.clone())
    }

    fn at(&self, node: usize, seconds: u64) -> At<'_> {
        At {
            now: seconds * 1_000_000,
            mono: Timestamp::from_secs(seconds),
            node,
            user: &self.users[node],
            device: self.signer(node).public_key().device(),
        }
    }

    fn conv(&self) -> ConvId {
        ConvId::between(&self.users[0], &self.users[1])
    }

    fn id(&self, seq: u64) -> MessageId {
        let device = self.signer(0).public_key().device();
        let stream = StreamId {
            conv: self.conv(),
            device,
            epoch: Epoch(1),
        };
        MessageId {
            stream,
            seq: Seq(seq),
        }
    }
}

fn rule(verdict: Verdict) -> &'static str {
    verdict.expect_err("the oracle must bite").rule
}

/// A delivery oracle that saw message `seq` sent, with both processes running.
fn delivery(bench: &Bench, seqs: &[u64]) -> Delivery {
    let mut oracle = Delivery::new(2, bench.ledger.clone());
    for node in 0..2 {
        oracle.see(bench.at(node, 0), Seen::Started).unwrap();
    }
    for seq in seqs {
        oracle
            .see(bench.at(0, 1), Seen::Act(&send(bench, *seq)))
            .unwrap();
    }
    oracle
}

fn send(bench: &Bench, seq: u64) -> Act {
    let to = vec![(bench.users[1].clone(), bench.at(1, 0).device)];
    Act::Send {
        conv: bench.conv(),
        id: bench.id(seq),
        body: format!("m{seq}"),
        to,
    }
}

fn told(event: DeliveryEvent) -> Event {
    Event::Delivery(event)
}

fn received(bench: &Bench, seq: u64, pos: u64, redelivered: bool) -> Got {
    Got {
        id: bench.id(seq),
        from: bench.users[0].clone(),
        content: Content::text(format!("m{seq}")),
        pos,
        redelivered,
        causal_gap: false,
    }
}

#[test]
fn id1_a_second_telling_bites() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[1]);
    let at = bench.at(1, 2);
    oracle.received(at, &received(&bench, 1, 1, false)).unwrap();
    assert_eq!(
        rule(oracle.received(at, &received(&bench, 1, 1, false))),
        "ID1"
    );
    // In a later process it may be told again, at its old place.
    oracle.see(at, Seen::Started).unwrap();
    assert_eq!(
        rule(oracle.received(at, &received(&bench, 1, 2, true))),
        "ID1"
    );
    oracle.received(at, &received(&bench, 1, 1, true)).unwrap();
}

#[test]
fn id2_a_wrong_order_bites() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[1, 2]);
    oracle
        .received(bench.at(1, 2), &received(&bench, 2, 1, false))
        .unwrap();
    assert_eq!(
        rule(oracle.received(bench.at(1, 2), &received(&bench, 1, 2, false))),
        "ID2"
    );
}

#[test]
fn id6_two_bodies_for_one_id_bite() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[1]);
    assert_eq!(
        rule(oracle.see(bench.at(0, 3), Seen::Act(&send(&bench, 1)))),
        "ID6"
    );
    let mut other = received(&bench, 1, 1, false);
    other.content = Content::text("forged");
    assert_eq!(rule(oracle.received(bench.at(1, 3), &other)), "IG12");
    assert_eq!(
        rule(oracle.received(bench.at(1, 3), &received(&bench, 1, 1, false))),
        "ID6"
    );
}

#[test]
fn id7_a_gap_that_is_none_bites() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[1, 2]);
    oracle
        .received(bench.at(1, 2), &received(&bench, 1, 1, false))
        .unwrap();
    oracle.gap(bench.at(1, 2), bench.id(2), 1).unwrap();
    assert_eq!(
        rule(oracle.received(bench.at(1, 2), &received(&bench, 2, 2, false))),
        "ID7"
    );
    assert_eq!(rule(oracle.gap(bench.at(1, 2), bench.id(1), 1)), "ID7");
}

#[test]
fn ig12_a_message_that_nobody_sent_bites() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[]);
    assert_eq!(
        rule(oracle.received(bench.at(1, 2), &received(&bench, 9, 1, false))),
        "IG12"
    );
}

#[test]
fn an_end_is_final() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[1]);
    let (id, at) = (bench.id(1), bench.at(0, 2));
    let failed = told(DeliveryEvent::Failed {
        id,
        why: FailReason::Expired,
    });
    oracle.see(at, Seen::Event(&failed)).unwrap();
    let progress = told(DeliveryEvent::Progress {
        id,
        ack: Ack::Displayed,
    });
    assert_eq!(rule(oracle.see(at, Seen::Event(&progress))), "ladder");
    assert_eq!(rule(oracle.see(at, Seen::Event(&failed))), "ladder");
}

#[test]
fn id4_a_missing_message_bites() {
    let bench = Bench::new();
    let mut oracle = delivery(&bench, &[1]);
    let device = bench.at(0, 0).device;
    let sort = SortKey {
        hlc: Hlc(1),
        device,
        epoch: Epoch(1),
        seq: 1,
    };
    let txn = chat_core::id::TxnId([0; 16]);
    let accepted = told(DeliveryEvent::Accepted {
        id: bench.id(1),
        txn,
        sort,
    });
    oracle.see(bench.at(0, 2), Seen::Event(&accepted)).unwrap();
    let rows = crate::sim::Rows::new();
    let view = |node| super::View {
        at: bench.at(node, 100),
        endpoint: None,
        killed: false,
        paused: false,
        rows: &rows,
    };
    let missing = oracle
        .settled(&[view(0), view(1)])
        .expect_err("the oracle must bite");
    assert_eq!(missing.rule, "ID4");
    oracle
        .received(bench.at(1, 3), &received(&bench, 1, 1, false))
        .unwrap();
    assert!(oracle.settled(&[view(0), view(1)]).is_ok());
    oracle.see(bench.at(1, 4), Seen::Killed).unwrap();
}

#[test]
fn id4_an_end_that_died_with_its_process_and_a_parting_are_exempt_only_together() {
    let bench = Bench::new();
    let close = Event::Session(SessionEvent::Closed {
        peer: bench.users[0].clone(),
        conv: bench.conv(),
        why: CloseReason::Gone,
    });
    let failed = told(DeliveryEvent::Failed {
        id: bench.id(1),
        why: FailReason::Expired,
    });
    let judged = |parts: bool, fails: bool| {
        let mut oracle = delivery(&bench, &[1]);
        let accepted = told(DeliveryEvent::Accepted {
            id: bench.id(1),
            txn: chat_core::id::TxnId([0; 16]),
            sort: SortKey {
                hlc: Hlc(1),
                device: bench.at(0, 0).device,
                epoch: Epoch(1),
                seq: 1,
            },
        });
        oracle.see(bench.at(0, 2), Seen::Event(&accepted)).unwrap();
        if parts {
            oracle.see(bench.at(1, 3), Seen::Queued(&close)).unwrap();
        }
        if fails {
            oracle.see(bench.at(0, 4), Seen::Queued(&failed)).unwrap();
        }
        let rows = crate::sim::Rows::new();
        let view = |node| super::View {
            at: bench.at(node, 100),
            endpoint: None,
            killed: false,
            paused: false,
            rows: &rows,
        };
        oracle.settled(&[view(0), view(1)]).is_ok()
    };
    assert!(judged(true, true));
    assert!(!judged(true, false));
    assert!(!judged(false, true));
}

fn transmit(channel: Channel, kind: u8) -> Transmit {
    Transmit {
        id: TransmitId(1),
        channel,
        bytes: Bytes::from(vec![wire::MAGIC[0], wire::MAGIC[1], wire::VERSION, kind]),
        class: Class::Durable,
        ttl: None,
        last_value: false,
        dedup: None,
        after: None,
    }
}

fn opened(bench: &Bench, peer: usize) -> Event {
    Event::Session(SessionEvent::Opened {
        peer: bench.users[peer].clone(),
        conv: bench.conv(),
        channel: Channel::Conv(TopicId([7; 16])),
        devices: Vec::new(),
        ours: true,
    })
}

#[test]
fn ig9_a_canvass_without_a_connection_bites() {
    let bench = Bench::new();
    let config = GroupConfig::default();
    let mut oracle = Groups::new(bench.ledger.clone(), &config, false, 0);
    let canvass = transmit(Channel::Group(GroupId([1; 32])), 0x49);
    let mut link = |state| {
        oracle
            .see(bench.at(0, 1), Seen::Queued(&Event::Link(state)))
            .unwrap();
        oracle.see(bench.at(0, 2), Seen::Transmit(&canvass))
    };
    link(LinkState::Connected { resumed: false }).unwrap();
    assert_eq!(rule(link(LinkState::Closed)), "IG9");
    assert_eq!(rule(link(LinkState::Connecting { attempt: 1 })), "IG9");
    link(LinkState::CaughtUp).unwrap();
}

#[test]
fn s1_a_session_without_consent_bites() {
    let bench = Bench::new();
    let mut oracle = Sessions::default();
    let invite = InviteId([1; 16]);
    let request = Act::Request {
        peer: bench.users[1].clone(),
        invite,
    };
    oracle.see(bench.at(0, 1), Seen::Act(&request)).unwrap();
    assert_eq!(
        rule(oracle.see(bench.at(0, 2), Seen::Queued(&opened(&bench, 1)))),
        "S1 consent"
    );
    oracle
        .see(bench.at(1, 2), Seen::Act(&Act::Accept { invite }))
        .unwrap();
    oracle
        .see(bench.at(0, 3), Seen::Queued(&opened(&bench, 1)))
        .unwrap();
    oracle
        .see(bench.at(0, 4), Seen::Act(&Act::Cancel { invite }))
        .unwrap();
    assert_eq!(
        rule(oracle.see(bench.at(0, 5), Seen::Queued(&opened(&bench, 1)))),
        "S1 consent"
    );
}

#[test]
fn s4_a_word_after_a_silent_no_bites() {
    let bench = Bench::new();
    let mut oracle = Sessions::default();
    let invite = InviteId([1; 16]);
    let request = Act::Request {
        peer: bench.users[1].clone(),
        invite,
    };
    oracle.see(bench.at(0, 1), Seen::Act(&request)).unwrap();
    oracle
        .see(
            bench.at(1, 2),
            Seen::Act(&Act::Reject {
                invite,
                silent: true,
            }),
        )
        .unwrap();
    let word = transmit(Channel::Inbox(bench.users[0].clone()), 0x13);
    assert_eq!(
        rule(oracle.see(bench.at(1, 3), Seen::Transmit(&word))),
        "S4"
    );
}

#[test]
fn s5_a_word_to_the_blocked_bites() {
    let bench = Bench::new();
    let mut oracle = Sessions::default();
    let peer = bench.users[1].clone();
    let invite = InviteId([1; 16]);
    let request = Act::Request {
        peer: peer.clone(),
        invite,
    };
    oracle.see(bench.at(0, 1), Seen::Act(&request)).unwrap();
    oracle
        .see(bench.at(1, 1), Seen::Act(&Act::Accept { invite }))
        .unwrap();
    oracle
        .see(bench.at(0, 1), Seen::Queued(&opened(&bench, 1)))
        .unwrap();
    oracle
        .see(
            bench.at(0, 1),
            Seen::Act(&Act::Block { peer: peer.clone() }),
        )
        .unwrap();
    let word = transmit(Channel::Inbox(peer), 0x21);
    assert_eq!(
        rule(oracle.see(bench.at(0, 3), Seen::Transmit(&word))),
        "S5"
    );
    let data = transmit(Channel::Conv(TopicId([7; 16])), 0x20);
    assert_eq!(
        rule(oracle.see(bench.at(0, 3), Seen::Transmit(&data))),
        "S5"
    );
}

fn record(bench: &Bench, key: (u64, u64, u64), status: u8) -> Bytes {
    let body = wire::presence::Presence {
        incarnation: key.0,
        conn: key.1,
        seq: key.2,
        status,
        text: BoundedStr::truncated(""),
        text_ttl_ms: None,
        ttl_ms: 75_000,
        idle_min: None,
    };
    let user = &bench.users[1];
    let channel = Channel::Presence(user.clone());
    wire::encode(&body.into(), user, &channel, &bench.signer(1)).unwrap()
}

#[test]
fn ip3_ip4_a_lie_about_presence_bites() {
    let bench = Bench::new();
    let mut oracle = Presence::new(&Config::default().presence, bench.ledger.clone());
    let channel = Channel::Presence(bench.users[1].clone());
    let peer = &bench.users[1];
    assert_eq!(
        rule(oracle.told(bench.at(0, 1), peer, Status::Active)),
        "IP3"
    );
    let live = record(&bench, (5, 2, 1), 1);
    oracle
        .see(bench.at(0, 2), Seen::Arrives(&channel, &live, true))
        .unwrap();
    oracle.told(bench.at(0, 2), peer, Status::Active).unwrap();
    // The will of the connection before must change nothing.
    let will = record(&bench, (5, 1, u64::MAX), 6);
    oracle
        .see(bench.at(0, 3), Seen::Arrives(&channel, &will, true))
        .unwrap();
    assert_eq!(
        rule(oracle.told(bench.at(0, 20), peer, Status::Lost)),
        "IP4"
    );
    oracle.told(bench.at(0, 100), peer, Status::Lost).unwrap();
    assert_eq!(
        rule(oracle.told(bench.at(0, 100), peer, Status::Left)),
        "P5"
    );
}

#[test]
fn ip5_a_storm_of_presence_bites() {
    let bench = Bench::new();
    let mut oracle = Presence::new(&Config::default().presence, bench.ledger.clone());
    let storm = transmit(Channel::Presence(bench.users[0].clone()), 0x30);
    let verdicts: Vec<_> = (0..20)
        .map(|_| oracle.see(bench.at(0, 1), Seen::Transmit(&storm)))
        .collect();
    assert_eq!(rule(verdicts.into_iter().collect()), "IP5");
}

#[test]
fn ig11_an_outbox_beyond_its_bound_bites() {
    let oracle = Always::new(&Config::default());
    oracle.outbox(0, 10_000).unwrap();
    assert_eq!(rule(oracle.outbox(0, 10_001)), "IG11");
}

#[test]
fn ig1_two_entries_at_one_place_bite_and_junk_says_nothing() {
    let bench = Bench::new();
    let signer = bench.signer(0);
    let device = signer.public_key().device();
    let entry = |index: u64, body: &[u8]| {
        let term = Term {
            round: 1,
            majority: true,
            since: (1, 1, 0),
            claimant: device.0,
        };
        let forged = Forged {
            group: [9; 32],
            term,
            index,
            prev: [0; 32],
            author: "ann",
            code: 9,
            body,
        };
        forged.sign(&signer)
    };
    let mut log = Log::new(bench.ledger.clone());
    let one = log.add(&entry(7, b"rename")).expect("it is signed");
    let config = Config::default();
    let mut groups = Groups::new(bench.ledger.clone(), &config.group, false, u64::MAX);
    groups.with_log(&mut log).keep(one).unwrap();
    groups.with_log(&mut log).keep(one).unwrap();
    let two = log.add(&entry(7, b"RENAME")).expect("it is signed");
    assert_eq!(rule(groups.with_log(&mut log).keep(two)), "IG1");
    let mut torn = entry(8, b"rename");
    torn[40] ^= 1;
    assert_eq!(log.add(&torn), None);
    assert_eq!(log.add(b"junk"), None);
    assert!(log.fold(one).is_none(), "what it follows was never seen");
}

#[test]
fn id8_a_message_with_two_places_or_an_order_of_ones_own_bites() {
    let bench = Bench::new();
    let sort = |hlc: u64| SortKey {
        hlc: Hlc(hlc),
        device: bench.id(1).stream.device,
        epoch: Epoch(1),
        seq: 1,
    };
    let mut order = Order::default();
    order.place(bench.at(0, 1), bench.id(1), sort(5)).unwrap();
    order.place(bench.at(1, 1), bench.id(1), sort(5)).unwrap();
    let moved = order.place(bench.at(1, 1), bench.id(1), sort(6));
    assert_eq!(rule(moved), "ID8");
    let shared = order.place(bench.at(1, 1), bench.id(2), sort(5));
    assert_eq!(rule(shared), "ID8");
    let (a, b, c) = (bench.id(1), bench.id(2), bench.id(3));
    order.compare((0, &[a, b, c]), (1, &[a, c])).unwrap();
    assert_eq!(rule(order.compare((0, &[a, b, c]), (1, &[c, a]))), "ID8");
}

#[test]
fn id5_too_much_of_one_sender_bites() {
    let mut order = Order::default();
    let key = |epoch: u64, seq: u64| {
        let mut key = vec![7; 64];
        key.extend(epoch.to_be_bytes());
        key.extend(seq.to_be_bytes());
        Bytes::from(key)
    };
    let body = Bytes::from_static(b"held");
    let held: Vec<_> = (1..=1_129).map(|seq| key(1, seq)).collect();
    let rows = |keys: &[Bytes]| keys.iter().map(|key| (key.clone(), body.clone())).collect();
    let mut check =
        |rows: Vec<(Bytes, Bytes)>| order.bounded(0, rows.iter().map(|(key, value)| (key, value)));
    check(rows(&held[..1_128])).unwrap();
    assert_eq!(rule(check(rows(&held))), "ID5");
    let epochs: Vec<_> = (1..=13).map(|epoch| key(epoch, 1)).collect();
    assert_eq!(rule(check(rows(&epochs))), "ID5");
    let fat = (Bytes::from(vec![7; 64]), Bytes::from(vec![0; 5_000]));
    assert_eq!(rule(check(vec![fat])), "ID5");
}
