//! Sessions: one per (user, device), kept while the device is away, and the connection it has.

use std::collections::BTreeSet;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::id::{DeviceId, UserId};
use chat_core::time::{Now, UnixMillis};
use core::time::Duration;

use super::conn::Conn;
use super::lane::Sub;
use super::rows::{Gated, Key, session_row};
use super::{COME_BACK, ConnId, LaneId, Machine, SessionId};
use crate::proto::{CloseReason, Hello, HubOp, Welcome};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) conn: Option<ConnId>,
    pub(super) lanes: BTreeSet<LaneId>,
    pub(super) away_since: Option<UnixMillis>,
    pub(super) stored: bool,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    /// The last will goes where this user may not publish.
    #[error("you may not publish where your last will goes")]
    Will,
    /// The user has as many connections as one may have.
    #[error("you have too many connections; close one first")]
    TooMany,
    /// No room for another session.
    #[error("the hub has no room for another device; try again later")]
    Full,
    /// The hub stops.
    #[error("the hub is stopping; try again later")]
    Stopping,
}

impl Machine {
    /// An authenticated connection. Its first frame is `Welcome`, queued here.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn handle_open(&mut self, hello: &Hello<'_>, now: Now) -> Result<ConnId, OpenError> {
        if self.stopping {
            return Err(OpenError::Stopping);
        }
        if let Some(will) = &hello.will
            && !self.access.may_publish(&hello.user, &will.channel)
        {
            return Err(OpenError::Will);
        }
        let key = (hello.user.clone(), hello.device);
        let mut known = self.devices.get(&key).copied();
        if let Some(old) = known.and_then(|id| self.sessions.get(&id)?.conn) {
            self.close(old, CloseReason::Replaced, now);
            // A session without subscriptions ends with its connection.
            known = self.devices.get(&key).copied();
        }
        if self.users.get(&hello.user).copied().unwrap_or_default()
            >= self.limits.connections_per_user
        {
            return Err(OpenError::TooMany);
        }
        if let Some(id) = known.filter(|_| !hello.resume) {
            self.drop_session(id, now);
            known = None;
        }
        let session = match known {
            Some(id) => id,
            None if self.sessions.len() >= self.limits.sessions => return Err(OpenError::Full),
            None => self.add_session(key),
        };
        let will =
            (hello.will.as_ref()).map(|w| (w.channel.clone(), Bytes::copy_from_slice(w.bytes)));
        let id = (self.conns).insert(Conn::new(session, hello.user.clone(), will, now.mono));
        *self.users.entry(hello.user.clone()).or_default() += 1;
        self.schedule_check(id, now);
        let welcome = self.welcome(known.is_some());
        self.answer(id, &HubOp::Welcome(welcome));
        self.attach(id, session, now);
        Ok(id)
    }

    fn welcome(&self, resumed: bool) -> Welcome {
        let l = &self.limits;
        let millis = u32::try_from(l.ping.as_millis()).unwrap_or(u32::MAX);
        Welcome {
            resumed,
            max_frame: u32::try_from(l.max_frame).unwrap_or(u32::MAX),
            ping_ms: millis,
            mailbox_frames: u32::try_from(l.mailbox_frames).unwrap_or(u32::MAX),
            mailbox_bytes: u64::try_from(l.mailbox_bytes).unwrap_or(u64::MAX),
            mailbox_secs: l.mailbox_age.as_secs(),
            publish_per_second: l.publish_per_second,
            publish_burst: l.publish_burst,
        }
    }

    fn add_session(&mut self, key: (UserId, DeviceId)) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(
            id,
            Session {
                user: key.0.clone(),
                device: key.1,
                conn: None,
                lanes: BTreeSet::new(),
                away_since: None,
                stored: false,
            },
        );
        self.devices.insert(key, id);
        id
    }

    /// Gives a kept session its new connection: last values, then what is not acknowledged.
    fn attach(&mut self, id: ConnId, session_id: SessionId, now: Now) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        session.conn = Some(id);
        session.away_since = None;
        let lanes: Vec<_> = session.lanes.iter().copied().collect();
        for lane_id in &lanes {
            if let Some(lane) = self.lanes.get_mut(lane_id)
                && lane.attach(session_id, id)
                && let Some(conn) = self.conns.get_mut(id)
            {
                conn.behind.insert(*lane_id);
            }
            self.send_retained(id, *lane_id, now);
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.caught_up_due = !lanes.is_empty();
        }
    }

    fn send_retained(&mut self, id: ConnId, lane_id: LaneId, now: Now) {
        if let Some(lane) = self.lanes.get(&lane_id)
            && let Some(value) = &lane.retained
            && value.expires.is_none_or(|at| at > now.wall)
            && let Some(conn) = self.conns.get_mut(id)
        {
            let frame = Self::deliver(lane_id, 0, false, &lane.channel, &value.bytes);
            let wake = conn.push_ephemeral(lane_id, &frame, &self.limits);
            self.wakes.extend(wake);
        }
    }

    pub(super) fn subscribe(&mut self, id: ConnId, channel: Channel, now: Now) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        let session_id = conn.session;
        let Some(session) = self.sessions.get(&session_id) else {
            return;
        };
        let allowed = self.access.may_subscribe(&conn.user, &channel)
            && session.lanes.len() < self.limits.subscriptions;
        let Some(lane_id) = allowed.then(|| self.lane_of(&channel)).flatten() else {
            let op = HubOp::Subscribed {
                channel,
                granted: false,
            };
            return self.answer(id, &op);
        };
        let session = (self.sessions.get_mut(&session_id)).expect("looked up above");
        let lane = (self.lanes.get_mut(&lane_id)).expect("made above");
        if session.lanes.insert(lane_id) {
            let sub = Sub::new(Some(id), lane.next_seq - 1, None);
            lane.subs.insert(session_id, sub);
            if !session.stored {
                session.stored = true;
                let value = || session_row(&session.user, &session.device);
                self.rows.put(Key::Session(session_id), value, now.mono);
            }
            self.store_lane(lane_id, now);
            self.store_sub(lane_id, session_id, now);
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.caught_up_due = true;
            conn.unconfirmed += 1;
        }
        // Confirmed only once it will outlive the hub: a session that is resumed later must not
        // miss a subscription that it was promised.
        if self.rows.is_durable() {
            self.rows.gate(Gated::Subscribed(id, lane_id));
        } else {
            self.confirm(id, lane_id, now);
        }
    }

    pub(super) fn confirm(&mut self, id: ConnId, lane_id: LaneId, now: Now) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.unconfirmed = conn.unconfirmed.saturating_sub(1);
        let session = conn.session;
        let Some(lane) = self.lanes.get(&lane_id) else {
            return;
        };
        // It may have unsubscribed meanwhile.
        if lane.subs.contains_key(&session) {
            let channel = lane.channel.clone();
            let op = HubOp::Subscribed {
                channel,
                granted: true,
            };
            self.answer(id, &op);
            self.send_retained(id, lane_id, now);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: ConnId, channel: &Channel, now: Now) {
        if let Some(lane_id) = self.channels.get(channel).copied()
            && let Some(conn) = self.conns.get_mut(id)
        {
            conn.forget(lane_id);
            let session = conn.session;
            self.leave_lane(session, lane_id, now);
        }
    }

    fn leave_lane(&mut self, session_id: SessionId, lane_id: LaneId, now: Now) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.lanes.remove(&lane_id);
        }
        let left = (self.lanes.get_mut(&lane_id)).and_then(|lane| lane.unsubscribe(session_id));
        if left.is_some() {
            self.rows.delete(Key::Sub(lane_id, session_id), now.mono);
            self.trim(lane_id, now);
            self.drop_unused(lane_id, now);
        }
    }

    /// Forgets a session and what was kept for it.
    pub(super) fn drop_session(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        for lane in session.lanes.clone() {
            self.leave_lane(id, lane, now);
        }
        if let Some(session) = self.sessions.remove(&id) {
            self.devices.remove(&(session.user, session.device));
            if session.stored {
                self.rows.delete(Key::Session(id), now.mono);
            }
        }
    }

    /// Ends a connection for `reason`; the server writes the farewell and then closes. The last
    /// will goes out now, unless the client left in good order, was replaced or is only asked to
    /// come back.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason, now: Now) {
        let Some(conn) = self.conns.get_mut(id).filter(|c| c.closing.is_none()) else {
            return;
        };
        let retry_ms = (reason == CloseReason::TryLater).then(|| {
            // Spread without randomness: neighbours get times far apart.
            let spread = u64::try_from(COME_BACK.as_millis()).unwrap_or(u64::MAX);
            let place = conn.session.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            u32::try_from(1000 + place % spread).unwrap_or(u32::MAX)
        });
        if matches!(
            reason,
            CloseReason::Normal | CloseReason::Replaced | CloseReason::TryLater
        ) {
            conn.will = None;
        }
        conn.clear();
        let farewell = HubOp::Closing {
            code: reason.code(),
            retry_ms,
        };
        self.wakes.extend(conn.answer(&farewell));
        conn.closing = Some(reason);
        self.leave_user(id);
        self.detach(id, now);
    }

    /// A connection is gone. Without a [`close`](Self::close) before it died, and its last will
    /// is published.
    pub(crate) fn handle_closed(&mut self, id: ConnId, now: Now) {
        self.detach(id, now);
        self.leave_user(id);
        self.conns.remove(id);
    }

    /// The token of a connection holds for so long from now on.
    pub(crate) fn handle_token(&mut self, id: ConnId, holds: Option<Duration>, now: Now) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.expires = holds.map(|time| now.mono + time);
        }
        if let Some(time) = holds {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            self.answer(id, &HubOp::TokenHolds { ms });
        }
    }

    /// Counts for its user no longer; once, from the moment that it is asked to go.
    fn leave_user(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && core::mem::take(&mut conn.counted)
            && let Some(count) = self.users.get_mut(&conn.user)
        {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&conn.user);
            }
        }
    }

    fn detach(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        let (session_id, will) = (conn.session, conn.will.take());
        let Some(session) = (self.sessions.get_mut(&session_id)).filter(|s| s.conn == Some(id))
        else {
            return;
        };
        session.conn = None;
        session.away_since = Some(now.wall);
        let lanes: Vec<_> = session.lanes.iter().copied().collect();
        for lane in &lanes {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.detach(session_id);
            }
        }
        if let Some(will) = will {
            self.publish_will(session_id, &will, now);
        }
        if lanes.is_empty() {
            self.drop_session(session_id, now);
        }
    }
}
