//! Rows in one file, by redb.
//!
//! Guarantees: one writer thread; everything that waits while a commit runs becomes the next
//! transaction with one fsync; `commit` returns after that fsync; a second process gets
//! [`StoreError::Busy`]. After a failed commit the store refuses everything: what reached the disk
//! is unknown.

use core::fmt;
use core::ops::Bound;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::redb::{Database, DatabaseError, Durability, ReadableDatabase, TableDefinition, TableError};
use bytes::Bytes;
use chat_core::effect::{Row, RowOp, Table};
use tokio::sync::{mpsc, oneshot};

use super::{Range, Store, StoreError};

/// Key: the table's code, then the row's key.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const SCHEMA: TableDefinition<'_, &str, u32> = TableDefinition::new("schema");
const VERSION: u32 = 1;

/// Commits that wait for the writer at most; further callers wait for room.
const QUEUE: usize = 256;

/// A store in one file. Clones share it; the file is closed when the last clone is dropped.
#[derive(Clone)]
pub struct RedbStore(Arc<Inner>);

struct Inner {
    database: Arc<Database>,
    queue: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

struct Job {
    batches: Vec<Vec<RowOp>>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl RedbStore {
    /// Opens the file at `path`, or makes it. Blocks for a moment; after a crash it repairs the
    /// file first.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another process has it open, [`StoreError::Version`] when another
    /// version wrote it, [`StoreError::Io`] when the file cannot be used.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Busy,
            other => io(other),
        })?;
        check_version(&database)?;
        let database = Arc::new(database);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("chat-store".to_owned())
            .spawn({
                let database = database.clone();
                move || write_jobs(&database, jobs)
            })
            .map_err(io)?;
        Ok(Self(Arc::new(Inner {
            database,
            queue: Some(queue),
            writer: Some(writer),
        })))
    }

    async fn in_background<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, ::redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.0.database.clone();
        tokio::task::spawn_blocking(move || read(&database).map_err(io))
            .await
            .map_err(io)?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when its queue is closed and empty; waiting for it keeps the promise
        // that the file is free again when the last clone is gone.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            writer.join().ok();
        }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Store for RedbStore {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        self.in_background(|database| {
            let mut rows = Vec::new();
            let read = database.begin_read()?;
            let table = read.open_table(ROWS)?;
            for code in Table::ALL.into_iter().filter(|table| !table.is_on_demand()) {
                let (low, high) = ([code as u8], [code as u8 + 1]);
                for entry in table.range::<&[u8]>(low.as_slice()..high.as_slice())? {
                    let (key, value) = entry?;
                    rows.push(row(code, key.value(), value.value()));
                }
            }
            Ok(rows)
        })
        .await
    }

    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        let (done, committed) = oneshot::channel();
        let queue = self.0.queue.as_ref().expect("only drop takes the queue");
        let sent = queue.send(Job { batches, done }).await;
        sent.map_err(|_| io(WriterStopped))?;
        committed.await.map_err(|_| io(WriterStopped))?
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        self.in_background(move |database| {
            let Some((low, high)) = range.bounds() else {
                return Ok(Vec::new());
            };
            let code = range.table as u8;
            let full = |bound: Bound<Bytes>| {
                bound.map(|key| {
                    let mut full = vec![code];
                    full.extend_from_slice(&key);
                    full
                })
            };
            let (low, high) = match (full(low), full(high)) {
                (low, Bound::Unbounded) => (low, Bound::Excluded(vec![code + 1])),
                bounds => bounds,
            };
            let bounds = (
                low.as_ref().map(Vec::as_slice),
                high.as_ref().map(Vec::as_slice),
            );
            let read = database.begin_read()?;
            let table = read.open_table(ROWS)?;
            let mut found = table.range::<&[u8]>(bounds)?;
            let mut rows = Vec::new();
            while rows.len() < range.limit {
                let next = if range.newest_first {
                    found.next_back()
                } else {
                    found.next()
                };
                let Some(entry) = next else { break };
                let (key, value) = entry?;
                rows.push(row(range.table, key.value(), value.value()));
            }
            Ok(rows)
        })
        .await
    }
}

