//! Groups on a stage.

use std::time::Duration;

use chat_core::Event;
use chat_core::event::GroupEvent;
use chat_core::group::{Change, GroupView, Membership};
use chat_core::id::{ConvId, GroupId, GroupName, RequestId, UserId};
use chat_core::presence::RoomPresence;

use super::{GLANCE, Stage};
use crate::suite::world::{Answer, Command, Node, World};

impl<W: World> Stage<W> {
    /// A new group that `node` leads.
    pub async fn create(&mut self, node: Node, called: &str) -> GroupId {
        match self
            .ask(node, Command::CreateGroup(group_name(called)))
            .await
        {
            Answer::Group(group) => group,
            other => panic!("a group gave {other:?}"),
        }
    }

    /// Asks to join, whether or not that arrives.
    pub async fn knock(&mut self, node: Node, group: GroupId) -> RequestId {
        let note = "let me in".to_owned();
        match self.ask(node, Command::Join { group, note }).await {
            Answer::Request(request) => request,
            other => panic!("a join gave {other:?}"),
        }
    }

    /// Waits until `leader` is shown the request of `node`.
    pub async fn knocked(&mut self, leader: Node, group: GroupId, node: Node) -> RequestId {
        let who = self.user(node);
        self.group_event(leader, group, "a join request", |event| match event {
            GroupEvent::JoinRequested { request, .. } if request.user == who => {
                Some(request.request)
            }
            _ => None,
        })
        .await
    }

    /// `node` gets into `group`.
    pub async fn admit(&mut self, leader: Node, group: GroupId, node: Node) {
        self.knock(node, group).await;
        let request = self.knocked(leader, group, node).await;
        self.ask(leader, Command::Approve(group, request)).await;
        self.joined(node, group).await;
    }

    /// Waits until `node` is in.
    pub async fn joined(&mut self, node: Node, group: GroupId) {
        self.group_event(node, group, "being let in", |event| {
            matches!(event, GroupEvent::Joined { .. }).then_some(())
        })
        .await;
    }

    /// A group of all `nodes`, led by the first, in which everybody knows everybody.
    pub async fn group(&mut self, nodes: &[Node]) -> (GroupId, ConvId) {
        let group = self.create(nodes[0], "friends").await;
        for node in &nodes[1..] {
            self.admit(nodes[0], group, *node).await;
        }
        for node in nodes {
            self.counts(*node, group, nodes.len()).await;
        }
        (group, ConvId::from(group))
    }

    /// Waits until `node` is asked to lead; returns who asks.
    pub async fn offered(&mut self, node: Node, group: GroupId) -> UserId {
        self.group_event(node, group, "an offer to lead", |event| match event {
            GroupEvent::LeadOffered { by, .. } => Some(by.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for an event of `group` on `node`.
    pub async fn group_event<T>(
        &mut self,
        node: Node,
        group: GroupId,
        what: &str,
        mut pick: impl FnMut(&GroupEvent) -> Option<T>,
    ) -> T {
        self.expect(node, what, |event| match event {
            Event::Group(event) if event.group() == group => pick(event),
            _ => None,
        })
        .await
    }

    /// Waits until `node` is told of a change.
    pub async fn changes(&mut self, node: Node, group: GroupId, wanted: &Change) {
        let what = format!("{wanted:?}");
        self.group_event(node, group, &what, |event| match event {
            GroupEvent::Changed { change, .. } if change == wanted => Some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until `group` looks on `node` as `wanted` says.
    pub async fn looks(
        &mut self,
        node: Node,
        group: GroupId,
        what: &str,
        wanted: impl Fn(&GroupView) -> bool,
    ) -> GroupView {
        let mut waited = Duration::ZERO;
        loop {
            let view = self.world.group(node, group).await;
            if let Some(view) = &view
                && wanted(view)
            {
                return view.clone();
            }
            assert!(
                waited < self.patience,
                "{node:?} waited {waited:?} for a group {what}: {view:#?}"
            );
            self.world.wait(GLANCE).await;
            waited += GLANCE;
        }
    }

    /// Waits until `node` counts so many members, itself among them.
    pub async fn counts(&mut self, node: Node, group: GroupId, members: usize) -> GroupView {
        let what = format!("of {members}");
        self.looks(node, group, &what, |view| view.roster.len() == members)
            .await
    }

    /// Waits until who is here of `group` looks on `node` as `wanted` says.
    pub async fn company(
        &mut self,
        node: Node,
        group: GroupId,
        what: &str,
        wanted: impl Fn(&RoomPresence) -> bool,
    ) -> RoomPresence {
        let mut waited = Duration::ZERO;
        loop {
            let view = self.world.company(node, group).await;
            if let Some(view) = &view
                && wanted(view)
            {
                return view.clone();
            }
            assert!(
                waited < self.patience,
                "{node:?} waited {waited:?} for a company {what}: {view:#?}"
            );
            self.world.wait(GLANCE).await;
            waited += GLANCE;
        }
    }

    /// Waits until `node` stands in `group` like that.
    pub async fn stands(&mut self, node: Node, group: GroupId, mine: Membership) {
        let what = format!("in which it is {mine:?}");
        self.looks(node, group, &what, |view| view.mine == mine)
            .await;
    }

    /// Waits until `node` knows that `leader` leads.
    pub async fn led_by(&mut self, node: Node, group: GroupId, leader: Node) {
        let who = self.user(leader);
        let what = format!("led by {who}");
        self.looks(node, group, &what, |view| {
            view.leader.as_ref() == Some(&who)
        })
        .await;
    }
}

/// A valid name.
pub(crate) fn group_name(called: &str) -> GroupName {
    GroupName::new(called).expect("scenario names are valid")
}
