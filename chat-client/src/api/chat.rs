//! Chats of two: asking, answering, and the open chat.

use core::future::{Future, IntoFuture};
use core::ops::Deref;
use core::pin::Pin;

use chat_core::id::{ConvId, IdError, InviteId, UserId};
use chat_core::session::{AnswerError, CloseReason, Rejection, RequestError, SessionState};
use tokio::sync::oneshot;

use super::client::WeakClient;
use super::{AnswerFailed, Client, ClientError, Conversation, IntoUser, RequestFailed};

/// A chat request that is being made. Await it for the [`Chat`], or [`send`](Self::send) it to
/// hold the request in hand.
#[derive(Debug)]
#[must_use = "a request is made when it is awaited or sent"]
pub struct Request {
    client: Client,
    peer: Result<UserId, IdError>,
    note: String,
}

impl Request {
    /// What the peer reads with the request.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }

    /// Makes the request; returns once it is durable. When one to this peer is under way, or the
    /// chat is open, this attaches to it.
    ///
    /// # Errors
    /// [`RequestFailed`] when the request cannot be made.
    ///
    /// # Cancel safety
    /// The request may or may not have been made; making it again attaches to it.
    pub async fn send(self) -> Result<PendingChat, RequestFailed> {
        let Self { client, peer, note } = self;
        let peer = peer?;
        let (waiter, outcome) = oneshot::channel();
        let asked = peer.clone();
        let me = client.user().clone();
        let made = client.change(move |desk, now| {
            let invite = match desk.endpoint.request(&asked, &note, now) {
                Ok(invite) | Err(RequestError::AlreadyAsked { invite }) => Some(invite),
                Err(RequestError::AlreadyOpen) => None,
                Err(why) => return Err(why),
            };
            match (desk.endpoint.session(&asked), invite) {
                (SessionState::Active { invite, .. }, _) => {
                    // The receiver is the caller's; it may have been dropped.
                    waiter.send(Ok(ConvId::between(&me, &asked))).ok();
                    Ok(invite)
                }
                (_, Some(invite)) => {
                    desk.board.await_chat(asked, waiter);
                    Ok(invite)
                }
                (_, None) => Err(RequestError::AlreadyOpen),
            }
        });
        let invite = made.await?.map_err(RequestFailed::Refused)?;
        Ok(PendingChat {
            client,
            peer,
            invite,
            outcome,
        })
    }
}

impl IntoFuture for Request {
    type Output = Result<Chat, RequestFailed>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send().await?.accepted().await })
    }
}

/// A chat request of ours that waits for its answer. Dropping it does not take it back.
#[derive(Debug)]
pub struct PendingChat {
    client: Client,
    peer: UserId,
    invite: InviteId,
    outcome: oneshot::Receiver<Result<ConvId, CloseReason>>,
}

impl PendingChat {
    /// The request.
    pub fn invite(&self) -> InviteId {
        self.invite
    }

    /// Whom we asked.
    pub fn peer(&self) -> &UserId {
        &self.peer
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`RequestFailed`] when there will be no chat.
    ///
    /// # Cancel safety
    /// The request stands; [`Client::request`] attaches to it again.
    pub async fn accepted(self) -> Result<Chat, RequestFailed> {
        match self.outcome.await {
            Ok(Ok(conv)) => Ok(Chat::new(self.client, self.peer, conv)),
            Ok(Err(why)) => Err(why.into()),
            Err(_) => Err(self.client.fate().into()),
        }
    }

    /// Takes the request back.
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it was answered meanwhile.
    ///
    /// # Cancel safety
    /// The request may or may not have been taken back.
    pub async fn cancel(self) -> Result<(), AnswerFailed> {
        let invite = self.invite;
        self.client
            .attempt(move |desk, now| desk.endpoint.cancel(invite, now))
            .await
    }
}

/// A peer asks to chat. It stands until it is answered, withdrawn or expires; after a restart it
/// is told again.
#[derive(Clone, Debug)]
pub struct IncomingRequest {
    client: WeakClient,
    peer: UserId,
    note: String,
    invite: InviteId,
}

impl IncomingRequest {
    pub(super) fn new(client: WeakClient, peer: UserId, note: String, invite: InviteId) -> Self {
        Self {
            client,
            peer,
            note,
            invite,
        }
    }

    /// Who asks.
    pub fn peer(&self) -> &UserId {
        &self.peer
    }

    /// In their words.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The request.
    pub fn invite(&self) -> InviteId {
        self.invite
    }

    /// Says yes; returns once that is durable.
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it no longer stands.
    ///
    /// # Cancel safety
    /// The yes may or may not have been said; [`Client::chat`] tells.
    pub async fn accept(&self) -> Result<Chat, AnswerFailed> {
        let client = self.client.upgrade()?;
        let invite = self.invite;
        let conv = client
            .attempt(move |desk, now| desk.endpoint.accept(invite, now))
            .await?;
        Ok(Chat::new(client, self.peer.clone(), conv))
    }

    /// Says no, silently or with a reason.
    ///
    /// # Errors
    /// [`AnswerError`].
    ///
    /// # Cancel safety
    /// The no may or may not have been said; saying it again is refused as `NoSuchInvite` then.
    pub async fn reject(&self, how: Rejection) -> Result<(), AnswerFailed> {
        let client = self.client.upgrade()?;
        let invite = self.invite;
        client
            .attempt(move |desk, now| desk.endpoint.reject(invite, &how, now))
            .await
    }
}

/// An open chat of two: a [`Conversation`] with a peer.
#[derive(Clone, Debug)]
pub struct Chat {
    conversation: Conversation,
    peer: UserId,
}

impl Chat {
    fn new(client: Client, peer: UserId, conv: ConvId) -> Self {
        Self {
            conversation: Conversation::new(client, conv),
            peer,
        }
    }

    /// The other person.
    pub fn peer(&self) -> &UserId {
        &self.peer
    }

    /// Leaves the chat; messages that were not acknowledged fail as `Gone`.
    ///
    /// # Errors
    /// [`AnswerError`].
    ///
    /// # Cancel safety
    /// The chat may or may not have been left; leaving again is refused as `NoSession` then.
    pub async fn close(&self, reason: &str) -> Result<(), AnswerFailed> {
        let (peer, reason) = (self.peer.clone(), reason.to_owned());
        self.client()
            .attempt(move |desk, now| -> Result<(), AnswerError> {
                desk.endpoint.close_session(&peer, &reason, now)
            })
            .await
    }
}

impl Deref for Chat {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl Client {
    /// Asks `peer` to chat: await it for the open [`Chat`].
    pub fn request(&self, peer: impl IntoUser) -> Request {
        Request {
            client: self.clone(),
            peer: peer.into_user(),
            note: String::new(),
        }
    }

    /// The open chat with `peer`, if there is one.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn chat(&self, peer: &UserId) -> Result<Option<Chat>, ClientError> {
        let state = self.session(peer).await?;
        let open = matches!(state, SessionState::Active { .. });
        let conv = ConvId::between(self.user(), peer);
        Ok(open.then(|| Chat::new(self.clone(), peer.clone(), conv)))
    }
}
