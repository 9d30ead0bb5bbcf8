//! The ten rules of a transport, and every guard rail, against a broker that does what the test
//! says.

mod connecting;
mod receiving;
mod sending;
mod session;

use core::time::Duration;

use chat_client::transport::TransportError;
use chat_core::link::DownReason;
use chat_testkit::peer::Peer;
use chat_transport_mqtt::{MqttConnector, Version};

use crate::raw::{Hello, Script, Wire};

/// MQTT 5: receive maximum 3.
const THREE: &[u8] = &[0x21, 0, 3];
const SHORT: Duration = Duration::from_millis(300);

async fn both(
    script: &Script,
    to: &MqttConnector,
    session: bool,
    properties: &[u8],
) -> (Peer, Wire, Hello) {
    let (peer, (wire, hello)) = tokio::join!(
        Peer::connect(to, "a/b"),
        script.welcome(session, properties)
    );
    (peer.unwrap(), wire, hello)
}

async fn pair(version: Version) -> (Peer, Wire) {
    let script = Script::new(version).await;
    let (peer, wire, _) = both(&script, &script.connector(), false, &[]).await;
    (peer, wire)
}

fn refused(error: &TransportError) -> bool {
    matches!(error.reason, DownReason::Refused(_))
}
