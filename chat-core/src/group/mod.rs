//! Groups: a signed, hash-chained log under one leader per term, and its succession (rules G1–G19,
//! G23; the Baton, reliability section 1).
//!
//! The leader appends, persists, then publishes; everybody folds the same log to the same roster
//! and keeps the greatest valid head ever seen. The lead passes by a hand-over, or by a certificate
//! of members who found the leader silent; clocks decide when to ask, never who reigns. What a
//! branch that loses had decided is not lost: its kicks and leaves stay in force and are logged by
//! the winner, its admissions become requests that need no second answer.
//!
//! | look for | in |
//! |---|---|
//! | terms, heads, entries, operations, proofs | `term`, `entry`, `op`, `proof` |
//! | which entry may follow; the fold; its digest | `validity`, `roster`, `digest` |
//! | the log, other branches, the greatest wins | `chain` |
//! | a silent leader; a candidate; a supporter; the claim | `succession`, `canvass`, `promise`, `claim` |
//! | kicks, leaves and admissions of abandoned branches | `sticky`, `orphans` |
//! | a leader that a kick names; one deposed wrongly; late orders | `lame`, `defence`, `fence` |
//! | what a leader does; several changes at once; what is committed; what waits | `lead`, `batch`, `commit`, `work` |
//! | hand-over and leaving; requests; invitations | `handover`, `apply`, `joins`, `invite` |
//! | what an outside lease says | `lease` |
//! | following and serving the log; who may write; what we are | `member`, `serve`, `judge`, `standing` |
//!
//! Commands: [`Groups::create`], [`Groups::join`], [`Groups::withdraw`], [`Groups::approve`],
//! [`Groups::deny`], [`Groups::kick`], [`Groups::apply`], [`Groups::invite`],
//! [`Groups::rename`], [`Groups::plan_leave`], [`Groups::leave`], [`Groups::hand_over`],
//! [`Groups::answer_offer`]. Inputs: [`Groups::handle_frame`], [`Groups::handle_up`],
//! [`Groups::handle_down`], [`Groups::handle_timeout`], [`Groups::handle_fence_hint`]. What they lead
//! to: [`Groups::effects`], [`Groups::view`].
//!
//! Guarantees: one owner per term and one entry per place (IG1); a head never decreases (IG2); a
//! kick once applied stays in force (IG4); a strict group never loses what it committed (IG7);
//! nothing counts that its key holder did not sign (IG12); no frame reports, promises or publishes
//! what is not durable; what arrives from one device makes us answer it at most four times per
//! second and group.
//!
//! Bounds: groups, roster and waiting requests by configuration, the log by 8,192 entries (the
//! commands say `Full`); 1,024 sticky kicks and leaves (later ones are not adopted); 8 abandoned
//! branches of 256 entries (beyond that their kicks hold here and cannot be proved to others).

mod apply;
mod batch;
mod canvass;
mod chain;
mod claim;
mod commit;
mod defence;
mod digest;
mod entry;
mod fence;
mod handover;
mod invite;
mod joins;
mod judge;
mod lame;
mod lead;
mod lease;
mod member;
mod op;
mod orphans;
mod promise;
mod proof;
mod roster;
mod rows;
mod serve;
mod standing;
mod sticky;
mod succession;
mod term;
#[cfg(test)]
mod tests;
mod types;
mod validity;
mod work;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

pub use types::{
    Audience, BatchStep, Change, GroupError, GroupEvent, GroupView, Guarantee, JoinRequest,
    LeaseHint, LeaseNeed, LeavePlan, Member, Membership, Passing, Policy, Rules, Verdict,
};

use self::canvass::Canvassing;
use self::chain::Chain;
use self::commit::Acked;
use self::entry::Nonce;
use self::proof::LeftProof;
use self::rows::{GroupRow, Record, Waiting};
use self::serve::Served;
use self::sticky::Kick;
use self::term::{Hash, Term};
use crate::channel::Channel;
use crate::config::GroupConfig;
use crate::deadline::DeadlineIndex;
use crate::effect::{Effects, Outgoing, RestoreError, Row, Table};
use crate::id::{DeviceId, GroupId, RequestId, UserId};
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
    /// The leader shows that it lives, repeats an open offer or hand-over, and logs what is due.
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
    /// The leader was silent for too long.
    Succeed,
    /// Our canvass closes.
    Window,
    /// An abandoned branch is shown to the leader.
    Push,
}

