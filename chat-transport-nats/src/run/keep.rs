//! The session that the server keeps: written before a subscription is granted, because the next
//! connection says that it is still there; and now and then as cursors move, because losing those
//! only delivers again.

use core::time::Duration;
use std::collections::BTreeSet;

use chat_client::transport::TransportError;
use chat_core::link::DownReason;
use tokio::time::Instant;

use super::{Done, End, Run};
use crate::api::ApiError;
use crate::config::Stood;
use crate::session::Record;
use crate::subject::Bucket;

/// Cursors that moved are written after this, and as much later for each so many channels: every
/// write holds all of them.
const LAZY: Duration = Duration::from_millis(500);
const CHANNELS: usize = 64;

pub(super) struct Session {
    pub(super) identity: String,
    pub(super) bucket: Bucket,
    pub(super) key: String,
    pub(super) mark: String,
    pub(super) revision: u64,
}

pub(super) struct Keep {
    pub(super) session: Session,
    /// Channels changed.
    urgent: bool,
    /// Cursors moved; to be written then.
    lazy: Option<Instant>,
    /// Lanes that are granted once this write is done.
    saving: Option<Vec<u64>>,
    /// Lanes that may be granted with the next write.
    ready: BTreeSet<u64>,
}

impl Keep {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            urgent: false,
            lazy: None,
            saving: None,
            ready: BTreeSet::new(),
        }
    }
}

impl Run {
    pub(super) fn await_grant(&mut self, lane: u64) {
        self.ungranted.insert(lane);
    }

    pub(super) fn is_ungranted(&self, lane: u64) -> bool {
        self.ungranted.contains(&lane)
    }

    pub(super) fn owes_grants(&self) -> bool {
        !self.ungranted.is_empty()
    }

    pub(super) fn forget_grant(&mut self, lane: u64) {
        self.ungranted.remove(&lane);
        if let Some(keep) = &mut self.keep {
            keep.ready.remove(&lane);
        }
    }

    /// Everything else about this lane is done: grant it once the session says so.
    pub(super) fn ready_to_grant(&mut self, lane: u64) {
        match &mut self.keep {
            None => self.grant(lane),
            Some(keep) => {
                keep.ready.insert(lane);
            }
        }
    }

    fn grant(&mut self, lane: u64) {
        if self.ungranted.remove(&lane)
            && let Some(open) = self.lanes.get(&lane)
        {
            let channel = open.lane.channel.clone();
            self.subscribed(channel, true);
        }
    }

    /// For the next connection of this process: where this one stands.
    pub(super) fn remember(&self) {
        let Some(keep) = &self.keep else { return };
        let lanes = self.lanes.values();
        let stood = Stood {
            log: keep.session.identity.clone(),
            cursors: lanes
                .map(|open| (open.lane.path.clone(), open.lane.cursor()))
                .collect(),
            behind: !self.reading.is_done(),
        };
        self.shared.stands(&keep.session.key, stood);
    }

    pub(super) fn session_changed(&mut self) {
        if let Some(keep) = &mut self.keep {
            keep.urgent = true;
        }
    }

    pub(super) fn cursor_moved(&mut self) {
        let steps = u32::try_from(1 + self.lanes.len() / CHANNELS).unwrap_or(u32::MAX);
        if let Some(keep) = &mut self.keep {
            keep.lazy
                .get_or_insert_with(|| Instant::now() + LAZY * steps);
        }
    }

    pub(super) fn save_at(&self) -> Option<Instant> {
        let keep = self.keep.as_ref()?;
        keep.lazy.filter(|_| keep.saving.is_none())
    }

    pub(super) fn is_saving(&self) -> bool {
        self.keep.as_ref().is_some_and(|keep| keep.saving.is_some())
    }

    pub(super) fn save_if_due(&mut self) {
        let due = self.save_at().is_some_and(|at| at <= Instant::now());
        let urgent = |keep: &Keep| keep.urgent || !keep.ready.is_empty();
        if due || self.keep.as_ref().is_some_and(urgent) {
            self.save();
        }
    }

    pub(super) fn save_on_close(&mut self) {
        let dirty = |keep: &Keep| keep.urgent || keep.lazy.is_some() || !keep.ready.is_empty();
        if self.keep.as_ref().is_some_and(dirty) {
            self.save();
        }
    }

    fn save(&mut self) {
        let Some(keep) = &mut self.keep else { return };
        if keep.saving.is_some() {
            return;
        }
        let granting = core::mem::take(&mut keep.ready);
        let ungranted = &self.ungranted;
        let kept = self
            .lanes
            .iter()
            .filter(|(number, _)| granting.contains(number) || !ungranted.contains(number));
        let channels = kept.map(|(_, open)| (&open.lane.channel, open.lane.cursor()));
        let session = &keep.session;
        let record = Record::new(&session.mark, &session.identity, channels).encode();
        let (bucket, key) = (session.bucket.clone(), session.key.clone());
        let (api, revision) = (self.api.clone(), session.revision);
        keep.saving = Some(granting.into_iter().collect());
        keep.urgent = false;
        keep.lazy = None;
        self.jobs.push(Box::pin(async move {
            Done::Saved(api.put(&bucket, &key, Some(record.into()), revision).await)
        }));
    }

    pub(super) fn saved(&mut self, result: Result<u64, ApiError>) -> Result<(), End> {
        let Some(keep) = &mut self.keep else {
            return Ok(());
        };
        let revision = match result {
            // Another connection of this device took over (S11).
            Err(ApiError::Stale) => return Err(TransportError::new(DownReason::Conflict).into()),
            other => other?,
        };
        keep.session.revision = revision;
        let granted = keep.saving.take().unwrap_or_default();
        self.shared.saw_session(&keep.session.key, revision);
        for lane in granted {
            self.grant(lane);
        }
        Ok(())
    }
}
