//! Commands of the sending side: `send`, `cancel`, typing, hand-over to the broker, expiry, and
//! the rows behind them (reliability 2.2, 2.3 "accept", "overflow", "TTL"; rules Q3–Q7, Q9, Q15–Q17).

use core::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::outbox::{At, Entry, Life};
use super::state::{ConvAt, Txn};
use super::types::{Ack, DeliveryEvent, FailReason, SendError, SortKey, Unsendable};
use super::{Delivery, MAX_TXNS, rows, timeline};
use crate::content::Content;
use crate::effect::{Carried, Table};
use crate::hlc::Hlc;
use crate::id::{ConvId, MessageId, TxnId};
use crate::output::{Fate, PersistId};
use crate::probe::{mark, planted};
use crate::time::{Now, Timestamp};

/// What a frame needs besides its content, at the most: the header with key, signature and the
/// longest name, the numbers and causal hints, and what the sealer adds.
pub(super) const FRAME_OVERHEAD: usize = 1_024;

pub(super) fn hash(conv: ConvId, body: &[u8]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(conv.0);
    hash.update(body);
    let full: [u8; 32] = hash.finalize().into();
    *full.first_chunk().expect("a digest has 32 bytes")
}

impl Delivery {
    /// True for the transaction of a message that was taken before and is not forgotten.
    pub(crate) fn knows(&self, txn: &TxnId) -> bool {
        self.txns.get(txn).is_some()
    }

    /// Takes a message. Idempotent by `txn`: the same content again gives the same id.
    ///
    /// # Errors
    /// [`SendError`] hands the content back.
    pub fn send(
        &mut self,
        conv: ConvId,
        txn: TxnId,
        content: Content,
        now: Now,
    ) -> Result<MessageId, SendError> {
        let body: Bytes = match content.encode(conv) {
            Ok(body) => body.into(),
            Err(why) => return Err(SendError::Content { content, why }),
        };
        let hash = hash(conv, &body);
        if let Some(known) = self.txns.get(&txn) {
            if known.hash == hash {
                let known = known.clone();
                self.tell_again(&known);
                return Ok(known.id);
            }
            return Err(SendError::TxnReused(content));
        }
        if let Some(bytes) = self.exceeds(&body) {
            let max = self.max_frame;
            return Err(SendError::TooLarge {
                content,
                bytes,
                max,
            });
        }
        let epoch = self.epoch;
        let Some(conv) = self.convs.slot(&conv) else {
            return Err(SendError::NotOpen(content));
        };
        let it = &mut self.convs[conv];
        let (roster, alone) = match &it.route {
            Some(route) if route.group || !it.out.peers.is_empty() => {
                (route.roster, it.out.peers.is_empty())
            }
            _ => return Err(SendError::NotOpen(content)),
        };
        let full = if self.outbox.0 >= self.config.max_outbox {
            Some("max_outbox")
        } else if self.outbox.1 + body.len() > self.config.max_outbox_bytes {
            Some("max_outbox_bytes")
        } else {
            None
        };
        if let Some(limit) = full {
            mark("delivery-outbox-full");
            return Err(SendError::Full { content, limit });
        }
        let at = it.out.assign(epoch);
        // Deadlines never decrease along a conversation: the oldest message is the first to go.
        let expires = it
            .out
            .entries
            .last_key_value()
            .map_or(now.wall, |(_, last)| last.expires)
            .max(now.wall.plus(self.config.content_ttl));
        let deps = it.hints();
        let entry = Entry {
            txn,
            hlc: self.clock.tick(now.wall),
            roster,
            prev_roster: core::mem::replace(&mut it.out.last_roster, roster),
            expires,
            deps,
            body,
            devices: 0,
            users: 0,
            storing: 0,
            sends: 0,
            sent_at: Timestamp::ZERO,
            copies: 0,
            aside: !content.is_visible(),
            failed: false,
            ack: if alone { Ack::Delivered } else { Ack::Queued },
        };
        let id = self.own_id(conv, at);
        let known = Txn {
            id,
            hash,
            end: None,
        };
        self.txns.insert(txn, known);
        self.enqueue(conv, at, entry, alone, now);
        Ok(id)
    }

    /// Who repeats a send hears how it ended: the event may have been lost in a crash.
    fn tell_again(&mut self, known: &Txn) {
        let id = known.id;
        if let Some(why) = known.end.clone() {
            mark("delivery-failure-told-again");
            self.effects.emit_gated(DeliveryEvent::Failed { id, why });
            return;
        }
        let at = (id.stream.epoch, id.seq.0);
        let conv = self.convs.get(&id.stream.conv);
        let entry = conv.and_then(|it| it.out.entries.get(&at));
        if entry.is_none_or(|entry| entry.ack >= Ack::Delivered) {
            mark("delivery-success-told-again");
            let ack = Ack::Delivered;
            self.effects.emit_gated(DeliveryEvent::Progress { id, ack });
        }
    }

