//! A leader that a minority deposed although it was there takes the lead back (R7).
//!
//! So a few members on a split-off broker cannot keep the lead of a large group. Guarantees: it
//! wins only with a greater round and a certificate of its own; members support it only when they
//! heard it reign within the time of suspicion; who was deposed by the leader that it had deposed
//! itself does not defend, so two never depose each other in turn.

use super::roster::Former;
use super::{Group, Groups};
use crate::id::{DeviceId, GroupId};
use crate::probe::{mark, planted};
use crate::time::Now;

impl Groups {
    /// The log passed to another leader: note whom a minority deposed, and defend ourselves.
    pub(super) fn note_deposed(&mut self, id: GroupId, old: DeviceId, now: Now) {
        let me = self.me.device;
        let connected = now.mono.saturating_since(self.up_since) >= self.config.suspect;
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let heard = group.beat_at.take();
        group.deposed = None;
        let Some(chain) = &group.chain else {
            return;
        };
        let roster = &chain.roster;
        let taken = |former: &Former| {
            former.leader.device == old && former.deposed != Some(roster.leader.device)
        };
        if roster.term.majority || !roster.former.as_ref().is_some_and(taken) {
            return;
        }
        let heard = if old == me {
            (self.up && connected).then_some(now.mono)
        } else {
            heard
        };
        group.deposed = heard.map(|at| (old, at));
        if self.is_deposed(&self.groups[&id], now) && !planted("group-no-defence") {
            mark("group-defence");
            self.canvass(id, now);
        }
    }

    /// True when we are the one that was deposed, not long ago.
    pub(super) fn is_deposed(&self, group: &Group, now: Now) -> bool {
        self.defends(group, self.me.device, now)
    }

    /// True when the candidate takes back what a minority took from it.
    pub(super) fn defends(&self, group: &Group, candidate: DeviceId, now: Now) -> bool {
        let recent = |at| now.mono.saturating_since(at) < self.config.suspect;
        group
            .deposed
            .is_some_and(|(who, at)| who == candidate && recent(at))
    }
}
