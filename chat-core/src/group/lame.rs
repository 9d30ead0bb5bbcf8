//! A leader that a kick of an abandoned branch names (R8).
//!
//! Its beats refresh nobody's patience and it supports every other candidate. It hands over to a
//! member that answered lately, who then logs the kick. With nobody there it stays as a caretaker;
//! as the only member it logs that the kick means nothing, in the log and not in memory.

use super::op::Op;
use super::{Group, Groups};
use crate::id::GroupId;
use crate::probe::{mark, planted};
use crate::time::Now;

/// True when the reigning leader must go and somebody else could lead.
pub(super) fn is_lame(group: &Group) -> bool {
    let Some(chain) = &group.chain else {
        return false;
    };
    let leader = chain.roster.leader.device;
    let seat = chain.roster.seats.get(&leader);
    let named = seat.is_some_and(|seat| group.hidden.contains(&(leader, seat.nonce)));
    named
        && chain
            .roster
            .seats
            .keys()
            .any(|device| *device != leader && group.sees(*device))
}

impl Groups {
    /// What a leader that a kick names logs next.
    pub(super) fn lame_task(&self, id: GroupId, now: Now) -> Option<Op> {
        let group = self.groups.get(&id)?;
        let chain = group.leading(&self.me)?;
        let roster = &chain.roster;
        let seat = roster.seats.get(&self.me.device)?;
        let own = (self.me.device, seat.nonce);
        if !group.hidden.contains(&own) {
            return None;
        }
        if roster.seats.len() == 1 {
            let names = group.sticky.iter().find(|(hash, kick)| {
                kick.instances.contains(&own) && !roster.voided.contains(*hash)
            });
            mark("group-void");
            return names.map(|(hash, _)| Op::Void { kick: *hash });
        }
        let live = |device| self.is_live(group, device, now) || planted("group-lame-to-anyone");
        let mut heirs = group.visible().into_iter();
        let heir = heirs.find(|m| m.device != self.me.device && live(m.device));
        mark(if heir.is_some() {
            "group-lame-hands-over"
        } else {
            "group-caretaker"
        });
        heir.map(|heir| Op::Handover {
            to: heir.device,
            agreed: false,
        })
    }
}
