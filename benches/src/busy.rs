//! An endpoint with many open conversations, and the other ends of them: strangers that asked and
//! were accepted, whose frames are made here without an endpoint of their own.

use std::time::Duration;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::content::Content;
use chat_core::delivery::DeliveryEvent;
use chat_core::id::{ConvId, InviteId, MessageId, TxnId, UserId};
use chat_core::identity::PublicKey;
use chat_core::session::SessionEvent;
use chat_core::time::Timestamp;
use chat_core::wire::{self, Body, BoundedBytes, BoundedStr, BoundedVec, delivery, session};
use chat_core::{Endpoint, Event};

use crate::{Crypto, Drained, NoCrypto, drain, endpoint};

/// The peers' epoch and the first of their clock readings: the wall clock of all benches.
const WALL: u64 = 1_800_000_000_000;
/// Conversations are visited in this stride, so that neighbours in time are none in memory.
const STRIDE: usize = 7_919;

/// The other end of one conversation.
#[derive(Debug)]
struct Line {
    user: UserId,
    signer: NoCrypto,
    conv: ConvId,
    channel: Channel,
    /// The number of its last message.
    seq: u64,
}

impl Line {
    fn encode(&self, body: &Body, channel: &Channel) -> Bytes {
        wire::encode(body, &self.user, channel, &self.signer).expect("it fits")
    }
}

/// An endpoint with many open conversations.
#[derive(Debug)]
pub struct Busy {
    /// The endpoint.
    pub alice: Endpoint,
    /// The time.
    pub now: Timestamp,
    lines: Vec<Line>,
    /// How many conversations are used, and which of them is next.
    set: usize,
    at: usize,
    txn: u128,
    told: u64,
    drained: Drained,
}

impl Busy {
    /// With `n` open conversations.
    pub fn open(n: u32) -> Self {
        let now = Timestamp::from_secs(2);
        let mut busy = Self {
            alice: endpoint("alice", 1, Crypto::Off),
            now,
            lines: Vec::new(),
            set: 0,
            at: 0,
            txn: 0,
            told: 0,
            drained: Drained::default(),
        };
        drain(&mut busy.alice, now, &mut busy.drained);
        for i in 0..n {
            busy.meet(i);
        }
        busy.dwell(n);
        busy
    }

    fn meet(&mut self, i: u32) {
        let numbered = |mut bytes: [u8; 32]| {
            bytes[..4].copy_from_slice(&i.to_le_bytes());
            bytes
        };
        let user = UserId::new(&format!("peer-{i}")).expect("a valid name");
        let signer = NoCrypto(PublicKey(numbered([9; 32])));
        let invite = InviteId(*numbered([1; 32]).first_chunk().expect("32 bytes hold 16"));
        let request = session::Request {
            invite: invite.0,
            secret: [2; 32],
            to: BoundedStr::truncated("alice"),
            note: BoundedStr::default(),
            ttl_ms: 86_400_000,
            sent_at: WALL,
        };
        let inbox = Channel::Inbox(self.alice.user().clone());
        let frame = wire::encode(&request.into(), &user, &inbox, &signer).expect("it fits");
        self.inbound(&inbox, &frame);
        let conv = self
            .alice
            .accept(invite, self.now)
            .expect("the request stands");
        self.drained.clear();
        drain(&mut self.alice, self.now, &mut self.drained);
        let opened = self.drained.events.iter().find_map(|event| match event {
            Event::Session(SessionEvent::Opened { channel, .. }) => Some(channel.clone()),
            _ => None,
        });
        let channel = opened.expect("the session opened");
        // Unconfirmed, the acceptance would be repeated while others are measured.
        let confirm = session::Confirm {
            invite: invite.0,
            joined: BoundedVec::take_from([self.alice.device().0]),
        };
        let frame = wire::encode(&confirm.into(), &user, &inbox, &signer).expect("it fits");
        self.inbound(&inbox, &frame);
        self.lines.push(Line {
            user,
            signer,
            conv,
            channel,
            seq: 0,
        });
    }

    /// From now on only `set` of the conversations are used.
    pub fn dwell(&mut self, set: u32) {
        self.set = usize::try_from(set).expect("a few at most");
    }

