//! Frames of the receiving side: from a message on the wire to the inbox log (reliability 2.3
//! "receive", "commit", "app hand-over", "overflow", "poison"; rules Q4–Q6, Q8, Q13, S13).
//!
//! Guarantees: inbox rows, stream state and place in the log change in one transaction; what does
//! not fit is not acknowledged and comes again. A user takes up at most a quarter of the inbox;
//! what is held back counts only against more of its kind, so the message that is missing always
//! has room and nothing waits for itself.

use super::inbox::{Claim, Held, MAX_REFUSED, Place, Step, Stream, WINDOW};
use super::types::{DeliveryEvent, Received, SortKey, Standing};
use super::{Delivery, Key, MAX_TYPING, Share, rows, timeline};
use crate::content::{Content, ContentError};
use crate::effect::Table;
use crate::hlc::{Hlc, MAX_DRIFT};
use crate::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId, UserId};
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
        let bad_prior =
            |prior: &frames::OpenStream| prior.epoch >= data.epoch || !is_possible(prior);
        if data.seq == 0
            || data.base == 0
            || data.base > data.seq
            || data.prior.as_deref().is_some_and(bad_prior)
        {
            mark("delivery-impossible-data");
            return;
        }
        let conv = ConvId(data.conv);
        let claim = Claim {
            epoch: Epoch(data.epoch),
            base: data.base,
            sent_before: data.sent_before,
            base_roster: data.base_roster,
        };
        let Some((mut stream, since)) = self.take_stream(from, conv, claim.epoch, now) else {
            return;
        };
        let device = from.device;
        let mut steps = Vec::new();
        let (before, stood) = (stream.last.0, stream.stands());
        if let Some(prior) = &data.prior
            && !planted("delivery-prior-ignored")
            && !stream.is_done_with(prior, since, &mut steps)
        {
            mark("delivery-older-epoch-first");
            if self.put_moved(conv, device, stream, (before, stood), steps, now) {
                self.ack_later(conv, device, now);
            }
            return;
        }
        let mut moved = stream.catch_up(claim, since, &mut steps);
        if data.roster < since {
            moved |= stream.skip_to(data.seq, &mut steps);
        } else if data.prev_roster < since {
            moved |= stream.skip_to(data.seq - 1, &mut steps);
        }
        let place = stream.place(data.seq);
        let mut arrived = None;
        let mut again = false;
        match place {
            Place::Duplicate => {
                mark("delivery-duplicate");
                again = true;
            }
            Place::Beyond => mark("delivery-beyond-window"),
            Place::Next | Place::Ahead if !self.has_room(&stream.user, place) => {
                mark("delivery-inbox-full");
                self.starved.insert((conv, device));
                again = true;
            }
            Place::Next | Place::Ahead => {
                if let Some(held) = self.open_body(from, data, standing, &mut stream, now) {
                    arrived = Some(data.seq);
                    stream.take(data.seq, held, &mut steps);
                }
            }
        }
        let held = arrived.filter(|seq| stream.held.contains_key(seq));
        if moved || arrived.is_some() {
            let key = rows::stream_key(conv, device);
            self.effects
                .put(Table::Streams, key, rows::encode_stream(&stream));
        }
        let fresh = arrived.map(|seq| (claim.epoch, seq));
        self.apply_steps(conv, device, &stream, (before, steps), fresh);
        if let Some((seq, held)) = held.and_then(|seq| stream.held.get_key_value(&seq)) {
            mark("delivery-held");
            let key = rows::held_key(conv, device, claim.epoch, *seq);
            self.effects
                .put(Table::Streams, key, rows::encode_held(held));
            self.share(&stream.user, 0, 1);
        }
        self.put_back(conv, device, stream, now);
        if moved || arrived.is_some() {
            self.ack_later(conv, device, now);
        } else if again {
            self.ack_again(conv, device, now);
        }
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
        self.notice_sign(conv, from, now);
        let Some((latest, older)) = hello.open.split_last() else {
            return;
        };
        let Some((mut stream, since)) = self.take_stream(from, conv, Epoch(latest.epoch), now)
        else {
            return;
        };
        let device = from.device;
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
        self.put_moved(conv, device, stream, (before, stood), steps, now);
        self.ack_again(conv, device, now);
    }

    /// Puts back a stream that got no message of its own; true when it moved from where it
    /// `stood` all the same.
    fn put_moved(
        &mut self,
        conv: ConvId,
        device: DeviceId,
        stream: Stream,
        (before, stood): (Hlc, (Epoch, u64)),
        steps: Vec<Step>,
        now: Now,
    ) -> bool {
        let moved = stream.stands() != stood;
        if moved {
            let key = rows::stream_key(conv, device);
            self.effects
                .put(Table::Streams, key, rows::encode_stream(&stream));
        }
        self.apply_steps(conv, device, &stream, (before, steps), None);
        self.put_back(conv, device, stream, now);
        moved
    }

    /// The stream that a frame speaks of, taken out of its conversation, and our admission there.
    /// `None` when the frame is not to be heard; a closed epoch is answered.
    fn take_stream(
        &mut self,
        from: &Sender,
        conv: ConvId,
        epoch: Epoch,
        now: Now,
    ) -> Option<(Stream, u64)> {
        if from.device == self.me.device || epoch == Epoch(0) {
            return None;
        }
        let it = self.convs.get_mut(&conv)?;
        let Some(route) = &it.route else {
            mark("delivery-not-open");
            return None;
        };
        let since = route.since;
        if let Some(stream) = it.streams.get(&from.device) {
            if stream.user != from.user {
                return None;
            }
            if stream.is_retired(epoch) {
                self.say_retired(from, conv, now);
                return None;
            }
        } else if it.streams.len() >= MAX_STREAMS {
            let known = |device: &DeviceId| route.recipients.keys().any(|(_, d)| d == device);
            let stale = it
                .streams
                .iter()
                .find(|(device, stream)| stream.held.is_empty() && !known(device))
                .map(|(device, _)| *device)?;
            it.streams.remove(&stale);
            self.effects
                .delete(Table::Streams, rows::stream_key(conv, stale));
        }
        let stream = it
            .streams
            .remove(&from.device)
            .unwrap_or_else(|| Stream::new(from.user.clone()));
        Some((stream, since))
    }

    fn put_back(&mut self, conv: ConvId, device: DeviceId, stream: Stream, now: Now) {
        let key = Key::Flush(conv, device);
        match stream.held.first_key_value() {
            None => {
                self.timers.remove(&key);
            }
            Some((_, first)) => {
                let due = first
                    .due
                    .max(now.mono + core::time::Duration::from_millis(1));
                self.timers.set(key, due);
            }
        }
        self.conv_mut(conv).streams.insert(device, stream);
    }

    /// Opens a body. `None`: it cannot be read yet, or its refusal cannot be remembered; it comes
    /// again. What can never be read is put aside and refused, so that its sender stops (Q13).
    fn open_body(
        &mut self,
        from: &Sender,
        data: &frames::Data,
        standing: Standing,
        stream: &mut Stream,
        now: Now,
    ) -> Option<Held> {
        let conv = ConvId(data.conv);
        let id = message_id(conv, from.device, Epoch(data.epoch), data.seq);
        let (hlc, ttl) = (
            Hlc(data.hlc),
            core::time::Duration::from_millis(data.ttl_ms),
        );
        // Later than its sender gives it up, whatever the two clocks say.
        let patience = ttl.min(self.config.content_ttl) + MAX_DRIFT;
        let mut held = Held {
            hlc,
            expires: now.wall.plus(patience),
            due: now.mono + patience,
            former: standing == Standing::Former,
            suspect: false,
            body: None,
        };
        if data.body.is_empty() {
            mark("delivery-taken-back");
            return Some(held);
        }
        let plain = match self.sealer.open(conv, from, &id, &data.body) {
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
        if stream.refused.len() >= MAX_REFUSED {
            return None;
        }
        mark("delivery-dead-letter");
        stream.refused.push(frames::Refusal {
            seq: data.seq,
            code: UNDECODABLE,
        });
        let cause = ContentError::Malformed;
        self.effects.put(
            Table::DeadLetters,
            rows::held_key(conv, from.device, Epoch(data.epoch), data.seq),
            rows::encode_dead(&from.user, &cause.to_string(), &data.body),
        );
        self.effects.emit_gated(DeliveryEvent::DeadLetter {
            id,
            from: from.user.clone(),
            cause,
        });
        Some(held)
    }

    /// Puts what a stream hands over into the inbox log and onto the timeline, gaps behind what
    /// came `before`. `fresh` arrived just now and has no row of its own.
    fn apply_steps(
        &mut self,
        conv: ConvId,
        device: DeviceId,
        stream: &Stream,
        (mut before, steps): (Hlc, Vec<Step>),
        fresh: Option<(Epoch, u64)>,
    ) {
        if steps.is_empty() {
            return;
        }
        let user = &stream.user;
        for step in steps {
            match step {
                Step::Deliver(epoch, seq, held) => {
                    if fresh != Some((epoch, seq)) {
                        let key = rows::held_key(conv, device, epoch, seq);
                        self.effects.delete(Table::Streams, key);
                        self.share(user, 0, -1);
                    }
                    if let Some(body) = &held.body {
                        before = held.hlc;
                        let id = message_id(conv, device, epoch, seq);
                        self.deliver(conv, user, id, &held, body);
                    }
                }
                Step::Gap(epoch, seq, count) => {
                    mark("delivery-gap");
                    let hlc = if before == Hlc(0) {
                        self.clock.last()
                    } else {
                        before
                    };
                    let sort = SortKey {
                        hlc,
                        device,
                        epoch,
                        seq,
                    };
                    let first = message_id(conv, device, epoch, seq);
                    self.effects.put(
                        Table::Timeline,
                        timeline::key(conv, &sort),
                        timeline::encode_gap(user, &first, count),
                    );
                    self.effects.emit_gated(DeliveryEvent::Gap {
                        conv,
                        from: user.clone(),
                        first,
                        count,
                        sort,
                    });
                }
            }
        }
        self.put_conv(conv);
    }

    fn deliver(&mut self, conv: ConvId, user: &UserId, id: MessageId, held: &Held, body: &[u8]) {
        let by_arrival = planted("delivery-sort-by-arrival");
        let sort = SortKey {
            hlc: if by_arrival {
                self.clock.last()
            } else {
                held.hlc
            },
            device: id.stream.device,
            epoch: id.stream.epoch,
            seq: id.seq.0,
        };
        let it = self.conv_mut(conv);
        it.pos += 1;
        let late = it.shown.is_some_and(|shown| shown > sort);
        it.shown = it.shown.max(Some(sort));
        it.inbox.insert(it.pos, user.clone());
        let received = Received {
            id,
            from: user.clone(),
            content: Content::decode(conv, body).expect("bodies decode before they are held"),
            sort,
            pos: it.pos,
            late,
            redelivered: false,
            standing: if held.former {
                Standing::Former
            } else {
                Standing::Current
            },
            clock_suspect: held.suspect,
        };
        if late {
            mark("delivery-late");
        }
        let item = timeline::encode_received(&received, body);
        if !planted("delivery-no-inbox-row") {
            self.effects.put(
                Table::Inbox,
                rows::inbox_key(conv, received.pos),
                rows::encode_inbox(sort, &item),
            );
        }
        self.effects
            .put(Table::Timeline, timeline::key(conv, &sort), item);
        self.share(user, 1, 0);
        self.on_typing_over(conv, user.clone());
        self.effects.emit_gated(DeliveryEvent::Received(received));
    }

    /// The time of held messages ran out, and with it that of all before them: what is missing
    /// will not come.
    pub(super) fn on_flush(&mut self, conv: ConvId, device: DeviceId, now: Now) {
        let Some(stream) = self
            .convs
            .get_mut(&conv)
            .and_then(|it| it.streams.get_mut(&device))
        else {
            return;
        };
        let top = stream
            .held
            .iter()
            .filter(|(_, held)| held.due <= now.mono)
            .map(|(seq, _)| *seq)
            .max();
        self.raise_stream(conv, device, top, now);
    }

    /// Delivers all that is held, with gaps: nothing more will come.
    pub(super) fn flush_stream(&mut self, conv: ConvId, device: DeviceId, now: Now) {
        let top = self
            .convs
            .get(&conv)
            .and_then(|it| it.streams.get(&device))
            .and_then(|stream| stream.held.last_key_value())
            .map(|(seq, _)| *seq);
        if top.is_some() {
            self.raise_stream(conv, device, top, now);
        }
    }

    fn raise_stream(&mut self, conv: ConvId, device: DeviceId, top: Option<u64>, now: Now) {
        let Some(mut stream) = self.conv_mut(conv).streams.remove(&device) else {
            return;
        };
        if let Some(top) = top {
            mark("delivery-flushed");
            let mut steps = Vec::new();
            let before = stream.last.0;
            stream.raise(top, true, &mut steps);
            let key = rows::stream_key(conv, device);
            self.effects
                .put(Table::Streams, key, rows::encode_stream(&stream));
            self.apply_steps(conv, device, &stream, (before, steps), None);
        }
        self.put_back(conv, device, stream, now);
        if top.is_some() {
            self.ack_later(conv, device, now);
        }
    }

    /// Somebody types.
    pub fn handle_typing(&mut self, from: &Sender, typing: &frames::Typing, now: Now) {
        let conv = ConvId(typing.conv);
        let open = self.convs.get(&conv).is_some_and(|it| it.route.is_some());
        if !open || from.device == self.me.device {
            return;
        }
        if !typing.active {
            self.on_typing_over(conv, from.user.clone());
            return;
        }
        let who = (conv, from.user.clone());
        let known = self.typing.contains(&who);
        if !known && self.typing.len() >= MAX_TYPING {
            return;
        }
        let key = Key::Typing(conv, from.user.clone());
        self.timers.set(key, now.mono + self.config.typing_ttl);
        if !known {
            self.effects.emit(DeliveryEvent::Typing {
                conv,
                user: from.user.clone(),
                active: true,
            });
            self.typing.insert(who);
        }
    }

    pub(super) fn on_typing_over(&mut self, conv: ConvId, user: UserId) {
        if self.typing.remove(&(conv, user.clone())) {
            self.timers.remove(&Key::Typing(conv, user.clone()));
            self.effects.emit(DeliveryEvent::Typing {
                conv,
                user,
                active: false,
            });
        }
    }

    /// Counts what a user takes up of the inbox.
    pub(super) fn share(&mut self, user: &UserId, told: isize, held: isize) {
        let share = self.shares.entry(user.clone()).or_default();
        for it in [share, &mut self.total] {
            it.told = it.told.saturating_add_signed(told);
            it.held = it.held.saturating_add_signed(held);
        }
        if let Some(Share { told: 0, held: 0 }) = self.shares.get(user) {
            self.shares.remove(user);
        }
    }

    fn quota(&self) -> usize {
        (self.config.max_inbox / 4).max(1)
    }

    fn has_room(&self, user: &UserId, place: Place) -> bool {
        let share = self.shares.get(user).copied().unwrap_or_default();
        if planted("delivery-inbox-unbounded") {
            return true;
        }
        let held = |it: Share| if place == Place::Next { 0 } else { it.held };
        share.told + held(share) < self.quota()
            && self.total.told + held(self.total) < self.config.max_inbox
    }

    /// How many messages beyond what it has a stream may get.
    pub(super) fn window_for(&self, conv: ConvId, device: DeviceId) -> u64 {
        let told = self
            .convs
            .get(&conv)
            .and_then(|it| it.streams.get(&device))
            .and_then(|stream| self.shares.get(&stream.user))
            .map_or(0, |share| share.told);
        let left = self
            .quota()
            .saturating_sub(told)
            .min(self.config.max_inbox.saturating_sub(self.total.told));
        u64::try_from(left).unwrap_or(u64::MAX).min(WINDOW)
    }
}

fn is_possible(open: &frames::OpenStream) -> bool {
    open.epoch > 0 && open.base > 0 && open.next >= open.base
}

fn message_id(conv: ConvId, device: DeviceId, epoch: Epoch, seq: u64) -> MessageId {
    MessageId {
        stream: StreamId {
            conv,
            device,
            epoch,
        },
        seq: Seq(seq),
    }
}
