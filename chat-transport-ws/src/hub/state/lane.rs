//! One channel: its log of durable frames, who subscribes, and its last value.
//!
//! A frame stays in the log until every subscriber but its sender has acknowledged it. A
//! subscriber is (user, device), present or away, with a cursor: everything up to it is
//! acknowledged. Guarantees: the log is in order of `seq`; `waiting` is the number of subscribers
//! that still need the entry, so an ack costs a binary search and not a walk over subscribers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::time::UnixMillis;

use super::{ConnId, SessionId};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    /// The encoded `Deliver`.
    pub(super) bytes: Bytes,
    pub(super) from: SessionId,
    pub(super) waiting: usize,
    pub(super) at: UnixMillis,
    pub(super) expires: Option<UnixMillis>,
    /// The publisher that has no answer yet.
    pub(super) reply: Option<(ConnId, u64)>,
    /// The batch that stores it.
    pub(super) batch: u64,
}

#[derive(Debug)]
pub(super) struct Sub {
    pub(super) conn: Option<ConnId>,
    pub(super) cursor: u64,
    /// Acknowledged above the cursor.
    above: BTreeSet<u64>,
    /// Queued up to here for the present connection.
    pub(super) sent: u64,
    pub(super) behind: bool,
    /// The last frame that was dropped unacknowledged (Q5).
    pub(super) gap: Option<u64>,
}

impl Sub {
    pub(super) fn new(conn: Option<ConnId>, cursor: u64, gap: Option<u64>) -> Self {
        Self {
            conn,
            cursor,
            above: BTreeSet::new(),
            sent: cursor,
            behind: false,
            gap,
        }
    }

    fn needs(&self, session: SessionId, entry: &Entry) -> bool {
        entry.from != session && entry.seq > self.cursor && !self.above.contains(&entry.seq)
    }
}

#[derive(Debug)]
pub(super) struct Retained {
    /// The frame itself.
    pub(super) bytes: Bytes,
    pub(super) expires: Option<UnixMillis>,
    pub(super) stored: bool,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) channel: Channel,
    pub(super) log: VecDeque<Entry>,
    pub(super) log_bytes: usize,
    pub(super) next_seq: u64,
    pub(super) subs: BTreeMap<SessionId, Sub>,
    pub(super) retained: Option<Retained>,
    pub(super) stored: bool,
}

/// What a subscriber that continues from the log gets next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Gap,
    Frame(Bytes),
    End,
}

