//! The packets of MQTT 5 and 3.1.1, by `rumqttc`, which appears in this file only.
//!
//! We use its packets and none of its event loop: that one reconnects, replays and keeps state over
//! connections, and the contract of a transport wants none of it (see ARCHITECTURE.md).
//!
//! Guarantees: packets are framed here, so a packet over the limit is skipped and not an error that
//! ends the connection and comes again; payloads are private copies; nothing panics on any input.

use bytes::{Buf, Bytes, BytesMut};
use chat_client::transport::{SendOutcome, TransportError};
use chat_core::link::DownReason;
use rumqttc::mqttbytes as v4;
use rumqttc::v5::mqttbytes as v5;

use crate::Version;
use crate::recent::Address;

/// What a CONNECT says.
pub(crate) struct Connect<'a> {
    pub(crate) client_id: &'a str,
    /// Nothing is kept of it.
    pub(crate) clean: bool,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) keep_alive: u16,
    /// Seconds; 3.1.1 leaves it to the broker.
    pub(crate) session_expiry: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) will: Option<Will<'a>>,
}

pub(crate) struct Will<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a Bytes,
    /// Seconds; 3.1.1 has none.
    pub(crate) delay: u32,
}

/// What a CONNACK says. Missing limits are those of the specification.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) session_present: bool,
    pub(crate) receive_maximum: u16,
    pub(crate) topic_aliases: u16,
    pub(crate) max_packet: usize,
    pub(crate) keep_alive: Option<u16>,
    pub(crate) retain: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id(pub(crate) u16);

pub(crate) struct Publish {
    pub(crate) address: Address,
    pub(crate) payload: Bytes,
    /// At least once; without one at most once.
    pub(crate) id: Option<Id>,
    pub(crate) retain: bool,
}

/// What the broker says after CONNACK.
#[derive(Debug, PartialEq)]
pub(crate) enum Packet {
    Publish {
        topic: Bytes,
        payload: Bytes,
        id: Option<Id>,
        /// A stored value, not something that was just said.
        retained: bool,
    },
    /// A publish over our limit, skipped; with its id if it wants an answer.
    Oversize(Option<Id>),
    PubAck(Id, SendOutcome),
    SubAck(Id, bool),
    UnsubAck(Id),
    Pong,
    /// The broker says why it closes (MQTT 5).
    Closing(TransportError),
}

/// The broker does not keep to the protocol.
#[derive(Debug, thiserror::Error)]
#[error("the broker sent what is no MQTT of this version: {0}")]
pub(crate) struct Malformed(String);

fn malformed(what: impl core::fmt::Display) -> Malformed {
    Malformed(what.to_string())
}

impl From<Malformed> for TransportError {
    fn from(error: Malformed) -> Self {
        Self::new(DownReason::Other(error.to_string()))
    }
}

/// Writes and reads packets of one version.
pub(crate) struct Codec {
    version: Version,
    /// Larger packets are skipped.
    max_packet: usize,
    /// Bytes still to be skipped.
    skip: usize,
}

/// A packet of which all bytes are there, or the beginning of one that is too large.
enum Frame {
    Whole(BytesMut),
    Skipped(Option<Id>),
}

impl Codec {
    pub(crate) fn new(version: Version, max_packet: usize) -> Self {
        Self {
            version,
            max_packet,
            skip: 0,
        }
    }

    /// The CONNECT packet.
    pub(crate) fn connect(&self, connect: &Connect<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        let max_packet = u32::try_from(self.max_packet).unwrap_or(u32::MAX);
        let written = match self.version {
            Version::V5 => v5_connect(connect, max_packet, &mut out),
            Version::V311 => v4_connect(connect, &mut out),
        };
        written.expect("a will and a login of bounded size fit a packet");
        out
    }

