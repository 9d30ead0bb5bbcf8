//! From settings to an open connection: dial, CONNECT, CONNACK. One deadline covers all of it;
//! dropping the future drops the socket.

use std::io;
use std::sync::PoisonError;

use bytes::BytesMut;
use chat_client::transport::{ConnectOptions, Transport, TransportError, channel};
use chat_core::channel::Channel;
use chat_core::link::DownReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::connector::{MqttConnector, Settings};
use crate::dial::{Carrier, dial};
use crate::link::{Limits, Link};
use crate::packet::{Codec, Connect, Welcome, Will};
use crate::{MAX_FRAME, Version, client_id, login_name};

/// Deliveries that the broker may have in flight towards us, where it can be told.
const RECEIVE_MAXIMUM: u16 = 256;
/// Places in each direction between the client and the socket: more than that maximum and the
/// largest usual window, so that reading never waits while a client keeps up.
const CAPACITY: usize = 1_024;
/// The largest packet that we read: a frame, its topic, and properties of other publishers.
const MAX_PACKET: usize = MAX_FRAME + 8 * 1024;
/// A PUBLISH without its topic and payload: header, length of the topic, id, properties.
const PUBLISH_HEAD: usize = 5 + 2 + 2 + 1;

pub(crate) async fn connect(
    connector: &MqttConnector,
    options: ConnectOptions,
) -> Result<Box<dyn Transport>, TransportError> {
    let deadline = connector.settings.reply_timeout;
    let opened = match timeout(deadline, open(&connector.settings, &options)).await {
        Ok(opened) => opened,
        Err(_) => {
            tracing::debug!("the broker did not answer in time");
            Err(TransportError::lost())
        }
    };
    let lasting = &connector.lasting;
    let (carrier, rest, welcome) = opened.inspect_err(|_| {
        let mut takeovers = lasting
            .takeovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        takeovers.unlike();
    })?;
    let settings = &connector.settings;
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
    let link = Link::new(settings, lasting.clone(), options.user, limits, io.inbound);
    let reading = Codec::new(settings.version, MAX_PACKET);
    tokio::spawn(link.run(carrier, rest, reading, io.outbound));
    Ok(Box::new(transport))
}

fn limits(settings: &Settings, welcome: &Welcome) -> Limits {
    let head = PUBLISH_HEAD + settings.topics.longest();
    Limits {
        resumed: welcome.session_present,
        max_frame: MAX_FRAME.min(welcome.max_packet.saturating_sub(head)),
        in_flight: settings.in_flight.min(welcome.receive_maximum),
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
) -> Result<(Carrier, BytesMut, Welcome), TransportError> {
    let client_id = client_id(&options.user, &options.device);
    let user = settings.user.clone();
    let user = user.unwrap_or_else(|| login_name(&options.user));
    let will_topic = options
        .will
        .as_ref()
        .map(|will| settings.topics.topic(&will.channel, &options.user));
    let will = options.will.as_ref().zip(will_topic.as_ref());
    if will.is_some_and(|(will, _)| will.bytes.len() > usize::from(u16::MAX)) {
        let text = "the last will is larger than MQTT can carry".to_owned();
        return Err(TransportError::new(DownReason::Refused(text)));
    }
    let mut codec = Codec::new(settings.version, MAX_PACKET);
    let hello = codec.connect(&Connect {
        client_id: &client_id,
        user: &user,
        password: &settings.password,
        keep_alive: settings.keep_alive,
        session_expiry: settings.session_expiry,
        receive_maximum: RECEIVE_MAXIMUM,
        will: will.map(|(will, topic)| Will {
            topic,
            payload: &will.bytes,
            delay: settings.will_delay,
        }),
    });
    let mut carrier = dial(&settings.address, &settings.tls)
        .await
        .map_err(failed)?;
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
