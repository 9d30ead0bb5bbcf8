//! History and live messages of one conversation, as one sequence.
//!
//! Everything shown is read from the store; the driver only says where new rows appeared. So
//! there is no seam between history and live, nothing twice, and no copy of messages in memory.
//! New rows at the end come in display order; a row that belongs above what was shown (`late`)
//! comes when it arrives.

mod seen;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chat_core::delivery::{Delivery, SortKey, TimelineItem};
use chat_core::effect::{RestoreError, Row, Table};
use futures_core::Stream;
use seen::Seen;

use super::{ClientError, Conversation};
use crate::driver::{FEED, Feed};
use crate::store::{Range, StoreError};

/// Rows read at once.
const PAGE: usize = 64;

/// Why a timeline has no next item.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimelineError {
    /// It was not read for so long that the places of late messages were forgotten. Go on reading:
    /// everything newer follows. What belongs further up is found with
    /// [`Conversation::page_before`].
    #[error("the timeline was read too slowly; page back to find late messages, and go on reading")]
    Lagged,
    /// The store cannot be read. The timeline ends.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row is damaged. The timeline goes on after it.
    #[error(transparent)]
    Row(#[from] RestoreError),
    /// The client does not run any more. The timeline ends.
    #[error(transparent)]
    Stopped(#[from] ClientError),
}

impl TimelineError {
    /// True when more items follow.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Lagged | Self::Row(_))
    }
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Beginning,
    LastRead,
    Latest(usize),
    After(SortKey),
}

/// Where a timeline starts.
#[derive(Debug)]
#[must_use = "say where to start"]
pub struct TimelineBuilder(Conversation);

impl TimelineBuilder {
    pub(super) fn new(conversation: Conversation) -> Self {
        Self(conversation)
    }

    /// From the first message.
    pub fn from_beginning(self) -> Timeline {
        Timeline::new(self.0, Start::Beginning)
    }

    /// From the first message after [`Conversation::mark_read`].
    pub fn from_last_read(self) -> Timeline {
        Timeline::new(self.0, Start::LastRead)
    }

    /// The latest `items`, then what arrives.
    pub fn latest(self, items: usize) -> Timeline {
        Timeline::new(self.0, Start::Latest(items))
    }

    /// What comes after `place`.
    pub fn after(self, place: SortKey) -> Timeline {
        Timeline::new(self.0, Start::After(place))
    }
}

type Work = Pin<Box<dyn Future<Output = Result<Outcome, TimelineError>> + Send>>;

enum Outcome {
    Opened {
        feed: Feed,
        after: Option<Bytes>,
        rows: Vec<Row>,
    },
    /// The next rows in order.
    Scanned(Vec<Row>),
    /// A late row.
    Found(Vec<Row>),
}

/// History and live messages, as a stream. A gap is an item.
///
/// Taking the next item acknowledges a message taken before, and only that one, unless
/// [`manual_ack`](Self::manual_ack) was chosen: the order here is that of the screen, and a message
/// that was not shown is still told again after a restart. It may be left unread: it costs no memory then.
/// Like every handle it keeps the client running.
#[must_use = "streams do nothing unless read"]
pub struct Timeline {
    conversation: Conversation,
    start: Option<Start>,
    feed: Option<Feed>,
    /// The last key that was read in order.
    cursor: Option<Bytes>,
    /// There may be rows above the cursor.
    scanning: bool,
    late: VecDeque<SortKey>,
    lagged: bool,
    ready: VecDeque<Result<TimelineItem, TimelineError>>,
    seen: Seen,
    work: Option<Work>,
    taken: Option<u64>,
    manual: bool,
    ended: bool,
}

impl Timeline {
    fn new(conversation: Conversation, start: Start) -> Self {
        Self {
            conversation,
            start: Some(start),
            feed: None,
            cursor: None,
            scanning: true,
            late: VecDeque::new(),
            lagged: false,
            ready: VecDeque::new(),
            seen: Seen::default(),
            work: None,
            taken: None,
            manual: false,
            ended: false,
        }
    }

    /// Leaves acknowledging to [`Conversation::acknowledge`].
    pub fn manual_ack(self) -> Self {
        Self {
            manual: true,
            ..self
        }
    }

