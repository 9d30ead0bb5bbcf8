//! The brokers under the rig, and how a client reaches them.
//!
//! What a client must know beside the address follows it behind a `#`: the version of MQTT, that
//! there is no JetStream, or the file with the authority that vouches for the broker.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use chat_client::transport::{Capabilities, ConnectOptions, Connector, Transport, TransportError};
use chat_testkit::authority::Authority;
use chat_testkit::broken::{Broken, Vices};
use chat_testkit::broker::{Bridge, Broker, BrokerError, Mosquitto, NatsServer, Place, Recipe};
use chat_transport_mqtt::{MqttConnector, Version};
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

/// How it is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flavour {
    /// The newest version over TCP.
    Plain,
    /// MQTT 3.1.1.
    V311,
    Tls,
    /// MQTT over WebSocket.
    WebSocket,
    /// NATS without JetStream.
    Core,
}

/// A transport in a flavour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Variant {
    kind: Kind,
    flavour: Flavour,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Mqtt => "mqtt",
            Self::Nats => "nats",
        }
    }
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::V311 => "v311",
            Self::Tls => "tls",
            Self::WebSocket => "ws",
            Self::Core => "core",
        }
    }
}

impl Variant {
    const ALL: [(Kind, &[Flavour]); 3] = [
        (Kind::Hub, &[Flavour::Plain]),
        (
            Kind::Mqtt,
            &[
                Flavour::Plain,
                Flavour::V311,
                Flavour::Tls,
                Flavour::WebSocket,
            ],
        ),
        (Kind::Nats, &[Flavour::Plain, Flavour::Tls, Flavour::Core]),
    ];

    /// Those of these names; each may be `all`, and flavours may be several.
    pub(super) fn named(kind: &str, flavours: &str) -> Vec<Self> {
        let wanted = |name: &str| flavours == "all" || flavours.split(',').any(|it| it == name);
        let all = Self::ALL.into_iter().flat_map(|(kind, flavours)| {
            flavours.iter().map(move |&flavour| Self { kind, flavour })
        });
        all.filter(|it| kind == "all" || it.kind.name() == kind)
            .filter(|it| wanted(it.flavour.name()))
            .collect()
    }

    pub(super) fn name(self) -> String {
        match self.flavour {
            Flavour::Plain => self.kind.name().to_owned(),
            flavour => format!("{}-{}", self.kind.name(), flavour.name()),
        }
    }

    /// True when it has such a broker.
    pub(super) fn has(self, setup: Setup) -> bool {
        let bridges = matches!(self.flavour, Flavour::Plain | Flavour::V311);
        setup != Setup::Bridged || (self.kind == Kind::Mqtt && bridges)
    }
}

/// Brokers of one variant, and who vouches for them.
#[derive(Debug)]
pub(super) struct Cell {
    variant: Variant,
    setup: Setup,
    authority: Option<Authority>,
}

impl Cell {
    pub(super) fn new(variant: Variant, setup: Setup) -> Self {
        let tls = variant.flavour == Flavour::Tls;
        Self {
            variant,
            setup,
            authority: tls.then(Authority::new),
        }
    }

    pub(super) fn start(&self) -> Result<Broker, BrokerError> {
        let vouched = self.authority.as_ref();
        let vouched = vouched.map(|it| (it.issue("broker"), it.root()));
        match (self.variant.kind, vouched) {
            (Kind::Hub, _) => Broker::start(HubProcess(self.setup)),
            (Kind::Mqtt, Some((broker, _))) => {
                Broker::start(mosquitto(self.setup).tls(broker.certificate, broker.key))
            }
            (Kind::Mqtt, None) if self.variant.flavour == Flavour::WebSocket => {
                Broker::start(mosquitto(self.setup).over_websockets())
            }
            (Kind::Mqtt, None) => Broker::start(mosquitto(self.setup)),
            (Kind::Nats, Some((broker, root))) => {
                let server = nats(self.setup).jetstream();
                Broker::start(server.tls(&broker.certificate, &broker.key, &root, ""))
            }
            (Kind::Nats, None) if self.variant.flavour == Flavour::Core => {
                Broker::start(nats(self.setup))
            }
            (Kind::Nats, None) => Broker::start(nats(self.setup).jetstream()),
        }
    }

    /// The second of two bridged brokers, whose way to the first is `to`.
    pub(super) fn start_bridged(&self, to: SocketAddr) -> Result<Broker, BrokerError> {
        Broker::start(mosquitto(self.setup).bridge(Bridge::new(to, "chat")))
    }

    /// How a client calls what listens at `address`.
    pub(super) fn url(&self, address: SocketAddr) -> String {
        let root = self.authority.as_ref().map(Authority::root);
        let root = root.map(|file| file.display().to_string());
        match (self.variant.kind, self.variant.flavour, root) {
            (Kind::Hub, ..) => format!("ws://{address}/hub"),
            (Kind::Mqtt, Flavour::V311, _) => format!("mqtt://{address}#v311"),
            (Kind::Mqtt, Flavour::WebSocket, _) => format!("ws://{address}/mqtt"),
            (Kind::Mqtt, _, Some(root)) => format!("mqtts://{address}#{root}"),
            (Kind::Mqtt, ..) => format!("mqtt://{address}"),
            (Kind::Nats, Flavour::Core, _) => format!("nats://{address}#core"),
            (Kind::Nats, _, Some(root)) => format!("tls://{address}#{root}"),
            (Kind::Nats, ..) => format!("nats://{address}"),
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
    let broker = NatsServer::new();
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

/// For longer than any fault but those that shall outlast it.
const SESSION: Duration = Duration::from_secs(15);

/// A connector for an address that [`Cell::url`] made; it notices a dead broker within
/// three seconds.
pub(super) fn connector(
    url: &str,
    vices: Option<Vices>,
) -> Result<Any, Box<dyn std::error::Error>> {
    let (url, detail) = url.split_once('#').unwrap_or((url, ""));
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    let whole = Any(match scheme {
        Some("nats" | "tls") => {
            let mut builder = NatsConnector::builder(url)
                .ping_interval(Duration::from_secs(1))
                .deadline(Duration::from_secs(3));
            match detail {
                "" => {}
                "core" => builder = builder.core_only(),
                root => builder = builder.tls_ca(root),
            }
            Box::new(builder.build()?)
        }
        Some("ws") if !url.ends_with("/mqtt") => Box::new(WsConnector::new(url)?),
        _ => {
            let connector = MqttConnector::from_url(url)?
                .keep_alive(Duration::from_secs(1))?
                .session_expiry(SESSION)?
                .reply_timeout(Duration::from_millis(900))?;
            Box::new(match detail {
                "" => connector,
                "v311" => connector.version(Version::V311),
                root => connector.tls_roots(&std::fs::read(root)?)?,
            })
        }
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
