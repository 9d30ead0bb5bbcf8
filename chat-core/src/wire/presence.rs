//! Frames of presence and of the lobby (rules P1–P14, reliability section 3).

use serde::{Deserialize, Serialize};

use super::{BoundedStr, BoundedVec};

/// Members that one word about a group names.
pub const MAX_SAMPLE: usize = 16;

/// One device's own account of itself. Ordered by (`incarnation`, `conn`, `seq`): the greater
/// wins (P2). A last will carries `seq = u64::MAX` of its own connection, and so does a goodbye,
/// which wins against the will of that connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The delivery epoch of the process (P2).
    pub incarnation: u64,
    /// Which connection of that process.
    pub conn: u64,
    /// Grows with each record of that connection.
    pub seq: u64,
    /// 1 active, 2 idle, 3 away, 4 do not disturb, 5 left, 6 lost (a will); unknown reads as active.
    pub status: u8,
    /// Status text.
    pub text: BoundedStr<256>,
    /// How much longer the text holds, in ms; `None`: as long as it stands here (P1).
    pub text_ttl_ms: Option<u64>,
    /// How long this holds without another frame (P3).
    pub ttl_ms: u64,
    /// Whole minutes since the user's last activity; `None` where that is not shared (P9).
    pub idle_min: Option<u32>,
}

/// The leader of a large group says how many of its users are how (P11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Company {
    /// The group.
    pub group: [u8; 32],
    /// How many users are in.
    pub members: u32,
    /// How many of them are active.
    pub active: u32,
    /// Idle.
    pub idle: u32,
    /// Away.
    pub away: u32,
    /// Not to be disturbed.
    pub do_not_disturb: u32,
    /// Said goodbye.
    pub left: u32,
    /// Fell silent.
    pub lost: u32,
    /// Not known.
    pub unknown: u32,
    /// Some that changed: name and 0 unknown, 1 active, 2 idle, 3 away, 4 do not disturb, 5 left,
    /// 6 lost; an unknown code is not shown.
    pub sample: BoundedVec<(BoundedStr<256>, u8), MAX_SAMPLE>,
}

/// "Who is here?": members of a lobby answer after a random delay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seek {
    /// Ask people to show their presence.
    pub people: bool,
    /// Ask leaders to show their groups.
    pub groups: bool,
}

/// A group shows itself to a lobby.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCard {
    /// The group.
    pub group: [u8; 32],
    /// Its name.
    pub name: BoundedStr<256>,
    /// Who leads it.
    pub leader: BoundedStr<256>,
    /// How many members it has.
    pub members: u32,
    /// The log index of this card: the greater wins.
    pub index: u64,
    /// True when the group is closed (G23) or no longer shown.
    pub withdrawn: bool,
}
