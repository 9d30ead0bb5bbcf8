//! From one publisher to everybody who subscribes, and the log in between.

use bytes::Bytes;
use chat_core::channel::{Channel, Class};
use chat_core::time::Now;
use core::time::Duration;

use super::lane::{Entry, Retained};
use super::rows::{Gated, Key, LogRow, RetainedRow, SubRow, lane_row, row};
use super::{ConnId, Frame, LaneId, Machine, SessionId};
use crate::proto::{HubOp, Publish, WireOutcome};

const FULL: &str = "the hub is full; try again later";

impl Machine {
    pub(super) fn publish(&mut self, id: ConnId, publish: &Publish<'_>, now: Now) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        let (session, token) = (conn.session, publish.token);
        if !self.access.may_publish(&conn.user, &publish.channel) {
            return self.sent(id, token, WireOutcome::Denied);
        }
        if publish.bytes.len() > self.limits.max_frame {
            return self.sent(id, token, WireOutcome::TooLarge);
        }
        if let Some(conn) = self.conns.get_mut(id)
            && let Err(wait) = conn.pace(&self.limits, now.mono)
        {
            let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            return self.sent(id, token, WireOutcome::TooFast(ms.max(1)));
        }
        if let Some(dedup) = publish.dedup
            && self.dedup.contains(session, dedup)
        {
            // The first one may still be on its way to the disk.
            if self.rows.is_busy() {
                self.rows.gate(Gated::Duplicate(id, token));
            } else {
                self.sent(id, token, WireOutcome::Accepted);
            }
            return;
        }
        let known = self.channels.get(&publish.channel).copied();
        let lane = match known {
            Some(lane) => lane,
            None if publish.last_value && !publish.bytes.is_empty() => {
                match self.lane_of(&publish.channel) {
                    Some(lane) => lane,
                    None => return self.sent(id, token, WireOutcome::Refused(FULL)),
                }
            }
            None => return self.sent(id, token, WireOutcome::NoReceiver),
        };
        let outcome = self.publish_to(lane, session, Some((id, token)), publish, now);
        if outcome != Some(WireOutcome::Refused(FULL))
            && let Some(dedup) = publish.dedup
        {
            self.dedup.insert(session, dedup);
        }
        if let Some(outcome) = outcome {
            self.sent(id, token, outcome);
        }
        self.drop_unused(lane, now);
    }

    pub(super) fn sent(&mut self, id: ConnId, token: u64, outcome: WireOutcome<'_>) {
        let sent = HubOp::Sent {
            token,
            count: 1,
            outcome,
        };
        self.answer(id, &sent);
    }

