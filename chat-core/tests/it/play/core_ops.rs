//! One endpoint and everything that can come to it: commands, frames of friends and enemies,
//! reports on the connection, time, a dying process.

use std::sync::Arc;
use std::time::Duration;

use chat_core::channel::{Channel, TopicId};
use chat_core::content::Content;
use chat_core::delivery::{DeliveryEvent, SortKey};
use chat_core::event::{GroupEvent, SessionEvent};
use chat_core::id::{ConvId, GroupId, GroupName, InviteId, MessageId, RequestId, TxnId, UserId};
use chat_core::link::{DownReason, LinkEvent};
use chat_core::presence::Status;
use chat_core::session::Rejection;
use chat_core::time::{Timestamp, UnixMillis};
use chat_core::{Event, wire};

use super::Script;
use super::node::{MEETING, Node, lobby, user};
use crate::entries::{AcceptAll, Checksum, Keyed};
use crate::fill::{BUILDERS, Entropy};

/// Inputs of one play.
const MAX_INPUTS: usize = 400;
const NAMES: [&str; 12] = [
    "ann", "ann", "ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida", "jon",
];
const STEPS: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(20),
    Duration::from_millis(300),
    Duration::from_secs(2),
    Duration::from_secs(11),
    Duration::from_secs(90),
    Duration::from_secs(3_600),
    Duration::from_secs(86_400),
    Duration::from_secs(40 * 86_400),
];

/// What the endpoint named in its events, to be used in commands.
#[derive(Default)]
struct Names {
    invites: Vec<InviteId>,
    requests: Vec<(GroupId, RequestId)>,
    messages: Vec<MessageId>,
    inbox: Vec<(ConvId, u64, SortKey)>,
}

impl Names {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Session(SessionEvent::Requested { invite, .. }) => self.invites.push(*invite),
            Event::Group(GroupEvent::JoinRequested { group, request }) => {
                self.requests.push((*group, request.request));
            }
            Event::Delivery(DeliveryEvent::Accepted { id, .. }) => self.messages.push(*id),
            Event::Delivery(DeliveryEvent::Received(message)) => {
                let conv = message.id.stream.conv;
                self.inbox.push((conv, message.pos, message.sort));
            }
            _ => {}
        }
    }
}

struct Play<'a> {
    script: Script<'a>,
    node: Node,
    names: Names,
    now: Timestamp,
}

/// Any sequence of inputs: nothing panics, what is due comes to rest, every limit holds, and what
/// was written opens again.
pub(crate) fn core_ops(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let disk = script.pick(&MEETING.bob).expect("there are some").clone();
    let verifier: Arc<dyn chat_core::identity::Verifier> = if script.flag() {
        Arc::new(Checksum)
    } else {
        Arc::new(AcceptAll)
    };
    let now = Timestamp::from_secs(100);
    let mut play = Play {
        script,
        node: Node::new("bob", 2, verifier, disk, now),
        names: Names::default(),
        now,
    };
    for _ in 0..MAX_INPUTS {
        if play.script.is_over() {
            break;
        }
        play.input();
        play.node.settle(play.now);
        for event in std::mem::take(&mut play.node.events) {
            play.names.note(&event);
        }
        play.node.frames.clear();
    }
    play.node.restart(play.now);
}

