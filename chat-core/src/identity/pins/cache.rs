//! Device ids of keys heard lately, so that not every frame costs a hash.

use std::collections::BTreeMap;

use crate::id::DeviceId;
use crate::identity::PublicKey;

const MAX_CACHED: usize = 1_024;

/// At most [`MAX_CACHED`] keys; when it is full it starts anew, which costs each key one hash.
#[derive(Debug, Default)]
pub(super) struct DeviceCache(BTreeMap<PublicKey, DeviceId>);

impl DeviceCache {
    pub(super) fn device(&mut self, key: &PublicKey) -> DeviceId {
        if let Some(device) = self.0.get(key) {
            return *device;
        }
        if self.0.len() == MAX_CACHED {
            self.0.clear();
        }
        let device = key.device();
        self.0.insert(*key, device);
        device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_like_the_hash_and_stays_within_its_bound() {
        let mut cache = DeviceCache::default();
        for n in 0..3_000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_le_bytes());
            let key = PublicKey(key);
            for _ in 0..2 {
                assert_eq!(cache.device(&key), key.device());
                assert!(cache.0.len() <= MAX_CACHED);
            }
        }
    }
}
