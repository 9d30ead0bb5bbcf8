//! The real client as a world, over any transport.
//!
//! Every node has its own [`Cable`], its own store in memory and one [`Client`] per life of its
//! process. A process is killed by cutting its cable and failing its store, so that whatever it
//! still does reaches nobody; the next life opens over the rows that were durable.
//!
//! To prove a transport of your own, write a [`Cell`] for it:
//!
//! ```
//! use chat_client::transport::memory::MemoryBroker;
//! use chat_testkit::suite::client::{Cell, ClientWorld};
//!
//! #[derive(Debug)]
//! struct Mine(MemoryBroker);
//!
//! impl Cell for Mine {
//!     const VIRTUAL_TIME: bool = false;
//!     type Connector = MemoryBroker;
//!
//!     async fn start() -> Self {
//!         // Start your broker here, on a port of its own: scenarios run side by side.
//!         Self(MemoryBroker::new())
//!     }
//!
//!     fn connector(&self) -> MemoryBroker {
//!         self.0.clone()
//!     }
//!
//!     async fn restart(&mut self) {
//!         // Stop it without a word to its clients, and start it over what it stored.
//!         self.0.bounce();
//!     }
//! }
//!
//! // In `tests/conformance.rs`; one test per scenario.
//! chat_testkit::conformance!(real: ClientWorld<Mine>, chat_testkit::suite::client::run);
//! # fn main() {}
//! ```

mod cable;
mod cell;
mod commands;
mod disk;

use std::collections::BTreeMap;
use std::time::Duration;

use chat_client::store::MemoryStore;
use chat_client::transport::{Capabilities, Connector as _};
use chat_client::{
    Client, Conversation, Event as Told, Identity, IncomingRequest, PendingChat, Room, Sent,
    TokioWall,
};
use chat_core::Event;
use chat_core::config::Config;
use chat_core::delivery::{DeliveryEvent, SortKey, TimelineItem};
use chat_core::event::{GroupEvent, SessionEvent};
use chat_core::group::GroupView;
use chat_core::hlc::Hlc;
use chat_core::id::{ConvId, DeviceId, Epoch, GroupId, InviteId, LobbyName, MessageId, UserId};
use chat_core::identity::DeviceKey;
use chat_core::link::LinkState;
use chat_core::lobby::GroupListing;
use chat_core::presence::{PresenceView, RoomPresence};
use chat_core::session::SessionState;
use chat_core::time::UnixMillis;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::world::{Answer, Command, Fault, Node, Refusal, World, config, name};
use disk::Disk;

pub use cable::Cable;
pub use cell::{Cell, MemoryCell, run, run_paused};

const WALL: UnixMillis = UnixMillis(1_800_000_000_000);
/// For a client to come up, to answer or to leave.
const DEADLINE: Duration = Duration::from_secs(20);

/// One life of a process, with the handles that its application holds.
#[derive(Debug)]
struct Life<C> {
    client: Client,
    cable: Cable<C>,
    disk: Disk,
    events: mpsc::UnboundedReceiver<Told>,
    requests: BTreeMap<InviteId, IncomingRequest>,
    pending: BTreeMap<InviteId, PendingChat>,
    sent: BTreeMap<MessageId, Sent>,
    convs: BTreeMap<ConvId, Conversation>,
    rooms: BTreeMap<GroupId, Room>,
}

#[derive(Debug)]
struct Device<C> {
    user: UserId,
    key: [u8; 32],
    rows: MemoryStore,
    cut: bool,
    barred: bool,
    lives: u8,
    life: Option<Life<C>>,
}

/// Real clients over the transport of a [`Cell`].
#[derive(Debug)]
pub struct ClientWorld<C: Cell> {
    cell: C,
    config: Config,
    wall: TokioWall,
    devices: Vec<Device<C::Connector>>,
}

impl<C: Cell> ClientWorld<C> {
    fn life(&self, node: Node) -> &Life<C::Connector> {
        self.devices[node.0]
            .life
            .as_ref()
            .expect("the process runs")
    }

    fn life_mut(&mut self, node: Node) -> &mut Life<C::Connector> {
        self.devices[node.0]
            .life
            .as_mut()
            .expect("the process runs")
    }

    fn bar(&mut self, node: Node, barred: bool) {
        self.devices[node.0].barred = barred;
        self.life(node).cable.bar(barred);
    }

