//! Where a broker is: `mqtt://`, `mqtts://`, `ws://`, `wss://`.

/// Why an address, a prefix or another setting is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MqttConfigError {
    /// The address is none.
    #[error(
        "{url:?} is no broker address; write mqtt://host[:port], mqtts://host[:port] or ws[s]://host[:port]/mqtt"
    )]
    Url {
        /// What was given.
        url: String,
    },
    /// The address holds a user name or password, which logs would show.
    #[error("the address holds a login; take it out and call `.password(..)` or `.login(..)`")]
    LoginInUrl,
    /// This build cannot speak it.
    #[error("{scheme}:// needs the feature {feature:?} of chat-transport-mqtt; enable it")]
    Feature {
        /// What was asked for.
        scheme: &'static str,
        /// What is missing.
        feature: &'static str,
    },
    /// The topic prefix is none.
    #[error(transparent)]
    Prefix(#[from] crate::PrefixError),
    /// A number or time is out of range.
    #[error("{what} is out of range; take {range}")]
    Range {
        /// Which.
        what: &'static str,
        /// What is possible.
        range: &'static str,
    },
    /// A certificate or key is none, or they do not belong together.
    #[error("the certificate or key is of no use: {why}")]
    Certificate {
        /// In words.
        why: String,
    },
}

/// How bytes reach the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// The whole address, when it is a WebSocket.
    pub(crate) websocket: Option<String>,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, MqttConfigError> {
        let bad = || MqttConfigError::Url {
            url: url.to_owned(),
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let (scheme, port, tls, websocket) = match scheme {
            "mqtt" => ("mqtt", 1883, false, false),
            "mqtts" => ("mqtts", 8883, true, false),
            "ws" => ("ws", 80, false, true),
            "wss" => ("wss", 443, true, true),
            _ => return Err(bad()),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(MqttConfigError::LoginInUrl);
        }
        let strange = |c: char| c.is_whitespace() || c.is_control() || "?#\\".contains(c);
        if url.contains(strange) || (!websocket && !matches!(path, "" | "/")) {
            return Err(bad());
        }
        let (host, after) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(bad)?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match after.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| bad())?,
            None if after.is_empty() => port,
            None => return Err(bad()),
        };
        if host.is_empty() || port == 0 {
            return Err(bad());
        }
        for (needed, there, feature) in [
            (tls, cfg!(feature = "tls"), "tls"),
            (websocket, cfg!(feature = "websocket"), "websocket"),
        ] {
            if needed && !there {
                return Err(MqttConfigError::Feature { scheme, feature });
            }
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            tls,
            websocket: websocket.then(|| url.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let parts = |url: &str| {
            let it = Address::parse(url).unwrap();
            (it.host, it.port, it.tls, it.websocket.is_some())
        };
        assert_eq!(parts("mqtt://h"), ("h".into(), 1883, false, false));
        assert_eq!(parts("mqtt://h:9/"), ("h".into(), 9, false, false));
        assert_eq!(parts("mqtts://[::1]"), ("::1".into(), 8883, true, false));
        assert_eq!(parts("mqtts://[::1]:7"), ("::1".into(), 7, true, false));
        assert_eq!(parts("ws://h/mqtt"), ("h".into(), 80, false, true));
        assert_eq!(parts("wss://h/mqtt"), ("h".into(), 443, true, true));
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "h",
            "h:1883",
            "tcp://h",
            "mqtt://",
            "mqtt://:1",
            "mqtt://h:0",
            "mqtt://h:99999",
            "mqtt://h:x",
            "mqtt://h/path",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://h h",
            "ws://h/m?x",
        ] {
            let refused = matches!(Address::parse(bad), Err(MqttConfigError::Url { .. }));
            assert!(refused, "{bad}");
        }
        let secret = Address::parse("mqtt://u:secret@h").unwrap_err();
        assert_eq!(secret, MqttConfigError::LoginInUrl);
        assert!(!secret.to_string().contains("secret"));
    }
}
