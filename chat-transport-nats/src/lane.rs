//! One subscribed channel: how far its log was read, and what of it is durable here.
//!
//! The server republishes every stored frame with its place in the log and the place of the one
//! before it on the same channel. A frame that does not follow on what was seen shows that some
//! were missed: then the lane is behind, and the log is read from where it stopped.
//!
//! Guarantees: frames are delivered in the order of the log and never twice on one connection; the
//! cursor never passes a frame that is not acknowledged (rule: acknowledge after persist).

use std::collections::BTreeSet;

use chat_core::channel::Channel;

/// Where a lane stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Waits to learn where the log ends.
    Placing,
    /// Frames wait in the log.
    Behind,
    /// They are being read; the places up to this one were known when that began.
    Fetching { from: u64, known: u64 },
    /// What comes is delivered as it comes.
    Live,
}

/// What to do with a frame that just came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    Deliver,
    /// Seen already, or read from the log later.
    Drop,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) channel: Channel,
    pub(crate) path: String,
    state: State,
    /// All places up to this one were delivered or are none of ours.
    seen: u64,
    /// The last place that is known to be taken.
    target: u64,
    /// What came before the end of the log was known: the place before the first of these.
    first: Option<u64>,
    unacked: BTreeSet<u64>,
}

impl Lane {
    /// A lane that starts where the log ends.
    pub(crate) fn new(channel: Channel, path: String) -> Self {
        Self {
            channel,
            path,
            state: State::Placing,
            seen: 0,
            target: 0,
            first: None,
            unacked: BTreeSet::new(),
        }
    }

