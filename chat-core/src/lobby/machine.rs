//! The lobby machine: questions, answers, and the cards seen in each lobby.

use core::time::Duration;
use std::collections::BTreeMap;

use super::{GroupListing, LobbyEvent};
use crate::channel::Channel;
use crate::deadline::DeadlineIndex;
use crate::effect::{Effects, Outgoing};
use crate::id::{GroupId, GroupName, LobbyName, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use crate::wire::BoundedStr;
use crate::wire::presence::{GroupCard, Seek};

/// Groups listed per lobby. At the bound a new card takes the place of the one that lapses first
/// when that one missed a renewal, else it is not taken in.
const MAX_LISTINGS: usize = 1_024;
/// Groups listed per lobby and leader, so that one person cannot fill a lobby; more are not taken
/// in.
const MAX_PER_LEADER: usize = 64;
/// A card that is not renewed for this long lapses.
const LAPSE: Duration = Duration::from_secs(600);
/// A leader renews its cards this often.
const RENEW: Duration = Duration::from_secs(120);
/// Without a renewal for this long a card may be displaced: two renewals and their delay.
const STALE: Duration = Duration::from_secs(250);
/// Changes of our cards are told at most this often.
const DEBOUNCE: Duration = Duration::from_secs(2);
/// The longest random delay before a question is answered.
const ANSWER_SPREAD: Duration = Duration::from_millis(500);

/// A group seen in a lobby. A withdrawn one is remembered until it lapses, so that an older card
/// does not bring it back.
#[derive(Clone, Debug)]
struct Seen {
    listing: GroupListing,
    index: u64,
    withdrawn: bool,
}

/// A group of ours, shown in every lobby.
#[derive(Clone, Debug)]
struct Shown {
    listing: GroupListing,
    index: u64,
}

#[derive(Debug)]
struct Lobby {
    groups: BTreeMap<GroupId, Seen>,
    lapses: DeadlineIndex<GroupId>,
    /// When our cards go out next, and when they went out last.
    show_at: Option<Timestamp>,
    shown_at: Option<Timestamp>,
}

impl Lobby {
    fn new(rng: &Rng) -> Self {
        Self {
            groups: BTreeMap::new(),
            lapses: DeadlineIndex::new(rng),
            show_at: None,
            shown_at: None,
        }
    }

    /// Makes our cards go out at `at`, or earlier where they would anyway.
    fn show_by(&mut self, at: Timestamp) {
        self.show_at = Some(self.show_at.map_or(at, |before| before.min(at)));
    }

    fn led_by(&self, leader: &UserId) -> usize {
        let led = self.groups.values();
        led.filter(|seen| seen.listing.leader == *leader).count()
    }
}

/// The lobbies we are in: as many as the application enters. Our own shown groups are as many as
/// we lead.
#[derive(Debug)]
pub struct Lobbies {
    rng: Rng,
    up: bool,
    lobbies: BTreeMap<LobbyName, Lobby>,
    shown: BTreeMap<GroupId, Shown>,
    effects: Effects<LobbyEvent>,
}

impl Lobbies {
    /// In none.
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            up: false,
            lobbies: BTreeMap::new(),
            shown: BTreeMap::new(),
            effects: Effects::default(),
        }
    }

    /// Enters: asks who is here at the next connection or now.
    pub fn enter(&mut self, lobby: LobbyName, now: Now) {
        if self.lobbies.contains_key(&lobby) {
            return;
        }
        self.lobbies.insert(lobby.clone(), Lobby::new(&self.rng));
        if self.up {
            self.seek(&lobby);
            self.show_in(&lobby, now);
        }
    }

    /// Leaves; what it showed is told as unlisted.
    pub fn exit(&mut self, lobby: &LobbyName, _now: Now) {
        if let Some(left) = self.lobbies.remove(lobby) {
            let listed = left.groups.into_iter().filter(|(_, seen)| !seen.withdrawn);
            for (group, _) in listed {
                self.effects.emit(LobbyEvent::GroupUnlisted {
                    lobby: lobby.clone(),
                    group,
                });
            }
        }
    }

    /// Our own groups that we lead, to be shown in every lobby; replaces the card of that group
    /// when `index` is greater.
    pub fn show(&mut self, listing: GroupListing, index: u64, now: Now) {
        let group = listing.group;
        if let Some(shown) = self.shown.get(&group)
            && index <= shown.index
        {
            return;
        }
        self.shown.insert(group, Shown { listing, index });
        self.changed(now);
    }

    /// Shows `group` no longer; `withdraw` also tells the others (it is closed). While we are cut
    /// off they cannot be told, and the card lapses there.
    pub fn hide(&mut self, group: GroupId, withdraw: bool, _now: Now) {
        let Some(shown) = self.shown.remove(&group) else {
            return;
        };
        if withdraw && self.up {
            for lobby in self.lobbies.keys() {
                let card = card(&shown, true);
                self.effects
                    .send(Outgoing::ephemeral(Channel::Lobby(lobby.clone()), card));
            }
        }
    }

    /// Connected (again): ask who is here. Cards seen earlier get their full time again.
    pub fn handle_up(&mut self, now: Now) {
        self.up = true;
        let names: Vec<LobbyName> = self.lobbies.keys().cloned().collect();
        for name in names {
            self.seek(&name);
            let delay = self.rng.jitter(ANSWER_SPREAD);
            if let Some(lobby) = self.lobbies.get_mut(&name) {
                for group in lobby.groups.keys() {
                    lobby.lapses.set(*group, now.mono + LAPSE);
                }
                lobby.show_by(now.mono + delay);
            }
        }
    }

    /// Disconnected. Nothing lapses while we cannot hear of it.
    pub fn handle_down(&mut self, _now: Now) {
        self.up = false;
        for lobby in self.lobbies.values_mut() {
            lobby.lapses.clear();
            lobby.show_at = None;
            lobby.shown_at = None;
        }
    }

    /// Somebody asks.
    pub fn handle_seek(&mut self, lobby: &LobbyName, seek: &Seek, now: Now) {
        if !self.up || !seek.groups || self.shown.is_empty() {
            return;
        }
        let delay = self.rng.jitter(ANSWER_SPREAD);
        if let Some(lobby) = self.lobbies.get_mut(lobby) {
            let earliest = lobby.shown_at.map_or(now.mono, |at| at + DEBOUNCE);
            lobby.show_by((now.mono + delay).max(earliest));
        }
    }

    /// A group's card. Dropped unless it comes from the leader that it names and its names are
    /// names.
    pub fn handle_card(&mut self, lobby: &LobbyName, from: &Sender, card: &GroupCard, now: Now) {
        let named = UserId::new(&card.leader).is_ok_and(|leader| leader == from.user);
        if !named && !planted("lobby-card-from-anybody") {
            mark("lobby-card-not-from-leader");
            return;
        }
        let Ok(name) = GroupName::new(&card.name) else {
            return;
        };
        let group = GroupId(card.group);
        let Some(place) = self.lobbies.get_mut(lobby) else {
            return;
        };
        let listing = GroupListing::new(group, name, from.user.clone(), card.members);
        let before = place.groups.get(&group);
        if let Some(seen) = before {
            let renews = seen.index == card.index
                && seen.withdrawn == card.withdrawn
                && seen.listing == listing;
            // A withdrawal is final for its index; two cards of one index say the same.
            let wins = card.index > seen.index
                || (card.index == seen.index && card.withdrawn && !seen.withdrawn);
            if renews && !seen.withdrawn {
                if self.up {
                    place.lapses.set(group, now.mono + LAPSE);
                }
                return;
            }
            if !wins && !planted("lobby-old-card-wins") {
                mark("lobby-old-card");
                return;
            }
        } else if place.led_by(&from.user) >= MAX_PER_LEADER
            || (place.groups.len() >= MAX_LISTINGS && !self.displace(lobby, now))
        {
            mark("lobby-full");
            return;
        }
        let Some(place) = self.lobbies.get_mut(lobby) else {
            return;
        };
        let seen = Seen {
            listing: listing.clone(),
            index: card.index,
            withdrawn: card.withdrawn,
        };
        let before = place.groups.insert(group, seen);
        if self.up {
            place.lapses.set(group, now.mono + LAPSE);
        }
        let listed = before.filter(|seen| !seen.withdrawn);
        let lobby = lobby.clone();
        match (listed, card.withdrawn) {
            (Some(_), true) => self
                .effects
                .emit(LobbyEvent::GroupUnlisted { lobby, group }),
            (Some(seen), false) if seen.listing == listing => {}
            (_, false) => self
                .effects
                .emit(LobbyEvent::GroupListed { lobby, listing }),
            (None, true) => {}
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let names: Vec<LobbyName> = self.lobbies.keys().cloned().collect();
        for name in names {
            self.lapse(&name, now);
            let due = self.lobbies.get(&name).and_then(|lobby| lobby.show_at);
            if due.is_some_and(|at| at <= now.mono) {
                self.show_in(&name, now);
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.lobbies
            .values()
            .flat_map(|lobby| [lobby.show_at, lobby.lapses.earliest()])
            .flatten()
            .min()
    }

    /// The lobbies we are in.
    pub fn iter(&self) -> impl Iterator<Item = &LobbyName> {
        self.lobbies.keys()
    }

    /// The channels of the lobbies we are in.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        self.lobbies.keys().cloned().map(Channel::Lobby)
    }

    /// The groups shown in `lobby`.
    pub fn groups(&self, lobby: &LobbyName) -> Vec<GroupListing> {
        let seen = self.lobbies.get(lobby).into_iter();
        seen.flat_map(|lobby| lobby.groups.values())
            .filter(|seen| !seen.withdrawn)
            .map(|seen| seen.listing.clone())
            .collect()
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<LobbyEvent> {
        &mut self.effects
    }

    fn seek(&mut self, lobby: &LobbyName) {
        let seek = Seek {
            people: true,
            groups: true,
        };
        self.effects
            .send(Outgoing::ephemeral(Channel::Lobby(lobby.clone()), seek));
    }

    /// Our cards changed: tell every lobby, at most once per debounce.
    fn changed(&mut self, now: Now) {
        if !self.up {
            return;
        }
        let names: Vec<LobbyName> = self.lobbies.keys().cloned().collect();
        for name in names {
            let Some(lobby) = self.lobbies.get_mut(&name) else {
                continue;
            };
            match lobby.shown_at {
                Some(at) if at + DEBOUNCE > now.mono => lobby.show_by(at + DEBOUNCE),
                _ => self.show_in(&name, now),
            }
        }
    }

    fn show_in(&mut self, name: &LobbyName, now: Now) {
        let Some(lobby) = self.lobbies.get_mut(name) else {
            return;
        };
        lobby.show_at = None;
        if self.shown.is_empty() {
            return;
        }
        lobby.shown_at = Some(now.mono);
        lobby.show_at = Some(now.mono + RENEW);
        for shown in self.shown.values() {
            self.effects.send(
                Outgoing::ephemeral(Channel::Lobby(name.clone()), card(shown, false))
                    .with_ttl(LAPSE),
            );
        }
    }

    fn lapse(&mut self, name: &LobbyName, now: Now) {
        let Some(lobby) = self.lobbies.get_mut(name) else {
            return;
        };
        while let Some(group) = lobby.lapses.pop_due(now.mono) {
            let seen = lobby.groups.remove(&group);
            if seen.is_some_and(|seen| !seen.withdrawn) {
                mark("lobby-card-lapsed");
                self.effects.emit(LobbyEvent::GroupUnlisted {
                    lobby: name.clone(),
                    group,
                });
            }
        }
    }

    /// At the bound: drops the card that lapses first if it missed a renewal.
    fn displace(&mut self, name: &LobbyName, now: Now) -> bool {
        let Some(lobby) = self.lobbies.get_mut(name) else {
            return false;
        };
        // Looking as far ahead as a renewed card would last finds those that were not renewed.
        let Some(group) = lobby.lapses.pop_due(now.mono + (LAPSE - STALE)) else {
            return false;
        };
        if lobby
            .groups
            .remove(&group)
            .is_some_and(|seen| !seen.withdrawn)
        {
            self.effects.emit(LobbyEvent::GroupUnlisted {
                lobby: name.clone(),
                group,
            });
        }
        true
    }
}

fn card(shown: &Shown, withdrawn: bool) -> GroupCard {
    GroupCard {
        group: shown.listing.group.0,
        name: BoundedStr::truncated(shown.listing.name.as_str()),
        leader: BoundedStr::truncated(shown.listing.leader.as_str()),
        members: shown.listing.members,
        index: shown.index,
        withdrawn,
    }
}
