//! What a leader does: appends, persists, then publishes; beats; removes members (G9, G11).
//!
//! Guarantees: an entry is queued for the store before the frame that carries it, and the frame
//! is gated; cut off, a leader signs nothing (R6); a victim is told before the others (G11); after
//! a hand-over it does not beat.

use bytes::Bytes;

use super::chain::{Chain, MAX_ENTRIES, SOFT_ENTRIES};
use super::entry::{Draft, Entry};
use super::op::Op;
use super::rows::WantedKick;
use super::term::{Seniority, Term};
use super::types::{GroupError, GroupEvent, LeavePlan, Policy, Rules};
use super::work::kick_op;
use super::{Group, Groups, Membership, Timer, check_text};
use crate::channel::Channel;
use crate::effect::Outgoing;
use crate::id::{GroupId, GroupName, UserId};
use crate::probe::{mark, planted};
use crate::time::Now;
use crate::wire::group::GroupBeat;

/// Kicks that wait for a majority; beyond it the command says `Full`.
const MAX_WANTED: usize = 64;

impl Groups {
    /// Creates a group that we lead. Works offline: nobody else can have signed for it.
    ///
    /// # Errors
    /// [`GroupError::Full`].
    pub fn create(
        &mut self,
        name: &GroupName,
        rules: Rules,
        now: Now,
    ) -> Result<GroupId, GroupError> {
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
                policy: rules.policy,
                quorum: rules.quorum.max(1),
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

    /// Removes a member with all its devices. In a strict group the removal may have to wait for
    /// the change before it; then it is noted and follows by itself, as long as we lead.
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
        let roster = &self.reign(group, now)?.roster;
        let instances: Vec<_> = roster
            .devices(user)
            .map(|device| (device, roster.seats[&device].nonce))
            .collect();
        if instances.is_empty() {
            return Err(GroupError::NoSuchMember { user: user.clone() });
        }
        if roster.policy == Policy::Strict {
            return self.want_kick(group, user, &instances, reason, now);
        }
        while let Some(op) = self.chain(group).and_then(|chain| {
            let sits = |(device, nonce): &&(_, _)| chain.roster.sits(*device, *nonce);
            let left: Vec<_> = instances.iter().filter(sits).copied().collect();
            kick_op(user, &left, reason, &chain.roster)
        }) {
            let index = self.append(group, op, now)?;
            self.tell_removed(group, index, user);
            self.publish(group, index);
            if planted("group-kick-one-device") {
                break;
            }
        }
        Ok(())
    }

    fn want_kick(
        &mut self,
        group: GroupId,
        user: &UserId,
        instances: &[(crate::id::DeviceId, super::Nonce)],
        reason: &str,
        now: Now,
    ) -> Result<(), GroupError> {
        let held = self.groups.get_mut(&group).ok_or(GroupError::NoSuchGroup)?;
        let kick = WantedKick {
            user: user.as_str().to_owned(),
            instances: instances.iter().map(|(d, n)| (d.0, *n)).collect(),
            reason: reason.to_owned(),
        };
        if let Some(chain) = &held.chain {
            held.record.wanted.retain(|kick| {
                let sits = |(device, nonce): &([u8; 32], _)| {
                    chain.roster.sits(crate::id::DeviceId(*device), *nonce)
                };
                kick.instances.iter().any(sits)
            });
        }
        if held.record.wanted.len() >= MAX_WANTED {
            return Err(GroupError::Full {
                what: "removals that wait",
                max: MAX_WANTED,
            });
        }
        held.record.wanted.push(kick);
        self.save(group);
        self.work(group, now);
        Ok(())
    }

    /// Renames the group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn rename(&mut self, group: GroupId, name: &GroupName, now: Now) -> Result<(), GroupError> {
        self.reign(group, now)?;
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
        let successor = held.successor().filter(|_| leads);
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
        let term = chain.roster.term;
        self.append_under(id, term, op, now)
    }

    /// The same under a term of our own that it begins.
    pub(super) fn append_under(
        &mut self,
        id: GroupId,
        term: Term,
        op: Op,
        now: Now,
    ) -> Result<u64, GroupError> {
        let chain = self.chain(id).ok_or(GroupError::NoSuchGroup)?;
        let index = chain.index() + 1;
        let grows = matches!(op, Op::Meta { .. }) || !op.admissions().is_empty();
        let max = if grows { SOFT_ENTRIES } else { MAX_ENTRIES };
        let full = GroupError::Full {
            what: "log entries",
            max: usize::try_from(max).unwrap_or(usize::MAX),
        };
        let entry = self.sign(id, term, op, now).filter(|_| index <= max);
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
            if let Some(entry) = self.sign(id, term, Op::Checkpoint { state }, now) {
                self.absorb(id, &[entry], now);
            }
        }
        Ok(index)
    }

    /// True when an operation does not fit an entry.
    pub(super) fn is_too_long(&self, id: GroupId, op: &Op, now: Now) -> bool {
        let term = self.chain(id).map(|chain| chain.roster.term);
        term.is_some_and(|term| self.sign(id, term, op.clone(), now).is_none())
    }

    fn sign(&self, id: GroupId, term: Term, op: Op, now: Now) -> Option<Bytes> {
        let chain = self.chain(id)?;
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
        let suspect = self.config.suspect;
        if let Some(group) = self.groups.get_mut(&id) {
            let lately = |at| now.mono.saturating_since(at) < suspect;
            group.acks.retain(|_, acked| lately(acked.at));
        }
        if self.repeat_handover(id) && !planted("group-beats-after-handover") {
            return;
        }
        if self.must_renew(id) {
            self.canvass(id, now);
        }
        self.pursue_leave(id, now);
        self.check_offer(id);
        self.work(id, now);
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let Some(chain) = group.leading(&self.me) else {
            return;
        };
        if chain.roster.heir.is_some() && !planted("group-beats-after-handover") {
            return;
        }
        let body = GroupBeat {
            group: id.0,
            head: chain.head().into(),
            commit: group.committed,
        };
        let frame = Outgoing::ephemeral(Channel::Group(id), body);
        self.effects.send(frame.with_ttl(beat).gated());
        self.remind(id);
    }

    /// What only a leader keeps goes, once we lead no more. Requests stay: whoever leads next may
    /// be gone before it answers them (G14).
    pub(super) fn stop_leading(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.acks.clear();
        for request in group.shown_requests() {
            self.effects.emit_gated(GroupEvent::JoinSettled {
                group: id,
                request: request.request,
            });
        }
        if !group.record.wanted.is_empty() {
            mark("group-removals-dropped");
            group.record.wanted.clear();
            self.save(id);
        }
        self.take_back_approvals(id);
    }
}

impl Group {
    /// Who leads when the leader goes (G3): the most senior other user, those first who answer;
    /// else the most senior other device of its own.
    pub(super) fn successor(&self) -> Option<super::Member> {
        let leader = &self.chain.as_ref()?.roster.leader;
        let mut others = self.visible();
        others.retain(|member| member.device != leader.device);
        let people = || others.iter().filter(|member| member.user != leader.user);
        let live = people().find(|member| self.acks.contains_key(&member.device));
        live.or_else(|| people().next()).or(others.first()).cloned()
    }

    /// True when a device of `user` answered lately.
    pub(super) fn answers(&self, user: &str) -> bool {
        let members = self.visible();
        let mut own = members.iter().filter(|member| member.user.as_str() == user);
        own.any(|member| self.acks.contains_key(&member.device))
    }
}
