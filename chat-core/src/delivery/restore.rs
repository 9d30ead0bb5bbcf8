//! A new process: takes back the rows of an earlier one and tells again what was not acknowledged
//! (rules Q9, Q14).

use super::causal::Parked;
use super::state::Txn;
use super::types::{DeliveryEvent, TimelineItem};
use super::{Delivery, notice, rows, send, timeline};
use crate::content::Content;
use crate::effect::{RestoreError, Row, Table};
use crate::hlc::{HlcClock, MAX_DRIFT};
use crate::id::ConvId;
use crate::probe::mark;
use crate::time::{Now, Timestamp};

impl Delivery {
    /// Takes back a row of `Conversations`, `Outbox`, `Streams` or `Inbox`.
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, row: &Row, now: Now) -> Result<(), RestoreError> {
        match row.table {
            Table::Conversations if row.key.len() == 32 => {
                let conv = ConvId(row.key[..].try_into().map_err(|_| RestoreError::of(row))?);
                let at = self.conv_at(conv);
                let hlc = rows::restore_conv(row, &mut self.convs[at])?;
                self.clock = HlcClock::resume(self.clock.last().max(hlc));
            }
            Table::Conversations if row.key.len() == notice::KEY => {
                let (number, event) = notice::restore(row)?;
                self.notices = self.notices.max(number);
                self.restored_notices.insert(number, event);
            }
            Table::Conversations => {
                let (n, txn, known) = rows::restore_txn(row)?;
                self.ring.insert(n, txn);
                self.txns.insert(txn, known);
            }
            Table::Outbox => {
                let (id, at, entry, end, wedged) = rows::restore_outbox(row)?;
                let conv = self.conv_at(id);
                self.clock = HlcClock::resume(self.clock.last().max(entry.hlc));
                let known = Txn {
                    id: self.own_id(conv, at),
                    hash: send::hash(id, &entry.body),
                    end,
                };
                self.txns.insert(entry.txn, known);
                self.outbox.0 += 1;
                self.outbox.1 += entry.body.len();
                let due = now.mono_at(entry.expires);
                self.set_dues(conv, |dues| {
                    dues.expiry = Some(dues.expiry.map_or(due, |old| old.min(due)));
                });
                let out = &mut self.convs[conv].out;
                out.entries.insert(at, entry);
                out.unsent.insert(at);
                if let Some(why) = wedged {
                    out.wedged.insert(at, why);
                }
            }
            Table::Streams => {
                let (conv, device, item) = rows::restore_stream(row)?;
                let at = self.conv_at(conv);
                match item {
                    rows::StreamItem::State(user, state) => {
                        let at = self.stream_at(at, device, &user);
                        let parked = core::mem::take(&mut self.streams[at].parked);
                        // What it held may have come before it, and did not name the user.
                        let account = self.account(&user);
                        let before = core::mem::replace(&mut self.streams[at].account, account);
                        self.users[account].streams += 1;
                        self.users[before].streams -= 1;
                        self.let_go(before);
                        let stream = &mut self.streams[at];
                        stream.user = user;
                        state.put_into(stream);
                        stream.parked = parked;
                    }
                    rows::StreamItem::Held(epoch, seq, held) => {
                        if let Some(body) = &held.body {
                            Content::decode(conv, body).map_err(|_| RestoreError::of(row))?;
                        }
                        let me = self.me.user.clone();
                        let at = self.stream_at(at, device, &me);
                        // Whether it is held or parked shows when the stream is here too.
                        let due = Timestamp::MAX;
                        self.streams[at].parked.push_back(Parked {
                            epoch,
                            seq,
                            held,
                            due,
                        });
                    }
                }
            }
            Table::Inbox => {
                let (conv, pos, item) = rows::restore_inbox(row)?;
                let TimelineItem::Received(mut received) = timeline::read(&item)? else {
                    return Err(RestoreError::of(row));
                };
                received.redelivered = true;
                let (at, user) = (self.conv_at(conv), self.account(&received.from));
                self.share(user, 1, 0);
                self.convs[at].inbox.insert(pos, user);
                self.restored.insert((conv, pos), received);
            }
            _ => {}
        }
        Ok(())
    }

    /// After the restored rows: arms timers and tells again, as `redelivered`, what the
    /// application did not acknowledge.
    pub fn resume(&mut self, now: Now) {
        self.tell_restored();
        for ((conv, pos), received) in core::mem::take(&mut self.restored) {
            let conv = self.conv_at(conv);
            let it = &mut self.convs[conv];
            it.pos = it.pos.max(pos);
            let stream = self
                .streams
                .get_mut(&(conv, received.id.stream.device))
                .filter(|stream| stream.epoch == received.id.stream.epoch);
            // What passed something missing has no place among the others yet.
            if let Some(stream) = stream
                && (stream.read + 1..=stream.contig).contains(&received.id.seq.0)
            {
                stream
                    .marks
                    .push_back((received.sort.hlc, received.id.seq.0));
            }
            mark("delivery-redelivered");
            self.effects.emit(DeliveryEvent::Received(received));
        }
        let streams: Vec<_> = self.streams.slots().collect();
        for at in streams {
            self.resume_parked(at, now);
            let stream = &mut self.streams[at];
            // A clock that jumped while we were down looks like a long absence. A sender that is
            // there says meanwhile what it still has.
            for held in stream.held.values_mut() {
                held.due = now.mono_at(held.expires).max(now.mono + MAX_DRIFT);
            }
            let (account, count) = (stream.account, stream.held.len());
            self.share(account, 0, isize::try_from(count).unwrap_or(isize::MAX));
            self.await_held(at, now);
        }
        let convs: Vec<_> = self.convs.slots().collect();
        for conv in convs {
            let it = &mut self.convs[conv];
            it.out.settle();
            if it.owes() {
                self.owing.insert(conv);
            }
            self.tell_wedged(conv);
        }
    }
}
