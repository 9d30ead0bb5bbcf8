//! Frames on their way out, and how their fate is learnt.
//!
//! What goes into a stream is acknowledged by the server. NATS says nothing about the rest, not
//! even that it was denied, so a barrier follows it: an empty message to our own inbox, which the
//! server returns once it has done everything before it. Complaints take another way through the
//! client library, so a [mark](events::mark) that takes that way goes with the barrier.
//!
//! What an account may publish to holds for the connection. So the barrier is for the first
//! ephemeral frames to a subject: once it is back without a complaint, those that follow count as
//! accepted when the client library has them, which is all that core NATS can promise. A complaint
//! all the same, after a change of the permissions, ends that, and the next frame has a barrier.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::collections::BTreeMap;

use async_nats::{HeaderMap, Message, PublishError, PublishErrorKind, StatusCode, Subject};
use bytes::Bytes;
use chat_client::transport::{Inbound, Outbound, SendOutcome, Token, TransportError};
use chat_core::channel::{Channel, Class};
use tokio::time::{Instant, timeout};

use super::{End, Run, lost, other};
use crate::api::{self, ApiError};
use crate::connect::{GRACE, SUBSCRIPTION, not_allowed};
use crate::events;
use crate::subject::{hex, path};

/// Frames whose fate is not known yet. Each may have an answer in the queue of our inbox.
const WINDOW: usize = SUBSCRIPTION / 2;

/// Channels that are known to take ephemeral frames; at the bound all are asked for again.
const MAX_OPEN: usize = 1_024;

/// What a barrier confirms.
enum Behind {
    Frame {
        token: Token,
        subject: Subject,
        /// For an ephemeral frame: the channel that takes them, once this is confirmed.
        opens: Option<Channel>,
    },
    Lane(u64),
}

struct Barrier {
    number: u64,
    items: Vec<Behind>,
    deadline: Instant,
    /// Complaints about what was sent before have been heard.
    marked: bool,
    /// The message is back; the mark is waited for until then.
    grace: Option<Instant>,
}

/// A frame that the server will acknowledge.
struct Waiting {
    token: Token,
    subject: String,
    deadline: Instant,
}

#[derive(Default)]
pub(super) struct Sending {
    number: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Sent since the last barrier.
    loose: Vec<Behind>,
    barrier: Option<Barrier>,
    /// Channels where the server did not deny an ephemeral frame, and their subjects.
    open: BTreeMap<Channel, Subject>,
}

impl Sending {
    pub(super) fn has_room(&self) -> bool {
        let behind = self
            .barrier
            .as_ref()
            .map_or(0, |barrier| barrier.items.len());
        self.waiting.len() + self.loose.len() + behind < WINDOW
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.loose.is_empty() && self.barrier.is_none()
    }

    /// When something has to be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.first_key_value().map(|(_, it)| it.deadline);
        let barrier = self.barrier.as_ref();
        let barrier = barrier.map(|barrier| barrier.grace.unwrap_or(barrier.deadline));
        waiting.into_iter().chain(barrier).min()
    }

    /// True when the server owes an answer for too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let waiting = self.waiting.first_key_value();
        let waiting = waiting.is_some_and(|(_, it)| it.deadline <= now);
        let barrier = self.barrier.as_ref();
        let barrier = barrier.is_some_and(|it| it.grace.is_none() && it.deadline <= now);
        waiting || barrier
    }

    /// The server took an ephemeral frame to `subject`.
    fn opened(&mut self, channel: Channel, subject: Subject) {
        if self.open.len() == MAX_OPEN {
            self.open.clear();
        }
        self.open.insert(channel, subject);
    }

    /// The server has heard of the subscription of this lane when the next barrier is back.
    pub(super) fn confirm_lane(&mut self, lane: u64) {
        self.loose.push(Behind::Lane(lane));
    }
}

/// What the client library does by `deadline`. It mostly does it at once, without a timer.
async fn within<F: Future>(deadline: Duration, work: F) -> Result<F::Output, End> {
    let mut work = pin!(work);
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        return Ok(done);
    }
    let done = timeout(deadline, work).await;
    done.map_err(|_| other("the server takes nothing any more"))
}

