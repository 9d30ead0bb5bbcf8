//! Who may connect, and what an account may do.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chat_client::transport::SendOutcome;
use chat_core::channel::Class;
use chat_core::link::DownReason;
use chat_testkit::broker::{Broker, NatsServer};
use chat_transport_nats::Builder;
use nkeys::KeyPair;

use super::{builder, start};
use chat_testkit::peer::{Peer, conv, inbox, presence};

fn refused(reason: &DownReason) -> bool {
    matches!(reason, DownReason::Refused(_))
}

async fn is_let_in(builder: Builder) -> bool {
    let connector = builder.core_only().build().unwrap();
    match Peer::connect(&connector, "bob").await {
        Ok(_) => true,
        Err(error) => {
            assert!(refused(&error.reason), "asking again cannot help: {error}");
            false
        }
    }
}

#[tokio::test]
async fn a_token_and_a_password_open_the_door_and_wrong_ones_do_not() {
    let broker = start(NatsServer::new().option("authorization { token: s3cret }"));
    assert!(is_let_in(builder(&broker).token("s3cret")).await);
    assert!(!is_let_in(builder(&broker).token("other")).await);
    assert!(!is_let_in(builder(&broker)).await);
    let broker = start(NatsServer::new().option("authorization { user: bob, password: pw }"));
    assert!(is_let_in(builder(&broker).user_and_password("bob", "pw")).await);
    assert!(!is_let_in(builder(&broker).user_and_password("bob", "no")).await);
}

#[tokio::test]
async fn an_nkey_opens_the_door_and_another_does_not() {
    let (ours, other) = (KeyPair::new_user(), KeyPair::new_user());
    let users = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}",
        ours.public_key()
    );
    let broker = start(NatsServer::new().option(&users));
    assert!(is_let_in(builder(&broker).nkey(ours.seed().unwrap())).await);
    assert!(!is_let_in(builder(&broker).nkey(other.seed().unwrap())).await);
    assert!(!is_let_in(builder(&broker).nkey("no seed")).await);
}

