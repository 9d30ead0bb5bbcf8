//! Who is told what: event streams, timelines, and calls that wait for an event.
//!
//! What must not be lost (messages, requests, changes of sessions and groups) is kept for a stream
//! that is full, and the driver receives nothing more until it was read: the sender's window
//! closes and memory stays flat. What can be asked for again (presence, typing, receipts, the
//! connection) is left out then, and the stream is told how much it missed.
//!
//! Before the first stream is opened nobody may ever read: a program may live on timelines alone. So
//! the receiving goes on. Messages are kept until they are acknowledged, by whichever way; they are
//! as many as the inbox holds, then the core closes its senders' windows. Of other events the
//! oldest are left out and counted.

use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_core::Event;
use chat_core::delivery::{Ack, DeliveryEvent, SortKey};
use chat_core::group::GroupEvent;
use chat_core::id::{ConvId, GroupId, MessageId, Seq, StreamId, UserId};
use chat_core::link::LinkState;
use chat_core::session::{CloseReason, SessionEvent};
use tokio::sync::{mpsc, oneshot, watch};

use super::track::{Follower, Track};
use crate::slot::Slot;

/// Events that wait in one stream; and for the first stream before there is one, beside messages.
pub(crate) const STREAM: usize = 1_024;
/// Places of new rows that wait in one timeline; beyond it the timeline is told that it lagged.
pub(crate) const FEED: usize = 1_024;
/// Messages of ours whose progress is remembered for whoever repeats a send.
const MAX_PROGRESS: usize = 4_096;

/// What an event stream carries.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are events, and queued by value"
)]
pub(crate) enum Told {
    Event(Event),
    /// So many were left out.
    Missed(u64),
}

/// Where rows of one conversation appear, for one timeline.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) places: mpsc::Receiver<SortKey>,
    /// Some places were left out since this was last cleared.
    pub(crate) lagged: Arc<AtomicBool>,
}

/// How a join request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JoinEnd {
    Joined,
    Denied { reason: String },
    Expired,
    Removed { by: UserId, reason: String },
}

pub(crate) type ChatWaiter = oneshot::Sender<Result<ConvId, CloseReason>>;
pub(crate) type JoinWaiter = oneshot::Sender<JoinEnd>;

#[derive(Debug)]
struct Stream {
    slot: Slot<Told>,
    held: VecDeque<Event>,
    full: bool,
    missed: u64,
}

impl Stream {
    fn take(&mut self, event: Event) {
        if self.full && can_be_missed(&event) {
            self.missed += 1;
        } else {
            self.held.push_back(event);
        }
    }
}

#[derive(Debug)]
struct Feeding {
    places: mpsc::Sender<SortKey>,
    lagged: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(crate) struct Board {
    streams: Vec<Stream>,
    /// What came before the first stream was opened.
    early: VecDeque<Event>,
    /// How many of it are no messages.
    early_others: usize,
    early_missed: u64,
    opened: bool,
    feeds: BTreeMap<ConvId, Vec<Feeding>>,
    /// By stream first: of ids of one stream only the end differs.
    progress: BTreeMap<StreamId, BTreeMap<Seq, Track>>,
    progress_order: VecDeque<MessageId>,
    chats: BTreeMap<UserId, Vec<ChatWaiter>>,
    joins: BTreeMap<GroupId, Vec<JoinWaiter>>,
    link: watch::Sender<LinkState>,
}

impl Board {
    pub(crate) fn new(link: watch::Sender<LinkState>) -> Self {
        Self {
            streams: Vec::new(),
            early: VecDeque::new(),
            early_others: 0,
            early_missed: 0,
            opened: false,
            feeds: BTreeMap::new(),
            progress: BTreeMap::new(),
            progress_order: VecDeque::new(),
            chats: BTreeMap::new(),
            joins: BTreeMap::new(),
            link,
        }
    }

    /// A new event stream; the first one gets what was told before it.
    pub(crate) fn open_stream(&mut self) -> mpsc::Receiver<Told> {
        let (sender, receiver) = mpsc::channel(STREAM);
        self.opened = true;
        self.streams.push(Stream {
            slot: Slot::new(sender),
            held: core::mem::take(&mut self.early),
            full: false,
            missed: core::mem::take(&mut self.early_missed),
        });
        receiver
    }

