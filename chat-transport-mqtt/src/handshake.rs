//! From settings to an open connection: dial, CONNECT, CONNACK. One deadline covers all of it;
//! dropping the future drops the socket.

use core::time::Duration;
use std::io;
use std::sync::{MutexGuard, PoisonError};

use bytes::BytesMut;
use chat_client::transport::{ConnectOptions, Transport, TransportError, channel};
use chat_core::channel::Channel;
use chat_core::identity::Ed25519;
use chat_core::link::DownReason;
use chat_core::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::connector::{Lasting, MqttConnector, Settings};
use crate::dial::{Carrier, dial};
use crate::link::{Limits, Link, Me};
use crate::packet::{Codec, Connect, Welcome, Will};
use crate::takeover::Takeovers;
use crate::{MAX_FRAME, Version, client_id, login_name, probe};

/// Deliveries that the broker may have in flight towards us, where it can be told.
const RECEIVE_MAXIMUM: u16 = 256;
/// Places in each direction between the client and the socket: more than that maximum and the
/// largest usual window, so that reading never waits while a client keeps up.
const CAPACITY: usize = 1_024;
/// The largest packet that we read: a frame, its topic, and properties of other publishers.
pub(crate) const MAX_PACKET: usize = MAX_FRAME + 8 * 1024;
/// A PUBLISH without its topic and payload: header, length of the topic, id, properties.
const PUBLISH_HEAD: usize = 5 + 2 + 2 + 1;
/// So long another program takes to say that it is there.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn connect(
    connector: &MqttConnector,
    options: ConnectOptions,
) -> Result<Box<dyn Transport>, TransportError> {
    let (settings, lasting) = (&connector.settings, &connector.lasting);
    let client_id = client_id(&options.user, &options.device);
    let user = settings.user.clone();
    let user = user.unwrap_or_else(|| login_name(&options.user));
    let likely = takeovers(lasting).are_likely(&client_id, Instant::now());
    if likely && taken_over(connector, &options, &client_id, &user).await? {
        return Err(TransportError::new(DownReason::Conflict));
    }
    let opening = open(settings, &options, &client_id, &user);
    let opened = in_time(settings, opening).await;
    let (carrier, rest, welcome) = opened.inspect_err(|_| takeovers(lasting).unlike(&client_id))?;
    if let Some(will) = &options.will {
        takeovers(lasting).said(&client_id, will.bytes.clone());
    }
    let limits = limits(settings, &welcome);
    let capabilities = match settings.version {
        Version::V5 => &crate::CAPABILITIES,
        Version::V311 => &crate::CAPABILITIES_V311,
    };
    {
        // A kept session delivers these before the core has asked for anything.
        let mut hashed = lasting
            .hashed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        hashed.learn(&Channel::Inbox(options.user.clone()));
        hashed.learn(&Channel::Presence(options.user.clone()));
    }
    let (transport, io) = channel(capabilities, CAPACITY);
    let me = Me {
        user: options.user,
        client_id,
    };
    let link = Link::new(settings, lasting.clone(), me, limits, io.inbound);
    let reading = Codec::new(settings.version, MAX_PACKET);
    tokio::spawn(link.run(carrier, rest, reading, io.outbound));
    Ok(Box::new(transport))
}

fn takeovers(lasting: &Lasting) -> MutexGuard<'_, Takeovers> {
    (lasting.takeovers)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

async fn in_time<T>(
    settings: &Settings,
    future: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    timeout(settings.reply_timeout, future)
        .await
        .unwrap_or_else(|_| {
            tracing::debug!("the broker did not answer in time");
            Err(TransportError::lost())
        })
}

/// Stays away for a moment, and looks whether another program speaks with our key.
async fn taken_over(
    connector: &MqttConnector,
    options: &ConnectOptions,
    client_id: &str,
    user: &str,
) -> Result<bool, TransportError> {
    let (settings, lasting) = (&connector.settings, &connector.lasting);
    sleep(PATIENCE).await;
    let channel = Channel::Presence(options.user.clone());
    let topic = settings.topics.topic(&channel, &options.user);
    let looking = probe::last_value(settings, client_id, user, &topic);
    let kept = in_time(settings, looking).await;
    let mut takeovers = takeovers(lasting);
    if let Ok(Some(kept)) = &kept {
        let header = wire::header(kept).ok();
        let signed = header.and_then(|header| wire::open(header, &channel, &Ed25519).ok());
        let by_us = signed.is_some_and(|frame| frame.key.device() == options.device);
        if by_us && takeovers.proved_by(client_id, kept) {
            return Ok(true);
        }
    }
    takeovers.unlike(client_id);
    kept.map(|_| false)
}

fn limits(settings: &Settings, welcome: &Welcome) -> Limits {
    let head = PUBLISH_HEAD + settings.topics.longest();
    Limits {
        resumed: welcome.session_present,
        max_frame: MAX_FRAME.min(welcome.max_packet.saturating_sub(head)),
        in_flight: settings.in_flight.min(welcome.receive_maximum),
        aliases: welcome.topic_aliases,
        keep_alive: match welcome.keep_alive {
            None | Some(0) => settings.keep_alive,
            Some(seconds) => seconds,
        },
        retain: welcome.retain,
        came_up: Instant::now(),
    }
}

async fn open(
    settings: &Settings,
    options: &ConnectOptions,
    client_id: &str,
    user: &str,
) -> Result<(Carrier, BytesMut, Welcome), TransportError> {
    let topics = &settings.topics;
    let will = options.will.as_ref();
    if will.is_some_and(|will| will.bytes.len() > usize::from(u16::MAX)) {
        let text = "the last will is larger than MQTT can carry".to_owned();
        return Err(TransportError::new(DownReason::Refused(text)));
    }
    let topic = will.map(|will| topics.topic(&will.channel, &options.user));
    let connect = Connect {
        client_id,
        clean: false,
        user,
        password: &settings.password,
        keep_alive: settings.keep_alive,
        session_expiry: settings.session_expiry,
        receive_maximum: RECEIVE_MAXIMUM,
        will: will.zip(topic.as_ref()).map(|(will, topic)| Will {
            topic,
            payload: &will.bytes,
            delay: settings.will_delay,
        }),
    };
    greet(settings, &connect).await
}

/// Dials, says `connect` and reads the answer, and perhaps what follows it.
pub(crate) async fn greet(
    settings: &Settings,
    connect: &Connect<'_>,
) -> Result<(Carrier, BytesMut, Welcome), TransportError> {
    let mut codec = Codec::new(settings.version, MAX_PACKET);
    let mut carrier = dial(&settings.address, &settings.tls)
        .await
        .map_err(failed)?;
    let hello = codec.connect(connect);
    carrier.write_all(&hello).await.map_err(failed)?;
    carrier.flush().await.map_err(failed)?;
    let mut buf = BytesMut::new();
    loop {
        if let Some(welcome) = codec.welcome(&mut buf)? {
            return Ok((carrier, buf, welcome));
        }
        buf.reserve(1_024);
        if carrier.read_buf(&mut buf).await.map_err(failed)? == 0 {
            return Err(TransportError::lost());
        }
    }
}

/// What the network says is tried again in silence; certificates and upgrades need somebody to look.
fn failed(error: io::Error) -> TransportError {
    tracing::debug!(%error, "no connection to the broker");
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            TransportError::new(DownReason::Other(error.to_string()))
        }
        _ => TransportError::lost(),
    }
}
