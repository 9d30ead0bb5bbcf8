//! What a member may say and sign, judged frame by frame: one promise per round, which a claim of
//! its own counts among (IG1), and no report to a leader before it (IG7); support for no lower head
//! (IG2); nothing shown before it is durable; in a strict group a majority in reach and committed
//! ground for every change (R6, IG7); a hand-over to who agreed or, of a lame leader, to who answers
//! (G18, R8); silence after it; a fence when all had time to show what they hold (R9); and what is
//! told to be committed, a majority kept, under either policy. In an available group that lasts no
//! longer than the branch (reliability 1.7: IG7 is about strict ones), so nothing is judged there later.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chat_core::event::Event;
use chat_core::group::GroupView;
use chat_core::link::LinkState;
use chat_core::time::Timestamp;
use chat_core::wire::{self, Body, group as frames};
use chat_core::{Transmit, channel::Channel};

use super::certificate::Fold;
use super::chain::Log;
use super::entry::{Entry, Hash, Op};
use super::{At, Seen, Verdict, Violation};
use crate::sim::{FakeVerifier, Ledger};

type Device = [u8; 32];

const BEAT: u8 = 0x40;
const ACK: u8 = 0x41;
const ENTRIES: u8 = 0x42;
const PROPOSE: u8 = 0x46;
const OFFER: u8 = 0x47;
const SUPPORT: u8 = 0x4a;
const ACCEPT: u8 = 2;

/// What one device promised.
#[derive(Clone, Debug, Default)]
struct Promises {
    /// By round, the signature that left.
    supports: BTreeMap<u64, Vec<u8>>,
    claims: BTreeSet<u64>,
}

/// What one process heard.
#[derive(Clone, Debug, Default)]
struct Ears {
    /// When a member last reported its head, or stood behind our claim.
    heard: BTreeMap<Device, Timestamp>,
    /// Since when, on this connection, a member reports heads of a round.
    knows: BTreeMap<(Device, u64), Timestamp>,
    /// Since when it is connected. What it says at that very moment may have waited.
    connected: Option<Timestamp>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Conduct {
    verifier: FakeVerifier,
    beat: Duration,
    suspect: Duration,
    promises: BTreeMap<Device, Promises>,
    ears: BTreeMap<usize, Ears>,
    /// Who ever kept an entry.
    holders: HashMap<Hash, BTreeSet<Device>>,
    /// Entries whose signing was judged.
    signed: HashSet<Hash>,
    /// Entries that were told to be committed, and are.
    committed: HashSet<Hash>,
    /// Offers by who made them.
    offers: BTreeSet<(Device, u64)>,
    /// Who said yes to which offer.
    accepted: BTreeSet<(Device, u64)>,
}

impl Conduct {
    pub(super) fn new(ledger: Arc<Ledger>, beat: Duration, suspect: Duration) -> Self {
        Self {
            verifier: FakeVerifier(ledger),
            beat,
            suspect,
            promises: BTreeMap::new(),
            ears: BTreeMap::new(),
            holders: HashMap::new(),
            signed: HashSet::new(),
            committed: HashSet::new(),
            offers: BTreeSet::new(),
            accepted: BTreeSet::new(),
        }
    }

    fn open(&self, channel: &Channel, bytes: &[u8]) -> Option<(Device, Body)> {
        let opened = wire::open(wire::header(bytes).ok()?, channel, &self.verifier).ok()?;
        Some((opened.key.device().0, opened.body))
    }