/// A signed claim, as `nsc` makes them.
fn claim(issuer: &KeyPair, subject: &str, nats: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let head = part(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let body = part(&format!(
        r#"{{"jti":"x","iat":1700000000,"iss":"{}","sub":"{subject}","name":"n","nats":{nats}}}"#,
        issuer.public_key()
    ));
    let signed = format!("{head}.{body}");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn credentials_open_the_door_and_those_of_another_account_do_not() {
    let (operator, account, stranger) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let root = claim(
        &operator,
        &operator.public_key(),
        r#"{"type":"operator","version":2}"#,
    );
    let limits = r#"{"type":"account","version":2,"limits":{"subs":-1,"data":-1,"payload":-1,
        "imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1}}"#;
    let known = claim(&operator, &account.public_key(), limits);
    let config = format!(
        "operator: {root}\nresolver: MEMORY\nresolver_preload: {{ {}: {known} }}",
        account.public_key()
    );
    let broker = start(NatsServer::new().option(&config));
    let credentials = |account: &KeyPair| {
        let user = KeyPair::new_user();
        let nats = r#"{"type":"user","version":2,"subs":-1,"data":-1,"payload":-1}"#;
        let jwt = claim(account, &user.public_key(), nats);
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.seed().unwrap()
        )
    };
    assert!(is_let_in(builder(&broker).credentials(credentials(&account))).await);
    assert!(!is_let_in(builder(&broker).credentials(credentials(&stranger))).await);
    assert!(!is_let_in(builder(&broker).credentials("none")).await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bob.creds");
    assert!(!is_let_in(builder(&broker).credentials_file(&file)).await);
    std::fs::write(&file, credentials(&account)).unwrap();
    assert!(is_let_in(builder(&broker).credentials_file(&file)).await);
}

/// Of `root` and `bob`, as the documents have them.
const PERMISSIONS: &str = include_str!("../../../examples/nats-server/permissions.conf");

fn fenced() -> Broker {
    start(NatsServer::new().jetstream().option(PERMISSIONS))
}

fn root(broker: &Broker) -> Builder {
    builder(broker).user_and_password("root", "r")
}

fn bob(broker: &Broker) -> Builder {
    let bob = builder(broker).user_and_password("bob", "b");
    bob.inbox_prefix("_INBOX_bob").without_provisioning()
}

#[tokio::test]
async fn the_documented_permissions_are_enough_and_no_more() {
    let broker = fenced();
    let missing = Peer::connect(&bob(&broker).build().unwrap(), "bob")
        .await
        .err()
        .unwrap();
    assert!(
        refused(&missing.reason),
        "somebody makes the streams first: {missing}"
    );

    let root = root(&broker).build().unwrap();
    let mut alice = Peer::at_inbox(&root, "alice").await;
    assert_eq!(
        alice
            .keep(&presence("alice"), Class::Ephemeral, b"here")
            .await,
        SendOutcome::Accepted
    );
    let to = bob(&broker).build().unwrap();
    let mut bob = Peer::at_inbox(&to, "bob").await;
    assert!(bob.subscribe(&conv(1)).await);
    assert!(bob.subscribe(&presence("alice")).await);
    assert_eq!(bob.delivery().await.bytes, "here");
    assert!(!bob.subscribe(&inbox("alice")).await, "not his to read");
    assert!(bob.subscribe(&conv(2)).await, "and he reads on");

    assert_eq!(
        bob.publish(&inbox("alice"), b"hello").await,
        SendOutcome::Accepted
    );
    assert_eq!(
        bob.whisper(&inbox("alice"), b"typing").await,
        SendOutcome::Accepted
    );
    assert_eq!(
        bob.keep(&presence("bob"), Class::Ephemeral, b"busy").await,
        SendOutcome::Accepted
    );
    let forged = bob
        .keep(&presence("alice"), Class::Ephemeral, b"gone")
        .await;
    assert!(forged.is_refusal(), "not his to say");
    let leases = bob.leases().unwrap();
    let device = chat_core::id::DeviceId([1; 32]);
    leases
        .acquire(chat_core::id::GroupId([1; 32]), device)
        .await
        .unwrap();
    bob.close().await.unwrap();

    // The log, after a while away.
    assert_eq!(
        alice.publish(&inbox("bob"), b"for later").await,
        SendOutcome::Accepted
    );
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    assert!(bob.resumed);
    assert_eq!(
        bob.find(|item| match item {
            chat_client::transport::Inbound::Received {
                bytes,
                handle: Some(_),
                ..
            } => Some(bytes.clone()),
            _ => None,
        })
        .await
        .unwrap(),
        "for later"
    );
    // Another's session is not his.
    let eve = Peer::connect(&to, "eve").await.err().unwrap();
    assert!(refused(&eve.reason), "{eve}");
}

#[tokio::test]
async fn who_may_not_use_leases_can_do_everything_else() {
    let lease = |line: &&str| line.contains("lease");
    assert!(PERMISSIONS.lines().any(|line| lease(&line)));
    let without: Vec<&str> = PERMISSIONS.lines().filter(|line| !lease(line)).collect();
    let broker = start(NatsServer::new().jetstream().option(&without.join("\n")));
    Peer::connect(&root(&broker).build().unwrap(), "root")
        .await
        .unwrap();
    let short = bob(&broker).deadline(core::time::Duration::from_millis(900));
    let mut bob = Peer::at_inbox(&short.build().unwrap(), "bob").await;
    let leases = bob.leases().unwrap();
    let device = chat_core::id::DeviceId([1; 32]);
    let denied = leases
        .acquire(chat_core::id::GroupId([1; 32]), device)
        .await;
    assert!(matches!(
        denied,
        Err(chat_client::transport::LeaseError::Unavailable(_))
    ));
    assert!(bob.subscribe(&conv(1)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_denied_frame_is_refused_without_jetstream_too() {
    let mute = r#"{ user: mute, password: m, permissions: { publish: "_INBOX.>" } }"#;
    let users = PERMISSIONS.replace("users = [", &format!("users = [ {mute}"));
    let broker = start(NatsServer::new().option(&users));
    let to = bob(&broker).core_only().build().unwrap();
    let mut bob = Peer::at_inbox(&to, "bob").await;
    let mute = builder(&broker).user_and_password("mute", "m").core_only();
    let mut mute = Peer::at_inbox(&mute.build().unwrap(), "mute").await;
    // Time and again: the server's word must have arrived before a frame counts as accepted.
    for n in 0..100 {
        assert!(!bob.subscribe(&inbox(&format!("alice-{n}"))).await);
        let refused = mute.whisper(&conv(n), b"x").await;
        assert!(refused.is_refusal(), "{n}: {refused:?}");
        assert_eq!(bob.whisper(&conv(n), b"x").await, SendOutcome::Accepted);
    }
    assert!(mute.subscribe(&conv(1)).await, "and the connection stays");
}

#[tokio::test]
async fn a_user_that_is_removed_is_told_so() {
    let broker =
        start(NatsServer::new().option("authorization { users: [ { user: bob, password: b } ] }"));
    let to = builder(&broker)
        .user_and_password("bob", "b")
        .core_only()
        .build()
        .unwrap();
    let mut bob = Peer::connect(&to, "bob").await.unwrap();
    let file = broker.place().home.join("nats.conf");
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("bob", "carol");
    std::fs::write(&file, text).unwrap();
    let pid = broker.pid().unwrap().to_string();
    let sent = std::process::Command::new("sh")
        .args(["-c", "kill -s HUP $0", &pid])
        .status();
    assert!(sent.unwrap().success());
    // The server hangs up without a word; the next attempt learns why.
    bob.end().await;
    let error = Peer::connect(&to, "bob").await.err().unwrap();
    assert!(refused(&error.reason), "{error}");
}

#[tokio::test]
async fn a_server_without_jetstream_says_so_and_its_limit_is_announced() {
    let broker = start(NatsServer::new().option("max_payload: 65536"));
    let error = Peer::connect(&builder(&broker).build().unwrap(), "bob")
        .await
        .err()
        .unwrap();
    assert!(refused(&error.reason), "{error}");
    let to = builder(&broker).core_only().build().unwrap();
    let bob = Peer::connect(&to, "bob").await.unwrap();
    assert_eq!(bob.max_frame, 65_536 - 1_024);
}

#[tokio::test]
async fn streams_that_somebody_made_differently_are_not_touched() {
    let broker = super::jetstream();
    let raw = async_nats::connect(super::url(&broker)).await.unwrap();
    let body = r#"{"name":"chat_v1_log","subjects":["chat.v1.in.>"],"storage":"memory"}"#;
    raw.request("$JS.API.STREAM.CREATE.chat_v1_log", body.into())
        .await
        .unwrap();
    let error = Peer::connect(&super::connector(&broker), "bob")
        .await
        .err()
        .unwrap();
    assert!(refused(&error.reason), "{error}");
}
