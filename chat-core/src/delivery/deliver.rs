//! From a stream to the application: the inbox log, the timeline and what will not come
//! (reliability 2.3 "app hand-over"; rules Q11, S13).
//!
//! Guarantees: inbox row, timeline row and place in the log change in one transaction, and the
//! event waits for them; what is lost is told as a gap at its place.

use super::inbox::{Held, Step};
use super::receive::{Fresh, message_id};
use super::state::{ConvAt, StreamAt, UserAt};
use super::types::{DeliveryEvent, Received, SortKey, Standing};
use super::{Delivery, rows, timeline};
use crate::content::Content;
use crate::effect::Table;
use crate::hlc::Hlc;
use crate::id::{Epoch, MessageId, UserId};
use crate::probe::{mark, planted};
use crate::time::{Now, Timestamp};

impl Delivery {
    /// Puts what a stream hands over into the inbox log and onto the timeline, gaps behind what
    /// came `before`. `fresh` arrived just now and has no row of its own.
    pub(super) fn apply_steps(
        &mut self,
        at: StreamAt,
        (mut before, steps): (Hlc, Vec<Step>),
        fresh: Fresh,
        now: Now,
    ) {
        let stream = &self.streams[at];
        let (conv, device, account) = (stream.conv, stream.device, stream.account);
        if steps.is_empty() {
            self.release_parked(conv, now);
            return;
        }
        let id = self.convs[conv].id;
        let user = stream.user.clone();
        for step in steps {
            match step {
                Step::Deliver(epoch, seq, held) => {
                    let stored = !fresh.has(epoch, seq);
                    if stored {
                        self.share(account, 0, -1);
                    }
                    if held.body.is_none() && held.hlc == Hlc(0) {
                        self.put_gap(at, (epoch, seq), 1, before);
                    }
                    let told = self.park(at, (epoch, seq), &held, stored, now);
                    if held.body.is_some() {
                        before = held.hlc;
                    }
                    let Some(gap) = told else {
                        continue;
                    };
                    if stored {
                        let key = rows::held_key(id, device, epoch, seq);
                        self.effects.delete(Table::Streams, key);
                    }
                    if let Some(body) = &held.body {
                        let message = message_id(id, device, epoch, seq);
                        self.deliver(conv, (&user, account), message, &held, (body, gap));
                    }
                }
                Step::Gap(epoch, seq, count) => {
                    self.put_gap(at, (epoch, seq), count, before);
                }
            }
        }
        self.release_parked(conv, now);
        self.put_conv(conv);
    }

    /// Shows and tells that `count` messages from this one on will not come, behind what came
    /// `before`.
    fn put_gap(&mut self, at: StreamAt, (epoch, seq): (Epoch, u64), count: u64, before: Hlc) {
        mark("delivery-gap");
        let stream = &self.streams[at];
        let (conv, from) = (self.convs[stream.conv].id, stream.user.clone());
        let sort = SortKey {
            hlc: if before == Hlc(0) {
                self.clock.last()
            } else {
                before
            },
            device: stream.device,
            epoch,
            seq,
        };
        let first = message_id(conv, sort.device, epoch, seq);
        self.effects.put(
            Table::Timeline,
            timeline::key(conv, &sort),
            timeline::encode_gap(&from, &first, count),
        );
        self.tell(DeliveryEvent::Gap {
            conv,
            from,
            first,
            count,
            sort,
        });
    }

    pub(super) fn deliver(
        &mut self,
        conv: ConvAt,
        (user, account): (&UserId, UserAt),
        id: MessageId,
        held: &Held,
        (body, causal_gap): (&[u8], bool),
    ) {
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
        let it = &mut self.convs[conv];
        it.pos += 1;
        let late = it.shown.is_some_and(|shown| shown > sort);
        it.shown = it.shown.max(Some(sort));
        it.inbox.insert(it.pos, account);
        let received = Received {
            id,
            from: user.clone(),
            content: Content::decode(it.id, body).expect("bodies decode before they are held"),
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
            causal_gap,
        };
        if received.content.is_visible() {
            self.note_heard(conv, &id, held.roster);
        }
        if late {
            mark("delivery-late");
        }
        let item = timeline::encode_received(&received, body);
        if !planted("delivery-no-inbox-row") {
            self.effects.put(
                Table::Inbox,
                rows::inbox_key(id.stream.conv, received.pos),
                rows::encode_inbox(sort, &item),
            );
        }
        self.effects
            .put(Table::Timeline, timeline::key(id.stream.conv, &sort), item);
        self.share(account, 1, 0);
        self.on_typing_over(conv, user);
        self.effects.emit_gated(DeliveryEvent::Received(received));
    }

    /// The time of held messages ran out, and with it that of all before them: what is missing
    /// will not come.
    pub(super) fn on_flush(&mut self, at: StreamAt, now: Now) {
        let held = self.streams[at].held.iter();
        let top = held
            .filter(|(_, held)| held.due <= now.mono)
            .map(|(seq, _)| *seq)
            .max();
        self.raise_stream(at, top, now);
    }

    /// Delivers all that is held, with gaps: nothing more will come.
    pub(super) fn flush_stream(&mut self, at: StreamAt, now: Now) {
        let top = self.streams[at].held.last_key_value().map(|(seq, _)| *seq);
        if top.is_some() {
            self.raise_stream(at, top, now);
        }
        self.tell_parked(at, Timestamp::MAX, now);
    }

    fn raise_stream(&mut self, at: StreamAt, top: Option<u64>, now: Now) {
        if let Some(top) = top {
            mark("delivery-flushed");
            let mut steps = Vec::new();
            let stream = &mut self.streams[at];
            let before = stream.last.0;
            stream.raise(top, true, &mut steps);
            self.put_stream(at);
            self.apply_steps(at, (before, steps), Fresh::NONE, now);
        }
        self.await_held(at, now);
        if top.is_some() {
            self.ack_later(at, false, now);
        }
    }
}
