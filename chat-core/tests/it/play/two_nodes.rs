//! Two endpoints with an open session over a network that loses, repeats and reorders, disks that
//! stall and processes that die. In the end the network is kind, and everything must be there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_core::Event;
use chat_core::channel::Channel;
use chat_core::content::Content;
use chat_core::delivery::DeliveryEvent;
use chat_core::event::SessionEvent;
use chat_core::id::{ConvId, MessageId, TxnId};
use chat_core::time::Timestamp;

use super::Script;
use super::node::{MEETING, Node, user};
use crate::entries::Checksum;

/// Inputs of one play.
const MAX_INPUTS: usize = 300;
/// Frames under way.
const MAX_WIRE: usize = 256;

/// One side as its user sees it.
struct Side {
    node: Node,
    /// Texts that were taken and not yet accepted, with their transactions.
    unknown: Vec<(TxnId, String)>,
    /// Those of them that a new life has to take again.
    again: Vec<(TxnId, String)>,
    accepted: Vec<String>,
    heard: Vec<(MessageId, String)>,
    /// Heard in this life.
    lately: Vec<MessageId>,
    /// The last place of the inbox that was told, and that the user is done with.
    pos: u64,
    done: u64,
    /// How much of that is on the disk.
    kept: u64,
    sent: u8,
}

struct Play {
    sides: [Side; 2],
    wire: Vec<(usize, Channel, Bytes)>,
    conv: ConvId,
    now: Timestamp,
}

/// Any play: each message that was accepted is heard once, in order, by the other side.
pub(crate) fn two_nodes(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let now = Timestamp::from_secs(100);
    let side = |name, key, disk: &super::node::Disk| Side {
        node: Node::new(name, key, Arc::new(Checksum), disk.clone(), now),
        unknown: Vec::new(),
        again: Vec::new(),
        accepted: Vec::new(),
        heard: Vec::new(),
        lately: Vec::new(),
        pos: 0,
        done: 0,
        kept: 0,
        sent: 0,
    };
    let (ann, bob) = &MEETING.pair;
    let mut play = Play {
        sides: [side("ann", 1, ann), side("bob", 2, bob)],
        wire: Vec::new(),
        conv: ConvId::between(&user("ann"), &user("bob")),
        now,
    };
    for _ in 0..MAX_INPUTS {
        if script.is_over() {
            break;
        }
        play.input(&mut script);
    }
    play.heal();
    for (from, to) in [(0, 1), (1, 0)] {
        let heard: Vec<_> = play.sides[to].heard.iter().map(|(_, text)| text).collect();
        let accepted: Vec<_> = play.sides[from].accepted.iter().collect();
        assert_eq!(heard, accepted, "side {to} heard what side {from} said");
    }
}

impl Side {
    fn send(&mut self, conv: ConvId, text: String, txn: TxnId, now: Timestamp) -> bool {
        let content = Content::text(text.clone());
        self.node.endpoint.send(conv, txn, content, now).is_ok()
    }

    fn say(&mut self, conv: ConvId, now: Timestamp) {
        let (text, txn) = (format!("{}", self.sent), TxnId([self.sent; 16]));
        // At the bound of the outbox it is refused, and said later.
        if self.again.is_empty() && self.sent < u8::MAX && self.send(conv, text.clone(), txn, now) {
            self.sent += 1;
            self.unknown.push((txn, text));
        }
    }

    /// The process dies; the user says again what was not accepted.
    fn restart(&mut self, conv: ConvId, now: Timestamp) {
        self.node.restart(now);
        self.done = self.kept;
        self.lately.clear();
        self.note();
        self.again = self.unknown.clone();
        self.retry(conv, now);
    }

    /// Says again what may have been lost, in order, as far as there is room.
    fn retry(&mut self, conv: ConvId, now: Timestamp) {
        while let Some((txn, text)) = self.again.first().cloned() {
            if !self.send(conv, text, txn, now) {
                return;
            }
            self.again.remove(0);
        }
    }

