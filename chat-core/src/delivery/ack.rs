//! Acknowledgements, in both directions (reliability 2.3 "ack", "ack from the future", "poison";
//! rules Q8, Q12, Q13, S11, S12).
//!
//! Guarantees: an acknowledgement leaves only when what it acknowledges is durable (ID3); it is
//! cumulative with a bitmap and always names the epoch. One frame carries up to 32 streams of one
//! sender, after `ack_delay` in 1:1 and a random part of `group_ack_delay` in groups, and earlier
//! when half of the largest window is owed an answer, or the sender has nothing more to send until
//! it hears: the delay bounds no rate, and no burst waits for it at its end; up to three messages that
//! come alone wait a moment for company. In groups even these are
//! spread, so that a sender hears at most a thousand a second at the end of a burst. A duplicate is
//! answered at once, but no stream more often than once per `ack_delay`, and then once more: who
//! asks again may have missed every answer to a loss that keeps step with us.
//!
//! News is acknowledged with class `Durable`, because its sender may be away for long and would
//! show "sent" for what has arrived; an answer to a duplicate or a `Hello` is `Ephemeral`, its
//! sender is there.

use super::Delivery;
use super::inbox::WINDOW;
use super::outbox::{Applied, At, Who};
use super::state::{Conv, ConvAt, Key, StreamAt, UserAt};
use super::types::{Ack, DeliveryEvent, FailReason};
use crate::channel::{Channel, Class};
use crate::effect::{Outgoing, Table};
use crate::id::{ConvId, Epoch};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::{Now, Timestamp};
use crate::wire::delivery as frames;
use crate::wire::{Body, BoundedVec};

/// Streams in one acknowledgement.
const MAX_STREAMS: usize = 32;
/// So many messages of one stream are acknowledged without further delay.
const SOON: u64 = WINDOW / 2;
/// A large group does not answer all at once, also then: this per member, at most `ack_delay`. It
/// is a few times what an acknowledgement costs who receives it.
const SPREAD: core::time::Duration = core::time::Duration::from_micros(250);
/// Fewer messages than this wait a moment for others, also when their sender waits for the answer:
/// a signature at either end is for all of them.
const FEW: u64 = 4;
/// That moment. A shorter one would make every rest of the processor set its timer.
const MOMENT: core::time::Duration = core::time::Duration::from_millis(5);
/// How long after a rollback the next one is not believed: a forger must not make us renumber
/// for ever.
const ROLLBACK_PAUSE: core::time::Duration = core::time::Duration::from_secs(60);
/// How far above the wall clock a closed epoch may lie, in milliseconds: some 35 years. What lies
/// above would use up the numbers.
const MAX_EPOCH_AHEAD: u64 = 1 << 40;

impl Delivery {
    /// News of a stream: acknowledged after a delay, together with others of the same sender.
    /// `push`: the sender waits for it.
    pub(super) fn ack_later(&mut self, at: StreamAt, push: bool, now: Now) {
        let stream = &mut self.streams[at];
        stream.owed += 1;
        let (few, soon) = (stream.owed < FEW, stream.owed >= SOON);
        let it = &self.convs[stream.conv];
        let (least, most) = (self.config.ack_delay, self.config.group_ack_delay);
        let members = u32::try_from(it.out.peers.len()).unwrap_or(u32::MAX);
        let spread = SPREAD.saturating_mul(members);
        let delay = match (soon, it.is_group()) {
            (true, true) => self.rng.jitter(spread.min(least)),
            (false, true) if push => self.rng.jitter(spread.saturating_mul(4).min(most)),
            (true, false) => core::time::Duration::ZERO,
            (false, false) if push && few => MOMENT.min(least),
            (false, false) if push => core::time::Duration::ZERO,
            (false, true) => least + self.rng.jitter(most.saturating_sub(least)),
            (false, false) => least,
        };
        self.queue_ack(at, true, now.mono + delay);
    }

    /// A duplicate or a question: acknowledged at once, unless it just was.
    pub(super) fn ack_again(&mut self, at: StreamAt, now: Now) {
        let stream = &self.streams[at];
        let user = stream.account;
        let answered = stream.answered;
        let free = answered.map_or(now.mono, |at| now.mono.max(at + self.config.ack_delay));
        let it = &self.convs[stream.conv];
        let members = u32::try_from(it.out.peers.len()).unwrap_or(u32::MAX);
        let due = match it.is_group() && !planted("delivery-in-step") {
            true => free + self.rng.jitter(SPREAD.saturating_mul(members)),
            false => free,
        };
        // Who asks again may have missed our answers because all came at the same place of a
        // regular loss. So a second one follows; of a group, from one member for all.
        let alone = self.rng.below(u64::from(members.max(1))) == 0;
        self.streams[at].again = alone && free <= now.mono && !planted("delivery-in-step");
        self.queue_ack(at, false, due);
        if due <= now.mono {
            self.timers.remove(&Key::Ack(user));
            self.on_ack_due(user, now);
        }
    }