impl Play<'_> {
    fn input(&mut self) {
        match self.script.byte() % 16 {
            0..=2 => {
                if let Some((channel, frame)) = self.script.pick(&MEETING.frames) {
                    let live = self.script.flag();
                    self.arrive(channel, frame, live);
                }
            }
            3 | 4 => {
                if let Some((channel, frame)) = self.script.pick(&MEETING.frames) {
                    let frame = self.script.hurt(frame);
                    self.arrive(channel, &frame, true);
                }
            }
            5..=7 => self.stranger(),
            8 => self.link(),
            9 | 10 => {
                let step = *self.script.pick(&STEPS).expect("there are some");
                self.now = self.now + step;
            }
            11 => match self.script.byte() % 8 {
                0 => self.node.restart(self.now),
                1 => self.node.stalled ^= true,
                2 => self.node.network ^= true,
                3 => {
                    let wall = u64::from(self.script.byte()) << 36;
                    let now = self.now;
                    self.node.endpoint.handle_wall(UnixMillis(wall), now);
                }
                // A clock that steps back.
                4 => {
                    let earlier = self.now.saturating_sub(Duration::from_secs(5));
                    self.node.endpoint.handle_timeout(earlier);
                }
                _ => {
                    let (channel, bytes) = (self.channel(), self.script.bytes());
                    self.arrive(&channel, bytes, true);
                }
            },
            12 | 13 => self.chat(),
            14 => self.group(),
            _ => self.presence(),
        }
    }

    fn arrive(&mut self, channel: &Channel, frame: &[u8], live: bool) {
        let now = self.now;
        self.node.endpoint.handle_inbound(channel, frame, live, now);
    }

    fn user(&mut self) -> UserId {
        user(self.script.pick(&NAMES).expect("there are some"))
    }

    fn channel(&mut self) -> Channel {
        match self.script.byte() % 6 {
            0 => Channel::Inbox(user("bob")),
            1 => Channel::Presence(self.user()),
            2 => Channel::Lobby(lobby()),
            3 => Channel::Conv(TopicId([self.script.byte(); 16])),
            _ => {
                let known = self.script.pick(&self.node.channels).cloned();
                known.unwrap_or(Channel::Inbox(user("bob")))
            }
        }
    }

    /// A frame that somebody made up and signed.
    fn stranger(&mut self) {
        let build = *self.script.pick(BUILDERS).expect("there are some");
        let channel = self.channel();
        let (name, key) = (self.user(), self.script.byte() % 8);
        let body = build(&mut Entropy(self.script.bytes()));
        // What does not fit a frame does not come.
        if let Ok(frame) = wire::encode(&body, &name, &channel, &Keyed(key)) {
            let live = self.script.flag();
            self.arrive(&channel, &frame, live);
        }
    }

    fn link(&mut self) {
        let event = match self.script.byte() % 8 {
            0 => LinkEvent::Up {
                resumed: self.script.flag(),
                marks_backlog: self.script.flag(),
            },
            1 => LinkEvent::Down {
                reason: match self.script.byte() % 6 {
                    0 => DownReason::TimedOut,
                    1 => DownReason::Refused("no".into()),
                    2 => DownReason::Conflict,
                    3 => DownReason::TryLater,
                    _ => DownReason::Lost,
                },
                retry_after: self.script.flag().then_some(Duration::from_secs(7)),
            },
            2 => LinkEvent::Subscribed(self.channel()),
            3 => LinkEvent::SubscribeRefused(self.channel()),
            4 => LinkEvent::Gap(self.channel()),
            5 => LinkEvent::Reachable,
            6 if self.script.flag() => return self.node.endpoint.disconnect(self.now),
            6 => return self.node.endpoint.connect(self.now),
            _ => LinkEvent::CaughtUp,
        };
        self.node.endpoint.handle_link(&event, self.now);
    }

    fn conv(&mut self) -> ConvId {
        match self.script.byte() % 4 {
            0 => ConvId::between(&user("bob"), &self.user()),
            1 => ConvId([self.script.byte(); 32]),
            2 => ConvId::from(self.a_group()),
            _ => ConvId::between(&user("bob"), &user("ann")),
        }
    }

    fn a_group(&mut self) -> GroupId {
        let made_up = GroupId([self.script.byte(); 32]);
        let known = self.node.endpoint.groups();
        self.script.pick(&known).copied().unwrap_or(made_up)
    }

    fn invite(&mut self) -> InviteId {
        let made_up = InviteId([self.script.byte(); 16]);
        self.script
            .pick(&self.names.invites)
            .copied()
            .unwrap_or(made_up)
    }

    /// Refusals are answers like any other: only panics and broken promises count.
    fn chat(&mut self) {
        let now = self.now;
        match self.script.byte() % 16 {
            0 => {
                let peer = self.user();
                let _ = self.node.endpoint.request(&peer, "hello", now);
            }
            1 | 2 => {
                let invite = self.invite();
                let _ = self.node.endpoint.accept(invite, now);
            }
            3 => {
                let (invite, reason) = (self.invite(), "no".to_owned());
                let how = Rejection::Told { reason };
                let _ = self.node.endpoint.reject(invite, &how, now);
            }
            4 => {
                let invite = self.invite();
                let _ = self.node.endpoint.cancel(invite, now);
            }
            5 => {
                let peer = self.user();
                let _ = self.node.endpoint.close_session(&peer, "bye", now);
            }
            6 => {
                let peer = self.user();
                match self.script.flag() {
                    true => self.node.endpoint.block(&peer, now),
                    false => self.node.endpoint.unblock(&peer, now),
                }
            }
            7 => {
                if let Some(id) = self.script.pick(&self.names.messages) {
                    self.node.endpoint.cancel_send(id, now);
                }
            }
            8 => {
                if let Some((conv, _, sort)) = self.script.pick(&self.names.inbox) {
                    self.node.endpoint.mark_read(*conv, *sort, now);
                }
            }
            9 => {
                if let Some((conv, pos, _)) = self.script.pick(&self.names.inbox) {
                    self.node.endpoint.acknowledge(*conv, *pos, now);
                }
            }
            10 => {
                let (conv, pos) = (self.conv(), u64::from(self.script.byte()));
                self.node.endpoint.acknowledge(conv, pos, now);
            }
            11 => {
                let (conv, active) = (self.conv(), self.script.flag());
                self.node.endpoint.set_typing(conv, active, now);
            }
            _ => {
                let (conv, txn) = (self.conv(), TxnId([self.script.byte(); 16]));
                let text = "x".repeat(usize::from(self.script.byte()) * 8);
                let _ = self.node.endpoint.send(conv, txn, Content::text(text), now);
            }
        }
    }

    fn group(&mut self) {
        let now = self.now;
        let (group, peer) = (self.a_group(), self.user());
        let request = self.script.pick(&self.names.requests).copied();
        let (of, request) = request.unwrap_or((group, RequestId([1; 16])));
        let endpoint = &mut self.node.endpoint;
        let name = GroupName::new("again").expect("a valid name");
        let _ = match self.script.byte() % 13 {
            0 => endpoint.create_group(&name, now).map(drop),
            1 => endpoint.join(group, "me too", now).map(drop),
            2 => endpoint.withdraw(group, now),
            3..=5 => endpoint.approve(of, request, now),
            6 => endpoint.deny(of, request, "no", now),
            7 => endpoint.kick(group, &peer, "out", now),
            8 => endpoint.leave(group, now),
            9 => endpoint.hand_over(group, &peer, now),
            10 => endpoint.answer_offer(group, self.script.flag(), now),
            11 => endpoint.rename_group(group, &name, now),
            _ => endpoint.plan_leave(group).map(drop),
        };
    }

    fn presence(&mut self) {
        let (now, peer) = (self.now, self.user());
        let endpoint = &mut self.node.endpoint;
        match self.script.byte() % 8 {
            0 => endpoint.set_presence(Status::Away, "lunch", Some(Duration::from_secs(60)), now),
            1 => endpoint.set_presence(Status::Active, "", None, now),
            2 => endpoint.touch(now),
            3 => endpoint.watch(&peer, now),
            4 => endpoint.unwatch(&peer, now),
            5 => endpoint.enter_lobby(&lobby(), now),
            6 => endpoint.exit_lobby(&lobby(), now),
            _ => {
                let device =
                    chat_core::identity::Signer::public_key(&Keyed(self.script.byte() % 8));
                endpoint.trust(&peer, device.device(), now);
            }
        }
    }
}
