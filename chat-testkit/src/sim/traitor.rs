//! A member that turns: it says what only a leader may, speaks for others, takes revenge after its
//! reign; and a leader and a stranger that go beyond their rights. Everything is built on what the
//! victim holds, so that only the rule in question can refuse it.

use chat_core::channel::Channel;
use chat_core::content::Content;
use chat_core::id::{ConvId, GroupId, UserId};
use chat_core::identity::Signer as _;
use chat_core::wire::{Body, BoundedVec, delivery, group as frames};

use super::crypto::FakeSigner;
use super::world::World;
use crate::oracle::certificate::Fold;
use crate::oracle::entry::{self, Forged, Op, Term};

/// What a traitor says, with the key and in the name that it uses.
struct Lie {
    signer: FakeSigner,
    user: UserId,
    body: Body,
}

impl World {
    /// Somebody betrays `n`.
    pub(super) fn betray(&mut self, n: usize, group: GroupId, pick: u64) {
        let Some(last) = self.last_entry(n, group).filter(|_| self.nodes[n].up) else {
            return;
        };
        let Some(fold) = self.oracles.fold(last.hash).filter(|fold| !fold.closed) else {
            return;
        };
        let lie = match pick % 6 {
            0 => self.false_beat(n, &fold, pick),
            1 => self.forged_support(n, &fold, pick),
            2 => self.revenge(&fold, pick),
            3 => self.unsigned_leave(n, &fold, pick),
            4 => self.stranger_writes(&fold, pick),
            _ => self.false_majority(n, &fold),
        };
        let Some(Lie { signer, user, body }) = lie else {
            return;
        };
        self.hand((n, n), Channel::Group(group), &user, &body, &signer);
    }

    /// The node of a device.
    fn holder(&self, device: &[u8; 32]) -> Option<usize> {
        self.nodes.iter().position(|node| node.device.0 == *device)
    }

    fn key(&self, node: usize) -> FakeSigner {
        FakeSigner::new(self.nodes[node].device_number, self.ledger.clone())
    }

    /// A member other than the leader and `n`.
    fn traitor(&self, n: usize, fold: &Fold, pick: u64) -> Option<usize> {
        let nodes: Vec<usize> = fold
            .members
            .keys()
            .filter(|device| **device != fold.leader)
            .filter_map(|device| self.holder(device))
            .filter(|node| *node != n)
            .collect();
        nodes.get(pick as usize % nodes.len().max(1)).copied()
    }

    fn says(&self, node: usize, body: impl Into<Body>) -> Option<Lie> {
        Some(Lie {
            signer: self.key(node),
            user: self.nodes[node].user.clone(),
            body: body.into(),
        })
    }

    fn entry(&self, node: usize, fold: &Fold, term: Term, code: u8, body: &[u8]) -> Option<Lie> {
        let forged = Forged {
            group: fold.group,
            term,
            index: fold.index + 1,
            prev: fold.hash,
            author: self.nodes[node].user.as_str(),
            code,
            body,
        };
        self.page(node, fold.group, fold.index + 1, forged)
    }

    fn page(&self, node: usize, group: [u8; 32], head: u64, forged: Forged<'_>) -> Option<Lie> {
        let bytes = forged.sign(&self.key(node));
        let page = frames::Entries {
            group,
            head,
            entries: BoundedVec::take_from([bytes.try_into().ok()?]),
        };
        self.says(node, page)
    }

    /// Somebody who does not lead shows that the leader lives, and calls everything committed.
    fn false_beat(&mut self, n: usize, fold: &Fold, pick: u64) -> Option<Lie> {
        let h = self.traitor(n, fold, pick >> 8)?;
        self.mark("sim-false-beat");
        let term = frames::Term {
            round: fold.term.round,
            majority: fold.term.majority,
            since_round: fold.term.since.0,
            since_index: fold.term.since.1,
            since_place: fold.term.since.2,
            claimant: fold.term.claimant,
        };
        let head = frames::Head {
            term,
            index: fold.index,
            hash: fold.hash,
        };
        let beat = frames::GroupBeat {
            group: fold.group,
            head,
            commit: u64::MAX,
        };
        self.says(h, beat)
    }

