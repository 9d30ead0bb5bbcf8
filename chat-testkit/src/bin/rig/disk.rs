//! A store whose disk can run full.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_client::store::{Range, RedbStore, Store, StoreError};
use chat_core::effect::{Row, RowOp};

/// Rows in a file, until [`Disk::fill`].
#[derive(Clone, Debug)]
pub(super) struct Disk {
    rows: RedbStore,
    full: Arc<AtomicBool>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            rows: RedbStore::open(path)?,
            full: Arc::default(),
        })
    }

    /// From now on nothing fits: of a commit only the first batch reaches the disk.
    pub(super) fn fill(&self) {
        self.full.store(true, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Store for Disk {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        self.rows.load().await
    }

    async fn commit(&self, mut batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            batches.truncate(1);
            self.rows.commit(batches).await?;
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::Io(Box::new(full)));
        }
        self.rows.commit(batches).await
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        self.rows.read(range).await
    }
}
