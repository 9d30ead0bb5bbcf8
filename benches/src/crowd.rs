//! One member of a large group: only the delivery of messages, without the group's log, so that
//! what a message costs is seen alone.

use std::collections::BTreeMap;
use std::time::Duration;

use chat_core::PersistId;
use chat_core::channel::Channel;
use chat_core::content::Content;
use chat_core::delivery::{Delivery, DeliveryEvent, Route};
use chat_core::effect::Effect;
use chat_core::id::{ConvId, DeviceId, Epoch, GroupId, MessageId, TxnId, UserId};
use chat_core::identity::Sender;

use chat_core::rng::Rng;
use chat_core::sealer::Plain;
use chat_core::time::{Now, Timestamp, UnixMillis};
use chat_core::wire::{BoundedVec, delivery};

const CONV: ConvId = ConvId([7; 32]);

/// A member that writes to a group of others.
#[derive(Debug)]
pub struct Crowd {
    machine: Delivery,
    others: Vec<Sender>,
    now: Now,
    txn: u128,
    batches: u64,
    frames: usize,
    receipts: usize,
}

fn member(i: u32) -> Sender {
    let mut device = [9; 32];
    device[..4].copy_from_slice(&i.to_be_bytes());
    Sender {
        user: UserId::new(&format!("member-{i}")).expect("a valid name"),
        device: DeviceId(device),
    }
}

impl Crowd {
    /// A group of `n` others, connected.
    pub fn open(n: u32) -> Self {
        let now = Now {
            mono: Timestamp::from_secs(2),
            wall: UnixMillis(1_800_000_000_000),
        };
        let mut machine = Delivery::new(
            member(0),
            Epoch(now.wall.0),
            crate::config().delivery,
            Box::new(Plain),
            Rng::from_seed([3; 32]),
        );
        let others: Vec<Sender> = (1..=n).map(member).collect();
        let recipients: BTreeMap<_, _> = others
            .iter()
            .map(|who| ((who.user.clone(), who.device), 1))
            .collect();
        let channel = Channel::Group(GroupId::from(CONV));
        machine.open(CONV, Route::new(channel, recipients, 1, true), now);
        machine.handle_up(now);
        let mut crowd = Self {
            machine,
            others,
            now,
            txn: 0,
            batches: 0,
            frames: 0,
            receipts: 0,
        };
        crowd.drain();
        crowd
    }

    /// All rows are durable at once.
    fn drain(&mut self) {
        loop {
            let mut rows = false;
            while let Some(effect) = self.machine.effects().pop() {
                match effect {
                    Effect::Row(_) => rows = true,
                    Effect::Send(_) => self.frames += 1,
                    Effect::Emit {
                        event: DeliveryEvent::Receipt { .. },
                        ..
                    } => self.receipts += 1,
                    Effect::Emit { .. } => {}
                }
            }
            if rows {
                self.batches += 1;
                self.machine.handle_batched(PersistId(self.batches));
                self.machine.handle_persisted(PersistId(self.batches));
            } else if self.machine.is_ready() {
                self.machine.flush(self.now);
            } else {
                return;
            }
        }
    }

    /// Says 64 bytes to all.
    pub fn send(&mut self) -> MessageId {
        self.txn += 1;
        self.now.mono = self.now.mono + Duration::from_millis(1);
        let txn = TxnId(self.txn.to_be_bytes());
        let content = Content::text("x".repeat(64));
        let id = self
            .machine
            .send(CONV, txn, content, self.now)
            .expect("the group is open");
        self.drain();
        id
    }

    /// One of the others has everything up to a message, and has seen it if `read`.
    pub fn ack(&mut self, who: usize, id: MessageId, read: bool) {
        let ack = delivery::Ack {
            streams: BoundedVec::take_from([delivery::StreamAck {
                device: id.stream.device.0,
                conv: id.stream.conv.0,
                epoch: id.stream.epoch.0,
                contig: id.seq.0,
                bitmap: 0,
                window: 128,
                read: if read { id.seq.0 } else { 0 },
                refused: BoundedVec::default(),
            }]),
        };
        self.machine.handle_ack(&self.others[who], &ack, self.now);
        self.drain();
    }

    /// How many frames left, and how many receipts were told, since the last time.
    pub fn counts(&mut self) -> (usize, usize) {
        (
            core::mem::take(&mut self.frames),
            core::mem::take(&mut self.receipts),
        )
    }

    /// How many others there are.
    pub fn others(&self) -> usize {
        self.others.len()
    }
}
