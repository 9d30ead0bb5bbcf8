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
use crate::time::Now;

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
        let need = |(id, group): (&GroupId, &Group)| {
            let chain = group.inside(&self.me).filter(|_| self.up)?;
            let roster = &chain.roster;
            if roster.closed || roster.heir.is_some() {
                return None;
            }
            if roster.leader.device == self.me.device {
                return Some((*id, LeaseNeed::Hold));
            }
            let silent = self.silence(group, now) >= self.config.beat * 3 / 2;
            silent.then_some((*id, LeaseNeed::Look))
        };
        self.groups.iter().filter_map(need).collect()
    }
}
