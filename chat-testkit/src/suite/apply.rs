//! A command on an endpoint: what an application's call comes to.

use chat_core::Endpoint;
use chat_core::time::Timestamp;

use super::world::{Answer, Command, Refusal};

/// Runs `command` on `endpoint`; shared by every world that holds endpoints.
pub(super) fn apply(
    endpoint: &mut Endpoint,
    command: Command,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    use Answer::{Cancelled, Conv, Done, Group, Invite, Message, Plan, Request, Retried};
    let done = |()| Done;
    match command {
        Command::Request { peer, note } => endpoint
            .request(&peer, &note, now)
            .map(Invite)
            .map_err(Refusal::Request),
        Command::Accept(invite) => endpoint
            .accept(invite, now)
            .map(Conv)
            .map_err(Refusal::Answer),
        Command::Reject(invite, how) => endpoint
            .reject(invite, &how, now)
            .map(done)
            .map_err(Refusal::Answer),
        Command::Cancel(invite) => endpoint
            .cancel(invite, now)
            .map(done)
            .map_err(Refusal::Answer),
        Command::Close { peer, reason } => endpoint
            .close_session(&peer, &reason, now)
            .map(done)
            .map_err(Refusal::Answer),
        Command::Block(peer) => {
            endpoint.block(&peer, now);
            Ok(Done)
        }
        Command::Unblock(peer) => {
            endpoint.unblock(&peer, now);
            Ok(Done)
        }
        Command::Send { conv, txn, content } => endpoint
            .send(conv, txn, content, now)
            .map(Message)
            .map_err(Refusal::Send),
        Command::CancelSend(id) => Ok(Cancelled(endpoint.cancel_send(&id, now))),
        Command::RetrySend(id) => Ok(Retried(endpoint.retry_send(&id, now))),
        Command::Acknowledge { conv, pos } => {
            endpoint.acknowledge(conv, pos, now);
            Ok(Done)
        }
        Command::MarkRead { conv, up_to } => {
            endpoint.mark_read(conv, up_to, now);
            Ok(Done)
        }
        Command::Typing { conv, active } => {
            endpoint.set_typing(conv, active, now);
            Ok(Done)
        }
        Command::CreateGroup(name) => endpoint
            .create_group(&name, now)
            .map(Group)
            .map_err(Refusal::Group),
        Command::Join { group, note } => endpoint
            .join(group, &note, now)
            .map(Request)
            .map_err(Refusal::Group),
        Command::Withdraw(group) => endpoint
            .withdraw(group, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Approve(group, request) => endpoint
            .approve(group, request, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Deny(group, request, reason) => endpoint
            .deny(group, request, &reason, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Kick {
            group,
            user,
            reason,
        } => endpoint
            .kick(group, &user, &reason, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Apply(group, steps) => endpoint
            .apply(group, &steps, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::PlanLeave(group) => endpoint.plan_leave(group).map(Plan).map_err(Refusal::Group),
        Command::Leave(group) => endpoint.leave(group, now).map(done).map_err(Refusal::Group),
        Command::HandOver(group, user) => endpoint
            .hand_over(group, &user, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::AnswerOffer(group, accept) => endpoint
            .answer_offer(group, accept, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::Rename(group, name) => endpoint
            .rename_group(group, &name, now)
            .map(done)
            .map_err(Refusal::Group),
        Command::SetPresence(status, text, ttl) => {
            endpoint.set_presence(status, &text, ttl, now);
            Ok(Done)
        }
        Command::Unwatch(user) => {
            endpoint.unwatch(&user, now);
            Ok(Done)
        }
        Command::WatchGroup(group) => {
            endpoint.watch_group(group, now);
            Ok(Done)
        }
        Command::UnwatchGroup(group) => {
            endpoint.unwatch_group(group, now);
            Ok(Done)
        }
        Command::Watch(user) => {
            endpoint.watch(&user, now);
            Ok(Done)
        }
        Command::EnterLobby(lobby) => {
            endpoint.enter_lobby(&lobby, now);
            Ok(Done)
        }
        Command::Distrust(user, device) => {
            endpoint.distrust(&user, device, now);
            Ok(Done)
        }
        Command::Trust(user, device) => {
            endpoint.trust(&user, device, now);
            Ok(Done)
        }
    }
}
