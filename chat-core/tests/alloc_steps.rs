//! What one step of a whole endpoint allocates: from the input to the drained queue, signatures
//! left out. The figures are pinned, so that a change shows; docs/performance.md lists them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use chat_core::channel::Channel;
use chat_core::config::Config;
use chat_core::content::Content;
use chat_core::delivery::DeliveryEvent;
use chat_core::id::{ConvId, TxnId, UserId};
use chat_core::identity::{PublicKey, Signature, Signer, Verifier};
use chat_core::link::LinkEvent;
use chat_core::sealer::Plain;
use chat_core::session::SessionEvent;
use chat_core::time::{Timestamp, UnixMillis};
use chat_core::{Endpoint, Event, Identity, Output};

/// Allocations per step, in the order of [`round`].
const STEPS: [(&str, u64); 4] = [
    ("send", 11),
    ("receive", 17),
    ("acknowledgement leaves", 3),
    ("acknowledgement arrives", 12),
];
/// A beat that changes nothing: its signed bytes and the name in it.
const BEAT: u64 = 2;

#[derive(Debug)]
struct NoCrypto(PublicKey);

impl Signer for NoCrypto {
    fn public_key(&self) -> PublicKey {
        self.0
    }

    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 64])
    }
}

impl Verifier for NoCrypto {
    fn verify(&self, _: &PublicKey, _: &[u8], _: &Signature) -> bool {
        true
    }
}

fn endpoint(user: &str, number: u8, now: Timestamp) -> Endpoint {
    let key = PublicKey([number; 32]);
    let identity = Identity {
        user: UserId::new(user).unwrap(),
        signer: Arc::new(NoCrypto(key)),
        verifier: Arc::new(NoCrypto(key)),
        sealer: Box::new(Plain),
    };
    let wall = UnixMillis(1_800_000_000_000);
    let mut config = Config::default();
    // Steps repeat faster here than any peer would.
    config.budget.burst = 1_000_000;
    let mut it = Endpoint::open(identity, config, [number; 32], [], wall, now).unwrap();
    it.connect(now);
    it
}

#[derive(Default)]
struct Out {
    frames: Vec<(Channel, bytes::Bytes)>,
    events: Vec<Event>,
}

impl Out {
    /// With so much room that it never grows while something is measured.
    fn roomy() -> Self {
        Self {
            frames: Vec::with_capacity(64),
            events: Vec::with_capacity(64),
        }
    }
}

/// Everything is durable, subscribed and taken by the broker at once.
fn drain(it: &mut Endpoint, now: Timestamp, out: &mut Out) {
    while let Some(output) = it.poll_output() {
        match output {
            Output::Persist { id, .. } => it.handle_persisted(id, now),
            Output::Transmit(transmit) => out.frames.push((transmit.channel, transmit.bytes)),
            Output::Event { event, .. } => out.events.push(event),
            Output::Subscribe(channel) => it.handle_link(&LinkEvent::Subscribed(channel), now),
            Output::Connect { .. } => {
                let up = LinkEvent::Up {
                    resumed: false,
                    marks_backlog: true,
                };
                it.handle_link(&up, now);
                it.handle_link(&LinkEvent::CaughtUp, now);
            }
            _ => {}
        }
    }
}

struct Pair {
    alice: Endpoint,
    bob: Endpoint,
    conv: ConvId,
    now: Timestamp,
}

impl Pair {
    fn open() -> Self {
        let now = Timestamp::from_secs(1);
        let mut pair = Self {
            alice: endpoint("alice", 1, now),
            bob: endpoint("bob", 2, now),
            conv: ConvId([0; 32]),
            now,
        };
        pair.settle();
        let bob = pair.bob.user().clone();
        pair.alice.request(&bob, "", now).unwrap();
        for event in pair.settle() {
            if let Event::Session(SessionEvent::Requested { invite, .. }) = event {
                pair.conv = pair.bob.accept(invite, now).unwrap();
            }
        }
        pair.settle();
        pair
    }

    fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let (mut a, mut b) = (Out::default(), Out::default());
            drain(&mut self.alice, self.now, &mut a);
            drain(&mut self.bob, self.now, &mut b);
            events.append(&mut a.events);
            events.append(&mut b.events);
            if a.frames.is_empty() && b.frames.is_empty() {
                return events;
            }
            for (channel, bytes) in a.frames {
                self.bob.handle_inbound(&channel, &bytes, true, self.now);
            }
            for (channel, bytes) in b.frames {
                self.alice.handle_inbound(&channel, &bytes, true, self.now);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.alice.handle_timeout(self.now);
        self.bob.handle_timeout(self.now);
    }
}

