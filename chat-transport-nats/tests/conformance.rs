//! The scenario suite of `chat-testkit` over real servers: every scenario has a nats-server of its
//! own, with JetStream in one cell and without in the other.

use chat_testkit::broker::{Broker, Memory, NatsServer};
use chat_testkit::suite::client::{Cell, ClientWorld, run};
use chat_transport_nats::NatsConnector;

#[derive(Debug)]
struct Server {
    broker: Broker,
    connector: NatsConnector,
}

impl Server {
    fn start(recipe: NatsServer, core_only: bool) -> Self {
        let broker = Broker::start(recipe).unwrap_or_else(|error| panic!("{error}"));
        let builder = NatsConnector::builder(&format!("nats://{}", broker.address()));
        let builder = if core_only {
            builder.core_only()
        } else {
            builder
        };
        let connector = builder.build().expect("an address");
        Self { broker, connector }
    }

    /// As a crash: no client hears a word.
    fn restart(&mut self) {
        self.broker
            .restart(Memory::Kept)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[derive(Debug)]
struct JetStream(Server);

impl Cell for JetStream {
    const VIRTUAL_TIME: bool = false;

    type Connector = NatsConnector;

    async fn start() -> Self {
        Self(Server::start(NatsServer::new().jetstream(), false))
    }

    fn connector(&self) -> NatsConnector {
        self.0.connector.clone()
    }

    async fn restart(&mut self) {
        self.0.restart();
    }
}

#[derive(Debug)]
struct CoreOnly(Server);

impl Cell for CoreOnly {
    const VIRTUAL_TIME: bool = false;

    type Connector = NatsConnector;

    async fn start() -> Self {
        Self(Server::start(NatsServer::new(), true))
    }

    fn connector(&self) -> NatsConnector {
        self.0.connector.clone()
    }

    async fn restart(&mut self) {
        self.0.restart();
    }
}

mod real_broker {
    use super::*;

    mod jetstream {
        use super::*;

        chat_testkit::conformance!(real: ClientWorld<JetStream>, run);
    }

    mod core_only {
        use super::*;

        chat_testkit::conformance!(real: ClientWorld<CoreOnly>, run);
    }
}
