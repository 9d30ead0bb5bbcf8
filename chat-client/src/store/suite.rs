//! Proves a store: `store_suite!(Place)` makes one test of every promise of [`Store`].
//!
//! A [`Place`] is where the rows of one test live; opening it again is restarting the program.

use core::future::Future;

use bytes::Bytes;
use chat_core::effect::{Row, RowOp, Table};

use super::{Range, Store, StoreError};

/// Where the rows of one test live.
pub trait Place: Sized {
    /// What is proved.
    type Store: Store;

    /// An empty place.
    fn new() -> Self;

    /// Opens the store there; the one opened before has been dropped without a farewell.
    fn open(&self) -> impl Future<Output = Result<Self::Store, StoreError>>;
}

/// Makes the tests of the suite for a [`Place`], in the current module.
#[macro_export]
macro_rules! store_suite {
    ($place:ty) => {
        $crate::store_suite!(
            @each $place:
            a_commit_outlives_the_store,
            batches_are_applied_in_order,
            tables_do_not_mix,
            history_is_not_loaded,
            ranges_read_both_ways,
            a_range_ends_with_its_prefix,
            concurrent_commits_are_all_kept,
            a_dropped_commit_tears_nothing,
        );
    };
    (@each $place:ty: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::store::suite::$case::<$place>().await;
            }
        )*
    };
}

fn put(table: Table, key: &[u8], value: &[u8]) -> RowOp {
    RowOp::Put {
        table,
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
    }
}

fn delete(table: Table, key: &[u8]) -> RowOp {
    RowOp::Delete {
        table,
        key: Bytes::copy_from_slice(key),
    }
}

fn row(table: Table, key: &[u8], value: &[u8]) -> Row {
    Row {
        table,
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
    }
}

async fn open<P: Place>(place: &P) -> P::Store {
    place.open().await.expect("the store opens")
}

async fn commit(store: &impl Store, batches: Vec<Vec<RowOp>>) {
    store.commit(batches).await.expect("the rows are written");
}

async fn load(store: &impl Store) -> Vec<Row> {
    store.load().await.expect("the rows are read")
}

/// What `commit` returned for is there after a drop without a farewell.
pub async fn a_commit_outlives_the_store<P: Place>() {
    let place = P::new();
    let store = open(&place).await;
    assert_eq!(load(&store).await, []);
    commit(&store, vec![vec![put(Table::Meta, b"k", b"v")]]).await;
    drop(store);
    let store = open(&place).await;
    assert_eq!(load(&store).await, [row(Table::Meta, b"k", b"v")]);
    commit(&store, vec![vec![delete(Table::Meta, b"k")]]).await;
    drop(store);
    assert_eq!(load(&open(&place).await).await, []);
}

/// The last write to a key wins, within a batch and across batches; deleting nothing is fine.
pub async fn batches_are_applied_in_order<P: Place>() {
    let place = P::new();
    let store = open(&place).await;
    let batches = vec![
        vec![
            delete(Table::Outbox, b"a"),
            put(Table::Outbox, b"a", b"1"),
            put(Table::Outbox, b"b", b"1"),
        ],
        vec![delete(Table::Outbox, b"a"), put(Table::Outbox, b"b", b"2")],
        vec![],
        vec![put(Table::Outbox, b"c", b""), put(Table::Outbox, b"", b"e")],
    ];
    commit(&store, batches).await;
    drop(store);
    let expected = [
        row(Table::Outbox, b"", b"e"),
        row(Table::Outbox, b"b", b"2"),
        row(Table::Outbox, b"c", b""),
    ];
    assert_eq!(load(&open(&place).await).await, expected);
}

/// The same key in every table is another row, and rows come by table and key.
pub async fn tables_do_not_mix<P: Place>() {
    let place = P::new();
    let store = open(&place).await;
    let tables = || Table::ALL.into_iter().rev();
    let rows = tables().flat_map(|table| {
        let name = format!("{table:?}");
        [b"\xff\xff", b"\0\0"].map(|key| put(table, key, name.as_bytes()))
    });
    commit(&store, vec![rows.collect()]).await;
    let loaded = load(&store).await;
    let expected: Vec<Row> = Table::ALL
        .into_iter()
        .filter(|table| !table.is_on_demand())
        .flat_map(|table| {
            let name = format!("{table:?}");
            [b"\0\0", b"\xff\xff"].map(|key| row(table, key, name.as_bytes()))
        })
        .collect();
    assert_eq!(loaded, expected);
    for table in Table::ALL {
        let found = store.read(range(table, b"", 9)).await.expect("readable");
        assert_eq!(found.len(), 2, "{table:?}");
    }
}

/// On-demand tables are read, never loaded.
pub async fn history_is_not_loaded<P: Place>() {
    let place = P::new();
    let store = open(&place).await;
    let rows = vec![
        put(Table::Timeline, b"t", b"1"),
        put(Table::DeadLetters, b"d", b"2"),
        put(Table::Inbox, b"i", b"3"),
    ];
    commit(&store, vec![rows]).await;
    assert_eq!(load(&store).await, [row(Table::Inbox, b"i", b"3")]);
    let found = store.read(range(Table::Timeline, b"", 9)).await;
    assert_eq!(found.expect("readable"), [row(Table::Timeline, b"t", b"1")]);
}

