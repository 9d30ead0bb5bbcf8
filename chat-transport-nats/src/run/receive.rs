//! Frames on their way in: subscriptions, reading the log, acknowledgements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use chat_client::transport::{Handle, Inbound, TransportError};
use chat_core::channel::Channel;
use chat_core::link::DownReason;
use tokio::time::timeout;

use super::{Done, End, MAX_LANES, MAX_UP, Open, Run, Source, lost, other};
use crate::api::{ApiError, BATCH, Page, number};
use crate::capabilities::MAX_FRAME;
use crate::connect::not_allowed;
use crate::lane::{Lane, Offer, State};
use crate::session::Record;
use crate::subject::{Way, path};

/// Deliveries that wait for an acknowledgement; at the bound frames stay in the log.
const MAX_UNACKED: usize = 4_096;
/// Channels whose log is read at the same time.
const MAX_READS: usize = 8;

/// Handles are unique in the process, so one of an older connection is never mistaken for ours.
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

#[derive(Default)]
pub(super) struct Reading {
    /// Frames that the log keeps per channel.
    pub(super) mailbox: u64,
    /// `CaughtUp` is owed.
    pub(super) marker_due: bool,
    /// The line breaks while the log is read: so many frames at a time, one channel after the
    /// other, and more when those are durable. Twice as many each time.
    pub(super) few: Option<u64>,
    /// Lanes that wait to learn where the log ends, and whether somebody is asking.
    to_place: Vec<u64>,
    placing: bool,
    /// Lanes with frames in the log, and the one that was read last.
    behind: BTreeSet<u64>,
    last_read: u64,
    reads: usize,
    last_values: usize,
    /// Deliveries that wait: by handle, the lane and the place.
    handles: BTreeMap<u64, (u64, u64)>,
}

impl Reading {
    fn next_behind(&mut self) -> Option<u64> {
        let after = self.behind.range(self.last_read + 1..).next();
        let next = *after.or_else(|| self.behind.first())?;
        self.behind.remove(&next);
        self.last_read = next;
        Some(next)
    }

    pub(super) fn is_done(&self) -> bool {
        let waiting = !self.to_place.is_empty() || self.placing || !self.behind.is_empty();
        !waiting && self.reads == 0 && self.last_values == 0
    }
}

impl Run {
    pub(super) async fn subscribe(&mut self, channel: Channel) -> Result<(), End> {
        let path = path(&channel);
        if let Some(number) = self.by_path.get(&path).copied() {
            if !self.is_ungranted(number) {
                self.subscribed(channel, true);
            }
            return Ok(());
        }
        let kept = self.kept_bytes + Record::size_of(&channel);
        if self.lanes.len() == MAX_LANES || kept > self.max_frame {
            self.subscribed(channel, false);
            return Ok(());
        }
        let filter = self.config.subjects.filter(&path);
        let subscribe = self.client.subscribe(filter);
        let subscriber = match timeout(self.config.deadline, subscribe).await {
            Err(_) => return Err(other("the server takes nothing any more")),
            Ok(Err(_)) => return Err(lost()),
            Ok(Ok(subscriber)) => subscriber,
        };
        let lane = Lane::new(channel, path);
        let number = self.open(lane, subscriber, false);
        self.sending.confirm_lane(number);
        self.await_grant(number);
        if self.keep.is_some() {
            self.reading.to_place.push(number);
            self.reading.marker_due = true;
        }
        Ok(())
    }

    /// A channel of the session, which goes on where its cursor stands.
    pub(super) fn open_resumed(&mut self, channel: Channel, cursor: u64, subscriber: Subscriber) {
        let path = path(&channel);
        let number = self.open(Lane::resumed(channel, path, cursor), subscriber, true);
        self.reading.behind.insert(number);
        self.ask_last_value(number);
    }

    fn open(&mut self, lane: Lane, subscriber: Subscriber, confirmed: bool) -> u64 {
        let number = self.next_lane;
        self.next_lane += 1;
        let stop = self.listen(Source::Lane(number), subscriber);
        self.by_path.insert(lane.path.clone(), number);
        self.kept_bytes += Record::size_of(&lane.channel);
        let open = Open {
            lane,
            stop,
            confirmed,
        };
        self.lanes.insert(number, open);
        number
    }

    pub(super) fn unsubscribe(&mut self, channel: &Channel) {
        if let Some(number) = self.by_path.get(&path(channel)).copied() {
            self.shut(number);
            self.session_changed();
        }
    }

    fn shut(&mut self, number: u64) {
        if let Some(open) = self.lanes.remove(&number) {
            open.stop.abort();
            self.by_path.remove(&open.lane.path);
            self.kept_bytes -= Record::size_of(&open.lane.channel);
        }
        let reading = &mut self.reading;
        reading.behind.remove(&number);
        reading.to_place.retain(|it| *it != number);
        reading.handles.retain(|_, (lane, _)| *lane != number);
        self.forget_grant(number);
    }

