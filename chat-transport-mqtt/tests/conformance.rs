//! The scenario suite of `chat-testkit` over mosquitto, once per version of MQTT: every scenario has
//! a broker of its own.

mod common;

use chat_testkit::suite::client::{Cell, ClientWorld, run};
use chat_transport_mqtt::{MqttConnector, Version};
use common::Broker;

#[derive(Debug)]
struct MqttCell<const V5: bool>(Broker);

impl<const V5: bool> Cell for MqttCell<V5> {
    const VIRTUAL_TIME: bool = false;

    type Connector = MqttConnector;

    async fn start() -> Self {
        Self(Broker::start())
    }

    fn connector(&self) -> MqttConnector {
        let connector = MqttConnector::from_url(&self.0.url()).expect("a broker's address");
        connector.version(if V5 { Version::V5 } else { Version::V311 })
    }

    async fn restart(&mut self) {
        self.0.stop();
        self.0.again();
    }
}

mod v5 {
    chat_testkit::conformance!(real: crate::ClientWorld<crate::MqttCell<true>>, crate::run);
}

mod v311 {
    chat_testkit::conformance!(real: crate::ClientWorld<crate::MqttCell<false>>, crate::run);
}