fn row(table: Table, key: &[u8], value: &[u8]) -> Row {
    Row {
        table,
        key: Bytes::copy_from_slice(&key[1..]),
        value: Bytes::copy_from_slice(value),
    }
}

fn check_version(database: &Database) -> Result<(), StoreError> {
    let found = (|| -> Result<Option<u32>, ::redb::Error> {
        match database.begin_read()?.open_table(SCHEMA) {
            Ok(schema) => Ok(schema.get("version")?.map(|version| version.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })();
    match found.map_err(io)? {
        Some(VERSION) => Ok(()),
        Some(found) => Err(StoreError::Version {
            found,
            expected: VERSION,
        }),
        None => (|| -> Result<(), ::redb::Error> {
            let write = database.begin_write()?;
            write.open_table(SCHEMA)?.insert("version", VERSION)?;
            write.open_table(ROWS)?;
            Ok(write.commit()?)
        })()
        .map_err(io),
    }
}

/// The writer thread: commits everything that waits in one transaction. It stops for good at the
/// first failure.
fn write_jobs(database: &Database, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while let Ok(job) = jobs.try_recv() {
            group.push(job);
        }
        let (batches, done): (Vec<_>, Vec<_>) =
            group.into_iter().map(|job| (job.batches, job.done)).unzip();
        let result = write(database, batches.into_iter().flatten().flatten());
        let failed = result.is_err();
        let mut error = result.err();
        for done in done {
            // A caller that no longer waits loses nothing: its rows are durable all the same.
            let answer = match (failed, error.take()) {
                (false, _) => Ok(()),
                (true, Some(error)) => Err(io(error)),
                (true, None) => Err(io(WriterStopped)),
            };
            done.send(answer).ok();
        }
        if failed {
            return;
        }
    }
}

fn write(database: &Database, ops: impl Iterator<Item = RowOp>) -> Result<(), ::redb::Error> {
    // In one transaction only the last word on a key counts, and neighbours are cheap together.
    let mut last: BTreeMap<Vec<u8>, Option<Bytes>> = BTreeMap::new();
    for op in ops {
        let (table, key, value) = match op {
            RowOp::Put { table, key, value } => (table, key, Some(value)),
            RowOp::Delete { table, key } => (table, key, None),
        };
        let mut full = Vec::with_capacity(1 + key.len());
        full.push(table as u8);
        full.extend_from_slice(&key);
        last.insert(full, value);
    }
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    {
        let mut table = write.open_table(ROWS)?;
        for (key, value) in last {
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_ref())?,
                None => table.remove(key.as_slice())?,
            };
        }
    }
    Ok(write.commit()?)
}

#[derive(Debug, thiserror::Error)]
#[error("an earlier commit failed; restart the program")]
struct WriterStopped;

fn io(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Io(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Place(tempfile::TempDir);

    impl crate::store::suite::Place for Place {
        type Store = RedbStore;

        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary directory"))
        }

        async fn open(&self) -> Result<RedbStore, StoreError> {
            RedbStore::open(self.0.path().join("chat.redb"))
        }
    }

    crate::store_suite!(Place);

    #[test]
    fn a_second_opener_is_told_that_it_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.redb");
        let first = RedbStore::open(&path).unwrap();
        assert!(matches!(RedbStore::open(&path), Err(StoreError::Busy)));
        drop(first);
        RedbStore::open(&path).unwrap();
    }

    #[test]
    fn a_store_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.redb");
        {
            let database = Database::create(&path).unwrap();
            let write = database.begin_write().unwrap();
            let mut schema = write.open_table(SCHEMA).unwrap();
            schema.insert("version", 9).unwrap();
            drop(schema);
            write.commit().unwrap();
        }
        let error = RedbStore::open(&path).unwrap_err();
        let version = matches!(
            error,
            StoreError::Version {
                found: 9,
                expected: VERSION
            }
        );
        assert!(version, "{error}");
    }

    #[test]
    fn a_file_that_is_no_store_is_an_error_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.redb");
        std::fs::write(&path, b"my shopping list, kept for years and years").unwrap();
        assert!(matches!(RedbStore::open(&path), Err(StoreError::Io(_))));
        let kept = std::fs::read(&path).unwrap();
        assert_eq!(kept, b"my shopping list, kept for years and years");
    }
}
