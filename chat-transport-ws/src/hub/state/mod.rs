//! The hub as a state machine: channels, opaque frames, sessions. No socket, no clock, no disk.
//!
//! Inputs: connections opened, what they say, how they end, batches written, time. Outputs: frames
//! that each connection pulls with [`Machine::poll_frames`], wakers to call, batches of rows.
//! Guarantees:
//! - a durable frame that was accepted is on disk (or the hub is an in-memory one), or every
//!   subscriber has acknowledged it; it stays until they all have, or until a bound drops it with
//!   a gap marker (Q5);
//! - frames of one channel reach a subscriber in the order in which they were published;
//! - a slow connection delays nobody: what finds its queue full waits in the log or is replaced.

mod conn;
mod lane;
mod publish;
mod rows;
mod session;
mod slab;
mod stored;

use core::task::Waker;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::id::{DeviceId, UserId};
use chat_core::time::{Now, Timestamp};

use super::auth::AccessRules;
use super::limits::Limits;
use crate::proto::{ClientOp, CloseReason, HubOp};
use conn::Conn;
pub(crate) use conn::Frame;
use dedup::Dedup;
use lane::{Lane, Next};
pub use rows::RestoreError;
use rows::Rows;
pub(crate) use rows::{Batch, Key};
pub(crate) use session::OpenError;
use session::Session;
pub(crate) use slab::ConnId;
use slab::Slab;

mod dedup;

/// A channel's number, never used again while the hub runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct LaneId(pub(crate) u64);

/// A session's number: one (user, device).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SessionId(pub(crate) u64);

/// Handed out at a time: a slow link moves this much within the flush deadline.
const TAKE_BYTES: usize = 64 * 1024;
/// Ages and idle sessions are looked at this often.
const SWEEP: Duration = Duration::from_secs(60);
/// A full disk is tried again after this.
const FULL_RETRY: Duration = Duration::from_secs(5);
/// After a close for want of room or a stop, clients come back spread over this.
const COME_BACK: Duration = Duration::from_secs(10);

/// What a connection should do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pulled {
    /// Write what was handed out, then close for this reason.
    pub closing: Option<CloseReason>,
    /// Do not read from the socket: answers pile up.
    pub congested: bool,
    /// There is more; come back at once.
    pub more: bool,
}

/// Counters of a hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HubStats {
    /// Open connections that said who they are.
    pub connections: usize,
    /// Sessions kept, present or away.
    pub sessions: usize,
    /// Channels known.
    pub channels: usize,
    /// Bytes of frames kept for somebody.
    pub stored_bytes: usize,
    /// Bytes queued for connections.
    pub queued_bytes: usize,
    /// Frames dropped at a bound, with a gap.
    pub dropped: u64,
    /// The disk is full: durable frames are refused.
    pub full: bool,
}

/// The hub.
#[derive(Debug)]
pub(crate) struct Machine {
    limits: Limits,
    access: Arc<dyn AccessRules>,
    conns: Slab<Conn>,
    sessions: BTreeMap<SessionId, Session>,
    devices: HashMap<(UserId, DeviceId), SessionId>,
    /// Open connections of each user.
    users: HashMap<UserId, usize>,
    lanes: BTreeMap<LaneId, Lane>,
    channels: HashMap<Channel, LaneId>,
    next_lane: u64,
    next_session: u64,
    rows: Rows,
    dedup: Dedup,
    stored_bytes: usize,
    dropped: u64,
    full: bool,
    stopping: bool,
    checks: BTreeSet<(Timestamp, ConnId)>,
    sweep_at: Timestamp,
    wakes: Vec<Waker>,
}

impl Machine {
    /// An empty hub. A `durable` one hands out batches, others answer at once.
    pub(crate) fn new(limits: Limits, access: Arc<dyn AccessRules>, durable: bool) -> Self {
        Self {
            limits,
            access,
            conns: Slab::default(),
            sessions: BTreeMap::new(),
            devices: HashMap::new(),
            users: HashMap::new(),
            lanes: BTreeMap::new(),
            channels: HashMap::new(),
            next_lane: 1,
            next_session: 1,
            rows: Rows::new(durable),
            dedup: Dedup::default(),
            stored_bytes: 0,
            dropped: 0,
            full: false,
            stopping: false,
            checks: BTreeSet::new(),
            sweep_at: Timestamp::ZERO,
            wakes: Vec::new(),
        }
    }