    /// Remembers why a message ended, for who repeats the send.
    pub(super) fn note_why(&mut self, txn: TxnId, why: &FailReason) {
        if let Some(known) = self.txns.get_mut(&txn) {
            known.end = Some(why.clone());
        }
    }

    /// Stores an accepted message and says so. With nobody to send it to it is done at once.
    fn enqueue(&mut self, conv: ConvAt, at: At, entry: Entry, alone: bool, now: Now) {
        let id = self.own_id(conv, at);
        let sort = self.own_sort(at, &entry);
        let txn = entry.txn;
        self.put_sent(conv, at, &entry, None);
        if alone {
            self.remember(txn);
        } else {
            self.outbox.0 += 1;
            self.outbox.1 += entry.body.len();
            self.put_outbox(conv, at, &entry);
            self.owing.insert(conv);
            let due = now.mono_at(entry.expires);
            if self.convs[conv].dues.expiry.is_none() {
                self.set_dues(conv, |dues| dues.expiry = Some(due));
            }
            self.convs[conv].out.add(at, entry);
            self.await_stored(conv, at);
        }
        let it = &mut self.convs[conv];
        it.shown = it.shown.max(Some(sort));
        self.put_conv(conv);
        self.effects
            .emit_gated(DeliveryEvent::Accepted { id, txn, sort });
        if alone {
            let ack = Ack::Delivered;
            self.effects.emit_gated(DeliveryEvent::Progress { id, ack });
        }
    }

    /// A message, or a change of it, waits for the rows of this input.
    pub(super) fn await_stored(&mut self, conv: ConvAt, at: At) {
        if planted("delivery-publish-before-persist") {
            self.ready.insert(conv);
            return;
        }
        if let Some(entry) = self.convs[conv].out.entries.get_mut(&at) {
            entry.storing += 1;
            self.fresh.push((conv, at));
        }
    }

    /// The rows queued so far are in `batch`.
    pub fn handle_batched(&mut self, batch: PersistId) {
        let fresh = self.fresh.drain(..);
        self.storing
            .extend(fresh.map(|(conv, at)| (batch, conv, at)));
        self.batch_notices(batch);
    }

    /// Everything up to and including `batch` is durable: what waited for it may leave, with the
    /// next [`Self::flush`].
    pub fn handle_persisted(&mut self, batch: PersistId) {
        while let Some(&(of, conv, at)) = self.storing.front()
            && of <= batch
        {
            self.storing.pop_front();
            if let Some(entry) = self.convs[conv].out.entries.get_mut(&at) {
                entry.storing -= 1;
                self.ready.insert(conv);
            }
        }
        self.drop_told(batch);
    }

    /// True when [`Self::flush`] has something to send.
    pub fn is_ready(&self) -> bool {
        self.up && !self.ready.is_empty()
    }

    /// Sends what became durable since the last time: several messages of a conversation share
    /// frames. Call it when nothing else is to be done first, so that what waits waits together.
    pub fn flush(&mut self, now: Now) {
        while let Some(conv) = self.ready.pop_first() {
            self.pump(conv, now);
        }
    }

    /// What this life still owes here gets new ids in the current epoch, in the same order.
    pub(super) fn reissue(&mut self, conv: ConvAt, now: Now) {
        let (epoch, ours) = (self.epoch, self.epoch_at_start);
        let it = &mut self.convs[conv];
        let moved: Vec<At> = it
            .out
            .entries
            .range((ours, 0)..)
            .map(|(at, _)| *at)
            .collect();
        let total = it
            .out
            .lives
            .last_key_value()
            .map_or(0, |(_, life)| life.sent_before + life.next - 1);
        // What moves is not missing from the old epoch.
        let life = Life {
            sent_before: total.saturating_sub(moved.len() as u64),
            next: 1,
        };
        it.out.lives.insert(epoch, life);
        if let Some(first) = moved.first().and_then(|at| it.out.entries.get(at)) {
            it.out.last_roster = first.prev_roster;
        }
        for old in moved {
            let it = &mut self.convs[conv];
            let Some(mut entry) = it.out.remove(old) else {
                continue;
            };
            self.outbox.0 -= 1;
            self.outbox.1 -= entry.body.len();
            let id = self.convs[conv].id;
            self.effects
                .delete(Table::Outbox, rows::outbox_key(id, old));
            if entry.failed {
                self.remember(entry.txn);
                continue;
            }
            let old_sort = self.own_sort(old, &entry);
            self.effects
                .delete(Table::Timeline, timeline::key(id, &old_sort));
            let it = &mut self.convs[conv];
            let at = it.out.assign(epoch);
            // Whom it was for does not change: who joined later is not owed it (G16).
            entry.prev_roster = core::mem::replace(&mut it.out.last_roster, entry.roster);
            it.out.pass_over(at, entry.roster);
            entry.sends = 0;
            entry.copies = 0;
            entry.ack = Ack::Queued;
            let id = self.own_id(conv, at);
            if let Some(known) = self.txns.get_mut(&entry.txn) {
                known.id = id;
            }
            self.enqueue(conv, at, entry, false, now);
        }
        self.convs[conv].out.settle();
        if self.convs[conv].is_group() {
            self.count_off_unowed(conv, now);
        }
    }

