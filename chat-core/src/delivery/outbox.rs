//! The sending side of one conversation: what is owed, in which order, and who has what
//! (reliability 2.3 "accept", "window", "epoch order"; rules Q1, G10).
//!
//! Guarantees: only the oldest epoch with messages is sent, so order survives restarts (ID2); a
//! number is never used twice (ID6); a message is done when every recipient that was in the route
//! at accept, and still is, has it (ID4).
//!
//! Per recipient there is a watermark and a bitmap, not a set per message: a message counts how
//! many still miss it. Each recipient has a window of its own above its own watermark, so that
//! one device that is away holds up nobody else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::inbox::WINDOW;
use super::retransmit::Rtt;
use super::types::Ack;
use crate::hlc::Hlc;
use crate::id::{DeviceId, Epoch, TxnId, UserId};
use crate::probe::planted;
use crate::time::{Timestamp, UnixMillis};
use crate::wire::BoundedVec;
use crate::wire::delivery::StreamAck;

/// Failed messages remembered per conversation until what follows them was displayed.
const MAX_ENDED: usize = 1_024;

/// A message of ours within its conversation.
pub(super) type At = (Epoch, u64);
/// A recipient.
pub(super) type Who = (UserId, DeviceId);

/// A message that somebody still misses.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) txn: TxnId,
    pub(super) hlc: Hlc,
    /// The log index its recipients were computed from, and that of the message before it.
    pub(super) roster: u64,
    pub(super) prev_roster: u64,
    pub(super) expires: UnixMillis,
    /// The encoded content; empty once it was taken back.
    pub(super) body: Bytes,
    /// Devices and users that miss it.
    pub(super) devices: usize,
    pub(super) users: usize,
    /// Copies sent in this life, and when the last one was.
    pub(super) sends: u32,
    pub(super) sent_at: Timestamp,
    /// A copy may have left, in this life or an earlier one (Q3).
    pub(super) left: bool,
    /// It was told as failed; only its number still matters.
    pub(super) failed: bool,
    pub(super) ack: Ack,
}

/// The numbers used in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Messages of all earlier epochs.
    pub(super) sent_before: u64,
    /// The next number.
    pub(super) next: u64,
}

/// What one recipient has of the epoch that is being sent.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The log index of its admission; 0 in 1:1.
    pub(super) since: u64,
    /// The first message meant for it.
    from: At,
    pub(super) contig: u64,
    bits: u64,
    window: u64,
    pub(super) read: u64,
    /// Something that it missed expired: it must learn of the new base.
    lags: bool,
}

fn covers(contig: u64, bits: u64, seq: u64) -> bool {
    seq <= contig
        || seq
            .checked_sub(contig.saturating_add(2))
            .is_some_and(|bit| bit < WINDOW && bits & (1 << bit) != 0)
}

impl Peer {
    fn new(since: u64, from: At) -> Self {
        Self {
            since,
            from,
            contig: 0,
            bits: 0,
            window: WINDOW,
            read: 0,
            lags: false,
        }
    }

    fn enter(&mut self, epoch: Epoch) {
        self.contig = if self.from.0 == epoch {
            self.from.1.saturating_sub(1)
        } else {
            0
        };
        self.bits = 0;
        self.window = WINDOW;
        self.read = self.contig;
        self.lags = false;
    }

    fn misses(&self, at: At) -> bool {
        at >= self.from && !covers(self.contig, self.bits, at.1)
    }
}

/// What an acknowledgement changed.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Messages that this recipient newly has; true when its user had none of it before.
    pub(super) newly: Vec<(At, bool)>,
    /// Its watermark moved to here, for the whole user.
    pub(super) delivered: Option<u64>,
    /// What its user has seen moved to here.
    pub(super) read: Option<u64>,
    /// Its window opened or its watermark moved: more may be sent.
    pub(super) progress: bool,
}

