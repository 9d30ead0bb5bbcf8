//! The state that the log folds to: who is in, who leads, who was ever in (reliability 1.4).
//!
//! Guarantees: a pure function of the entries; an instance that was ever removed or left never
//! comes back; one entry is applied whole or not at all (G19).

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Draft, Entry, Nonce};
use super::op::{Admission, Op, Warrant};
use super::term::{Hash, Seniority, Term};
use super::types::{Change, Member, Passing, Policy};
use crate::id::{DeviceId, GroupName, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::UnixMillis;

/// The most members that a log may hold. Part of validity, so not a setting.
pub(super) const MAX_ROSTER: usize = 4_096;
/// Kicks that a log voids; later ones are not remembered, so what they name stays a kick.
const MAX_VOIDED: usize = 1_024;
/// Fenced terms; the lowest go first, they are long over.
const MAX_FENCES: usize = 256;

/// A place in the roster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seat {
    pub user: UserId,
    pub nonce: Nonce,
    pub seniority: Seniority,
}

/// How an instance went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Left,
    Kicked,
    /// The same device came in anew.
    Replaced,
}

/// An instance that is out for ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gone {
    pub user: UserId,
    /// The index of its admission.
    pub since: u64,
    /// The index that removed it.
    pub until: u64,
    pub way: Way,
}

/// A change to tell, with the one who made it.
pub(super) type News = (UserId, Change);

/// Who is to lead next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heir {
    pub device: DeviceId,
    /// It said yes before.
    pub agreed: bool,
}

/// The reign before this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Former {
    pub term: Term,
    /// The index of its last entry.
    pub last: u64,
    pub leader: Sender,
    /// It handed over, or went on under a greater term.
    pub orderly: bool,
    /// Whom it had deposed itself.
    pub deposed: Option<DeviceId>,
    /// When it ended, by the clock of who claimed.
    pub at: UnixMillis,
}

/// The folded state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Roster {
    pub policy: Policy,
    pub quorum: u8,
    pub name: GroupName,
    pub term: Term,
    /// The index of the claim, or of Genesis, that began the term.
    pub claimed: u64,
    /// The index of the last entry that changed who is in.
    pub changed: u64,
    pub leader: Sender,
    pub former: Option<Former>,
    /// Kicks from abandoned branches that mean nothing (R8).
    pub voided: BTreeSet<Hash>,
    /// The last index that counts, by term (R9).
    pub fences: BTreeMap<Term, u64>,
    pub seats: BTreeMap<DeviceId, Seat>,
    pub gone: BTreeMap<(DeviceId, Nonce), Gone>,
    /// The index of the last checkpoint, 0 before the first.
    pub checkpoint: u64,
    /// Set while the last entry hands over.
    pub heir: Option<Heir>,
    pub closed: bool,
}

impl Roster {
    /// The state after Genesis; `None` when `entry` is none or breaks its form.
    pub(super) fn found(entry: &Entry) -> Option<Self> {
        let Draft {
            group,
            term,
            index,
            prev,
            op,
            author,
            ..
        } = &entry.draft;
        let Op::Genesis {
            name,
            nonce,
            policy,
            quorum,
        } = op
        else {
            return None;
        };
        let device = entry.key.device();
        let seniority = Seniority {
            round: 1,
            index: 1,
            place: 0,
        };
        let first = Term {
            round: 1,
            majority: true,
            seniority,
            claimant: device,
        };
        if group.0 != [0; 32] || *prev != [0; 32] || *index != 1 || *term != first {
            return None;
        }
        let seat = Seat {
            user: author.clone(),
            nonce: *nonce,
            seniority,
        };
        Some(Self {
            policy: *policy,
            quorum: *quorum,
            name: name.clone(),
            term: first,
            claimed: 1,
            changed: 1,
            former: None,
            voided: BTreeSet::new(),
            fences: BTreeMap::new(),
            leader: Sender {
                user: author.clone(),
                device,
            },
            seats: BTreeMap::from([(device, seat)]),
            gone: BTreeMap::new(),
            checkpoint: 0,
            heir: None,
            closed: false,
        })
    }

