//! Sessions: consent, silence, blocks and agreement (S1–S8), from commands, told events and the
//! addresses of frames.

use std::collections::{BTreeMap, BTreeSet};

use chat_core::channel::Channel;
use chat_core::event::Event;
use chat_core::id::{DeviceId, InviteId, UserId};
use chat_core::session::{CloseReason, SessionEvent, SessionState};
use chat_core::{Transmit, wire};

use super::{Act, At, Marks, Seen, Verdict, View, Violation};

/// How long a command may take to become durable: the slowest disk, with room.
const SOFT: u64 = 90_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Sessions {
    invites: BTreeMap<InviteId, (UserId, UserId)>,
    /// The device said yes to the user and did not take it back.
    consent: BTreeSet<(usize, UserId)>,
    /// The first user said yes to the second at some time.
    ever: BTreeSet<(UserId, UserId)>,
    /// The only word of this device to this user was a silent no.
    silent: BTreeSet<(usize, UserId)>,
    spoke: BTreeSet<(usize, UserId)>,
    blocked: BTreeMap<(usize, UserId), u64>,
    /// Consents taken back, with the time: a crash may undo that.
    withdrawn: Vec<(u64, usize, UserId)>,
    /// Devices on which a user was refused in silence or blocked: the other side is never told.
    shut_out: BTreeSet<(usize, UserId)>,
    /// For everybody that a device ever shut out: the devices with which it was in a session since.
    met_since: BTreeMap<(usize, UserId), BTreeSet<DeviceId>>,
    /// Devices on which a user was ever refused: its later requests wait for the cool-down.
    refused: BTreeSet<(usize, UserId)>,
    /// Requests that were told cancelled.
    cancelled: BTreeSet<(usize, InviteId)>,
    channels: BTreeMap<Channel, BTreeSet<UserId>>,
    damaged: BTreeSet<usize>,
    marks: Marks,
}

