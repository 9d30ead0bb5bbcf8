//! How a session comes about: requests, glare, acceptance, confirmation (S1, S2, S3, S6–S9).
//!
//! Every session belongs to one request, and the device that made the request decides alone
//! whether it is on. Of two crossing requests the lower wins: its owner keeps asking, the other
//! side accepts without a prompt. So both sides converge under any loss, order and duplication.

use core::time::Duration;

use super::record::{End, MAX_HEARD, Ours, Record, Secret, Session, Theirs};
use super::step::Step;
use super::types::{CloseReason, SessionEvent};
use crate::id::{DeviceId, InviteId, UserId};
use crate::probe::{mark, planted};
use crate::time::UnixMillis;
use crate::wire::session as wire;

/// No request stands longer, whatever it says.
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);
/// How far a peer's clock may run ahead before its claim is cut for comparison.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// Two requests of one device are at least so far apart by its own clock, in ms. So a stranger
/// cannot make us prompt faster than this, and one that claims the future runs out of it.
const SPACING: u64 = 500;

/// Whether the request of `a` beats the one of `b` (S1): the lower id, then the lower name.
fn beats(a: (InviteId, &UserId), b: (InviteId, &UserId)) -> bool {
    if planted("session-glare-higher-wins-on-one-side") {
        return a.1 < b.1 || a > b;
    }
    a < b
}

impl Record {
    pub(super) fn ask(&mut self, note: &str, step: &mut Step<'_>) -> InviteId {
        let ttl = step.config.invite_ttl.min(MAX_TTL);
        let sent_at = step.now.wall.0.max(self.last_sent.saturating_add(SPACING));
        let out = Ours {
            invite: InviteId(step.rng.bytes()),
            secret: Secret(step.rng.bytes()),
            note: note.to_owned(),
            sent_at,
            ttl_ms: u64::try_from(ttl.as_millis()).expect("at most 30 days"),
            expires: step.now.wall.plus(ttl),
        };
        let invite = out.invite;
        self.last_sent = sent_at;
        self.contact = true;
        self.last = None;
        step.send_request(&out);
        step.news = true;
        self.out = Some(out);
        // Asking somebody ends our own refusal to be asked by them.
        self.refused_them = <_>::default();
        invite
    }

    /// False when the frame makes no sense.
    pub(super) fn on_request(
        &mut self,
        from: DeviceId,
        body: &wire::Request,
        step: &mut Step<'_>,
    ) -> bool {
        let invite = InviteId(body.invite);
        if let Some(session) = &self.session
            && !session.ours
            && session.invite == invite
        {
            mark("session-accept-replayed");
            step.send_accept(session);
            return true;
        }
        if self.inn.as_ref().is_some_and(|inn| inn.invite == invite) {
            return true;
        }
        match self.theirs.of(invite) {
            Some(End::Told(reason)) => {
                mark("session-reject-replayed");
                step.send_reject(invite, &reason.clone());
                return true;
            }
            Some(End::Cancelled) if planted("session-forget-cancel") => {}
            Some(End::Cancelled) => {
                mark("session-cancel-came-first");
                return true;
            }
            Some(End::Closed) => return true,
            // We chatted with another of their devices instead, so it is no news that we read.
            Some(End::Superseded) if self.contact && self.out.is_none() => {
                mark("session-superseded-request-repeated");
                step.send_gone(invite, End::Superseded.code());
                return true;
            }
            Some(End::Displaced) if self.inn.is_none() => {
                mark("session-displaced-request-stands-again");
            }
            // Silenced and the like: when we ask ourselves, we want this chat after all.
            Some(_) if self.out.is_none() => return true,
            _ => {}
        }
        let known = self.theirs.of(invite).is_some();
        let stale = |at: u64| {
            // A known request says again what it said; a new one keeps its distance.
            body.sent_at < at || (body.sent_at < at.saturating_add(SPACING) && !known)
        };
        if self.heard.iter().any(|(d, at)| *d == from && stale(*at)) {
            mark("session-stale-request");
            return true;
        }
        let theirs = Theirs {
            invite,
            secret: Secret(body.secret),
            device: from,
            note: (*body.note).to_owned(),
            expires: UnixMillis(body.sent_at)
                .min(step.now.wall)
                .plus(Duration::from_millis(body.ttl_ms).min(MAX_TTL)),
            shown: step.caught_up,
        };
        if let Some(out) = &self.out {
            // Its age does not matter here: the requester decides whether it is still good.
            if beats((invite, step.peer), (out.invite, &step.me.user)) {
                mark("session-glare-lost");
                self.hear(from, body.sent_at, step);
                self.join(theirs, step);
            } else {
                mark("session-glare-won");
                step.send_request(out);
            }
            return true;
        }
        if theirs.expires <= step.now.wall {
            mark("session-request-expired-in-mailbox");
            return true;
        }
        if self.refused_them.until > step.now.wall {
            mark("session-request-in-cool-down");
            return true;
        }
        if !self.contact && self.inn.is_none() && !step.room {
            step.refused = true;
            return true;
        }
        self.hear(from, body.sent_at, step);
        // The other device still asks, should this one take its request back.
        let other = self.inn.as_ref().is_some_and(|inn| inn.device != from);
        let end = if other {
            End::Displaced
        } else {
            End::Superseded
        };
        self.theirs.forget(invite);
        self.withdraw(end, &CloseReason::Superseded, step);
        if theirs.shown {
            step.tell(theirs.requested(step.peer));
        }
        self.inn = Some(theirs);
        true
    }

    fn hear(&mut self, device: DeviceId, sent_at: u64, step: &Step<'_>) {
        let at = sent_at.min(step.now.wall.plus(MAX_SKEW).0);
        self.heard.retain(|(d, _)| *d != device);
        if self.heard.len() == MAX_HEARD {
            self.heard.remove(0);
        }
        self.heard.push((device, at));
    }

