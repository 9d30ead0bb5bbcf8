//! Commands through the client's own API.

use chat_client::{CallError, Conversation, GroupFailed, RequestFailed, Room};
use chat_core::delivery::SendError;
use chat_core::group::GroupError;
use chat_core::id::{ConvId, GroupId, InviteId};
use chat_core::session::{AnswerError, SessionState};

use super::Life;
use crate::suite::world::{Answer, Command, Refusal};

type Outcome = Result<Answer, Refusal>;

fn answered<T>(outcome: Result<T, CallError<AnswerError>>) -> Result<T, Refusal> {
    outcome.map_err(|error| Refusal::Answer(error.refused().expect("it runs")))
}

fn ruled<T>(outcome: Result<T, GroupFailed>) -> Result<T, Refusal> {
    outcome.map_err(|error| Refusal::Group(error.refused().expect("it runs")))
}

impl<C> Life<C> {
    pub(super) async fn run(&mut self, command: Command) -> Outcome {
        match command {
            Command::Request { peer, note } => {
                let request = self.client.request(peer).note(note).send().await;
                let pending = request.map_err(|error| match error {
                    RequestFailed::Refused(why) => Refusal::Request(why),
                    other => panic!("a request failed: {other:?}"),
                })?;
                let invite = pending.invite();
                self.pending.insert(invite, pending);
                Ok(Answer::Invite(invite))
            }
            Command::Accept(invite) => {
                let chat = answered(self.request(invite)?.accept().await)?;
                self.convs.insert(chat.id(), (*chat).clone());
                Ok(Answer::Conv(chat.id()))
            }
            Command::Reject(invite, how) => {
                answered(self.request(invite)?.reject(how).await)?;
                Ok(Answer::Done)
            }
            Command::Cancel(invite) => self.cancel(invite).await,
            Command::Close { peer, reason } => {
                let chat = self.client.chat(&peer).await.expect("it runs");
                let chat = chat.ok_or(Refusal::Answer(AnswerError::NoSession))?;
                self.convs.insert(chat.id(), (*chat).clone());
                answered(chat.close(&reason).await)?;
                Ok(Answer::Done)
            }
            Command::Send { conv, txn, content } => {
                let Some(conversation) = self.conversation(conv).await else {
                    return Err(Refusal::Send(SendError::NotOpen(content)));
                };
                let sent = conversation.send_with(txn, content).await;
                let sent =
                    sent.map_err(|error| Refusal::Send(error.refused().expect("it runs")))?;
                let id = sent.id();
                self.sent.insert(id, sent);
                Ok(Answer::Message(id))
            }
            Command::CancelSend(id) => {
                let conversation = self.open(id.stream.conv).await;
                let taken = conversation.cancel(id).await.expect("it runs");
                Ok(Answer::Cancelled(taken))
            }
            Command::RetrySend(id) => {
                let conversation = self.open(id.stream.conv).await;
                let again = conversation.retry(id).await.expect("it runs");
                Ok(Answer::Retried(again))
            }
            Command::Acknowledge { conv, pos } => {
                self.open(conv).await.acknowledge(pos);
                // Comes after it, and returns when the rows of both are durable.
                self.client.touch().await.expect("it runs");
                Ok(Answer::Done)
            }
            Command::MarkRead { conv, up_to } => {
                let conversation = self.open(conv).await;
                conversation.mark_read(up_to).await.expect("it runs");
                Ok(Answer::Done)
            }
            Command::Typing { conv, active } => {
                let conversation = self.open(conv).await;
                conversation.typing(active).await.expect("it runs");
                Ok(Answer::Done)
            }
            Command::CreateGroup(name) => {
                let room = ruled(self.client.create_group(&name).await)?;
                let group = room.group();
                self.rooms.insert(group, room);
                Ok(Answer::Group(group))
            }
            Command::Join { group, note } => {
                let asked = self.client.join(group).note(note).send().await;
                Ok(Answer::Request(ruled(asked)?))
            }
            Command::Withdraw(group) => {
                ruled(self.client.join(group).withdraw().await)?;
                Ok(Answer::Done)
            }
            other => self.run_quietly(other).await,
        }
    }

