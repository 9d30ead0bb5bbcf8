//! A broker that loses every so many-th frame, as regular as a clock: what is repeated must not
//! fall into step with it (Q7, Q8). The yardstick is a line that loses as many at random.

use super::net::{Frame, Net};
use super::*;

/// What is counted: frames as they are sent, or as they are delivered to each who hears them.
#[derive(Clone, Copy, Debug)]
enum Counts {
    Sent,
    Delivered,
}

/// Which frames are lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Every so many-th.
    Every(u64),
    /// One of so many, at random.
    OneOf(u64),
}

struct Line {
    net: Net,
    counts: Counts,
    loss: Loss,
    at: u64,
}

impl Line {
    fn new(nodes: usize, counts: Counts, loss: Loss, seed: u64) -> Self {
        let net = Net::new(nodes, nodes > 2, DeliveryConfig::default(), seed);
        // A seed is also where in its beat the line is when all begins.
        let at = seed;
        Self {
            net,
            counts,
            loss,
            at,
        }
    }

    fn loses(&mut self) -> bool {
        self.at += 1;
        match self.loss {
            Loss::Every(period) => self.at.is_multiple_of(period),
            Loss::OneOf(period) => self.net.rng.below(period) == 0,
        }
    }

    /// What is on its way, and what it leads to, arrives or is lost.
    fn deliver(&mut self) {
        self.net.commit_all();
        while let Some(first) = self.net.wire.first().cloned() {
            let alike = |it: &&Frame| (it.from, &it.body) == (first.from, &first.body);
            let copies = match self.counts {
                Counts::Delivered => 1,
                Counts::Sent => self.net.wire.iter().take_while(alike).count(),
            };
            let lost = self.loses();
            for _ in 0..copies {
                if lost {
                    self.net.wire.remove(0);
                } else {
                    self.net.hand_over_first();
                }
            }
            self.net.commit_all();
        }
    }

    /// Until the next timer of anybody.
    fn pass(&mut self) {
        let nodes = self.net.nodes.iter();
        let next = nodes.filter_map(|node| node.machine.poll_timeout()).min();
        let by = next.map_or(Duration::ZERO, |at| at.saturating_since(self.net.now.mono));
        self.net.pass(by);
    }

    /// How long one more message takes until its sender knows that everybody has it.
    fn say(&mut self, text: &str) -> Duration {
        let started = self.net.now.mono;
        let id = self.net.send(0, text);
        let known = |event: &DeliveryEvent| matches!(event, DeliveryEvent::Progress { id: of, ack: Ack::Delivered } if *of == id);
        loop {
            self.deliver();
            let waited = self.net.now.mono.saturating_since(started);
            if self.net.nodes[0].events.iter().any(known) || waited > FOR_EVER {
                self.net.nodes[0].events.clear();
                return waited;
            }
            self.pass();
        }
    }
}

/// No message waits longer, however unlucky.
const FOR_EVER: Duration = Duration::from_secs(3_600);
const SEEDS: u64 = 5;
const MESSAGES: u32 = 6;

/// The mean and the longest wait for messages that are said one after the other.
fn waits(nodes: usize, counts: Counts, loss: Loss) -> (Duration, Duration) {
    let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
    for seed in 0..SEEDS {
        let mut line = Line::new(nodes, counts, loss, seed);
        for n in 1..=MESSAGES {
            let waited = line.say(&format!("0:{n}"));
            all += waited;
            longest = longest.max(waited);
        }
    }
    let count = u32::try_from(SEEDS).unwrap() * MESSAGES;
    (all / count, longest)
}

fn compare(nodes: usize) {
    for counts in [Counts::Sent, Counts::Delivered] {
        for period in 2..=10 {
            let (regular, longest) = waits(nodes, counts, Loss::Every(period));
            let (random, _) = waits(nodes, counts, Loss::OneOf(period));
            println!("{nodes} {counts:?} 1 of {period}: {regular:?}, {longest:?}; {random:?}");
            assert!(
                longest < FOR_EVER && regular < random * 4 + Duration::from_secs(1),
                "{nodes} nodes, one of {period} {counts:?}: {regular:?} each and {longest:?} at \
                 most, at random {random:?}"
            );
        }
    }
}

#[test]
fn q8_no_regular_loss_keeps_step_with_repeats_of_two() {
    compare(2);
    for period in 2..=10 {
        let (_, longest) = waits(2, Counts::Sent, Loss::Every(period));
        assert!(longest < Duration::from_secs(5), "{period}: {longest:?}");
    }
}

#[test]
fn q8_no_regular_loss_keeps_step_with_repeats_in_a_group() {
    compare(3);
    compare(5);
}

/// Losses that are made good do not add up: what comes next is repeated as soon as ever.
#[test]
fn q7_what_was_lost_before_does_not_slow_what_comes_next() {
    let slowest = slowest_of_first_lost();
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// Of each message the first copy is lost, and nothing else.
fn slowest_of_first_lost() -> Duration {
    let mut line = Line::new(2, Counts::Sent, Loss::Every(1_000), 0);
    let waits = (1..=10).map(|n| {
        line.at = 999;
        line.say(&format!("0:{n}"))
    });
    waits.max().unwrap()
}

#[cfg(feature = "probe")]
#[test]
fn planted_bugs_of_repeats_are_caught() {
    crate::probe::plant(Some("delivery-in-step"));
    let (_, longest) = waits(2, Counts::Sent, Loss::Every(2));
    assert!(longest > FOR_EVER, "{longest:?}");
    crate::probe::plant(Some("delivery-backoff-stays"));
    let slowest = slowest_of_first_lost();
    assert!(slowest > Duration::from_secs(30), "{slowest:?}");
    crate::probe::plant(None);
}
