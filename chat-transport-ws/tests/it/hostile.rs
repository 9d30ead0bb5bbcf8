//! A hub against peers that are wrong, slow or hostile. Honest clients go on.

use core::time::Duration;

use crate::common::*;
use chat_client::transport::{Outbound, SendOutcome};
use chat_core::id::DeviceId;
use chat_core::link::DownReason;
use chat_transport_ws::hub::{Hub, HubHandle, Limits, StaticTokens};
use chat_transport_ws::proto::{ClientOp, CloseReason, Hello, SUBPROTOCOL};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

fn quick() -> Limits {
    let mut limits = Limits::default();
    limits.handshake = Duration::from_millis(300);
    limits
}

async fn tcp(hub: &HubHandle) -> TcpStream {
    within(TcpStream::connect(hub.local_addr())).await.unwrap()
}

/// The status of an upgrade with these headers.
async fn status(hub: &HubHandle, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    let url = format!("ws://{}{path}", hub.local_addr());
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    match within(tokio_tungstenite::client_async(request, tcp(hub).await)).await {
        Ok((_, response)) => response.status().as_u16(),
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
    }
}

async fn raw(hub: &HubHandle) -> WebSocketStream<TcpStream> {
    let mut request = hub.url().into_client_request().unwrap();
    (request.headers_mut()).insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let (ws, _) = within(tokio_tungstenite::client_async(request, tcp(hub).await))
        .await
        .unwrap();
    ws
}

fn hello(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ClientOp::Hello(Hello {
        user: user(name),
        device: DeviceId([1; 32]),
        resume: true,
        token: None,
        will: None,
    })
    .encode(&mut bytes);
    bytes
}

/// The close code the hub ends with.
async fn close_code(mut ws: WebSocketStream<TcpStream>) -> u16 {
    within(async {
        loop {
            match ws.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close: {other:?}"),
            }
        }
    })
    .await
}

async fn still_serves(hub: &HubHandle) {
    let mut a = who(hub, "honest a").join(&[group()]).await;
    let mut b = who(hub, "honest b").join(&[group()]).await;
    assert_eq!(a.publish(&group(), b"hi").await, SendOutcome::Accepted);
    assert_eq!(b.delivery().await.bytes, &b"hi"[..]);
}

#[tokio::test]
async fn tokens_are_checked_against_the_claimed_user() {
    let tokens = StaticTokens::new()
        .with(user("a"), "ta")
        .with(user("b"), "tb");
    let hub = bind(Hub::builder().authenticator(tokens).in_memory()).await;
    assert!(who(&hub, "a").token("ta").connect().await.is_ok());
    for (name, token) in [
        ("a", Some("tb")),
        ("a", None),
        ("c", Some("ta")),
        ("a", Some("t")),
    ] {
        let mut who = who(&hub, name);
        who.token = token;
        let error = who.connect().await.unwrap_err();
        assert!(
            matches!(error.reason, DownReason::Refused(_)),
            "{name} {token:?} {error}"
        );
    }
}

