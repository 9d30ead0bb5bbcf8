//! Tokens that run out: renewed over the open connection, or closed with a code of their own.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::*;
use chat_client::transport::{ConnectOptions, SendOutcome};
use chat_core::id::DeviceId;
use chat_core::link::DownReason;
use chat_transport_ws::hub::{AuthError, Authenticator, Credentials, Grant, Hub, Limits};
use chat_transport_ws::{TokenSource, WsConnector};

/// Tokens are numbers, each good for a moment; those up to `revoked` are refused.
#[derive(Debug, Default)]
struct Numbered {
    asked: AtomicU32,
    revoked: AtomicU32,
}

#[derive(Debug, Clone)]
struct Desk(Arc<Numbered>);

const HOLDS: Duration = Duration::from_secs(2);

#[async_trait::async_trait]
impl Authenticator for Desk {
    async fn authenticate(&self, credentials: Credentials) -> Result<Grant, AuthError> {
        let number: u32 = credentials.token.unwrap_or_default().parse().unwrap_or(0);
        if number <= self.0.revoked.load(Ordering::Relaxed) {
            let text = "revoked".to_owned();
            return Err(AuthError::Denied { text });
        }
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Grant::new(credentials.user).holding(HOLDS))
    }
}

#[derive(Debug, Default)]
struct Counter(AtomicU32);

#[async_trait::async_trait]
impl TokenSource for Counter {
    async fn token(&self) -> Result<String, String> {
        Ok((self.0.fetch_add(1, Ordering::Relaxed) + 1).to_string())
    }
}

async fn hub(desk: &Desk) -> chat_transport_ws::hub::HubHandle {
    let mut limits = Limits::default();
    limits.ping = Duration::from_millis(400);
    let builder = Hub::builder().authenticator(desk.clone()).in_memory();
    bind(builder.limits(limits)).await
}

async fn connect(to: WsConnector) -> Peer {
    let options = ConnectOptions::new(user("a"), DeviceId([1; 32]), None);
    Peer::connect_as(&to, options).await.unwrap()
}

#[tokio::test]
async fn a_token_is_renewed_over_the_open_connection() {
    let desk = Desk(Arc::default());
    let hub = hub(&desk).await;
    let to = WsConnector::new(&hub.url()).unwrap();
    let mut peer = connect(to.with_tokens(Counter::default())).await;
    // Three lives of a token, on one connection that goes on working.
    within(async {
        while desk.0.asked.load(Ordering::Relaxed) < 3 {
            let outcome = peer.publish(&group(), b"x").await;
            assert_eq!(outcome, SendOutcome::NoReceiver);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(hub.stats().connections, 1);
}

#[tokio::test]
async fn a_token_that_runs_out_ends_the_connection_with_a_code_of_its_own() {
    let desk = Desk(Arc::default());
    let hub = hub(&desk).await;
    let to = WsConnector::new(&hub.url()).unwrap();
    let mut peer = connect(to.with_token("1").unwrap()).await;
    let end = peer.end().await;
    let DownReason::Other(why) = &end.reason else {
        panic!("a newer token helps, so it is no refusal: {end}");
    };
    assert!(why.contains("token"), "{why}");
}

#[tokio::test]
async fn a_newer_token_that_is_refused_ends_the_connection() {
    let desk = Desk(Arc::default());
    let hub = hub(&desk).await;
    let to = WsConnector::new(&hub.url()).unwrap();
    let mut peer = connect(to.with_tokens(Counter::default())).await;
    desk.0.revoked.store(100, Ordering::Relaxed);
    let end = peer.end().await;
    assert!(matches!(end.reason, DownReason::Refused(_)), "{end}");
}
