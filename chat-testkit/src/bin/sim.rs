//! The simulator on the command line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use chat_core::probe;
use chat_testkit::model::{Case, cases, search};
use chat_testkit::sim::{
    BUGS, Caught, Outcome, REQUIRED_MARKS, Suite, Swarm, expand, hunt, run, run_script, scale,
    shrink,
};

const USAGE: &str = "\
usage: sim <delivery|sessions|presence|groups|siege|all|planted|model|scale> [options]
  --depth N         with model: events on a path (default 5)
  --policy P        with groups: available (default) or strict
  --seeds A..B      run these seeds (default 0..1000)
  --replay SEED     run one seed
  --trace           with --replay: print what happens
  --shrink          with --replay: print the smallest script that still fails
  --double-check    run each seed twice and compare
  --threads N       default 2
  --bug NAME        with planted: only this one; with model: planted before the search";

/// Below this many seeds an empty mark proves nothing.
const SEEDS_FOR_MARKS: u64 = 500;
const FAILURES_SHOWN: usize = 10;

struct Options {
    what: String,
    seeds: Range<u64>,
    replay: Option<u64>,
    trace: bool,
    shrink: bool,
    double_check: bool,
    threads: u64,
    bug: Option<String>,
    strict: bool,
    depth: u8,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        what: args.next().ok_or("name a suite")?,
        seeds: 0..1_000,
        replay: None,
        trace: false,
        shrink: false,
        double_check: false,
        threads: 2,
        bug: None,
        strict: false,
        depth: 5,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{text} is no number"))
        };
        match arg.as_str() {
            "--seeds" => {
                let text = value()?;
                let (low, high) = text.split_once("..").ok_or("seeds are A..B")?;
                options.seeds = number(low)?..number(high)?;
            }
            "--replay" => options.replay = Some(number(&value()?)?),
            "--threads" => options.threads = number(&value()?)?.max(1),
            "--policy" => {
                options.strict = match value()?.as_str() {
                    "available" => false,
                    "strict" => true,
                    other => return Err(format!("unknown policy {other}")),
                }
            }
            "--depth" => {
                let depth = number(&value()?)?;
                options.depth = u8::try_from(depth).map_err(|_| "at most 255".to_owned())?;
            }
            "--bug" => options.bug = Some(value()?),
            "--trace" => options.trace = true,
            "--shrink" => options.shrink = true,
            "--double-check" => options.double_check = true,
            _ => return Err(format!("unknown option {arg}")),
        }
    }
    if options.strict && options.what == Suite::Groups.name() {
        options.what = Suite::Strict.name().to_owned();
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let suites: Vec<Suite> = Suite::ALL
        .into_iter()
        .filter(|suite| options.what == "all" || options.what == suite.name())
        .collect();
    let good = match options.what.as_str() {
        "planted" => planted(&options),
        "model" => model(&options),
        "scale" => scales(),
        _ if suites.is_empty() => {
            eprintln!("unknown suite {}\n{USAGE}", options.what);
            return ExitCode::from(2);
        }
        _ => match options.replay {
            Some(seed) => suites.iter().all(|suite| replay(*suite, seed, &options)),
            None => {
                // Every suite runs, also after one has failed.
                let mut all = Totals::default();
                let mut good = true;
                for suite in suites {
                    let (totals, passed) = sweep(suite, &options);
                    good &= passed;
                    all.merge(totals);
                }
                println!("{}", all.line());
                good
            }
        },
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(suite: Suite, seed: u64, options: &Options) -> bool {
    println!("{}", Swarm::new(suite, seed));
    let outcome = run(suite, seed, options.trace);
    print!("{}", outcome.trace);
    if let Some(violation) = &outcome.violation {
        println!("seed {seed}: {violation}");
        if options.shrink {
            let swarm = Swarm::new(suite, seed);
            let script = shrink(&swarm, seed, expand(&swarm, seed), violation.rule, 400);
            println!("smallest script, {} operations:", script.len());
            for (at, op) in &script {
                println!("{at:>8} ms  {op:?}");
            }
            if options.trace {
                print!("{}", run_script(swarm, seed, script, true).trace);
            }
        }
    }
    println!("digest={:016x} steps={}", outcome.digest, outcome.steps);
    outcome.violation.is_none()
}

#[derive(Default)]
struct Totals {
    runs: u64,
    steps: u64,
    simulated: u64,
    exempt: u64,
    owed: (u64, u64),
    converged: Vec<u64>,
    marks: BTreeMap<&'static str, u64>,
    failures: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.simulated += outcome.simulated;
        self.exempt += u64::from(outcome.exempt);
        self.converged.extend(outcome.converged);
        self.owed.0 += outcome.owed.0;
        self.owed.1 += outcome.owed.1;
        for (name, count) in outcome.marks {
            *self.marks.entry(name).or_default() += count;
        }
        if let Some(violation) = outcome.violation {
            self.failures.push((outcome.seed, violation.to_string()));
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.simulated += other.simulated;
        self.exempt += other.exempt;
        self.converged.extend(other.converged);
        self.owed.0 += other.owed.0;
        self.owed.1 += other.owed.1;
        for (name, count) in other.marks {
            *self.marks.entry(name).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    fn hours(&self) -> f64 {
        self.simulated as f64 / 3.6e9
    }

    fn line(&self) -> String {
        format!(
            "seeds={} steps={} simulated_hours={:.1} violations={}",
            self.runs,
            self.steps,
            self.hours(),
            self.failures.len()
        )
    }
}

fn sweep(suite: Suite, options: &Options) -> (Totals, bool) {
    let started = Instant::now();
    let (threads, twice) = (options.threads, options.double_check);
    let mut seeds = options.seeds.clone();
    if suite == Suite::Siege && options.what == "all" {
        // Its runs are the longest by far.
        seeds.end = seeds.start + (seeds.end - seeds.start) / 4;
    }
    let mut totals = Totals::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mut totals = Totals::default();
                    for seed in seeds.filter(|seed| seed % threads == part) {
                        let mut outcome = run(suite, seed, false);
                        if twice && run(suite, seed, false).digest != outcome.digest {
                            outcome.violation = Some(chat_testkit::oracle::Violation::new(
                                "determinism",
                                "two runs of one seed differ",
                            ));
                        }
                        totals.add(outcome);
                    }
                    totals
                })
            })
            .collect();
        for part in parts {
            totals.merge(part.join().expect("a run that panics has printed why"));
        }
    });
    totals.failures.sort();
    totals.converged.sort_unstable();
    let passed = report(suite, options, &totals, started);
    (totals, passed)
}

