//! Delivery: epoch streams from an outbox to an inbox, for 1:1 and groups alike (rules Q1–Q9,
//! Q13–Q17, reliability section 2).
//!
//! Guarantees: the invariants ID1–ID8. No acknowledgement and no event of an arrival leaves before
//! its rows are durable, no message before its outbox row is. Each recipient is sent one epoch of a
//! conversation at a time, oldest first. Every loss is a [`DeliveryEvent::Gap`] or a
//! [`DeliveryEvent::Failed`].
//! Timers are kept in one index; no input costs more for the number of idle conversations.

mod ack;
mod inbox;
mod outbox;
mod receive;
mod retransmit;
mod rows;
mod send;
mod timeline;
mod types;

#[cfg(test)]
mod tests;

pub use types::{
    Ack, DeliveryEvent, FailReason, Received, Route, SendError, SortKey, Standing, TimelineItem,
};

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::config::DeliveryConfig;
use crate::content::Content;
use crate::effect::{Effects, RestoreError, Row, Table};
use crate::hlc::{HlcClock, MAX_DRIFT};
use crate::id::{ConvId, DeviceId, Epoch, MessageId, Seq, TxnId, UserId};
use crate::identity::Sender;
use crate::probe::mark;
use crate::rng::Rng;
use crate::sealer::Sealer;
use crate::time::{Now, Timestamp};
use crate::wire;

use ack::Waiting;
use inbox::Stream;
use outbox::{Outbox, Peer, Who};
use retransmit::Bucket;

/// How many transactions stay known after their messages left the outbox.
const MAX_TXNS: u64 = 1_024;
/// Who may be typing at once, all conversations; beyond it typing is not shown.
const MAX_TYPING: usize = 1_024;
/// At most one "I type" per this time.
const TYPING_EVERY: core::time::Duration = core::time::Duration::from_secs(3);

/// What a deadline is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Key {
    /// Say what is owed.
    Hello(ConvId),
    /// Send again.
    Retry(ConvId),
    /// The oldest message runs out.
    Expiry(ConvId),
    /// Acknowledge what this user sent.
    Ack(UserId),
    /// What is held will not be completed any more.
    Flush(ConvId, DeviceId),
    /// Typing lapses.
    Typing(ConvId, UserId),
}

/// A send that is known by its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Txn {
    id: MessageId,
    hash: [u8; 16],
}

/// What one user takes up of the inbox.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    told: usize,
    held: usize,
}

/// One conversation.
#[derive(Debug)]
struct Conv {
    route: Option<Route>,
    out: Outbox,
    streams: BTreeMap<DeviceId, Stream>,
    /// Told and not acknowledged, with whose it is.
    inbox: BTreeMap<u64, UserId>,
    /// The last place used in the inbox log.
    pos: u64,
    /// The lowest item on the screen.
    shown: Option<SortKey>,
    /// How far the user has read.
    read: Option<SortKey>,
    /// We said that we type; again not before this.
    typing: Option<Timestamp>,
}

impl Conv {
    fn new(config: &DeliveryConfig) -> Self {
        Self {
            route: None,
            out: Outbox::new(config.window),
            streams: BTreeMap::new(),
            inbox: BTreeMap::new(),
            pos: 0,
            shown: None,
            read: None,
            typing: None,
        }
    }

    fn is_group(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.group)
    }

    fn owes(&self) -> bool {
        !self.out.entries.is_empty() || self.out.notice.is_some()
    }
}

/// Outboxes and inboxes of one device.
///
/// A message belongs to a stream (our device, epoch, conversation) and has a number there. It is
/// kept until every recipient has it, it expires, or the conversation closes. A group of one has
/// no recipients: what is sent there is `Delivered` at once.
#[derive(Debug)]
pub struct Delivery {
    me: Sender,
    epoch: Epoch,
    epoch_at_start: Epoch,
    config: DeliveryConfig,
    sealer: Box<dyn Sealer>,
    rng: Rng,
    clock: HlcClock,
    convs: BTreeMap<ConvId, Conv>,
    /// Conversations that owe something.
    owing: BTreeSet<ConvId>,
    outbox: (usize, usize),
    txns: BTreeMap<TxnId, Txn>,
    ring: BTreeMap<u64, TxnId>,
    acks: BTreeMap<UserId, Waiting>,
    shares: BTreeMap<UserId, Share>,
    /// Delivered and held, all conversations.
    total: Share,
    /// Streams that were told a narrow window.
    starved: BTreeSet<(ConvId, DeviceId)>,
    typing: BTreeSet<(ConvId, UserId)>,
    /// Rows of `Inbox` as restored, until they are told again.
    restored: BTreeMap<(ConvId, u64), Received>,
    timers: crate::deadline::DeadlineIndex<Key>,
    bucket: Bucket,
    up: bool,
    up_since: Timestamp,
    max_frame: usize,
    effects: Effects<DeliveryEvent>,
}

