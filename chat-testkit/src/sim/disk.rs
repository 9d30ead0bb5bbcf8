//! One node's disk: synced rows and the batches that wait for an fsync. A batch is one
//! transaction. A crash keeps what is synced plus a random prefix of what was pending.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use chat_core::PersistId;
use chat_core::effect::{Row, RowOp, Table};

/// Rows by table and key.
pub(crate) type Rows = BTreeMap<(Table, Bytes), Bytes>;

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    synced: Rows,
    pending: VecDeque<(PersistId, Vec<RowOp>)>,
}

impl Disk {
    /// Takes a batch; it is not durable yet.
    pub(crate) fn write(&mut self, id: PersistId, rows: Vec<RowOp>) {
        self.pending.push_back((id, rows));
    }

    /// An fsync completed for everything up to `upto`; returns the ids that became durable.
    pub(crate) fn sync(&mut self, upto: PersistId) -> Vec<PersistId> {
        let mut done = Vec::new();
        while self.pending.front().is_some_and(|(id, _)| *id <= upto) {
            let (id, rows) = self.pending.pop_front().expect("the front was just seen");
            apply(&mut self.synced, rows);
            done.push(id);
        }
        done
    }

    /// The process died: the first `keep` pending batches made it, the rest is gone.
    pub(crate) fn crash(&mut self, keep: usize) {
        for (_, rows) in self.pending.drain(..).take(keep) {
            apply(&mut self.synced, rows);
        }
        self.pending.clear();
    }

    /// How many batches wait.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What is durable.
    pub(crate) fn synced(&self) -> &Rows {
        &self.synced
    }

    /// Replaces everything: a restored backup, or an empty disk.
    pub(crate) fn replace(&mut self, rows: Rows) {
        self.pending.clear();
        self.synced = rows;
    }

    /// What an endpoint gets when it opens.
    pub(crate) fn load(&self) -> impl Iterator<Item = Row> + '_ {
        self.synced
            .iter()
            .filter(|((table, _), _)| !table.is_on_demand())
            .map(|((table, key), value)| Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            })
    }
}

fn apply(rows: &mut Rows, ops: Vec<RowOp>) {
    for op in ops {
        match op {
            RowOp::Put { table, key, value } => {
                rows.insert((table, key), value);
            }
            RowOp::Delete { table, key } => {
                rows.remove(&(table, key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static [u8]) -> Vec<RowOp> {
        vec![RowOp::Put {
            table: Table::Outbox,
            key: Bytes::from_static(key),
            value: Bytes::new(),
        }]
    }

    #[test]
    fn a_crash_keeps_synced_rows_and_a_prefix_of_pending_batches() {
        let mut disk = Disk::default();
        disk.write(PersistId(1), put(b"a"));
        disk.write(PersistId(2), put(b"b"));
        disk.write(PersistId(3), put(b"c"));
        assert_eq!(disk.sync(PersistId(1)), [PersistId(1)]);
        disk.crash(1);
        let keys: Vec<_> = disk.load().map(|row| row.key).collect();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(disk.pending(), 0);
    }
}
