//! Groups.

use core::future::{Future, IntoFuture};
use core::ops::Deref;
use core::pin::Pin;

use chat_core::group::{
    BatchStep, GroupError, GroupView, Guarantee, JoinRequest, LeaseHint, LeavePlan, Member,
    Membership, Rules,
};
use chat_core::id::{GroupId, GroupName, RequestId, UserId};
use chat_core::presence::RoomPresence;
use tokio::sync::oneshot;

use super::client::WeakClient;
use super::{Client, ClientError, Conversation, GroupFailed, JoinFailed};
use crate::driver::{Desk, JoinEnd};

/// A group: a [`Conversation`] with a roster and a leader.
#[derive(Clone, Debug)]
pub struct Room {
    conversation: Conversation,
    group: GroupId,
}

impl Deref for Room {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl Client {
    /// Creates a group that we lead; returns once it is durable.
    ///
    /// # Errors
    /// [`GroupError::Full`] when we are in too many.
    ///
    /// # Cancel safety
    /// The group may or may not have been created; [`Self::groups`] tells.
    pub async fn create_group(&self, name: &GroupName) -> Result<Room, GroupFailed> {
        self.create_group_with(name, Rules::default()).await
    }

    /// Creates a group that we lead; `rules` say who may take over from us, for good.
    ///
    /// # Errors
    /// [`GroupError::Full`] when we are in too many.
    ///
    /// # Cancel safety
    /// The group may or may not have been created; [`Self::groups`] tells.
    pub async fn create_group_with(
        &self,
        name: &GroupName,
        rules: Rules,
    ) -> Result<Room, GroupFailed> {
        let name = name.clone();
        let group = self
            .attempt(move |desk, now| desk.endpoint.create_group_with(&name, rules, now))
            .await?;
        Ok(Room::new(self.clone(), group))
    }

    /// Asks to join `group`: await it for the [`Room`].
    pub fn join(&self, group: GroupId) -> PendingJoin {
        PendingJoin {
            client: self.clone(),
            group,
            note: String::new(),
        }
    }

    /// The group, if we are in it.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn group(&self, group: GroupId) -> Result<Option<Room>, ClientError> {
        let view = self.ask(move |desk, _| desk.endpoint.group(group)).await?;
        let member = view.is_some_and(|view| is_in(view.mine));
        Ok(member.then(|| Room::new(self.clone(), group)))
    }

    /// Every group known here, also those that we left.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn groups(&self) -> Result<Vec<GroupView>, ClientError> {
        self.ask(|desk, _| {
            let groups = desk.endpoint.groups();
            let views = groups.into_iter().map(|group| desk.endpoint.group(group));
            views.flatten().collect()
        })
        .await
    }
}

fn is_in(mine: Membership) -> bool {
    matches!(
        mine,
        Membership::Member | Membership::Leader | Membership::Leaving
    )
}

/// A request to join that is made when it is awaited or sent.
#[derive(Debug)]
#[must_use = "a request is made when it is awaited or sent"]
pub struct PendingJoin {
    client: Client,
    group: GroupId,
    note: String,
}

impl PendingJoin {
    /// What the leader reads with the request.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }

    /// Makes the request without waiting for the answer; returns once it is durable.
    ///
    /// # Errors
    /// [`GroupError`] when it cannot be made.
    ///
    /// # Cancel safety
    /// The request may or may not have been made; making it again is harmless.
    pub async fn send(self) -> Result<RequestId, GroupFailed> {
        let Self {
            client,
            group,
            note,
        } = self;
        client
            .attempt(move |desk, now| desk.endpoint.join(group, &note, now))
            .await
    }

    /// Takes a request that was made back.
    ///
    /// # Errors
    /// [`GroupError::NoSuchRequest`] when none stands.
    ///
    /// # Cancel safety
    /// The request may or may not have been taken back.
    pub async fn withdraw(self) -> Result<(), GroupFailed> {
        let group = self.group;
        self.client
            .attempt(move |desk, now| desk.endpoint.withdraw(group, now))
            .await
    }
}

