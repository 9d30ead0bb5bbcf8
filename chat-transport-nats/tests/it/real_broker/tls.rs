//! TLS: the roots of a test, and a certificate of the user.

use chat_testkit::authority::{Authority, Issued};
use chat_testkit::broker::{Broker, NatsServer};
use chat_transport_nats::{Builder, NatsConnector};

use super::start;
use chat_testkit::peer::{Peer, inbox};

fn server(authority: &Authority, extra: &str) -> Broker {
    let issued = authority.issue("server");
    let root = authority.root();
    start(NatsServer::new().tls(&issued.certificate, &issued.key, &root, extra))
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
    let broker = server(&authority, "");
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
    let broker = server(&authority, "verify: true");
    let to = || builder(&broker).tls_ca(authority.root());
    assert!(!is_let_in(to()).await);
    let Issued { certificate, key } = authority.issue("bob");
    assert!(is_let_in(to().tls_client_certificate(certificate, key)).await);
    let other = Authority::new();
    let Issued { certificate, key } = other.issue("bob");
    assert!(!is_let_in(to().tls_client_certificate(certificate, key)).await);
}