/// The sending side of one conversation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) entries: BTreeMap<At, Entry>,
    pub(super) unsent: BTreeSet<At>,
    pub(super) lives: BTreeMap<Epoch, Life>,
    pub(super) peers: BTreeMap<Who, Peer>,
    /// The epoch that the peers' watermarks speak of.
    current: Epoch,
    pub(super) last_roster: u64,
    pub(super) rtt: Rtt,
    /// Everything up to here was seen by every recipient's user.
    pub(super) displayed: At,
    /// Above it, what failed: an end is final, so those are never told displayed. At
    /// [`MAX_ENDED`] the oldest goes.
    pub(super) ended: BTreeSet<At>,
    /// Somebody may not know that something expired.
    pub(super) notice: bool,
    /// Hellos sent in a row that nobody answered.
    pub(super) hellos: u32,
    /// No second rollback before this.
    pub(super) rollback_at: Option<Timestamp>,
    /// The most that may be in flight to one recipient.
    cap: u64,
}

impl Outbox {
    /// Empty, with at most `window` messages in flight to one recipient.
    pub(super) fn new(window: u16) -> Self {
        Self {
            cap: u64::from(window).min(WINDOW),
            ..Self::default()
        }
    }

    /// The epoch that is being sent: the oldest that owes, else the latest used.
    pub(super) fn active(&self) -> Option<Epoch> {
        let owing = if planted("delivery-new-epoch-first") {
            self.entries.last_key_value()
        } else {
            self.entries.first_key_value()
        };
        owing
            .map(|((epoch, _), _)| *epoch)
            .or_else(|| self.lives.last_key_value().map(|(epoch, _)| *epoch))
    }

    /// The lowest number of `epoch` that is still owed to anybody.
    pub(super) fn base(&self, epoch: Epoch) -> u64 {
        if planted("delivery-base-stays") {
            return 1;
        }
        let next = self.lives.get(&epoch).map_or(1, |life| life.next);
        self.first_of(epoch).map_or(next, |((_, seq), _)| *seq)
    }

    /// The roster of the message before the base.
    pub(super) fn base_roster(&self, epoch: Epoch) -> u64 {
        self.first_of(epoch)
            .map_or(self.last_roster, |(_, entry)| entry.prev_roster)
    }

    fn first_of(&self, epoch: Epoch) -> Option<(&At, &Entry)> {
        self.entries.range((epoch, 0)..=(epoch, u64::MAX)).next()
    }

    /// The next number in `epoch`, which must not lie below any used.
    pub(super) fn assign(&mut self, epoch: Epoch) -> At {
        if !self.lives.contains_key(&epoch) {
            let sent_before = self
                .lives
                .last_key_value()
                .map_or(0, |(_, life)| life.sent_before + life.next - 1);
            self.lives.insert(
                epoch,
                Life {
                    sent_before,
                    next: 1,
                },
            );
        }
        let life = self.lives.get_mut(&epoch).expect("it was just inserted");
        let seq = life.next;
        life.next += 1;
        (epoch, seq)
    }

    /// Adds an entry for all current recipients.
    pub(super) fn add(&mut self, at: At, mut entry: Entry) {
        entry.devices = self.peers.len();
        entry.users = self.users();
        self.entries.insert(at, entry);
        self.unsent.insert(at);
        self.settle();
    }

    /// How many users the recipients are.
    pub(super) fn users(&self) -> usize {
        let mut last = None;
        let mut users = 0;
        for (user, _) in self.peers.keys() {
            if last != Some(user) {
                users += 1;
                last = Some(user);
            }
        }
        users
    }

    /// After entries came or went: forgets drained epochs and, when another epoch's turn has
    /// come, starts its watermarks.
    pub(super) fn settle(&mut self) {
        let Some(active) = self.active() else {
            return;
        };
        self.lives.retain(|epoch, _| *epoch >= active);
        if active != self.current {
            self.current = active;
            for peer in self.peers.values_mut() {
                peer.enter(active);
            }
        }
    }

