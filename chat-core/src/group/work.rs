//! What waits to be logged, and the leader that logs it (reliability 1.5).
//!
//! In this order: its own going when a kick names it, kicks and leaves of abandoned branches, kicks
//! that it was told to do, its own coming back, admissions that need no answer, the fence of the reign before. In a
//! strict group one change of the roster at a time.

use std::collections::BTreeSet;

use super::chain::SOFT_ENTRIES;
use super::entry::Nonce;
use super::op::{Admission, MAX_BATCH, MAX_DEVICES, Op};
use super::roster::Roster;
use super::rows::Stage;
use super::types::Policy;
use super::{Group, Groups};
use crate::id::{DeviceId, GroupId, UserId};
use crate::probe::mark;
use crate::time::Now;
use crate::wire::group::Removed;

/// Entries that one input may make us log; the rest follows with the next.
const MAX_AT_ONCE: usize = 64;

impl Groups {
    /// Logs what waits, as far as we may.
    pub(super) fn work(&mut self, id: GroupId, now: Now) {
        if self.working || !self.leading(id) {
            return;
        }
        self.working = true;
        let before = self.shown(id);
        for _ in 0..MAX_AT_ONCE {
            if self.reign(id, now).is_err() {
                break;
            }
            self.count_commit(id);
            let Some(op) = self.next_task(id, now) else {
                break;
            };
            if op.changes_roster() && !self.ready(id) {
                break;
            }
            let Ok(index) = self.append(id, op.clone(), now) else {
                break;
            };
            match op {
                Op::Kick { user, .. } => self.tell_removed(id, index, &user),
                Op::Admit(list) => self.welcome(id, &list),
                _ => {}
            }
            self.publish(id, index);
        }
        self.working = false;
        self.tell_requests(id, &before);
    }

    fn next_task(&mut self, id: GroupId, now: Now) -> Option<Op> {
        if let Some(op) = self.lame_task(id, now) {
            return Some(op);
        }
        let group = self.groups.get(&id)?;
        let chain = group.leading(&self.me)?;
        let roster = &chain.roster;
        group
            .sticky_task(roster)
            .or_else(|| group.left_task(roster))
            .or_else(|| self.wanted_task(id))
            .or_else(|| self.return_task(id))
            .or_else(|| self.granted_task(id))
            .or_else(|| self.fence_task(&self.groups[&id], now))
    }

    /// The next kick that we were told to do and could not log at once.
    fn wanted_task(&self, id: GroupId) -> Option<Op> {
        let group = self.groups.get(&id)?;
        let roster = &group.leading(&self.me)?.roster;
        let mut wanted = group.record.wanted.iter();
        wanted.find_map(|kick| {
            let open: Vec<_> = kick
                .instances
                .iter()
                .map(|(device, nonce)| (DeviceId(*device), *nonce))
                .filter(|(device, nonce)| roster.sits(*device, *nonce))
                .collect();
            let user = UserId::new(&kick.user).ok()?;
            kick_op(&user, &open, &kick.reason, roster)
        })
    }

    /// Who asked to come back while it left, and leads now, has nobody to ask: it lets itself in by
    /// its new membership. The leave of the old one then takes nothing, whoever logged it where.
    fn return_task(&self, id: GroupId) -> Option<Op> {
        let group = self.groups.get(&id)?;
        let chain = group.leading(&self.me)?;
        let roster = &chain.roster;
        let asking = group.record.asking.as_ref();
        let asking = asking.filter(|asking| asking.stage == Stage::Open)?;
        let own = (self.me.device, roster.seats.get(&self.me.device)?.nonce);
        // Whom a kick names it does not save.
        let room = chain.index() < SOFT_ENTRIES && roster.seats.len() < roster.capacity();
        if own.1 == asking.nonce || group.hidden.contains(&own) || !room {
            return None;
        }
        mark("group-leads-while-asking");
        Some(Op::Admit(vec![Admission {
            user: self.me.user.clone(),
            device: self.me.device,
            nonce: asking.nonce,
        }]))
    }

    /// Those who are let in without another answer, the first to ask first.
    fn granted_task(&self, id: GroupId) -> Option<Op> {
        let group = self.groups.get(&id)?;
        let roster = &group.leading(&self.me)?.roster;
        let max = self.config.max_roster.min(roster.capacity());
        let room = max.saturating_sub(roster.seats.len());
        let batch = match roster.policy {
            Policy::Available => MAX_BATCH.min(room),
            Policy::Strict => 1.min(room),
        };
        let mut granted: Vec<_> = group.joins.iter().filter(|(_, w)| w.is_granted()).collect();
        granted.sort_by_key(|(request, waiting)| (waiting.since, **request));
        let mut devices = BTreeSet::new();
        granted.retain(|(_, waiting)| devices.insert(waiting.device));
        let list: Vec<_> = granted
            .into_iter()
            .take(batch)
            .map(|(_, waiting)| Admission {
                user: waiting.user.clone(),
                device: waiting.device,
                nonce: waiting.nonce,
            })
            .collect();
        (!list.is_empty()).then_some(Op::Admit(list))
    }

    /// Tells a victim before the others (G11).
    pub(super) fn tell_removed(&mut self, id: GroupId, index: u64, user: &UserId) {
        let removed = self.chain(id).and_then(|chain| {
            let entry = chain.bytes(index)?.to_vec();
            Some(Removed {
                group: id.0,
                entry: entry.try_into().ok()?,
            })
        });
        if let Some(removed) = removed {
            self.mail(user, removed);
        }
    }
}

impl Group {
    fn sticky_task(&self, roster: &Roster) -> Option<Op> {
        let mut open = self.sticky.iter();
        open.find_map(|(hash, kick)| {
            if kick.settled(hash, roster) {
                return None;
            }
            let open = |one: &(DeviceId, Nonce)| !roster.went(one.0, one.1) && !roster.reigns(one);
            let op = kick.removals.iter().find_map(|one| {
                let rest: Vec<_> = one.instances.iter().copied().filter(open).collect();
                kick_op(&one.user, &rest, &one.reason, roster)
            })?;
            mark("group-sticky-logged");
            Some(op)
        })
    }

    fn left_task(&self, roster: &Roster) -> Option<Op> {
        let mut open = self.lefts.iter();
        let (_, (proof, user)) = open.find(|(instance, _)| !roster.reigns(instance))?;
        Some(Op::Left {
            proof: proof.clone(),
            user: user.clone(),
        })
    }
}

/// A kick of as many of these instances as one entry may name.
pub(super) fn kick_op(
    user: &UserId,
    instances: &[(DeviceId, Nonce)],
    reason: &str,
    roster: &Roster,
) -> Option<Op> {
    let strict = roster.policy == Policy::Strict;
    let mut seats = 0;
    let mut named: Vec<_> = instances
        .iter()
        .copied()
        .filter(|instance| !roster.reigns(instance))
        .collect();
    named.retain(|(device, nonce)| {
        seats += usize::from(roster.sits(*device, *nonce));
        !strict || seats <= 1 || !roster.sits(*device, *nonce)
    });
    named.truncate(MAX_DEVICES);
    (!named.is_empty()).then(|| Op::Kick {
        user: user.clone(),
        instances: named,
        reason: reason.to_owned(),
    })
}