    /// The server denied a subscription.
    pub(super) fn refuse_subscribe(&mut self, filter: &str) -> Result<(), End> {
        let path = self.config.subjects.filtered(filter);
        let number = path.and_then(|path| self.by_path.get(path)).copied();
        match number {
            None if path.is_some() => Ok(()),
            None => Err(TransportError::new(not_allowed(filter)).into()),
            Some(number) if self.is_ungranted(number) => {
                let channel = self
                    .lanes
                    .get(&number)
                    .map(|open| open.lane.channel.clone());
                self.shut(number);
                self.session_changed();
                if let Some(channel) = channel {
                    self.subscribed(channel, false);
                }
                Ok(())
            }
            // Asking again over a new connection gives the core its refusal.
            Some(_) => Err(other(format!("the server took {filter} away"))),
        }
    }

    pub(super) fn subscribed(&mut self, channel: Channel, granted: bool) {
        self.raise(Inbound::Subscribed { channel, granted });
    }

    /// The server has the subscription and did not deny it.
    pub(super) fn lane_confirmed(&mut self, number: u64) {
        if let Some(open) = self.lanes.get_mut(&number) {
            open.confirmed = true;
            self.lane_ready(number);
        }
    }

    fn lane_ready(&mut self, number: u64) {
        let Some(open) = self.lanes.get(&number) else {
            return;
        };
        let placed = self.keep.is_none() || open.lane.state() != State::Placing;
        if open.confirmed && placed && self.is_ungranted(number) {
            self.ask_last_value(number);
            self.ready_to_grant(number);
        }
    }

    pub(super) fn acknowledge(&mut self, handle: Handle) {
        let Some((number, seq)) = self.reading.handles.remove(&handle.0) else {
            return;
        };
        if let Some(open) = self.lanes.get_mut(&number)
            && open.lane.ack(seq)
        {
            self.cursor_moved();
        }
    }

    pub(super) fn handle_messages(
        &mut self,
        source: Source,
        some: Vec<Message>,
    ) -> Result<(), End> {
        some.into_iter()
            .try_for_each(|message| self.handle_message(source, message))
    }

    fn handle_message(&mut self, source: Source, message: Message) -> Result<(), End> {
        let number = match source {
            Source::Lane(number) => number,
            Source::Session => return self.handle_session(&message),
        };
        let Some(open) = self.lanes.get_mut(&number) else {
            return Ok(());
        };
        let way = self.config.subjects.way(&message.subject, &open.lane.path);
        let fits = message.payload.len() <= MAX_FRAME;
        let handle = match way.filter(|_| fits) {
            None => return self.foreign(),
            Some(Way::Log) if self.keep.is_some() => {
                let headers = message.headers.as_ref();
                let places = number_pair(headers);
                let Some((seq, previous)) = places else {
                    return self.foreign();
                };
                let room = self.reading.handles.len() < MAX_UNACKED;
                if open.lane.offer(seq, previous, room) == Offer::Drop {
                    if open.lane.state() == State::Behind {
                        self.reading.behind.insert(number);
                    }
                    return Ok(());
                }
                Some(self.reading.handle(number, seq))
            }
            Some(_) => None,
        };
        let channel = open.lane.channel.clone();
        self.received(channel, &message.payload, handle, true);
        Ok(())
    }

