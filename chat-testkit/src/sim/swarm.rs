//! Swarm configuration: each seed switches each fault and workload feature on with p = 0.5 and
//! picks its intensity from a small list. Everything is printed with a failing seed.

use core::fmt;
use core::time::Duration;

use chat_core::config::{BudgetConfig, Config, WedgePolicy};

use super::rng::Draw;

/// What a run is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Suite {
    /// Messages between two and in small groups.
    Delivery,
    /// Requests, answers, sessions, blocks.
    Sessions,
    /// Presence and lobbies.
    Presence,
    /// Leadership and membership; a few members may take over.
    Groups,
    /// Leadership and membership; a majority decides.
    Strict,
    /// A group between two brokers that part for long: both halves decide, members crash when they
    /// meet again, and one of them is a traitor. Under either policy.
    Siege,
}

impl Suite {
    /// All suites.
    pub const ALL: [Self; 6] = [
        Self::Delivery,
        Self::Sessions,
        Self::Presence,
        Self::Groups,
        Self::Strict,
        Self::Siege,
    ];

    /// True when it is about leadership and membership.
    pub fn is_groups(self) -> bool {
        matches!(self, Self::Groups | Self::Strict | Self::Siege)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Sessions => "sessions",
            Self::Presence => "presence",
            Self::Groups => "groups",
            Self::Strict => "strict",
            Self::Siege => "siege",
        }
    }
}

/// The features of one run. A count says how often an event happens in the safety phase, a
/// per-mille value how often per delivery; zero is off.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The suite.
    pub suite: Suite,
    /// The user of each node: several devices of one user are several nodes.
    pub users: Vec<usize>,
    /// The broker of each node.
    pub brokers: Vec<usize>,
    /// Length of the safety phase in ms.
    pub safety_ms: u64,
    /// Short times instead of the defaults.
    pub lan: bool,
    /// Clocks run at 0.97–1.03 of true time.
    pub skewed: bool,
    /// Per mille of deliveries lost.
    pub loss: u32,
    /// Per mille of deliveries doubled.
    pub dup: u32,
    /// Per mille of deliveries that come again much later.
    pub late_dup: u32,
    /// Deliveries of one publisher may overtake each other.
    pub reorder: bool,
    /// Mean delay of one hop, ms.
    pub delay_ms: u64,
    /// Crashes.
    pub crashes: u32,
    /// Nodes that die for good.
    pub kills: u32,
    /// Pauses.
    pub pauses: u32,
    /// Restored backups.
    pub rollbacks: u32,
    /// Lost disks.
    pub lost_disks: u32,
    /// Slow, full or failing disks.
    pub bad_disks: u32,
    /// Disks that are full for a while.
    pub full_disks: u32,
    /// Stored rows in which a bit flips.
    pub flipped_bits: u32,
    /// Of ten thousand effects, how often a process dies before one, beside the crashes above.
    pub effect_crashes: u32,
    /// Each node dies for good with p = 0.35.
    pub dead: bool,
    /// Nobody fails; one member is away now and then.
    pub calm: bool,
    /// Per mille of starts whose first fsync fails.
    pub failed_starts: u32,
    /// Steps of a wall clock.
    pub wall_steps: u32,
    /// One-way or two-way cuts.
    pub cuts: u32,
    /// Connections clogged: nothing lost, everything late.
    pub clogs: u32,
    /// Connections dropped.
    pub drops: u32,
    /// Broker restarts.
    pub broker_restarts: u32,
    /// Of those, with everything forgotten.
    pub amnesia: bool,
    /// Cuts of the bridge.
    pub bridge_cuts: u32,
    /// Long cuts of the bridge, in which both halves decide.
    pub sieges: u32,
    /// Wills are published late.
    pub late_wills: bool,
    /// The broker keeps sessions and mailboxes.
    pub mailboxes: bool,
    /// How much a mailbox holds before it silently drops the newest.
    pub mailbox_cap: usize,
    /// The broker says when the backlog is in.
    pub marks_backlog: bool,
    /// The broker keeps last values.
    pub retains: bool,
    /// The broker drops what repeats a dedup id.
    pub dedups: bool,
    /// Frames are mutated, replayed and moved to other channels.
    pub forgeries: u32,
    /// Times in which the broker refuses messages for good (Q2).
    pub bars: u32,
    /// Messages have a short life.
    pub short_ttl: bool,
    /// Messages are taken back.
    pub cancels: bool,
    /// Room for few messages.
    pub small_outbox: bool,
    /// How many workload operations.
    pub work: u32,
    /// Half of the workload, at most, is of the rarer kinds (bits by suite).
    pub features: u32,
}

