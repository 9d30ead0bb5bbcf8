//! Two programs with one client id: each connection ends the other's (rule S11).
//!
//! MQTT 5 has a reason code for it, which old brokers do not send and 3.1.1 does not have. Without
//! it a takeover looks like a network that closes connections again and again. So after several
//! short ones in a row we stay away for a moment and look, under another client id, at our own
//! presence. What is kept there and signed by our key, but neither a word nor a will of this program,
//! may be of an earlier life of it: we remember that. When a later look finds another such word, it
//! is of another program. Everything else proves nothing: a false alarm stops a client for good.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

/// A connection that lived longer was not fought over.
const SHORT: Duration = Duration::from_secs(30);
/// So many in a row, within twice [`SHORT`], are worth a look.
const ENDS: usize = 5;
/// What we said or saw last, over all connections between two looks.
const MAX_SAID: usize = 64;
/// Client ids; one more drops another, which begins anew.
const MAX_CLIENTS: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Takeovers(BTreeMap<String, Client>);

#[derive(Debug, Default)]
struct Client {
    ends: VecDeque<Instant>,
    said: VecDeque<Bytes>,
    looked: bool,
}

impl Takeovers {
    fn client(&mut self, id: &str) -> &mut Client {
        if self.0.len() >= MAX_CLIENTS && !self.0.contains_key(id) {
            self.0.pop_first();
        }
        self.0.entry(id.to_owned()).or_default()
    }

    /// A last value of our presence, or a will.
    pub(crate) fn said(&mut self, id: &str, value: Bytes) {
        let said = &mut self.client(id).said;
        said.push_back(value);
        if said.len() > MAX_SAID {
            said.pop_front();
        }
    }

    /// A connection did not come up, or ended in a way that speaks for something else.
    pub(crate) fn unlike(&mut self, id: &str) {
        self.client(id).ends.clear();
    }

    /// A connection was closed without a reason; `resumed` when the broker had kept the session for
    /// it, as it does for two programs that share one.
    pub(crate) fn closed(&mut self, id: &str, resumed: bool, came_up: Instant, now: Instant) {
        let ends = &mut self.client(id).ends;
        if !resumed || now - came_up > SHORT {
            ends.clear();
            return;
        }
        ends.push_back(now);
        if ends.len() > ENDS {
            ends.pop_front();
        }
    }

    /// Whether a look is worth its time before the next connection.
    pub(crate) fn are_likely(&self, id: &str, now: Instant) -> bool {
        let recent = |end: &Instant| now - *end <= 2 * SHORT;
        (self.0.get(id)).is_some_and(|it| it.ends.len() == ENDS && it.ends.iter().all(recent))
    }

    /// A look found this, signed by our key. True when it proves another program; the count begins
    /// anew when not.
    pub(crate) fn proved_by(&mut self, id: &str, kept: &Bytes) -> bool {
        let client = self.client(id);
        let unknown = !client.said.contains(kept);
        if unknown && client.looked {
            return true;
        }
        client.looked = true;
        if unknown {
            self.said(id, kept.clone());
        }
        self.unlike(id);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn s11_after_five_short_connections_in_a_row_a_look_is_worth_it() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        for n in 0..7 {
            let (came_up, end) = (now + n * SECOND, now + (n + 1) * SECOND);
            assert_eq!(takeovers.are_likely("a", came_up), n >= 5);
            takeovers.closed("a", true, came_up, end);
        }
        assert!(!takeovers.are_likely("b", now), "each client by itself");
        assert!(!takeovers.are_likely("a", now + 67 * SECOND), "long ago");
        takeovers.unlike("a");
        assert!(!takeovers.are_likely("a", now + 8 * SECOND));
    }

    #[test]
    fn a_long_life_and_long_pauses_are_no_reason() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        for _ in 0..10 {
            takeovers.closed("a", true, now, now + SHORT + SECOND);
            assert!(!takeovers.are_likely("a", now + SHORT + SECOND));
        }
        for n in 0..10 {
            let end = now + 20 * SECOND * n;
            takeovers.closed("a", true, end, end);
            assert!(!takeovers.are_likely("a", end));
        }
        for n in 0..20 {
            // A broker that keeps crashing, and forgets the session now and then.
            takeovers.closed("a", n % 5 != 0, now, now);
            assert!(!takeovers.are_likely("a", now));
        }
    }

    #[test]
    fn s11_a_second_word_that_we_did_not_say_is_a_proof() {
        let mut takeovers = Takeovers::default();
        let value = |n: usize| Bytes::from(n.to_string());
        for n in 0..3 {
            takeovers.said("a", value(n));
        }
        assert!(!takeovers.proved_by("a", &value(1)), "our own");
        assert!(takeovers.proved_by("a", &value(9)), "and then another's");
        assert!(!takeovers.proved_by("b", &value(9)), "of an earlier life");
        assert!(!takeovers.proved_by("b", &value(9)), "and still there");
        assert!(takeovers.proved_by("b", &value(8)), "said since then");
        assert!(takeovers.proved_by("b", &value(8)), "and again");
        for n in 0..2 * MAX_SAID {
            takeovers.said("a", value(n));
        }
        assert_eq!(takeovers.0["a"].said.len(), MAX_SAID);
    }

    #[test]
    fn its_memory_is_bounded() {
        let (mut takeovers, now) = (Takeovers::default(), Instant::now());
        for n in 0..MAX_CLIENTS + 10 {
            takeovers.closed(&n.to_string(), true, now, now);
        }
        assert_eq!(takeovers.0.len(), MAX_CLIENTS);
    }
}
