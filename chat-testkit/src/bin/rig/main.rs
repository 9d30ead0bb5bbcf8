//! The fault rig: real brokers, real processes, real faults, and a judge.
//!
//! Clients in processes of their own talk with each other through a broker while something breaks,
//! round after round; their histories are judged together at the end.

mod cell;
mod client;
mod crew;
mod disk;
mod faults;
mod lead;
mod log;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use cell::Variant;
use chat_testkit::rig::Verdict;
use chat_testkit::sim::Draw;
use faults::{FAULTS, Fault};
use tokio::runtime::Runtime;
use world::World;

const USAGE: &str = "\
usage: rig <hub|mqtt|nats|all> <fault[,fault..]|all> [options]
  --flavour NAME  plain, v311, tls or ws for mqtt; plain, tls or core for nats; several with
                  commas; or all (default plain)
  --rounds N      rounds for every hundred in the table below (default 10)
  --seed S        what is random follows from it, as far as processes allow (default 1)
  --bug NAME      plant a bug in the core of every client, to see that it is noticed
  --broken VICE   drops, repeats, shuffles, mute or forgets: what every client's transport does
  --patience SEC  for everybody to hear something new, and for all to arrive (default 60)
  --history DIR   where histories of failures are written (default: target/rig)";

/// Who talks in a world.
const NAMES: [&str; 4] = ["ann", "bob", "cyd", "dan"];
/// Between two messages of one client.
const PAUSE: Duration = Duration::from_millis(8);

struct Options {
    variants: Vec<Variant>,
    faults: Vec<&'static Fault>,
    rounds: u64,
    seed: u64,
    flaws: Flaws,
    patience: Duration,
    histories: PathBuf,
}

/// What is made wrong with every client, to see whether it is noticed.
#[derive(Clone, Debug, Default)]
struct Flaws {
    bug: Option<String>,
    vice: Option<String>,
}

/// Microseconds of the wall clock, which all processes share.
fn wall_micros() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn parse(args: &[String]) -> Result<Options, String> {
    let [kind, fault, rest @ ..] = args else {
        return Err("name a transport and a fault".to_owned());
    };
    let faults: Vec<_> = FAULTS
        .iter()
        .filter(|known| fault == "all" || fault.split(',').any(|name| name == known.name))
        .collect();
    if faults.len() < fault.split(',').count() {
        return Err(format!("{fault:?} names no faults"));
    }
    let mut options = Options {
        variants: Variant::named(kind, "plain"),
        faults,
        rounds: 10,
        seed: 1,
        flaws: Flaws::default(),
        patience: Duration::from_secs(60),
        histories: "target/rig".into(),
    };
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        let value = rest.next().ok_or(format!("{arg} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{value} is no number"));
        match arg.as_str() {
            "--rounds" => options.rounds = number()?,
            "--flavour" => options.variants = Variant::named(kind, value),
            "--seed" => options.seed = number()?,
            "--bug" => options.flaws.bug = Some(value.clone()),
            "--broken" if cell::vices(value).is_some() => {
                options.flaws.vice = Some(value.clone());
            }
            "--patience" => options.patience = Duration::from_secs(number()?),
            "--history" => options.histories = value.into(),
            _ => return Err(format!("{arg} is not known")),
        }
    }
    if options.variants.is_empty() {
        return Err(format!("{kind:?} is no transport, or not in that flavour"));
    }
    Ok(options)
}

fn usage(error: &str) -> ExitCode {
    eprintln!("{error}\n{USAGE}\n\nfault, rounds of a hundred, what happens:");
    for Fault {
        name, rounds, what, ..
    } in FAULTS
    {
        eprintln!("  {name:<14} {rounds:>5}  {what}");
    }
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hub", port, mailbox, state @ ..] if port.parse::<u16>().is_ok() => {
            let port = port.parse().expect("just tried");
            let mailbox = mailbox.parse().unwrap_or_default();
            let state = state.first().map(PathBuf::from);
            let served = runtime().block_on(cell::serve(port, mailbox, state));
            eprintln!("{}", served.err().unwrap_or_default());
            ExitCode::FAILURE
        }
        ["client", orders @ ..] => serve_client(orders),
        _ => match parse(&args) {
            Ok(options) => run(&options),
            Err(error) => usage(&error),
        },
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives us a runtime")
}