    async fn boot(&mut self, node: Node) {
        let cable = Cable::new(self.cell.connector());
        let device = &mut self.devices[node.0];
        if device.cut {
            cable.cut();
        }
        cable.bar(device.barred);
        device.lives += 1;
        let mut seed = device.key;
        seed[31] = device.lives;
        let disk = Disk::new(device.rows.clone());
        let identity = Identity::new(device.user.clone(), DeviceKey::from_secret(device.key));
        let client = Client::builder(identity)
            .store(disk.clone())
            .transport(cable.clone())
            .config(self.config.clone())
            .seed(seed)
            .wall_clock(self.wall)
            .open()
            .await
            .expect("its own rows open");
        let mut stream = client.events().await.expect("it runs").manual_ack();
        let (sender, events) = mpsc::unbounded_channel();
        // Reads on while nobody asks, so that no event is left out and nothing is held up. It ends
        // with the client.
        tokio::spawn(async move {
            while let Some(event) = stream.next().await {
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        device.life = Some(Life {
            client,
            cable,
            disk,
            events,
            requests: BTreeMap::new(),
            pending: BTreeMap::new(),
            sent: BTreeMap::new(),
            convs: BTreeMap::new(),
            rooms: BTreeMap::new(),
        });
    }
}

impl<C: Cell> World for ClientWorld<C> {
    const VIRTUAL_TIME: bool = C::VIRTUAL_TIME;

    async fn start() -> Self {
        Self {
            cell: C::start().await,
            config: config(),
            wall: TokioWall::starting_at(WALL),
            devices: Vec::new(),
        }
    }

    fn capabilities(&self) -> &'static Capabilities {
        self.cell.connector().capabilities()
    }

    fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    async fn join(&mut self, user: &str) -> Node {
        let node = Node(self.devices.len());
        self.devices.push(Device {
            user: name(user),
            key: [u8::try_from(node.0 + 1).expect("few devices"); 32],
            rows: MemoryStore::new(),
            cut: false,
            barred: false,
            lives: 0,
            life: None,
        });
        self.boot(node).await;
        let all: Vec<(UserId, DeviceId)> = self
            .devices
            .iter()
            .map(|it| (it.user.clone(), DeviceKey::from_secret(it.key).device()))
            .collect();
        for life in self.devices.iter().filter_map(|it| it.life.as_ref()) {
            for (user, device) in &all {
                life.client.trust(user, *device).await.expect("it runs");
            }
        }
        let client = &self.life(node).client;
        let up = client.link_until(|state| *state == LinkState::CaughtUp);
        timeout(DEADLINE, up)
            .await
            .expect("it connects in time")
            .expect("it runs");
        node
    }

    async fn run(&mut self, node: Node, command: Command) -> Result<Answer, Refusal> {
        timeout(DEADLINE, self.life_mut(node).run(command))
            .await
            .expect("it answers in time")
    }

    async fn event(&mut self, node: Node, within: Duration) -> Option<Event> {
        let life = self.life_mut(node);
        let told = timeout(within, life.events.recv()).await.ok()?;
        Some(life.translate(told.expect("it runs")))
    }

    async fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(node) => {
                self.devices[node.0].cut = true;
                self.life(node).cable.cut();
            }
            Fault::Mend(node) => {
                self.devices[node.0].cut = false;
                self.life(node).cable.mend();
            }
            Fault::Bar(node) => self.bar(node, true),
            Fault::Unbar(node) => self.bar(node, false),
            Fault::Kill(node) => {
                let life = self.devices[node.0].life.take().expect("the process runs");
                life.cable.cut();
                life.disk.die();
            }
            Fault::Revive(node) => self.boot(node).await,
            Fault::Stop(node) => {
                let life = self.devices[node.0].life.take().expect("the process runs");
                let left = life.client.shutdown(Duration::from_secs(5));
                timeout(DEADLINE, left)
                    .await
                    .expect("it leaves in time")
                    .expect("it runs");
            }
            Fault::RestartBroker => self.cell.restart().await,
        }
    }

    async fn wait(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn timeline(&mut self, node: Node, conv: ConvId) -> Vec<TimelineItem> {
        let end = SortKey {
            hlc: Hlc(u64::MAX),
            device: DeviceId([u8::MAX; 32]),
            epoch: Epoch(u64::MAX),
            seq: u64::MAX,
        };
        let conversation = self.life_mut(node).conversation(conv).await;
        let conversation = conversation.expect("a conversation that was open in this life");
        let items = conversation.page_before(end, usize::MAX).await;
        items.expect("its own rows are whole")
    }

    async fn session(&mut self, node: Node, peer: &UserId) -> SessionState {
        self.life(node).client.session(peer).await.expect("it runs")
    }

    async fn group(&mut self, node: Node, group: GroupId) -> Option<GroupView> {
        let views = self.life(node).client.groups().await.expect("it runs");
        views.into_iter().find(|view| view.group == group)
    }

    async fn company(&mut self, node: Node, group: GroupId) -> Option<RoomPresence> {
        let room = self.life(node).client.group(group).await.expect("it runs");
        room?.presence().await.expect("it runs")
    }

    async fn presence(&mut self, node: Node, user: &UserId) -> Option<PresenceView> {
        self.life(node)
            .client
            .presence(user)
            .await
            .expect("it runs")
    }

    async fn listings(&mut self, node: Node, lobby: &LobbyName) -> Vec<GroupListing> {
        self.life(node)
            .client
            .listings(lobby)
            .await
            .expect("it runs")
    }
}

impl<C> Life<C> {
    /// What the client tells, as the core says it; handles are kept.
    fn translate(&mut self, told: Told) -> Event {
        match told {
            Told::Request(request) => {
                let event = SessionEvent::Requested {
                    peer: request.peer().clone(),
                    invite: request.invite(),
                    note: request.note().to_owned(),
                };
                self.requests.insert(request.invite(), request);
                Event::Session(event)
            }
            Told::JoinRequest(join) => Event::Group(GroupEvent::JoinRequested {
                group: join.group(),
                request: join.request().clone(),
            }),
            Told::Message(message) => Event::Delivery(DeliveryEvent::Received(message)),
            Told::Delivery(event) => Event::Delivery(event),
            Told::Session(event) => Event::Session(event),
            Told::Group(event) => Event::Group(event),
            Told::Presence(event) => Event::Presence(event),
            Told::Lobby(event) => Event::Lobby(event),
            Told::Link(state) => Event::Link(state),
            Told::Identity(event) => Event::Identity(event),
            Told::PeerFault {
                from,
                channel,
                fault,
                count,
            } => Event::PeerFault {
                from,
                channel,
                fault,
                count,
            },
            other => panic!("the stream is read all the time, and yet: {other:?}"),
        }
    }
}
