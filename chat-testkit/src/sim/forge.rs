//! Hostile input: frames that were seen come again, changed or elsewhere; strangers speak in others'
//! names; a member of the group signs what it has no right to.

use std::rc::Rc;

use chat_core::channel::Channel;
use chat_core::effect::Table;
use chat_core::id::{GroupId, UserId};
use chat_core::identity::Signer as _;
use chat_core::session::SessionState;
use chat_core::wire::{self, Body, BoundedStr, BoundedVec, group as frames};

use super::broker::Frame;
use super::crypto::FakeSigner;
use super::disk::rows_of;
use super::event::Input;
use super::swarm::Suite;
use super::world::World;
use crate::oracle::entry::{self, Entry, Forged, Term};

impl World {
    /// A frame seen before comes again out of nowhere: as it was, with one bit changed, or on
    /// another channel.
    pub(super) fn forge(&mut self, n: usize, pick: u64) {
        if self.recent.is_empty() {
            return;
        }
        if let (Suite::Siege, Some(group)) = (self.swarm.suite, self.group)
            && !pick.is_multiple_of(4)
        {
            return self.betray(n, group, pick >> 2);
        }
        if pick % 4 == 3 {
            return match self.group {
                Some(group) if self.swarm.suite == Suite::Presence => {
                    self.forge_card(n, group, pick)
                }
                Some(group) if self.swarm.suite.is_groups() => self.usurp(n, group, pick),
                _ => self.impersonate(n, pick),
            };
        }
        let frame = self.recent[(pick >> 16) as usize % self.recent.len()].clone();
        let mut forged = Frame::clone(&frame);
        match pick % 4 {
            0 => self.mark("sim-replayed"),
            1 => {
                let mut bytes = frame.bytes.to_vec();
                let at = (pick >> 24) as usize % bytes.len();
                bytes[at] ^= 1 << (pick >> 8 & 7);
                forged.bytes = bytes.into();
                self.mark("sim-mutated");
            }
            _ => {
                let other = &self.recent[(pick >> 40) as usize % self.recent.len()];
                forged.channel = other.channel.clone();
                self.mark("sim-moved");
            }
        }
        if !self.nodes[n].up {
            return;
        }
        // Only what the endpoint could have got: a channel that it listens to.
        self.push_input(self.now, n, Input::Forged(Rc::new(forged)));
    }

    /// `n` hears `body` on `channel`, in the name of `user` and with the key of `signer`; the trace
    /// says that it came from `by`.
    pub(super) fn hand(
        &mut self,
        (by, n): (usize, usize),
        channel: Channel,
        user: &UserId,
        body: &Body,
        signer: &FakeSigner,
    ) {
        let Ok(bytes) = wire::encode(body, user, &channel, signer) else {
            return;
        };
        let frame = Frame {
            channel,
            bytes,
            durable: true,
            retain: false,
            expires: u64::MAX,
            from: by,
            dedup: None,
        };
        self.push_input(self.now, n, Input::Forged(Rc::new(frame)));
    }

    /// A stranger shows a group in the lobby that is not its own.
    fn forge_card(&mut self, n: usize, group: GroupId, pick: u64) {
        if !self.nodes[n].up {
            return;
        }
        self.mark("sim-forged-card");
        let body = wire::presence::GroupCard {
            group: group.0,
            name: BoundedStr::truncated("mine now"),
            leader: BoundedStr::truncated(self.nodes[0].user.as_str()),
            members: 1,
            index: 1 + pick % 64,
            withdrawn: pick & 64 != 0,
        };
        let channel = Channel::Lobby(self.lobby.clone());
        let signer = FakeSigner::new(u64::MAX - pick % 1_000, self.ledger.clone());
        let stranger = UserId::new("stranger").expect("a plain name");
        self.hand((n, n), channel, &stranger, &body.into(), &signer);
    }

    /// Somebody signs with a key of its own in the name of a user whom `n` knows.
    fn impersonate(&mut self, n: usize, pick: u64) {
        let victim = self.nodes[(pick >> 16) as usize % self.nodes.len()]
            .user
            .clone();
        let knows = self.nodes[n].endpoint.as_ref().is_some_and(|endpoint| {
            matches!(endpoint.session(&victim), SessionState::Active { .. })
        });
        if !knows || !self.nodes[n].up {
            return;
        }
        self.mark("sim-impersonated");
        let me = self.nodes[n].user.clone();
        let body = wire::session::Request {
            invite: pick
                .to_le_bytes()
                .repeat(2)
                .try_into()
                .expect("twice 8 bytes are 16"),
            secret: [7; 32],
            to: BoundedStr::truncated(me.as_str()),
            note: BoundedStr::truncated("it is me"),
            ttl_ms: 86_400_000,
            sent_at: self.nodes[n].clock.wall(self.now).0,
        };
        let channel = Channel::Inbox(me);
        let signer = FakeSigner::new(u64::MAX - pick % 1_000, self.ledger.clone());
        self.hand((n, n), channel, &victim, &body.into(), &signer);
    }