fn serve_client(orders: &[&str]) -> ExitCode {
    let [name, url, folder, next, doubtful, pause, bug, vice] = orders else {
        return usage("a client is started by the rig");
    };
    let doubtful = doubtful.split(',').filter_map(|one| {
        let (conv, n) = one.split_once(':')?;
        Some((conv.to_owned(), n.parse().ok()?))
    });
    let orders = client::Orders {
        name: (*name).to_owned(),
        folder: folder.into(),
        next: next.parse().unwrap_or_default(),
        doubtful: doubtful.collect(),
        pause: Duration::from_micros(pause.parse().unwrap_or_default()),
        bug: Some(*bug).filter(|bug| !bug.is_empty()).map(str::to_owned),
    };
    match cell::connector(url, cell::vices(vice)) {
        Ok(connector) => runtime().block_on(client::run(orders, connector)),
        Err(error) => usage(&error.to_string()),
    }
}

/// What the whole run came to.
#[derive(Default)]
struct Total {
    verdict: Verdict,
    broker_kills: u64,
    client_kills: u64,
    memory: (u64, u64),
    failovers: Vec<u64>,
    failed: bool,
}

fn run(options: &Options) -> ExitCode {
    // The proxies live here; everything else waits in this thread.
    let proxies = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("the system gives us a runtime");
    let started = Instant::now();
    let mut total = Total::default();
    println!("seed {}", options.seed);
    for variant in &options.variants {
        for fault in &options.faults {
            if variant.has(fault.setup) {
                try_fault(options, *variant, fault, proxies.handle(), &mut total);
            }
        }
    }
    let Total {
        verdict,
        broker_kills,
        client_kills,
        memory,
        failovers,
        failed,
    } = total;
    println!(
        "\n{:.0?}: {broker_kills} broker kills, {client_kills} client kills, {} attempts, \
         {} of {} in doubt were taken, memory {} MiB broker, {} MiB client",
        started.elapsed(),
        verdict.attempts,
        verdict.recovered,
        verdict.recovered + verdict.unknown,
        memory.0 >> 10,
        memory.1 >> 10,
    );
    if !failovers.is_empty() {
        println!("{}", lead::summary(failovers));
    }
    println!(
        "recovery p50={} ms p99={} ms max={} ms over {} faults ({} overtaken by the next)",
        verdict.recovery(50) / 1_000,
        verdict.recovery(99) / 1_000,
        verdict.recovery(100) / 1_000,
        verdict.recoveries.len(),
        verdict.unmeasured,
    );
    println!(
        "acked={} delivered={} lost={} duplicated={} reordered={}",
        verdict.acked, verdict.delivered, verdict.lost, verdict.duplicated, verdict.reordered,
    );
    if failed || !verdict.is_clean() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn try_fault(
    options: &Options,
    variant: Variant,
    fault: &Fault,
    proxies: &tokio::runtime::Handle,
    total: &mut Total,
) {
    let name = format!("{} {}", variant.name(), fault.name);
    let started = Instant::now();
    let draw = Draw::new(options.seed, &name);
    let mut world = match World::start(variant, fault.setup, &NAMES, options, draw, proxies) {
        Ok(world) => world,
        Err(error) => {
            println!("{name}: FAILED to start: {error}");
            total.failed = true;
            return;
        }
    };
    world.talk(PAUSE);
    let rounds = (options.rounds * fault.rounds).div_ceil(100);
    let mut failed = None;
    for round in 0..rounds {
        if let Err(error) = (fault.round)(&mut world) {
            failed = Some(format!("round {round}: {error}"));
            break;
        }
    }
    let file = format!("{}-{}-{}.txt", variant.name(), fault.name, options.seed);
    // A folder that cannot be made shows when the history is written.
    std::fs::create_dir_all(&options.histories).ok();
    let outcome = world.finish(failed, &options.histories.join(file));
    let verdict = outcome.verdict;
    println!(
        "{name:<22} {rounds:>4} rounds {:>5.1} s  acked {:>6} lost {} dup {} reord {} given up {}  \
         recovery p50 {:>4} p99 {:>5} ms  {} + {} MiB",
        started.elapsed().as_secs_f32(),
        verdict.acked,
        verdict.lost,
        verdict.duplicated,
        verdict.reordered,
        verdict.given_up,
        verdict.recovery(50) / 1_000,
        verdict.recovery(99) / 1_000,
        outcome.memory.0 >> 10,
        outcome.memory.1 >> 10,
    );
    if !outcome.failovers.is_empty() {
        println!("    {}", lead::summary(outcome.failovers.clone()));
    }
    for problem in &verdict.problems {
        println!("    {problem}");
    }
    if let Some(failed) = outcome.failed {
        println!("{name}: FAILED: {failed}");
        total.failed = true;
    }
    total.broker_kills += outcome.broker_kills;
    total.client_kills += outcome.client_kills;
    total.memory.0 = total.memory.0.max(outcome.memory.0);
    total.memory.1 = total.memory.1.max(outcome.memory.1);
    total.failovers.extend(outcome.failovers);
    total.verdict.add(verdict);
}