#[tokio::test]
async fn the_upgrade_is_refused_before_there_is_a_socket() {
    let hub = bind(memory().allow_origin("https://chat.example")).await;
    let ours = ("sec-websocket-protocol", SUBPROTOCOL);
    assert_eq!(status(&hub, "/hub", &[ours]).await, 101);
    assert_eq!(
        status(&hub, "/hub", &[ours, ("origin", "https://CHAT.example")]).await,
        101
    );
    assert_eq!(
        status(&hub, "/hub", &[ours, ("origin", "https://evil.example")]).await,
        403
    );
    assert_eq!(status(&hub, "/hub", &[ours, ("origin", "null")]).await, 403);
    assert_eq!(status(&hub, "/other", &[ours]).await, 404);
    assert_eq!(status(&hub, "/hub?token=x", &[ours]).await, 400);
    assert_eq!(
        status(&hub, "/hub", &[("sec-websocket-protocol", "other")]).await,
        400
    );
    let long = "x".repeat(9000);
    assert_eq!(status(&hub, "/hub", &[ours, ("x-long", &long)]).await, 431);
    still_serves(&hub).await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut() {
    let hub = bind(memory().limits(quick())).await;
    let mut silent = tcp(&hub).await;
    let mut dribble = tcp(&hub).await;
    let mut no_hello = raw(&hub).await;
    let slow = async {
        for byte in b"GET /hub HTTP/1.1\r\nHost: x\r\n".iter().cycle() {
            if dribble.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(slow).await;
    // An orderly end or a reset: both are an end.
    let mut byte = [0];
    assert!(!matches!(within(silent.read(&mut byte)).await, Ok(1..)));
    within(async { while let Some(Ok(_)) = no_hello.next().await {} }).await;
    still_serves(&hub).await;
}

#[tokio::test]
async fn what_is_no_protocol_gets_a_close_code() {
    let hub = bind(memory()).await;
    let protocol = CloseReason::Protocol.code();
    let cases: Vec<(Vec<Message>, u16)> = vec![
        (vec![Message::text("hello")], protocol),
        (vec![Message::binary(vec![0xff; 100])], protocol),
        (
            vec![Message::binary(hello("a")), Message::text("x")],
            protocol,
        ),
        (
            vec![Message::binary(hello("a")), Message::binary(hello("a"))],
            protocol,
        ),
        (
            vec![Message::binary(hello("a")), Message::binary(vec![1, 2, 3])],
            protocol,
        ),
        (
            vec![
                Message::binary(hello("a")),
                Message::binary(vec![0; 200 * 1024]),
            ],
            1009,
        ),
    ];
    for (messages, code) in cases {
        let mut ws = raw(&hub).await;
        for message in &messages {
            within(ws.send(message.clone())).await.unwrap();
        }
        assert_eq!(close_code(ws).await, code, "{}", messages.len());
    }
    still_serves(&hub).await;
}

#[tokio::test]
async fn fragments_are_joined_up_to_the_limit() {
    let hub = bind(memory()).await;
    let part = |bytes: &[u8], op, last| {
        Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(op), last))
    };
    let mut ws = raw(&hub).await;
    let hello = hello("a");
    within(ws.send(part(&hello[..5], Data::Binary, false)))
        .await
        .unwrap();
    for byte in &hello[5..] {
        within(ws.feed(part(&[], Data::Continue, false)))
            .await
            .unwrap();
        within(ws.send(part(&[*byte], Data::Continue, false)))
            .await
            .unwrap();
    }
    within(ws.send(part(&[], Data::Continue, true)))
        .await
        .unwrap();
    let first = within(ws.next()).await.unwrap().unwrap();
    assert_eq!(first.into_data()[1], 0x41, "welcome");
    within(ws.send(part(&[0; 1000], Data::Binary, false)))
        .await
        .unwrap();
    for _ in 0..200 {
        // The hub may close before the last of them.
        if within(ws.send(part(&[0; 1000], Data::Continue, false)))
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(close_code(ws).await, 1009);
    still_serves(&hub).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_without_a_disconnect() {
    let hub = bind(memory()).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    let outcome = a.publish(&group(), &[0; 64 * 1024 + 1]).await;
    assert!(outcome.is_refusal());
    assert_eq!(
        a.publish(&group(), &[0; 64 * 1024]).await,
        SendOutcome::NoReceiver
    );
}

#[tokio::test]
async fn one_reader_that_stands_still_delays_nobody_and_loses_nothing() {
    let mut limits = Limits::default();
    limits.flush = Duration::from_millis(500);
    limits.mailbox_bytes = 64 * 1024 * 1024;
    let hub = bind(memory().limits(limits)).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    let mut fast = who(&hub, "fast").join(&[group()]).await;
    let mut slow = who(&hub, "slow").join(&[group()]).await;
    let payload = vec![1; 60_000];
    for n in 0..200u8 {
        let mut payload = payload.clone();
        payload[0] = n;
        assert_eq!(a.publish(&group(), &payload).await, SendOutcome::Accepted);
        let delivery = fast.delivery().await;
        assert_eq!(delivery.bytes[0], n);
        fast.ack(&delivery).await;
        let queued = hub.stats().queued_bytes;
        assert!(queued < 1024 * 1024, "{queued}");
    }
    // It is thrown out at the flush deadline, and finds everything when it is back.
    until(&hub, |stats| stats.connections == 2).await;
    let end = slow.end().await;
    assert!(!matches!(end.reason, DownReason::Refused(_)), "{end}");
    let mut slow = who(&hub, "slow").connect().await.unwrap();
    for n in 0..200u8 {
        let delivery = slow.delivery().await;
        assert_eq!(delivery.bytes[0], n);
        slow.ack(&delivery).await;
    }
    until(&hub, |stats| stats.stored_bytes == 0).await;
}

#[tokio::test]
async fn connections_are_limited_per_address() {
    let mut limits = Limits::default();
    limits.connections_per_ip = 2;
    let hub = bind(memory().limits(limits)).await;
    let one = who(&hub, "a").connect().await.unwrap();
    let _two = who(&hub, "b").connect().await.unwrap();
    assert!(who(&hub, "c").connect().await.is_err());
    one.close().await.unwrap();
    within(async { while who(&hub, "c").connect().await.is_err() {} }).await;
}

#[tokio::test]
async fn a_hundred_connections_come_and_go() {
    let hub = bind(memory()).await;
    let mut random = 12_345u32;
    let mut roll = move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 16
    };
    let mut open = Vec::new();
    for n in 0..100u8 {
        let mut peer = who(&hub, "many").device(n).join(&[group()]).await;
        peer.send(&group(), &[n]).await;
        match roll() % 4 {
            0 => drop(peer),
            1 => peer.close().await.unwrap(),
            2 => {
                // Bytes in the middle of a frame, then gone.
                peer.put(Outbound::Subscribe(inbox("many"))).await.unwrap();
                drop(peer);
            }
            _ => open.push(peer),
        }
        if roll() % 3 == 0 && !open.is_empty() {
            open.swap_remove(roll() as usize % open.len());
        }
    }
    let left = open.len();
    until(&hub, |stats| stats.connections == left).await;
    drop(open);
    until(&hub, |stats| stats.connections == 0).await;
    still_serves(&hub).await;
}

#[tokio::test]
async fn junk_on_the_port_is_survived() {
    let hub = bind(memory().limits(quick())).await;
    for junk in [
        &b"\0\x01\x02\xff\xfe"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        &[0x16; 3000],
    ] {
        let mut socket = tcp(&hub).await;
        // The hub may hang up first.
        if socket.write_all(junk).await.is_ok() {
            let mut rest = Vec::new();
            let _ends = within(socket.read_to_end(&mut rest)).await;
        }
    }
    still_serves(&hub).await;
}

#[tokio::test]
async fn connections_are_limited_per_user() {
    let mut limits = Limits::default();
    limits.connections_per_user = 2;
    let hub = bind(memory().limits(limits)).await;
    let one = who(&hub, "a").connect().await.unwrap();
    let _two = who(&hub, "a").device(2).connect().await.unwrap();
    let error = who(&hub, "a").device(3).connect().await.err().unwrap();
    assert_eq!(error.reason, DownReason::TryLater);
    assert!(error.retry_after.is_some());
    let _other = who(&hub, "b").connect().await.unwrap();
    // A device that comes back takes its own place.
    let _again = who(&hub, "a").device(2).connect().await.unwrap();
    one.close().await.unwrap();
    within(async { while who(&hub, "a").device(3).connect().await.is_err() {} }).await;
}

#[tokio::test]
async fn who_publishes_too_fast_is_refused_and_told_when_to_come_back() {
    let mut limits = Limits::default();
    limits.publish_per_second = 10;
    limits.publish_burst = 5;
    let hub = bind(memory().limits(limits)).await;
    let mut a = who(&hub, "a").connect().await.unwrap();
    let mut b = who(&hub, "b").connect().await.unwrap();
    for _ in 0..5 {
        assert_eq!(a.publish(&group(), b"x").await, SendOutcome::NoReceiver);
    }
    let SendOutcome::Refused(why) = a.publish(&group(), b"x").await else {
        panic!("a sixth at once");
    };
    assert!(why.contains("not before"), "{why}");
    // Nobody else pays for it, and it ends.
    assert_eq!(b.publish(&group(), b"x").await, SendOutcome::NoReceiver);
    within(async {
        while a.publish(&group(), b"x").await != SendOutcome::NoReceiver {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