fn report(suite: Suite, options: &Options, totals: &Totals, started: Instant) -> bool {
    let name = suite.name();
    for (seed, violation) in totals.failures.iter().take(FAILURES_SHOWN) {
        println!("seed {seed}: {violation}");
        println!("  {}", Swarm::new(suite, *seed));
        println!(
            "  cargo run --release -p chat-testkit --bin sim -- {name} --replay {seed} --trace"
        );
    }
    println!("{name} marks:");
    for (mark, count) in &totals.marks {
        println!("  {count:>10} {mark}");
    }
    let required = REQUIRED_MARKS
        .iter()
        .filter(|(of, _)| *of == suite)
        .flat_map(|(_, m)| *m);
    let mut empty: Vec<_> = required
        .filter(|mark| !totals.marks.contains_key(**mark))
        .collect();
    let enough = options.seeds.end.saturating_sub(options.seeds.start) >= SEEDS_FOR_MARKS;
    if !enough {
        empty.clear();
    }
    for mark in &empty {
        println!("never reached: {mark}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let (owed, missing) = totals.owed;
    let at = |per_cent: usize| {
        let last = totals.converged.len().saturating_sub(1);
        let ms = totals.converged.get(last * per_cent / 100);
        ms.map_or(0.0, |ms| *ms as f64 / 1_000.0)
    };
    println!(
        "{name}: converged={} p50={:.1} s p99={:.1} s max={:.1} s",
        totals.converged.len(),
        at(50),
        at(99),
        at(100)
    );
    println!(
        "{name}: messages_owed={owed} exempt={missing} ({:.2} %)",
        100.0 * missing as f64 / owed.max(1) as f64
    );
    println!(
        "{name}: exempt_runs={} seconds={seconds:.1} seeds_per_second={:.0} hours_per_second={:.1}",
        totals.exempt,
        totals.runs as f64 / seconds,
        totals.hours() / seconds,
    );
    println!("{}", totals.line());
    totals.failures.is_empty() && empty.is_empty()
}

fn planted(options: &Options) -> bool {
    let bugs: Vec<_> = BUGS
        .iter()
        .filter(|bug| options.bug.as_ref().is_none_or(|name| bug.name == name))
        .collect();
    let threads = options.threads as usize;
    let mut found: Vec<Caught> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let mine: Vec<_> = bugs.iter().skip(part).step_by(threads).collect();
                scope.spawn(move || mine.into_iter().map(|bug| hunt(**bug)).collect::<Vec<_>>())
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().expect("a run that panics has printed why"))
            .collect()
    });
    found.sort_by_key(|caught| (caught.bug.suite, caught.bug.name));
    let mut missed = 0;
    for caught in &found {
        let (suite, name, budget) = (caught.bug.suite.name(), caught.bug.name, caught.bug.budget);
        match caught.by {
            Some((seed, rule)) => println!("caught {name} ({suite}) by seed {seed}: {rule}"),
            None => {
                missed += 1;
                println!("MISSED {name} ({suite}) in {budget} seeds");
            }
        }
    }
    println!(
        "planted={} caught={} violations={missed}",
        found.len(),
        found.len() - missed
    );
    missed == 0 && !found.is_empty()
}

/// Every order of a few events, in small groups.
fn model(options: &Options) -> bool {
    let bug = options.bug.clone().map(|name| &*name.leak());
    let threads = options.threads as usize;
    let cases = cases(options.depth);
    let mut found: Vec<_> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let mine = cases.iter().enumerate().skip(part).step_by(threads);
                scope.spawn(move || {
                    probe::plant(bug);
                    let one = |(at, case): (usize, &Case)| {
                        let started = Instant::now();
                        let found = search(case);
                        (at, *case, found, started.elapsed().as_secs_f64())
                    };
                    mine.map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().expect("a search that panics has printed why"))
            .collect()
    });
    found.sort_by_key(|(at, ..)| *at);
    let (mut states, mut events, mut violations) = (0, 0, 0);
    for (_, case, found, seconds) in &found {
        println!(
            "{case}: states={} events={} seconds={seconds:.1}",
            found.states, found.events
        );
        states += found.states;
        events += found.events;
        if let Some((violation, path)) = &found.violation {
            violations += 1;
            println!("  {violation}");
            for act in path {
                println!("    {act:?}");
            }
        }
    }
    println!("model: states={states} events={events} violations={violations}");
    violations == 0
}

/// What a group of 10, 100 and 1,000 members costs.
fn scales() -> bool {
    for members in [10, 100, 1_000] {
        let scale = scale(members);
        for (what, cost) in &scale.costs {
            println!(
                "members={members} {what}: frames={} sent={} received={} steps={}",
                cost.frames, cost.sent, cost.received, cost.steps
            );
        }
    }
    true
}
