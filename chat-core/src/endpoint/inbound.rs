//! Frames from the transport: checked in the order that costs least, then routed.
//!
//! length and header → our own echo → budget → signature → body → whose key → which machine.

use super::Endpoint;
use crate::channel::Channel;
use crate::delivery::Standing;
use crate::event::Fault;
use crate::group::Verdict;
use crate::id::{ConvId, GroupId};
use crate::identity::{Sender, Standing as KeyStanding};
use crate::link::LinkState;
use crate::slots::Slot;
use crate::time::{Now, Timestamp};
use crate::wire::{self, Body, DecodeError};

impl Endpoint {
    /// Bytes that arrived on `channel`. `live` is false for a stored last value of unknown age.
    pub fn handle_inbound(&mut self, channel: &Channel, bytes: &[u8], live: bool, now: Timestamp) {
        let now = self.clock.read(now);
        self.stats.frames_in += 1;
        self.link.handle_traffic(now);
        if let Err((from, fault)) = self.receive(channel, bytes, live, now) {
            self.fault(from.map(|sender| sender.user), channel, fault, now);
        }
        self.settle(now);
    }

    fn receive(
        &mut self,
        channel: &Channel,
        bytes: &[u8],
        live: bool,
        now: Now,
    ) -> Result<(), (Option<Sender>, Fault)> {
        let header = wire::header(bytes).map_err(|e| (None, Fault::Decode(e)))?;
        let key = header.key;
        if key == self.signer.public_key() {
            return Ok(());
        }
        if !self.budget.allow(&key, now.mono) {
            return Err((None, Fault::Flood));
        }
        let opened = wire::open(header, channel, &*self.verifier);
        // Only what nobody signed is charged to nobody: a key pays for junk that it did sign.
        if matches!(opened, Err(DecodeError::BadSignature)) {
            self.budget.charge_junk(now.mono);
        } else {
            self.budget.charge(&key, now.mono);
        }
        let opened = opened.map_err(|error| (None, Fault::Decode(error)))?;
        let from = match self.pins.handle_claim(&opened.key, &opened.user, now) {
            KeyStanding::Trusted(sender) => sender,
            KeyStanding::Refused => return Err((None, Fault::Untrusted)),
        };
        let own = matches!(opened.body, Body::OwnHello(_) | Body::Blocks(_))
            && *channel == Channel::Inbox(self.me.user.clone());
        let fits = if own {
            self.handle_own(&opened.key, &from, &opened.body, now)
        } else {
            self.route(channel, &from, &opened.body, live, now)
        };
        if !fits {
            return Err((Some(from), Fault::Misplaced));
        }
        // Before the backlog is in, a frame may be days old and says nothing about now.
        if *self.link.state() == LinkState::CaughtUp && !matches!(opened.body, Body::Presence(_)) {
            self.presence.handle_sign_of_life(&from, now);
        }
        Ok(())
    }

    /// False when the frame does not belong where it came from.
    fn route(
        &mut self,
        channel: &Channel,
        from: &Sender,
        body: &Body,
        live: bool,
        now: Now,
    ) -> bool {
        let blocked = self.sessions.is_blocked(&from.user);
        match channel {
            Channel::Inbox(user) if *user == self.me.user => {
                self.route_inbox(from, body, blocked, now)
            }
            Channel::Conv(_) => {
                // A blocked peer's traffic vanishes without a trace (S5).
                blocked || self.route_conv(channel, from, body, now)
            }
            Channel::Group(group) => self.route_group(*group, from, body, now),
            Channel::Presence(user) => match body {
                Body::Presence(record) if from.user == *user => {
                    if !blocked {
                        self.presence.handle_record(from, record, live, now);
                    }
                    true
                }
                _ => false,
            },
            Channel::Lobby(lobby) => match body {
                Body::Presence(record) => {
                    if !blocked {
                        self.presence.handle_record(from, record, live, now);
                    }
                    true
                }
                Body::Seek(seek) => {
                    if seek.people && !blocked {
                        self.presence.handle_seek(channel, now);
                    }
                    self.lobbies.handle_seek(lobby, seek, now);
                    true
                }
                Body::GroupCard(card) => {
                    self.lobbies.handle_card(lobby, from, card, now);
                    true
                }
                _ => false,
            },
            Channel::Inbox(_) => false,
        }
    }

