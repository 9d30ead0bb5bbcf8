//! The hub and its disk: restoring, and what happens when a batch is written or refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::id::{DeviceId, UserId};
use chat_core::time::{Now, UnixMillis};
use serde::Deserialize;

use super::lane::{Entry, Lane, Retained, Sub};
use super::rows::{Gated, LogRow, RetainedRow, SessionRow, SubRow};
use super::session::Session;
use super::{Batch, FULL_RETRY, Key, Machine, RestoreError};
use crate::proto::{CloseReason, WireOutcome};

fn read<'a, T: Deserialize<'a>>(key: Key, value: &'a [u8]) -> Result<T, RestoreError> {
    match postcard::take_from_bytes(value) {
        Ok((value, [])) => Ok(value),
        _ => Err(RestoreError::of(key)),
    }
}

impl Machine {
    /// Takes one stored row; rows come in the order of their keys, before any other input.
    pub(crate) fn restore(
        &mut self,
        key: Key,
        value: &[u8],
        wall: UnixMillis,
    ) -> Result<(), RestoreError> {
        let bad = || RestoreError::of(key);
        match key {
            Key::Lane(id) => {
                let channel = Channel::from_signed_bytes(value).ok_or_else(bad)?;
                let mut lane = Lane::new(channel.clone());
                lane.stored = true;
                self.next_lane = self.next_lane.max(id.0 + 1);
                self.lanes.insert(id, lane);
                self.channels.insert(channel, id);
            }
            Key::Session(id) => {
                let row: SessionRow<'_> = read(key, value)?;
                let user = UserId::new(row.user).map_err(|_| bad())?;
                let device = DeviceId(row.device);
                self.next_session = self.next_session.max(id.0 + 1);
                self.devices.insert((user.clone(), device), id);
                self.sessions.insert(
                    id,
                    Session {
                        user,
                        device,
                        conn: None,
                        lanes: BTreeSet::new(),
                        away_since: Some(wall),
                        stored: true,
                    },
                );
            }
            Key::Sub(lane, session) => {
                let row: SubRow = read(key, value)?;
                let lane_state = self.lanes.get_mut(&lane).ok_or_else(bad)?;
                let kept = self.sessions.get_mut(&session).ok_or_else(bad)?;
                kept.lanes.insert(lane);
                // Numbers up to a cursor are taken, though their rows are gone.
                lane_state.next_seq = lane_state.next_seq.max(row.cursor + 1);
                (lane_state.subs).insert(session, Sub::new(None, row.cursor, row.gap));
            }
            Key::Log(lane, seq) => {
                let row: LogRow<'_> = read(key, value)?;
                let lane_state = self.lanes.get_mut(&lane).ok_or_else(bad)?;
                self.stored_bytes += row.bytes.len();
                lane_state.append(Entry {
                    seq,
                    bytes: Bytes::copy_from_slice(row.bytes),
                    from: super::SessionId(row.from),
                    waiting: 0,
                    at: UnixMillis(row.at),
                    expires: row.expires.map(UnixMillis),
                    reply: None,
                    batch: 0,
                });
            }
            Key::Retained(lane) => {
                let row: RetainedRow<'_> = read(key, value)?;
                let lane_state = self.lanes.get_mut(&lane).ok_or_else(bad)?;
                self.stored_bytes += row.bytes.len();
                lane_state.retained = Some(Retained {
                    bytes: Bytes::copy_from_slice(row.bytes),
                    expires: row.expires.map(UnixMillis),
                    stored: true,
                });
            }
        }
        Ok(())
    }

    /// After the last row: lets go of what nobody needs any more.
    pub(crate) fn finish_restore(&mut self, now: Now) {
        let lanes: Vec<_> = self.lanes.keys().copied().collect();
        for lane in lanes {
            self.trim(lane, now);
            self.drop_unused(lane, now);
        }
    }

    /// The rows to write in one transaction; report them with [`Self::handle_written`] or
    /// [`Self::handle_full`] before asking for more.
    pub(crate) fn poll_batch(&mut self, now: Now) -> Option<Batch> {
        self.rows.poll_batch(now.mono)
    }

    /// The batch is durable.
    pub(crate) fn handle_written(&mut self, now: Now) {
        self.full = false;
        for gated in self.rows.written() {
            match gated {
                Gated::Entry(lane, seq) => {
                    let reply = (self.lanes.get_mut(&lane))
                        .and_then(|lane| lane.entry_mut(seq)?.reply.take());
                    if let Some((conn, token)) = reply {
                        self.sent(conn, token, WireOutcome::Accepted);
                    }
                }
                Gated::Subscribed(conn, lane) => self.confirm(conn, lane, now),
                Gated::Duplicate(conn, token) => self.sent(conn, token, WireOutcome::Accepted),
            }
        }
    }

    /// The disk is full and nothing of the batch was written. The frames in it are refused and
    /// forgotten; their publishers keep them. Until a later batch fits, durable frames are
    /// refused at once.
    pub(crate) fn handle_full(&mut self, now: Now) {
        self.full = true;
        // What was refused may come again under its id.
        self.dedup.clear();
        let later = WireOutcome::Refused("the hub's disk is full; try again later");
        for gated in self.rows.refused(now.mono, FULL_RETRY) {
            match gated {
                Gated::Entry(lane_id, seq) => {
                    self.rows.drop_row(Key::Log(lane_id, seq));
                    let Some(entry) =
                        (self.lanes.get_mut(&lane_id)).and_then(|lane| lane.remove(seq))
                    else {
                        continue;
                    };
                    self.stored_bytes = self.stored_bytes.saturating_sub(entry.bytes.len());
                    if let Some((conn, token)) = entry.reply {
                        self.sent(conn, token, later.clone());
                    }
                }
                // The subscription stays and its row is tried again; the client cannot be told
                // "no", which would be for good, so it comes back later.
                Gated::Subscribed(conn, _) => self.close(conn, CloseReason::TryLater, now),
                Gated::Duplicate(conn, token) => self.sent(conn, token, later.clone()),
            }
        }
        let lanes: Vec<_> = self.lanes.keys().copied().collect();
        for lane in lanes {
            self.trim(lane, now);
        }
    }
}
