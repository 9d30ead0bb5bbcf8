//! What must be told and is nobody's message: failed messages of ours, gaps in those of others.
//!
//! Guarantees: such an event has a row until it was handed out, which is when its row was durable;
//! one that a crash kept from being told is told by the next life. It may be told twice, never not
//! at all by us; what an application had taken and not looked at is on the timeline.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rows::{self, Place, StoredId};
use super::timeline::Failed;
use super::types::{DeliveryEvent, FailReason};
use super::{Delivery, mark};
use crate::effect::{RestoreError, Row, Table};
use crate::id::ConvId;
use crate::output::PersistId;

/// The first byte of a key of such a row in [`Table::Conversations`]; a number follows.
const PREFIX: u8 = b'n';
/// The length of such a key: no other row of that table has it.
pub(super) const KEY: usize = 1 + 8;

#[derive(Serialize, Deserialize)]
enum Notice<'a> {
    Failed {
        conv: [u8; 32],
        id: StoredId,
        why: Failed,
    },
    Gap {
        conv: [u8; 32],
        from: &'a str,
        first: StoredId,
        count: u64,
        sort: Place,
    },
}

fn encode(event: &DeliveryEvent) -> Option<Vec<u8>> {
    Some(rows::encode(&match event {
        DeliveryEvent::Failed { id, why } => Notice::Failed {
            conv: id.stream.conv.0,
            id: StoredId::of(id),
            why: Failed::from(why),
        },
        DeliveryEvent::Gap {
            conv,
            from,
            first,
            count,
            sort,
        } => Notice::Gap {
            conv: conv.0,
            from: from.as_str(),
            first: StoredId::of(first),
            count: *count,
            sort: (*sort).into(),
        },
        _ => return None,
    }))
}

/// Reads such a row: its number and what is to be told.
pub(super) fn restore(row: &Row) -> Result<(u64, DeliveryEvent), RestoreError> {
    let number = row.key[1..].try_into().map_err(|_| RestoreError::of(row))?;
    let event = match rows::decode::<Notice<'_>>(row)? {
        Notice::Failed { conv, id, why } => DeliveryEvent::Failed {
            id: id.within(ConvId(conv)),
            why: FailReason::from(why),
        },
        Notice::Gap {
            conv,
            from,
            first,
            count,
            sort,
        } => DeliveryEvent::Gap {
            conv: ConvId(conv),
            from: rows::user(from, row)?,
            first: first.within(ConvId(conv)),
            count,
            sort: sort.into(),
        },
    };
    Ok((u64::from_be_bytes(number), event))
}

fn key(number: u64) -> Bytes {
    let mut key = Vec::with_capacity(KEY);
    key.push(PREFIX);
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

impl Delivery {
    /// Tells a failure or a gap, with a row that outlives a crash before it is told.
    pub(super) fn tell(&mut self, event: DeliveryEvent) {
        self.notices += 1;
        self.tell_as(self.notices, event);
    }

    fn tell_as(&mut self, number: u64, event: DeliveryEvent) {
        if let Some(row) = encode(&event) {
            self.effects.put(Table::Conversations, key(number), row);
            self.untold.push(number);
        }
        self.effects.emit_gated(event);
    }

    /// Tells again what an earlier life may not have told.
    pub(super) fn tell_restored(&mut self) {
        for (number, event) in core::mem::take(&mut self.restored_notices) {
            mark("delivery-told-after-a-crash");
            // Written again, so that its row goes when that is durable.
            self.tell_as(number, event);
        }
    }

    /// The rows queued so far are in `batch`.
    pub(super) fn batch_notices(&mut self, batch: PersistId) {
        let untold = self.untold.drain(..);
        self.telling.extend(untold.map(|number| (batch, number)));
    }

    /// Up to `batch` all is durable, and so was handed out: its rows go with the next input's.
    pub(super) fn drop_told(&mut self, batch: PersistId) {
        while let Some(&(of, number)) = self.telling.front()
            && of <= batch
        {
            self.telling.pop_front();
            self.effects.delete(Table::Conversations, key(number));
        }
    }
}
