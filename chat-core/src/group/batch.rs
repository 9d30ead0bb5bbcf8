//! Several changes of the roster in one entry: all or none (G19).
//!
//! Guarantees: nothing is signed before every step was checked, and the error names the step that
//! cannot be done; removals come before admissions; no member is named twice; what changes the name
//! or the lead never shares an entry with the roster. In a strict group a batch is one change: it
//! waits for the majority of the one before, and changes no more seats than that every majority
//! before it shares a member with every majority after it (IG7).
//!
//! On a branch that loses, a batch falls apart like everything else there: its removals stay in
//! force one by one, its admissions become requests that need no answer (G6).

use std::collections::BTreeSet;

use super::entry::Nonce;
use super::joins::ADMITTED;
use super::op::{Admission, MAX_BATCH, MAX_DEVICES, Op, Removal};
use super::roster::Roster;
use super::rows::Waiting;
use super::types::{BatchStep, GroupError, Policy};
use super::{Groups, check_text};
use crate::id::{DeviceId, GroupId, RequestId, UserId};
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::group::MAX_ENTRY;

impl Roster {
    /// Whether a batch may follow: see the guarantees of this file.
    pub(super) fn allows_batch(&self, removals: &[Removal], admissions: &[Admission]) -> bool {
        let mut named = BTreeSet::new();
        let kicked = removals.iter().flat_map(|one| &one.instances);
        let mut all = kicked
            .map(|(device, _)| *device)
            .chain(admissions.iter().map(|one| one.device));
        removals.len() + admissions.len() > 0
            && removals.iter().all(|one| !one.instances.is_empty())
            && all.all(|device| device != self.leader.device && named.insert(device))
            && self.seats_after(removals, admissions) <= self.capacity()
            && (self.policy == Policy::Available || self.majorities_meet(removals, admissions))
    }

    fn removed(&self, removals: &[Removal]) -> usize {
        let sits = |(device, nonce): &&(DeviceId, Nonce)| self.sits(*device, *nonce);
        let all = removals.iter().flat_map(|one| &one.instances);
        all.filter(sits).count()
    }

    fn added(&self, admissions: &[Admission]) -> usize {
        let new = |one: &&Admission| !self.seats.contains_key(&one.device);
        admissions.iter().filter(new).count()
    }

    fn seats_after(&self, removals: &[Removal], admissions: &[Admission]) -> usize {
        self.seats.len() - self.removed(removals) + self.added(admissions)
    }

    fn majorities_meet(&self, removals: &[Removal], admissions: &[Admission]) -> bool {
        let after = self.seats_after(removals, admissions) / 2 + 1;
        let everybody = self.seats.len() + self.added(admissions);
        self.majority() + after > everybody || planted("group-batch-too-wide")
    }
}

/// A batch whose steps were all checked.
#[derive(Default)]
struct Plan {
    removals: Vec<Removal>,
    admissions: Vec<Admission>,
    /// What is answered with it.
    requests: Vec<(RequestId, Waiting)>,
    named: BTreeSet<DeviceId>,
}

