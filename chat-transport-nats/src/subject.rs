//! Subjects: where each channel travels, and the names of what the server keeps.
//!
//! For a prefix `chat.v1` and a channel with the path `inbox.bob`:
//!
//! | subject | carries |
//! |---|---|
//! | `chat.v1.in.inbox.bob` | durable frames on their way into the log |
//! | `chat.v1.out.log.inbox.bob` | the same, republished by the server with their place in the log |
//! | `chat.v1.out.now.inbox.bob` | ephemeral frames, kept by nobody |
//! | `chat.v1.out.last.inbox.bob` | last values, republished by the server |
//! | `chat.v1.session.bob.<device>` | changes of a device's session, republished by the server |
//!
//! A subscriber needs one subscription, `chat.v1.out.*.inbox.bob`. Filters are built from the
//! prefix and from escaped ids only, so no id can contain a wildcard, a dot or a space, and a
//! subject has at most 384 bytes: NATS cuts the connection of who sends a longer
//! control line than 4,096.

use core::fmt;

use chat_core::channel::Channel;
use chat_core::id::{DeviceId, GroupId, UserId, escape};

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 64;

/// Why a prefix is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{prefix:?} cannot be a subject prefix; use words of A-Z a-z 0-9 - joined by dots, at most \
     {MAX_PREFIX} bytes"
)]
pub struct PrefixError {
    /// What was given.
    pub prefix: String,
}

/// The part of a subject that says how a frame comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Log,
    Now,
    Last,
}

/// All names under one prefix.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Subjects {
    prefix: String,
    /// The prefix as a part of a stream's name.
    name: String,
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

/// The last two tokens of a channel's subjects.
pub(crate) fn path(channel: &Channel) -> String {
    let (kind, id) = channel.path();
    format!("{kind}.{id}")
}

impl Subjects {
    pub(crate) fn new(prefix: &str) -> Result<Self, PrefixError> {
        let word = |word: &str| {
            let ours = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            !word.is_empty() && word.bytes().all(ours)
        };
        if prefix.len() > MAX_PREFIX || !prefix.split('.').all(word) {
            return Err(PrefixError {
                prefix: prefix.to_owned(),
            });
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            // No word has an underscore, so two prefixes never share a name.
            name: prefix.replace('.', "_"),
        })
    }

    /// Where durable frames go.
    pub(crate) fn put(&self, path: &str) -> String {
        format!("{}.in.{path}", self.prefix)
    }

    /// Where ephemeral frames go.
    pub(crate) fn now(&self, path: &str) -> String {
        format!("{}.out.now.{path}", self.prefix)
    }

    /// What a subscriber of a channel listens to.
    pub(crate) fn filter(&self, path: &str) -> String {
        format!("{}.out.*.{path}", self.prefix)
    }

    /// The path of a filter of ours.
    pub(crate) fn filtered<'a>(&self, filter: &'a str) -> Option<&'a str> {
        (filter.strip_prefix(&self.prefix)?).strip_prefix(".out.*.")
    }

    /// How a frame came on the channel with `path`; `None` for a subject that nobody of ours
    /// writes to.
    pub(crate) fn way(&self, subject: &str, path: &str) -> Option<Way> {
        let rest = (subject.strip_prefix(&self.prefix)?).strip_prefix(".out.")?;
        let (way, rest) = rest.split_once('.')?;
        let way = match way {
            "log" => Way::Log,
            "now" => Way::Now,
            "last" => Way::Last,
            _ => return None,
        };
        (rest == path).then_some(way)
    }

    /// True for a subject without which a connection goes on: a frame's, or a lease's.
    pub(crate) fn is_optional(&self, subject: &str) -> bool {
        let frame = subject.strip_prefix(&self.prefix);
        let leases = self.leases();
        let look = format!("$JS.API.DIRECT.GET.{}.", leases.stream());
        let others = [self.last().key(""), leases.key(""), look];
        frame.is_some_and(|rest| rest.starts_with('.'))
            || others.iter().any(|front| subject.starts_with(front))
    }

    pub(crate) fn log_stream(&self) -> String {
        format!("{}_log", self.name)
    }

    pub(crate) fn log_subjects(&self) -> String {
        format!("{}.in.>", self.prefix)
    }

    pub(crate) fn log_republished(&self) -> String {
        format!("{}.out.log.>", self.prefix)
    }

    /// The bucket of last values.
    pub(crate) fn last(&self) -> Bucket {
        Bucket(format!("{}_last", self.name))
    }

    pub(crate) fn last_republished(&self) -> String {
        format!("{}.out.last.>", self.prefix)
    }

    /// The bucket of sessions.
    pub(crate) fn sessions(&self) -> Bucket {
        Bucket(format!("{}_session", self.name))
    }

    pub(crate) fn sessions_republished(&self) -> String {
        self.session_watch(">")
    }

    /// Where a change of a session is heard.
    pub(crate) fn session_watch(&self, key: &str) -> String {
        format!("{}.session.{key}", self.prefix)
    }

    /// The bucket of leases.
    pub(crate) fn leases(&self) -> Bucket {
        Bucket(format!("{}_lease", self.name))
    }
}

