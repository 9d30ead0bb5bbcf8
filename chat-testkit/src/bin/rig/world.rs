//! A broker, its clients behind bad lines, and a history of what happens to them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use chat_testkit::broker::Broker;
use chat_testkit::proxy::{Line, Proxy};
use chat_testkit::rig::{Note, Verdict, check};
use chat_testkit::sim::Draw;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::Options;
use super::cell::{Cell, Setup, Variant};
use super::crew::{Mate, peak_memory};
use super::log::Shared;

/// For everybody to come up, to agree, or to answer.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) type Failure = Box<dyn std::error::Error>;

pub(super) struct World {
    pub(super) broker: Broker,
    /// Another broker that half of the clients use, and the line between the two.
    pub(super) bridged: Option<(Broker, Proxy)>,
    pub(super) mates: Vec<Mate>,
    /// One before each client.
    pub(super) proxies: Vec<Proxy>,
    pub(super) log: Shared,
    pub(super) draw: Draw,
    pub(super) broker_kills: u64,
    pub(super) client_kills: u64,
    /// Microseconds until everybody who was left saw a new leader.
    pub(super) failovers: Vec<u64>,
    /// The group, as clients are told it.
    pub(super) group: String,
    broker_peak: u64,
    /// For everybody to hear something new once a fault is over, and for everything to arrive at
    /// the end.
    pub(super) patience: Duration,
    cell: Cell,
    folder: TempDir,
}

/// What a world came to.
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) broker_kills: u64,
    pub(super) client_kills: u64,
    /// Microseconds until everybody who was left saw a new leader.
    pub(super) failovers: Vec<u64>,
    /// The most memory of the broker and of one client, in KiB.
    pub(super) memory: (u64, u64),
    /// Why it could not be brought to its end.
    pub(super) failed: Option<String>,
}