    /// Another member, with its own key, signs what only a leader may, claims the lead without the
    /// others, or speaks for them; `n` hears it.
    fn usurp(&mut self, n: usize, group: GroupId, pick: u64) {
        let count = self.nodes.len();
        let Some(h) = (1..count)
            .map(|step| (n + step + (pick >> 8) as usize % count) % count)
            .find(|h| *h != n && self.last_entry(*h, group).is_some())
        else {
            return;
        };
        let Some(last) = self.last_entry(h, group) else {
            return;
        };
        if !self.nodes[n].up {
            return;
        }
        let Some(body) = self.villainy(h, group, &last, pick >> 16) else {
            return;
        };
        let victim = self.nodes[n].user.clone();
        let channel = match &body {
            Body::Entries(_) | Body::GroupBeat(_) | Body::Canvass(_) => Channel::Group(group),
            _ => Channel::Inbox(victim),
        };
        let signer = FakeSigner::new(self.nodes[h].device_number, self.ledger.clone());
        let user = self.nodes[h].user.clone();
        self.hand((h, n), channel, &user, &body, &signer);
    }

    pub(super) fn last_entry(&self, n: usize, group: GroupId) -> Option<Entry> {
        let rows = rows_of(self.nodes[n].disk.synced(), Table::Chain, &group.0);
        let (_, value) = rows.last()?;
        Entry::read(value)
    }

    fn villainy(&mut self, h: usize, group: GroupId, last: &Entry, pick: u64) -> Option<Body> {
        let fold = self.oracles.fold(last.hash)?;
        let signer = FakeSigner::new(self.nodes[h].device_number, self.ledger.clone());
        let me = self.nodes[h].device.0;
        // A leader may sign what it likes.
        let seat = fold.members.get(&me).filter(|_| me != fold.leader)?;
        let next = |round: u64, majority: bool| Term {
            round,
            majority,
            since: seat.since,
            claimant: me,
        };
        let reign = fold.term.round;
        let stranger = FakeSigner::new(u64::MAX - 7, self.ledger.clone());
        let mut victim = Vec::new();
        entry::number(&mut victim, 1);
        entry::block(&mut victim, b"stranger");
        victim.extend(stranger.public_key().device().0);
        victim.extend([9; 16]);
        let support = |who: &FakeSigner, round: u64| {
            let signature = who.sign(&fold.support_message(round, me));
            [&who.public_key().0[..], &signature.0].concat()
        };
        let (mark, term, code, body) = match pick % 8 {
            // An order in the leader's term, and one in a term that nobody gave.
            0 => ("sim-forged-order", fold.term, 2, victim),
            1 => ("sim-forged-order", next(reign, true), 2, victim),
            // A claim by nobody, by a stranger, by oneself twice, of a majority that is none.
            // In a group of two one suffices, and the claim would hold.
            2 if fold.needed() > 1 => ("sim-forged-claim", next(reign + 1, false), 5, vec![2]),
            3 => {
                let certificate = [&[2][..], &support(&stranger, reign + 1)].concat();
                ("sim-forged-claim", next(reign + 1, false), 5, certificate)
            }
            4 => {
                let own = support(&signer, reign + 2);
                let certificate = [&[2][..], &own, &own].concat();
                ("sim-forged-claim", next(reign + 2, true), 5, certificate)
            }
            5 if fold.heir != Some(me) => ("sim-forged-claim", next(reign + 1, true), 5, vec![1]),
            6 => {
                self.mark("sim-forged-leave");
                let (other, seat) = fold.members.iter().find(|(device, _)| **device != me)?;
                let key = self.nodes.iter().find(|node| node.device.0 == *other)?;
                let key = FakeSigner::new(key.device_number, self.ledger.clone()).public_key();
                let signature = signer.sign(&[7; 40]);
                let proof = [&key.0[..], &seat.nonce, &signature.0].concat();
                return Some(
                    frames::Propose {
                        group: group.0,
                        action: 1,
                        index: fold.index,
                        proof: proof.try_into().ok()?,
                    }
                    .into(),
                );
            }
            7 => {
                self.mark("sim-forged-refusal");
                let head = frames::Head {
                    term: frames::Term {
                        round: reign,
                        majority: fold.term.majority,
                        since_round: fold.term.since.0,
                        since_index: fold.term.since.1,
                        since_place: fold.term.since.2,
                        claimant: fold.term.claimant,
                    },
                    index: fold.index,
                    hash: fold.hash,
                };
                return Some(
                    frames::Refuse {
                        group: group.0,
                        why: 3,
                        head,
                        promised: reign + (pick >> 8) % 1_000,
                        heard_ms: 0,
                    }
                    .into(),
                );
            }
            _ => return None,
        };
        self.mark(mark);
        let user = self.nodes[h].user.clone();
        let forged = Forged {
            group: group.0,
            term,
            index: fold.index + 1,
            prev: fold.hash,
            author: user.as_str(),
            code,
            body: &body,
        };
        let bytes = forged.sign(&signer);
        Some(
            frames::Entries {
                group: group.0,
                head: fold.index + 1,
                entries: BoundedVec::take_from([bytes.try_into().ok()?]),
            }
            .into(),
        )
    }
}
