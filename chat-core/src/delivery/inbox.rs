//! The receiving side of one device in one conversation: which epoch is open, what arrived of it,
//! what is held back for something that is missing (reliability 2.3 "receive", 2.6).
//!
//! Guarantees: a number is delivered at most once (ID1), in order (ID2), and every number passed
//! over that was meant for us is covered by a [`Step::Gap`] (ID7). One epoch is open at a time:
//! the first frame of a later one closes all before it, so no list of open epochs can grow (ID5).

use std::collections::{BTreeMap, VecDeque};

use super::causal::Parked;
use super::state::{ConvAt, UserAt};
use crate::hlc::Hlc;
use crate::id::{DeviceId, Epoch, UserId};
use crate::probe::{mark, planted};
use crate::time::{Timestamp, UnixMillis};
use crate::wire::delivery::{Dep, OpenStream, Refusal};

/// How far above `contig` a message may lie: the width of the selective acknowledgement.
pub(super) const WINDOW: u64 = 128;
/// Refusals that are remembered until their sender has moved past them.
pub(super) const MAX_REFUSED: usize = 16;
/// Unread messages per stream whose places are known; beyond it receipts get coarser.
const MAX_MARKS: usize = 64;

/// Something that arrived and waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The sender's clock.
    pub(super) hlc: Hlc,
    /// When its sender gives it up, and with it all before it.
    pub(super) expires: UnixMillis,
    /// The same on the monotonic clock: what a step of the wall clock cannot bring nearer.
    pub(super) due: Timestamp,
    /// The author had left.
    pub(super) former: bool,
    /// Its clock was not believed.
    pub(super) suspect: bool,
    /// The log index that it cites, and what it comes after (ID9).
    pub(super) roster: u64,
    pub(super) deps: Vec<Dep>,
    /// The encoded content; `None` when the number is passed over: taken back or refused.
    pub(super) body: Option<Vec<u8>>,
}

/// What a change of the stream hands to the conversation, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Put into the inbox log, or pass over when it has no body.
    Deliver(Epoch, u64, Held),
    /// `count` messages from this one on will never come.
    Gap(Epoch, u64, u64),
}

/// Where a sender stands, as its frames say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) epoch: Epoch,
    pub(super) base: u64,
    pub(super) sent_before: u64,
    pub(super) base_roster: u64,
}

impl From<&OpenStream> for Claim {
    fn from(open: &OpenStream) -> Self {
        Self {
            epoch: Epoch(open.epoch),
            base: open.base,
            sent_before: open.sent_before,
            base_roster: open.base_roster,
        }
    }
}

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Already here.
    Duplicate,
    /// Further ahead than we take.
    Beyond,
    /// The next one.
    Next,
    /// Ahead of something missing.
    Ahead,
}

/// The receive state of one device in one conversation.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) conv: ConvAt,
    pub(super) device: DeviceId,
    pub(super) user: UserId,
    pub(super) account: UserAt,
    /// The open epoch; all below are closed. 0: nothing heard yet.
    pub(super) epoch: Epoch,
    /// Messages of the earlier epochs, as the sender said.
    pub(super) sent_before: u64,
    /// Everything up to here is delivered, passed over or told as a gap.
    pub(super) contig: u64,
    pub(super) held: BTreeMap<u64, Held>,
    /// Behind us here, and not told yet: it waits for messages of others (ID9).
    pub(super) parked: VecDeque<Parked>,
    /// What was passed over had waited in vain: the next one is told with its flag.
    pub(super) loose: bool,
    pub(super) refused: Vec<Refusal>,
    /// Everything up to here was displayed.
    pub(super) read: u64,
    /// The last message delivered.
    pub(super) last: (Hlc, u64),
    /// Unread messages, oldest first.
    pub(super) marks: VecDeque<(Hlc, u64)>,
    /// When it was last acknowledged or answered, to bound answers to duplicates.
    pub(super) answered: Option<Timestamp>,
    /// A second answer is to follow the next one.
    pub(super) again: bool,
    /// A timer runs for what is held.
    pub(super) timed: bool,
    /// News since it was last acknowledged.
    pub(super) owed: u64,
}

impl Stream {
    pub(super) fn new(conv: ConvAt, device: DeviceId, user: UserId, account: UserAt) -> Self {
        Self {
            conv,
            device,
            user,
            account,
            epoch: Epoch(0),
            sent_before: 0,
            contig: 0,
            held: BTreeMap::new(),
            parked: VecDeque::new(),
            loose: false,
            refused: Vec::new(),
            read: 0,
            last: (Hlc(0), 0),
            marks: VecDeque::new(),
            answered: None,
            again: false,
            timed: false,
            owed: 0,
        }
    }

    /// The open epoch, and what is behind us of it.
    pub(super) fn stands(&self) -> (Epoch, u64) {
        (self.epoch, self.contig)
    }

    /// True when the epoch was closed here: its frames are answered with `Retired`.
    pub(super) fn is_retired(&self, epoch: Epoch) -> bool {
        epoch < self.epoch && !planted("delivery-no-retired")
    }

