//! The smallest complete store: a journal file, one line of JSON per transaction.
//!
//! A line counts once its line feed is on disk, so a torn write at the end of the file is no
//! transaction and is cut off at the next start. `tests/custom.rs` proves it with the suite for
//! stores. The journal only grows; a real store would write a snapshot now and then.
//!
//! Run it: `cargo run -p chat-examples --example custom_store -- FILE`, twice.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use chat_client::store::{Range, Store, StoreError};
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Client, Identity, keyfile};
use chat_core::effect::{Row, RowOp, Table};
use chat_core::id::{GroupName, UserId};
use tokio::sync::{mpsc, oneshot};

/// A table's number, a key, and a value, or none for a removal.
type Line = Vec<(u8, Vec<u8>, Option<Vec<u8>>)>;

type Rows = BTreeMap<(Table, Bytes), Bytes>;

/// Batches, and who waits for them.
type Commit = (Vec<Vec<RowOp>>, oneshot::Sender<Result<(), StoreError>>);

/// Commits waiting for the disk; beyond it, callers wait for room.
const QUEUE: usize = 64;

/// Rows in a journal file. Dropping it waits until what was handed in is written.
#[derive(Debug)]
pub struct JournalStore {
    rows: Arc<Mutex<Rows>>,
    commits: Option<mpsc::Sender<Commit>>,
    writer: Option<JoinHandle<()>>,
}

/// The end that writes, on a thread of its own: an fsync takes milliseconds, and batches must stay
/// in order also when their callers go away.
struct Journal {
    file: File,
    rows: Arc<Mutex<Rows>>,
}

impl JournalStore {
    /// Opens the journal at `path`, or starts one.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another store has it open, [`StoreError::Io`] for everything else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = options.open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io)?;
        let end = text.iter().rposition(|byte| *byte == b'\n');
        let whole = end.map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(io)?;
        let mut rows = Rows::new();
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            apply(&mut rows, serde_json::from_slice(line).map_err(io)?)?;
        }
        let rows = Arc::new(Mutex::new(rows));
        let (commits, queue) = mpsc::channel(QUEUE);
        let journal = Journal {
            file,
            rows: rows.clone(),
        };
        let writer = thread::Builder::new().spawn(move || journal.run(queue));
        Ok(Self {
            rows,
            commits: Some(commits),
            writer: Some(writer.map_err(io)?),
        })
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for JournalStore {
    fn drop(&mut self) {
        self.commits = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has been told to whoever waited for it.
            writer.join().ok();
        }
    }
}

impl Journal {
    fn run(mut self, mut queue: mpsc::Receiver<Commit>) {
        while let Some((batches, done)) = queue.blocking_recv() {
            let result = self.commit(batches);
            let failed = result.is_err();
            // Whoever gave up waiting does not want to know.
            done.send(result).ok();
            if failed {
                // What reached the disk is unknown: nothing may follow.
                return;
            }
        }
    }

    fn commit(&mut self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        let mut text = Vec::new();
        let lines: Vec<Line> = batches.into_iter().map(line).collect();
        for line in &lines {
            serde_json::to_writer(&mut text, line).map_err(io)?;
            text.push(b'\n');
        }
        self.file.write_all(&text).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .into_iter()
            .try_for_each(|line| apply(&mut rows, line))
    }
}

#[async_trait::async_trait]
impl Store for JournalStore {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows();
        let loaded = rows.iter().filter(|((table, _), _)| !table.is_on_demand());
        Ok(loaded.map(row).collect())
    }

    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        let stopped = || io("the journal stopped after a failure; open it anew");
        let commits = self.commits.as_ref().ok_or_else(stopped)?;
        let (done, told) = oneshot::channel();
        commits.send((batches, done)).await.map_err(|_| stopped())?;
        told.await.map_err(|_| stopped())?
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows();
        let inside = |key: &Bytes| {
            key.starts_with(&range.prefix)
                && range.after.as_ref().is_none_or(|after| key > after)
                && range.before.as_ref().is_none_or(|before| key < before)
        };
        let found = rows.iter();
        let found = found.filter(|((table, key), _)| *table == range.table && inside(key));
        Ok(if range.newest_first {
            found.rev().take(range.limit).map(row).collect()
        } else {
            found.take(range.limit).map(row).collect()
        })
    }
}

fn line(batch: Vec<RowOp>) -> Line {
    let ops = batch.into_iter().map(|op| match op {
        RowOp::Put { table, key, value } => (table as u8, key.to_vec(), Some(value.to_vec())),
        RowOp::Delete { table, key } => (table as u8, key.to_vec(), None),
    });
    ops.collect()
}

fn apply(rows: &mut Rows, line: Line) -> Result<(), StoreError> {
    for (number, key, value) in line {
        let table = Table::ALL.into_iter().find(|table| *table as u8 == number);
        let table = table.ok_or_else(|| io(format!("table {number} is of a later version")))?;
        match value {
            Some(value) => rows.insert((table, key.into()), value.into()),
            None => rows.remove(&(table, Bytes::from(key))),
        };
    }
    Ok(())
}

fn row(((table, key), value): (&(Table, Bytes), &Bytes)) -> Row {
    Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    }
}

fn io(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Io(error.into())
}

/// Opens a client over the journal at `path`, adds a group and says how many were there before.
///
/// # Errors
/// What stood in the way.
pub async fn run(path: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let key = keyfile::load_or_create(path.with_extension("key"))?;
    let client = Client::builder(Identity::new(UserId::new("alice")?, key))
        .store(JournalStore::open(path)?)
        .transport(MemoryBroker::new())
        .open()
        .await?;
    let before = client.groups().await?.len();
    let name = GroupName::new(&format!("group {}", before + 1))?;
    let room = client.create_group(&name).await?;
    room.send("kept").await?;
    client.shutdown(Duration::from_secs(1)).await?;
    Ok(before)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1);
    let path = path.ok_or("give the name of a journal file")?;
    let before = run(Path::new(&path)).await?;
    println!("{before} groups were here before");
    Ok(())
}