impl Delivery {
    /// Empty. `epoch` is this process's; its row must be durable before the first frame leaves.
    pub fn new(
        me: Sender,
        epoch: Epoch,
        config: DeliveryConfig,
        sealer: Box<dyn Sealer>,
        rng: Rng,
    ) -> Self {
        Self {
            me,
            epoch,
            epoch_at_start: epoch,
            bucket: Bucket::new(config.retransmit_rate),
            config,
            sealer,
            rng,
            clock: HlcClock::default(),
            convs: BTreeMap::new(),
            owing: BTreeSet::new(),
            outbox: (0, 0),
            txns: BTreeMap::new(),
            ring: BTreeMap::new(),
            acks: BTreeMap::new(),
            shares: BTreeMap::new(),
            total: Share::default(),
            starved: BTreeSet::new(),
            typing: BTreeSet::new(),
            restored: BTreeMap::new(),
            timers: crate::deadline::DeadlineIndex::default(),
            up: false,
            up_since: Timestamp::ZERO,
            max_frame: usize::MAX,
            effects: Effects::default(),
        }
    }

    fn conv_mut(&mut self, conv: ConvId) -> &mut Conv {
        let config = &self.config;
        self.convs.entry(conv).or_insert_with(|| Conv::new(config))
    }

    /// Takes back a row of `Conversations`, `Outbox`, `Streams` or `Inbox`.
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, row: &Row, now: Now) -> Result<(), RestoreError> {
        match row.table {
            Table::Conversations if row.key.len() == 32 => {
                let conv = ConvId(row.key[..].try_into().map_err(|_| RestoreError::of(row))?);
                let hlc = rows::restore_conv(row, self.conv_mut(conv))?;
                self.clock = HlcClock::resume(self.clock.last().max(hlc));
            }
            Table::Conversations => {
                let (n, txn, known) = rows::restore_txn(row)?;
                self.ring.insert(n, txn);
                self.txns.insert(txn, known);
            }
            Table::Outbox => {
                let (conv, at, entry) = rows::restore_outbox(row)?;
                self.clock = HlcClock::resume(self.clock.last().max(entry.hlc));
                let known = Txn {
                    id: self.own_id(conv, at),
                    hash: send::hash(conv, &entry.body),
                };
                self.txns.insert(entry.txn, known);
                self.outbox.0 += 1;
                self.outbox.1 += entry.body.len();
                let due = now.mono_at(entry.expires);
                let key = Key::Expiry(conv);
                if self.timers.due(&key).is_none_or(|old| due < old) {
                    self.timers.set(key, due);
                }
                let out = &mut self.conv_mut(conv).out;
                out.entries.insert(at, entry);
                out.unsent.insert(at);
            }
            Table::Streams => {
                let (conv, device, item) = rows::restore_stream(row)?;
                let streams = &mut self.conv_mut(conv).streams;
                match item {
                    rows::StreamItem::State(mut state) => {
                        if let Some(early) = streams.remove(&device) {
                            state.held = early.held;
                        }
                        streams.insert(device, state);
                    }
                    rows::StreamItem::Held(seq, held) => {
                        if let Some(body) = &held.body {
                            Content::decode(conv, body).map_err(|_| RestoreError::of(row))?;
                        }
                        let me = self.me.user.clone();
                        let streams = &mut self.conv_mut(conv).streams;
                        // Its state row follows and names the user.
                        let stream = streams.entry(device).or_insert_with(|| Stream::new(me));
                        stream.held.insert(seq, held);
                    }
                }
            }
            Table::Inbox => {
                let (conv, pos, item) = rows::restore_inbox(row)?;
                let TimelineItem::Received(mut received) = timeline::read(&item)? else {
                    return Err(RestoreError::of(row));
                };
                received.redelivered = true;
                let user = received.from.clone();
                self.share(&user, 1, 0);
                self.conv_mut(conv).inbox.insert(pos, user);
                self.restored.insert((conv, pos), received);
            }
            _ => {}
        }
        Ok(())
    }

    /// After the restored rows: arms timers and tells again, as `redelivered`, what the
    /// application did not acknowledge.
    pub fn resume(&mut self, now: Now) {
        for ((conv, pos), received) in core::mem::take(&mut self.restored) {
            let it = self.conv_mut(conv);
            it.pos = it.pos.max(pos);
            if let Some(stream) = it.streams.get_mut(&received.id.stream.device)
                && stream.epoch == received.id.stream.epoch
                && received.id.seq.0 > stream.read
            {
                stream
                    .marks
                    .push_back((received.sort.hlc, received.id.seq.0));
            }
            mark("delivery-redelivered");
            self.effects.emit(DeliveryEvent::Received(received));
        }
        let mut held = Vec::new();
        for (conv, it) in &mut self.convs {
            it.out.settle();
            for (device, stream) in &mut it.streams {
                // A clock that jumped while we were down looks like a long absence. A sender that
                // is there says meanwhile what it still has.
                for held in stream.held.values_mut() {
                    held.due = now.mono_at(held.expires).max(now.mono + MAX_DRIFT);
                }
                if let Some((_, first)) = stream.held.first_key_value() {
                    held.push((stream.user.clone(), stream.held.len()));
                    self.timers.set(Key::Flush(*conv, *device), first.due);
                }
            }
            if it.owes() {
                self.owing.insert(*conv);
            }
        }
        for (user, count) in held {
            self.share(&user, 0, isize::try_from(count).unwrap_or(isize::MAX));
        }
    }

    /// Opens a conversation or changes who gets its messages. Messages that wait only for a
    /// recipient that is gone are done; who is new gets what is sent from now on. In 1:1 a new
    /// device of the peer gets what is still in the outbox too, and a set that became empty
    /// changes nothing: there, nobody to deliver to does not mean delivered.
    pub fn open(&mut self, conv: ConvId, mut route: Route, now: Now) {
        route
            .recipients
            .retain(|(_, device), _| *device != self.me.device);
        let epoch = self.epoch;
        let it = self.conv_mut(conv);
        it.out.settle();
        let fresh = it.route.is_none();
        // A member that was out meanwhile is another recipient than it was.
        let returned = |who: &Who, peer: &Peer| {
            let since = route.recipients.get(who);
            since.is_some_and(|since| *since != peer.since)
        };
        let peers = it.out.peers.iter();
        let back: Vec<_> = peers
            .filter(|(who, peer)| returned(who, peer))
            .map(|(who, _)| who.clone())
            .collect();
        for who in back {
            mark("delivery-recipient-returned");
            let newly = self.conv_mut(conv).out.leave(&who);
            self.count_off(conv, newly, now);
        }
        let it = self.conv_mut(conv);
        let next = it.out.lives.get(&epoch).map_or(1, |life| life.next);
        for (who, since) in &route.recipients {
            it.out.join(who.clone(), *since, (epoch, next));
        }
        let gone: Vec<_> = if route.group || !route.recipients.is_empty() {
            it.out
                .peers
                .keys()
                .filter(|who| !route.recipients.contains_key(*who))
                .cloned()
                .collect()
        } else {
            Vec::new()
        };
        let group = route.group;
        it.route = Some(route);
        for who in gone {
            mark("delivery-recipient-gone");
            let it = self.conv_mut(conv);
            let newly = it.out.leave(&who);
            self.count_off(conv, newly, now);
        }
        if group {
            let entries = self.conv_mut(conv).out.entries.iter();
            let left: Vec<_> = entries
                .filter(|(_, entry)| entry.devices == 0)
                .map(|(at, _)| (*at, true))
                .collect();
            self.count_off(conv, left, now);
        }
        self.pump(conv, now);
        if self.up && fresh && self.owing.contains(&conv) {
            self.timers.set(Key::Hello(conv), now.mono);
        }
    }

    /// Closes it: what is unacknowledged fails with `why` (Q15). Who sent what stays known, so
    /// that a copy that comes later is no news (S15).
    pub fn close(&mut self, conv: ConvId, why: FailReason, now: Now) {
        let Some(it) = self.convs.get_mut(&conv) else {
            return;
        };
        if it.route.take().is_none() && it.out.entries.is_empty() {
            return;
        }
        it.out.peers.clear();
        it.typing = None;
        let owed: Vec<_> = it.out.entries.keys().copied().collect();
        let devices: Vec<_> = it.streams.keys().copied().collect();
        for at in owed {
            self.fail(conv, at, &why, now);
        }
        self.conv_mut(conv).out.notice = None;
        for device in devices {
            self.flush_stream(conv, device, now);
        }
        self.put_conv(conv);
        self.owing.remove(&conv);
        for key in [Key::Hello(conv), Key::Retry(conv), Key::Expiry(conv)] {
            self.timers.remove(&key);
        }
    }

    /// The user has seen everything up to `up_to`; moves forward only (Q12).
    pub fn mark_read(&mut self, conv: ConvId, up_to: SortKey, now: Now) {
        let Some(it) = self.convs.get_mut(&conv) else {
            return;
        };
        if it.read.is_some_and(|read| read >= up_to) {
            return;
        }
        it.read = Some(up_to);
        let mut moved = Vec::new();
        for (device, stream) in &mut it.streams {
            let epoch = stream.epoch;
            let sort = |hlc, seq| SortKey {
                hlc,
                device: *device,
                epoch,
                seq,
            };
            if stream.mark_read(|hlc, seq| sort(hlc, seq) <= up_to) {
                moved.push((*device, rows::encode_stream(stream)));
            }
        }
        self.put_conv(conv);
        for (device, row) in moved {
            self.effects
                .put(Table::Streams, rows::stream_key(conv, device), row);
            if self.config.share_read {
                self.ack_later(conv, device, now);
            }
        }
    }

    /// The application is done with everything up to `pos` of this inbox.
    pub fn acknowledge(&mut self, conv: ConvId, pos: u64, now: Now) {
        let Some(it) = self.convs.get_mut(&conv) else {
            return;
        };
        let rest = it.inbox.split_off(&pos.saturating_add(1));
        let done = core::mem::replace(&mut it.inbox, rest);
        for (pos, user) in done {
            self.effects
                .delete(Table::Inbox, rows::inbox_key(conv, pos));
            self.share(&user, -1, 0);
        }
        for (conv, device) in core::mem::take(&mut self.starved) {
            if self.window_for(conv, device) == 0 {
                self.starved.insert((conv, device));
            } else {
                mark("delivery-window-reopened");
                self.ack_later(conv, device, now);
            }
        }
    }

    /// Acknowledgements; those for other devices are ignored.
    pub fn handle_ack(&mut self, from: &Sender, ack: &wire::delivery::Ack, now: Now) {
        for stream in ack.streams.iter() {
            if stream.device == self.me.device.0 {
                self.take_ack(from, stream, now);
            }
        }
    }

    /// A receiver closed an epoch of ours.
    pub fn handle_retired(&mut self, from: &Sender, retired: &wire::delivery::Retired, now: Now) {
        if retired.device == self.me.device.0 {
            self.take_retired(from, retired, now);
        }
    }

    /// Connected: `Hello` on every conversation that owes, retransmit timers run again (S11–S13).
    pub fn handle_up(&mut self, now: Now) {
        self.up = true;
        self.up_since = now.mono;
        for conv in &self.owing {
            if let Some(it) = self.convs.get_mut(conv) {
                it.out.rtt.silent = 0;
                it.out.hellos = 0;
            }
            self.timers.remove(&Key::Retry(*conv));
            self.timers.set(Key::Hello(*conv), now.mono);
        }
        for user in self.acks.keys() {
            let due = now.mono + self.rng.jitter(self.config.ack_delay);
            self.timers.set(Key::Ack(user.clone()), due);
        }
    }

    /// Cut off: retransmit timers stand still (Q7).
    pub fn handle_down(&mut self, _now: Now) {
        self.up = false;
        for conv in &self.owing {
            self.timers.remove(&Key::Retry(*conv));
            self.timers.remove(&Key::Hello(*conv));
        }
        for user in self.acks.keys() {
            self.timers.remove(&Key::Ack(user.clone()));
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(key) = self.timers.pop_due(now.mono) {
            match key {
                Key::Hello(conv) => self.on_hello_due(conv, now),
                Key::Retry(conv) => self.on_retry(conv, now),
                Key::Expiry(conv) => self.on_expiry(conv, now),
                Key::Ack(user) => self.on_ack_due(&user, now),
                Key::Flush(conv, device) => self.on_flush(conv, device, now),
                Key::Typing(conv, user) => self.on_typing_over(conv, user),
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.earliest()
    }

    /// The epoch that new messages get: this life's, or a later one after a rollback was found.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How far our user has read `conv`.
    pub fn last_read(&self, conv: ConvId) -> Option<SortKey> {
        self.convs.get(&conv)?.read
    }

    /// Messages in the outbox, and their bytes.
    pub fn outbox_size(&self) -> (usize, usize) {
        self.outbox
    }

    /// Up to where every recipient's user has seen our messages: all of earlier epochs, and of
    /// this one up to the number. A timeline row of ours says `Delivered` at most; this says the
    /// rest, and it survives restarts.
    pub fn displayed_up_to(&self, conv: ConvId) -> (Epoch, Seq) {
        self.convs.get(&conv).map_or_else(Default::default, |it| {
            (it.out.displayed.0, Seq(it.out.displayed.1))
        })
    }

    /// The key of a timeline row: rows of a conversation sort as they show.
    pub fn timeline_key(conv: ConvId, sort: &SortKey) -> Bytes {
        timeline::key(conv, sort)
    }

    /// Reads a row of [`Table::Timeline`].
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn read_timeline(row: &Row) -> Result<TimelineItem, RestoreError> {
        timeline::read(row)
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<DeliveryEvent> {
        &mut self.effects
    }
}
