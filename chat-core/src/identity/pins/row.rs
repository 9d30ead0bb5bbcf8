//! Rows of the pins: the key is the user's name, the value a version byte and the devices; none
//! when the last one was distrusted.

use crate::effect::Row;
use crate::id::{DeviceId, UserId};
use crate::wire::BoundedVec;

use super::MAX_DEVICES;

const VERSION: u8 = 1;

type Devices = BoundedVec<[u8; 32], MAX_DEVICES>;

pub(super) fn encode(devices: &[DeviceId]) -> Vec<u8> {
    let devices = Devices::take_from(devices.iter().map(|device| device.0));
    postcard::to_extend(&devices, vec![VERSION]).expect("a row always serialises")
}

/// `None` for anything that [`encode`] cannot have written.
pub(super) fn decode(row: &Row) -> Option<(UserId, Vec<DeviceId>)> {
    let text = core::str::from_utf8(&row.key).ok()?;
    let user = UserId::new(text)
        .ok()
        .filter(|user| user.as_str() == text)?;
    let (&VERSION, value) = row.value.split_first()? else {
        return None;
    };
    let (devices, rest) = postcard::take_from_bytes::<Devices>(value).ok()?;
    rest.is_empty()
        .then(|| (user, devices.iter().copied().map(DeviceId).collect()))
}
