//! Join requests, on either side (G14, G16, G17).
//!
//! An applicant repeats its request until the answer is final: an admission proved by the log, or
//! a refusal. Whoever leads answers; a request names its instance, so that a late copy can neither
//! admit twice nor undo a withdrawal. After a kick one may ask again; the leader decides and
//! nothing of the old membership is kept (G17).
//!
//! Bounds: `max_joins` waiting requests, [`MAX_PER_USER`] of one user, beyond that `Busy`; the
//! last [`MAX_SETTLED`] refusals are remembered. Several devices of one user wait as one request.
//!
//! Limit: a refusal is signed by its sender, but an applicant that holds no log cannot tell who
//! leads. Somebody who reads the group's channel can refuse in the leader's place; asking again
//! is always possible. Invitations to groups do not exist, so G15 has no case here.

use core::time::Duration;
use std::collections::BTreeMap;

use super::entry::{Admission, LeftProof, MAX_BATCH, Op};
use super::handover::LEAVE;
use super::roster::MAX_ROSTER;
use super::rows::{self, Asking, Stage, Waiting};
use super::types::{GroupError, GroupEvent, JoinRequest, Membership};
use super::{Group, Groups, RESEND_FIRST, Timer, check_text};
use crate::channel::Channel;
use crate::effect::{Outgoing, Table};
use crate::id::{DeviceId, GroupId, RequestId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::{Now, UnixMillis};
use crate::wire::BoundedStr;
use crate::wire::group::{JoinAnswer, JoinReq, Propose};

const SEEN: u8 = 1;
const ADMITTED: u8 = 2;
const DENIED: u8 = 3;
const BUSY: u8 = 4;
/// Waiting devices of one user.
const MAX_PER_USER: usize = 8;
/// Refusals that are remembered.
const MAX_SETTLED: usize = 256;

impl Group {
    /// The requests to show: one per user, the oldest first.
    pub(super) fn shown_requests(&self) -> Vec<JoinRequest> {
        let mut all: Vec<_> = self.joins.iter().collect();
        all.sort_by_key(|(request, waiting)| (waiting.since, **request));
        let mut shown: BTreeMap<&UserId, ()> = BTreeMap::new();
        all.retain(|(_, waiting)| shown.insert(&waiting.user, ()).is_none());
        all.into_iter()
            .map(|(request, waiting)| JoinRequest {
                request: *request,
                user: waiting.user.clone(),
                note: waiting.note.clone(),
            })
            .collect()
    }
}

impl Groups {
    /// Asks to join. Asking again while a request stands names that one.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn join(&mut self, group: GroupId, note: &str, now: Now) -> Result<RequestId, GroupError> {
        check_text(note)?;
        if let Some(held) = self.groups.get(&group) {
            let open = |asking: &&Asking| asking.stage == Stage::Open;
            if let Some(asking) = held.record.asking.as_ref().filter(open) {
                return Ok(RequestId(asking.request));
            }
            if held.chain.as_ref().is_some_and(|chain| chain.roster.closed) {
                return Err(GroupError::Closed);
            }
            if matches!(
                held.standing(&self.me),
                Some(Membership::Member | Membership::Leader)
            ) || held.leading(&self.me).is_some()
            {
                return Err(GroupError::AlreadyMember);
            }
        } else {
            self.make_room()?;
        }
        let held = self.groups.get(&group);
        let earlier = held.and_then(|held| held.record.asking.as_ref());
        let asking = Asking {
            request: self.rng.bytes(),
            // A late copy of a request that we gave up then asks for the same membership.
            nonce: earlier.map_or_else(|| self.rng.bytes(), |asking| asking.nonce),
            note: note.to_owned(),
            until: now.wall.plus(self.config.join_ttl).0,
            stage: Stage::Open,
        };
        let request = RequestId(asking.request);
        let held = self.groups.entry(group).or_default();
        held.record.asking = Some(asking);
        held.backoff = RESEND_FIRST;
        self.save(group);
        self.arm_lapses(group, now);
        if self.up {
            self.resend(group, now);
        }
        Ok(request)
    }

    /// Takes our request back (G14). Should it have been granted meanwhile, we leave again.
    ///
    /// # Errors
    /// [`GroupError::NoSuchRequest`].
    pub fn withdraw(&mut self, group: GroupId, now: Now) -> Result<(), GroupError> {
        let held = self.groups.get_mut(&group).ok_or(GroupError::NoSuchGroup)?;
        let asking = held.record.asking.as_mut();
        let open = asking.filter(|asking| asking.stage == Stage::Open);
        open.ok_or(GroupError::NoSuchRequest)?.stage = Stage::Withdrawn;
        held.backoff = RESEND_FIRST;
        self.save(group);
        if self.up {
            self.resend(group, now);
        }
        Ok(())
    }

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
        self.approve_all(group, &[request], now)
    }

    /// Lets several applicants in at once: all or none (G19).
    ///
    /// # Errors
    /// [`GroupError`]; then nobody was let in.
    pub fn approve_all(
        &mut self,
        group: GroupId,
        requests: &[RequestId],
        now: Now,
    ) -> Result<(), GroupError> {
        let roster = &self.reign(group)?.roster;
        let chosen = self.waiting(group, requests)?;
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
        if admissions.len() > MAX_BATCH {
            return Err(GroupError::Full {
                what: "admissions at a time",
                max: MAX_BATCH,
            });
        }
        let max = self.config.max_roster.min(MAX_ROSTER);
        if roster.seats.len() + admissions.len() > max {
            let what = "members";
            return Err(GroupError::Full { what, max });
        }
        if !admissions.is_empty() {
            let index = self.append(group, Op::Admit(admissions), now)?;
            self.publish(group, index);
        }
        for (request, waiting) in chosen {
            self.drop_waiting(group, request);
            let page = self.chain(group).map(|chain| chain.page(1, chain.index()));
            if let Some(page) = page {
                self.mail(&waiting.user, page);
            }
            self.answer(group, request, &waiting.user, ADMITTED, "");
        }
        Ok(())
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
        _now: Now,
    ) -> Result<(), GroupError> {
        check_text(reason)?;
        match self.reign(group) {
            Ok(_) | Err(GroupError::Offline) => {}
            Err(error) => return Err(error),
        }
        for (request, waiting) in self.waiting(group, &[request])? {
            self.drop_waiting(group, request);
            self.remember(group, request, waiting.device, reason);
            self.answer(group, request, &waiting.user, DENIED, reason);
        }
        Ok(())
    }

    /// The named requests with those of the same users' other devices.
    fn waiting(
        &self,
        group: GroupId,
        requests: &[RequestId],
    ) -> Result<BTreeMap<RequestId, Waiting>, GroupError> {
        let held = self.groups.get(&group).ok_or(GroupError::NoSuchGroup)?;
        let mut chosen = BTreeMap::new();
        for request in requests {
            let one = held.joins.get(request).ok_or(GroupError::NoSuchRequest)?;
            let same = held.joins.iter().filter(|(_, w)| w.user == one.user);
            chosen.extend(same.map(|(request, waiting)| (*request, waiting.clone())));
        }
        Ok(chosen)
    }

    fn drop_waiting(&mut self, id: GroupId, request: RequestId) {
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

    fn answer(&mut self, id: GroupId, request: RequestId, user: &UserId, answer: u8, why: &str) {
        if self.up {
            let body = JoinAnswer {
                group: id.0,
                request: request.0,
                answer,
                reason: BoundedStr::truncated(why),
            };
            self.mail(user, body);
        }
    }

    /// Tells how the shown requests differ from what was shown before.
    fn tell_requests(&mut self, id: GroupId, before: &[JoinRequest]) {
        let after = self
            .groups
            .get(&id)
            .map_or_else(Vec::new, Group::shown_requests);
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

    /// Somebody asks us. Only the reigning leader answers; one answer per frame.
    pub(super) fn handle_join(&mut self, from: &Sender, request: &JoinReq, now: Now) {
        let id = GroupId(request.group);
        if self.reign(id).is_err() || !self.served.admit(id, from.device, now.mono) {
            return;
        }
        let shown = self.groups[&id].shown_requests();
        let (code, why) = self.judge_join(id, from, request, now);
        self.tell_requests(id, &shown);
        self.arm_lapses(id, now);
        let request = RequestId(request.request);
        self.answer(id, request, &from.user, code, &why);
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
        let roster = &group.chain.as_ref().expect("we lead it").roster;
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
        for older in older {
            mark("group-request-replaced");
            self.drop_waiting(id, older);
            self.remember(id, older, from.device, "asked anew");
        }
        let waiting = Waiting {
            user: from.user.clone(),
            device: from.device,
            nonce: request.nonce,
            note: request.note.to_string(),
            since: now.wall,
        };
        let key = rows::join_key(id, name);
        self.effects.put(Table::Groups, key, waiting.to_row());
        if let Some(group) = self.groups.get_mut(&id) {
            group.joins.insert(name, waiting);
        }
        say(SEEN, "")
    }

    /// The leader answers us.
    pub(super) fn handle_answer(&mut self, from: &Sender, answer: &JoinAnswer, now: Now) {
        let id = GroupId(answer.group);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let asking = group.record.asking.as_mut();
        let Some(asking) = asking.filter(|asking| asking.request == answer.request) else {
            return;
        };
        match answer.answer {
            ADMITTED => self.want(id, &from.user, now),
            BUSY => group.backoff = self.config.join_resend_max,
            DENIED if asking.stage.is_pending() => {
                let told = asking.stage == Stage::Open;
                asking.stage = if told { Stage::Denied } else { Stage::Over };
                self.save(id);
                if told {
                    let reason = answer.reason.to_string();
                    let event = GroupEvent::Denied { group: id, reason };
                    self.effects.emit_gated(event);
                }
            }
            _ => {}
        }
    }

    /// Repeats our request or our leave, ever more slowly.
    pub(super) fn resend(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id).filter(|_| self.up) else {
            return;
        };
        let most = self.config.join_resend_max.max(Duration::from_millis(100));
        let wait = group.backoff.clamp(most.min(RESEND_FIRST), most);
        group.backoff = (wait * 2).min(most);
        let leads = group.leading(&self.me).is_some();
        let mut frames = Vec::new();
        let asking = group.record.asking.as_ref();
        if let Some(asking) = asking.filter(|asking| asking.stage.is_pending()) {
            let body = JoinReq {
                group: id.0,
                request: asking.request,
                nonce: asking.nonce,
                note: BoundedStr::truncated(&asking.note),
                withdrawn: asking.stage == Stage::Withdrawn,
            };
            frames.push(Outgoing::durable(Channel::Group(id), body));
        }
        if let (Some(nonce), Some(chain), false) = (group.record.leaving, &group.chain, leads) {
            let proof = LeftProof::sign(id, nonce, &*self.signer).to_bytes();
            let body = Propose {
                group: id.0,
                action: LEAVE,
                index: chain.index(),
                proof: proof.to_vec().try_into().expect("a proof has 112 bytes"),
            };
            let leader = chain.roster.leader.user.clone();
            frames.push(Outgoing::durable(Channel::Inbox(leader), body));
        }
        if !frames.is_empty() && !planted("group-asks-once") {
            self.after(id, Timer::Resend, wait, wait / 4, now);
        }
        for frame in frames {
            self.effects.send(frame.gated());
        }
    }

    /// Our request was not answered in time.
    pub(super) fn lapse(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let due = |asking: &Asking| asking.until <= now.wall.0;
        let Some(asking) = group.record.asking.take_if(|asking| due(asking)) else {
            self.arm_lapses(id, now);
            return;
        };
        if group.record.nonce.is_none() {
            self.forget(id);
        } else {
            self.save(id);
        }
        if asking.stage == Stage::Open {
            mark("group-join-expired");
            self.effects
                .emit_gated(GroupEvent::JoinExpired { group: id });
        }
    }

    /// Requests that waited too long for us go; their applicants have given up too.
    pub(super) fn lapse_waiting(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let shown = group.shown_requests();
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
