//! How much we answer to one device per second and group, so that a small request cannot make us
//! flood (reliability 6: at most four answers per second and peer).
//!
//! Bound: [`MAX_PEERS`] devices; beyond it newcomers get nothing until the second is over.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::id::{DeviceId, GroupId};
use crate::time::Timestamp;

/// Answers per second to one device in one group.
pub(super) const RATE: u32 = 4;
const MAX_PEERS: usize = 4_096;
const SECOND: Duration = Duration::from_secs(1);

/// The answers of the running second.
#[derive(Debug, Default)]
pub(super) struct Served {
    since: Timestamp,
    count: BTreeMap<(GroupId, DeviceId), u32>,
}

impl Served {
    /// Counts one answer to `device`; false when it has had its share.
    pub(super) fn admit(&mut self, group: GroupId, device: DeviceId, now: Timestamp) -> bool {
        if now.saturating_since(self.since) >= SECOND {
            self.count.clear();
            self.since = now;
        }
        let peer = (group, device);
        if self.count.len() >= MAX_PEERS && !self.count.contains_key(&peer) {
            return false;
        }
        let count = self.count.entry(peer).or_default();
        *count += 1;
        *count <= RATE
    }
}
