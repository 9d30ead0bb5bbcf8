//! What people say: the plaintext inside a sealed message body.
//!
//! A content is a kind code, a fallback text and a payload; a kind that this build does not know
//! is kept whole and shown by its fallback (DESIGN section 4, "Content").

use serde::{Deserialize, Serialize};

use crate::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId};
use crate::wire::to_vec;

/// The longest text of a message, in bytes.
pub const MAX_TEXT: usize = 32 * 1024;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Plain text.
    Text {
        /// The text.
        text: String,
        /// The message of the same conversation that it answers.
        reply_to: Option<MessageId>,
    },
    /// Markdown.
    Markdown {
        /// The source.
        source: String,
        /// The message of the same conversation that it answers.
        reply_to: Option<MessageId>,
    },
    /// A kind of another version or of an application: codes from `0x8000`, and from `0xc000` for
    /// what nobody sees by itself ([`Content::is_visible`]).
    Other {
        /// The kind code.
        kind: u16,
        /// What to show instead.
        fallback: String,
        /// The bytes, untouched.
        payload: Vec<u8>,
    },
}

/// Why a content cannot be sent or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Nothing to say.
    #[error("the message is empty; write something")]
    Empty,
    /// Too long.
    #[error("the message has {bytes} bytes; shorten it to {MAX_TEXT} or send it in parts")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A reply names a message of another conversation.
    #[error("the reply names a message of another conversation; answer it there")]
    ForeignReply,
    /// An application kind below `0x8000`.
    #[error("kinds below 0x8000 are reserved; use a code from 0x8000")]
    ReservedKind,
    /// The bytes are no content.
    #[error("the body does not decode; the sender is told")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
struct WireContent<'a> {
    kind: u16,
    fallback: &'a str,
    payload: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WireReply {
    device: [u8; 32],
    epoch: u64,
    seq: u64,
}

const TEXT: u16 = 1;
const MARKDOWN: u16 = 2;
const FIRST_APPLICATION_KIND: u16 = 0x8000;
const FIRST_INVISIBLE_KIND: u16 = 0xc000;

