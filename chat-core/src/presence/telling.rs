//! What the application is told, and when: one by one; as a crowd (P11); after a partition (P13).
//!
//! - Up to `crowd` people everybody's change is told at once. Above it, until a quarter fewer are
//!   left, counts are told at most once per `crowd_every`, each with at most `crowd_sample` of those
//!   that changed; the others wait for the next one.
//! - Several people who fell silent together and of whom one is back were behind a partition that
//!   heals: what becomes of them within a beat is one `Resynced`.
//!
//! Bound: everybody who is known, once in each set.

use std::collections::BTreeSet;

use super::machine::{PresenceMachine, Sight};
use super::{Counts, PresenceEvent};
use crate::id::UserId;
use crate::probe::{mark, planted};
use crate::rng::Rng;
use crate::time::{Now, Timestamp};

#[derive(Debug, Default)]
struct Crowd {
    /// Changed, and not told yet.
    pending: BTreeSet<UserId>,
    due: Option<Timestamp>,
    told_at: Option<Timestamp>,
    told: Option<Counts>,
}

#[derive(Debug)]
struct Heal {
    /// Who fell silent together.
    batch: BTreeSet<UserId>,
    until: Timestamp,
}

#[derive(Debug)]
pub(super) struct Telling {
    rng: Rng,
    crowd: Option<Crowd>,
    heal: Option<Heal>,
}

impl Telling {
    pub(super) const fn new(rng: Rng) -> Self {
        Self {
            rng,
            crowd: None,
            heal: None,
        }
    }

    pub(super) const fn is_crowd(&self) -> bool {
        self.crowd.is_some()
    }

    /// True for somebody who changed in a crowd and was not told yet.
    pub(super) fn owes(&self, user: &UserId) -> bool {
        let crowd = self.crowd.as_ref();
        crowd.is_some_and(|crowd| crowd.pending.contains(user))
    }

    pub(super) fn forget(&mut self, user: &UserId) {
        if let Some(crowd) = &mut self.crowd {
            crowd.pending.remove(user);
        }
        if let Some(heal) = &mut self.heal {
            heal.batch.remove(user);
        }
    }

    /// Our own outage tells everything anew.
    pub(super) fn end_heal(&mut self) {
        self.heal = None;
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let crowd = self.crowd.as_ref().and_then(|crowd| crowd.due);
        let heal = self.heal.as_ref().map(|heal| heal.until);
        crowd.into_iter().chain(heal).min()
    }
}

impl PresenceMachine {
    /// Somebody's view differs from what the application knows.
    pub(super) fn tell(&mut self, user: &UserId, now: Now) {
        if let Some(crowd) = &mut self.telling.crowd {
            crowd.pending.insert(user.clone());
            let earliest = crowd.told_at.map(|at| at + self.config.crowd_every);
            crowd
                .due
                .get_or_insert(earliest.unwrap_or(now.mono).max(now.mono));
            return;
        }
        self.watch_for_heal(user, now);
        match &self.telling.heal {
            Some(heal) if heal.batch.contains(user) => {
                let back = |user| {
                    let person = self.people.get(user);
                    person.is_none_or(|person| person.status().is_here())
                };
                if heal.batch.iter().all(back) {
                    self.tell_healed(now);
                }
            }
            _ => self.tell_change(user, now),
        }
    }

    fn tell_change(&mut self, user: &UserId, now: Now) {
        if let Some(person) = self.people.get_mut(user) {
            let view = person.view();
            person.note_told(view.clone(), now.mono);
            let user = user.clone();
            self.effects.emit(PresenceEvent::Changed { user, view });
        }
    }

    /// `user` is back from the lost: if others were lost at the same time, they may all be.
    fn watch_for_heal(&mut self, user: &UserId, now: Now) {
        let Some(person) = self.people.get(user) else {
            return;
        };
        let Some(lost_at) = person.lost_at.filter(|_| person.status().is_here()) else {
            return;
        };
        if self.telling.heal.is_some() || self.sight != Sight::Current {
            return;
        }
        // The leases of people who were cut off together end within a beat of each other.
        let near = self.config.beat + self.config.grace;
        let batch: BTreeSet<UserId> = self
            .people
            .iter()
            .filter(|(_, other)| {
                other.lost_at.is_some_and(|at| {
                    let apart = at
                        .saturating_since(lost_at)
                        .max(lost_at.saturating_since(at));
                    apart <= near
                })
            })
            .map(|(user, _)| user.clone())
            .collect();
        if batch.len() > 1 && !planted("presence-heal-tells-everybody") {
            let until = now.mono + self.config.beat + self.config.spread;
            self.telling.heal = Some(Heal { batch, until });
        }
    }

