//! Every number that may be tuned, validated once.

use core::time::Duration;

/// A configuration that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A duration or limit that must not be zero.
    #[error("{field} is zero; give it a positive value")]
    Zero {
        /// The setting.
        field: &'static str,
    },
    /// Two settings in the wrong order.
    #[error("{low} must be below {high}; raise {high} or lower {low}")]
    Order {
        /// The one that must be lower.
        low: &'static str,
        /// The one that must be higher.
        high: &'static str,
    },
    /// A setting above its hard limit.
    #[error("{field} is {value}; the most is {max}")]
    TooLarge {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The limit.
        max: u64,
    },
}

/// 1:1 sessions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionConfig {
    /// How long a request stands (S9, Q6). Default 7 days.
    pub invite_ttl: Duration,
    /// First wait before an unanswered frame is repeated. Default 2 s.
    pub resend_first: Duration,
    /// Longest wait between repeats. Default 5 min.
    pub resend_max: Duration,
    /// First cool-down after a rejection; doubles per refusal (S6). Default 30 s.
    pub cool_down: Duration,
    /// How many peers may have a session, an invite or a memory here. At the bound a stranger's
    /// request is refused and counted. Default 4,096.
    pub max_peers: usize,
    /// How many unanswered requests from strangers are kept. At the bound the newest is refused
    /// and counted. Default 256.
    pub max_pending: usize,
}

/// Presence and lobby.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PresenceConfig {
    /// Between two beats (P4). Default 20 s.
    pub beat: Duration,
    /// How long a record holds (P3, P4: must outlast 60 s for hidden browser tabs). Default 75 s.
    pub ttl: Duration,
    /// Between silence or a last will and `Lost` being told (P5). Default 15 s.
    pub grace: Duration,
    /// A return within this is no join (P4). Default 5 min.
    pub rejoin: Duration,
    /// The longest random delay before presence is published after a reconnect. Default 2 s.
    pub spread: Duration,
    /// At most one own status change per this time, the last one wins. Default 2 s.
    pub debounce: Duration,
    /// How many devices are watched; beyond it the least recently heard stranger goes. Default 10,000.
    pub max_watched: usize,
    /// Whether others learn when the user was last active (P9). Default true.
    pub share_last_seen: bool,
    /// More people than this are a crowd (P11): told as counts and a sample, and in lobbies we
    /// speak less often the more they are. Default 256.
    pub crowd: usize,
    /// In a crowd, counts are told at most once per this time. Default 10 s.
    pub crowd_every: Duration,
    /// How many people are told by name with each count. Default 16.
    pub crowd_sample: usize,
}

/// What becomes of a message that the broker will never take as it is (Q2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum WedgePolicy {
    /// It keeps its place, and those behind it in its conversation wait until the application
    /// retries or cancels it, or its time runs out.
    #[default]
    Block,
    /// It fails at once, and those behind it go on.
    SkipAndMark,
}

/// Message delivery.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeliveryConfig {
    /// Messages in flight per stream; at most 128, the width of the selective acknowledgement.
    pub window: u16,
    /// First retransmit wait before a round trip was measured. Default 1 s.
    pub rto_first: Duration,
    /// Longest retransmit wait. Default 60 s.
    pub rto_max: Duration,
    /// Delay of an acknowledgement in 1:1. Default 200 ms.
    pub ack_delay: Duration,
    /// Longest delay of an acknowledgement in groups. Default 2 s.
    pub group_ack_delay: Duration,
    /// How long a message waits for what its author had been told before it (ID9). Default 10 s.
    pub causal_wait: Duration,
    /// How long content is tried (Q6). Default 30 days.
    pub content_ttl: Duration,
    /// Typing lapses after this (Q6). Default 12 s.
    pub typing_ttl: Duration,
    /// Messages in the outbox, all conversations; beyond it `send` says `Full` (Q5). Default 10,000.
    pub max_outbox: usize,
    /// Bytes in the outbox. Default 64 MiB.
    pub max_outbox_bytes: usize,
    /// Delivered messages that the application has not acknowledged; beyond it the window closes. Default 4,096.
    pub max_inbox: usize,
    /// Retransmissions per second over all streams (reliability 2.3). Default 20.
    pub retransmit_rate: u32,
    /// Whether peers learn what was displayed. Default true.
    pub share_read: bool,
    /// What becomes of a message that the broker will never take; of what nobody sees by itself
    /// ([`Content::is_visible`](crate::content::Content::is_visible)) it is always skipped (Q2).
    /// Default `Block`.
    pub wedge: WedgePolicy,
}

