//! The endpoint: one device of one user, all machines composed behind one ordered output queue.

use std::sync::Arc;

use crate::channel::Channel;
use crate::config::{Config, ConfigError};
use crate::content::Content;
use crate::delivery::{SendError, SortKey};
use crate::effect::{RestoreError, Row};
use crate::group::{GroupError, GroupView, LeavePlan};
use crate::id::{
    ConvId, DeviceId, Epoch, GroupId, GroupName, InviteId, LobbyName, MessageId, RequestId, TxnId,
    UserId,
};
use crate::identity::{Signer, Verifier};
use crate::link::{LinkEvent, LinkState};
use crate::lobby::GroupListing;
use crate::output::{Output, PersistId, TransmitId};
use crate::presence::{PresenceView, Status};
use crate::sealer::Sealer;
use crate::session::{AnswerError, Rejection, RequestError, SessionState};
use crate::time::{Timestamp, UnixMillis};

/// Who an endpoint is and how it proves that.
#[derive(Debug)]
pub struct Identity {
    /// The name others reach it by.
    pub user: UserId,
    /// Its device key.
    pub signer: Arc<dyn Signer>,
    /// Checks everybody's signatures.
    pub verifier: Arc<dyn Verifier>,
    /// Seals message bodies.
    pub sealer: Box<dyn Sealer>,
}

/// Why an endpoint did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A stored row cannot be read.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The store belongs to another user or device.
    #[error("the store belongs to another identity; open it with that one or use an empty store")]
    ForeignStore,
}

/// Counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames that arrived.
    pub frames_in: u64,
    /// Frames handed to the transport.
    pub frames_out: u64,
    /// Frames dropped because of a [`Fault`](crate::Fault).
    pub faults: u64,
    /// Messages in the outbox.
    pub outbox: u64,
    /// Rows written.
    pub rows: u64,
}

/// One device of one user.
#[derive(Debug)]
pub struct Endpoint {}

