//! What an entry does, and the body that says so (reliability 1.2).
//!
//! Codes and bodies (postcard, unless raw): 1 Genesis: name, nonce (16), policy (1 Available,
//! 2 Strict), quorum (1). 2 Admit: list of (user, device (32), nonce (16)). 3 Kick: user, list of
//! (device, nonce), reason. 4 Left, raw: key (32), nonce (16), signature (64), user. 5 Claim, raw: 1 by
//! hand-over; or 2 and then supporters in ascending order of key, each key (32) and signature (64),
//! the claimant itself left out. 6 Handover, raw: device (32), 1 agreed or 2 unasked. 7 Void, raw:
//! hash of the kick. 8 Fence: term, last index. 9 Meta, raw: name. 10 Checkpoint, raw: digest (32).
//! 11 Batch: list of kicks as in 3, list of admissions as in 2.
//!
//! Guarantee: an operation that this version does not know is no entry, so a log is never folded
//! past something that was not understood.

use serde::{Deserialize, Serialize};

use super::entry::{Nonce, from_bytes, name, to_bytes, user};
use super::proof::{LeftProof, SupportProof};
use super::term::{Hash, Term};
use super::types::Policy;
use crate::id::{DeviceId, GroupName, UserId};
use crate::wire::group::Term as WireTerm;
use crate::wire::{BoundedStr, BoundedVec};

/// Admissions in one entry: the most that always fit an entry, whatever the names.
pub(super) const MAX_BATCH: usize = 24;
/// Instances that one kick names.
pub(super) const MAX_DEVICES: usize = 64;
/// Supporters in one certificate. It bounds the roster of a strict group to twice that and one.
pub(super) const MAX_SUPPORTS: usize = 100;

/// One instance that is let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Admission {
    pub user: UserId,
    pub device: DeviceId,
    pub nonce: Nonce,
}

/// The instances of one user that a batch removes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Removal {
    pub user: UserId,
    pub instances: Vec<(DeviceId, Nonce)>,
    pub reason: String,
}

/// Why its author may reign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Warrant {
    /// The entry before hands over to it.
    Handover,
    /// These members promised the round to it.
    Certificate(Vec<SupportProof>),
}

/// What an entry does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// The group begins; the author is its first member and leads.
    Genesis {
        name: GroupName,
        nonce: Nonce,
        policy: Policy,
        /// How many must stand behind a claim, the claimant included (`Available` only).
        quorum: u8,
    },
    /// Lets instances in, all or none (G19).
    Admit(Vec<Admission>),
    /// Removes instances of one user. They are named, so that a kick means the same on every
    /// branch of the log.
    Kick {
        user: UserId,
        instances: Vec<(DeviceId, Nonce)>,
        reason: String,
    },
    /// An instance leaves; it signed that itself.
    Left { proof: LeftProof, user: UserId },
    /// The author reigns from here.
    Claim(Warrant),
    /// The lead goes to this device. Nothing but a claim may follow.
    Handover {
        to: DeviceId,
        /// It said yes before (G18); a lame leader does not ask (R8).
        agreed: bool,
    },
    /// The kick of the only member, signed on an abandoned branch, means nothing (R8).
    Void { kick: Hash },
    /// What this term signed after this index is no order any more (R9).
    Fence { term: Term, last: u64 },
    /// The group has another name.
    Meta { name: GroupName },
    /// The digest of the state before this entry.
    Checkpoint { state: Hash },
    /// Removes and lets in, in this order, all or none (G19).
    Batch {
        removals: Vec<Removal>,
        admissions: Vec<Admission>,
    },
}

#[derive(Serialize, Deserialize)]
struct WireGenesis {
    name: BoundedStr<256>,
    nonce: Nonce,
    policy: u8,
    quorum: u8,
}

#[derive(Serialize, Deserialize)]
struct WireAdmission {
    user: BoundedStr<256>,
    device: [u8; 32],
    nonce: Nonce,
}

#[derive(Serialize, Deserialize)]
struct WireKick {
    user: BoundedStr<256>,
    instances: BoundedVec<([u8; 32], Nonce), MAX_DEVICES>,
    reason: BoundedStr<512>,
}

#[derive(Serialize, Deserialize)]
struct WireBatch {
    removals: BoundedVec<WireKick, MAX_BATCH>,
    admissions: BoundedVec<WireAdmission, MAX_BATCH>,
}

impl WireKick {
    fn new(user: &UserId, instances: &[(DeviceId, Nonce)], reason: &str) -> Self {
        Self {
            user: BoundedStr::truncated(user.as_str()),
            instances: BoundedVec::take_from(instances.iter().map(|(d, n)| (d.0, *n))),
            reason: BoundedStr::truncated(reason),
        }
    }

    fn read(&self) -> Option<Removal> {
        let instances = self.instances.iter();
        Some(Removal {
            user: user(&self.user)?,
            instances: instances.map(|(d, n)| (DeviceId(*d), *n)).collect(),
            reason: self.reason.to_string(),
        })
    }
}

impl WireAdmission {
    fn new(one: &Admission) -> Self {
        Self {
            user: BoundedStr::truncated(one.user.as_str()),
            device: one.device.0,
            nonce: one.nonce,
        }
    }

