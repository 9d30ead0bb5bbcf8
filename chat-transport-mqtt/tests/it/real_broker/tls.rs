//! TLS: the roots of a test, a certificate of the user, and what is refused.

use chat_client::transport::SendOutcome;
use chat_core::link::DownReason;
use chat_testkit::authority::{Authority, Issued};
use chat_testkit::broker::{Broker, Mosquitto, free_port};
use chat_transport_mqtt::{MqttConfigError, MqttConnector, login_name};

use chat_testkit::peer::{Peer, conv, inbox, user};

/// A broker that speaks TLS on the ports, the second over WebSocket.
fn start(authority: &Authority, extra: &str) -> (Broker, [u16; 2]) {
    let Issued { certificate, key } = authority.issue("broker");
    let files = [
        ("cafile", authority.root()),
        ("certfile", certificate),
        ("keyfile", key),
    ];
    let files = files.map(|(option, file)| format!("{option} {}\n", file.display()));
    let files = files.concat();
    let ports = [free_port().unwrap(), free_port().unwrap()];
    let [plain, over] = ports;
    let recipe = Mosquitto::new()
        .option(&format!("listener {plain} 127.0.0.1\n{files}{extra}"))
        .option(&format!(
            "listener {over}\nbind_interface lo\nprotocol websockets\n{files}"
        ));
    (Broker::start(recipe).expect("mosquitto runs"), ports)
}

fn to(url: &str, authority: &Authority) -> MqttConnector {
    let connector = MqttConnector::from_url(url).unwrap();
    connector.tls_roots(authority.pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn tls_carries_mqtt_and_websockets() {
    let authority = Authority::new();
    let (_broker, [plain, over]) = start(&authority, "");
    for url in [
        format!("mqtts://127.0.0.1:{plain}"),
        format!("mqtts://localhost:{plain}"),
        format!("wss://127.0.0.1:{over}/mqtt"),
    ] {
        let connector = to(&url, &authority);
        let mut alice = Peer::connect(&connector, "alice").await.unwrap();
        let mut bob = Peer::connect(&connector, "bob").await.unwrap();
        assert!(bob.subscribe(&inbox("bob")).await);
        let large = vec![1; 60_000];
        assert_eq!(
            alice.publish(&inbox("bob"), &large).await,
            SendOutcome::Accepted
        );
        assert_eq!(bob.delivery().await.bytes, large, "{url}");
        alice.close().await.unwrap();
        bob.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_nobody_vouches_for_is_not_talked_to() {
    let authority = Authority::new();
    let (_broker, [plain, _]) = start(&authority, "");
    let url = format!("mqtts://127.0.0.1:{plain}");
    // By another authority, and by the system.
    for connector in [
        to(&url, &Authority::new()),
        MqttConnector::from_url(&url).unwrap(),
    ] {
        let error = Peer::connect(&connector, "alice").await.err().unwrap();
        let DownReason::Other(words) = error.reason else {
            panic!("somebody must look at it: {error}");
        };
        assert!(words.contains("certificate"), "{words}");
    }
}

#[tokio::test]
async fn a_certificate_is_a_login() {
    let authority = Authority::new();
    let extra = "require_certificate true\nuse_identity_as_username true\n";
    let (_broker, [plain, _]) = start(&authority, extra);
    let url = format!("mqtts://127.0.0.1:{plain}");
    let name = login_name(&user("a/lice"));
    let [chain, key] = authority.issue(&name).pem();
    let connector = to(&url, &authority);
    assert!(
        Peer::connect(&connector, "a/lice").await.is_err(),
        "without one"
    );
    let connector = connector
        .tls_identity(chain.as_bytes(), key.as_bytes())
        .unwrap();
    let mut alice = Peer::connect(&connector, "a/lice").await.unwrap();
    assert_eq!(alice.publish(&conv(1), b"x").await, SendOutcome::NoReceiver);
}

#[test]
fn certificates_are_checked_when_they_are_given() {
    let new = || MqttConnector::from_url("mqtts://h").unwrap();
    let authority = Authority::new();
    let [chain, key] = authority.issue("a").pem();
    let [_, other] = authority.issue("b").pem();
    for bad in [
        new().tls_roots(b"no certificate"),
        new().tls_identity(b"", key.as_bytes()),
        new().tls_identity(chain.as_bytes(), b""),
        new().tls_identity(chain.as_bytes(), other.as_bytes()),
    ] {
        assert!(
            matches!(bad, Err(MqttConfigError::Certificate { .. })),
            "{bad:?}"
        );
    }
}
