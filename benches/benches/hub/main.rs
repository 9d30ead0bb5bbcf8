//! The hub over loopback sockets: one publisher to 50 and to 500 subscribers, one message at a time
//! (paced) and with 64 messages under way (pipelined); 200 rooms of 10; how long a delivery takes
//! at 10,000 a second; what one client that reads nothing does to 500 others; and what a connection
//! costs while idle.
//!
//! The figure is the CPU time of the hub's process per delivery. Each hub is a process of its own,
//! started from this binary, and the load is the same for all; rounds of all hubs take turns. Every
//! delivery is checked: lost, doubled and reordered ones fail the run. Yardsticks in the same run:
//! the least that can be done (`floor`), tokio-tungstenite with a broadcast queue that joins what
//! is queued (`tungstenite`), and axum's chat example (`axum`).
//!
//! `cargo bench -p benches --bench hub -- rooms idle` measures only these parts. Delays depend on
//! neighbours: give the run real-time priority (`chrt -f 1 cargo bench …`) for `delay` and `slow`.

mod load;
mod peers;
mod process;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use load::{Dialect, Room};
use process::{Hub, cpu_of};

/// A hub under test.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    server: &'static str,
    dialect: Dialect,
}

const fn kind(name: &'static str, server: &'static str, dialect: Dialect) -> Kind {
    Kind {
        name,
        server,
        dialect,
    }
}

const KINDS: [Kind; 6] = [
    kind("ours, ephemeral", "memory", Dialect::Ephemeral),
    kind("ours, durable class in memory", "memory", Dialect::Durable),
    kind("ours, durable class on disk", "disk", Dialect::Durable),
    kind("floor", "floor", Dialect::Plain),
    kind("tungstenite", "tungstenite", Dialect::Plain),
    kind("axum", "axum", Dialect::Plain),
];

/// How much is measured.
struct Plan {
    subscribers: &'static [usize],
    rounds: usize,
    /// Deliveries per round, paced and pipelined.
    deliveries: [usize; 2],
    /// Rooms of ten, each with its publisher.
    rooms: usize,
    /// Messages whose delays are taken, per round, and rounds of that.
    delays: (u64, usize),
    /// Messages that a client lets lie.
    stalled: u64,
    idle: usize,
}

const FULL: Plan = Plan {
    subscribers: &[50, 500],
    rounds: 15,
    deliveries: [10_000, 100_000],
    rooms: 200,
    delays: (40, 3),
    stalled: 4_000,
    idle: 1_000,
};

const TRIAL: Plan = Plan {
    subscribers: &[5],
    rounds: 1,
    deliveries: [50, 500],
    rooms: 3,
    delays: (3, 1),
    stalled: 4_000,
    idle: 20,
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, serve, server, connections] = &args[..]
        && serve == "serve"
    {
        let connections = connections.parse().expect("a number");
        return peers::serve(server, connections);
    }
    let plan = if benches::measuring() { FULL } else { TRIAL };
    let wanted: Vec<&str> = (args[1..].iter())
        .map(String::as_str)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wants = |part: &str| wanted.is_empty() || wanted.contains(&part);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for &subscribers in plan.subscribers {
                if wants("fan-out") {
                    fan_out(&plan, subscribers).await;
                }
            }
            if wants("rooms") {
                rooms(&plan).await;
            }
            let most = *plan.subscribers.last().expect("some");
            if wants("delay") {
                delay(&plan, most).await;
            }
            if wants("slow") {
                for dialect in [Dialect::Ephemeral, Dialect::Durable] {
                    slow(&plan, dialect, most).await;
                }
            }
            if wants("idle") {
                println!("\nidle connections            RSS KiB each   CPU us to join");
                for kind in KINDS.iter().filter(|kind| kind.server != "floor") {
                    idle(&plan, *kind).await;
                }
            }
        })
        .await;
}

