//! Two whole clients chat over a hub with a file, through a kill of the hub in between.

use chat_client::store::MemoryStore;
use chat_client::{Client, Event, Identity, keyfile};
use chat_core::delivery::{Ack, Received};
use chat_core::id::UserId;
use chat_testkit::peer::{DEADLINE, within};
use chat_transport_ws::WsConnector;
use chat_transport_ws::hub::Hub;

async fn open(name: &str, url: &str) -> Client {
    let identity = Identity::new(
        UserId::new(name).expect("a name"),
        keyfile::generate().expect("entropy"),
    );
    let connector = WsConnector::new(url).expect("a hub's address");
    let builder = Client::builder(identity).store(MemoryStore::new());
    within(builder.transport(connector).open())
        .await
        .expect("an open client")
}

async fn message(events: &mut chat_client::EventStream) -> Received {
    within(async {
        loop {
            if let Event::Message(received) = events.next().await.expect("a running client") {
                return received;
            }
        }
    })
    .await
}

#[tokio::test]
async fn two_clients_chat_through_a_restart_of_the_hub() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("hub.redb");
    let builder = Hub::builder().allow_all().store(&file);
    let hub = within(builder.clone().bind(([127, 0, 0, 1], 0).into()))
        .await
        .expect("a hub");
    let address = hub.local_addr();
    let (alice, bob) = (
        open("alice", &hub.url()).await,
        open("bob", &hub.url()).await,
    );
    let mut events = within(bob.events()).await.expect("events");

    let request = within(alice.request("bob").send())
        .await
        .expect("a request");
    within(async {
        loop {
            if let Event::Request(asked) = events.next().await.expect("a running client") {
                return asked.accept().await.expect("accepted");
            }
        }
    })
    .await;
    let chat = within(request.accepted()).await.expect("a chat");
    let sent = within(chat.send("one")).await.expect("kept");
    within(sent.until(Ack::Delivered)).await.expect("delivered");
    assert_eq!(message(&mut events).await.content.fallback(), "one");

    assert!(within(hub.shutdown(DEADLINE)).await);
    let sent = within(chat.send("two"))
        .await
        .expect("kept while there is no hub");
    let _hub = within(builder.bind(address)).await.expect("the hub again");
    within(alice.reconnect()).await.expect("running");
    within(bob.reconnect()).await.expect("running");
    within(sent.until(Ack::Delivered)).await.expect("delivered");
    assert_eq!(message(&mut events).await.content.fallback(), "two");
}
