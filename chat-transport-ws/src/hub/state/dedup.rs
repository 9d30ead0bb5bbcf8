//! Recently published ids. Bounded: the oldest are forgotten, which at worst delivers again.

use std::collections::{HashSet, VecDeque};

use super::SessionId;

const KEPT: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Dedup {
    seen: HashSet<(SessionId, [u8; 16])>,
    order: VecDeque<(SessionId, [u8; 16])>,
}

impl Dedup {
    pub(super) fn contains(&self, session: SessionId, id: [u8; 16]) -> bool {
        self.seen.contains(&(session, id))
    }

    pub(super) fn insert(&mut self, session: SessionId, id: [u8; 16]) {
        if self.seen.insert((session, id)) {
            self.order.push_back((session, id));
        }
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    /// Frames were refused after they were seen: their ids may come again.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.order.clear();
    }
}
