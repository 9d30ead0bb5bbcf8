//! Rows in memory: for tests, documentation and devices that keep nothing. It outlives a client
//! that is dropped, as long as a clone is kept.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chat_core::effect::{Row, RowOp, Table};

use super::{Range, Store, StoreError};

type Rows = BTreeMap<(Table, Bytes), Bytes>;

/// A store in memory. Clones share the rows: opening one again is cloning it.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Rows>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of the rows as they are now: a backup.
    #[must_use]
    pub fn backup(&self) -> Self {
        Self(Arc::new(Mutex::new(self.rows().clone())))
    }

    /// How many rows it holds.
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.rows().is_empty()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("rows", &self.len())
            .finish()
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows();
        let loaded = rows.iter().filter(|((table, _), _)| !table.is_on_demand());
        Ok(loaded.map(row).collect())
    }

    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for op in batches.into_iter().flatten() {
            match op {
                RowOp::Put { table, key, value } => rows.insert((table, key), value),
                RowOp::Delete { table, key } => rows.remove(&(table, key)),
            };
        }
        Ok(())
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows();
        let Some((low, high)) = range.bounds() else {
            return Ok(Vec::new());
        };
        let bound = |bound: core::ops::Bound<Bytes>| bound.map(|key| (range.table, key));
        // A prefix without an upper bound ends where the keys stop having it.
        let inside = |entry: &(&(Table, Bytes), &Bytes)| {
            entry.0.0 == range.table && entry.0.1.starts_with(&range.prefix)
        };
        let high = match high {
            core::ops::Bound::Unbounded => after_table(range.table),
            high => bound(high),
        };
        let found = rows.range((bound(low), high));
        Ok(if range.newest_first {
            let found = found.rev().take_while(inside);
            found.take(range.limit).map(row).collect()
        } else {
            let found = found.take_while(inside);
            found.take(range.limit).map(row).collect()
        })
    }
}

fn after_table(table: Table) -> core::ops::Bound<(Table, Bytes)> {
    let next = Table::ALL.into_iter().find(|next| *next > table);
    next.map_or(core::ops::Bound::Unbounded, |next| {
        core::ops::Bound::Excluded((next, Bytes::new()))
    })
}

fn row(((table, key), value): (&(Table, Bytes), &Bytes)) -> Row {
    Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Place(MemoryStore);

    impl crate::store::suite::Place for Place {
        type Store = MemoryStore;

        fn new() -> Self {
            Self(MemoryStore::new())
        }

        async fn open(&self) -> Result<MemoryStore, StoreError> {
            Ok(self.0.clone())
        }
    }

    crate::store_suite!(Place);
}