    /// Takes back a message that never left (Q3), or gives up one that is wedged (Q2); false when
    /// it is too late. Its number is still sent, empty, so that nobody waits for it.
    pub fn cancel(&mut self, id: &MessageId, _now: Now) -> bool {
        let at = (id.stream.epoch, id.seq.0);
        if id.stream.device != self.me.device {
            return false;
        }
        let Some(conv) = self.convs.slot(&id.stream.conv) else {
            return false;
        };
        if self.convs[conv].out.wedged.contains_key(&at) {
            mark("delivery-wedge-cancelled");
            self.give_up(conv, at, &FailReason::Cancelled);
            return true;
        }
        let entry = self.convs[conv].out.entries.get(&at);
        let here = entry.is_some_and(|entry| entry.copies == 0);
        let taken = here && self.take_back(conv, at, &FailReason::Cancelled);
        if taken {
            mark("delivery-cancelled");
        }
        taken
    }

    /// Empties a message; false when it has failed already. Where a copy may be out, who misses it
    /// shall be told of a gap: its number comes without a clock.
    pub(super) fn take_back(&mut self, conv: ConvAt, at: At, why: &FailReason) -> bool {
        let entries = &mut self.convs[conv].out.entries;
        let Some(entry) = entries.get_mut(&at).filter(|entry| !entry.failed) else {
            return false;
        };
        entry.failed = true;
        let whole = entry.clone();
        entry.body = Bytes::new();
        if entry.copies > 0 {
            entry.hlc = Hlc(0);
        }
        let empty = entry.clone();
        self.outbox.1 -= whole.body.len();
        self.await_stored(conv, at);
        self.convs[conv].out.note_end(at);
        self.note_why(whole.txn, why);
        self.put_sent(conv, at, &whole, Some(why));
        self.put_outbox(conv, at, &empty);
        self.put_conv(conv);
        let (id, why) = (self.own_id(conv, at), why.clone());
        self.tell(DeliveryEvent::Failed { id, why });
        true
    }

    /// The largest frame that the connection carries. What was written before we knew and is too
    /// large is wedged now (Q2); what left over a wider connection waits for such a one, or expires.
    pub fn handle_max_frame(&mut self, max: usize, _now: Now) {
        let narrower = core::mem::replace(&mut self.max_frame, max) > max;
        let owing: Vec<ConvAt> = self.owing.iter().copied().collect();
        for conv in owing.into_iter().filter(|_| narrower) {
            let out = &self.convs[conv].out;
            let waits = |at: &At, entry: &Entry| {
                entry.copies == 0 && !entry.failed && !out.wedged.contains_key(at)
            };
            let large: Vec<At> = out
                .entries
                .iter()
                .filter(|(at, entry)| waits(at, entry) && self.exceeds(&entry.body).is_some())
                .map(|(at, _)| *at)
                .collect();
            for at in large {
                self.wedge(conv, at, Unsendable::TooLarge);
            }
        }
    }

    /// What the frame of `body` may need, if that is more than the connection carries.
    pub(super) fn exceeds(&self, body: &[u8]) -> Option<usize> {
        let bytes = body.len() + FRAME_OVERHEAD;
        (bytes > self.max_frame).then_some(bytes)
    }

    /// What became of a frame with messages.
    pub fn handle_handed_off(&mut self, carried: Carried, fate: Fate, now: Now) {
        if let Fate::Never(why) = fate {
            self.on_never(carried, why, now);
            return;
        }
        let Some(conv) = self.convs.slot(&carried.first.stream.conv) else {
            return;
        };
        for id in carried.ids() {
            let at = (id.stream.epoch, id.seq.0);
            if fate == Fate::NotTaken {
                self.on_not_taken(conv, at, now);
            } else if let Some(entry) = self.convs[conv].out.entries.get_mut(&at)
                && entry.ack < Ack::HandedOff
                && !entry.failed
            {
                entry.ack = Ack::HandedOff;
                let ack = Ack::HandedOff;
                self.effects.emit_gated(DeliveryEvent::Progress { id, ack });
            }
        }
    }