impl Lane {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            log: VecDeque::new(),
            log_bytes: 0,
            next_seq: 1,
            subs: BTreeMap::new(),
            retained: None,
            stored: false,
        }
    }

    /// The first entry after `seq`.
    fn after(&self, seq: u64) -> usize {
        self.log.partition_point(|entry| entry.seq <= seq)
    }

    pub(super) fn entry_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let at = self.log.partition_point(|entry| entry.seq < seq);
        self.log.get_mut(at).filter(|entry| entry.seq == seq)
    }

    /// Adds at the end; `waiting` is counted here.
    pub(super) fn append(&mut self, mut entry: Entry) {
        entry.waiting = (self.subs.iter())
            .filter(|(session, sub)| sub.needs(**session, &entry))
            .count();
        self.next_seq = self.next_seq.max(entry.seq + 1);
        self.log_bytes += entry.bytes.len();
        self.log.push_back(entry);
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.log.pop_front()?;
        self.log_bytes -= entry.bytes.len();
        Some(entry)
    }

    /// Removes from anywhere.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Entry> {
        let at = self.log.partition_point(|entry| entry.seq < seq);
        if self.log.get(at)?.seq != seq {
            return None;
        }
        let entry = self.log.remove(at)?;
        self.log_bytes -= entry.bytes.len();
        Some(entry)
    }

    /// True when the cursor or the gap changed.
    pub(super) fn ack(&mut self, session: SessionId, seq: u64) -> bool {
        let Some(sub) = self.subs.get_mut(&session) else {
            return false;
        };
        let mut changed = false;
        if seq <= sub.sent && sub.gap.is_some_and(|gap| seq >= gap) {
            sub.gap = None;
            changed = true;
        }
        let at = self.log.partition_point(|entry| entry.seq < seq);
        let Some(entry) = self.log.get_mut(at).filter(|entry| entry.seq == seq) else {
            return changed;
        };
        if seq > sub.sent || !sub.needs(session, entry) {
            return changed;
        }
        entry.waiting -= 1;
        sub.above.insert(seq);
        let start = self.log.partition_point(|entry| entry.seq <= sub.cursor);
        for entry in self.log.range(start..) {
            if entry.from != session && !sub.above.remove(&entry.seq) {
                break;
            }
            sub.cursor = entry.seq;
            changed = true;
        }
        changed
    }

    /// Ends a subscription; its share of every entry is released.
    pub(super) fn unsubscribe(&mut self, session: SessionId) -> Option<Sub> {
        let sub = self.subs.remove(&session)?;
        for entry in &mut self.log {
            if sub.needs(session, entry) {
                entry.waiting -= 1;
            }
        }
        Some(sub)
    }

    /// Drops the oldest entry although somebody needs it. `gap` says whether they are told (Q5).
    /// Returns the subscribers whose row changed.
    pub(super) fn drop_front(&mut self, gap: bool) -> Option<(Entry, Vec<SessionId>)> {
        let entry = self.pop_front()?;
        let mut changed = Vec::new();
        for (session, sub) in &mut self.subs {
            if sub.needs(*session, &entry) {
                sub.cursor = entry.seq;
                if gap {
                    sub.gap = Some(entry.seq);
                }
                changed.push(*session);
            }
            // The cursor never lies under the front, so this cannot be acknowledged later.
            sub.above.remove(&entry.seq);
        }
        Some((entry, changed))
    }

    /// A connection takes over the subscription: what is not acknowledged comes again. True when
    /// there is something to continue with.
    pub(super) fn attach(&mut self, session: SessionId, conn: ConnId) -> bool {
        let Some(sub) = self.subs.get_mut(&session) else {
            return false;
        };
        sub.conn = Some(conn);
        sub.sent = sub.gap.map_or(sub.cursor, |gap| gap.saturating_sub(1));
        sub.behind = sub.gap.is_some() || self.log.back().is_some_and(|e| e.seq > sub.cursor);
        sub.behind
    }

    pub(super) fn detach(&mut self, session: SessionId) {
        if let Some(sub) = self.subs.get_mut(&session) {
            sub.conn = None;
            sub.behind = false;
        }
    }

    /// What comes next for a subscriber that is behind.
    pub(super) fn next_for(&mut self, session: SessionId, wall: UnixMillis) -> Next {
        let Some(sub) = self.subs.get(&session) else {
            return Next::End;
        };
        let gap = sub.gap.filter(|gap| *gap > sub.sent);
        let found = if gap.is_some() {
            None
        } else {
            let start = self.after(sub.sent.max(sub.cursor));
            (self.log.range(start..))
                .find(|e| sub.needs(session, e) && e.expires.is_none_or(|at| at > wall))
                .map(|e| (e.seq, e.bytes.clone()))
        };
        let sub = (self.subs.get_mut(&session)).expect("looked up above");
        match (gap, found) {
            (Some(gap), _) => {
                sub.sent = gap;
                Next::Gap
            }
            (None, Some((seq, bytes))) => {
                sub.sent = seq;
                Next::Frame(bytes)
            }
            (None, None) => {
                sub.behind = false;
                sub.sent = self.next_seq - 1;
                Next::End
            }
        }
    }

    /// Nothing of it is worth keeping.
    pub(super) fn is_unused(&self) -> bool {
        self.subs.is_empty() && self.retained.is_none() && self.log.is_empty()
    }
}
