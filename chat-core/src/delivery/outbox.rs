//! The sending side of one conversation: what is owed, in which order, and who has what
//! (reliability 2.3 "accept", "window", "epoch order"; rules Q1, G10).
//!
//! Guarantees: a recipient is sent only the oldest epoch of which it misses something, so order
//! survives restarts (ID2); a number is never used twice (ID6); a message is done when every
//! recipient that was in the route at accept, and still is, has it (ID4).
//!
//! Per recipient there is an epoch, a watermark and a bitmap, not a set per message: a message
//! counts how many still miss it. Each recipient has a window of its own above its own watermark,
//! so that one device that is away holds up nobody else. All hear the same channel: a message
//! names the older epoch that is still owed to anybody, and who misses something of that passes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::crowd::Crowd;
use super::inbox::WINDOW;
use super::retransmit::Rtt;
use super::types::{Ack, Unsendable};
use crate::hlc::Hlc;
use crate::id::{DeviceId, Epoch, TxnId, UserId};
use crate::probe::{mark, planted};
use crate::time::{Timestamp, UnixMillis};
use crate::wire::BoundedVec;
use crate::wire::delivery::{Dep, OpenStream, StreamAck};

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
    /// What we had been told before it (ID9).
    pub(super) deps: Vec<Dep>,
    /// The encoded content; empty once it was taken back.
    pub(super) body: Bytes,
    /// Devices and users that miss it.
    pub(super) devices: usize,
    pub(super) users: usize,
    /// Changes of it that are not durable yet: it must not leave before they are.
    pub(super) storing: u32,
    /// Copies sent in this life, and when the last one was.
    pub(super) sends: u32,
    pub(super) sent_at: Timestamp,
    /// Copies that the broker may have, of this life or an earlier one (Q3).
    pub(super) copies: u32,
    /// Nobody sees it by itself: it blocks nothing, and passes what is wedged (Q2).
    pub(super) aside: bool,
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

/// What one recipient has.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The log index of its admission; 0 in 1:1.
    pub(super) since: u64,
    /// The first message meant for it.
    pub(super) from: At,
    /// The epoch that it is being sent: of those before it misses nothing.
    pub(super) epoch: Epoch,
    contig: u64,
    bits: u128,
    window: u64,
    /// What its user has seen.
    pub(super) read: At,
    /// Something that it missed expired: it must learn of the new base.
    lags: bool,
}

/// What `bits` above `contig` say, as bits above `to`, which is not below it.
fn above(contig: u64, bits: u128, to: u64) -> u128 {
    let step = u32::try_from(to - contig).unwrap_or(u32::MAX);
    bits.checked_shr(step).unwrap_or(0)
}

fn covers(contig: u64, bits: u128, seq: u64) -> bool {
    seq <= contig
        || seq
            .checked_sub(contig.saturating_add(2))
            .is_some_and(|bit| bit < WINDOW && bits & (1 << bit) != 0)
}

impl Peer {
    fn new(since: u64, from: At, epoch: Epoch) -> Self {
        let mut peer = Self {
            since,
            from,
            epoch,
            contig: 0,
            bits: 0,
            window: WINDOW,
            read: (from.0, from.1.saturating_sub(1)),
            lags: false,
        };
        peer.enter(epoch);
        peer
    }

    fn enter(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.contig = if self.from.0 == epoch {
            self.from.1.saturating_sub(1)
        } else {
            0
        };
        self.bits = 0;
        self.window = WINDOW;
        self.lags = false;
    }

    fn misses(&self, at: At) -> bool {
        at >= self.from
            && (at.0 > self.epoch || (at.0 == self.epoch && !covers(self.contig, self.bits, at.1)))
    }

