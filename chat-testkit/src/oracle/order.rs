//! ID5 and ID8, from told places and from the rows on the disks: the state of a receiver stays
//! under its bounds, and everybody who has the same messages shows them in the same order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use chat_core::delivery::{DeliveryEvent, SortKey, TimelineItem};
use chat_core::effect::Table;
use chat_core::event::Event;
use chat_core::id::{ConvId, MessageId, TxnId};

use super::{At, Seen, Verdict, View, Violation};

/// What a receiver may hold back of one sender (reliability 2.3, the window).
const WINDOW: usize = 128;
/// What may wait for messages of others beside that, all senders (ID9), and of how many epochs of
/// one.
const PARKED: usize = 1_000;
const EPOCHS: usize = 12;
/// What it may remember of one sender beside that, in bytes: places, refusals, a name.
const MAX_STATE: usize = 4_096;
/// A row of a stream's state is named by conversation and device, one of a held message also by
/// its epoch and number.
const STATE_KEY: usize = 32 + 32;

/// See the module.
#[derive(Debug, Default)]
pub struct Order {
    places: HashMap<MessageId, SortKey>,
    taken: HashMap<(ConvId, SortKey), MessageId>,
    /// What each node was told and its disk must show.
    told: BTreeMap<usize, BTreeSet<MessageId>>,
    /// The same when its disk was copied.
    backups: BTreeMap<usize, BTreeSet<MessageId>>,
    /// Under which id a transaction of ours shows.
    txns: HashMap<TxnId, MessageId>,
    held: u64,
    compared: u64,
}

impl Order {
    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("oracle-held-row", self.held),
            ("oracle-order-compared", self.compared),
        ]
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// ID8: a message has two places, or two messages have one.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::BackedUp => {
                let told = self.told.get(&at.node).cloned().unwrap_or_default();
                self.backups.insert(at.node, told);
                Ok(())
            }
            // A disk that went back shows what it showed then.
            Seen::RolledBack => {
                let told = self.backups.get(&at.node).cloned().unwrap_or_default();
                self.told.insert(at.node, told);
                Ok(())
            }
            Seen::DiskLost => {
                self.told.remove(&at.node);
                Ok(())
            }
            Seen::Event(Event::Delivery(DeliveryEvent::Accepted { id, txn, sort })) => {
                // After a rollback it may go by another id.
                if let Some(before) = self.txns.insert(*txn, *id)
                    && before != *id
                {
                    self.told.entry(at.node).or_default().remove(&before);
                }
                self.place(at, *id, *sort)
            }
            Seen::Event(Event::Delivery(DeliveryEvent::Received(received))) => {
                self.place(at, received.id, received.sort)
            }
            _ => Ok(()),
        }
    }

    /// `id` is shown at `sort`.
    ///
    /// # Errors
    /// ID8.
    pub(super) fn place(&mut self, at: At<'_>, id: MessageId, sort: SortKey) -> Verdict {
        self.told.entry(at.node).or_default().insert(id);
        let known = *self.places.entry(id).or_insert(sort);
        let owner = *self.taken.entry((id.stream.conv, sort)).or_insert(id);
        if known == sort && owner == id {
            return Ok(());
        }
        let text = format!(
            "node {} shows {id:?} at {sort:?}, which is {known:?} elsewhere and the place of {owner:?}",
            at.node
        );
        Err(Violation::new("ID8", text))
    }

    /// ID5 at one moment.
    ///
    /// # Errors
    /// The first sender of whom a disk keeps too much.
    pub fn probe(&mut self, nodes: &[View<'_>]) -> Verdict {
        for node in nodes {
            let rows = node.rows_of(Table::Streams, &[]);
            self.bounded(node.at.node, rows)?;
        }
        Ok(())
    }

    /// The rows of one disk.
    ///
    /// # Errors
    /// ID5.
    pub(super) fn bounded<'a>(
        &mut self,
        node: usize,
        rows: impl Iterator<Item = (&'a Bytes, &'a Bytes)>,
    ) -> Verdict {
        let mut held: BTreeMap<&[u8], BTreeMap<&[u8], usize>> = BTreeMap::new();
        for (key, value) in rows {
            let Some((stream, rest)) = key.split_at_checked(STATE_KEY) else {
                return Err(Violation::new(
                    "ID5",
                    format!("a stream row is named {key:?}"),
                ));
            };
            if rest.is_empty() {
                if value.len() > MAX_STATE {
                    let text = format!("node {node} keeps {} bytes on a sender", value.len());
                    return Err(Violation::new("ID5", text));
                }
                continue;
            }
            self.held += 1;
            let epoch = rest.get(..8).unwrap_or_default();
            *held.entry(stream).or_default().entry(epoch).or_default() += 1;
        }
        let mut all = 0;
        for epochs in held.values() {
            let most = epochs.values().sum::<usize>();
            all += most.saturating_sub(WINDOW);
            if epochs.len() > EPOCHS || all > PARKED {
                let text = format!(
                    "node {node} holds {most} messages of {} epochs of one sender",
                    epochs.len()
                );
                return Err(Violation::new("ID5", text));
            }
        }
        Ok(())
    }

    /// ID8 at the end: what the disks show, in the order of their rows.
    ///
    /// # Errors
    /// The first pair that shows common messages in another order, or a message that was told and
    /// is not shown.
    pub fn settled(&mut self, nodes: &[View<'_>]) -> Verdict {
        let shown: Vec<(usize, Vec<MessageId>)> = nodes
            .iter()
            .map(|node| (node.at.node, timeline(node)))
            .collect();
        for (node, ids) in &shown {
            let told = self.told.get(node).into_iter().flatten();
            let has: BTreeSet<_> = ids.iter().collect();
            if let Some(missing) = told.into_iter().find(|id| !has.contains(id)) {
                let text = format!("node {node} was told {missing:?}, its timeline lacks it");
                return Err(Violation::new("ID8", text));
            }
        }
        for (i, (a, left)) in shown.iter().enumerate() {
            for (b, right) in &shown[i + 1..] {
                self.compare((*a, left), (*b, right))?;
            }
        }
        Ok(())
    }

    /// Two timelines show what both have in the same order.
    ///
    /// # Errors
    /// ID8.
    pub(super) fn compare(
        &mut self,
        (a, left): (usize, &[MessageId]),
        (b, right): (usize, &[MessageId]),
    ) -> Verdict {
        let place: HashMap<&MessageId, usize> =
            right.iter().enumerate().map(|(at, id)| (id, at)).collect();
        let common: Vec<usize> = left
            .iter()
            .filter_map(|id| place.get(id).copied())
            .collect();
        self.compared += u64::from(common.len() > 1);
        if common.is_sorted() {
            return Ok(());
        }
        Err(Violation::new(
            "ID8",
            format!("nodes {a} and {b} show what both have in different orders"),
        ))
    }
}

fn timeline(view: &View<'_>) -> Vec<MessageId> {
    view.timeline(&[])
        .filter_map(|item| match item {
            TimelineItem::Received(received) => Some(received.id),
            TimelineItem::Sent { id, .. } => Some(id),
            _ => None,
        })
        .collect()
}
