//! What a page asks for. Every refusal is one sentence that says what to do next.

use chat_client::{Client, ClientError, Conversation};
use chat_core::id::{
    ConvId, DeviceId, GroupId, GroupName, IdError, InviteId, MessageId, RequestId, TxnId, UserId,
};
use chat_core::presence::Status;
use chat_core::session::Rejection;

use super::account::Account;
use super::dto::{Ask, Value};
use super::names::{hex, unhex, unmessage, unplace, uuid};
use super::show;

/// The largest page of history.
const MAX_PAGE: usize = 200;

/// Why a call was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Refusal {
    fn bad(what: &str) -> Self {
        Self {
            code: "bad_call",
            text: format!("the page sent no valid {what}; reload it"),
        }
    }
}

macro_rules! refuse {
    ($($error:ty),*) => {$(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self { code: "refused", text: error.to_string() }
            }
        }
    )*};
}
refuse!(
    ClientError,
    IdError,
    chat_client::AnswerFailed,
    chat_client::GroupFailed,
    chat_client::RequestFailed,
    chat_client::SendError,
    chat_client::TimelineError
);

fn conv(text: &str) -> Result<ConvId, Refusal> {
    unhex(text)
        .map(ConvId)
        .ok_or_else(|| Refusal::bad("conversation"))
}

fn sent(client: &Client, in_conv: &str, text: &str) -> Result<(Conversation, MessageId), Refusal> {
    let conv = conv(in_conv)?;
    let id = unmessage(conv, text).ok_or_else(|| Refusal::bad("message"))?;
    Ok((client.conversation(conv), id))
}

fn group(text: &str) -> Result<GroupId, Refusal> {
    unhex(text)
        .map(GroupId)
        .ok_or_else(|| Refusal::bad("group"))
}

fn invite(text: &str) -> Result<InviteId, Refusal> {
    unhex(text)
        .map(InviteId)
        .ok_or_else(|| Refusal::bad("request"))
}

fn join(text: &str) -> Result<RequestId, Refusal> {
    unhex(text)
        .map(RequestId)
        .ok_or_else(|| Refusal::bad("join request"))
}

impl Account {
    pub(super) async fn call(&self, ask: Ask) -> Result<Value, Refusal> {
        let client = self.client()?;
        match ask {
            // The page's own business, answered before this.
            Ask::Login { .. } | Ask::Logout => {}
            Ask::Reconnect => client.reconnect().await?,
            Ask::Request { peer, note } => {
                let pending = client.request(peer.as_str()).note(note).send().await?;
                self.tell_chat(pending.peer()).await;
                let conv = ConvId::between(self.user(), pending.peer());
                return Ok(Value::Conv {
                    conv: hex(conv.as_bytes()),
                });
            }
            Ask::Accept { invite: text } => {
                let invite = invite(&text)?;
                let chat = client.accept(invite).await?;
                self.settled(invite);
                return Ok(Value::Conv {
                    conv: hex(chat.as_bytes()),
                });
            }
            Ask::Reject {
                invite: text,
                told,
                reason,
            } => {
                let invite = invite(&text)?;
                let how = if told {
                    Rejection::Told { reason }
                } else {
                    Rejection::Silent
                };
                client.reject(invite, how).await?;
                self.settled(invite);
            }
            Ask::Cancel { invite: text } => client.cancel(invite(&text)?).await?,
            Ask::Close { peer } => {
                let peer = UserId::new(&peer)?;
                if let Some(chat) = client.chat(&peer).await? {
                    chat.close("").await?;
                }
                self.tell_chat(&peer).await;
            }
            Ask::Block { peer } => {
                let peer = UserId::new(&peer)?;
                client.block(&peer).await?;
                self.tell_chat(&peer).await;
            }
            Ask::Send {
                conv: id,
                txn,
                text,
            } => {
                let conversation = client.conversation(conv(&id)?);
                let txn = uuid(&txn)
                    .map(TxnId)
                    .ok_or_else(|| Refusal::bad("transaction"))?;
                self.sending(txn, Some(&text));
                if let Err(error) = conversation.send_with(txn, text.as_str()).await {
                    self.sending(txn, None);
                    return Err(error.into());
                }
            }
            Ask::Retry { conv, message } => {
                let (conversation, id) = sent(&client, &conv, &message)?;
                conversation.retry(id).await?;
            }
            Ask::Discard { conv, message } => {
                let (conversation, id) = sent(&client, &conv, &message)?;
                conversation.cancel(id).await?;
            }
            Ask::Read { conv: id, up_to } => {
                let place = unplace(&up_to).ok_or_else(|| Refusal::bad("place"))?;
                client.conversation(conv(&id)?).mark_read(place).await?;
            }
            Ask::Typing { conv: id, active } => {
                client.touch().await?;
                client.conversation(conv(&id)?).typing(active).await?;
            }
            Ask::History {
                conv: id,
                before,
                limit,
            } => {
                let conversation = client.conversation(conv(&id)?);
                return self.history(&conversation, before, limit).await;
            }
            Ask::Status { status, text } => {
                let status = match status.as_str() {
                    "active" => Status::Active,
                    "away" => Status::Away,
                    "dnd" => Status::DoNotDisturb,
                    _ => return Err(Refusal::bad("status")),
                };
                client.set_presence(status, &text).await?;
            }
            Ask::Trust { user, device } => {
                let device = unhex(&device)
                    .map(DeviceId)
                    .ok_or_else(|| Refusal::bad("device"))?;
                client.trust(&UserId::new(&user)?, device).await?;
            }
            ask => return self.call_group(&client, ask).await,
        }
        Ok(Value::Done {})
    }

