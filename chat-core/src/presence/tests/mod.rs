//! Helpers for the tests of presence.

mod bounds;
mod crowd;
mod laws;
mod own;
mod seen;

use super::*;
use crate::channel::{Channel, Class};
use crate::config::{Config, PresenceConfig};
use crate::effect::{Effect, Outgoing, Row, RowOp, Table};
use crate::id::{DeviceId, Epoch, LobbyName, UserId};
use crate::identity::Sender;
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use crate::wire::presence::Presence;
use crate::wire::{Body, BoundedStr};

const ACTIVE: u8 = 1;
const AWAY: u8 = 3;
const DND: u8 = 4;
const LEFT: u8 = 5;
const LOST: u8 = 6;
const TTL: u64 = 75_000;
const GRACE: u64 = 15_000;
const WALL: u64 = 1_800_000_000_000;

fn at(millis: u64) -> Now {
    Now {
        mono: Timestamp::from_millis(millis),
        wall: UnixMillis(WALL + millis),
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn sender(name: &str, device: u8) -> Sender {
    Sender {
        user: user(name),
        device: DeviceId([device; 32]),
    }
}

fn record(key: (u64, u64, u64), status: u8) -> Presence {
    Presence {
        incarnation: key.0,
        conn: key.1,
        seq: key.2,
        status,
        text: BoundedStr::default(),
        text_ttl_ms: None,
        ttl_ms: TTL,
        idle_min: Some(0),
    }
}

fn machine_with(config: PresenceConfig) -> PresenceMachine {
    let rng = Rng::from_seed([5; 32]);
    PresenceMachine::new(sender("me", 0), Epoch(1), config, rng)
}

/// Connected and caught up at time zero, watching `bob`.
fn observer() -> PresenceMachine {
    let mut machine = machine_with(Config::default().presence);
    machine.watch(&user("bob"), at(0));
    connect(&mut machine, at(0));
    drain(&mut machine);
    machine
}

fn connect(machine: &mut PresenceMachine, now: Now) {
    machine.handle_up(now);
    machine.handle_caught_up(now);
}

fn drain(machine: &mut PresenceMachine) -> Vec<Effect<PresenceEvent>> {
    core::iter::from_fn(|| machine.effects().pop()).collect()
}

fn events(machine: &mut PresenceMachine) -> Vec<PresenceEvent> {
    let told = drain(machine)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Emit { event, .. } => Some(event),
            _ => None,
        });
    told.collect()
}

/// (who, status) of every `Changed`.
fn changes(machine: &mut PresenceMachine) -> Vec<(String, Status)> {
    let changed = events(machine).into_iter().map(|event| match event {
        PresenceEvent::Changed { user, view } => (user.as_str().to_owned(), view.status),
        _ => panic!("no resync and no crowd here: {event:?}"),
    });
    changed.collect()
}

fn frames(machine: &mut PresenceMachine) -> Vec<(Outgoing, Presence)> {
    let sent = drain(machine)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(frame) => match frame.body.clone() {
                Body::Presence(record) => Some((frame, record)),
                _ => None,
            },
            _ => None,
        });
    sent.collect()
}

fn rows(machine: &mut PresenceMachine) -> Vec<RowOp> {
    let rows = drain(machine)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Row(op) => Some(op),
            _ => None,
        });
    rows.collect()
}

fn status(machine: &PresenceMachine, name: &str) -> Status {
    machine.view(&user(name)).expect("the user is known").status
}

/// Runs every timer up to `until`.
fn run(machine: &mut PresenceMachine, until: Now) {
    let mut rounds = 0;
    while let Some(due) = machine.poll_timeout().filter(|due| *due <= until.mono) {
        let now = at(due.as_micros().div_ceil(1_000));
        machine.handle_timeout(now);
        assert!(machine.poll_timeout().is_none_or(|next| next > now.mono));
        rounds += 1;
        assert!(rounds < 100_000, "timers loop");
    }
    machine.handle_timeout(until);
}
