//! What an application asks for. Each command hands refused values back in its error and changes
//! nothing then.

use core::time::Duration;

use super::Endpoint;
use crate::channel::Channel;
use crate::content::Content;
use crate::delivery::{SendError, SortKey};
use crate::group::{BatchStep, GroupError, LeaseHint, LeaseNeed, LeavePlan, Rules};
use crate::id::{
    ConvId, DeviceId, GroupId, GroupName, InviteId, LobbyName, MessageId, RequestId, TxnId, UserId,
};
use crate::presence::Status;
use crate::probe::{mark, planted};
use crate::session::{AnswerError, Rejection, RequestError};
use crate::time::{Now, Timestamp};

impl Endpoint {
    fn run<T>(&mut self, now: Timestamp, command: impl FnOnce(&mut Self, Now) -> T) -> T {
        let now = self.clock.read(now);
        let answer = command(self, now);
        self.settle(now);
        answer
    }

    /// Starts connecting, and keeps connected until [`Self::disconnect`].
    pub fn connect(&mut self, now: Timestamp) {
        self.run(now, |this, now| this.link.open(now));
    }

    /// Says goodbye (presence `Left`, P5) and closes the connection after it.
    pub fn disconnect(&mut self, now: Timestamp) {
        self.run(now, |this, now| {
            this.presence.leave(now);
            this.settle(now);
            this.link.close(now);
        });
    }

    /// Asks `peer` to chat (rules S1, S6, S9).
    ///
    /// # Errors
    /// [`RequestError`] says what stands in the way.
    pub fn request(
        &mut self,
        peer: &UserId,
        note: &str,
        now: Timestamp,
    ) -> Result<InviteId, RequestError> {
        self.run(now, |this, now| this.sessions.request(peer, note, now))
    }

    /// Says yes to a standing request; returns the conversation.
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it no longer stands.
    pub fn accept(&mut self, invite: InviteId, now: Timestamp) -> Result<ConvId, AnswerError> {
        self.run(now, |this, now| this.sessions.accept(invite, now))
    }

    /// Says no to a standing request (S4).
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reject(
        &mut self,
        invite: InviteId,
        how: &Rejection,
        now: Timestamp,
    ) -> Result<(), AnswerError> {
        self.run(now, |this, now| this.sessions.reject(invite, how, now))
    }

    /// Takes our own request back (S2).
    ///
    /// # Errors
    /// [`AnswerError::NoSuchInvite`] when it no longer stands.
    pub fn cancel(&mut self, invite: InviteId, now: Timestamp) -> Result<(), AnswerError> {
        self.run(now, |this, now| this.sessions.cancel(invite, now))
    }

