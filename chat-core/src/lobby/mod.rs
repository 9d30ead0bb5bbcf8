//! Lobbies: how strangers find people and groups. People show themselves with presence records,
//! groups with cards that their leader publishes.

use crate::channel::Channel;
use crate::effect::Effects;
use crate::id::{GroupId, GroupName, LobbyName, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use crate::wire;

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

/// The lobbies we are in.
#[derive(Debug)]
pub struct Lobbies {}

impl Lobbies {
    /// In none.
    pub fn new(_rng: Rng) -> Self {
        unimplemented!()
    }

    /// Enters: asks who is here at the next connection or now.
    pub fn enter(&mut self, _lobby: LobbyName, _now: Now) {
        unimplemented!()
    }

    /// Leaves.
    pub fn exit(&mut self, _lobby: &LobbyName, _now: Now) {
        unimplemented!()
    }

    /// Our own groups that we lead, to be shown in every lobby; replaces the card of that group
    /// when `index` is greater.
    pub fn show(&mut self, _listing: GroupListing, _index: u64, _now: Now) {
        unimplemented!()
    }

    /// Shows `group` no longer; `withdraw` also tells the others (it is closed).
    pub fn hide(&mut self, _group: GroupId, _withdraw: bool, _now: Now) {
        unimplemented!()
    }

    /// Connected (again): ask who is here.
    pub fn handle_up(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Disconnected.
    pub fn handle_down(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Somebody asks.
    pub fn handle_seek(&mut self, _lobby: &LobbyName, _seek: &wire::presence::Seek, _now: Now) {
        unimplemented!()
    }

    /// A group's card.
    pub fn handle_card(
        &mut self,
        _lobby: &LobbyName,
        _from: &Sender,
        _card: &wire::presence::GroupCard,
        _now: Now,
    ) {
        unimplemented!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, _now: Now) {
        unimplemented!()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        unimplemented!()
    }

    /// The lobbies we are in.
    pub fn iter(&self) -> impl Iterator<Item = &LobbyName> {
        core::iter::empty()
    }

    /// The channels of the lobbies we are in.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        core::iter::empty()
    }

    /// The groups shown in `lobby`.
    pub fn groups(&self, _lobby: &LobbyName) -> Vec<GroupListing> {
        unimplemented!()
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<LobbyEvent> {
        unimplemented!()
    }
}
