//! What a hub says.

use chat_core::channel::Channel;
use serde::{Deserialize, Serialize};

use super::codec::{Op, ProtoError, WireChannel, exact, put, run};
use super::{MAX_FATES, MAX_TEXT};

/// The hub's answer to [`Hello`](super::Hello): its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The session was kept: its subscriptions stand, what was stored for it follows.
    pub resumed: bool,
    /// The largest payload.
    pub max_frame: u32,
    /// The hub pings this often, in milliseconds; dead after two missed.
    pub ping_ms: u32,
    /// So many frames are kept per channel; then the oldest goes and a gap is told (Q5).
    pub mailbox_frames: u32,
    /// So many bytes are kept per channel.
    pub mailbox_bytes: u64,
    /// So many seconds a frame is kept.
    pub mailbox_secs: u64,
    /// So many frames may be published per second, on average; 0: no limit.
    pub publish_per_second: u32,
    /// So many at once after a pause.
    pub publish_burst: u32,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireOutcome<'a> {
    /// Taken; if durable and somebody has to get it later, it is on disk.
    Accepted,
    /// Nobody subscribes: it was not kept.
    NoReceiver,
    /// Not now: the hub is full.
    Refused(&'a str),
    /// Over the limit that `Welcome` announced; not before so many milliseconds.
    TooFast(u32),
    /// This user may not publish there.
    Denied,
    /// Larger than what `Welcome` announced.
    TooLarge,
}

/// One thing a hub says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubOp<'a> {
    /// Always the first, unless it is `Refused`.
    Welcome(Welcome),
    /// The connection was not taken; it closes now.
    Refused {
        /// A close code.
        code: u16,
        /// Why, for a log.
        text: &'a str,
        /// Not before.
        retry_ms: Option<u32>,
    },
    /// A frame. The same bytes go to every subscriber.
    Deliver {
        /// The hub's number for the channel; with `seq` it names the delivery in an ack.
        lane: u64,
        /// Its place in the channel's log, from 1; 0 when there is nothing to acknowledge.
        seq: u64,
        /// False for a stored last value.
        live: bool,
        /// Where it was published.
        channel: Channel,
        /// The frame.
        bytes: &'a [u8],
    },
    /// The fate of published frames whose tokens follow on each other.
    Sent {
        /// The first.
        token: u64,
        /// How many.
        count: u32,
        /// What became of each.
        outcome: WireOutcome<'a>,
    },
    /// A subscription stands and will outlive the hub, or is refused.
    Subscribed {
        /// Which.
        channel: Channel,
        /// False when refused.
        granted: bool,
    },
    /// What was stored has been delivered.
    CaughtUp,
    /// Frames of this channel were dropped at this point of the stream (Q5).
    Gap(Channel),
    /// The token was taken and holds for so many more milliseconds. Another one in time, by
    /// [`ClientOp::Token`](super::ClientOp::Token), keeps the connection.
    TokenHolds {
        /// From now.
        ms: u64,
    },
    /// The connection closes now.
    Closing {
        /// A close code.
        code: u16,
        /// Not before.
        retry_ms: Option<u32>,
    },
}

#[derive(Serialize, Deserialize)]
struct DeliverBody<'a> {
    lane: u64,
    seq: u64,
    live: bool,
    channel: WireChannel,
    #[serde(serialize_with = "run")]
    bytes: &'a [u8],
}

#[derive(Serialize, Deserialize)]
enum OutcomeBody<'a> {
    Accepted,
    NoReceiver,
    Refused(&'a str),
    TooFast(u32),
    Denied,
    TooLarge,
}

/// `text` cut to what a refusal may carry.
fn short(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl HubOp<'_> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(welcome) => put(out, 0x41, welcome),
            Self::Refused {
                code,
                text,
                retry_ms,
            } => put(out, 0x42, &(code, short(text), retry_ms)),
            Self::Deliver {
                lane,
                seq,
                live,
                channel,
                bytes,
            } => put(
                out,
                0x43,
                &DeliverBody {
                    lane: *lane,
                    seq: *seq,
                    live: *live,
                    channel: WireChannel(channel.clone()),
                    bytes,
                },
            ),
            Self::Sent {
                token,
                count,
                outcome,
            } => {
                let outcome = match outcome {
                    WireOutcome::Accepted => OutcomeBody::Accepted,
                    WireOutcome::NoReceiver => OutcomeBody::NoReceiver,
                    WireOutcome::Refused(text) => OutcomeBody::Refused(short(text)),
                    WireOutcome::TooFast(retry_ms) => OutcomeBody::TooFast(*retry_ms),
                    WireOutcome::Denied => OutcomeBody::Denied,
                    WireOutcome::TooLarge => OutcomeBody::TooLarge,
                };
                put(out, 0x44, &(token, count, outcome));
            }
            Self::Subscribed { channel, granted } => {
                put(out, 0x45, &(WireChannel(channel.clone()), granted));
            }
            Self::CaughtUp => put(out, 0x46, &()),
            Self::Gap(channel) => put(out, 0x47, &WireChannel(channel.clone())),
            Self::Closing { code, retry_ms } => put(out, 0x48, &(code, retry_ms)),
            Self::TokenHolds { ms } => put(out, 0x49, ms),
        }
    }
}

impl<'a> Op<'a> for HubOp<'a> {
    fn decode(op: u8, body: &'a [u8]) -> Result<Option<Self>, ProtoError> {
        let bad = ProtoError::Body { op };
        let bounded = |text: &'a str| {
            if text.len() > MAX_TEXT {
                return Err(bad);
            }
            Ok(text)
        };
        Ok(Some(match op {
            0x41 => Self::Welcome(exact(op, body)?),
            0x42 => {
                let (code, text, retry_ms) = exact(op, body)?;
                Self::Refused {
                    code,
                    text: bounded(text)?,
                    retry_ms,
                }
            }
            0x43 => {
                let d: DeliverBody<'a> = exact(op, body)?;
                Self::Deliver {
                    lane: d.lane,
                    seq: d.seq,
                    live: d.live,
                    channel: d.channel.0,
                    bytes: d.bytes,
                }
            }
            0x44 => {
                let (token, count, outcome) = exact(op, body)?;
                if !(1..=MAX_FATES).contains(&count) {
                    return Err(bad);
                }
                let outcome = match outcome {
                    OutcomeBody::Accepted => WireOutcome::Accepted,
                    OutcomeBody::NoReceiver => WireOutcome::NoReceiver,
                    OutcomeBody::Refused(text) => WireOutcome::Refused(bounded(text)?),
                    OutcomeBody::TooFast(retry_ms) => WireOutcome::TooFast(retry_ms),
                    OutcomeBody::Denied => WireOutcome::Denied,
                    OutcomeBody::TooLarge => WireOutcome::TooLarge,
                };
                Self::Sent {
                    token,
                    count,
                    outcome,
                }
            }
            0x45 => {
                let (WireChannel(channel), granted) = exact(op, body)?;
                Self::Subscribed { channel, granted }
            }
            0x46 => {
                exact::<()>(op, body)?;
                Self::CaughtUp
            }
            0x47 => Self::Gap(exact::<WireChannel>(op, body)?.0),
            0x48 => {
                let (code, retry_ms) = exact(op, body)?;
                Self::Closing { code, retry_ms }
            }
            0x49 => Self::TokenHolds {
                ms: exact(op, body)?,
            },
            _ => return Ok(None),
        }))
    }
}
