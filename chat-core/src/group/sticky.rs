//! What stays in force although the branch that decided it was abandoned (reliability 1.5, 1.6;
//! G12).
//!
//! A kick or a leave of a valid branch hides the instances that it names, here at once, until the
//! log shows that they are gone. Whoever was let in there is let in again without another answer.
//! Guarantees: nothing is adopted that a valid branch did not say; what is adopted is stored with
//! the change of the head; a fenced term adds nothing (R9).
//!
//! Bounds: [`MAX_STICKY`] kicks and as many leaves; later ones are not adopted. Admissions count
//! among the waiting requests.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::entry::{Entry, Nonce};
use super::op::{Op, Removal};
use super::roster::{Roster, Way};
use super::rows::{self, Grant, Waiting};
use super::term::{Hash, Term};
use super::types::Member;
use super::{Group, Groups};
use crate::effect::Table;
use crate::id::{DeviceId, GroupId, RequestId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;

/// Kicks of abandoned branches that are kept.
pub(super) const MAX_STICKY: usize = 1_024;

/// The kicks of one entry that was signed on another branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kick {
    pub removals: Vec<Removal>,
    /// All that they name.
    pub instances: Vec<(DeviceId, Nonce)>,
    /// The term of the order.
    pub term: Term,
    pub bytes: Bytes,
}

impl Kick {
    fn of(entry: &Entry) -> Option<Self> {
        let removals = entry.draft.op.removals();
        let instances = removals.iter().flat_map(|one| one.instances.clone());
        let instances: Vec<_> = instances.collect();
        (!instances.is_empty()).then(|| Self {
            removals,
            instances,
            term: entry.draft.term,
            bytes: entry.bytes.clone(),
        })
    }

    /// The kick in an entry that was checked when it was stored.
    pub(super) fn read(bytes: &Bytes) -> Option<(Hash, Self)> {
        let entry = Entry::open(bytes)?;
        Some((entry.hash, Self::of(&entry)?))
    }

    /// True when the log shows it, or says that it means nothing.
    pub(super) fn settled(&self, hash: &Hash, roster: &Roster) -> bool {
        let went = |(device, nonce): &(DeviceId, Nonce)| roster.went(*device, *nonce);
        roster.voided.contains(hash)
            || roster.is_fenced(&self.term)
            || self.instances.iter().all(went)
    }

    /// True when no later branch can bring back what it names without showing a kick or a leave.
    fn is_over(&self, roster: &Roster) -> bool {
        let over = |instance: &(DeviceId, Nonce)| {
            let gone = roster.gone.get(instance);
            gone.is_some_and(|gone| gone.way != Way::Replaced)
        };
        self.instances.iter().all(over) || roster.is_fenced(&self.term)
    }
}

impl Group {
    /// True when an unsettled kick or leave names this instance. The reigning leader is excepted,
    /// or nobody could log it (R8).
    pub(super) fn is_hidden(&self, device: DeviceId, nonce: Nonce) -> bool {
        let leads = |chain: &super::Chain| chain.roster.leader.device == device;
        self.hidden.contains(&(device, nonce)) && !self.chain.as_ref().is_some_and(leads)
    }

    /// True when the device sits in the roster and nothing hides it.
    pub(super) fn sees(&self, device: DeviceId) -> bool {
        let seat = self
            .chain
            .as_ref()
            .and_then(|c| c.roster.seats.get(&device));
        seat.is_some_and(|seat| !self.is_hidden(device, seat.nonce))
    }

    /// The members that count, most senior first.
    pub(super) fn visible(&self) -> Vec<Member> {
        let mut members = self
            .chain
            .as_ref()
            .map_or_else(Vec::new, |c| c.roster.members());
        members.retain(|member| self.sees(member.device));
        members
    }

    /// The members of the log that an unsettled kick or leave hides.
    pub(super) fn unseen(&self) -> Vec<Member> {
        let mut members = self
            .chain
            .as_ref()
            .map_or_else(Vec::new, |c| c.roster.members());
        members.retain(|member| !self.sees(member.device));
        members
    }

    /// How much of abandoned branches the log does not show yet.
    pub(super) fn unsettled(&self, me: &Sender) -> usize {
        let Some(chain) = &self.chain else {
            return 0;
        };
        let kicks = self.sticky.iter();
        let kicks = kicks.filter(|(hash, kick)| !kick.settled(hash, &chain.roster));
        let leads = chain.roster.leader.device == me.device;
        let granted = self.joins.values().filter(|waiting| match waiting.grant {
            Grant::Open => false,
            Grant::Approved => leads,
            Grant::Adopted => true,
        });
        kicks.count() + self.lefts.len() + granted.count()
    }
}

