//! Delivery: ID1–ID7, from commands, told events and `Data` frames on the wire.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chat_core::content::Content;
use chat_core::delivery::{Ack, DeliveryEvent, FailReason, Received, TimelineItem};
use chat_core::effect::{Row, Table};
use chat_core::event::Event;
use chat_core::group::{GroupEvent, Membership};
use chat_core::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId, UserId};
use chat_core::session::{CloseReason, SessionEvent, SessionState};
use chat_core::wire::{self, Body};

use chat_core::Transmit;

use super::{Act, At, Seen, Settled, Verdict, View, Violation};
use crate::sim::{FakeVerifier, Ledger};

const DATA: u8 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// `send` returned, nothing is durable yet.
    Issued,
    Accepted,
    Delivered,
    /// Taken back; whether that became durable is not known.
    TakenBack,
    /// Told to have failed, by a reason that both sides see.
    Expired,
    Cancelled,
    Gone,
    Refused,
}

/// What the oracle looks at in a received message.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub id: MessageId,
    pub from: UserId,
    pub content: Content,
    pub pos: u64,
    pub redelivered: bool,
}

impl Got {
    fn of(received: &Received) -> Self {
        Self {
            id: received.id,
            from: received.from.clone(),
            content: received.content.clone(),
            pos: received.pos,
            redelivered: received.redelivered,
        }
    }
}

impl Fate {
    fn is_end(self) -> bool {
        matches!(
            self,
            Self::Expired | Self::Cancelled | Self::Gone | Self::Refused
        )
    }
}

#[derive(Clone, Debug)]
struct Message {
    node: usize,
    conv: ConvId,
    body: String,
    at: u64,
    to: Vec<(UserId, DeviceId)>,
    /// Those of them that were in a session with the sender too.
    met: BTreeSet<DeviceId>,
    fate: Fate,
    /// The sender's process.
    life: u64,
    /// The process that its failure was last told in.
    failed_in: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inbox {
    /// Place and process of everything told.
    seen: BTreeMap<MessageId, (u64, u64)>,
    last_place: BTreeMap<ConvId, u64>,
    last_of: BTreeMap<(DeviceId, ConvId), MessageId>,
    /// First missing message and how many.
    gaps: Vec<(MessageId, u64)>,
}

#[derive(Debug, Default)]
struct Place {
    inbox: Inbox,
    backup: Inbox,
    life: u64,
    device: Option<DeviceId>,
    killed: bool,
    /// Its disk went back or away at this time: what came or went before is exempt from ID4.
    damaged: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Delivery {
    verifier: FakeVerifier,
    places: Vec<Place>,
    devices: BTreeMap<DeviceId, usize>,
    messages: BTreeMap<MessageId, Message>,
    /// ID6: what each id says, wherever it was seen.
    bound: HashMap<MessageId, Vec<u8>>,
    /// When somebody was last told to be out of a group, or to be in by another admission.
    removed: BTreeMap<UserId, u64>,
    /// The places in the log at which devices of a user were let in.
    admitted: BTreeMap<UserId, BTreeSet<(u64, u64)>>,
    /// Nodes in a session with a user, as far as they were told since their disk went back.
    open: BTreeSet<(usize, UserId)>,
    /// Pairs with a close, a block or a change of devices: their messages may end in `Gone`.
    parted: BTreeSet<(UserId, UserId)>,
    /// When a session or a request of a pair last ended, for whatever reason.
    closed: BTreeMap<(UserId, UserId), u64>,
    /// Messages whose end was on its way to the application; a process that dies between the disk
    /// and the telling tells it to nobody.
    ending: BTreeSet<MessageId>,
    /// See [`Self::exempt`].
    owed: (u64, u64),
    marks: BTreeMap<&'static str, u64>,
}

impl Delivery {
    /// For `nodes` nodes.
    pub fn new(nodes: usize, ledger: Arc<Ledger>) -> Self {
        Self {
            verifier: FakeVerifier(ledger),
            places: (0..nodes).map(|_| Place::default()).collect(),
            devices: BTreeMap::new(),
            messages: BTreeMap::new(),
            bound: HashMap::new(),
            removed: BTreeMap::new(),
            admitted: BTreeMap::new(),
            open: BTreeSet::new(),
            parted: BTreeSet::new(),
            closed: BTreeMap::new(),
            ending: BTreeSet::new(),
            owed: (0, 0),
            marks: BTreeMap::new(),
        }
    }

    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        self.marks
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect()
    }

    fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// ID1, ID2, ID6 or ID7.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::Started => {
                self.devices.insert(at.device, at.node);
                self.places[at.node].life += 1;
                self.places[at.node].device = Some(at.device);
            }
            Seen::BackedUp => {
                self.places[at.node].backup = self.places[at.node].inbox.clone();
            }
            Seen::RolledBack => {
                let place = &mut self.places[at.node];
                place.inbox = place.backup.clone();
                place.damaged = Some(at.now);
                self.open.retain(|(node, _)| *node != at.node);
            }
            Seen::DiskLost => {
                self.places[at.node].inbox = Inbox::default();
                self.places[at.node].damaged = Some(at.now);
                self.open.retain(|(node, _)| *node != at.node);
            }
            Seen::Event(Event::Session(SessionEvent::Opened { peer, .. })) => {
                self.open.insert((at.node, peer.clone()));
            }
            Seen::Event(Event::Session(SessionEvent::Closed {
                peer,
                why: CloseReason::Superseded,
                ..
            })) => self.part(at, peer),
            Seen::Killed => self.places[at.node].killed = true,
            Seen::Act(act) => return self.act(at, act),
            Seen::Event(Event::Delivery(event)) => return self.told(at, event),
            Seen::Queued(Event::Session(SessionEvent::Closed { peer, .. })) => {
                self.open.remove(&(at.node, peer.clone()));
                self.closed.insert((at.user.clone(), peer.clone()), at.now);
                self.closed.insert((peer.clone(), at.user.clone()), at.now);
            }
            Seen::Queued(Event::Delivery(DeliveryEvent::Failed { id, .. })) => {
                self.ending.insert(*id);
            }
            Seen::Event(Event::Group(GroupEvent::Changed {
                change,
                by,
                round,
                index,
                ..
            })) => {
                use chat_core::group::Change::{Admitted, Created, Kicked, Left};
                match change {
                    Kicked { user, .. } | Left { user } => {
                        self.removed.insert(user.clone(), at.now);
                    }
                    // A later admission of a device replaces the one that it had.
                    Admitted { .. } | Created => {
                        let who = match change {
                            Admitted { user } => user,
                            _ => by,
                        };
                        let known = self.admitted.entry(who.clone()).or_default();
                        known.insert((*round, *index));
                        // Whoever hears of it late may have written to the earlier one.
                        if known.len() > 1 {
                            self.removed.insert(who.clone(), at.now);
                        }
                    }
                    _ => {}
                }
            }
            // A membership on a branch that lost is another than the one that follows it.
            Seen::Event(Event::Group(GroupEvent::Forked { undone, .. })) => {
                for (_, change) in undone {
                    if let chat_core::group::Change::Admitted { user } = change {
                        self.removed.insert(user.clone(), at.now);
                    }
                }
            }
            Seen::Event(Event::Group(GroupEvent::Removed { .. })) => {
                self.removed.insert(at.user.clone(), at.now);
            }
            Seen::Sent(transmit) if wire::peek_kind(&transmit.bytes) == Some(DATA) => {
                return self.sent(at, transmit);
            }
            Seen::Arrives(channel, bytes, _) if wire::peek_kind(bytes) == Some(DATA) => {
                if let Ok(header) = wire::header(bytes)
                    && let Ok(opened) = wire::open(header, channel, &self.verifier)
                    && let Body::Data(data) = opened.body
                {
                    let stream = StreamId {
                        conv: ConvId(data.conv),
                        device: opened.key.device(),
                        epoch: Epoch(data.epoch),
                    };
                    for message in data.messages() {
                        let seq = Seq(message.seq);
                        self.bind(MessageId { stream, seq }, &message.body)?;
                    }
                    return Ok(());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Reliability 2.4: what leaves was accepted, durably, before.
    fn sent(&self, at: At<'_>, transmit: &Transmit) -> Verdict {
        let opened = wire::header(&transmit.bytes)
            .and_then(|header| wire::open(header, &transmit.channel, &self.verifier));
        let Ok(Body::Data(data)) = opened.map(|opened| opened.body) else {
            return Ok(());
        };
        let stream = StreamId {
            conv: ConvId(data.conv),
            device: at.device,
            epoch: Epoch(data.epoch),
        };
        for message in data.messages() {
            let seq = Seq(message.seq);
            let id = MessageId { stream, seq };
            if let Some(message) = self.messages.get(&id)
                && message.fate == Fate::Issued
                && message.life == self.places[at.node].life
            {
                let text = format!("node {} sends {id:?}, which is not durable", at.node);
                return Err(Violation::new("persist before publish", text));
            }
        }
        Ok(())
    }

    /// True when the sender's disk went back: it may have forgotten that it took `id` back.
    fn forgot(&self, id: MessageId) -> bool {
        let sender = self.messages.get(&id).map(|message| message.node);
        sender.is_some_and(|node| self.places[node].damaged.is_some())
    }

    /// ID6: an id says one thing for ever; nothing, when it was taken back.
    fn bind(&mut self, id: MessageId, body: &[u8]) -> Verdict {
        let forgot = self.forgot(id);
        match self.bound.get(&id) {
            None => drop(self.bound.insert(id, body.to_vec())),
            Some(known) if known == body => {}
            Some(known) if forgot && (known.is_empty() || body.is_empty()) => {}
            Some(known) => {
                let text = format!("{id:?} says {known:?} and {body:?}");
                return Err(Violation::new("ID6", text));
            }
        }
        Ok(())
    }

    fn act(&mut self, at: At<'_>, act: &Act) -> Verdict {
        match act {
            Act::Send { conv, id, body, to } => {
                if let Some(known) = self.messages.get(id) {
                    // The same id may be issued again only if the first never became durable.
                    if known.fate != Fate::Issued || known.body == *body {
                        let text = format!("node {} gave {id:?} to two messages", at.node);
                        return Err(Violation::new("ID6", text));
                    }
                }
                let meets = |(_, device): &&(UserId, DeviceId)| {
                    let node = self.devices.get(device).copied();
                    node.is_some_and(|node| self.open.contains(&(node, at.user.clone())))
                };
                let met = to.iter().filter(meets).map(|(_, device)| *device).collect();
                let message = Message {
                    node: at.node,
                    conv: *conv,
                    body: body.clone(),
                    at: at.now,
                    to: to.clone(),
                    met,
                    fate: Fate::Issued,
                    life: self.places[at.node].life,
                    failed_in: None,
                };
                self.messages.insert(*id, message);
            }
            Act::CancelSend { id } => {
                if let Some(message) = self.messages.get_mut(id) {
                    message.fate = Fate::TakenBack;
                }
            }
            Act::Close { peer } | Act::Block { peer } => {
                self.part(at, peer);
            }
            _ => {}
        }
        Ok(())
    }

    fn part(&mut self, at: At<'_>, peer: &UserId) {
        self.parted.insert((at.user.clone(), peer.clone()));
        self.parted.insert((peer.clone(), at.user.clone()));
    }

    fn told(&mut self, at: At<'_>, event: &DeliveryEvent) -> Verdict {
        match event {
            DeliveryEvent::Accepted { id, .. } => {
                self.mark("oracle-accepted");
                if let Some(message) = self.messages.get_mut(id)
                    && message.fate == Fate::Issued
                {
                    message.fate = Fate::Accepted;
                    if message.to.len() > 1 {
                        self.mark("oracle-group-message");
                    }
                }
            }
            DeliveryEvent::Received(received) => return self.received(at, &Got::of(received)),
            DeliveryEvent::Gap { first, count, .. } => return self.gap(at, *first, *count),
            DeliveryEvent::Progress { id, ack } => {
                let Some(message) = self.messages.get_mut(id) else {
                    return Ok(());
                };
                if message.fate.is_end() && self.places[at.node].damaged.is_none() {
                    let text = format!("{id:?} ended as {:?} and is told {ack:?}", message.fate);
                    return Err(Violation::new("ladder", text));
                }
                if *ack >= Ack::Delivered {
                    message.fate = Fate::Delivered;
                    self.mark("oracle-delivered");
                }
            }
            DeliveryEvent::Failed { id, why } => {
                let fate = match why {
                    FailReason::Expired => Fate::Expired,
                    FailReason::Cancelled => Fate::Cancelled,
                    FailReason::Refused { .. } => Fate::Refused,
                    _ => Fate::Gone,
                };
                match fate {
                    Fate::Expired => self.mark("oracle-expired"),
                    Fate::Cancelled => self.mark("oracle-cancelled"),
                    _ => {}
                }
                if let Some(message) = self.messages.get_mut(id) {
                    // What a crash may have kept from being told is told by the next life.
                    let life = Some(self.places[at.node].life);
                    let before = core::mem::replace(&mut message.failed_in, life);
                    if message.fate == fate && before.is_some_and(|before| Some(before) < life) {
                        self.mark("oracle-failure-told-again");
                        return Ok(());
                    }
                    if fate == Fate::Cancelled && message.fate != Fate::TakenBack {
                        let text = format!("{id:?} is told cancelled, nobody took it back");
                        return Err(Violation::new("Q3", text));
                    }
                    let ended = message.fate == Fate::Delivered || message.fate.is_end();
                    if ended && self.places[at.node].damaged.is_none() {
                        let text = format!("{id:?} was {:?} and is told {why:?}", message.fate);
                        return Err(Violation::new("ladder", text));
                    }
                    message.fate = fate;
                }
            }
            DeliveryEvent::RolledBack { .. } => self.mark("oracle-told-rolled-back"),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn received(&mut self, at: At<'_>, received: &Got) -> Verdict {
        self.mark("oracle-received");
        let (id, conv) = (received.id, received.id.stream.conv);
        let encoded = received.content.encode(conv);
        let body = encoded.unwrap_or_else(|_| received.content.fallback().into());
        self.bind(id, &body)?;
        self.is_real(at, received)?;
        let place = &mut self.places[at.node];
        let (life, inbox) = (place.life, &mut place.inbox);
        if let Some((pos, told_in)) = inbox.seen.get(&id) {
            if !received.redelivered || *told_in == life || *pos != received.pos {
                let text = format!(
                    "node {} is told {id:?} again (redelivered: {}, place {pos} then {}, process \
                     {told_in} then {life})",
                    at.node, received.redelivered, received.pos
                );
                return Err(Violation::new("ID1", text));
            }
            inbox.seen.insert(id, (received.pos, life));
            self.mark("oracle-redelivered");
            return Ok(());
        }
        if let Some(gap) = inbox.gaps.iter().find(|gap| covers(gap, &id)) {
            let text = format!("node {} gets {id:?} after the gap {gap:?}", at.node);
            return Err(Violation::new("ID7", text));
        }
        let last_place = inbox.last_place.insert(conv, received.pos);
        let last = inbox.last_of.insert((id.stream.device, conv), id);
        if last_place.is_some_and(|last| last >= received.pos) || last.is_some_and(|last| last > id)
        {
            let text = format!(
                "node {} gets {id:?} at place {} after {last:?} at {last_place:?}",
                at.node, received.pos
            );
            return Err(Violation::new("ID2", text));
        }
        inbox.seen.insert(id, (received.pos, life));
        Ok(())
    }

    /// A message that nobody sent, or by another, is a forgery (IG12).
    fn is_real(&self, at: At<'_>, received: &Got) -> Verdict {
        let id = received.id;
        let sender = self.devices.get(&id.stream.device).copied();
        let text = || {
            format!(
                "node {} gets {id:?} {:?} from {}",
                at.node, received.content, received.from
            )
        };
        let Some(sender) = sender else {
            return Err(Violation::new("IG12", text()));
        };
        let Content::Text { text: body, .. } = &received.content else {
            return Err(Violation::new("IG12", text()));
        };
        let known = match self.messages.get(&id) {
            Some(message) if message.fate == Fate::Cancelled && !self.forgot(id) => {
                return Err(Violation::new("Q3", format!("cancelled, and {}", text())));
            }
            Some(message) => message.body == *body && message.node == sender,
            // After a rollback the sender gives its restored messages new ids.
            None => {
                self.places[sender].damaged.is_some()
                    && self
                        .messages
                        .values()
                        .any(|m| m.node == sender && m.body == *body)
            }
        };
        if known {
            Ok(())
        } else {
            Err(Violation::new("IG12", text()))
        }
    }

    pub(super) fn gap(&mut self, at: At<'_>, first: MessageId, count: u64) -> Verdict {
        self.mark("oracle-gap");
        let inbox = &mut self.places[at.node].inbox;
        let gap = (first, count);
        if let Some(id) = inbox.seen.keys().find(|id| covers(&gap, id)) {
            let text = format!(
                "node {} is told a gap {gap:?} over {id:?}, which it has",
                at.node
            );
            return Err(Violation::new("ID7", text));
        }
        inbox.gaps.push(gap);
        Ok(())
    }

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
                Fate::Issued | Fate::TakenBack | Fate::Cancelled | Fate::Gone => continue,
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
                    Fate::Issued | Fate::TakenBack | Fate::Cancelled
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
        let stays = |view: Option<chat_core::group::GroupView>| {
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

/// What a node's disk shows of a conversation.
fn timeline(view: &View<'_>, conv: ConvId) -> impl Iterator<Item = TimelineItem> {
    view.rows
        .iter()
        .filter(move |((table, key), _)| *table == Table::Timeline && key.starts_with(&conv.0))
        .filter_map(|((table, key), value)| {
            let row = Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            };
            chat_core::delivery::Delivery::read_timeline(&row).ok()
        })
}

fn gaps_on_timeline(view: &View<'_>, conv: ConvId) -> Vec<(MessageId, u64)> {
    timeline(view, conv)
        .filter_map(|item| match item {
            TimelineItem::Gap { first, count, .. } => Some((first, count)),
            _ => None,
        })
        .collect()
}

/// The event that told its end may have died with the process; the row did not.
fn failed_on_timeline(view: &View<'_>, id: &MessageId) -> bool {
    timeline(view, id.stream.conv).any(|item| match item {
        TimelineItem::Sent {
            id: sent, failed, ..
        } => sent == *id && failed.is_some(),
        _ => false,
    })
}

fn covers(gap: &(MessageId, u64), id: &MessageId) -> bool {
    let (first, count) = gap;
    first.stream == id.stream
        && (first.seq.0..first.seq.0.saturating_add(*count)).contains(&id.seq.0)
}
