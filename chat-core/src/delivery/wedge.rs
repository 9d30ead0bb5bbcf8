//! Messages that the broker will never take as they are (rules Q2, Q17).
//!
//! Guarantees: what is refused for good is told, and never repeated by itself for ever. With
//! [`WedgePolicy::Block`] the message is wedged: it keeps its place, survives restarts, and those
//! behind it in its conversation wait until the application retries or cancels it, or its time
//! runs out. With [`WedgePolicy::SkipAndMark`], and for a content that nobody sees
//! ([`Content::is_visible`]), it fails at once and holds up nobody. What nobody sees passes a
//! wedged message of the same life: its frame says so, and its receiver shows it before what is
//! missing (`Data::wedged`).
//!
//! A recipient's refusal is no wedge but an end ([`FailReason::Refused`]): the number was passed
//! over there, so to try again is another message.

use super::Delivery;
use super::outbox::{At, Outbox};
use super::state::ConvAt;
use super::types::{Ack, DeliveryEvent, FailReason, Unsendable};
use crate::config::WedgePolicy;
use crate::content::Content;
use crate::effect::Carried;
use crate::id::{ConvId, MessageId, Seq};
use crate::probe::{mark, planted};
use crate::time::Now;

use super::inbox::WINDOW;
#[cfg(doc)]
use crate::wire::delivery::Data;

impl Outbox {
    /// True when a message may leave: none before it is wedged, or it passes that.
    pub(super) fn may_leave(&self, at: At) -> bool {
        let Some((first, _)) = self.wedged.first_key_value() else {
            return true;
        };
        let passes = || self.entries.get(&at).is_some_and(|entry| entry.aside);
        at < *first || (!self.wedged.contains_key(&at) && passes())
    }

    /// True when something below `at` in its epoch is wedged.
    pub(super) fn is_past_a_wedge(&self, at: At) -> bool {
        self.wedged.range((at.0, 0)..at).next().is_some()
    }

    /// True when nothing can move before the application decides: no timer need run.
    pub(super) fn awaits_decision(&self) -> bool {
        let oldest = self.entries.first_key_value();
        let Some((first, _)) = oldest.filter(|(at, _)| self.wedged.contains_key(*at)) else {
            return false;
        };
        let within_reach = usize::try_from(WINDOW).expect("the window is 128");
        let mut after = self.entries.range(first..).take(within_reach + 1);
        !after.any(|(at, entry)| entry.aside && !self.wedged.contains_key(at))
    }
}

impl Delivery {
    /// The broker will never take this frame.
    pub(super) fn on_never(&mut self, carried: Carried, why: Unsendable, now: Now) {
        let Some(conv) = self.convs.slot(&carried.first.stream.conv) else {
            return;
        };
        let several = carried.more != 0;
        if several {
            // Which of them it was shows when each goes alone.
            mark("delivery-refused-together");
            self.convs[conv].out.alone = true;
        }
        for id in carried.ids() {
            let at = (id.stream.epoch, id.seq.0);
            let out = &mut self.convs[conv].out;
            let Some(entry) = out.entries.get_mut(&at) else {
                continue;
            };
            entry.copies = entry.copies.saturating_sub(1);
            if entry.failed || entry.ack >= Ack::HandedOff {
                // A copy is out, or only the number matters: the retransmit timer looks after it.
                continue;
            }
            if several || (!entry.aside && out.wedged.range(..at).next().is_some()) {
                out.unsent.insert(at);
            } else {
                self.wedge(conv, at, why);
            }
        }
        self.pump(conv, now);
    }

    /// A message cannot be sent as it is.
    pub(super) fn wedge(&mut self, conv: ConvAt, at: At, why: Unsendable) {
        let out = &mut self.convs[conv].out;
        let Some(entry) = out.entries.get(&at) else {
            return;
        };
        if entry.aside || self.config.wedge == WedgePolicy::SkipAndMark {
            mark("delivery-wedge-skipped");
            self.give_up(conv, at, &FailReason::Unsendable(why));
            return;
        }
        mark("delivery-wedged");
        let entry = entry.clone();
        out.unsent.insert(at);
        out.wedged.insert(at, why);
        self.put_sent(conv, at, &entry, None);
        self.put_outbox(conv, at, &entry);
        let id = self.own_id(conv, at);
        if !planted("delivery-wedge-silent") {
            self.effects.emit_gated(DeliveryEvent::Wedged { id, why });
        }
    }