impl Sessions {
    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        self.marks.list()
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// A session without consent, or a frame that should not exist.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::Act(act) => self.act(at, act),
            Seen::Transmit(transmit) => return self.transmit(at, transmit),
            // What is told may have waited for a disk: consent is judged when it was decided.
            Seen::Queued(Event::Session(event)) => return self.told(at, event),
            Seen::Died => self.died(at),
            Seen::RolledBack | Seen::DiskLost => {
                self.damaged.insert(at.node);
                self.blocked.retain(|(node, _), _| *node != at.node);
            }
            _ => {}
        }
        Ok(())
    }

    fn act(&mut self, at: At<'_>, act: &Act) {
        let me = || at.user.clone();
        match act {
            Act::Request { peer, invite } => {
                // Asking whoever asked already is an answer, and has the first request's name.
                self.invites.entry(*invite).or_insert((me(), peer.clone()));
                if self.ever.contains(&(peer.clone(), me())) {
                    self.marks.hit("oracle-glare");
                }
                self.agree(at, peer);
            }
            Act::Accept { invite } => {
                if let Some((peer, _)) = self.invites.get(invite).cloned() {
                    self.agree(at, &peer);
                }
            }
            Act::Reject { invite, silent } => {
                let Some((peer, _)) = self.invites.get(invite).cloned() else {
                    return;
                };
                self.refused.insert((at.node, peer.clone()));
                // An answer to this request takes no earlier consent back.
                if *silent {
                    self.shut(at, &peer);
                }
                if *silent && !self.spoke.contains(&(at.node, peer.clone())) {
                    self.marks.hit("oracle-silent-reject");
                    self.silent.insert((at.node, peer));
                } else {
                    self.speak(at, &peer);
                }
            }
            Act::Cancel { invite } => {
                if let Some((_, peer)) = self.invites.get(invite).cloned() {
                    self.disagree(at, &peer);
                }
            }
            Act::Close { peer } => {
                self.disagree(at, peer);
                self.speak(at, peer);
            }
            Act::Block { peer } => {
                self.marks.hit("oracle-blocked");
                self.disagree(at, peer);
                self.shut(at, peer);
                self.blocked.insert((at.node, peer.clone()), at.now);
            }
            Act::Unblock { peer } => {
                self.blocked.remove(&(at.node, peer.clone()));
                self.speak(at, peer);
            }
            _ => {}
        }
    }

    fn shut(&mut self, at: At<'_>, peer: &UserId) {
        self.shut_out.insert((at.node, peer.clone()));
        self.met_since
            .insert((at.node, peer.clone()), BTreeSet::new());
    }

    fn agree(&mut self, at: At<'_>, peer: &UserId) {
        self.consent.insert((at.node, peer.clone()));
        self.ever.insert((at.user.clone(), peer.clone()));
        self.speak(at, peer);
    }

    fn disagree(&mut self, at: At<'_>, peer: &UserId) {
        if self.consent.remove(&(at.node, peer.clone())) {
            self.withdrawn.push((at.now, at.node, peer.clone()));
        }
    }

    fn speak(&mut self, at: At<'_>, peer: &UserId) {
        self.spoke.insert((at.node, peer.clone()));
        self.silent.remove(&(at.node, peer.clone()));
    }

    /// What was commanded shortly before a crash may be forgotten.
    fn died(&mut self, at: At<'_>) {
        for (when, node, peer) in core::mem::take(&mut self.withdrawn) {
            if node == at.node && at.now - when < SOFT {
                self.consent.insert((node, peer));
            } else if at.now - when < SOFT {
                self.withdrawn.push((when, node, peer));
            }
        }
        self.cancelled.retain(|(node, _)| *node != at.node);
        self.blocked
            .retain(|(node, _), when| *node != at.node || at.now - *when > SOFT);
    }

    fn transmit(&self, at: At<'_>, transmit: &Transmit) -> Verdict {
        if self.damaged.contains(&at.node) {
            return Ok(());
        }
        let kind = wire::peek_kind(&transmit.bytes).unwrap_or(0);
        let peers: Vec<&UserId> = match &transmit.channel {
            Channel::Inbox(user) => vec![user],
            channel @ Channel::Conv(_) => {
                let users = self.channels.get(channel);
                users
                    .into_iter()
                    .flatten()
                    .filter(|user| *user != at.user)
                    .collect()
            }
            _ => return Ok(()),
        };
        for peer in peers {
            let key = (at.node, peer.clone());
            let frame = || format!("node {} sends kind {kind:#04x} to {peer}", at.node);
            if (0x10..=0x24).contains(&kind) && self.blocked.contains_key(&key) {
                return Err(Violation::new(
                    "S5",
                    format!("{}, whom it blocked", frame()),
                ));
            }
            if (0x10..=0x24).contains(&kind) && self.silent.contains(&key) {
                return Err(Violation::new(
                    "S4",
                    format!("{}, refused in silence", frame()),
                ));
            }
        }
        Ok(())
    }

    fn told(&mut self, at: At<'_>, event: &SessionEvent) -> Verdict {
        match event {
            SessionEvent::Opened {
                peer,
                channel,
                devices,
                ..
            } => {
                if let Some(met) = self.met_since.get_mut(&(at.node, peer.clone())) {
                    met.extend(devices);
                }
                self.marks.hit("oracle-opened");
                let users = self.channels.entry(channel.clone()).or_default();
                users.extend([at.user.clone(), peer.clone()]);
                self.shut_out.remove(&(at.node, peer.clone()));
                if self.damaged.contains(&at.node) {
                    return Ok(());
                }
                let both = [
                    self.consent.contains(&(at.node, peer.clone())),
                    self.ever.contains(&(peer.clone(), at.user.clone())),
                ];
                if both != [true, true] {
                    let text = format!(
                        "node {} opens a session with {peer} (consents, its own and the peer's: \
                         {both:?})",
                        at.node
                    );
                    return Err(Violation::new("S1 consent", text));
                }
            }
            SessionEvent::Requested { peer, .. }
                if self.blocked.contains_key(&(at.node, peer.clone())) =>
            {
                let text = format!("node {} is shown a request of {peer}, blocked", at.node);
                return Err(Violation::new("S5", text));
            }
            SessionEvent::Requested { peer, invite, .. } if !self.invites.contains_key(invite) => {
                let text = format!("node {} is shown a request that {peer} never made", at.node);
                return Err(Violation::new("IG12", text));
            }
            SessionEvent::Requested { invite, .. }
                if self.cancelled.contains(&(at.node, *invite)) =>
            {
                let text = format!(
                    "node {} is shown {invite:?} again after its cancel",
                    at.node
                );
                return Err(Violation::new("S2", text));
            }
            SessionEvent::Withdrawn {
                invite,
                why: CloseReason::Cancelled,
                ..
            } => {
                self.marks.hit("oracle-request-cancelled");
                self.cancelled.insert((at.node, *invite));
            }
            SessionEvent::BlockChanged { peer, blocked } => {
                let key = (at.node, peer.clone());
                if *blocked {
                    self.shut(at, peer);
                    self.blocked.insert(key, at.now);
                } else {
                    self.blocked.remove(&key);
                }
            }
            SessionEvent::Closed { .. } => self.marks.hit("oracle-session-closed"),
            _ => {}
        }
        Ok(())
    }

    /// At the end both sides see the same.
    ///
    /// # Errors
    /// The first pair that does not.
    pub fn settled(&self, nodes: &[View<'_>]) -> Result<(), Violation> {
        for a in nodes {
            for b in nodes {
                if a.at.user != b.at.user {
                    self.pair(a, b, nodes)?;
                }
            }
        }
        Ok(())
    }

    fn pair(&self, a: &View<'_>, b: &View<'_>, nodes: &[View<'_>]) -> Result<(), Violation> {
        let (me, you) = (a.at.user, b.at.user);
        let involved = |node: &&View<'_>| node.at.user == me || node.at.user == you;
        let spoilt = |node: &View<'_>| node.killed || self.damaged.contains(&node.at.node);
        // A session is between two devices: what befell their siblings excuses nothing.
        if spoilt(a) || spoilt(b) {
            return Ok(());
        }
        let missing = |what: &str| {
            let text = format!("node {} towards node {}: {what}", a.at.node, b.at.node);
            Err(Violation::new("S agreement", text))
        };
        let (Some(x), Some(y)) = (a.endpoint, b.endpoint) else {
            return missing("a process is down");
        };
        let shut_out =
            |node: &View<'_>, whom: &UserId| self.shut_out.contains(&(node.at.node, whom.clone()));
        let parted = |from: &View<'_>, to: &View<'_>| {
            let met = self.met_since.get(&(from.at.node, to.at.user.clone()));
            met.is_some_and(|met| !met.contains(&to.at.device))
        };
        if parted(a, b) || parted(b, a) {
            return Ok(());
        }
        // A request is to every device of the peer, and of glare too each may know a part.
        let clear = !nodes
            .iter()
            .filter(involved)
            .any(|node| spoilt(node) || shut_out(node, me) || shut_out(node, you));
        let theirs = nodes.iter().filter(|node| node.at.user == you);
        let single = |whose: &View<'_>| {
            let same = |node: &&View<'_>| node.at.user == whose.at.user;
            nodes.iter().filter(same).count() == 1
        };
        match (x.session(you), y.session(me)) {
            (
                SessionState::Active {
                    channel, devices, ..
                },
                state,
            ) if devices.contains(&b.at.device) => match state {
                SessionState::Active {
                    channel: other,
                    devices,
                    ..
                } if other == channel && devices.contains(&a.at.device) => Ok(()),
                state => missing(&format!("active with it, which is {state:?}")),
            },
            (SessionState::Closing, _) if clear => missing("still closing"),
            (SessionState::Inviting { invite }, SessionState::Invited { invite: other })
                if clear && single(a) && invite != other =>
            {
                missing("inviting, while the peer is shown an older request")
            }
            (SessionState::Inviting { .. }, SessionState::Active { devices, .. })
                if devices.contains(&a.at.device) =>
            {
                missing("inviting, while the peer is active with it")
            }
            (SessionState::Inviting { .. }, _)
                if clear
                    && theirs.clone().all(|node| {
                        let rests =
                            |state| matches!(state, SessionState::Idle | SessionState::Closed(_));
                        node.endpoint.is_some_and(|y| rests(y.session(me)))
                            && !self.refused.contains(&(node.at.node, me.clone()))
                    }) =>
            {
                missing("inviting, and no device of the peer knows")
            }
            (SessionState::Inviting { .. }, SessionState::Inviting { .. })
                if clear && single(a) && single(b) =>
            {
                missing("both invite (glare) and neither is active")
            }
            _ => Ok(()),
        }
    }
}
