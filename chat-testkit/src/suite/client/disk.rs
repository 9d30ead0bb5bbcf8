//! A store that dies with its process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_client::store::{MemoryStore, Range, Store, StoreError};
use chat_core::effect::{Row, RowOp};

/// The rows of a device as one life of its process sees them: after [`Disk::die`] nothing more
/// reaches them.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    rows: MemoryStore,
    dead: Arc<AtomicBool>,
}

impl Disk {
    pub(super) fn new(rows: MemoryStore) -> Self {
        Self {
            rows,
            dead: Arc::default(),
        }
    }

    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(StoreError::Io("the process is dead".into()));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for Disk {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        self.rows.load().await
    }

    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        self.check()?;
        self.rows.commit(batches).await
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        self.check()?;
        self.rows.read(range).await
    }
}
