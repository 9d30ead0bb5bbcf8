//! The brokers, each a process of its own.

use std::net::SocketAddr;
use std::time::Duration;

use chat_testkit::broker::{Broker, Mosquitto, NatsServer, Recipe};

use crate::process::{Hub, cpu_of};

/// The processes behind one row: the broker, and what the raw client has instead of it.
pub(crate) enum Servers {
    /// Our hub, and a relay that knows nothing.
    Hub { hub: Hub, relay: Hub },
    /// A broker for both.
    Broker(Broker),
}

impl Servers {
    pub(crate) fn hub() -> Self {
        Self::Hub {
            hub: Hub::start("memory", 0),
            relay: Hub::start("tungstenite", 0),
        }
    }

    pub(crate) fn mosquitto() -> Self {
        // Without the first it waits 40 ms before the end of a burst, for whatever client; its own
        // bound of messages under way would drop some.
        let broker = Mosquitto::new()
            .option("set_tcp_nodelay true")
            .option("max_queued_messages 100000");
        Self::broker(broker)
    }

    pub(crate) fn nats() -> Self {
        Self::broker(NatsServer::new().jetstream())
    }

    fn broker(recipe: impl Recipe) -> Self {
        Self::Broker(Broker::start(recipe).expect("it is installed"))
    }

    /// Where the broker listens.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Hub { hub, .. } => hub.address(),
            Self::Broker(broker) => broker.address(),
        }
    }

    /// Where the relay listens.
    pub(crate) fn relay(&self) -> SocketAddr {
        match self {
            Self::Hub { relay, .. } => relay.address(),
            Self::Broker(broker) => broker.address(),
        }
    }

    /// CPU time of all of them.
    pub(crate) fn cpu(&self) -> Duration {
        match self {
            Self::Hub { hub, relay } => cpu_of(hub.pid()) + cpu_of(relay.pid()),
            Self::Broker(broker) => cpu_of(broker.pid().expect("it runs")),
        }
    }
}