    fn queue_ack(&mut self, at: StreamAt, news: bool, due: Timestamp) {
        let user = self.streams[at].account;
        let waiting = &mut self.users[user].waiting;
        waiting.streams.insert(at);
        waiting.news |= news;
        let key = Key::Ack(user);
        if self.timers.due(&key).is_none_or(|old| due < old) {
            self.timers.set(key, due);
        }
    }

    /// Sends what waits for `user`.
    pub(super) fn on_ack_due(&mut self, user: UserAt, now: Now) {
        if !self.up {
            return;
        }
        let waiting = core::mem::take(&mut self.users[user].waiting);
        let name = self.users.key(user).clone();
        let all: Vec<_> = waiting
            .streams
            .into_iter()
            .filter_map(|at| self.stream_ack(at, now))
            .collect();
        for part in all.chunks(MAX_STREAMS) {
            let ack = frames::Ack {
                streams: BoundedVec::take_from(part.iter().cloned()),
            };
            mark("delivery-ack");
            let mut frame = Outgoing::durable(Channel::Inbox(name.clone()), ack)
                .with_ttl(self.config.content_ttl);
            frame.gated = !planted("delivery-ack-before-persist");
            if !waiting.news {
                frame.class = Class::Ephemeral;
            }
            self.effects.send(frame);
        }
    }

    fn stream_ack(&mut self, at: StreamAt, now: Now) -> Option<frames::StreamAck> {
        let share_read = self.config.share_read;
        let window = self.window_for(at);
        let stream = &mut self.streams[at];
        let it = &self.convs[stream.conv];
        // Whom we left or blocked meanwhile hears nothing more (S5).
        it.route.as_ref()?;
        stream.answered = Some(now.mono);
        stream.owed = 0;
        if window < WINDOW {
            mark("delivery-window-narrow");
            self.starved.insert(at);
        }
        let twice = core::mem::take(&mut stream.again);
        let ack = frames::StreamAck {
            device: stream.device.0,
            conv: it.id.0,
            epoch: stream.epoch.0,
            contig: stream.contig,
            bitmap: stream.bitmap(),
            window: u16::try_from(window).expect("the window is at most 128"),
            read: if share_read { stream.read } else { 0 },
            refused: BoundedVec::take_from(stream.refused.iter().copied()),
        };
        if twice {
            self.queue_ack(at, false, now.mono + self.config.ack_delay);
        }
        Some(ack)
    }

    /// Answers a frame of a closed epoch, at most once per `ack_delay`.
    pub(super) fn say_retired(&mut self, at: StreamAt, now: Now) {
        let stream = &mut self.streams[at];
        let quiet = stream
            .answered
            .is_none_or(|at| at + self.config.ack_delay <= now.mono);
        if !quiet || !self.up {
            return;
        }
        mark("delivery-retired");
        stream.answered = Some(now.mono);
        let retired = frames::Retired {
            device: stream.device.0,
            conv: self.convs[stream.conv].id.0,
            below: stream.epoch.0.saturating_sub(1),
        };
        let to = Channel::Inbox(stream.user.clone());
        let frame = Outgoing::ephemeral(to, Body::from(retired));
        self.effects.send(frame.gated());
    }

