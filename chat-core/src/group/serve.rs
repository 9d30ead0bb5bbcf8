//! The log for those who lack a part of it, and the part that we lack ourselves.
//!
//! Any holder serves, also one that is out or asks to come in: it may be the only one left. Members
//! get everything, former members what came before they went, and up to the reigning claim when they
//! are on another branch, which only a greater head ends. Who is unknown here but names an
//! entry of the log proves that it was let in on another branch; it is served, and asked for that
//! branch. At most [`RATE`] answers per second, peer and group, so that a small request cannot make
//! us flood.
//!
//! Bound: [`MAX_PEERS`] devices; beyond it newcomers get nothing until the second is over.

use core::time::Duration;
use std::collections::BTreeMap;

use super::chain::Chain;
use super::{Groups, Timer};
use crate::channel::Channel;
use crate::effect::Outgoing;
use crate::id::{DeviceId, GroupId, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::{Now, Timestamp};
use crate::wire::BoundedVec;
use crate::wire::group::{Fetch, Place};

/// Answers per second to one device in one group.
pub(super) const RATE: u32 = 4;
const MAX_PEERS: usize = 4_096;
const SECOND: Duration = Duration::from_secs(1);

/// The answers of the running second.
#[derive(Debug, Default)]
#[cfg_attr(feature = "probe", derive(Clone))]
pub(super) struct Served {
    since: Timestamp,
    count: BTreeMap<(GroupId, DeviceId), u32>,
}

impl Served {
    /// Counts one answer to `device`; false when it has had its share.
    pub(super) fn admit(&mut self, group: GroupId, device: DeviceId, now: Timestamp) -> bool {
        if now.saturating_since(self.since) >= SECOND {
            self.count.clear();
            self.since = now;
        }
        let peer = (group, device);
        if self.count.len() >= MAX_PEERS && !self.count.contains_key(&peer) {
            return false;
        }
        let count = self.count.entry(peer).or_default();
        *count += 1;
        *count <= RATE
    }
}

/// Quiet beats after which a member asks around.
const QUIET: u32 = 3;

impl Groups {
    /// Serves the log from the newest place that both hold.
    pub(super) fn handle_fetch(&mut self, from: &Sender, fetch: &Fetch, now: Now) {
        let id = GroupId(fetch.group);
        if let Some(group) = self.groups.get(&id)
            && group.inside(&self.me).is_none()
        {
            let ours = |place: &Place| {
                let chain = group.chain.as_ref();
                chain.is_some_and(|chain| chain.holds(place.index, &place.hash))
            };
            let news = !fetch.have.iter().all(ours);
            self.recall(id, from, news, now);
        }
        let Some(chain) = self.chain(id) else {
            return;
        };
        let seat = chain.roster.seats.get(&from.device);
        let until = if seat.is_some_and(|seat| seat.user == from.user) {
            Some(chain.index())
        } else {
            let past = chain.roster.past(from.device);
            let own = past.filter(|gone| gone.user == from.user);
            let until = own.map(|gone| gone.until).max();
            // On another branch it may still lead: it must see that its branch lost.
            let ours = |place: &Place| chain.holds(place.index, &place.hash);
            if fetch.have.iter().all(ours) {
                until
            } else {
                until.map(|_| chain.index())
            }
        };
        let common = chain.common(&fetch.have);
        let known = until.is_some();
        // The first entry is no proof: its hash is the name of the group.
        let until = until.or((common > 1).then(|| chain.index()));
        let out = seat.is_none() && planted("group-serves-members-only");
        let Some(until) = until.filter(|_| !out) else {
            mark("group-fetch-by-stranger");
            return;
        };
        let newest = fetch.have.iter().map(|place| place.index).max();
        let behind =
            newest.is_some_and(|index| index > chain.index() || (!known && index > common));
        if !known {
            mark("group-serves-another-branch");
        }
        let page = (common < until).then(|| chain.page(common + 1, until));
        if behind {
            self.want(id, &from.user, now);
        }
        if let Some(page) = page
            && self.served.admit(id, from.device, now.mono)
        {
            self.mail(&from.user, page);
        }
    }

    /// Somebody takes us, who are out, for a member. We left, and say so again; or there is a log
    /// that we do not know, and it may have let us in or lost what put us out.
    pub(super) fn recall(&mut self, id: GroupId, from: &Sender, news: bool, now: Now) {
        self.repeat_own_leave(id, from);
        let Some(group) = self.groups.get_mut(&id).filter(|_| news) else {
            return;
        };
        mark("group-recalled");
        group.recalled = true;
        self.want(id, &from.user, now);
    }

    /// We are out, and somebody showed a lower head than ours: we may be the only ones here who hold
    /// the greater one (hole 10).
    pub(super) fn correct(&mut self, id: GroupId, from: &Sender, now: Now) {
        if self.served.admit(id, from.device, now.mono) && !planted("group-outsider-silent") {
            mark("group-outsider-corrects");
            self.send_head(id, &from.user);
        }
    }

    /// Shows our head to a member that was not heard lately: it may not know that it is one.
    pub(super) fn remind(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let Some(chain) = group.leading(&self.me) else {
            return;
        };
        let silent =
            |device: &&DeviceId| **device != self.me.device && !group.acks.contains_key(*device);
        let silent: Vec<_> = chain.roster.seats.keys().filter(silent).collect();
        let pick = usize::try_from(self.rng.below(silent.len() as u64)).unwrap_or(0);
        let user = silent
            .get(pick)
            .map(|device| chain.roster.seats[device].user.clone());
        if let Some(user) = user.filter(|_| !planted("group-no-reminder")) {
            mark("group-reminds");
            self.send_head(id, &user);
        }
    }

    /// Wants what `user` holds beyond our head. Members before strangers; bounded in rate.
    pub(super) fn want(&mut self, id: GroupId, user: &UserId, now: Now) {
        if !self.up || !self.follows(id) {
            return;
        }
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let sits = |user: &UserId| {
            let chain = group.chain.as_ref();
            chain.is_some_and(|chain| chain.roster.devices(user).next().is_some())
        };
        let pending = self.timers.due(&(id, Timer::Fetch)).is_some();
        if pending
            && group
                .source
                .as_ref()
                .is_some_and(|held| sits(held) && !sits(user))
        {
            return;
        }
        group.source = Some(user.clone());
        if pending {
            return;
        }
        let gap = self.config.beat / 10;
        let wait = group.fetched.map_or(Duration::ZERO, |at| {
            gap.saturating_sub(now.mono.saturating_since(at))
        });
        if wait.is_zero() {
            self.fetch(id, now);
        } else {
            self.after(id, Timer::Fetch, wait, gap, now);
        }
    }

    /// Asks the chosen source.
    pub(super) fn fetch(&mut self, id: GroupId, now: Now) {
        let source = self.groups.get_mut(&id).and_then(|g| g.source.take());
        if let Some(user) = source.filter(|_| self.up && self.follows(id)) {
            self.send_fetch(id, &user, now);
        }
    }

    pub(super) fn send_fetch(&mut self, id: GroupId, user: &UserId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.fetched = Some(now.mono);
        let fetch = group.chain.as_ref().map_or_else(
            || Fetch {
                group: id.0,
                have: BoundedVec::default(),
            },
            Chain::have,
        );
        let frame = Outgoing::ephemeral(Channel::Inbox(user.clone()), fetch);
        self.effects.send(frame.gated());
    }

    /// A member that heard no leader for a while asks it and one other, so that entries spread
    /// also while nobody beats.
    pub(super) fn sync(&mut self, id: GroupId, now: Now) {
        let beat = self.config.beat;
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let Some(chain) = group.inside(&self.me).filter(|_| self.up) else {
            return;
        };
        let quiet = group
            .heard
            .is_none_or(|at| now.mono.saturating_since(at) >= beat * QUIET);
        let leader = chain.roster.leader.clone();
        // Whom a kick of another branch hides may hold no more than that branch, and be needed here.
        let mut others = chain.roster.members();
        others.retain(|m| m.device != self.me.device && m.device != leader.device);
        self.after(id, Timer::Sync, beat * QUIET, beat, now);
        if !quiet {
            return;
        }
        if leader.device != self.me.device {
            self.send_fetch(id, &leader.user, now);
        }
        let pick = usize::try_from(self.rng.below(others.len() as u64)).unwrap_or(0);
        if let Some(other) = others.get(pick) {
            mark("group-asks-around");
            self.send_fetch(id, &other.user, now);
        }
    }
}
