//! Two observers that hear the same records in another order, some of them twice.

use std::collections::BTreeMap;

use chat_core::channel::Channel;
use chat_core::id::{DeviceId, Epoch};
use chat_core::identity::Sender;
use chat_core::presence::{PresenceMachine, PresenceView, Status};
use chat_core::rng::Rng;
use chat_core::time::{Now, Timestamp, UnixMillis};
use chat_core::wire::BoundedStr;
use chat_core::wire::presence::Presence;

use super::Script;
use super::node::{config, lobby, user};

/// Records of one play.
const MAX_RECORDS: usize = 64;

fn observer(now: Now) -> PresenceMachine {
    let me = Sender {
        user: user("bob"),
        device: DeviceId([2; 32]),
    };
    let mut machine =
        PresenceMachine::new(me, Epoch(1), config().presence, Rng::from_seed([2; 32]));
    machine.enter(Channel::Lobby(lobby()), now);
    machine.handle_up(now);
    machine.handle_caught_up(now);
    machine
}

fn record(script: &mut Script<'_>) -> (Sender, Presence) {
    let names = ["ann", "cyd", "dan"];
    let from = Sender {
        user: user(script.pick(&names).expect("three")),
        device: DeviceId([3 + script.byte() % 2; 32]),
    };
    let number = |byte: u8| match byte % 8 {
        7 => u64::MAX,
        6 => u64::MAX - 1,
        small => u64::from(small % 3),
    };
    let record = Presence {
        incarnation: number(script.byte()),
        conn: number(script.byte()),
        seq: number(script.byte()),
        status: script.byte() % 8,
        text: BoundedStr::truncated(["", "lunch", "\u{202e}x"][usize::from(script.byte() % 3)]),
        text_ttl_ms: script.flag().then(|| number(script.byte()) % 200_000),
        ttl_ms: number(script.byte()) % 200_000,
        idle_min: script.flag().then(|| u32::from(script.byte())),
    };
    (from, record)
}

fn statuses(machine: &PresenceMachine) -> BTreeMap<String, (Status, String)> {
    let shown = |view: PresenceView| (view.status, view.text);
    let people = machine.iter();
    people
        .map(|(user, view)| (user.as_str().to_owned(), shown(view)))
        .collect()
}

/// Any records in any order, each once or more: the same picture (P2), and it runs out in time.
pub(crate) fn presence_merge(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut at = Now {
        mono: Timestamp::from_secs(100),
        wall: UnixMillis(1_800_000_000_000),
    };
    let (mut one, mut other) = (observer(at), observer(at));
    let mut records = Vec::new();
    while !script.is_over() && records.len() < MAX_RECORDS {
        records.push((record(&mut script), script.byte()));
    }
    for ((from, record), _) in &records {
        one.handle_record(from, record, true, at);
    }
    records.sort_by_key(|(_, place)| *place);
    for ((from, record), place) in &records {
        other.handle_record(from, record, true, at);
        if place % 3 == 0 {
            other.handle_record(from, record, true, at);
        }
    }
    // A last will leaves the text and status of before to be seen for a moment: what was heard
    // of them may differ.
    if records.iter().any(|((_, record), _)| record.status == 6) {
        let grace = config().presence.grace;
        at.mono = at.mono + grace;
        at.wall = at.wall.plus(grace);
        one.handle_timeout(at);
        other.handle_timeout(at);
    }
    assert_eq!(statuses(&one), statuses(&other));
    // Leases run out, and nothing is due for ever.
    for _ in 0..64 {
        for machine in [&mut one, &mut other] {
            machine.handle_timeout(at);
            while machine.effects().pop().is_some() {}
            let due = machine.poll_timeout();
            assert!(due.is_none_or(|due| due > at.mono), "{due:?} is due");
        }
        let Some(due) = one.poll_timeout().min(other.poll_timeout()) else {
            break;
        };
        at.wall = at.wall.plus(due.saturating_since(at.mono));
        at.mono = at.mono.max(due);
    }
    assert_eq!(one.iter().count(), other.iter().count());
}
