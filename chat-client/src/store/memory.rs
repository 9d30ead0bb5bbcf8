//! Rows in memory: for tests, documentation and devices that keep nothing. It outlives a client
//! that is dropped, as long as a clone is kept.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chat_core::effect::{Row, RowOp, Table};

use super::{Range, Store, StoreError};

/// A map for each table, in the order of [`Table::ALL`].
type Rows = [BTreeMap<Bytes, Bytes>; Table::ALL.len()];

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
        self.rows().iter().map(BTreeMap::len).sum()
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.rows().iter().all(BTreeMap::is_empty)
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
        let tables = Table::ALL.into_iter().zip(rows.iter());
        let loaded = tables.filter(|(table, _)| !table.is_on_demand());
        let loaded = loaded.flat_map(|(table, rows)| rows.iter().map(row(table)));
        Ok(loaded.collect())
    }

    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for op in batches.into_iter().flatten() {
            match op {
                RowOp::Put { table, key, value } => rows[place(table)].insert(key, value),
                RowOp::Delete { table, key } => rows[place(table)].remove(&key),
            };
        }
        Ok(())
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows();
        let Some((low, high)) = range.bounds() else {
            return Ok(Vec::new());
        };
        // A prefix without an upper bound ends where the keys stop having it.
        let inside = |(key, _): &(&Bytes, &Bytes)| key.starts_with(&range.prefix);
        let found = rows[place(range.table)].range((low, high));
        let row = row(range.table);
        Ok(if range.newest_first {
            let found = found.rev().take_while(inside);
            found.take(range.limit).map(row).collect()
        } else {
            let found = found.take_while(inside);
            found.take(range.limit).map(row).collect()
        })
    }
}

fn place(table: Table) -> usize {
    let place = Table::ALL.iter().position(|it| *it == table);
    place.expect("all tables are listed")
}

fn row(table: Table) -> impl Fn((&Bytes, &Bytes)) -> Row {
    move |(key, value)| Row {
        table,
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
