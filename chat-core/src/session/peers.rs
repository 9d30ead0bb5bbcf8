//! All records, with what must be found fast: whose request an id names, which record may be
//! evicted, how many strangers wait.
//!
//! Bound: `max` records. At the bound the stranger whose record is idle the longest is dropped;
//! when there is none, a newcomer is refused. Blocks are the user's own doing and always fit.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Record;
use crate::id::{InviteId, UserId};
use crate::rng::Rng;
use crate::slots::Slots;

#[derive(Debug)]
pub(super) struct Peers {
    records: Slots<UserId, Record>,
    /// Their standing requests. The first peer to use an id keeps it.
    standing: BTreeMap<InviteId, UserId>,
    /// Our standing requests.
    asked: BTreeMap<InviteId, UserId>,
    evictable: BTreeSet<(u64, UserId)>,
    pending_strangers: usize,
}

impl Peers {
    pub(super) fn new(rng: &Rng) -> Self {
        Self {
            records: Slots::new(rng),
            standing: BTreeMap::new(),
            asked: BTreeMap::new(),
            evictable: BTreeSet::new(),
            pending_strangers: 0,
        }
    }

    pub(super) fn record(&self, peer: &UserId) -> Option<&Record> {
        self.records.get(peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&UserId, &Record)> {
        self.records.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whose standing request this is.
    pub(super) fn requester(&self, invite: InviteId) -> Option<&UserId> {
        self.standing.get(&invite)
    }

    /// Whom our standing request addresses.
    pub(super) fn addressee(&self, invite: InviteId) -> Option<&UserId> {
        self.asked.get(&invite)
    }

    pub(super) fn pending_strangers(&self) -> usize {
        self.pending_strangers
    }

    /// The record that may go first.
    pub(super) fn evictable(&self) -> Option<&UserId> {
        self.evictable.first().map(|(_, peer)| peer)
    }

    /// Takes a record out, with everything that points at it.
    pub(super) fn take(&mut self, peer: &UserId) -> Option<Record> {
        let record = self.records.remove(peer)?;
        if let Some(inn) = &record.inn {
            self.standing.remove(&inn.invite);
        }
        if let Some(out) = &record.out {
            self.asked.remove(&out.invite);
        }
        self.evictable.remove(&(record.touched, peer.clone()));
        self.pending_strangers -= usize::from(record.is_pending_stranger());
        Some(record)
    }

    /// Puts a record in.
    pub(super) fn put(&mut self, peer: UserId, record: Record) {
        if let Some(inn) = &record.inn {
            self.standing.insert(inn.invite, peer.clone());
        }
        if let Some(out) = &record.out {
            self.asked.insert(out.invite, peer.clone());
        }
        if record.is_evictable() {
            self.evictable.insert((record.touched, peer.clone()));
        }
        self.pending_strangers += usize::from(record.is_pending_stranger());
        self.records.insert(peer, record);
    }
}
