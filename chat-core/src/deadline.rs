//! The deadline index: one live deadline per key, the earliest first.
//!
//! Guarantees: `set` and `remove` are O(log n); pushing a deadline back is one map write and
//! leaves the ordered index alone (it looks again when the old place comes up), so refreshing a
//! lease is cheap. [`DeadlineIndex::earliest`] is never later than the true earliest deadline.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Timestamp;

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: Timestamp,
    filed: Timestamp,
}

/// Deadlines by key.
#[derive(Clone, Debug)]
pub struct DeadlineIndex<K> {
    entries: BTreeMap<K, Entry>,
    order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for DeadlineIndex<K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> DeadlineIndex<K> {
    /// Sets the deadline of `key`, replacing the one it has.
    pub fn set(&mut self, key: K, due: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.due = due;
            if entry.filed <= due {
                return;
            }
            self.order.remove(&(entry.filed, key.clone()));
            entry.filed = due;
        } else {
            self.entries.insert(key.clone(), Entry { due, filed: due });
        }
        self.order.insert((due, key));
    }

    /// Removes `key`; true when it had a deadline.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.order.remove(&(entry.filed, key.clone()));
        true
    }

    /// The deadline of `key`.
    pub fn due(&self, key: &K) -> Option<Timestamp> {
        self.entries.get(key).map(|entry| entry.due)
    }

    /// When to look next: at or before the earliest deadline, `None` when there is none.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one key whose deadline is at or before `now`, earliest first.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<K> {
        while let Some((filed, _)) = self.order.first() {
            if *filed > now {
                return None;
            }
            let (_, key) = self.order.pop_first().expect("first() saw an element");
            let entry = self
                .entries
                .get_mut(&key)
                .expect("every filed key has an entry");
            if entry.due <= now {
                self.entries.remove(&key);
                return Some(key);
            }
            entry.filed = entry.due;
            self.order.insert((entry.due, key));
        }
        None
    }

    /// How many keys have a deadline.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no key has a deadline.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the brute-force fold: the same keys fall due, in deadline order, and the next
        /// look is never late.
        #[test]
        fn agrees_with_a_scan(ops in proptest::collection::vec((0u8..8, 0u64..50, 0u8..4), 0..200)) {
            let mut index = DeadlineIndex::default();
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
                        let mut want: Vec<u8> =
                            model.iter().filter(|(_, due)| **due <= now).map(|(k, _)| *k).collect();
                        model.retain(|_, due| *due > now);
                        got.sort_unstable();
                        want.sort_unstable();
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
