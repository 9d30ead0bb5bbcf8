//! Mosquitto, with a configuration of its own.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{BrokerError, Place, Recipe, find, quoted};

/// A mosquitto to be started. Without options it is what upstream ships, open to everybody:
/// nothing is kept on disk, and 1,000 messages for a session that is away.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Mosquitto {
    options: String,
    acl: Option<String>,
    websockets: Option<u16>,
    carrier: Carrier,
    bridges: Vec<Bridge>,
}

#[derive(Clone, Debug, Default)]
enum Carrier {
    #[default]
    Tcp,
    Tls {
        certificate: PathBuf,
        key: PathBuf,
    },
    WebSocket,
}

/// A bridge to another mosquitto: everything below `prefix` in both directions.
#[derive(Clone, Debug)]
#[must_use]
pub struct Bridge {
    to: SocketAddr,
    prefix: String,
}

impl Bridge {
    /// To the broker at `to`, or a proxy before it, for topics that start with `prefix/`.
    pub fn new(to: SocketAddr, prefix: &str) -> Self {
        Self {
            to,
            prefix: prefix.to_owned(),
        }
    }
}

impl Mosquitto {
    /// One with the options of upstream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line to the general part of its configuration, as `max_queued_messages 0`.
    pub fn option(mut self, line: &str) -> Self {
        self.options.push_str(line);
        self.options.push('\n');
        self
    }

    /// Writes every change to disk at once: what it acknowledged survives `kill -9`.
    pub fn persistent(self) -> Self {
        self.option("persistence true")
            .option("autosave_on_changes true")
            .option("autosave_interval 1")
    }

    /// Access rules, in the format of an ACL file. Users are believed without a password.
    pub fn acl(mut self, rules: &str) -> Self {
        self.acl = Some(rules.to_owned());
        self
    }

    /// MQTT over WebSocket too, on `port` of the loopback interface.
    pub fn websockets(mut self, port: u16) -> Self {
        self.websockets = Some(port);
        self
    }

    /// TLS instead of plain TCP, with this certificate and its key.
    pub fn tls(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (certificate, key) = (certificate.into(), key.into());
        self.carrier = Carrier::Tls { certificate, key };
        self
    }

    /// MQTT over WebSocket instead of plain TCP.
    pub fn over_websockets(mut self) -> Self {
        self.carrier = Carrier::WebSocket;
        self
    }

    /// Connects it to another one.
    pub fn bridge(mut self, bridge: Bridge) -> Self {
        self.bridges.push(bridge);
        self
    }

    fn config(&self, place: &Place) -> String {
        let mut text = format!(
            "user root\nallow_anonymous true\nlog_dest stderr\npersistence_location {}/\n{}",
            quoted(&place.data),
            self.options
        );
        let mut line = |line: core::fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("strings take everything");
        };
        if self.acl.is_some() {
            line(format_args!("acl_file {}", quoted(&acl_file(place))));
        }
        let mut websockets = |port: u16| {
            // Such a listener minds no address, only an interface.
            line(format_args!("listener {port}\nbind_interface lo"));
            line(format_args!("protocol websockets"));
        };
        if let Some(port) = self.websockets {
            websockets(port);
        }
        match &self.carrier {
            Carrier::Tcp => line(format_args!("listener {} 127.0.0.1", place.port)),
            Carrier::WebSocket => {
                websockets(place.port);
                // It does not start with that alone.
                let unused = quoted(&place.home.join("unused"));
                line(format_args!("listener 0 {unused}"));
            }
            Carrier::Tls { certificate, key } => {
                line(format_args!("listener {} 127.0.0.1", place.port));
                let (certificate, key) = (quoted(certificate), quoted(key));
                line(format_args!("certfile {certificate}\nkeyfile {key}"));
            }
        }
        for (n, Bridge { to, prefix }) in self.bridges.iter().enumerate() {
            line(format_args!("connection bridge-{}-{n}", place.port));
            line(format_args!("address {to}\ntopic {prefix}/# both 1"));
            line(format_args!("cleansession false\nrestart_timeout 1"));
            line(format_args!("notifications false\ntry_private true"));
        }
        text
    }
}

fn acl_file(place: &Place) -> PathBuf {
    place.home.join("acl")
}

impl Recipe for Mosquitto {
    fn program(&self) -> Result<PathBuf, BrokerError> {
        find("mosquitto", "CHAT_MOSQUITTO", "mosquitto")
    }

    fn arguments(&self, place: &Place) -> std::io::Result<Vec<OsString>> {
        if let Some(rules) = &self.acl {
            std::fs::write(acl_file(place), rules)?;
        }
        let file = place.home.join("mosquitto.conf");
        std::fs::write(&file, self.config(place))?;
        Ok(vec!["-c".into(), file.into()])
    }

    fn ready_line(&self) -> &str {
        " running"
    }
}