async fn fan_out(plan: &Plan, subscribers: usize) {
    let mut rooms = Vec::new();
    for kind in KINDS {
        let hub = Hub::start(kind.server, subscribers + 1);
        let room = Room::open(hub.address(), kind.dialect, subscribers).await;
        rooms.push((kind, hub, room));
    }
    for (regime, window) in [("paced", 1), ("window 64", 64)] {
        let messages = (plan.deliveries[usize::from(window > 1)] / subscribers).max(window);
        let load = (messages as u64, window as u64);
        let mut figures = vec![Vec::new(); rooms.len()];
        for _ in 0..plan.rounds {
            for ((_, hub, room), figures) in rooms.iter_mut().zip(&mut figures) {
                let before = cpu_of(hub.pid());
                room.carry(load.0, load.1).await;
                let spent = cpu_of(hub.pid()) - before;
                figures.push(spent.as_secs_f64() * 1e6 / (messages * subscribers) as f64);
            }
        }
        println!("\n1 to {subscribers}, {regime}: CPU us a delivery      min   median");
        beside_floor(rooms.iter().map(|(kind, ..)| kind).zip(&mut figures));
    }
    for (kind, _, room) in &rooms {
        room.check(kind.name);
    }
    println!("lost 0, doubled 0, reordered 0 in all of these");
}

fn beside_floor<'a>(rows: impl Iterator<Item = (&'a Kind, &'a mut Vec<f64>)>) {
    let rows: Vec<_> = rows.collect();
    let mut sorted: Vec<(&str, &mut Vec<f64>)> = Vec::new();
    for (kind, figures) in rows {
        figures.sort_by(f64::total_cmp);
        sorted.push((kind.name, figures));
    }
    let median = |figures: &[f64]| figures[figures.len() / 2];
    let floor = sorted.iter().find(|(name, _)| *name == "floor");
    let floor = median(floor.expect("it is one of them").1);
    for (name, figures) in &sorted {
        println!(
            "{name:<36} {:>8.2} {:>8.2}   {:>5.2} x floor",
            figures[0],
            median(figures),
            median(figures) / floor
        );
    }
}

/// Rooms of ten: a message is shared by nine, and there is little to join.
async fn rooms(plan: &Plan) {
    const SUBSCRIBERS: usize = 9;
    let kinds: Vec<Kind> = (KINDS.iter())
        .filter(|kind| kind.server != "axum")
        .copied()
        .collect();
    let mut hubs = Vec::new();
    for kind in &kinds {
        let server = match kind.server {
            "floor" => "floor of 10",
            other => other,
        };
        let hub = Hub::start(server, plan.rooms * (SUBSCRIBERS + 1));
        let mut rooms = Vec::new();
        for number in 0..plan.rooms {
            rooms.push(Room::open_as(number, hub.address(), kind.dialect, SUBSCRIBERS).await);
        }
        hubs.push((hub, rooms));
    }
    for (regime, together) in [("paced", 1), ("64 under way", 64)] {
        let mut figures = vec![Vec::new(); hubs.len()];
        for _ in 0..plan.rounds {
            for ((hub, rooms), figures) in hubs.iter_mut().zip(&mut figures) {
                let before = cpu_of(hub.pid());
                for some in rooms.chunks_mut(together) {
                    join_all(some.iter_mut().map(|room| room.carry(1, 1))).await;
                }
                let spent = cpu_of(hub.pid()) - before;
                figures.push(spent.as_secs_f64() * 1e6 / (plan.rooms * SUBSCRIBERS) as f64);
            }
        }
        println!(
            "\n{} rooms of 10, {regime}: CPU us a delivery      min   median",
            plan.rooms
        );
        beside_floor(kinds.iter().zip(&mut figures));
    }
    for (kind, (_, rooms)) in kinds.iter().zip(&hubs) {
        rooms.iter().for_each(|room| room.check(kind.name));
    }
    println!("lost 0, doubled 0, reordered 0 in all of these");
}

/// 10,000 deliveries a second.
fn pace(subscribers: usize) -> Duration {
    Duration::from_secs(1) * u32::try_from(subscribers).expect("few") / 10_000
}

