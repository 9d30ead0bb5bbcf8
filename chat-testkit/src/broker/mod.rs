//! Real brokers for tests: each in a process, a folder and on a port of its own.
//!
//! Guarantees: [`Broker::start`] returns when the broker answers, or fails with its log; a missing
//! program fails with the command that installs it; a broker dies with the process that started it,
//! also when that is killed with `kill -9`; no port is used that may serve somebody else.
//!
//! Every call blocks for some tens of milliseconds at most, or until its deadline.
//!
//! ```no_run
//! use chat_testkit::broker::{Broker, Memory, Mosquitto};
//!
//! let mut broker = Broker::start(Mosquitto::new()).expect("mosquitto");
//! println!("mqtt://{}", broker.address());
//! broker.kill();
//! broker.restart(Memory::Lost).expect("the same port again");
//! ```

mod find;
mod mosquitto;
mod nats;
mod process;
#[cfg(test)]
mod real_broker;

pub use find::find;
pub use mosquitto::{Bridge, Mosquitto};
pub use nats::NatsServer;
pub use process::signal;

use core::fmt;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use process::Process;
use tempfile::TempDir;

/// How long a broker may take to answer, and to go after a signal.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How often what cannot be waited for is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// Ports below those that the system hands out by itself: nobody's outgoing connection takes the
/// port of a broker while it is down.
const PORTS: core::ops::Range<u16> = 12_000..32_000;
/// How long a port may stay taken after its broker was killed.
const TAKEN: Duration = Duration::from_secs(1);
/// How many ports are tried for a new broker.
const TRIES: u32 = 8;

/// Why a broker does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// It is not installed.
    #[error("{program} is not installed. Type:  {install}")]
    Missing {
        /// Its name.
        program: String,
        /// The command to type.
        install: String,
    },
    /// It ended by itself, or did not answer in time.
    #[error("{program} {what}; its log:\n{log}")]
    NotReady {
        /// What was started.
        program: String,
        /// What it did instead.
        what: String,
        /// What it wrote.
        log: String,
    },
    /// A file or a process could not be made.
    #[error("cannot prepare a broker: {0}")]
    Io(#[from] std::io::Error),
}

/// Where a broker lives.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its folder: configuration and log.
    pub home: PathBuf,
    /// What it remembers; always there, [`Memory::Lost`] empties it.
    pub data: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

/// How to run a kind of broker.
pub trait Recipe: fmt::Debug + Send + 'static {
    /// The program.
    ///
    /// # Errors
    /// [`BrokerError::Missing`].
    fn program(&self) -> Result<PathBuf, BrokerError>;

    /// Its arguments, after writing what configuration it needs.
    ///
    /// # Errors
    /// Whatever the files said.
    fn arguments(&self, place: &Place) -> std::io::Result<Vec<OsString>>;

    /// Part of a line which it writes once it listens.
    fn ready_line(&self) -> &str;
}

/// What a broker still knows after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// What it had written to disk.
    Kept,
    /// Nothing: as after the loss of its disk.
    Lost,
}

/// A running broker. It is killed when dropped, and its folder goes with it.
#[derive(Debug)]
pub struct Broker {
    process: Option<Process>,
    recipe: Box<dyn Recipe>,
    place: Place,
    file_limit: Option<u64>,
    // Last: the process must be gone before its folder.
    _home: TempDir,
}

impl Broker {
    /// Starts a broker on a free port.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub fn start(recipe: impl Recipe) -> Result<Self, BrokerError> {
        let home = tempfile::Builder::new().prefix("chat-broker-").tempdir()?;
        let place = Place {
            home: home.path().to_owned(),
            data: home.path().join("data"),
            port: 0,
        };
        let mut broker = Self {
            process: None,
            recipe: Box::new(recipe),
            place,
            file_limit: None,
            _home: home,
        };
        let mut tries = 0;
        loop {
            tries += 1;
            broker.place.port = free_port()?;
            match broker.launch(Instant::now() + DEADLINE) {
                // Somebody else may have taken the port meanwhile.
                Err(BrokerError::NotReady { .. }) if tries < TRIES => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(broker),
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.place.port).into()
    }

    /// Where it lives.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// `kill -9`; returns when it is gone. Does nothing when it does not run.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end in good order and waits for that; kills it when it does not obey.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(Instant::now() + DEADLINE);
        }
    }

    /// Lets it stand still (SIGSTOP): its connections stay open and nothing moves. Returns when all
    /// its threads stand, where the system tells.
    ///
    /// # Errors
    /// When the signal could not be sent, or some thread still runs after a while.
    pub fn freeze(&self) -> std::io::Result<()> {
        self.signal("STOP")?;
        let end = Instant::now() + DEADLINE;
        while !self.pid().is_none_or(stands_still) {
            if Instant::now() > end {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When the signal could not be sent.
    pub fn thaw(&self) -> std::io::Result<()> {
        self.signal("CONT")
    }

    /// Kills it if it runs, and starts it again on the same port.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub fn restart(&mut self, memory: Memory) -> Result<(), BrokerError> {
        self.kill();
        if memory == Memory::Lost {
            std::fs::remove_dir_all(&self.place.data)?;
        }
        let again = Instant::now() + TAKEN;
        loop {
            match self.launch(Instant::now() + DEADLINE) {
                Err(BrokerError::NotReady { .. }) if Instant::now() < again => {}
                done => return done,
            }
        }
    }

    /// From its next start on, no file of it can grow beyond so many KiB: as on a full disk,
    /// writing fails. `None` takes the limit away.
    pub fn limit_files(&mut self, kib: Option<u64>) {
        self.file_limit = kib;
    }

    /// Its process id; none when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// What it wrote since it was last started.
    pub fn log(&self) -> String {
        log_of(&self.place)
    }

    fn signal(&self, name: &str) -> std::io::Result<()> {
        let pid = self.pid();
        signal(
            pid.ok_or_else(|| std::io::Error::other("it does not run"))?,
            name,
        )
    }

    /// Starts the program and waits until it listens.
    fn launch(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        std::fs::create_dir_all(&self.place.data)?;
        let program = self.recipe.program()?;
        let arguments = self.recipe.arguments(&self.place)?;
        let log = std::fs::File::create(log_file(&self.place))?;
        let mut process = Process::start(&program, &arguments, log, self.file_limit)?;
        let failed = |what: String, place: &Place| BrokerError::NotReady {
            program: program.display().to_string(),
            what,
            log: log_of(place),
        };
        loop {
            // Its own word comes first: who answers on the port may be somebody else.
            let says = log_of(&self.place).contains(self.recipe.ready_line());
            if says && TcpStream::connect(self.address()).is_ok() {
                self.process = Some(process);
                return Ok(());
            }
            if let Some(status) = process.ended()? {
                return Err(failed(format!("ended with {status}"), &self.place));
            }
            if Instant::now() >= deadline {
                return Err(failed("did not answer in time".to_owned(), &self.place));
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn log_file(place: &Place) -> PathBuf {
    place.home.join("log")
}

fn log_of(place: &Place) -> String {
    let bytes = std::fs::read(log_file(place)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A path in a configuration file.
fn quoted(path: &Path) -> String {
    path.display().to_string()
}

/// A port of 127.0.0.1 on which nobody listens now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> std::io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(7_919) % u32::from(count);
    let first = u16::try_from(first).expect("less than the number of ports");
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % count;
        let port = PORTS.start + (first + step) % count;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(std::io::Error::other("no port is free"))
}
/// True when every thread of a process is stopped, or where the system does not tell.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        // A thread that is gone by now does not run either.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with('T'))
    })
}
