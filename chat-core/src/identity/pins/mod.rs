//! Trust on first use: which device keys speak for which user (e2ee section 3).
//!
//! The first key heard for a user is pinned; any other is refused, and told once, until the
//! application trusts it. A user is a *stranger* until it is kept (a contact, a fellow member) or
//! the application trusts a device for it.
//!
//! Guarantees: a refused key is never accepted without [`Pins::trust`], nor is one that was trusted
//! before [`Pins::distrust`]; only kept users are
//! stored, so a crowd of strangers writes nothing to the disk. The price: what was first heard of
//! a stranger is forgotten with the process, and trust on first use begins anew for it.
//!
//! Bounds: `max_pins` users, beyond which the stranger heard least recently is forgotten; once
//! all are kept, a new stranger is refused and a new contact is told as
//! [`IdentityEvent::NoRoom`]. [`MAX_DEVICES`] devices per user, beyond which trusting another
//! drops the one trusted longest. As many refused devices per user are told, then none for an
//! hour.

mod row;

use core::time::Duration;
use std::collections::BTreeSet;

use bytes::Bytes;

use crate::config::BudgetConfig;
use crate::effect::{Effects, RestoreError, Row, Table};
use crate::id::{DeviceId, UserId};
use crate::identity::{PublicKey, Sender};
use crate::probe::{mark, planted};
use crate::rng::Rng;
use crate::slots::Slots;
use crate::time::{Now, Timestamp};

/// The most devices of one user.
pub const MAX_DEVICES: usize = 16;

/// A user is moved in the eviction order at most this often: most frames cost no move.
const TOUCH: Duration = Duration::from_secs(1);
/// When refused devices may be told again after [`MAX_DEVICES`] of a user were.
const RETELL: Duration = Duration::from_secs(3_600);

