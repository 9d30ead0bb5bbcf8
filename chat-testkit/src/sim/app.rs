//! The application on each node: it answers requests, acknowledges messages, trusts devices that
//! the directory names, all after human or machine delays.

use chat_core::delivery::DeliveryEvent;
use chat_core::event::IdentityEvent;
use chat_core::group::{GroupError, GroupEvent};
use chat_core::link::LinkState;
use chat_core::session::{Rejection, SessionEvent};
use chat_core::{Endpoint, Event};

use super::event::{Input, Reaction};
use super::swarm::Suite;
use super::world::{MS, World};
use crate::oracle::Act;

impl World {
    /// What every application does at its start: trust the directory, enter the lobby, connect.
    pub(super) fn boot_app(&mut self, n: usize) {
        let mut devices = Vec::new();
        for node in &self.nodes {
            let several = self
                .nodes
                .iter()
                .filter(|other| other.user == node.user)
                .count()
                > 1;
            if (several || node.replaced) && node.device != self.nodes[n].device {
                devices.push((node.user.clone(), node.device));
            }
        }
        for (user, device) in devices {
            self.command(
                n,
                |endpoint, now| endpoint.trust(&user, device, now),
                |_, ()| {},
            );
        }
        if self.swarm.suite == Suite::Presence {
            let lobby = self.lobby.clone();
            self.command(
                n,
                |endpoint, now| endpoint.enter_lobby(&lobby, now),
                |_, ()| {},
            );
            if self.swarm.feature(1) {
                let me = self.nodes[n].user.clone();
                let mut users: Vec<_> = self.nodes.iter().map(|node| node.user.clone()).collect();
                users.retain(|user| *user != me);
                for user in users {
                    self.command(n, |endpoint, now| endpoint.watch(&user, now), |_, ()| {});
                }
            }
        }
        if self.nodes[n].wanted {
            self.connect(n);
        }
    }

    pub(super) fn connect(&mut self, n: usize) {
        self.nodes[n].wanted = true;
        self.command(
            n,
            |endpoint, now| endpoint.connect(now),
            |world, ()| world.act(n, &Act::Connect),
        );
    }

    /// The application was told something; perhaps it does something about it.
    pub(super) fn told(&mut self, n: usize, event: Event) {
        let delivering = self.swarm.suite == Suite::Delivery;
        match event {
            Event::Link(LinkState::Failed { .. }) => self.later(n, 1_000, Reaction::Connect),
            Event::Session(SessionEvent::Requested { invite, .. }) => {
                let answer = match self.app.below(100) {
                    _ if delivering => Reaction::Accept(invite),
                    0..15 if self.swarm.feature(5) => Reaction::Reject(invite, Rejection::Silent),
                    15..30 if self.swarm.feature(6) => {
                        let reason = "no, thank you".to_owned();
                        Reaction::Reject(invite, Rejection::Told { reason })
                    }
                    30..45 if self.swarm.feature(7) => return,
                    _ => Reaction::Accept(invite),
                };
                self.later(n, 1_500, answer);
            }
            Event::Delivery(DeliveryEvent::Received(received)) => {
                let conv = received.id.stream.conv;
                if self.app.chance(900) {
                    self.later(n, 200, Reaction::Acknowledge(conv, received.pos));
                }
                if self.app.chance(200) {
                    self.later(n, 2_000, Reaction::MarkRead(conv, received.sort));
                }
            }
            Event::Delivery(DeliveryEvent::Wedged { id, .. }) => {
                let gives_up = self.faulty && self.app.chance(250);
                let decision = if gives_up {
                    Reaction::GiveUp(id)
                } else {
                    Reaction::Retry(id)
                };
                self.later(n, 2_000, decision);
            }
            Event::Group(GroupEvent::JoinRequested { group, request }) => {
                let denied = !delivering && self.swarm.feature(8) && self.app.chance(200);
                let answer = if denied {
                    Reaction::Deny(group, request.request)
                } else {
                    Reaction::Approve(group, request.request)
                };
                self.later(n, 500, answer);
            }
            Event::Group(GroupEvent::LeadOffered { group, .. }) => {
                let yes = self.app.chance(800);
                self.later(n, 1_000, Reaction::AnswerOffer(group, yes));
            }
            Event::Identity(IdentityEvent::KeyChanged { user, device, .. })
                if self
                    .nodes
                    .iter()
                    .any(|node| node.device == device && node.user == user) =>
            {
                self.later(n, 1_000, Reaction::Trust(user, device));
            }
            _ => {}
        }
    }

    /// The application does this in about `mean_ms`.
    pub(super) fn later(&mut self, n: usize, mean_ms: u64, reaction: Reaction) {
        let at = self.now + self.app.exponential(mean_ms * MS);
        self.push_input(at, n, Input::React(reaction));
    }

    /// An answer that a leader cannot give now is given again.
    fn ask_again(&mut self, n: usize, result: Option<Result<(), GroupError>>, reaction: Reaction) {
        if let Some(Err(GroupError::Offline | GroupError::HandingOver | GroupError::NoMajority)) =
            result
        {
            self.later(n, 2_000, reaction);
        }
    }

    pub(super) fn react(&mut self, n: usize, reaction: Reaction) {
        self.note(&[12, n as u64], || format!("n{n} app: {reaction:?}"));
        match reaction {
            Reaction::Connect => self.connect(n),
            Reaction::Accept(invite) => {
                self.command(
                    n,
                    |endpoint, now| endpoint.accept(invite, now),
                    |world, result| {
                        if result.is_ok() {
                            world.act(n, &Act::Accept { invite });
                        }
                    },
                );
            }
            Reaction::Reject(invite, how) => {
                self.command(
                    n,
                    |endpoint, now| endpoint.reject(invite, &how, now),
                    |world, result| {
                        if result.is_ok() {
                            let silent = how == Rejection::Silent;
                            world.act(n, &Act::Reject { invite, silent });
                        }
                    },
                );
            }
            Reaction::Acknowledge(conv, pos) => {
                self.command(
                    n,
                    |endpoint, now| endpoint.acknowledge(conv, pos, now),
                    |_, ()| {},
                );
            }
            Reaction::MarkRead(conv, sort) => {
                self.command(
                    n,
                    |endpoint, now| endpoint.mark_read(conv, sort, now),
                    |_, ()| {},
                );
            }
            Reaction::Approve(group, request) => {
                let result = self.command(n, |e, now| e.approve(group, request, now), |_, _| {});
                self.ask_again(n, result, Reaction::Approve(group, request));
            }
            Reaction::Deny(group, request) => {
                let deny = |e: &mut Endpoint, now| e.deny(group, request, "full", now);
                let result = self.command(n, deny, |_, _| {});
                self.ask_again(n, result, Reaction::Deny(group, request));
            }
            Reaction::AnswerOffer(group, yes) => {
                self.command(n, |e, now| e.answer_offer(group, yes, now), |_, _| {});
            }
            Reaction::Retry(id) => {
                self.command(n, |e, now| e.retry_send(&id, now), |_, _| {});
            }
            Reaction::GiveUp(id) => self.give_up(n, id),
            Reaction::Trust(user, device) => {
                self.command(
                    n,
                    |endpoint, now| endpoint.trust(&user, device, now),
                    |_, ()| {},
                );
            }
        }
    }
}
