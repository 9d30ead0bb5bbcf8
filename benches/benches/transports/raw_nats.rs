//! async-nats alone: core NATS, and JetStream with the acknowledgement of each publish and of
//! each delivery.

use std::net::SocketAddr;
use std::rc::Rc;

use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::{self, stream};
use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use tokio::task::JoinSet;

use crate::path::{Open, Path, Tally};

async fn connect(address: SocketAddr) -> Client {
    let client = async_nats::connect(format!("nats://{address}")).await;
    client.expect("it listens")
}

struct Core {
    client: Client,
    _tasks: JoinSet<()>,
}

#[async_trait::async_trait(?Send)]
impl Path for Core {
    async fn send(&mut self, message: String) {
        let sent = self.client.publish("raw.core", message.into());
        sent.await.expect("it stays up");
    }
}

/// Core NATS.
pub(crate) async fn core(address: SocketAddr, subscribers: usize) -> Open {
    let tally = Tally::new(subscribers, false);
    let mut tasks = JoinSet::new();
    for _ in 0..subscribers {
        let client = connect(address).await;
        let messages = client.subscribe("raw.core").await.expect("it is up");
        client.flush().await.expect("it is up");
        tasks.spawn_local(listen(client, messages, Rc::clone(&tally)));
    }
    let path = Box::new(Core {
        client: connect(address).await,
        _tasks: tasks,
    });
    Open { path, tally }
}

async fn listen(client: Client, mut messages: Subscriber, tally: Rc<Tally>) {
    let mut last = 0;
    while let Some(message) = messages.next().await {
        tally.take(&mut last, &message.payload);
    }
    drop(client);
}

struct JetStream {
    context: jetstream::Context,
    tally: Rc<Tally>,
    _tasks: JoinSet<()>,
}

#[async_trait::async_trait(?Send)]
impl Path for JetStream {
    async fn send(&mut self, message: String) {
        let sent = self.context.publish("raw.log", message.into()).await;
        let (sent, tally) = (sent.expect("it stays up"), Rc::clone(&self.tally));
        // It ends by itself, with the server's answer.
        drop(tokio::task::spawn_local(async move {
            sent.await.expect("the server stores it");
            tally.confirm();
        }));
    }
}

/// JetStream: stored in a file, a consumer for each subscriber, every delivery acknowledged.
pub(crate) async fn jetstream(address: SocketAddr, subscribers: usize) -> Open {
    let tally = Tally::new(subscribers, true);
    let mut tasks = JoinSet::new();
    let context = jetstream::new(connect(address).await);
    let log = context.get_or_create_stream(stream::Config {
        name: "raw".to_owned(),
        subjects: vec!["raw.log".to_owned()],
        ..stream::Config::default()
    });
    log.await.expect("JetStream is on");
    for number in 0..subscribers {
        let own = jetstream::new(connect(address).await);
        let log = own.get_stream("raw").await.expect("it was made");
        let consumer = log.create_consumer(push::Config {
            deliver_subject: format!("raw.to.{number}"),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 10_000,
            ..push::Config::default()
        });
        let consumer = consumer.await.expect("it may");
        let mut messages = consumer.messages().await.expect("it was made");
        let tally = Rc::clone(&tally);
        tasks.spawn_local(async move {
            let mut last = 0;
            while let Some(message) = messages.next().await {
                let message = message.expect("it stays up");
                tally.take(&mut last, &message.payload);
                message.ack().await.expect("it stays up");
            }
        });
    }

    let path = Box::new(JetStream {
        context,
        tally: Rc::clone(&tally),
        _tasks: tasks,
    });
    Open { path, tally }
}
