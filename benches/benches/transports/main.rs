//! Every transport beside the raw client of its broker: messages of 100 bytes from one to one and
//! from one to many, with and without acknowledgements.
//!
//! A section is one transport, and in it all paths take turns against the same brokers: the raw
//! client without and with the broker's acknowledgement, our adapter alone in the same two ways,
//! and whole clients, whose messages are signed, durable at both ends and acknowledged end to end.
//! All clients run on one thread of this process, so that its CPU time is theirs; brokers are
//! processes of their own. What a client spends is split by leaving things out: rows on disk
//! against rows in memory, signatures against none. Lost, doubled and reordered deliveries fail
//! the run.

mod adapter;
mod clients;
mod path;
#[path = "../hub/peers.rs"]
mod peers;
#[path = "../hub/process.rs"]
mod process;
mod raw_mqtt;
mod raw_nats;
mod raw_ws;
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_client::transport::Connector;
use chat_core::channel::Class;
use chat_transport_mqtt::MqttConnector;
use chat_transport_nats::NatsConnector;
use chat_transport_ws::WsConnector;
use clients::Kind;
use futures_util::future::LocalBoxFuture;
use path::Open;
use rustix::time::{ClockId, clock_gettime};
use servers::Servers;

/// A transport: one row.
struct Row {
    name: &'static str,
    start: fn() -> Servers,
    connector: fn(&Servers) -> Arc<dyn Connector>,
    /// What the raw client is called with and without the broker's acknowledgement.
    raw: [&'static str; 2],
    /// Opens the raw client; true: acknowledged.
    open: fn(&Servers, bool, usize) -> LocalBoxFuture<'static, Open>,
}

const ROWS: [Row; 3] = [
    Row {
        name: "hub",
        start: Servers::hub,
        connector: |servers| {
            let url = format!("ws://{}/hub", servers.address());
            Arc::new(WsConnector::new(&url).expect("a valid URL"))
        },
        raw: ["tungstenite, relay", "tungstenite, hub, acks"],
        open: |servers, acked, subscribers| {
            if acked {
                Box::pin(raw_ws::acknowledged(servers.address(), subscribers))
            } else {
                Box::pin(raw_ws::relay(servers.relay(), subscribers))
            }
        },
    },
    Row {
        name: "mosquitto",
        start: Servers::mosquitto,
        connector: |servers| {
            let url = format!("mqtt://{}", servers.address());
            Arc::new(MqttConnector::from_url(&url).expect("a valid URL"))
        },
        raw: ["rumqttc, QoS 0", "rumqttc, QoS 1"],
        open: |servers, acked, subscribers| {
            // As many as our adapter has under way.
            Box::pin(raw_mqtt::open(servers.address(), acked, subscribers, 100))
        },
    },
    Row {
        name: "nats-server",
        start: Servers::nats,
        connector: |servers| {
            let url = format!("nats://{}", servers.address());
            Arc::new(NatsConnector::from_url(&url).expect("a valid URL"))
        },
        raw: ["async-nats, core", "async-nats, JetStream"],
        open: |servers, acked, subscribers| {
            if acked {
                Box::pin(raw_nats::jetstream(servers.address(), subscribers))
            } else {
                Box::pin(raw_nats::core(servers.address(), subscribers))
            }
        },
    },
];

const EPHEMERAL: &str = "adapter, ephemeral";
const DURABLE: &str = "adapter, durable";
const MEMORY: &str = "clients, memory";
const DISK: &str = "clients, disk";

/// How much is measured.
struct Plan {
    subscribers: [usize; 2],
    rounds: usize,
    /// Deliveries per round with many messages under way: of what has no rows, of clients with rows
    /// in memory, of clients with rows on disk.
    deliveries: [u64; 3],
    window: u64,
    /// Messages one by one, per round.
    single: u64,
}

const FULL: Plan = Plan {
    subscribers: [1, 50],
    rounds: 5,
    deliveries: [20_000, 8_000, 4_000],
    window: 256,
    single: 40,
};

const TRIAL: Plan = Plan {
    subscribers: [1, 2],
    rounds: 1,
    deliveries: [100, 100, 100],
    window: 64,
    single: 3,
};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, serve, server, connections] = &args[..]
        && serve == "serve"
    {
        return peers::serve(server, connections.parse().expect("a number"));
    }
    let plan = if benches::measuring() { FULL } else { TRIAL };
    // `cargo bench --bench transports -- mosquitto 50` measures one of them, to 50; another word
    // leaves out all paths but those whose names hold it.
    let words = args[1..].iter().filter(|arg| !arg.starts_with('-'));
    let (sizes, words): (Vec<_>, Vec<_>) = words.partition(|arg| arg.parse::<usize>().is_ok());
    let is_row = |word: &&String| ROWS.iter().any(|row| row.name.contains(word.as_str()));
    let (names, only): (Vec<_>, Vec<_>) = words.into_iter().partition(is_row);
    let named =
        |row: &&Row| names.is_empty() || names.iter().any(|arg| row.name.contains(arg.as_str()));
    let sized = |subscribers: &usize| sizes.is_empty() || sizes.contains(&&subscribers.to_string());
    for row in ROWS.iter().filter(named) {
        for subscribers in plan.subscribers.into_iter().filter(sized) {
            // A runtime of its own: dropping it ends every client.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, section(&plan, row, subscribers, &only));
        }
    }
}

