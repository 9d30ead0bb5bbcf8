//! Those who ask to be let in (G14, G16, G17).
//!
//! Every member keeps what stands, so that it is answered also when the first leader never comes
//! back; only the leader shows and answers it. A request names its instance, so that a late copy
//! can neither admit twice nor undo a withdrawal. After a kick one may ask again; the leader decides
//! and nothing of the old membership is kept (G17).
//!
//! Bounds: `max_joins` waiting requests, [`MAX_PER_USER`] of one user, beyond that `Busy` with the
//! time to ask again; the last [`MAX_SETTLED`] refusals are remembered. Several devices of one user
//! wait as one request.

use std::collections::BTreeMap;

use super::op::{Admission, Op};
use super::rows::{self, Grant, Waiting};
use super::types::{GroupError, GroupEvent, JoinRequest, Policy};
use super::{Group, Groups, Timer, check_text};
use crate::channel::Channel;
use crate::effect::{Outgoing, Table};
use crate::id::{DeviceId, GroupId, RequestId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::{Now, UnixMillis};
use crate::wire::BoundedStr;
use crate::wire::group::{JoinAnswer, JoinReq};

pub(super) const SEEN: u8 = 1;
pub(super) const ADMITTED: u8 = 2;
pub(super) const DENIED: u8 = 3;
pub(super) const BUSY: u8 = 4;
/// When to ask again after `Busy`, in seconds.
const RETRY: u32 = 60;
/// Waiting devices of one user.
const MAX_PER_USER: usize = 8;
/// Refusals that are remembered.
const MAX_SETTLED: usize = 256;

impl Group {
    /// The requests to show: one per user, the oldest first.
    pub(super) fn shown_requests(&self) -> Vec<JoinRequest> {
        let mut all: Vec<_> = self.joins.iter().collect();
        all.sort_by_key(|(request, waiting)| (waiting.since, **request));
        let mut devices: BTreeMap<&UserId, usize> = BTreeMap::new();
        all.retain(|(_, w)| {
            let count = devices.entry(&w.user).or_default();
            *count += usize::from(!w.is_granted());
            !w.is_granted() && *count == 1
        });
        all.into_iter()
            .map(|(request, waiting)| JoinRequest {
                request: *request,
                user: waiting.user.clone(),
                note: waiting.note.clone(),
                devices: devices[&waiting.user],
            })
            .collect()
    }
}

impl Groups {
    /// Lets an applicant in, with all its devices that ask.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn approve(
        &mut self,
        group: GroupId,
        request: RequestId,
        now: Now,
    ) -> Result<(), GroupError> {
        let roster = &self.reign(group, now)?.roster;
        let chosen = self.waiting(group, &[request])?;
        let fresh = |w: &&Waiting| {
            !roster.sits(w.device, w.nonce) && !roster.gone.contains_key(&(w.device, w.nonce))
        };
        let mut waiting: Vec<_> = chosen.iter().collect();
        waiting.sort_by_key(|(request, w)| (w.since, **request));
        let admissions: Vec<_> = waiting
            .into_iter()
            .map(|(_, w)| w)
            .filter(fresh)
            .map(|w| Admission {
                user: w.user.clone(),
                device: w.device,
                nonce: w.nonce,
            })
            .collect();
        let strict = roster.policy == Policy::Strict;
        let max = self.config.max_roster.min(roster.capacity());
        if roster.seats.len() + admissions.len() > max {
            let what = "members";
            return Err(GroupError::Full { what, max });
        }
        if strict {
            self.grant(group, chosen.into_keys().collect());
            self.work(group, now);
            return Ok(());
        }
        if !admissions.is_empty() {
            let list = admissions.clone();
            let index = self.append(group, Op::Admit(admissions), now)?;
            self.publish(group, index);
            self.welcome(group, &list);
        }
        for (request, waiting) in chosen {
            if !planted("group-request-stays") {
                self.drop_waiting(group, request);
            }
            self.answer(group, request, &waiting.user, ADMITTED, "");
        }
        Ok(())
    }

    /// Notes that these are let in; the log follows when it may.
    pub(super) fn grant(&mut self, id: GroupId, requests: Vec<RequestId>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        for request in requests {
            if let Some(waiting) = group.joins.get_mut(&request)
                && !waiting.is_granted()
            {
                waiting.grant = Grant::Approved;
                let key = rows::join_key(id, request);
                self.effects.put(Table::Groups, key, waiting.to_row());
            }
        }
    }

    /// What we approved and the log does not show waits for whoever leads next.
    pub(super) fn take_back_approvals(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let approved = |waiting: &&mut Waiting| waiting.grant == Grant::Approved;
        for (request, waiting) in &mut group.joins {
            if let Some(waiting) = Some(waiting).filter(approved) {
                mark("group-approval-taken-back");
                waiting.grant = Grant::Open;
                let key = rows::join_key(id, *request);
                self.effects.put(Table::Groups, key, waiting.to_row());
            }
        }
    }

    /// The newcomers get the log from its beginning; the rest of a long one they fetch.
    pub(super) fn welcome(&mut self, id: GroupId, list: &[Admission]) {
        for one in list {
            let page = self.chain(id).map(|chain| chain.page(1, chain.index()));
            if let Some(page) = page {
                self.mail(&one.user, page);
            }
        }
    }

    /// Refuses an applicant.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn deny(
        &mut self,
        group: GroupId,
        request: RequestId,
        reason: &str,
        now: Now,
    ) -> Result<(), GroupError> {
        check_text(reason)?;
        match self.reign(group, now) {
            Ok(_) | Err(GroupError::Offline | GroupError::NoMajority) => {}
            Err(error) => return Err(error),
        }
        for (request, waiting) in self.waiting(group, &[request])? {
            self.drop_waiting(group, request);
            self.remember(group, request, waiting.device, reason);
            self.answer(group, request, &waiting.user, DENIED, reason);
            if self.up {
                let body = answer(group, request, DENIED, reason);
                let frame = Outgoing::durable(Channel::Group(group), body).gated();
                self.effects.send(frame);
            }
        }
        Ok(())
    }

    /// The named requests with those of the same users' other devices.
    pub(super) fn waiting(
        &self,
        group: GroupId,
        requests: &[RequestId],
    ) -> Result<BTreeMap<RequestId, Waiting>, GroupError> {
        let held = self.groups.get(&group).ok_or(GroupError::NoSuchGroup)?;
        let mut chosen = BTreeMap::new();
        for request in requests {
            let one = held.joins.get(request).ok_or(GroupError::NoSuchRequest)?;
            let same = held
                .joins
                .iter()
                .filter(|(_, w)| w.user == one.user && !w.is_granted());
            chosen.extend(same.map(|(request, waiting)| (*request, waiting.clone())));
        }
        Ok(chosen)
    }

    pub(super) fn drop_waiting(&mut self, id: GroupId, request: RequestId) {
        if let Some(group) = self.groups.get_mut(&id)
            && group.joins.remove(&request).is_some()
        {
            self.effects
                .delete(Table::Groups, rows::join_key(id, request));
        }
    }

    fn remember(&mut self, id: GroupId, request: RequestId, device: DeviceId, why: &str) {
        if let Some(group) = self.groups.get_mut(&id) {
            if group.settled.len() == MAX_SETTLED {
                group.settled.remove(0);
            }
            group.settled.push((request, device, why.to_owned()));
        }
    }

    pub(super) fn answer(
        &mut self,
        id: GroupId,
        request: RequestId,
        user: &UserId,
        code: u8,
        why: &str,
    ) {
        if self.up {
            self.mail(user, answer(id, request, code, why));
        }
    }

    /// The leader refused somebody else: whoever leads next does not ask again.
    pub(super) fn handle_refusal_of_other(
        &mut self,
        id: GroupId,
        from: &Sender,
        answer: &JoinAnswer,
    ) {
        let request = RequestId(answer.request);
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let leader = group.chain.as_ref().map(|c| c.roster.leader.device);
        let held = group.joins.get(&request);
        if let Some(device) = held.map(|waiting| waiting.device)
            && leader == Some(from.device)
            && answer.answer == DENIED
        {
            mark("group-refusal-noted");
            self.drop_waiting(id, request);
            self.remember(id, request, device, &answer.reason);
        }
    }

    /// The requests that we, the leader, show.
    pub(super) fn shown(&self, id: GroupId) -> Vec<JoinRequest> {
        let group = self.groups.get(&id).filter(|_| self.leading(id));
        group.map_or_else(Vec::new, Group::shown_requests)
    }

    /// Tells how the shown requests differ from what was shown before.
    pub(super) fn tell_requests(&mut self, id: GroupId, before: &[JoinRequest]) {
        let after = self.shown(id);
        let has = |list: &[JoinRequest], one: &JoinRequest| {
            list.iter().any(|other| other.request == one.request)
        };
        for gone in before.iter().filter(|one| !has(&after, one)) {
            self.effects.emit_gated(GroupEvent::JoinSettled {
                group: id,
                request: gone.request,
            });
        }
        for new in after.iter().filter(|one| !has(before, one)) {
            self.effects.emit_gated(GroupEvent::JoinRequested {
                group: id,
                request: new.clone(),
            });
        }
    }

    /// Somebody asks. Every member notes it; only the reigning leader answers, once per frame.
    pub(super) fn handle_join(&mut self, from: &Sender, request: &JoinReq, now: Now) {
        let id = GroupId(request.group);
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let Some(chain) = group.inside(&self.me) else {
            return;
        };
        if !self.served.admit(id, from.device, now.mono) {
            return;
        }
        let answers = chain.roster.leader.device == self.me.device && chain.roster.heir.is_none();
        let members = chain.roster.seats.len() as u64;
        let shown = self.shown(id);
        let (code, why) = self.judge_join(id, from, request, now);
        let name = RequestId(request.request);
        if code == SEEN && self.is_invited(id, from, &request.ticket, now) {
            mark("group-invited-joins");
            self.grant(id, vec![name]);
        }
        self.tell_requests(id, &shown);
        self.arm_lapses(id, now);
        if answers {
            self.answer(id, name, &from.user, code, &why);
            self.work(id, now);
        } else if code == ADMITTED && self.rng.below(members) < 3 {
            // The log proves it, and the leader that let it in may be gone.
            mark("group-member-tells-admission");
            self.answer(id, name, &from.user, code, &why);
        }
    }

    fn judge_join(
        &mut self,
        id: GroupId,
        from: &Sender,
        request: &JoinReq,
        now: Now,
    ) -> (u8, String) {
        let say = |code: u8, why: &str| (code, why.to_owned());
        let group = &self.groups[&id];
        let roster = &group.chain.as_ref().expect("we are in it").roster;
        let (name, instance) = (RequestId(request.request), (from.device, request.nonce));
        if roster.sits(instance.0, instance.1) {
            return say(ADMITTED, "");
        }
        if roster.gone.contains_key(&instance) {
            return say(DENIED, "that membership has ended; ask again");
        }
        let same = |it: &&(RequestId, DeviceId, String)| (it.0, it.1) == (name, from.device);
        if let Some((_, _, why)) = group.settled.iter().find(same) {
            mark("group-late-request");
            return (DENIED, why.clone());
        }
        let held = group.joins.get(&name);
        if held.is_some_and(|waiting| waiting.device != from.device) {
            return say(BUSY, "");
        }
        if request.withdrawn {
            self.drop_waiting(id, name);
            self.remember(id, name, from.device, "withdrawn");
            return say(DENIED, "withdrawn");
        }
        if held.is_some() {
            return say(SEEN, "");
        }
        let older: Vec<_> = group
            .joins
            .iter()
            .filter(|(_, waiting)| waiting.device == from.device)
            .map(|(older, _)| *older)
            .collect();
        let of_user = group.joins.values().filter(|w| w.user == from.user).count();
        let full = group.joins.len() >= self.config.max_joins || of_user >= MAX_PER_USER;
        if full && older.is_empty() {
            mark("group-joins-full");
            return say(BUSY, "");
        }
        let granted = older.iter().find_map(|older| {
            let held = group.joins.get(older)?;
            (held.is_granted() && held.nonce == request.nonce).then_some(held.grant)
        });
        for older in older {
            mark("group-request-replaced");
            self.drop_waiting(id, older);
            if granted.is_none() {
                self.remember(id, older, from.device, "asked anew");
            }
        }
        let waiting = Waiting {
            user: from.user.clone(),
            device: from.device,
            nonce: request.nonce,
            note: request.note.to_string(),
            since: now.wall,
            grant: granted.unwrap_or(Grant::Open),
        };
        let key = rows::join_key(id, name);
        self.effects.put(Table::Groups, key, waiting.to_row());
        if let Some(group) = self.groups.get_mut(&id) {
            group.joins.insert(name, waiting);
        }
        say(SEEN, "")
    }

    /// Requests that waited too long for us go; their applicants have given up too.
    pub(super) fn lapse_waiting(&mut self, id: GroupId, now: Now) {
        let shown = self.shown(id);
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let ttl = self.config.join_ttl;
        let late = |w: &Waiting| w.since.plus(ttl) <= now.wall;
        let late: Vec<_> = group.joins.iter().filter(|(_, w)| late(w)).collect();
        for request in late.into_iter().map(|(r, _)| *r).collect::<Vec<_>>() {
            self.drop_waiting(id, request);
        }
        self.tell_requests(id, &shown);
        self.arm_lapses(id, now);
    }

    pub(super) fn arm_lapses(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let own = group.record.asking.as_ref().map(|a| UnixMillis(a.until));
        let oldest = group.joins.values().map(|waiting| waiting.since).min();
        let oldest = oldest.map(|since| since.plus(self.config.join_ttl));
        for (timer, due) in [(Timer::Lapse, own), (Timer::Waiting, oldest)] {
            match due {
                Some(due) => self.at_wall(id, timer, due, now),
                None => {
                    self.timers.remove(&(id, timer));
                }
            }
        }
    }
}

fn answer(group: GroupId, request: RequestId, code: u8, why: &str) -> JoinAnswer {
    JoinAnswer {
        group: group.0,
        request: request.0,
        answer: code,
        retry: if code == BUSY { RETRY } else { 0 },
        reason: BoundedStr::truncated(why),
    }
}
