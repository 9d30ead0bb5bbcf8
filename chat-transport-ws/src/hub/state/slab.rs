//! Connections by index: a fan-out touches each by one array access. An id carries a generation,
//! so that one of a closed connection names nothing.

/// Names a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ConnId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 connections")
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        ConnId {
            index,
            generation: slot.generation,
        }
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        (self.slots.get_mut(id.index as usize))
            .filter(|slot| slot.generation == id.generation)
            .and_then(|slot| slot.value.as_mut())
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&T> {
        (self.slots.get(id.index as usize))
            .filter(|slot| slot.generation == id.generation)
            .and_then(|slot| slot.value.as_ref())
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        (self.slots.iter().enumerate())
            .filter(|(_, slot)| slot.value.is_some())
            .map(|(index, slot)| ConnId {
                index: u32::try_from(index).expect("fewer than 2^32 connections"),
                generation: slot.generation,
            })
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
