//! The settings of a connection to a broker, and the way to it.

use core::fmt;
use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chat_client::transport::{Capabilities, ConnectOptions, Connector, Transport, TransportError};

use crate::address::{Address, MqttConfigError};
use crate::takeover::Takeovers;
use crate::tls::Tls;
use crate::topic::{Hashed, Topics};
use crate::{CAPABILITIES, CAPABILITIES_V311, handshake};

/// Which MQTT to speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Version {
    /// MQTT 5, with reasons, session expiry, delayed wills and announced limits.
    #[default]
    V5,
    /// MQTT 3.1.1, for brokers that know no other.
    V311,
}

/// Opens connections to a broker. Clones share what earlier connections taught.
///
/// The MQTT user name is the user's id in its escaped form, the client id that and the device, so
/// that the broker's access rules can name the levels of a topic by `%u`.
#[derive(Clone, Debug)]
pub struct MqttConnector {
    pub(crate) settings: Settings,
    pub(crate) lasting: Arc<Lasting>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) address: Address,
    pub(crate) tls: Tls,
    pub(crate) version: Version,
    pub(crate) topics: Topics,
    /// `None`: the escaped user id.
    pub(crate) user: Option<String>,
    pub(crate) password: String,
    pub(crate) keep_alive: u16,
    pub(crate) session_expiry: u32,
    pub(crate) will_delay: u32,
    pub(crate) in_flight: u16,
    pub(crate) reply_timeout: Duration,
}

/// What outlives a connection.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    pub(crate) takeovers: Mutex<Takeovers>,
    pub(crate) hashed: Mutex<Hashed>,
    /// Packets that were not ours or too large.
    pub(crate) dropped: AtomicU64,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password is a secret.
        f.debug_struct("Settings")
            .field("address", &self.address)
            .field("version", &self.version)
            .field("prefix", &self.topics.prefix())
            .finish_non_exhaustive()
    }
}

fn seconds(
    what: &'static str,
    time: Duration,
    range: core::ops::RangeInclusive<u64>,
    words: &'static str,
) -> Result<u32, MqttConfigError> {
    let seconds = time.as_secs();
    let bad = MqttConfigError::Range { what, range: words };
    if time.subsec_nanos() != 0 || !range.contains(&seconds) {
        return Err(bad);
    }
    u32::try_from(seconds).map_err(|_| bad)
}

impl MqttConnector {
    /// A connector for `mqtt://host[:port]`, `mqtts://host[:port]` (feature `tls`) or
    /// `ws[s]://host[:port]/path` (feature `websocket`).
    ///
    /// # Errors
    /// [`MqttConfigError::Url`], [`MqttConfigError::LoginInUrl`], [`MqttConfigError::Feature`].
    pub fn from_url(url: &str) -> Result<Self, MqttConfigError> {
        Ok(Self {
            settings: Settings {
                address: Address::parse(url)?,
                tls: Tls::default(),
                version: Version::V5,
                topics: Topics::new("chat/v1", false)?,
                user: None,
                password: String::new(),
                keep_alive: 20,
                session_expiry: 30 * 24 * 3_600,
                will_delay: 2,
                in_flight: 100,
                reply_timeout: Duration::from_secs(10),
            },
            lasting: Arc::default(),
        })
    }

