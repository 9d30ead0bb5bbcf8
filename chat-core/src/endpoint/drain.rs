//! From machine effects to outputs: rows into one batch, frames encoded and signed, events told
//! and passed on to the machines that they concern.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{Endpoint, MAX_PARKED, MAX_TRACKED, Topic};
use crate::channel::{Channel, Class};
use crate::delivery::{DeliveryEvent, FailReason, Route};
use crate::effect::{Effect, Outgoing};
use crate::event::{Event, Fault};
use crate::group::{GroupEvent, Membership};
use crate::id::{ConvId, GroupId, MessageId, UserId};
use crate::link::{LinkOutput, LinkState};
use crate::lobby::GroupListing;
use crate::output::{Output, PersistId, Transmit, TransmitId, Will};
use crate::presence::Follow;
use crate::probe::mark;
use crate::session::SessionEvent;
use crate::time::Now;
use crate::wire::{self, Body};

/// An output whose batch is not closed yet.
#[derive(Debug)]
pub(super) enum Staged {
    Send(Outgoing),
    Event { event: Event, gated: bool },
    Ready(Output),
}

impl Endpoint {
    /// Drains every machine until none wants anything, then closes the batch.
    pub(super) fn settle(&mut self, now: Now) {
        while self.drain_once(now) {}
        let batch = (!self.rows.is_empty()).then(|| {
            let id = PersistId(self.next_persist);
            self.next_persist += 1;
            let rows = core::mem::take(&mut self.rows);
            self.stats.rows += rows.len() as u64;
            self.out.push_back(Output::Persist { id, rows });
            self.delivery.handle_batched(id);
            id
        });
        // What is gated waits for this batch, or else for the last one that is still under way.
        let last = batch.or(self.next_persist.checked_sub(1).map(PersistId));
        let gate = last.filter(|id| self.durable.is_none_or(|durable| *id > durable));
        // Its room is kept for the next input.
        let mut staged = core::mem::take(&mut self.staged);
        for staged in staged.drain(..) {
            match staged {
                Staged::Send(frame) => self.transmit(frame, gate, now),
                Staged::Event { event, gated } => {
                    let after = gate.filter(|_| gated);
                    self.out.push_back(Output::Event { event, after });
                }
                Staged::Ready(output) => self.out.push_back(output),
            }
        }
        self.staged = staged;
    }

    fn drain_once(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.link.poll_output() {
            any = true;
            self.on_link(output, now);
        }
        while let Some(effect) = self.pins.effects().pop() {
            any = true;
            self.stage(effect, |_, _| {}, Event::Identity);
        }
        while let Some(effect) = self.sessions.effects().pop() {
            any = true;
            self.stage(
                effect,
                |this, event| this.on_session(event, now),
                Event::Session,
            );
        }
        while let Some(effect) = self.groups.effects().pop() {
            any = true;
            self.stage(
                effect,
                |this, event| this.on_group(event, now),
                Event::Group,
            );
        }
        while let Some(effect) = self.delivery.effects().pop() {
            any = true;
            self.stage(
                effect,
                |this, event| this.on_delivery(event),
                Event::Delivery,
            );
        }
        while let Some(effect) = self.presence.effects().pop() {
            any = true;
            self.stage(
                effect,
                |this, event| this.company.handle_event(event, now.mono),
                Event::Presence,
            );
        }
        self.company.tell(&self.presence, now.mono);
        while let Some(effect) = self.company.effects().pop() {
            any = true;
            self.stage(effect, |_, _| {}, Event::Presence);
        }
        while let Some(follow) = self.company.poll_follow() {
            any = true;
            self.share(follow, now);
        }
        while let Some(effect) = self.lobbies.effects().pop() {
            any = true;
            self.stage(effect, |_, _| {}, Event::Lobby);
        }
        any
    }

    fn stage<E>(
        &mut self,
        effect: Effect<E>,
        pass_on: impl FnOnce(&mut Self, &E),
        tell: impl FnOnce(E) -> Event,
    ) {
        match effect {
            Effect::Row(op) => self.rows.push(op),
            Effect::Send(frame) => self.staged.push(Staged::Send(frame)),
            Effect::Emit { event, gated } => {
                pass_on(self, &event);
                self.staged.push(Staged::Event {
                    event: tell(event),
                    gated,
                });
            }
        }
    }

