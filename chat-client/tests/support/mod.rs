//! Clients over the in-process broker, under a paused clock.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chat_client::store::{MemoryStore, Range, Store, StoreError};
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Chat, Client, Event, EventStream, Identity, TokioWall};
use chat_core::config::Config;
use chat_core::delivery::Received;
use chat_core::effect::{Row, RowOp};
use chat_core::id::UserId;
use chat_core::identity::DeviceKey;
use chat_core::link::LinkState;
use chat_core::time::UnixMillis;
use tokio::sync::watch;

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub fn key(name: &str) -> DeviceKey {
    let mut secret = [7; 32];
    secret[..name.len()].copy_from_slice(name.as_bytes());
    DeviceKey::from_secret(secret)
}

/// Opens `name` over `store`; the same name is the same device.
pub async fn open(name: &str, broker: &MemoryBroker, store: impl Store) -> Client {
    open_with(name, broker, store, Config::default()).await
}

pub async fn open_with(
    name: &str,
    broker: &MemoryBroker,
    store: impl Store,
    config: Config,
) -> Client {
    Client::builder(Identity::new(user(name), key(name)))
        .store(store)
        .transport(broker.clone())
        .config(config)
        .seed([name.len() as u8; 32])
        .wall_clock(TokioWall::starting_at(UnixMillis(1_800_000_000_000)))
        .open()
        .await
        .unwrap()
}

/// Ten virtual minutes at most.
pub async fn soon<T>(future: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), future.into_future())
        .await
        .expect("it happens within ten minutes")
}

pub async fn caught_up(client: &Client) {
    let state = soon(client.link_until(|state| *state == LinkState::CaughtUp)).await;
    state.expect("the client runs");
}

/// The next event that `pick` wants.
pub async fn next<T>(events: &mut EventStream, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    soon(async {
        loop {
            let event = events.next().await.expect("the client runs");
            assert!(
                !matches!(event, Event::Lagged { .. }),
                "it was read in time"
            );
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    })
    .await
}

pub async fn next_message(events: &mut EventStream) -> Received {
    next(events, |event| match event {
        Event::Message(received) => Some(received),
        _ => None,
    })
    .await
}

/// `a` asks, `b` accepts.
pub async fn meet(a: &Client, b: &Client, b_events: &mut EventStream) -> (Chat, Chat) {
    let pending = soon(a.request(b.user()).send()).await.unwrap();
    let request = next(b_events, |event| match event {
        Event::Request(request) => Some(request),
        _ => None,
    })
    .await;
    let theirs = soon(request.accept()).await.unwrap();
    let ours = soon(pending.accepted()).await.unwrap();
    (ours, theirs)
}

/// Alice asked, Bob accepted: the broker, both, what Bob is told, and the chat as each sees it.
pub async fn pair(
    alices: impl Store,
    bobs: impl Store,
) -> (MemoryBroker, Client, Client, EventStream, Chat, Chat) {
    let broker = MemoryBroker::new();
    let alice = open("alice", &broker, alices).await;
    let bob = open("bob", &broker, bobs).await;
    let mut events = bob.events().await.unwrap();
    let (chat, answer) = meet(&alice, &bob, &mut events).await;
    (broker, alice, bob, events, chat, answer)
}

/// Polls `future` at most `times`, letting everybody else run in between, then drops it.
pub async fn poll_then_drop<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await;
        if polled.is_some() {
            return polled;
        }
        tokio::task::yield_now().await;
    }
    None
}

/// A store that a test can hold up or break.
#[derive(Clone, Debug)]
pub struct Moody {
    pub rows: MemoryStore,
    held: watch::Sender<bool>,
    broken: Arc<AtomicBool>,
    pub commits: Arc<AtomicU64>,
    pub batches: Arc<AtomicU64>,
}

impl Moody {
    pub fn new() -> Self {
        Self {
            rows: MemoryStore::new(),
            held: watch::Sender::new(false),
            broken: Arc::default(),
            commits: Arc::default(),
            batches: Arc::default(),
        }
    }

    /// Lets no commit through.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets all through again.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    pub fn break_down(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Store for Moody {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        self.rows.load().await
    }

    async fn commit(&self, batches: Vec<Vec<RowOp>>) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.batches
            .fetch_add(batches.len() as u64, Ordering::Relaxed);
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held)
            .await
            .expect("the sender is ours");
        if self.broken.load(Ordering::Relaxed) {
            return Err(StoreError::Io("the disk is full".into()));
        }
        self.rows.commit(batches).await
    }

    async fn read(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        self.rows.read(range).await
    }
}
