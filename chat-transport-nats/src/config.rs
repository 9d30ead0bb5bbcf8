//! How to connect: addresses, credentials, names and limits.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::ServerAddr;
use chat_client::transport::{Capabilities, ConnectOptions, Connector, Transport, TransportError};

use crate::capabilities::{CORE, JETSTREAM};
use crate::connect;
use crate::subject::{PrefixError, Subjects};

/// Why a connector cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not `nats://host[:port]` or `tls://host[:port]`.
    #[error(
        "{url:?} is no address of a NATS server; write nats://host:port or tls://host:port, and \
         give credentials to the builder"
    )]
    Url {
        /// What was given.
        url: String,
    },
    /// The subject prefix is of no use.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// The inbox prefix is of no use.
    #[error("{prefix:?} cannot be an inbox prefix; use words of A-Z a-z 0-9 - _ = joined by dots")]
    Inbox {
        /// What was given.
        prefix: String,
    },
    /// A number is out of its range.
    #[error("{what}")]
    Limit {
        /// Which, and what it may be.
        what: &'static str,
    },
}

/// Who we are to the server.
#[derive(Clone)]
pub(crate) enum Login {
    Nobody,
    Token(String),
    Password(String, String),
    Seed(String),
    Credentials(String),
    CredentialsFile(PathBuf),
}

/// What JetStream keeps; used when the streams are created.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    pub(crate) provision: bool,
    pub(crate) mailbox: u32,
    pub(crate) age: Duration,
    pub(crate) replicas: usize,
    pub(crate) lease: Duration,
}

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) servers: Vec<String>,
    pub(crate) login: Login,
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) client_cert: Option<(PathBuf, PathBuf)>,
    pub(crate) inbox: Option<String>,
    pub(crate) subjects: Subjects,
    /// `None`: core only.
    pub(crate) jetstream: Option<Keeping>,
    pub(crate) resume: bool,
    pub(crate) deadline: Duration,
    pub(crate) ping: Duration,
}

/// What went by unseen on all connections of a connector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Messages on our subjects that this library did not write: dropped.
    pub foreign: u64,
    /// Times at which the server's messages came faster than they were read.
    pub overflows: u64,
}

/// What the connections of one connector share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) foreign: AtomicU64,
    pub(crate) overflows: AtomicU64,
    /// The newest revision of each device's session that this process has seen: an older one
    /// means that the server lost some, and the session cannot be trusted.
    sessions: Mutex<BTreeMap<String, u64>>,
    stood: Mutex<BTreeMap<String, Arc<Stood>>>,
}

/// Where the last connection of a device stood when it ended: the server may not know it yet. A
/// line that breaks again and again would otherwise be given the same frames for ever.
#[derive(Debug)]
pub(crate) struct Stood {
    /// Which log: when it was created.
    pub(crate) log: String,
    /// How far each channel is durable here, by path.
    pub(crate) cursors: BTreeMap<String, u64>,
    /// It ended before all that waited was read.
    pub(crate) behind: bool,
}

impl Shared {
    pub(crate) fn stood(&self, key: &str, log: &str) -> Option<Arc<Stood>> {
        let stood = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        stood.get(key).filter(|it| it.log == log).cloned()
    }

    pub(crate) fn stands(&self, key: &str, now: Stood) {
        let mut stood = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        stood.insert(key.to_owned(), Arc::new(now));
    }

    pub(crate) fn session_seen(&self, key: &str) -> u64 {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn saw_session(&self, key: &str, revision: u64) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(key.to_owned(), revision);
    }
}

/// Opens connections to NATS. Clones share their [`Counters`].
#[derive(Clone)]
pub struct NatsConnector {
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for NatsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials are secrets.
        f.debug_struct("NatsConnector")
            .field("servers", &self.config.servers)
            .field("prefix", &self.config.subjects)
            .field("jetstream", &self.config.jetstream)
            .finish_non_exhaustive()
    }
}