    /// Appends a PUBLISH.
    pub(crate) fn publish(&self, publish: Publish, out: &mut BytesMut) {
        let id = publish.id.map_or(0, |id| id.0);
        let written = match self.version {
            Version::V5 => v5::v5::Publish {
                dup: false,
                qos: match publish.id {
                    Some(_) => v5::QoS::AtLeastOnce,
                    None => v5::QoS::AtMostOnce,
                },
                retain: publish.retain,
                topic: publish.address.topic,
                pkid: id,
                payload: publish.payload,
                properties: publish
                    .address
                    .alias
                    .map(|alias| v5::v5::PublishProperties {
                        topic_alias: Some(alias.get()),
                        ..v5::v5::PublishProperties::default()
                    }),
            }
            .write(out)
            .map_err(malformed),
            Version::V311 => v4::v4::Publish {
                dup: false,
                qos: match publish.id {
                    Some(_) => v4::QoS::AtLeastOnce,
                    None => v4::QoS::AtMostOnce,
                },
                retain: publish.retain,
                topic: String::from_utf8(publish.address.topic.into())
                    .expect("topics of ours are ASCII"),
                pkid: id,
                payload: publish.payload,
            }
            .write(out)
            .map_err(malformed),
        };
        written.expect("the payload is below our own limit, and ids are not zero");
    }

    /// Appends a SUBSCRIBE for at least once, without our own publishes where the version can.
    pub(crate) fn subscribe(&self, id: Id, filter: &str, out: &mut BytesMut) {
        let written = match self.version {
            Version::V5 => {
                let mut filter = v5::v5::Filter::new(filter, v5::QoS::AtLeastOnce);
                filter.nolocal = true;
                let mut subscribe = v5::v5::Subscribe::new(filter, None);
                subscribe.pkid = id.0;
                subscribe.write(out).map_err(malformed)
            }
            Version::V311 => {
                let mut subscribe = v4::v4::Subscribe::new(filter, v4::QoS::AtLeastOnce);
                subscribe.pkid = id.0;
                subscribe.write(out).map_err(malformed)
            }
        };
        written.expect("a topic of ours fits a packet");
    }

    /// Appends an UNSUBSCRIBE.
    pub(crate) fn unsubscribe(&self, id: Id, filter: &str, out: &mut BytesMut) {
        let written = match self.version {
            Version::V5 => {
                let mut unsubscribe = v5::v5::Unsubscribe::new(filter, None);
                unsubscribe.pkid = id.0;
                unsubscribe.write(out).map_err(malformed)
            }
            Version::V311 => {
                let mut unsubscribe = v4::v4::Unsubscribe::new(filter);
                unsubscribe.pkid = id.0;
                unsubscribe.write(out).map_err(malformed)
            }
        };
        written.expect("a topic of ours fits a packet");
    }

    /// Appends a PUBACK.
    pub(crate) fn puback(&self, id: Id, out: &mut BytesMut) {
        // The short form is the same in both versions.
        v4::v4::PubAck::new(id.0)
            .write(out)
            .expect("four bytes fit a packet");
    }

    /// Appends a PINGREQ.
    pub(crate) fn ping(&self, out: &mut BytesMut) {
        v4::v4::PingReq.write(out).expect("two bytes fit a packet");
    }

    /// Appends a DISCONNECT that discards the will.
    pub(crate) fn disconnect(&self, out: &mut BytesMut) {
        // The short form means the same in both versions.
        v4::v4::Disconnect
            .write(out)
            .expect("two bytes fit a packet");
    }

    /// The answer to CONNECT, once all of it is there.
    ///
    /// # Errors
    /// The broker refuses us, or speaks something else.
    pub(crate) fn welcome(
        &mut self,
        buf: &mut BytesMut,
    ) -> Result<Option<Welcome>, TransportError> {
        let Some(frame) = self.frame(buf)? else {
            return Ok(None);
        };
        let Frame::Whole(bytes) = frame else {
            return Err(malformed("a large answer to CONNECT").into());
        };
        if bytes[0] >> 4 != 2 {
            return Err(malformed("no CONNACK first").into());
        }
        // A broker that knows 3.1.1 only answers in its own format: flags and code, nothing else.
        if self.version == Version::V5 && bytes.len() == 4 {
            return Err(refused("it does not speak MQTT 5; use Version::V311"));
        }
        match self.version {
            Version::V5 => v5_welcome(bytes).map(Some),
            Version::V311 => v4_welcome(bytes).map(Some),
        }
    }

