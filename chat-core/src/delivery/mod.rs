//! Delivery: epoch streams from an outbox to an inbox, for 1:1 and groups alike (rules Q1–Q9,
//! Q13–Q17, reliability section 2).
//!
//! Guarantees: the invariants ID1–ID9. No acknowledgement and no event of an arrival leaves before
//! its rows are durable, no message before its outbox row is. Each recipient is sent one epoch of a
//! conversation at a time, oldest first. Every loss is a [`DeliveryEvent::Gap`] or a
//! [`DeliveryEvent::Failed`].
//! Timers are kept in one index; no input costs more for the number of idle conversations.

mod ack;
mod causal;
mod crowd;
mod deliver;
mod inbox;
mod notice;
mod outbox;
mod receive;
mod restore;
mod retransmit;
mod route;
mod rows;
mod send;
mod state;
mod timeline;
mod types;
mod typing;
mod wedge;

#[cfg(test)]
mod tests;

pub use types::{
    Ack, DeliveryEvent, FailReason, Received, Route, SendError, SortKey, Standing, TimelineItem,
    Unsendable,
};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::config::DeliveryConfig;
use crate::effect::{Effects, RestoreError, Row, Table};
use crate::hlc::HlcClock;
use crate::id::{ConvId, Epoch, Seq, TxnId, UserId};
use crate::identity::Sender;
use crate::output::PersistId;
use crate::probe::mark;
use crate::rng::Rng;
use crate::sealer::Sealer;
use crate::slots::Slots;
use crate::time::{Now, Timestamp};
use crate::wire;

use inbox::Stream;
use outbox::At;
use retransmit::Bucket;
use state::{Account, Conv, ConvAt, Key, Share, StreamAt, StreamKey, Txn, UserAt};

