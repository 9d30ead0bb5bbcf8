//! The task of one connection: feeds the client library, reads what comes, and keeps the session.
//!
//! It is one loop over one state, so nothing needs a lock. Everything it waits for has a deadline:
//! a server that does not answer ends the connection, and the core decides what to repeat.
//! When the client reads slowly, the loop stops reading too; then ephemeral frames are dropped by
//! the client library, and durable ones wait in the log.

mod keep;
mod receive;
mod send;

use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use chat_client::transport::{Inbound, InboundHalf, IoSide, OutboundHalf, TransportError};
use chat_core::channel::Channel;
use chat_core::link::DownReason;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{
    AbortHandle, Abortable, BoxStream, FuturesUnordered, SelectAll, StreamExt as _, abortable,
    poll_fn as poll_fn_stream,
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::{Api, ApiError, Page};
use crate::config::{Config, Shared};
use crate::events::{Incident, Incidents};
use crate::lane::Lane;
use crate::leases::Way;
use crate::subject::Bucket;

/// Channels of one connection; a subscription beyond it is refused, and so is one that makes the
/// session larger than a frame may be.
pub(crate) const MAX_LANES: usize = 8_192;
/// What waits for the client before nothing more is read.
const MAX_UP: usize = 256;
/// Messages of one subscription, or answers, that are looked at together.
const CHUNK: usize = 64;
/// Frames of the first reading after one that did not get to its end.
const FEW: u64 = 4;
/// For so many a chunk has room at first.
const ROOM: usize = 8;
/// An orderly end that takes longer is cut short.
const CLOSE: Duration = Duration::from_millis(1_500);
/// What the server said before it closed is awaited this long.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// After an overflow the log is looked into at most this often.
const OVERFLOW: Duration = Duration::from_millis(500);

/// What the connection begins with.
pub(crate) struct Start {
    pub(crate) client: Client,
    pub(crate) api: Api,
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) io: IoSide,
    pub(crate) answers: Subscriber,
    pub(crate) inbox: String,
    pub(crate) incidents: Incidents,
    pub(crate) max_frame: usize,
    /// With JetStream.
    pub(crate) log: Option<Log>,
}

/// What JetStream keeps for us.
pub(crate) struct Log {
    pub(crate) way: Way,
    /// Which log: when it was created.
    pub(crate) identity: String,
    /// Frames that it keeps per channel.
    pub(crate) mailbox: u64,
    pub(crate) bucket: Bucket,
    pub(crate) key: String,
    pub(crate) mark: String,
    pub(crate) revision: u64,
    pub(crate) session: Subscriber,
    pub(crate) lanes: Vec<(Channel, u64, Subscriber)>,
    pub(crate) resumed: bool,
    /// The connection before did not get to the end of the log.
    pub(crate) careful: bool,
}

/// Why the loop ends.
#[derive(Debug)]
enum End {
    /// Asked to; everything is written.
    Closed,
    /// The transport was dropped.
    Dropped,
    Error(TransportError),
}

impl From<TransportError> for End {
    fn from(error: TransportError) -> Self {
        Self::Error(error)
    }
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        Self::Error(error.into())
    }
}

fn lost() -> End {
    End::Error(TransportError::lost())
}

fn other(words: impl Into<String>) -> End {
    End::Error(TransportError::new(DownReason::Other(words.into())))
}

/// Where a message of a subscription belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Lane(u64),
    Session,
}

/// Messages that came together, of one subscription.
type Chunk = (Source, Vec<Message>);

/// A request that runs beside the loop.
enum Done {
    /// Where the log ended, after these lanes were subscribed.
    Placed(Vec<u64>, Result<u64, ApiError>),
    Read(u64, Result<Page, ApiError>),
    LastValue(u64, Result<Option<Bytes>, ApiError>),
    Saved(Result<u64, ApiError>),
}

struct Open {
    lane: Lane,
    stop: AbortHandle,
    /// The server has heard of the subscription and not denied it.
    confirmed: bool,
}

struct Run {
    client: Client,
    api: Api,
    config: Arc<Config>,
    shared: Arc<Shared>,
    inbound: InboundHalf,
    inbox: String,
    max_frame: usize,
    up: VecDeque<Inbound>,
    sending: send::Sending,
    /// Lanes by number; a number is never used again.
    lanes: BTreeMap<u64, Open>,
    by_path: BTreeMap<String, u64>,
    next_lane: u64,
    /// Bytes that the channels take in the session, which is one message.
    kept_bytes: usize,
    /// Lanes whose `Subscribed` is owed.
    ungranted: BTreeSet<u64>,
    messages: SelectAll<Abortable<BoxStream<'static, Chunk>>>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    /// With JetStream.
    keep: Option<keep::Keep>,
    reading: receive::Reading,
    overflow: Option<Instant>,
    /// Why the server will end this connection.
    farewell: Option<DownReason>,
}

