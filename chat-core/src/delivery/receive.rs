//! Frames of the receiving side: from a message on the wire to the inbox log (reliability 2.3
//! "receive", "commit", "app hand-over", "overflow", "poison"; rules Q4–Q6, Q8, Q13, S13).
//!
//! Guarantees: inbox rows, stream state and place in the log change in one transaction; what does
//! not fit is not acknowledged and comes again. A user takes up at most a quarter of the inbox;
//! what is held back counts only against more of its kind, so the message that is missing always
//! has room and nothing waits for itself.

use super::inbox::{Claim, Held, MAX_REFUSED, Place, Step, WINDOW};
use super::state::{Key, Share, StreamAt, UserAt};
use super::types::{DeliveryEvent, Standing};
use super::{Delivery, rows};
use crate::content::{Content, ContentError};
use crate::effect::Table;
use crate::hlc::{Hlc, MAX_DRIFT};
use crate::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::sealer::Unsealed;
use crate::time::Now;
use crate::wire::delivery as frames;

/// Streams remembered per conversation. Beyond it the state of a device that is no recipient is
/// forgotten; when there is none, a new device is not heard.
const MAX_STREAMS: usize = 8_192;
/// Refusal: undecodable.
const UNDECODABLE: u8 = 1;

impl Delivery {
    /// A message. The caller has checked that `from` may write to the conversation.
    pub fn handle_data(
        &mut self,
        from: &Sender,
        data: &frames::Data,
        standing: Standing,
        now: Now,
    ) {
        if !is_possible_data(data) {
            mark("delivery-impossible-data");
            return;
        }
        let claim = Claim {
            epoch: Epoch(data.epoch),
            base: data.base,
            sent_before: data.sent_before,
            base_roster: data.base_roster,
        };
        let Some((at, since)) = self.hear(from, ConvId(data.conv), claim.epoch, now) else {
            return;
        };
        self.notice_sign(self.streams[at].conv, from, now);
        let stream = &mut self.streams[at];
        let mut steps = Vec::new();
        let (before, stood) = (stream.last.0, stream.stands());
        if let Some(prior) = &data.prior
            && !planted("delivery-prior-ignored")
            && !stream.is_done_with(prior, since, &mut steps)
        {
            mark("delivery-older-epoch-first");
            if self.put_moved(at, (before, stood), steps, now) {
                self.ack_later(at, false, now);
            }
            return;
        }
        let mut moved = stream.catch_up(claim, since, &mut steps);
        let (first, last) = (data.first.seq, data.last().seq);
        if data.roster < since {
            moved |= stream.skip_to(last, &mut steps);
        } else if data.prev_roster < since {
            moved |= stream.skip_to(first - 1, &mut steps);
        }
        let account = stream.account;
        let mut fresh = Fresh::new(claim.epoch, first);
        let (mut again, mut passing) = (false, Vec::new());
        for message in data.messages() {
            let place = self.streams[at].place(message.seq);
            match place {
                Place::Duplicate => {
                    mark("delivery-duplicate");
                    again = true;
                    if data.wedged && self.has_room(account, Place::Next, fresh.count()) {
                        self.let_pass(at, message.seq);
                    }
                }
                Place::Beyond => mark("delivery-beyond-window"),
                Place::Next | Place::Ahead if !self.has_room(account, place, fresh.count()) => {
                    mark("delivery-inbox-full");
                    self.starved.insert(at);
                    again = true;
                }
                Place::Next | Place::Ahead => {
                    let id = message_id(ConvId(data.conv), from.device, claim.epoch, message.seq);
                    if let Some(mut held) = self.open_body(from, id, message, standing, at, now) {
                        held.roster = data.roster;
                        held.deps = message.deps.to_vec();
                        fresh.add(message.seq);
                        self.streams[at].take(message.seq, held, &mut steps);
                        if data.wedged {
                            passing.push(message.seq);
                        }
                    }
                }
            }
        }
        let news = moved || fresh.count() > 0;
        if news {
            self.put_stream(at);
        }
        self.apply_steps(at, (before, steps), fresh, now);
        self.store_held(at, fresh);
        for seq in passing {
            self.let_pass(at, seq);
        }
        self.await_held(at, now);
        if news {
            self.streams[at].owed += fresh.count().saturating_sub(1) as u64;
            self.ack_later(at, data.push, now);
        } else if again {
            self.ack_again(at, now);
        }
    }

    /// Stores what arrived just now and has to wait for its turn.
    fn store_held(&mut self, at: StreamAt, fresh: Fresh) {
        let account = self.streams[at].account;
        let mut count = 0;
        for seq in fresh.iter() {
            if self.store_held_row(at, seq) {
                mark("delivery-held");
                count += 1;
            }
        }
        if count > 0 {
            self.share(account, 0, count);
        }
    }

