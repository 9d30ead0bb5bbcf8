//! nats-server, with a configuration of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{BrokerError, Place, Recipe, find, quoted};

/// A nats-server to be started. Without options it is core NATS: nothing is kept.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct NatsServer {
    program: Option<PathBuf>,
    jetstream: bool,
    options: String,
}

impl NatsServer {
    /// Core NATS, by the program that the environment variable `CHAT_NATS_SERVER` names, or the
    /// one that is installed.
    pub fn new() -> Self {
        Self::default()
    }

    /// By this program.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// With JetStream, which stores in a folder of its own.
    pub fn jetstream(mut self) -> Self {
        self.jetstream = true;
        self
    }

    /// TLS instead of plain TCP; `extra` is more for that block, as `verify: true`.
    pub fn tls(self, certificate: &Path, key: &Path, root: &Path, extra: &str) -> Self {
        let [certificate, key, root] = [certificate, key, root].map(quoted);
        self.option(&format!(
            "tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", ca_file: \"{root}\", {extra} }}"
        ))
    }

    /// Adds lines to its configuration, as `max_payload: 65536` or an `authorization` block.
    pub fn option(mut self, lines: &str) -> Self {
        self.options.push_str(lines);
        self.options.push('\n');
        self
    }
}

impl Recipe for NatsServer {
    fn program(&self) -> Result<PathBuf, BrokerError> {
        let installed = || find("nats-server", "CHAT_NATS_SERVER", "nats-server");
        self.program.clone().map_or_else(installed, Ok)
    }

    fn arguments(&self, place: &Place) -> std::io::Result<Vec<OsString>> {
        let mut text = format!("listen: \"127.0.0.1:{}\"\n{}", place.port, self.options);
        if self.jetstream {
            let folder = quoted(&place.data);
            text.push_str(&format!("jetstream {{ store_dir: \"{folder}\" }}\n"));
        }
        let file = place.home.join("nats.conf");
        std::fs::write(&file, text)?;
        Ok(vec!["-c".into(), file.into()])
    }

    fn ready_line(&self) -> &str {
        "Server is ready"
    }
}
