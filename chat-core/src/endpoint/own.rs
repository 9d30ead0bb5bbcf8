//! What the devices of one user share: whom they block (S5).
//!
//! They meet in the user's own inbox, which others may be able to read. So a device says no more
//! there than that it exists; lists are sealed for one other device each, with a secret that only
//! the two can compute, padded, and under the same signature as every frame. A change goes to every
//! device whose key is known, also while it is away; two devices that see each other exchange
//! everything, and the later word about each peer counts.
//!
//! Guarantees: only devices that are trusted to speak for our own user are believed and told;
//! nothing of it is ever addressed to anybody else.
//!
//! Bound: as many devices as the pins trust for one user.

use sha2::{Digest, Sha256};

use super::Endpoint;
use crate::channel::Channel;
use crate::effect::{Outgoing, RestoreError, Row, RowOp, Table};
use crate::endpoint::drain::Staged;
use crate::id::{DeviceId, UserId};
use crate::identity::{PublicKey, Sender};
use crate::probe::planted;
use crate::time::Now;
use crate::wire::session::{BlockMark, Blocks, OwnHello};
use crate::wire::{self, Body, BoundedStr};

/// The keys of our other devices, one after the other.
pub(super) const SIBLINGS_KEY: &[u8] = b"siblings";
/// Marks of one frame: some hundred usual names, and any thirty.
const MAX_MARKS: usize = 30;
/// Lists are padded to a multiple of this, so that their length says little.
const PAD: usize = 1_024;

impl Endpoint {
    pub(super) fn restore_siblings(&mut self, row: &Row) -> Result<(), RestoreError> {
        let (keys, rest) = row.value.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(RestoreError::of(row));
        }
        self.siblings = keys
            .iter()
            .map(|key| (PublicKey(*key).device(), PublicKey(*key)))
            .collect();
        Ok(())
    }

    /// Asks our other devices to show themselves, if there are any.
    pub(super) fn seek_siblings(&mut self) {
        let user = self.me.user.clone();
        if self.pins.devices(&user).len() > 1 {
            self.send_own(OwnHello { ask: true });
        }
    }

    /// `peer` was blocked here, or no longer.
    pub(super) fn share_block(&mut self, peer: &UserId) {
        let marks: Vec<BlockMark> = self
            .sessions
            .blocks()
            .filter(|(known, ..)| *known == peer)
            .map(mark)
            .collect();
        let siblings: Vec<PublicKey> = self.siblings.values().copied().collect();
        for key in siblings {
            self.send_blocks(&key, &marks);
        }
    }

    /// False when it does not come from another device of our own.
    pub(super) fn handle_own(
        &mut self,
        key: &PublicKey,
        from: &Sender,
        body: &Body,
        now: Now,
    ) -> bool {
        if from.user != self.me.user {
            return false;
        }
        self.learn_sibling(key, from.device);
        match body {
            Body::OwnHello(hello) => {
                if hello.ask {
                    self.send_own(OwnHello { ask: false });
                }
                let all: Vec<BlockMark> = self.sessions.blocks().map(mark).collect();
                for marks in all.chunks(MAX_MARKS) {
                    self.send_blocks(key, marks);
                }
                true
            }
            // For another of our devices.
            Body::Blocks(blocks) if blocks.to != self.me.device.0 => true,
            Body::Blocks(blocks) => {
                let Some(marks) = self.unseal(key, blocks) else {
                    return false;
                };
                for mark in marks {
                    if let Ok(peer) = UserId::new(&mark.peer) {
                        self.sessions
                            .handle_block(&peer, mark.stamp, mark.blocked, now);
                    }
                }
                true
            }
            _ => false,
        }
    }

    /// A device that is not trusted any more is told nothing.
    pub(super) fn forget_sibling(&mut self, device: DeviceId) {
        if self.siblings.remove(&device).is_some() {
            self.store_siblings();
        }
    }

    fn learn_sibling(&mut self, key: &PublicKey, device: DeviceId) {
        if self.siblings.contains_key(&device) {
            return;
        }
        // The pins have a bound; who dropped out of them goes.
        let trusted = self.pins.devices(&self.me.user);
        self.siblings.retain(|known, _| trusted.contains(known));
        self.siblings.insert(device, *key);
        self.store_siblings();
    }

    fn store_siblings(&mut self) {
        let keys: Vec<u8> = self.siblings.values().flat_map(|key| key.0).collect();
        self.rows.push(RowOp::Put {
            table: Table::Meta,
            key: SIBLINGS_KEY.into(),
            value: keys.into(),
        });
    }

    fn send_own(&mut self, body: impl Into<Body>) {
        let inbox = Channel::Inbox(self.me.user.clone());
        let frame = Outgoing::durable(inbox, body).gated();
        self.staged.push(Staged::Send(frame));
    }

    fn send_blocks(&mut self, to: &PublicKey, marks: &[BlockMark]) {
        if planted("session-block-not-shared") {
            return;
        }
        let Some(secret) = self.signer.agree(to) else {
            return;
        };
        let nonce: [u8; 24] = self.rng.bytes();
        let mut list = wire::to_vec(&marks);
        list.resize(list.len().next_multiple_of(PAD), 0);
        stream(&secret, &self.signer.public_key(), to, &nonce, &mut list);
        let blocks = Blocks {
            to: to.device().0,
            nonce,
            sealed: list
                .try_into()
                .expect("thirty marks of three hundred bytes fit"),
        };
        self.send_own(blocks);
    }

    fn unseal(&self, from: &PublicKey, blocks: &Blocks) -> Option<Vec<BlockMark>> {
        let secret = self.signer.agree(from)?;
        let mut list = blocks.sealed.to_vec();
        let me = self.signer.public_key();
        stream(&secret, from, &me, &blocks.nonce, &mut list);
        let (marks, _) = postcard::take_from_bytes::<Vec<BlockMark>>(&list).ok()?;
        Some(marks)
    }
}

fn mark((peer, stamp, blocked): (&UserId, u64, bool)) -> BlockMark {
    BlockMark {
        peer: BoundedStr::truncated(peer.as_str()),
        stamp,
        blocked,
    }
}

/// Seals and unseals: a key stream from the secret, both keys and the nonce. Who wrote it, and that
/// nobody changed it, is what the signature of the frame says.
fn stream(secret: &[u8; 32], from: &PublicKey, to: &PublicKey, nonce: &[u8; 24], text: &mut [u8]) {
    let mut base = Sha256::new();
    base.update(b"chat/v1/own\0");
    for part in [&secret[..], &from.0, &to.0, nonce] {
        base.update(part);
    }
    for (block, count) in text.chunks_mut(32).zip(0u64..) {
        let mut hash = base.clone();
        hash.update(count.to_le_bytes());
        let key: [u8; 32] = hash.finalize().into();
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
}
