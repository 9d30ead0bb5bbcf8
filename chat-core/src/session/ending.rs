//! How requests and sessions end: rejection, cancel, expiry, close, block (S2–S6, S8, S15).

use super::record::{Closing, End, MAX_CLOSINGS, Record, Session};
use super::step::Step;
use super::types::{CloseReason, Rejection, SessionEvent};
use crate::id::{DeviceId, InviteId};
use crate::probe::{mark, planted};
use crate::time::UnixMillis;
use crate::wire::session as wire;

impl Record {
    /// Takes their standing request off the table.
    pub(super) fn withdraw(&mut self, end: End, why: &CloseReason, step: &mut Step<'_>) {
        if let Some(inn) = self.inn.take() {
            if end == End::Elsewhere {
                self.theirs.settle_displaced();
            }
            self.theirs.note(inn.invite, end);
            if inn.shown {
                step.withdrawn(inn.invite, why.clone());
            }
        }
    }

    /// Takes our standing request off the table.
    fn drop_out(&mut self, end: End, why: CloseReason, step: &mut Step<'_>) {
        if let Some(out) = self.out.take() {
            self.ours.note(out.invite, end);
            self.last = Some(why.clone());
            step.closed(why);
        }
    }

    /// Remembers how a session ended.
    pub(super) fn end(&mut self, session: &Session, end: End) {
        self.ended = Some(session.invite);
        if session.ours {
            self.ours.note(session.invite, end);
        } else {
            self.theirs.note(session.invite, end);
        }
        if let Some(over) = &session.over {
            self.ours.note(over.invite, End::Superseded);
        }
    }

    /// The session is over here and the other side knows or will hear from another frame.
    pub(super) fn leave(&mut self, end: End, why: CloseReason, step: &mut Step<'_>) {
        if let Some(session) = self.session.take() {
            self.end(&session, end);
            self.last = Some(why.clone());
            step.closed(why);
        }
    }

    /// Their request, which we had accepted, was void: we leave, and ours stands again (S2, S3).
    fn leave_void(&mut self, end: End, why: CloseReason, step: &mut Step<'_>) {
        let over = self.session.as_mut().and_then(|s| s.over.take());
        self.leave(end, why, step);
        if let Some(out) = over {
            self.reinstate(out, step);
        }
    }

    /// Repeats `Close` to `waiting` until each device acknowledges.
    pub(super) fn start_closing(
        &mut self,
        invite: InviteId,
        reason: &str,
        waiting: Vec<DeviceId>,
        step: &mut Step<'_>,
    ) {
        if waiting.is_empty() || self.closings.iter().any(|c| c.invite == invite) {
            return;
        }
        if self.closings.len() == MAX_CLOSINGS {
            self.closings.remove(0);
        }
        let closing = Closing {
            invite,
            reason: reason.to_owned(),
            waiting,
            until: step.farewell_until(),
        };
        step.send_close(&closing);
        step.news = true;
        self.closings.push(closing);
    }

    pub(super) fn reject(&mut self, how: &Rejection, step: &mut Step<'_>) {
        let Some(inn) = self.inn.take() else { return };
        self.refused_them
            .refuse(step.config.cool_down, step.now.wall);
        match how {
            Rejection::Silent => {
                self.theirs.note(inn.invite, End::Silenced);
                if planted("session-silent-reject-tells") {
                    step.send_reject(inn.invite, "");
                }
            }
            Rejection::Told { reason } => {
                self.theirs.note(inn.invite, End::Told(reason.clone()));
                step.send_reject(inn.invite, reason);
                step.send_elsewhere(inn.invite, false);
            }
        }
    }

    pub(super) fn cancel(&mut self, step: &mut Step<'_>) {
        if let Some(out) = &self.out {
            step.send_cancel(out.invite);
        }
        self.drop_out(End::Cancelled, CloseReason::Cancelled, step);
    }

    pub(super) fn close(&mut self, reason: &str, step: &mut Step<'_>) {
        if let Some(session) = &self.session {
            let (invite, devices) = (session.invite, session.devices.clone());
            let by = step.me.user.clone();
            let reason = reason.to_owned();
            self.start_closing(invite, &reason, devices, step);
            self.leave(End::Closed, CloseReason::Left { by, reason }, step);
        }
    }

    /// Our user's word on this device: later than any known one.
    pub(super) fn stamp_block(&mut self, step: &Step<'_>) {
        self.block_stamp = step.now.wall.0.max(self.block_stamp.saturating_add(1));
    }

    /// What another of our devices says: the later word counts, of two at once the block.
    pub(super) fn on_block(&mut self, stamp: u64, blocked: bool, step: &mut Step<'_>) {
        let newer = (stamp, blocked) > (self.block_stamp, self.blocked);
        if !newer {
            return;
        }
        self.block_stamp = stamp;
        if blocked == self.blocked {
            return;
        }
        mark("session-blocked-on-another-device");
        if blocked {
            self.block(step);
        } else {
            self.unblock();
        }
        let peer = step.peer.clone();
        step.tell(SessionEvent::BlockChanged { peer, blocked });
    }

