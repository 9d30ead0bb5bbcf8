//! One user as seen from here: the devices and the view over them (P1).

use core::time::Duration;

use super::record::{Device, Stage, code};
use super::{PresenceView, Status};
use crate::id::DeviceId;
use crate::probe::mark;
use crate::time::{Timestamp, UnixMillis};

/// Devices of one user; beyond it the one that is gone longest goes, else the one whose lease
/// ends first.
pub(super) const MAX_DEVICES: usize = 16;
/// Stands for the devices of a user of whom no record is known yet.
pub(super) const UNHEARD: DeviceId = DeviceId([0; 32]);

const FLIP: u32 = 1_000;
const UNSTABLE_ABOVE: u32 = 3_000;
const STABLE_BELOW: u32 = 1_500;
/// Bounds how long a user that stopped flapping stays unstable: three half-lives.
const MAX_PENALTY: u32 = 12_000;
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Beats renew the stored row of a watched user this often.
const STALE_ROW: Duration = Duration::from_secs(600);

/// How often a user came and went lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flapping {
    penalty: u32,
    /// When the penalty was last raised.
    at: Timestamp,
    /// Unstable until then; computed from flips alone, so that all observers agree (IP2).
    unstable_until: Option<Timestamp>,
}

impl Flapping {
    pub(super) const fn is_unstable(&self) -> bool {
        self.unstable_until.is_some()
    }

    pub(super) fn flip(&mut self, now: Timestamp) {
        self.calm_down(now);
        self.penalty = (self.decayed(now) + FLIP).min(MAX_PENALTY);
        self.at = now;
        if self.penalty > UNSTABLE_ABOVE {
            mark("presence-unstable");
        }
        if self.penalty > UNSTABLE_ABOVE || self.is_unstable() {
            self.unstable_until = Some(now + time_until_stable(self.penalty));
        }
    }

    pub(super) fn calm_down(&mut self, now: Timestamp) {
        self.unstable_until = self.unstable_until.filter(|until| *until > now);
    }

    /// Half the penalty per half-life, straight lines between.
    fn decayed(&self, now: Timestamp) -> u32 {
        let elapsed = now.saturating_since(self.at).as_micros();
        let half = HALF_LIFE.as_micros();
        let shift = u32::try_from(elapsed / half).map_or(31, |halves| halves.min(31));
        let left = u128::from(self.penalty >> shift) * (2 * half - elapsed % half) / (2 * half);
        u32::try_from(left).expect("a penalty only shrinks here")
    }
}

/// How long `penalty` takes to fall below [`STABLE_BELOW`].
fn time_until_stable(mut penalty: u32) -> Duration {
    let mut time = Duration::from_micros(1);
    while penalty / 2 >= STABLE_BELOW {
        penalty /= 2;
        time += HALF_LIFE;
    }
    time + 2 * HALF_LIFE * penalty.saturating_sub(STABLE_BELOW) / penalty.max(1)
}

/// A user.
#[derive(Clone, Debug)]
pub(super) struct Person {
    /// The application follows it.
    pub(super) asked: bool,
    /// A session with it is open.
    pub(super) met: bool,
    /// It is in a group whose members we follow. Not stored: the group tells.
    pub(super) shared: bool,
    pub(super) devices: Vec<(DeviceId, Device)>,
    /// The view that the application knows.
    pub(super) told: Option<PresenceView>,
    /// When the user was last active, rounded.
    pub(super) last_seen: Option<UnixMillis>,
    /// When a frame came last; orders strangers for eviction.
    pub(super) heard_at: Timestamp,
    /// Whether the user was last known to be here or gone, whatever we do not know since.
    pub(super) here: Option<bool>,
    /// `here` when our own outage began.
    pub(super) here_before: Option<bool>,
    /// Since when the application takes it for lost (P13).
    pub(super) lost_at: Option<Timestamp>,
    /// When the user went.
    pub(super) gone_at: Option<Timestamp>,
    pub(super) flapping: Flapping,
    /// Its place in the timer index: at or before the true deadline.
    pub(super) filed: Option<Timestamp>,
    /// Its place among strangers: at or before `heard_at`.
    pub(super) ranked: Timestamp,
    /// (status code, last seen) as stored.
    pub(super) stored: Option<(u8, u64)>,
}

