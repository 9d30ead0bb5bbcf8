//! Requests and sessions on a stage.

use chat_core::Event;
use chat_core::channel::Channel;
use chat_core::id::{ConvId, InviteId};
use chat_core::session::{CloseReason, SessionEvent, SessionState};

use super::Stage;
use crate::suite::world::{Answer, Command, Node, World};

impl<W: World> Stage<W> {
    /// Makes a request, whether or not it arrives.
    pub async fn request(&mut self, from: Node, to: Node) -> InviteId {
        let command = Command::Request {
            peer: self.user(to),
            note: "hello?".to_owned(),
        };
        match self.ask(from, command).await {
            Answer::Invite(invite) => invite,
            other => panic!("a request gave {other:?}"),
        }
    }

    /// A request from `from`, shown to `to`.
    pub async fn requested(&mut self, from: Node, to: Node) -> InviteId {
        let invite = self.request(from, to).await;
        assert_eq!(invite, self.shown(to, from).await);
        invite
    }

    /// Waits until a request from `from` is shown to `to`.
    pub async fn shown(&mut self, to: Node, from: Node) -> InviteId {
        let asker = self.user(from);
        self.expect(to, "a request", |event| match event {
            Event::Session(SessionEvent::Requested { peer, invite, .. }) if *peer == asker => {
                Some(*invite)
            }
            _ => None,
        })
        .await
    }

    /// Waits until the session with `peer` is open on `node`.
    pub async fn opened(&mut self, node: Node, peer: Node) -> ConvId {
        let other = self.user(peer);
        self.expect(node, "an open session", |event| match event {
            Event::Session(SessionEvent::Opened { peer, conv, .. }) if *peer == other => {
                Some(*conv)
            }
            _ => None,
        })
        .await
    }

    /// Waits until the session or the request with `peer` is over on `node`.
    pub async fn closed(&mut self, node: Node, peer: Node) -> CloseReason {
        let other = self.user(peer);
        self.expect(node, "the end of the session", |event| match event {
            Event::Session(SessionEvent::Closed { peer, why, .. }) if *peer == other => {
                Some(why.clone())
            }
            _ => None,
        })
        .await
    }

    /// Waits until a request that was shown on `node` is off the table.
    pub async fn withdrawn(&mut self, node: Node, invite: InviteId) -> CloseReason {
        self.expect(node, "the withdrawal", |event| match event {
            Event::Session(SessionEvent::Withdrawn {
                invite: gone, why, ..
            }) if *gone == invite => Some(why.clone()),
            _ => None,
        })
        .await
    }

    /// An open session between two nodes.
    pub async fn chat(&mut self, a: Node, b: Node) -> ConvId {
        let invite = self.requested(a, b).await;
        self.ask(b, Command::Accept(invite)).await;
        let conv = self.opened(a, b).await;
        assert_eq!(
            conv,
            self.opened(b, a).await,
            "both sides name the conversation alike"
        );
        conv
    }

    /// The private channel of the session between `node` and `peer`.
    pub async fn channel(&mut self, node: Node, peer: Node) -> Channel {
        let other = self.user(peer);
        match self.world.session(node, &other).await {
            SessionState::Active { channel, .. } => channel,
            state => panic!("{node:?} has no session with {other}: {state:?}"),
        }
    }
}

/// True for a prompt.
pub(crate) fn is_prompt(event: &Event) -> bool {
    matches!(event, Event::Session(SessionEvent::Requested { .. }))
}
