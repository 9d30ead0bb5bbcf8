//! 1:1 sessions: request, accept, reject, cancel, expire, close, block (rules S1–S10, S15).
//!
//! One record per peer (`record`), changed by frames and commands (`opening`, `ending`), stored as
//! one row (`rows`). Guarantees:
//! - Every session belongs to one request, and the device that made the request decides alone
//!   whether it is on; whatever is lost, repeated or reordered, both sides converge on the same
//!   private channel or on none.
//! - What awaits an answer is repeated with backoff while connected, for at most
//!   [`SessionConfig::invite_ttl`]; a repeat meets the stored decision and changes nothing (S7).
//! - A frame leaves and an event is told after the row behind it is durable: all are `gated`.
//! - Nothing is sent to a stranger that it could not have guessed: silent rejection, block, a full
//!   table and "not seen" look alike (S4, S5).
//! - At most [`SessionConfig::max_peers`] records, [`SessionConfig::max_pending`] of them requests
//!   from strangers; what does not fit is refused without a word and counted. Lists inside a record
//!   are bounded and drop their oldest entry.

mod ending;
mod opening;
mod peers;
mod record;
mod rows;
mod run;
mod step;
#[cfg(test)]
mod tests;
mod types;

pub use types::{AnswerError, CloseReason, Rejection, RequestError, SessionEvent, SessionState};