    /// Stores what is held at a number of the open epoch; false when nothing is.
    pub(super) fn store_held_row(&mut self, at: StreamAt, seq: u64) -> bool {
        let stream = &self.streams[at];
        let Some(held) = stream.held.get(&seq) else {
            return false;
        };
        let id = self.convs[stream.conv].id;
        let key = rows::held_key(id, stream.device, stream.epoch, seq);
        self.effects
            .put(Table::Streams, key, rows::encode_held(held));
        true
    }

    /// What a sender still owes: closes what is older, moves to where it stands, and answers with
    /// what is here.
    pub fn handle_hello(&mut self, from: &Sender, hello: &frames::Hello, now: Now) {
        let conv = ConvId(hello.conv);
        let sorted = hello.open.is_sorted_by(|a, b| a.epoch < b.epoch);
        if !sorted || !hello.open.iter().all(is_possible) {
            mark("delivery-impossible-hello");
            return;
        }
        if let Some(conv) = self.convs.slot(&conv) {
            self.notice_sign(conv, from, now);
        }
        let Some((latest, older)) = hello.open.split_last() else {
            return;
        };
        let Some((at, since)) = self.hear(from, conv, Epoch(latest.epoch), now) else {
            return;
        };
        let stream = &mut self.streams[at];
        let mut steps = Vec::new();
        let (before, stood) = (stream.last.0, stream.stands());
        let mut ahead = true;
        for open in older {
            if open.last_roster < since || stream.is_retired(Epoch(open.epoch)) {
                continue;
            }
            stream.catch_up(open.into(), since, &mut steps);
            if !stream.is_done_with(open, since, &mut steps) {
                ahead = false;
                break;
            }
        }
        if ahead {
            stream.catch_up(latest.into(), since, &mut steps);
        }
        self.put_moved(at, (before, stood), steps, now);
        self.ack_again(at, now);
    }

    /// Stores a stream that got no message of its own; true when it moved from where it `stood`
    /// all the same.
    fn put_moved(
        &mut self,
        at: StreamAt,
        (before, stood): (Hlc, (Epoch, u64)),
        steps: Vec<Step>,
        now: Now,
    ) -> bool {
        let moved = self.streams[at].stands() != stood;
        if moved {
            self.put_stream(at);
        }
        self.apply_steps(at, (before, steps), Fresh::NONE, now);
        self.await_held(at, now);
        moved
    }

    /// Stores how a stream stands.
    pub(super) fn put_stream(&mut self, at: StreamAt) {
        let stream = &self.streams[at];
        let key = rows::stream_key(self.convs[stream.conv].id, stream.device);
        self.effects
            .put(Table::Streams, key, rows::encode_stream(stream));
    }

    /// The stream that a frame speaks of, and our admission to its conversation. `None` when the
    /// frame is not to be heard; a closed epoch is answered.
    fn hear(
        &mut self,
        from: &Sender,
        conv: ConvId,
        epoch: Epoch,
        now: Now,
    ) -> Option<(StreamAt, u64)> {
        if from.device == self.me.device || epoch == Epoch(0) {
            return None;
        }
        let conv = self.convs.slot(&conv)?;
        let it = &self.convs[conv];
        let Some(route) = &it.route else {
            mark("delivery-not-open");
            return None;
        };
        let since = route.since;
        if let Some(at) = self.streams.slot(&(conv, from.device)) {
            let stream = &self.streams[at];
            if stream.user != from.user {
                return None;
            }
            if stream.is_retired(epoch) {
                self.say_retired(at, now);
                return None;
            }
            return Some((at, since));
        }
        if it.streams.len() >= MAX_STREAMS {
            let known = |device: &DeviceId| route.recipients.keys().any(|(_, d)| d == device);
            let stale = it.streams.iter().copied().find(|at| {
                let stream = &self.streams[*at];
                stream.held.is_empty() && stream.parked.is_empty() && !known(&stream.device)
            })?;
            self.drop_stream(stale);
        }
        Some((self.stream_at(conv, from.device, &from.user), since))
    }

    /// Sets the timer for what a stream holds back.
    pub(super) fn await_held(&mut self, at: StreamAt, now: Now) {
        let stream = &mut self.streams[at];
        match stream.held.first_key_value() {
            None if stream.timed => {
                stream.timed = false;
                self.timers.remove(&Key::Flush(at));
            }
            None => {}
            Some((_, first)) => {
                let due = first
                    .due
                    .max(now.mono + core::time::Duration::from_millis(1));
                stream.timed = true;
                self.timers.set(Key::Flush(at), due);
            }
        }
    }