    /// `None` when the answer waits for the disk.
    fn publish_to(
        &mut self,
        lane_id: LaneId,
        session: SessionId,
        reply: Option<(ConnId, u64)>,
        publish: &Publish<'_>,
        now: Now,
    ) -> Option<WireOutcome<'static>> {
        let needs_room = publish.class == Class::Durable || publish.last_value;
        let over = self.stored_bytes + publish.bytes.len() > self.limits.stored_bytes;
        if needs_room && (over || self.full) {
            return Some(WireOutcome::Refused(FULL));
        }
        let expires = (publish.ttl_ms).map(|ms| now.wall.plus(Duration::from_millis(ms)));
        let durable = publish.class == Class::Durable;
        if publish.last_value {
            self.retain(lane_id, publish.bytes, expires, durable, now);
        }
        let lane = self.lanes.get_mut(&lane_id)?;
        let others = lane.subs.len() - usize::from(lane.subs.contains_key(&session));
        let nobody = if publish.last_value {
            WireOutcome::Accepted
        } else {
            WireOutcome::NoReceiver
        };
        if others == 0 {
            return Some(nobody);
        }
        if durable {
            self.append(lane_id, session, reply, publish.bytes, expires, now);
            return (!self.rows.is_durable()).then_some(WireOutcome::Accepted);
        }
        let frame = Self::deliver(lane_id, 0, true, &lane.channel, publish.bytes);
        let mut reached = false;
        for (subscriber, sub) in &lane.subs {
            if *subscriber != session
                && let Some(conn) = sub.conn.and_then(|id| self.conns.get_mut(id))
            {
                reached = true;
                let wake = conn.push_ephemeral(lane_id, &frame, &self.limits);
                self.wakes.extend(wake);
            }
        }
        Some(if reached {
            WireOutcome::Accepted
        } else {
            nobody
        })
    }

    /// A durable frame: into the log, and to everybody who keeps up.
    fn append(
        &mut self,
        lane_id: LaneId,
        session: SessionId,
        reply: Option<(ConnId, u64)>,
        bytes: &[u8],
        expires: Option<chat_core::time::UnixMillis>,
        now: Now,
    ) {
        while let Some(lane) = self.lanes.get(&lane_id)
            && !lane.log.is_empty()
            && (lane.log.len() >= self.limits.mailbox_frames
                || lane.log_bytes + bytes.len() > self.limits.mailbox_bytes)
        {
            self.drop_oldest(lane_id, true, now);
        }
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        let seq = lane.next_seq;
        let frame = Self::deliver(lane_id, seq, true, &lane.channel, bytes);
        let durable = self.rows.is_durable();
        let before = lane.log_bytes;
        lane.append(Entry {
            seq,
            bytes: frame.clone(),
            from: session,
            waiting: 0,
            at: now.wall,
            expires,
            reply: reply.filter(|_| durable),
            batch: self.rows.gathering,
        });
        self.stored_bytes += lane.log_bytes - before;
        for (subscriber, sub) in &mut lane.subs {
            if *subscriber == session || sub.behind {
                continue;
            }
            let Some(conn) = sub.conn.and_then(|id| self.conns.get_mut(id)) else {
                continue;
            };
            if conn.is_full(&self.limits) {
                sub.behind = true;
                conn.behind.insert(lane_id);
            } else {
                sub.sent = seq;
                self.wakes.extend(conn.push(Frame::Shared(frame.clone())));
            }
        }
        if durable {
            let value = || {
                row(&LogRow {
                    at: now.wall.0,
                    expires: expires.map(|at| at.0),
                    from: session.0,
                    bytes: &frame,
                })
            };
            self.rows.put(Key::Log(lane_id, seq), value, now.mono);
            self.rows.gate(Gated::Entry(lane_id, seq));
        }
    }

    pub(super) fn ack(&mut self, id: ConnId, lane_id: LaneId, seq: u64, now: Now) {
        let Some(session) = self.conns.get(id).map(|conn| conn.session) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        if lane.ack(session, seq) {
            self.store_sub(lane_id, session, now);
        }
        self.trim(lane_id, now);
    }

    pub(super) fn store_sub(&mut self, lane_id: LaneId, session: SessionId, now: Now) {
        let Some(sub) = (self.lanes.get(&lane_id)).and_then(|lane| lane.subs.get(&session)) else {
            return;
        };
        let (cursor, gap) = (sub.cursor, sub.gap);
        let value = || row(&SubRow { cursor, gap });
        self.rows.put(Key::Sub(lane_id, session), value, now.mono);
    }

    /// Lets go of the entries at the front that nobody needs.
    pub(super) fn trim(&mut self, lane_id: LaneId, now: Now) {
        while let Some(lane) = self.lanes.get_mut(&lane_id)
            && lane.log.front().is_some_and(|entry| entry.waiting == 0)
        {
            if let Some(entry) = lane.pop_front() {
                self.settle(lane_id, &entry, WireOutcome::Accepted, now);
            }
        }
    }

    /// Drops the oldest entry at a bound, with a gap (Q5), or past its time to live, without.
    pub(super) fn drop_oldest(&mut self, lane_id: LaneId, gap: bool, now: Now) {
        let Some((entry, changed)) =
            (self.lanes.get_mut(&lane_id)).and_then(|lane| lane.drop_front(gap))
        else {
            return;
        };
        if gap && !changed.is_empty() {
            self.dropped += 1;
        }
        self.settle(lane_id, &entry, WireOutcome::Refused(FULL), now);
        for session in changed {
            self.store_sub(lane_id, session, now);
        }
    }

    /// An entry has left the log: its row goes, and a publisher that still waits is told.
    fn settle(&mut self, lane_id: LaneId, entry: &Entry, outcome: WireOutcome<'_>, now: Now) {
        self.stored_bytes = self.stored_bytes.saturating_sub(entry.bytes.len());
        let key = Key::Log(lane_id, entry.seq);
        if entry.batch == self.rows.gathering {
            self.rows.withdraw(key);
        } else {
            self.rows.delete(key, now.mono);
        }
        if let Some((id, token)) = entry.reply {
            self.sent(id, token, outcome);
        }
    }

    fn retain(
        &mut self,
        lane_id: LaneId,
        bytes: &[u8],
        expires: Option<chat_core::time::UnixMillis>,
        durable: bool,
        now: Now,
    ) {
        self.clear_retained(lane_id, now);
        let Some(lane) = self.lanes.get_mut(&lane_id).filter(|_| !bytes.is_empty()) else {
            return;
        };
        self.stored_bytes += bytes.len();
        let stored = durable && self.rows.is_durable();
        lane.retained = Some(Retained {
            bytes: Bytes::copy_from_slice(bytes),
            expires,
            stored,
        });
        if stored {
            let value = || {
                row(&RetainedRow {
                    expires: expires.map(|at| at.0),
                    bytes,
                })
            };
            self.rows.put(Key::Retained(lane_id), value, now.mono);
            self.store_lane(lane_id, now);
        }
    }

    pub(super) fn store_lane(&mut self, lane_id: LaneId, now: Now) {
        if let Some(lane) = self.lanes.get_mut(&lane_id)
            && !lane.stored
        {
            lane.stored = true;
            self.rows
                .put(Key::Lane(lane_id), || lane_row(&lane.channel), now.mono);
        }
    }

    pub(super) fn clear_retained(&mut self, lane_id: LaneId, now: Now) {
        if let Some(lane) = self.lanes.get_mut(&lane_id)
            && let Some(old) = lane.retained.take()
        {
            self.stored_bytes = self.stored_bytes.saturating_sub(old.bytes.len());
            if old.stored {
                self.rows.delete(Key::Retained(lane_id), now.mono);
            }
        }
    }

    /// Publishes a last will as the channel's last value.
    pub(super) fn publish_will(
        &mut self,
        session: SessionId,
        (channel, bytes): &(Channel, Bytes),
        now: Now,
    ) {
        let Some(lane) = self.lane_of(channel) else {
            return;
        };
        let publish = Publish {
            token: 0,
            channel: channel.clone(),
            class: Class::Ephemeral,
            ttl_ms: None,
            last_value: true,
            dedup: None,
            bytes,
        };
        self.publish_to(lane, session, None, &publish, now);
        self.drop_unused(lane, now);
    }

    /// Forgets a channel that nobody needs.
    pub(super) fn drop_unused(&mut self, lane_id: LaneId, now: Now) {
        if self
            .lanes
            .get(&lane_id)
            .is_some_and(|lane| lane.is_unused())
            && let Some(lane) = self.lanes.remove(&lane_id)
        {
            self.channels.remove(&lane.channel);
            if lane.stored {
                self.rows.delete(Key::Lane(lane_id), now.mono);
            }
        }
    }
}