impl Timer {
    const ALL: [Self; 10] = [
        Self::Beat,
        Self::Resend,
        Self::Lapse,
        Self::Waiting,
        Self::Ack,
        Self::Fetch,
        Self::Sync,
        Self::Succeed,
        Self::Window,
        Self::Push,
    ];
    /// Those that run only while we are connected.
    const ONLINE: [Self; 8] = [
        Self::Beat,
        Self::Resend,
        Self::Ack,
        Self::Fetch,
        Self::Sync,
        Self::Succeed,
        Self::Window,
        Self::Push,
    ];
}

/// One group as this device holds it.
#[derive(Debug, Default)]
#[cfg_attr(feature = "probe", derive(Clone))]
struct Group {
    record: Record,
    chain: Option<Chain>,
    joins: BTreeMap<RequestId, Waiting>,
    /// Kicks of abandoned branches, by hash; see [`Kick::settled`].
    sticky: BTreeMap<Hash, Kick>,
    /// Leaves that the log does not show.
    lefts: BTreeMap<(DeviceId, Nonce), (LeftProof, UserId)>,
    /// Abandoned branches that hold something unsettled, from where they leave our log; by the hash
    /// of their last entry.
    orphans: BTreeMap<Hash, Vec<Bytes>>,
    /// The instances that unsettled kicks name.
    hidden: BTreeSet<(DeviceId, Nonce)>,
    /// Refused and withdrawn requests with the words said, newest last: a late copy does not ask
    /// again and gets the same answer.
    settled: Vec<(RequestId, DeviceId, String)>,
    /// The heads that members reported to us, the leader.
    acks: BTreeMap<DeviceId, Acked>,
    /// The highest index known to be committed under the reigning term.
    committed: u64,
    /// The next wait before a repeat.
    backoff: Duration,
    /// We are out, and somebody takes us for a member: the log is read to the end.
    recalled: bool,
    /// Whom to ask for the missing part of the log.
    source: Option<UserId>,
    /// When that was last done.
    fetched: Option<Timestamp>,
    /// When the reigning leader, or anything new, was last heard while we were connected.
    heard: Option<Timestamp>,
    /// When the reigning leader itself was last heard.
    beat_at: Option<Timestamp>,
    /// The leader says that it has no more than we have.
    current: bool,
    /// The highest index beyond our head that a message cited.
    cited: u64,
    /// The same when the leader last said that it has no more.
    cleared: u64,
    /// A leader deposed by a minority, and when we last heard it lead.
    deposed: Option<(DeviceId, Timestamp)>,
    /// This term's leader signed two entries for one place.
    distrust: Option<Term>,
    canvass: Option<Canvassing>,
    /// The highest round that others refused us for.
    refused: u64,
    /// What an outside lease says of the leader.
    lease: Option<LeaseHint>,
    /// Its place in [`Groups::leases`].
    lease_at: Option<Timestamp>,
    /// The open offer of the lead to us: its number, and our answer.
    offered: Option<(u64, Option<bool>)>,
    /// The greatest place of an equivocation that was told.
    reported: Option<(Term, u64)>,
}

