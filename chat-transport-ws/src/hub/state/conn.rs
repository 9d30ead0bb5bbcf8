//! One connection: what is queued for it, and when it was last heard.
//!
//! Guarantees: the queue is bounded for everything that others send; the rest are answers to its
//! own ops, and the server stops reading it while the queue is full.

use core::task::Waker;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::id::UserId;
use chat_core::time::Timestamp;

use super::{LaneId, SessionId};
use crate::hub::limits::Limits;
use crate::proto::{CloseReason, HubOp, MAX_FATES, WireOutcome};

/// An answer is joined to the one before while they are shorter than this.
const JOIN_BYTES: usize = 8 * 1024;

/// A larger queue is given back once it is empty.
const KEEP_FRAMES: usize = 64;

/// One WebSocket message for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The same bytes for every subscriber.
    Shared(Bytes),
    /// For this connection only.
    Own(Vec<u8>),
    /// A ping.
    Ping,
}

impl Frame {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Shared(bytes) => bytes.len(),
            Self::Own(bytes) => bytes.len(),
            Self::Ping => 0,
        }
    }
}

/// The fate of frames, as the last op of the last frame of a queue.
#[derive(Debug, Clone, Copy)]
struct Fates {
    /// Where it begins.
    at: usize,
    first: u64,
    count: u32,
    /// Else nobody was there.
    accepted: bool,
}

impl Fates {
    fn new(at: usize, (first, accepted): (u64, bool)) -> Self {
        Self {
            at,
            first,
            count: 1,
            accepted,
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        let sent = HubOp::Sent {
            token: self.first,
            count: self.count,
            outcome: if self.accepted {
                WireOutcome::Accepted
            } else {
                WireOutcome::NoReceiver
            },
        };
        sent.encode(out);
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) session: SessionId,
    pub(super) user: UserId,
    pub(super) will: Option<(Channel, Bytes)>,
    queue: VecDeque<Frame>,
    queue_bytes: usize,
    /// The end of the queue, when it is the fate of frames and the next token may join it.
    fates: Option<Fates>,
    /// Ephemeral frames that found the queue full: the latest of each channel.
    late: BTreeMap<LaneId, Bytes>,
    /// Channels whose log has more for it than was queued.
    pub(super) behind: BTreeSet<LaneId>,
    /// Subscriptions that wait for the disk.
    pub(super) unconfirmed: usize,
    pub(super) caught_up_due: bool,
    pub(super) waker: Option<Waker>,
    pub(super) heard: Timestamp,
    pub(super) pinged: Timestamp,
    pub(super) blocked_since: Option<Timestamp>,
    pub(super) closing: Option<CloseReason>,
    /// When the token runs out.
    pub(super) expires: Option<Timestamp>,
    /// It counts among the connections of its user.
    pub(super) counted: bool,
    /// What was published is paid for until then (a leaky bucket as one time).
    paid_until: Timestamp,
}

impl Conn {
    pub(super) fn new(
        session: SessionId,
        user: UserId,
        will: Option<(Channel, Bytes)>,
        now: Timestamp,
    ) -> Self {
        Self {
            session,
            user,
            will,
            queue: VecDeque::new(),
            queue_bytes: 0,
            fates: None,
            late: BTreeMap::new(),
            behind: BTreeSet::new(),
            unconfirmed: 0,
            caught_up_due: false,
            waker: None,
            heard: now,
            pinged: now,
            blocked_since: None,
            closing: None,
            expires: None,
            counted: true,
            paid_until: Timestamp::ZERO,
        }
    }

