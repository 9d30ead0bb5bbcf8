//! Outside leases on the lead of a group: a hint that shortens a succession (reliability 1.1).
//!
//! Safety never rests on them. Brokers acknowledge what they have not stored, and a holder may be
//! paused past the end of its lease without noticing. A lease that lapsed, or that another holds,
//! makes members suspect a silent leader sooner; the first word of that leader refutes it, and who
//! reigns is decided by the log alone (G4). So a service that lies costs a canvass that the leader
//! answers, and one that is dead costs nothing.

use super::types::{LeaseHint, LeaseNeed};
use super::{Group, Groups, Timer};
use crate::id::GroupId;
use crate::probe::mark;
use crate::time::{Now, Timestamp};

impl Group {
    /// True when the reigning leader lost its lease, as the last hint says.
    pub(super) fn lease_lapsed(&self) -> bool {
        let leader = self.chain.as_ref().map(|c| c.roster.leader.device);
        match self.lease {
            Some(LeaseHint::Lost) => true,
            Some(LeaseHint::Held(by)) => leader != Some(by),
            None => false,
        }
    }
}

impl Groups {
    /// What is known of the outside lease on the lead of `group`.
    pub fn handle_fence_hint(&mut self, group: GroupId, hint: LeaseHint, now: Now) {
        let Some(held) = self.groups.get_mut(&group) else {
            return;
        };
        let before = held.lease_lapsed();
        held.lease = Some(hint);
        if held.lease_lapsed() && !before {
            mark("group-lease-lost");
            if self.timers.due(&(group, Timer::Succeed)).is_some() {
                self.arm_succession(group, now);
            }
        }
    }

    /// Which leases are worth a question to an outside service: those to hold, of groups that we
    /// lead; those to look at, of groups whose leader is silent.
    pub fn lease_needs(&self, now: Now) -> Vec<(GroupId, LeaseNeed)> {
        let due = self.leases.iter().take_while(|(at, _)| *at <= now.mono);
        let need = |(_, id): &(Timestamp, GroupId)| {
            let (need, _) = self.lease_of(self.groups.get(id)?)?;
            Some((*id, need))
        };
        due.filter_map(need).collect()
    }

    /// When [`Self::lease_needs`] has something to say, if nothing else happens before.
    pub fn lease_due(&self) -> Option<Timestamp> {
        self.leases.first().map(|(at, _)| *at)
    }

    /// The lease of a group that we are in, and from when on it is worth a question.
    fn lease_of(&self, group: &Group) -> Option<(LeaseNeed, Timestamp)> {
        let chain = group.inside(&self.me).filter(|_| self.up)?;
        let roster = &chain.roster;
        if roster.heir.is_some() {
            return None;
        }
        if roster.leader.device == self.me.device {
            return Some((LeaseNeed::Hold, Timestamp::ZERO));
        }
        let heard = group.heard.unwrap_or(self.up_since).max(self.up_since);
        Some((LeaseNeed::Look, heard + self.config.beat * 3 / 2))
    }

    /// Our standing in a group changed, or its leader was heard.
    pub(super) fn arm_lease(&mut self, id: GroupId) {
        let at = self
            .groups
            .get(&id)
            .and_then(|group| self.lease_of(group))
            .map(|(_, at)| at);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if group.lease_at == at {
            return;
        }
        if let Some(old) = core::mem::replace(&mut group.lease_at, at) {
            self.leases.remove(&(old, id));
        }
        self.leases.extend(at.map(|at| (at, id)));
    }
}
