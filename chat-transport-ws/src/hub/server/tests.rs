//! The server over a disk that misbehaves, and over connections that somebody else upgraded.

use core::future::poll_fn;
use core::time::Duration;

use bytes::Bytes;
use chat_client::transport::{
    ConnectOptions, Connector, Inbound, Outbound, SendOutcome, Token, Transport,
};
use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, UserId};
use chat_core::link::DownReason;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::WsConnector;
use crate::hub::store::{CommitError, Disk, RowReader, StoreError};
use crate::proto::{ClientOp, Frames, Hello, HubOp};

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future)
        .await
        .expect("within the deadline")
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Fails from the n-th batch on.
struct Failing {
    good: usize,
    error: CommitError,
}

impl Disk for Failing {
    fn read(&self, _row: RowReader<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self, _batch: &Batch) -> Result<(), CommitError> {
        if self.good == 0 {
            return Err(self.error.clone());
        }
        self.good -= 1;
        Ok(())
    }
}

async fn on(disk: Failing) -> HubHandle {
    let hub = Hub::builder()
        .allow_all()
        .launch(Some(Box::new(disk)))
        .unwrap();
    let listener = within(TcpListener::bind(("127.0.0.1", 0))).await.unwrap();
    let local_addr = listener.local_addr().unwrap();
    HubHandle::run(hub, listener, local_addr)
}

async fn connect(hub: &HubHandle, name: &str) -> Box<dyn Transport> {
    let connector = WsConnector::new(&hub.url()).unwrap();
    let options = ConnectOptions::new(user(name), DeviceId([1; 32]), None);
    within(connector.connect(options)).await.unwrap()
}

async fn give(transport: &mut dyn Transport, item: Outbound) {
    within(poll_fn(|cx| transport.poll_ready(cx)))
        .await
        .unwrap();
    transport.start_send(item).unwrap();
    within(poll_fn(|cx| transport.poll_flush(cx)))
        .await
        .unwrap();
}

fn mail(name: &str) -> Outbound {
    Outbound::Send {
        token: Token(1),
        channel: Channel::Inbox(user(name)),
        bytes: Bytes::from_static(b"x"),
        class: Class::Durable,
        ttl: None,
        last_value: false,
        dedup: None,
    }
}

/// The second batch, which carries a frame, fails with `error`.
async fn publish_on(error: CommitError) -> (HubHandle, Box<dyn Transport>) {
    let hub = on(Failing { good: 1, error }).await;
    let mut b = connect(&hub, "b").await;
    give(&mut *b, Outbound::Subscribe(Channel::Inbox(user("b")))).await;
    loop {
        if let Inbound::Subscribed { granted, .. } =
            within(poll_fn(|cx| b.poll_recv(cx))).await.unwrap()
        {
            assert!(granted);
            break;
        }
    }
    within(poll_fn(|cx| b.poll_close(cx))).await.unwrap();
    let mut a = connect(&hub, "a").await;
    give(&mut *a, mail("b")).await;
    (hub, a)
}

#[tokio::test]
async fn a_full_disk_refuses_the_frame_and_the_hub_goes_on() {
    let (hub, mut a) = publish_on(CommitError::Full).await;
    loop {
        if let Inbound::Sent { outcome, .. } = within(poll_fn(|cx| a.poll_recv(cx))).await.unwrap()
        {
            assert!(matches!(outcome, SendOutcome::Refused(_)), "{outcome:?}");
            break;
        }
    }
    assert!(hub.stats().full);
    assert!(!hub.hub().has_failed());
}

#[tokio::test]
async fn a_failed_fsync_stops_the_hub_and_accepts_nothing() {
    let (hub, mut a) = publish_on(CommitError::Failed("fsync".to_owned())).await;
    let end = loop {
        match within(poll_fn(|cx| a.poll_recv(cx))).await {
            Ok(Inbound::Sent { outcome, .. }) => panic!("{outcome:?}"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end.reason, DownReason::TryLater);
    drop(a);
    assert!(hub.hub().has_failed());
    assert!(!within(hub.shutdown(Duration::from_secs(5))).await);
}

#[tokio::test]
async fn a_connection_that_an_http_server_upgraded_is_served() {
    let hub = Hub::builder().allow_all().in_memory().start().unwrap();
    let (near, far) = tokio::io::duplex(256);
    let serving = hub.clone();
    let served = tokio::spawn(async move { serving.serve_upgraded(far, Upgrade::default()).await });
    let mut ws = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    let mut hello = Vec::new();
    ClientOp::Hello(Hello {
        user: user("a"),
        device: DeviceId([1; 32]),
        resume: true,
        token: None,
        will: None,
    })
    .encode(&mut hello);
    within(ws.send(Message::binary(hello))).await.unwrap();
    let answer = within(ws.next()).await.unwrap().unwrap().into_data();
    assert!(matches!(
        Frames::from_hub(&answer).next(),
        Some(Ok(HubOp::Welcome(_)))
    ));
    assert_eq!(hub.stats().connections, 1);
    drop(ws);
    within(served).await.unwrap();
    assert_eq!(hub.stats().connections, 0);
}

/// Most of what a connection costs is its task: it holds the steady state and nothing else.
#[test]
fn the_task_of_a_connection_is_small() {
    fn size<F>(_: impl FnOnce(&'static Hub, TcpStream, SocketAddr) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = size(|hub, socket, peer| hub.serve_socket(socket, peer));
    assert!(bytes <= 1_200, "it takes {bytes} bytes");
}