/// What one path cost in every round.
struct Figures {
    name: String,
    open: Open,
    /// Messages per round.
    messages: u64,
    /// Deliveries per second.
    rate: Vec<f64>,
    /// CPU microseconds per delivery of this process, and of the broker.
    ours: Vec<f64>,
    broker: Vec<f64>,
    delays: Vec<Duration>,
}

async fn section(plan: &Plan, row: &Row, subscribers: usize, only: &[&String]) {
    let servers = (row.start)();
    let connector = (row.connector)(&servers);
    let mut paths = Vec::new();
    let wanted =
        |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word.as_str()));
    let mut add = |name: &str, size: usize, open: Open| {
        let messages = plan.deliveries[size] / subscribers as u64;
        paths.push(Figures {
            name: name.to_owned(),
            open,
            messages: messages.max(plan.window),
            rate: Vec::new(),
            ours: Vec::new(),
            broker: Vec::new(),
            delays: Vec::new(),
        });
    };
    for (name, acked) in row.raw.iter().zip([false, true]) {
        if wanted(name) {
            add(name, 0, (row.open)(&servers, acked, subscribers).await);
        }
    }
    for (name, class) in [(EPHEMERAL, Class::Ephemeral), (DURABLE, Class::Durable)] {
        if wanted(name) {
            let user = format!("adapter-{}", class == Class::Durable);
            let open = adapter::open(connector.clone(), &user, class, subscribers).await;
            add(name, 0, open);
        }
    }
    for (name, size, kind) in [
        ("clients, unsigned, memory", 1, Kind::Unsigned),
        (MEMORY, 1, Kind::Memory),
        (DISK, 2, Kind::Disk),
    ] {
        if wanted(name) {
            let open = clients::open(connector.clone(), "client", kind, subscribers).await;
            add(name, size, open);
        }
    }
    for _ in 0..plan.rounds {
        for path in &mut paths {
            let deliveries = (path.messages * subscribers as u64) as f64;
            let (broker, ours, wall) = (servers.cpu(), process_cpu(), Instant::now());
            path.open.carry(path.messages, plan.window).await;
            path.rate.push(deliveries / wall.elapsed().as_secs_f64());
            let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / deliveries;
            path.ours.push(micros(process_cpu() - ours));
            path.broker.push(micros(servers.cpu() - broker));
            path.delays.extend(path.open.one_by_one(plan.single).await);
        }
    }
    report(row, subscribers, &mut paths);
}

fn report(row: &Row, subscribers: usize, paths: &mut [Figures]) {
    println!(
        "\n{}, 1 to {subscribers}: {:>24} {:>14} {:>14} {:>10} {:>10}",
        row.name, "deliveries/s", "CPU us: clients", "broker", "p50 us", "p99 us"
    );
    for path in &mut *paths {
        path.open.check(&path.name);
        path.delays.sort();
        let at = |percent: usize| {
            let place = (path.delays.len() - 1) * percent / 100;
            path.delays[place].as_micros()
        };
        println!(
            "{:<30} {:>12.0} {:>14.2} {:>14.2} {:>10} {:>10}",
            path.name,
            median(&path.rate),
            median(&path.ours),
            median(&path.broker),
            at(50),
            at(99),
        );
    }
    // Ratios are taken round by round: neighbours disturb both sides of one alike.
    let ratio = |a: &Figures, b: &Figures| {
        let pairs = a.rate.iter().zip(&b.rate);
        let rates: Vec<f64> = pairs.map(|(a, b)| a / b).collect();
        let cpu = |path: &Figures| -> Vec<f64> {
            let both = path.ours.iter().zip(&path.broker);
            both.map(|(ours, broker)| ours + broker).collect()
        };
        let (a, b) = (cpu(a), cpu(b));
        let spent: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b / a).collect();
        (median(&rates), median(&spent))
    };
    let find = |name: &str| paths.iter().find(|path| path.name == name);
    for (what, raw) in [
        (EPHEMERAL, row.raw[0]),
        (DURABLE, row.raw[1]),
        (MEMORY, row.raw[1]),
        (DISK, row.raw[1]),
    ] {
        if let (Some(ours), Some(raw)) = (find(what), find(raw)) {
            let (rate, spent) = ratio(ours, raw);
            let pair = format!("{what} / {}", raw.name);
            println!("{pair:<46} {rate:>6.2} of its rate, {spent:>6.2} by CPU time");
        }
    }
    println!("lost 0, doubled 0, reordered 0");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// CPU time of this process.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |value| u64::try_from(value).expect("the clock counts up from 0");
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
