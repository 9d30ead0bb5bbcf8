//! TLS: the roots of a test, a certificate of the user, and what is refused.

use chat_client::transport::SendOutcome;
use chat_core::link::DownReason;
use chat_testkit::broker::{Broker, Mosquitto, free_port};
use chat_transport_mqtt::{MqttConfigError, MqttConnector, login_name};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use chat_testkit::peer::{Peer, conv, inbox, user};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a host or a user, and its key.
    fn issue(&self, names: &[&str], common: &str) -> (String, String) {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A broker that speaks TLS on the ports, the second over WebSocket.
fn start(authority: &Authority, extra: &str) -> (Broker, tempfile::TempDir, [u16; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.issue(&["127.0.0.1", "localhost"], "broker");
    let mut files = String::new();
    for (option, name, text) in [
        ("cafile", "ca.pem", authority.pem()),
        ("certfile", "cert.pem", certificate),
        ("keyfile", "key.pem", key),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        files += &format!("{option} {}\n", file.display());
    }
    let ports = [free_port().unwrap(), free_port().unwrap()];
    let [plain, over] = ports;
    let recipe = Mosquitto::new()
        .option(&format!("listener {plain} 127.0.0.1\n{files}{extra}"))
        .option(&format!(
            "listener {over}\nbind_interface lo\nprotocol websockets\n{files}"
        ));
    (
        Broker::start(recipe).expect("mosquitto runs"),
        folder,
        ports,
    )
}

fn to(url: &str, authority: &Authority) -> MqttConnector {
    let connector = MqttConnector::from_url(url).unwrap();
    connector.tls_roots(authority.pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn tls_carries_mqtt_and_websockets() {
    let authority = Authority::new();
    let (_broker, _folder, [plain, over]) = start(&authority, "");
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
    let (_broker, _folder, [plain, _]) = start(&authority, "");
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
    let (_broker, _folder, [plain, _]) = start(&authority, extra);
    let url = format!("mqtts://127.0.0.1:{plain}");
    let name = login_name(&user("a/lice"));
    let (chain, key) = authority.issue(&[], &name);
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
    let (chain, key) = authority.issue(&[], "a");
    let (_, other) = authority.issue(&[], "b");
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
