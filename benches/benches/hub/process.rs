//! A hub in a process of its own: its CPU time and memory are nobody else's.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running hub; dropping it ends the process.
pub(crate) struct Hub {
    child: Child,
    address: SocketAddr,
}

impl Hub {
    /// Starts this binary as `server`, for so many connections.
    pub(crate) fn start(server: &str, connections: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("we run"))
            .args(["serve", server, &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary starts again");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("the hub says where it listens");
        Self {
            child,
            address: line.trim().parse().expect("an address"),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It ends when its input does; waiting keeps the next measurement free of it.
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("a hub did not end: {error}");
        }
    }
}

/// CPU time of all threads of a process.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let nanos = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .map(|stat| {
            let first = stat.split_whitespace().next();
            first.and_then(|ns| ns.parse::<u64>().ok()).expect("ns")
        })
        .sum();
    Duration::from_nanos(nanos)
}
