//! Groups: a signed, hash-chained log under one leader (rules G1, G2, G9–G19, G23; the Baton,
//! reliability sections 1.2–1.4).
//!
//! The leader appends, persists, then publishes; everybody folds the same log to the same roster.
//! Any holder serves entries, because they prove themselves. The lead passes by hand-over: the
//! target accepts, the leader logs `Handover`, the target logs `Claim` with a greater round.
//!
//! Guarantees: nothing that is not signed by the reigning leader changes a roster; a head never
//! decreases; no frame reports or publishes what is not durable; a request that stands is repeated
//! until the answer is final; what arrives from one device makes us answer it at most four times
//! per second and group.
//!
//! Bounds: groups, roster and waiting requests by configuration, the log by 8,192 entries; each
//! command says `Full` there.

mod chain;
mod entry;
mod handover;
mod joins;
mod lead;
mod member;
mod roster;
mod rows;
mod serve;
#[cfg(test)]
mod tests;
mod types;

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use types::{
    Audience, Change, GroupError, GroupEvent, GroupView, JoinRequest, LeavePlan, Member,
    Membership, Verdict,
};

use self::chain::Chain;
use self::roster::Way;
use self::rows::{GroupRow, Record, Stage, Waiting};
use self::serve::Served;
use crate::channel::Channel;
use crate::config::GroupConfig;
use crate::deadline::DeadlineIndex;
use crate::effect::{Effects, Outgoing, RestoreError, Row, Table};
use crate::id::{DeviceId, GroupId, GroupName, RequestId, UserId};
use crate::identity::{Sender, Signer, Verifier};
use crate::rng::Rng;
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire::Body;

/// The longest note or reason, in bytes.
const MAX_TEXT: usize = 512;
/// First wait before a request is repeated.
const RESEND_FIRST: Duration = Duration::from_secs(2);

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Timer {
    /// The leader shows that it lives, and repeats an open offer or hand-over.
    Beat,
    /// A request or a leave of ours is repeated.
    Resend,
    /// Our request lapses.
    Lapse,
    /// The oldest waiting request lapses.
    Waiting,
    /// Our head is reported to the leader.
    Ack,
    /// The missing part of the log is asked for.
    Fetch,
    /// A member that heard nothing asks around.
    Sync,
}

/// One group as this device holds it.
#[derive(Debug, Default)]
struct Group {
    record: Record,
    chain: Option<Chain>,
    joins: BTreeMap<RequestId, Waiting>,
    /// Refused and withdrawn requests with the words said, newest last: a late copy does not ask
    /// again and gets the same answer.
    settled: Vec<(RequestId, DeviceId, String)>,
    /// The heads that members reported to us, the leader.
    acks: BTreeMap<DeviceId, u64>,
    /// The next wait before a repeat.
    backoff: Duration,
    /// Whom to ask for the missing part of the log.
    source: Option<UserId>,
    /// When that was last done.
    fetched: Option<Timestamp>,
    /// When the reigning leader, or anything new, was last heard.
    heard: Option<Timestamp>,
    /// The open offer of the lead to us: its number, and our answer.
    offered: Option<(u64, Option<bool>)>,
    /// The last equivocation that was told.
    reported: u64,
}

/// All groups of one device.
#[derive(Debug)]
pub struct Groups {
    me: Sender,
    signer: Arc<dyn Signer>,
    verifier: Arc<dyn Verifier>,
    config: GroupConfig,
    rng: Rng,
    groups: BTreeMap<GroupId, Group>,
    timers: DeadlineIndex<(GroupId, Timer)>,
    served: Served,
    up: bool,
    effects: Effects<GroupEvent>,
}

impl Group {
    /// Our standing; `None` when there is nothing to show.
    fn standing(&self, me: &Sender) -> Option<Membership> {
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
        if roster.sits(me.device, nonce) {
            return Some(if record.leaving == Some(nonce) {
                Membership::Leaving
            } else if roster.leader.device == me.device {
                Membership::Leader
            } else {
                Membership::Member
            });
        }
        let gone = roster.gone.get(&(me.device, nonce))?;
        denied.or(Some(match gone.way {
            Way::Kicked => Membership::Kicked,
            Way::Left | Way::Replaced => Membership::Left,
        }))
    }

    /// The chain, when we are in it. A leaver is still in.
    fn inside(&self, me: &Sender) -> Option<&Chain> {
        let chain = self.chain.as_ref()?;
        let sits = chain.roster.sits(me.device, self.record.nonce?);
        sits.then_some(chain)
    }

    /// The chain, when we lead it. True until somebody claims, also during a hand-over.
    fn leading(&self, me: &Sender) -> Option<&Chain> {
        self.inside(me)
            .filter(|chain| chain.roster.leader.device == me.device)
    }
}

