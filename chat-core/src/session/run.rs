//! Runs one step: the record is changed, its row stored, what it caused queued, its timers set.
//!
//! Guarantees: a row, and all that was caused with it, are one transaction; frames and events wait
//! for it. At [`SessionConfig::max_peers`] the oldest settled record goes.

use core::time::Duration;

use super::record::Record;
use super::step::{Act, Step};
use super::{Sessions, Timer, key, rows};
#[cfg(doc)]
use crate::config::SessionConfig;
use crate::effect::Table;
use crate::id::{ConvId, UserId};
use crate::probe::{mark, planted};
use crate::time::Now;

impl Sessions {
    /// Runs `change` on the record of `peer`, a blank one when there is none: first ends what has
    /// lapsed, afterwards stores the row, then queues what was caused, then sets the timers.
    pub(super) fn step<T>(
        &mut self,
        peer: &UserId,
        now: Now,
        change: impl FnOnce(&mut Record, &mut Step<'_>) -> T,
    ) -> T {
        let old = self.peers.take(peer);
        let before = old.as_ref().map(rows::encode);
        let mut record = old.unwrap_or_default();
        let mut step = Step {
            me: &self.me,
            config: &self.config,
            rng: &mut self.rng,
            now,
            peer,
            conv: ConvId::between(&self.me.user, peer),
            caught_up: self.caught_up,
            up: self.up,
            room: self.peers.pending_strangers() < self.config.max_pending,
            acts: Vec::new(),
            news: false,
            refused: false,
        };
        record.lapse(&mut step);
        let result = change(&mut record, &mut step);
        let Step {
            acts,
            news,
            refused,
            ..
        } = step;
        self.refused += u64::from(refused);
        let after = rows::encode(&record);
        let blank = after == rows::encode(&Record::default());
        if before.is_none() && !blank && !record.blocked && !self.make_room() {
            mark("session-no-room");
            self.refused += 1;
            return result;
        }
        if blank {
            if before.is_some() {
                self.effects.delete(Table::Sessions, key(peer));
            }
        } else if before.as_ref() != Some(&after) {
            record.touched = now.wall.0;
            self.effects.put(Table::Sessions, key(peer), after);
        }
        for act in acts {
            match act {
                Act::Send(frame) if planted("session-send-before-persist") => {
                    self.effects.send(*frame);
                }
                Act::Send(frame) => self.effects.send((*frame).gated()),
                Act::Tell(event) => self.effects.emit_gated(event),
            }
        }
        self.set_timers(peer, &mut record, news, now);
        if !blank {
            self.peers.put(peer.clone(), record);
        }
        result
    }

    fn set_timers(&mut self, peer: &UserId, record: &mut Record, news: bool, now: Now) {
        let key = (Timer::Lapse, peer.clone());
        match record.lapses(self.up) {
            Some(at) => self.timers.set(key, now.mono_at(at)),
            None => {
                self.timers.remove(&key);
            }
        }
        let key = (Timer::Repeat, peer.clone());
        if !self.up || !record.repeats() {
            self.timers.remove(&key);
        } else if news || self.timers.due(&key).is_none() {
            if news {
                record.attempts = 0;
            }
            let wait = self.wait(record.attempts);
            self.timers.set(key, now.mono + wait);
        }
    }

    /// Full jitter, but never sooner than a quarter of the first wait (Q7).
    fn wait(&mut self, attempts: u32) -> Duration {
        let (first, max) = (self.config.resend_first, self.config.resend_max);
        let factor = 1u32.checked_shl(attempts).unwrap_or(u32::MAX);
        let jitter = self.rng.jitter(first.saturating_mul(factor).min(max));
        jitter.max(first / 4).max(Duration::from_micros(1))
    }

    /// Makes room for one more record; false when there is none.
    fn make_room(&mut self) -> bool {
        if self.peers.len() < self.config.max_peers {
            return true;
        }
        let Some(peer) = self.peers.evictable().cloned() else {
            return false;
        };
        mark("session-evicted");
        self.peers.take(&peer);
        self.timers.remove(&(Timer::Lapse, peer.clone()));
        self.timers.remove(&(Timer::Repeat, peer.clone()));
        self.effects.delete(Table::Sessions, key(&peer));
        true
    }
}
