//! The state machine of one endpoint's connection.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use super::{DownReason, LinkEvent, LinkOutput, LinkState};
use crate::channel::Channel;
use crate::config::LinkConfig;
use crate::deadline::DeadlineIndex;
use crate::probe::{mark, planted};
use crate::rng::Rng;
use crate::time::{Now, Timestamp};

/// A second take-over within this means that two connections fight for one device.
const CONFLICT_WINDOW: Duration = Duration::from_secs(60);
/// The shortest pause before another attempt: a retry is never due in the moment it is planned.
const MIN_RETRY: Duration = Duration::from_millis(1);
/// Subscribe times without one answer, while some are outstanding, after which the connection
/// counts as dead.
const SILENT_LIMIT: u32 = 5;
/// Traffic postpones `CaughtUp` to at most this many settle times after `Connected`.
const SETTLE_LIMIT: u32 = 10;
/// Unsubscribes of unknown fate that are remembered; beyond it the broker may keep sending a
/// channel that nobody here reads, which costs bandwidth and nothing else.
const MAX_DROPPED: usize = 1_024;

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Closed or failed: only `open` leads out.
    Idle,
    /// Between two attempts; the broker asked not to be called before `not_before`.
    Waiting {
        retry_at: Timestamp,
        not_before: Timestamp,
    },
    Connecting {
        until: Timestamp,
    },
    /// The transport is up, subscriptions are being confirmed.
    Subscribing {
        resumed: bool,
        marks_backlog: bool,
        backlog_done: bool,
    },
    /// `Connected`; `settle` is (when it counts as caught up, the latest such moment).
    Connected {
        settle: Option<(Timestamp, Timestamp)>,
    },
    CaughtUp,
}

/// The connection of one endpoint.
///
/// The desired set is as large as the machines that fill it allow (peers, groups, watched users
/// and lobbies have bounds of their own).
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: Rng,
    phase: Phase,
    state: LinkState,
    /// Attempts that did not lead to `CaughtUp` since the last one that did.
    failures: u32,
    conflict_at: Option<Timestamp>,
    desired: BTreeSet<Channel>,
    /// Confirmed in the broker's session, which may outlive the connection.
    held: BTreeSet<Channel>,
    /// Unsubscribed since the session was last known to be in step: repeated after a resume.
    dropped: BTreeSet<Channel>,
    /// Asked for and not answered, with the time of the repeat.
    asked: DeadlineIndex<Channel>,
    /// When the broker last owed us nothing or answered something.
    answered_at: Timestamp,
    outputs: VecDeque<LinkOutput>,
}

impl Link {
    /// Not connected; [`Self::open`] starts.
    pub fn new(config: LinkConfig, rng: Rng) -> Self {
        Self {
            asked: DeadlineIndex::new(&rng),
            config,
            rng,
            phase: Phase::Idle,
            state: LinkState::Closed,
            failures: 0,
            conflict_at: None,
            desired: BTreeSet::new(),
            held: BTreeSet::new(),
            dropped: BTreeSet::new(),
            answered_at: Timestamp::ZERO,
            outputs: VecDeque::new(),
        }
    }

    /// Starts connecting. While waiting for the next attempt it starts that at once; otherwise a
    /// link that is open stays as it is.
    pub fn open(&mut self, now: Now) {
        match self.phase {
            Phase::Idle => {
                self.failures = 0;
                self.conflict_at = None;
                self.connect(now);
            }
            Phase::Waiting { .. } => self.connect(now),
            _ => {}
        }
    }

    /// Closes for good, until [`Self::open`].
    pub fn close(&mut self, _now: Now) {
        self.drop_connection();
        self.phase = Phase::Idle;
        self.tell(LinkState::Closed);
    }

    /// Adds a channel to the desired set. It is asked for now if connected and after every
    /// connection that did not keep the session.
    pub fn subscribe(&mut self, channel: Channel, now: Now) {
        self.dropped.remove(&channel);
        self.desired.insert(channel.clone());
        if self.has_transport()
            && !self.held.contains(&channel)
            && self.asked.due(&channel).is_none()
        {
            if self.asked.is_empty() {
                self.answered_at = now.mono;
            }
            self.ask(channel, now);
        }
    }

    /// Takes a channel out of the desired set.
    pub fn unsubscribe(&mut self, channel: &Channel, now: Now) {
        if !self.desired.remove(channel) {
            return;
        }
        let was_asked = self.asked.remove(channel);
        if self.held.remove(channel) || was_asked || !self.has_transport() {
            self.dropped.insert(channel.clone());
            if self.dropped.len() > MAX_DROPPED {
                self.dropped.pop_first();
            }
        }
        if self.has_transport() {
            self.outputs
                .push_back(LinkOutput::Unsubscribe(channel.clone()));
            self.connected_when_answered(now);
        }
    }