    fn route_inbox(&mut self, from: &Sender, body: &Body, blocked: bool, now: Now) -> bool {
        match body {
            Body::Request(_)
            | Body::Accept(_)
            | Body::Confirm(_)
            | Body::Reject(_)
            | Body::Cancel(_)
            | Body::Gone(_)
            | Body::Elsewhere(_)
            | Body::Close(_)
            | Body::CloseAck(_) => self.sessions.handle_frame(from, body, now),
            Body::Ack(ack) => {
                if !blocked {
                    self.delivery.handle_ack(from, ack, now);
                }
                true
            }
            Body::Retired(retired) => {
                self.delivery.handle_retired(from, retired, now);
                true
            }
            Body::GroupAck(_)
            | Body::Entries(_)
            | Body::Fetch(_)
            | Body::JoinAnswer(_)
            | Body::Propose(_)
            | Body::Offer(_)
            | Body::Removed(_)
            | Body::Support(_)
            | Body::Refuse(_) => {
                self.groups.handle_frame(from, body, now);
                true
            }
            // Whom we blocked cannot invite us (S5).
            Body::GroupInvite(_) if blocked => true,
            Body::GroupInvite(_) => {
                self.groups.handle_frame(from, body, now);
                true
            }
            _ => false,
        }
    }

    fn route_conv(&mut self, channel: &Channel, from: &Sender, body: &Body, now: Now) -> bool {
        let conv = match body {
            Body::Data(data) => ConvId(data.conv),
            Body::Hello(hello) => ConvId(hello.conv),
            Body::Typing(typing) => ConvId(typing.conv),
            _ => return false,
        };
        let topic = self.private.get(channel).copied();
        let ours = topic
            .filter(|at| *self.topics.key(*at) == conv && self.topics[*at].peer == from.user)
            .filter(|_| self.sessions.is_joined(from));
        let Some(topic) = ours else {
            self.sessions.handle_stray(from, conv, now);
            return true;
        };
        match body {
            Body::Data(data) => {
                self.retire_former_topic(topic, channel, now);
                self.delivery
                    .handle_data(from, data, Standing::Current, now);
            }
            Body::Hello(hello) => self.delivery.handle_hello(from, hello, now),
            Body::Typing(typing) => self.delivery.handle_typing(from, typing, now),
            _ => {}
        }
        true
    }

    /// The peer writes on the new channel: the one it replaced is not needed any more (S10).
    fn retire_former_topic(&mut self, topic: Slot<ConvId>, channel: &Channel, now: Now) {
        let topic = &mut self.topics[topic];
        if topic.current == *channel
            && let Some(former) = topic.former.take()
        {
            self.drop_channel(&former, now);
        }
    }

    fn route_group(&mut self, group: GroupId, from: &Sender, body: &Body, now: Now) -> bool {
        let here = |conv: &[u8; 32]| GroupId(*conv) == group;
        match body {
            Body::Data(data) if here(&data.conv) => {
                match self.groups.judge(group, from, data.roster, now) {
                    Verdict::Take(standing) => self.delivery.handle_data(from, data, standing, now),
                    // Not acknowledged: it comes again when the log is here.
                    Verdict::NotYet => {}
                    Verdict::Stranger => return false,
                }
                true
            }
            Body::Hello(hello) if here(&hello.conv) => {
                let member = self.groups.is_member(group, from);
                if member {
                    self.delivery.handle_hello(from, hello, now);
                }
                member
            }
            Body::Typing(typing) if here(&typing.conv) => {
                let member = self.groups.is_member(group, from);
                if member {
                    self.delivery.handle_typing(from, typing, now);
                }
                member
            }
            Body::Company(word) if here(&word.group) => {
                let reigns = self.groups.leader(group) == Some(from.device);
                if reigns && !self.sessions.is_blocked(&from.user) {
                    self.company.handle_word(group, word, now.mono);
                }
                reigns || self.groups.is_member(group, from)
            }
            Body::GroupBeat(_)
            | Body::Entries(_)
            | Body::JoinReq(_)
            | Body::Fetch(_)
            | Body::Propose(_)
            | Body::GroupAck(_)
            | Body::Offer(_)
            | Body::JoinAnswer(_)
            | Body::Canvass(_) => {
                self.groups.handle_frame(from, body, now);
                true
            }
            _ => false,
        }
    }
}
