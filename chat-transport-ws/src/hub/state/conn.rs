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
use crate::proto::{CloseReason, HubOp};

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

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) session: SessionId,
    pub(super) user: UserId,
    pub(super) will: Option<(Channel, Bytes)>,
    queue: VecDeque<Frame>,
    queue_bytes: usize,
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

    /// Queues an answer to one of its own ops.
    pub(super) fn answer(&mut self, op: &HubOp<'_>) -> Option<Waker> {
        if let Some(Frame::Own(last)) = self.queue.back_mut()
            && last.len() < JOIN_BYTES
        {
            let before = last.len();
            op.encode(last);
            self.queue_bytes += last.len() - before;
            return self.waker.take();
        }
        let mut bytes = Vec::with_capacity(64);
        op.encode(&mut bytes);
        self.push(Frame::Own(bytes))
    }

    /// Moves late ephemeral frames into the drained queue.
    pub(super) fn queue_late(&mut self) {
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
        self.late.clear();
        self.behind.clear();
    }

    /// Hands out frames up to about `max` bytes.
    pub(super) fn take(&mut self, max: usize, out: &mut VecDeque<Frame>) {
        let mut taken = 0;
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
