//! The end: every message that lives reached everybody who stayed, or a gap or a failure says that
//! it did not (ID4, ID7); what may be missing for a legal reason is counted.

use std::collections::BTreeSet;

use chat_core::delivery::TimelineItem;
use chat_core::effect::Table;
use chat_core::group::{GroupView, Membership};
use chat_core::id::{ConvId, MessageId, UserId};
use chat_core::session::SessionState;

use super::super::{Settled, View, Violation};
use super::{Delivery, Fate, Message, Place, covers};

impl Delivery {
    /// ID4 and ID7 at the end: every message that lives reached everybody who stayed, and what
    /// did not is covered by a gap.
    ///
    /// # Errors
    /// The first message that is missing.
    pub fn settled(&mut self, nodes: &[View<'_>]) -> Result<Settled, Violation> {
        let (owed, exempt) = self.owed(nodes)?;
        self.owed = (owed, exempt);
        Ok(if exempt > 0 {
            Settled::Exempt
        } else {
            Settled::Yes
        })
    }

    /// How many messages were owed to somebody, and how many of those are missing for a legal
    /// reason; after [`Self::settled`].
    pub fn exempt(&self) -> (u64, u64) {
        self.owed
    }

    fn owed(&self, nodes: &[View<'_>]) -> Result<(u64, u64), Violation> {
        let (mut owed, mut exempt) = (0, 0);
        for (id, message) in &self.messages {
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
                owed += 1;
                let inbox = &self.places[receiver].inbox;
                if inbox.seen.contains_key(id) {
                    continue;
                }
                if nodes[receiver].at.device != *device
                    || self.ended_before_parting(id, message, user, nodes)
                    || self.is_exempt(message, receiver, nodes)
                    || self.waits_behind_the_lost(id, &nodes[receiver])
                    || self.hides_behind_the_lost(id, message, nodes)
                {
                    exempt += 1;
                    continue;
                }
                let covered = self.covered(&nodes[receiver], id);
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

    /// A gap names the message; or, since a gap at the end of a process life only counts what was
    /// lost up to the next life, the gaps of that sender count at least what is missing.
    /// A gap that a crash kept from being told is on the timeline.
    fn covered(&self, view: &View<'_>, id: &MessageId) -> bool {
        let receiver = view.at.node;
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
            let forgotten = self.places[message.node]
                .damaged
                .is_some_and(|at| at >= message.at);
            same(other)
                && meant
                && !forgotten
                && !matches!(
                    message.fate,
                    Fate::Issued | Fate::TakenBack | Fate::Cancelled | Fate::Unsendable
                )
                && !inbox.seen.contains_key(*other)
        });
        missing.count() as u64 <= counted
    }

    /// Durable at a receiver whose disk went back: it waits behind what was acknowledged before,
    /// until its sender speaks again.
    fn waits_behind_the_lost(&self, id: &MessageId, view: &View<'_>) -> bool {
        let stream = &id.stream;
        let key = [
            &stream.conv.0[..],
            &stream.device.0[..],
            &stream.epoch.0.to_be_bytes()[..],
            &id.seq.0.to_be_bytes()[..],
        ];
        self.places[view.at.node].damaged.is_some()
            && view
                .rows
                .contains_key(&(Table::Streams, key.concat().into()))
    }

    /// A sender whose disk went back counts less than it sent: what expired at the end of an epoch
    /// makes no gap where the receiver has more than the sender remembers.
    fn hides_behind_the_lost(&self, id: &MessageId, message: &Message, nodes: &[View<'_>]) -> bool {
        let ended = message.fate == Fate::Expired || failed_on_timeline(&nodes[message.node], id);
        self.places[message.node].damaged.is_some() && ended
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

    fn is_exempt(&self, message: &Message, receiver: usize, nodes: &[View<'_>]) -> bool {
        let (from, to) = (&self.places[message.node], &self.places[receiver]);
        if from.killed || to.killed {
            return true;
        }
        // What came or went before a disk went back.
        let before = |place: &Place| place.damaged.is_some_and(|at| at >= message.at);
        if before(from) || before(to) {
            return true;
        }
        // A lost session or a lost membership takes later messages with it.
        let damaged = from.damaged.is_some() || to.damaged.is_some();
        let (sender, reader) = (&nodes[message.node], &nodes[receiver]);
        let (Some(a), Some(b)) = (sender.endpoint, reader.endpoint) else {
            return false;
        };
        let (me, you) = (sender.at.user, reader.at.user);
        if ConvId::between(me, you) == message.conv {
            // Of two people with many devices others may have met again.
            let channel = |state| match state {
                SessionState::Active { channel, .. } => Some(channel),
                _ => None,
            };
            // Who went back may be in an earlier session of the two than the other.
            let apart = channel(a.session(you)) != channel(b.session(me));
            if damaged && (apart || !message.met.contains(&reader.at.device)) {
                return true;
            }
            let open = |state, with| match state {
                SessionState::Active { devices, .. } => devices.contains(&with),
                _ => false,
            };
            return (damaged || self.parted.contains(&(me.clone(), you.clone())))
                && !(open(a.session(you), reader.at.device)
                    && open(b.session(me), sender.at.device));
        }
        let out = |user: &UserId| self.removed.get(user).is_some_and(|at| *at >= message.at);
        let stays = |view: Option<GroupView>| {
            view.is_some_and(|view| matches!(view.mine, Membership::Member | Membership::Leader))
        };
        let group = message.conv.into();
        // A leader whose log went back admits people anew: those are other memberships.
        let rewritten = a
            .group(group)
            .and_then(|view| view.leader)
            .is_some_and(|leader| {
                let led = |view: &&View<'_>| *view.at.user == leader;
                nodes
                    .iter()
                    .filter(led)
                    .any(|view| self.places[view.at.node].damaged.is_some())
            });
        rewritten
            || damaged
            || out(me)
            || out(you)
            || !stays(a.group(group))
            || !stays(b.group(group))
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