    /// The next packet, once all of it is there.
    ///
    /// # Errors
    /// [`Malformed`]: nothing that follows can be understood.
    pub(crate) fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, Malformed> {
        let bytes = match self.frame(buf)? {
            None => return Ok(None),
            Some(Frame::Skipped(id)) => return Ok(Some(Packet::Oversize(id))),
            Some(Frame::Whole(bytes)) => bytes,
        };
        if bytes[0] >> 4 == 14 {
            return Ok(Some(Packet::Closing(closing(&bytes))));
        }
        match self.version {
            Version::V5 => v5_packet(bytes),
            Version::V311 => v4_packet(bytes),
        }
        .map(Some)
    }

    fn frame(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        let skipped = self.skip.min(buf.len());
        buf.advance(skipped);
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        let Some((head, len)) = header(buf)? else {
            return Ok(None);
        };
        if head + len <= self.max_packet {
            if buf.len() < head + len {
                return Ok(None);
            }
            return Ok(Some(Frame::Whole(buf.split_to(head + len))));
        }
        if buf[0] >> 4 != 3 {
            return Err(malformed("a packet over the limit"));
        }
        let Some(id) = oversize_id(buf, head, len)? else {
            return Ok(None);
        };
        self.skip = head + len;
        let skipped = self.skip.min(buf.len());
        buf.advance(skipped);
        self.skip -= skipped;
        Ok(Some(Frame::Skipped(id)))
    }
}

/// The length of the fixed header, and of what follows it.
fn header(buf: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut len = 0;
    for place in 1..=4 {
        let Some(byte) = buf.get(place) else {
            return Ok(None);
        };
        len |= usize::from(byte & 0x7f) << (7 * (place - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((place + 1, len)));
        }
    }
    Err(malformed("a packet without a length"))
}

/// The packet id of a PUBLISH of which only the beginning is there; `None` until that is.
fn oversize_id(buf: &[u8], head: usize, len: usize) -> Result<Option<Option<Id>>, Malformed> {
    if (buf[0] >> 1) & 3 == 0 {
        return Ok(Some(None));
    }
    let (Some(high), Some(low)) = (buf.get(head), buf.get(head + 1)) else {
        return Ok(None);
    };
    let topic = usize::from(u16::from_be_bytes([*high, *low]));
    let place = head + 2 + topic;
    if place + 2 > head + len {
        return Err(malformed("a topic longer than its packet"));
    }
    let (Some(high), Some(low)) = (buf.get(place), buf.get(place + 1)) else {
        return Ok(None);
    };
    Ok(Some(Some(Id(u16::from_be_bytes([*high, *low])))))
}

fn refused(text: impl core::fmt::Display) -> TransportError {
    TransportError::new(DownReason::Refused(format!(
        "the broker refuses us: {text}"
    )))
}

/// Why the broker ends the connection, from the bytes of its DISCONNECT: the parser of `rumqttc`
/// takes neither of the two short forms.
fn closing(bytes: &[u8]) -> TransportError {
    let code = match bytes {
        [_, 0] => 0,
        [_, rest @ ..] => {
            let body = rest
                .iter()
                .position(|byte| byte & 0x80 == 0)
                .map(|at| at + 1);
            body.and_then(|at| rest.get(at))
                .copied()
                .unwrap_or_default()
        }
        [] => 0,
    };
    TransportError::new(match code {
        0x8e => DownReason::Conflict,
        // Server busy, shutting down, quota, connection rate.
        0x89 | 0x8b | 0x97 | 0x9f => DownReason::TryLater,
        0x87 => DownReason::Refused("the broker says: not authorized".to_owned()),
        0x00 | 0x8d => DownReason::Lost,
        code => DownReason::Other(format!("the broker closed with reason {code:#04x}")),
    })
}