    /// When it misses nothing more of its epoch: moves to the next of which it does.
    fn advance(&mut self, entries: &BTreeMap<At, Entry>) {
        let above = self.from.max((self.epoch, self.contig.saturating_add(1)));
        let next = entries
            .range(above..)
            .map(|(at, _)| *at)
            .find(|at| self.misses(*at));
        if let Some((epoch, _)) = next
            && epoch > self.epoch
        {
            self.enter(epoch);
        }
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
    pub(super) last_roster: u64,
    pub(super) rtt: Rtt,
    /// What the broker never takes as it is, and why; what lies behind the first waits (Q2).
    pub(super) wedged: BTreeMap<At, Unsendable>,
    /// A frame with several messages was refused for good: each goes alone from then on.
    pub(super) alone: bool,
    /// Everything up to here was seen by every recipient's user.
    pub(super) displayed: At,
    /// Above it, what failed: an end is final, so those are never told displayed. At
    /// [`MAX_ENDED`] the oldest goes.
    pub(super) ended: BTreeSet<At>,
    /// Somebody may not know that something expired: it is announced until this time.
    pub(super) notice: Option<UnixMillis>,
    /// Announcements since the last news or connection.
    pub(super) hellos: u32,
    /// No second rollback before this.
    pub(super) rollback_at: Option<Timestamp>,
    /// The most that may be in flight to one recipient.
    cap: u64,
    /// What a look at every recipient said, until one comes or goes.
    pub(super) crowd: Option<Crowd>,
}

impl Outbox {
    /// Empty, with at most `window` messages in flight to one recipient.
    pub(super) fn new(window: u16) -> Self {
        Self {
            cap: u64::from(window).min(WINDOW),
            ..Self::default()
        }
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

    /// How an epoch of ours stands.
    pub(super) fn stands(&self, epoch: Epoch, life: Life) -> OpenStream {
        let of_epoch = (epoch, 0)..=(epoch, u64::MAX);
        let last = self.entries.range(of_epoch).next_back();
        OpenStream {
            epoch: epoch.0,
            base: self.base(epoch),
            next: life.next,
            sent_before: life.sent_before,
            base_roster: self.base_roster(epoch),
            last_roster: last.map_or(self.last_roster, |(_, entry)| entry.roster),
        }
    }

    /// The latest epoch before `epoch` that is still owed to somebody.
    pub(super) fn prior(&self, epoch: Epoch) -> Option<OpenStream> {
        if planted("delivery-new-epoch-first") {
            return None;
        }
        let ((older, _), _) = self.entries.range(..(epoch, 0)).next_back()?;
        let life = self.lives.get(older)?;
        Some(self.stands(*older, *life))
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
        (entry.devices, entry.users) = self.owed(at);
        self.entries.insert(at, entry);
        self.unsent.insert(at);
        self.forget_drained();
        if self.crowd().epoch < at.0 {
            for peer in self.peers.values_mut().filter(|peer| peer.epoch < at.0) {
                peer.advance(&self.entries);
            }
            let earliest = self.peers.values().map(|peer| peer.epoch).min();
            self.crowd().epoch = earliest.unwrap_or(at.0);
        }
    }

    /// What is put at `at` is not for those that were admitted after `roster`.
    pub(super) fn pass_over(&mut self, at: At, roster: u64) {
        let later = self.peers.values_mut().filter(|peer| peer.since > roster);
        for peer in later {
            mark("delivery-reissued-before-admission");
            peer.from = peer.from.max((at.0, at.1 + 1));
            peer.read = peer.read.max(at);
        }
        self.crowd = None;
    }

    /// After entries came or went in bulk: forgets drained epochs, and moves every recipient to
    /// the first that it is owed.
    pub(super) fn settle(&mut self) {
        self.forget_drained();
        for peer in self.peers.values_mut() {
            peer.advance(&self.entries);
        }
    }

    /// Only epochs that are owed to somebody matter, and the latest, which goes on.
    fn forget_drained(&mut self) {
        let Some((&last, _)) = self.lives.last_key_value() else {
            return;
        };
        let entries = &self.entries;
        self.lives.retain(|epoch, _| {
            let mut owed = entries.range((*epoch, 0)..=(*epoch, u64::MAX));
            *epoch == last || owed.next().is_some()
        });
    }

    /// Removes a message that is done or given up.
    pub(super) fn remove(&mut self, at: At) -> Option<Entry> {
        self.unsent.remove(&at);
        self.wedged.remove(&at);
        let entry = self.entries.remove(&at);
        self.forget_drained();
        entry
    }

    /// The oldest entry leaves because its time ran out: those that miss it must learn of the new
    /// base, which is announced until `until`.
    pub(super) fn expire(&mut self, at: At, until: UnixMillis) -> Option<Entry> {
        let entry = self.remove(at);
        for peer in self.peers.values_mut().filter(|peer| peer.misses(at)) {
            peer.lags = true;
            peer.advance(&self.entries);
        }
        self.notice = Some(until);
        self.hellos = 0;
        entry
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
        let owed = self.entries.range(from..).next();
        let latest = self.lives.last_key_value().map(|(epoch, _)| *epoch);
        let epoch = owed.map(|((epoch, _), _)| *epoch).or(latest);
        let mut peer = Peer::new(since, from, epoch.unwrap_or(from.0));
        // Added late, after a restart: what it has heard and seen of the latest is not known.
        if self.last_roster >= since {
            peer.lags = self.notice.is_some();
            peer.read = At::default();
        }
        let others: Vec<_> = self.of_user(&who.0).cloned().collect();
        for (at, entry) in self.entries.range_mut(from..) {
            entry.devices += 1;
            entry.users += usize::from(!others.iter().any(|other| other.from <= *at));
        }
        self.peers.insert(who, peer);
        self.crowd = None;
    }

    /// Removes a recipient; hands back the messages that waited for it, and whether they now are
    /// with every device that is left of its user. A user whose only device that had a message
    /// goes, while another still misses it, does not have it any more.
    pub(super) fn leave(&mut self, who: &Who) -> Vec<(At, bool)> {
        let Some(peer) = self.peers.remove(who) else {
            return Vec::new();
        };
        let others: Vec<_> = self.of_user(&who.0).cloned().collect();
        let mut newly = Vec::new();
        for (at, entry) in self.entries.range_mut(peer.from..) {
            let mut owed = others.iter().filter(|other| other.from <= *at).peekable();
            let waits = owed.peek().is_some() && owed.all(|other| other.misses(*at));
            let none_left = !others.iter().any(|other| other.from <= *at);
            if !peer.misses(*at) {
                entry.users += usize::from(waits);
                continue;
            }
            entry.devices = entry.devices.saturating_sub(1);
            let settles = none_left && entry.users > 0;
            entry.users -= usize::from(settles);
            newly.push((*at, settles));
        }
        self.crowd = None;
        newly
    }

    /// Nobody is a recipient any more.
    pub(super) fn leave_all(&mut self) {
        self.peers.clear();
        self.crowd = None;
    }

    fn has_user(&self, user: &UserId) -> bool {
        self.of_user(user).next().is_some()
    }

    pub(super) fn of_user<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a Peer> {
        self.peers
            .range((user.clone(), DeviceId([0; 32]))..=(user.clone(), DeviceId([0xff; 32])))
            .map(|(_, peer)| peer)
    }

    /// Merges what a recipient says of its epoch, and counts it off.
    pub(super) fn apply(&mut self, who: &Who, ack: &StreamAck) -> Applied {
        let mut applied = Applied::default();
        let reads = self
            .peers
            .get(who)
            .is_some_and(|peer| (peer.epoch, ack.read) > peer.read);
        let seen = reads.then(|| self.seen_by(&who.0));
        let Some(mut peer) = self.peers.remove(who) else {
            return applied;
        };
        let epoch = peer.epoch;
        let used = self.lives.get(&epoch).map_or(0, |life| life.next - 1);
        let (mut contig, bits) = (ack.contig.min(used), ack.bitmap);
        if planted("delivery-ack-max") && bits != 0 {
            contig += WINDOW + 1 - u64::from(bits.leading_zeros());
        }
        let has = |seq| covers(contig, bits, seq);
        let top = contig.saturating_add(WINDOW + 1);
        let missed: Vec<u64> = self
            .entries
            .range((epoch, peer.contig + 1)..=(epoch, top.max(peer.contig + 1)))
            .map(|((_, seq), _)| *seq)
            .filter(|seq| peer.misses((epoch, *seq)) && has(*seq))
            .collect();
        let only_device = !self.has_user(&who.0);
        for seq in missed {
            let first = only_device
                || !self
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
        // What lies before a device's first message it passed over, and has it for nobody.
        let others = |at: fn(&Peer) -> At| {
            let peers = self.of_user(&who.0).filter(|peer| at(peer) >= peer.from);
            peers.map(at).max()
        };
        let user_delivered = others(|peer| (peer.epoch, peer.contig));
        let user_read = others(|peer| peer.read);
        let (old_contig, old_bits, old_limit) = (peer.contig, peer.bits, peer.contig + peer.window);
        if contig >= old_contig {
            peer.window = u64::from(ack.window).min(WINDOW);
        }
        peer.contig = old_contig.max(contig);
        let known = |seq| has(seq) || covers(old_contig, old_bits, seq);
        // Who was restored from an older state may name just what is missing above our watermark.
        while peer.contig < used && known(peer.contig + 1) {
            peer.contig += 1;
        }
        peer.bits = above(contig, bits, peer.contig) | above(old_contig, old_bits, peer.contig);
        let read = ack.read.min(contig);
        if read > 0 && (epoch, read) > peer.read {
            peer.read = (epoch, read);
            applied.read = (Some(peer.read) > user_read).then_some(read);
        }
        if peer.contig > old_contig && Some((epoch, peer.contig)) > user_delivered {
            applied.delivered = Some(peer.contig);
        }
        applied.progress = !applied.newly.is_empty() || peer.contig + peer.window > old_limit;
        peer.advance(&self.entries);
        self.peers.insert(who.clone(), peer);
        if let Some(before) = seen {
            let now = self.seen_by(&who.0);
            self.note_seen(before, now);
        }
        applied
    }

    /// A recipient closed `below` and all before it: it has what it was owed of them.
    pub(super) fn apply_retired(&mut self, who: &Who, below: Epoch) -> Vec<(At, bool)> {
        let mut newly = Vec::new();
        let at = |it: &Self| it.peers.get(who).map(|peer| peer.epoch);
        while let Some(epoch) = at(self).filter(|epoch| *epoch <= below) {
            let everything = StreamAck {
                device: [0; 32],
                conv: [0; 32],
                epoch: epoch.0,
                contig: self.lives.get(&epoch).map_or(0, |life| life.next - 1),
                bitmap: 0,
                window: u16::try_from(WINDOW).expect("the window is 128"),
                read: 0,
                refused: BoundedVec::default(),
            };
            newly.extend(self.apply(who, &everything).newly);
            if at(self) == Some(epoch) {
                break;
            }
        }
        newly
    }

    fn reach(&self, peer: &Peer) -> u64 {
        let below_base = self.base(peer.epoch).saturating_sub(1);
        peer.contig.max(below_base) + peer.window.min(self.cap)
    }

    /// The highest number of `epoch` that somebody takes now, 0 when nobody is at that epoch; where
    /// it is `enough` or more, any such number.
    pub(super) fn limit(&self, epoch: Epoch, enough: u64) -> u64 {
        if planted("delivery-window-ignored") {
            return u64::MAX;
        }
        let early = planted("delivery-new-epoch-first");
        let mut limit = 0;
        for peer in self.peers.values() {
            if limit >= enough {
                break;
            }
            if peer.epoch == epoch || early {
                limit = limit.max(self.reach(peer));
            }
        }
        limit
    }

    /// What some recipient misses and takes now: at most a window of each.
    pub(super) fn wanted(&self) -> BTreeSet<At> {
        let of_peer = |peer: &Peer| {
            let (epoch, reach) = (peer.epoch, self.reach(peer));
            self.entries
                .range((epoch, peer.contig.saturating_add(1))..)
                .map(|(at, _)| *at)
                .take_while(|at| at.0 == epoch && at.1 <= reach)
                .filter(|at| peer.misses(*at))
                .collect::<Vec<_>>()
        };
        self.peers.values().flat_map(of_peer).collect()
    }

    /// True when a recipient lacks something that was sent.
    pub(super) fn is_behind(&self, who: &Who) -> bool {
        let Some(peer) = self.peers.get(who) else {
            return false;
        };
        let next = self.lives.get(&peer.epoch).map_or(1, |life| life.next);
        let of_epoch = (peer.epoch, 0)..=(peer.epoch, u64::MAX);
        let unsent = self.unsent.range(of_epoch).next();
        let sent = unsent.map_or(next, |at| at.1) - 1;
        !self.entries.is_empty() && peer.contig < sent
    }

    /// True when this recipient waits for a number that nobody is owed any more: it must be told
    /// the base, because no message will.
    pub(super) fn is_owed_notice(&self, peer: &Peer) -> bool {
        (peer.lags || peer.bits != 0) && peer.contig < self.base(peer.epoch).saturating_sub(1)
    }

    /// True when any recipient does.
    pub(super) fn owes_notice(&self) -> bool {
        self.peers.values().any(|peer| self.is_owed_notice(peer))
    }

    /// Remembers that a message failed.
    pub(super) fn note_end(&mut self, at: At) {
        self.ended.insert(at);
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_first();
        }
    }
}