    fn transmit(&mut self, frame: Outgoing, gate: Option<PersistId>, now: Now) {
        if !self.link.is_up() {
            if frame.class == Class::Durable && frame.carries.is_none() {
                if self.parked.len() == MAX_PARKED {
                    self.parked.pop_front();
                    self.stats.parked_dropped += 1;
                }
                self.parked.push_back(frame);
            }
            return;
        }
        let Some(bytes) = self.encode(&frame.channel, &frame.body) else {
            return;
        };
        if bytes.len() > self.max_frame {
            // A broker would end the connection over it. What repeats it may find a wider one.
            self.fault_now(&frame.channel, Fault::TooLarge, now);
            return;
        }
        let id = TransmitId(self.next_transmit);
        self.next_transmit += 1;
        if let Some(tracked) = frame.carries {
            if self.tracked.len() == MAX_TRACKED {
                self.tracked.pop_first();
            }
            self.tracked.insert(id, tracked);
        }
        let epoch_gate = self.epoch_gate();
        let gate =
            gate.filter(|_| frame.gated && !crate::probe::planted("endpoint-ungated-frames"));
        self.stats.frames_out += 1;
        self.out.push_back(Output::Transmit(Transmit {
            id,
            channel: frame.channel,
            bytes,
            class: frame.class,
            ttl: frame.ttl,
            last_value: frame.last_value,
            dedup: frame
                .carries
                .map(|carried| dedup_id(&carried.first, carried.attempt)),
            after: gate.max(epoch_gate),
        }));
    }

