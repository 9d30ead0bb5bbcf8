//! One node's disk: synced rows and the batches that wait for an fsync. A batch is one
//! transaction. A crash keeps what is synced plus a random prefix of what was pending; of the next
//! batch a part may have been written, which the store finds torn and drops when it opens.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use chat_core::PersistId;
use chat_core::effect::{Row, RowOp, Table};
use chat_core::probe::planted;

/// Rows by table and key.
pub(crate) type Rows = BTreeMap<(Table, Bytes), Bytes>;

/// The rows of `table` whose keys begin with `prefix`, in the order of their keys.
pub(crate) fn rows_of<'a>(
    rows: &'a Rows,
    table: Table,
    prefix: &[u8],
) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> + use<'a> {
    let prefix = Bytes::copy_from_slice(prefix);
    rows.range((table, prefix.clone())..)
        .take_while(move |((of, key), _)| *of == table && key.starts_with(&prefix))
        .map(|((_, key), value)| (key, value))
}

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    synced: Rows,
    pending: VecDeque<(PersistId, Vec<RowOp>)>,
    /// The part of a batch that was written when the process died.
    torn: Vec<RowOp>,
}

impl Disk {
    /// Takes a batch; it is not durable yet.
    pub(crate) fn write(&mut self, id: PersistId, rows: Vec<RowOp>) {
        self.pending.push_back((id, rows));
    }

    /// An fsync completed for everything up to `upto`; returns what became durable.
    pub(crate) fn sync(&mut self, upto: PersistId) -> Vec<(PersistId, Vec<RowOp>)> {
        let mut done = Vec::new();
        while self.pending.front().is_some_and(|(id, _)| *id <= upto) {
            let (id, rows) = self.pending.pop_front().expect("the front was just seen");
            apply(&mut self.synced, &rows);
            done.push((id, rows));
        }
        done
    }

    /// The process died: the first `keep` pending batches made it, which are returned, and `torn`
    /// rows of the next.
    pub(crate) fn crash(&mut self, keep: usize, torn: usize) -> Vec<Vec<RowOp>> {
        let mut pending = core::mem::take(&mut self.pending).into_iter();
        let kept: Vec<_> = pending.by_ref().take(keep).map(|(_, rows)| rows).collect();
        for rows in &kept {
            apply(&mut self.synced, rows);
        }
        self.torn = pending.next().map_or(Vec::new(), |(_, rows)| rows);
        // A batch that was written whole is not torn.
        self.torn
            .truncate(torn.min(self.torn.len().saturating_sub(1)));
        kept
    }

    /// The store opens: true when it found a torn batch, and dropped it.
    pub(crate) fn recover(&mut self) -> bool {
        let torn = core::mem::take(&mut self.torn);
        let found = !torn.is_empty();
        if planted("disk-keeps-torn-batches") {
            apply(&mut self.synced, &torn);
        }
        found
    }

    /// What an endpoint would get from a store that does not see that one byte is wrong; `None`
    /// when there is nothing to damage.
    pub(crate) fn load_damaged(&self, pick: u64) -> Option<Vec<Row>> {
        let mut rows: Vec<Row> = self.load().collect();
        let count = rows.len().max(1);
        let row = rows.get_mut((pick >> 8) as usize % count)?;
        let mut value = row.value.to_vec();
        let len = value.len().max(1);
        *value.get_mut((pick >> 32) as usize % len)? ^= 1 << (pick & 7);
        row.value = value.into();
        Some(rows)
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
        self.torn.clear();
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

fn apply(rows: &mut Rows, ops: &[RowOp]) {
    for op in ops {
        match op {
            RowOp::Put { table, key, value } => {
                rows.insert((*table, key.clone()), value.clone());
            }
            RowOp::Delete { table, key } => {
                rows.remove(&(*table, key.clone()));
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
        assert_eq!(disk.sync(PersistId(1)).len(), 1);
        assert_eq!(disk.crash(1, 0).len(), 1);
        assert!(!disk.recover());
        let keys: Vec<_> = disk.load().map(|row| row.key).collect();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(disk.pending(), 0);
    }

    #[test]
    fn a_torn_batch_is_found_and_dropped_and_a_flipped_bit_is_in_one_value() {
        let mut disk = Disk::default();
        let value = |key: &'static [u8]| RowOp::Put {
            table: Table::Outbox,
            key: Bytes::from_static(key),
            value: Bytes::from_static(b"value"),
        };
        disk.write(PersistId(1), vec![value(b"a"), value(b"b")]);
        assert!(disk.crash(0, 9).is_empty());
        assert!(disk.recover());
        assert!(!disk.recover());
        assert_eq!(disk.load().count(), 0);
        assert!(disk.load_damaged(7).is_none());
        disk.write(PersistId(2), vec![value(b"a"), value(b"b")]);
        disk.sync(PersistId(2));
        let damaged = disk.load_damaged(1 << 32 | 1 << 8 | 3).unwrap();
        let values: Vec<_> = damaged.iter().map(|row| row.value.clone()).collect();
        assert_eq!(values, ["value", "vilue"]);
    }
}