impl Groups {
    /// Does all these steps in one entry, or none of them (G19). A single step is done as the
    /// command of that name; a batch without steps does nothing.
    ///
    /// # Errors
    /// [`GroupError::InBatch`] names the step that cannot be done, [`GroupError::TooWide`] and
    /// others concern all of it; then nothing was changed.
    pub fn apply(&mut self, id: GroupId, steps: &[BatchStep], now: Now) -> Result<(), GroupError> {
        match steps {
            [] => return Ok(()),
            [BatchStep::Approve(request)] => return self.approve(id, *request, now),
            [BatchStep::Kick { user, reason }] => return self.kick(id, user, reason, now),
            [BatchStep::Rename(name)] => return self.rename(id, name, now),
            [BatchStep::HandOver(user)] => return self.hand_over(id, user, now),
            _ => {}
        }
        self.reign(id, now)?;
        let mut plan = Plan::default();
        for (step, what) in steps.iter().enumerate() {
            self.plan_step(id, what, &mut plan)
                .map_err(|why| GroupError::InBatch {
                    step,
                    why: Box::new(why),
                })?;
        }
        let Plan {
            removals,
            admissions,
            requests,
            ..
        } = plan;
        let roster = &self.reign(id, now)?.roster;
        let max = self.config.max_roster.min(roster.capacity());
        if roster.seats_after(&removals, &admissions) > max {
            let what = "members";
            return Err(GroupError::Full { what, max });
        }
        if roster.policy == Policy::Strict {
            if !roster.majorities_meet(&removals, &admissions) {
                mark("group-batch-too-wide");
                let seats = roster.removed(&removals) + roster.added(&admissions);
                return Err(GroupError::TooWide { seats });
            }
            if !self.ready(id) {
                return Err(GroupError::NotCommitted);
            }
        }
        let victims: Vec<UserId> = removals.iter().map(|one| one.user.clone()).collect();
        if !victims.is_empty() || !admissions.is_empty() {
            let newcomers = admissions.clone();
            let op = Op::Batch {
                removals,
                admissions,
            };
            if self.is_too_long(id, &op, now) {
                let what = "bytes of one entry";
                let max = MAX_ENTRY;
                return Err(GroupError::Full { what, max });
            }
            mark("group-batch");
            let index = self.append(id, op, now)?;
            for victim in &victims {
                self.tell_removed(id, index, victim);
            }
            self.publish(id, index);
            self.welcome(id, &newcomers);
        }
        for (request, waiting) in requests {
            self.drop_waiting(id, request);
            self.answer(id, request, &waiting.user, ADMITTED, "");
        }
        Ok(())
    }

    fn plan_step(&self, id: GroupId, step: &BatchStep, plan: &mut Plan) -> Result<(), GroupError> {
        let roster = &self.chain(id).ok_or(GroupError::NoSuchGroup)?.roster;
        let devices: Vec<DeviceId> = match step {
            BatchStep::Rename(_) | BatchStep::HandOver(_) => return Err(GroupError::Mixed),
            BatchStep::Kick { user, reason } => {
                check_text(reason)?;
                if *user == self.me.user {
                    return Err(GroupError::Oneself);
                }
                let instances: Vec<_> = roster
                    .devices(user)
                    .map(|device| (device, roster.seats[&device].nonce))
                    .collect();
                if instances.is_empty() {
                    return Err(GroupError::NoSuchMember { user: user.clone() });
                }
                let devices = instances.iter().map(|(device, _)| *device).collect();
                plan.removals.push(Removal {
                    user: user.clone(),
                    instances,
                    reason: reason.clone(),
                });
                devices
            }
            BatchStep::Approve(request) => {
                let chosen = self.waiting(id, &[*request])?;
                let mut devices = Vec::new();
                for (request, waiting) in chosen {
                    devices.push(waiting.device);
                    let instance = (waiting.device, waiting.nonce);
                    let known =
                        roster.sits(instance.0, instance.1) || roster.went(instance.0, instance.1);
                    if !known {
                        plan.admissions.push(Admission {
                            user: waiting.user.clone(),
                            device: waiting.device,
                            nonce: waiting.nonce,
                        });
                    }
                    plan.requests.push((request, waiting));
                }
                devices
            }
        };
        let full = |what, max| Err(GroupError::Full { what, max });
        if !devices.into_iter().all(|device| plan.named.insert(device)) {
            return Err(GroupError::NamedTwice);
        }
        if plan.admissions.len() > MAX_BATCH {
            return full("admissions at a time", MAX_BATCH);
        }
        let kicked = plan.removals.iter().map(|one| one.instances.len());
        if plan.removals.len() > MAX_BATCH {
            return full("removals at a time", MAX_BATCH);
        }
        if kicked.sum::<usize>() > MAX_DEVICES {
            return full("devices removed at a time", MAX_DEVICES);
        }
        Ok(())
    }
}
