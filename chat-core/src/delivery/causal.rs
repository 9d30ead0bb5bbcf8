//! Causal order: a message is not told before what its author had been told when it wrote it
//! (reliability 2.2 "causal deps", rule ID9).
//!
//! Guarantees: who reads what is told in order never sees an answer before its question, unless
//! the answer is flagged ([`Received::causal_gap`]). Nothing is lost and nothing waits for ever: a
//! message waits at most `causal_wait`, at most 1,000 wait, and who left is not waited for.
//!
//! A message names what its author was told by others, the latest of each device, unless a
//! message of its own says so already to all who get this one: messages of a device are told in
//! order. Beyond eight the oldest are left out, so in a group where more than eight others speak
//! between two messages of one the order is kept towards the latest eight only. What nobody else
//! could miss, as in every chat of two devices, is not named and costs no byte.

use std::collections::VecDeque;

use super::inbox::Held;
use super::state::{Conv, ConvAt, Key, StreamAt};
#[cfg(doc)]
use super::types::Received;
use super::{Delivery, mark, rows};
use crate::effect::Table;
use crate::id::{DeviceId, Epoch, MessageId, Seq, StreamId};
use crate::probe::planted;
use crate::time::{Now, Timestamp};
use crate::wire::delivery::{Dep, MAX_DEPS};

/// Messages that may wait, all conversations; one more is told at once, flagged.
pub(super) const MAX_PARKED: usize = 1_000;

/// How a hint names a device.
pub(super) type Head = [u8; 8];

pub(super) fn head(device: &DeviceId) -> Head {
    *device.0.first_chunk().expect("a device id has 32 bytes")
}

/// A message that is here and waits for another.
#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    pub(super) held: Held,
    pub(super) due: Timestamp,
}

/// What somebody else said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) dep: Dep,
    /// A message of ours says so to all who may get one.
    named: bool,
}

impl From<Dep> for Heard {
    fn from(dep: Dep) -> Self {
        Self { dep, named: false }
    }
}

impl Conv {
    /// True when somebody else than this device gets what we write.
    fn others_than(&self, device: Head) -> bool {
        let mut peers = self.out.peers.keys();
        peers.any(|(_, peer)| head(peer) != device)
    }

    /// What the message that is written now comes after, as far as our earlier ones do not say so
    /// and somebody could lack it: its author has it.
    pub(super) fn hints(&mut self) -> Vec<Dep> {
        let mut heard = core::mem::take(&mut self.heard);
        let mut hints = Vec::new();
        for one in &mut heard {
            if !one.named && self.others_than(one.dep.device) {
                one.named = true;
                hints.push(one.dep);
            }
        }
        self.heard = heard;
        hints
    }

    /// The recipients changed; one that is new was let in at `since` and may lack what our earlier
    /// messages, which are not its own, name. Who left is not waited for.
    pub(super) fn recall_heard(&mut self, since: Option<u64>) {
        let peers = &self.out.peers;
        self.heard.retain(|one| {
            let mut devices = peers.keys().map(|(_, device)| head(device));
            devices.any(|device| device == one.dep.device)
        });
        for one in &mut self.heard {
            one.named &= since.is_none_or(|since| one.dep.roster < since);
        }
    }
}

impl Delivery {
    /// A message was told: what we write next comes after it.
    pub(super) fn note_heard(&mut self, conv: ConvAt, id: &MessageId, roster: u64) {
        let it = &mut self.convs[conv];
        let device = head(&id.stream.device);
        // What a conversation that closes still tells counts if it opens again.
        let two = it.route.as_ref().is_some_and(|route| !route.group);
        if two && !it.others_than(device) {
            return;
        }
        it.heard.retain(|one| one.dep.device != device);
        if it.heard.len() == MAX_DEPS
            && let Some(oldest) = it.heard.pop_front()
            && !oldest.named
        {
            mark("delivery-hints-left-out");
        }
        let dep = Dep {
            device,
            epoch: id.stream.epoch.0,
            seq: id.seq.0,
            roster,
        };
        it.heard.push_back(dep.into());
    }

