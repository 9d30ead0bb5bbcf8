//! TLS: the roots of a test, and a certificate of the user.

use std::path::PathBuf;

use chat_testkit::broker::{Broker, NatsServer};
use chat_transport_nats::{Builder, NatsConnector};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::start;
use chat_testkit::peer::{Peer, inbox};

/// An authority, and the files of those it vouches for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate and its key.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let place = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        std::fs::write(place("pem"), certificate.pem()).unwrap();
        std::fs::write(place("key"), key.serialize_pem()).unwrap();
        (place("pem"), place("key"))
    }

    fn server(&self, extra: &str) -> Broker {
        let (certificate, key) = self.issue("server");
        let tls = format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", {extra} }}",
            certificate.display(),
            key.display(),
            self.root().display()
        );
        start(NatsServer::new().option(&tls))
    }
}

fn builder(broker: &Broker) -> Builder {
    NatsConnector::builder(&format!("tls://localhost:{}", broker.address().port())).core_only()
}

async fn is_let_in(builder: Builder) -> bool {
    Peer::connect(&builder.build().unwrap(), "bob")
        .await
        .is_ok()
}

#[tokio::test]
async fn tls_carries_frames_and_a_server_that_nobody_vouches_for_is_left() {
    let authority = Authority::new();
    let broker = authority.server("");
    let to = builder(&broker).tls_ca(authority.root()).build().unwrap();
    let mut bob = Peer::at_inbox(&to, "bob").await;
    let mut alice = Peer::connect(&to, "alice").await.unwrap();
    let large = vec![7; 100_000];
    alice.publish(&inbox("bob"), &large).await;
    assert_eq!(bob.delivery().await.bytes, large);
    assert!(!is_let_in(builder(&broker).tls_ca(Authority::new().root())).await);
    assert!(
        !is_let_in(builder(&broker)).await,
        "the system does not know it"
    );
}

#[tokio::test]
async fn a_certificate_of_the_client_is_shown_when_asked_for() {
    let authority = Authority::new();
    let broker = authority.server("verify: true");
    let to = || builder(&broker).tls_ca(authority.root());
    assert!(!is_let_in(to()).await);
    let (certificate, key) = authority.issue("bob");
    assert!(is_let_in(to().tls_client_certificate(certificate, key)).await);
    let (certificate, key) = Authority::new().issue("bob");
    assert!(!is_let_in(to().tls_client_certificate(certificate, key)).await);
}
