//! What a client says.

use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, UserId};
use serde::{Deserialize, Serialize};

use super::codec::{Op, ProtoError, WireChannel, exact, put, run};
use super::{MAX_FRAME, MAX_TOKEN, MAX_WILL};

/// The first frame: who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Who.
    pub user: UserId,
    /// Which device: with the user it names the session that the hub keeps.
    pub device: DeviceId,
    /// False: forget what was kept of this session before.
    pub resume: bool,
    /// For the hub's authenticator, where the handshake carried none.
    pub token: Option<&'a str>,
    /// Published when the connection dies without [`ClientOp::Bye`].
    pub will: Option<WireWill<'a>>,
}

/// A last will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireWill<'a> {
    /// Where to.
    pub channel: Channel,
    /// The frame.
    pub bytes: &'a [u8],
}

/// A frame to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Comes back in [`HubOp::Sent`](super::HubOp::Sent).
    pub token: u64,
    /// Where to.
    pub channel: Channel,
    /// How to treat it.
    pub class: Class,
    /// After so many milliseconds it is worth nothing.
    pub ttl_ms: Option<u64>,
    /// Keep it as the channel's last value; empty bytes clear that.
    pub last_value: bool,
    /// A second frame of this session with the same id is not published.
    pub dedup: Option<[u8; 16]>,
    /// The frame.
    pub bytes: &'a [u8],
}

/// One thing a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientOp<'a> {
    /// Always the first, and only the first.
    Hello(Hello<'a>),
    /// Publish.
    Publish(Publish<'a>),
    /// Deliver this channel.
    Subscribe(Channel),
    /// No longer, and forget what is stored of it for this session.
    Unsubscribe(Channel),
    /// A delivery is durable at the client.
    Ack {
        /// As delivered.
        lane: u64,
        /// As delivered.
        seq: u64,
    },
    /// A newer token, before the old one runs out.
    Token(&'a str),
    /// The client leaves: no will.
    Bye,
}

#[derive(Serialize, Deserialize)]
struct HelloBody<'a> {
    user: &'a str,
    device: [u8; 32],
    resume: bool,
    token: Option<&'a str>,
    will: Option<(WireChannel, &'a [u8])>,
}

#[derive(Serialize, Deserialize)]
struct PublishBody<'a> {
    token: u64,
    channel: WireChannel,
    durable: bool,
    ttl_ms: Option<u64>,
    last_value: bool,
    dedup: Option<[u8; 16]>,
    #[serde(serialize_with = "run")]
    bytes: &'a [u8],
}

impl ClientOp<'_> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => put(
                out,
                0x01,
                &HelloBody {
                    user: hello.user.as_str(),
                    device: hello.device.0,
                    resume: hello.resume,
                    token: hello.token,
                    will: hello
                        .will
                        .as_ref()
                        .map(|w| (WireChannel(w.channel.clone()), w.bytes)),
                },
            ),
            Self::Publish(p) => put(
                out,
                0x02,
                &PublishBody {
                    token: p.token,
                    channel: WireChannel(p.channel.clone()),
                    durable: p.class == Class::Durable,
                    ttl_ms: p.ttl_ms,
                    last_value: p.last_value,
                    dedup: p.dedup,
                    bytes: p.bytes,
                },
            ),
            Self::Subscribe(channel) => put(out, 0x03, &WireChannel(channel.clone())),
            Self::Unsubscribe(channel) => put(out, 0x04, &WireChannel(channel.clone())),
            Self::Ack { lane, seq } => put(out, 0x05, &(lane, seq)),
            Self::Bye => put(out, 0x06, &()),
            Self::Token(token) => put(out, 0x07, token),
        }
    }
}

impl<'a> Op<'a> for ClientOp<'a> {
    fn decode(op: u8, body: &'a [u8]) -> Result<Option<Self>, ProtoError> {
        let bad = ProtoError::Body { op };
        Ok(Some(match op {
            0x01 => {
                let h: HelloBody<'a> = exact(op, body)?;
                let too_long = h.token.is_some_and(|t| t.len() > MAX_TOKEN)
                    || h.will.as_ref().is_some_and(|(_, b)| b.len() > MAX_WILL);
                let user = UserId::new(h.user).map_err(|_| bad)?;
                if too_long || user.as_str() != h.user {
                    return Err(bad);
                }
                Self::Hello(Hello {
                    user,
                    device: DeviceId(h.device),
                    resume: h.resume,
                    token: h.token,
                    will: h
                        .will
                        .map(|(WireChannel(channel), bytes)| WireWill { channel, bytes }),
                })
            }
            0x02 => {
                let p: PublishBody<'a> = exact(op, body)?;
                if p.bytes.len() > MAX_FRAME {
                    return Err(bad);
                }
                Self::Publish(Publish {
                    token: p.token,
                    channel: p.channel.0,
                    class: if p.durable {
                        Class::Durable
                    } else {
                        Class::Ephemeral
                    },
                    ttl_ms: p.ttl_ms,
                    last_value: p.last_value,
                    dedup: p.dedup,
                    bytes: p.bytes,
                })
            }
            0x03 => Self::Subscribe(exact::<WireChannel>(op, body)?.0),
            0x04 => Self::Unsubscribe(exact::<WireChannel>(op, body)?.0),
            0x05 => {
                let (lane, seq) = exact(op, body)?;
                Self::Ack { lane, seq }
            }
            0x06 => {
                exact::<()>(op, body)?;
                Self::Bye
            }
            0x07 => {
                let token: &str = exact(op, body)?;
                if token.len() > MAX_TOKEN {
                    return Err(bad);
                }
                Self::Token(token)
            }
            _ => return Ok(None),
        }))
    }
}