    /// Ends a message that was refused for good. Its number is still sent, empty. When a copy may be
    /// out it says so: who has it keeps it, and who misses it is told of a gap.
    pub(super) fn give_up(&mut self, conv: ConvAt, at: At, why: &FailReason) {
        let out = &mut self.convs[conv].out;
        let wedged = out.wedged.remove(&at);
        out.unsent.insert(at);
        let is_out = out.entries.get(&at).is_some_and(|entry| entry.copies > 0);
        let why = match wedged.filter(|_| is_out) {
            None => why.clone(),
            Some(stuck) => {
                mark("delivery-given-up-with-a-copy-out");
                FailReason::Unsendable(stuck)
            }
        };
        self.take_back(conv, at, &why);
    }

    /// Sends a wedged message again, under its id: what was wrong is mended. False when it is not
    /// wedged.
    pub fn retry(&mut self, id: &MessageId, now: Now) -> bool {
        let conv = self.convs.slot(&id.stream.conv);
        let ours = id.stream.device == self.me.device;
        conv.filter(|_| ours)
            .is_some_and(|conv| self.retry_at(conv, (id.stream.epoch, id.seq.0), now))
    }

    pub(super) fn retry_at(&mut self, conv: ConvAt, at: At, now: Now) -> bool {
        let out = &mut self.convs[conv].out;
        if out.wedged.remove(&at).is_none() {
            return false;
        }
        mark("delivery-wedge-retried");
        out.rtt.silent = 0;
        let entry = out.entries[&at].clone();
        self.put_sent(conv, at, &entry, None);
        self.put_outbox(conv, at, &entry);
        self.await_stored(conv, at);
        self.arm(conv, now);
        true
    }

    /// A new connection may carry what another did not.
    pub(super) fn retry_all(&mut self, conv: ConvAt, now: Now) {
        let out = &self.convs[conv].out;
        let fits = |at: &At| self.exceeds(&out.entries[at].body).is_none();
        let wedged: Vec<At> = out.wedged.keys().copied().filter(fits).collect();
        for at in wedged {
            self.retry_at(conv, at, now);
        }
    }

    /// The first wedged message of a conversation, and why: those behind it wait for it (Q2).
    pub fn wedged(&self, conv: ConvId) -> Option<(MessageId, Unsendable)> {
        let conv = self.convs.slot(&conv)?;
        let (at, why) = self.convs[conv].out.wedged.first_key_value()?;
        Some((self.own_id(conv, *at), *why))
    }

    /// Tells again what was wedged in an earlier life: it still is.
    pub(super) fn tell_wedged(&mut self, conv: ConvAt) {
        let wedged = self.convs[conv].out.wedged.clone();
        for (at, why) in wedged {
            mark("delivery-wedge-told-again");
            let id = self.own_id(conv, at);
            self.effects.emit(DeliveryEvent::Wedged { id, why });
        }
    }

    /// Shows what waits behind something missing, because its author cannot send that for now and
    /// nobody sees this by itself. Its number is passed over when its turn comes.
    pub(super) fn let_pass(&mut self, at: super::state::StreamAt, seq: u64) {
        let stream = &mut self.streams[at];
        let (conv, device, epoch) = (stream.conv, stream.device, stream.epoch);
        let (user, account) = (stream.user.clone(), stream.account);
        let Some(held) = stream.held.get_mut(&seq) else {
            return;
        };
        let Some(body) = held.body.as_ref().filter(|body| Content::is_aside(body)) else {
            return;
        };
        mark("delivery-passed-a-wedge");
        let body = body.clone();
        let whole = held.clone();
        if !planted("delivery-passes-twice") {
            held.body = None;
        }
        let id = MessageId {
            stream: crate::id::StreamId {
                conv: self.convs[conv].id,
                device,
                epoch,
            },
            seq: Seq(seq),
        };
        self.store_held_row(at, seq);
        self.deliver(conv, (&user, account), id, &whole, (&body, false));
        self.put_conv(conv);
    }
}
