//! The few requests of JetStream that this transport needs, each with a deadline.
//!
//! They are written here and not taken from the client library: its decoder refuses answers of
//! nats-server 2.9, and it repeats some requests by itself, which only the core may do.

use core::time::Duration;

use async_nats::{Client, HeaderMap, Request, RequestErrorKind, StatusCode};
use bytes::Bytes;
use chat_client::transport::TransportError;
use chat_core::link::DownReason;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::capabilities::MAX_FRAME;
use crate::subject::{Bucket, Subjects};

/// Frames that one reading of the log returns at most.
pub(crate) const BATCH: u64 = 64;
/// Bytes that are asked for at once: more than any frame of ours, and far less than the server
/// holds for one connection before it cuts it off.
const READ_BYTES: u64 = 2 * MAX_FRAME as u64;
/// The server forgets a consumer that was left behind after this.
const ABANDONED: Duration = Duration::from_secs(10);

const NOT_FOUND: u64 = 10_059;
const WRONG_SEQUENCE: u64 = 10_071;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the server did not answer in time")]
    Deadline,
    #[error("nothing on the server answers {0}; enable JetStream, or connect core only")]
    NoResponders(String),
    #[error("the server says: {text} ({code})")]
    Refused { code: u64, text: String },
    #[error("somebody else changed the key first")]
    Stale,
    #[error("the server answers in a way that is not understood")]
    Malformed,
    #[error("the connection is gone")]
    Gone,
}

impl From<ApiError> for TransportError {
    fn from(error: ApiError) -> Self {
        Self::new(match error {
            ApiError::Gone => DownReason::Lost,
            other => DownReason::Other(other.to_string()),
        })
    }
}

#[derive(Deserialize)]
struct Failure {
    error: Option<ServerFault>,
}

#[derive(Deserialize)]
struct ServerFault {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The acknowledgement of a stored message.
#[derive(Deserialize)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
}

#[derive(Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) created: String,
    pub(crate) config: StreamConfig,
    pub(crate) state: StreamState,
}

#[derive(Deserialize)]
pub(crate) struct StreamState {
    pub(crate) last_seq: u64,
}

#[derive(Deserialize)]
pub(crate) struct Republish {
    pub(crate) dest: String,
}

/// What is looked at of a stream that exists.
#[derive(Deserialize)]
pub(crate) struct StreamConfig {
    pub(crate) republish: Option<Republish>,
    #[serde(default)]
    pub(crate) allow_direct: bool,
    #[serde(default)]
    pub(crate) max_msgs_per_subject: i64,
    /// Nanoseconds.
    #[serde(default)]
    pub(crate) max_age: u64,
}

/// A stream to be made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewStream {
    pub(crate) name: String,
    pub(crate) subjects: [String; 1],
    pub(crate) retention: &'static str,
    pub(crate) max_msgs_per_subject: i64,
    /// Nanoseconds.
    pub(crate) max_age: u64,
    /// `old` drops the oldest at the bound of a subject.
    pub(crate) discard: &'static str,
    pub(crate) storage: &'static str,
    pub(crate) num_replicas: usize,
    pub(crate) duplicate_window: u64,
    pub(crate) max_consumers: i64,
    pub(crate) max_msgs: i64,
    pub(crate) max_bytes: i64,
    pub(crate) allow_direct: bool,
    pub(crate) allow_rollup_hdrs: bool,
    pub(crate) deny_delete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) republish: Option<NewRepublish>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewRepublish {
    pub(crate) src: String,
    pub(crate) dest: String,
}

#[derive(Serialize)]
struct NewConsumer<'a> {
    stream_name: &'a str,
    config: ConsumerConfig<'a>,
}

#[derive(Serialize)]
struct ConsumerConfig<'a> {
    name: &'a str,
    deliver_policy: &'static str,
    opt_start_seq: u64,
    ack_policy: &'static str,
    replay_policy: &'static str,
    filter_subject: &'a str,
    inactive_threshold: u64,
    mem_storage: bool,
    num_replicas: usize,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    num_pending: u64,
}

#[derive(Serialize)]
struct Next {
    batch: u64,
    no_wait: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
}

/// A part of the log of one channel.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) frames: Vec<(u64, Bytes)>,
    /// How many frames waited when the reading began.
    pub(crate) waiting: u64,
    /// All that waited is here, or gone.
    pub(crate) complete: bool,
}

