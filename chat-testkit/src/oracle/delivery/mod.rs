//! Delivery: ID1–ID7 and ID9, from commands, told events and `Data` frames on the wire. What is seen is
//! judged here at once; `settled` judges at the end what never came (ID4, ID7).

mod causal;
mod damage;
mod settled;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chat_core::content::Content;
use chat_core::delivery::{Ack, DeliveryEvent, FailReason, Received};
use chat_core::event::Event;
use chat_core::group::GroupEvent;
use chat_core::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId, TxnId, UserId};
use chat_core::session::{CloseReason, SessionEvent};
use chat_core::wire::{self, Body};

use chat_core::Transmit;

use super::{Act, At, Marks, Seen, Verdict, Violation};
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
    Unsendable,
}

/// What the oracle looks at in a received message.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub id: MessageId,
    pub from: UserId,
    pub content: Content,
    pub pos: u64,
    pub redelivered: bool,
    pub causal_gap: bool,
}

impl Got {
    fn of(received: &Received) -> Self {
        Self {
            id: received.id,
            from: received.from.clone(),
            content: received.content.clone(),
            pos: received.pos,
            redelivered: received.redelivered,
            causal_gap: received.causal_gap,
        }
    }
}

impl Fate {
    fn is_end(self) -> bool {
        matches!(
            self,
            Self::Expired | Self::Cancelled | Self::Gone | Self::Refused | Self::Unsendable
        )
    }
}

#[derive(Clone, Debug)]
struct Message {
    node: usize,
    user: UserId,
    conv: ConvId,
    body: String,
    at: u64,
    to: Vec<(UserId, DeviceId)>,
    /// Those of them that were in a session with the sender too.
    met: BTreeSet<DeviceId>,
    fate: Fate,
    /// What its author had been told before, the latest of each device (ID9).
    after: Vec<MessageId>,
    /// The sender's process.
    life: u64,
    /// The process that its failure was last told in.
    failed_in: Option<u64>,
    /// When it was first told accepted, and when it was taken back, ended or delivered.
    accepted: Option<u64>,
    ended: Option<u64>,
    /// It was told delivered.
    delivered: bool,
    /// The sender's disk went back to before it was accepted, or to before its end.
    forgotten: bool,
    forgot_end: bool,
    /// It goes by another id since its sender's disk went back; and by which it went before.
    moved: bool,
    origin: Option<MessageId>,
}