fn v5_connect(
    connect: &Connect<'_>,
    max_packet: u32,
    out: &mut BytesMut,
) -> Result<usize, Malformed> {
    let mut properties = v5::v5::ConnectProperties::new();
    properties.session_expiry_interval = Some(connect.session_expiry);
    properties.receive_maximum = Some(connect.receive_maximum);
    properties.max_packet_size = Some(max_packet);
    let will = connect.will.as_ref().map(|will| v5::v5::LastWill {
        topic: Bytes::copy_from_slice(will.topic.as_bytes()),
        message: will.payload.clone(),
        qos: v5::QoS::AtMostOnce,
        retain: true,
        properties: Some(v5::v5::LastWillProperties {
            delay_interval: Some(will.delay),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        }),
    });
    let login = Some(v5::v5::Login::new(connect.user, connect.password));
    let packet = v5::v5::Connect {
        keep_alive: connect.keep_alive,
        client_id: connect.client_id.to_owned(),
        clean_start: connect.clean,
        properties: Some(properties),
    };
    packet.write(&will, &login, out).map_err(malformed)
}

fn v4_connect(connect: &Connect<'_>, out: &mut BytesMut) -> Result<usize, Malformed> {
    let packet = v4::v4::Connect {
        protocol: v4::Protocol::V4,
        keep_alive: connect.keep_alive,
        client_id: connect.client_id.to_owned(),
        clean_session: connect.clean,
        last_will: connect.will.as_ref().map(|will| v4::v4::LastWill {
            topic: will.topic.to_owned(),
            message: will.payload.clone(),
            qos: v4::QoS::AtMostOnce,
            retain: true,
        }),
        login: Some(v4::v4::Login::new(connect.user, connect.password)),
    };
    packet.write(out).map_err(malformed)
}

fn v5_welcome(mut bytes: BytesMut) -> Result<Welcome, TransportError> {
    use v5::v5::ConnectReturnCode as Code;
    let packet = v5::v5::Packet::read(&mut bytes, None).map_err(malformed)?;
    let v5::v5::Packet::ConnAck(ack) = packet else {
        return Err(malformed("no CONNACK first").into());
    };
    let words = ack
        .properties
        .as_ref()
        .and_then(|p| p.reason_string.clone());
    let code = ack.code;
    let text = words.map_or_else(|| format!("{code:?}"), |words| format!("{code:?}, {words}"));
    match code {
        Code::Success => {}
        Code::ServiceUnavailable
        | Code::ServerUnavailable
        | Code::ServerBusy
        | Code::QuotaExceeded
        | Code::ConnectionRateExceeded => {
            return Err(TransportError::new(DownReason::TryLater));
        }
        Code::UnspecifiedError
        | Code::MalformedPacket
        | Code::ProtocolError
        | Code::ImplementationSpecificError => {
            return Err(TransportError::new(DownReason::Other(text)));
        }
        _ => return Err(refused(text)),
    }
    let limits = ack.properties.as_ref();
    if limits.and_then(|p| p.max_qos) == Some(0) {
        return Err(refused("it does not deliver at least once (QoS 1)"));
    }
    Ok(Welcome {
        session_present: ack.session_present,
        receive_maximum: limits.and_then(|p| p.receive_max).unwrap_or(u16::MAX),
        topic_aliases: limits.and_then(|p| p.topic_alias_max).unwrap_or(0),
        max_packet: limits
            .and_then(|p| p.max_packet_size)
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(usize::MAX),
        keep_alive: limits.and_then(|p| p.server_keep_alive),
        retain: limits.and_then(|p| p.retain_available) != Some(0),
    })
}