/// The one frame of a step. None when something else was due in the same moment.
fn only(out: Out) -> Option<(Channel, bytes::Bytes)> {
    let [frame] = <[_; 1]>::try_from(out.frames).ok()?;
    Some(frame)
}

/// Allocations of: send, receive, leaving of the acknowledgement, its arrival. None when a beat
/// was due as well.
fn round(pair: &mut Pair, n: u128) -> Option<[u64; 4]> {
    let now = pair.now;
    let conv = pair.conv;
    let content = Content::text("x".repeat(64));
    let mut out = Out::roomy();
    let send = measure(|| {
        let txn = TxnId(n.to_be_bytes());
        pair.alice.send(conv, txn, content, now).unwrap();
        drain(&mut pair.alice, now, &mut out);
    });
    let (channel, frame) = only(out).expect("the message left, and nothing else");
    let mut out = Out::roomy();
    let receive = measure(|| {
        pair.bob.handle_inbound(&channel, &frame, true, now);
        drain(&mut pair.bob, now, &mut out);
    });
    let told = out.events.iter().find_map(|event| match event {
        Event::Delivery(DeliveryEvent::Received(message)) => Some(message.pos),
        _ => None,
    });
    pair.bob.acknowledge(conv, told.expect("it was told"), now);
    drain(&mut pair.bob, now, &mut Out::default());
    let now = now + Duration::from_millis(250);
    pair.now = now;
    let mut out = Out::roomy();
    let answer = measure(|| {
        pair.bob.handle_timeout(now);
        drain(&mut pair.bob, now, &mut out);
    });
    let all = out.frames.clone();
    let alone = only(out).is_some();
    let (inbox, ack) = (all.into_iter())
        .find(|(channel, _)| matches!(channel, Channel::Inbox(_)))
        .expect("the acknowledgement left");
    let mut out = Out::roomy();
    let acked = measure(|| {
        pair.alice.handle_inbound(&inbox, &ack, true, now);
        drain(&mut pair.alice, now, &mut out);
    });
    assert_eq!(pair.alice.stats().outbox, 0, "it was acknowledged");
    alone.then(|| [send, receive, answer, acked].map(|info| info.count_total))
}

#[test]
fn a_message_costs_a_bounded_number_of_allocations() {
    let mut pair = Pair::open();
    pair.pass(Duration::from_secs(5));
    pair.settle();
    // Maps and queues find their size first.
    for n in 0..100 {
        round(&mut pair, n);
    }
    let rounds: Vec<_> = (100..200).filter_map(|n| round(&mut pair, n)).collect();
    assert!(rounds.len() > 80);
    for (i, (step, pinned)) in STEPS.into_iter().enumerate() {
        let least = rounds.iter().map(|r| r[i]).min().unwrap();
        let most = rounds.iter().map(|r| r[i]).max().unwrap();
        println!("{step}: {least} to {most}");
        assert_eq!(least, pinned, "{step}");
        // Now and then a map takes a new node.
        assert!(most <= pinned + 4, "{step}: {most}");
    }
}

#[test]
fn a_beat_that_changes_nothing_costs_a_bounded_number_of_allocations() {
    let mut pair = Pair::open();
    pair.pass(Duration::from_secs(5));
    pair.settle();
    let mut counts = Vec::new();
    while counts.len() < 10 {
        pair.pass(Duration::from_secs(1));
        let mut out = Out::default();
        drain(&mut pair.alice, pair.now, &mut out);
        drain(&mut pair.bob, pair.now, &mut Out::default());
        for (channel, frame) in out.frames {
            if matches!(channel, Channel::Presence(_)) {
                let mut heard = Out::roomy();
                let info = measure(|| {
                    pair.bob.handle_inbound(&channel, &frame, true, pair.now);
                    drain(&mut pair.bob, pair.now, &mut heard);
                });
                counts.push(info.count_total);
            }
        }
    }
    // The first may be news.
    assert_eq!(counts[1..].iter().max(), Some(&BEAT));
}
