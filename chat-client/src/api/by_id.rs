//! Handles for those who keep ids: a program that shows many conversations, or answers requests
//! that it stored.

use core::time::Duration;

use chat_core::delivery::{SortKey, TimelineItem};
use chat_core::hlc::Hlc;
use chat_core::id::{ConvId, DeviceId, Epoch, GroupId, InviteId};
use chat_core::link::LinkState;
use chat_core::session::Rejection;

use super::{AnswerFailed, Client, ClientError, Conversation, Room, TimelineError};

impl Client {
    /// The conversation `conv`, open or not: its history can be read, sending to one that is not
    /// open is refused.
    pub fn conversation(&self, conv: ConvId) -> Conversation {
        Conversation::new(self.clone(), conv)
    }

    /// The group `group`, whatever our standing there; commands are refused where it does not
    /// allow them.
    pub fn room(&self, group: GroupId) -> Room {
        Room::new(self.clone(), group)
    }

    /// Says yes to a standing request; returns once that is durable.
    ///
    /// # Errors
    /// `NoSuchInvite` when it no longer stands.
    ///
    /// # Cancel safety
    /// The yes may or may not have been said; [`Client::chat`] tells.
    pub async fn accept(&self, invite: InviteId) -> Result<ConvId, AnswerFailed> {
        self.attempt(move |desk, now| desk.endpoint.accept(invite, now))
            .await
    }

    /// Says no to a standing request.
    ///
    /// # Errors
    /// `NoSuchInvite` when it no longer stands.
    ///
    /// # Cancel safety
    /// The no may or may not have been said; saying it again is refused as `NoSuchInvite` then.
    pub async fn reject(&self, invite: InviteId, how: Rejection) -> Result<(), AnswerFailed> {
        self.attempt(move |desk, now| desk.endpoint.reject(invite, &how, now))
            .await
    }

    /// Takes a request of ours back.
    ///
    /// # Errors
    /// `NoSuchInvite` when it was answered meanwhile.
    ///
    /// # Cancel safety
    /// The request may or may not have been taken back.
    pub async fn cancel(&self, invite: InviteId) -> Result<(), AnswerFailed> {
        self.attempt(move |desk, now| desk.endpoint.cancel(invite, now))
            .await
    }

    /// How long until the next attempt to connect; `None` unless it is disconnected.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn retry_in(&self) -> Result<Option<Duration>, ClientError> {
        self.ask(|desk, now| match desk.endpoint.link() {
            LinkState::Disconnected { retry_at, .. } => Some(retry_at.saturating_since(now)),
            _ => None,
        })
        .await
    }
}

impl Conversation {
    /// The newest `limit` items, in display order.
    ///
    /// # Errors
    /// [`TimelineError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn latest(&self, limit: usize) -> Result<Vec<TimelineItem>, TimelineError> {
        let end = SortKey {
            hlc: Hlc(u64::MAX),
            device: DeviceId([u8::MAX; 32]),
            epoch: Epoch(u64::MAX),
            seq: u64::MAX,
        };
        self.page_before(end, limit).await
    }

    /// Up to where the user has read here; `None` when nothing was marked.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn last_read(&self) -> Result<Option<SortKey>, ClientError> {
        let conv = self.id();
        self.client()
            .ask(move |desk, _| desk.endpoint.last_read(conv))
            .await
    }
}
