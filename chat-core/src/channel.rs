//! Channels: the abstract addresses of the protocol.
//!
//! A transport maps each channel to one topic, subject or field with [`Channel::path`]; the
//! signature of every frame covers [`Channel::signed_bytes`], so a broker can neither move a
//! frame to another channel nor replay it there.

use crate::id::{GroupId, LobbyName, UserId, escape};

/// The private topic of an accepted 1:1 session: derived from the pair and a secret (rule S10).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl core::fmt::Debug for TopicId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Where a frame travels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Channel {
    /// What is meant for one person's devices: requests, answers, acknowledgements.
    Inbox(UserId),
    /// The private topic of a 1:1 session.
    Conv(TopicId),
    /// A group: its log, its beats and its messages.
    Group(GroupId),
    /// One person's presence; carries a last value where the transport has one.
    Presence(UserId),
    /// A place where strangers find people and groups.
    Lobby(LobbyName),
}

impl Channel {
    /// The two levels of an address: a kind and an escaped id, both safe on every transport.
    pub fn path(&self) -> (&'static str, String) {
        match self {
            Self::Inbox(user) => ("inbox", escape(user.as_str())),
            Self::Conv(topic) => ("conv", hex(&topic.0)),
            Self::Group(group) => ("group", hex(&group.0)),
            Self::Presence(user) => ("presence", escape(user.as_str())),
            Self::Lobby(lobby) => ("lobby", escape(lobby.as_str())),
        }
    }

    /// What the signature of a frame on this channel covers: a tag and the full id, unescaped.
    pub fn signed_bytes(&self, out: &mut Vec<u8>) {
        let (tag, id) = self.tagged_id();
        out.push(tag);
        out.extend_from_slice(&(id.len() as u64).to_le_bytes());
        out.extend_from_slice(id);
    }

    /// How many bytes [`Channel::signed_bytes`] writes.
    pub(crate) fn signed_len(&self) -> usize {
        1 + 8 + self.tagged_id().1.len()
    }

    fn tagged_id(&self) -> (u8, &[u8]) {
        match self {
            Self::Inbox(user) => (1, user.as_str().as_bytes()),
            Self::Conv(topic) => (2, &topic.0),
            Self::Group(group) => (3, &group.0),
            Self::Presence(user) => (4, user.as_str().as_bytes()),
            Self::Lobby(lobby) => (5, lobby.as_str().as_bytes()),
        }
    }

    /// Rebuilds a channel from [`Channel::signed_bytes`]; `None` for anything else.
    pub fn from_signed_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (len, id) = rest.split_first_chunk::<8>()?;
        if u64::from_le_bytes(*len) != id.len() as u64 {
            return None;
        }
        let text = || core::str::from_utf8(id).ok();
        let user = || text().and_then(|t| UserId::new(t).ok().filter(|u| u.as_str() == t));
        Some(match tag {
            1 => Self::Inbox(user()?),
            2 => Self::Conv(TopicId(id.try_into().ok()?)),
            3 => Self::Group(GroupId(id.try_into().ok()?)),
            4 => Self::Presence(user()?),
            5 => Self::Lobby(
                text().and_then(|t| LobbyName::new(t).ok().filter(|l| l.as_str() == t))?,
            ),
            _ => return None,
        })
    }
}

/// How a transport should treat a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Class {
    /// Stored for subscribers that are away, acknowledged by the broker where it can.
    Durable,
    /// Worth nothing later: dropped under pressure, never stored.
    Ephemeral,
}

fn hex(bytes: &[u8]) -> String {
    let digit = |v: u8| char::from(b"0123456789abcdef"[usize::from(v)]);
    let mut text = String::with_capacity(2 * bytes.len());
    for b in bytes {
        text.push(digit(b >> 4));
        text.push(digit(b & 15));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_round_trip_and_do_not_collide() {
        let user = UserId::new("a/+").unwrap();
        let all = [
            Channel::Inbox(user.clone()),
            Channel::Presence(user),
            Channel::Conv(TopicId([1; 16])),
            Channel::Group(GroupId([1; 32])),
            Channel::Lobby(LobbyName::new("a/+").unwrap()),
        ];
        for (i, a) in all.iter().enumerate() {
            let mut bytes = Vec::new();
            a.signed_bytes(&mut bytes);
            assert_eq!(Channel::from_signed_bytes(&bytes).as_ref(), Some(a));
            bytes.push(0);
            assert_eq!(Channel::from_signed_bytes(&bytes), None);
            for b in &all[i + 1..] {
                assert_ne!(a.path(), b.path());
            }
        }
    }
}
