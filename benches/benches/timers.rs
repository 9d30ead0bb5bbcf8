//! The deadline index at 10², 10⁴ and 10⁶ deadlines: refresh (push one back) and expire. The
//! yardstick is the plain ordered map that it replaces.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Duration;

use benches::Cpu;
use chat_core::deadline::DeadlineIndex;
use chat_core::rng::Rng;
use chat_core::time::Timestamp;
use criterion::{BatchSize, BenchmarkId, criterion_group, criterion_main};

fn filled(n: u64) -> DeadlineIndex<u64> {
    let mut index = DeadlineIndex::new(&Rng::from_seed([1; 32]));
    for key in 0..n {
        index.set(key, Timestamp::from_micros(60_000_000 + key));
    }
    index
}

fn timers(c: &mut Cpu) {
    let mut group = c.benchmark_group("timers");
    let sizes: &[u64] = if benches::measuring() {
        &[100, 10_000, 1_000_000]
    } else {
        &[100]
    };
    for &n in sizes {
        let mut index = filled(n);
        let (mut key, mut now) = (0u64, Timestamp::ZERO);
        group.bench_function(BenchmarkId::new("refresh", n), |b| {
            b.iter(|| {
                key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) % n;
                now = now + Duration::from_micros(1);
                index.set(black_box(key), now + Duration::from_secs(60));
            });
        });
        let mut map: BTreeMap<u64, Timestamp> = BTreeMap::new();
        let mut order: BTreeSet<(Timestamp, u64)> = BTreeSet::new();
        for key in 0..n {
            let due = Timestamp::from_micros(60_000_000 + key);
            map.insert(key, due);
            order.insert((due, key));
        }
        group.bench_function(
            BenchmarkId::new("yardstick: refresh, ordered map", n),
            |b| {
                b.iter(|| {
                    key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) % n;
                    now = now + Duration::from_micros(1);
                    let due = now + Duration::from_secs(60);
                    if let Some(old) = map.insert(black_box(key), due) {
                        order.remove(&(old, key));
                    }
                    order.insert((due, key));
                });
            },
        );
        if n <= 10_000 {
            group.bench_function(BenchmarkId::new("expire all", n), |b| {
                b.iter_batched(
                    || filled(n),
                    |mut index| {
                        while let Some(key) = index.pop_due(Timestamp::MAX) {
                            black_box(key);
                        }
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        let index = filled(n);
        group.bench_function(BenchmarkId::new("nothing due", n), |b| {
            b.iter(|| black_box(&index).earliest());
        });
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = benches::criterion();
    targets = timers
}
criterion_main!(all);