    /// Judges one observation; `kept` is the head on the device's disk.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn see(
        &mut self,
        at: At<'_>,
        seen: Seen<'_>,
        kept: Option<Hash>,
        log: &mut Log,
    ) -> Verdict {
        match seen {
            Seen::Started | Seen::Died => drop(self.ears.remove(&at.node)),
            Seen::Queued(Event::Link(state)) => {
                let ears = self.ears.entry(at.node).or_default();
                match state {
                    LinkState::Connected { .. } => ears.connected = Some(at.mono),
                    LinkState::CaughtUp => {}
                    _ => {
                        ears.connected = None;
                        ears.knows.clear();
                    }
                }
            }
            Seen::Arrives(channel, bytes, _) if wire::peek_kind(bytes) == Some(ACK) => {
                if let Some((from, Body::GroupAck(ack))) = self.open(channel, bytes) {
                    let ears = self.ears.entry(at.node).or_default();
                    ears.heard.insert(from, at.mono);
                    let round = ack.head.term.round;
                    ears.knows.entry((from, round)).or_insert(at.mono);
                }
            }
            Seen::Transmit(frame) => match wire::peek_kind(&frame.bytes) {
                Some(BEAT) => return self.beats(at, frame, log),
                Some(ENTRIES) => return self.signs(at, frame, log),
                Some(SUPPORT) => return self.supports(at, frame, kept, log),
                Some(OFFER) => {
                    let opened = self.open(&frame.channel, &frame.bytes);
                    if let Some((from, Body::Offer(offer))) = opened {
                        self.offers.insert((from, offer.offer));
                    }
                }
                _ => {}
            },
            Seen::Sent(frame) => match wire::peek_kind(&frame.bytes) {
                Some(ENTRIES) => return self.shows(at, frame, log),
                Some(SUPPORT) => return self.promises(at, frame),
                Some(ACK) => return self.reports(at, frame, log),
                Some(PROPOSE) => {
                    let opened = self.open(&frame.channel, &frame.bytes);
                    if let Some((from, Body::Propose(propose))) = opened
                        && propose.action == ACCEPT
                    {
                        self.accepted.insert((from, propose.index));
                    }
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// A device keeps an entry.
    ///
    /// # Errors
    /// It is a claim of its own for a round that it had promised.
    pub(super) fn keeps(&mut self, device: Device, entry: &Entry) -> Verdict {
        self.holders.entry(entry.hash).or_default().insert(device);
        // Not judged by now: its author's process died before it could show it.
        self.signed.insert(entry.hash);
        if entry.device().0 == device && entry.op.begins_term() {
            let promises = self.promises.entry(device).or_default();
            let round = entry.term.round;
            let highest = promises.supports.last_key_value().map(|(round, _)| *round);
            if promises.claims.insert(round) && highest.is_some_and(|highest| highest >= round) {
                let text = format!("round {round} is claimed by who promised {highest:?}");
                return Err(Violation::new("IG1 promise", text));
            }
        }
        Ok(())
    }

    /// One promise per round, the rounds rising.
    fn promises(&mut self, at: At<'_>, frame: &Transmit) -> Verdict {
        let Some((from, Body::Support(support))) = self.open(&frame.channel, &frame.bytes) else {
            return Ok(());
        };
        let promises = self.promises.entry(from).or_default();
        let round = support.round;
        let highest = promises.supports.last_key_value();
        let highest = highest.map_or(0, |(round, _)| *round);
        let held = promises.supports.entry(round);
        let held = held.or_insert_with(|| support.proof.to_vec());
        let twice = held[..] != support.proof[..] || promises.claims.contains(&round);
        if twice || round < highest {
            let text = format!(
                "node {} promises round {round}, after round {highest} or twice",
                at.node
            );
            return Err(Violation::new("IG1 promise", text));
        }
        Ok(())
    }

    /// In a strict group whoever promised a round tells no leader of a lower one what it holds: that
    /// leader would call it committed, and the next may claim without it (reliability 1.5).
    fn reports(&self, at: At<'_>, frame: &Transmit, log: &mut Log) -> Verdict {
        let Some((from, Body::GroupAck(ack))) = self.open(&frame.channel, &frame.bytes) else {
            return Ok(());
        };
        let promises = self.promises.get(&from);
        let highest = promises.and_then(|all| all.supports.last_key_value());
        let round = ack.head.term.round;
        let Some((promised, _)) = highest.filter(|(promised, _)| **promised > round) else {
            return Ok(());
        };
        let Some(head) = log.good(ack.head.hash) else {
            return Ok(());
        };
        let leads = |user: &str| head.leader_user == user && head.leader != from;
        let counts = matches!(&frame.channel, Channel::Inbox(user) if leads(user.as_str()));
        if !(head.strict && counts) {
            return Ok(());
        }
        let text = format!(
            "node {} reports to the leader of round {round} and promised round {promised}",
            at.node
        );
        Err(Violation::new("IG7 promise", text))
    }

    /// Nobody supports a head that is lower than what it keeps.
    fn supports(&self, at: At<'_>, frame: &Transmit, kept: Option<Hash>, log: &mut Log) -> Verdict {
        let Some((_, Body::Support(support))) = self.open(&frame.channel, &frame.bytes) else {
            return Ok(());
        };
        let connected = self.ears.get(&at.node).and_then(|ears| ears.connected);
        if connected.is_none_or(|since| since >= at.mono) {
            return Ok(());
        }
        let (Some(base), Some(own)) = (log.good(support.base), kept.and_then(|h| log.good(h)))
        else {
            return Ok(());
        };
        if base.rank() < own.rank() {
            let text = format!(
                "node {} at {:?}, index {}, supports a claim from {:?}, index {}",
                at.node, own.term, own.index, base.term, base.index
            );
            return Err(Violation::new("IG2 support", text));
        }
        Ok(())
    }

    /// Only who reigns beats, and not after a hand-over; what it calls committed is.
    fn beats(&mut self, at: At<'_>, frame: &Transmit, log: &mut Log) -> Verdict {
        let Some((from, Body::GroupBeat(beat))) = self.open(&frame.channel, &frame.bytes) else {
            return Ok(());
        };
        let fold = log.fold(beat.head.hash);
        match fold.as_deref() {
            Some(Ok(fold)) if fold.heir.is_some() || fold.leader != from => {
                let text = format!(
                    "node {} beats, the lead is {:?}'s",
                    at.node,
                    fold.heir.unwrap_or(fold.leader)
                );
                Err(Violation::new("R5 beat", text))
            }
            Some(Ok(fold)) => self.is_committed(at.node, beat.commit, fold, log),
            _ => Ok(()),
        }
    }

    /// Nothing of one's own is shown before it is durable.
    fn shows(&self, at: At<'_>, frame: &Transmit, log: &mut Log) -> Verdict {
        let Some((_, Body::Entries(page))) = self.open(&frame.channel, &frame.bytes) else {
            return Ok(());
        };
        for entry in own(&page, at, log) {
            let holders = self.holders.get(&entry.hash);
            if holders.is_none_or(|holders| !holders.contains(&at.device.0)) {
                let text = format!("node {} shows entry {} first", at.node, entry.index);
                return Err(Violation::new("persist before publish", text));
            }
        }
        Ok(())
    }

    /// Entries that a device signs now.
    fn signs(&mut self, at: At<'_>, frame: &Transmit, log: &mut Log) -> Verdict {
        let Some((_, Body::Entries(page))) = self.open(&frame.channel, &frame.bytes) else {
            return Ok(());
        };
        for entry in own(&page, at, log) {
            if !self.signed.insert(entry.hash) {
                continue;
            }
            if let Op::Claim(supports) = &entry.op {
                let ears = self.ears.entry(at.node).or_default();
                for (key, _) in supports {
                    let device = chat_core::identity::PublicKey(*key).device();
                    ears.heard.insert(device.0, at.mono);
                }
            }
            if let Some(before) = log.good(entry.prev) {
                self.may_sign(at, &entry, &before, log)?;
            }
        }
        Ok(())
    }

    fn may_sign(&self, at: At<'_>, entry: &Entry, before: &Fold, log: &Log) -> Verdict {
        let me = at.device.0;
        let nobody = Ears::default();
        let ears = self.ears.get(&at.node).unwrap_or(&nobody);
        let lately = |device: &Device| {
            let heard = ears.heard.get(device);
            heard.is_some_and(|heard| at.mono.saturating_since(*heard) < self.suspect)
        };
        let refuse = |rule: &'static str, why: &str| {
            let (node, index, op) = (at.node, entry.index, &entry.op);
            let text = format!("node {node} signs {index}, {op:?}: {why}");
            Err(Violation::new(rule, text))
        };
        if before.strict && !entry.op.begins_term() {
            let there = before.members.keys();
            let there = there.filter(|device| **device == me || lately(device));
            if there.count() < before.majority() {
                return refuse("R6", "no majority is in reach");
            }
        }
        if before.strict && entry.op.changes_roster() {
            let ground = before.claimed.max(before.changed);
            let held = log.back(before.hash, ground);
            if held.is_some_and(|held| self.backers(&held, before, me) < before.majority()) {
                return refuse("IG7 ground", "the change before it is not committed");
            }
        }
        match &entry.op {
            Op::Handover(to, false) if !lately(to) => {
                refuse("R8", "whom it hands over to does not answer")
            }
            Op::Handover(to, true)
                if !self
                    .accepted
                    .iter()
                    .any(|(by, offer)| by == to && self.offers.contains(&(me, *offer))) =>
            {
                refuse("G18", "nobody said yes")
            }
            Op::Fence(..) => {
                let shown = |device: &Device| {
                    let known = ears.knows.get(&(*device, before.term.round));
                    known.is_some_and(|since| at.mono.saturating_since(*since) >= self.beat * 6)
                };
                let orderly = before.former.as_ref().is_some_and(|former| former.orderly);
                let mut others = before.members.keys().filter(|device| **device != me);
                if orderly || others.all(shown) {
                    return Ok(());
                }
                refuse("R9", "not all members had time to show what they hold")
            }
            _ => Ok(()),
        }
    }

    /// How many members of `fold` are known to keep an entry; its author holds it anyway.
    fn backers(&self, entry: &Hash, fold: &Fold, author: Device) -> usize {
        let none = BTreeSet::new();
        let holders = self.holders.get(entry).unwrap_or(&none);
        let members = fold.members.keys();
        let holds = |device: &&Device| **device == author || holders.contains(*device);
        members.filter(holds).count()
    }

    /// What a view calls committed is.
    ///
    /// # Errors
    /// IG7.
    pub(super) fn commits(
        &mut self,
        node: usize,
        view: &GroupView,
        head: &Fold,
        log: &mut Log,
    ) -> Verdict {
        // Whoever leads may know a roster, and count a majority of it, that this log does not show
        // yet; then its beat said so.
        let entry = log.back(head.hash, view.committed);
        if entry.is_some_and(|entry| self.committed.contains(&entry)) {
            return Ok(());
        }
        self.is_committed(node, view.committed, head, log)
    }

    /// A leader whose log ends with `head` says that a majority holds the entry at `index`: those of
    /// one of the rosters since kept it, and it is of this term.
    ///
    /// # Errors
    /// IG7.
    fn is_committed(&mut self, node: usize, index: u64, head: &Fold, log: &mut Log) -> Verdict {
        let wrong = |why: &str| {
            let text = format!(
                "node {node} calls {index} committed, the term began at {}: {why}",
                head.claimed
            );
            Err(Violation::new("IG7 commit", text))
        };
        let Some(entry) = log.back(head.hash, index).filter(|_| index > 0) else {
            return Ok(());
        };
        if index < head.claimed && !log.may_differ(&head.term) {
            return wrong("it is of an earlier term");
        }
        let mut at = head.hash;
        while !self.committed.contains(&entry) {
            let Some(fold) = log.good(at) else {
                return Ok(());
            };
            if self.backers(&entry, &fold, head.leader) >= fold.majority() {
                self.hold(entry, log);
                break;
            }
            let before = log.entry(&at).map(|entry| entry.prev);
            let Some(before) = before.filter(|_| at != entry) else {
                return wrong("no majority keeps it");
            };
            at = before;
        }
        Ok(())
    }

    /// A committed entry stands for all before it.
    fn hold(&mut self, entry: Hash, log: &Log) {
        let mut at = Some(entry);
        while let Some(hash) = at
            && self.committed.insert(hash)
        {
            at = log.entry(&hash).map(|entry| entry.prev);
        }
    }
}

/// The entries of a page that the device signed itself.
fn own(page: &frames::Entries, at: At<'_>, log: &mut Log) -> Vec<Entry> {
    let hashes: Vec<Hash> = page.entries.iter().filter_map(|one| log.add(one)).collect();
    let entries = hashes.iter().filter_map(|hash| log.entry(hash));
    let mine = entries.filter(|entry| entry.device() == at.device);
    mine.cloned().collect()
}