    fn read(&self) -> Option<Admission> {
        Some(Admission {
            user: user(&self.user)?,
            device: DeviceId(self.device),
            nonce: self.nonce,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct WireFence {
    term: WireTerm,
    last: u64,
}

impl Warrant {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Handover => vec![1],
            Self::Certificate(supports) => {
                let mut out = vec![2];
                for support in supports {
                    out.extend_from_slice(&support.to_bytes());
                }
                out
            }
        }
    }

    fn decode(body: &[u8]) -> Option<Self> {
        match body.split_first()? {
            (1, []) => Some(Self::Handover),
            (2, list) if list.len() % 96 == 0 && list.len() / 96 <= MAX_SUPPORTS => {
                let supports = list.chunks_exact(96).map(SupportProof::from_bytes);
                Some(Self::Certificate(supports.collect::<Option<_>>()?))
            }
            _ => None,
        }
    }
}

impl Op {
    /// True for what changes who is in: the strict policy lets one at a time wait for a majority.
    pub(super) fn changes_roster(&self) -> bool {
        matches!(
            self,
            Self::Admit(_) | Self::Kick { .. } | Self::Left { .. } | Self::Batch { .. }
        )
    }

    /// What it removes, by user; a leave is none.
    pub(super) fn removals(&self) -> Vec<Removal> {
        match self {
            Self::Kick {
                user,
                instances,
                reason,
            } => vec![Removal {
                user: user.clone(),
                instances: instances.clone(),
                reason: reason.clone(),
            }],
            Self::Batch { removals, .. } => removals.clone(),
            _ => Vec::new(),
        }
    }

    /// Whom it lets in.
    pub(super) fn admissions(&self) -> &[Admission] {
        match self {
            Self::Admit(admissions) | Self::Batch { admissions, .. } => admissions,
            _ => &[],
        }
    }

    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Genesis {
                name,
                nonce,
                policy,
                quorum,
            } => (
                1,
                to_bytes(&WireGenesis {
                    name: BoundedStr::truncated(name.as_str()),
                    nonce: *nonce,
                    policy: policy.code(),
                    quorum: *quorum,
                }),
            ),
            Self::Admit(list) => (
                2,
                to_bytes(&BoundedVec::<_, MAX_BATCH>::take_from(
                    list.iter().map(WireAdmission::new),
                )),
            ),
            Self::Kick {
                user,
                instances,
                reason,
            } => (3, to_bytes(&WireKick::new(user, instances, reason))),
            Self::Left { proof, user } => (
                4,
                [&proof.to_bytes()[..], user.as_str().as_bytes()].concat(),
            ),
            Self::Claim(warrant) => (5, warrant.encode()),
            Self::Handover { to, agreed } => {
                (6, [&to.0[..], &[if *agreed { 1 } else { 2 }]].concat())
            }
            Self::Void { kick } => (7, kick.to_vec()),
            Self::Fence { term, last } => (
                8,
                to_bytes(&WireFence {
                    term: (*term).into(),
                    last: *last,
                }),
            ),
            Self::Meta { name } => (9, name.as_str().as_bytes().to_vec()),
            Self::Checkpoint { state } => (10, state.to_vec()),
            Self::Batch {
                removals,
                admissions,
            } => {
                let kick = |one: &Removal| WireKick::new(&one.user, &one.instances, &one.reason);
                let wire = WireBatch {
                    removals: BoundedVec::take_from(removals.iter().map(kick)),
                    admissions: BoundedVec::take_from(admissions.iter().map(WireAdmission::new)),
                };
                (11, to_bytes(&wire))
            }
        }
    }

    pub(super) fn decode(code: u8, body: &[u8]) -> Option<Self> {
        Some(match code {
            1 => {
                let wire: WireGenesis = from_bytes(body)?;
                Self::Genesis {
                    name: name(&wire.name)?,
                    nonce: wire.nonce,
                    policy: Policy::from_code(wire.policy)?,
                    quorum: wire.quorum,
                }
            }
            2 => {
                let wire: BoundedVec<WireAdmission, MAX_BATCH> = from_bytes(body)?;
                Self::Admit(
                    wire.iter()
                        .map(WireAdmission::read)
                        .collect::<Option<_>>()?,
                )
            }
            3 => {
                let Removal {
                    user,
                    instances,
                    reason,
                } = from_bytes::<WireKick>(body)?.read()?;
                Self::Kick {
                    user,
                    instances,
                    reason,
                }
            }
            4 => {
                let (proof, who) = body.split_at_checked(112)?;
                Self::Left {
                    proof: LeftProof::from_bytes(proof)?,
                    user: user(core::str::from_utf8(who).ok()?)?,
                }
            }
            5 => Self::Claim(Warrant::decode(body)?),
            6 => {
                let (to, [how]) = body.split_first_chunk::<32>()? else {
                    return None;
                };
                Self::Handover {
                    to: DeviceId(*to),
                    agreed: match how {
                        1 => true,
                        2 => false,
                        _ => return None,
                    },
                }
            }
            7 => Self::Void {
                kick: body.try_into().ok()?,
            },
            8 => {
                let wire: WireFence = from_bytes(body)?;
                Self::Fence {
                    term: wire.term.into(),
                    last: wire.last,
                }
            }
            9 => Self::Meta {
                name: name(core::str::from_utf8(body).ok()?)?,
            },
            10 => Self::Checkpoint {
                state: body.try_into().ok()?,
            },
            11 => {
                let wire: WireBatch = from_bytes(body)?;
                let admissions = wire.admissions.iter().map(WireAdmission::read);
                Self::Batch {
                    removals: wire
                        .removals
                        .iter()
                        .map(WireKick::read)
                        .collect::<Option<_>>()?,
                    admissions: admissions.collect::<Option<_>>()?,
                }
            }
            _ => return None,
        })
    }
}
