//! Everything: clients with signed frames, rows and end-to-end acknowledgements, in a chat of two
//! or in a group.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use benches::NoCrypto;
use chat_client::store::{MemoryStore, RedbStore};
use chat_client::transport::{Capabilities, ConnectOptions, Connector, Transport, TransportError};
use chat_client::{Client, Conversation, Event, EventStream, Identity};
use chat_core::delivery::Ack;
use chat_core::id::{GroupName, UserId};
use chat_core::identity::{DeviceKey, Signer};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::path::{Open, Path, Tally};

const DEADLINE: Duration = Duration::from_secs(60);

/// What is left out, to see what it costs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ed25519, rows on disk.
    Disk,
    /// Ed25519, rows in memory.
    Memory,
    /// No signatures, rows in memory.
    Unsigned,
}

/// One connector for all clients.
#[derive(Clone, Debug)]
struct Shared(Arc<dyn Connector>);

#[async_trait::async_trait]
impl Connector for Shared {
    fn capabilities(&self) -> &'static Capabilities {
        self.0.capabilities()
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        self.0.connect(options).await
    }
}

struct Clients {
    to: Conversation,
    tally: Rc<Tally>,
    _tasks: JoinSet<()>,
    _folder: TempDir,
}

#[async_trait::async_trait(?Send)]
impl Path for Clients {
    async fn send(&mut self, message: String) {
        let (to, tally) = (self.to.clone(), Rc::clone(&self.tally));
        // The path owns no handle to it: it ends by itself, when the message is everywhere.
        drop(tokio::task::spawn_local(async move {
            let sent = to.send(message).await.expect("the conversation is open");
            sent.until(Ack::Delivered).await.expect("it arrives");
            tally.confirm();
        }));
    }
}

struct Opener {
    connector: Shared,
    kind: Kind,
    name: String,
    folder: TempDir,
}

impl Opener {
    async fn client(&self, number: usize) -> Client {
        let user = UserId::new(&format!("{}-{number}", self.name)).expect("a valid name");
        let mut secret = [3; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        let key = DeviceKey::from_secret(secret);
        let identity = if self.kind == Kind::Unsigned {
            let none = Arc::new(NoCrypto(key.public_key()));
            Identity::with_signer(user, none.clone()).verifier(none)
        } else {
            Identity::new(user, key)
        };
        let builder = Client::builder(identity)
            .transport(self.connector.clone())
            .config(benches::config());
        let builder = if self.kind == Kind::Disk {
            let file = self.folder.path().join(format!("{number}.redb"));
            builder.store(RedbStore::open(file).expect("a new file"))
        } else {
            builder.store(MemoryStore::new())
        };
        let client = builder.open().await.expect("an empty store opens");
        let there = client.link_until(|link| matches!(link, chat_core::link::LinkState::CaughtUp));
        let there = timeout(DEADLINE, there).await;
        there.expect("in time").expect("it connects");
        client
    }
}

/// Opens the clients, and a chat or a group of them.
pub(crate) async fn open(
    connector: Arc<dyn Connector>,
    name: &str,
    kind: Kind,
    subscribers: usize,
) -> Open {
    let opener = Opener {
        connector: Shared(connector),
        kind,
        name: format!("{name}-{}", kind as u8),
        folder: tempfile::tempdir().expect("a folder"),
    };
    let tally = Tally::new(subscribers, true);
    let mut tasks = JoinSet::new();
    let publisher = opener.client(0).await;
    let to = if subscribers == 1 {
        chat(&opener, &publisher, &mut tasks, &tally).await
    } else {
        group(&opener, &publisher, subscribers, &mut tasks, &tally).await
    };
    let path = Box::new(Clients {
        to,
        tally: Rc::clone(&tally),
        _tasks: tasks,
        _folder: opener.folder,
    });
    Open { path, tally }
}

async fn chat(
    opener: &Opener,
    publisher: &Client,
    tasks: &mut JoinSet<()>,
    tally: &Rc<Tally>,
) -> Conversation {
    let client = opener.client(1).await;
    let peer = client.user().clone();
    let events = client.events().await.expect("it runs");
    tasks.spawn_local(subscriber(client, events, Rc::clone(tally)));
    let chat = timeout(DEADLINE, publisher.request(&peer).into_future()).await;
    (*chat.expect("in time").expect("it is accepted")).clone()
}

async fn group(
    opener: &Opener,
    publisher: &Client,
    subscribers: usize,
    tasks: &mut JoinSet<()>,
    tally: &Rc<Tally>,
) -> Conversation {
    let name = GroupName::new("bench").expect("a valid name");
    let room = publisher.create_group(&name).await.expect("the first");
    let mut events = publisher.events().await.expect("it runs");
    let leader = publisher.clone();
    tasks.spawn_local(async move {
        while let Some(event) = events.next().await {
            if let Event::JoinRequest(request) = event {
                request.approve().await.expect("we lead");
            }
        }
        drop(leader);
    });
    for number in 1..=subscribers {
        let client = opener.client(number).await;
        let events = client.events().await.expect("it runs");
        let joined = timeout(DEADLINE, client.join(room.group()).into_future()).await;
        joined.expect("in time").expect("it is approved");
        tasks.spawn_local(subscriber(client, events, Rc::clone(tally)));
    }
    (*room).clone()
}

/// Accepts what is asked and counts what arrives. Taking the next event acknowledges the last.
async fn subscriber(client: Client, mut events: EventStream, tally: Rc<Tally>) {
    let mut last = 0;
    while let Some(event) = events.next().await {
        match event {
            Event::Request(request) => {
                request.accept().await.expect("the request stands");
            }
            Event::Message(message) => {
                let text = message.content.fallback();
                tally.take(&mut last, text.as_bytes());
            }
            _ => {}
        }
    }
    drop(client);
}
