//! A store that is damaged: an endpoint opens over it or says why not, and what opened works.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_core::effect::{Row, Table};
use chat_core::time::Timestamp;

use super::Script;
use super::node::{MEETING, open, rows};
use crate::entries::Checksum;

/// Any rows: those of a real store, some changed, dropped or made up.
pub(crate) fn store_recover(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let disk = script.pick(&MEETING.bob).expect("there are some");
    let mut stored = rows(disk);
    while !script.is_over() {
        let made_up = Row {
            table: *script.pick(&Table::ALL).expect("there are some"),
            key: Bytes::copy_from_slice(script.bytes()),
            value: Bytes::copy_from_slice(script.bytes()),
        };
        let at = usize::from(script.byte()) << 8 | usize::from(script.byte());
        let Some(at) = at.checked_rem(stored.len()) else {
            stored.push(made_up);
            continue;
        };
        match script.byte() % 5 {
            0 => drop(stored.remove(at)),
            1 => stored.push(made_up),
            2 => stored[at].key = script.hurt(&stored[at].key).into(),
            3 => stored[at].value = made_up.value,
            _ => stored[at].value = script.hurt(&stored[at].value).into(),
        }
    }
    // As a store returns them.
    stored.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    stored.dedup_by(|b, a| (a.table, &a.key) == (b.table, &b.key));
    let mut now = Timestamp::from_secs(100);
    let Ok(mut endpoint) = open("bob", 2, Arc::new(Checksum), stored, now) else {
        return;
    };
    endpoint.connect(now);
    for step in 0..64 {
        let mut outputs = 0;
        while endpoint.poll_output().is_some() {
            outputs += 1;
            assert!(outputs < 4_000, "outputs without end");
        }
        if let Some((channel, frame)) = MEETING.frames.get(step * 7 % MEETING.frames.len()) {
            endpoint.handle_inbound(channel, frame, true, now);
        }
        now = match endpoint.poll_timeout() {
            Some(due) => now.max(due),
            None => now + Duration::from_secs(60),
        };
        endpoint.handle_timeout(now);
        for group in endpoint.groups() {
            let _ = endpoint.group(group);
        }
        let _ = (endpoint.people(), endpoint.sessions(), endpoint.stats());
    }
}
