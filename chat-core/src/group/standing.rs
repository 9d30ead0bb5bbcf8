//! What we are in a group, and how it looks to the application.

use super::chain::Chain;
use super::roster::Way;
use super::rows::Stage;
use super::types::{GroupView, Membership};
use super::{Group, Groups};
use crate::id::{DeviceId, GroupId};
use crate::identity::Sender;

impl Group {
    /// Our standing; `None` when there is nothing to show.
    pub(super) fn standing(&self, me: &Sender) -> Option<Membership> {
        let record = &self.record;
        let stage = record.asking.as_ref().map(|asking| asking.stage);
        if stage == Some(Stage::Open) {
            return Some(Membership::Asking);
        }
        let denied = (stage == Some(Stage::Denied)).then_some(Membership::Denied);
        let (Some(chain), Some(nonce)) = (&self.chain, record.nonce) else {
            return denied;
        };
        let roster = &chain.roster;
        if roster.sits(me.device, nonce) && !self.is_hidden(me.device, nonce) {
            return Some(if record.leaving == Some(nonce) {
                Membership::Leaving
            } else if roster.leader.device == me.device {
                Membership::Leader
            } else {
                Membership::Member
            });
        }
        let own = (me.device, nonce);
        let Some(gone) = roster.gone.get(&own) else {
            let out = if self.lefts.contains_key(&own) {
                Membership::Left
            } else {
                Membership::Kicked
            };
            return denied.or(self.hidden.contains(&own).then_some(out));
        };
        denied.or(Some(match gone.way {
            Way::Kicked => Membership::Kicked,
            Way::Left | Way::Replaced => Membership::Left,
        }))
    }

    /// The chain, when our device has a seat in it. A leaver is still in, also by a membership that
    /// it ended on another branch: until the log shows that, it supports candidates and follows.
    pub(super) fn inside(&self, me: &Sender) -> Option<&Chain> {
        let chain = self.chain.as_ref()?;
        chain.roster.seats.contains_key(&me.device).then_some(chain)
    }

    /// The chain, when the seat in it is the membership that we hold and do not end.
    pub(super) fn belongs(&self, me: &Sender) -> Option<&Chain> {
        let chain = self.chain.as_ref()?;
        let nonce = self.record.nonce?;
        let stays = chain.roster.sits(me.device, nonce) && self.record.leaving != Some(nonce);
        stays.then_some(chain)
    }

    /// The chain, when we lead it. True until somebody claims, also during a hand-over.
    pub(super) fn leading(&self, me: &Sender) -> Option<&Chain> {
        self.inside(me)
            .filter(|chain| chain.roster.leader.device == me.device)
    }
}

impl Groups {
    /// Our own standing in `group`; `None` when it is unknown here.
    pub fn membership(&self, group: GroupId) -> Option<Membership> {
        self.groups.get(&group)?.standing(&self.me)
    }

    /// How many devices are in `group`, as its log says.
    pub fn size(&self, group: GroupId) -> usize {
        self.chain(group)
            .map_or(0, |chain| chain.roster.seats.len())
    }

    /// The device that reigns in `group`, as we know it.
    pub fn leader(&self, group: GroupId) -> Option<DeviceId> {
        Some(self.chain(group)?.roster.leader.device)
    }

    /// The nonce of the membership by which our device sits in the log.
    pub fn seat(&self, group: GroupId) -> Option<[u8; 16]> {
        let seats = &self.chain(group)?.roster.seats;
        seats.get(&self.me.device).map(|seat| seat.nonce)
    }

    /// True when the last member left (G23).
    pub fn is_closed(&self, group: GroupId) -> bool {
        self.chain(group).is_some_and(|chain| chain.roster.closed)
    }

    /// How `group` looks.
    pub fn view(&self, group: GroupId) -> Option<GroupView> {
        let held = self.groups.get(&group)?;
        let mine = held.standing(&self.me)?;
        let Some(chain) = &held.chain else {
            return Some(GroupView::unknown(group, mine));
        };
        let roster = &chain.roster;
        let leads = held.leading(&self.me).is_some();
        let knows = mine != Membership::Asking;
        Some(GroupView {
            group,
            name: roster.name.clone(),
            leader: knows.then(|| roster.leader.user.clone()),
            leader_device: knows.then_some(roster.leader.device),
            roster: held.visible(),
            round: roster.term.round,
            majority: roster.term.majority,
            index: chain.index(),
            hash: chain.hash(),
            committed: held.committed.min(chain.index()),
            policy: roster.policy,
            guarantee: held.guarantee(),
            hidden: held.unseen(),
            unsettled: held.unsettled(&self.me),
            requests: if leads {
                held.shown_requests()
            } else {
                Vec::new()
            },
            mine,
        })
    }

    /// Every group known here, also those that we left.
    pub fn iter(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied()
    }
}
