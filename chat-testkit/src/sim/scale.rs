//! What a group costs by its size: the real group machines of up to thousands of members, on a
//! network that loses nothing. Counts, not times: the same everywhere.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;

use chat_core::channel::Channel;
use chat_core::config::GroupConfig;
use chat_core::effect::{Effect, Outgoing};
use chat_core::group::{BatchStep, GroupEvent, Groups, Membership, Rules};
use chat_core::id::{GroupId, GroupName, UserId};
use chat_core::identity::{Sender, Signer as _};
use chat_core::rng::Rng;
use chat_core::time::{Now, Timestamp, UnixMillis};
use chat_core::wire::{self, Body};

use super::crypto::{FakeSigner, FakeVerifier, Ledger};

const BEAT: Duration = Duration::from_secs(10);
/// One hop.
const DELAY: Duration = Duration::from_millis(5);
/// Applicants that ask together.
const BATCH: usize = 16;
/// Beats over which a quiet group is measured.
const BEATS: u64 = 10;

/// What a span of time cost the whole group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Frames published.
    pub frames: u64,
    /// Their bytes.
    pub sent: u64,
    /// Bytes that arrived at members.
    pub received: u64,
    /// Inputs that machines handled: frames and deadlines.
    pub steps: u64,
}

/// What a group of some size costs.
#[derive(Clone, Debug)]
pub struct Scale {
    /// How many are in.
    pub members: usize,
    /// What it costs, by what happens: each within one beat, the beat included.
    pub costs: Vec<(&'static str, Cost)>,
}

struct Flight {
    from: Sender,
    body: Body,
    bytes: u64,
}

struct Net {
    machines: Vec<Groups>,
    names: Vec<Sender>,
    signers: Vec<FakeSigner>,
    group: GroupId,
    now: Timestamp,
    /// Frames and deadlines by time and order.
    due: BinaryHeap<Reverse<(Timestamp, u64, usize, bool)>>,
    flights: std::collections::BTreeMap<u64, Rc<Flight>>,
    /// Who is asked to lead, and says yes.
    offered: Vec<usize>,
    /// Who follows the group's channel.
    follows: usize,
    order: u64,
    cost: Cost,
}

impl Net {
    fn new(members: usize) -> Self {
        let ledger = Arc::new(Ledger::default());
        let config = GroupConfig::default().with_beat(BEAT);
        let signers: Vec<_> = (0..=members)
            .map(|n| FakeSigner::new(n as u64 + 1, ledger.clone()))
            .collect();
        let names: Vec<_> = signers
            .iter()
            .enumerate()
            .map(|(n, signer)| Sender {
                user: UserId::new(&format!("user{n}")).expect("a plain name"),
                device: signer.public_key().device(),
            })
            .collect();
        let machine = |n: usize| {
            let mut seed = [3; 32];
            seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
            Groups::new(
                Sender::clone(&names[n]),
                Arc::new(signers[n].clone()),
                Arc::new(FakeVerifier(ledger.clone())),
                config.clone(),
                Rng::from_seed(seed),
            )
        };
        Self {
            machines: (0..=members).map(machine).collect(),
            group: GroupId([0; 32]),
            now: Timestamp::from_secs(1),
            due: BinaryHeap::new(),
            flights: std::collections::BTreeMap::new(),
            offered: Vec::new(),
            follows: 1,
            order: 0,
            cost: Cost::default(),
            names,
            signers,
        }
    }

    fn give<T>(&mut self, n: usize, input: impl FnOnce(&mut Groups, Now) -> T) -> T {
        let now = Now {
            mono: self.now,
            wall: UnixMillis(1_000_000 + self.now.as_micros() / 1_000),
        };
        let out = input(&mut self.machines[n], now);
        while let Some(effect) = self.machines[n].effects().pop() {
            match effect {
                Effect::Send(frame) => self.send(n, &frame),
                Effect::Emit { event, .. } => {
                    if matches!(event, GroupEvent::LeadOffered { .. }) {
                        self.offered.push(n);
                    }
                }
                Effect::Row(_) => {}
            }
        }
        if let Some(at) = self.machines[n].poll_timeout() {
            self.order += 1;
            self.due.push(Reverse((at, self.order, n, false)));
        }
        out
    }