    /// Removes a message that is done or given up.
    pub(super) fn remove(&mut self, at: At) -> Option<Entry> {
        self.unsent.remove(&at);
        let entry = self.entries.remove(&at);
        self.settle();
        entry
    }

    /// An entry leaves because its time ran out: those that miss it must learn of the new base.
    pub(super) fn expire(&mut self, at: At) -> Option<Entry> {
        if at.0 == self.current {
            for peer in self.peers.values_mut().filter(|peer| peer.misses(at)) {
                peer.lags = true;
            }
        }
        self.notice = true;
        self.hellos = 0;
        self.remove(at)
    }

    /// Adds a recipient that was admitted at log index `since`. It is owed what cites that or a
    /// later one, also when it is added late, after a restart; what is new will be numbered `next`.
    pub(super) fn join(&mut self, who: Who, since: u64, next: At) {
        if self.peers.contains_key(&who) {
            return;
        }
        let mut owed = self.entries.iter();
        let first = owed.find(|(_, entry)| entry.roster >= since);
        let from = match since {
            0 => (Epoch(0), 0),
            _ => first.map_or(next, |(at, _)| *at),
        };
        let news = !self.has_user(&who.0);
        let mut peer = Peer::new(since, from);
        peer.enter(self.current);
        peer.lags = self.notice;
        for (_, entry) in self.entries.range_mut(from..) {
            entry.devices += 1;
            entry.users += usize::from(news);
        }
        self.peers.insert(who, peer);
    }

    /// Removes a recipient; hands back the messages that waited only for it, and those that now
    /// are with every user.
    pub(super) fn leave(&mut self, who: &Who) -> Vec<(At, bool)> {
        let Some(peer) = self.peers.remove(who) else {
            return Vec::new();
        };
        let orphan = !self.has_user(&who.0);
        let mut newly = Vec::new();
        for (at, entry) in self.entries.range_mut(peer.from..) {
            if at.0 == self.current && !peer.misses(*at) {
                continue;
            }
            entry.devices = entry.devices.saturating_sub(1);
            let settles = orphan && entry.users > 0;
            entry.users -= usize::from(settles);
            newly.push((*at, settles));
        }
        newly
    }

    fn has_user(&self, user: &UserId) -> bool {
        self.of_user(user).next().is_some()
    }

    fn of_user<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a Peer> {
        self.peers
            .range((user.clone(), DeviceId([0; 32]))..=(user.clone(), DeviceId([0xff; 32])))
            .map(|(_, peer)| peer)
    }

    /// Merges what a recipient says of the active epoch, and counts it off.
    pub(super) fn apply(&mut self, who: &Who, ack: &StreamAck) -> Applied {
        let mut applied = Applied::default();
        let Some(mut peer) = self.peers.remove(who) else {
            return applied;
        };
        let epoch = self.current;
        let (mut contig, bits) = (ack.contig, ack.bitmap);
        if planted("delivery-ack-max") && bits != 0 {
            contig += 65 - u64::from(bits.leading_zeros());
        }
        let has = |seq| covers(contig, bits, seq);
        let top = contig.saturating_add(WINDOW + 1);
        let missed: Vec<u64> = self
            .entries
            .range((epoch, peer.contig + 1)..=(epoch, top.max(peer.contig + 1)))
            .map(|((_, seq), _)| *seq)
            .filter(|seq| peer.misses((epoch, *seq)) && has(*seq))
            .collect();
        for seq in missed {
            let first = !self
                .of_user(&who.0)
                .any(|other| other.from <= (epoch, seq) && !other.misses((epoch, seq)));
            let entry = self
                .entries
                .get_mut(&(epoch, seq))
                .expect("it was found in this map");
            entry.devices = entry.devices.saturating_sub(1);
            let settles = first && entry.users > 0;
            entry.users -= usize::from(settles);
            applied.newly.push(((epoch, seq), settles));
        }
        let user_delivered = self.of_user(&who.0).map(|p| p.contig).max().unwrap_or(0);
        let user_read = self.of_user(&who.0).map(|p| p.read).max().unwrap_or(0);
        let (old_contig, old_bits, old_limit) = (peer.contig, peer.bits, peer.contig + peer.window);
        if contig >= old_contig {
            peer.window = u64::from(ack.window).min(WINDOW);
        }
        peer.contig = old_contig.max(contig);
        let first = peer.contig.saturating_add(2);
        peer.bits = (0..WINDOW)
            .filter(|bit| {
                let seq = first.saturating_add(*bit);
                has(seq) || covers(old_contig, old_bits, seq)
            })
            .fold(0, |bits, bit| bits | 1 << bit);
        let read = ack.read.min(contig);
        if read > peer.read {
            peer.read = read;
            applied.read = (read > user_read).then_some(read);
        }
        if peer.contig > old_contig && peer.contig > user_delivered {
            applied.delivered = Some(peer.contig);
        }
        applied.progress = !applied.newly.is_empty() || peer.contig + peer.window > old_limit;
        self.peers.insert(who.clone(), peer);
        applied
    }

