//! The end: every message that lives reached everybody who stayed, or a gap or a failure says that
//! it did not (ID4, ID7); what may be missing for a legal reason is counted.

use std::collections::BTreeSet;

use chat_core::delivery::TimelineItem;
use chat_core::effect::Table;
use chat_core::group::{GroupView, Membership};
use chat_core::id::{ConvId, MessageId, UserId};
use chat_core::session::SessionState;

use super::super::{Marks, Settled, View, Violation};
use super::damage::Disk;
use super::{Delivery, Fate, Message, covers};

impl Delivery {
    /// ID4 and ID7 at the end: every message that lives reached everybody who stayed, and what
    /// did not is covered by a gap.
    ///
    /// # Errors
    /// The first message that is missing.
    pub fn settled(&mut self, nodes: &[View<'_>]) -> Result<Settled, Violation> {
        let mut why = Marks::default();
        self.owed = self.owed(nodes, &mut why)?;
        for (excuse, count) in why.list() {
            self.marks.add(excuse, count);
        }
        Ok(if self.owed.1 > 0 {
            Settled::Exempt
        } else {
            Settled::Yes
        })
    }

    /// How many messages were owed to somebody who is still there, and how many of those are
    /// missing for a legal reason; after [`Self::settled`].
    pub fn exempt(&self) -> (u64, u64) {
        self.owed
    }

    fn owed(&self, nodes: &[View<'_>], why: &mut Marks) -> Result<(u64, u64), Violation> {
        let (mut owed, mut exempt) = (0, 0);
        for (id, message) in self.messages.iter().filter(|(_, message)| !message.moved) {
            match message.fate {
                Fate::Issued
                | Fate::TakenBack
                | Fate::Cancelled
                | Fate::Gone
                | Fate::Unsendable => continue,
                Fate::Accepted | Fate::Delivered | Fate::Expired | Fate::Refused => {}
            }
            for (user, device) in &message.to {
                let Some(receiver) = self.devices.get(device).copied() else {
                    continue;
                };
                // Nobody owes anything to a device that never comes back. What it was said to have
                // it had: `promised`.
                if nodes[receiver].at.device != *device || self.places[receiver].killed {
                    why.hit("oracle-to-the-gone");
                    continue;
                }
                owed += 1;
                let place = &self.places[receiver];
                if place.inbox.seen.contains_key(id) {
                    continue;
                }
                let took = |disk: &Disk| disk.took_along(id);
                if place.damaged.is_some() && self.disks.get(device).is_some_and(took) {
                    why.hit("oracle-came-and-was-lost");
                    continue;
                }
                if let Some(excuse) = self.excuse(id, message, user, receiver, nodes) {
                    why.hit(excuse);
                    exempt += 1;
                    continue;
                }
                let covered = self.covered(receiver, nodes, id);
                if covered && matches!(message.fate, Fate::Expired | Fate::Refused) {
                    continue;
                }
                if covered && failed_on_timeline(&nodes[message.node], id) {
                    continue;
                }
                let rule = if message.fate == Fate::Expired {
                    "ID7"
                } else {
                    "ID4"
                };
                let text = format!(
                    "{id:?} {:?} of node {} ({:?}, sent at {} s) is not at node {receiver} ({user}); \
                     gap: {covered}",
                    message.body,
                    message.node,
                    message.fate,
                    message.at / 1_000_000
                );
                return Err(Violation::new(rule, text));
            }
        }
        Ok((owed, exempt))
    }

    /// Why a message may be missing at a receiver that is there: the mark that counts it.
    fn excuse(
        &self,
        id: &MessageId,
        message: &Message,
        user: &UserId,
        receiver: usize,
        nodes: &[View<'_>],
    ) -> Option<&'static str> {
        let (from, to) = (&self.places[message.node], &self.places[receiver]);
        let devices = message.to.iter().filter(|(of, _)| of == user);
        // Told delivered, and to this device: nothing excuses its sender.
        let promised = message.delivered && devices.count() == 1;
        if self.ended_before_parting(id, message, user, nodes) {
            return Some("oracle-exempt-ended-and-parted");
        }
        if from.killed && !promised {
            return Some("oracle-exempt-sender-dead");
        }
        // It forgot the message, or that it gave it up and said so.
        if message.forgotten && !promised || message.forgot_end {
            return Some("oracle-exempt-sender-forgot");
        }
        if self.waits_behind_the_lost(id, message, &nodes[receiver]) {
            return Some("oracle-exempt-waits-behind-the-lost");
        }
        // A sender counts less than it sent: what expired at the end of an epoch makes no gap where
        // the receiver has more than the sender remembers.
        let ended =
            || message.fate == Fate::Expired || failed_on_timeline(&nodes[message.node], id);
        if (from.damaged.is_some() || to.damaged.is_some()) && ended() {
            return Some("oracle-exempt-gap-behind-the-lost");
        }
        if message.conv == ConvId::between(nodes[message.node].at.user, user) {
            self.apart(message, receiver, nodes)
        } else {
            self.outside(message, receiver, nodes)
        }
    }

    /// A lost session takes messages with it, and so does one that ended.
    fn apart(
        &self,
        message: &Message,
        receiver: usize,
        nodes: &[View<'_>],
    ) -> Option<&'static str> {
        let (sender, reader) = (&nodes[message.node], &nodes[receiver]);
        let (a, b) = (sender.endpoint?, reader.endpoint?);
        let (me, you) = (sender.at.user, reader.at.user);
        let places = [message.node, receiver];
        let damaged = places
            .iter()
            .any(|node| self.places[*node].damaged.is_some());
        // Of two people with many devices others may have met again.
        let channel = |state| match state {
            SessionState::Active { channel, .. } => Some(channel),
            _ => None,
        };
        // Who went back may be in an earlier session of the two than the other.
        let apart = channel(a.session(you)) != channel(b.session(me));
        if damaged && (apart || !message.met.contains(&reader.at.device)) {
            return Some("oracle-exempt-session-lost");
        }
        let open = |state, with| match state {
            SessionState::Active { devices, .. } => devices.contains(&with),
            _ => false,
        };
        let parted = damaged || self.parted.contains(&(me.clone(), you.clone()));
        let both = open(a.session(you), reader.at.device) && open(b.session(me), sender.at.device);
        (parted && !both).then_some("oracle-exempt-parted")
    }

    /// A membership that ended takes messages with it, and so does one that was lost.
    fn outside(
        &self,
        message: &Message,
        receiver: usize,
        nodes: &[View<'_>],
    ) -> Option<&'static str> {
        let (sender, reader) = (&nodes[message.node], &nodes[receiver]);
        let out = |user: &UserId| self.removed.get(user).is_some_and(|at| *at >= message.at);
        if out(sender.at.user) || out(reader.at.user) {
            return Some("oracle-exempt-out-of-the-group");
        }
        let (a, b) = (sender.endpoint?, reader.endpoint?);
        let group = message.conv.into();
        let stays = |view: Option<GroupView>| {
            view.is_some_and(|view| matches!(view.mine, Membership::Member | Membership::Leader))
        };
        if !stays(a.group(group)) || !stays(b.group(group)) {
            return Some("oracle-exempt-out-of-the-group");
        }
        // A leader whose log went back admits people anew: those are other memberships.
        let led = |view: &&View<'_>| {
            a.group(group).and_then(|it| it.leader).as_ref() == Some(view.at.user)
        };
        let damaged = |view: &View<'_>| self.places[view.at.node].damaged.is_some();
        let rewritten = nodes.iter().filter(led).any(damaged);
        (rewritten || damaged(sender) || damaged(reader)).then_some("oracle-exempt-membership-lost")
    }

    /// One of the two was let in anew since: nobody counts in this membership what was for another.
    fn was_to_another_membership(
        &self,
        message: &Message,
        receiver: usize,
        nodes: &[View<'_>],
    ) -> bool {
        let pair = [message.node, receiver].map(|node| nodes[node].at.user);
        let out = |user: &UserId| self.removed.get(user).is_some_and(|at| *at >= message.at);
        message.conv != ConvId::between(pair[0], pair[1]) && pair.into_iter().any(out)
    }

    /// A gap names the message; or, since a gap at the end of a process life only counts what was
    /// lost up to the next life, the gaps of that sender count at least what is missing.
    /// A gap that a crash kept from being told is on the timeline.
    fn covered(&self, receiver: usize, nodes: &[View<'_>], id: &MessageId) -> bool {
        let view = &nodes[receiver];
        let inbox = &self.places[receiver].inbox;
        let same = |other: &MessageId| {
            other.stream.device == id.stream.device && other.stream.conv == id.stream.conv
        };
        let mut gaps: BTreeSet<(MessageId, u64)> = inbox.gaps.iter().copied().collect();
        gaps.extend(gaps_on_timeline(view, id.stream.conv));
        if gaps.iter().any(|gap| covers(gap, id)) {
            return true;
        }
        let counted: u64 = gaps
            .iter()
            .filter(|gap| same(&gap.0))
            .map(|gap| gap.1)
            .sum();
        let device = self.places[receiver].device;
        let missing = self.messages.iter().filter(|(other, message)| {
            let meant = message.to.iter().any(|(_, to)| Some(*to) == device);
            // A sender whose disk went back does not count what it forgot.
            same(other)
                && meant
                && !message.forgotten
                && !message.moved
                && !self.was_to_another_membership(message, receiver, nodes)
                && !matches!(
                    message.fate,
                    Fate::Issued | Fate::TakenBack | Fate::Cancelled | Fate::Unsendable
                )
                && !inbox.seen.contains_key(*other)
        });
        missing.count() as u64 <= counted
    }

    /// Durable at the receiver, behind something that was acknowledged before a disk went back, or
    /// that its sender took to the grave: it waits until the sender speaks again, or for ever.
    fn waits_behind_the_lost(&self, id: &MessageId, message: &Message, view: &View<'_>) -> bool {
        let from = &self.places[message.node];
        let stream = &id.stream;
        let key = [
            &stream.conv.0[..],
            &stream.device.0[..],
            &stream.epoch.0.to_be_bytes()[..],
            &id.seq.0.to_be_bytes()[..],
        ];
        let lost = self.places[view.at.node].damaged.or(from.damaged);
        (from.killed || lost.is_some())
            && view
                .rows
                .contains_key(&(Table::Streams, key.concat().into()))
    }

    /// It failed and then the two parted: a later session of theirs owes it no gap.
    fn ended_before_parting(
        &self,
        id: &MessageId,
        message: &Message,
        to: &UserId,
        nodes: &[View<'_>],
    ) -> bool {
        let from = nodes[message.node].at.user;
        let closed = self.closed.get(&(from.clone(), to.clone()));
        self.ending.contains(id)
            && message.conv == ConvId::between(from, to)
            && closed.is_some_and(|at| *at >= message.at)
    }
}

fn gaps_on_timeline(view: &View<'_>, conv: ConvId) -> Vec<(MessageId, u64)> {
    view.timeline(&conv.0)
        .filter_map(|item| match item {
            TimelineItem::Gap { first, count, .. } => Some((first, count)),
            _ => None,
        })
        .collect()
}

/// The event that told its end may have died with the process; the row did not.
fn failed_on_timeline(view: &View<'_>, id: &MessageId) -> bool {
    view.timeline(&id.stream.conv.0).any(|item| match item {
        TimelineItem::Sent {
            id: sent, failed, ..
        } => sent == *id && failed.is_some(),
        _ => false,
    })
}