    /// The next item; `None` when the client has stopped.
    ///
    /// # Errors
    /// [`TimelineError`]; `is_retryable` says whether more items follow.
    ///
    /// # Cancel safety
    /// Safe: no item is lost.
    pub async fn next(&mut self) -> Option<Result<TimelineItem, TimelineError>> {
        core::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn open(&self, start: Start) -> Work {
        let conversation = self.conversation.clone();
        Box::pin(async move {
            let conv = conversation.id();
            // The feed comes first: a row that appears from now on is fed, read, or both.
            let (feed, read) = conversation
                .client()
                .ask(move |desk, _| (desk.board.open_feed(conv), desk.endpoint.last_read(conv)))
                .await?;
            let mut rows = Vec::new();
            let after = match start {
                Start::Beginning => None,
                Start::LastRead => read,
                Start::After(place) => Some(place),
                Start::Latest(items) => {
                    rows = conversation.read(None, None, items, true).await?;
                    rows.reverse();
                    None
                }
            };
            let after = match rows.last() {
                Some(row) => Some(row.key.clone()),
                None => after.map(|place| Delivery::timeline_key(conv, &place)),
            };
            Ok(Outcome::Opened { feed, after, rows })
        })
    }

    fn scan(&self) -> Work {
        let (conversation, after) = (self.conversation.clone(), self.cursor.clone());
        Box::pin(async move {
            let rows = conversation.read(after, None, PAGE, false).await?;
            Ok(Outcome::Scanned(rows))
        })
    }

    fn find(&self, place: SortKey) -> Work {
        let conversation = self.conversation.clone();
        Box::pin(async move {
            let range = Range {
                table: Table::Timeline,
                prefix: Delivery::timeline_key(conversation.id(), &place),
                after: None,
                before: None,
                limit: 1,
                newest_first: false,
            };
            let rows = conversation.client().0.store.read(range).await?;
            Ok(Outcome::Found(rows))
        })
    }

    fn take_rows(&mut self, rows: &[Row]) {
        for row in rows {
            match Delivery::read_timeline(row) {
                Ok(item) if self.seen.insert(&item) => self.ready.push_back(Ok(item)),
                Ok(_) => {}
                Err(error) => self.ready.push_back(Err(error.into())),
            }
        }
    }

    fn handle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Opened { feed, after, rows } => {
                self.feed = Some(feed);
                self.cursor = after;
                self.take_rows(&rows);
            }
            Outcome::Scanned(rows) => {
                self.scanning = rows.len() == PAGE;
                if let Some(last) = rows.last() {
                    self.cursor = Some(last.key.clone());
                }
                self.take_rows(&rows);
            }
            Outcome::Found(rows) => self.take_rows(&rows),
        }
    }

    /// Sorts what the driver says of new rows; true at the end of the feed.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(feed) = &mut self.feed else {
            return false;
        };
        let ended = loop {
            let place = match feed.places.poll_recv(cx) {
                Poll::Pending => break false,
                Poll::Ready(None) => break true,
                Poll::Ready(Some(place)) => place,
            };
            let key = Delivery::timeline_key(self.conversation.id(), &place);
            if self.cursor.as_ref().is_none_or(|cursor| key > *cursor) {
                self.scanning = true;
            } else if self.late.len() < FEED {
                self.late.push_back(place);
            } else {
                self.lagged = true;
            }
        };
        self.lagged |= feed.lagged.swap(false, Ordering::Acquire);
        ended
    }
}

impl Stream for Timeline {
    type Item = Result<TimelineItem, TimelineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(pos) = this.taken.take()
            && !this.manual
        {
            this.conversation.acknowledge_only(pos);
        }
        loop {
            if let Some(next) = this.ready.pop_front() {
                if let Ok(TimelineItem::Received(received)) = &next {
                    this.taken = Some(received.pos);
                }
                return Poll::Ready(Some(next));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            if let Some(work) = &mut this.work {
                let outcome = ready!(work.as_mut().poll(cx));
                this.work = None;
                match outcome {
                    Ok(outcome) => this.handle(outcome),
                    Err(error) => {
                        this.ended = true;
                        this.ready.push_back(Err(error));
                    }
                }
                continue;
            }
            if let Some(start) = this.start.take() {
                this.work = Some(this.open(start));
                continue;
            }
            let stopped = this.poll_feed(cx);
            if core::mem::take(&mut this.lagged) {
                this.scanning = true;
                this.ready.push_back(Err(TimelineError::Lagged));
            } else if let Some(place) = this.late.pop_front() {
                this.work = Some(this.find(place));
            } else if this.scanning {
                this.work = Some(this.scan());
            } else if stopped {
                this.ended = true;
            } else {
                return Poll::Pending;
            }
        }
    }
}

impl core::fmt::Debug for Timeline {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Timeline")
            .field("conversation", &self.conversation.id())
            .finish_non_exhaustive()
    }
}

impl Conversation {
    async fn read(
        &self,
        after: Option<Bytes>,
        before: Option<Bytes>,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<Row>, StoreError> {
        let range = Range {
            table: Table::Timeline,
            prefix: Bytes::copy_from_slice(self.id().as_bytes()),
            after,
            before,
            limit,
            newest_first,
        };
        self.client().0.store.read(range).await
    }

    /// The `limit` items above `place`, in display order: to scroll back. Fewer mean that the
    /// beginning is reached.
    ///
    /// # Errors
    /// [`TimelineError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn page_before(
        &self,
        place: SortKey,
        limit: usize,
    ) -> Result<Vec<TimelineItem>, TimelineError> {
        let before = Delivery::timeline_key(self.id(), &place);
        let rows = self.read(None, Some(before), limit, true).await?;
        let items = rows.iter().rev().map(Delivery::read_timeline);
        Ok(items.collect::<Result<_, _>>()?)
    }
}