    /// Applies an entry that [`Roster::allows`].
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<News> {
        let Draft {
            term,
            index,
            op,
            author,
            at,
            ..
        } = &entry.draft;
        self.heir = None;
        if op.changes_roster() {
            self.changed = *index;
        }
        let by = |change| vec![(author.clone(), change)];
        match op {
            Op::Genesis { .. } => by(Change::Created),
            Op::Admit(list) => self.admit(list, term.round, *index, author),
            Op::Kick {
                user,
                instances,
                reason,
            } => Vec::from_iter(self.kick(user, instances, reason, *index, author)),
            Op::Batch {
                removals,
                admissions,
            } => {
                let mut news = Vec::new();
                for one in removals {
                    news.extend(self.kick(&one.user, &one.instances, &one.reason, *index, author));
                    if planted("group-batch-half") {
                        return news;
                    }
                }
                news.extend(self.admit(admissions, term.round, *index, author));
                news
            }
            Op::Left { proof, user } => {
                let (device, nonce) = proof.instance();
                let mut news = Vec::new();
                if planted("group-left-ignored") {
                    return news;
                }
                if self.sits(device, nonce) {
                    self.remove(device, *index, Way::Left);
                    news.push((user.clone(), Change::Left { user: user.clone() }));
                } else {
                    let gone = Gone {
                        user: user.clone(),
                        since: *index,
                        until: *index,
                        way: Way::Left,
                    };
                    self.gone.entry((device, nonce)).or_insert(gone);
                }
                if self.seats.is_empty() {
                    self.closed = true;
                    news.push((author.clone(), Change::Closed));
                }
                news
            }
            Op::Claim(warrant) => {
                let device = term.claimant;
                let how = if device == self.leader.device {
                    Passing::Renewed
                } else if *warrant == Warrant::Handover {
                    Passing::HandedOver
                } else {
                    Passing::Succeeded {
                        majority: term.majority,
                    }
                };
                let deposed = self.former.take().filter(|former| !former.orderly);
                self.former = Some(Former {
                    deposed: deposed.map(|former| former.leader.device),
                    term: self.term,
                    last: index - 1,
                    leader: self.leader.clone(),
                    orderly: matches!(how, Passing::Renewed | Passing::HandedOver),
                    at: *at,
                });
                self.term = *term;
                self.claimed = *index;
                self.leader = Sender {
                    user: author.clone(),
                    device,
                };
                let user = author.clone();
                by(Change::Leader { user, how })
            }
            Op::Handover { to, agreed } => {
                self.heir = Some(Heir {
                    device: *to,
                    agreed: *agreed,
                });
                Vec::new()
            }
            Op::Void { kick } => {
                if self.voided.len() < MAX_VOIDED {
                    self.voided.insert(*kick);
                }
                Vec::new()
            }
            Op::Fence { term, last } => {
                self.fences.insert(*term, *last);
                if self.fences.len() > MAX_FENCES {
                    self.fences.pop_first();
                }
                Vec::new()
            }
            Op::Meta { name } => {
                self.name = name.clone();
                by(Change::Renamed { name: name.clone() })
            }
            Op::Checkpoint { .. } => {
                self.checkpoint = *index;
                Vec::new()
            }
        }
    }