fn range(table: Table, prefix: &[u8], limit: usize) -> Range {
    Range {
        table,
        prefix: Bytes::copy_from_slice(prefix),
        after: None,
        before: None,
        limit,
        newest_first: false,
    }
}

async fn keys(store: &impl Store, range: Range) -> Vec<u8> {
    let rows = store.read(range).await.expect("readable");
    rows.iter()
        .map(|row| *row.key.last().expect("a key"))
        .collect()
}

/// `after`, `before` and `limit` hold in both directions, and both bounds are open.
pub async fn ranges_read_both_ways<P: Place>() {
    let place = P::new();
    let store = open(&place).await;
    let rows = (0..10).map(|i| put(Table::Timeline, &[7, i], &[i]));
    commit(&store, vec![rows.collect()]).await;
    let all = range(Table::Timeline, &[7], 100);
    let key = |i: u8| Some(Bytes::copy_from_slice(&[7, i]));
    assert_eq!(
        keys(&store, all.clone()).await,
        (0..10).collect::<Vec<u8>>()
    );
    let up = Range {
        after: key(2),
        limit: 3,
        ..all.clone()
    };
    assert_eq!(keys(&store, up).await, [3, 4, 5]);
    let between = Range {
        after: key(2),
        before: key(5),
        ..all.clone()
    };
    assert_eq!(keys(&store, between.clone()).await, [3, 4]);
    let down = Range {
        newest_first: true,
        ..between
    };
    assert_eq!(keys(&store, down).await, [4, 3]);
    let newest = Range {
        newest_first: true,
        limit: 2,
        ..all.clone()
    };
    assert_eq!(keys(&store, newest).await, [9, 8]);
    let older = Range {
        newest_first: true,
        before: key(8),
        limit: 2,
        ..all.clone()
    };
    assert_eq!(keys(&store, older).await, [7, 6]);
    let none = Range {
        limit: 0,
        ..all.clone()
    };
    assert_eq!(keys(&store, none).await, []);
    let crossed = Range {
        after: key(5),
        before: key(3),
        ..all.clone()
    };
    assert_eq!(keys(&store, crossed).await, []);
    let same = Range {
        after: key(5),
        before: key(5),
        ..all
    };
    assert_eq!(keys(&store, same).await, []);
}

/// Neighbouring prefixes stay out, also past `0xff`.
pub async fn a_range_ends_with_its_prefix<P: Place>() {
    let place = P::new();
    let store = open(&place).await;
    let rows = vec![
        put(Table::Timeline, &[1, 255], b""),
        put(Table::Timeline, &[2, 1], b""),
        put(Table::Timeline, &[2, 255, 255, 3], b""),
        put(Table::Timeline, &[3, 4], b""),
        put(Table::Timeline, &[255, 255, 5], b""),
        put(Table::DeadLetters, &[2, 6], b""),
    ];
    commit(&store, vec![rows]).await;
    for newest_first in [false, true] {
        let read = |prefix: &[u8]| Range {
            newest_first,
            ..range(Table::Timeline, prefix, 9)
        };
        let mut expected = vec![1, 3];
        if newest_first {
            expected.reverse();
        }
        assert_eq!(keys(&store, read(&[2])).await, expected);
        assert_eq!(keys(&store, read(&[255, 255])).await, [5]);
        assert_eq!(keys(&store, read(&[9])).await, []);
        let low = Some(Bytes::from_static(&[1, 1]));
        let outside = Range {
            after: low,
            ..read(&[2])
        };
        assert_eq!(
            keys(&store, outside).await,
            expected,
            "a bound below the prefix"
        );
        let high = Some(Bytes::from_static(&[3, 5]));
        let outside = Range {
            before: high,
            ..read(&[2])
        };
        assert_eq!(
            keys(&store, outside).await,
            expected,
            "a bound above the prefix"
        );
    }
}

/// Commits from many callers are all durable.
pub async fn concurrent_commits_are_all_kept<P: Place>() {
    let place = P::new();
    let store = std::sync::Arc::new(open(&place).await);
    let tasks: Vec<_> = (0..50u8)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                commit(&*store, vec![vec![put(Table::Streams, &[i], &[i])]]).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the commit returns");
    }
    drop(store);
    assert_eq!(load(&open(&place).await).await.len(), 50);
}

/// A commit whose caller gave up is there as a whole or not at all, and later ones are not harmed.
pub async fn a_dropped_commit_tears_nothing<P: Place>() {
    let place = P::new();
    let store = open(&place).await;
    let pair = vec![
        put(Table::Inbox, b"a", b"1"),
        put(Table::Streams, b"a", b"1"),
    ];
    {
        let mut abandoned = core::pin::pin!(store.commit(vec![pair]));
        core::future::poll_fn(|cx| {
            // Polled once, finished or not, then dropped.
            core::task::Poll::Ready(abandoned.as_mut().poll(cx).is_ready())
        })
        .await;
    }
    commit(&store, vec![vec![put(Table::Meta, b"m", b"2")]]).await;
    drop(store);
    let rows = load(&open(&place).await).await;
    assert!(rows.contains(&row(Table::Meta, b"m", b"2")));
    assert!(rows.len() == 1 || rows.len() == 3, "torn: {rows:?}");
}