#[allow(unused_variables, missing_docs, clippy::missing_errors_doc)]
impl Endpoint {
    pub fn open(
        identity: Identity,
        config: Config,
        seed: [u8; 32],
        rows: impl IntoIterator<Item = Row>,
        wall: UnixMillis,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        unimplemented!()
    }
    // commands: connection
    pub fn connect(&mut self, now: Timestamp) {
        unimplemented!()
    }
    /// Says goodbye (presence `Left`) and closes the connection once that is handed over.
    pub fn disconnect(&mut self, now: Timestamp) {
        unimplemented!()
    }
    // commands: sessions
    pub fn request(
        &mut self,
        peer: &UserId,
        note: &str,
        now: Timestamp,
    ) -> Result<InviteId, RequestError> {
        unimplemented!()
    }
    pub fn accept(&mut self, invite: InviteId, now: Timestamp) -> Result<ConvId, AnswerError> {
        unimplemented!()
    }
    pub fn reject(
        &mut self,
        invite: InviteId,
        how: &Rejection,
        now: Timestamp,
    ) -> Result<(), AnswerError> {
        unimplemented!()
    }
    pub fn cancel(&mut self, invite: InviteId, now: Timestamp) -> Result<(), AnswerError> {
        unimplemented!()
    }
    pub fn close_session(
        &mut self,
        peer: &UserId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), AnswerError> {
        unimplemented!()
    }
    pub fn block(&mut self, peer: &UserId, now: Timestamp) {
        unimplemented!()
    }
    pub fn unblock(&mut self, peer: &UserId, now: Timestamp) {
        unimplemented!()
    }
    // commands: messages
    pub fn send(
        &mut self,
        conv: ConvId,
        txn: TxnId,
        content: Content,
        now: Timestamp,
    ) -> Result<MessageId, SendError> {
        unimplemented!()
    }
    pub fn cancel_send(&mut self, id: &MessageId, now: Timestamp) -> bool {
        unimplemented!()
    }
    pub fn mark_read(&mut self, conv: ConvId, up_to: SortKey, now: Timestamp) {
        unimplemented!()
    }
    pub fn acknowledge(&mut self, conv: ConvId, pos: u64, now: Timestamp) {
        unimplemented!()
    }
    pub fn set_typing(&mut self, conv: ConvId, active: bool, now: Timestamp) {
        unimplemented!()
    }
    // commands: groups
    pub fn create_group(
        &mut self,
        name: &GroupName,
        now: Timestamp,
    ) -> Result<GroupId, GroupError> {
        unimplemented!()
    }
    pub fn join(
        &mut self,
        group: GroupId,
        note: &str,
        now: Timestamp,
    ) -> Result<RequestId, GroupError> {
        unimplemented!()
    }
    pub fn withdraw(&mut self, group: GroupId, now: Timestamp) -> Result<(), GroupError> {
        unimplemented!()
    }
    pub fn approve(
        &mut self,
        group: GroupId,
        request: RequestId,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        unimplemented!()
    }
    pub fn deny(
        &mut self,
        group: GroupId,
        request: RequestId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        unimplemented!()
    }
    pub fn kick(
        &mut self,
        group: GroupId,
        user: &UserId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        unimplemented!()
    }
    pub fn plan_leave(&self, group: GroupId) -> Result<LeavePlan, GroupError> {
        unimplemented!()
    }
    pub fn leave(&mut self, group: GroupId, now: Timestamp) -> Result<(), GroupError> {
        unimplemented!()
    }
    pub fn hand_over(
        &mut self,
        group: GroupId,
        user: &UserId,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        unimplemented!()
    }
    pub fn answer_offer(
        &mut self,
        group: GroupId,
        accept: bool,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        unimplemented!()
    }
    pub fn rename_group(
        &mut self,
        group: GroupId,
        name: &GroupName,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        unimplemented!()
    }
    // commands: presence and lobby
    pub fn set_presence(&mut self, status: Status, text: &str, now: Timestamp) {
        unimplemented!()
    }
    pub fn touch(&mut self, now: Timestamp) {
        unimplemented!()
    }
    pub fn watch(&mut self, user: &UserId, now: Timestamp) {
        unimplemented!()
    }
    pub fn unwatch(&mut self, user: &UserId, now: Timestamp) {
        unimplemented!()
    }
    pub fn enter_lobby(&mut self, lobby: &LobbyName, now: Timestamp) {
        unimplemented!()
    }
    pub fn exit_lobby(&mut self, lobby: &LobbyName, now: Timestamp) {
        unimplemented!()
    }
    // commands: identity
    pub fn trust(&mut self, user: &UserId, device: DeviceId, now: Timestamp) {
        unimplemented!()
    }
    // inputs
    /// `live` is false for a retained last value of unknown age.
    pub fn handle_inbound(&mut self, channel: &Channel, bytes: &[u8], live: bool, now: Timestamp) {
        unimplemented!()
    }
    pub fn handle_link(&mut self, event: &LinkEvent, now: Timestamp) {
        unimplemented!()
    }
    /// `taken`: the broker acknowledged (true) or refused or lost (false) this frame.
    pub fn handle_acked(&mut self, id: TransmitId, taken: bool, now: Timestamp) {
        unimplemented!()
    }
    pub fn handle_persisted(&mut self, id: PersistId, now: Timestamp) {
        unimplemented!()
    }
    pub fn handle_timeout(&mut self, now: Timestamp) {
        unimplemented!()
    }
    pub fn handle_wall(&mut self, wall: UnixMillis, now: Timestamp) {
        unimplemented!()
    }
    // outputs
    pub fn poll_output(&mut self) -> Option<Output> {
        unimplemented!()
    }
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        unimplemented!()
    }
    // views
    pub fn user(&self) -> &UserId {
        unimplemented!()
    }
    pub fn device(&self) -> DeviceId {
        unimplemented!()
    }
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }
    pub fn link(&self) -> &LinkState {
        unimplemented!()
    }
    pub fn session(&self, peer: &UserId) -> SessionState {
        unimplemented!()
    }
    pub fn sessions(&self) -> Vec<(UserId, SessionState)> {
        unimplemented!()
    }
    pub fn group(&self, group: GroupId) -> Option<GroupView> {
        unimplemented!()
    }
    pub fn groups(&self) -> Vec<GroupId> {
        unimplemented!()
    }
    pub fn presence(&self, user: &UserId) -> Option<PresenceView> {
        unimplemented!()
    }
    pub fn people(&self) -> Vec<(UserId, PresenceView)> {
        unimplemented!()
    }
    pub fn listings(&self, lobby: &LobbyName) -> Vec<GroupListing> {
        unimplemented!()
    }
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
}