impl Content {
    /// Plain text that answers nothing.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text {
            text: text.into(),
            reply_to: None,
        }
    }

    /// What a program that knows no kinds shows.
    pub fn fallback(&self) -> &str {
        match self {
            Self::Text { text, .. } => text,
            Self::Markdown { source, .. } => source,
            Self::Other { fallback, .. } => fallback,
        }
    }

    /// False for what changes something shown and is not shown itself, as an edit or a reaction
    /// does: application kinds from `0xc000`. It blocks nothing, and may arrive before what was
    /// sent before it when that cannot be sent (Q2).
    pub fn is_visible(&self) -> bool {
        !matches!(self, Self::Other { kind, .. } if *kind >= FIRST_INVISIBLE_KIND)
    }

    /// True for the bytes of a content that is not visible.
    pub(crate) fn is_aside(bytes: &[u8]) -> bool {
        let kind = postcard::take_from_bytes::<u16>(bytes);
        kind.is_ok_and(|(kind, _)| kind >= FIRST_INVISIBLE_KIND)
    }

    /// Encodes the content for a message of `conv`.
    ///
    /// # Errors
    /// [`ContentError`] when it is empty, too long, answers a message of another conversation or
    /// uses a reserved kind.
    pub fn encode(&self, conv: ConvId) -> Result<Vec<u8>, ContentError> {
        let reply = |reply_to: &Option<MessageId>| -> Result<Vec<u8>, ContentError> {
            let Some(id) = reply_to else {
                return Ok(Vec::new());
            };
            if id.stream.conv != conv {
                return Err(ContentError::ForeignReply);
            }
            let wire = WireReply {
                device: id.stream.device.0,
                epoch: id.stream.epoch.0,
                seq: id.seq.0,
            };
            Ok(to_vec(&wire))
        };
        let (kind, fallback, payload) = match self {
            Self::Text { text, reply_to } => (TEXT, text, reply(reply_to)?),
            Self::Markdown { source, reply_to } => (MARKDOWN, source, reply(reply_to)?),
            Self::Other {
                kind,
                fallback,
                payload,
            } => {
                if *kind < FIRST_APPLICATION_KIND {
                    return Err(ContentError::ReservedKind);
                }
                (*kind, fallback, payload.clone())
            }
        };
        if fallback.is_empty() && payload.is_empty() {
            return Err(ContentError::Empty);
        }
        let bytes = fallback.len() + payload.len();
        if bytes > MAX_TEXT {
            return Err(ContentError::TooLong { bytes });
        }
        let wire = WireContent {
            kind,
            fallback,
            payload: &payload,
        };
        Ok(to_vec(&wire))
    }

    /// Decodes the body of a message of `conv`.
    ///
    /// # Errors
    /// [`ContentError::Malformed`] when the bytes are no content.
    pub fn decode(conv: ConvId, bytes: &[u8]) -> Result<Self, ContentError> {
        let wire: WireContent<'_> =
            postcard::from_bytes(bytes).map_err(|_| ContentError::Malformed)?;
        let reply = || -> Result<Option<MessageId>, ContentError> {
            if wire.payload.is_empty() {
                return Ok(None);
            }
            let reply: WireReply =
                postcard::from_bytes(wire.payload).map_err(|_| ContentError::Malformed)?;
            let stream = StreamId {
                conv,
                device: DeviceId(reply.device),
                epoch: Epoch(reply.epoch),
            };
            Ok(Some(MessageId {
                stream,
                seq: Seq(reply.seq),
            }))
        };
        Ok(match wire.kind {
            TEXT => Self::Text {
                text: wire.fallback.to_owned(),
                reply_to: reply()?,
            },
            MARKDOWN => Self::Markdown {
                source: wire.fallback.to_owned(),
                reply_to: reply()?,
            },
            kind => Self::Other {
                kind,
                fallback: wire.fallback.to_owned(),
                payload: wire.payload.to_vec(),
            },
        })
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONV: ConvId = ConvId([9; 32]);

    #[test]
    fn contents_round_trip() {
        let stream = StreamId {
            conv: CONV,
            device: DeviceId([1; 32]),
            epoch: Epoch(7),
        };
        let id = MessageId {
            stream,
            seq: Seq(3),
        };
        for content in [
            Content::text("hi"),
            Content::Text {
                text: "yes".into(),
                reply_to: Some(id),
            },
            Content::Markdown {
                source: "*x*".into(),
                reply_to: None,
            },
            Content::Other {
                kind: 0x9000,
                fallback: "a poll".into(),
                payload: vec![1, 2],
            },
        ] {
            let bytes = content.encode(CONV).unwrap();
            assert_eq!(Content::decode(CONV, &bytes), Ok(content));
        }
    }

    #[test]
    fn an_unknown_kind_is_kept_and_shown_by_its_fallback() {
        let wire = WireContent {
            kind: 77,
            fallback: "from the future",
            payload: &[5],
        };
        let bytes = postcard::to_stdvec(&wire).unwrap();
        let content = Content::decode(CONV, &bytes).unwrap();
        assert_eq!(content.fallback(), "from the future");
        assert!(matches!(content, Content::Other { kind: 77, ref payload, .. } if payload == &[5]));
    }

    #[test]
    fn bad_contents_get_a_typed_error() {
        assert_eq!(Content::text("").encode(CONV), Err(ContentError::Empty));
        let long = Content::text("x".repeat(MAX_TEXT + 1));
        assert_eq!(
            long.encode(CONV),
            Err(ContentError::TooLong {
                bytes: MAX_TEXT + 1
            })
        );
        assert_eq!(
            Content::decode(CONV, b"\xff\xff\xff"),
            Err(ContentError::Malformed)
        );
        let reserved = Content::Other {
            kind: 9,
            fallback: "x".into(),
            payload: vec![],
        };
        assert_eq!(reserved.encode(CONV), Err(ContentError::ReservedKind));
    }
}