    /// One of the peer's devices is not trusted any more.
    pub(super) fn distrust(&mut self, device: DeviceId, step: &mut Step<'_>) {
        if self.inn.as_ref().is_some_and(|inn| inn.device == device) {
            self.withdraw(End::Closed, &CloseReason::Distrusted, step);
        }
        for closing in &mut self.closings {
            closing.waiting.retain(|waiting| *waiting != device);
        }
        self.closings.retain(|closing| !closing.waiting.is_empty());
        let Some(session) = &mut self.session else {
            return;
        };
        if !session.devices.contains(&device) {
            return;
        }
        session.devices.retain(|joined| *joined != device);
        if session.devices.is_empty() {
            // Said once: nothing that it answers would be believed.
            step.send_close(&Closing {
                invite: session.invite,
                reason: String::new(),
                waiting: Vec::new(),
                until: step.now.wall,
            });
            self.leave(End::Closed, CloseReason::Distrusted, step);
        } else {
            step.opened(session);
        }
    }

    /// Says nothing to anybody (S5).
    pub(super) fn block(&mut self, step: &mut Step<'_>) {
        self.blocked = true;
        self.closings.clear();
        self.withdraw(End::Closed, &CloseReason::Blocked, step);
        self.drop_out(End::Closed, CloseReason::Blocked, step);
        self.leave(End::Closed, CloseReason::Blocked, step);
        self.last = Some(CloseReason::Blocked);
    }

    pub(super) fn unblock(&mut self) {
        self.blocked = false;
        if self.last == Some(CloseReason::Blocked) {
            self.last = None;
        }
    }

    /// Ends what has stood too long (S3, S9).
    pub(super) fn lapse(&mut self, step: &mut Step<'_>) {
        let now = step.now.wall;
        if self.out.as_ref().is_some_and(|out| out.expires <= now) {
            self.drop_out(End::Expired, CloseReason::Expired, step);
        }
        if self.inn.as_ref().is_some_and(|inn| inn.expires <= now) {
            self.withdraw(End::Expired, &CloseReason::Expired, step);
        }
        if !step.up {
            return;
        }
        self.closings.retain(|closing| closing.until > now);
        let session = self.session.as_ref();
        let overdue = session.filter(|s| s.unconfirmed.is_some_and(|until| until <= now));
        if let Some(session) = overdue {
            mark("session-acceptance-given-up");
            // They may have opened it, and their confirmation was lost.
            let (invite, devices) = (session.invite, session.devices.clone());
            self.leave(End::Expired, CloseReason::Expired, step);
            self.start_closing(invite, "expired", devices, step);
        }
    }

    /// Their decision may be in the backlog, or come on our repeated frame: however long we were
    /// away, an acceptance and a farewell have the time of one repeat to be answered (S3).
    pub(super) fn reprieve(&mut self, step: &Step<'_>) {
        let until = step.now.wall.plus(step.config.resend_max);
        if let Some(session) = &mut self.session {
            session.unconfirmed = session.unconfirmed.map(|at| at.max(until));
        }
        for closing in &mut self.closings {
            closing.until = closing.until.max(until);
        }
    }

    pub(super) fn on_reject(&mut self, body: &wire::Reject, step: &mut Step<'_>) -> bool {
        let invite = InviteId(body.invite);
        if self.out.as_ref().is_some_and(|out| out.invite == invite) {
            self.refused_us.refuse(step.config.cool_down, step.now.wall);
            let reason = (*body.reason).to_owned();
            self.drop_out(End::Closed, CloseReason::Rejected { reason }, step);
        }
        true
    }

    pub(super) fn on_cancel(&mut self, body: &wire::Cancel, step: &mut Step<'_>) -> bool {
        let invite = InviteId(body.invite);
        if self.inn.as_ref().is_some_and(|inn| inn.invite == invite) {
            self.withdraw(End::Cancelled, &CloseReason::Cancelled, step);
        } else if self.joined_theirs(invite) {
            mark("session-cancel-crossed-accept");
            self.leave_void(End::Cancelled, CloseReason::Cancelled, step);
        }
        self.theirs.note(invite, End::Cancelled);
        true
    }

    fn joined_theirs(&self, invite: InviteId) -> bool {
        self.session
            .as_ref()
            .is_some_and(|s| !s.ours && s.invite == invite)
    }

    pub(super) fn on_gone(
        &mut self,
        from: DeviceId,
        body: &wire::Gone,
        step: &mut Step<'_>,
    ) -> bool {
        let invite = InviteId(body.invite);
        self.acknowledged(from, invite);
        let superseded = body.why == End::Superseded.code();
        if superseded && self.out.as_ref().is_some_and(|out| out.invite == invite) {
            self.drop_out(End::Superseded, CloseReason::Superseded, step);
            return true;
        }
        let Some(session) = self.session.as_mut().filter(|s| s.invite == invite) else {
            return true;
        };
        let before = session.devices.len();
        session.devices.retain(|d| *d != from);
        if !session.devices.is_empty() {
            if session.devices.len() < before {
                step.opened(session);
            }
            return true;
        }
        mark("session-gone");
        match body.why {
            1 => self.leave_void(End::Cancelled, CloseReason::Cancelled, step),
            2 => self.leave_void(End::Expired, CloseReason::Expired, step),
            4 => self.leave(End::Superseded, CloseReason::Superseded, step),
            _ => self.leave(End::Closed, CloseReason::Gone, step),
        }
        true
    }