impl NatsConnector {
    /// A connector with JetStream for `nats://host[:port]` or `tls://host[:port]`, with everything
    /// else as [`Self::builder`] has it.
    ///
    /// # Errors
    /// [`ConfigError::Url`].
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// Everything that can be chosen.
    pub fn builder(url: &str) -> Builder {
        Builder {
            servers: vec![url.to_owned()],
            login: Login::Nobody,
            ca: Vec::new(),
            client_cert: None,
            inbox: None,
            prefix: "chat.v1".to_owned(),
            core_only: false,
            keeping: Keeping {
                provision: true,
                mailbox: 10_000,
                age: Duration::from_secs(14 * 24 * 3600),
                replicas: 1,
                lease: Duration::from_secs(15),
            },
            resume: true,
            deadline: Duration::from_secs(10),
            ping: Duration::from_secs(5),
        }
    }

    /// What went by unseen so far.
    pub fn counters(&self) -> Counters {
        Counters {
            foreign: self.shared.foreign.load(Ordering::Relaxed),
            overflows: self.shared.overflows.load(Ordering::Relaxed),
        }
    }
}

#[async_trait::async_trait]
impl Connector for NatsConnector {
    fn capabilities(&self) -> &'static Capabilities {
        match self.config.jetstream {
            Some(_) => &JETSTREAM,
            None => &CORE,
        }
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(connect::connect(self, &options).await?))
    }
}

/// Builds a [`NatsConnector`].
#[derive(Clone)]
#[must_use = "call `build`"]
pub struct Builder {
    servers: Vec<String>,
    login: Login,
    ca: Vec<PathBuf>,
    client_cert: Option<(PathBuf, PathBuf)>,
    inbox: Option<String>,
    prefix: String,
    core_only: bool,
    keeping: Keeping,
    resume: bool,
    deadline: Duration,
    ping: Duration,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials are secrets.
        f.debug_struct("Builder")
            .field("servers", &self.servers)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// One more server of the same cluster. Each connection tries them in a random order.
    pub fn server(mut self, url: &str) -> Self {
        self.servers.push(url.to_owned());
        self
    }

