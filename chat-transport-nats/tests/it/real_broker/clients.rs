//! Whole clients over a server that forgets everything, and over lines that break.

use core::time::Duration;
use std::sync::Arc;

use chat_client::store::MemoryStore;
use chat_client::{Chat, Client, Event, EventStream, Identity};
use chat_core::config::Config;
use chat_core::delivery::Ack;
use chat_core::identity::DeviceKey;
use chat_core::link::LinkState;
use chat_testkit::broker::{Memory, NatsServer};
use chat_testkit::proxy::{Direction, Line, Proxy};
use chat_transport_nats::{Builder, NatsConnector};

use super::{builder, start};
use chat_testkit::peer::{user, within};

const BURST: u32 = 400;

async fn open(name: &str, key: u8, to: &NatsConnector) -> Client {
    let identity = Identity::new(user(name), DeviceKey::from_secret([key; 32]));
    let mut config = Config::lan();
    config.delivery.rto_max = Duration::from_secs(1);
    config.link.backoff_max = Duration::from_millis(200);
    let builder = Client::builder(identity).store(MemoryStore::new());
    builder
        .config(config)
        .transport(to.clone())
        .open()
        .await
        .unwrap()
}

/// Alice and bob, who talk; what bob hears.
async fn pair(to: &NatsConnector, bobs: &NatsConnector) -> ([Client; 2], Chat, EventStream) {
    let (alice, bob) = (open("alice", 1, to).await, open("bob", 2, bobs).await);
    let mut events = bob.events().await.unwrap();
    for client in [&alice, &bob] {
        let up = client.link_until(|state| *state == LinkState::CaughtUp);
        within(up).await.unwrap();
    }
    let request = alice.request("bob").send().await.unwrap();
    let accepted = async {
        loop {
            if let Some(Event::Request(asked)) = events.next().await {
                return asked.accept().await.unwrap();
            }
        }
    };
    within(accepted).await;
    let chat = within(request.accepted()).await.unwrap();
    ([alice, bob], chat, events)
}

/// Sends a burst; `trouble` is called some times while it arrives, once and in order.
async fn burst(chat: Chat, mut events: EventStream, mut trouble: impl FnMut(u32)) {
    let sending = tokio::spawn(async move {
        let mut last = None;
        for n in 0..BURST {
            last = Some(chat.send(n.to_string().as_str()).await.unwrap());
        }
        last.unwrap()
    });
    let mut next = 0;
    while next < BURST {
        let Some(Event::Message(message)) = within(events.next()).await else {
            continue;
        };
        assert_eq!(message.content.fallback(), next.to_string());
        next += 1;
        if next % (BURST / 8) == 0 && next < BURST {
            trouble(next / (BURST / 8));
        }
    }
    within(sending.await.unwrap().until(Ack::Delivered))
        .await
        .unwrap();
}

fn modes(builder: impl Fn() -> Builder) -> [NatsConnector; 2] {
    [builder(), builder().core_only()].map(|it| it.build().unwrap())
}

#[tokio::test]
async fn a_server_that_is_killed_and_forgets_everything_loses_no_message_of_clients() {
    for core_only in [false, true] {
        let mut broker = start(NatsServer::new().jetstream());
        let [whole, core] = modes(|| builder(&broker));
        let to = if core_only { core } else { whole };
        let (_clients, chat, events) = pair(&to, &to).await;
        burst(chat, events, |round| {
            if round % 3 == 0 {
                broker.restart(Memory::Lost).unwrap();
            }
        })
        .await;
    }
}

#[tokio::test]
async fn lines_that_break_in_every_way_lose_no_message() {
    let broker = start(NatsServer::new().jetstream());
    for core_only in [false, true] {
        let proxy = Arc::new(Proxy::start(broker.address()).await.unwrap());
        let through = || {
            let builder = NatsConnector::builder(&format!("nats://{}", proxy.address()));
            let builder = builder.ping_interval(Duration::from_millis(150));
            builder
                .deadline(Duration::from_secs(1))
                .prefix(format!("chat.{core_only}"))
        };
        let [whole, core] = modes(through);
        let bobs = if core_only { core } else { whole };
        let alices = builder(&broker).prefix(format!("chat.{core_only}"));
        let alices = if core_only {
            alices.core_only()
        } else {
            alices
        };
        let (_clients, chat, events) = pair(&alices.build().unwrap(), &bobs).await;
        burst(chat, events, |round| match round {
            1 => proxy.cut(),
            2 => proxy.set(Line::ResetAfter(30_000)),
            3 => proxy.set(Line::Slow(Duration::from_millis(20))),
            4 => proxy.set(Line::Rate(200_000)),
            5 => {
                proxy.set(Line::OneWay(Direction::Up));
                heal(&proxy);
            }
            6 => {
                proxy.set(Line::Dead);
                heal(&proxy);
            }
            _ => proxy.set(Line::Open),
        })
        .await;
    }
}

/// Mends the line after the pings have noticed.
fn heal(proxy: &Arc<Proxy>) {
    let mended = proxy.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        mended.set(Line::Open);
    });
}
