//! The hub's file: one redb table of rows, written by its own thread.
//!
//! Guarantees: a batch is one transaction with one fsync; a full disk refuses the batch as a
//! whole and the file is opened again at its last good state; any other failure stops the hub,
//! since nothing is known after a failed fsync.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::mpsc;

use super::state::{Batch, Key, RestoreError};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("hub-v1");
/// Everything the hub needs is in its own memory; this is for the pages being written.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Why a batch was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommitError {
    /// No room; nothing of it was written and the disk can be used again.
    Full,
    /// Unknown state.
    Failed(String),
}

/// Why the hub's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file does not open.
    #[error("the hub's file does not open ({text}); check the path, and that no other hub has it")]
    Open {
        /// What the store says.
        text: String,
    },
    /// A row does not decode.
    #[error(transparent)]
    Row(#[from] RestoreError),
}

/// Takes one row.
pub(super) type RowReader<'a> = &'a mut dyn FnMut(Key, &[u8]) -> Result<(), RestoreError>;

/// Where batches go.
pub(super) trait Disk: Send + 'static {
    /// Every row in order of the keys.
    fn read(&self, row: RowReader<'_>) -> Result<(), StoreError>;

    /// Writes in one transaction, durable on return.
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError>;
}

pub(super) struct RedbDisk {
    path: PathBuf,
    db: Option<Database>,
}

fn open_error(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Open {
        text: error.into().to_string(),
    }
}

fn open(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

impl RedbDisk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            db: Some(open(path).map_err(open_error)?),
        })
    }

    fn write(db: &Database, batch: &Batch) -> Result<(), redb::Error> {
        let write = db.begin_write()?;
        {
            let mut table = write.open_table(ROWS)?;
            for (key, value) in &batch.rows {
                let key = key.to_bytes();
                match value {
                    Some(value) => drop(table.insert(&key[..], &value[..])?),
                    None => drop(table.remove(&key[..])?),
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

impl Disk for RedbDisk {
    fn read(&self, row: RowReader<'_>) -> Result<(), StoreError> {
        let db = self.db.as_ref().expect("open until a commit fails");
        let read = db.begin_read().map_err(open_error)?;
        let table = match read.open_table(ROWS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(open_error(error)),
        };
        for item in table.iter().map_err(open_error)? {
            let (key, value) = item.map_err(open_error)?;
            let bytes = key.value();
            let key = Key::from_bytes(bytes).ok_or_else(|| RestoreError::of(bytes))?;
            row(key, value.value())?;
        }
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        let Some(db) = &self.db else {
            return Err(CommitError::Failed("the file is closed".to_owned()));
        };
        let Err(error) = Self::write(db, batch) else {
            return Ok(());
        };
        let full = matches!(&error, redb::Error::Io(io)
            if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge));
        if !full {
            return Err(CommitError::Failed(error.to_string()));
        }
        // After an I/O error the handle refuses everything; opening again goes back to the last
        // commit, so that the refused batch is really gone.
        self.db = None;
        self.db = Some(open(&self.path).map_err(|e| CommitError::Failed(e.to_string()))?);
        Err(CommitError::Full)
    }
}

/// Both ends of the thread that writes: one batch goes in, its fate comes out.
pub(super) struct Writer {
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) results: mpsc::Receiver<Result<(), CommitError>>,
}

impl Writer {
    /// Ends the thread and waits until the file is closed.
    pub(super) async fn close(self) {
        let Self {
            batches,
            mut results,
        } = self;
        drop(batches);
        while results.recv().await.is_some() {}
    }
}

/// Starts the thread; it ends when `batches` is dropped.
pub(super) fn spawn_writer(mut disk: Box<dyn Disk>) -> std::io::Result<Writer> {
    let (batches, mut inbox) = mpsc::channel::<Batch>(1);
    let (outbox, results) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("chat-hub-store".to_owned())
        .spawn(move || {
            while let Some(batch) = inbox.blocking_recv() {
                let result = disk.commit(&batch);
                if outbox.blocking_send(result).is_err() {
                    break;
                }
            }
            // Who waits for the end of the results may open the file again.
            drop(disk);
            drop(outbox);
        })?;
    Ok(Writer { batches, results })
}