    /// The places of new rows of `conv`, from now on.
    pub(crate) fn open_feed(&mut self, conv: ConvId) -> Feed {
        let (sender, places) = mpsc::channel(FEED);
        let lagged = Arc::new(AtomicBool::new(false));
        let feeds = self.feeds.entry(conv).or_default();
        feeds.retain(|feed| !feed.places.is_closed());
        feeds.push(Feeding {
            places: sender,
            lagged: lagged.clone(),
        });
        Feed { places, lagged }
    }

    /// Follows a message of ours.
    pub(crate) fn follow(&mut self, id: MessageId) -> Follower {
        if let Some(progress) = self.track(&id) {
            return progress.follow();
        }
        self.forget_progress();
        let track = Track::new();
        let follower = track.follow();
        let stream = self.progress.entry(id.stream).or_default();
        stream.insert(id.seq, track);
        self.progress_order.push_back(id);
        follower
    }

    fn track(&self, id: &MessageId) -> Option<&Track> {
        self.progress.get(&id.stream)?.get(&id.seq)
    }

    /// Makes room for one more. A message that somebody follows is passed over: those are bounded
    /// by the handles that the application holds.
    fn forget_progress(&mut self) {
        let mut passed = 0;
        while self.progress_order.len() >= MAX_PROGRESS && passed < 16 {
            let Some(oldest) = self.progress_order.pop_front() else {
                return;
            };
            let followed = self.track(&oldest).is_some_and(Track::is_followed);
            if followed {
                self.progress_order.push_back(oldest);
                passed += 1;
            } else if let Entry::Occupied(mut stream) = self.progress.entry(oldest.stream) {
                stream.get_mut().remove(&oldest.seq);
                if stream.get().is_empty() {
                    stream.remove();
                }
            }
        }
    }

    pub(crate) fn await_chat(&mut self, peer: UserId, waiter: ChatWaiter) {
        let waiters = self.chats.entry(peer).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(waiter);
    }

    pub(crate) fn await_join(&mut self, group: GroupId, waiter: JoinWaiter) {
        let waiters = self.joins.entry(group).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(waiter);
    }

    /// The client stopped, whatever the core last said of the connection.
    pub(crate) fn close(&mut self) {
        self.link.send_replace(LinkState::Closed);
    }

    /// False while a stream is full: nothing more may be received.
    pub(crate) fn has_room(&self) -> bool {
        !self.streams.iter().any(|stream| stream.full)
    }

    /// Tells everybody whom the event concerns.
    pub(crate) fn tell(&mut self, event: Event) {
        self.tell_waiters(&event);
        if !self.opened {
            self.keep_early(event);
            return;
        }
        let Some((last, others)) = self.streams.split_last_mut() else {
            return;
        };
        for stream in others {
            stream.take(event.clone());
        }
        last.take(event);
    }

    fn keep_early(&mut self, event: Event) {
        if message(&event).is_none() {
            if self.early_others == STREAM {
                let oldest = self.early.iter().position(|event| message(event).is_none());
                oldest.and_then(|at| self.early.remove(at));
                self.early_missed += 1;
            } else {
                self.early_others += 1;
            }
        }
        self.early.push_back(event);
    }

    /// The application is done with these messages, without having seen a stream: they are not
    /// told to the first one.
    pub(crate) fn forget_early(&mut self, conv: ConvId, done: impl Fn(u64) -> bool) {
        if !self.opened {
            let gone =
                |event: &Event| message(event).is_some_and(|(of, at)| of == conv && done(at));
            self.early.retain(|event| !gone(event));
        }
    }