    /// Opens a body. `None`: it cannot be read yet, or its refusal cannot be remembered; it comes
    /// again. What can never be read is put aside and refused, so that its sender stops (Q13).
    fn open_body(
        &mut self,
        from: &Sender,
        id: MessageId,
        message: &frames::Message,
        standing: Standing,
        at: StreamAt,
        now: Now,
    ) -> Option<Held> {
        let conv = id.stream.conv;
        let (hlc, ttl) = (
            Hlc(message.hlc),
            core::time::Duration::from_millis(message.ttl_ms),
        );
        // Later than its sender gives it up, whatever the two clocks say.
        let patience = ttl.min(self.config.content_ttl) + MAX_DRIFT;
        let mut held = Held {
            hlc,
            expires: now.wall.plus(patience),
            due: now.mono + patience,
            former: standing == Standing::Former,
            suspect: false,
            roster: 0,
            deps: Vec::new(),
            body: None,
        };
        if message.body.is_empty() {
            mark("delivery-taken-back");
            return Some(held);
        }
        let plain = match self.sealer.open(conv, from, &id, &message.body) {
            Unsealed::Plain(plain) => Some(plain),
            Unsealed::Never => None,
            Unsealed::NotYet => {
                mark("delivery-not-readable-yet");
                return None;
            }
        };
        if let Some(plain) = plain
            && Content::decode(conv, &plain).is_ok()
        {
            held.suspect = !self.clock.observe(hlc, now.wall);
            held.body = Some(plain);
            return Some(held);
        }
        let stream = &mut self.streams[at];
        if stream.refused.len() >= MAX_REFUSED {
            return None;
        }
        mark("delivery-dead-letter");
        stream.refused.push(frames::Refusal {
            seq: message.seq,
            code: UNDECODABLE,
        });
        let cause = ContentError::Malformed;
        self.effects.put(
            Table::DeadLetters,
            rows::held_key(conv, from.device, id.stream.epoch, message.seq),
            rows::encode_dead(&from.user, &cause.to_string(), &message.body),
        );
        self.effects.emit_gated(DeliveryEvent::DeadLetter {
            id,
            from: from.user.clone(),
            cause,
        });
        Some(held)
    }

    /// Counts what a user takes up of the inbox.
    pub(super) fn share(&mut self, user: UserAt, told: isize, held: isize) {
        for it in [&mut self.users[user].share, &mut self.total] {
            it.told = it.told.saturating_add_signed(told);
            it.held = it.held.saturating_add_signed(held);
        }
    }

    fn quota(&self) -> usize {
        (self.config.max_inbox / 4).max(1)
    }

    /// True when one more fits after `more` that were just taken.
    fn has_room(&self, user: UserAt, place: Place, more: usize) -> bool {
        let share = self.users[user].share;
        if planted("delivery-inbox-unbounded") {
            return true;
        }
        let held = |it: Share| if place == Place::Next { 0 } else { it.held };
        share.told + held(share) + more < self.quota()
            && self.total.told + held(self.total) + more < self.config.max_inbox
    }

    /// How many messages beyond what it has a stream may get.
    pub(super) fn window_for(&self, at: StreamAt) -> u64 {
        let told = self.users[self.streams[at].account].share.told;
        let left = self
            .quota()
            .saturating_sub(told)
            .min(self.config.max_inbox.saturating_sub(self.total.told));
        u64::try_from(left).unwrap_or(u64::MAX).min(WINDOW)
    }
}

/// Which messages arrived in this frame and have no rows of their own yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh {
    epoch: Epoch,
    first: u64,
    /// Bit `i` set: `first + i` arrived.
    bits: u128,
}

impl Fresh {
    pub(super) const NONE: Self = Self::new(Epoch(0), 0);

    const fn new(epoch: Epoch, first: u64) -> Self {
        Self {
            epoch,
            first,
            bits: 0,
        }
    }

    fn add(&mut self, seq: u64) {
        self.bits |= 1 << (seq - self.first);
    }

    fn count(self) -> usize {
        self.bits.count_ones() as usize
    }

    pub(super) fn has(self, epoch: Epoch, seq: u64) -> bool {
        let bit = seq.checked_sub(self.first).filter(|bit| *bit < WINDOW);
        epoch == self.epoch && bit.is_some_and(|bit| self.bits & (1 << bit) != 0)
    }

    fn iter(self) -> impl Iterator<Item = u64> {
        let set = (0..WINDOW).filter(move |bit| self.bits & (1 << bit) != 0);
        set.map(move |bit| self.first + bit)
    }
}

fn is_possible_data(data: &frames::Data) -> bool {
    let bad_prior = |prior: &frames::OpenStream| prior.epoch >= data.epoch || !is_possible(prior);
    let first = data.first.seq;
    first > 0
        && data.base > 0
        && data.base <= first
        && data.messages().is_sorted_by(|a, b| a.seq < b.seq)
        && data.last().seq - first < WINDOW
        && !data.prior.as_deref().is_some_and(bad_prior)
}

fn is_possible(open: &frames::OpenStream) -> bool {
    open.epoch > 0 && open.base > 0 && open.next >= open.base
}

pub(super) fn message_id(conv: ConvId, device: DeviceId, epoch: Epoch, seq: u64) -> MessageId {
    MessageId {
        stream: StreamId {
            conv,
            device,
            epoch,
        },
        seq: Seq(seq),
    }
}