/// A key-value bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bucket(String);

impl Bucket {
    pub(crate) fn stream(&self) -> String {
        format!("KV_{}", self.0)
    }

    pub(crate) fn subjects(&self) -> String {
        format!("$KV.{}.>", self.0)
    }

    pub(crate) fn key(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.0)
    }
}

/// The key of a device's session.
pub(crate) fn session_key(user: &UserId, device: DeviceId) -> String {
    format!("{}.{}", escape(user.as_str()), hex(&device.0))
}

/// The key of a group's lease.
pub(crate) fn lease_key(group: GroupId) -> String {
    hex(&group.0)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes everything");
        out
    })
}

pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use chat_core::channel::TopicId;
    use chat_core::id::LobbyName;
    use proptest::prelude::*;

    use super::*;

    /// No subject of ours is longer, in bytes.
    const MAX_SUBJECT: usize = 384;

    fn subjects() -> Subjects {
        Subjects::new("chat.v1").unwrap()
    }

    #[test]
    fn prefixes_are_words_joined_by_dots() {
        for good in ["chat", "chat.v1", "Team-7.chat.v1"] {
            assert!(Subjects::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(MAX_PREFIX + 1);
        for bad in [
            "", ".", "a.", ".a", "a..b", "a.*", ">", "a b", "$JS", "a_b", "ä", "a\r\nb", &long,
        ] {
            assert!(Subjects::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_but_the_three_ways_is_taken() {
        let subjects = subjects();
        let way = |subject: &str| subjects.way(subject, "inbox.bob");
        assert_eq!(way("chat.v1.out.log.inbox.bob"), Some(Way::Log));
        assert_eq!(way("chat.v1.out.now.inbox.bob"), Some(Way::Now));
        assert_eq!(way("chat.v1.out.last.inbox.bob"), Some(Way::Last));
        for foreign in [
            "",
            "chat.v1.out.log",
            "chat.v1.out.log.inbox",
            "chat.v1.out.log.inbox.eve",
            "chat.v1.out.log.inbox.bob.x",
            "chat.v1.out.evil.inbox.bob",
            "chat.v1.in.inbox.bob",
            "chat.v11.out.log.inbox.bob",
            "other.out.log.inbox.bob",
        ] {
            assert_eq!(way(foreign), None, "{foreign}");
        }
    }

    fn channels() -> impl Strategy<Value = Channel> {
        // Everything that NATS gives a meaning to, and everything else.
        let name = prop_oneof![
            "[*>.$ \\r\\n\\t_=a-zA-Z0-9-]{1,200}",
            "\\PC{1,200}",
            ".{1,8}"
        ];
        prop_oneof![
            name.clone()
                .prop_filter_map("a user id", |n| UserId::new(&n).ok().map(Channel::Inbox)),
            name.clone()
                .prop_filter_map("a user id", |n| UserId::new(&n).ok().map(Channel::Presence)),
            name.prop_filter_map("a lobby", |n| LobbyName::new(&n).ok().map(Channel::Lobby)),
            any::<[u8; 16]>().prop_map(|id| Channel::Conv(TopicId(id))),
            any::<[u8; 32]>().prop_map(|id| Channel::Group(GroupId(id))),
        ]
    }

    proptest! {
        #[test]
        fn any_channel_has_a_subject_of_its_own_without_a_wildcard(
            a in channels(), b in channels(),
        ) {
            let subjects = Subjects::new(&"a".repeat(MAX_PREFIX)).unwrap();
            let (pa, pb) = (path(&a), path(&b));
            prop_assert_eq!(a == b, pa == pb);
            for subject in [subjects.put(&pa), subjects.now(&pa), subjects.last().key(&pa)] {
                prop_assert!(subject.len() <= MAX_SUBJECT);
                prop_assert!(subject.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>'));
                prop_assert_eq!(subject.split('.').filter(|token| token.is_empty()).count(), 0);
            }
            prop_assert_eq!(subjects.way(&subjects.now(&pa), &pa), Some(Way::Now));
            prop_assert_eq!(subjects.way(&subjects.now(&pa), &pb), (a == b).then_some(Way::Now));
            let filter = subjects.filter(&pa);
            prop_assert_eq!(subjects.filtered(&filter), Some(&*pa));
        }

        #[test]
        fn no_subject_of_the_network_breaks_the_decoder(subject in "\\PC{0,300}") {
            let way = subjects().way(&subject, "inbox.bob");
            let ours = ["log", "now", "last"].map(|way| format!("chat.v1.out.{way}.inbox.bob"));
            prop_assert_eq!(way.is_some(), ours.contains(&subject));
        }

        #[test]
        fn keys_of_sessions_keep_users_and_devices_apart(
            user in "\\PC{1,200}", device in any::<[u8; 32]>(),
        ) {
            if let Ok(user) = UserId::new(&user) {
                let key = session_key(&user, DeviceId(device));
                prop_assert_eq!(key.split('.').count(), 2);
                prop_assert!(subjects().sessions().key(&key).len() <= MAX_SUBJECT);
            }
            prop_assert_eq!(unhex::<32>(&hex(&device)), Some(device));
        }
    }
}