/// Groups.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupConfig {
    /// The leader's beat, H (reliability 1.5). Default 10 s; [`Self::with_beat`] sets all that
    /// follows from it.
    pub beat: Duration,
    /// A leader silent for so long is suspected: others may be supported. Default 3.2 H.
    pub suspect: Duration,
    /// A leader silent for so long is succeeded: the most senior member canvasses. Default 6 H.
    pub succeed: Duration,
    /// How much longer each further member waits, by seniority. Default 0.8 H.
    pub rank_delay: Duration,
    /// The most of that. Default 6 H.
    pub rank_cap: Duration,
    /// How long a candidate collects support. Default 0.5 H.
    pub window: Duration,
    /// The random part of every wait for a succession. Default 0.8 H.
    pub spread: Duration,
    /// How long after a disorderly end of a reign its late orders still count (R9). Default 7 days.
    pub merge_window: Duration,
    /// Longest wait between repeats of a join request. Default 60 s.
    pub join_resend_max: Duration,
    /// How long an unanswered join request is kept (G14). Default 7 days.
    pub join_ttl: Duration,
    /// Members of a group. Default 4,096.
    pub max_roster: usize,
    /// Unanswered join requests; beyond it applicants are told `Busy`. Default 256.
    pub max_joins: usize,
    /// Groups this device is in or asks to join. Default 1,024.
    pub max_groups: usize,
    /// Log entries between two checkpoints. Default 256.
    pub checkpoint_every: u64,
}

/// The connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkConfig {
    /// First backoff ceiling (Q7). Default 500 ms.
    pub backoff_first: Duration,
    /// Highest backoff ceiling. Default 60 s.
    pub backoff_max: Duration,
    /// A connection attempt that takes longer has failed. Default 10 s.
    pub connect_timeout: Duration,
    /// A subscription not confirmed within this is asked for again. Default 5 s.
    pub subscribe_timeout: Duration,
    /// Quiet time after `Connected` that counts as caught up where the transport has no marker (S14). Default 500 ms.
    pub settle: Duration,
}

/// Protection against senders that misbehave.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BudgetConfig {
    /// Frames per second that one device may make us verify, on average. Default 200.
    pub frames_per_second: u32,
    /// How many it may send at once. Default 1,000.
    pub burst: u32,
    /// Devices with a budget of their own; beyond it strangers share one. Default 4,096.
    pub max_senders: usize,
    /// Users whose keys are pinned; beyond it the least recently heard stranger goes. Default 16,384.
    pub max_pins: usize,
}