    fn next(&mut self) -> usize {
        self.at = (self.at + 1) % self.set;
        self.at * STRIDE % self.lines.len()
    }

    /// Alice says 64 bytes in the next conversation: the step from the call to the drained queue.
    /// Returns what [`Self::ack`] needs.
    pub fn send(&mut self) -> (usize, MessageId) {
        let at = self.next();
        self.txn += 1;
        let (txn, content) = (TxnId(self.txn.to_be_bytes()), Content::text("x".repeat(64)));
        let id = self
            .alice
            .send(self.lines[at].conv, txn, content, self.now)
            .expect("the session is open");
        self.drained.clear();
        drain(&mut self.alice, self.now, &mut self.drained);
        (at, id)
    }

    /// Lets go of what the last step wanted: that is no part of the next one.
    pub fn clear(&mut self) {
        self.drained.clear();
    }

    /// How many frames the last step wanted sent.
    pub fn frames_out(&self) -> usize {
        self.drained.frames.len()
    }

    /// The acknowledgement of everything up to a sent message, as its receiver makes it.
    pub fn ack(&mut self, (at, id): (usize, MessageId)) -> (Channel, Bytes) {
        let ack = delivery::Ack {
            streams: BoundedVec::take_from([delivery::StreamAck {
                device: id.stream.device.0,
                conv: id.stream.conv.0,
                epoch: id.stream.epoch.0,
                contig: id.seq.0,
                bitmap: 0,
                window: 64,
                read: 0,
                refused: BoundedVec::default(),
            }]),
        };
        self.clear();
        let inbox = Channel::Inbox(self.alice.user().clone());
        let frame = self.lines[at].encode(&ack.into(), &inbox);
        (inbox, frame)
    }

    /// The next message of 64 bytes, in the next conversation, from its peer.
    pub fn text(&mut self) -> (Channel, Bytes) {
        self.clear();
        let at = self.next();
        self.told += 1;
        let line = &mut self.lines[at];
        line.seq += 1;
        let body = Content::text("x".repeat(64))
            .encode(line.conv)
            .expect("64 bytes fit");
        let data = delivery::Data {
            conv: line.conv.0,
            epoch: WALL,
            base: line.seq,
            sent_before: 0,
            base_roster: 0,
            prev_roster: 0,
            roster: 0,
            attempt: 1,
            push: false,
            prior: None,
            wedged: false,
            first: delivery::Message {
                seq: line.seq,
                hlc: (WALL << 16) + self.told,
                ttl_ms: 86_400_000,
                deps: BoundedVec::default(),
                body: BoundedBytes::try_from(body).expect("64 bytes fit"),
            },
            more: BoundedVec::default(),
        };
        let line = &self.lines[at];
        (
            line.channel.clone(),
            line.encode(&data.into(), &line.channel),
        )
    }

    /// A frame arrives: the step from its bytes to the drained queue.
    pub fn inbound(&mut self, channel: &Channel, frame: &Bytes) {
        self.alice.handle_inbound(channel, frame, true, self.now);
        self.drained.clear();
        drain(&mut self.alice, self.now, &mut self.drained);
    }

    /// How many messages the last step told.
    pub fn told(&self) -> usize {
        self.drained
            .events
            .iter()
            .filter(|event| matches!(event, Event::Delivery(DeliveryEvent::Received(_))))
            .count()
    }

    /// The application is done with what the last step told.
    pub fn acknowledge(&mut self) {
        for event in core::mem::take(&mut self.drained.events) {
            if let Event::Delivery(DeliveryEvent::Received(message)) = event {
                let conv = message.id.stream.conv;
                self.alice.acknowledge(conv, message.pos, self.now);
            }
        }
        self.settle();
    }

    /// A quarter of a second passes: delayed acknowledgements leave.
    pub fn pass(&mut self) {
        self.now = self.now + Duration::from_millis(250);
        self.alice.handle_timeout(self.now);
        self.settle();
    }

    /// Drains what nobody looks at.
    fn settle(&mut self) {
        self.drained.clear();
        drain(&mut self.alice, self.now, &mut self.drained);
        self.clear();
    }
}
