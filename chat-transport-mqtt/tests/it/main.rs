//! The transport against real brokers, and against one that does what the test says.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod raw;
mod scripted;

mod real_broker {
    //! Needs mosquitto.

    mod clients;
    mod live;
    mod tls;
}

use chat_transport_mqtt::Version;

const BOTH: [Version; 2] = [Version::V5, Version::V311];