    /// A recipient closed `below` and all before it: it has what it was owed of them.
    pub(super) fn apply_retired(&mut self, who: &Who, below: Epoch) -> Vec<(At, bool)> {
        if self.current > below {
            return Vec::new();
        }
        let epoch = self.current;
        let everything = StreamAck {
            device: [0; 32],
            conv: [0; 32],
            epoch: epoch.0,
            contig: self.lives.get(&epoch).map_or(0, |life| life.next - 1),
            bitmap: 0,
            window: u16::try_from(WINDOW).expect("the window is 64"),
            read: 0,
            refused: BoundedVec::default(),
        };
        self.apply(who, &everything).newly
    }

    /// The highest number of the active epoch that somebody takes.
    pub(super) fn limit(&self) -> u64 {
        let below_base = self.base(self.current).saturating_sub(1);
        if planted("delivery-window-ignored") {
            return u64::MAX;
        }
        self.peers
            .values()
            .map(|peer| peer.contig.max(below_base) + peer.window.min(self.cap))
            .max()
            .unwrap_or(0)
    }

    /// True when a recipient misses the message and takes it.
    pub(super) fn is_wanted(&self, at: At) -> bool {
        let below_base = self.base(self.current).saturating_sub(1);
        at.0 == self.current
            && self.peers.values().any(|peer| {
                peer.misses(at) && at.1 <= peer.contig.max(below_base) + peer.window.min(self.cap)
            })
    }

    /// True when a recipient lacks something that was sent.
    pub(super) fn is_behind(&self, who: &Who) -> bool {
        let next = self.lives.get(&self.current).map_or(1, |life| life.next);
        let unsent = self.unsent.first().filter(|at| at.0 == self.current);
        let sent = unsent.map_or(next, |at| at.1) - 1;
        !self.entries.is_empty() && self.peers.get(who).is_some_and(|peer| peer.contig < sent)
    }

    /// True when somebody waits for a number that nobody is owed any more: it must be told the
    /// base, because no message will.
    pub(super) fn owes_notice(&self) -> bool {
        let below_base = self.base(self.current).saturating_sub(1);
        self.peers
            .values()
            .any(|peer| peer.contig < below_base && (peer.lags || peer.bits != 0))
    }

    /// Remembers that a message failed.
    pub(super) fn note_end(&mut self, at: At) {
        self.ended.insert(at);
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_first();
        }
    }

    /// Everything up to here of the active epoch was seen by every recipient's user.
    pub(super) fn displayed_by_all(&self) -> u64 {
        let mut least = u64::MAX;
        let mut user: Option<(&UserId, u64)> = None;
        for ((name, _), peer) in &self.peers {
            match &mut user {
                Some((of, read)) if *of == name => *read = (*read).max(peer.read),
                _ => {
                    if let Some((_, read)) = user {
                        least = least.min(read);
                    }
                    user = Some((name, peer.read));
                }
            }
        }
        user.map_or(0, |(_, read)| least.min(read))
    }
}