impl Person {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            asked: false,
            met: false,
            shared: false,
            devices: Vec::new(),
            told: None,
            last_seen: None,
            heard_at: now,
            here: None,
            here_before: None,
            lost_at: None,
            gone_at: None,
            flapping: Flapping::default(),
            filed: None,
            ranked: now,
            stored: None,
        }
    }

    /// Somebody follows it: it never makes room for others.
    pub(super) const fn is_watched(&self) -> bool {
        self.is_kept() || self.shared
    }

    /// It is followed after a restart too.
    pub(super) const fn is_kept(&self) -> bool {
        self.asked || self.met
    }

    pub(super) fn device(&mut self, id: &DeviceId) -> Option<&mut Device> {
        self.devices
            .iter_mut()
            .find(|(known, _)| known == id)
            .map(|(_, device)| device)
    }

    /// Adds a device, making room for it.
    pub(super) fn add(&mut self, id: DeviceId, device: Device) {
        self.devices.retain(|(known, _)| *known != UNHEARD);
        if self.devices.len() >= MAX_DEVICES {
            mark("presence-device-evicted");
            let oldest = self
                .devices
                .iter()
                .enumerate()
                .min_by_key(|(_, (_, device))| (!device.is_gone(), device.until))
                .map(|(at, _)| at);
            if let Some(at) = oldest {
                self.devices.remove(at);
            }
        }
        self.devices.push((id, device));
    }

    /// (status, last known, the device whose text counts). DND > Active > Idle > Away over the
    /// devices that are there; else `Unknown` if that may still turn out; else how the last one
    /// went.
    fn standing(&self) -> (Status, Option<Status>, Option<&Device>) {
        let best = |stage: Stage| {
            let there = self
                .devices
                .iter()
                .filter(|(_, device)| device.stage == stage);
            there
                .max_by_key(|(id, device)| (device.shown, device.record.key, *id))
                .map(|(_, device)| device)
        };
        if let Some(device) = best(Stage::Live) {
            return (device.shown, None, Some(device));
        }
        if let Some(device) = best(Stage::Unconfirmed) {
            let last = (device.shown != Status::Unknown).then_some(device.shown);
            return (Status::Unknown, last, Some(device));
        }
        match self
            .devices
            .iter()
            .max_by_key(|(id, device)| (device.until, *id))
        {
            Some((_, device)) if device.stage == Stage::Left => (Status::Left, None, Some(device)),
            Some(_) => (Status::Lost, None, None),
            None => (Status::Unknown, None, None),
        }
    }

    pub(super) fn status(&self) -> Status {
        self.standing().0
    }

    /// What is worth storing: the status, or the last one known, and when the user was last seen.
    pub(super) fn row(&self) -> (u8, u64) {
        let (status, last_known, _) = self.standing();
        let seen = self.last_seen.map_or(0, |at| at.0);
        (code(last_known.unwrap_or(status)), seen)
    }

    /// True when the stored row is wrong about the status, or its time lags far behind.
    pub(super) fn is_row_due(&self) -> bool {
        if !self.is_kept() {
            return false;
        }
        let (code, seen) = self.row();
        self.stored.is_none_or(|(stored, then)| {
            stored != code || UnixMillis(seen).saturating_since(UnixMillis(then)) >= STALE_ROW
        })
    }

    pub(super) fn view(&self) -> PresenceView {
        let (status, last_known, device) = self.standing();
        PresenceView {
            status,
            last_known,
            text: device.map_or_else(String::new, |device| device.text().to_owned()),
            last_seen: self.last_seen,
            unstable: self.flapping.is_unstable(),
        }
    }

    /// True when the view differs from the one told in more than `last_seen`, which moves with
    /// every beat.
    pub(super) fn is_news(&self) -> bool {
        let (status, last_known, device) = self.standing();
        let text = device.map_or("", Device::text);
        match &self.told {
            None => status != Status::Unknown || last_known.is_some(),
            Some(told) => {
                told.status != status
                    || told.last_known != last_known
                    || told.text != text
                    || told.unstable != self.flapping.is_unstable()
            }
        }
    }

    /// What the application knows from now on.
    pub(super) fn note_told(&mut self, view: PresenceView, now: Timestamp) {
        if view.status != Status::Lost {
            self.lost_at = None;
        } else if self
            .told
            .as_ref()
            .is_none_or(|told| told.status != Status::Lost)
        {
            self.lost_at = Some(now);
        }
        self.told = Some(view);
    }

    /// Lets texts run out (P1).
    pub(super) fn expire_texts(&mut self, now: Timestamp) {
        for (_, device) in &mut self.devices {
            device.expire_text(now);
        }
    }

    /// When the next text is over.
    pub(super) fn text_due(&self) -> Option<Timestamp> {
        let texts = self
            .devices
            .iter()
            .filter_map(|(_, device)| device.text_due());
        texts.min()
    }

    /// Lets leases run out that ended `grace` ago.
    pub(super) fn expire(&mut self, grace: Duration, now: Timestamp) {
        for (_, device) in &mut self.devices {
            if !device.is_gone() && device.until + grace <= now {
                mark("presence-lost");
                // Somebody restored as gone stays as the row says.
                device.stage = match device.shown {
                    Status::Left => Stage::Left,
                    _ => Stage::Lost,
                };
            }
        }
    }

    /// Notes whether the user came or went; true when so. While we are not `current`, when it went
    /// is kept, to tell a return from a join later (P4).
    pub(super) fn note_turn(&mut self, now: Timestamp, current: bool) -> bool {
        let here = match self.status() {
            Status::Unknown => return false,
            status => status.is_here(),
        };
        let before = self.here.replace(here);
        if !here && before != Some(false) {
            self.gone_at = Some(now);
        } else if here && current {
            self.gone_at = None;
        }
        before.is_some_and(|before| before != here)
    }

    /// When to look at it next: a lease and its grace, the end of instability, or, for a stranger
    /// that is gone, when to forget it.
    pub(super) fn due(&self, grace: Duration, keep: Duration, now: Timestamp) -> Option<Timestamp> {
        let leases = self
            .devices
            .iter()
            .filter(|(_, device)| !device.is_gone())
            .map(|(_, device)| device.until + grace)
            .min();
        let forget =
            (!self.is_watched() && leases.is_none()).then(|| self.gone_at.unwrap_or(now) + keep);
        let own = [
            leases,
            forget,
            self.flapping.unstable_until,
            self.text_due(),
        ];
        own.into_iter().flatten().min()
    }

    /// True for a stranger whose last device went `keep` ago.
    pub(super) fn is_forgotten(&self, keep: Duration, now: Timestamp) -> bool {
        !self.is_watched()
            && self.devices.iter().all(|(_, device)| device.is_gone())
            && self.gone_at.is_some_and(|at| at + keep <= now)
    }
}