impl Groups {
    /// Takes over what the entries of a valid branch that lost decided, oldest first.
    pub(super) fn adopt(&mut self, id: GroupId, entries: &[Entry], now: Now) {
        for entry in entries {
            let Some(group) = self.groups.get(&id) else {
                return;
            };
            let Some(chain) = &group.chain else {
                return;
            };
            let fenced = chain.roster.is_fenced(&entry.draft.term);
            match &entry.draft.op {
                // A leave is signed by the leaver, so it is no order.
                Op::Kick { .. } | Op::Admit(_) | Op::Batch { .. } if fenced => {
                    mark("group-fenced-order");
                }
                Op::Left { proof, user } => {
                    let instance = proof.instance();
                    let went = chain.roster.went(instance.0, instance.1);
                    if went || group.lefts.len() >= MAX_STICKY {
                        continue;
                    }
                    mark("group-orphan-left");
                    self.drop_granted(id, &instance);
                    let key = rows::left_key(id, &instance);
                    self.effects
                        .put(Table::Groups, key, rows::left_row(proof, user));
                    if let Some(group) = self.groups.get_mut(&id) {
                        let left = (proof.clone(), user.clone());
                        group.lefts.insert(instance, left);
                    }
                }
                op @ (Op::Kick { .. } | Op::Admit(_) | Op::Batch { .. }) => {
                    self.adopt_kick(id, entry);
                    for one in op.admissions() {
                        let waiting = Waiting {
                            user: one.user.clone(),
                            device: one.device,
                            nonce: one.nonce,
                            note: String::new(),
                            since: now.wall,
                            grant: Grant::Adopted,
                        };
                        self.adopt_admission(id, waiting);
                    }
                }
                _ => {}
            }
        }
    }

    fn adopt_kick(&mut self, id: GroupId, entry: &Entry) {
        let Some(kick) = Kick::of(entry) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let settled = group
            .chain
            .as_ref()
            .is_some_and(|chain| kick.settled(&entry.hash, &chain.roster));
        if settled || group.sticky.contains_key(&entry.hash) || planted("group-orphan-kick-dropped")
        {
            return;
        }
        if group.sticky.len() >= MAX_STICKY {
            mark("group-sticky-full");
            return;
        }
        mark("group-orphan-kick");
        let instances = kick.instances.clone();
        group.sticky.insert(entry.hash, kick);
        if !planted("group-sticky-not-stored") {
            let key = rows::kick_key(id, &entry.hash);
            self.effects.put(Table::Groups, key, entry.bytes.clone());
        }
        for instance in instances {
            self.drop_granted(id, &instance);
        }
    }

    fn adopt_admission(&mut self, id: GroupId, waiting: Waiting) {
        let max = self.config.max_joins;
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let instance = (waiting.device, waiting.nonce);
        let kicked = |kick: &Kick| kick.instances.contains(&instance);
        let out = group.lefts.contains_key(&instance) || group.sticky.values().any(kicked);
        let known = group.chain.as_ref().is_some_and(|chain| {
            chain.roster.sits(instance.0, instance.1) || chain.roster.went(instance.0, instance.1)
        });
        if out || known || planted("group-orphan-admit-dropped") {
            return;
        }
        let same = |waiting: &&Waiting| (waiting.device, waiting.nonce) == instance;
        let asked = group.joins.iter().find(|(_, waiting)| same(waiting));
        let request = asked.map_or(RequestId(waiting.nonce), |(request, _)| *request);
        let adopted = |held: &Waiting| held.grant == Grant::Adopted;
        if group.joins.get(&request).is_some_and(adopted) {
            return;
        }
        if !group.joins.contains_key(&request) && group.joins.len() >= max {
            mark("group-orphan-admits-full");
            return;
        }
        mark("group-orphan-admit");
        let key = rows::join_key(id, request);
        self.effects.put(Table::Groups, key, waiting.to_row());
        group.joins.insert(request, waiting);
    }

    /// A leave or a kick of the same instance undoes its admission.
    fn drop_granted(&mut self, id: GroupId, instance: &(DeviceId, Nonce)) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let of = |waiting: &Waiting| {
            waiting.is_granted() && (waiting.device, waiting.nonce) == *instance
        };
        let all: Vec<_> = group
            .joins
            .iter()
            .filter(|(_, waiting)| of(waiting))
            .map(|(request, _)| *request)
            .collect();
        for request in all {
            self.drop_waiting(id, request);
        }
    }

    /// Drops what the log shows by now, and notes whom the rest hides.
    pub(super) fn hide(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let roster = &chain.roster;
        let mut over = Vec::new();
        group.sticky.retain(|hash, kick| {
            let keep = !kick.is_over(roster);
            if !keep {
                over.push(rows::kick_key(id, hash));
            }
            keep
        });
        group.lefts.retain(|instance, _| {
            let keep = !roster.went(instance.0, instance.1);
            if !keep {
                over.push(rows::left_key(id, instance));
            }
            keep
        });
        let leads = roster.leader.device == self.me.device;
        group.joins.retain(|request, waiting| {
            let instance = (waiting.device, waiting.nonce);
            let known = roster.sits(instance.0, instance.1) || roster.went(instance.0, instance.1);
            // Who leads is in, also by a seat that it had left: letting it in anew would take that.
            let reigns = waiting.device == roster.leader.device;
            // What the leader shows goes when it answers.
            let keep = !(reigns || known && (waiting.is_granted() || !leads));
            if !keep {
                over.push(rows::join_key(id, *request));
            }
            keep
        });
        for key in over {
            self.effects.delete(Table::Groups, key);
        }
        let open = group.sticky.iter();
        let open = open.filter(|(hash, kick)| !kick.settled(hash, roster));
        let kicked = open.flat_map(|(_, kick)| kick.instances.iter().copied());
        group.hidden = kicked
            .chain(group.lefts.keys().copied())
            .filter(|(device, nonce)| !roster.went(*device, *nonce))
            .collect::<BTreeSet<_>>();
    }
}
