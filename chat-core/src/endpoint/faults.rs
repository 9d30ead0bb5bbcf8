//! Counting what was wrong. The application is told at most once per kind and
//! [`TELL_EVERY`], with a count, so that a flood of junk is no flood of events.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::channel::Channel;
use crate::event::{Event, Fault};
use crate::id::UserId;
use crate::time::Timestamp;
use crate::wire::DecodeError;

const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Tally {
    untold: u64,
    quiet_until: Timestamp,
}

/// Faults by kind; as many entries as there are kinds.
#[derive(Debug, Default)]
pub(super) struct Faults(BTreeMap<u8, Tally>);

impl Faults {
    /// Counts one; the event to tell, if it is time.
    pub(super) fn count(
        &mut self,
        from: Option<UserId>,
        channel: &Channel,
        fault: Fault,
        now: Timestamp,
    ) -> Option<Event> {
        let tally = self.0.entry(code(fault)).or_default();
        tally.untold += 1;
        if now < tally.quiet_until {
            return None;
        }
        tally.quiet_until = now + TELL_EVERY;
        let count = core::mem::take(&mut tally.untold);
        Some(Event::PeerFault {
            from,
            channel: channel.clone(),
            fault,
            count,
        })
    }
}

fn code(fault: Fault) -> u8 {
    match fault {
        Fault::Decode(DecodeError::TooLarge { .. }) => 1,
        Fault::Decode(DecodeError::Truncated) => 2,
        Fault::Decode(DecodeError::NotAFrame) => 3,
        Fault::Decode(DecodeError::UnknownVersion { .. }) => 4,
        Fault::Decode(DecodeError::UnknownKind { .. }) => 5,
        Fault::Decode(DecodeError::BadSignature) => 6,
        Fault::Decode(DecodeError::BadUser(_)) => 7,
        Fault::Decode(DecodeError::BadBody { .. }) => 8,
        Fault::Untrusted => 9,
        Fault::Misplaced => 10,
        Fault::Flood => 11,
        Fault::Refused => 12,
        Fault::TooLarge => 13,
    }
}
