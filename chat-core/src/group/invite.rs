//! Invitations to a group (G15).
//!
//! The leader signs a ticket for one person. Whoever leads later lets its holder in without asking,
//! as long as the inviter is still in and the person was not removed since. A request that crosses
//! the invitation is granted at once.
//!
//! Bound: [`MAX_TICKETS`] invitations are remembered by the invited; the oldest goes first, then a
//! request is answered like any other.

use super::proof::Ticket;
use super::roster::Way;
use super::types::{GroupError, GroupEvent, Membership};
use super::{Groups, rows};
use crate::effect::Table;
use crate::id::{GroupId, GroupName, UserId};
use crate::identity::Sender;
use crate::probe::mark;
use crate::time::Now;
use crate::wire::group::GroupInvite;
use crate::wire::{BoundedBytes, BoundedStr};

/// Invitations that we remember.
const MAX_TICKETS: usize = 64;

impl Groups {
    /// Invites somebody; when they ask already, they are in.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn invite(&mut self, group: GroupId, user: &UserId, now: Now) -> Result<(), GroupError> {
        if *user == self.me.user {
            return Err(GroupError::Oneself);
        }
        let chain = self.reign(group, now)?;
        let (name, index) = (chain.roster.name.clone(), chain.index());
        let held = &self.groups[&group];
        let asks = held
            .joins
            .iter()
            .find(|(_, w)| w.user == *user && !w.is_granted());
        if let Some((request, _)) = asks {
            mark("group-knock-crosses-invite");
            let request = *request;
            let before = self.shown(group);
            self.approve(group, request, now)?;
            self.tell_requests(group, &before);
            return Ok(());
        }
        let until = now.wall.plus(self.config.join_ttl);
        let ticket = Ticket::sign(group, user, index, until, &*self.signer);
        let invite = GroupInvite {
            group: group.0,
            name: BoundedStr::truncated(name.as_str()),
            ticket: ticket
                .to_bytes()
                .try_into()
                .expect("a ticket has 112 bytes"),
        };
        self.mail(user, invite);
        Ok(())
    }

    /// Somebody invites us.
    pub(super) fn handle_invite(&mut self, from: &Sender, invite: &GroupInvite, now: Now) {
        let id = GroupId(invite.group);
        let Ok(name) = GroupName::new(&invite.name) else {
            return;
        };
        let Some(ticket) = Ticket::from_bytes(&invite.ticket) else {
            return;
        };
        let fresh = ticket.key.device() == from.device
            && ticket.until > now.wall
            && ticket.holds(id, &self.me.user, &*self.verifier);
        let inside = matches!(
            self.membership(id),
            Some(Membership::Member | Membership::Leader)
        );
        if !fresh || inside || self.tickets.iter().any(|(held, _)| *held == id) {
            return;
        }
        if self.tickets.len() == MAX_TICKETS {
            mark("group-tickets-full");
            let (oldest, _) = self.tickets.remove(0);
            self.effects.delete(Table::Groups, rows::ticket_key(oldest));
        }
        let bytes = ticket.to_bytes();
        self.effects
            .put(Table::Groups, rows::ticket_key(id), bytes.clone());
        self.tickets.push((id, bytes));
        let asks = self.groups.get(&id).and_then(|g| g.record.asking.as_ref());
        if asks.is_some_and(|asking| asking.stage.is_pending()) {
            mark("group-invite-crosses-knock");
            self.resend(id, now);
            return;
        }
        self.effects.emit_gated(GroupEvent::Invited {
            group: id,
            name,
            by: from.user.clone(),
        });
    }

    /// The invitation to `group` that we hold, or nothing.
    pub(super) fn ticket(&self, group: GroupId) -> BoundedBytes<128> {
        let held = self.tickets.iter().find(|(id, _)| *id == group);
        let bytes = held.map_or_else(Vec::new, |(_, ticket)| ticket.clone());
        bytes.try_into().expect("a ticket has 112 bytes")
    }

    /// An invitation is used up once we are in.
    pub(super) fn drop_ticket(&mut self, group: GroupId) {
        if let Some(at) = self.tickets.iter().position(|(id, _)| *id == group) {
            self.tickets.remove(at);
            self.effects.delete(Table::Groups, rows::ticket_key(group));
        }
    }

    /// True when this ticket lets `from` in without a question.
    pub(super) fn is_invited(&self, id: GroupId, from: &Sender, ticket: &[u8], now: Now) -> bool {
        let Some(ticket) = Ticket::from_bytes(ticket) else {
            return false;
        };
        let Some(chain) = self.chain(id) else {
            return false;
        };
        let inviter = ticket.key.device();
        let mut gone = chain.roster.gone.values();
        let removed = gone.any(|gone| {
            gone.user == from.user && gone.way == Way::Kicked && gone.until > ticket.index
        });
        ticket.until > now.wall
            && chain.leader_at(ticket.index) == Some(inviter)
            && chain.roster.seats.contains_key(&inviter)
            && !removed
            && ticket.holds(id, &from.user, &*self.verifier)
    }
}