impl World {
    /// Clients of these names, each in a chat with each other and all in one group.
    pub(super) fn start(
        variant: Variant,
        setup: Setup,
        names: &[&str],
        options: &Options,
        draw: Draw,
        runtime: &Handle,
    ) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("chat-rig-").tempdir()?;
        let cell = Cell::new(variant, setup);
        let broker = cell.start()?;
        let log = Shared::default();
        let mut mates = Vec::new();
        let mut proxies = Vec::new();
        let bridged = if setup == Setup::Bridged {
            let line = runtime.block_on(Proxy::start(broker.address()))?;
            Some((cell.start_bridged(line.address())?, line))
        } else {
            None
        };
        for (at, name) in names.iter().enumerate() {
            let other = bridged.as_ref().filter(|_| at % 2 == 1);
            let nearest = other.map_or(broker.address(), |(other, _)| other.address());
            let proxy = runtime.block_on(Proxy::start(nearest))?;
            let url = cell.url(proxy.address());
            let mut mate = Mate::new(name, url, folder.path().to_owned(), log.clone());
            mate.flaws = options.flaws.clone();
            mate.far = other.is_some();
            mate.start()?;
            mates.push(mate);
            proxies.push(proxy);
        }
        let mut world = Self {
            broker,
            bridged,
            mates,
            proxies,
            log,
            draw,
            broker_kills: 0,
            client_kills: 0,
            failovers: Vec::new(),
            group: String::new(),
            broker_peak: 0,
            patience: options.patience,
            cell,
            folder,
        };
        if let Err(error) = world.introduce() {
            return Err(format!("{error}\n{}", world.complaints()).into());
        }
        Ok(world)
    }

    fn introduce(&mut self) -> Result<(), Failure> {
        let count = self.mates.len();
        self.log.wait("everybody up", ANSWER, |log| {
            log.clients.values().filter(|known| known.up).count() == count
        })?;
        self.mates[0].order("create");
        let first = self.mates[0].name.clone();
        let mut group = None;
        self.log.wait("a group", ANSWER, |log| {
            group = log
                .clients
                .get(&first)
                .and_then(|known| known.group.clone());
            group.is_some()
        })?;
        let group = group.expect("it was waited for");
        self.group.clone_from(&group);
        for at in 1..count {
            self.mates[at].order(&format!("join {group}"));
            for peer in 0..at {
                let peer = self.mates[peer].name.clone();
                self.mates[at].order(&format!("ask {peer}"));
            }
        }
        self.log
            .wait("everybody in every conversation", ANSWER, |log| {
                log.clients.values().all(|known| {
                    let full = known.convs.values().filter(|members| **members == count);
                    known.convs.len() == count && full.count() > 0
                })
            })?;
        Ok(())
    }

    /// One more client, who only looks on; it reaches the broker at the far end of a bridge.
    pub(super) fn add_guest(&mut self, name: &str) -> Result<&mut Mate, Failure> {
        let far = self.bridged.as_ref().map(|(other, _)| other.address());
        let url = self.cell.url(far.unwrap_or_else(|| self.broker.address()));
        let folder = self.folder.path().to_owned();
        let mut mate = Mate::new(name, url, folder, self.log.clone());
        mate.far = far.is_some();
        mate.start()?;
        self.log.wait("a guest up", ANSWER, |log| {
            log.clients.get(name).is_some_and(|known| known.up)
        })?;
        self.mates.push(mate);
        Ok(self.mates.last_mut().expect("it was just added"))
    }

    /// Everybody talks, with this pause between two messages.
    pub(super) fn talk(&mut self, pause: Duration) {
        for mate in &mut self.mates {
            mate.talk(pause);
        }
    }

    /// A fault that concerned everybody is over; returns when everybody heard something new.
    pub(super) fn recover(&mut self) -> Result<(), Failure> {
        let over = self.log.note("rig", Note::Over);
        let heard = self
            .log
            .wait("hearing something new", self.patience, |log| {
                log.all_heard_since(over)
            });
        Ok(heard?)
    }

    pub(super) fn all_lines(&self, line: Line) {
        for proxy in &self.proxies {
            proxy.set(line);
        }
    }

    /// A pause between these many milliseconds.
    pub(super) fn pause(&mut self, low: u64, high: u64) {
        let micros = self.draw.range(low * 1_000, high * 1_000);
        std::thread::sleep(Duration::from_micros(micros));
    }

    pub(super) fn kill_broker(&mut self) {
        self.weigh();
        self.broker.kill();
        self.broker_kills += 1;
    }

    fn weigh(&mut self) {
        let memory = self.broker.pid().map_or(0, peak_memory);
        self.broker_peak = self.broker_peak.max(memory);
    }

    /// Lets everything arrive, has the timelines shown, and judges.
    pub(super) fn finish(mut self, failed: Option<String>, history: &Path) -> Outcome {
        let ended = match failed {
            Some(failed) => Err(failed.into()),
            None => self.settle(),
        };
        let failed = ended
            .err()
            .map(|error| format!("{error}\n{}", self.complaints()));
        self.weigh();
        for mate in &mut self.mates {
            mate.kill();
        }
        let entries = self.log.lock().history();
        let verdict = check(&entries);
        let mut failed = failed;
        if failed.is_some() || !verdict.is_clean() {
            let mut text = String::new();
            for entry in &entries {
                writeln!(text, "{entry}").expect("strings take everything");
            }
            let written = std::fs::write(history, text);
            let said = written.map_or_else(
                |error| format!("no history: {error}"),
                |()| format!("history: {}", history.display()),
            );
            failed = Some(failed.map_or(said.clone(), |why| format!("{why}\n{said}")));
        }
        let clients = self.mates.iter().map(|mate| mate.peak).max();
        Outcome {
            verdict,
            broker_kills: self.broker_kills,
            client_kills: self.client_kills,
            failovers: self.failovers,
            memory: (self.broker_peak, clients.unwrap_or_default()),
            failed,
        }
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.talk(Duration::ZERO);
        // Whoever stopped by itself goes on; nobody may stay away from the end.
        for mate in &mut self.mates {
            if mate.has_ended() {
                mate.kill();
                mate.start()?;
            }
        }
        // A client that is told to be silent may just have begun a message: quiet must last.
        let deadline = Instant::now() + self.patience;
        let mut before = usize::MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.log
                .wait("everything arriving", left, super::log::Log::is_quiet)?;
            let lines = self.log.lock().entries.len();
            if lines == before {
                break;
            }
            before = lines;
            std::thread::sleep(Duration::from_millis(200));
        }
        for mate in &mut self.mates {
            mate.order("show");
        }
        self.log.wait("every timeline", ANSWER, |log| {
            log.clients.values().all(|known| known.shown > 0)
        })?;
        Ok(())
    }

    /// What the processes wrote beside their histories, and what is missing.
    fn complaints(&self) -> String {
        let mut text = format!("the broker's log ends:\n{}\n", tail(&self.broker.log()));
        for mate in &self.mates {
            let errors = mate.folder.join(format!("{}.err", mate.name));
            let errors = std::fs::read_to_string(errors).unwrap_or_default();
            if !errors.is_empty() {
                text.push_str(&format!("{} wrote:\n{}\n", mate.name, tail(&errors)));
            }
        }
        let log = self.log.lock();
        let owed: Vec<_> = log.owed.iter().take(10).collect();
        text.push_str(&format!("{} messages are owed: {owed:?}\n", log.owed.len()));
        for (name, known) in &log.clients {
            let doubtful: Vec<_> = known.doubtful.iter().take(5).collect();
            let (up, next, convs) = (known.up, known.next, &known.convs);
            text.push_str(&format!(
                "{name}: up {up}, next {next}, doubtful {doubtful:?}, {convs:?}\n"
            ));
        }
        text
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
