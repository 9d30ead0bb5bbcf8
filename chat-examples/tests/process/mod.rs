//! The demo as a child process, for the tests that kill it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The demo as a child process; killed when dropped.
pub(crate) struct Demo {
    child: Child,
    /// Where its page is.
    pub(crate) url: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Demo {
    /// With more arguments or variables than these.
    pub(crate) fn start(
        state: &Path,
        port: u16,
        more: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        for variable in ["BROKER_URL", "BROKER_HOST", "BROKER_PORT"] {
            command.env_remove(variable);
        }
        command
            .args(["--port", &port.to_string(), "--state"])
            .arg(state);
        let mut child = more(&mut command)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let stdout = child.stdout.take().expect("it is piped");
        let line = BufReader::new(stdout)
            .lines()
            .next()
            .expect("the demo says where it is")
            .expect("in UTF-8");
        let url = line
            .split_whitespace()
            .find(|word| word.starts_with("http"))
            .expect("a URL");
        Self {
            url: url.to_owned(),
            child,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        let port = self.url.trim_end_matches('/').rsplit(':').next();
        port.and_then(|port| port.parse().ok()).expect("a port")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // It may be dead already; it must be reaped either way.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