impl Groups {
    /// In no group.
    pub fn new(
        me: Sender,
        signer: Arc<dyn Signer>,
        verifier: Arc<dyn Verifier>,
        config: GroupConfig,
        rng: Rng,
    ) -> Self {
        Self {
            me,
            signer,
            verifier,
            config,
            timers: DeadlineIndex::new(&rng),
            rng,
            groups: BTreeMap::new(),
            served: Served::default(),
            up: false,
            effects: Effects::default(),
        }
    }

    /// Takes back a row of `Groups` or `Chain` (rows of one table come in key order, `Groups`
    /// first).
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, row: &Row, _now: Now) -> Result<(), RestoreError> {
        self.take_row(row).ok_or_else(|| RestoreError::of(row))
    }

    fn take_row(&mut self, row: &Row) -> Option<()> {
        if row.table == Table::Chain {
            let (id, index) = rows::read_chain_key(&row.key)?;
            let chain = &mut self.groups.get_mut(&id)?.chain;
            match chain {
                None if index == 1 => *chain = Some(Chain::begin(&row.value, id)?),
                Some(chain) if index == chain.index() + 1 => {
                    chain.extend(&row.value, &*self.verifier)?;
                }
                // Only an unbroken log is one.
                _ => return None,
            }
            return Some(());
        }
        match rows::read_group(&row.key, &row.value)? {
            GroupRow::Own(id, record) => {
                self.groups.entry(id).or_default().record = record;
            }
            GroupRow::Join(id, request, waiting) => {
                let group = self.groups.get_mut(&id)?;
                group.joins.insert(request, waiting);
            }
        }
        Some(())
    }

    /// After the restored rows: arms timers, tells `JoinRequested` again.
    pub fn resume(&mut self, now: Now) {
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            let group = &self.groups[&id];
            if group.leading(&self.me).is_some() {
                for request in group.shown_requests() {
                    let event = GroupEvent::JoinRequested { group: id, request };
                    self.effects.emit(event);
                }
            }
            self.arm(id, now);
        }
    }

    /// A group frame (kinds 0x40–0x48) from `from`, already verified. Frames of our own device and
    /// of groups that we do not know are ignored.
    pub fn handle_frame(&mut self, from: &Sender, body: &Body, now: Now) {
        if from.device == self.me.device {
            return;
        }
        match body {
            Body::GroupBeat(beat) => self.handle_beat(from, beat, now),
            Body::GroupAck(ack) => self.handle_head(from, ack, now),
            Body::Entries(entries) => self.handle_entries(from, entries, now),
            Body::Fetch(fetch) => self.handle_fetch(from, fetch, now),
            Body::JoinReq(request) => self.handle_join(from, request, now),
            Body::JoinAnswer(answer) => self.handle_answer(from, answer, now),
            Body::Propose(propose) => self.handle_propose(from, propose, now),
            Body::Offer(offer) => self.handle_offer(from, offer, now),
            Body::Removed(removed) => self.handle_removed(from, removed, now),
            _ => {}
        }
    }

    /// Connected: leaders beat, applicants ask again, members compare heads.
    pub fn handle_up(&mut self, now: Now) {
        self.up = true;
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            self.arm(id, now);
        }
    }

    /// Cut off: a leader signs nothing (R6).
    pub fn handle_down(&mut self, _now: Now) {
        self.up = false;
        for group in self.groups.values_mut() {
            group.heard = None;
        }
        for id in self.groups.keys() {
            for timer in [
                Timer::Beat,
                Timer::Resend,
                Timer::Ack,
                Timer::Fetch,
                Timer::Sync,
            ] {
                self.timers.remove(&(*id, timer));
            }
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((id, timer)) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Beat => self.beat(id, now),
                Timer::Resend => self.resend(id, now),
                Timer::Lapse => self.lapse(id, now),
                Timer::Waiting => self.lapse_waiting(id, now),
                Timer::Ack => self.report_head(id),
                Timer::Fetch => self.fetch(id, now),
                Timer::Sync => self.sync(id, now),
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.earliest()
    }

    /// Who gets messages now; `None` when we are no member or have said that we leave (G12).
    pub fn audience(&self, group: GroupId) -> Option<Audience> {
        let group = self.groups.get(&group)?;
        let writes = matches!(
            group.standing(&self.me)?,
            Membership::Member | Membership::Leader
        );
        let chain = group.chain.as_ref().filter(|_| writes)?;
        let mut members = chain.roster.members();
        members.retain(|member| member.device != self.me.device);
        Some(Audience {
            members,
            index: chain.index(),
            since: chain.roster.seats.get(&self.me.device)?.seniority.index,
        })
    }

    /// Our own standing in `group`; `None` when it is unknown here.
    pub fn membership(&self, group: GroupId) -> Option<Membership> {
        self.groups.get(&group)?.standing(&self.me)
    }

    /// True when the device is in the roster now.
    pub fn is_member(&self, group: GroupId, from: &Sender) -> bool {
        let chain = self.chain(group);
        let seat = chain.and_then(|chain| chain.roster.seats.get(&from.device));
        seat.is_some_and(|seat| seat.user == from.user)
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
            return Some(GroupView {
                group,
                name: GroupName::new(&group.to_string()).expect("a group id is a short text"),
                leader: None,
                roster: Vec::new(),
                round: 0,
                index: 0,
                requests: Vec::new(),
                mine,
            });
        };
        let leads = held.leading(&self.me).is_some();
        Some(GroupView {
            group,
            name: chain.roster.name.clone(),
            leader: (mine != Membership::Asking).then(|| chain.roster.leader.user.clone()),
            roster: chain.roster.members(),
            round: chain.roster.term.round,
            index: chain.index(),
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

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<GroupEvent> {
        &mut self.effects
    }

    fn save(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get(&id) {
            let row = group.record.to_row();
            self.effects.put(Table::Groups, rows::group_key(id), row);
        }
    }

    /// Drops a group with all its rows.
    fn forget(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else {
            return;
        };
        self.effects.delete(Table::Groups, rows::group_key(id));
        for request in group.joins.keys() {
            self.effects
                .delete(Table::Groups, rows::join_key(id, *request));
        }
        for index in 1..=group.chain.map_or(0, |chain| chain.index()) {
            self.effects
                .delete(Table::Chain, rows::chain_key(id, index));
        }
        for timer in [
            Timer::Beat,
            Timer::Resend,
            Timer::Lapse,
            Timer::Waiting,
            Timer::Ack,
            Timer::Fetch,
            Timer::Sync,
        ] {
            self.timers.remove(&(id, timer));
        }
    }

    /// Makes room for one more group: one that we are out of goes first.
    fn make_room(&mut self) -> Result<(), GroupError> {
        if self.groups.len() < self.config.max_groups {
            return Ok(());
        }
        let is_out = |group: &Group| {
            !matches!(
                group.standing(&self.me),
                Some(
                    Membership::Asking
                        | Membership::Member
                        | Membership::Leader
                        | Membership::Leaving
                )
            )
        };
        let out = self.groups.iter().find(|(_, group)| is_out(group));
        let Some(id) = out.map(|(id, _)| *id) else {
            return Err(GroupError::Full {
                what: "groups",
                max: self.config.max_groups,
            });
        };
        self.forget(id);
        Ok(())
    }

    /// Sets the timers that our standing calls for, and takes the lead that is ours to take.
    fn arm(&mut self, id: GroupId, now: Now) {
        self.arm_lapses(id, now);
        if !self.up {
            return;
        }
        self.claim(id, now);
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let leads = group.leading(&self.me).is_some();
        let inside = group.inside(&self.me).is_some();
        let asks = group.record.asking.as_ref();
        let asks = asks.is_some_and(|asking| asking.stage.is_pending());
        let wants = asks || (group.record.leaving.is_some() && !leads);
        let soon = self.config.beat / 20;
        for (timer, wanted, first, spread) in [
            (Timer::Beat, leads, Duration::ZERO, soon),
            (Timer::Resend, wants, Duration::ZERO, soon),
            (Timer::Sync, inside && !leads, soon, soon),
        ] {
            if !wanted {
                self.timers.remove(&(id, timer));
            } else if self.timers.due(&(id, timer)).is_none() {
                self.after(id, timer, first, spread, now);
            }
        }
    }

    /// Sets a deadline `wait` plus up to `spread` from now, never now itself.
    fn after(&mut self, id: GroupId, timer: Timer, wait: Duration, spread: Duration, now: Now) {
        let wait = wait + self.rng.jitter(spread) + Duration::from_micros(1);
        self.timers.set((id, timer), now.mono + wait);
    }

    fn at_wall(&mut self, id: GroupId, timer: Timer, wall: UnixMillis, now: Now) {
        let due = now.mono_at(wall).max(now.mono + Duration::from_millis(1));
        self.timers.set((id, timer), due);
    }

    fn mail(&mut self, user: &UserId, body: impl Into<Body>) {
        let frame = Outgoing::durable(Channel::Inbox(user.clone()), body).gated();
        self.effects.send(frame);
    }
}

fn check_text(text: &str) -> Result<(), GroupError> {
    if text.len() > MAX_TEXT {
        return Err(GroupError::TooLong { bytes: text.len() });
    }
    Ok(())
}
