//! Channels as topics: `<prefix>/<kind>/<escaped id>`, and back.
//!
//! Guarantees: injective; no wildcard, empty level, `$` or control character in a topic or filter,
//! whatever a name holds (the one escaping function of the core); decoding is strict, so that only
//! what [`Topics::topic`] can have written comes through.

use std::collections::BTreeMap;

use chat_core::channel::{Channel, TopicId};
use chat_core::id::{GroupId, LobbyName, UnescapeError, UserId, escape, unescape};

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 64;
/// So many channels with hashed names are remembered; one beyond it drops another, whose frames
/// are dropped after a resume until it is subscribed again.
const MAX_HASHED: usize = 4_096;

/// Why a prefix is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no topic prefix; write levels of A-Z a-z 0-9 - _ with / between, up to 64 bytes")]
pub struct PrefixError(pub(crate) String);

/// How channels are laid out on a broker.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    prefix: String,
    /// Frames to an inbox say who sends, in a level that the broker can check.
    sender_level: bool,
}

impl Topics {
    pub(crate) fn new(prefix: &str, sender_level: bool) -> Result<Self, PrefixError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let level = |level: &str| !level.is_empty() && level.bytes().all(plain);
        if prefix.len() > MAX_PREFIX || !prefix.split('/').all(level) {
            return Err(PrefixError(prefix.to_owned()));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            sender_level,
        })
    }

    pub(crate) fn with_sender_level(mut self) -> Self {
        self.sender_level = true;
        self
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn has_sender_level(&self) -> bool {
        self.sender_level
    }

    /// Bytes of the longest topic.
    pub(crate) fn longest(&self) -> usize {
        // The longest kind, and two escaped names of 120 bytes.
        self.prefix.len() + "/presence/".len() + 120 + 1 + 120
    }

    fn address(&self, channel: &Channel) -> String {
        let (kind, id) = channel.path();
        format!("{}/{kind}/{id}", self.prefix)
    }

    /// Where `me` publishes to `channel`.
    pub(crate) fn topic(&self, channel: &Channel, me: &UserId) -> String {
        let mut topic = self.address(channel);
        if self.sender_level && matches!(channel, Channel::Inbox(_)) {
            topic.push('/');
            topic += &escape(me.as_str());
        }
        topic
    }

    /// What to subscribe to for `channel`.
    pub(crate) fn filter(&self, channel: &Channel) -> String {
        let mut filter = self.address(channel);
        if self.sender_level && matches!(channel, Channel::Inbox(_)) {
            filter.push_str("/+");
        }
        filter
    }

    /// The channel of a received topic; `None` when we can not have written it.
    pub(crate) fn channel(&self, topic: &[u8], hashed: &Hashed) -> Option<Channel> {
        let topic = core::str::from_utf8(topic).ok()?;
        let path = topic.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let (kind, rest) = path.split_once('/')?;
        let id = if self.sender_level && kind == "inbox" {
            let (id, sender) = rest.split_once('/')?;
            match unescape(sender) {
                Ok(_) | Err(UnescapeError::Hashed) => id,
                Err(_) => return None,
            }
        } else {
            rest
        };
        let channel = match kind {
            "conv" => Channel::Conv(TopicId(unhex(id)?)),
            "group" => Channel::Group(GroupId(unhex(id)?)),
            "inbox" | "presence" | "lobby" => match unescape(id) {
                Ok(name) => named(kind, &name)?,
                Err(UnescapeError::Hashed) => hashed.0.get(&(kind, id.to_owned()))?.clone(),
                Err(_) => return None,
            },
            _ => return None,
        };
        // Names are kept in one spelling: what was spelt otherwise is not ours.
        (channel.path().1 == id).then_some(channel)
    }
}

