//! The end of a former reign (R9): what it signs later, back-dated or not, is no order any more.
//!
//! The leader logs it after an orderly hand-over; or once all members, the former leader among them,
//! acknowledged the new term and had time, while it could hear them, to show what the former one
//! decided elsewhere; or after
//! `merge_window`, whoever is still away: the beat looks whether it is time.

use super::op::Op;
use super::{Group, Groups};
use crate::id::DeviceId;
use crate::probe::{mark, planted};
use crate::time::Now;

/// Beats in which members show what was decided on an abandoned branch.
const SHOW: u32 = 6;

impl Groups {
    /// The fence that is due.
    pub(super) fn fence_task(&self, group: &Group, now: Now) -> Option<Op> {
        let chain = group.leading(&self.me)?;
        let roster = &chain.roster;
        let former = roster.former.as_ref()?;
        let same = former.leader.device == roster.leader.device;
        if same || roster.fences.contains_key(&former.term) {
            return None;
        }
        let shown = |since| now.mono.saturating_since(since) >= self.config.beat * SHOW;
        let knows = |device: &DeviceId| {
            let acked = group.acks.get(device).and_then(|acked| acked.knows);
            *device == self.me.device || acked.is_some_and(shown)
        };
        let knows = group.unsettled(&self.me) == 0
            && roster.seats.contains_key(&former.leader.device)
            && roster.seats.keys().all(knows);
        let over = former.at.plus(self.config.merge_window) <= now.wall;
        if !(former.orderly || knows || over || planted("group-fence-early")) {
            return None;
        }
        mark("group-fence");
        Some(Op::Fence {
            term: former.term,
            last: former.last,
        })
    }
}