    /// One stream of an acknowledgement for us.
    pub(super) fn take_ack(&mut self, from: &Sender, ack: &frames::StreamAck, now: Now) {
        let Some(conv) = self.convs.slot(&ConvId(ack.conv)) else {
            return;
        };
        let who: Who = (from.user.clone(), from.device);
        let epoch = Epoch(ack.epoch);
        // A receiver may have given up what ran out, and then passes over it: first things first.
        self.on_expiry(conv, now);
        let it = &mut self.convs[conv];
        if !it.out.peers.contains_key(&who) {
            return;
        }
        let highest = ack.contig.saturating_add(match ack.bitmap {
            0 => 0,
            bits => WINDOW + 1 - u64::from(bits.leading_zeros()),
        });
        let life = it.out.lives.get(&epoch);
        let unsent = epoch > self.epoch || life.is_some_and(|life| highest >= life.next);
        // An epoch of an earlier life was restored whole: what a later life added to it is its own.
        if unsent && epoch >= self.epoch_at_start {
            if highest > 0 {
                mark("delivery-ack-from-the-future");
                self.roll_forward(conv, epoch, now);
            }
            return;
        }
        if unsent && planted("delivery-rollback-settles-all") {
            let newly = it.out.apply_retired(&who, epoch);
            self.count_off(conv, newly, now);
            return;
        }
        let at = |it: &Conv| it.out.peers.get(&who).map(|peer| peer.epoch);
        if at(it).is_some_and(|at| at < epoch) {
            // It took something later, so it has what it was owed of all before.
            let newly = it.out.apply_retired(&who, Epoch(epoch.0 - 1));
            self.count_off(conv, newly, now);
        }
        let it = &mut self.convs[conv];
        if at(it) != Some(epoch) {
            self.notice_sign(conv, from, now);
            return;
        }
        for refusal in ack.refused.iter() {
            self.on_refused(conv, (epoch, refusal.seq), from, refusal.code);
        }
        let it = &mut self.convs[conv];
        let applied = it.out.apply(&who, ack);
        self.after_ack(conv, &who, epoch, applied, now);
        self.notice_sign(conv, from, now);
    }

    fn after_ack(&mut self, conv: ConvAt, who: &Who, epoch: Epoch, applied: Applied, now: Now) {
        let it = &mut self.convs[conv];
        // Who still misses something is there to take it; who has all says nothing of the others.
        let behind = it.out.is_behind(who);
        if behind {
            it.out.rtt.silent = 0;
        }
        for (at, _) in &applied.newly {
            if let Some(entry) = it.out.entries.get(at)
                && entry.sends == 1
                && entry.sent_at >= self.up_since
            {
                it.out.rtt.sample(now.mono.saturating_since(entry.sent_at));
            }
        }
        self.count_off(conv, applied.newly, now);
        let mut receipt = |seq, ack| {
            let up_to = self.own_id(conv, (epoch, seq));
            let by = who.0.clone();
            self.effects
                .emit_gated(DeliveryEvent::Receipt { up_to, by, ack });
        };
        if let Some(seq) = applied.delivered {
            receipt(seq, Ack::Delivered);
        }
        if let Some(seq) = applied.read {
            receipt(seq, Ack::Displayed);
            self.note_displayed(conv);
        }
        if applied.progress {
            self.pump(conv, now);
        }
        self.arm(conv, now);
        if behind {
            self.rearm(conv, now);
        }
    }

    /// Tells `Displayed` for what every recipient's user has seen now.
    fn note_displayed(&mut self, conv: ConvAt) {
        let it = &mut self.convs[conv];
        let seen = it.out.displayed_by_all();
        let (before, epoch) = (it.out.displayed, seen.0);
        if seen <= before {
            return;
        }
        it.out.displayed = seen;
        let above = it.out.ended.split_off(&(epoch, seen.1 + 1));
        let ended = core::mem::replace(&mut it.out.ended, above);
        self.put_conv(conv);
        let from = if before.0 == epoch { before.1 } else { 0 };
        // A watermark covers what lies before it; the events name the latest of a long jump.
        for seq in from.max(seen.1.saturating_sub(WINDOW)) + 1..=seen.1 {
            if ended.contains(&(epoch, seq)) {
                mark("delivery-failed-before-displayed");
                continue;
            }
            let id = self.own_id(conv, (epoch, seq));
            let ack = Ack::Displayed;
            self.effects.emit_gated(DeliveryEvent::Progress { id, ack });
        }
    }

    /// Messages that one recipient fewer misses: tells `Delivered`, forgets what is done.
    pub(super) fn count_off(&mut self, conv: ConvAt, newly: Vec<(At, bool)>, now: Now) {
        let mut any = false;
        let until = self.notice_until(now);
        for (at, settles) in newly {
            let it = &mut self.convs[conv];
            let Some(entry) = it.out.entries.get_mut(&at) else {
                continue;
            };
            let (devices, users) = (entry.devices, entry.users);
            if settles && users == 0 && !entry.failed && entry.ack < Ack::Delivered {
                entry.ack = Ack::Delivered;
                let entry = entry.clone();
                self.put_sent(conv, at, &entry, None);
                if devices > 0 {
                    self.put_outbox(conv, at, &entry);
                }
                let id = self.own_id(conv, at);
                let ack = Ack::Delivered;
                self.effects.emit_gated(DeliveryEvent::Progress { id, ack });
            }
            if devices == 0 {
                any = true;
                self.forget(conv, at);
            }
        }
        if any {
            let out = &mut self.convs[conv].out;
            // Who holds something above a hole that is owed to nobody must hear of the base.
            if out.entries.is_empty() && out.owes_notice() {
                out.notice.get_or_insert(until);
            }
            self.pump(conv, now);
        }
    }

