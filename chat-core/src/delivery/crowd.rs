//! What is true of all recipients of a conversation together, so that a message to many, and a
//! word from one of them, needs no look at each.

use std::collections::BTreeMap;

use super::outbox::{At, Outbox};
use crate::id::{Epoch, UserId};

/// What is true of all recipients together, so that a message to many, and a word from one of
/// them, needs no look at each.
#[derive(Debug)]
pub(super) struct Crowd {
    devices: usize,
    /// How many different users they are.
    users: usize,
    /// From here on a message is for all of them.
    all_from: At,
    /// None of them is at an earlier epoch.
    pub(super) epoch: Epoch,
    /// How far each user has seen, counted.
    seen: BTreeMap<At, usize>,
}

impl Outbox {
    /// How many devices, and how many users, a message at `at` is for.
    pub(super) fn owed(&mut self, at: At) -> (usize, usize) {
        let crowd = self.crowd();
        if at >= crowd.all_from {
            return (crowd.devices, crowd.users);
        }
        let (mut devices, mut users, mut last) = (0, 0, None);
        for ((user, _), _) in self.peers.iter().filter(|(_, peer)| peer.from <= at) {
            devices += 1;
            users += usize::from(last != Some(user));
            last = Some(user);
        }
        (devices, users)
    }

    pub(super) fn crowd(&mut self) -> &mut Crowd {
        if self.crowd.is_none() {
            self.crowd = Some(self.look_at_all());
        }
        self.crowd.as_mut().expect("it was just made")
    }

    fn look_at_all(&self) -> Crowd {
        let peers = || self.peers.values();
        let mut crowd = Crowd {
            devices: self.peers.len(),
            users: 0,
            all_from: peers().map(|peer| peer.from).max().unwrap_or_default(),
            epoch: peers().map(|peer| peer.epoch).min().unwrap_or_default(),
            seen: BTreeMap::new(),
        };
        let mut last = None;
        for (user, _) in self.peers.keys() {
            if last.replace(user) != Some(user) {
                crowd.users += 1;
                *crowd.seen.entry(self.seen_by(user)).or_default() += 1;
            }
        }
        crowd
    }

    /// How far a user has seen, on all its devices. A device that came later has seen for its user
    /// nothing of what lies before its first message.
    pub(super) fn seen_by(&self, user: &UserId) -> At {
        let seen = self
            .of_user(user)
            .map(|peer| (peer.read >= peer.from, peer.read));
        let both = seen.reduce(|one, other| match (one.0, other.0) {
            (false, false) => one.min(other),
            _ => one.max(other),
        });
        both.map_or_else(At::default, |(_, read)| read)
    }

    pub(super) fn note_seen(&mut self, before: At, now: At) {
        let Some(crowd) = self.crowd.as_mut().filter(|_| before != now) else {
            return;
        };
        if let Some(users) = crowd.seen.get_mut(&before) {
            *users -= 1;
            if *users == 0 {
                crowd.seen.remove(&before);
            }
        }
        *crowd.seen.entry(now).or_default() += 1;
    }

    /// Everything up to here was seen by every recipient's user.
    pub(super) fn displayed_by_all(&mut self) -> At {
        debug_assert!(
            self.crowd
                .as_ref()
                .is_none_or(|it| it.seen == self.look_at_all().seen),
            "what each user has seen is counted as it changes"
        );
        let least = self.crowd().seen.first_key_value();
        let seen = least.map_or_else(At::default, |(seen, _)| *seen);
        // Nothing counts as seen that a user still misses.
        let missed = self.entries.iter();
        let mut missed = missed.filter(|(_, entry)| entry.users > 0 && !entry.failed);
        missed.next().map_or(seen, |((epoch, seq), _)| {
            seen.min((*epoch, seq.saturating_sub(1)))
        })
    }
}
