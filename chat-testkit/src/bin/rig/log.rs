//! The history as it grows, and what of it the rig waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chat_testkit::rig::{Entry, Note};

use super::wall_micros;

/// What is known of one client.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The number of its next message.
    pub(super) next: u64,
    /// Invoked, and neither taken nor refused.
    pub(super) doubtful: BTreeMap<u64, String>,
    /// Its conversations, and how many members it sees.
    pub(super) convs: BTreeMap<String, usize>,
    /// When the newest message was invoked that it was told.
    fresh: u64,
    /// How often it has shown its timelines.
    pub(super) shown: u64,
    /// What else it answered.
    pub(super) group: Option<String>,
    /// Messages told to it.
    pub(super) told: u64,
    /// Connected and caught up.
    pub(super) up: bool,
    /// Who it says leads the group.
    pub(super) led: Option<Led>,
}

/// What a client says of the group's leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Led {
    pub(super) by: String,
    pub(super) round: u64,
    pub(super) members: usize,
    /// Since when, in microseconds of the wall clock.
    pub(super) at: u64,
}

/// Lines of different processes come in any order: it may be told before it is known to be sent.
#[derive(Debug, Default)]
struct Message {
    invoked: Option<u64>,
    taken: bool,
    members: BTreeSet<String>,
    told: BTreeSet<String>,
}

impl Message {
    fn is_owed(&self) -> bool {
        self.taken && !self.members.is_subset(&self.told)
    }
}

/// Everything said so far, in the order in which it was read.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) clients: BTreeMap<String, Known>,
    messages: BTreeMap<(String, u64), Message>,
    /// Messages that were taken and that some member lacks.
    pub(super) owed: BTreeSet<(String, u64)>,
}

impl Log {
    pub(super) fn add(&mut self, entry: Entry) {
        self.take(&entry);
        self.entries.push(entry);
    }

    fn take(&mut self, Entry { at, who, note }: &Entry) {
        let key = |n: &u64| (who.clone(), *n);
        match note {
            Note::Invoke { conv, n } => {
                let members = self
                    .clients
                    .iter()
                    .filter(|(name, known)| *name != who && known.convs.contains_key(conv));
                let members = members.map(|(name, _)| name.clone()).collect();
                let message = self.messages.entry(key(n)).or_default();
                message.members = members;
                let invoked = *message.invoked.get_or_insert(*at);
                for told in message.told.clone() {
                    let known = self.known(&told);
                    known.fresh = known.fresh.max(invoked);
                }
                let known = self.known(who);
                known.next = known.next.max(n + 1);
                known.doubtful.insert(*n, conv.clone());
            }
            Note::Ok { n } => {
                let message = self.messages.entry(key(n)).or_default();
                message.taken = true;
                if message.is_owed() {
                    self.owed.insert(key(n));
                }
                self.known(who).doubtful.remove(n);
            }
            Note::Refused { n } => {
                self.known(who).doubtful.remove(n);
            }
            Note::Received { from, n, .. } => {
                let key = (from.clone(), *n);
                let message = self.messages.entry(key.clone()).or_default();
                message.told.insert(who.clone());
                let invoked = message.invoked.unwrap_or_default();
                if !message.is_owed() {
                    self.owed.remove(&key);
                }
                let known = self.known(who);
                known.fresh = known.fresh.max(invoked);
                known.told += 1;
            }
            Note::Member { conv, members } => {
                self.known(who).convs.insert(conv.clone(), *members);
            }
            Note::Leads {
                leader,
                round,
                members,
                ..
            } => {
                let led = &mut self.known(who).led;
                let same = led
                    .as_ref()
                    .filter(|led| led.by == *leader && led.round == *round);
                let at = same.map_or(*at, |led| led.at);
                *led = Some(Led {
                    by: leader.clone(),
                    round: *round,
                    members: *members,
                    at,
                });
            }
            Note::Up => self.known(who).up = true,
            Note::Down | Note::Stopped | Note::Begin => self.known(who).up = false,
            _ => {}
        }
    }

    /// Everything, in the order in which it happened.
    pub(super) fn history(&self) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    pub(super) fn known(&mut self, who: &str) -> &mut Known {
        self.clients.entry(who.to_owned()).or_default()
    }

    /// Everybody was told something that was said after `at`.
    pub(super) fn all_heard_since(&self, at: u64) -> bool {
        self.clients.values().all(|known| known.fresh > at)
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.owed.is_empty() && self.clients.values().all(|known| known.doubtful.is_empty())
    }
}

/// What the rig waited for did not happen.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not happen within {after:?}")]
pub(super) struct Late {
    what: String,
    after: Duration,
}

/// The log that the readers of all clients write.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<(Mutex<Log>, Condvar)>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, and wakes who waits.
    pub(super) fn change(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    /// Notes something of the rig's own; returns when.
    pub(super) fn note(&self, who: &str, note: Note) -> u64 {
        let at = wall_micros();
        self.change(|log| {
            log.add(Entry {
                at,
                who: who.to_owned(),
                note,
            });
        });
        at
    }

    pub(super) fn wait(
        &self,
        what: &str,
        after: Duration,
        mut done: impl FnMut(&Log) -> bool,
    ) -> Result<(), Late> {
        let deadline = Instant::now() + after;
        let mut log = self.lock();
        while !done(&log) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Late {
                    what: what.to_owned(),
                    after,
                });
            }
            let waited = self.0.1.wait_timeout(log, left);
            log = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}