/// How long deliveries take at a fixed rate.
async fn delay(plan: &Plan, subscribers: usize) {
    let mut rooms = Vec::new();
    for kind in KINDS {
        let hub = Hub::start(kind.server, subscribers + 1);
        let room = Room::open(hub.address(), kind.dialect, subscribers).await;
        rooms.push((kind, hub, room, Vec::new(), Vec::new()));
    }
    for _ in 0..plan.delays.1 {
        for (_, _, room, each, whole) in &mut rooms {
            let (some, wholes) = room.pace(plan.delays.0, pace(subscribers)).await;
            each.extend(some);
            whole.extend(wholes);
        }
    }
    println!(
        "\n1 to {subscribers}, 10,000 deliveries a second   p50 us   p99 us   whole room p50, p99"
    );
    for (kind, _, room, each, whole) in &mut rooms {
        room.check(kind.name);
        println!(
            "{:<36} {:>16} {:>8} {:>12} {:>8}",
            kind.name,
            at(each, 50),
            at(each, 99),
            at(whole, 50),
            at(whole, 99)
        );
    }
}

/// The percentile, in microseconds.
fn at(delays: &mut [Duration], percent: usize) -> u128 {
    delays.sort();
    delays[(delays.len() - 1) * percent / 100].as_micros()
}

/// Our hub in memory, on a thread of its own in this process.
fn beside() -> (SocketAddr, chat_transport_ws::hub::Hub) {
    let (sender, hub) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let handle = peers::builder()
                .in_memory()
                .bind(([127, 0, 0, 1], 0).into())
                .await;
            let handle = handle.expect("a free port");
            let both = (handle.local_addr(), handle.hub().clone());
            sender.send(both).expect("it is waited for");
            core::future::pending::<()>().await;
        });
    });
    hub.recv().expect("it starts")
}

/// One client of many reads nothing. This hub runs in this process, where its counters are seen.
async fn slow(plan: &Plan, dialect: Dialect, subscribers: usize) {
    let (address, hub) = beside();
    let mut room = Room::open(address, dialect, subscribers).await;
    let every = pace(subscribers);
    let mut before = Vec::new();
    for _ in 0..plan.delays.1 {
        before.extend(room.pace(plan.delays.0, every).await.0);
    }
    let stalled = room.stall(address).await;
    room.carry(plan.stalled, 64).await;
    let full = hub.stats();
    let (mut after, _) = room.pace(plan.delays.0, every).await;
    let stats = hub.stats();
    assert_eq!(stats.connections, subscribers + 2, "it is still connected");
    room.check("beside a stalled client");
    drop(stalled);
    println!(
        "\n1 to {subscribers}, {}, and one that lets {} messages lie\n\
         others p50 {} us, p99 {} us; before p50 {} us, p99 {} us\n\
         kept for it: {} KiB in its queue, {} KiB in the log; dropped {}",
        if dialect == Dialect::Durable {
            "durable"
        } else {
            "ephemeral"
        },
        plan.stalled,
        at(&mut after, 50),
        at(&mut after, 99),
        at(&mut before, 50),
        at(&mut before, 99),
        full.queued_bytes / 1024,
        full.stored_bytes / 1024,
        stats.dropped,
    );
}

async fn idle(plan: &Plan, kind: Kind) {
    let hub = Hub::start(kind.server, plan.idle + 1);
    let half = Room::open(hub.address(), kind.dialect, plan.idle / 2).await;
    let (memory, cpu) = (memory_of(&hub), cpu_of(hub.pid()));
    let rest = half.grow(hub.address(), plan.idle - plan.idle / 2).await;
    let each = (plan.idle - plan.idle / 2) as f64;
    println!(
        "{:<28} {:>12.1} {:>16.1}",
        kind.name,
        (memory_of(&hub) as f64 - memory as f64) / 1024.0 / each,
        (cpu_of(hub.pid()) - cpu).as_secs_f64() * 1e6 / each,
    );
    drop(rest);
}

/// Resident memory in bytes.
fn memory_of(hub: &Hub) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
}
