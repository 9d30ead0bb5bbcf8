//! Answers to questions; nothing here changes anything.

use super::{Endpoint, Stats};
use crate::delivery::{SortKey, Unsendable};
use crate::group::GroupView;
use crate::id::{ConvId, DeviceId, Epoch, GroupId, LobbyName, MessageId, UserId};
use crate::link::LinkState;
use crate::lobby::GroupListing;
use crate::presence::{PresenceView, RoomPresence};
use crate::session::SessionState;

impl Endpoint {
    /// Whose endpoint it is.
    pub fn user(&self) -> &UserId {
        &self.me.user
    }

    /// Which device.
    pub fn device(&self) -> DeviceId {
        self.me.device
    }

    /// The epoch of this life.
    pub fn epoch(&self) -> Epoch {
        self.delivery.epoch()
    }

    /// The connection.
    pub fn link(&self) -> &LinkState {
        self.link.state()
    }

    /// Where the negotiation with `peer` stands.
    pub fn session(&self, peer: &UserId) -> SessionState {
        self.sessions.state(peer)
    }

    /// Every peer with something other than `Idle`.
    pub fn sessions(&self) -> Vec<(UserId, SessionState)> {
        self.sessions
            .iter()
            .map(|(peer, state)| (peer.clone(), state))
            .collect()
    }

    /// The peer of an open 1:1 conversation.
    pub fn peer_of(&self, conv: ConvId) -> Option<&UserId> {
        self.topics.get(&conv).map(|topic| &topic.peer)
    }

    /// How far our user has read `conv`.
    pub fn last_read(&self, conv: ConvId) -> Option<SortKey> {
        self.delivery.last_read(conv)
    }

    /// The first message of `conv` that the broker will never take as it is, and why: those behind
    /// it wait until it is retried or cancelled (Q2).
    pub fn wedged(&self, conv: ConvId) -> Option<(MessageId, Unsendable)> {
        self.delivery.wedged(conv)
    }

    /// How `group` looks.
    pub fn group(&self, group: GroupId) -> Option<GroupView> {
        self.groups.view(group)
    }

    /// Who of `group` is here; `None` unless it is [watched](Self::watch_group) and we are in it.
    pub fn room_presence(&self, group: GroupId) -> Option<RoomPresence> {
        self.company.view(group, &self.presence)
    }

    /// Every group known here.
    pub fn groups(&self) -> Vec<GroupId> {
        self.groups.iter().collect()
    }

    /// How `user` looks.
    pub fn presence(&self, user: &UserId) -> Option<PresenceView> {
        self.presence.view(user)
    }

    /// Everybody known.
    pub fn people(&self) -> Vec<(UserId, PresenceView)> {
        self.presence
            .iter()
            .map(|(user, view)| (user.clone(), view))
            .collect()
    }

    /// The groups shown in `lobby`.
    pub fn listings(&self, lobby: &LobbyName) -> Vec<GroupListing> {
        self.lobbies.groups(lobby)
    }

    /// The trusted devices of `user`.
    pub fn devices(&self, user: &UserId) -> Vec<DeviceId> {
        self.pins.devices(user)
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let (outbox, outbox_bytes) = self.delivery.outbox_size();
        Stats {
            outbox: outbox as u64,
            outbox_bytes: outbox_bytes as u64,
            ..self.stats
        }
    }
}
