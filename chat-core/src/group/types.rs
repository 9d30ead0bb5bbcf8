//! What the group machine tells and answers: members, views, events and errors.

use std::collections::BTreeMap;

use crate::delivery::Standing;
use crate::id::{DeviceId, GroupId, GroupName, RequestId, UserId};

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Member {
    /// The person.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
    /// The log index of its admission: the smaller, the more senior.
    pub since: u64,
}

/// A group as this device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupView {
    /// It.
    pub group: GroupId,
    /// Its name.
    pub name: GroupName,
    /// Who leads; `None` while we only asked to join.
    pub leader: Option<UserId>,
    /// The members, most senior first; without those whom a kick on an abandoned branch names.
    pub roster: Vec<Member>,
    /// Those: the log still lists them.
    pub hidden: Vec<Member>,
    /// The device that leads.
    pub leader_device: Option<DeviceId>,
    /// The round of the reigning term.
    pub round: u64,
    /// A majority of the members stood behind it.
    pub majority: bool,
    /// The head of the log.
    pub index: u64,
    /// The hash of the head.
    pub hash: [u8; 32],
    /// The highest index known to be held by a majority under the reigning term. In a strict group
    /// what lies at or below it is final.
    pub committed: u64,
    /// Who may take over.
    pub policy: Policy,
    /// How final a removal is.
    pub guarantee: Guarantee,
    /// Kicks, leaves and admissions of abandoned branches that the log does not show yet.
    pub unsettled: usize,
    /// Join requests that wait for an answer; only the leader sees them.
    pub requests: Vec<JoinRequest>,
    /// Our own standing.
    pub mine: Membership,
}

impl GroupView {
    /// A group of which nothing but our own part is known.
    pub(super) fn unknown(group: GroupId, mine: Membership) -> Self {
        Self {
            group,
            name: GroupName::new(&group.to_string()).expect("a group id is a short text"),
            leader: None,
            roster: Vec::new(),
            hidden: Vec::new(),
            leader_device: None,
            round: 0,
            majority: false,
            index: 0,
            hash: [0; 32],
            committed: 0,
            policy: Policy::default(),
            guarantee: Guarantee::Converging,
            unsettled: 0,
            requests: Vec::new(),
            mine,
        }
    }
}

/// What an outside lease (a broker's compare-and-set) says of a group's leader. A hint: it may
/// shorten the wait for a succession, safety never rests on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LeaseHint {
    /// This device holds it.
    Held(DeviceId),
    /// Nobody does, or the holder let it lapse.
    Lost,
}

/// What an outside lease is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LeaseNeed {
    /// We lead: hold it.
    Hold,
    /// The leader is silent: see whether it still holds it.
    Look,
}

/// Our own standing in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Membership {
    /// We asked.
    Asking,
    /// We are in.
    Member,
    /// We are in and lead.
    Leader,
    /// We said that we leave; the log does not show it yet.
    Leaving,
    /// We left.
    Left,
    /// We were removed.
    Kicked,
    /// We were refused.
    Denied,
}

/// Somebody asks to join.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinRequest {
    /// Names the request.
    pub request: RequestId,
    /// Who.
    pub user: UserId,
    /// In their words.
    pub note: String,
    /// How many of their devices wait; an approval lets them all in (G14). An event counts those
    /// that were there when it was told, the view of the group counts on.
    pub devices: usize,
}

/// Who may take over a group whose leader is silent. Chosen when it is created, for good.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[non_exhaustive]
pub enum Policy {
    /// A few members suffice, so a group lives on while most are away. Two halves of a split broker
    /// may each go on; when they meet again, kicks and leaves of both count.
    #[default]
    Available,
    /// More than half of the members, also for every change of the roster. What was committed is
    /// never lost; while no majority is there, people talk and nothing else changes. At most 201
    /// members.
    Strict,
}

impl Policy {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Available => 1,
            Self::Strict => 2,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Available),
            2 => Some(Self::Strict),
            _ => None,
        }
    }
}

/// What a group is created with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// Who may take over.
    pub policy: Policy,
    /// `Available`: how many members must stand behind a take-over, the new leader included; in a
    /// roster of n never more than n − 1, never less than 1. Default 2.
    pub quorum: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: Policy::Available,
            quorum: 2,
        }
    }
}