    /// A claim with the support of somebody who did not sign it.
    fn forged_support(&mut self, n: usize, fold: &Fold, pick: u64) -> Option<Lie> {
        let h = self.traitor(n, fold, pick >> 8)?;
        let me = self.nodes[h].device.0;
        let others = fold.members.keys().filter(|device| **device != me);
        let supporters: Vec<usize> = others
            .filter_map(|device| self.holder(device))
            .take(fold.majority().max(fold.needed()) - 1)
            .collect();
        let mut keys: Vec<[u8; 32]> = supporters
            .iter()
            .map(|node| self.key(*node).public_key().0)
            .collect();
        keys.sort_unstable();
        if keys.len() + 1 < fold.majority().max(fold.needed()) || keys.is_empty() {
            return None;
        }
        self.mark("sim-forged-support");
        let mut body = vec![2];
        for key in keys {
            body.extend(key);
            body.extend([7; 64]);
        }
        let term = Term {
            round: fold.term.round + 1,
            majority: true,
            since: fold.members.get(&me)?.since,
            claimant: me,
        };
        self.entry(h, fold, term, 5, &body)
    }

    /// A former leader removes a member after its reign was fenced, and dates that back.
    fn revenge(&mut self, fold: &Fold, pick: u64) -> Option<Lie> {
        let fences: Vec<_> = fold.fences.iter().collect();
        let ((_, former), last) = fences.get((pick >> 8) as usize % fences.len().max(1))?;
        let h = self.holder(former)?;
        let last = self.oracles.entry(fold.hash, **last)?;
        let (device, seat) = fold
            .members
            .iter()
            .find(|(device, _)| *device != former && **device != fold.leader)?;
        // After a hand-over only a claim may follow: it takes that one's place.
        let handed = matches!(last.op, Op::Handover(..));
        self.mark("sim-revenge");
        let mut body = Vec::new();
        entry::block(&mut body, seat.user.as_bytes());
        entry::number(&mut body, 1);
        body.extend(device);
        body.extend(seat.nonce);
        entry::block(&mut body, b"revenge");
        let forged = Forged {
            group: fold.group,
            term: last.term,
            index: last.index + u64::from(!handed),
            prev: if handed { last.prev } else { last.hash },
            author: self.nodes[h].user.as_str(),
            code: 3,
            body: &body,
        };
        self.page(h, fold.group, last.index, forged)
    }

    /// A leader logs the leave of somebody who did not say so.
    fn unsigned_leave(&mut self, n: usize, fold: &Fold, pick: u64) -> Option<Lie> {
        let h = self.holder(&fold.leader).filter(|h| *h != n)?;
        let victims: Vec<_> = fold.members.iter().collect();
        let (device, seat) = victims.get((pick >> 8) as usize % victims.len())?;
        let key = self.key(self.holder(device)?).public_key();
        if **device == fold.leader || fold.heir.is_some() {
            return None;
        }
        self.mark("sim-unsigned-leave");
        let body = [&key.0[..], &seat.nonce, &[7; 64], seat.user.as_bytes()].concat();
        self.entry(h, fold, fold.term, 4, &body)
    }

    /// Somebody who never was in writes to the group.
    fn stranger_writes(&mut self, fold: &Fold, pick: u64) -> Option<Lie> {
        let conv: ConvId = GroupId(fold.group).into();
        let content = Content::text("let me in").encode(conv).ok()?;
        self.mark("sim-stranger-writes");
        let first = delivery::Message {
            seq: 1,
            hlc: 1,
            ttl_ms: 60_000,
            deps: BoundedVec::default(),
            body: content.try_into().ok()?,
        };
        let data = delivery::Data {
            conv: conv.0,
            epoch: 1 + (pick >> 8) % 1_000,
            base: 1,
            sent_before: 0,
            base_roster: 0,
            prev_roster: 0,
            roster: fold.index,
            attempt: 1,
            prior: None,
            wedged: false,
            push: false,
            first,
            more: BoundedVec::default(),
        };
        Some(Lie {
            signer: FakeSigner::new(u64::MAX - 9, self.ledger.clone()),
            user: UserId::new("stranger").expect("a plain name"),
            body: data.into(),
        })
    }

    /// The other of two claims alone, which it may, and calls itself a majority.
    fn false_majority(&mut self, n: usize, fold: &Fold) -> Option<Lie> {
        let h = self.traitor(n, fold, 0)?;
        if fold.needed() > 1 || fold.majority() == 1 {
            return None;
        }
        self.mark("sim-false-majority");
        let me = self.nodes[h].device.0;
        let term = Term {
            round: fold.term.round + 1,
            majority: true,
            since: fold.members.get(&me)?.since,
            claimant: me,
        };
        self.entry(h, fold, term, 5, &[2])
    }
}