    fn note(&mut self) {
        if !self.node.stalled {
            self.kept = self.done;
        }
        for event in std::mem::take(&mut self.node.events) {
            match event {
                Event::Delivery(DeliveryEvent::Accepted { txn, .. }) => {
                    let Some(at) = self.unknown.iter().position(|(t, _)| *t == txn) else {
                        continue;
                    };
                    assert_eq!(at, 0, "accepted in order");
                    self.accepted.push(self.unknown.remove(0).1);
                }
                Event::Delivery(DeliveryEvent::Received(message)) => {
                    assert!(!self.lately.contains(&message.id), "told twice in one life");
                    self.lately.push(message.id);
                    assert!(
                        message.pos > self.done,
                        "told after the user was done with it"
                    );
                    self.pos = self.pos.max(message.pos);
                    let known = self.heard.iter().any(|(id, _)| *id == message.id);
                    assert!(!known || message.redelivered, "told again as if new");
                    if !known {
                        let text = message.content.fallback().to_owned();
                        self.heard.push((message.id, text));
                    }
                }
                Event::Delivery(
                    event @ (DeliveryEvent::Gap { .. } | DeliveryEvent::Failed { .. }),
                ) => {
                    panic!("{event:?}")
                }
                Event::Session(event @ SessionEvent::Closed { .. }) => panic!("{event:?}"),
                _ => {}
            }
        }
    }
}

impl Play {
    fn input(&mut self, script: &mut Script<'_>) {
        let at = usize::from(script.flag());
        let (conv, now) = (self.conv, self.now);
        let side = &mut self.sides[at];
        match script.byte() % 16 {
            0..=3 => side.say(conv, now),
            4..=8 => {
                if let Some(frame) = self.take(script) {
                    self.deliver(&frame);
                }
            }
            9 => {
                if let Some(frame) = self.take(script) {
                    self.deliver(&frame);
                    self.wire.push(frame);
                }
            }
            10 => drop(self.take(script)),
            11 => {
                let millis = u64::from(script.byte()) * 20;
                self.now = self.now + Duration::from_millis(millis);
            }
            12 => match script.byte() % 4 {
                0 => side.restart(conv, now),
                1 => side.node.cut(now),
                2 => side.node.network ^= true,
                _ => side.node.stalled ^= true,
            },
            13 => {
                side.done = side.pos;
                side.node.endpoint.acknowledge(conv, side.pos, now);
            }
            14 => {
                for frame in std::mem::take(&mut self.wire) {
                    self.deliver(&frame);
                }
            }
            _ => side.node.endpoint.set_typing(conv, script.flag(), now),
        }
        self.settle();
    }

    fn take(&mut self, script: &mut Script<'_>) -> Option<(usize, Channel, Bytes)> {
        let at = usize::from(script.byte()).checked_rem(self.wire.len())?;
        Some(self.wire.remove(at))
    }

    fn deliver(&mut self, (to, channel, bytes): &(usize, Channel, Bytes)) {
        let side = &mut self.sides[*to];
        if side.node.network {
            let now = self.now;
            side.node.endpoint.handle_inbound(channel, bytes, true, now);
        }
    }

    fn settle(&mut self) {
        for (at, side) in self.sides.iter_mut().enumerate() {
            side.retry(self.conv, self.now);
            side.node.settle(self.now);
            side.note();
            for (channel, bytes) in std::mem::take(&mut side.node.frames) {
                self.wire.push((1 - at, channel, bytes));
            }
        }
        // A network that is overfull loses.
        self.wire.truncate(MAX_WIRE);
    }

    /// The network works, the disks answer, the users are done with what they heard.
    fn heal(&mut self) {
        for side in &mut self.sides {
            side.node.stalled = false;
            side.node.network = true;
        }
        let end = self.now + Duration::from_secs(900);
        while self.now < end {
            self.settle();
            for frame in std::mem::take(&mut self.wire) {
                self.deliver(&frame);
            }
            for side in &mut self.sides {
                side.done = side.pos;
                let (conv, pos, now) = (self.conv, side.pos, self.now);
                side.node.endpoint.acknowledge(conv, pos, now);
            }
            self.settle();
            let quiet = self.sides.iter().all(|side| {
                let stats = side.node.endpoint.stats();
                stats.outbox == 0 && side.unknown.is_empty()
            });
            if quiet && self.wire.is_empty() {
                return;
            }
            self.now = self.now + Duration::from_millis(250);
        }
        panic!("not at rest after 900 s of a kind network");
    }
}