/// All groups of one device. Two copies would sign two things for one place: only a search of all
/// that may happen copies it.
#[derive(Debug)]
#[cfg_attr(feature = "probe", derive(Clone))]
pub struct Groups {
    me: Sender,
    signer: Arc<dyn Signer>,
    verifier: Arc<dyn Verifier>,
    config: GroupConfig,
    rng: Rng,
    groups: BTreeMap<GroupId, Group>,
    timers: DeadlineIndex<(GroupId, Timer)>,
    /// From when on the lease of each group is worth a question.
    leases: BTreeSet<(Timestamp, GroupId)>,
    served: Served,
    /// Invitations to us, the oldest first.
    tickets: Vec<(GroupId, Vec<u8>)>,
    up: bool,
    /// Since when we are connected.
    up_since: Timestamp,
    /// Waiting entries are being logged.
    working: bool,
    effects: Effects<GroupEvent>,
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
            leases: BTreeSet::new(),
            served: Served::default(),
            tickets: Vec::new(),
            up: false,
            up_since: Timestamp::ZERO,
            working: false,
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
            GroupRow::Kick(id, bytes) => {
                let (hash, kick) = Kick::read(&bytes)?;
                let group = self.groups.get_mut(&id)?;
                group.hidden.extend(kick.instances.iter().copied());
                group.sticky.insert(hash, kick);
            }
            GroupRow::Left(id, proof, user) => {
                let group = self.groups.get_mut(&id)?;
                group.hidden.insert(proof.instance());
                group.lefts.insert(proof.instance(), (proof, user));
            }
            GroupRow::Ticket(id, ticket) => self.tickets.push((id, ticket)),
            GroupRow::Orphan(id, last, entries) => {
                self.groups.get_mut(&id)?.orphans.insert(last, entries);
            }
        }
        Some(())
    }

    /// After the restored rows: arms timers, tells `JoinRequested` again.
    pub fn resume(&mut self, now: Now) {
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            self.hide(id);
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

    /// A group frame (kinds 0x40–0x4c) from `from`, already verified. Frames of our own device and
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
            Body::Canvass(canvass) => self.handle_canvass(from, canvass, now),
            Body::Support(support) => self.handle_support(from, support, now),
            Body::Refuse(refuse) => self.handle_refuse(from, refuse, now),
            Body::GroupInvite(invite) => self.handle_invite(from, invite, now),
            _ => {}
        }
    }

    /// Connected: leaders beat, applicants ask again, members compare heads and count silence.
    pub fn handle_up(&mut self, now: Now) {
        self.up = true;
        self.up_since = now.mono;
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            self.arm(id, now);
            self.work(id, now);
        }
    }

    /// Cut off: a leader signs nothing (R6) and no time to show it anything passes (R9), nobody
    /// canvasses or counts silence (IG9).
    pub fn handle_down(&mut self, _now: Now) {
        self.up = false;
        self.leases.clear();
        for group in self.groups.values_mut() {
            group.lease_at = None;
            group.heard = None;
            group.canvass = None;
            group.current = false;
            for acked in group.acks.values_mut() {
                acked.knows = None;
            }
        }
        for id in self.groups.keys() {
            for timer in Timer::ONLINE {
                self.timers.remove(&(*id, timer));
            }
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(key) = self.timers.first_due(now.mono).copied() {
            let due = self.timers.due(&key).unwrap_or(now.mono);
            self.timers.remove(&key);
            let (id, timer) = key;
            match timer {
                Timer::Beat => self.beat(id, now),
                Timer::Resend => self.resend(id, now),
                Timer::Lapse => self.lapse(id, now),
                Timer::Waiting => self.lapse_waiting(id, now),
                Timer::Ack => self.report_head(id),
                Timer::Fetch => self.fetch(id, now),
                Timer::Sync => self.sync(id, now),
                Timer::Succeed => self.succeed(id, now.mono.saturating_since(due), now),
                Timer::Window => self.close_canvass(id, now),
                Timer::Push => self.push_orphans(id, now),
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.earliest()
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
        if let Some(at) = group.lease_at {
            self.leases.remove(&(at, id));
        }
        self.effects.delete(Table::Groups, rows::group_key(id));
        let joins = group
            .joins
            .keys()
            .map(|request| rows::join_key(id, *request));
        let kicks = group.sticky.keys().map(|kick| rows::kick_key(id, kick));
        let lefts = group.lefts.keys().map(|left| rows::left_key(id, left));
        let orphans = group.orphans.keys().map(|last| rows::orphan_key(id, last));
        for key in joins.chain(kicks).chain(lefts).chain(orphans) {
            self.effects.delete(Table::Groups, key);
        }
        for index in 1..=group.chain.map_or(0, |chain| chain.index()) {
            self.effects
                .delete(Table::Chain, rows::chain_key(id, index));
        }
        for timer in Timer::ALL {
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
        self.arm_lease(id);
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        let leads = group.leading(&self.me).is_some();
        let reigns = leads
            && group
                .chain
                .as_ref()
                .is_some_and(|chain| chain.roster.heir.is_none());
        let inside = group.inside(&self.me).is_some();
        let asks = group.record.asking.as_ref();
        let asks = asks.is_some_and(|asking| asking.stage.is_pending());
        let wants = asks || (group.record.leaving.is_some() && !leads);
        let soon = self.config.beat / 20;
        for (timer, wanted, first, spread) in [
            (Timer::Beat, leads, Duration::ZERO, soon),
            (Timer::Resend, wants, Duration::ZERO, soon),
            (Timer::Sync, inside && !leads, soon, soon),
            (
                Timer::Push,
                !group.orphans.is_empty() && !leads,
                soon,
                self.config.beat,
            ),
        ] {
            if !wanted {
                self.timers.remove(&(id, timer));
            } else if self.timers.due(&(id, timer)).is_none() {
                self.after(id, timer, first, spread, now);
            }
        }
        if !inside || reigns {
            self.timers.remove(&(id, Timer::Succeed));
        } else if self.timers.due(&(id, Timer::Succeed)).is_none() {
            self.arm_succession(id, now);
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