    /// Hands held events to streams that have room; true when any moved.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        self.streams.retain_mut(|stream| {
            stream.full = false;
            loop {
                if stream.held.is_empty() && stream.missed == 0 {
                    return true;
                }
                match stream.slot.poll_ready(cx) {
                    Poll::Pending => {
                        stream.full = true;
                        return true;
                    }
                    Poll::Ready(Err(_gone)) => {
                        moved = true;
                        return false;
                    }
                    Poll::Ready(Ok(())) => {}
                }
                let next = match stream.held.pop_front() {
                    Some(event) => Told::Event(event),
                    None => Told::Missed(core::mem::take(&mut stream.missed)),
                };
                moved = true;
                if stream.slot.put(next).is_err() {
                    return false;
                }
            }
        });
        moved
    }

    fn tell_waiters(&mut self, event: &Event) {
        match event {
            Event::Link(state) => {
                self.link.send_replace(state.clone());
            }
            Event::Session(SessionEvent::Opened { peer, conv, .. }) => {
                self.answer_chat(peer, &Ok(*conv));
            }
            // Another request takes its place; its outcome follows.
            Event::Session(SessionEvent::Closed {
                why: CloseReason::Superseded,
                ..
            }) => {}
            Event::Session(SessionEvent::Closed { peer, why, .. }) => {
                self.answer_chat(peer, &Err(why.clone()));
            }
            Event::Group(event) => self.tell_joiners(event),
            Event::Delivery(event) => self.tell_delivery(event),
            _ => {}
        }
    }

    fn answer_chat(&mut self, peer: &UserId, answer: &Result<ConvId, CloseReason>) {
        for waiter in self.chats.remove(peer).unwrap_or_default() {
            // A waiter that is gone lost interest.
            waiter.send(answer.clone()).ok();
        }
    }

    fn tell_joiners(&mut self, event: &GroupEvent) {
        let (group, end) = match event {
            GroupEvent::Joined { group } => (group, JoinEnd::Joined),
            GroupEvent::Denied { group, reason } => {
                let reason = reason.clone();
                (group, JoinEnd::Denied { reason })
            }
            GroupEvent::JoinExpired { group } => (group, JoinEnd::Expired),
            GroupEvent::Removed { group, by, reason } => {
                let (by, reason) = (by.clone(), reason.clone());
                (group, JoinEnd::Removed { by, reason })
            }
            _ => return,
        };
        for waiter in self.joins.remove(group).unwrap_or_default() {
            waiter.send(end.clone()).ok();
        }
    }

    fn tell_delivery(&mut self, event: &DeliveryEvent) {
        match event {
            DeliveryEvent::Accepted { id, sort, .. } => self.feed(id.stream.conv, *sort),
            DeliveryEvent::Received(received) => {
                self.feed(received.id.stream.conv, received.sort);
            }
            DeliveryEvent::Gap { conv, sort, .. } => self.feed(*conv, *sort),
            DeliveryEvent::Progress { id, ack } => self.progressed(id, *ack),
            DeliveryEvent::Failed { id, why } => {
                if let Some(progress) = self.track(id) {
                    progress.failed(why.clone());
                }
            }
            _ => {}
        }
    }

    fn progressed(&mut self, id: &MessageId, ack: Ack) {
        // What is displayed is told as a watermark: it covers what was sent before.
        let first = match ack {
            Ack::Displayed => Seq(0),
            _ => id.seq,
        };
        if let Some(stream) = self.progress.get(&id.stream) {
            for (_, progress) in stream.range(first..=id.seq) {
                progress.reached(ack);
            }
        }
    }

    fn feed(&mut self, conv: ConvId, sort: SortKey) {
        let Some(feeds) = self.feeds.get_mut(&conv) else {
            return;
        };
        feeds.retain(|feed| match feed.places.try_send(sort) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                // Seen in time: the reader looks at it after what is queued.
                feed.lagged.store(true, Ordering::Release);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        if feeds.is_empty() {
            self.feeds.remove(&conv);
        }
    }
}

/// The place of a message.
fn message(event: &Event) -> Option<(ConvId, u64)> {
    match event {
        Event::Delivery(DeliveryEvent::Received(received)) => {
            Some((received.id.stream.conv, received.pos))
        }
        _ => None,
    }
}

/// True for events whose content can be asked for again.
fn can_be_missed(event: &Event) -> bool {
    match event {
        Event::Link(_) | Event::Presence(_) | Event::Lobby(_) | Event::PeerFault { .. } => true,
        Event::Delivery(event) => matches!(
            event,
            DeliveryEvent::Accepted { .. }
                | DeliveryEvent::Progress { .. }
                | DeliveryEvent::Receipt { .. }
                | DeliveryEvent::Typing { .. }
        ),
        _ => false,
    }
}