    /// Speaks another version than MQTT 5.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.settings.version = version;
        self
    }

    /// The beginning of every topic, `chat/v1` without this. Who talks to each other uses the same.
    ///
    /// # Errors
    /// [`MqttConfigError::Prefix`].
    pub fn prefix(mut self, prefix: &str) -> Result<Self, MqttConfigError> {
        self.settings.topics = Topics::new(prefix, self.settings.topics.has_sender_level())?;
        Ok(self)
    }

    /// Publishes to an inbox below a level that names the sender, which an access rule of the
    /// broker can then enforce (`chat/v1/inbox/+/%u`). All who talk to each other do the same.
    #[must_use]
    pub fn sender_level(mut self) -> Self {
        self.settings.topics = self.settings.topics.with_sender_level();
        self
    }

    /// The password of the MQTT user, whose name is the escaped user id.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.settings.password);
        self
    }

    /// A login that is not the user's own, for a broker with one account for all. Access rules
    /// cannot tell users apart then.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.settings.user = Some(user.to_owned());
        self.password(password)
    }

    /// How long the connection may be silent before it is tried, 20 s without this. A broker that
    /// is gone is noticed after this and [`Self::reply_timeout`].
    ///
    /// # Errors
    /// [`MqttConfigError::Range`]: whole seconds from 1 to 65,535.
    pub fn keep_alive(mut self, time: Duration) -> Result<Self, MqttConfigError> {
        let seconds = seconds(
            "keep_alive",
            time,
            1..=65_535,
            "whole seconds from 1 to 65,535",
        )?;
        self.settings.keep_alive = u16::try_from(seconds).unwrap_or(u16::MAX);
        Ok(self)
    }

    /// How long the broker keeps subscriptions and messages for a device that is away, 30 days
    /// without this. In MQTT 3.1.1 that is the broker's own setting.
    ///
    /// # Errors
    /// [`MqttConfigError::Range`]: whole seconds from 1 to 4,294,967,294.
    pub fn session_expiry(mut self, time: Duration) -> Result<Self, MqttConfigError> {
        // The largest number would mean for ever.
        let range = 1..=u64::from(u32::MAX) - 1;
        let words = "whole seconds from 1 to 4,294,967,294";
        self.settings.session_expiry = seconds("session_expiry", time, range, words)?;
        Ok(self)
    }

    /// How long the broker waits before it publishes the last will, so that a connection that is
    /// back by then was never gone: 2 s without this. MQTT 3.1.1 publishes at once.
    ///
    /// # Errors
    /// [`MqttConfigError::Range`]: whole seconds up to an hour.
    pub fn will_delay(mut self, time: Duration) -> Result<Self, MqttConfigError> {
        let words = "whole seconds up to an hour";
        self.settings.will_delay = seconds("will_delay", time, 0..=3_600, words)?;
        Ok(self)
    }

    /// Frames that may wait for the broker's acknowledgement, 100 without this; less when the
    /// broker says so.
    ///
    /// # Errors
    /// [`MqttConfigError::Range`]: 1 to 4,096.
    pub fn in_flight(mut self, frames: u16) -> Result<Self, MqttConfigError> {
        if !(1..=4_096).contains(&frames) {
            return Err(MqttConfigError::Range {
                what: "in_flight",
                range: "1 to 4,096",
            });
        }
        self.settings.in_flight = frames;
        Ok(self)
    }

    /// How long the broker may take for any answer before the connection counts as dead, 10 s
    /// without this.
    ///
    /// # Errors
    /// [`MqttConfigError::Range`]: 100 ms to an hour.
    pub fn reply_timeout(mut self, time: Duration) -> Result<Self, MqttConfigError> {
        if !(Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&time) {
            return Err(MqttConfigError::Range {
                what: "reply_timeout",
                range: "100 ms to an hour",
            });
        }
        self.settings.reply_timeout = time;
        Ok(self)
    }

    /// How many packets on all connections were dropped because their topic was none of ours or
    /// they were too large.
    pub fn dropped(&self) -> u64 {
        self.lasting.dropped.load(Ordering::Relaxed)
    }

    /// Trusts the certificates in this PEM text instead of those of the system.
    ///
    /// # Errors
    /// [`MqttConfigError::Certificate`].
    #[cfg(feature = "tls")]
    pub fn tls_roots(mut self, pem: &[u8]) -> Result<Self, MqttConfigError> {
        self.settings.tls.set_roots(pem)?;
        Ok(self)
    }

    /// Shows the broker a certificate of ours: the chain and its private key as PEM texts.
    ///
    /// # Errors
    /// [`MqttConfigError::Certificate`].
    #[cfg(feature = "tls")]
    pub fn tls_identity(mut self, chain: &[u8], key: &[u8]) -> Result<Self, MqttConfigError> {
        self.settings.tls.set_identity(chain, key)?;
        Ok(self)
    }
}

#[async_trait::async_trait]
impl Connector for MqttConnector {
    fn capabilities(&self) -> &'static Capabilities {
        match self.settings.version {
            Version::V5 => &CAPABILITIES,
            Version::V311 => &CAPABILITIES_V311,
        }
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        handshake::connect(self, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let new = || MqttConnector::from_url("mqtt://h").unwrap();
        let s = Duration::from_secs;
        assert!(new().keep_alive(s(0)).is_err());
        assert!(new().keep_alive(s(65_536)).is_err());
        assert!(new().keep_alive(Duration::from_millis(1_500)).is_err());
        assert!(new().keep_alive(s(65_535)).is_ok());
        assert!(new().session_expiry(s(0)).is_err());
        assert!(new().session_expiry(s(u64::from(u32::MAX))).is_err());
        assert!(new().will_delay(s(3_601)).is_err());
        assert!(new().will_delay(s(0)).is_ok());
        assert!(new().in_flight(0).is_err());
        assert!(new().reply_timeout(s(0)).is_err());
        assert!(new().prefix("a/#").is_err());
    }

    #[test]
    fn the_order_of_settings_does_not_matter_and_secrets_are_not_shown() {
        let a = MqttConnector::from_url("mqtt://h").unwrap();
        let a = a.sender_level().prefix("x").unwrap().login("u", "secret");
        assert!(a.settings.topics.has_sender_level());
        assert_eq!(a.settings.topics.prefix(), "x");
        assert!(!format!("{a:?}").contains("secret"));
    }
}
