//! The scenario suite of `chat-testkit` over mosquitto, once per version of MQTT: every scenario has
//! a broker of its own.

use chat_testkit::broker::{Broker, Memory, Mosquitto};
use chat_testkit::suite::client::{Cell, ClientWorld, run};
use chat_transport_mqtt::{MqttConnector, Version};

#[derive(Debug)]
struct MqttCell<const V5: bool>(Broker);

impl<const V5: bool> Cell for MqttCell<V5> {
    const VIRTUAL_TIME: bool = false;

    type Connector = MqttConnector;

    async fn start() -> Self {
        // On disk, for a restart. Without waiting for full packets: most of what is sent is small.
        let recipe = Mosquitto::new()
            .option("persistence true")
            .option("set_tcp_nodelay true");
        Self(Broker::start(recipe).expect("mosquitto runs"))
    }

    fn connector(&self) -> MqttConnector {
        let url = format!("mqtt://{}", self.0.address());
        let connector = MqttConnector::from_url(&url).expect("a broker's address");
        connector.version(if V5 { Version::V5 } else { Version::V311 })
    }

    async fn restart(&mut self) {
        // In good order: it writes to disk what it stored.
        self.0.stop();
        self.0.restart(Memory::Kept).expect("on its own port");
    }
}

mod real_broker {
    mod v5 {
        chat_testkit::conformance!(real: crate::ClientWorld<crate::MqttCell<true>>, crate::run);
    }

    mod v311 {
        chat_testkit::conformance!(real: crate::ClientWorld<crate::MqttCell<false>>, crate::run);
    }
}