    /// One more frame is published; or how long it has to wait.
    pub(super) fn pace(&mut self, limits: &Limits, now: Timestamp) -> Result<(), Duration> {
        if limits.publish_per_second == 0 {
            return Ok(());
        }
        let each = Duration::from_secs(1) / limits.publish_per_second;
        let ahead = self.paid_until.saturating_since(now);
        let allowed = each * limits.publish_burst.saturating_sub(1);
        if ahead > allowed {
            return Err(ahead - allowed);
        }
        self.paid_until = self.paid_until.max(now) + each;
        Ok(())
    }

    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.queue_bytes >= limits.queue_bytes || self.queue.len() >= limits.queue_frames
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// There is something to hand out, or to fill the queue with.
    pub(super) fn has_more(&self) -> bool {
        !self.queue.is_empty()
            || !self.behind.is_empty()
            || !self.late.is_empty()
            || (self.caught_up_due && self.unconfirmed == 0)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Queues a frame and takes the waker that must be called.
    pub(super) fn push(&mut self, frame: Frame) -> Option<Waker> {
        self.queue_bytes += frame.len();
        self.queue.push_back(frame);
        self.fates = None;
        self.waker.take()
    }

    /// Queues an ephemeral frame; when the queue is full it replaces the channel's last late one.
    pub(super) fn push_ephemeral(
        &mut self,
        lane: LaneId,
        bytes: &Bytes,
        limits: &Limits,
    ) -> Option<Waker> {
        if self.is_full(limits) {
            self.late.insert(lane, bytes.clone());
            return None;
        }
        self.push(Frame::Shared(bytes.clone()))
    }

    /// Queues an answer to one of its own ops. The fates of frames whose tokens follow on each
    /// other are one op.
    pub(super) fn answer(&mut self, op: &HubOp<'_>) -> Option<Waker> {
        let sent = match op {
            HubOp::Sent {
                token,
                outcome: outcome @ (WireOutcome::Accepted | WireOutcome::NoReceiver),
                ..
            } => Some((*token, *outcome == WireOutcome::Accepted)),
            _ => None,
        };
        let fates = self.fates.take();
        if let Some(Frame::Own(last)) = self.queue.back_mut()
            && last.len() < JOIN_BYTES
        {
            let before = last.len();
            if let (Some((token, accepted)), Some(fates)) = (sent, fates)
                && fates.accepted == accepted
                && fates.first.checked_add(fates.count.into()) == Some(token)
                && fates.count < MAX_FATES
            {
                last.truncate(fates.at);
                let fates = Fates {
                    count: fates.count + 1,
                    ..fates
                };
                fates.encode(last);
                self.fates = Some(fates);
            } else {
                op.encode(last);
                self.fates = sent.map(|sent| Fates::new(before, sent));
            }
            self.queue_bytes = self.queue_bytes + last.len() - before;
            return self.waker.take();
        }
        let mut bytes = Vec::with_capacity(64);
        op.encode(&mut bytes);
        let waker = self.push(Frame::Own(bytes));
        self.fates = sent.map(|sent| Fates::new(0, sent));
        waker
    }

    /// Moves late ephemeral frames into the drained queue.
    pub(super) fn queue_late(&mut self) {
        self.fates = None;
        for bytes in core::mem::take(&mut self.late).into_values() {
            self.queue_bytes += bytes.len();
            self.queue.push_back(Frame::Shared(bytes));
        }
    }

    pub(super) fn forget(&mut self, lane: LaneId) {
        self.behind.remove(&lane);
        self.late.remove(&lane);
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.queue_bytes = 0;
        self.fates = None;
        self.late.clear();
        self.behind.clear();
    }

    /// Hands out frames up to about `max` bytes.
    pub(super) fn take(&mut self, max: usize, out: &mut VecDeque<Frame>) {
        let mut taken = 0;
        self.fates = None;
        while taken < max
            && let Some(frame) = self.queue.pop_front()
        {
            taken += frame.len();
            self.queue_bytes -= frame.len();
            out.push_back(frame);
        }
        if self.queue.is_empty() && self.queue.capacity() > KEEP_FRAMES {
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Frames;

    fn told(conn: &mut Conn) -> Vec<(u64, u32, bool)> {
        let mut out = VecDeque::new();
        conn.take(usize::MAX, &mut out);
        assert_eq!(conn.queued_bytes(), 0);
        let mut told = Vec::new();
        for frame in out {
            let Frame::Own(bytes) = frame else { continue };
            for op in Frames::from_hub(&bytes) {
                if let HubOp::Sent {
                    token,
                    count,
                    outcome,
                } = op.unwrap()
                {
                    told.push((token, count, outcome == WireOutcome::Accepted));
                }
            }
        }
        told
    }

    #[test]
    fn the_fates_of_frames_in_a_row_are_one_op_and_no_other_is_joined() {
        let user = UserId::new("a").unwrap();
        let mut conn = Conn::new(SessionId(1), user, None, Timestamp::ZERO);
        let sent = |conn: &mut Conn, token, outcome| {
            conn.answer(&HubOp::Sent {
                token,
                count: 1,
                outcome,
            });
        };
        for token in 1..=40 {
            sent(&mut conn, token, WireOutcome::Accepted);
        }
        sent(&mut conn, 41, WireOutcome::NoReceiver);
        sent(&mut conn, 42, WireOutcome::NoReceiver);
        sent(&mut conn, 44, WireOutcome::NoReceiver);
        conn.answer(&HubOp::CaughtUp);
        sent(&mut conn, 45, WireOutcome::NoReceiver);
        sent(&mut conn, 46, WireOutcome::Refused("full"));
        sent(&mut conn, 47, WireOutcome::Refused("full"));
        conn.push(Frame::Shared(Bytes::from_static(b"x")));
        sent(&mut conn, 48, WireOutcome::Accepted);
        assert_eq!(
            told(&mut conn),
            [
                (1, 40, true),
                (41, 2, false),
                (44, 1, false),
                (45, 1, false),
                (46, 1, false),
                (47, 1, false),
                (48, 1, true)
            ]
        );
        // What was handed out cannot grow any more, nor can a row without end.
        sent(&mut conn, 49, WireOutcome::Accepted);
        assert_eq!(told(&mut conn), [(49, 1, true)]);
        for token in 1..=u64::from(MAX_FATES) + 1 {
            sent(&mut conn, token, WireOutcome::Accepted);
        }
        let rows = [(1, MAX_FATES, true), (u64::from(MAX_FATES) + 1, 1, true)];
        assert_eq!(told(&mut conn), rows);
    }
}