    fn send(&mut self, n: usize, frame: &Outgoing) {
        let from = self.names[n].clone();
        let bytes = wire::encode(&frame.body, &from.user, &frame.channel, &self.signers[n]);
        let bytes = bytes.expect("every frame fits its limit").len() as u64;
        self.cost.frames += 1;
        self.cost.sent += bytes;
        let to: Vec<usize> = match &frame.channel {
            Channel::Inbox(user) => {
                let number = user.as_str().trim_start_matches("user").parse();
                vec![number.expect("users are numbered")]
            }
            _ => (0..self.follows).collect(),
        };
        let flight = Rc::new(Flight {
            from,
            body: frame.body.clone(),
            bytes,
        });
        for to in to.into_iter().filter(|to| *to != n) {
            self.order += 1;
            self.flights.insert(self.order, flight.clone());
            self.due
                .push(Reverse((self.now + DELAY, self.order, to, true)));
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse((at, order, n, frame))) = self.due.peek().copied() {
            if at > end {
                break;
            }
            self.due.pop();
            self.now = self.now.max(at);
            if let Some(flight) = self.flights.remove(&order).filter(|_| frame) {
                self.cost.steps += 1;
                self.cost.received += flight.bytes;
                self.give(n, |g, now| g.handle_frame(&flight.from, &flight.body, now));
            } else if self.machines[n].poll_timeout().is_some_and(|due| due <= at) {
                self.cost.steps += 1;
                self.give(n, Groups::handle_timeout);
            }
            while let Some(n) = self.offered.pop() {
                let group = self.group;
                self.give(n, |g, now| g.answer_offer(group, true, now))
                    .expect("it was just offered");
            }
        }
        self.now = end;
    }

    /// What `act` and the beat after it cost.
    fn measure(&mut self, act: impl FnOnce(&mut Self)) -> Cost {
        self.cost = Cost::default();
        act(self);
        self.pass(BEAT);
        self.cost
    }

    fn admit(&mut self, range: core::ops::Range<usize>) {
        let group = self.group;
        for n in range.clone() {
            self.follows = self.follows.max(n + 1);
            self.give(n, |g, now| g.join(group, "", now))
                .expect("it is free to ask");
        }
        self.pass(DELAY * 4);
        let view = self.machines[0].view(group).expect("it leads");
        let requests = view.requests.iter();
        let requests: Vec<_> = requests
            .map(|one| BatchStep::Approve(one.request))
            .collect();
        assert_eq!(requests.len(), range.len(), "everybody asked");
        self.give(0, |g, now| g.apply(group, &requests, now))
            .expect("there is room");
    }
}

/// Measures a group of `members`.
///
/// # Panics
/// When the group does not come together, which is a defect.
pub fn scale(members: usize) -> Scale {
    let mut net = Net::new(members);
    for n in 0..=members {
        net.give(n, Groups::handle_up);
    }
    let name = GroupName::new("ops").expect("a plain name");
    let group = net.give(0, |g, now| g.create(&name, Rules::default(), now));
    net.group = group.expect("there is room");
    let group = net.group;
    // The last one waits outside.
    let mut at = 1;
    while at < members {
        let next = (at + BATCH).min(members);
        net.admit(at..next);
        net.pass(BEAT);
        at = next;
    }
    net.pass(BEAT * 4);
    let view = net.machines[0].view(group).expect("it leads");
    assert_eq!(view.roster.len(), members, "everybody is in");
    let hash = view.hash;
    let whole = |machine: &Groups| machine.view(group).is_some_and(|view| view.hash == hash);
    assert!(net.machines[..members].iter().all(whole), "one head");

    let quiet = net.measure(|net| net.pass(BEAT * (BEATS as u32 - 1)));
    let beat = Cost {
        frames: quiet.frames / BEATS,
        sent: quiet.sent / BEATS,
        received: quiet.received / BEATS,
        steps: quiet.steps / BEATS,
    };
    let mut costs = vec![("a beat", beat)];
    costs.push((
        "somebody is let in",
        net.measure(|net| net.admit(members..members + 1)),
    ));
    let last = net.names[members].user.clone();
    let kick = |net: &mut Net| {
        net.give(0, |g, now| g.kick(group, &last, "", now))
            .expect("it leads");
    };
    costs.push(("somebody is removed", net.measure(kick)));
    let rename = |net: &mut Net| {
        net.give(0, |g, now| g.rename(group, &name, now))
            .expect("it leads");
    };
    costs.push(("the name changes", net.measure(rename)));
    let next = net.names[1].user.clone();
    let pass = |net: &mut Net| {
        net.give(0, |g, now| g.hand_over(group, &next, now))
            .expect("it leads");
    };
    costs.push(("the lead passes", net.measure(pass)));
    assert_eq!(net.machines[1].membership(group), Some(Membership::Leader));
    Scale { members, costs }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten times the members cost at most ten times as much, and somewhat more only where a log is
    /// read from its beginning.
    #[test]
    fn costs_grow_no_faster_than_the_roster() {
        let (small, large) = (scale(12), scale(120));
        for ((what, few), (_, many)) in small.costs.iter().zip(&large.costs) {
            for (few, many) in [
                (few.frames, many.frames),
                (few.sent, many.sent),
                (few.received, many.received),
                (few.steps, many.steps),
            ] {
                assert!(many <= few * 11, "{what}: {few} and {many}");
            }
        }
    }
}
