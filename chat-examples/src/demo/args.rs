//! The demo's command line: few enough flags to read by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
Starts the demo: hub, store, web page and a bot in one process.

Usage: demo [--url URL] [--port N] [--state DIR] [--fresh]

  --url URL     chat over this broker instead of the hub inside: ws://host:port/path (another hub),
                mqtt://host:port (MQTT 5) or nats://host:port (NATS with JetStream). Demos that
                name the same broker meet there.
  --port N      listen on this port of 127.0.0.1; default 8080, or a free one when that is busy
  --state DIR   where messages, keys and mailboxes are kept; default target/demo
  --fresh       wipe that folder first
  --help        this text

Without --url: BROKER_URL, or else BROKER_HOST and BROKER_PORT (1883 and every other port is MQTT,
4222 is NATS), or else the hub inside.
";

/// A command line that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    /// A flag that is not known.
    #[error("unknown argument {0:?}; see --help")]
    Unknown(String),
    /// A flag without its value.
    #[error("{0} needs a value; see --help")]
    Missing(&'static str),
    /// A port that is no number.
    #[error("{0:?} is no port; give a number from 0 to 65535")]
    Port(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Args {
    /// Print [`HELP`].
    Help,
    /// Run.
    Run(Options),
}

/// How to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The broker to chat over.
    pub url: Option<String>,
    /// Asked for by name; taken as it is or not at all.
    pub port: Option<u16>,
    /// Where everything is kept.
    pub state: PathBuf,
    /// Wipe it first.
    pub fresh: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: None,
            port: None,
            state: PathBuf::from("target/demo"),
            fresh: false,
        }
    }
}

impl Options {
    /// The port tried first.
    pub const DEFAULT_PORT: u16 = 8080;

    /// The addresses to try, best first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ports = match self.port {
            Some(port) => vec![port],
            None => vec![Self::DEFAULT_PORT, 0],
        };
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        ports
            .into_iter()
            .map(|port| SocketAddr::new(here, port))
            .collect()
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// [`ArgsError`] names the argument that is wrong.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Args, ArgsError> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => return Ok(Args::Help),
            "--fresh" => options.fresh = true,
            "--port" => {
                let value = args.next().ok_or(ArgsError::Missing("--port"))?;
                options.port = Some(value.parse().map_err(|_| ArgsError::Port(value))?);
            }
            "--url" => {
                options.url = Some(args.next().ok_or(ArgsError::Missing("--url"))?);
            }
            "--state" => {
                let value = args.next().ok_or(ArgsError::Missing("--state"))?;
                options.state = PathBuf::from(value);
            }
            _ => return Err(ArgsError::Unknown(arg)),
        }
    }
    Ok(Args::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Args, ArgsError> {
        parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn flags_are_read_and_mistakes_are_named() {
        assert_eq!(run(&[]), Ok(Args::Run(Options::default())));
        assert_eq!(run(&["--help"]), Ok(Args::Help));
        let want = Options {
            url: Some("nats://b".into()),
            port: Some(0),
            state: "x".into(),
            fresh: true,
        };
        assert_eq!(
            run(&[
                "--fresh", "--url", "nats://b", "--port", "0", "--state", "x"
            ]),
            Ok(Args::Run(want))
        );
        assert_eq!(run(&["--port"]), Err(ArgsError::Missing("--port")));
        assert_eq!(
            run(&["--port", "70000"]),
            Err(ArgsError::Port("70000".into()))
        );
        assert_eq!(run(&["--nope"]), Err(ArgsError::Unknown("--nope".into())));
    }

    #[test]
    fn a_port_asked_for_is_taken_as_it_is() {
        let options = Options {
            port: Some(9),
            ..Options::default()
        };
        assert_eq!(options.addresses().len(), 1);
        assert_eq!(Options::default().addresses()[1].port(), 0);
    }
}