    /// A copy did not reach the broker, for all we know: soon another goes.
    fn on_not_taken(&mut self, conv: ConvAt, at: At, now: Now) {
        let it = &mut self.convs[conv];
        if it.out.entries.get(&at).is_none_or(|entry| entry.sends == 0) {
            return;
        }
        mark("delivery-not-taken");
        it.out.unsent.insert(at);
        if self.up {
            let wait = it.out.rtt.wait(&self.config, it.is_group());
            let soon = now.mono + super::retransmit::spread(wait, &mut self.rng);
            if self.convs[conv].dues.retry.is_none_or(|due| soon < due) {
                self.set_dues(conv, |dues| dues.retry = Some(soon));
            }
        }
    }

    /// The oldest message may have run out.
    pub(super) fn on_expiry(&mut self, conv: ConvAt, now: Now) {
        let mut expired = false;
        loop {
            let it = &self.convs[conv];
            let Some((&at, entry)) = it.out.entries.first_key_value() else {
                break;
            };
            if entry.expires > now.wall {
                let due = now
                    .mono_at(entry.expires)
                    .max(now.mono + Duration::from_millis(1));
                self.set_dues(conv, |dues| dues.expiry = Some(due));
                break;
            }
            mark("delivery-expired");
            expired = true;
            self.fail(conv, at, &FailReason::Expired, now);
        }
        if expired {
            self.put_conv(conv);
            self.pump(conv, now);
            if self.up {
                self.send_hello(conv);
            }
        }
    }

    /// A message leaves the outbox undelivered. The caller stores the conversation.
    pub(super) fn fail(&mut self, conv: ConvAt, at: At, why: &FailReason, now: Now) {
        let until = self.notice_until(now);
        let it = &mut self.convs[conv];
        let Some(entry) = it.out.expire(at, until) else {
            return;
        };
        if !entry.failed && entry.ack < Ack::Delivered {
            self.note_why(entry.txn, why);
        }
        self.drop_outbox_row(conv, at, &entry);
        if entry.failed || entry.ack >= Ack::Delivered {
            return;
        }
        self.convs[conv].out.note_end(at);
        self.put_sent(conv, at, &entry, Some(why));
        let (id, why) = (self.own_id(conv, at), why.clone());
        self.tell(DeliveryEvent::Failed { id, why });
    }

    pub(super) fn drop_outbox_row(&mut self, conv: ConvAt, at: At, entry: &Entry) {
        self.outbox.0 -= 1;
        self.outbox.1 -= entry.body.len();
        let key = rows::outbox_key(self.convs[conv].id, at);
        self.effects.delete(Table::Outbox, key);
        self.remember(entry.txn);
    }

    /// Keeps a transaction known in a ring, also across restarts.
    fn remember(&mut self, txn: TxnId) {
        let Some(known) = self.txns.get(&txn) else {
            return;
        };
        let n = self.ring.last_key_value().map_or(0, |(n, _)| n + 1);
        let slot = u16::try_from(n % MAX_TXNS).expect("a slot is below 1,024");
        self.effects.put(
            Table::Conversations,
            slot.to_be_bytes().to_vec(),
            rows::encode_txn(n, txn, known),
        );
        self.ring.insert(n, txn);
        while self.ring.len() as u64 > MAX_TXNS {
            if let Some((_, oldest)) = self.ring.pop_first() {
                self.txns.remove(&oldest);
            }
        }
    }

    pub(super) fn put_conv(&mut self, conv: ConvAt) {
        let it = &self.convs[conv];
        let row = rows::encode_conv(it, self.clock.last());
        self.effects
            .put(Table::Conversations, rows::conv_key(it.id), row);
    }

    pub(super) fn put_outbox(&mut self, conv: ConvAt, at: At, entry: &Entry) {
        self.effects.put(
            Table::Outbox,
            rows::outbox_key(self.convs[conv].id, at),
            rows::encode_outbox(
                entry,
                self.txns.get(&entry.txn).and_then(|txn| txn.end.as_ref()),
                self.convs[conv].out.wedged.get(&at).copied(),
            ),
        );
    }

    /// Stores how a message of ours shows. One that was taken back is stored already.
    pub(super) fn put_sent(
        &mut self,
        conv: ConvAt,
        at: At,
        entry: &Entry,
        failed: Option<&FailReason>,
    ) {
        if entry.body.is_empty() {
            return;
        }
        let id = self.own_id(conv, at);
        let sort = self.own_sort(at, entry);
        let wedged = self.convs[conv].out.wedged.get(&at).copied();
        self.effects.put(
            Table::Timeline,
            timeline::key(id.stream.conv, &sort),
            timeline::encode_sent(&id, entry.ack, failed, wedged, &entry.body),
        );
    }

    fn own_sort(&self, at: At, entry: &Entry) -> SortKey {
        SortKey {
            hlc: entry.hlc,
            device: self.me.device,
            epoch: at.0,
            seq: at.1,
        }
    }
}