    /// Accepts `theirs`: active at once, until its owner says otherwise (S2).
    pub(super) fn join(&mut self, theirs: Theirs, step: &mut Step<'_>) {
        let over = self.out.take();
        self.supersede(step);
        self.theirs.forget(theirs.invite);
        let session = Session {
            invite: theirs.invite,
            secret: theirs.secret,
            ours: false,
            devices: vec![theirs.device],
            unconfirmed: Some(step.until()),
            over,
        };
        step.send_accept(&session);
        step.send_elsewhere(theirs.invite, true);
        step.news = true;
        self.open(session, step);
    }

    fn open(&mut self, session: Session, step: &mut Step<'_>) {
        step.opened(&session);
        self.session = Some(session);
        self.contact = true;
        self.last = None;
        self.theirs.settle_displaced();
        self.refused_us = <_>::default();
        self.refused_them = <_>::default();
    }

    /// A newer request takes the place of the session.
    fn supersede(&mut self, step: &mut Step<'_>) {
        if let Some(old) = self.session.take() {
            mark("session-superseded");
            let devices = old.devices.clone();
            self.end(&old, End::Superseded);
            self.start_closing(old.invite, "superseded", devices, step);
            step.closed(CloseReason::Superseded);
        }
    }

    pub(super) fn on_accept(
        &mut self,
        from: DeviceId,
        body: &wire::Accept,
        step: &mut Step<'_>,
    ) -> bool {
        if !step.is_me(&body.inviter) {
            return true;
        }
        let invite = InviteId(body.invite);
        if let Some(out) = self.out.take_if(|out| out.invite == invite) {
            let session = Session {
                invite,
                secret: out.secret,
                ours: true,
                devices: vec![from],
                unconfirmed: None,
                over: None,
            };
            step.send_confirm(&session);
            self.open(session, step);
            self.replaced(body.over, step);
            return true;
        }
        if let Some(session) = &mut self.session {
            if session.ours && session.invite == invite {
                if !session.devices.contains(&from) && session.devices.len() < wire::MAX_JOINED {
                    mark("session-second-device-joined");
                    session.devices.push(from);
                    session.devices.sort_unstable();
                    step.opened(session);
                }
                // A device beyond the bound sees a full list without itself and leaves.
                step.send_confirm(session);
                self.replaced(body.over, step);
                return true;
            }
            if session.over.as_ref().is_some_and(|o| o.invite == invite) {
                // Their owner has not decided; ours may stand again. They will repeat.
                mark("session-accept-deferred");
                return true;
            }
        }
        match self.ours.of(invite) {
            Some(end) => {
                mark("session-late-accept");
                step.send_gone(invite, end.code());
                true
            }
            None if !self.is_stranger() => {
                step.send_gone(invite, End::Closed.code());
                true
            }
            None => false,
        }
    }

    /// The peer's own crossing request is off the table: no copy of it may prompt anybody.
    fn replaced(&mut self, over: Option<[u8; 16]>, step: &mut Step<'_>) {
        let Some(invite) = over.map(InviteId) else {
            return;
        };
        if self.inn.as_ref().is_some_and(|inn| inn.invite == invite) {
            self.withdraw(End::Superseded, &CloseReason::Superseded, step);
        }
        if self.theirs.of(invite).is_none() {
            self.theirs.note(invite, End::Superseded);
            step.send_elsewhere(invite, true);
        }
    }

    pub(super) fn on_confirm(
        &mut self,
        from: DeviceId,
        body: &wire::Confirm,
        step: &mut Step<'_>,
    ) -> bool {
        let invite = InviteId(body.invite);
        let joined = body.joined.iter().any(|d| step.is_me(d));
        if let Some(session) = &mut self.session
            && !session.ours
            && session.invite == invite
        {
            if !session.devices.contains(&from) {
                return false;
            }
            if joined {
                session.unconfirmed = None;
                if let Some(over) = session.over.take() {
                    self.ours.note(over.invite, End::Superseded);
                }
            } else if body.joined.len() == wire::MAX_JOINED {
                let why = CloseReason::AnsweredElsewhere { accepted: true };
                self.leave(End::Elsewhere, why, step);
            }
            return true;
        }
        if self.inn.as_ref().is_some_and(|inn| inn.invite == invite) {
            let why = CloseReason::AnsweredElsewhere { accepted: true };
            self.withdraw(End::Elsewhere, &why, step);
            self.last.get_or_insert(why);
        } else if joined && self.theirs.of(invite).is_some() {
            // They believe that we are in it; we left on other news.
            mark("session-confirm-after-leaving");
            self.start_closing(invite, "", vec![from], step);
        }
        true
    }

    /// Our own request stands again after theirs, which had won, turned out to be void (S2).
    pub(super) fn reinstate(&mut self, out: Ours, step: &mut Step<'_>) {
        if out.expires <= step.now.wall {
            self.ours.note(out.invite, End::Expired);
            return;
        }
        mark("session-request-reinstated");
        let inn = self.inn.take();
        step.send_request(&out);
        step.news = true;
        let invite = out.invite;
        self.out = Some(out);
        // A newer request of theirs came meanwhile: glare again.
        if let Some(theirs) = inn {
            if beats((theirs.invite, step.peer), (invite, &step.me.user)) {
                self.join(theirs, step);
            } else if theirs.shown {
                step.withdrawn(theirs.invite, CloseReason::Superseded);
            }
        }
    }
}

impl Theirs {
    pub(super) fn requested(&self, peer: &UserId) -> SessionEvent {
        SessionEvent::Requested {
            peer: peer.clone(),
            invite: self.invite,
            note: self.note.clone(),
        }
    }
}