    /// The driver's report.
    pub fn handle_link(&mut self, event: &LinkEvent, now: Now) {
        match event {
            LinkEvent::Up {
                resumed,
                marks_backlog,
            } => self.handle_up(*resumed, *marks_backlog, now),
            LinkEvent::Down {
                reason,
                retry_after,
            } => self.handle_down(reason, *retry_after, now),
            LinkEvent::Subscribed(channel) => {
                if self.asked.remove(channel) {
                    self.held.insert(channel.clone());
                    self.answered_at = now.mono;
                    self.connected_when_answered(now);
                }
            }
            LinkEvent::SubscribeRefused(channel) => {
                if self.asked.remove(channel) {
                    self.answered_at = now.mono;
                    self.outputs.push_back(LinkOutput::Refused(channel.clone()));
                    self.connected_when_answered(now);
                }
            }
            LinkEvent::CaughtUp => match &mut self.phase {
                Phase::Subscribing { backlog_done, .. } => *backlog_done = true,
                Phase::Connected { .. } => self.caught_up(),
                _ => {}
            },
            LinkEvent::Reachable => {
                if let Phase::Waiting { not_before, .. } = self.phase {
                    if not_before <= now.mono {
                        self.connect(now);
                    } else {
                        mark("link-reachable-but-told-to-wait");
                    }
                }
            }
            // Concerns what travels, not the connection.
            LinkEvent::Gap(_) | LinkEvent::MaxFrame(_) => {}
        }
    }

