//! Which rows a timeline has shown, exactly and in little space: runs of numbers per lane.

use std::collections::BTreeMap;

use chat_core::delivery::TimelineItem;
use chat_core::id::{DeviceId, Epoch};

/// Rows that are numbered together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Lane {
    /// What arrived, by its place in the inbox log.
    Inbox,
    /// Our own messages.
    Own(DeviceId, Epoch),
    /// Gaps, by the first missing message.
    Gap(DeviceId, Epoch),
}

#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<Lane, Runs>);

impl Seen {
    /// True the first time.
    pub(super) fn insert(&mut self, item: &TimelineItem) -> bool {
        let (lane, number) = match item {
            TimelineItem::Received(received) => (Lane::Inbox, received.pos),
            TimelineItem::Sent { id, .. } => {
                (Lane::Own(id.stream.device, id.stream.epoch), id.seq.0)
            }
            TimelineItem::Gap { first, .. } => (
                Lane::Gap(first.stream.device, first.stream.epoch),
                first.seq.0,
            ),
            // A kind of item that this version does not know cannot be numbered: show it.
            _ => return true,
        };
        self.0.entry(lane).or_default().insert(number)
    }
}

/// A set of numbers as runs: first to last.
#[derive(Debug, Default)]
struct Runs(BTreeMap<u64, u64>);

impl Runs {
    fn insert(&mut self, number: u64) -> bool {
        let below = self.0.range(..=number).next_back();
        let below = below.map(|(first, last)| (*first, *last));
        if below.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let first = match below {
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let next = number.checked_add(1);
        let last = next.and_then(|next| self.0.remove(&next)).unwrap_or(number);
        self.0.insert(first, last);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_a_set(numbers in prop::collection::vec(0..40u64, 0..120)) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(runs.insert(number), model.insert(number));
            }
            let listed: BTreeSet<u64> = runs.0.iter().flat_map(|(a, b)| *a..=*b).collect();
            prop_assert_eq!(listed, model);
            let ends = runs.0.values().zip(runs.0.keys().skip(1));
            prop_assert!(ends.into_iter().all(|(last, next)| last + 1 < *next), "joined");
        }
    }

    #[test]
    fn the_greatest_number_does_not_overflow() {
        let mut runs = Runs::default();
        assert!(runs.insert(u64::MAX));
        assert!(!runs.insert(u64::MAX));
        assert!(runs.insert(u64::MAX - 1));
    }
}