/// A value of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    /// `None` for the mark of a deletion.
    pub(crate) value: Option<Bytes>,
}

/// Talks to JetStream over one connection. Every call ends within `deadline`.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) deadline: Duration,
}

/// An answer to a publish into a stream.
pub(crate) fn stored(payload: &[u8]) -> Result<Stored, ApiError> {
    decode(payload)
}

fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, ApiError> {
    let failure: Failure = serde_json::from_slice(payload).map_err(|_| ApiError::Malformed)?;
    match failure.error {
        None => serde_json::from_slice(payload).map_err(|_| ApiError::Malformed),
        Some(fault) if fault.err_code == WRONG_SEQUENCE => Err(ApiError::Stale),
        Some(fault) => Err(ApiError::Refused {
            code: fault.err_code,
            text: fault.description,
        }),
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("plain structs are written")
        .into()
}

/// A number in a header.
pub(crate) fn number(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}

/// A name that nobody else has.
pub(crate) fn unique(client: &Client) -> String {
    let inbox = client.new_inbox();
    inbox.rsplit('.').next().unwrap_or(&inbox).to_owned()
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Api {
    async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<async_nats::Message, ApiError> {
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        // The library's own timeout does not cover a full command queue.
        let answer = self.client.send_request(subject.clone(), request);
        match tokio::time::timeout(self.deadline, answer).await {
            Err(_) => Err(ApiError::Deadline),
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => ApiError::NoResponders(subject),
                RequestErrorKind::TimedOut => ApiError::Deadline,
                RequestErrorKind::Other => ApiError::Gone,
                _ => ApiError::Refused {
                    code: 0,
                    text: error.to_string(),
                },
            }),
        }
    }

    /// A stream, if there is one.
    pub(crate) async fn stream(&self, name: &str) -> Result<Option<StreamInfo>, ApiError> {
        let subject = format!("$JS.API.STREAM.INFO.{name}");
        let answer = self.request(subject, None, Bytes::new()).await?;
        match decode(&answer.payload) {
            Err(ApiError::Refused {
                code: NOT_FOUND, ..
            }) => Ok(None),
            other => other.map(Some),
        }
    }

    pub(crate) async fn create(&self, stream: &NewStream) -> Result<StreamInfo, ApiError> {
        let subject = format!("$JS.API.STREAM.CREATE.{}", stream.name);
        let answer = self.request(subject, None, json(stream)).await?;
        decode(&answer.payload)
    }

    /// Reads the frames of one channel from the place `from` on: at most `most`, which is
    /// [`BATCH`] or fewer, and as large a part of [`READ_BYTES`].
    ///
    /// By a short-lived consumer: the server holds one only while somebody reads, and its filter
    /// is part of the subject of the request, so that an account can be limited to its channels.
    pub(crate) async fn read(
        &self,
        subjects: &Subjects,
        path: &str,
        from: u64,
        most: u64,
    ) -> Result<Page, ApiError> {
        let until = Instant::now() + self.deadline;
        let stream = subjects.log_stream();
        let filter = subjects.put(path);
        let name = unique(&self.client);
        let consumer = NewConsumer {
            stream_name: &stream,
            config: ConsumerConfig {
                name: &name,
                deliver_policy: "by_start_sequence",
                opt_start_seq: from,
                ack_policy: "none",
                replay_policy: "instant",
                filter_subject: &filter,
                inactive_threshold: nanos(ABANDONED),
                mem_storage: true,
                num_replicas: 1,
            },
        };
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{filter}");
        let answer = self.request(subject, None, json(&consumer)).await?;
        let info: ConsumerInfo = decode(&answer.payload)?;
        let batch = info.num_pending.min(most);
        let mut page = Page {
            frames: Vec::new(),
            waiting: info.num_pending,
            complete: batch == info.num_pending,
        };
        if batch > 0 {
            let bytes = READ_BYTES * most / BATCH;
            let read = async {
                let all = self.pull(&stream, &name, batch, Some(bytes), &mut page);
                if all.await? {
                    return Ok(());
                }
                if page.frames.is_empty() {
                    // Something too large, for now or for ever: alone, or nothing would follow.
                    self.pull(&stream, &name, 1, None, &mut page).await?;
                }
                page.complete &= page.frames.is_empty();
                Ok(())
            };
            let read = timeout_at(until, read).await;
            read.map_err(|_| ApiError::Deadline)??;
        }
        let delete = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
        let deleted = self.client.publish(delete, Bytes::new());
        match timeout_at(until, deleted).await {
            Err(_) => Err(ApiError::Deadline),
            Ok(Err(_)) => Err(ApiError::Gone),
            Ok(Ok(())) => Ok(page),
        }
    }

    /// Asks a consumer for its next frames. False when there is no room for the one that follows.
    async fn pull(
        &self,
        stream: &str,
        consumer: &str,
        batch: u64,
        max_bytes: Option<u64>,
        page: &mut Page,
    ) -> Result<bool, ApiError> {
        let gone = |_| ApiError::Gone;
        let inbox = self.client.new_inbox();
        let mut messages =
            (self.client.subscribe(inbox.clone()).await).map_err(|_| ApiError::Gone)?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let next = json(&Next {
            batch,
            no_wait: true,
            max_bytes,
        });
        (self.client.publish_with_reply(subject, inbox, next).await).map_err(gone)?;
        for _ in 0..batch {
            let message = messages.next().await.ok_or(ApiError::Gone)?;
            if let Some(status) = message.status {
                // Otherwise some were pruned since they were counted.
                return Ok(status != StatusCode::REQUEST_TERMINATED);
            }
            let place = message.reply.as_deref().and_then(place);
            let seq = place.ok_or(ApiError::Malformed)?;
            page.frames.push((seq, message.payload));
        }
        Ok(true)
    }

    /// The value of a key, or the mark of its deletion; `None` when there is neither.
    pub(crate) async fn get(&self, bucket: &Bucket, key: &str) -> Result<Option<Entry>, ApiError> {
        let subject = format!("$JS.API.DIRECT.GET.{}.{}", bucket.stream(), bucket.key(key));
        let answer = self.request(subject, None, Bytes::new()).await?;
        if answer.status == Some(StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        let headers = answer.headers.as_ref();
        let revision = number(headers, "Nats-Sequence").ok_or(ApiError::Malformed)?;
        let deleted = headers.is_some_and(|headers| headers.get("KV-Operation").is_some());
        Ok(Some(Entry {
            revision,
            value: (!deleted).then_some(answer.payload),
        }))
    }

    /// Writes a key, or with `None` the mark of its deletion, if its revision is still `expected`;
    /// 0 is that of no value.
    pub(crate) async fn put(
        &self,
        bucket: &Bucket,
        key: &str,
        value: Option<Bytes>,
        expected: u64,
    ) -> Result<u64, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            "Nats-Expected-Last-Subject-Sequence",
            expected.to_string().as_str(),
        );
        if value.is_none() {
            headers.insert("KV-Operation", "DEL");
        }
        let payload = value.unwrap_or_default();
        let answer = self
            .request(bucket.key(key), Some(headers), payload)
            .await?;
        Ok(stored(&answer.payload)?.seq)
    }
}