    /// Moves to where the sender stands: closes older epochs, raises `contig` to its base. `since`
    /// is our admission: what lies before it is passed over in silence. True when anything moved.
    pub(super) fn catch_up(&mut self, claim: Claim, since: u64, steps: &mut Vec<Step>) -> bool {
        let meant_for_us = claim.base_roster >= since;
        let below_base = claim.base.saturating_sub(1);
        let mut moved = false;
        if claim.epoch > self.epoch || (planted("delivery-no-retired") && claim.epoch != self.epoch)
        {
            self.flush(steps);
            let first_contact = self.epoch == Epoch(0);
            let passed = self.sent_before.saturating_add(self.contig);
            let tail = claim.sent_before.saturating_sub(passed);
            if tail > 0 && meant_for_us && !planted("delivery-silent-tail") {
                mark("delivery-tail-gap");
                // Of epochs never heard of only the count is known.
                let first = if first_contact { 1 } else { self.contig + 1 };
                steps.push(Step::Gap(self.epoch, first, tail));
            }
            if !first_contact {
                mark("delivery-epoch-closed");
            }
            self.epoch = claim.epoch;
            self.sent_before = claim.sent_before;
            self.contig = 0;
            self.read = 0;
            self.last.1 = 0;
            self.refused.clear();
            self.marks.clear();
            moved = true;
        }
        if below_base > self.contig {
            self.raise(below_base, meant_for_us, steps);
            moved = true;
        }
        self.refused.retain(|refusal| refusal.seq >= claim.base);
        moved
    }

    /// True when nothing more of `open` is to come for us: what follows it may be taken. Moves to
    /// its base when it is the epoch that is open here.
    pub(super) fn is_done_with(
        &mut self,
        open: &OpenStream,
        since: u64,
        steps: &mut Vec<Step>,
    ) -> bool {
        if self.epoch > Epoch(open.epoch) || open.last_roster < since {
            return true;
        }
        if self.epoch < Epoch(open.epoch) {
            return false;
        }
        self.catch_up(open.into(), since, steps);
        self.contig.saturating_add(1) >= open.next
    }

    /// Nothing up to `seq` that is missing was meant for us (rule G16).
    pub(super) fn skip_to(&mut self, seq: u64, steps: &mut Vec<Step>) -> bool {
        if seq <= self.contig {
            return false;
        }
        mark("delivery-not-for-us");
        self.raise(seq, false, steps);
        true
    }

    /// Delivers what is held with gaps for what is missing between.
    pub(super) fn flush(&mut self, steps: &mut Vec<Step>) {
        if let Some((&top, _)) = self.held.last_key_value() {
            self.raise(top, true, steps);
        }
    }

    pub(super) fn raise(&mut self, to: u64, tell: bool, steps: &mut Vec<Step>) {
        let tell = tell && !planted("delivery-silent-gap");
        while self.contig < to {
            let next = self.held.first_key_value().map(|(&seq, _)| seq);
            let up_to = next.filter(|&seq| seq <= to).map_or(to, |seq| seq - 1);
            if up_to > self.contig {
                if tell {
                    let count = up_to - self.contig;
                    steps.push(Step::Gap(self.epoch, self.contig + 1, count));
                }
                self.contig = up_to;
            }
            self.advance(steps);
        }
        self.advance(steps);
    }

    fn advance(&mut self, steps: &mut Vec<Step>) {
        while let Some(held) = self.held.remove(&(self.contig + 1)) {
            self.contig += 1;
            if held.body.is_some() {
                self.last = (held.hlc, self.contig);
                self.marks.push_back((held.hlc, self.contig));
                if self.marks.len() > MAX_MARKS {
                    self.marks.pop_front();
                }
            }
            steps.push(Step::Deliver(self.epoch, self.contig, held));
        }
    }

    /// Where a message of the open epoch falls.
    pub(super) fn place(&self, seq: u64) -> Place {
        if seq <= self.contig || self.held.contains_key(&seq) {
            Place::Duplicate
        } else if seq - self.contig > WINDOW {
            Place::Beyond
        } else if seq == self.contig + 1 {
            Place::Next
        } else {
            Place::Ahead
        }
    }

    /// Takes a message whose place is `Next` or `Ahead`.
    pub(super) fn take(&mut self, seq: u64, held: Held, steps: &mut Vec<Step>) {
        self.held.insert(seq, held);
        if planted("delivery-out-of-order") {
            let held = self.held.remove(&seq).expect("it was just inserted");
            self.contig = self.contig.max(seq);
            steps.push(Step::Deliver(self.epoch, seq, held));
        }
        self.advance(steps);
    }

    /// The acknowledged numbers above `contig`.
    pub(super) fn bitmap(&self) -> u128 {
        let first = self.contig + 2;
        self.held
            .keys()
            .filter_map(|seq| seq.checked_sub(first).filter(|bit| *bit < WINDOW))
            .fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Marks as displayed what `shows` says; true when the watermark moved.
    pub(super) fn mark_read(&mut self, shows: impl Fn(Hlc, u64) -> bool) -> bool {
        let before = self.read;
        while let Some(&(hlc, seq)) = self.marks.front() {
            if !shows(hlc, seq) {
                break;
            }
            self.read = self.read.max(seq);
            self.marks.pop_front();
        }
        // After a restart the places are gone, but not the last one.
        if self.last.1 > 0 && shows(self.last.0, self.last.1) {
            self.read = self.read.max(self.last.1);
        }
        self.read > before
    }
}
