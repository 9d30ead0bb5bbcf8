//! What becomes of a branch that lost. In the transaction that replaces a part of a log, what that
//! part decided is kept: kicks, leaves, admissions (IG4, IG6, R8); no order of a fenced reign is
//! (R9); and a leader that a minority deposed although it was there asks for the lead at once (R7).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chat_core::effect::{RowOp, Table};
use chat_core::event::Event;
use chat_core::identity::PublicKey;
use chat_core::link::LinkState;
use chat_core::time::Timestamp;

use super::certificate::Fold;
use super::chain::Log;
use super::entry::{Entry, Hash, Instance, Nonce, Op};
use super::{At, Seen, Verdict, Violation};

/// Connected for so long, beyond the time of suspicion, a deposed leader had to notice.
const SLACK: Duration = Duration::from_secs(30);

/// What one node keeps beside its log, and since when it is connected.
#[derive(Clone, Debug, Default)]
struct Place {
    kicks: BTreeSet<Hash>,
    lefts: BTreeSet<Instance>,
    joins: BTreeMap<Bytes, Bytes>,
    up_since: Option<Timestamp>,
    /// The round of the head that it last asked from.
    asked_from: u64,
    /// It was deposed by this round, and has to ask.
    owes: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Branches {
    suspect: Duration,
    places: BTreeMap<usize, Place>,
}

impl Branches {
    pub(super) fn new(suspect: Duration) -> Self {
        Self {
            suspect,
            places: BTreeMap::new(),
        }
    }

    /// Notes what passes at a node.
    pub(super) fn see(&mut self, at: At<'_>, seen: Seen<'_>) {
        let place = self.places.entry(at.node).or_default();
        match seen {
            Seen::Started | Seen::Died => (place.up_since, place.owes) = (None, None),
            Seen::DiskLost => *place = Place::default(),
            Seen::Queued(Event::Link(state)) => match state {
                LinkState::Connected { .. } => place.up_since = Some(at.mono),
                LinkState::CaughtUp => {}
                _ => place.up_since = None,
            },
            _ => {}
        }
    }

    /// A node asks for the lead from a head of this round.
    pub(super) fn asks(&mut self, node: usize, round: u64) {
        self.places.entry(node).or_default().asked_from = round;
    }

    /// Rows beside the log became durable.
    pub(super) fn rows(&mut self, node: usize, group: &[u8; 32], rows: &[RowOp]) {
        let place = self.places.entry(node).or_default();
        for row in rows {
            let (table, key, value) = match row {
                RowOp::Put { table, key, value } => (table, key, Some(value)),
                RowOp::Delete { table, key } => (table, key, None),
            };
            let Some((tag, name)) = key.strip_prefix(group).and_then(|rest| rest.split_first())
            else {
                continue;
            };
            match (tag, value) {
                _ if *table != Table::Groups => {}
                (b'k', value) => {
                    if let Ok(hash) = name.try_into() {
                        set(&mut place.kicks, hash, value.is_some());
                    }
                }
                (b'l', value) => {
                    if let Some((device, nonce)) = name.split_first_chunk::<32>()
                        && let Ok(nonce) = nonce.try_into()
                    {
                        set(&mut place.lefts, (*device, nonce), value.is_some());
                    }
                }
                (b'j', Some(value)) => drop(place.joins.insert(key.clone(), value.clone())),
                (b'j', None) => drop(place.joins.remove(key)),
                _ => {}
            }
        }
    }

    /// The log of a node moved; `lost` are the entries that it had before and has no more.
    ///
    /// # Errors
    /// IG4, IG6 or R9.
    pub(super) fn moved(
        &mut self,
        at: At<'_>,
        before: Option<&Fold>,
        after: &Fold,
        lost: &[Entry],
        log: &Log,
    ) -> Verdict {
        let n = at.node;
        let place = self.places.entry(n).or_default();
        let kicks: Vec<_> = place
            .kicks
            .iter()
            .filter_map(|kick| log.entry(kick))
            .collect();
        if let Some(late) = kicks.iter().find(|kick| is_fenced(after, kick)) {
            let text = format!("node {n} keeps an order of a fenced reign: {:?}", late.op);
            return Err(Violation::new("R9", text));
        }
        let out = |instance: &Instance| {
            let named = |kick: &&Entry| kick.op.kicks().contains(instance);
            place.lefts.contains(instance) || kicks.iter().any(named)
        };
        for entry in lost {
            let fenced = is_fenced(after, entry);
            let went = |one: &Instance| after.gone.contains(one);
            let kicked = entry.op.kicks();
            let settled = fenced
                || after.voided.contains(&entry.hash)
                || kicked.iter().all(went)
                || place.kicks.contains(&entry.hash);
            let waits = |(_, device, nonce): &(String, [u8; 32], Nonce)| {
                let instance = (*device, *nonce);
                let asks = |row: &Bytes| row.windows(16).any(|part| part == nonce);
                *device == after.leader
                    || after.sits(&instance)
                    || went(&instance)
                    || out(&instance)
                    || place.joins.values().any(asks)
            };
            let admitted = fenced || entry.op.admits().iter().all(waits);
            let left = match &entry.op {
                Op::Left { key, nonce, .. } => {
                    let instance = (PublicKey(*key).device().0, *nonce);
                    went(&instance) || place.lefts.contains(&instance)
                }
                _ => true,
            };
            if !(settled && left && admitted) {
                let rule = if admitted { "IG4 branch" } else { "IG6 branch" };
                let text = format!("node {n} forgets what its branch decided: {:?}", entry.op);
                return Err(Violation::new(rule, text));
            }
        }
        let me = at.device.0;
        let hidden = after
            .members
            .get(&me)
            .is_none_or(|seat| out(&(me, seat.nonce)));
        let deposed = after.former.as_ref().is_some_and(|former| {
            former.leader == me && !former.orderly && former.deposed != Some(after.leader)
        });
        let led = before.is_some_and(|fold| fold.leader == me && fold.heir.is_none());
        let there = place
            .up_since
            .is_some_and(|since| at.mono.saturating_since(since) > self.suspect + SLACK);
        if deposed && led && there && !hidden && !after.term.majority && after.heir.is_none() {
            place.owes = Some(after.term.round);
        }
        Ok(())
    }

    /// Judges what a node that still runs owes.
    ///
    /// # Errors
    /// R7.
    pub(super) fn probe(&mut self, node: usize) -> Verdict {
        let Some(place) = self.places.get_mut(&node) else {
            return Ok(());
        };
        match place.owes.take() {
            Some(round) if place.asked_from < round => {
                let text = format!("node {node} was there, and lets round {round} depose it");
                Err(Violation::new("R7", text))
            }
            _ => Ok(()),
        }
    }
}

fn set<T: Ord>(set: &mut BTreeSet<T>, one: T, on: bool) {
    if on {
        set.insert(one);
    } else {
        set.remove(&one);
    }
}

fn is_fenced(fold: &Fold, order: &Entry) -> bool {
    let term = (order.term.round, order.term.claimant);
    fold.fences.contains_key(&term)
}