use crate::config::SessionConfig;
use crate::deadline::DeadlineIndex;
use crate::effect::{Effects, RestoreError, Row};
use crate::id::{ConvId, DeviceId, InviteId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::rng::Rng;
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire::Body;

use peers::Peers;
use record::Record;

/// The longest note or reason, in bytes.
const MAX_TEXT: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Timer {
    Lapse,
    Repeat,
}

/// All 1:1 negotiations of one device.
#[derive(Debug)]
pub struct Sessions {
    me: Sender,
    config: SessionConfig,
    rng: Rng,
    peers: Peers,
    timers: DeadlineIndex<(Timer, UserId)>,
    effects: Effects<SessionEvent>,
    up: bool,
    caught_up: bool,
    /// Cut off since then; none when nobody knows for how long, as after a restart.
    away: Option<UnixMillis>,
    refused: u64,
}

impl Sessions {
    /// No sessions yet, not connected: see [`Self::handle_up`].
    pub fn new(me: Sender, config: SessionConfig, rng: Rng) -> Self {
        Self {
            me,
            config,
            peers: Peers::new(&rng),
            timers: DeadlineIndex::new(&rng),
            rng,
            effects: Effects::default(),
            up: false,
            caught_up: false,
            away: None,
            refused: 0,
        }
    }

    /// Takes back a row of [`Table::Sessions`](crate::effect::Table::Sessions). Call
    /// [`Self::resume`] once after the last one.
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, row: &Row, _now: Now) -> Result<(), RestoreError> {
        let (peer, record) = rows::decode(row)?;
        self.peers.take(&peer);
        self.peers.put(peer, record);
        Ok(())
    }

    /// After the restored rows: arms timers and tells `Opened` again for every open session.
    /// Unanswered requests are told by [`Self::handle_caught_up`] (S9).
    pub fn resume(&mut self, now: Now) {
        for peer in self.peers_where(|_| true) {
            self.step(&peer, now, |record, step| {
                if let Some(session) = &record.session {
                    step.opened(session);
                }
            });
        }
    }

    /// Asks `peer` to chat. When the peer's own request stands, both have consented: it is
    /// accepted, and its id returned (S1).
    ///
    /// # Errors
    /// [`RequestError`] says what stands in the way.
    pub fn request(
        &mut self,
        peer: &UserId,
        note: &str,
        now: Now,
    ) -> Result<InviteId, RequestError> {
        if *peer == self.me.user {
            return Err(RequestError::Oneself);
        }
        let bytes = note.len();
        if bytes > MAX_TEXT {
            return Err(RequestError::NoteTooLong { bytes });
        }
        let max = self.config.max_peers;
        if self.peers.record(peer).is_none() && !self.has_room() {
            return Err(RequestError::TooManyPeers { max });
        }
        self.step(peer, now, |record, step| {
            if record.blocked {
                return Err(RequestError::Blocked);
            }
            if record.session.is_some() {
                return Err(RequestError::AlreadyOpen);
            }
            if let Some(out) = &record.out {
                return Err(RequestError::AlreadyAsked { invite: out.invite });
            }
            if let Some(theirs) = record.inn.take() {
                mark("session-request-meets-request");
                let invite = theirs.invite;
                record.join(theirs, step);
                return Ok(invite);
            }
            if let Some(until) = record.cooling(now.wall) {
                let until = now.mono_at(until);
                return Err(RequestError::CoolingDown { until });
            }
            Ok(record.ask(note, step))
        })
    }

    /// Says yes to a standing request; returns the conversation. A session that is open with
    /// another device of the peer is superseded.
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it no longer stands.
    pub fn accept(&mut self, invite: InviteId, now: Now) -> Result<ConvId, AnswerError> {
        let peer = self.requester(invite)?;
        self.step(&peer, now, |record, step| {
            let theirs = record.inn.take().ok_or(AnswerError::NoSuchInvite)?;
            record.join(theirs, step);
            Ok(step.conv)
        })
    }

    /// Says no to a standing request (S4). A silent rejection sends nothing, not even to our own
    /// other devices, whose inbox the requester might watch. Either way further requests of this
    /// peer are not shown during the cool-down, which doubles per refusal (S6); one that still
    /// stands afterwards is.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reject(
        &mut self,
        invite: InviteId,
        how: &Rejection,
        now: Now,
    ) -> Result<(), AnswerError> {
        if let Rejection::Told { reason } = how {
            short(reason)?;
        }
        let peer = self.requester(invite)?;
        self.step(&peer, now, |record, step| {
            if record.inn.is_none() {
                return Err(AnswerError::NoSuchInvite);
            }
            record.reject(how, step);
            Ok(())
        })
    }

    /// Takes our own request back (S2). `Cancel` is sent once: should it be lost, our record
    /// answers a late `Accept`.
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it no longer stands.
    pub fn cancel(&mut self, invite: InviteId, now: Now) -> Result<(), AnswerError> {
        let peer = self.peers.addressee(invite).cloned();
        let peer = peer.ok_or(AnswerError::NoSuchInvite)?;
        self.step(&peer, now, |record, step| {
            if record.out.is_none() {
                return Err(AnswerError::NoSuchInvite);
            }
            record.cancel(step);
            Ok(())
        })
    }

    /// Leaves the session with `peer`; `Closed` is told at once.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn close(&mut self, peer: &UserId, reason: &str, now: Now) -> Result<(), AnswerError> {
        short(reason)?;
        self.step(peer, now, |record, step| {
            if record.session.is_none() {
                return Err(AnswerError::NoSession);
            }
            record.close(reason, step);
            Ok(())
        })
    }

    /// Blocks `peer`, also before any contact; says nothing to anybody (S5). Blocks always fit.
    pub fn block(&mut self, peer: &UserId, now: Now) {
        if *peer != self.me.user {
            self.step(peer, now, |record, step| {
                record.stamp_block(step);
                record.block(step);
            });
        }
    }

    /// Lifts a block.
    pub fn unblock(&mut self, peer: &UserId, now: Now) {
        self.step(peer, now, |record, step| {
            if record.blocked {
                record.stamp_block(step);
                record.unblock();
            }
        });
    }

    /// What another of our own devices says about a block (S5). Blocks always fit; that one was
    /// lifted is of no interest where there is nothing to lift.
    pub fn handle_block(&mut self, peer: &UserId, stamp: u64, blocked: bool, now: Now) {
        let known = self.peers.record(peer).is_some();
        if *peer != self.me.user && (known || blocked) {
            self.step(peer, now, |record, step| {
                record.on_block(stamp, blocked, step)
            });
        }
    }

    /// Everybody who was ever blocked and is remembered: when that was decided, and whether it
    /// holds.
    pub fn blocks(&self) -> impl Iterator<Item = (&UserId, u64, bool)> {
        self.peers
            .iter()
            .filter(|(_, record)| record.block_stamp != 0)
            .map(|(peer, record)| (peer, record.block_stamp, record.blocked))
    }

    /// `device` is not trusted any more: it is in no session with us, and asks for none.
    pub fn distrust(&mut self, peer: &UserId, device: DeviceId, now: Now) {
        if self.peers.record(peer).is_some() {
            self.step(peer, now, |record, step| record.distrust(device, step));
        }
    }

    /// True when `peer` is blocked.
    pub fn is_blocked(&self, peer: &UserId) -> bool {
        self.peers.record(peer).is_some_and(|r| r.blocked)
    }

    /// The user deleted the chat (S15): its last state goes and its record may be evicted, the ids
    /// of decided requests stay, so that no late copy brings it back. Never a `Close`: false, and
    /// nothing happens, while a session or a request is under way or the peer is blocked.
    pub fn forget(&mut self, peer: &UserId, now: Now) -> bool {
        self.step(peer, now, |record, _| {
            let idle = record.is_settled() && record.inn.is_none() && !record.blocked;
            if idle {
                record.last = None;
                record.contact = false;
            }
            idle
        })
    }

    /// A session frame (kinds 0x10–0x18) from `from`, already verified and on our inbox. False
    /// when it makes no sense from this sender; it changed nothing then.
    pub fn handle_frame(&mut self, from: &Sender, body: &Body, now: Now) -> bool {
        if from.user == self.me.user {
            return self.handle_own(from, body, now);
        }
        if self.is_blocked(&from.user) && !planted("session-block-leaks") {
            return true;
        }
        if let Body::Request(request) = body {
            if *request.to != *self.me.user.as_str() {
                return false;
            }
            // An id names one request: the first peer to use it keeps it, so that nobody is
            // accepted in another's name.
            let taken = self.peers.requester(InviteId(request.invite));
            if taken.is_some_and(|peer| *peer != from.user) {
                return false;
            }
        }
        let device = from.device;
        self.step(&from.user, now, |record, step| match body {
            Body::Request(body) => record.on_request(device, body, step),
            Body::Accept(body) => record.on_accept(device, body, step),
            Body::Confirm(body) => record.on_confirm(device, body, step),
            Body::Reject(body) => record.on_reject(body, step),
            Body::Cancel(body) => record.on_cancel(body, step),
            Body::Gone(body) => record.on_gone(device, body, step),
            Body::Close(body) => record.on_close(device, body, step),
            Body::CloseAck(body) => record.on_close_ack(device, body, step),
            _ => false,
        })
    }

    /// From our own devices only `Elsewhere` is believed; our own frames come back and are fine.
    fn handle_own(&mut self, from: &Sender, body: &Body, now: Now) -> bool {
        if from.device == self.me.device {
            return true;
        }
        let Body::Elsewhere(body) = body else {
            return false;
        };
        let Ok(peer) = UserId::new(&body.peer) else {
            return false;
        };
        if peer == self.me.user {
            return false;
        }
        self.step(&peer, now, |record, step| record.on_elsewhere(body, step));
        true
    }

    /// Connected (again): unanswered frames are repeated now. When it was for so long that the
    /// other side may have given up telling us, every open session is affirmed once: who is not in
    /// it any more says so (S2).
    pub fn handle_up(&mut self, now: Now) {
        for peer in self.peers_where(Record::repeats) {
            self.step(&peer, now, |record, step| record.reprieve(step));
        }
        self.up = true;
        for peer in self.peers_where(Record::repeats) {
            self.step(&peer, now, |record, step| {
                record.repeat(step);
                step.news = true;
            });
        }
        let patience = self.config.invite_ttl;
        let long = |since: UnixMillis| now.wall.saturating_since(since) >= patience;
        if self.away.take().is_none_or(long) && !planted("session-never-affirms") {
            for peer in self.peers_where(Record::is_confirmed) {
                self.step(&peer, now, |record, step| record.affirm(step));
            }
        }
    }

    /// The backlog is in: requests that still stand are told (S9). Until the first call after
    /// [`Self::handle_down`], `Requested` is held back, so that a cancel in the same backlog comes
    /// first.
    pub fn handle_caught_up(&mut self, now: Now) {
        self.caught_up = true;
        for peer in self.peers_where(|r| r.inn.as_ref().is_some_and(|inn| !inn.shown)) {
            self.step(&peer, now, |record, step| {
                if let Some(inn) = &mut record.inn {
                    inn.shown = true;
                    let event = inn.requested(step.peer);
                    step.tell(event);
                }
            });
        }
    }

    /// Cut off: what arrives after the next connection may be old, so requests are held back until
    /// the backlog is in (S9); nothing is repeated meanwhile (Q7).
    pub fn handle_down(&mut self, now: Now) {
        if self.up {
            self.away = Some(now.wall);
        }
        self.up = false;
        self.caught_up = false;
        for peer in self.peers_where(Record::repeats) {
            self.timers.remove(&(Timer::Repeat, peer));
        }
    }

    /// True when the device is joined to an open session with us.
    pub fn is_joined(&self, from: &Sender) -> bool {
        self.peers
            .record(&from.user)
            .and_then(|record| record.session.as_ref())
            .is_some_and(|session| session.devices.contains(&from.device))
    }

    /// Message traffic of `conv` came from a device that is in no session with us: tell it `Gone`
    /// so that it stops (S2), unless that would tell a stranger or a blocked peer anything (S4, S5).
    pub fn handle_stray(&mut self, from: &Sender, conv: ConvId, now: Now) {
        let known = self.peers.record(&from.user).is_some_and(|r| !r.blocked);
        if known && conv == ConvId::between(&self.me.user, &from.user) {
            self.step(&from.user, now, |record, step| {
                record.on_stray(from.device, step);
            });
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((timer, peer)) = self.timers.pop_due(now.mono) {
            self.step(&peer, now, |record, step| {
                // What lapsed is ended by the step itself.
                if timer == Timer::Repeat {
                    record.attempts = record.attempts.saturating_add(1);
                    record.repeat(step);
                }
            });
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.earliest()
    }

    /// Where the negotiation with `peer` stands.
    pub fn state(&self, peer: &UserId) -> SessionState {
        self.peers
            .record(peer)
            .map_or(SessionState::Idle, |record| self.state_of(peer, record))
    }

    /// Every peer with something other than `Idle`, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&UserId, SessionState)> {
        let mut all: Vec<_> = self.peers.iter().collect();
        all.sort_unstable_by_key(|(peer, _)| *peer);
        all.into_iter()
            .map(|(peer, record)| (peer, self.state_of(peer, record)))
            .filter(|(_, state)| *state != SessionState::Idle)
    }

    /// How many requests were turned away for want of room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<SessionEvent> {
        &mut self.effects
    }

    fn state_of(&self, peer: &UserId, record: &Record) -> SessionState {
        record.state(ConvId::between(&self.me.user, peer), &self.me.user)
    }

    fn requester(&self, invite: InviteId) -> Result<UserId, AnswerError> {
        let peer = self.peers.requester(invite).cloned();
        peer.ok_or(AnswerError::NoSuchInvite)
    }

    fn peers_where(&self, wanted: impl Fn(&Record) -> bool) -> Vec<UserId> {
        self.peers
            .iter()
            .filter(|(_, record)| wanted(record))
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    fn has_room(&self) -> bool {
        self.peers.len() < self.config.max_peers || self.peers.evictable().is_some()
    }
}

fn key(peer: &UserId) -> Vec<u8> {
    peer.as_str().as_bytes().to_vec()
}

fn short(text: &str) -> Result<(), AnswerError> {
    let bytes = text.len();
    if bytes > MAX_TEXT {
        return Err(AnswerError::TooLong { bytes });
    }
    Ok(())
}