    /// Looks at a message whose turn it is in its stream. `None`: it has to wait, and was put aside;
    /// else whether it is told with a flag. `stored` when it has a row already.
    pub(super) fn park(
        &mut self,
        at: StreamAt,
        (epoch, seq): (Epoch, u64),
        held: &Held,
        stored: bool,
        now: Now,
    ) -> Option<bool> {
        let stream = &self.streams[at];
        let conv = stream.conv;
        let first = stream.parked.is_empty();
        if first && (held.deps.is_empty() || planted("delivery-hints-ignored")) {
            return Some(self.take_loose(at, held));
        }
        let missing = self.missing(conv, &held.deps);
        if first && missing.is_none() {
            return Some(self.take_loose(at, held));
        }
        if self.parked >= MAX_PARKED {
            mark("delivery-too-many-wait");
            self.tell_parked(at, Timestamp::MAX, now);
            return Some(missing.is_some());
        }
        mark("delivery-parked");
        self.parked += 1;
        let due = now.mono + self.config.causal_wait;
        if !stored {
            let stream = &self.streams[at];
            let key = rows::held_key(self.convs[conv].id, stream.device, epoch, seq);
            self.effects
                .put(Table::Streams, key, rows::encode_held(held));
        }
        let stream = &mut self.streams[at];
        let account = stream.account;
        stream.parked.push_back(Parked {
            epoch,
            seq,
            held: held.clone(),
            due,
        });
        // It counts as told: its sender's window closes over it.
        self.share(account, 1, 0);
        if first {
            self.convs[conv].parked.push(at);
            self.timers.set(Key::Parked(at), due);
            // Whoever is waited for hears where we stand, and sends what is missing.
            if let Some(Some(waited_for)) = missing {
                self.ack_later(waited_for, false, now);
            }
        }
        None
    }

    /// The first hint that we cannot follow yet, as the stream that it names if we hear that;
    /// `None` when nothing is missing.
    fn missing(&self, conv: ConvAt, deps: &[Dep]) -> Option<Option<StreamAt>> {
        deps.iter().find_map(|dep| self.is_missing(conv, dep))
    }

    fn is_missing(&self, conv: ConvAt, dep: &Dep) -> Option<Option<StreamAt>> {
        let it = &self.convs[conv];
        let route = it.route.as_ref();
        if route.is_some_and(|route| dep.roster < route.since)
            || dep.device == head(&self.me.device)
        {
            return None;
        }
        // Who left after it wrote sends nothing more. Whom our log does not know was let in by one
        // that we do not have: a later one, or that of another branch. Without any, as while we
        // leave, we cannot tell.
        let comes = route.is_none_or(|route| {
            let mut known = route.recipients.keys();
            let left = route.went(dep.device);
            known.any(|(_, device)| head(device) == dep.device)
                || route.group && left.is_none_or(|at| dep.roster >= at)
        });
        let at = it.heads.get(&dep.device).copied();
        let here = at.is_some_and(|at| {
            let stream = &self.streams[at];
            let wanted = (Epoch(dep.epoch), dep.seq);
            let parked = stream.parked.front();
            let waits = parked.is_some_and(|first| (first.epoch, first.seq) <= wanted);
            (stream.epoch, stream.contig) >= wanted && !waits
        });
        (comes && !here).then_some(at)
    }

    /// Something moved: tells what waits for nothing any more.
    pub(super) fn release_parked(&mut self, conv: ConvAt, now: Now) {
        let mut moved = !self.convs[conv].parked.is_empty();
        let mut any = false;
        while core::mem::take(&mut moved) {
            for at in self.convs[conv].parked.clone() {
                while let Some(first) = self.streams[at].parked.front()
                    && self.missing(conv, &first.held.deps).is_none()
                {
                    mark("delivery-parked-in-time");
                    self.tell_first_parked(at, false);
                    (moved, any) = (true, true);
                }
                self.await_parked(at, now);
            }
        }
        if any {
            self.put_conv(conv);
        }
    }

