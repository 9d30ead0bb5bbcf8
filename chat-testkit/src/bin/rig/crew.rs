//! The client processes of a world.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use chat_testkit::broker::signal;
use chat_testkit::rig::{Entry, Note};

use super::Flaws;
use super::log::Shared;

/// One client: its process may come and go, its store stays.
#[derive(Debug)]
pub(super) struct Mate {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) folder: PathBuf,
    pub(super) flaws: Flaws,
    pub(super) pause: Duration,
    /// At the other of two bridged brokers.
    pub(super) far: bool,
    /// The most memory that any life of it used, in KiB.
    pub(super) peak: u64,
    log: Shared,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    child: Child,
    orders: ChildStdin,
    reader: JoinHandle<()>,
}

impl Mate {
    pub(super) fn new(name: &str, url: String, folder: PathBuf, log: Shared) -> Self {
        Self {
            name: name.to_owned(),
            url,
            folder,
            flaws: Flaws::default(),
            pause: Duration::ZERO,
            far: false,
            peak: 0,
            log,
            life: None,
        }
    }

    /// Starts its process; it goes on where the last one ended.
    pub(super) fn start(&mut self) -> std::io::Result<()> {
        let (next, doubtful) = {
            let mut log = self.log.lock();
            let known = log.known(&self.name);
            let doubtful = known.doubtful.iter();
            let doubtful: Vec<_> = doubtful.map(|(n, conv)| format!("{conv}:{n}")).collect();
            (known.next, doubtful.join(","))
        };
        let errors = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{}.err", self.name)))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["client", &self.name, &self.url])
            .arg(&self.folder)
            .args([next.to_string(), doubtful])
            .arg(self.pause.as_micros().to_string())
            .arg(self.flaws.bug.as_deref().unwrap_or_default())
            .arg(self.flaws.vice.as_deref().unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut child = command.spawn()?;
        let orders = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let (log, name) = (self.log.clone(), self.name.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                hear(&log, &name, &line);
            }
        });
        self.life = Some(Life {
            child,
            orders,
            reader,
        });
        Ok(())
    }

    /// `kill -9`; returns when all that it said is in the log.
    pub(super) fn kill(&mut self) {
        self.weigh();
        if let Some(mut life) = self.life.take() {
            // It may be dead already; it must be reaped either way.
            life.child.kill().ok();
            life.child.wait().ok();
            life.reader.join().expect("the reader only reads");
        }
    }

    /// Tells it something; a process that just died does not hear it.
    pub(super) fn order(&mut self, line: &str) {
        if let Some(life) = &mut self.life {
            writeln!(life.orders, "{line}").ok();
        }
    }

    /// How fast it talks from now on, also in later lives.
    pub(super) fn talk(&mut self, pause: Duration) {
        self.pause = pause;
        self.order(&format!("pause {}", pause.as_micros()));
    }

    /// Sends its process a signal.
    pub(super) fn signal(&self, name: &str) -> std::io::Result<()> {
        let life = self.life.as_ref();
        let life = life.ok_or_else(|| std::io::Error::other("it does not run"))?;
        signal(life.child.id(), name)
    }

    /// True when its process has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        let life = self.life.as_mut();
        life.is_none_or(|life| matches!(life.child.try_wait(), Ok(Some(_))))
    }

    /// Takes note of its memory.
    pub(super) fn weigh(&mut self) {
        if let Some(life) = &self.life {
            self.peak = self.peak.max(peak_memory(life.child.id()));
        }
    }
}

impl Drop for Mate {
    fn drop(&mut self) {
        self.kill();
    }
}

fn hear(log: &Shared, name: &str, line: &str) {
    if let Some(answer) = line.strip_prefix("# ") {
        log.change(|log| {
            let known = log.known(name);
            match answer.split_once(' ') {
                Some(("group", group)) => known.group = Some(group.to_owned()),
                _ => known.shown += 1,
            }
        });
        return;
    }
    // A line that a kill cut short says nothing.
    let Some((at, note)) = line.split_once(' ') else {
        return;
    };
    let (Ok(at), Ok(note)) = (at.parse(), note.parse::<Note>()) else {
        return;
    };
    log.change(|log| {
        log.add(Entry {
            at,
            who: name.to_owned(),
            note,
        });
    });
}

/// The most memory that a process has used so far, in KiB; 0 where the system does not tell.
pub(super) fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    words.and_then(|word| word.parse().ok()).unwrap_or_default()
}
