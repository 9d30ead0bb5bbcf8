//! The state that the log folds to: who is in, who leads, who was ever in (reliability 1.4).
//!
//! Guarantees: a pure function of the entries; an instance that was ever removed or left never
//! comes back; one entry is applied whole or not at all (G19).

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::entry::{Draft, Entry, Hash, Nonce, Op, Seniority, Term};
use super::types::{Change, Member};
use crate::id::{DeviceId, GroupName, UserId};
use crate::identity::{Sender, Verifier};
use crate::probe::{mark, planted};

/// The most members that a log may hold. Part of validity, so not a setting.
pub(super) const MAX_ROSTER: usize = 4_096;
/// How far a claim may jump ahead of the reigning round.
const MAX_JUMP: u64 = 65_536;

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

/// The folded state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Roster {
    policy: u8,
    quorum: u8,
    pub name: GroupName,
    pub term: Term,
    pub leader: Sender,
    pub seats: BTreeMap<DeviceId, Seat>,
    pub gone: BTreeMap<(DeviceId, Nonce), Gone>,
    /// The index of the last checkpoint, 0 before the first.
    pub checkpoint: u64,
    /// Set while the last entry hands over.
    pub heir: Option<DeviceId>,
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

    /// Whether `entry` may follow. Its place in the chain and its signature are the chain's
    /// business.
    pub(super) fn allows(&self, entry: &Entry, verifier: &dyn Verifier) -> bool {
        let Draft { term, author, .. } = &entry.draft;
        let device = entry.key.device();
        if self.closed || term.claimant != device {
            return false;
        }
        if entry.draft.op == Op::Claim {
            return self.seats.get(&device).is_some_and(|seat| {
                self.heir == Some(device)
                    && seat.user == *author
                    && term.majority
                    && term.seniority == seat.seniority
                    && term.round > self.term.round
                    && term.round - self.term.round <= MAX_JUMP
            });
        }
        let by_leader = device == self.leader.device
            && *author == self.leader.user
            && *term == self.term
            && self.heir.is_none();
        if !by_leader && !planted("group-entry-by-anyone") {
            return false;
        }
        match &entry.draft.op {
            Op::Genesis { .. } | Op::Claim => false,
            Op::Admit(list) => !list.is_empty() && self.seats.len() + list.len() <= MAX_ROSTER,
            Op::Kick { user, .. } => *user != self.leader.user,
            Op::Left(proof) => {
                let (leaver, nonce) = proof.instance();
                let sits = self.seats.get(&leaver).is_some_and(|s| s.nonce == nonce);
                // G2: the leader goes last.
                let last = leaver != self.leader.device || self.seats.len() == 1;
                sits && last && proof.holds(entry.draft.group, verifier)
            }
            Op::Handover { to } => *to != self.leader.device && self.seats.contains_key(to),
            Op::Meta { .. } => true,
            Op::Checkpoint { state } => *state == self.digest(),
        }
    }

    /// Applies an entry that [`Roster::allows`].
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<News> {
        let Draft {
            term,
            index,
            op,
            author,
            ..
        } = &entry.draft;
        self.heir = None;
        let by = |change| vec![(author.clone(), change)];
        match op {
            Op::Genesis { .. } => by(Change::Created),
            Op::Admit(list) => {
                let mut news = Vec::new();
                for (place, one) in (0u8..).zip(list) {
                    let instance = (one.device, one.nonce);
                    let sits = self.seats.get(&one.device);
                    let same = sits.is_some_and(|s| s.nonce == one.nonce);
                    if same || one.device == self.leader.device || self.gone.contains_key(&instance)
                    {
                        mark("group-admit-no-op");
                        continue;
                    }
                    self.remove(one.device, *index, Way::Replaced);
                    let seniority = Seniority {
                        round: term.round,
                        index: *index,
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
            Op::Kick {
                user,
                instances,
                reason,
            } => {
                let most = if planted("group-kick-one-device") {
                    1
                } else {
                    usize::MAX
                };
                let devices: Vec<_> = self.devices(user).take(most).collect();
                for device in &devices {
                    self.remove(*device, *index, Way::Kicked);
                }
                for instance in instances {
                    let sits = self.seats.get(&instance.0);
                    if sits.is_none_or(|seat| seat.nonce != instance.1) {
                        self.gone.entry(*instance).or_insert_with(|| Gone {
                            user: user.clone(),
                            since: *index,
                            until: *index,
                            way: Way::Kicked,
                        });
                    }
                }
                by(Change::Kicked {
                    user: user.clone(),
                    reason: reason.clone(),
                })
            }
            Op::Left(proof) => {
                let device = proof.instance().0;
                let mut news = Vec::new();
                if planted("group-left-ignored") {
                    return news;
                }
                if let Some(user) = self.remove(device, *index, Way::Left) {
                    news.push((user.clone(), Change::Left { user }));
                }
                if self.seats.is_empty() {
                    self.closed = true;
                    news.push((author.clone(), Change::Closed));
                }
                news
            }
            Op::Claim => {
                self.term = *term;
                self.leader = Sender {
                    user: author.clone(),
                    device: term.claimant,
                };
                by(Change::Leader {
                    user: author.clone(),
                })
            }
            Op::Handover { to } => {
                self.heir = Some(*to);
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

    fn remove(&mut self, device: DeviceId, until: u64, way: Way) -> Option<UserId> {
        let seat = self.seats.remove(&device)?;
        let gone = Gone {
            user: seat.user.clone(),
            since: seat.seniority.index,
            until,
            way,
        };
        self.gone.insert((device, seat.nonce), gone);
        Some(seat.user)
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

    /// The past memberships of a device.
    pub(super) fn past(&self, device: DeviceId) -> impl Iterator<Item = &Gone> {
        let all = (device, [0; 16])..=(device, [0xff; 16]);
        self.gone.range(all).map(|(_, gone)| gone)
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

    /// Who leads when the leader goes (G3): the most senior other user, else the most senior
    /// other device of its own.
    pub(super) fn successor(&self) -> Option<Member> {
        let mut others = self.members();
        others.retain(|member| member.device != self.leader.device);
        let other = others.iter().find(|member| member.user != self.leader.user);
        other.or(others.first()).cloned()
    }

    /// A digest of everything that later entries depend on.
    pub(super) fn digest(&self) -> Hash {
        let mut hash = Sha256::new();
        let text = |hash: &mut Sha256, text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        let seniority = |hash: &mut Sha256, s: &Seniority| {
            hash.update(s.round.to_le_bytes());
            hash.update(s.index.to_le_bytes());
            hash.update([s.place]);
        };
        hash.update(b"chat/v1/group-state\0");
        hash.update([self.policy, self.quorum]);
        text(&mut hash, self.name.as_str());
        hash.update(self.term.round.to_le_bytes());
        hash.update([u8::from(self.term.majority)]);
        seniority(&mut hash, &self.term.seniority);
        hash.update(self.term.claimant.0);
        text(&mut hash, self.leader.user.as_str());
        hash.update((self.seats.len() as u64).to_le_bytes());
        for (device, seat) in &self.seats {
            hash.update(device.0);
            hash.update(seat.nonce);
            text(&mut hash, seat.user.as_str());
            seniority(&mut hash, &seat.seniority);
        }
        hash.update((self.gone.len() as u64).to_le_bytes());
        for ((device, nonce), gone) in &self.gone {
            hash.update(device.0);
            hash.update(nonce);
            text(&mut hash, gone.user.as_str());
            hash.update(gone.since.to_le_bytes());
            hash.update(gone.until.to_le_bytes());
            hash.update([gone.way as u8]);
        }
        hash.finalize().into()
    }
}
