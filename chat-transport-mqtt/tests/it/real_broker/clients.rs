//! Whole clients over mosquitto, where it loses what it accepted.

use chat_client::store::MemoryStore;
use chat_client::{Chat, Client, Event, EventStream};
use chat_core::delivery::Ack;
use chat_core::link::{DownReason, LinkState};
use chat_testkit::broker::{Broker, Memory, Mosquitto};
use chat_testkit::clients::{
    caught_up, open, ten_thousand_messages_to_who_is_away_all_arrive_in_order, within,
};
use chat_testkit::peer::user;
use chat_testkit::proxy::Proxy;
use chat_transport_mqtt::{MqttConnector, Version};

/// Of one conversation, with kills in between.
const BURST: usize = 600;
const KILLS: usize = 3;

/// A chat of two, and what the second is told.
async fn pair(to: &MqttConnector) -> ([Client; 2], Chat, EventStream) {
    let rows = MemoryStore::new;
    let alice = open(user("alice"), 1, &rows(), to).await;
    let bob = open(user("bob"), 2, &rows(), to).await;
    let mut events = bob.events().await.unwrap();
    caught_up(&bob).await;
    let request = alice.request("bob").send().await.unwrap();
    let asked = async {
        loop {
            if let Some(Event::Request(request)) = events.next().await {
                return request.accept().await.unwrap();
            }
        }
    };
    within(asked).await;
    let chat = within(request.accepted()).await.unwrap();
    ([alice, bob], chat, events)
}

#[tokio::test]
async fn a_broker_that_is_killed_and_forgets_everything_loses_no_message() {
    for version in [Version::V5, Version::V311] {
        let mut broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
        let to = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
        let (_clients, chat, mut events) = pair(&to.version(version)).await;
        let sending = tokio::spawn(async move {
            let mut last = None;
            for n in 0..BURST {
                last = Some(chat.send(n.to_string().as_str()).await.unwrap());
            }
            last.unwrap()
        });
        let mut next = 0;
        while next < BURST {
            let event = within(events.next()).await;
            let Some(Event::Message(message)) = event else {
                continue;
            };
            assert_eq!(message.content.fallback(), next.to_string());
            next += 1;
            if next % (BURST / (KILLS + 1)) == 0 && next < BURST {
                broker.kill();
                broker.restart(Memory::Lost).unwrap();
            }
        }
        let last = sending.await.unwrap();
        within(last.until(Ack::Delivered)).await.unwrap();
    }
}

/// Until it gives up, which it must in time.
async fn gives_up(client: &Client) -> DownReason {
    let failed = client.link_until(|state| matches!(state, LinkState::Failed { .. }));
    let failed = within(failed).await.unwrap();
    match failed {
        LinkState::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn s11_of_two_programs_with_one_key_one_gives_up() {
    let fight = async |version| {
        let broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
        let to = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
        // Two programs: what one connector learns the other does not know.
        let again = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
        let (to, again) = (to.version(version), again.version(version));
        let one = open(user("alice"), 1, &MemoryStore::new(), &to).await;
        let two = open(user("alice"), 1, &MemoryStore::new(), &again).await;
        let reason = tokio::select! {
            reason = gives_up(&one) => reason,
            reason = gives_up(&two) => reason,
        };
        assert_eq!(reason, DownReason::Conflict);
    };
    tokio::join!(fight(Version::V5), fight(Version::V311));
}

#[tokio::test]
async fn s11_a_line_that_is_cut_again_and_again_is_no_takeover() {
    let endure = async |version| {
        let broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
        let proxy = Proxy::start(broker.address()).await.unwrap();
        let to = MqttConnector::from_url(&format!("mqtt://{}", proxy.address())).unwrap();
        let alice = open(user("alice"), 1, &MemoryStore::new(), &to.version(version)).await;
        for _ in 0..12 {
            caught_up(&alice).await;
            proxy.cut();
            let down = alice.link_until(|state| *state != LinkState::CaughtUp);
            within(down).await.unwrap();
        }
        caught_up(&alice).await;
    };
    tokio::join!(endure(Version::V5), endure(Version::V311));
}

/// mosquitto keeps 1,000 messages for who is away, and calls every one of those that it throws
/// away accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_overflows_costs_no_message() {
    let broker = Broker::start(Mosquitto::new()).expect("mosquitto runs");
    let to = MqttConnector::from_url(&format!("mqtt://{}", broker.address())).unwrap();
    let overflowed = async || broker.log().contains("Outgoing messages are being dropped");
    ten_thousand_messages_to_who_is_away_all_arrive_in_order(&to, overflowed).await;
}
