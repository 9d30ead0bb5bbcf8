//! Lobbies: how strangers find people and groups. People show themselves with presence records,
//! groups with cards that their leader publishes.
//!
//! Guarantees: a card counts only from the leader that it names; per group the greater log index
//! wins, whatever order cards arrive in; a card that is not renewed lapses by our own clock, but
//! not while we are cut off; a question asked by many is answered once.

mod machine;
#[cfg(test)]
mod tests;

use crate::id::{GroupId, GroupName, LobbyName, UserId};

pub use machine::Lobbies;

/// A group as shown in a lobby.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupListing {
    /// The group; ask to join with it.
    pub group: GroupId,
    /// Its name.
    pub name: GroupName,
    /// Who leads it.
    pub leader: UserId,
    /// How many members it has.
    pub members: u32,
}

impl GroupListing {
    /// A listing.
    pub fn new(group: GroupId, name: GroupName, leader: UserId, members: u32) -> Self {
        Self {
            group,
            name,
            leader,
            members,
        }
    }
}

/// What a lobby shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LobbyEvent {
    /// A group is shown, or its card changed.
    GroupListed {
        /// Where.
        lobby: LobbyName,
        /// It.
        listing: GroupListing,
    },
    /// A group is shown no longer.
    GroupUnlisted {
        /// Where.
        lobby: LobbyName,
        /// It.
        group: GroupId,
    },
}
