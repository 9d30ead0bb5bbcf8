//! A second judge of entries (IG8), written apart from the core's from reliability 1.4: which entry
//! may follow a head, and what certificate carries a claim. Who signed what comes from the ledger
//! of the simulated signers, so nothing is taken on anybody's word (IG12).

use std::collections::{BTreeMap, BTreeSet};

use chat_core::identity::PublicKey;

use super::entry::{Entry, Hash, Instance, Nonce, Op, Term};
use crate::sim::Ledger;

const SUPPORT: &[u8] = b"chat/v1/group-support\0";
const LEFT: &[u8] = b"chat/v1/group-left\0";
/// How far a claim may jump.
const MAX_JUMP: u64 = 65_536;

/// A member's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) user: String,
    pub(crate) nonce: Nonce,
    pub(crate) since: (u64, u64, u8),
}

/// What a log folds to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fold {
    pub(crate) strict: bool,
    pub(crate) quorum: u8,
    pub(crate) term: Term,
    pub(crate) index: u64,
    pub(crate) hash: Hash,
    pub(crate) group: [u8; 32],
    pub(crate) members: BTreeMap<[u8; 32], Seat>,
    pub(crate) gone: BTreeSet<Instance>,
    pub(crate) leader: [u8; 32],
    pub(crate) leader_user: String,
    /// The last entry hands over to this device.
    pub(crate) heir: Option<[u8; 32]>,
    pub(crate) voided: BTreeSet<Hash>,
    pub(crate) fences: BTreeMap<(u64, [u8; 32]), u64>,
    pub(crate) closed: bool,
    /// Where the term began.
    pub(crate) claimed: u64,
    /// The last entry that changed who is in.
    pub(crate) changed: u64,
    pub(crate) former: Option<Former>,
}

/// The reign before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) leader: [u8; 32],
    /// It handed over, or went on under a greater term.
    pub(crate) orderly: bool,
    /// Whom it had deposed itself.
    pub(crate) deposed: Option<[u8; 32]>,
}

impl Fold {
    /// The greater head is the greater log.
    pub(crate) fn rank(&self) -> impl Ord + Copy + use<> {
        (self.term.rank(), self.index, core::cmp::Reverse(self.hash))
    }

    /// More than half.
    pub(crate) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// How many must stand behind a claim, its author included.
    pub(crate) fn needed(&self) -> usize {
        if self.strict {
            return self.majority();
        }
        let most = self.members.len().saturating_sub(1);
        usize::from(self.quorum).min(most).max(1)
    }

    /// True when this instance is in.
    pub(crate) fn sits(&self, instance: &Instance) -> bool {
        let seat = self.members.get(&instance.0);
        seat.is_some_and(|seat| seat.nonce == instance.1)
    }

    /// The state after the first entry.
    pub(crate) fn found(entry: &Entry) -> Result<Self, String> {
        let Op::Genesis {
            nonce,
            strict,
            quorum,
        } = entry.op
        else {
            return Err("a log begins with its genesis".into());
        };
        let device = entry.device().0;
        let term = Term {
            round: 1,
            majority: true,
            since: (1, 1, 0),
            claimant: device,
        };
        if entry.term != term || entry.index != 1 || entry.group != [0; 32] {
            return Err("the genesis is malformed".into());
        }
        let seat = Seat {
            user: entry.author.clone(),
            nonce,
            since: term.since,
        };
        Ok(Self {
            strict,
            quorum,
            term,
            index: 1,
            hash: entry.hash,
            group: entry.hash,
            members: BTreeMap::from([(device, seat)]),
            gone: BTreeSet::new(),
            leader: device,
            leader_user: entry.author.clone(),
            heir: None,
            voided: BTreeSet::new(),
            fences: BTreeMap::new(),
            closed: false,
            claimed: 1,
            changed: 1,
            former: None,
        })
    }