/// Runs a connection until it ends, and says why.
pub(crate) async fn run(start: Start) {
    let way = start.log.as_ref().map(|log| log.way.clone());
    let inbound = start.io.inbound.clone();
    let (end, rest, incidents) = Box::pin(drive(start)).await;
    if let Some(way) = way {
        way.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    let mut error = match end {
        End::Closed | End::Dropped => return,
        End::Error(error) => error,
    };
    if error.reason == DownReason::Lost {
        error.reason = last_words(incidents).await.unwrap_or(error.reason);
    }
    tracing::debug!(%error, "the connection to the server ended");
    for item in rest {
        if inbound.send_inbound(item).await.is_err() {
            return;
        }
    }
    inbound.fail(error).await;
}

/// What the server said before it closed. The queue ends when the client library's tasks have.
async fn last_words(mut incidents: Incidents) -> Option<DownReason> {
    let told = async {
        while let Some(incident) = incidents.recv().await {
            match incident {
                Incident::Ends(reason) => return Some(reason),
                Incident::Ended => return None,
                _ => {}
            }
        }
        None
    };
    timeout(LAST_WORDS, told).await.ok().flatten()
}

async fn drive(start: Start) -> (End, VecDeque<Inbound>, Incidents) {
    let Start {
        mut answers,
        mut incidents,
        io: IoSide {
            mut outbound,
            inbound,
        },
        ..
    } = start;
    let mut run = Run {
        client: start.client,
        api: start.api,
        config: start.config,
        shared: start.shared,
        inbound,
        inbox: start.inbox,
        max_frame: start.max_frame,
        up: VecDeque::new(),
        sending: send::Sending::default(),
        lanes: BTreeMap::new(),
        by_path: BTreeMap::new(),
        next_lane: 1,
        kept_bytes: 0,
        ungranted: BTreeSet::new(),
        messages: SelectAll::new(),
        jobs: FuturesUnordered::new(),
        keep: None,
        reading: receive::Reading::default(),
        overflow: None,
        farewell: None,
    };
    run.begin(start.log);
    let end = loop {
        match run.turn(&mut answers, &mut incidents, &mut outbound).await {
            Ok(()) => {}
            Err(End::Closed) => break run.close(&mut answers, &mut incidents).await,
            Err(end) => break end,
        }
    };
    run.remember();
    let end = match (end, run.farewell.take()) {
        (End::Error(error), Some(reason)) if error.reason == DownReason::Lost => {
            End::Error(TransportError::new(reason))
        }
        (end, _) => end,
    };
    (end, core::mem::take(&mut run.up), incidents)
}

/// What came of one subscription. A chunk has room for a few at first, because most are small.
fn poll_chunk(
    cx: &mut Context<'_>,
    messages: &mut Subscriber,
    source: Source,
) -> Poll<Option<Chunk>> {
    let Some(first) = ready!(messages.poll_next_unpin(cx)) else {
        return Poll::Ready(None);
    };
    let mut some = Vec::with_capacity(ROOM);
    some.push(first);
    while some.len() < CHUNK
        && let Poll::Ready(Some(message)) = messages.poll_next_unpin(cx)
    {
        some.push(message);
    }
    Poll::Ready(Some((source, some)))
}

impl Run {
    fn begin(&mut self, log: Option<Log>) {
        let resumed = log.as_ref().is_some_and(|log| log.resumed);
        self.up.push_back(Inbound::Up {
            resumed,
            max_frame: self.max_frame,
        });
        let Some(log) = log else { return };
        self.listen(Source::Session, log.session);
        self.keep = Some(keep::Keep::new(keep::Session {
            identity: log.identity,
            bucket: log.bucket,
            key: log.key,
            mark: log.mark,
            revision: log.revision,
        }));
        for (channel, cursor, subscriber) in log.lanes {
            self.open_resumed(channel, cursor, subscriber);
        }
        self.reading.mailbox = log.mailbox;
        self.reading.marker_due = resumed;
        self.reading.few = log.careful.then_some(FEW);
    }

    fn listen(&mut self, source: Source, mut messages: Subscriber) -> AbortHandle {
        let chunks = poll_fn_stream(move |cx| poll_chunk(cx, &mut messages, source));
        let (messages, stop) = abortable(chunks.boxed());
        self.messages.push(messages);
        stop
    }

    /// Waits for one thing and does it, then whatever follows from it.
    async fn turn(
        &mut self,
        answers: &mut Subscriber,
        incidents: &mut Incidents,
        outbound: &mut OutboundHalf,
    ) -> Result<(), End> {
        self.hand_up()?;
        let room = self.up.len() < MAX_UP;
        let may_send = room && self.sending.has_room();
        let next = self.up.front().cloned();
        let wake = self.next_deadline();
        let inbound = &self.inbound;
        tokio::select! {
            incident = incidents.recv() => self.handle_incident(incident)?,
            () = inbound.dropped() => return Err(End::Dropped),
            sent = async { inbound.send_inbound(next.expect("checked")).await }, if next.is_some() => {
                sent.map_err(|_| End::Dropped)?;
                self.up.pop_front();
            }
            answer = answers.next() => {
                let answer = answer.ok_or_else(lost)?;
                self.handle_answer(&answer)?;
                for _ in 1..CHUNK {
                    let Some(Some(answer)) = answers.next().now_or_never() else { break };
                    self.handle_answer(&answer)?;
                }
            }
            Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.handle_done(done)?,
            item = outbound.recv_outbound(), if may_send => {
                self.handle_outbound(item.ok_or(End::Closed)?).await?;
                for _ in 0..MAX_UP / 4 {
                    if !self.sending.has_room() || self.up.len() >= MAX_UP {
                        break;
                    }
                    let Some(item) = outbound.try_recv_outbound() else { break };
                    self.handle_outbound(item).await?;
                }
            }
            Some((source, some)) = self.messages.next(), if room && !self.messages.is_empty() => {
                self.handle_messages(source, some)?;
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                self.handle_deadline()?;
            }
        }
        self.follow_up().await
    }

    /// Gives the client `item`, or queues it until there is room.
    pub(super) fn raise(&mut self, item: Inbound) {
        if !self.up.is_empty() {
            return self.up.push_back(item);
        }
        // Where the client has gone, the loop ends with its next turn.
        if let Ok(Some(item)) = self.inbound.try_send_inbound(item) {
            self.up.push_back(item);
        }
    }

    /// Gives the client what it has room for.
    fn hand_up(&mut self) -> Result<(), End> {
        while let Some(item) = self.up.pop_front() {
            let full = self.inbound.try_send_inbound(item);
            if let Some(item) = full.map_err(|_| End::Dropped)? {
                self.up.push_front(item);
                break;
            }
        }
        Ok(())
    }

    async fn follow_up(&mut self) -> Result<(), End> {
        self.send_barrier().await?;
        self.start_jobs();
        self.save_if_due();
        self.mark_caught_up();
        Ok(())
    }

    /// Everything taken is written and answered, subscriptions too, and the session is saved.
    async fn close(&mut self, answers: &mut Subscriber, incidents: &mut Incidents) -> End {
        let work = async {
            self.send_barrier().await?;
            self.start_jobs();
            self.save_on_close();
            while !self.sending.is_idle() || self.is_saving() || self.owes_grants() {
                // Nobody reads any more.
                self.up.clear();
                tokio::select! {
                    biased;
                    incident = incidents.recv() => self.handle_incident(incident)?,
                    answer = answers.next() => {
                        let answer = answer.ok_or_else(lost)?;
                        self.handle_answer(&answer)?;
                    }
                    Some(done) = self.jobs.next(), if !self.jobs.is_empty() => {
                        self.handle_done(done)?;
                    }
                    // Not acknowledged, so it comes again: but a new cursor must stand before it.
                    Some((source, some)) = self.messages.next(), if !self.messages.is_empty() => {
                        self.handle_messages(source, some)?;
                    }
                }
                self.send_barrier().await?;
                self.start_jobs();
                self.save_on_close();
            }
            self.client.flush().await.map_err(|_| lost())
        };
        match timeout(CLOSE, work).await {
            Ok(Ok(())) => End::Closed,
            Ok(Err(end)) => end,
            Err(_) => lost(),
        }
    }

    fn handle_incident(&mut self, incident: Option<Incident>) -> Result<(), End> {
        match incident {
            None | Some(Incident::Ended) => Err(lost()),
            Some(Incident::Ends(DownReason::TryLater)) => {
                // The server is going down: better now, in order, than at its deadline.
                Err(TransportError::new(DownReason::TryLater).into())
            }
            Some(Incident::Ends(reason)) => {
                self.farewell = Some(reason);
                Ok(())
            }
            Some(Incident::Mark) => {
                self.marked();
                Ok(())
            }
            Some(Incident::Overflow) => {
                self.shared.overflows.fetch_add(1, Ordering::Relaxed);
                self.overflow.get_or_insert(Instant::now() + OVERFLOW);
                Ok(())
            }
            Some(Incident::PublishDenied(subject)) => self.refuse_publish(&subject),
            Some(Incident::SubscribeDenied(filter)) => self.refuse_subscribe(&filter),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let own = [self.overflow, self.sending.deadline(), self.save_at()];
        own.into_iter().flatten().min()
    }

    fn handle_deadline(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.pass_barrier();
        if self.sending.is_overdue(now) {
            let waited = self.config.deadline;
            return Err(other(format!("the server answered nothing for {waited:?}")));
        }
        if self.overflow.is_some_and(|at| at <= now) {
            self.overflow = None;
            self.suspect_all();
        }
        Ok(())
    }
}