impl Rules {
    /// A majority decides.
    pub fn strict() -> Self {
        Self {
            policy: Policy::Strict,
            ..Self::default()
        }
    }
}

/// How final a removal is here (semantics 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Guarantee {
    /// Eventual: after a split both halves' removals count, but meanwhile each half follows its own.
    Converging,
    /// Final once committed, and possible while a majority is reachable.
    Led,
    /// As `Led`, and the reigning leader also holds an outside lease.
    Fenced,
}

/// How the lead passed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Passing {
    /// The leader before handed it over.
    HandedOver,
    /// The leader before was silent, or had to go; members supported the new one.
    Succeeded {
        /// More than half of them.
        majority: bool,
    },
    /// The same leader under a greater term.
    Renewed,
}

/// A change of the roster or the lead (G13).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The group exists.
    Created,
    /// Somebody was let in.
    Admitted {
        /// Who.
        user: UserId,
    },
    /// Somebody left of their own accord.
    Left {
        /// Who.
        user: UserId,
    },
    /// Somebody was removed.
    Kicked {
        /// Who.
        user: UserId,
        /// In the leader's words.
        reason: String,
    },
    /// The lead passed on.
    Leader {
        /// To whom.
        user: UserId,
        /// In which way.
        how: Passing,
    },
    /// The name changed.
    Renamed {
        /// To what.
        name: GroupName,
    },
    /// The last member left (G23).
    Closed,
}

/// Something happened in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupEvent {
    /// The log grew by a change that people care about.
    Changed {
        /// Where.
        group: GroupId,
        /// What.
        change: Change,
        /// Who did it.
        by: UserId,
        /// The round of the term.
        round: u64,
        /// The log index.
        index: u64,
    },
    /// We are in. Messages from before are not ours to see: a gap marks them (G16).
    Joined {
        /// Where.
        group: GroupId,
    },
    /// Our request was refused.
    Denied {
        /// Where.
        group: GroupId,
        /// In the leader's words.
        reason: String,
    },
    /// Nobody answered our request in time (G14).
    JoinExpired {
        /// Where.
        group: GroupId,
    },
    /// We are out (G11).
    Removed {
        /// Where.
        group: GroupId,
        /// Who did it.
        by: UserId,
        /// In their words.
        reason: String,
    },
    /// Somebody asks us, the leader, to be let in. Told once, and again after a restart; answer it
    /// until the answer is taken ([`GroupError::Offline`] and `HandingOver` pass by themselves).
    JoinRequested {
        /// Where.
        group: GroupId,
        /// The request.
        request: JoinRequest,
    },
    /// A request was answered elsewhere, withdrawn or has lapsed.
    JoinSettled {
        /// Where.
        group: GroupId,
        /// The request.
        request: RequestId,
    },
    /// The leader asks us to lead (G18); answer with `answer_offer`.
    LeadOffered {
        /// Where.
        group: GroupId,
        /// Who asks.
        by: UserId,
    },
    /// The member whom we asked to lead said no, or is out. A pending leave of ours is off.
    LeadDeclined {
        /// Where.
        group: GroupId,
        /// Who.
        by: UserId,
    },
    /// Another branch of the log replaced a part of ours, because its term is greater (G6, G21).
    /// What it decided instead follows as `Changed`. Kicks and leaves that were undone stay in
    /// force; who had been let in is let in again without another answer; a name is lost.
    Forked {
        /// Where.
        group: GroupId,
        /// Who leads the branch that won.
        leader: UserId,
        /// The round of its term.
        round: u64,
        /// The last log index that both share.
        common: u64,
        /// What was undone, with its author, oldest first.
        undone: Vec<(UserId, Change)>,
    },
    /// Somebody invites us (G15): `join` is then granted without a question.
    Invited {
        /// Where.
        group: GroupId,
        /// What it is called.
        name: GroupName,
        /// Who.
        by: UserId,
    },
    /// Proof that a leader signed two different entries for one place of the log. Everybody keeps
    /// the one with the lower hash.
    Equivocation {
        /// Where.
        group: GroupId,
        /// Who signed both.
        leader: UserId,
    },
}