fn named(kind: &str, name: &str) -> Option<Channel> {
    Some(match kind {
        "inbox" => Channel::Inbox(UserId::new(name).ok()?),
        "presence" => Channel::Presence(UserId::new(name).ok()?),
        _ => Channel::Lobby(LobbyName::new(name).ok()?),
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Channels whose names are too long for a topic: it holds their hash, and only who knows the name
/// can tell which it is. Outlives connections, because a kept session delivers without being asked.
#[derive(Debug, Default)]
pub(crate) struct Hashed(BTreeMap<(&'static str, String), Channel>);

impl Hashed {
    pub(crate) fn learn(&mut self, channel: &Channel) {
        let (kind, id) = channel.path();
        if !id.starts_with("=H") {
            return;
        }
        if self.0.len() >= MAX_HASHED && !self.0.contains_key(&(kind, id.clone())) {
            self.0.pop_last();
        }
        self.0.insert((kind, id), channel.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topics() -> Topics {
        Topics::new("chat/v1", false).unwrap()
    }

    fn me() -> UserId {
        UserId::new("me").unwrap()
    }

    #[test]
    fn prefixes_are_checked() {
        for good in ["chat/v1", "a", "A-b_c/1/2/3"] {
            assert!(Topics::new(good, false).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "", "/", "a/", "/a", "a//b", "a/+", "#", "$SYS", "a b", "é", "a.b", &long,
        ] {
            assert_eq!(
                Topics::new(bad, false).unwrap_err(),
                PrefixError(bad.to_owned())
            );
        }
    }

    #[test]
    fn topics_look_as_documented() {
        let inbox = Channel::Inbox(UserId::new("a/+").unwrap());
        assert_eq!(topics().topic(&inbox, &me()), "chat/v1/inbox/a=2F=2B");
        assert_eq!(topics().filter(&inbox), "chat/v1/inbox/a=2F=2B");
        let named = topics().with_sender_level();
        assert_eq!(named.topic(&inbox, &me()), "chat/v1/inbox/a=2F=2B/me");
        assert_eq!(named.filter(&inbox), "chat/v1/inbox/a=2F=2B/+");
        let conv = Channel::Conv(TopicId([0xab; 16]));
        assert_eq!(
            named.topic(&conv, &me()),
            format!("chat/v1/conv/{}", "ab".repeat(16))
        );
    }

    #[test]
    fn rule_9_what_we_can_not_have_written_is_no_channel() {
        let hashed = Hashed::default();
        let conv = "ab".repeat(16);
        for foreign in [
            "",
            "chat/v1",
            "chat/v1/",
            "chat/v1/inbox",
            "chat/v1/inbox/",
            "chat/v1/inbox/a/b",
            "chat/v1/inbox/a b",
            "chat/v1/inbox/=41",
            "chat/v1/inbox/=2f",
            // Not in NFC: another spelling of a name.
            "chat/v1/inbox/e=CC=81",
            "chat/v1/outbox/a",
            "chat/v1x/inbox/a",
            "chat/v2/inbox/a",
            "/chat/v1/inbox/a",
            "chat/v1/conv/abc",
            &format!("chat/v1/conv/{}", conv.to_uppercase()),
            &format!("chat/v1/conv/{conv}0"),
            &format!("chat/v1/group/{conv}"),
            // A hash that nobody subscribed to.
            &format!("chat/v1/inbox/=H{}", "x".repeat(43)),
        ] {
            assert_eq!(
                topics().channel(foreign.as_bytes(), &hashed),
                None,
                "{foreign}"
            );
        }
        assert_eq!(topics().channel(&[0xff, b'/'], &hashed), None);
        let named = topics().with_sender_level();
        for foreign in [
            "chat/v1/inbox/a",
            "chat/v1/inbox/a/",
            "chat/v1/inbox/a/b/c",
            "chat/v1/inbox/a/=41",
        ] {
            assert_eq!(
                named.channel(foreign.as_bytes(), &hashed),
                None,
                "{foreign}"
            );
        }
    }

    #[test]
    fn the_memory_for_hashed_names_is_bounded() {
        let mut hashed = Hashed::default();
        for n in 0..MAX_HASHED + 10 {
            let name = format!("{n}{}", "é".repeat(60));
            hashed.learn(&Channel::Presence(UserId::new(&name).unwrap()));
        }
        hashed.learn(&Channel::Presence(me()));
        assert_eq!(hashed.0.len(), MAX_HASHED);
    }

    fn channels() -> impl Strategy<Value = Channel> {
        let name = prop_oneof![
            "\\PC{1,40}",
            "[+#$/*>. %\\x00-\\x1f]{1,30}",
            "[é日𝒳\u{301}/+#]{20,60}",
            "[a-b+#/=]{1,4}",
        ];
        (0..5u8, name, any::<[u8; 32]>()).prop_map(|(kind, name, id)| match kind {
            0 => Channel::Inbox(UserId::new(&name).unwrap()),
            1 => Channel::Presence(UserId::new(&name).unwrap()),
            2 => Channel::Lobby(LobbyName::new(&name).unwrap()),
            3 => Channel::Group(GroupId(id)),
            _ => Channel::Conv(TopicId(id[..16].try_into().unwrap())),
        })
    }

    proptest! {
        #[test]
        fn topics_are_safe_reversible_and_injective(
            a in channels(), b in channels(), sender in any::<bool>()
        ) {
            let topics = Topics::new("chat/v1", sender).unwrap();
            let from = UserId::new("+/#").unwrap();
            let topic = topics.topic(&a, &from);
            prop_assert!(topic.len() <= topics.longest());
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_=/".contains(&b);
            prop_assert!(topic.bytes().all(safe), "{}", topic);
            prop_assert!(topic.split('/').all(|level| !level.is_empty()));

            let mut hashed = Hashed::default();
            hashed.learn(&a);
            prop_assert_eq!(topics.channel(topic.as_bytes(), &hashed), Some(a.clone()));
            prop_assert_eq!(topics.topic(&b, &from) == topic, a == b);
            prop_assert_eq!(topics.filter(&b) == topics.filter(&a), a == b);
        }

        #[test]
        fn whatever_decodes_encodes_back(rest in "(inbox|presence|lobby|conv|group|x)/[=/0-9A-Fa-f]{0,66}") {
            let topic = format!("chat/v1/{rest}");
            if let Some(channel) = topics().channel(topic.as_bytes(), &Hashed::default()) {
                prop_assert_eq!(topics().topic(&channel, &me()), topic);
            }
        }
    }
}
