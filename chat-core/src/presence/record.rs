//! One device's record: its order, its merge and its lease.

use core::time::Duration;

use super::Status;
use crate::probe::{mark, planted};
use crate::time::Timestamp;
use crate::wire;

/// The longest lease that a record can ask for, whatever it says.
pub(super) const MAX_TTL: Duration = Duration::from_secs(300);
/// The longest time that a status text can ask for.
pub(super) const MAX_TEXT_TTL: Duration = Duration::from_secs(30 * 86_400);
const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);

/// What a record says. The order decides only between records of one key: a goodbye wins against
/// the last will of its own connection (P5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Claim {
    Here(Status),
    Lost,
    Left,
}

/// A record as it is merged: the greatest wins (P2, IP1). Comparing whole records, not only keys,
/// keeps the merge commutative when a faulty device uses one key twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Record {
    /// Incarnation, connection, sequence.
    pub(super) key: (u64, u64, u64),
    pub(super) claim: Claim,
    ttl_ms: u32,
    pub(super) text: Option<Box<Text>>,
}

/// A status text, and how much longer it held when it was sent (P1). Boxed, so that the many
/// devices without one stay small.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Text {
    pub(super) text: Box<str>,
    ttl_ms: Option<u64>,
}

impl Text {
    fn new(wire: &wire::presence::Presence) -> Option<Box<Self>> {
        (!wire.text.is_empty()).then(|| {
            Box::new(Self {
                text: (*wire.text).into(),
                ttl_ms: wire.text_ttl_ms,
            })
        })
    }

    /// When it is over, by the observer's own clock.
    fn until(&self, now: Timestamp) -> Timestamp {
        self.ttl_ms.map_or(NEVER, |ms| {
            now + Duration::from_millis(ms).min(MAX_TEXT_TTL)
        })
    }
}

impl Record {
    pub(super) fn new(wire: &wire::presence::Presence) -> Self {
        Self {
            key: (wire.incarnation, wire.conn, wire.seq),
            claim: claim(wire.status),
            ttl_ms: ttl_ms(wire.ttl_ms),
            text: Text::new(wire),
        }
    }

    pub(super) const fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms as u64)
    }
}

fn ttl_ms(asked: u64) -> u32 {
    let cap = MAX_TTL.as_secs() * 1_000;
    u32::try_from(asked.min(cap)).expect("the cap fits 32 bits")
}

fn claim(code: u8) -> Claim {
    match code {
        2 => Claim::Here(Status::Idle),
        3 => Claim::Here(Status::Away),
        4 => Claim::Here(Status::DoNotDisturb),
        5 => Claim::Left,
        6 => Claim::Lost,
        _ => Claim::Here(Status::Active),
    }
}

/// The code of a status on the wire and in rows; `Unknown` has none.
pub(super) const fn code(status: Status) -> u8 {
    match status {
        Status::Unknown => 0,
        Status::Active => 1,
        Status::Idle => 2,
        Status::Away => 3,
        Status::DoNotDisturb => 4,
        Status::Left => 5,
        Status::Lost => 6,
    }
}

/// The status of a row's code.
pub(super) fn status(code: u8) -> Option<Status> {
    Some(match code {
        0 => Status::Unknown,
        1 => Status::Active,
        2 => Status::Idle,
        3 => Status::Away,
        4 => Status::DoNotDisturb,
        5 => Status::Left,
        6 => Status::Lost,
        _ => return None,
    })
}

/// How far our knowledge of a device goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Heard from, and the lease runs.
    Live,
    /// Only an old record is known, or we were cut off since (P7).
    Unconfirmed,
    /// Fell silent.
    Lost,
    /// Said goodbye.
    Left,
}

/// A device as seen from here.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// The greatest record.
    pub(super) record: Record,
    /// Live or unconfirmed: when the lease runs out. Lost or left: since when.
    pub(super) until: Timestamp,
    /// The last status that it had while it was there.
    pub(super) shown: Status,
    pub(super) stage: Stage,
    /// When the text of the record is over.
    text_until: Timestamp,
    text_over: bool,
}

impl Device {
    /// A device of which nothing is known yet; every record is greater.
    pub(super) fn unheard(shown: Status, ttl: Duration, now: Timestamp) -> Self {
        Self {
            record: Record {
                key: (0, 0, 0),
                claim: Claim::Here(Status::Away),
                ttl_ms: ttl_ms(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
                text: None,
            },
            until: now + ttl,
            shown,
            stage: Stage::Unconfirmed,
            text_until: NEVER,
            text_over: false,
        }
    }

    /// Takes over a greater record that says what we know already: a beat. False, and nothing
    /// changed, for any other.
    pub(super) fn refresh(&mut self, wire: &wire::presence::Presence, now: Timestamp) -> bool {
        let key = (wire.incarnation, wire.conn, wire.seq);
        if self.stage != Stage::Live
            || key <= self.record.key
            || claim(wire.status) != Claim::Here(self.shown)
            || self.text_over
            || self.text() != &*wire.text
        {
            return false;
        }
        if self.record.claim == Claim::Lost {
            mark("presence-back-within-grace");
        }
        self.record.key = key;
        self.record.claim = Claim::Here(self.shown);
        self.record.ttl_ms = ttl_ms(wire.ttl_ms);
        self.until = now + self.record.ttl();
        if let Some(text) = &mut self.record.text {
            text.ttl_ms = wire.text_ttl_ms;
            self.text_until = text.until(now);
        }
        true
    }

    /// Takes over a greater record.
    pub(super) fn apply(&mut self, mut record: Record, live: bool, now: Timestamp) {
        match record.claim {
            Claim::Here(status) => {
                self.shown = status;
                self.take_text(&record, now);
                self.until = now + record.ttl();
                self.stage = if live {
                    Stage::Live
                } else {
                    Stage::Unconfirmed
                };
            }
            Claim::Left => {
                self.take_text(&record, now);
                self.until = now;
                self.stage = Stage::Left;
            }
            // The lease ends now; what it is worth to say so waits for the grace (P5).
            Claim::Lost if !self.is_gone() => {
                self.until = self.until.min(now);
                record.text = core::mem::take(&mut self.record.text);
            }
            // A connection that we never heard of came and died.
            Claim::Lost => self.stage = Stage::Lost,
        }
        self.record = record;
    }

    fn take_text(&mut self, record: &Record, now: Timestamp) {
        let text = record.text.as_ref();
        self.text_until = text.map_or(NEVER, |text| text.until(now));
        self.text_over = self.text_until <= now;
    }

    /// The status text, until its time is over (P1).
    pub(super) fn text(&self) -> &str {
        match &self.record.text {
            Some(text) if !self.text_over => &text.text,
            _ => "",
        }
    }

    /// When the text will be over.
    pub(super) fn text_due(&self) -> Option<Timestamp> {
        (!self.text_over && self.text_until != NEVER).then_some(self.text_until)
    }

    /// Lets the text run out; it stays in the record.
    pub(super) fn expire_text(&mut self, now: Timestamp) {
        if self.text_due().is_some_and(|at| at <= now) {
            mark("presence-text-over");
            self.text_over = !planted("presence-text-forever");
            self.text_until = NEVER;
        }
    }

    /// True while its own connection's last will is the latest word.
    pub(super) fn is_willed(&self) -> bool {
        self.record.claim == Claim::Lost
    }

    /// True when it is gone: lost or left.
    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Lost | Stage::Left)
    }
}
