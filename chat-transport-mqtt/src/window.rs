//! What we asked of the broker and it owes an answer to: packet ids, the window and deadlines.
//!
//! Guarantees: an id is free before it is used again, also when the broker answers out of order; an
//! answer resolves at most one question; both bounds hold; the oldest question has a deadline.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use chat_client::transport::Token;
use chat_core::channel::Channel;
use tokio::time::Instant;

use crate::packet::Id;

/// So many subscriptions and their ends may wait for an answer.
const MAX_SUBSCRIPTIONS: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Frame(Token),
    Subscribe(Channel),
    Unsubscribe,
}

#[derive(Debug)]
pub(crate) struct Window {
    /// Frames that may be in flight.
    limit: usize,
    timeout: Duration,
    last: u16,
    frames: usize,
    open: BTreeMap<u16, (Asked, Instant)>,
    due: BTreeSet<(Instant, u16)>,
}

impl Window {
    pub(crate) fn new(limit: u16, timeout: Duration) -> Self {
        Self {
            limit: usize::from(limit.max(1)),
            timeout,
            last: 0,
            frames: 0,
            open: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// There is room for one more question of any kind.
    pub(crate) fn has_room(&self) -> bool {
        self.frames < self.limit && self.open.len() - self.frames < MAX_SUBSCRIPTIONS
    }

    /// Asks, under a free id.
    pub(crate) fn ask(&mut self, asked: Asked, now: Instant) -> Id {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.open.contains_key(&self.last) {
                break;
            }
        }
        self.frames += usize::from(matches!(asked, Asked::Frame(_)));
        let due = now + self.timeout;
        self.due.insert((due, self.last));
        self.open.insert(self.last, (asked, due));
        Id(self.last)
    }

    /// The frame that an acknowledgement answers.
    pub(crate) fn frame(&mut self, id: Id) -> Option<Token> {
        let Some((Asked::Frame(token), _)) = self.open.get(&id.0) else {
            return None;
        };
        let token = *token;
        self.close(id);
        self.frames -= 1;
        Some(token)
    }

    /// The subscription that an acknowledgement answers.
    pub(crate) fn subscribe(&mut self, id: Id) -> Option<Channel> {
        let Some((Asked::Subscribe(_), _)) = self.open.get(&id.0) else {
            return None;
        };
        match self.close(id) {
            Some(Asked::Subscribe(channel)) => Some(channel),
            _ => None,
        }
    }

    /// True when it answers the end of a subscription.
    pub(crate) fn unsubscribe(&mut self, id: Id) -> bool {
        matches!(self.open.get(&id.0), Some((Asked::Unsubscribe, _))) && self.close(id).is_some()
    }

    fn close(&mut self, id: Id) -> Option<Asked> {
        let (asked, due) = self.open.remove(&id.0)?;
        self.due.remove(&(due, id.0));
        Some(asked)
    }

    /// When the oldest question must be answered.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_id_that_is_still_open_is_not_used_again() {
        let now = Instant::now();
        let mut window = Window::new(10, SECOND);
        let stuck = window.ask(Asked::Frame(Token(0)), now);
        // Twice around all ids, with one frame that is never answered.
        for n in 1..=140_000 {
            let id = window.ask(Asked::Frame(Token(n)), now);
            assert!(id.0 != 0 && id != stuck);
            assert_eq!(window.frame(id), Some(Token(n)));
            assert_eq!(window.frame(id), None, "answered once");
        }
        assert_eq!(window.frame(stuck), Some(Token(0)));
        assert!(window.open.is_empty() && window.due.is_empty());
    }

    #[test]
    fn both_bounds_hold_and_answers_of_the_wrong_kind_resolve_nothing() {
        let now = Instant::now();
        let mut window = Window::new(2, SECOND);
        let first = window.ask(Asked::Frame(Token(1)), now);
        assert!(window.has_room());
        window.ask(Asked::Frame(Token(2)), now);
        assert!(!window.has_room());
        assert_eq!(window.subscribe(first), None);
        assert!(!window.unsubscribe(first));
        assert_eq!(window.frame(Id(77)), None);
        assert_eq!(window.frame(first), Some(Token(1)));
        for _ in 0..MAX_SUBSCRIPTIONS {
            assert!(window.has_room());
            window.ask(Asked::Unsubscribe, now);
        }
        assert!(!window.has_room());
    }

    #[test]
    fn the_oldest_question_sets_the_deadline() {
        let now = Instant::now();
        let mut window = Window::new(10, SECOND);
        assert_eq!(window.due(), None);
        let first = window.ask(Asked::Frame(Token(1)), now);
        window.ask(Asked::Frame(Token(2)), now + SECOND);
        assert_eq!(window.due(), Some(now + SECOND));
        window.frame(first);
        assert_eq!(window.due(), Some(now + 2 * SECOND));
    }
}