    /// Logs in with a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.login = Login::Token(token.into());
        self
    }

    /// Logs in with a name and a password.
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.login = Login::Password(user.into(), password.into());
        self
    }

    /// Logs in with the seed of an nkey (`SU…`).
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.login = Login::Seed(seed.into());
        self
    }

    /// Logs in with the text of a `.creds` file.
    pub fn credentials(mut self, text: impl Into<String>) -> Self {
        self.login = Login::Credentials(text.into());
        self
    }

    /// Logs in with a `.creds` file, read at every connect.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.login = Login::CredentialsFile(path.into());
        self
    }

    /// Trusts the certificates of this PEM file, and no longer those of the system.
    pub fn tls_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca.push(path.into());
        self
    }

    /// Shows this certificate to the server; both are PEM files.
    pub fn tls_client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client_cert = Some((certificate.into(), key.into()));
        self
    }

    /// Where answers come, instead of `_INBOX`. Give each user one of its own that only it may
    /// subscribe: under a common one everybody can read everybody's answers.
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox = Some(prefix.into());
        self
    }

    /// The front of all subjects, `chat.v1` unless set. It also names the streams.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Uses no JetStream: the server keeps nothing, see [`CORE`].
    pub fn core_only(mut self) -> Self {
        self.core_only = true;
        self
    }

    /// Never creates streams: somebody with the right to has done so. See
    /// [`design`](crate::design) for what they must be.
    pub fn without_provisioning(mut self) -> Self {
        self.keeping.provision = false;
        self
    }

    /// Durable frames that the server keeps per channel, 10,000 unless set; it then drops the
    /// oldest. Counts when the streams are created.
    pub fn mailbox(mut self, frames: u32) -> Self {
        self.keeping.mailbox = frames;
        self
    }

    /// How long the server keeps durable frames and the sessions of devices that stay away, 14
    /// days unless set. Counts when the streams are created.
    pub fn keep_for(mut self, age: Duration) -> Self {
        self.keeping.age = age;
        self
    }

    /// Copies of every stream in a cluster, 1 unless set. Counts when the streams are created.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.keeping.replicas = replicas;
        self
    }

    /// How long a [lease](chat_client::transport::FencingLeases) lasts, 15 s unless set. Counts
    /// when the streams are created.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.keeping.lease = ttl;
        self
    }

    /// Forgets, at every connect, what the server kept for this device before.
    pub fn without_resume(mut self) -> Self {
        self.resume = false;
        self
    }

    /// How long the server may take to answer anything, 10 s unless set; then the connection
    /// counts as dead.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How often a silent server is asked whether it is there, 5 s unless set. It counts as dead
    /// after two to three of these.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping = interval;
        self
    }

    /// Checks everything. Opens nothing.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn build(self) -> Result<NatsConnector, ConfigError> {
        for url in &self.servers {
            check_url(url)?;
        }
        if let Some(prefix) = &self.inbox {
            let ours = |b: u8| b.is_ascii_alphanumeric() || b"-_=".contains(&b);
            let word = |word: &str| !word.is_empty() && word.bytes().all(ours);
            if prefix.len() > 128 || !prefix.split('.').all(word) {
                return Err(ConfigError::Inbox {
                    prefix: prefix.clone(),
                });
            }
        }
        let limit = |holds: bool, what| holds.then_some(()).ok_or(ConfigError::Limit { what });
        let second = Duration::from_secs(1);
        limit(self.keeping.mailbox > 0, "a mailbox holds at least 1 frame")?;
        limit(
            (1..=5).contains(&self.keeping.replicas),
            "replicas are 1 to 5",
        )?;
        limit(
            self.keeping.age >= second,
            "frames are kept for 1 s at least",
        )?;
        limit(self.keeping.lease >= second, "a lease lasts 1 s at least")?;
        limit(!self.deadline.is_zero(), "the deadline is over 0")?;
        limit(!self.ping.is_zero(), "the ping interval is over 0")?;
        Ok(NatsConnector {
            config: Arc::new(Config {
                subjects: Subjects::new(&self.prefix)?,
                servers: self.servers,
                login: self.login,
                ca: self.ca,
                client_cert: self.client_cert,
                inbox: self.inbox,
                jetstream: (!self.core_only).then_some(self.keeping),
                resume: self.resume,
                deadline: self.deadline,
                ping: self.ping,
            }),
            shared: Arc::default(),
        })
    }
}

fn check_url(url: &str) -> Result<(), ConfigError> {
    let bad = || ConfigError::Url {
        url: url.to_owned(),
    };
    let address = ServerAddr::from_str(url).map_err(|_| bad())?;
    let known = ["nats", "tls"].contains(&address.scheme()) && url.contains("://");
    if !known || address.has_user_pass() || address.host().is_empty() {
        return Err(bad());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["nats://h", "nats://h:1", "tls://[::1]:4222"] {
            assert!(NatsConnector::from_url(good).is_ok(), "{good}");
        }
        for bad in ["", "h:1", "http://h", "ws://h", "nats://", "nats://u:p@h"] {
            assert!(NatsConnector::from_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let builder = || NatsConnector::builder("nats://h");
        assert!(builder().prefix("a.>").build().is_err());
        assert!(builder().inbox_prefix("_INBOX.*").build().is_err());
        assert!(builder().inbox_prefix("_INBOX_bob").build().is_ok());
        assert!(builder().mailbox(0).build().is_err());
        assert!(builder().replicas(0).build().is_err());
        assert!(builder().lease_ttl(Duration::ZERO).build().is_err());
        assert!(builder().deadline(Duration::ZERO).build().is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let connector = NatsConnector::builder("nats://h").token("s3cret");
        assert!(!format!("{connector:?}").contains("s3cret"));
        assert!(!format!("{:?}", connector.build()).contains("s3cret"));
    }

    #[test]
    fn each_mode_says_what_it_can_do() {
        let builder = NatsConnector::builder("nats://h");
        assert_eq!(*builder.clone().build().unwrap().capabilities(), JETSTREAM);
        assert_eq!(*builder.core_only().build().unwrap().capabilities(), CORE);
    }
}