    /// The state after `entry`, which must be allowed to follow.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn follow(&self, entry: &Entry, ledger: &Ledger) -> Result<Self, String> {
        self.judge(entry, ledger)?;
        let mut next = self.clone();
        next.apply(entry);
        Ok(next)
    }

    fn judge(&self, entry: &Entry, ledger: &Ledger) -> Result<(), String> {
        let device = entry.device().0;
        let refuse = |why: &str| Err(why.to_owned());
        if entry.index != self.index + 1 || entry.prev != self.hash || entry.group != self.group {
            return refuse("it does not continue the log");
        }
        if self.closed {
            return refuse("the group is closed");
        }
        if entry.term.claimant != device {
            return refuse("its author does not own the term");
        }
        match &entry.op {
            Op::ClaimByHandover => {
                if self.strict || self.heir != Some(device) || !entry.term.majority {
                    return refuse("nobody handed over to the claimant");
                }
                return self.claimant(entry, device);
            }
            Op::Claim(supports) => {
                self.claimant(entry, device)?;
                return self.certificate(entry, device, supports, ledger);
            }
            _ => {}
        }
        if entry.term != self.term || self.leader != device || self.leader_user != entry.author {
            return refuse("its author does not reign");
        }
        if self.heir.is_some() {
            return refuse("the lead was handed over");
        }
        match &entry.op {
            Op::Genesis { .. } => refuse("a second genesis"),
            Op::Admit(list) if self.strict && list.len() != 1 => {
                refuse("a strict group admits one at a time")
            }
            Op::Admit(list) if list.is_empty() => refuse("it admits nobody"),
            Op::Kick(instances) => {
                let sitting = instances.iter().filter(|one| self.sits(one)).count();
                if instances
                    .iter()
                    .any(|one| one.0 == self.leader && self.sits(one))
                {
                    return refuse("the leader kicks itself");
                }
                if self.strict && sitting > 1 {
                    return refuse("a strict group removes one at a time");
                }
                Ok(())
            }
            Op::Batch(out, fresh) => self.judge_batch(out, fresh),
            Op::Left {
                key,
                nonce,
                signature,
                ..
            } => {
                let leaver = PublicKey(*key);
                let message = [LEFT, &self.group, nonce].concat();
                if !ledger.made(&leaver, &message, signature) {
                    return refuse("the leaver did not sign");
                }
                let instance = (leaver.device().0, *nonce);
                let reigns = instance.0 == self.leader && self.sits(&instance);
                if reigns && self.members.len() > 1 {
                    return refuse("the leader goes before the others");
                }
                Ok(())
            }
            Op::Handover(to, _) if *to == self.leader || !self.members.contains_key(to) => {
                refuse("it hands over to nobody")
            }
            Op::Void(_) if self.members.len() > 1 => refuse("others could log the kick"),
            Op::Fence(term, _) if term.rank() >= self.term.rank() => {
                refuse("it fences no earlier term")
            }
            _ => Ok(()),
        }
    }

    fn judge_batch(
        &self,
        out: &[Instance],
        fresh: &[(String, [u8; 32], Nonce)],
    ) -> Result<(), String> {
        let kicked = out.iter().map(|(device, _)| *device);
        let named: Vec<_> = kicked.chain(fresh.iter().map(|one| one.1)).collect();
        let different: BTreeSet<_> = named.iter().collect();
        if named.is_empty() || different.len() < named.len() || named.contains(&self.leader) {
            return Err("a batch names nobody, somebody twice, or the leader".into());
        }
        let mut after: BTreeSet<_> = self.members.keys().copied().collect();
        let everybody = &after | &fresh.iter().map(|one| one.1).collect();
        after.extend(&everybody);
        for one in out.iter().filter(|one| self.sits(one)) {
            after.remove(&one.0);
        }
        // Two majorities without a common member would need so many people.
        let needed = self.majority() + after.len() / 2 + 1;
        if self.strict && needed <= everybody.len() {
            return Err("a strict batch lets majorities miss each other".into());
        }
        Ok(())
    }

    fn claimant(&self, entry: &Entry, device: [u8; 32]) -> Result<(), String> {
        let Some(seat) = self.members.get(&device) else {
            return Err("the claimant is no member".into());
        };
        if seat.user != entry.author || seat.since != entry.term.since {
            return Err("the claimant lies about its seat".into());
        }
        if entry.term.round <= self.term.round || entry.term.round - self.term.round > MAX_JUMP {
            return Err(format!(
                "round {} does not follow round {}",
                entry.term.round, self.term.round
            ));
        }
        Ok(())
    }

    /// What a supporter signs: group, round, the whole head of the log, the candidate.
    pub(crate) fn support_message(&self, round: u64, candidate: [u8; 32]) -> Vec<u8> {
        [
            SUPPORT,
            &self.group[..],
            &round.to_le_bytes(),
            &self.term.round.to_le_bytes(),
            &[u8::from(self.term.majority)],
            &self.term.since.0.to_le_bytes(),
            &self.term.since.1.to_le_bytes(),
            &[self.term.since.2],
            &self.term.claimant,
            &self.index.to_le_bytes(),
            &self.hash,
            &candidate,
        ]
        .concat()
    }

    fn certificate(
        &self,
        entry: &Entry,
        claimant: [u8; 32],
        supports: &[([u8; 32], [u8; 64])],
        ledger: &Ledger,
    ) -> Result<(), String> {
        let message = self.support_message(entry.term.round, claimant);
        let mut behind = BTreeSet::from([claimant]);
        for (key, signature) in supports {
            let supporter = PublicKey(*key);
            let device = supporter.device().0;
            if !self.members.contains_key(&device) {
                return Err("a supporter is no member".into());
            }
            if !ledger.made(&supporter, &message, signature) {
                return Err("a supporter did not sign this".into());
            }
            if !behind.insert(device) {
                return Err("a supporter counts twice".into());
            }
        }
        if behind.len() < self.needed() {
            return Err(format!(
                "{} of {} stand behind it",
                behind.len(),
                self.needed()
            ));
        }
        if entry.term.majority != (behind.len() >= self.majority()) {
            return Err("it lies about its majority".into());
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) {
        (self.index, self.hash, self.heir) = (entry.index, entry.hash, None);
        if entry.op.changes_roster() {
            self.changed = entry.index;
        }
        match &entry.op {
            Op::Genesis { .. } | Op::Meta(_) | Op::Checkpoint => {}
            Op::Admit(list) => self.admit(entry, list),
            Op::Batch(out, fresh) => {
                out.iter().for_each(|one| self.remove(*one));
                self.admit(entry, fresh);
            }
            Op::Kick(instances) => instances.iter().for_each(|one| self.remove(*one)),
            Op::Left { key, nonce, .. } => {
                self.remove((PublicKey(*key).device().0, *nonce));
                self.closed = self.members.is_empty();
            }
            Op::ClaimByHandover | Op::Claim(_) => {
                let before = self.former.take().filter(|former| !former.orderly);
                let handed = entry.op == Op::ClaimByHandover;
                self.former = Some(Former {
                    leader: self.leader,
                    orderly: handed || entry.term.claimant == self.leader,
                    deposed: before.map(|former| former.leader),
                });
                self.claimed = entry.index;
                self.term = entry.term;
                self.leader = entry.term.claimant;
                self.leader_user = entry.author.clone();
            }
            Op::Handover(to, _) => self.heir = Some(*to),
            Op::Void(kick) => drop(self.voided.insert(*kick)),
            Op::Fence(term, last) => {
                self.fences.insert((term.round, term.claimant), *last);
            }
        }
    }

    fn admit(&mut self, entry: &Entry, list: &[(String, [u8; 32], Nonce)]) {
        for (place, (user, device, nonce)) in (0u8..).zip(list) {
            let instance = (*device, *nonce);
            let posing = self.leader == *device && self.leader_user != *user;
            if posing || self.sits(&instance) || self.gone.contains(&instance) {
                continue;
            }
            self.unseat(*device);
            let seat = Seat {
                user: user.clone(),
                nonce: *nonce,
                since: (entry.term.round, entry.index, place),
            };
            self.members.insert(*device, seat);
        }
    }

    fn remove(&mut self, instance: Instance) {
        if self.sits(&instance) {
            self.members.remove(&instance.0);
        }
        self.gone.insert(instance);
    }

    fn unseat(&mut self, device: [u8; 32]) {
        if let Some(seat) = self.members.remove(&device) {
            self.gone.insert((device, seat.nonce));
        }
    }
}