    /// Counters.
    pub(crate) fn stats(&self) -> HubStats {
        let queued = (self.conns.ids().into_iter())
            .filter_map(|id| self.conns.get(id))
            .map(Conn::queued_bytes)
            .sum();
        HubStats {
            connections: self.conns.len(),
            sessions: self.sessions.len(),
            channels: self.lanes.len(),
            stored_bytes: self.stored_bytes,
            queued_bytes: queued,
            dropped: self.dropped,
            full: self.full,
        }
    }

    /// Something was heard from a connection. Its task must call [`Self::poll_frames`] afterwards.
    pub(crate) fn handle_heard(&mut self, id: ConnId, now: Now) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.heard = now.mono;
            // Its task is running and looks at the queue before it sleeps again.
            conn.waker = None;
        }
    }

    /// The socket of a connection stopped taking bytes, or takes them again.
    pub(crate) fn handle_blocked(&mut self, id: ConnId, blocked: bool, now: Now) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.blocked_since = blocked.then(|| conn.blocked_since.unwrap_or(now.mono));
        }
    }

    /// A connection said something.
    pub(crate) fn handle_op(&mut self, id: ConnId, op: ClientOp<'_>, now: Now) {
        if self.conns.get(id).is_none_or(|conn| conn.closing.is_some()) {
            return;
        }
        match op {
            ClientOp::Hello(_) => self.close(id, CloseReason::Protocol, now),
            ClientOp::Publish(publish) => self.publish(id, &publish, now),
            ClientOp::Subscribe(channel) => self.subscribe(id, channel, now),
            ClientOp::Unsubscribe(channel) => self.unsubscribe(id, &channel, now),
            ClientOp::Ack { lane, seq } => self.ack(id, LaneId(lane), seq, now),
            // Tokens are looked at by the server, which can wait for the answer.
            ClientOp::Token(_) => {}
            ClientOp::Bye => self.close(id, CloseReason::Normal, now),
        }
    }

    /// What a connection should write. `ready` says that everything before is written; without it
    /// only the waker is kept.
    pub(crate) fn poll_frames(
        &mut self,
        id: ConnId,
        ready: bool,
        waker: &Waker,
        now: Now,
        out: &mut VecDeque<Frame>,
    ) -> Pulled {
        let Some(conn) = self.conns.get_mut(id) else {
            return Pulled {
                closing: Some(CloseReason::Normal),
                congested: false,
                more: false,
            };
        };
        if ready || conn.closing.is_some() {
            if conn.is_idle() && conn.closing.is_none() {
                self.refill(id, now);
            }
            let conn = self.conns.get_mut(id).expect("it was here above");
            conn.take(TAKE_BYTES, out);
        }
        let conn = self.conns.get_mut(id).expect("it was here above");
        // Last, since filling the queue takes the waker.
        match &mut conn.waker {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Pulled {
            closing: conn.closing,
            congested: conn.is_full(&self.limits),
            more: ready && conn.has_more(),
        }
    }

    /// Fills a drained queue: logs where it fell behind, late ephemeral frames, `CaughtUp`.
    fn refill(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        while let Some(lane_id) = conn.behind.first().copied() {
            let Some(lane) = self.lanes.get_mut(&lane_id) else {
                conn.behind.remove(&lane_id);
                continue;
            };
            if conn.queued_bytes() >= TAKE_BYTES {
                return;
            }
            match lane.next_for(conn.session, now.wall) {
                Next::Gap => drop(conn.answer(&HubOp::Gap(lane.channel.clone()))),
                Next::Frame(bytes) => drop(conn.push(Frame::Shared(bytes))),
                Next::End => drop(conn.behind.remove(&lane_id)),
            }
        }
        conn.queue_late();
        if conn.caught_up_due && conn.unconfirmed == 0 {
            conn.caught_up_due = false;
            drop(conn.answer(&HubOp::CaughtUp));
        }
    }

    /// Wakers to call, after the hub is unlocked.
    pub(crate) fn drain_wakes(&mut self, out: &mut Vec<Waker>) {
        out.append(&mut self.wakes);
    }

    fn answer(&mut self, id: ConnId, op: &HubOp<'_>) {
        if let Some(conn) = self.conns.get_mut(id)
            && conn.closing.is_none()
        {
            self.wakes.extend(conn.answer(op));
        }
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        while let Some((at, id)) = self.checks.first().copied()
            && at <= now.mono
        {
            self.checks.pop_first();
            self.check(id, now);
        }
        if self.sweep_at <= now.mono {
            self.sweep_at = now.mono + SWEEP;
            self.sweep(now);
        }
    }

    /// When to call [`Self::handle_timeout`] or [`Self::poll_batch`].
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        let check = self.checks.first().map_or(Timestamp::MAX, |(at, _)| *at);
        let rows = self.rows.deadline().unwrap_or(Timestamp::MAX);
        check.min(rows).min(self.sweep_at)
    }

    fn check(&mut self, id: ConnId, now: Now) {
        let (ping, flush) = (self.limits.ping, self.limits.flush);
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.closing.is_some() {
            return;
        }
        if conn.blocked_since.is_some_and(|at| at + flush <= now.mono) {
            return self.close(id, CloseReason::SlowConsumer, now);
        }
        // Two pings missed, and a little for the way.
        if conn.heard + ping * 2 + ping / 4 <= now.mono {
            return self.close(id, CloseReason::Silent, now);
        }
        if conn.expires.is_some_and(|at| at <= now.mono) {
            return self.close(id, CloseReason::TokenExpired, now);
        }
        if conn.pinged + ping <= now.mono {
            conn.pinged = now.mono;
            self.wakes.extend(conn.push(Frame::Ping));
        }
        self.schedule_check(id, now);
    }

    fn schedule_check(&mut self, id: ConnId, now: Now) {
        let every = (self.limits.ping / 4).min(self.limits.flush / 2);
        self.checks.insert((now.mono + every, id));
    }

    /// Drops what is too old and forgets sessions that stayed away.
    fn sweep(&mut self, now: Now) {
        let age = self.limits.mailbox_age;
        let ids: Vec<_> = self.lanes.keys().copied().collect();
        for id in ids {
            while let Some(entry) = self.lanes.get(&id).and_then(|lane| lane.log.front()) {
                if entry.expires.is_some_and(|at| at <= now.wall) {
                    self.drop_oldest(id, false, now);
                } else if entry.at.plus(age) <= now.wall {
                    self.drop_oldest(id, true, now);
                } else {
                    break;
                }
            }
            if let Some(lane) = self.lanes.get_mut(&id)
                && (lane.retained.as_ref())
                    .is_some_and(|r| r.expires.is_some_and(|at| at <= now.wall))
            {
                self.clear_retained(id, now);
            }
            self.trim(id, now);
            self.drop_unused(id, now);
        }
        let gone: Vec<_> = (self.sessions.iter())
            .filter(|(_, s)| s.away_since.is_some_and(|at| at.plus(age) <= now.wall))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.drop_session(id, now);
        }
    }

    /// The hub stops: everybody is asked to come back a little later.
    pub(crate) fn shut_down(&mut self, now: Now) {
        self.stopping = true;
        for id in self.conns.ids() {
            self.close(id, CloseReason::TryLater, now);
        }
    }

    fn lane_of(&mut self, channel: &Channel) -> Option<LaneId> {
        if let Some(id) = self.channels.get(channel) {
            return Some(*id);
        }
        if self.lanes.len() >= self.limits.channels {
            return None;
        }
        let id = LaneId(self.next_lane);
        self.next_lane += 1;
        self.lanes.insert(id, Lane::new(channel.clone()));
        self.channels.insert(channel.clone(), id);
        Some(id)
    }

    /// The `Deliver` that everybody gets, encoded once.
    fn deliver(lane: LaneId, seq: u64, live: bool, channel: &Channel, bytes: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(bytes.len() + 80);
        HubOp::Deliver {
            lane: lane.0,
            seq,
            live,
            channel: channel.clone(),
            bytes,
        }
        .encode(&mut out);
        out.into()
    }
}

#[cfg(test)]
mod tests;