    /// A lane that goes on after `cursor`.
    pub(crate) fn resumed(channel: Channel, path: String, cursor: u64) -> Self {
        Self {
            state: State::Behind,
            seen: cursor,
            target: cursor,
            ..Self::new(channel, path)
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Everything up to here is durable at the receiver.
    pub(crate) fn cursor(&self) -> u64 {
        self.unacked.first().map_or(self.seen, |first| first - 1)
    }

    /// The log ended at `last` some time after the subscription was made.
    pub(crate) fn placed(&mut self, last: u64) {
        if self.state != State::Placing {
            return;
        }
        self.seen = self.first.take().map_or(last, |first| first.min(last));
        self.state = if self.target > self.seen {
            State::Behind
        } else {
            State::Live
        };
    }

    /// A frame came from the log as it was stored. Without `room` it is left there for now.
    pub(crate) fn offer(&mut self, seq: u64, previous: u64, room: bool) -> Offer {
        if self.state == State::Placing {
            self.first.get_or_insert(seq - 1);
        }
        self.target = self.target.max(seq);
        if self.state != State::Live || seq <= self.seen {
            return Offer::Drop;
        }
        if previous > self.seen || !room {
            self.state = State::Behind;
            return Offer::Drop;
        }
        self.deliver(seq);
        Offer::Deliver
    }

    /// Something may have been lost on the way to us: look into the log.
    pub(crate) fn suspect(&mut self) {
        if self.state == State::Live {
            self.state = State::Behind;
        }
    }

    /// Begins to read the log: from which place on.
    pub(crate) fn fetch(&mut self) -> u64 {
        let from = self.seen + 1;
        self.state = State::Fetching {
            from,
            known: self.target,
        };
        from
    }

    /// One frame of the log, read in order. False when it is not the next one.
    pub(crate) fn fetched(&mut self, seq: u64) -> bool {
        if seq <= self.seen {
            return false;
        }
        self.deliver(seq);
        true
    }

    /// The reading ended; `complete` when it came to the end of the log. True when frames that
    /// were known to be there are gone.
    pub(crate) fn fetch_ended(&mut self, complete: bool) -> bool {
        let State::Fetching { known, .. } = self.state else {
            return false;
        };
        let lost = complete && self.seen < known;
        if lost {
            self.seen = known;
        }
        self.target = self.target.max(self.seen);
        self.state = if complete && self.target == self.seen {
            State::Live
        } else {
            State::Behind
        };
        lost
    }

    /// Something that was delivered is not durable here yet.
    pub(crate) fn awaits_acks(&self) -> bool {
        !self.unacked.is_empty()
    }

    /// The frame is durable here. False when it was before, or never delivered.
    pub(crate) fn ack(&mut self, seq: u64) -> bool {
        self.unacked.remove(&seq)
    }

    fn deliver(&mut self, seq: u64) {
        self.seen = seq;
        self.target = self.target.max(seq);
        self.unacked.insert(seq);
    }
}

#[cfg(test)]
mod tests {
    use chat_core::id::UserId;
    use proptest::prelude::*;

    use super::*;

    fn channel() -> Channel {
        Channel::Inbox(UserId::new("bob").unwrap())
    }

    fn live(seen: u64) -> Lane {
        let mut lane = Lane::new(channel(), "inbox.bob".into());
        lane.placed(seen);
        lane
    }

    #[test]
    fn what_follows_is_delivered_once() {
        let mut lane = live(7);
        assert_eq!(lane.offer(9, 3, true), Offer::Deliver);
        assert_eq!(lane.offer(9, 3, true), Offer::Drop);
        assert_eq!(lane.offer(12, 9, true), Offer::Deliver);
        assert_eq!(lane.state(), State::Live);
    }

    #[test]
    fn a_missed_frame_is_read_from_the_log() {
        let mut lane = live(7);
        assert_eq!(lane.offer(12, 9, true), Offer::Drop);
        assert_eq!(lane.state(), State::Behind);
        assert_eq!(lane.fetch(), 8);
        assert_eq!(lane.offer(15, 12, true), Offer::Drop);
        assert!(lane.fetched(9));
        assert!(lane.fetched(12));
        assert!(!lane.fetch_ended(true));
        assert_eq!(lane.state(), State::Behind, "15 came since");
        assert_eq!(lane.fetch(), 13);
        assert!(lane.fetched(15));
        assert!(!lane.fetch_ended(true));
        assert_eq!(lane.offer(16, 15, true), Offer::Deliver);
    }

    #[test]
    fn what_is_gone_from_the_log_is_said_and_not_waited_for() {
        let mut lane = live(7);
        lane.offer(12, 9, true);
        lane.fetch();
        assert!(lane.fetch_ended(true));
        assert_eq!(lane.state(), State::Live);
        assert_eq!(lane.offer(13, 12, true), Offer::Deliver);
    }

    #[test]
    fn a_new_lane_misses_nothing_that_came_while_it_was_placed() {
        let mut lane = Lane::new(channel(), "inbox.bob".into());
        assert_eq!(lane.offer(5, 2, true), Offer::Drop);
        lane.placed(6);
        assert_eq!(lane.state(), State::Behind);
        assert_eq!(lane.fetch(), 5);
    }

    #[test]
    fn the_cursor_waits_for_the_oldest_unacknowledged_frame() {
        let mut lane = live(7);
        for seq in 8..=10 {
            lane.offer(seq, seq - 1, true);
        }
        assert!(lane.ack(9));
        assert!(!lane.ack(9));
        assert!(!lane.ack(40));
        assert_eq!(lane.cursor(), 7);
        assert!(lane.ack(8));
        assert_eq!(lane.cursor(), 9);
        assert!(lane.ack(10));
        assert_eq!(lane.cursor(), 10);
    }

    proptest! {
        /// Whatever is lost on the way and whenever the log is read: everything is delivered once
        /// and in order, and the cursor covers nothing that was not.
        #[test]
        fn everything_is_delivered_once_and_in_order(
            steps in proptest::collection::vec((any::<bool>(), 0u8..4, 1u64..4), 1..80),
        ) {
            let mut lane = live(0);
            let (mut stored, mut delivered): (Vec<u64>, Vec<u64>) = (vec![], vec![]);
            let (mut end, mut reading): (u64, Option<Vec<u64>>) = (0, None);
            for (arrives, step, gap) in steps {
                let previous = stored.last().copied().unwrap_or(0);
                end += gap;
                stored.push(end);
                if arrives && lane.offer(end, previous, step != 0) == Offer::Deliver {
                    delivered.push(end);
                }
                if step == 1 {
                    lane.suspect();
                }
                if let Some(read) = reading.take() {
                    delivered.extend(read.into_iter().filter(|seq| lane.fetched(*seq)));
                    prop_assert!(!lane.fetch_ended(true));
                } else if lane.state() == State::Behind && step > 1 {
                    let from = lane.fetch();
                    reading = Some(stored.iter().copied().filter(|seq| *seq >= from).collect());
                }
                let covered = lane.cursor();
                prop_assert!(stored.iter().filter(|s| **s <= covered).all(|s| delivered.contains(s)));
            }
            lane.fetch();
            let rest: Vec<u64> = stored.iter().copied().filter(|seq| *seq > lane.seen).collect();
            delivered.extend(rest.into_iter().filter(|seq| lane.fetched(*seq)));
            prop_assert_eq!(delivered, stored);
        }
    }
}
