//! Where the demo's clients meet: the broker that a URL names. This is the one place that knows
//! which transport belongs to which URL; everything else is the same over all of them.
//!
//! | URL | broker |
//! |---|---|
//! | `ws://host[:port]/path` | a hub of `chat-transport-ws` |
//! | `mqtt://host[:port]` | any MQTT 5 broker |
//! | `nats://host[:port]`, `tls://…` | a NATS server, with JetStream |

use std::sync::Arc;

use chat_client::transport::{Capabilities, ConnectOptions, Connector, Transport, TransportError};
use chat_transport_mqtt::{MqttConfigError, MqttConnector};
use chat_transport_nats::NatsConnector;
use chat_transport_ws::{AddressError, WsConnector};

/// A URL that names no broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No transport belongs to it.
    #[error(
        "{0:?} names no broker; give ws://…, mqtt://… or nats://…, as in mqtt://localhost:1883"
    )]
    Scheme(String),
    /// The transport does not take it.
    #[error(transparent)]
    Ws(#[from] AddressError),
    /// The transport does not take it.
    #[error(transparent)]
    Mqtt(#[from] MqttConfigError),
    /// The transport does not take it.
    #[error(transparent)]
    Nats(#[from] chat_transport_nats::ConfigError),
    /// The port is none.
    #[error("BROKER_PORT is {0:?}; give a number from 1 to 65535")]
    Port(String),
}

/// A connector to the broker of a URL.
#[derive(Clone, Debug)]
pub struct Broker(Arc<dyn Connector>);

impl Broker {
    /// The broker at `url`.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub fn from_url(url: &str) -> Result<Self, BrokerError> {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        Ok(Self(match scheme {
            Some("ws" | "wss") => Arc::new(WsConnector::new(url)?),
            Some("mqtt" | "mqtts") => Arc::new(MqttConnector::from_url(url)?),
            Some("nats" | "tls") => Arc::new(NatsConnector::from_url(url)?),
            _ => return Err(BrokerError::Scheme(url.to_owned())),
        }))
    }
}

#[async_trait::async_trait]
impl Connector for Broker {
    fn capabilities(&self) -> &'static Capabilities {
        self.0.capabilities()
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        self.0.connect(options).await
    }
}

/// The URL that was asked for: `given` on the command line, else `BROKER_URL`, else `BROKER_HOST`
/// and `BROKER_PORT` (either may be left out; port 4222 is NATS, every other MQTT). `None`: the
/// demo brings its own hub.
///
/// # Errors
/// [`BrokerError::Port`].
pub fn chosen(
    given: Option<String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, BrokerError> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(url) = given.or_else(|| variable("BROKER_URL")) {
        return Ok(Some(url));
    }
    let (host, port) = (variable("BROKER_HOST"), variable("BROKER_PORT"));
    if host.is_none() && port.is_none() {
        return Ok(None);
    }
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    let port = match port {
        None => 1883,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => return Err(BrokerError::Port(text)),
        },
    };
    let scheme = if port == 4222 { "nats" } else { "mqtt" };
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host,
    };
    Ok(Some(format!("{scheme}://{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)], given: Option<&str>) -> Option<String> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        chosen(given.map(str::to_owned), find).unwrap()
    }

    #[test]
    fn the_command_line_wins_then_the_url_then_host_and_port() {
        let all = [
            ("BROKER_URL", "nats://b"),
            ("BROKER_HOST", "c"),
            ("BROKER_PORT", "1884"),
        ];
        assert_eq!(with(&all, Some("ws://a/")).unwrap(), "ws://a/");
        assert_eq!(with(&all, None).unwrap(), "nats://b");
        assert_eq!(with(&all[1..], None).unwrap(), "mqtt://c:1884");
        assert_eq!(with(&all[1..2], None).unwrap(), "mqtt://c:1883");
        let nats = [("BROKER_PORT", "4222"), ("BROKER_HOST", "::1")];
        assert_eq!(with(&nats, None).unwrap(), "nats://[::1]:4222");
        assert_eq!(with(&nats[..1], None).unwrap(), "nats://localhost:4222");
        assert_eq!(with(&[("BROKER_HOST", "")], None), None);
        let bad = chosen(None, |name| {
            (name == "BROKER_PORT").then(|| "many".to_owned())
        });
        assert!(matches!(bad, Err(BrokerError::Port(_))));
    }

    #[test]
    fn every_scheme_has_its_transport_and_others_are_named() {
        for (url, name) in [
            ("ws://localhost:9000/chat", "ws hub"),
            ("mqtt://localhost", "mqtt 5"),
            ("nats://localhost:4222", chat_transport_nats::JETSTREAM.name),
        ] {
            assert_eq!(Broker::from_url(url).unwrap().capabilities().name, name);
        }
        for url in ["localhost:1883", "http://localhost", "mqtt:/x", ""] {
            assert!(matches!(Broker::from_url(url), Err(BrokerError::Scheme(_))));
        }
    }
}
