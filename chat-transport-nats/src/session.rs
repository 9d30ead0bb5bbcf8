//! What the server remembers of a device: which channels it subscribed and how far each was read.
//!
//! One key of a bucket per device, written with compare-and-set. Its revision fences connections:
//! a second connection of the same device writes it, and the first one reads the other's mark or
//! fails to write (rule S11).

use chat_core::channel::Channel;
use serde::{Deserialize, Serialize};

/// The record of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u8,
    /// The connection that wrote it.
    pub(crate) mark: String,
    /// Which log the places are of: when it was created.
    pub(crate) log: String,
    /// Signed bytes of a channel, and its cursor.
    channels: Vec<(Vec<u8>, u64)>,
}

/// The longest number in a record.
const VARINT: usize = 10;

impl Record {
    const VERSION: u8 = 1;

    pub(crate) fn new<'a>(
        mark: &str,
        log: &str,
        channels: impl Iterator<Item = (&'a Channel, u64)>,
    ) -> Self {
        Self {
            version: Self::VERSION,
            mark: mark.to_owned(),
            log: log.to_owned(),
            channels: channels
                .map(|(channel, cursor)| {
                    let mut id = Vec::new();
                    channel.signed_bytes(&mut id);
                    (id, cursor)
                })
                .collect(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a record has no maps and no unknown lengths")
    }

    /// Bytes that a channel takes in a record, at most.
    pub(crate) fn size_of(channel: &Channel) -> usize {
        let mut id = Vec::new();
        channel.signed_bytes(&mut id);
        id.len() + 2 * VARINT
    }

    /// `None` for what this version did not write.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (record, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        (rest.is_empty() && record.version == Self::VERSION).then_some(record)
    }

    /// The channels; `None` when one of them cannot be read.
    pub(crate) fn channels(&self) -> Option<Vec<(Channel, u64)>> {
        let channel =
            |(id, cursor): &(Vec<u8>, u64)| Some((Channel::from_signed_bytes(id)?, *cursor));
        self.channels.iter().map(channel).collect()
    }
}

#[cfg(test)]
mod tests {
    use chat_core::id::UserId;

    use super::*;

    #[test]
    fn a_record_survives_the_way_and_nothing_else_is_read() {
        let channels = [
            (Channel::Inbox(UserId::new("bob").unwrap()), 7),
            (Channel::Presence(UserId::new("a.*>").unwrap()), u64::MAX),
        ];
        let list = channels.iter().map(|(channel, cursor)| (channel, *cursor));
        let record = Record::new("one", "2026-01-01T00:00:00Z", list);
        let bytes = record.encode();
        let sizes = channels.iter().map(|(channel, _)| Record::size_of(channel));
        assert!(bytes.len() < 64 + sizes.sum::<usize>());
        let back = Record::decode(&bytes).unwrap();
        assert_eq!(back, record);
        assert_eq!(back.channels().unwrap(), channels);
        for cut in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..cut]), None, "{cut}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(Record::decode(&long), None);
        let mut later = bytes;
        later[0] = 2;
        assert_eq!(Record::decode(&later), None);
        let mut broken = record;
        broken.channels[0].0.push(1);
        assert_eq!(broken.channels(), None);
    }
}