/// Everything.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// 1:1 sessions.
    pub session: SessionConfig,
    /// Presence and lobby.
    pub presence: PresenceConfig,
    /// Message delivery.
    pub delivery: DeliveryConfig,
    /// Groups.
    pub group: GroupConfig,
    /// The connection.
    pub link: LinkConfig,
    /// Protection against senders that misbehave.
    pub budget: BudgetConfig,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            invite_ttl: 7 * DAY,
            resend_first: 2 * SECOND,
            resend_max: 300 * SECOND,
            cool_down: 30 * SECOND,
            max_peers: 4_096,
            max_pending: 256,
        }
    }
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            beat: 20 * SECOND,
            ttl: 75 * SECOND,
            grace: 15 * SECOND,
            rejoin: 300 * SECOND,
            spread: 2 * SECOND,
            debounce: 2 * SECOND,
            max_watched: 10_000,
            share_last_seen: true,
            crowd: 256,
            crowd_every: 10 * SECOND,
            crowd_sample: 16,
        }
    }
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            window: 128,
            rto_first: SECOND,
            rto_max: 60 * SECOND,
            ack_delay: Duration::from_millis(200),
            group_ack_delay: 2 * SECOND,
            causal_wait: 10 * SECOND,
            content_ttl: 30 * DAY,
            typing_ttl: 12 * SECOND,
            max_outbox: 10_000,
            max_outbox_bytes: 64 << 20,
            max_inbox: 4_096,
            retransmit_rate: 20,
            share_read: true,
            wedge: WedgePolicy::Block,
        }
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            beat: 10 * SECOND,
            suspect: 32 * SECOND,
            succeed: 60 * SECOND,
            rank_delay: 8 * SECOND,
            rank_cap: 60 * SECOND,
            window: 5 * SECOND,
            spread: 8 * SECOND,
            merge_window: 7 * DAY,
            join_resend_max: 60 * SECOND,
            join_ttl: 7 * DAY,
            max_roster: 4_096,
            max_joins: 256,
            max_groups: 1_024,
            checkpoint_every: 256,
        }
    }
}

impl GroupConfig {
    /// The same with a beat of `beat` and all times of a succession in proportion (reliability 1.5).
    #[must_use]
    pub fn with_beat(self, beat: Duration) -> Self {
        Self {
            beat,
            suspect: beat * 16 / 5,
            succeed: beat * 6,
            rank_delay: beat * 4 / 5,
            rank_cap: beat * 6,
            window: beat / 2,
            spread: beat * 4 / 5,
            ..self
        }
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(500),
            backoff_max: 60 * SECOND,
            connect_timeout: 10 * SECOND,
            subscribe_timeout: 5 * SECOND,
            settle: Duration::from_millis(500),
        }
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            frames_per_second: 200,
            burst: 1_000,
            max_senders: 4_096,
            max_pins: 16_384,
        }
    }
}

