//! What chats and rooms have in common: messages.

use chat_core::content::Content;
use chat_core::delivery::{Ack, SortKey, Unsendable};
use chat_core::id::{ConvId, MessageId, TxnId};

use super::{Client, ClientError, Failed, SendError, TimelineBuilder};
use crate::driver::Follower;

/// A conversation: of two ([`Chat`](super::Chat)) or a group ([`Room`](super::Room)).
#[derive(Clone, Debug)]
pub struct Conversation {
    client: Client,
    conv: ConvId,
}

impl Conversation {
    pub(super) fn new(client: Client, conv: ConvId) -> Self {
        Self { client, conv }
    }

    /// The client it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its id.
    pub fn id(&self) -> ConvId {
        self.conv
    }

    /// Sends a message; returns once it is durable here: from then on it arrives, or ends in a
    /// named state, also across restarts.
    ///
    /// # Errors
    /// [`SendError`] hands the content back when it was refused.
    ///
    /// # Cancel safety
    /// The message may or may not have been taken. To try again without sending twice, use
    /// [`Self::send_with`].
    pub async fn send(&self, content: impl Into<Content> + Send) -> Result<Sent, SendError> {
        self.send_with(self.client.txn(), content).await
    }

    /// As [`Self::send`], under the caller's own id: the same id with the same content again gives
    /// the same message.
    ///
    /// # Errors
    /// [`SendError`] hands the content back when it was refused.
    ///
    /// # Cancel safety
    /// The message may or may not have been taken; sending again with the same id takes it once.
    pub async fn send_with(
        &self,
        txn: TxnId,
        content: impl Into<Content> + Send,
    ) -> Result<Sent, SendError> {
        let (conv, content) = (self.conv, content.into());
        let (id, progress) = self
            .client
            .attempt(move |desk, now| {
                let id = desk.endpoint.send(conv, txn, content, now)?;
                Ok((id, desk.board.follow(id)))
            })
            .await?;
        Ok(Sent {
            client: self.client.clone(),
            id,
            progress,
        })
    }

    /// The user types, or stopped.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn typing(&self, active: bool) -> Result<(), ClientError> {
        let conv = self.conv;
        self.client
            .ask(move |desk, now| desk.endpoint.set_typing(conv, active, now))
            .await
    }

    /// The user has seen everything up to `up_to`; moves forward only.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn mark_read(&self, up_to: SortKey) -> Result<(), ClientError> {
        let conv = self.conv;
        self.client
            .change(move |desk, now| desk.endpoint.mark_read(conv, up_to, now))
            .await
    }

    /// The application is done with everything up to `pos` of this conversation's inbox: it is not
    /// told again after a restart. Only needed with manual acknowledgement.
    pub fn acknowledge(&self, pos: u64) {
        self.client.0.done.post(self.conv, pos);
    }

    /// The application is done with this place of the inbox; what lies before it may be open.
    pub(super) fn acknowledge_only(&self, pos: u64) {
        self.client.0.done.post_only(self.conv, pos);
    }

    /// The first message of ours that the broker will never take as it is, and why: those behind
    /// it wait until it is retried or cancelled, or expires (Q2). `Event::Delivery` tells it as
    /// `Wedged`.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wedged(&self) -> Result<Option<(MessageId, Unsendable)>, ClientError> {
        let conv = self.conv;
        self.client
            .ask(move |desk, _| desk.endpoint.wedged(conv))
            .await
    }

    /// Sends a wedged message again, because what was wrong is mended (Q2); false when it is not
    /// wedged. Every new connection does so too.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn retry(&self, id: MessageId) -> Result<bool, ClientError> {
        self.client
            .change(move |desk, now| desk.endpoint.retry_send(&id, now))
            .await
    }

    /// Takes a message of ours back if it never left (Q3), or gives it up if it is wedged, so that
    /// those behind it go on (Q2); false when it is too late.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; `Event::Delivery` tells it as `Failed`.
    pub async fn cancel(&self, id: MessageId) -> Result<bool, ClientError> {
        self.client
            .change(move |desk, now| desk.endpoint.cancel_send(&id, now))
            .await
    }

    /// History and live messages, in display order.
    pub fn timeline(&self) -> TimelineBuilder {
        TimelineBuilder::new(self.clone())
    }
}

/// A message of ours that is durable.
#[derive(Clone, Debug)]
pub struct Sent {
    client: Client,
    id: MessageId,
    progress: Follower,
}

impl Sent {
    /// Its id.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// How far it got, as known now.
    pub fn ack(&self) -> Ack {
        self.progress.progress().ack
    }

    /// Waits until it got as far as `ack`. `Displayed` may never come: people may not share what
    /// they read. While it is wedged, or one before it is, nothing comes either (Q2).
    ///
    /// # Errors
    /// [`Failed`] when it will not get there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until(&self, ack: Ack) -> Result<(), Failed> {
        let Some(reached) = self.progress.until(ack).await else {
            return Err(self.client.fate().into());
        };
        match &reached.failed {
            Some(why) if reached.ack < ack => Err(Failed::Message(why.clone())),
            _ => Ok(()),
        }
    }

    /// Takes it back if it never left or is wedged; false when it is too late.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; [`Self::until`] tells.
    pub async fn cancel(&self) -> Result<bool, ClientError> {
        self.conversation().cancel(self.id).await
    }

    /// Sends it again when it is wedged; see [`Conversation::retry`].
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn retry(&self) -> Result<bool, ClientError> {
        self.conversation().retry(self.id).await
    }

    fn conversation(&self) -> Conversation {
        Conversation::new(self.client.clone(), self.id.stream.conv)
    }
}