    pub(super) fn on_close(
        &mut self,
        from: DeviceId,
        body: &wire::Close,
        step: &mut Step<'_>,
    ) -> bool {
        let invite = InviteId(body.invite);
        let by = step.peer.clone();
        let reason = (*body.reason).to_owned();
        let why = CloseReason::Left { by, reason };
        let mut others = Vec::new();
        if let Some(session) = self.session.as_ref().filter(|s| s.invite == invite) {
            others.extend(session.devices.iter().copied().filter(|d| *d != from));
            self.leave(End::Closed, why, step);
        } else if self.out.as_ref().is_some_and(|out| out.invite == invite) {
            mark("session-close-overtook-accept");
            self.ended = Some(invite);
            self.drop_out(End::Closed, why, step);
        } else if self.inn.as_ref().is_some_and(|inn| inn.invite == invite) {
            self.withdraw(End::Closed, &why, step);
        } else if let Some(session) = &mut self.session
            && session.over.take_if(|o| o.invite == invite).is_some()
        {
            self.ours.note(invite, End::Closed);
        }
        // A stranger learns nothing, not even that somebody reads.
        let known = !self.is_stranger();
        if known {
            if self.ours.of(invite).is_none() {
                self.theirs.note(invite, End::Closed);
            }
            step.send_close_ack(invite);
        }
        // Their other joined devices take the acknowledgement for the news; should it be lost,
        // this is repeated.
        self.start_closing(invite, "", others, step);
        known
    }

    pub(super) fn on_close_ack(
        &mut self,
        from: DeviceId,
        body: &wire::CloseAck,
        step: &mut Step<'_>,
    ) -> bool {
        let invite = InviteId(body.invite);
        self.acknowledged(from, invite);
        let closed_by_sibling = self
            .session
            .as_ref()
            .is_some_and(|s| s.invite == invite && s.devices.contains(&from));
        if closed_by_sibling {
            mark("session-closed-by-sibling");
            let by = step.me.user.clone();
            let reason = String::new();
            self.leave(End::Closed, CloseReason::Left { by, reason }, step);
        }
        true
    }

    fn acknowledged(&mut self, from: DeviceId, invite: InviteId) {
        for closing in &mut self.closings {
            if closing.invite == invite {
                closing.waiting.retain(|d| *d != from);
            }
        }
        self.closings.retain(|closing| !closing.waiting.is_empty());
    }

    /// Another of our own devices dealt with their request (S8).
    pub(super) fn on_elsewhere(&mut self, body: &wire::Elsewhere, step: &mut Step<'_>) {
        let invite = InviteId(body.invite);
        if self.joined_theirs(invite) {
            mark("session-two-devices-accepted");
            return;
        }
        let accepted = body.accepted;
        let why = CloseReason::AnsweredElsewhere { accepted };
        if self.inn.as_ref().is_some_and(|inn| inn.invite == invite) {
            self.withdraw(End::Elsewhere, &why, step);
            self.last = Some(why);
        }
        self.theirs.note(invite, End::Elsewhere);
    }

    /// Their device speaks in a session that we are not in (S2).
    pub(super) fn on_stray(&self, from: DeviceId, step: &mut Step<'_>) {
        let joined = self
            .session
            .as_ref()
            .is_some_and(|s| s.devices.contains(&from));
        if joined || self.is_stranger() {
            return;
        }
        if let Some(invite) = self.ended {
            mark("session-stray");
            let end = self.ours.of(invite).or_else(|| self.theirs.of(invite));
            step.send_gone(invite, end.unwrap_or(&End::Closed).code());
        }
    }

    /// Says that the session is on. The other side repeats its decision, or answers that it left.
    pub(super) fn affirm(&self, step: &mut Step<'_>) {
        match &self.session {
            Some(session) if session.ours => step.send_confirm(session),
            Some(session) => step.send_accept(session),
            None => return,
        }
        mark("session-affirmed");
    }

    /// Everything that awaits an answer, once more (S7).
    pub(super) fn repeat(&self, step: &mut Step<'_>) {
        if let Some(out) = &self.out {
            step.send_request(out);
        }
        if let Some(session) = self.session.as_ref().filter(|s| s.unconfirmed.is_some()) {
            step.send_accept(session);
        }
        for closing in &self.closings {
            step.send_close(closing);
        }
    }

    /// When, by the wall clock, a request is allowed again (S6).
    pub(super) fn cooling(&self, now: UnixMillis) -> Option<UnixMillis> {
        Some(self.refused_us.until).filter(|until| *until > now)
    }
}