/// How many transactions stay known after their messages left the outbox.
const MAX_TXNS: u64 = 1_024;

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
    convs: Slots<ConvId, Conv>,
    streams: Slots<StreamKey, Stream>,
    users: Slots<UserId, Account>,
    /// Conversations that owe something.
    owing: BTreeSet<ConvAt>,
    /// Messages of this input, and those whose rows are being stored.
    fresh: Vec<(ConvAt, At)>,
    storing: VecDeque<(PersistId, ConvAt, At)>,
    /// Conversations of which something became durable since the last flush.
    ready: BTreeSet<ConvAt>,
    outbox: (usize, usize),
    txns: Slots<TxnId, Txn>,
    ring: BTreeMap<u64, TxnId>,
    /// Delivered and held, all conversations.
    total: Share,
    /// Messages that wait for others (ID9).
    parked: usize,
    /// Streams that were told a narrow window.
    starved: BTreeSet<StreamAt>,
    typing: BTreeSet<(ConvAt, UserId)>,
    /// Failures and gaps: the last number used, those of this input, those whose rows are being
    /// stored, and those that an earlier life left.
    notices: u64,
    untold: Vec<u64>,
    telling: VecDeque<(PersistId, u64)>,
    restored_notices: BTreeMap<u64, DeliveryEvent>,
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
            clock: HlcClock::default(),
            convs: Slots::new(&rng),
            streams: Slots::new(&rng),
            users: Slots::new(&rng),
            txns: Slots::new(&rng),
            timers: crate::deadline::DeadlineIndex::new(&rng),
            rng,
            owing: BTreeSet::new(),
            fresh: Vec::new(),
            storing: VecDeque::new(),
            ready: BTreeSet::new(),
            outbox: (0, 0),
            ring: BTreeMap::new(),
            total: Share::default(),
            parked: 0,
            starved: BTreeSet::new(),
            typing: BTreeSet::new(),
            notices: 0,
            untold: Vec::new(),
            telling: VecDeque::new(),
            restored_notices: BTreeMap::new(),
            restored: BTreeMap::new(),
            up: false,
            up_since: Timestamp::ZERO,
            max_frame: usize::MAX,
            effects: Effects::default(),
        }
    }

    /// The user has seen everything up to `up_to`; moves forward only (Q12).
    pub fn mark_read(&mut self, conv: ConvId, up_to: SortKey, now: Now) {
        let Some(conv) = self.convs.slot(&conv) else {
            return;
        };
        let it = &mut self.convs[conv];
        if it.read.is_some_and(|read| read >= up_to) {
            return;
        }
        it.read = Some(up_to);
        self.put_conv(conv);
        for at in self.convs[conv].streams.clone() {
            let stream = &mut self.streams[at];
            let (device, epoch) = (stream.device, stream.epoch);
            let sort = |hlc, seq| SortKey {
                hlc,
                device,
                epoch,
                seq,
            };
            // What waits was not shown, wherever it will stand.
            let parked = stream.parked.iter().find(|it| it.epoch == epoch);
            let waits = parked.map_or(u64::MAX, |it| it.seq);
            if stream.mark_read(|hlc, seq| seq < waits && sort(hlc, seq) <= up_to) {
                self.put_stream(at);
                if self.config.share_read {
                    self.ack_later(at, false, now);
                }
            }
        }
    }

    /// The application is done with everything up to `pos` of this inbox.
    pub fn acknowledge(&mut self, conv: ConvId, pos: u64, now: Now) {
        let Some(conv) = self.convs.slot(&conv) else {
            return;
        };
        while let Some(entry) = self.convs[conv].inbox.first_entry()
            && *entry.key() <= pos
        {
            let (pos, user) = entry.remove_entry();
            self.settle_place(conv, pos, user);
        }
        self.reopen_windows(now);
    }

    /// The application is done with this place of the inbox; those before it may still be open.
    pub fn acknowledge_only(&mut self, conv: ConvId, pos: u64, now: Now) {
        let Some(conv) = self.convs.slot(&conv) else {
            return;
        };
        if let Some(user) = self.convs[conv].inbox.remove(&pos) {
            self.settle_place(conv, pos, user);
            self.reopen_windows(now);
        }
    }

    fn settle_place(&mut self, conv: ConvAt, pos: u64, user: UserAt) {
        let key = rows::inbox_key(self.convs[conv].id, pos);
        self.effects.delete(Table::Inbox, key);
        self.share(user, -1, 0);
        self.let_go(user);
    }

    fn reopen_windows(&mut self, now: Now) {
        for at in core::mem::take(&mut self.starved) {
            if self.window_for(at) == 0 {
                self.starved.insert(at);
            } else {
                mark("delivery-window-reopened");
                self.ack_later(at, false, now);
            }
        }
    }

    /// The transport dropped something on this conversation: those whose messages we hear are told
    /// what we have, and send what is missing at once.
    pub fn handle_gap(&mut self, conv: ConvId, now: Now) {
        let Some(conv) = self.convs.slot(&conv) else {
            return;
        };
        mark("delivery-transport-gap");
        for at in self.convs[conv].streams.clone() {
            self.ack_again(at, now);
        }
    }

    /// The transport dropped something on our inbox, where acknowledgements arrive: says where we
    /// stand, which is answered by one.
    pub fn handle_inbox_gap(&mut self, now: Now) {
        if !self.up {
            return;
        }
        mark("delivery-transport-inbox-gap");
        for conv in self.owing.iter().copied().collect::<Vec<_>>() {
            self.set_dues(conv, |dues| dues.hello = Some(now.mono));
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
    /// What was wedged over another connection is tried over this one (Q2).
    pub fn handle_up(&mut self, now: Now) {
        self.up = true;
        self.up_since = now.mono;
        let owing: Vec<_> = self.owing.iter().copied().collect();
        for conv in owing {
            let out = &mut self.convs[conv].out;
            out.rtt.begin();
            out.hellos = 0;
            self.retry_all(conv, now);
            self.set_dues(conv, |dues| {
                dues.retry = None;
                dues.hello = Some(now.mono);
            });
        }
        for user in self.acks_waiting() {
            let due = now.mono + self.rng.jitter(self.config.ack_delay);
            self.timers.set(Key::Ack(user), due);
        }
    }

    /// Cut off: retransmit timers stand still (Q7).
    pub fn handle_down(&mut self, _now: Now) {
        self.up = false;
        let owing: Vec<_> = self.owing.iter().copied().collect();
        for conv in owing {
            self.set_dues(conv, |dues| {
                dues.retry = None;
                dues.hello = None;
            });
        }
        for user in self.acks_waiting() {
            self.timers.remove(&Key::Ack(user));
        }
    }

    fn acks_waiting(&self) -> Vec<UserAt> {
        let waits = |user: &UserAt| !self.users[*user].waiting.streams.is_empty();
        self.users.slots().filter(waits).collect()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(key) = self.timers.pop_due(now.mono) {
            match key {
                Key::Conv(conv) => self.on_conv_due(conv, now),
                Key::Ack(user) => self.on_ack_due(user, now),
                Key::Flush(stream) => self.on_flush(stream, now),
                Key::Parked(stream) => self.on_parked_due(stream, now),
                Key::Typing(conv, user) => self.on_typing_over(conv, &user),
            }
        }
    }

    fn on_conv_due(&mut self, conv: ConvAt, now: Now) {
        let is_due = |due: &mut Option<Timestamp>| due.take_if(|at| *at <= now.mono).is_some();
        if is_due(&mut self.convs[conv].dues.hello) {
            self.on_hello_due(conv, now);
        }
        if is_due(&mut self.convs[conv].dues.retry) {
            self.on_retry(conv, now);
        }
        if is_due(&mut self.convs[conv].dues.expiry) {
            self.on_expiry(conv, now);
        }
        self.file(conv);
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
