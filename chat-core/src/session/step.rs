//! One input's work on one record: what it may look at, and the frames and events it causes.

use core::time::Duration;

use super::record::{Closing, Ours, Session};
use super::types::{CloseReason, SessionEvent};
use crate::channel::Channel;
use crate::config::SessionConfig;
use crate::effect::Outgoing;
use crate::id::{ConvId, DeviceId, InviteId, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::time::{Now, UnixMillis};
use crate::wire::session as wire;
use crate::wire::{Body, BoundedStr, BoundedVec};

/// A farewell is repeated for at least so long: several times what an outage takes to be noticed.
const MIN_FAREWELL: Duration = Duration::from_secs(600);

/// A frame or an event, in the order they were caused.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a step has few, and they are gone when it ends"
)]
pub(super) enum Act {
    Send(Box<Outgoing>),
    Tell(SessionEvent),
}

/// The surroundings of one step.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) me: &'a Sender,
    pub(super) config: &'a SessionConfig,
    pub(super) rng: &'a mut Rng,
    pub(super) now: Now,
    pub(super) peer: &'a UserId,
    pub(super) conv: ConvId,
    /// The backlog is in: requests may be shown (S9).
    pub(super) caught_up: bool,
    /// Connected: the other side can answer.
    pub(super) up: bool,
    /// There is room for one more stranger's request.
    pub(super) room: bool,
    pub(super) acts: Vec<Act>,
    /// Something new awaits an answer: the backoff starts over.
    pub(super) news: bool,
    /// A request was turned away for want of room.
    pub(super) refused: bool,
}

impl Step<'_> {
    pub(super) fn tell(&mut self, event: SessionEvent) {
        self.acts.push(Act::Tell(event));
    }

    pub(super) fn closed(&mut self, why: CloseReason) {
        self.tell(SessionEvent::Closed {
            peer: self.peer.clone(),
            conv: self.conv,
            why,
        });
    }

    pub(super) fn withdrawn(&mut self, invite: InviteId, why: CloseReason) {
        self.tell(SessionEvent::Withdrawn {
            peer: self.peer.clone(),
            invite,
            why,
        });
    }

    pub(super) fn opened(&mut self, session: &Session) {
        self.tell(SessionEvent::Opened {
            peer: self.peer.clone(),
            conv: self.conv,
            channel: session.channel(self.conv),
            devices: session.devices.clone(),
            ours: session.ours,
        });
    }

    /// When a farewell that starts now is given up. Not before the other side's silent outages are
    /// noticed: who was cut off for longer than a request stands asks again by itself.
    pub(super) fn farewell_until(&self) -> UnixMillis {
        self.until().max(self.now.wall.plus(MIN_FAREWELL))
    }

    /// When something that starts now is given up.
    pub(super) fn until(&self) -> UnixMillis {
        self.now.wall.plus(self.config.invite_ttl)
    }

    fn send_peer(&mut self, body: impl Into<Body>) {
        let frame = Outgoing::durable(Channel::Inbox(self.peer.clone()), body);
        self.acts.push(Act::Send(Box::new(frame)));
    }

    pub(super) fn send_request(&mut self, out: &Ours) {
        let frame = Outgoing::durable(
            Channel::Inbox(self.peer.clone()),
            wire::Request {
                invite: out.invite.0,
                secret: out.secret.0,
                to: BoundedStr::truncated(self.peer.as_str()),
                note: BoundedStr::truncated(&out.note),
                ttl_ms: out.ttl_ms,
                sent_at: out.sent_at,
            },
        )
        .with_ttl(out.expires.saturating_since(self.now.wall));
        self.acts.push(Act::Send(Box::new(frame)));
    }

    pub(super) fn send_accept(&mut self, session: &Session) {
        let Some(inviter) = session.devices.first() else {
            return;
        };
        self.send_peer(wire::Accept {
            invite: session.invite.0,
            inviter: inviter.0,
            over: session.over.as_ref().map(|o| o.invite.0),
        });
    }

    pub(super) fn send_confirm(&mut self, session: &Session) {
        self.send_peer(wire::Confirm {
            invite: session.invite.0,
            joined: BoundedVec::take_from(session.devices.iter().map(|d| d.0)),
        });
    }

    pub(super) fn send_reject(&mut self, invite: InviteId, reason: &str) {
        self.send_peer(wire::Reject {
            invite: invite.0,
            reason: BoundedStr::truncated(reason),
        });
    }

    pub(super) fn send_cancel(&mut self, invite: InviteId) {
        self.send_peer(wire::Cancel { invite: invite.0 });
    }

    pub(super) fn send_gone(&mut self, invite: InviteId, why: u8) {
        self.send_peer(wire::Gone {
            invite: invite.0,
            why,
        });
    }

    pub(super) fn send_close(&mut self, closing: &Closing) {
        self.send_peer(wire::Close {
            invite: closing.invite.0,
            reason: BoundedStr::truncated(&closing.reason),
        });
    }

    pub(super) fn send_close_ack(&mut self, invite: InviteId) {
        self.send_peer(wire::CloseAck { invite: invite.0 });
    }

    /// To our own other devices (S8).
    pub(super) fn send_elsewhere(&mut self, invite: InviteId, accepted: bool) {
        let frame = Outgoing::durable(
            Channel::Inbox(self.me.user.clone()),
            wire::Elsewhere {
                peer: BoundedStr::truncated(self.peer.as_str()),
                invite: invite.0,
                accepted,
            },
        );
        self.acts.push(Act::Send(Box::new(frame)));
    }

    pub(super) fn is_me(&self, device: &[u8; 32]) -> bool {
        DeviceId(*device) == self.me.device
    }
}
