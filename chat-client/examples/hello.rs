//! Two people meet, one says hello, the other reads it. One process, no network.

use chat_client::store::MemoryStore;
use chat_client::transport::memory::MemoryBroker;
use chat_client::{Client, Event, Identity, keyfile};
use chat_core::delivery::{Ack, TimelineItem};
use chat_core::id::UserId;

type Failure = Box<dyn std::error::Error>;

async fn open(name: &str, broker: &MemoryBroker) -> Result<Client, Failure> {
    let identity = Identity::new(UserId::new(name)?, keyfile::generate()?);
    let builder = Client::builder(identity).store(MemoryStore::new());
    Ok(builder.transport(broker.clone()).open().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let broker = MemoryBroker::new();
    let (alice, bob) = (open("alice", &broker).await?, open("bob", &broker).await?);

    let mut events = bob.events().await?;
    let request = alice.request("bob").note("It is me").send().await?;
    let answer = loop {
        match events.next().await {
            Some(Event::Request(asked)) => break asked.accept().await?,
            Some(_) => {}
            None => return Err("bob stopped".into()),
        }
    };
    let chat = request.accepted().await?;

    let sent = chat.send("hello").await?;
    sent.until(Ack::Delivered).await?;
    let first = answer.timeline().from_beginning().next().await;
    if let Some(Ok(TimelineItem::Received(hello))) = first {
        println!("{}: {}", hello.from, hello.content.fallback());
    }
    Ok(())
}