impl Swarm {
    /// The features of `seed`.
    pub fn new(suite: Suite, seed: u64) -> Self {
        let mut draw = Draw::new(seed, "swarm");
        let lan = draw.chance(500);
        let count = match suite {
            Suite::Delivery => draw.pick(&[2, 2, 3, 4]),
            Suite::Sessions => draw.pick(&[2, 3, 4, 5]),
            Suite::Presence => draw.pick(&[2, 3, 4]),
            Suite::Groups | Suite::Strict => draw.pick(&[3, 3, 4, 4, 5, 5, 6, 7, 9]),
            Suite::Siege => draw.pick(&[3, 4, 4, 5, 5, 6]),
        };
        let mut users: Vec<usize> = (0..count).collect();
        if suite == Suite::Sessions && count >= 4 || suite == Suite::Presence && count == 4 {
            // The last nodes are more devices of the first user.
            let devices = draw.pick(&[1, 2, 3]);
            users[count + 1 - devices..].fill(0);
        }
        let two_brokers = draw.chance(if suite.is_groups() { 400 } else { 250 });
        let brokers = (0..count)
            .map(|_| usize::from(two_brokers) & draw.index(2))
            .collect();
        let mut some = |choices: &[u32]| {
            if draw.chance(500) {
                draw.pick(choices)
            } else {
                0
            }
        };
        let (loss, dup, late_dup) = (some(&[5, 50, 200]), some(&[10, 100, 300]), some(&[5, 50]));
        let (crashes, kills, pauses) = (some(&[1, 3, 8]), some(&[1, 1, 2]), some(&[1, 3]));
        let (mut rollbacks, mut lost_disks) = (some(&[1, 2]), some(&[1]));
        if suite.is_groups() || suite == Suite::Presence {
            // A device that forgot its promises is another device (reliability 1.2).
            rollbacks = 0;
        }
        if suite == Suite::Presence {
            lost_disks = 0;
        }
        let bad_disks = some(&[1, 3]);
        // A restored backup and a wall clock set back at once can repeat an epoch: the epoch
        // rests on one of the two (reliability 2.2).
        let wall_steps = if rollbacks == 0 { some(&[1, 4]) } else { 0 };
        let (cuts, clogs, drops) = (some(&[1, 4]), some(&[1, 4]), some(&[1, 4, 10]));
        let (broker_restarts, forgeries) = (some(&[1, 3]), some(&[5, 30]));
        let bridge_cuts = if two_brokers { some(&[1, 3]) } else { 0 };
        let work = match suite {
            Suite::Delivery => draw.pick(&[20, 60, 150]),
            Suite::Sessions => draw.pick(&[6, 15, 40]),
            Suite::Presence => draw.pick(&[6, 20]),
            Suite::Groups | Suite::Strict => draw.pick(&[6, 15, 30, 60]),
            Suite::Siege => draw.pick(&[4, 8, 15]),
        };
        let swarm = Self {
            suite,
            users,
            brokers,
            safety_ms: if lan { 60_000 } else { 300_000 },
            lan,
            skewed: draw.chance(500),
            loss,
            dup,
            late_dup,
            reorder: draw.chance(250),
            delay_ms: draw.pick(&[5, 5, 50, 250]),
            crashes,
            kills,
            pauses,
            rollbacks,
            lost_disks,
            bad_disks,
            full_disks: 0,
            flipped_bits: 0,
            effect_crashes: 0,
            failed_starts: 0,
            dead: false,
            calm: false,
            wall_steps,
            cuts,
            clogs,
            drops,
            broker_restarts,
            amnesia: draw.chance(500),
            bridge_cuts,
            sieges: 0,
            late_wills: draw.chance(500),
            mailboxes: draw.chance(500),
            mailbox_cap: draw.pick(&[3, 30, 1_000]),
            marks_backlog: draw.chance(500),
            retains: draw.chance(500),
            dedups: draw.chance(300),
            forgeries,
            bars: 0,
            short_ttl: draw.chance(300),
            cancels: draw.chance(500),
            small_outbox: draw.chance(200),
            work,
            features: draw.draw() as u32,
        };
        swarm.with_deaths(&mut draw)
    }

