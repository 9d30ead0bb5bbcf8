//! The driver over transports that misbehave.

#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chat_client::transport::memory::CAPABILITIES;
use chat_client::transport::{
    Capabilities, ConnectOptions, Connector, Handle, Inbound, IoSide, Outbound, SendOutcome,
    Transport, TransportError, channel,
};
use chat_client::{Client, Identity, TokioWall};
use chat_core::channel::{Channel, Class};
use chat_core::id::GroupName;
use chat_core::link::{DownReason, LinkState};
use chat_core::presence::Status;
use chat_core::time::UnixMillis;
use support::*;
use tokio::sync::mpsc;

/// What the next attempts to connect meet; the last is repeated.
#[derive(Clone, Copy, Debug)]
enum Attempt {
    Hangs,
    Panics,
    Refused,
    Works,
}

/// Hands the I/O side of every connection to the test.
#[derive(Debug)]
struct Scripted {
    attempts: Mutex<Vec<Attempt>>,
    count: Arc<AtomicUsize>,
    sides: mpsc::Sender<IoSide>,
    capacity: usize,
}

#[async_trait::async_trait]
impl Connector for Scripted {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn connect(&self, _: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let attempt = {
            let mut attempts = self.attempts.lock().unwrap();
            if attempts.len() > 1 {
                attempts.remove(0)
            } else {
                attempts[0]
            }
        };
        match attempt {
            Attempt::Hangs => std::future::pending().await,
            Attempt::Panics => panic!("a planned panic"),
            Attempt::Refused => Err(TransportError::new(DownReason::Refused("no".into()))),
            Attempt::Works => {
                let (transport, side) = channel(&CAPABILITIES, self.capacity);
                self.sides.send(side).await.expect("the test takes it");
                Ok(Box::new(transport))
            }
        }
    }
}

struct Script {
    client: Client,
    sides: mpsc::Receiver<IoSide>,
    attempts: Arc<AtomicUsize>,
}

async fn start(attempts: &[Attempt], capacity: usize, store: Moody) -> Script {
    let (sender, sides) = mpsc::channel(8);
    let count = Arc::new(AtomicUsize::new(0));
    let connector = Scripted {
        attempts: Mutex::new(attempts.to_vec()),
        count: count.clone(),
        sides: sender,
        capacity,
    };
    let client = Client::builder(Identity::new(user("alice"), key("alice")))
        .store(store)
        .transport(connector)
        .seed([1; 32])
        .wall_clock(TokioWall::starting_at(UnixMillis(1_800_000_000_000)))
        .open()
        .await
        .unwrap();
    Script {
        client,
        sides,
        attempts: count,
    }
}

/// Says `Up`, confirms subscriptions and takes frames until the client is caught up.
async fn serve(client: &Client, side: &mut IoSide) {
    serve_frames_up_to(1 << 20, client, side).await;
}

async fn serve_frames_up_to(max_frame: usize, client: &Client, side: &mut IoSide) {
    let up = Inbound::Up {
        resumed: false,
        max_frame,
    };
    side.inbound.send_inbound(up).await.unwrap();
    soon(async {
        while client.link() != LinkState::CaughtUp {
            tokio::select! {
                Some(item) = side.outbound.recv_outbound() => answer(side, item).await,
                () = tokio::time::sleep(Duration::from_millis(10)) => {
                    side.inbound.send_inbound(Inbound::CaughtUp).await.unwrap();
                }
            }
        }
    })
    .await;
}

async fn answer(side: &IoSide, item: Outbound) {
    let answer = match item {
        Outbound::Subscribe(channel) => Inbound::Subscribed {
            channel,
            granted: true,
        },
        Outbound::Send { token, .. } => Inbound::Sent {
            token,
            outcome: SendOutcome::Accepted,
        },
        _ => return,
    };
    side.inbound.send_inbound(answer).await.unwrap();
}