fn v4_welcome(mut bytes: BytesMut) -> Result<Welcome, TransportError> {
    use v4::v4::ConnectReturnCode as Code;
    let packet = v4::v4::Packet::read(&mut bytes, usize::MAX).map_err(malformed)?;
    let v4::v4::Packet::ConnAck(ack) = packet else {
        return Err(malformed("no CONNACK first").into());
    };
    match ack.code {
        Code::Success => Ok(Welcome {
            session_present: ack.session_present,
            receive_maximum: u16::MAX,
            topic_aliases: 0,
            max_packet: usize::MAX,
            keep_alive: None,
            retain: true,
        }),
        Code::ServiceUnavailable => Err(TransportError::new(DownReason::TryLater)),
        code => Err(refused(format!("{code:?}"))),
    }
}

fn received(topic: Bytes, payload: &[u8], id: u16, retained: bool) -> Packet {
    Packet::Publish {
        topic,
        // A slice of the read buffer would keep all of it alive.
        payload: Bytes::copy_from_slice(payload),
        id: (id != 0).then_some(Id(id)),
        retained,
    }
}

fn v5_packet(mut bytes: BytesMut) -> Result<Packet, Malformed> {
    use v5::v5::Packet as V5;
    use v5::v5::PubAckReason as Reason;
    use v5::v5::SubscribeReasonCode;
    let packet = V5::read(&mut bytes, None).map_err(malformed)?;
    Ok(match packet {
        V5::Publish(it) if it.qos != v5::QoS::ExactlyOnce => {
            received(it.topic, &it.payload, it.pkid, it.retain)
        }
        V5::PubAck(it) => {
            let outcome = match it.reason {
                Reason::Success => SendOutcome::Accepted,
                Reason::NoMatchingSubscribers => SendOutcome::NoReceiver,
                reason => {
                    let words = it.properties.and_then(|p| p.reason_string);
                    let words = words.map_or_else(
                        || format!("the broker says {reason:?}"),
                        |words| format!("the broker says {reason:?}: {words}"),
                    );
                    match reason {
                        Reason::NotAuthorized | Reason::TopicNameInvalid => {
                            SendOutcome::denied(words)
                        }
                        _ => SendOutcome::Refused(words),
                    }
                }
            };
            Packet::PubAck(Id(it.pkid), outcome)
        }
        V5::SubAck(it) => Packet::SubAck(
            Id(it.pkid),
            // At most once would lose what it delivers.
            matches!(it.return_codes[..], [SubscribeReasonCode::Success(qos)] if qos != v5::QoS::AtMostOnce),
        ),
        V5::UnsubAck(it) => Packet::UnsubAck(Id(it.pkid)),
        V5::PingResp(_) => Packet::Pong,
        other => return Err(malformed(format_args!("{other:?}"))),
    })
}

fn v4_packet(mut bytes: BytesMut) -> Result<Packet, Malformed> {
    use v4::v4::Packet as V4;
    use v4::v4::SubscribeReasonCode;
    let packet = V4::read(&mut bytes, usize::MAX).map_err(malformed)?;
    Ok(match packet {
        V4::Publish(it) if it.qos != v4::QoS::ExactlyOnce => {
            received(it.topic.into(), &it.payload, it.pkid, it.retain)
        }
        V4::PubAck(it) => Packet::PubAck(Id(it.pkid), SendOutcome::Accepted),
        V4::SubAck(it) => Packet::SubAck(
            Id(it.pkid),
            matches!(it.return_codes[..], [SubscribeReasonCode::Success(qos)] if qos != v4::QoS::AtMostOnce),
        ),
        V4::UnsubAck(it) => Packet::UnsubAck(Id(it.pkid)),
        V4::PingResp => Packet::Pong,
        other => return Err(malformed(format_args!("{other:?}"))),
    })
}

#[cfg(test)]
mod tests;