impl Run {
    pub(super) async fn handle_outbound(&mut self, item: Outbound) -> Result<(), End> {
        match item {
            Outbound::Send {
                token,
                channel,
                bytes,
                class,
                last_value,
                dedup,
                ..
            } => {
                if bytes.len() > self.max_frame {
                    let words = format!(
                        "the frame has {} bytes, the server takes {}",
                        bytes.len(),
                        self.max_frame
                    );
                    self.sent(token, SendOutcome::too_large(words));
                    return Ok(());
                }
                let kept = last_value && matches!(channel, Channel::Presence(_));
                if class == Class::Ephemeral
                    && !kept
                    && let Some(subject) = self.sending.open.get(&channel)
                {
                    let publish = self.client.publish(subject.clone(), bytes);
                    let result = within(self.config.deadline, publish).await?;
                    if self.taken(token, result)? {
                        self.sent(token, SendOutcome::Accepted);
                    }
                    return Ok(());
                }
                let path = path(&channel);
                let subjects = &self.config.subjects;
                let subject = match class {
                    _ if self.keep.is_none() => None,
                    _ if kept => Some(subjects.last().key(&path)),
                    Class::Durable => Some(subjects.put(&path)),
                    _ => None,
                };
                match subject {
                    Some(subject) => self.store(token, subject, dedup, bytes, &path).await,
                    None => {
                        let subject = Subject::from(subjects.now(&path));
                        let opens = (class == Class::Ephemeral && !kept).then_some(channel);
                        self.pass_on(token, subject, opens, bytes).await
                    }
                }
            }
            Outbound::Subscribe(channel) => self.subscribe(channel).await,
            Outbound::Unsubscribe(channel) => {
                self.unsubscribe(&channel);
                Ok(())
            }
            Outbound::Ack(handle) => {
                self.acknowledge(handle);
                Ok(())
            }
            item => Err(other(format!("this transport does not know {item:?}"))),
        }
    }

    /// Into a stream, which answers.
    async fn store(
        &mut self,
        token: Token,
        subject: String,
        dedup: Option<[u8; 16]>,
        bytes: Bytes,
        path: &str,
    ) -> Result<(), End> {
        let mut headers = HeaderMap::new();
        if let Some(id) = dedup {
            // The window is one for all channels of the log.
            headers.insert("Nats-Msg-Id", format!("{}.{path}", hex(&id)).as_str());
        }
        self.sending.number += 1;
        let number = self.sending.number;
        let reply = format!("{}.{number}", self.inbox);
        let publish =
            (self.client).publish_with_reply_and_headers(subject.clone(), reply, headers, bytes);
        let result = within(self.config.deadline, publish).await?;
        if !self.taken(token, result)? {
            return Ok(());
        }
        let waiting = Waiting {
            token,
            subject,
            deadline: Instant::now() + self.config.deadline,
        };
        self.sending.waiting.insert(number, waiting);
        Ok(())
    }

    /// To whoever listens now; the next barrier tells that it went.
    async fn pass_on(
        &mut self,
        token: Token,
        subject: Subject,
        opens: Option<Channel>,
        bytes: Bytes,
    ) -> Result<(), End> {
        let publish = self.client.publish(subject.clone(), bytes);
        let result = within(self.config.deadline, publish).await?;
        if self.taken(token, result)? {
            let frame = Behind::Frame {
                token,
                subject,
                opens,
            };
            self.sending.loose.push(frame);
        }
        Ok(())
    }

    /// False when the client library refused it.
    fn taken(&mut self, token: Token, result: Result<(), PublishError>) -> Result<bool, End> {
        let Err(error) = result else {
            return Ok(true);
        };
        match error.kind() {
            PublishErrorKind::Send => Err(lost()),
            _ => {
                self.sent(token, SendOutcome::Refused(error.to_string()));
                Ok(false)
            }
        }
    }

    fn sent(&mut self, token: Token, outcome: SendOutcome) {
        self.raise(Inbound::Sent { token, outcome });
    }

