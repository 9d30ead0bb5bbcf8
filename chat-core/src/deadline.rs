//! The deadline index: one live deadline per key, the earliest first.
//!
//! Guarantees: finding a key costs the same however many there are; pushing a deadline back is one
//! write and leaves the order alone (it looks again when the old place comes up), so refreshing a
//! lease is cheap; setting an earlier one and taking one out move a few entries of a flat heap.
//! Equal deadlines fall due in the order of their keys. [`DeadlineIndex::earliest`] is never later
//! than the true earliest deadline.

use core::hash::Hash;

use crate::rng::Rng;
use crate::slots::{Slot, Slots};
use crate::time::Timestamp;

/// Children per node: the heap is half as deep as with two, and they share a cache line.
const WIDTH: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    due: T,
    /// Its place in the heap.
    at: usize,
}

/// Deadlines by key. `T` is the time that they are measured in.
#[derive(Clone, Debug)]
pub struct DeadlineIndex<K, T = Timestamp> {
    entries: Slots<K, Entry<T>>,
    /// When to look at each entry: at or before its deadline.
    heap: Vec<(T, Slot<K>)>,
}

impl<K: Ord + Hash + Clone, T: Ord + Copy> DeadlineIndex<K, T> {
    /// Empty; look-ups are keyed from `rng`, which is left as it is.
    pub fn new(rng: &Rng) -> Self {
        Self {
            entries: Slots::new(rng),
            heap: Vec::new(),
        }
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.entries = self.entries.emptied();
        self.heap.clear();
    }

    /// Sets the deadline of `key`, replacing the one it has.
    pub fn set(&mut self, key: K, due: T) {
        let at = self.heap.len();
        let slot = self.entries.slot_or_insert_with(&key, || Entry { due, at });
        let entry = &mut self.entries[slot];
        entry.due = due;
        let at = entry.at;
        if at == self.heap.len() {
            self.heap.push((due, slot));
        } else if self.heap[at].0 <= due {
            return;
        } else {
            self.heap[at].0 = due;
        }
        self.rise(at);
    }

    /// Removes `key`; true when it had a deadline.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(slot) = self.entries.slot(key) else {
            return false;
        };
        let at = self.entries[slot].at;
        self.entries.remove(key);
        let last = self.heap.pop().expect("every entry is in the heap");
        if at < self.heap.len() {
            self.put(at, last);
            self.sink(at);
            self.rise(at);
        }
        true
    }

    /// The deadline of `key`.
    pub fn due(&self, key: &K) -> Option<T> {
        self.entries.get(key).map(|entry| entry.due)
    }

    /// When to look next: at or before the earliest deadline, `None` when there is none.
    pub fn earliest(&self) -> Option<T> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// The key whose deadline is the earliest of those at or before `now`.
    pub fn first_due(&mut self, now: T) -> Option<&K> {
        while let Some(&(filed, slot)) = self.heap.first()
            && filed <= now
        {
            let due = self.entries[slot].due;
            if filed == due {
                return Some(self.entries.key(slot));
            }
            self.heap[0].0 = due;
            self.sink(0);
        }
        None
    }

    /// Takes one key whose deadline is at or before `now`, earliest first.
    pub fn pop_due(&mut self, now: T) -> Option<K> {
        let key = self.first_due(now)?.clone();
        self.remove(&key);
        Some(key)
    }

    /// How many keys have a deadline.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no key has a deadline.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn put(&mut self, at: usize, filed: (T, Slot<K>)) {
        self.heap[at] = filed;
        self.entries[filed.1].at = at;
    }

    fn is_before(&self, a: (T, Slot<K>), b: (T, Slot<K>)) -> bool {
        match a.0.cmp(&b.0) {
            core::cmp::Ordering::Equal => self.entries.key(a.1) < self.entries.key(b.1),
            order => order.is_lt(),
        }
    }

    /// Moves an entry towards the root until its parent is earlier.
    fn rise(&mut self, mut at: usize) {
        let moved = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / WIDTH;
            if !self.is_before(moved, self.heap[parent]) {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, moved);
    }

    /// Moves an entry away from the root until its children are later.
    fn sink(&mut self, mut at: usize) {
        let moved = self.heap[at];
        loop {
            let children = at * WIDTH + 1..self.heap.len().min(at * WIDTH + 1 + WIDTH);
            let first = children.reduce(|best, child| {
                if self.is_before(self.heap[child], self.heap[best]) {
                    child
                } else {
                    best
                }
            });
            let Some(first) = first.filter(|first| self.is_before(self.heap[*first], moved)) else {
                break;
            };
            self.put(at, self.heap[first]);
            at = first;
        }
        self.put(at, moved);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    proptest! {
        /// Against the brute-force fold: the same keys fall due, in deadline order, and the next
        /// look is never late.
        #[test]
        fn agrees_with_a_scan(ops in proptest::collection::vec((0u8..8, 0u64..50, 0u8..4), 0..200)) {
            let mut index = DeadlineIndex::new(&Rng::from_seed([1; 32]));
            let mut model: BTreeMap<u8, Timestamp> = BTreeMap::new();
            let mut now = Timestamp::ZERO;
            for (key, amount, op) in ops {
                match op {
                    0 | 1 => {
                        let due = Timestamp::from_micros(now.as_micros() + amount);
                        index.set(key, due);
                        model.insert(key, due);
                    }
                    2 => prop_assert_eq!(index.remove(&key), model.remove(&key).is_some()),
                    _ => {
                        now = Timestamp::from_micros(now.as_micros() + amount);
                        let mut got = Vec::new();
                        while let Some(key) = index.pop_due(now) {
                            got.push(key);
                        }
                        let due = model.iter().filter(|(_, due)| **due <= now);
                        let mut want: Vec<_> = due.map(|(key, due)| (*due, *key)).collect();
                        want.sort_unstable();
                        model.retain(|_, due| *due > now);
                        let want: Vec<u8> = want.into_iter().map(|(_, key)| key).collect();
                        prop_assert_eq!(got, want);
                        prop_assert!(index.earliest().is_none_or(|at| at > now));
                    }
                }
                prop_assert_eq!(index.len(), model.len());
                if let Some(first) = model.values().min() {
                    prop_assert!(index.earliest().is_some_and(|at| at <= *first));
                } else {
                    prop_assert!(index.is_empty());
                }
            }
        }
    }
}
