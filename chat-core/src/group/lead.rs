//! What a leader does: appends, persists, then publishes; beats; removes members (G9, G11).
//!
//! Guarantees: an entry is queued for the store before the frame that carries it, and the frame
//! is gated; cut off, a leader signs nothing (R6); a victim is told before the others (G11).

use bytes::Bytes;

use super::chain::{Chain, MAX_ENTRIES, SOFT_ENTRIES};
use super::entry::{Draft, Entry, Op, Seniority, Term};
use super::types::{GroupError, GroupEvent, LeavePlan};
use super::{Group, Groups, Membership, Timer, check_text, rows};
use crate::channel::Channel;
use crate::effect::{Outgoing, Table};
use crate::id::{DeviceId, GroupId, GroupName, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::group::{GroupAck, GroupBeat, Place, Removed};

/// Supporters that a claim needs (reliability 1.4), as Genesis says it.
const QUORUM: u8 = 2;
const AVAILABLE: u8 = 1;

impl Groups {
    /// Creates a group that we lead. Works offline: nobody else can have signed for it.
    ///
    /// # Errors
    /// [`GroupError::Full`].
    pub fn create(&mut self, name: &GroupName, now: Now) -> Result<GroupId, GroupError> {
        self.make_room()?;
        let nonce = self.rng.bytes();
        let draft = Draft {
            group: GroupId([0; 32]),
            term: Term {
                round: 1,
                majority: true,
                seniority: Seniority {
                    round: 1,
                    index: 1,
                    place: 0,
                },
                claimant: self.me.device,
            },
            index: 1,
            prev: [0; 32],
            op: Op::Genesis {
                name: name.clone(),
                nonce,
                policy: AVAILABLE,
                quorum: QUORUM,
            },
            author: self.me.user.clone(),
            at: now.wall,
        };
        let entry = Entry::sign(draft, &*self.signer).expect("two names fit an entry");
        let id = entry.group();
        let mut group = Group::default();
        group.record.nonce = Some(nonce);
        self.groups.insert(id, group);
        self.save(id);
        self.absorb(id, &[entry.bytes], now);
        Ok(id)
    }

    /// Removes a member with all its devices.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn kick(
        &mut self,
        group: GroupId,
        user: &UserId,
        reason: &str,
        now: Now,
    ) -> Result<(), GroupError> {
        check_text(reason)?;
        if *user == self.me.user {
            return Err(GroupError::Oneself);
        }
        let roster = &self.reign(group)?.roster;
        let instances: Vec<_> = roster
            .devices(user)
            .map(|device| (device, roster.seats[&device].nonce))
            .collect();
        if instances.is_empty() {
            return Err(GroupError::NoSuchMember { user: user.clone() });
        }
        let op = Op::Kick {
            user: user.clone(),
            instances,
            reason: reason.to_owned(),
        };
        let index = self.append(group, op, now)?;
        let removed = self.chain(group).and_then(|chain| {
            let entry = chain.bytes(index)?.to_vec();
            Some(Removed {
                group: group.0,
                entry: entry.try_into().ok()?,
            })
        });
        if let Some(removed) = removed {
            self.mail(user, removed);
        }
        self.publish(group, index);
        Ok(())
    }

    /// Renames the group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn rename(&mut self, group: GroupId, name: &GroupName, now: Now) -> Result<(), GroupError> {
        self.reign(group)?;
        let index = self.append(group, Op::Meta { name: name.clone() }, now)?;
        self.publish(group, index);
        Ok(())
    }

    /// What leaving would do (G2).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn plan_leave(&self, group: GroupId) -> Result<LeavePlan, GroupError> {
        let held = self.groups.get(&group).ok_or(GroupError::NoSuchGroup)?;
        let chain = held.inside(&self.me).ok_or(GroupError::NotMember)?;
        let leads = chain.roster.leader.device == self.me.device;
        let successor = chain.roster.successor().filter(|_| leads);
        Ok(LeavePlan {
            group,
            closes: leads && successor.is_none(),
            successor: successor.map(|member| member.user),
        })
    }

    /// Leaves. Messages stop at once; a member's leave is repeated until the log shows it (G12). A
    /// leader with others in the group first hands over to the planned successor, and is out once
    /// the successor leads; when the successor declines, the leave is off. The last member closes
    /// the group (G23).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn leave(&mut self, group: GroupId, now: Now) -> Result<(), GroupError> {
        let held = self.groups.get_mut(&group).ok_or(GroupError::NoSuchGroup)?;
        match held.standing(&self.me) {
            Some(Membership::Leaving) => return Ok(()),
            Some(Membership::Member | Membership::Leader) => {}
            _ => return Err(GroupError::NotMember),
        }
        held.record.leaving = held.record.nonce;
        held.backoff = super::RESEND_FIRST;
        self.save(group);
        if self.leading(group) {
            self.pursue_leave(group, now);
        } else if self.up {
            self.resend(group, now);
        }
        Ok(())
    }

    /// The chain that we lead and may sign for now.
    pub(super) fn reign(&self, group: GroupId) -> Result<&Chain, GroupError> {
        let held = self.groups.get(&group).ok_or(GroupError::NoSuchGroup)?;
        if held.chain.as_ref().is_some_and(|chain| chain.roster.closed) {
            return Err(GroupError::Closed);
        }
        let chain = held.inside(&self.me).ok_or(GroupError::NotMember)?;
        if chain.roster.leader.device != self.me.device {
            let leader = chain.roster.leader.user.clone();
            return Err(GroupError::NotLeader { leader });
        }
        if chain.roster.heir.is_some() {
            return Err(GroupError::HandingOver);
        }
        if !self.up {
            return Err(GroupError::Offline);
        }
        Ok(chain)
    }

    pub(super) fn chain(&self, group: GroupId) -> Option<&Chain> {
        self.groups.get(&group)?.chain.as_ref()
    }

    pub(super) fn leading(&self, group: GroupId) -> bool {
        let held = self.groups.get(&group);
        held.is_some_and(|held| held.leading(&self.me).is_some())
    }

    /// Signs an entry that the caller has checked, applies it and queues its row; a checkpoint
    /// follows when one is due. Returns its index; the caller publishes from there.
    pub(super) fn append(&mut self, id: GroupId, op: Op, now: Now) -> Result<u64, GroupError> {
        let chain = self.chain(id).ok_or(GroupError::NoSuchGroup)?;
        let index = chain.index() + 1;
        let grows = matches!(op, Op::Admit(_) | Op::Meta { .. });
        let max = if grows { SOFT_ENTRIES } else { MAX_ENTRIES };
        let full = GroupError::Full {
            what: "log entries",
            max: usize::try_from(max).unwrap_or(usize::MAX),
        };
        let entry = self.sign(id, op, now).filter(|_| index <= max);
        self.absorb(id, &[entry.ok_or(full)?], now);
        let every = self.config.checkpoint_every;
        let due = self.chain(id).filter(|chain| {
            let roster = &chain.roster;
            every > 0
                && chain.index() - roster.checkpoint >= every
                && chain.index() < SOFT_ENTRIES
                && roster.heir.is_none()
                && !roster.closed
        });
        if let Some(state) = due.map(|chain| chain.roster.digest()) {
            mark("group-checkpoint");
            if let Some(entry) = self.sign(id, Op::Checkpoint { state }, now) {
                self.absorb(id, &[entry], now);
            }
        }
        Ok(index)
    }

    fn sign(&self, id: GroupId, op: Op, now: Now) -> Option<Bytes> {
        let chain = self.chain(id)?;
        let roster = &chain.roster;
        let term = if op == Op::Claim {
            Term {
                round: roster.term.round + 1,
                majority: true,
                seniority: roster.seats.get(&self.me.device)?.seniority,
                claimant: self.me.device,
            }
        } else {
            roster.term
        };
        let draft = Draft {
            group: id,
            term,
            index: chain.index() + 1,
            prev: chain.hash(),
            op,
            author: self.me.user.clone(),
            at: now.wall,
        };
        Entry::sign(draft, &*self.signer).map(|entry| entry.bytes)
    }

    /// Sends the entries from `from` to everybody, once they are durable.
    pub(super) fn publish(&mut self, id: GroupId, mut from: u64) {
        let mut frames = Vec::new();
        if let Some(chain) = self.chain(id) {
            while from <= chain.index() {
                let page = chain.page(from, chain.index());
                from += page.entries.len() as u64;
                frames.push(Outgoing::durable(Channel::Group(id), page).gated());
            }
        }
        for frame in frames {
            let gated = !planted("group-publish-before-persist");
            self.effects.send(Outgoing { gated, ..frame });
        }
    }

    /// Every beat: shows that we lead, or repeats what waits for somebody's answer.
    pub(super) fn beat(&mut self, id: GroupId, now: Now) {
        if !self.up || !self.leading(id) {
            return;
        }
        let (beat, jitter) = (self.config.beat, self.config.beat / 20);
        self.after(id, Timer::Beat, beat, jitter, now);
        if self.repeat_handover(id) {
            return;
        }
        self.pursue_leave(id, now);
        self.check_offer(id);
        let Some(chain) = self.chain(id).filter(|chain| chain.roster.heir.is_none()) else {
            return;
        };
        let body = GroupBeat {
            group: id.0,
            round: chain.roster.term.round,
            index: chain.index(),
            hash: chain.hash(),
            commit: self.commit(id),
        };
        let frame = Outgoing::ephemeral(Channel::Group(id), body);
        self.effects.send(frame.with_ttl(beat).gated());
    }

    /// The highest index that more than half of the members are known to hold.
    fn commit(&self, id: GroupId) -> u64 {
        let Some((group, chain)) = self
            .groups
            .get(&id)
            .and_then(|group| Some((group, group.chain.as_ref()?)))
        else {
            return 0;
        };
        let held = |device: &DeviceId| {
            if *device == self.me.device {
                chain.index()
            } else {
                group.acks.get(device).copied().unwrap_or(0)
            }
        };
        let mut heads: Vec<_> = chain.roster.seats.keys().map(held).collect();
        heads.sort_unstable_by(|a, b| b.cmp(a));
        heads.get(heads.len() / 2).copied().unwrap_or(0)
    }

    /// A member's head: feeds `commit`; one beyond ours means that we lack something.
    pub(super) fn handle_head(&mut self, from: &Sender, ack: &GroupAck, now: Now) {
        let id = GroupId(ack.group);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(chain) = &group.chain else {
            return;
        };
        let seat = chain.roster.seats.get(&from.device);
        if seat.is_none_or(|seat| seat.user != from.user) {
            return;
        }
        let ours = (chain.roster.term.round, chain.index());
        let place = Place {
            index: ack.index,
            hash: ack.hash,
        };
        if (ack.round, ack.index) > ours {
            self.want(id, &from.user, now);
        } else if chain.common(&[place]) == ack.index {
            group.acks.insert(from.device, ack.index);
        } else {
            self.want(id, &from.user, now);
        }
    }

    /// Drops the requests that only a leader answers, once we lead no more.
    pub(super) fn drop_joins(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.acks.clear();
        let shown = group.shown_requests();
        for request in core::mem::take(&mut group.joins).into_keys() {
            let key = rows::join_key(id, request);
            self.effects.delete(Table::Groups, key);
        }
        for request in shown {
            self.effects.emit_gated(GroupEvent::JoinSettled {
                group: id,
                request: request.request,
            });
        }
    }
}
