//! Where rows live.
//!
//! Guarantees asked of a store, proved by its suite: a batch is one transaction, durable when
//! `commit` returns; batches are durable in the order given; `load` returns what was durable; a
//! failed commit means that the process must stop, because what reached the disk is unknown.

mod memory;
#[cfg(feature = "redb")]
mod redb;
pub mod suite;

pub use memory::MemoryStore;
#[cfg(feature = "redb")]
pub use redb::RedbStore;

use core::fmt;
use core::ops::Bound;

use bytes::Bytes;
use chat_core::effect::{Row, RowOp, Table};

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("the store is open in another process; stop that one")]
    Busy,
    /// Not a store of this version.
    #[error("the store is of version {found}, this program reads {expected}; update the program")]
    Version {
        /// What it is.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// The disk or the file failed. What reached the disk is unknown: stop, do not retry.
    #[error("the store failed: {0}")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Which rows of one table to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The table.
    pub table: Table,
    /// Keys start with this.
    pub prefix: Bytes,
    /// Only keys above this.
    pub after: Option<Bytes>,
    /// Only keys below this.
    pub before: Option<Bytes>,
    /// At most so many.
    pub limit: usize,
    /// From the greatest key down.
    pub newest_first: bool,
}

impl Range {
    /// The keys to look at: those with the prefix, narrowed by `after` and `before`. `None` when
    /// there are none; an upper bound is missing only when the prefix has no successor.
    pub fn bounds(&self) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
        let low = match &self.after {
            Some(after) if *after >= self.prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(self.prefix.clone()),
        };
        let end = successor(&self.prefix);
        let high = match (&self.before, end) {
            (Some(before), Some(end)) => Some(end.min(before.clone())),
            (Some(before), None) => Some(before.clone()),
            (None, end) => end,
        };
        let Some(high) = high else {
            return Some((low, Bound::Unbounded));
        };
        let empty = match &low {
            Bound::Included(low) | Bound::Excluded(low) => *low >= high,
            Bound::Unbounded => false,
        };
        (!empty).then_some((low, Bound::Excluded(high)))
    }
}

/// The least key above every key that starts with `prefix`.
fn successor(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next.into())
}

/// Keeps rows.
#[async_trait::async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Every row of the tables that are not on demand, ordered by table and key.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn load(&self) -> Result<Vec<Row>, StoreError>;

    /// Makes the batches durable, in order, in one fsync where possible.
    ///
    /// # Errors
    /// [`StoreError`]; the caller must stop.
    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError>;

    /// Reads rows of one table.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError>;
}
