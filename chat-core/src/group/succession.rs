//! When a leader counts as silent, and who asks first (reliability 1.5).
//!
//! Silence is counted only while we are connected, and anew after every connection (IG9). The most
//! senior member asks after `succeed`, each further one a little later; every wait has a random
//! part. What an outside lease says may shorten the wait, nothing more.

use core::time::Duration;

use super::{Group, Groups, Timer};
use crate::id::GroupId;
use crate::probe::{mark, planted};
use crate::time::{Now, Timestamp};

impl Groups {
    /// How long the leader has been silent while we listened.
    pub(super) fn silence(&self, group: &Group, now: Now) -> Duration {
        if planted("group-counts-silence-offline") {
            return now
                .mono
                .saturating_since(group.heard.unwrap_or(Timestamp::ZERO));
        }
        if !self.up {
            return Duration::ZERO;
        }
        let since = group.heard.unwrap_or(self.up_since).max(self.up_since);
        now.mono.saturating_since(since)
    }

    /// After so much silence others may be supported.
    pub(super) fn is_silent(&self, group: &Group, now: Now) -> bool {
        let limit = if group.lease_lapsed() {
            self.config.suspect.min(self.config.beat * 3 / 2)
        } else {
            self.config.suspect
        };
        self.silence(group, now) >= limit
    }

    /// After so much silence the most senior member asks.
    fn patience(&self, group: &Group) -> Duration {
        if group.lease_lapsed() {
            self.config.succeed.min(self.config.beat * 2)
        } else {
            self.config.succeed
        }
    }

    /// The leader, or a greater head, was heard.
    pub(super) fn hear(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.heard = Some(now.mono);
        if group.lease_lapsed() {
            mark("group-lease-refuted");
            group.lease = None;
        }
        self.arm_lease(id);
        if self.timers.due(&(id, Timer::Succeed)).is_some() {
            self.arm_succession(id, now);
        }
    }

    /// Sets the time at which we ask, counted from the last time that the leader was heard.
    pub(super) fn arm_succession(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let members = group.visible();
        let leader = group.chain.as_ref().map(|c| c.roster.leader.device);
        let mut others = members.iter().filter(|m| Some(m.device) != leader);
        let rank = others.position(|member| member.device == self.me.device);
        // Who is about to leave asks last.
        let rank = if group.record.leaving.is_some() {
            members.len()
        } else {
            rank.unwrap_or(members.len())
        };
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let delay = self.config.rank_delay.saturating_mul(rank);
        let wait = self.patience(group) + delay.min(self.config.rank_cap);
        let wait = wait.saturating_sub(self.silence(group, now));
        self.after(id, Timer::Succeed, wait, self.config.spread, now);
    }

    /// The wait is over, since `late`. Who stood still that long reads first what came meanwhile:
    /// the leader's beats may lie unread.
    pub(super) fn succeed(&mut self, id: GroupId, late: Duration, now: Now) {
        let Some(group) = self.groups.get(&id).filter(|_| self.up) else {
            return;
        };
        if late >= self.config.beat && !planted("group-asks-before-it-reads") {
            mark("group-woke-late");
            self.canvass_later(id, self.config.window, now);
            return;
        }
        if self.silence(group, now) < self.patience(group) && !self.may_canvass_now(group, now) {
            self.arm_succession(id, now);
            return;
        }
        self.canvass(id, now);
    }

    /// We do not wait for silence when the leader must go, or the lead is ours to take.
    fn may_canvass_now(&self, group: &Group, now: Now) -> bool {
        let Some(chain) = &group.chain else {
            return false;
        };
        let roster = &chain.roster;
        group.distrust == Some(roster.term)
            || roster
                .heir
                .is_some_and(|heir| heir.device == self.me.device)
            || self.is_deposed(group, now)
    }

    /// The next try after one that led to nothing.
    pub(super) fn canvass_later(&mut self, id: GroupId, wait: Duration, now: Now) {
        self.after(id, Timer::Succeed, wait, self.config.spread, now);
    }
}
