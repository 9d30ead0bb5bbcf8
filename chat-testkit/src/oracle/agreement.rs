//! How soon a group agrees (IG5): within B = 4 · (T_succeed + cap + W + jitter) after the last fault
//! all that can be reached have one head, one leader and one roster (reliability 1.7).
//!
//! The time runs from when everybody who lives is connected and caught up. What people take to
//! answer an offer of the lead is no part of B and comes on top.

use core::time::Duration;

use chat_core::config::GroupConfig;
use chat_core::link::LinkState;

use super::{View, Violation};

/// Two offers in a row that are answered late.
const PEOPLE: Duration = Duration::from_secs(30);

/// Watches one run after its last fault.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    /// In µs.
    bound: u64,
    /// Since when everybody is within reach.
    reached: Option<u64>,
    /// They agreed since then.
    agreed: bool,
}

impl Agreement {
    pub(super) fn new(config: &GroupConfig) -> Self {
        let once = config.succeed + config.rank_cap + config.window + config.spread;
        let bound = once * 4 + PEOPLE;
        Self {
            bound: u64::try_from(bound.as_micros()).expect("times of a run are short"),
            reached: None,
            agreed: false,
        }
    }

    /// One look at all nodes; `missing` is why they do not agree.
    ///
    /// # Errors
    /// They take longer than the bound.
    pub(super) fn look(
        &mut self,
        nodes: &[View<'_>],
        missing: Option<&Violation>,
    ) -> Result<(), Violation> {
        let reached = |node: &View<'_>| {
            let link = node.endpoint.map(|endpoint| endpoint.link());
            !node.paused && matches!(link, Some(LinkState::CaughtUp))
        };
        let all = nodes.iter().all(|node| node.killed || reached(node));
        let now = nodes.first().map_or(0, |node| node.at.now);
        self.at(now, all, missing)
    }

    fn at(&mut self, now: u64, all: bool, missing: Option<&Violation>) -> Result<(), Violation> {
        if !all {
            (self.reached, self.agreed) = (None, false);
            return Ok(());
        }
        let since = *self.reached.get_or_insert(now);
        let Some(missing) = missing.filter(|missing| missing.rule.starts_with("IG5")) else {
            self.agreed = true;
            return Ok(());
        };
        if self.agreed || now - since <= self.bound {
            return Ok(());
        }
        let seconds = (now - since) / 1_000_000;
        let text = format!("after {seconds} s in reach: {missing}");
        Err(Violation::new("IG5 bound", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn ig5_the_time_runs_from_when_all_are_in_reach_until_they_agree_once() {
        let config = GroupConfig::default();
        // 4 · (60 + 60 + 5 + 8) and what people take.
        let bound = (532 + 30) * SECOND;
        let apart = Violation::new("IG5", "two heads");
        let asks = Violation::new("IG6", "somebody asks");
        let mut late = Agreement::new(&config);
        late.at(0, false, Some(&apart)).unwrap();
        late.at(bound, true, Some(&apart)).unwrap();
        late.at(2 * bound, true, Some(&apart)).unwrap();
        let overdue = late.at(2 * bound + 1, true, Some(&apart)).unwrap_err();
        assert_eq!(overdue.rule, "IG5 bound");
        for agreed in [None, Some(&asks)] {
            let mut group = Agreement::new(&config);
            group.at(0, true, Some(&apart)).unwrap();
            group.at(bound, true, agreed).unwrap();
            group.at(3 * bound, true, Some(&apart)).unwrap();
            group.at(4 * bound, false, Some(&apart)).unwrap();
            group.at(5 * bound, true, Some(&apart)).unwrap();
            group.at(6 * bound + 1, true, Some(&apart)).unwrap_err();
        }
    }
}