    /// Messages that nobody is owed any more are done.
    pub(super) fn count_off_unowed(&mut self, conv: ConvAt, now: Now) {
        let entries = self.convs[conv].out.entries.iter();
        let left: Vec<_> = entries
            .filter(|(_, entry)| entry.devices == 0)
            .map(|(at, _)| (*at, true))
            .collect();
        self.count_off(conv, left, now);
    }

    /// Removes a message from the outbox; its transaction stays known for a while.
    pub(super) fn forget(&mut self, conv: ConvAt, at: At) {
        let it = &mut self.convs[conv];
        let Some(entry) = it.out.remove(at) else {
            return;
        };
        self.drop_outbox_row(conv, at, &entry);
    }

    fn on_refused(&mut self, conv: ConvAt, at: At, from: &Sender, code: u8) {
        let it = &mut self.convs[conv];
        let Some(entry) = it.out.entries.get_mut(&at) else {
            return;
        };
        if entry.failed {
            return;
        }
        mark("delivery-refused");
        entry.failed = true;
        let entry = entry.clone();
        it.out.note_end(at);
        let why = FailReason::Refused {
            by: from.device,
            code,
        };
        self.note_why(entry.txn, &why);
        self.put_sent(conv, at, &entry, Some(&why));
        self.put_outbox(conv, at, &entry);
        self.put_conv(conv);
        let id = self.own_id(conv, at);
        self.tell(DeliveryEvent::Failed { id, why });
    }

    /// A receiver closed `below`, and with it our restored messages up to there: a later life of
    /// ours had drained them. What belongs to this life gets new numbers above.
    pub(super) fn take_retired(&mut self, from: &Sender, retired: &frames::Retired, now: Now) {
        let Some(conv) = self.convs.slot(&ConvId(retired.conv)) else {
            return;
        };
        let below = Epoch(retired.below);
        let who: Who = (from.user.clone(), from.device);
        let it = &mut self.convs[conv];
        if it.out.peers.get(&who).is_none_or(|peer| peer.epoch > below) {
            return;
        }
        let ours = self.epoch_at_start;
        if below >= ours && it.out.lives.range(ours..=below).next().is_some() {
            self.roll_forward(conv, below, now);
        }
        let it = &mut self.convs[conv];
        let newly = it
            .out
            .apply_retired(&who, below.min(Epoch(ours.0.saturating_sub(1))));
        if !newly.is_empty() {
            mark("delivery-drained-by-a-later-life");
            self.count_off(conv, newly, now);
        }
        let it = &mut self.convs[conv];
        if it.out.is_behind(&who) {
            it.out.rtt.silent = 0;
            self.rearm(conv, now);
        }
        self.pump(conv, now);
    }

    /// Somebody knows of later numbers of ours than we do: the store was restored from an older
    /// state, or it lies. All later messages get a new epoch, and what this life still owes here
    /// is told again under new ids.
    fn roll_forward(&mut self, conv: ConvAt, above: Epoch, now: Now) {
        let ceiling = now.wall.0.saturating_add(MAX_EPOCH_AHEAD);
        let it = &mut self.convs[conv];
        if above.0 > ceiling.max(self.epoch.0) || it.out.rollback_at.is_some_and(|at| now.mono < at)
        {
            mark("delivery-rollback-not-believed");
            return;
        }
        it.out.rollback_at = Some(now.mono + ROLLBACK_PAUSE);
        mark("delivery-rolled-back");
        let next = self.epoch.0.max(above.0).saturating_add(1).max(now.wall.0);
        self.epoch = Epoch(next);
        self.effects.put(
            Table::Meta,
            &b"epoch"[..],
            self.epoch.0.to_le_bytes().to_vec(),
        );
        self.reissue(conv, now);
        self.put_conv(conv);
        let epoch = self.epoch;
        self.effects.emit_gated(DeliveryEvent::RolledBack { epoch });
        self.pump(conv, now);
    }
}
