//! The way of rows to the store: batches in order, one commit in flight, everything that arrives
//! meanwhile in the next one.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use chat_core::PersistId;
use chat_core::effect::RowOp;

use crate::store::{Store, StoreError};

/// Batches that wait while a commit runs. At the bound the driver takes no commands and receives
/// nothing, until the store has caught up.
const MAX_WAITING: usize = 1_024;

type Commit = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

pub(super) struct Pipeline {
    store: Arc<dyn Store>,
    waiting: Vec<Vec<RowOp>>,
    in_flight: Option<(PersistId, Commit)>,
    emitted: Option<PersistId>,
    durable: Option<PersistId>,
}

impl Pipeline {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            waiting: Vec::new(),
            in_flight: None,
            emitted: None,
            durable: None,
        }
    }

    pub(super) fn push(&mut self, id: PersistId, rows: Vec<RowOp>) {
        self.waiting.push(rows);
        self.emitted = Some(id);
    }

    /// The last batch that the core emitted.
    pub(super) fn emitted(&self) -> Option<PersistId> {
        self.emitted
    }

    pub(super) fn is_durable(&self, after: Option<PersistId>) -> bool {
        after <= self.durable
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.waiting.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// Ready when more became durable; a failure is final.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<PersistId, StoreError>> {
        if self.in_flight.is_none() {
            let (Some(last), false) = (self.emitted, self.waiting.is_empty()) else {
                return Poll::Pending;
            };
            let store = self.store.clone();
            let batches = core::mem::take(&mut self.waiting);
            let commit = Box::pin(async move { store.commit(batches).await });
            self.in_flight = Some((last, commit));
        }
        let Some((last, commit)) = &mut self.in_flight else {
            return Poll::Pending;
        };
        let result = ready!(commit.as_mut().poll(cx));
        let last = *last;
        self.in_flight = None;
        Poll::Ready(result.map(|()| {
            self.durable = Some(last);
            last
        }))
    }
}