    /// Tells, flagged, what has waited until `until`, and all before it.
    pub(super) fn tell_parked(&mut self, at: StreamAt, until: Timestamp, now: Now) {
        let conv = self.streams[at].conv;
        while let Some(first) = self.streams[at].parked.front()
            && first.due <= until
        {
            let gap = self.missing(conv, &first.held.deps).is_some();
            if gap {
                mark("delivery-causal-gap");
            }
            self.tell_first_parked(at, gap);
        }
        self.await_parked(at, now);
        self.put_conv(conv);
    }

    /// The wait of a parked message is over.
    pub(super) fn on_parked_due(&mut self, at: StreamAt, now: Now) {
        self.tell_parked(at, now.mono, now);
        let conv = self.streams[at].conv;
        self.release_parked(conv, now);
    }

    fn tell_first_parked(&mut self, at: StreamAt, causal_gap: bool) {
        let stream = &mut self.streams[at];
        let Some(parked) = stream.parked.pop_front() else {
            return;
        };
        let (conv, device, account) = (stream.conv, stream.device, stream.account);
        let user = stream.user.clone();
        self.parked -= 1;
        self.share(account, -1, 0);
        let id = MessageId {
            stream: StreamId {
                conv: self.convs[conv].id,
                device,
                epoch: parked.epoch,
            },
            seq: Seq(parked.seq),
        };
        let key = rows::held_key(id.stream.conv, device, parked.epoch, parked.seq);
        self.effects.delete(Table::Streams, key);
        self.streams[at].loose |= causal_gap;
        let gap = self.take_loose(at, &parked.held);
        if let Some(body) = &parked.held.body {
            self.deliver(conv, (&user, account), id, &parked.held, (body, gap));
        }
    }

    /// The flag of what waited in vain goes with the first one that is told.
    fn take_loose(&mut self, at: StreamAt, held: &Held) -> bool {
        held.body.is_some() && core::mem::take(&mut self.streams[at].loose)
    }

    /// Sets the timer of what is parked, or forgets that anything is.
    fn await_parked(&mut self, at: StreamAt, now: Now) {
        let stream = &self.streams[at];
        let conv = stream.conv;
        match stream.parked.front() {
            Some(first) => {
                let due = first
                    .due
                    .max(now.mono + core::time::Duration::from_millis(1));
                self.timers.set(Key::Parked(at), due);
            }
            None => {
                self.convs[conv].parked.retain(|other| *other != at);
                self.timers.remove(&Key::Parked(at));
            }
        }
    }

    /// After a restart: tells apart what was held and what was parked, and lets that wait anew.
    pub(super) fn resume_parked(&mut self, at: StreamAt, now: Now) {
        let stream = &mut self.streams[at];
        let (epoch, contig) = (stream.epoch, stream.contig);
        let mut parked = VecDeque::new();
        for item in core::mem::take(&mut stream.parked) {
            if item.epoch == epoch && item.seq > contig {
                stream.held.insert(item.seq, item.held);
            } else {
                let due = now.mono + self.config.causal_wait;
                parked.push_back(Parked { due, ..item });
            }
        }
        if parked.is_empty() {
            return;
        }
        mark("delivery-parked-over-a-restart");
        parked
            .make_contiguous()
            .sort_by_key(|item| (item.epoch, item.seq));
        let (conv, account) = (stream.conv, stream.account);
        let count = isize::try_from(parked.len()).unwrap_or(isize::MAX);
        stream.parked = parked;
        self.parked += count.unsigned_abs();
        self.share(account, count, 0);
        self.convs[conv].parked.push(at);
        self.await_parked(at, now);
    }
}
