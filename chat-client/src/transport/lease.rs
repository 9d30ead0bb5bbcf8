//! Leases by compare-and-set: a hint of who leads a group, for transports whose broker has one
//! ([`Capabilities::cas`](super::Capabilities::cas)).
//!
//! A lease shortens a failover: the driver holds it for the groups that we lead, and members of a
//! group whose leader fell silent see whether it lapsed. Safety never rests on it, because a holder
//! may be paused past the end of its lease without noticing. What decides is the signed log of the
//! group (rules G4, G18).

use core::fmt;
use core::time::Duration;

use chat_core::id::{DeviceId, GroupId};

/// A lease that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencingLease {
    /// For which group.
    pub group: GroupId,
    /// Who holds it.
    pub holder: DeviceId,
    /// Grows with every change of this group's lease: of two leases the one with the larger
    /// revision is newer.
    pub revision: u64,
}

/// Why a lease was not granted, renewed or given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody else holds it.
    #[error("{by:?} holds the lease; try again after its time to live")]
    Held {
        /// Who.
        by: DeviceId,
    },
    /// It ran out, or somebody else acquired it since.
    #[error("the lease of revision {revision} is over; acquire a new one")]
    Stale {
        /// The revision that is no longer current.
        revision: u64,
    },
    /// The broker did not answer, refused, or the connection ended: nothing is known. A lease held
    /// before may still be held.
    #[error("the broker cannot tell ({0}); ask again over a new connection")]
    Unavailable(String),
}

/// Leases of groups, over one connection.
///
/// Dropping the future of a call leaves open whether the broker took it: acquire again.
#[async_trait::async_trait]
pub trait FencingLeases: Send + Sync + fmt::Debug {
    /// How long a lease lasts that is not renewed. Renew it after a third of that.
    fn ttl(&self) -> Duration;

    /// Who holds the lease of `group`; `None` when nobody does.
    ///
    /// # Errors
    /// [`LeaseError::Unavailable`].
    async fn holder(&self, group: GroupId) -> Result<Option<DeviceId>, LeaseError>;

    /// Takes the lease of `group` if nobody holds it. A device that holds it already gets a newer
    /// one, so that its earlier process is fenced off.
    ///
    /// # Errors
    /// [`LeaseError::Held`], [`LeaseError::Unavailable`].
    async fn acquire(&self, group: GroupId, holder: DeviceId) -> Result<FencingLease, LeaseError>;

    /// Prolongs a lease by its whole [`ttl`](Self::ttl), under a larger revision.
    ///
    /// # Errors
    /// [`LeaseError::Stale`], [`LeaseError::Unavailable`].
    async fn renew(&self, lease: &FencingLease) -> Result<FencingLease, LeaseError>;

    /// Gives a lease back before its time.
    ///
    /// # Errors
    /// [`LeaseError::Stale`] when it was over already, [`LeaseError::Unavailable`].
    async fn release(&self, lease: FencingLease) -> Result<(), LeaseError>;
}