#[derive(Clone, Debug, Default)]
struct Inbox {
    /// Place and process of everything told.
    seen: BTreeMap<MessageId, (u64, u64)>,
    last_place: BTreeMap<ConvId, u64>,
    last_of: BTreeMap<(DeviceId, ConvId), MessageId>,
    /// Streams of which something was told before what it answers, flagged.
    loose: BTreeSet<(DeviceId, ConvId)>,
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
    /// When its disk was copied, and when it last went back or away.
    backup_at: u64,
    damaged: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Delivery {
    verifier: FakeVerifier,
    places: Vec<Place>,
    devices: BTreeMap<DeviceId, usize>,
    messages: BTreeMap<MessageId, Message>,
    /// What each device had on its disk.
    disks: BTreeMap<DeviceId, damage::Disk>,
    /// The id that each transaction was last accepted under.
    txns: BTreeMap<TxnId, MessageId>,
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
    marks: Marks,
}

impl Delivery {
    /// For `nodes` nodes.
    pub fn new(nodes: usize, ledger: Arc<Ledger>) -> Self {
        Self {
            verifier: FakeVerifier(ledger),
            places: (0..nodes).map(|_| Place::default()).collect(),
            devices: BTreeMap::new(),
            messages: BTreeMap::new(),
            disks: BTreeMap::new(),
            txns: BTreeMap::new(),
            bound: HashMap::new(),
            removed: BTreeMap::new(),
            admitted: BTreeMap::new(),
            open: BTreeSet::new(),
            parted: BTreeSet::new(),
            closed: BTreeMap::new(),
            ending: BTreeSet::new(),
            owed: (0, 0),
            marks: Marks::default(),
        }
    }

    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        self.marks.list()
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// ID1, ID2, ID6, ID7 or ID9.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::Started => {
                self.devices.insert(at.device, at.node);
                self.places[at.node].life += 1;
                self.places[at.node].device = Some(at.device);
                let disk = self.disks.entry(at.device).or_default();
                disk.user.get_or_insert_with(|| at.user.clone());
            }
            Seen::Stored(rows) => self.stored(at, rows),
            Seen::BackedUp => self.backed_up(at),
            Seen::RolledBack => self.rolled_back(at),
            Seen::DiskLost => self.disk_lost(at),
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
            // Queued: who dies before it tells knows it after its start, and tells it to nobody.
            Seen::Queued(Event::Group(GroupEvent::Changed {
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
                        // Given up after a copy may have left: it says no other thing.
                        let given_up = message.body.is_empty() && message.hlc == 0;
                        if !given_up {
                            self.bind(MessageId { stream, seq }, &message.body)?;
                        }
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

    /// True when the sender's disk went back to before it gave `id` up.
    fn forgot(&self, id: MessageId) -> bool {
        let message = self.messages.get(&id);
        message.is_some_and(|message| message.forgot_end || message.forgotten)
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
                    user: at.user.clone(),
                    conv: *conv,
                    body: body.clone(),
                    at: at.now,
                    to: to.clone(),
                    met,
                    fate: Fate::Issued,
                    after: self.causes(at.node, *conv),
                    life: self.places[at.node].life,
                    failed_in: None,
                    accepted: None,
                    ended: None,
                    delivered: false,
                    forgotten: false,
                    forgot_end: false,
                    moved: false,
                    origin: None,
                };
                self.messages.insert(*id, message);
            }
            Act::CancelSend { id } => {
                if let Some(message) = self.messages.get_mut(id) {
                    message.fate = Fate::TakenBack;
                    message.ended = Some(at.now);
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
            DeliveryEvent::Accepted { id, txn, .. } => {
                self.marks.hit("oracle-accepted");
                self.accepted(at, *id, *txn);
            }
            DeliveryEvent::Received(received) => return self.received(at, &Got::of(received)),
            DeliveryEvent::Gap { first, count, .. } => return self.gap(at, *first, *count),
            DeliveryEvent::Progress { id, ack } => {
                let Some(message) = self.messages.get_mut(id) else {
                    return Ok(());
                };
                if message.fate.is_end() && !message.forgot_end {
                    let text = format!("{id:?} ended as {:?} and is told {ack:?}", message.fate);
                    return Err(Violation::new("ladder", text));
                }
                if *ack >= Ack::Delivered {
                    message.fate = Fate::Delivered;
                    message.ended.get_or_insert(at.now);
                    let first = !core::mem::replace(&mut message.delivered, true);
                    self.marks.hit("oracle-delivered");
                    if first {
                        return self.promised(id, &self.messages[id]);
                    }
                }
            }
            DeliveryEvent::Failed { id, why } => {
                let fate = match why {
                    FailReason::Expired => Fate::Expired,
                    FailReason::Cancelled => Fate::Cancelled,
                    FailReason::Refused { .. } => Fate::Refused,
                    FailReason::Unsendable(_) => Fate::Unsendable,
                    _ => Fate::Gone,
                };
                match fate {
                    Fate::Expired => self.marks.hit("oracle-expired"),
                    Fate::Cancelled => self.marks.hit("oracle-cancelled"),
                    _ => {}
                }
                if let Some(message) = self.messages.get_mut(id) {
                    // What a crash may have kept from being told is told by the next life.
                    let life = Some(self.places[at.node].life);
                    let before = core::mem::replace(&mut message.failed_in, life);
                    if message.fate == fate && before.is_some_and(|before| Some(before) < life) {
                        self.marks.hit("oracle-failure-told-again");
                        return Ok(());
                    }
                    if fate == Fate::Cancelled && message.fate != Fate::TakenBack {
                        let text = format!("{id:?} is told cancelled, nobody took it back");
                        return Err(Violation::new("Q3", text));
                    }
                    let ended = message.fate == Fate::Delivered || message.fate.is_end();
                    if ended && !message.forgot_end {
                        let text = format!("{id:?} was {:?} and is told {why:?}", message.fate);
                        return Err(Violation::new("ladder", text));
                    }
                    message.fate = fate;
                    message.ended = Some(at.now);
                }
            }
            DeliveryEvent::Wedged { .. } => self.marks.hit("oracle-wedged"),
            DeliveryEvent::RolledBack { .. } => self.marks.hit("oracle-told-rolled-back"),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn received(&mut self, at: At<'_>, received: &Got) -> Verdict {
        self.marks.hit("oracle-received");
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
            self.marks.hit("oracle-redelivered");
            return Ok(());
        }
        if let Some(gap) = inbox.gaps.iter().find(|gap| covers(gap, &id)) {
            let text = format!("node {} gets {id:?} after the gap {gap:?}", at.node);
            return Err(Violation::new("ID7", text));
        }
        let last_place = inbox.last_place.insert(conv, received.pos);
        // What nobody sees by itself passes what its author cannot send (Q2).
        let last = match received.content.is_visible() {
            true => inbox.last_of.insert((id.stream.device, conv), id),
            false => None,
        };
        if last_place.is_some_and(|last| last >= received.pos) || last.is_some_and(|last| last > id)
        {
            let text = format!(
                "node {} gets {id:?} at place {} after {last:?} at {last_place:?}",
                at.node, received.pos
            );
            return Err(Violation::new("ID2", text));
        }
        inbox.seen.insert(id, (received.pos, life));
        self.in_causal_order(at, received)
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
        let body = received.content.fallback();
        let known = match self.messages.get(&id) {
            Some(message) if message.fate == Fate::Cancelled && !self.forgot(id) => {
                return Err(Violation::new("Q3", format!("cancelled, and {}", text())));
            }
            Some(message) => message.body == body && message.node == sender,
            // After a rollback the sender gives its restored messages new ids.
            None => {
                self.places[sender].damaged.is_some()
                    && self
                        .messages
                        .values()
                        .any(|m| m.node == sender && m.body == body)
            }
        };
        if known {
            Ok(())
        } else {
            Err(Violation::new("IG12", text()))
        }
    }

    pub(super) fn gap(&mut self, at: At<'_>, first: MessageId, count: u64) -> Verdict {
        self.marks.hit("oracle-gap");
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
}

fn covers(gap: &(MessageId, u64), id: &MessageId) -> bool {
    let (first, count) = gap;
    first.stream == id.stream
        && (first.seq.0..first.seq.0.saturating_add(*count)).contains(&id.seq.0)
}
