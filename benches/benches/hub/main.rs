//! The hub: one publisher to 50 and to 500 subscribers over loopback sockets, one message at a
//! time (paced) and with 64 messages under way (pipelined), and what a connection costs while idle.
//!
//! The figure is the CPU time of the hub's process per delivery. Each hub is a process of its own,
//! started from this binary, and the load is the same for all; rounds of all hubs take turns. Every
//! delivery is checked: lost, doubled and reordered ones fail the run. Yardsticks in the same run:
//! the least that can be done (`floor`), tokio-tungstenite with a broadcast queue that joins what
//! is queued (`tungstenite`), and axum's chat example (`axum`).

mod load;
mod peers;
mod process;

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
    idle: usize,
}

const FULL: Plan = Plan {
    subscribers: &[50, 500],
    rounds: 15,
    deliveries: [10_000, 100_000],
    idle: 1_000,
};

const TRIAL: Plan = Plan {
    subscribers: &[5],
    rounds: 1,
    deliveries: [50, 500],
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
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for &subscribers in plan.subscribers {
                fan_out(&plan, subscribers).await;
            }
            println!("\nidle connections            RSS KiB each   CPU us to join");
            for kind in KINDS.iter().filter(|kind| kind.server != "floor") {
                idle(&plan, *kind).await;
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
        let mut floor = f64::NAN;
        for ((kind, ..), figures) in rooms.iter().zip(&mut figures) {
            figures.sort_by(f64::total_cmp);
            if kind.name == "floor" {
                floor = figures[figures.len() / 2];
            }
        }
        for ((kind, ..), figures) in rooms.iter().zip(&figures) {
            let median = figures[figures.len() / 2];
            println!(
                "{:<36} {:>8.2} {:>8.2}   {:>5.2} x floor",
                kind.name,
                figures[0],
                median,
                median / floor
            );
        }
    }
    for (kind, _, room) in &rooms {
        room.check(kind.name);
    }
    println!("lost 0, doubled 0, reordered 0 in all of these");
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