    fn foreign(&mut self) -> Result<(), End> {
        self.shared.foreign.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The session was written, by us or by the next connection of this device. What an earlier one
    /// wrote may still arrive, and means nothing.
    fn handle_session(&mut self, message: &Message) -> Result<(), End> {
        let revision = number(message.headers.as_ref(), "Nats-Sequence");
        let record = Record::decode(&message.payload);
        let (Some(revision), Some(record), Some(keep)) = (revision, record, &self.keep) else {
            return self.foreign();
        };
        if record.mark != keep.session.mark && revision > keep.session.revision {
            return Err(TransportError::new(DownReason::Conflict).into());
        }
        Ok(())
    }

    fn received(&mut self, channel: Channel, bytes: &[u8], handle: Option<Handle>, live: bool) {
        self.raise(Inbound::Received {
            channel,
            // A slice of the read buffer would keep all of it alive.
            bytes: Bytes::copy_from_slice(bytes),
            handle,
            live,
        });
    }

    pub(super) fn handle_done(&mut self, done: Done) -> Result<(), End> {
        match done {
            Done::Placed(lanes, last) => self.placed(&lanes, last?),
            Done::Read(number, page) => self.read(number, page?),
            Done::LastValue(number, value) => {
                self.reading.last_values -= 1;
                let open = self.lanes.get(&number);
                if let (Some(value), Some(open)) = (value?, open) {
                    let channel = open.lane.channel.clone();
                    self.received(channel, &value, None, false);
                }
            }
            Done::Saved(result) => self.saved(result)?,
        }
        Ok(())
    }

    fn placed(&mut self, lanes: &[u64], last: u64) {
        self.reading.placing = false;
        for number in lanes {
            if let Some(open) = self.lanes.get_mut(number) {
                open.lane.placed(last);
                if open.lane.state() == State::Behind {
                    self.reading.behind.insert(*number);
                }
                self.lane_ready(*number);
            }
        }
    }

    fn read(&mut self, number: u64, page: Page) {
        self.reading.reads -= 1;
        let more = self.reading.few.map(|few| 2 * few);
        self.reading.few = more.filter(|few| *few < BATCH);
        let Some(open) = self.lanes.get_mut(&number) else {
            return;
        };
        let channel = open.lane.channel.clone();
        // At the bound of a mailbox the oldest frames are dropped without a word.
        if page.waiting >= self.reading.mailbox {
            self.raise(Inbound::Gap(channel.clone()));
        }
        let complete = page.complete;
        for (seq, bytes) in page.frames {
            let Some(open) = self.lanes.get_mut(&number) else {
                return;
            };
            if !open.lane.fetched(seq) {
                continue;
            }
            if bytes.len() > MAX_FRAME {
                open.lane.ack(seq);
                self.shared.foreign.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let handle = self.reading.handle(number, seq);
            self.received(channel.clone(), &bytes, Some(handle), true);
        }
        let Some(open) = self.lanes.get_mut(&number) else {
            return;
        };
        if open.lane.fetch_ended(complete) {
            self.up.push_back(Inbound::Gap(channel));
        }
        if open.lane.state() == State::Behind {
            self.reading.behind.insert(number);
        }
    }

    /// Messages were dropped on the way to us, NATS does not say of which subscription.
    pub(super) fn suspect_all(&mut self) {
        let keeps = self.keep.is_some();
        for (number, open) in &mut self.lanes {
            if keeps {
                open.lane.suspect();
                if open.lane.state() == State::Behind {
                    self.reading.behind.insert(*number);
                }
            } else {
                self.up.push_back(Inbound::Gap(open.lane.channel.clone()));
            }
        }
    }

    fn ask_last_value(&mut self, number: u64) {
        let Some(open) = self.lanes.get(&number) else {
            return;
        };
        if self.keep.is_none() || !matches!(open.lane.channel, Channel::Presence(_)) {
            return;
        }
        let (api, bucket) = (self.api.clone(), self.config.subjects.last());
        let path = open.lane.path.clone();
        self.reading.last_values += 1;
        self.jobs.push(Box::pin(async move {
            let entry = api.get(&bucket, &path).await;
            Done::LastValue(number, entry.map(|entry| entry?.value))
        }));
    }

    pub(super) fn start_jobs(&mut self) {
        let reading = &mut self.reading;
        if !reading.placing && !reading.to_place.is_empty() {
            reading.placing = true;
            let lanes = core::mem::take(&mut reading.to_place);
            let (api, stream) = (self.api.clone(), self.config.subjects.log_stream());
            self.jobs.push(Box::pin(async move {
                let last = match api.stream(&stream).await {
                    Ok(Some(info)) => Ok(info.state.last_seq),
                    Ok(None) => Err(ApiError::NoResponders(stream)),
                    Err(error) => Err(error),
                };
                Done::Placed(lanes, last)
            }));
        }
        let most = if reading.few.is_some() { 1 } else { MAX_READS };
        while reading.reads < most && self.up.len() < MAX_UP && reading.handles.len() < MAX_UNACKED
        {
            let Some(number) = reading.next_behind() else {
                break;
            };
            let Some(open) = self.lanes.get_mut(&number) else {
                continue;
            };
            if reading.few.is_some() && open.lane.awaits_acks() {
                reading.behind.insert(number);
                break;
            }
            let few = reading.few.unwrap_or(BATCH);
            let (api, subjects) = (self.api.clone(), self.config.subjects.clone());
            let (path, from) = (open.lane.path.clone(), open.lane.fetch());
            reading.reads += 1;
            self.jobs.push(Box::pin(async move {
                Done::Read(number, api.read(&subjects, &path, from, few).await)
            }));
        }
    }

    pub(super) fn mark_caught_up(&mut self) {
        if self.reading.marker_due && self.reading.is_done() && !self.owes_grants() {
            self.reading.marker_due = false;
            self.raise(Inbound::CaughtUp);
        }
    }
}

impl Reading {
    fn handle(&mut self, lane: u64, seq: u64) -> Handle {
        let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        self.handles.insert(handle, (lane, seq));
        Handle(handle)
    }
}

/// The place of a republished frame, and that of the one before it on its channel.
fn number_pair(headers: Option<&async_nats::HeaderMap>) -> Option<(u64, u64)> {
    let seq = number(headers, "Nats-Sequence").filter(|seq| *seq > 0)?;
    Some((seq, number(headers, "Nats-Last-Sequence")?))
}