    /// Leaves the session with `peer`; messages not yet acknowledged fail as `Gone`.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn close_session(
        &mut self,
        peer: &UserId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), AnswerError> {
        self.run(now, |this, now| this.sessions.close(peer, reason, now))
    }

    /// Blocks `peer`, also before any contact; tells nobody but our own other devices, and those
    /// sealed (S5).
    pub fn block(&mut self, peer: &UserId, now: Timestamp) {
        self.run(now, |this, now| {
            this.sessions.block(peer, now);
            this.share_block(peer);
        });
    }

    /// Lifts a block.
    pub fn unblock(&mut self, peer: &UserId, now: Timestamp) {
        self.run(now, |this, now| {
            this.sessions.unblock(peer, now);
            this.share_block(peer);
        });
    }

    /// Takes a message for a session or a group. `DeliveryEvent::Accepted` says when it is
    /// durable; the same `txn` with the same content gives the same id.
    ///
    /// # Errors
    /// [`SendError`] hands the content back.
    pub fn send(
        &mut self,
        conv: ConvId,
        txn: TxnId,
        content: Content,
        now: Timestamp,
    ) -> Result<MessageId, SendError> {
        let stops = self.leaves(conv) && !planted("endpoint-leaver-writes");
        if stops && !self.delivery.knows(&txn) {
            mark("endpoint-leaver-writes");
            return Err(SendError::NotOpen(content));
        }
        self.run(now, |this, now| this.delivery.send(conv, txn, content, now))
    }

    /// Takes back a message that never left (Q3), or gives up one that is wedged, so that those
    /// behind it go on (Q2); false when it is too late.
    pub fn cancel_send(&mut self, id: &MessageId, now: Timestamp) -> bool {
        self.run(now, |this, now| this.delivery.cancel(id, now))
    }

    /// Sends a wedged message again, because what was wrong is mended (Q2); false when it is not
    /// wedged.
    pub fn retry_send(&mut self, id: &MessageId, now: Timestamp) -> bool {
        self.run(now, |this, now| this.delivery.retry(id, now))
    }

    /// The user has seen everything up to `up_to`; moves forward only.
    pub fn mark_read(&mut self, conv: ConvId, up_to: SortKey, now: Timestamp) {
        self.run(now, |this, now| this.delivery.mark_read(conv, up_to, now));
    }

    /// The application is done with everything up to `pos` of this conversation's inbox; it is not
    /// told again after a restart.
    pub fn acknowledge(&mut self, conv: ConvId, pos: u64, now: Timestamp) {
        self.run(now, |this, now| this.delivery.acknowledge(conv, pos, now));
    }

    /// The application is done with one place of this conversation's inbox, out of turn: those
    /// before it are still told again after a restart.
    pub fn acknowledge_only(&mut self, conv: ConvId, pos: u64, now: Timestamp) {
        self.run(now, |this, now| {
            this.delivery.acknowledge_only(conv, pos, now);
        });
    }

    /// The user types, or stopped.
    pub fn set_typing(&mut self, conv: ConvId, active: bool, now: Timestamp) {
        self.run(now, |this, now| this.delivery.set_typing(conv, active, now));
    }

    fn run_group<T>(
        &mut self,
        group: GroupId,
        now: Timestamp,
        command: impl FnOnce(&mut Self, Now) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        self.run(now, |this, now| {
            let answer = command(this, now);
            // Some commands change our standing without an event of their own.
            this.sync_group(group, now);
            answer
        })
    }

    /// Creates a group that we lead, with the default rules.
    ///
    /// # Errors
    /// [`GroupError::Full`].
    pub fn create_group(
        &mut self,
        name: &GroupName,
        now: Timestamp,
    ) -> Result<GroupId, GroupError> {
        self.create_group_with(name, Rules::default(), now)
    }

    /// Creates a group that we lead; `rules` say who may take over from us, for good.
    ///
    /// # Errors
    /// [`GroupError::Full`].
    pub fn create_group_with(
        &mut self,
        name: &GroupName,
        rules: Rules,
        now: Timestamp,
    ) -> Result<GroupId, GroupError> {
        self.run(now, |this, now| this.groups.create(name, rules, now))
    }

    /// Invites somebody: their request to join is then granted without a question (G15).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn invite_to_group(
        &mut self,
        group: GroupId,
        user: &UserId,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| this.groups.invite(group, user, now))
    }

    /// Changes the roster in one entry of the log: all steps or none (G19).
    ///
    /// # Errors
    /// [`GroupError`], most often [`GroupError::InBatch`]; then nothing was changed.
    pub fn apply(
        &mut self,
        group: GroupId,
        steps: &[BatchStep],
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| this.groups.apply(group, steps, now))
    }

    /// What an outside lease says of a group's leader; it may shorten the wait for a succession.
    pub fn handle_fence_hint(&mut self, group: GroupId, hint: LeaseHint, now: Timestamp) {
        self.run(now, |this, now| {
            this.groups.handle_fence_hint(group, hint, now);
        });
    }

    /// Which outside leases are worth a question to who grants them, by now.
    pub fn lease_needs(&mut self, now: Timestamp) -> Vec<(GroupId, LeaseNeed)> {
        let now = self.clock.read(now);
        self.groups.lease_needs(now)
    }

    /// When [`Self::lease_needs`] has something to say, if nothing else happens before.
    pub fn lease_due(&self) -> Option<Timestamp> {
        self.groups.lease_due()
    }

    /// Asks to join (G14).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn join(
        &mut self,
        group: GroupId,
        note: &str,
        now: Timestamp,
    ) -> Result<RequestId, GroupError> {
        self.run_group(group, now, |this, now| this.groups.join(group, note, now))
    }

    /// Takes our join request back (G14).
    ///
    /// # Errors
    /// [`GroupError::NoSuchRequest`].
    pub fn withdraw(&mut self, group: GroupId, now: Timestamp) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| this.groups.withdraw(group, now))
    }

    /// Lets an applicant in.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn approve(
        &mut self,
        group: GroupId,
        request: RequestId,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| {
            this.groups.approve(group, request, now)
        })
    }

    /// Refuses an applicant.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn deny(
        &mut self,
        group: GroupId,
        request: RequestId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| {
            this.groups.deny(group, request, reason, now)
        })
    }

    /// Removes a member with all its devices (G9, G11).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn kick(
        &mut self,
        group: GroupId,
        user: &UserId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| {
            this.groups.kick(group, user, reason, now)
        })
    }

    /// What leaving would do (G2).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn plan_leave(&self, group: GroupId) -> Result<LeavePlan, GroupError> {
        self.groups.plan_leave(group)
    }

    /// Leaves; a leader first hands over to the planned successor (G2, G12).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn leave(&mut self, group: GroupId, now: Timestamp) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| this.groups.leave(group, now))
    }

    /// Asks `user` to lead; until it accepts, we do (G18).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn hand_over(
        &mut self,
        group: GroupId,
        user: &UserId,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| {
            this.groups.hand_over(group, user, now)
        })
    }

    /// Answers the leader's offer to lead (G18).
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn answer_offer(
        &mut self,
        group: GroupId,
        accept: bool,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| {
            this.groups.answer_offer(group, accept, now)
        })
    }

    /// Renames a group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn rename_group(
        &mut self,
        group: GroupId,
        name: &GroupName,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.run_group(group, now, |this, now| this.groups.rename(group, name, now))
    }

    /// Says how we are; `Left`, `Lost` and `Unknown` read as `Away`.
    /// The text is over after `text_ttl`, everywhere (P1).
    pub fn set_presence(
        &mut self,
        status: Status,
        text: &str,
        text_ttl: Option<Duration>,
        now: Timestamp,
    ) {
        self.run(now, |this, now| {
            this.presence.set(status, text, text_ttl, now);
        });
    }

    /// The user did something: idle time starts anew.
    pub fn touch(&mut self, now: Timestamp) {
        self.run(now, |this, now| this.presence.touch(now));
    }

    /// Follows `user`'s presence; peers of open sessions are followed without asking.
    pub fn watch(&mut self, user: &UserId, now: Timestamp) {
        self.run(now, |this, now| {
            this.link.subscribe(Channel::Presence(user.clone()), now);
            this.presence.watch(user, now);
        });
    }

    /// No longer; a peer of an open session is followed until that ends.
    pub fn unwatch(&mut self, user: &UserId, now: Timestamp) {
        self.run(now, |this, now| {
            this.presence.unwatch(user, now);
            this.unfollow(user, now);
        });
    }

    /// Follows who of `group` is here, until [`Self::unwatch_group`] or a restart (P11): told as
    /// `PresenceEvent::Room`, seen by [`Self::room_presence`]. A group that we are not in yet is
    /// followed once we are.
    pub fn watch_group(&mut self, group: GroupId, now: Timestamp) {
        self.run(now, |this, now| {
            if this.groups.membership(group).is_some() {
                this.company.watch(group);
                this.sync_company(group, now);
            }
        });
    }

    /// No longer.
    pub fn unwatch_group(&mut self, group: GroupId, now: Timestamp) {
        self.run(now, |this, _| this.company.unwatch(group));
    }

    /// Enters a lobby: shows ourselves and our groups there, and asks who is there.
    pub fn enter_lobby(&mut self, lobby: &LobbyName, now: Timestamp) {
        self.run(now, |this, now| {
            let channel = Channel::Lobby(lobby.clone());
            this.link.subscribe(channel.clone(), now);
            this.presence.enter(channel, now);
            this.lobbies.enter(lobby.clone(), now);
            let groups: Vec<_> = this.groups.iter().collect();
            for group in groups {
                this.sync_group(group, now);
            }
        });
    }

    /// Leaves a lobby.
    pub fn exit_lobby(&mut self, lobby: &LobbyName, now: Timestamp) {
        self.run(now, |this, now| {
            let channel = Channel::Lobby(lobby.clone());
            this.presence.exit(&channel, now);
            this.lobbies.exit(lobby, now);
            this.link.unsubscribe(&channel, now);
        });
    }

    /// Trusts a device that claimed to speak for `user` (see `IdentityEvent::KeyChanged`).
    pub fn trust(&mut self, user: &UserId, device: DeviceId, now: Timestamp) {
        self.run(now, |this, now| {
            this.pins.trust(user, device, now);
            if *user == this.me.user {
                this.seek_siblings();
            }
        });
    }

    /// Trusts `device` for `user` no longer: what it signs is refused from now on. It is taken out
    /// of our session with the user, which ends as `CloseReason::Distrusted` when it was the last
    /// one there. A group keeps it as a member until its leader removes it. False, and nothing
    /// happens, when it was not trusted or is this device.
    pub fn distrust(&mut self, user: &UserId, device: DeviceId, now: Timestamp) -> bool {
        self.run(now, |this, now| {
            if device == this.me.device || !this.pins.distrust(user, device, now) {
                return false;
            }
            this.forget_sibling(device);
            this.sessions.distrust(user, device, now);
            true
        })
    }
}
