//! Presence at 10³ and 10⁵ watched devices: a beat that changes nothing, and expiry. The
//! yardstick is the least that any tracker does: one look-up and one write in an ordered map.
//! Then once a million of them: all come, all beat, all go.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use benches::{Cpu, ThreadTime};
use chat_core::config::PresenceConfig;
use chat_core::id::{DeviceId, Epoch, UserId};
use chat_core::identity::Sender;
use chat_core::presence::PresenceMachine;
use chat_core::rng::Rng;
use chat_core::time::{Now, Timestamp, UnixMillis};
use chat_core::wire::{BoundedStr, presence::Presence};
use criterion::{BatchSize, BenchmarkId, criterion_group, criterion_main};

fn sender(i: u32) -> Sender {
    let mut device = [0; 32];
    device[..4].copy_from_slice(&i.to_be_bytes());
    Sender {
        user: UserId::new(&format!("user-{i}")).expect("a valid name"),
        device: DeviceId(device),
    }
}

fn record(seq: u64) -> Presence {
    Presence {
        incarnation: 1,
        conn: 1,
        seq,
        status: 1,
        text: BoundedStr::default(),
        text_ttl_ms: None,
        ttl_ms: 75_000,
        idle_min: Some(0),
    }
}

fn at(secs: u64) -> Now {
    Now {
        mono: Timestamp::from_secs(secs),
        wall: UnixMillis(1_800_000_000_000 + secs * 1_000),
    }
}

fn watching(senders: &[Sender]) -> PresenceMachine {
    let mut config = PresenceConfig::default();
    config.max_watched = 1_000_000;
    let rng = Rng::from_seed([1; 32]);
    let mut machine = PresenceMachine::new(sender(u32::MAX), Epoch(1), config, rng);
    machine.handle_up(at(1));
    for from in senders {
        machine.handle_record(from, &record(1), true, at(1));
        while machine.effects().pop().is_some() {}
    }
    machine
}

fn presence(c: &mut Cpu) {
    let mut group = c.benchmark_group("presence");
    let sizes: &[u32] = if benches::measuring() {
        &[1_000, 100_000]
    } else {
        &[100]
    };
    for &n in sizes {
        let senders: Vec<Sender> = (0..n).map(sender).collect();
        let mut machine = watching(&senders);
        let (mut i, mut seq) = (0usize, 1);
        group.bench_function(BenchmarkId::new("beat", n), |b| {
            b.iter(|| {
                i = (i + 7_919) % senders.len();
                seq += 1;
                machine.handle_record(&senders[i], black_box(&record(seq)), true, at(2));
                while machine.effects().pop().is_some() {}
            });
        });
        let mut map: BTreeMap<DeviceId, (u64, Timestamp)> = senders
            .iter()
            .map(|s| (s.device, (1, Timestamp::ZERO)))
            .collect();
        group.bench_function(BenchmarkId::new("yardstick: ordered map", n), |b| {
            b.iter(|| {
                i = (i + 7_919) % senders.len();
                seq += 1;
                if let Some(entry) = map.get_mut(black_box(&senders[i].device)) {
                    *entry = (seq, Timestamp::from_secs(2) + Duration::from_secs(75));
                }
            });
        });
        if n <= 1_000 {
            group.bench_function(BenchmarkId::new("expire all", n), |b| {
                b.iter_batched(
                    || watching(&senders),
                    |mut machine| {
                        for secs in [100, 200] {
                            machine.handle_timeout(at(secs));
                            while let Some(effect) = machine.effects().pop() {
                                black_box(effect);
                            }
                        }
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

/// Too large to repeat: each phase is timed once, over all of them.
fn million(_: &mut Cpu) {
    let count = if benches::measuring() {
        1_000_000
    } else {
        1_000
    };
    let senders: Vec<Sender> = (0..count).map(sender).collect();
    let phase = |name: &str, run: &mut dyn FnMut()| {
        let start = ThreadTime::now();
        run();
        let each = (ThreadTime::now() - start).as_nanos() / u128::from(count);
        println!("presence, {count} watched: {name:<32} {each:>6} ns each");
    };
    let mut machine = None;
    phase("all come", &mut || machine = Some(watching(&senders)));
    let mut machine = machine.expect("it was made");
    phase("all beat, in another order", &mut || {
        let mut i = 0;
        for _ in 0..count {
            i = (i + 7_919) % senders.len();
            machine.handle_record(&senders[i], &record(2), true, at(2));
            while machine.effects().pop().is_some() {}
        }
    });
    phase("nothing is due, per watched", &mut || {
        machine.handle_timeout(at(3));
        black_box(machine.poll_timeout());
    });
    let known = (senders.iter())
        .filter(|from| machine.view(&from.user).is_some())
        .count();
    assert_eq!(known, senders.len(), "somebody was left out");
    // Of a crowd only some are told.
    phase("all fall silent and are lost", &mut || {
        for secs in [100, 200] {
            machine.handle_timeout(at(secs));
            while let Some(effect) = machine.effects().pop() {
                black_box(effect);
            }
        }
    });
}

criterion_group! {
    name = all;
    config = benches::criterion();
    targets = presence, million
}
criterion_main!(all);