/// A change in what we know of a user's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityEvent {
    /// First contact: the key now speaks for the user.
    Pinned {
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// A key that was not pinned claims to speak for a known user. What it signs is refused until
    /// the application calls `trust`.
    KeyChanged {
        /// The user.
        user: UserId,
        /// The devices trusted so far.
        known: Vec<DeviceId>,
        /// The new one.
        device: DeviceId,
    },
    /// The application or a directory trusts this device.
    Trusted {
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// The application trusts this device no longer. What it signs is refused from now on, and
    /// when it was the last one no other is pinned in its place.
    Distrusted {
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// `max_pins` users are kept, so this one could not be; raise it. Its frames are refused.
    NoRoom {
        /// The user.
        user: UserId,
    },
}

/// What the pins say of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It speaks for the user.
    Trusted(Sender),
    /// It does not.
    Refused,
}

#[derive(Debug)]
struct Pinned {
    /// Oldest trust first; empty for a user that is kept but was never heard.
    devices: Vec<DeviceId>,
    /// The last device was distrusted: only the application can trust another.
    shut: bool,
    /// The key that was heard last and its device, so that not every frame costs a hash.
    last: Option<(PublicKey, DeviceId)>,
    kept: bool,
    heard: Timestamp,
    /// Refused devices that were told, at most [`MAX_DEVICES`] per [`RETELL`].
    told: Vec<DeviceId>,
    told_since: Timestamp,
}

/// The pinned keys.
#[derive(Debug)]
pub struct Pins {
    max_pins: usize,
    users: Slots<UserId, Pinned>,
    /// Users that are not kept, by when they were last heard.
    strangers: BTreeSet<(Timestamp, UserId)>,
    effects: Effects<IdentityEvent>,
}

impl Pins {
    /// Empty pins; look-ups are keyed from `rng`.
    pub fn new(config: &BudgetConfig, rng: &Rng) -> Self {
        Self {
            max_pins: config.max_pins,
            users: Slots::new(rng),
            strangers: BTreeSet::new(),
            effects: Effects::default(),
        }
    }

    /// Takes back a row of [`Table::Pins`] before anything was heard; its user is kept. Rows beyond
    /// a lowered `max_pins` are taken too.
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, row: &Row) -> Result<(), RestoreError> {
        let (user, devices) = row::decode(row).ok_or_else(|| RestoreError::of(row))?;
        let mut pinned = Pinned::new(devices, true);
        pinned.shut = pinned.devices.is_empty();
        self.users.insert(user, pinned);
        Ok(())
    }

    /// Whether `key` may speak for `user`; pins it at first contact. The caller has verified a
    /// signature by `key` over `user`.
    pub fn handle_claim(&mut self, key: &PublicKey, user: &UserId, now: Now) -> Standing {
        let trusted = |device| {
            Standing::Trusted(Sender {
                user: user.clone(),
                device,
            })
        };
        let Some(pinned) = self.users.get_mut(user) else {
            let device = key.device();
            if !self.make_room() {
                return Standing::Refused;
            }
            let mut pinned = Pinned::new(vec![device], false);
            pinned.heard = now.mono;
            self.users.insert(user.clone(), pinned);
            self.strangers.insert((now.mono, user.clone()));
            self.tell_pinned(user, device);
            return trusted(device);
        };
        let device = pinned.device(key);
        let shut = pinned.shut && !planted("pins-distrusted-comes-back");
        if pinned.devices.is_empty() && !shut {
            pinned.devices.push(device);
            self.store(user);
            self.tell_pinned(user, device);
            return trusted(device);
        }
        if pinned.devices.contains(&device) {
            if !pinned.kept && now.mono.saturating_since(pinned.heard) >= TOUCH {
                self.strangers.remove(&(pinned.heard, user.clone()));
                self.strangers.insert((now.mono, user.clone()));
                pinned.heard = now.mono;
            }
            return trusted(device);
        }
        if planted("pins-accept-changed-key") {
            return trusted(device);
        }
        if pinned.may_tell(device, now.mono) {
            mark("pins-key-changed");
            let known = pinned.devices.clone();
            self.effects.emit(IdentityEvent::KeyChanged {
                user: user.clone(),
                known,
                device,
            });
        }
        Standing::Refused
    }

    /// Trusts `device` for `user` (application or directory) and keeps the user.
    pub fn trust(&mut self, user: &UserId, device: DeviceId, _now: Now) {
        self.keep(user);
        let Some(pinned) = self.users.get_mut(user) else {
            return;
        };
        if pinned.devices.contains(&device) {
            return;
        }
        if pinned.devices.len() == MAX_DEVICES {
            pinned.devices.remove(0);
        }
        pinned.devices.push(device);
        self.store(user);
        self.effects.emit_gated(IdentityEvent::Trusted {
            user: user.clone(),
            device,
        });
    }

    /// Trusts `device` for `user` no longer, and keeps the user, so that this outlives the process.
    /// False when it was not trusted.
    pub fn distrust(&mut self, user: &UserId, device: DeviceId, now: Now) -> bool {
        if !self.devices(user).contains(&device) {
            return false;
        }
        self.keep(user);
        if let Some(pinned) = self.users.get_mut(user) {
            pinned.devices.retain(|known| *known != device);
            pinned.shut = pinned.devices.is_empty();
            // What it claims from now on is no news.
            pinned.may_tell(device, now.mono);
        }
        self.store(user);
        self.effects.emit_gated(IdentityEvent::Distrusted {
            user: user.clone(),
            device,
        });
        true
    }

    /// Protects `user` from eviction and stores its pins: it is a contact, not a stranger. A user
    /// that was never heard is kept too; its first key is pinned when it speaks.
    pub fn keep(&mut self, user: &UserId) {
        self.forget_stranger(user);
        if let Some(pinned) = self.users.get_mut(user) {
            if !pinned.kept {
                pinned.kept = true;
                self.store(user);
            }
        } else if self.make_room() {
            self.users
                .insert(user.clone(), Pinned::new(Vec::new(), true));
        } else {
            self.effects
                .emit(IdentityEvent::NoRoom { user: user.clone() });
        }
    }

    /// Keeps `user`, with whom a session is open on these devices. They were trusted when they asked
    /// or answered; when that was in an earlier process and the user a stranger, nothing of it is
    /// left, and they are pinned now: the next to use the name would be believed else.
    pub fn keep_met(&mut self, user: &UserId, devices: &[DeviceId]) {
        self.keep(user);
        let Some(pinned) = self.users.get_mut(user) else {
            return;
        };
        if !pinned.devices.is_empty() || pinned.shut || devices.is_empty() {
            return;
        }
        mark("pins-met-earlier");
        let devices = &devices[..devices.len().min(MAX_DEVICES)];
        pinned.devices.extend_from_slice(devices);
        self.store(user);
        for device in devices {
            self.tell_pinned(user, *device);
        }
    }

    /// The trusted devices of `user`, trusted longest first; none when it is unknown.
    pub fn devices(&self, user: &UserId) -> Vec<DeviceId> {
        self.users
            .get(user)
            .map_or_else(Vec::new, |pinned| pinned.devices.clone())
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<IdentityEvent> {
        &mut self.effects
    }

    /// True when one more user fits, after forgetting a stranger if need be.
    fn make_room(&mut self) -> bool {
        if self.users.len() < self.max_pins {
            return true;
        }
        let Some((_, stranger)) = self.strangers.pop_first() else {
            return false;
        };
        mark("pins-stranger-forgotten");
        self.users.remove(&stranger);
        true
    }

    fn forget_stranger(&mut self, user: &UserId) {
        if let Some(pinned) = self.users.get(user) {
            self.strangers.remove(&(pinned.heard, user.clone()));
        }
    }

    fn tell_pinned(&mut self, user: &UserId, device: DeviceId) {
        self.effects.emit_gated(IdentityEvent::Pinned {
            user: user.clone(),
            device,
        });
    }

    fn store(&mut self, user: &UserId) {
        let Some(pinned) = self.users.get(user) else {
            return;
        };
        if !pinned.devices.is_empty() || pinned.shut {
            let key = Bytes::copy_from_slice(user.as_str().as_bytes());
            self.effects
                .put(Table::Pins, key, row::encode(&pinned.devices));
        }
    }
}

impl Pinned {
    const fn new(devices: Vec<DeviceId>, kept: bool) -> Self {
        Self {
            devices,
            shut: false,
            last: None,
            kept,
            heard: Timestamp::ZERO,
            told: Vec::new(),
            told_since: Timestamp::ZERO,
        }
    }

    fn device(&mut self, key: &PublicKey) -> DeviceId {
        match self.last {
            Some((last, device)) if last == *key => device,
            _ => {
                let device = key.device();
                self.last = Some((*key, device));
                device
            }
        }
    }

    /// Whether the refused `device` is to be told now; remembers that it was.
    fn may_tell(&mut self, device: DeviceId, now: Timestamp) -> bool {
        if self.told.contains(&device) {
            return false;
        }
        if self.told.len() == MAX_DEVICES {
            if now.saturating_since(self.told_since) < RETELL {
                return false;
            }
            self.told.clear();
        }
        if self.told.is_empty() {
            self.told_since = now;
        }
        self.told.push(device);
        true
    }
}

#[cfg(test)]
mod tests;