/// The place in the stream, of the subject that a delivery would be acknowledged on:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<place>…`, with two more tokens in front of the
/// stream for some accounts.
fn place(reply: &str) -> Option<u64> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let at = match tokens.len() {
        7 => 3,
        9.. => 5,
        _ => return None,
    };
    tokens.get(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_both_forms_of_an_ack_subject() {
        assert_eq!(place("$JS.ACK.s.c.1.42.7.1795178428774840075.3"), Some(42));
        assert_eq!(place("$JS.ACK._.acc.s.c.1.42.7.1795.3"), Some(42));
        assert_eq!(place("$JS.ACK._.acc.s.c.1.42.7.1795.3.rnd"), Some(42));
        assert_eq!(place("$JS.ACK.s.c.1.x.7.1795.3"), None);
        assert_eq!(place("_INBOX.x"), None);
    }

    #[test]
    fn answers_are_errors_first() {
        let refused = stored(br#"{"error":{"code":503,"err_code":10077,"description":"full"}}"#);
        let text = "full".to_owned();
        assert_eq!(refused.err(), Some(ApiError::Refused { code: 10077, text }));
        let stale = stored(br#"{"error":{"code":400,"err_code":10071},"stream":"s","seq":0}"#);
        assert_eq!(stale.err(), Some(ApiError::Stale));
        assert_eq!(stored(b"+OK").err(), Some(ApiError::Malformed));
        assert_eq!(stored(br#"{"stream":"s", "seq":9}"#).unwrap().seq, 9);
    }
}
