//! Presence, lobbies, blocks and trust.

use core::time::Duration;

use chat_core::id::{DeviceId, IdError, LobbyName, UserId};
use chat_core::lobby::GroupListing;
use chat_core::presence::{PresenceView, Status};
use chat_core::session::SessionState;

use super::{Client, ClientError};

/// What can name a user: a [`UserId`] or a text.
pub trait IntoUser {
    /// The user.
    ///
    /// # Errors
    /// [`IdError`] when the text is no name.
    fn into_user(self) -> Result<UserId, IdError>;
}

impl IntoUser for UserId {
    fn into_user(self) -> Result<UserId, IdError> {
        Ok(self)
    }
}

impl IntoUser for &UserId {
    fn into_user(self) -> Result<UserId, IdError> {
        Ok(self.clone())
    }
}

impl IntoUser for &str {
    fn into_user(self) -> Result<UserId, IdError> {
        UserId::new(self)
    }
}

impl Client {
    /// Says how we are; `Left`, `Lost` and `Unknown` read as `Away`.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn set_presence(&self, status: Status, text: &str) -> Result<(), ClientError> {
        self.say_presence(status, text, None).await
    }

    /// Says how we are, with a text that is over after `text_ttl`, at everybody by their own clock
    /// (P1); at most 30 days.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn set_presence_for(
        &self,
        status: Status,
        text: &str,
        text_ttl: Duration,
    ) -> Result<(), ClientError> {
        self.say_presence(status, text, Some(text_ttl)).await
    }

    async fn say_presence(
        &self,
        status: Status,
        text: &str,
        text_ttl: Option<Duration>,
    ) -> Result<(), ClientError> {
        let text = text.to_owned();
        self.change(move |desk, now| desk.endpoint.set_presence(status, &text, text_ttl, now))
            .await
    }

    /// The user did something: idle time starts anew.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn touch(&self) -> Result<(), ClientError> {
        self.change(|desk, now| desk.endpoint.touch(now)).await
    }

    /// Follows `user`'s presence; peers of open chats are followed without asking.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn watch(&self, user: &UserId) -> Result<(), ClientError> {
        let user = user.clone();
        self.change(move |desk, now| desk.endpoint.watch(&user, now))
            .await
    }

    /// No longer.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn unwatch(&self, user: &UserId) -> Result<(), ClientError> {
        let user = user.clone();
        self.change(move |desk, now| desk.endpoint.unwatch(&user, now))
            .await
    }

    /// How `user` looks; `None` when nothing is known.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn presence(&self, user: &UserId) -> Result<Option<PresenceView>, ClientError> {
        let user = user.clone();
        self.ask(move |desk, _| desk.endpoint.presence(&user)).await
    }

    /// Everybody known.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn people(&self) -> Result<Vec<(UserId, PresenceView)>, ClientError> {
        self.ask(|desk, _| desk.endpoint.people()).await
    }

    /// Where the negotiation with every peer stands that has one.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn sessions(&self) -> Result<Vec<(UserId, SessionState)>, ClientError> {
        self.ask(|desk, _| desk.endpoint.sessions()).await
    }

    /// Where the negotiation with `peer` stands.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn session(&self, peer: &UserId) -> Result<SessionState, ClientError> {
        let peer = peer.clone();
        self.ask(move |desk, _| desk.endpoint.session(&peer)).await
    }

    /// Enters a lobby: shows ourselves and the groups we lead, and asks who is there.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn enter_lobby(&self, lobby: &LobbyName) -> Result<(), ClientError> {
        let lobby = lobby.clone();
        self.change(move |desk, now| desk.endpoint.enter_lobby(&lobby, now))
            .await
    }

    /// Leaves a lobby.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn exit_lobby(&self, lobby: &LobbyName) -> Result<(), ClientError> {
        let lobby = lobby.clone();
        self.change(move |desk, now| desk.endpoint.exit_lobby(&lobby, now))
            .await
    }

    /// The groups shown in `lobby`.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn listings(&self, lobby: &LobbyName) -> Result<Vec<GroupListing>, ClientError> {
        let lobby = lobby.clone();
        self.ask(move |desk, _| desk.endpoint.listings(&lobby))
            .await
    }

    /// Blocks `peer`, also before any contact; nobody is told.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn block(&self, peer: &UserId) -> Result<(), ClientError> {
        let peer = peer.clone();
        self.change(move |desk, now| desk.endpoint.block(&peer, now))
            .await
    }

    /// Lifts a block.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn unblock(&self, peer: &UserId) -> Result<(), ClientError> {
        let peer = peer.clone();
        self.change(move |desk, now| desk.endpoint.unblock(&peer, now))
            .await
    }

    /// The devices that are trusted to speak for `user`.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn devices(&self, user: &UserId) -> Result<Vec<DeviceId>, ClientError> {
        let user = user.clone();
        self.ask(move |desk, _| desk.endpoint.devices(&user)).await
    }

    /// Trusts a device that claimed to speak for `user`, after its people compared the keys.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn trust(&self, user: &UserId, device: DeviceId) -> Result<(), ClientError> {
        let user = user.clone();
        self.change(move |desk, now| desk.endpoint.trust(&user, device, now))
            .await
    }

    /// Trusts `device` for `user` no longer; see [`chat_core::Endpoint::distrust`]. False when it
    /// was not trusted.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn distrust(&self, user: &UserId, device: DeviceId) -> Result<bool, ClientError> {
        let user = user.clone();
        self.change(move |desk, now| desk.endpoint.distrust(&user, device, now))
            .await
    }
}
