//! MQTT 5 and 3.1.1 transport for `chat-client`: TCP, TLS (feature `tls`), WebSocket (feature
//! `websocket`).
//!
//! [`MqttConnector`] opens connections to any broker. The broker sees topics, opaque signed bytes
//! and users with an escaped name; it is trusted with nothing else. What it loses, and brokers do
//! lose what they acknowledged, the core's outbox repeats.
//!
//! | module | is |
//! |---|---|
//! | `connector` | settings |
//! | `handshake`, `dial`, `tls`, `websocket` | from an address to an open connection |
//! | `link`, `window` | one open connection |
//! | `topic` | channels as topics |
//! | `recent` | those of one connection, and with MQTT 5 the numbers (topic aliases) for them |
//! | `packet` | packets; the only file that knows `rumqttc` |
//! | `takeover`, `probe` | two programs with one client id |

mod address;
mod connector;
mod dial;
mod handshake;
mod link;
mod packet;
mod probe;
mod recent;
mod takeover;
mod tls;
mod topic;
#[cfg(feature = "websocket")]
mod websocket;
mod window;

use chat_client::transport::{Capabilities, Mailbox};
use chat_core::id::{DeviceId, UserId, escape};

pub use address::MqttConfigError;
pub use connector::{MqttConnector, Version};
pub use topic::PrefixError;

/// The largest frame, whatever a broker takes.
const MAX_FRAME: usize = 64 * 1024;

/// What MQTT 5 can do, as mosquitto does it.
pub const CAPABILITIES: Capabilities = Capabilities {
    name: "mqtt 5",
    broker_ack: true,
    reason_codes: true,
    no_receiver_hint: true,
    manual_ack: true,
    mailbox: Mailbox::Bounded,
    last_will: true,
    last_value: true,
    backlog_marker: false,
    dedup: false,
    // Message expiry is not used: in mosquitto 2.0.11 what expired hides what is behind it.
    ttl: false,
    no_echo: true,
    // Access rules are checked when a message is delivered; a subscription is always granted.
    acl_subscribe: false,
    acl_publish: true,
    cas: false,
    max_frame: MAX_FRAME,
};

/// What MQTT 3.1.1 can do, as mosquitto does it.
pub const CAPABILITIES_V311: Capabilities = Capabilities {
    name: "mqtt 3.1.1",
    // A refused frame is acknowledged like any other.
    reason_codes: false,
    no_receiver_hint: false,
    no_echo: false,
    ..CAPABILITIES
};

/// The MQTT user name of `user`, unless [`MqttConnector::login`] gives another: for the broker's
/// list of users and its access rules.
pub fn login_name(user: &UserId) -> String {
    escape(user.as_str())
}

/// The MQTT client id of a device of `user`.
pub fn client_id(user: &UserId, device: &DeviceId) -> String {
    let mut id = escape(user.as_str());
    id.push('.');
    for byte in device.0 {
        id += &format!("{byte:02x}");
    }
    id
}

/// The program in the README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