impl GroupEvent {
    /// The group it happened in.
    pub fn group(&self) -> GroupId {
        match self {
            Self::Changed { group, .. }
            | Self::Joined { group }
            | Self::Denied { group, .. }
            | Self::JoinExpired { group }
            | Self::Removed { group, .. }
            | Self::JoinRequested { group, .. }
            | Self::JoinSettled { group, .. }
            | Self::LeadOffered { group, .. }
            | Self::LeadDeclined { group, .. }
            | Self::Forked { group, .. }
            | Self::Invited { group, .. }
            | Self::Equivocation { group, .. } => *group,
        }
    }
}

/// Who gets what we send to a group now (G10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// The members, this device left out.
    pub members: Vec<Member>,
    /// The log index that this follows from.
    pub index: u64,
    /// The index of our own admission: older messages are not ours (G16).
    pub since: u64,
    /// The devices that the log knows to be out, and the index from which.
    pub left: BTreeMap<DeviceId, u64>,
}

/// Why a group command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// No such group here.
    #[error("no such group is known here; join it first")]
    NoSuchGroup,
    /// Only the leader may.
    #[error("only the leader may do this; ask {leader}")]
    NotLeader {
        /// Who leads.
        leader: UserId,
    },
    /// We are no member.
    #[error("you are no member of this group; ask to join")]
    NotMember,
    /// We are one already.
    #[error("you are a member of this group")]
    AlreadyMember,
    /// No such request.
    #[error("no such join request stands; it was answered or withdrawn")]
    NoSuchRequest,
    /// The user is no member.
    #[error("{user} is no member of this group")]
    NoSuchMember {
        /// Who.
        user: UserId,
    },
    /// The leader may not leave without a successor while others remain (G2).
    #[error("others remain: hand the lead over as the plan says, or kick them first")]
    NeedsSuccessor,
    /// One cannot do this to oneself.
    #[error("this cannot be done to oneself; use leave")]
    Oneself,
    /// A bound is reached.
    #[error("the limit of {max} {what} is reached; make room first")]
    Full {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A text is too long.
    #[error("the text has {bytes} bytes; shorten it to 512")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The lead is being handed over.
    #[error("the lead is being handed over; wait for the new leader")]
    HandingOver,
    /// A leader that is cut off signs nothing (R6).
    #[error("the connection is down; try again when it is back")]
    Offline,
    /// The leader of a strict group needs a majority in reach (R6).
    #[error("no majority of the members is in reach; try again when they are back")]
    NoMajority,
    /// Nobody asks us to lead.
    #[error("nobody asks you to lead this group; wait for an offer")]
    NoOffer,
    /// The last member left (G23).
    #[error("the group is closed for good; create another")]
    Closed,
    /// One step of a batch cannot be done, so none was (G19).
    #[error("step {step} of the batch cannot be done: {why}; nothing was changed")]
    InBatch {
        /// Which, from 0.
        step: usize,
        /// Why.
        why: Box<Self>,
    },
    /// A batch changes the roster only (G19).
    #[error(
        "the name and the lead do not change together with the roster; make it a call of its own"
    )]
    Mixed,
    /// Two steps of a batch concern the same member.
    #[error("an earlier step names the same member; leave one of them out")]
    NamedTwice,
    /// In a strict group majorities before and after a change must meet.
    #[error("a strict group cannot change {seats} seats at once; make several batches of it")]
    TooWide {
        /// How many the batch changes.
        seats: usize,
    },
    /// A strict group changes one thing after the other.
    #[error("no majority holds the last change yet; try again in a moment")]
    NotCommitted,
}

/// One step of a batch (G19).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchStep {
    /// Lets an applicant in, with all its devices that ask.
    Approve(RequestId),
    /// Removes a member with all its devices.
    Kick {
        /// Whom.
        user: UserId,
        /// What it is told.
        reason: String,
    },
    /// Gives the group another name: only as the one step of a batch.
    Rename(GroupName),
    /// Offers somebody the lead: only as the one step of a batch.
    HandOver(UserId),
}

/// What leaving would do, shown before it is done (G2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeavePlan {
    /// The group.
    pub group: GroupId,
    /// Who would lead afterwards; `None` when we do not lead or nobody else is in.
    pub successor: Option<UserId>,
    /// True when the group closes with us (G23).
    pub closes: bool,
}

/// What the group says of the author of a message (G9, G10, G20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Take it.
    Take(Standing),
    /// We lack the log that would tell: keep it out for now, do not acknowledge.
    NotYet,
    /// Not a member when it wrote: refuse it.
    Stranger,
}
