//! What a disk that goes back or away takes along, message by message: only that is exempt. All
//! else is judged as if nothing had happened.

use std::collections::BTreeSet;

use bytes::Bytes;
use chat_core::delivery::TimelineItem;
use chat_core::effect::{Row, RowOp, Table};
use chat_core::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId, TxnId, UserId};

use super::super::{At, Verdict, Violation};
use super::{Delivery, Fate, Message, covers};

/// A row of a held message is named by conversation, device, epoch and number.
const HELD_KEY: usize = 32 + 32 + 8 + 8;

/// What was durable on the disk of one device.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) user: Option<UserId>,
    now: BTreeSet<MessageId>,
    backup: BTreeSet<MessageId>,
    /// Was durable, and is not since the disk went back.
    lost: BTreeSet<MessageId>,
    gaps: BTreeSet<(MessageId, u64)>,
}

impl Disk {
    fn store(&mut self, row: &RowOp) {
        let RowOp::Put { table, key, value } = row else {
            return;
        };
        match table {
            Table::Streams => self.now.extend(held(key)),
            Table::Timeline => match timeline(key, value) {
                Some(TimelineItem::Received(received)) => drop(self.now.insert(received.id)),
                Some(TimelineItem::Gap { first, count, .. }) => {
                    self.gaps.insert((first, count));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn go_back(&mut self) {
        let lost = self.now.difference(&self.backup).copied();
        self.lost.extend(lost);
        self.now.clone_from(&self.backup);
    }

    /// The message, or word that it will not come, was durable here, and went with the disk.
    pub(super) fn took_along(&self, id: &MessageId) -> bool {
        self.lost.contains(id) || self.gaps.iter().any(|gap| covers(gap, id))
    }

    /// The message was durable here at some time, or said to be missing.
    fn had(&self, id: &MessageId) -> bool {
        self.now.contains(id)
            || self.lost.contains(id)
            || self.gaps.iter().any(|gap| covers(gap, id))
    }

    /// Something of this device is said to be missing.
    pub(super) fn misses_of(&self, id: &MessageId) -> bool {
        let of = |other: &MessageId| (other.stream.device, other.stream.conv);
        self.gaps.iter().any(|(first, _)| of(first) == of(id))
    }
}

fn held(key: &[u8]) -> Option<MessageId> {
    if key.len() != HELD_KEY {
        return None;
    }
    let (conv, rest) = key.split_first_chunk::<32>()?;
    let (device, rest) = rest.split_first_chunk::<32>()?;
    let (epoch, seq) = rest.split_first_chunk::<8>()?;
    Some(MessageId {
        stream: StreamId {
            conv: ConvId(*conv),
            device: DeviceId(*device),
            epoch: Epoch(u64::from_be_bytes(*epoch)),
        },
        seq: Seq(u64::from_be_bytes(seq.try_into().ok()?)),
    })
}

fn timeline(key: &Bytes, value: &Bytes) -> Option<TimelineItem> {
    let row = Row {
        table: Table::Timeline,
        key: key.clone(),
        value: value.clone(),
    };
    chat_core::delivery::Delivery::read_timeline(&row).ok()
}

impl Delivery {
    pub(super) fn stored(&mut self, at: At<'_>, rows: &[RowOp]) {
        let disk = self.disks.entry(at.device).or_default();
        for row in rows {
            disk.store(row);
        }
    }

    pub(super) fn backed_up(&mut self, at: At<'_>) {
        let place = &mut self.places[at.node];
        place.backup = place.inbox.clone();
        place.backup_at = at.now;
        let disk = self.disks.entry(at.device).or_default();
        disk.backup.clone_from(&disk.now);
    }

    pub(super) fn rolled_back(&mut self, at: At<'_>) {
        let place = &mut self.places[at.node];
        place.inbox = place.backup.clone();
        place.damaged = Some(at.now);
        let since = place.backup_at;
        self.disks.entry(at.device).or_default().go_back();
        self.forget(at.node, |told| told.is_none_or(|told| told > since));
        self.open.retain(|(node, _)| *node != at.node);
    }

    pub(super) fn disk_lost(&mut self, at: At<'_>) {
        let place = &mut self.places[at.node];
        place.inbox = super::Inbox::default();
        place.damaged = Some(at.now);
        self.forget(at.node, |_| true);
        self.open.retain(|(node, _)| *node != at.node);
    }

    /// A node forgets that it took messages, and how they ended, where that was told when `lost`
    /// says.
    fn forget(&mut self, node: usize, lost: impl Fn(Option<u64>) -> bool) {
        let mut back = Vec::new();
        for message in self.messages.values_mut().filter(|it| it.node == node) {
            message.forgotten |= lost(message.accepted);
            message.forgot_end |= message.ended.is_some_and(|at| lost(Some(at)));
            if message.forgotten {
                back.extend(message.origin);
            }
        }
        // What it was told under before is what it is called again.
        for id in back {
            if let Some(message) = self.messages.get_mut(&id) {
                message.moved = false;
            }
        }
    }

    /// A message was accepted. After a rollback one of an earlier life is accepted anew, under
    /// another id: from then on it is judged under that.
    pub(super) fn accepted(&mut self, at: At<'_>, id: MessageId, txn: TxnId) {
        let before = self.txns.insert(txn, id).filter(|before| *before != id);
        if let Some(old) = before.and_then(|before| self.messages.get_mut(&before)) {
            old.moved = true;
            let again = Message {
                fate: Fate::Issued,
                life: self.places[at.node].life,
                delivered: false,
                ended: None,
                forgot_end: false,
                forgotten: false,
                moved: false,
                origin: before,
                failed_in: None,
                ..old.clone()
            };
            self.marks.hit("oracle-accepted-anew");
            self.messages.entry(id).or_insert(again);
        }
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        message.accepted.get_or_insert(at.now);
        if message.fate == Fate::Issued {
            message.fate = Fate::Accepted;
            if message.to.len() > 1 {
                self.marks.hit("oracle-group-message");
            }
        }
    }

    /// ID3: what is called delivered was durable at a device of everybody whom it was for, also
    /// where that device died, or its disk went back, later.
    pub(super) fn promised(&self, id: &MessageId, message: &Message) -> Verdict {
        // What was given up is an empty number, which everybody has.
        if message.forgot_end {
            return Ok(());
        }
        let users: BTreeSet<&UserId> = message.to.iter().map(|(user, _)| user).collect();
        for user in users {
            let of_user = || {
                self.disks
                    .values()
                    .filter(|it| it.user.as_ref() == Some(user))
            };
            // Who is out of a group is waited for no more. Who went back to an earlier life is told
            // that it is over, and what was missing at its end is only counted.
            let over = || message.forgotten || self.places[message.node].damaged.is_some();
            if self.removed.contains_key(user)
                || of_user().any(|disk| disk.had(id))
                || over() && of_user().any(|disk| disk.misses_of(id))
            {
                continue;
            }
            let text = format!("{id:?} is called delivered, {user} never had it");
            return Err(Violation::new("ID3", text));
        }
        Ok(())
    }
}