    /// More ways to die, drawn last so that what was drawn before stays as it is.
    fn with_deaths(self, draw: &mut Draw) -> Self {
        let mut some = |choices: &[u32]| {
            if draw.chance(500) {
                draw.pick(choices)
            } else {
                0
            }
        };
        let full_disks = some(&[1, 2]);
        let effect_crashes = some(&[5, 50, 500]);
        let flipped_bits = some(&[1]);
        let failed_starts = some(&[100, 400]);
        // A wall clock set back hides an epoch that was never stored.
        let steps = some(&[2, 4]);
        let bars = match self.suite {
            Suite::Delivery => some(&[1, 3, 8]),
            _ => 0,
        };
        if self.suite == Suite::Siege {
            return Self {
                effect_crashes: effect_crashes / 10,
                ..self.besieged(draw)
            };
        }
        let dead = self.suite.is_groups() && draw.chance(300);
        let calm = self.suite.is_groups() && draw.chance(60);
        if calm {
            return self.calmed();
        }
        // What replaces a damaged disk is a backup or nothing.
        let replaced = self.rollbacks > 0 || self.lost_disks > 0;
        Self {
            full_disks,
            effect_crashes,
            flipped_bits: if replaced { flipped_bits } else { 0 },
            failed_starts,
            dead,
            bars,
            wall_steps: if self.suite == Suite::Presence {
                steps.max(self.wall_steps)
            } else {
                self.wall_steps
            },
            ..self
        }
    }

    /// Two halves, and long cuts between them.
    fn besieged(self, draw: &mut Draw) -> Self {
        let left = draw.range(1, self.users.len() as u64) as usize;
        Self {
            brokers: (0..self.users.len())
                .map(|n| usize::from(n >= left))
                .collect(),
            safety_ms: 90_000,
            lan: true,
            sieges: draw.range(1, 3) as u32,
            loss: self.loss.min(5),
            delay_ms: self.delay_ms.min(50),
            reorder: false,
            crashes: 0,
            kills: 0,
            pauses: 0,
            rollbacks: 0,
            lost_disks: 0,
            wall_steps: 0,
            cuts: 0,
            clogs: 0,
            drops: 0,
            broker_restarts: 0,
            bridge_cuts: 0,
            forgeries: 40,
            ..self
        }
    }

    /// True when a majority decides.
    pub fn is_strict(&self) -> bool {
        self.suite == Suite::Strict || self.suite == Suite::Siege && self.feature(31)
    }

    /// No fault but that one member, not the leader, is away now and then (IG9).
    fn calmed(self) -> Self {
        Self {
            calm: true,
            // Three hops of a slow network are longer than the wait for a succession.
            delay_ms: self.delay_ms.min(50),
            loss: 0,
            dup: 0,
            late_dup: 0,
            reorder: false,
            crashes: 0,
            kills: 0,
            pauses: 0,
            lost_disks: 0,
            bad_disks: 0,
            wall_steps: 0,
            cuts: 0,
            clogs: 0,
            drops: 0,
            broker_restarts: 0,
            bridge_cuts: 0,
            forgeries: 0,
            ..self
        }
    }

    /// True when feature `bit` of the workload is on.
    pub fn feature(&self, bit: u32) -> bool {
        self.features & (1 << bit) != 0
    }

    /// True when a leader makes several changes at once.
    pub fn batches(&self) -> bool {
        (9..12).all(|bit| self.feature(bit))
    }

    /// The core's settings.
    pub fn config(&self) -> Config {
        let mut config = if self.lan {
            let mut config = Config::lan();
            // Simulated lines are slower than those of a LAN, and floods are to reach the budget.
            config.budget = BudgetConfig::default();
            config.group = config.group.with_beat(Duration::from_secs(1));
            config
        } else {
            Config::default()
        };
        if self.short_ttl {
            config.delivery.content_ttl = Duration::from_secs(if self.lan { 8 } else { 40 });
        }
        if self.small_outbox {
            config.delivery.max_outbox = 8;
        }
        if self.feature(21) {
            config.delivery.wedge = WedgePolicy::SkipAndMark;
        }
        // Shorter than many outages: what was given up while one was away is agreed upon on return.
        if self.suite == Suite::Sessions && self.wall_steps == 0 && self.feature(20) {
            config.session.invite_ttl = Duration::from_secs(if self.lan { 10 } else { 60 });
        }
        config
    }
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