impl Config {
    /// Short times for tests and for one machine or its neighbours: presence a tenth, retries at
    /// 50 ms, a dead leader succeeded within 2 s.
    ///
    /// A leader beats every 150 ms, so 0.9 s of silence begin a succession: 212 bytes per
    /// beat and member, as much back, and each has a signature to check (35 µs). A machine that stands
    /// still for longer is no leader lost: who wakes late listens before it asks, and who asks is
    /// refused by a leader that lives.
    #[must_use]
    pub fn lan() -> Self {
        let mut config = Self::default();
        config.session.resend_first = Duration::from_millis(200);
        config.presence.beat = 2 * SECOND;
        config.presence.ttl = 8 * SECOND;
        config.presence.grace = Duration::from_millis(1_500);
        config.presence.spread = Duration::from_millis(200);
        config.presence.debounce = Duration::from_millis(200);
        config.presence.crowd_every = SECOND;
        config.delivery.rto_first = Duration::from_millis(200);
        config.delivery.ack_delay = Duration::from_millis(20);
        config.delivery.group_ack_delay = Duration::from_millis(100);
        config.group = config.group.with_beat(Duration::from_millis(150));
        // On a busy machine an answer takes long; enough answers end the wait at once. And the next
        // in line hears of the first before it asks too: two who ask at once hold each other up.
        config.group.window = config.group.beat;
        config.group.rank_delay = config.group.beat * 3 / 2;
        config.budget.frames_per_second = 2_000;
        config.budget.burst = 4_000;
        config.link.backoff_first = Duration::from_millis(50);
        config.link.backoff_max = 2 * SECOND;
        config.link.settle = Duration::from_millis(100);
        config
    }

    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that does not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let durations = [
            ("session.invite_ttl", self.session.invite_ttl),
            ("session.resend_first", self.session.resend_first),
            ("presence.beat", self.presence.beat),
            ("presence.crowd_every", self.presence.crowd_every),
            ("delivery.rto_first", self.delivery.rto_first),
            ("delivery.content_ttl", self.delivery.content_ttl),
            ("delivery.typing_ttl", self.delivery.typing_ttl),
            ("group.beat", self.group.beat),
            ("group.window", self.group.window),
            ("group.merge_window", self.group.merge_window),
            ("group.join_ttl", self.group.join_ttl),
            ("link.backoff_first", self.link.backoff_first),
            ("link.connect_timeout", self.link.connect_timeout),
            ("link.subscribe_timeout", self.link.subscribe_timeout),
        ];
        if let Some((field, _)) = durations.iter().find(|(_, value)| value.is_zero()) {
            return Err(ConfigError::Zero { field });
        }
        let counts = [
            ("session.max_peers", self.session.max_peers),
            ("session.max_pending", self.session.max_pending),
            ("presence.max_watched", self.presence.max_watched),
            ("presence.crowd", self.presence.crowd),
            ("presence.crowd_sample", self.presence.crowd_sample),
            ("delivery.window", usize::from(self.delivery.window)),
            ("delivery.max_outbox", self.delivery.max_outbox),
            ("delivery.max_outbox_bytes", self.delivery.max_outbox_bytes),
            ("delivery.max_inbox", self.delivery.max_inbox),
            (
                "delivery.retransmit_rate",
                self.delivery.retransmit_rate as usize,
            ),
            ("group.max_roster", self.group.max_roster),
            ("group.max_joins", self.group.max_joins),
            ("group.max_groups", self.group.max_groups),
            (
                "budget.frames_per_second",
                self.budget.frames_per_second as usize,
            ),
            ("budget.burst", self.budget.burst as usize),
            ("budget.max_senders", self.budget.max_senders),
            ("budget.max_pins", self.budget.max_pins),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { field });
        }
        if self.delivery.window > 128 {
            return Err(ConfigError::TooLarge {
                field: "delivery.window",
                value: u64::from(self.delivery.window),
                max: 128,
            });
        }
        let ordered = [
            (
                "presence.beat",
                self.presence.beat,
                "presence.ttl",
                self.presence.ttl,
            ),
            (
                "group.beat",
                self.group.beat,
                "group.suspect",
                self.group.suspect,
            ),
            (
                "group.suspect",
                self.group.suspect,
                "group.succeed",
                self.group.succeed,
            ),
            (
                "session.resend_first",
                self.session.resend_first,
                "session.resend_max",
                self.session.resend_max,
            ),
            (
                "delivery.rto_first",
                self.delivery.rto_first,
                "delivery.rto_max",
                self.delivery.rto_max,
            ),
            (
                "link.backoff_first",
                self.link.backoff_first,
                "link.backoff_max",
                self.link.backoff_max,
            ),
        ];
        for (low, low_value, high, high_value) in ordered {
            if low_value >= high_value {
                return Err(ConfigError::Order { low, high });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
        assert_eq!(Config::lan().validate(), Ok(()));
    }

    #[test]
    fn contradictions_are_named() {
        let mut config = Config::default();
        config.presence.ttl = config.presence.beat;
        assert_eq!(
            config.validate(),
            Err(ConfigError::Order {
                low: "presence.beat",
                high: "presence.ttl"
            })
        );
        let mut config = Config::default();
        config.delivery.window = 129;
        assert!(matches!(
            config.validate(),
            Err(ConfigError::TooLarge { .. })
        ));
        let mut config = Config::default();
        config.group.max_joins = 0;
        assert_eq!(
            config.validate(),
            Err(ConfigError::Zero {
                field: "group.max_joins"
            })
        );
    }
}
