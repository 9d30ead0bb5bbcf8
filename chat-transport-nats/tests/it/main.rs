//! The transport against real servers, and against one that does what the test says.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod script;
mod scripted;

mod real_broker {
    //! Needs a nats-server.

    mod access;
    mod clients;
    mod leases;
    mod log;
    mod loss;
    mod overflow;
    mod subjects;
    mod tls;

    use chat_testkit::broker::{Broker, NatsServer};
    use chat_transport_nats::{Builder, NatsConnector};

    fn start(recipe: NatsServer) -> Broker {
        Broker::start(recipe).unwrap_or_else(|error| panic!("{error}"))
    }

    fn jetstream() -> Broker {
        start(NatsServer::new().jetstream())
    }

    fn url(broker: &Broker) -> String {
        format!("nats://{}", broker.address())
    }

    fn builder(broker: &Broker) -> Builder {
        NatsConnector::builder(&url(broker))
    }

    fn connector(broker: &Broker) -> NatsConnector {
        builder(broker).build().unwrap()
    }
}
