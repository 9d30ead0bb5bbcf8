//! Values found by key in constant time, each in a slot of its own.
//!
//! Guarantees: a look-up costs the same however many values there are; a [`Slot`] names a value
//! until it is removed, and costs one array access. What is walked is walked in slot order, which
//! follows from the inserts and removals alone: the hashed index inside is never iterated, so its
//! hasher decides nothing that can be observed. It is keyed from the endpoint's seed all the same:
//! peers choose names and keys, and must not be able to make them collide.
//!
//! This is the only file of the core that may name a hash map (`clippy.toml`, `scripts/purity.sh`).

#![allow(
    clippy::disallowed_types,
    reason = "the map is private to this file and only ever asked for single keys"
)]

use core::cmp::Ordering;
use core::hash::{BuildHasher, Hash, Hasher};
use core::marker::PhantomData;
use core::{fmt, ops};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;

use crate::rng::Rng;

/// Where the value of a `K` lies.
pub(crate) struct Slot<K>(u32, PhantomData<fn() -> K>);

impl<K> Slot<K> {
    const fn at(place: u32) -> Self {
        Self(place, PhantomData)
    }
}

impl<K> Clone for Slot<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Slot<K> {}

impl<K> PartialEq for Slot<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Slot<K> {}

impl<K> PartialOrd for Slot<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Slot<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl<K> Hash for Slot<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K> fmt::Debug for Slot<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// `SipHash` that has already read a secret.
#[derive(Clone, Debug)]
struct Keyed(DefaultHasher);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

/// Values by key, each in a slot.
#[derive(Clone, Debug)]
pub(crate) struct Slots<K, V> {
    index: HashMap<K, u32, Keyed>,
    values: Vec<Option<(K, V)>>,
    free: Vec<u32>,
}

impl<K: Hash + Eq + Clone, V> Slots<K, V> {
    /// Empty; its hasher is keyed from `rng`, which is left as it is.
    pub(crate) fn new(rng: &Rng) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&rng.child("slots").bytes::<16>());
        Self {
            index: HashMap::with_hasher(Keyed(hasher)),
            values: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Empty, with the hasher of this one.
    #[must_use]
    pub(crate) fn emptied(&self) -> Self {
        Self {
            index: HashMap::with_hasher(self.index.hasher().clone()),
            values: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Where the value of `key` lies.
    pub(crate) fn slot(&self, key: &K) -> Option<Slot<K>> {
        self.index.get(key).map(|slot| Slot::at(*slot))
    }

    /// The key of the value at `slot`, which must be taken.
    pub(crate) fn key(&self, slot: Slot<K>) -> &K {
        &self.taken(slot).0
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.slot(key).map(|slot| &self[slot])
    }

    /// The value of `key`.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.slot(key).map(|slot| &mut self[slot])
    }

    /// The slot of `key`, taken with `make()` if there is none.
    pub(crate) fn slot_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> Slot<K> {
        if let Some(slot) = self.slot(key) {
            return slot;
        }
        self.take_slot(key.clone(), make())
    }

    /// Puts `value` in, in place of the one that `key` has.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(old) = self.get_mut(&key) {
            return Some(core::mem::replace(old, value));
        }
        self.take_slot(key, value);
        None
    }

    fn take_slot(&mut self, key: K, value: V) -> Slot<K> {
        let slot = if let Some(slot) = self.free.pop() {
            self.values[slot as usize] = Some((key.clone(), value));
            slot
        } else {
            self.values.push(Some((key.clone(), value)));
            u32::try_from(self.values.len() - 1).expect("every table is bounded far below 2^32")
        };
        self.index.insert(key, slot);
        Slot::at(slot)
    }

    /// Takes the value of `key` out; its slot is free for another.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.index.remove(key)?;
        self.free.push(slot);
        let taken = self.values[slot as usize].take();
        taken.map(|(_, value)| value)
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// All slots that are taken, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<K>> + '_ {
        (0..)
            .zip(&self.values)
            .filter_map(|(slot, value)| value.as_ref().map(|_| Slot::at(slot)))
    }

    /// All keys, in slot order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All keys and values, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.values
            .iter()
            .flatten()
            .map(|(key, value)| (key, value))
    }

    /// All keys and values, in slot order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let taken = self.values.iter_mut().flatten();
        taken.map(|(key, value)| (&*key, value))
    }

    #[inline]
    fn taken(&self, slot: Slot<K>) -> &(K, V) {
        let taken = self.values[slot.0 as usize].as_ref();
        taken.expect("whoever keeps a slot lets go of it with its value")
    }
}

impl<K: Hash + Eq + Clone, V> ops::Index<Slot<K>> for Slots<K, V> {
    type Output = V;

    fn index(&self, slot: Slot<K>) -> &V {
        &self.taken(slot).1
    }
}

impl<K: Hash + Eq + Clone, V> ops::IndexMut<Slot<K>> for Slots<K, V> {
    fn index_mut(&mut self, slot: Slot<K>) -> &mut V {
        let taken = self.values[slot.0 as usize].as_mut();
        &mut taken
            .expect("whoever keeps a slot lets go of it with its value")
            .1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn slots() -> Slots<u8, u32> {
        Slots::new(&Rng::from_seed([1; 32]))
    }

    proptest! {
        /// Against an ordered map: the same values; slots stay while their values do; the order of
        /// a walk does not depend on the hasher's key.
        #[test]
        fn agrees_with_an_ordered_map(ops in proptest::collection::vec((0u8..12, 0u8..3), 0..200)) {
            let mut ours = slots();
            let mut other = Slots::new(&Rng::from_seed([2; 32]));
            let mut model: BTreeMap<u8, u32> = BTreeMap::new();
            let mut places: BTreeMap<u8, Slot<u8>> = BTreeMap::new();
            for (n, (key, op)) in (0u32..).zip(ops) {
                if op == 0 {
                    places.remove(&key);
                    other.remove(&key);
                    prop_assert_eq!(ours.remove(&key), model.remove(&key));
                } else {
                    other.insert(key, n);
                    prop_assert_eq!(ours.insert(key, n), model.insert(key, n));
                    let slot = ours.slot(&key).unwrap();
                    prop_assert_eq!(*places.entry(key).or_insert(slot), slot);
                }
                prop_assert_eq!(ours.len(), model.len());
                for (key, slot) in &places {
                    prop_assert_eq!(ours[*slot], model[key]);
                    prop_assert_eq!(ours.key(*slot), key);
                }
                prop_assert!(ours.iter().eq(other.iter()));
                prop_assert_eq!(ours.slots().count(), model.len());
            }
        }
    }

    #[test]
    fn a_removed_value_leaves_its_slot_to_the_next() {
        let mut slots = slots();
        for n in 0..1_000 {
            slots.insert(1, n);
            assert_eq!(slots.remove(&1), Some(n));
        }
        assert_eq!(slots.values.len(), 1);
        assert!(slots.is_empty() && slots.get(&1).is_none());
    }
}