    fn admit(&mut self, list: &[Admission], round: u64, index: u64, author: &UserId) -> Vec<News> {
        let mut news = Vec::new();
        for (place, one) in (0u8..).zip(list) {
            let instance = (one.device, one.nonce);
            let sits = self.seats.get(&one.device);
            let same = sits.is_some_and(|s| s.nonce == one.nonce);
            let went = self.gone.contains_key(&instance) && !planted("group-kicked-returns");
            // A leader comes back under its own name only.
            let other = one.device == self.leader.device && one.user != self.leader.user;
            if same || other || went {
                mark("group-admit-no-op");
                continue;
            }
            self.remove(one.device, index, Way::Replaced);
            let seniority = Seniority {
                round,
                index,
                place,
            };
            let seat = Seat {
                user: one.user.clone(),
                nonce: one.nonce,
                seniority,
            };
            self.seats.insert(one.device, seat);
            let user = one.user.clone();
            news.push((author.clone(), Change::Admitted { user }));
        }
        news
    }

    fn kick(
        &mut self,
        user: &UserId,
        instances: &[(DeviceId, Nonce)],
        reason: &str,
        index: u64,
        author: &UserId,
    ) -> Option<News> {
        let most = if planted("group-kick-one-device") {
            1
        } else {
            usize::MAX
        };
        let mut removed = false;
        for (device, nonce) in instances.iter().take(most) {
            if self.sits(*device, *nonce) {
                self.remove(*device, index, Way::Kicked);
                removed = true;
                continue;
            }
            // Its applicant needs a final answer, and its copies must not come in.
            let gone = Gone {
                user: user.clone(),
                since: index,
                until: index,
                way: Way::Kicked,
            };
            self.gone.entry((*device, *nonce)).or_insert(gone);
        }
        if !removed {
            mark("group-kick-of-nobody");
            return None;
        }
        let kicked = Change::Kicked {
            user: user.clone(),
            reason: reason.to_owned(),
        };
        Some((author.clone(), kicked))
    }

    fn remove(&mut self, device: DeviceId, until: u64, way: Way) {
        let Some(seat) = self.seats.remove(&device) else {
            return;
        };
        let gone = Gone {
            user: seat.user,
            since: seat.seniority.index,
            until,
            way,
        };
        self.gone.insert((device, seat.nonce), gone);
    }

    /// The devices of `user` that are in.
    pub(super) fn devices<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = DeviceId> + 'a {
        let of = move |(device, seat): (&DeviceId, &Seat)| (seat.user == *user).then_some(*device);
        self.seats.iter().filter_map(of)
    }

    /// True when this very instance is in.
    pub(super) fn sits(&self, device: DeviceId, nonce: Nonce) -> bool {
        self.seats.get(&device).is_some_and(|s| s.nonce == nonce)
    }

    /// True when this very instance was in, or was kept out, and never comes back.
    pub(super) fn went(&self, device: DeviceId, nonce: Nonce) -> bool {
        self.gone.contains_key(&(device, nonce))
    }

    /// True when an order of this term that the log does not hold counts no more (R9). Such an
    /// order lies beyond its last index, or its leader signed two for one place.
    pub(super) fn is_fenced(&self, term: &Term) -> bool {
        self.fences.contains_key(term) && !planted("group-fence-ignored")
    }

    /// The past memberships of a device.
    pub(super) fn past(&self, device: DeviceId) -> impl Iterator<Item = &Gone> {
        let all = (device, [0; 16])..=(device, [0xff; 16]);
        self.gone.range(all).map(|(_, gone)| gone)
    }

    /// The devices that were in or kept out, and where that last ended. Instances of a device
    /// come in no order of time.
    pub(super) fn departures(&self) -> BTreeMap<DeviceId, u64> {
        let mut all = BTreeMap::new();
        for ((device, _), gone) in &self.gone {
            let at: &mut u64 = all.entry(*device).or_default();
            *at = gone.until.max(*at);
        }
        all
    }

    /// The members, most senior first.
    pub(super) fn members(&self) -> Vec<Member> {
        let mut seats: Vec<_> = self.seats.iter().collect();
        seats.sort_by_key(|(device, seat)| (seat.seniority, **device));
        let member = |(device, seat): (&DeviceId, &Seat)| Member {
            user: seat.user.clone(),
            device: *device,
            since: seat.seniority.index,
        };
        seats.into_iter().map(member).collect()
    }
}
