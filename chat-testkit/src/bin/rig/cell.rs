//! The brokers under the rig, and how a client reaches them.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use chat_client::transport::{Capabilities, ConnectOptions, Connector, Transport, TransportError};
use chat_testkit::broken::{Broken, Vices};
use chat_testkit::broker::{Bridge, Broker, BrokerError, Mosquitto, NatsServer, Place, Recipe};
use chat_transport_mqtt::MqttConnector;
use chat_transport_nats::NatsConnector;
use chat_transport_ws::WsConnector;
use chat_transport_ws::hub::{Hub, Limits};

/// Which transport is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Hub,
    Mqtt,
    /// With JetStream.
    Nats,
}

/// What the broker of a world is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Setup {
    /// It keeps on disk what it acknowledged, as far as it can.
    Durable,
    /// It keeps nothing on disk.
    Volatile,
    /// Nothing on disk, and little for whoever is away or slow.
    Tight,
    /// As `Durable`, and bridged to another one.
    Bridged,
}

/// Messages that wait for one client in [`Setup::Tight`].
const FEW: usize = 20;

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Hub, Self::Mqtt, Self::Nats];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Mqtt => "mqtt",
            Self::Nats => "nats",
        }
    }

    /// True when it has such a broker.
    pub(super) fn has(self, setup: Setup) -> bool {
        setup != Setup::Bridged || self == Self::Mqtt
    }

    pub(super) fn start(self, setup: Setup) -> Result<Broker, BrokerError> {
        match self {
            Self::Hub => Broker::start(HubProcess(setup)),
            Self::Mqtt => Broker::start(mosquitto(setup)),
            Self::Nats => Broker::start(nats(setup)),
        }
    }

    /// The second of two bridged brokers, whose way to the first is `to`.
    pub(super) fn start_bridged(to: SocketAddr) -> Result<Broker, BrokerError> {
        Broker::start(mosquitto(Setup::Bridged).bridge(Bridge::new(to, "chat")))
    }

    /// How a client calls what listens at `address`.
    pub(super) fn url(self, address: SocketAddr) -> String {
        match self {
            Self::Hub => format!("ws://{address}/hub"),
            Self::Mqtt => format!("mqtt://{address}"),
            Self::Nats => format!("nats://{address}"),
        }
    }
}

fn mosquitto(setup: Setup) -> Mosquitto {
    let broker = Mosquitto::new();
    match setup {
        // Every second: to write at every change costs more than all the rest.
        Setup::Durable | Setup::Bridged => broker
            .option("persistence true")
            .option("autosave_interval 1"),
        Setup::Volatile => broker,
        Setup::Tight => broker.option(&format!("max_queued_messages {FEW}")),
    }
}

fn nats(setup: Setup) -> NatsServer {
    let broker = NatsServer::new().jetstream();
    match setup {
        // Cuts off whoever does not read.
        Setup::Tight => broker
            .option("max_payload: 1048576")
            .option("max_pending: 1048576")
            .option("write_deadline: \"1s\""),
        _ => broker,
    }
}

/// A connector of any kind.
#[derive(Debug)]
pub(super) struct Any(Box<dyn Connector>);

#[async_trait::async_trait]
impl Connector for Any {
    fn capabilities(&self) -> &'static Capabilities {
        self.0.capabilities()
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        self.0.connect(options).await
    }
}

/// A connector for an address that [`Kind::url`] made; it notices a dead broker within
/// three seconds.
pub(super) fn connector(
    url: &str,
    vices: Option<Vices>,
) -> Result<Any, Box<dyn std::error::Error>> {
    let whole = Any(match url.split_once(':') {
        Some(("mqtt", _)) => Box::new(
            MqttConnector::from_url(url)?
                .keep_alive(Duration::from_secs(1))?
                .reply_timeout(Duration::from_millis(900))?,
        ),
        Some(("nats", _)) => Box::new(
            NatsConnector::builder(url)
                .ping_interval(Duration::from_secs(1))
                .deadline(Duration::from_secs(3))
                .build()?,
        ),
        _ => Box::new(WsConnector::new(url)?),
    });
    Ok(match vices {
        None => whole,
        Some(vices) => Any(Box::new(Broken::new(whole, vices))),
    })
}

/// The transport vices of this name.
pub(super) fn vices(name: &str) -> Option<Vices> {
    let none = Vices::default();
    Some(match name {
        "drops" => Vices { drops: 50, ..none },
        "repeats" => Vices { repeats: 5, ..none },
        "shuffles" => Vices {
            shuffles: 5,
            ..none
        },
        "mute" => Vices { mute: 50, ..none },
        "forgets" => Vices {
            forgets: true,
            ..none
        },
        _ => return None,
    })
}

/// Our own hub, in a process of its own: this very program.
#[derive(Debug)]
struct HubProcess(Setup);

impl Recipe for HubProcess {
    fn program(&self) -> Result<PathBuf, BrokerError> {
        Ok(std::env::current_exe()?)
    }

    fn arguments(&self, place: &Place) -> std::io::Result<Vec<OsString>> {
        let mut arguments = vec!["hub".into(), place.port.to_string().into()];
        arguments.push(match self.0 {
            Setup::Tight => FEW.to_string().into(),
            _ => Limits::default().mailbox_frames.to_string().into(),
        });
        if self.0 == Setup::Durable {
            arguments.push(place.data.join("hub.redb").into());
        }
        Ok(arguments)
    }

    fn ready_line(&self) -> &str {
        READY
    }
}

const READY: &str = "the hub listens";

/// The hub's process. It ends by being killed.
pub(super) async fn serve(port: u16, mailbox: usize, state: Option<PathBuf>) -> Result<(), String> {
    let mut limits = Limits::default();
    limits.mailbox_frames = mailbox;
    limits.ping = Duration::from_millis(200);
    let builder = Hub::builder().allow_all().limits(limits);
    let builder = match state {
        Some(file) => builder.store(file),
        None => builder.in_memory(),
    };
    let bound = builder.bind((Ipv4Addr::LOCALHOST, port).into()).await;
    let _hub = bound.map_err(|error| error.to_string())?;
    println!("{READY}");
    core::future::pending().await
}
