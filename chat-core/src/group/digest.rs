//! The digest that a checkpoint logs: two logs with one digest go on alike.

use sha2::{Digest, Sha256};

use super::roster::Roster;
use super::term::{Hash, Seniority};

impl Roster {
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
        hash.update([self.policy.code(), self.quorum]);
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
        hash.update((self.voided.len() as u64).to_le_bytes());
        for kick in &self.voided {
            hash.update(kick);
        }
        hash.update((self.fences.len() as u64).to_le_bytes());
        for (term, last) in &self.fences {
            hash.update(term.round.to_le_bytes());
            hash.update([u8::from(term.majority)]);
            seniority(&mut hash, &term.seniority);
            hash.update(term.claimant.0);
            hash.update(last.to_le_bytes());
        }
        hash.finalize().into()
    }
}