impl IntoFuture for PendingJoin {
    type Output = Result<Room, JoinFailed>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Asks and waits for the answer. A member gets the room at once; dropping the future does not
    /// take the request back.
    fn into_future(self) -> Self::IntoFuture {
        let Self {
            client,
            group,
            note,
        } = self;
        Box::pin(async move {
            let (waiter, outcome) = oneshot::channel();
            let made = client.change(move |desk, now| {
                let member = desk.endpoint.group(group).is_some_and(|view| {
                    matches!(view.mine, Membership::Member | Membership::Leader)
                });
                if member {
                    // The receiver is the caller's; it may have been dropped.
                    waiter.send(JoinEnd::Joined).ok();
                    return Ok(());
                }
                desk.endpoint.join(group, &note, now)?;
                desk.board.await_join(group, waiter);
                Ok(())
            });
            made.await?.map_err(JoinFailed::Refused)?;
            match outcome.await {
                Ok(JoinEnd::Joined) => Ok(Room::new(client, group)),
                Ok(JoinEnd::Denied { reason }) => Err(JoinFailed::Denied { reason }),
                Ok(JoinEnd::Expired) => Err(JoinFailed::Expired),
                Ok(JoinEnd::Removed { by, reason }) => Err(JoinFailed::Removed { by, reason }),
                Err(_) => Err(client.fate().into()),
            }
        })
    }
}

/// Somebody asks us, the leader, to be let in.
#[derive(Clone, Debug)]
pub struct IncomingJoin {
    client: WeakClient,
    group: GroupId,
    request: JoinRequest,
}

impl IncomingJoin {
    pub(super) fn new(client: WeakClient, group: GroupId, request: JoinRequest) -> Self {
        Self {
            client,
            group,
            request,
        }
    }

    /// Where.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Who, and in which words.
    pub fn request(&self) -> &JoinRequest {
        &self.request
    }

    /// Lets them in.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The answer may or may not have been given; the roster tells.
    pub async fn approve(&self) -> Result<(), GroupFailed> {
        let room = Room::new(self.client.upgrade()?, self.group);
        room.approve(self.request.request).await
    }

    /// Refuses them.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The answer may or may not have been given.
    pub async fn deny(&self, reason: &str) -> Result<(), GroupFailed> {
        let room = Room::new(self.client.upgrade()?, self.group);
        room.deny(self.request.request, reason).await
    }
}