    /// A frame arrived: a backlog is still coming.
    pub fn handle_traffic(&mut self, now: Now) {
        if let Phase::Connected {
            settle: Some((at, latest)),
        } = &mut self.phase
        {
            *at = (now.mono + self.config.settle).min(*latest).max(*at);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        match self.phase {
            Phase::Connecting { until } if until <= now.mono => {
                self.handle_down(&DownReason::TimedOut, None, now);
            }
            Phase::Waiting { retry_at, .. } if retry_at <= now.mono => self.connect(now),
            Phase::Connected {
                settle: Some((at, _)),
            } if at <= now.mono => self.caught_up(),
            _ => {}
        }
        if self.has_transport() {
            self.repeat_unanswered(now);
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let own = match self.phase {
            Phase::Waiting { retry_at, .. } => Some(retry_at),
            Phase::Connecting { until } => Some(until),
            Phase::Connected { settle } => settle.map(|(at, _)| at),
            _ => None,
        };
        own.into_iter().chain(self.asked.earliest()).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// The state as the application sees it.
    pub fn state(&self) -> &LinkState {
        &self.state
    }

    /// True from `Connected` on.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. } | Phase::CaughtUp)
    }

    fn has_transport(&self) -> bool {
        self.is_up() || matches!(self.phase, Phase::Subscribing { .. })
    }

    fn connect(&mut self, now: Now) {
        self.phase = Phase::Connecting {
            until: now.mono + self.config.connect_timeout.max(MIN_RETRY),
        };
        self.tell(LinkState::Connecting {
            attempt: self.failures.saturating_add(1),
        });
        self.outputs.push_back(LinkOutput::Connect);
    }

    fn handle_up(&mut self, resumed: bool, marks_backlog: bool, now: Now) {
        if !resumed {
            // Also true of a connection that we do not want: the session is gone.
            mark("link-session-lost");
            self.dropped.clear();
            if !planted("link-no-resubscribe") {
                self.held.clear();
            }
        }
        match self.phase {
            Phase::Idle | Phase::Waiting { .. } => {
                // A connection that we gave up on came up after all.
                mark("link-unwanted-up");
                self.outputs.push_back(LinkOutput::Disconnect);
                return;
            }
            Phase::Connecting { .. } => {}
            _ => {
                // The transport replaced its connection without saying so.
                mark("link-replaced");
                self.forget_connection();
                self.tell(LinkState::Disconnected {
                    since: now.mono,
                    retry_at: now.mono,
                    reason: DownReason::Lost,
                });
                self.tell(LinkState::Connecting {
                    attempt: self.failures.saturating_add(1),
                });
            }
        }
        self.phase = Phase::Subscribing {
            resumed,
            marks_backlog,
            backlog_done: false,
        };
        self.answered_at = now.mono;
        if resumed {
            mark("link-resumed");
            let stale: Vec<Channel> = self.dropped.iter().cloned().collect();
            self.outputs
                .extend(stale.into_iter().map(LinkOutput::Unsubscribe));
        }
        let missing: Vec<Channel> = self.desired.difference(&self.held).cloned().collect();
        for channel in missing {
            self.ask(channel, now);
        }
        if planted("link-connected-early") {
            self.asked.clear();
        }
        self.connected_when_answered(now);
    }

    fn ask(&mut self, channel: Channel, now: Now) {
        self.asked.set(
            channel.clone(),
            now.mono + self.config.subscribe_timeout.max(MIN_RETRY),
        );
        self.outputs.push_back(LinkOutput::Subscribe(channel));
    }

    fn connected_when_answered(&mut self, now: Now) {
        let Phase::Subscribing {
            resumed,
            marks_backlog,
            backlog_done,
        } = self.phase
        else {
            return;
        };
        if !self.asked.is_empty() {
            return;
        }
        let settle = (!marks_backlog).then(|| {
            (
                now.mono + self.config.settle,
                now.mono + self.config.settle.saturating_mul(SETTLE_LIMIT),
            )
        });
        self.phase = Phase::Connected { settle };
        self.tell(LinkState::Connected { resumed });
        if backlog_done {
            self.caught_up();
        }
    }

    fn caught_up(&mut self) {
        self.phase = Phase::CaughtUp;
        self.failures = 0;
        if self.outputs.is_empty() {
            // What was unsubscribed until now has reached the broker.
            self.dropped.clear();
        }
        self.tell(LinkState::CaughtUp);
    }

    fn repeat_unanswered(&mut self, now: Now) {
        let mut late = Vec::new();
        while let Some(channel) = self.asked.pop_due(now.mono) {
            late.push(channel);
        }
        if late.is_empty() {
            return;
        }
        let limit = self.config.subscribe_timeout.saturating_mul(SILENT_LIMIT);
        if now.mono.saturating_since(self.answered_at) >= limit {
            mark("link-silent-broker");
            self.handle_down(&DownReason::TimedOut, None, now);
            return;
        }
        mark("link-subscribe-repeated");
        for channel in late {
            self.ask(channel, now);
        }
    }

    fn handle_down(&mut self, reason: &DownReason, retry_after: Option<Duration>, now: Now) {
        if matches!(self.phase, Phase::Idle | Phase::Waiting { .. }) {
            return;
        }
        if *reason == DownReason::TimedOut {
            // Only we know of this one; the driver still holds the connection.
            self.drop_connection();
        } else {
            self.forget_connection();
        }
        let fight = *reason == DownReason::Conflict
            && self
                .conflict_at
                .replace(now.mono)
                .is_some_and(|at| now.mono.saturating_since(at) <= CONFLICT_WINDOW);
        if fight || matches!(reason, DownReason::Refused(_)) {
            mark("link-failed");
            self.phase = Phase::Idle;
            self.tell(LinkState::Failed {
                reason: reason.clone(),
            });
            return;
        }
        let doublings = self.failures.min(31);
        self.failures = self.failures.saturating_add(1);
        let ceiling = self
            .config
            .backoff_first
            .saturating_mul(1 << doublings)
            .min(self.config.backoff_max);
        let not_before = now.mono + retry_after.unwrap_or_default();
        let retry_at = (now.mono + self.rng.jitter(ceiling).max(MIN_RETRY)).max(not_before);
        self.phase = Phase::Waiting {
            retry_at,
            not_before,
        };
        self.tell(LinkState::Disconnected {
            since: now.mono,
            retry_at,
            reason: reason.clone(),
        });
    }

    fn drop_connection(&mut self) {
        if self.has_transport() || matches!(self.phase, Phase::Connecting { .. }) {
            self.forget_connection();
            self.outputs.push_back(LinkOutput::Disconnect);
        }
    }

    /// Nothing that was asked of this connection means anything to the next one.
    fn forget_connection(&mut self) {
        if matches!(self.phase, Phase::Connecting { .. }) {
            // The broker may have taken the attempt and begun a session of which we never heard:
            // the next one resumes that, without our channels.
            mark("link-attempt-of-unknown-fate");
            self.held.clear();
        }
        self.asked.clear();
        self.outputs.retain(|output| {
            !matches!(
                output,
                LinkOutput::Subscribe(_) | LinkOutput::Unsubscribe(_)
            )
        });
    }

    fn tell(&mut self, state: LinkState) {
        if self.state != state {
            self.state = state.clone();
            self.outputs.push_back(LinkOutput::State(state));
        }
    }
}
