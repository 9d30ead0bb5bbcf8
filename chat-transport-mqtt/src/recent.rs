//! Topics and channels that one connection used lately, so that a name is spelt and read once and
//! not with every frame; and with MQTT 5 the numbers that stand for them on the wire.
//!
//! Guarantees: both are bounded; a number stands for the topic that was last said with it, and
//! never leaves before that.

use core::num::NonZeroU16;
use std::collections::BTreeMap;

use bytes::Bytes;
use chat_core::channel::Channel;

/// So many channels are remembered in each direction; at the bound all are forgotten.
const MAX_RECENT: usize = 1_024;

/// Where a frame goes to, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Empty where the number says it all.
    pub(crate) topic: Bytes,
    pub(crate) alias: Option<NonZeroU16>,
}

/// Topics of channels that we publish to.
#[derive(Debug)]
pub(crate) struct Addresses {
    known: BTreeMap<Channel, Address>,
    /// So many numbers the broker takes.
    aliases: u16,
}

impl Addresses {
    pub(crate) fn new(aliases: u16) -> Self {
        Self {
            known: BTreeMap::new(),
            aliases,
        }
    }

    /// Where to write a frame for `channel`, whose topic is `topic`. The frame must be written: what
    /// comes next may refer to it.
    pub(crate) fn of(&mut self, channel: &Channel, topic: impl FnOnce() -> String) -> Address {
        if let Some(address) = self.known.get(channel) {
            return address.clone();
        }
        if self.known.len() >= MAX_RECENT {
            self.known.clear();
        }
        let topic = Bytes::from(topic());
        let next = u16::try_from(self.known.len() + 1)
            .ok()
            .and_then(NonZeroU16::new);
        let alias = next.filter(|alias| alias.get() <= self.aliases);
        let after = Address {
            topic: alias.map_or_else(|| topic.clone(), |_| Bytes::new()),
            alias,
        };
        self.known.insert(channel.clone(), after);
        Address { topic, alias }
    }
}

/// Channels of topics that frames come from.
#[derive(Debug, Default)]
pub(crate) struct Channels(BTreeMap<Bytes, Channel>);

impl Channels {
    pub(crate) fn known(&self, topic: &[u8]) -> Option<Channel> {
        self.0.get(topic).cloned()
    }

    pub(crate) fn learn(&mut self, topic: &[u8], channel: &Channel) {
        if self.0.len() >= MAX_RECENT {
            self.0.clear();
        }
        // A slice of the read buffer would keep all of it alive.
        self.0
            .insert(Bytes::copy_from_slice(topic), channel.clone());
    }
}

#[cfg(test)]
mod tests {
    use chat_core::channel::TopicId;

    use super::*;

    fn channel(n: u16) -> Channel {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Channel::Conv(TopicId(id))
    }

    fn ask(addresses: &mut Addresses, n: u16) -> (String, Option<u16>) {
        let address = addresses.of(&channel(n), || format!("topic {n}"));
        let topic = String::from_utf8(address.topic.to_vec()).unwrap();
        (topic, address.alias.map(NonZeroU16::get))
    }

    #[test]
    fn a_number_is_said_with_its_topic_first_and_alone_from_then_on() {
        let mut addresses = Addresses::new(2);
        assert_eq!(ask(&mut addresses, 7), ("topic 7".into(), Some(1)));
        assert_eq!(ask(&mut addresses, 8), ("topic 8".into(), Some(2)));
        assert_eq!(ask(&mut addresses, 7), (String::new(), Some(1)));
        // The broker takes no third.
        for _ in 0..2 {
            assert_eq!(ask(&mut addresses, 9), ("topic 9".into(), None));
        }
        assert_eq!(ask(&mut addresses, 8), (String::new(), Some(2)));
    }

    #[test]
    fn a_broker_that_takes_no_numbers_gets_topics() {
        let mut addresses = Addresses::new(0);
        for _ in 0..2 {
            assert_eq!(ask(&mut addresses, 7), ("topic 7".into(), None));
        }
    }

    #[test]
    fn at_the_bound_numbers_stand_for_other_topics_which_are_said_again() {
        let mut addresses = Addresses::new(u16::MAX);
        // What the broker believes.
        let mut said = BTreeMap::new();
        for n in (0..3_000).chain([5, 2_999, 5, 6]) {
            let (topic, alias) = ask(&mut addresses, n);
            let alias = alias.unwrap();
            if !topic.is_empty() {
                said.insert(alias, topic);
            }
            assert_eq!(said[&alias], format!("topic {n}"));
            assert!(addresses.known.len() <= MAX_RECENT);
        }
    }

    #[test]
    fn the_memory_for_topics_that_come_is_bounded() {
        let mut channels = Channels::default();
        for n in 0..3_000_u16 {
            channels.learn(&n.to_be_bytes(), &channel(n));
            assert_eq!(channels.known(&n.to_be_bytes()), Some(channel(n)));
        }
        assert!(channels.0.len() <= MAX_RECENT);
    }
}
