//! Trust on first use: which device keys speak for which user.

use crate::config::BudgetConfig;
use crate::effect::{Effects, RestoreError, Row};
use crate::id::{DeviceId, UserId};
use crate::identity::{PublicKey, Sender};
use crate::time::Now;

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

/// The pinned keys.
#[derive(Debug)]
pub struct Pins {}

impl Pins {
    /// Empty pins.
    pub fn new(_config: &BudgetConfig) -> Self {
        unimplemented!()
    }

    /// Takes back a row of [`Table::Pins`](crate::effect::Table::Pins).
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, _row: &Row) -> Result<(), RestoreError> {
        unimplemented!()
    }

    /// Whether `key` may speak for `user`; pins it at first contact. The caller has verified a
    /// signature by `key` over `user`.
    pub fn handle_claim(&mut self, _key: &PublicKey, _user: &UserId, _now: Now) -> Standing {
        unimplemented!()
    }

    /// Trusts `device` for `user` (application or directory).
    pub fn trust(&mut self, _user: &UserId, _device: DeviceId, _now: Now) {
        unimplemented!()
    }

    /// Protects `user` from eviction: it is a contact, not a stranger.
    pub fn keep(&mut self, _user: &UserId) {
        unimplemented!()
    }

    /// The trusted devices of `user`.
    pub fn devices(&self, _user: &UserId) -> Vec<DeviceId> {
        unimplemented!()
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<IdentityEvent> {
        unimplemented!()
    }
}