    /// The end of a partition, in one event (P13).
    fn tell_healed(&mut self, now: Now) {
        let Some(heal) = self.telling.heal.take() else {
            return;
        };
        let (mut joined, mut changed) = (Vec::new(), Vec::new());
        for user in heal.batch {
            let Some(person) = self.people.get_mut(&user).filter(|person| person.is_news()) else {
                continue;
            };
            if person.status().is_here() {
                joined.push(user);
            } else {
                changed.push(user);
            }
        }
        if joined.len() < 2 {
            changed.append(&mut joined);
        }
        for user in changed {
            self.tell_change(&user, now);
        }
        if joined.is_empty() {
            return;
        }
        mark("presence-healed");
        for user in &joined {
            if let Some(person) = self.people.get_mut(user) {
                let view = person.view();
                person.note_told(view, now.mono);
            }
        }
        let left = Vec::new();
        self.effects.emit(PresenceEvent::Resynced { joined, left });
    }

    /// Begins and ends the crowd, after somebody came to be known or was forgotten.
    pub(super) fn count_heads(&mut self, now: Now) {
        let (heads, crowd) = (self.people.len(), self.config.crowd);
        self.own.set_crowding(heads.div_ceil(crowd.max(1)));
        let crowded = heads > crowd && !planted("presence-crowd-told-one-by-one");
        if self.telling.crowd.is_none() && crowded {
            self.telling.crowd = Some(Crowd::default());
            let healing = self.telling.heal.take();
            for user in healing.into_iter().flat_map(|heal| heal.batch) {
                self.tell(&user, now);
            }
        } else if heads <= crowd - crowd / 4
            && let Some(crowd) = self.telling.crowd.take()
            && self.sight != Sight::Resync
        {
            for user in crowd.pending {
                if self
                    .people
                    .get(&user)
                    .is_some_and(|person| person.is_news())
                {
                    self.tell_change(&user, now);
                }
            }
        }
    }

    /// In a crowd: whatever changed in our own outage, or by it, is told as counts at once.
    pub(super) fn tell_crowd(&mut self, now: Now) {
        let Some(crowd) = &mut self.telling.crowd else {
            return;
        };
        let people = self.people.iter();
        crowd.pending = people
            .filter(|(_, person)| person.is_news())
            .map(|(user, _)| user.clone())
            .collect();
        self.tell_counts(now);
    }

    fn tell_counts(&mut self, now: Now) {
        let counts = self.counts(self.people.keys());
        let Some(crowd) = &mut self.telling.crowd else {
            return;
        };
        let people = &mut self.people;
        let mut pending: Vec<UserId> = core::mem::take(&mut crowd.pending)
            .into_iter()
            .filter(|user| people.get(user).is_some_and(|person| person.is_news()))
            .collect();
        // A sample, and not always the same ones; those that are followed first.
        let bound = u64::try_from(pending.len()).unwrap_or(u64::MAX);
        let turn = usize::try_from(self.telling.rng.below(bound)).unwrap_or(0);
        pending.rotate_left(turn);
        pending.sort_by_key(|user| people.get(user).is_none_or(|person| !person.is_watched()));
        let rest = pending.split_off(pending.len().min(self.config.crowd_sample));
        // While we are cut off nobody is told by name: all are unknown.
        let (named, rest) = match self.sight {
            Sight::Current => (pending, rest),
            _ => (Vec::new(), Vec::new()),
        };
        crowd.due = (!rest.is_empty()).then(|| now.mono + self.config.crowd_every);
        crowd.told_at = Some(now.mono);
        crowd.pending = rest.into_iter().collect();
        let known = crowd.told.replace(counts) == Some(counts);
        let mut sample = Vec::new();
        for user in named {
            if let Some(person) = people.get_mut(&user) {
                let view = person.view();
                person.note_told(view.clone(), now.mono);
                sample.push((user, view));
            }
        }
        if !known || !sample.is_empty() {
            self.effects.emit(PresenceEvent::Crowd { counts, sample });
        }
    }

    /// Time passed.
    pub(super) fn handle_telling(&mut self, now: Now) {
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now.mono);
        if due(self.telling.heal.as_ref().map(|heal| heal.until)) {
            self.tell_healed(now);
        }
        if due(self.telling.crowd.as_ref().and_then(|crowd| crowd.due)) {
            self.tell_counts(now);
        }
    }
}