    async fn history(
        &self,
        conversation: &Conversation,
        before: Option<String>,
        limit: usize,
    ) -> Result<Value, Refusal> {
        let limit = limit.min(MAX_PAGE);
        let items = match before {
            Some(place) => {
                let place = unplace(&place).ok_or_else(|| Refusal::bad("place"))?;
                conversation.page_before(place, limit).await?
            }
            None => conversation.latest(limit).await?,
        };
        let items = items
            .iter()
            .filter_map(|item| show::item(self.user(), item))
            .collect();
        Ok(Value::Items { items })
    }

    async fn call_group(&self, client: &Client, ask: Ask) -> Result<Value, Refusal> {
        let id = match ask {
            Ask::CreateGroup { name } => {
                let room = client.create_group(&GroupName::new(&name)?).await?;
                self.tell_group(room.group()).await;
                return Ok(Value::Conv {
                    conv: hex(room.group().as_bytes()),
                });
            }
            Ask::Join { group: text, note } => {
                let id = group(&text)?;
                client.join(id).note(note).send().await?;
                self.tell_group(id).await;
                return Ok(Value::Conv { conv: text });
            }
            Ask::PlanLeave { group: text } => {
                let leave = client.room(group(&text)?).leave().await?;
                let plan = leave.plan();
                let successor = plan.successor.as_ref().map(|user| user.as_str().to_owned());
                return Ok(Value::Plan {
                    successor,
                    closes: plan.closes,
                });
            }
            Ask::Withdraw { group: text } => {
                let id = group(&text)?;
                client.join(id).withdraw().await?;
                id
            }
            Ask::Approve {
                group: text,
                request,
            } => {
                let id = group(&text)?;
                client.room(id).approve(join(&request)?).await?;
                id
            }
            Ask::Deny {
                group: text,
                request,
                reason,
            } => {
                let id = group(&text)?;
                client.room(id).deny(join(&request)?, &reason).await?;
                id
            }
            Ask::Kick {
                group: text,
                user,
                reason,
            } => {
                let id = group(&text)?;
                client.room(id).kick(&UserId::new(&user)?, &reason).await?;
                id
            }
            Ask::Leave { group: text } => {
                let id = group(&text)?;
                client.room(id).leave().await?.commit().await?;
                id
            }
            Ask::HandOver { group: text, user } => {
                let id = group(&text)?;
                client.room(id).hand_over(&UserId::new(&user)?).await?;
                id
            }
            Ask::AnswerOffer {
                group: text,
                accept,
            } => {
                let id = group(&text)?;
                client.room(id).answer_offer(accept).await?;
                self.offer_answered(id);
                id
            }
            _ => return Err(Refusal::bad("call")),
        };
        self.tell_group(id).await;
        Ok(Value::Done {})
    }
}