    async fn run_quietly(&mut self, command: Command) -> Outcome {
        match command {
            Command::Approve(group, request) => {
                ruled(self.room(group).await?.approve(request).await)?;
            }
            Command::Deny(group, request, reason) => {
                ruled(self.room(group).await?.deny(request, &reason).await)?;
            }
            Command::Kick {
                group,
                user,
                reason,
            } => ruled(self.room(group).await?.kick(&user, &reason).await)?,
            Command::Apply(group, steps) => ruled(self.room(group).await?.apply(&steps).await)?,
            Command::PlanLeave(group) => {
                let leave = ruled(self.room(group).await?.leave().await)?;
                return Ok(Answer::Plan(leave.plan().clone()));
            }
            Command::Leave(group) => {
                let leave = ruled(self.room(group).await?.leave().await)?;
                ruled(leave.commit().await)?;
            }
            Command::HandOver(group, user) => {
                ruled(self.room(group).await?.hand_over(&user).await)?;
            }
            Command::AnswerOffer(group, accept) => {
                ruled(self.room(group).await?.answer_offer(accept).await)?;
            }
            Command::Rename(group, name) => ruled(self.room(group).await?.rename(&name).await)?,
            Command::Block(peer) => self.client.block(&peer).await.expect("it runs"),
            Command::Unblock(peer) => self.client.unblock(&peer).await.expect("it runs"),
            Command::SetPresence(status, text, ttl) => {
                let set = match ttl {
                    Some(ttl) => self.client.set_presence_for(status, &text, ttl).await,
                    None => self.client.set_presence(status, &text).await,
                };
                set.expect("it runs");
            }
            Command::Unwatch(user) => self.client.unwatch(&user).await.expect("it runs"),
            Command::WatchGroup(group) => {
                self.room(group).await?.watch().await.expect("it runs");
            }
            Command::UnwatchGroup(group) => {
                self.room(group).await?.unwatch().await.expect("it runs");
            }
            Command::Watch(user) => self.client.watch(&user).await.expect("it runs"),
            Command::EnterLobby(lobby) => {
                self.client.enter_lobby(&lobby).await.expect("it runs");
            }
            Command::Distrust(user, device) => {
                let done = self.client.distrust(&user, device).await;
                done.expect("it runs");
            }
            Command::Trust(user, device) => {
                self.client.trust(&user, device).await.expect("it runs");
            }
            other => unreachable!("handled by the caller: {other:?}"),
        }
        Ok(Answer::Done)
    }

    /// A request that was told in this life.
    fn request(&self, invite: InviteId) -> Result<chat_client::IncomingRequest, Refusal> {
        let request = self.requests.get(&invite).cloned();
        request.ok_or(Refusal::Answer(AnswerError::NoSuchInvite))
    }

    /// Takes a request back, in a later life by attaching to it.
    async fn cancel(&mut self, invite: InviteId) -> Outcome {
        let pending = match self.pending.remove(&invite) {
            Some(pending) => pending,
            None => {
                let sessions = self.client.sessions().await.expect("it runs");
                let ours = |state: &SessionState| *state == SessionState::Inviting { invite };
                let peer = sessions.into_iter().find(|(_, state)| ours(state));
                let (peer, _) = peer.ok_or(Refusal::Answer(AnswerError::NoSuchInvite))?;
                self.client.request(peer).send().await.expect("it stands")
            }
        };
        answered(pending.cancel().await)?;
        Ok(Answer::Done)
    }

    /// A conversation that is open or was open in this life.
    pub(super) async fn conversation(&mut self, conv: ConvId) -> Option<Conversation> {
        if let Some(known) = self.convs.get(&conv) {
            return Some(known.clone());
        }
        let groups = self.client.groups().await.expect("it runs");
        let group = groups
            .into_iter()
            .find(|view| ConvId::from(view.group) == conv);
        let found: Conversation = match group {
            Some(view) => (*self.room(view.group).await.ok()?).clone(),
            None => {
                let sessions = self.client.sessions().await.expect("it runs");
                let me = self.client.user();
                let (peer, _) = sessions
                    .into_iter()
                    .find(|(peer, _)| ConvId::between(me, peer) == conv)?;
                (*self.client.chat(&peer).await.expect("it runs")?).clone()
            }
        };
        self.convs.insert(conv, found.clone());
        Some(found)
    }

    async fn open(&mut self, conv: ConvId) -> Conversation {
        let conversation = self.conversation(conv).await;
        conversation.expect("a conversation that was open in this life")
    }

    /// A group that we are or were in.
    async fn room(&mut self, group: GroupId) -> Result<Room, Refusal> {
        if let Some(room) = self.rooms.get(&group) {
            return Ok(room.clone());
        }
        if let Some(room) = self.client.group(group).await.expect("it runs") {
            self.rooms.insert(group, room.clone());
            return Ok(room);
        }
        let groups = self.client.groups().await.expect("it runs");
        let known = groups.iter().any(|view| view.group == group);
        Err(Refusal::Group(if known {
            GroupError::NotMember
        } else {
            GroupError::NoSuchGroup
        }))
    }
}