    fn encode(&mut self, channel: &Channel, body: &Body) -> Option<bytes::Bytes> {
        match wire::encode(body, &self.me.user, channel, &*self.signer) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                // Every machine bounds what it sends, so this is a bug of ours: say so loudly in
                // tests, and in production lose one frame that its machine will repeat or expire.
                debug_assert!(false, "a machine queued an oversized frame: {error}");
                self.stats.faults += 1;
                None
            }
        }
    }

    /// The row of this life's epoch, while it is not durable: no frame leaves before.
    fn epoch_gate(&self) -> Option<PersistId> {
        Some(self.epoch_row).filter(|id| self.durable.is_none_or(|durable| *id > durable))
    }

    /// Connects, once the epoch is durable: the will names it, and outlives a process that does
    /// not come to store it. The next life would take the same epoch and be outranked (P2).
    pub(super) fn connect_durably(&mut self) {
        if self.epoch_gate().is_some() && !crate::probe::planted("endpoint-will-before-epoch") {
            mark("endpoint-connect-waits-for-epoch");
            self.connect_waits = true;
            return;
        }
        let channel = Channel::Presence(self.me.user.clone());
        let will = Body::Presence(self.presence.will());
        let will = self
            .encode(&channel, &will)
            .map(|bytes| Will { channel, bytes });
        self.staged.push(Staged::Ready(Output::Connect { will }));
    }

    fn on_link(&mut self, output: LinkOutput, now: Now) {
        let ready = match output {
            LinkOutput::Connect => return self.connect_durably(),
            // Nothing was opened.
            LinkOutput::Disconnect if core::mem::take(&mut self.connect_waits) => return,
            LinkOutput::Disconnect => Output::Disconnect,
            LinkOutput::Subscribe(channel) => Output::Subscribe(channel),
            LinkOutput::Unsubscribe(channel) => Output::Unsubscribe(channel),
            LinkOutput::Refused(channel) => {
                self.fault(None, &channel, Fault::Refused, now);
                return;
            }
            LinkOutput::State(state) => {
                self.on_link_state(&state, now);
                self.staged.push(Staged::Event {
                    event: Event::Link(state),
                    gated: false,
                });
                return;
            }
        };
        self.staged.push(Staged::Ready(ready));
    }

    fn on_link_state(&mut self, state: &LinkState, now: Now) {
        match state {
            LinkState::Connected { .. } => {
                mark("endpoint-connected");
                for frame in core::mem::take(&mut self.parked) {
                    // Whom we blocked meanwhile hears nothing of us (S5).
                    let blocked = matches!(&frame.channel, Channel::Inbox(user)
                        if self.sessions.is_blocked(user));
                    if blocked {
                        mark("endpoint-parked-for-the-blocked");
                        continue;
                    }
                    self.staged.push(Staged::Send(frame));
                }
                self.seek_siblings();
                self.sessions.handle_up(now);
                self.groups.handle_up(now);
                self.delivery.handle_up(now);
                self.presence.handle_up(now);
                self.lobbies.handle_up(now);
            }
            LinkState::CaughtUp => {
                self.sessions.handle_caught_up(now);
                self.presence.handle_caught_up(now);
            }
            LinkState::Disconnected { .. } | LinkState::Failed { .. } | LinkState::Closed => {
                self.tracked.clear();
                self.sessions.handle_down(now);
                self.groups.handle_down(now);
                self.delivery.handle_down(now);
                self.presence.handle_down(now);
                self.company.handle_down();
                self.lobbies.handle_down(now);
            }
            LinkState::Connecting { .. } => {}
        }
    }

    fn on_session(&mut self, event: &SessionEvent, now: Now) {
        match event {
            SessionEvent::Opened {
                peer,
                conv,
                channel,
                devices,
                ..
            } => {
                self.pins.keep_met(peer, devices);
                self.open_topic(peer, *conv, channel, now);
                let recipients = devices
                    .iter()
                    .map(|device| ((peer.clone(), *device), 0))
                    .collect();
                let route = Route::new(channel.clone(), recipients, 0, false);
                self.delivery.open(*conv, route, now);
                self.presence.meet(peer, now);
                self.link.subscribe(Channel::Presence(peer.clone()), now);
            }
            SessionEvent::Closed { peer, conv, .. } => {
                if self.close_topic(*conv, now) {
                    self.delivery.close(*conv, FailReason::Gone, now);
                    self.presence.part(peer, now);
                    self.unfollow(peer, now);
                }
            }
            SessionEvent::Requested { .. }
            | SessionEvent::Withdrawn { .. }
            | SessionEvent::BlockChanged { .. } => {}
        }
    }

    /// Nobody is listened to whom neither the application nor a session follows.
    pub(super) fn unfollow(&mut self, user: &UserId, now: Now) {
        if !self.presence.is_watched(user) {
            self.link.unsubscribe(&Channel::Presence(user.clone()), now);
        }
    }

    fn open_topic(&mut self, peer: &UserId, conv: ConvId, channel: &Channel, now: Now) {
        self.link.subscribe(channel.clone(), now);
        let at = self.topics.slot_or_insert_with(&conv, || Topic {
            peer: peer.clone(),
            current: channel.clone(),
            former: None,
        });
        self.private.insert(channel.clone(), at);
        let topic = &mut self.topics[at];
        if topic.current != *channel {
            mark("endpoint-topic-rotated");
            let old = core::mem::replace(&mut topic.current, channel.clone());
            if let Some(older) = topic.former.replace(old) {
                self.drop_channel(&older, now);
            }
        }
    }

    fn close_topic(&mut self, conv: ConvId, now: Now) -> bool {
        let Some(topic) = self.topics.remove(&conv) else {
            return false;
        };
        self.drop_channel(&topic.current, now);
        if let Some(former) = topic.former {
            self.drop_channel(&former, now);
        }
        true
    }

    pub(super) fn drop_channel(&mut self, channel: &Channel, now: Now) {
        self.private.remove(channel);
        self.link.unsubscribe(channel, now);
    }

    fn on_group(&mut self, event: &GroupEvent, now: Now) {
        self.sync_group(event.group(), now);
    }

    fn share(&mut self, follow: Follow, now: Now) {
        match follow {
            Follow::Begin(user) => {
                self.link.subscribe(Channel::Presence(user.clone()), now);
                self.presence.share(&user, now);
            }
            Follow::End(user) => {
                self.presence.unshare(&user, now);
                self.unfollow(&user, now);
            }
        }
    }

    /// Who of the group is to be followed (P11): where the application wants to see them, and for
    /// all of a large group that we lead.
    pub(super) fn sync_company(&mut self, group: GroupId, now: Now) {
        let mine = self.groups.membership(group);
        let leads = mine == Some(Membership::Leader);
        let inside = leads || mine == Some(Membership::Member);
        let concerns = leads && self.company.may_be_large(self.groups.size(group));
        if !inside || !(concerns || self.company.is_watched(group)) {
            self.company.leave(group);
            return;
        }
        let Some(view) = self.groups.view(group) else {
            return;
        };
        let mut members: BTreeSet<UserId> =
            view.roster.into_iter().map(|member| member.user).collect();
        members.remove(&self.me.user);
        self.company.set(group, members, leads, now.mono);
    }

    /// Brings routes, subscriptions and lobby cards in line with what the group's log says.
    pub(super) fn sync_group(&mut self, group: GroupId, now: Now) {
        let channel = Channel::Group(group);
        let conv = ConvId::from(group);
        let mine = self.groups.membership(group);
        match mine {
            Some(Membership::Member | Membership::Leader) => {
                self.link.subscribe(channel.clone(), now);
                self.end_room(group, now);
                self.rooms.insert(group, self.groups.seat(group));
                if let Some(audience) = self.groups.audience(group) {
                    let recipients = audience
                        .members
                        .into_iter()
                        .map(|m| ((m.user, m.device), m.since))
                        .collect();
                    let route = Route::new(channel, recipients, audience.index, true)
                        .since(audience.since)
                        .left(audience.left);
                    self.delivery.open(conv, route, now);
                }
            }
            // Who leaves and asks again is in by the old membership until the log shows it.
            Some(Membership::Leaving | Membership::Asking) => {
                self.end_room(group, now);
                if let Some(seat) = self.groups.seat(group) {
                    self.rooms.insert(group, Some(seat));
                }
                self.link.subscribe(channel, now);
            }
            Some(Membership::Left | Membership::Kicked | Membership::Denied) | None => {
                self.rooms.remove(&group);
                self.delivery.close(conv, FailReason::Gone, now);
                // Who went on a branch that lost supports a leader that logs it.
                if self.groups.seat(group).is_some() {
                    self.link.subscribe(channel, now);
                } else {
                    self.link.unsubscribe(&channel, now);
                }
            }
        }
        if mine == Some(Membership::Leader)
            && let Some(view) = self.groups.view(group)
        {
            let members = u32::try_from(view.roster.len()).unwrap_or(u32::MAX);
            let listing = GroupListing::new(group, view.name, self.me.user.clone(), members);
            self.lobbies.show(listing, view.index, now);
        } else {
            let closed = mine == Some(Membership::Left) && self.groups.is_closed(group);
            self.lobbies.hide(group, closed, now);
        }
        self.sync_company(group, now);
    }

    /// Closes what belongs to a membership that the log ended, or lists no more.
    fn end_room(&mut self, group: GroupId, now: Now) {
        let seat = self.groups.seat(group);
        if self.rooms.get(&group).is_some_and(|held| *held != seat) {
            mark("endpoint-another-membership");
            self.rooms.remove(&group);
            let conv = ConvId::from(group);
            self.delivery.close(conv, FailReason::Gone, now);
        }
    }

    /// True for the group that we said to leave: messages stop at once (G12).
    pub(super) fn leaves(&self, conv: ConvId) -> bool {
        let group = GroupId::from(conv);
        let mine = || self.groups.membership(group);
        self.rooms.contains_key(&group)
            && !matches!(mine(), Some(Membership::Member | Membership::Leader))
    }

    fn on_delivery(&mut self, event: &DeliveryEvent) {
        if let DeliveryEvent::RolledBack { .. } = event {
            mark("endpoint-rolled-back");
        }
    }

    /// The same while the batch is being closed.
    fn fault_now(&mut self, channel: &Channel, fault: Fault, now: Now) {
        self.stats.faults += 1;
        if let Some(event) = self.faults.count(None, channel, fault, now.mono) {
            self.out.push_back(Output::Event { event, after: None });
        }
    }

    /// Counts a fault and tells it now and then.
    pub(super) fn fault(
        &mut self,
        from: Option<UserId>,
        channel: &Channel,
        fault: Fault,
        now: Now,
    ) {
        self.stats.faults += 1;
        if let Some(event) = self.faults.count(from, channel, fault, now.mono) {
            self.staged.push(Staged::Event {
                event,
                gated: false,
            });
        }
    }
}

/// Different for each attempt: a broker that drops duplicates inside its window must not drop a
/// deliberate repeat (semantics 2.0, "Dedup").
fn dedup_id(message: &MessageId, attempt: u32) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(message.stream.conv.as_bytes());
    hash.update(message.stream.device.as_bytes());
    hash.update(message.stream.epoch.0.to_le_bytes());
    hash.update(message.seq.0.to_le_bytes());
    hash.update(attempt.to_le_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    *digest.first_chunk().expect("32 bytes hold 16")
}