impl Room {
    pub(super) fn new(client: Client, group: GroupId) -> Self {
        Self {
            conversation: Conversation::new(client, group.into()),
            group,
        }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Name, leader, roster and requests as this device sees them.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`] when nothing is known of it any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn view(&self) -> Result<GroupView, GroupFailed> {
        let group = self.group;
        let view = self.client().ask(move |desk, _| desk.endpoint.group(group));
        let none = GroupFailed::Refused(GroupError::NoSuchGroup);
        view.await?.ok_or(none)
    }

    /// Who leads; `None` while we only asked to join.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn leader(&self) -> Result<Option<UserId>, GroupFailed> {
        Ok(self.view().await?.leader)
    }

    /// The members, most senior first.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn roster(&self) -> Result<Vec<Member>, GroupFailed> {
        Ok(self.view().await?.roster)
    }

    /// Follows who of the group is here, until [`Self::unwatch`] or a restart (P11). Told as
    /// [`PresenceEvent::Room`](chat_core::presence::PresenceEvent::Room).
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn watch(&self) -> Result<(), ClientError> {
        let group = self.group;
        let call = self
            .client()
            .change(move |desk, now| desk.endpoint.watch_group(group, now));
        call.await
    }

    /// No longer.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn unwatch(&self) -> Result<(), ClientError> {
        let group = self.group;
        let call = self
            .client()
            .change(move |desk, now| desk.endpoint.unwatch_group(group, now));
        call.await
    }

    /// Who of the group is here: each member up to `presence.crowd` (256), above that counts and
    /// those whom the leader named last (P11). `None` unless it is [watched](Self::watch).
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn presence(&self) -> Result<Option<RoomPresence>, ClientError> {
        let group = self.group;
        let view = self
            .client()
            .ask(move |desk, _| desk.endpoint.room_presence(group));
        view.await
    }

    /// The round of the reigning term: it grows whenever the lead passes.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn term(&self) -> Result<u64, GroupFailed> {
        Ok(self.view().await?.round)
    }

    /// How final a removal is here.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn guarantee(&self) -> Result<Guarantee, GroupFailed> {
        Ok(self.view().await?.guarantee)
    }

    /// Passes on what an outside lease says of this group's leader; it may shorten the wait for a
    /// succession.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn fence_hint(&self, hint: LeaseHint) -> Result<(), GroupFailed> {
        self.command(move |desk, group, now| {
            desk.endpoint.handle_fence_hint(group, hint, now);
            Ok(())
        })
        .await
    }

    async fn command(
        &self,
        call: impl FnOnce(&mut Desk, GroupId, chat_core::time::Timestamp) -> Result<(), GroupError>
        + Send
        + 'static,
    ) -> Result<(), GroupFailed> {
        let group = self.group;
        self.client()
            .attempt(move |desk, now| call(desk, group, now))
            .await
    }

    /// Lets an applicant in.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; [`Self::view`] tells.
    pub async fn approve(&self, request: RequestId) -> Result<(), GroupFailed> {
        self.command(move |desk, group, now| desk.endpoint.approve(group, request, now))
            .await
    }

    /// Changes the roster in one entry of the log: all steps or none, for everybody (G19).
    ///
    /// # Errors
    /// [`GroupError::InBatch`] names the step that cannot be done; [`GroupError::TooWide`] and
    /// [`GroupError::NotCommitted`] come in strict groups. Nothing was changed then.
    ///
    /// # Cancel safety
    /// The call may or may not take effect, as a whole; [`Self::view`] tells.
    pub async fn apply(&self, steps: &[BatchStep]) -> Result<(), GroupFailed> {
        let steps = steps.to_vec();
        self.command(move |desk, group, now| desk.endpoint.apply(group, &steps, now))
            .await
    }

    /// Invites somebody, who joins without a question by asking to (G15); who asks already is in.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The invitation may or may not be sent; repeating it is harmless.
    pub async fn invite(&self, user: &UserId) -> Result<(), GroupFailed> {
        let user = user.clone();
        self.command(move |desk, group, now| desk.endpoint.invite_to_group(group, &user, now))
            .await
    }

    /// Refuses an applicant.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; [`Self::view`] tells.
    pub async fn deny(&self, request: RequestId, reason: &str) -> Result<(), GroupFailed> {
        let reason = reason.to_owned();
        self.command(move |desk, group, now| desk.endpoint.deny(group, request, &reason, now))
            .await
    }

    /// Removes a member with all its devices.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; [`Self::view`] tells.
    pub async fn kick(&self, user: &UserId, reason: &str) -> Result<(), GroupFailed> {
        let (user, reason) = (user.clone(), reason.to_owned());
        self.command(move |desk, group, now| desk.endpoint.kick(group, &user, &reason, now))
            .await
    }

    /// What leaving would do, to be shown before [`Leave::commit`] does it.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn leave(&self) -> Result<Leave, GroupFailed> {
        let group = self.group;
        let plan = self
            .client()
            .ask(move |desk, _| desk.endpoint.plan_leave(group));
        let plan = plan.await?.map_err(GroupFailed::Refused)?;
        Ok(Leave {
            room: self.clone(),
            plan,
        })
    }

    /// Asks `user` to lead; until it accepts, we do.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect.
    pub async fn hand_over(&self, user: &UserId) -> Result<(), GroupFailed> {
        let user = user.clone();
        self.command(move |desk, group, now| desk.endpoint.hand_over(group, &user, now))
            .await
    }

    /// Answers the leader's offer to lead.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect.
    pub async fn answer_offer(&self, accept: bool) -> Result<(), GroupFailed> {
        self.command(move |desk, group, now| desk.endpoint.answer_offer(group, accept, now))
            .await
    }

    /// Renames the group.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; repeating it is harmless.
    pub async fn rename(&self, name: &GroupName) -> Result<(), GroupFailed> {
        let name = name.clone();
        self.command(move |desk, group, now| desk.endpoint.rename_group(group, &name, now))
            .await
    }
}

/// What leaving would do, not yet done.
#[derive(Debug)]
#[must_use = "nothing happens before `commit`"]
pub struct Leave {
    room: Room,
    plan: LeavePlan,
}

impl Leave {
    /// Who would lead afterwards, and whether the group closes.
    pub fn plan(&self) -> &LeavePlan {
        &self.plan
    }

    /// Leaves. A leader is out once the successor leads.
    ///
    /// # Errors
    /// [`GroupError`].
    ///
    /// # Cancel safety
    /// The call may or may not take effect; [`Room::view`] tells.
    pub async fn commit(self) -> Result<(), GroupFailed> {
        self.room
            .command(move |desk, group, now| desk.endpoint.leave(group, now))
            .await
    }
}