fn delivery(handle: u64) -> Inbound {
    Inbound::Received {
        channel: Channel::Inbox(user("alice")),
        bytes: bytes::Bytes::from_static(b"no frame of ours"),
        handle: Some(Handle(handle)),
        live: true,
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_or_panics_is_followed_by_another() {
    let attempts = [Attempt::Hangs, Attempt::Panics, Attempt::Works];
    let mut script = start(&attempts, 16, Moody::new()).await;
    let mut side = soon(script.sides.recv()).await.unwrap();
    assert_eq!(script.attempts.load(Ordering::Relaxed), 3);
    serve(&script.client, &mut side).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_until_the_application_asks_again() {
    let attempts = [Attempt::Refused, Attempt::Works];
    let mut script = start(&attempts, 16, Moody::new()).await;
    let failed = |state: &LinkState| matches!(state, LinkState::Failed { .. });
    soon(script.client.link_until(failed)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(script.attempts.load(Ordering::Relaxed), 1);
    script.client.reconnect().await.unwrap();
    let mut side = soon(script.sides.recv()).await.unwrap();
    serve(&script.client, &mut side).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_is_cut_short() {
    let mut script = start(&[Attempt::Works], 64, Moody::new()).await;
    let mut side = soon(script.sides.recv()).await.unwrap();
    serve(&script.client, &mut side).await;
    let began = tokio::time::Instant::now();
    // The side is kept and never answers.
    let report = soon(script.client.shutdown(Duration::from_secs(60)))
        .await
        .unwrap();
    assert!(report.clean);
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    side.inbound.dropped().await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_never_reaches_another_connection() {
    let store = Moody::new();
    let mut script = start(&[Attempt::Works], 64, store.clone()).await;
    let mut first = soon(script.sides.recv()).await.unwrap();
    serve(&script.client, &mut first).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    while let Some(item) = first.outbound.try_recv_outbound() {
        answer(&first, item).await;
    }

    // With the store held, a row is on its way, so that the acknowledgements must wait.
    store.hold();
    let client = script.client.clone();
    let blocked = tokio::spawn(async move { client.block(&user("mallory")).await });
    tokio::task::yield_now().await;
    for handle in 1..5 {
        first.inbound.send_inbound(delivery(handle)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    while let Some(item) = first.outbound.try_recv_outbound() {
        assert!(
            !matches!(item, Outbound::Ack(_)),
            "acknowledged before durable"
        );
    }
    first.inbound.fail(TransportError::lost()).await;
    let mut second = soon(script.sides.recv()).await.unwrap();
    store.release();
    soon(blocked).await.unwrap().unwrap();
    let up = Inbound::Up {
        resumed: true,
        max_frame: 1 << 20,
    };
    second.inbound.send_inbound(up).await.unwrap();
    second.inbound.send_inbound(delivery(9)).await.unwrap();
    let acked = soon(async {
        loop {
            match second.outbound.recv_outbound().await.expect("connected") {
                Outbound::Ack(handle) => break handle,
                other => answer(&second, other).await,
            }
        }
    });
    assert_eq!(acked.await, Handle(9));
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_transport_that_takes_nothing_and_receiving_does_not() {
    let mut script = start(&[Attempt::Works], 4, Moody::new()).await;
    let mut side = soon(script.sides.recv()).await.unwrap();
    serve(&script.client, &mut side).await;
    let before = script.client.stats().await.unwrap().core.frames_in;
    for handle in 0..2_000 {
        soon(side.inbound.send_inbound(delivery(handle)))
            .await
            .unwrap();
    }
    let client = script.client.clone();
    let call = tokio::spawn(async move { client.set_presence(Status::Away, "").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!call.is_finished());
    soon(async {
        // Once it takes items again, everything moves on.
        let mut acks = 0;
        while acks < 2_000 {
            match side.outbound.recv_outbound().await.expect("connected") {
                Outbound::Ack(_) => acks += 1,
                other => answer(&side, other).await,
            }
        }
    })
    .await;
    soon(call).await.unwrap().unwrap();
    let stats = script.client.stats().await.unwrap();
    assert_eq!(stats.core.frames_in - before, 2_000);
}

#[tokio::test(start_paused = true)]
async fn no_token_is_used_twice_and_ephemeral_frames_say_so() {
    let mut script = start(&[Attempt::Works], 64, Moody::new()).await;
    let mut side = soon(script.sides.recv()).await.unwrap();
    let mut tokens = std::collections::BTreeSet::new();
    serve(&script.client, &mut side).await;
    for status in [Status::Away, Status::Active, Status::Idle, Status::Active] {
        script.client.set_presence(status, "").await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        while let Some(item) = side.outbound.try_recv_outbound() {
            if let Outbound::Send { token, class, .. } = &item {
                assert!(tokens.insert(*token), "{token:?} again");
                assert!(matches!(class, Class::Durable | Class::Ephemeral));
            }
            answer(&side, item).await;
        }
    }
    assert!(tokens.len() >= 3, "{}", tokens.len());
}

#[tokio::test(start_paused = true)]
async fn a_frame_over_the_limit_of_the_broker_is_refused_and_never_sent() {
    let mut script = start(&[Attempt::Works], 64, Moody::new()).await;
    let mut side = soon(script.sides.recv()).await.unwrap();
    serve_frames_up_to(1_200, &script.client, &mut side).await;
    let room = script
        .client
        .create_group(&GroupName::new("ops").unwrap())
        .await
        .unwrap();
    let error = room.send("x".repeat(3_000)).await.unwrap_err();
    assert!(!error.is_retryable());
    assert!(matches!(
        error.refused(),
        Some(chat_core::delivery::SendError::TooLarge { max: 1_200, .. })
    ));
    room.send("short").await.unwrap();
    while let Some(item) = side.outbound.try_recv_outbound() {
        if let Outbound::Send { bytes, .. } = item {
            assert!(bytes.len() <= 1_200, "{}", bytes.len());
        }
    }
}
