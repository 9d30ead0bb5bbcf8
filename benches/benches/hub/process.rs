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

    /// CPU time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanos = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .map(|stat| {
                let first = stat.split_whitespace().next();
                first.and_then(|ns| ns.parse::<u64>().ok()).expect("ns")
            })
            .sum();
        Duration::from_nanos(nanos)
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
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
