//! A program that does not outlive the one that started it.
//!
//! The program is started through `sh`, which leaves a watcher behind and then becomes the
//! program, so that its process id is the child's. The watcher blocks on a pipe that only we hold:
//! a line means that the program is gone, the end of the pipe that we are, and then it kills.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Instant;

use super::LOOK;

const SCRIPT: &str = r#"exec 3<&0
if [ -n "$LIMIT" ]; then trap '' XFSZ; ulimit -f "$LIMIT"; fi
unset LIMIT
{ read gone <&3 || kill -9 $$; } >/dev/null 2>&1 &
exec "$0" "$@" </dev/null 3<&-"#;

/// Sends a signal, as `STOP`, to a process. Send it to children that were not waited for: their
/// numbers are still their own.
///
/// # Errors
/// When it could not be sent.
pub fn signal(pid: u32, name: &str) -> std::io::Result<()> {
    let mut kill = Command::new("sh");
    kill.args(["-c", r#"kill -s "$0" "$1""#, name]);
    if kill.arg(pid.to_string()).status()?.success() {
        return Ok(());
    }
    Err(std::io::Error::other(format!("no {name} for {pid}")))
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    leash: Option<ChildStdin>,
}

impl Process {
    pub(super) fn start(
        program: &Path,
        arguments: &[OsString],
        log: File,
        limit: Option<u64>,
    ) -> std::io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(program)
            .args(arguments)
            // In blocks of 512 bytes.
            .env(
                "LIMIT",
                limit.map_or_else(String::new, |kib| (2 * kib).to_string()),
            )
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let leash = child.stdin.take();
        Ok(Self { child, leash })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks it to end and waits; whoever has not obeyed by `deadline` is killed.
    pub(super) fn end(mut self, deadline: Instant) {
        if signal(self.pid(), "TERM").is_err() {
            return;
        }
        while Instant::now() < deadline && matches!(self.ended(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already; it must be reaped either way.
        self.child.kill().ok();
        self.child.wait().ok();
        // The watcher may be gone too.
        if let Some(mut leash) = self.leash.take() {
            leash.write_all(b"gone\n").ok();
        }
    }
}