    /// Sends a barrier if something waits for one and none is on its way.
    pub(super) async fn send_barrier(&mut self) -> Result<(), End> {
        if self.sending.barrier.is_some() || self.sending.loose.is_empty() {
            return Ok(());
        }
        self.sending.number += 1;
        let number = self.sending.number;
        let subject = format!("{}.{number}", self.inbox);
        let both = async {
            events::mark(&self.client, &self.inbox).await?;
            let echo = self.client.publish(subject, Bytes::new());
            echo.await.map_err(|_| TransportError::lost())
        };
        within(self.config.deadline, both).await??;
        self.sending.barrier = Some(Barrier {
            number,
            items: core::mem::take(&mut self.sending.loose),
            deadline: Instant::now() + self.config.deadline,
            marked: false,
            grace: None,
        });
        Ok(())
    }

    pub(super) fn marked(&mut self) {
        if let Some(barrier) = &mut self.sending.barrier {
            barrier.marked = true;
        }
        self.pass_barrier();
    }

    /// What stands behind the barrier is done, once it is back and so is the mark.
    pub(super) fn pass_barrier(&mut self) {
        let now = Instant::now();
        let passed = self.sending.barrier.take_if(|it| {
            let heard = |grace: Instant| it.marked || grace <= now;
            it.grace.is_some_and(heard)
        });
        for item in passed.map(|barrier| barrier.items).unwrap_or_default() {
            match item {
                Behind::Frame {
                    token,
                    subject,
                    opens,
                } => {
                    self.sent(token, SendOutcome::Accepted);
                    if let Some(channel) = opens {
                        self.sending.opened(channel, subject);
                    }
                }
                Behind::Lane(lane) => self.lane_confirmed(lane),
            }
        }
    }

    /// Something came to our inbox.
    pub(super) fn handle_answer(&mut self, answer: &Message) -> Result<(), End> {
        let number = answer
            .subject
            .rsplit('.')
            .next()
            .and_then(|n| n.parse().ok());
        let Some(number) = number else {
            return Ok(());
        };
        let barrier = self.sending.barrier.as_mut();
        if let Some(barrier) = barrier.filter(|barrier| barrier.number == number) {
            barrier.grace.get_or_insert(Instant::now() + GRACE);
            self.pass_barrier();
            return Ok(());
        }
        let Some(waiting) = self.sending.waiting.remove(&number) else {
            return Ok(());
        };
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            // The stream was deleted: the next connection makes it again.
            return Err(ApiError::NoResponders(waiting.subject).into());
        }
        let outcome = match api::stored(&answer.payload) {
            Ok(_) => SendOutcome::Accepted,
            Err(error @ ApiError::Malformed) => return Err(error.into()),
            Err(error) => SendOutcome::Refused(error.to_string()),
        };
        self.sent(waiting.token, outcome);
        Ok(())
    }

    /// The server denied a subject: so it did all frames that are on their way there.
    pub(super) fn refuse_publish(&mut self, subject: &str) -> Result<(), End> {
        let sending = &mut self.sending;
        sending.open.retain(|_, open| open.as_str() != subject);
        let mut tokens = Vec::new();
        sending.waiting.retain(|_, waiting| {
            let denied = waiting.subject == subject;
            tokens.extend(denied.then_some(waiting.token));
            !denied
        });
        let mut take = |items: &mut Vec<Behind>| {
            items.retain(|item| match item {
                Behind::Frame {
                    token, subject: to, ..
                } if to.as_str() == subject => {
                    tokens.push(*token);
                    false
                }
                _ => true,
            });
        };
        take(&mut sending.loose);
        if let Some(barrier) = &mut sending.barrier {
            take(&mut barrier.items);
        }
        if tokens.is_empty() && !self.config.subjects.is_optional(subject) {
            return Err(End::Error(TransportError::new(not_allowed(subject))));
        }
        for token in tokens {
            let words = format!("the account may not publish to {subject}");
            self.sent(token, SendOutcome::denied(words));
        }
        Ok(())
    }
}
