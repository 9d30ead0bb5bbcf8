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
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chat_client::store::{Range, Store, StoreError};
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Client, Identity, keyfile};
use chat_core::effect::{Row, RowOp, Table};
use chat_core::id::{GroupName, UserId};

/// A table's number, a key, and a value, or none for a removal.
type Line = Vec<(u8, Vec<u8>, Option<Vec<u8>>)>;

/// Rows in a journal file.
#[derive(Debug)]
pub struct JournalStore(Arc<Mutex<Journal>>);

#[derive(Debug)]
struct Journal {
    file: File,
    rows: BTreeMap<(Table, Bytes), Bytes>,
}

impl JournalStore {
    /// Opens the journal at `path`, or starts one.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another store has it open, [`StoreError::Io`] for everything else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io)?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(io)?;
        let mut rows = BTreeMap::new();
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            apply(&mut rows, serde_json::from_slice(line).map_err(io)?)?;
        }
        Ok(Self(Arc::new(Mutex::new(Journal { file, rows }))))
    }
}

impl Journal {
    fn commit(&mut self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        let mut text = Vec::new();
        let lines: Vec<Line> = batches.into_iter().map(line).collect();
        for line in &lines {
            serde_json::to_writer(&mut text, line).map_err(io)?;
            text.push(b'\n');
        }
        self.file.write_all(&text).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        lines
            .into_iter()
            .try_for_each(|line| apply(&mut self.rows, line))
    }
}

#[async_trait::async_trait]
impl Store for JournalStore {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        let journal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = journal.rows.iter();
        Ok(loaded
            .filter(|((table, _), _)| !table.is_on_demand())
            .map(row)
            .collect())
    }

    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        // An fsync takes milliseconds: not on a thread that others wait for. The thread finishes
        // what it began, also when nobody waits for this future any more.
        let journal = self.0.clone();
        let commit = move || {
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            journal.commit(batches)
        };
        tokio::task::spawn_blocking(commit).await.map_err(io)?
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        let journal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = |key: &Bytes| {
            key.starts_with(&range.prefix)
                && range.after.as_ref().is_none_or(|after| key > after)
                && range.before.as_ref().is_none_or(|before| key < before)
        };
        let found = journal.rows.iter();
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

fn apply(rows: &mut BTreeMap<(Table, Bytes), Bytes>, line: Line) -> Result<(), StoreError> {
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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("give the name of a journal file")?;
    let key = keyfile::load_or_create(format!("{path}.key"))?;
    let client = Client::builder(Identity::new(UserId::new("alice")?, key))
        .store(JournalStore::open(&path)?)
        .transport(MemoryBroker::new())
        .open()
        .await?;
    let before = client.groups().await?;
    println!("{} groups were here before", before.len());
    let name = GroupName::new(&format!("group {}", before.len() + 1))?;
    let room = client.create_group(&name).await?;
    room.send("kept").await?;
    Ok(())
}
