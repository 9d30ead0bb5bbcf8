//! The presence machine: everybody else's records, leases and what is told of them.

use core::time::Duration;
use std::collections::BTreeSet;

use super::own::Own;
use super::person::{Person, UNHEARD};
use super::record::{Claim, Device, Record, Stage};
use super::telling::Telling;
use super::{Counts, PresenceEvent, PresenceView, Status};
use crate::channel::Channel;
use crate::config::PresenceConfig;
use crate::effect::Effects;
use crate::id::{Epoch, UserId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::rng::Rng;
use crate::slots::Slots;
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire;

const MINUTE_MS: u64 = 60_000;
/// Rows of contacts are written together, at most once per this time.
const FLUSH: Duration = Duration::from_secs(30);

/// What our own connection lets us judge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sight {
    /// Cut off: no lease runs out.
    Cut,
    /// Connected; the backlog is arriving and nothing is told (P6, P13).
    Resync,
    /// What we see is current.
    Current,
}

/// Our own presence and everybody else's.
///
/// Bounds: 16 devices per user; [`PresenceConfig::max_watched`] devices in all, where a user
/// without one counts as one. There the stranger that was not heard from for longest goes; when
/// only watched users are left, a new device is not taken in. Watched users themselves are as many
/// as the application follows.
#[derive(Debug)]
pub struct PresenceMachine {
    me: Sender,
    pub(super) config: PresenceConfig,
    pub(super) own: Own,
    pub(super) sight: Sight,
    /// We were current once and cut off since.
    outage: bool,
    pub(super) telling: Telling,
    pub(super) people: Slots<UserId, Person>,
    /// Who to look at when; an entry is never late, but may be early (its lease was renewed).
    timers: BTreeSet<(Timestamp, UserId)>,
    /// Unwatched users by when they were heard from; may be early as well.
    pub(super) strangers: BTreeSet<(Timestamp, UserId)>,
    pub(super) load: usize,
    pub(super) dirty: BTreeSet<UserId>,
    pub(super) flush_at: Option<Timestamp>,
    pub(super) effects: Effects<PresenceEvent>,
}

impl PresenceMachine {
    /// Nobody known yet; `incarnation` is the delivery epoch (P2).
    pub fn new(me: Sender, incarnation: Epoch, config: PresenceConfig, rng: Rng) -> Self {
        Self {
            telling: Telling::new(rng.child("telling")),
            people: Slots::new(&rng),
            own: Own::new(&me.user, incarnation, &config, rng),
            me,
            config,
            sight: Sight::Cut,
            outage: false,
            timers: BTreeSet::new(),
            strangers: BTreeSet::new(),
            load: 0,
            dirty: BTreeSet::new(),
            flush_at: None,
            effects: Effects::default(),
        }
    }

    /// Says how we are; `Left`, `Lost` and `Unknown` read as `Away`. An explicit choice ends
    /// automatic idling (P1). Publishes at once, or `debounce` after the last publish.
    /// The text is over after `text_ttl`, for everybody by their own clock (P1): at most 30 days.
    pub fn set(&mut self, status: Status, text: &str, text_ttl: Option<Duration>, now: Now) {
        self.own.set(status, text, text_ttl, now, &mut self.effects);
    }

    /// The user did something: idle time starts anew (P10). From the first call on, five minutes
    /// without another show the user as idle, unless a status was chosen.
    pub fn touch(&mut self, now: Now) {
        self.own.touch(now, &mut self.effects);
    }

    /// Also publish on this lobby.
    pub fn enter(&mut self, lobby: Channel, now: Now) {
        self.own.enter(lobby, now, &mut self.effects);
    }

    /// No longer. Says no goodbye there: the user is still here, only not in that lobby.
    pub fn exit(&mut self, lobby: &Channel, _now: Now) {
        self.own.exit(lobby);
    }

    /// The last will for the next connection: that connection's number and `seq = MAX` (P2). Call
    /// it once per connection attempt; each call is for another connection.
    pub fn will(&mut self) -> wire::presence::Presence {
        self.own.will()
    }

    /// Connected (again): publish after a random delay (P8), restart silence clocks.
    pub fn handle_up(&mut self, now: Now) {
        self.own.handle_up(now);
        self.sight = Sight::Resync;
        let everybody: Vec<_> = self.people.slots().collect();
        for slot in everybody {
            let person = &mut self.people[slot];
            for (_, device) in &mut person.devices {
                if !device.is_gone() {
                    let lease = match device.is_willed() {
                        true => Duration::ZERO,
                        false => device.record.ttl(),
                    };
                    device.until = device.until.max(now.mono + lease);
                }
            }
            let user = self.people.key(slot).clone();
            self.file(&user, now);
        }
    }

    /// The backlog is in: tell `Resynced` (P13). The first time nothing was missed, and everybody
    /// known is told as `Changed`.
    pub fn handle_caught_up(&mut self, now: Now) {
        if self.sight != Sight::Resync {
            return;
        }
        self.sight = Sight::Current;
        let outage = core::mem::take(&mut self.outage);
        let (mut joined, mut left, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for (user, person) in self.people.iter_mut() {
            let before = person.here_before.take();
            if !person.is_news() {
                continue;
            }
            if self.telling.is_crowd() {
                continue;
            }
            let view = person.view();
            person.note_told(view.clone(), now.mono);
            let back = person
                .gone_at
                .is_some_and(|at| now.mono.saturating_since(at) <= self.config.rejoin);
            let here = view.status.is_here();
            let gone = matches!(view.status, Status::Left | Status::Lost);
            if here {
                person.gone_at = None;
            }
            if outage && here && before != Some(true) && !back {
                joined.push(user.clone());
            } else if outage && gone && before == Some(true) {
                left.push(user.clone());
            } else {
                changed.push((user.clone(), view));
            }
        }
        if !joined.is_empty() || !left.is_empty() {
            mark("presence-resynced");
            self.effects.emit(PresenceEvent::Resynced { joined, left });
        }
        for (user, view) in changed {
            self.effects.emit(PresenceEvent::Changed { user, view });
        }
        self.tell_crowd(now);
    }

    /// We are cut off: the others become `Unknown` (P7), each told once.
    pub fn handle_down(&mut self, now: Now) {
        self.own.handle_down();
        let was_current = self.sight == Sight::Current;
        self.sight = Sight::Cut;
        self.outage |= was_current;
        self.telling.end_heal();
        self.timers.clear();
        for (user, person) in self.people.iter_mut() {
            person.filed = None;
            for (_, device) in &mut person.devices {
                if device.stage == Stage::Live {
                    device.stage = match planted("presence-offline-when-cut") {
                        true => Stage::Lost,
                        false => Stage::Unconfirmed,
                    };
                }
            }
            if was_current {
                person.here_before = person.here;
                if person.is_news() && !self.telling.is_crowd() {
                    let view = person.view();
                    person.note_told(view.clone(), now.mono);
                    self.effects.emit(PresenceEvent::Changed {
                        user: user.clone(),
                        view,
                    });
                }
            }
        }
        if was_current {
            self.tell_crowd(now);
        }
        // Texts run out all the same.
        let users: Vec<UserId> = self.people.keys().cloned().collect();
        for user in users {
            self.file(&user, now);
        }
    }

    /// Says goodbye before an orderly stop (P5). Nothing is published after it until the next
    /// connection.
    pub fn leave(&mut self, now: Now) {
        self.own.leave(now, &mut self.effects);
        self.flush();
    }

    /// A presence record. `live` is false for a last value of unknown age (reliability 3.2).
    pub fn handle_record(
        &mut self,
        from: &Sender,
        record: &wire::presence::Presence,
        live: bool,
        now: Now,
    ) {
        if *from == self.me {
            return;
        }
        let live = live || planted("presence-trust-last-value");
        // Heard while we still subscribe: no lease runs yet that could end it (IP3, P7).
        let confirms = live && self.sight != Sight::Cut;
        // A beat: one look-up and some writes.
        if confirms
            && let Some(person) = self.people.get_mut(&from.user)
            && let Some(device) = person.device(&from.device)
            && device.refresh(record, now.mono)
        {
            let due = (device.until + self.config.grace).min(
                device
                    .text_due()
                    .unwrap_or(device.until + self.config.grace),
            );
            person.heard_at = now.mono;
            note_seen(person, record, now);
            if person.filed.is_some_and(|filed| filed > due) || person.is_row_due() {
                self.settle(&from.user, now);
            }
            return;
        }
        if !self.take_in(from, Record::new(record), confirms, now) {
            return;
        }
        if live && let Some(person) = self.people.get_mut(&from.user) {
            note_seen(person, record, now);
        }
        self.settle(&from.user, now);
    }

    /// Merges a record; false when it changes nothing or there is no room for its device.
    fn take_in(&mut self, from: &Sender, record: Record, live: bool, now: Now) -> bool {
        if let Some(person) = self.people.get_mut(&from.user)
            && let Some(device) = person.device(&from.device)
        {
            if record <= device.record && !planted("presence-merge-by-arrival") {
                if record.claim == Claim::Lost && record.key < device.record.key {
                    mark("presence-late-will");
                }
                return false;
            }
            device.apply(record, live, now.mono);
            person.heard_at = now.mono;
            return true;
        }
        if self.load >= self.config.max_watched {
            self.make_room(now);
        }
        // A user that is followed and not heard from has its place already.
        let has_place = self
            .people
            .get(&from.user)
            .is_some_and(|person| person.devices.iter().any(|(id, _)| *id == UNHEARD));
        if self.load >= self.config.max_watched && !has_place {
            mark("presence-full");
            return false;
        }
        let mut device = Device::unheard(Status::Unknown, record.ttl(), now.mono);
        device.apply(record, live, now.mono);
        let strangers = &mut self.strangers;
        let slot = self.people.slot_or_insert_with(&from.user, || {
            strangers.insert((now.mono, from.user.clone()));
            Person::new(now.mono)
        });
        let person = &mut self.people[slot];
        let before = person.devices.len();
        person.add(from.device, device);
        person.heard_at = now.mono;
        self.load = self.load + person.devices.len() - before;
        self.count_heads(now);
        true
    }

    /// Any other verified frame from this device: it is alive (reliability 3.2). A device that is
    /// gone or willed needs a record of a later connection: the frame may have been on its way.
    pub fn handle_sign_of_life(&mut self, from: &Sender, now: Now) {
        if self.sight != Sight::Current || *from == self.me {
            return;
        }
        let Some(person) = self.people.get_mut(&from.user) else {
            return;
        };
        let Some(device) = person.device(&from.device) else {
            return;
        };
        if device.is_gone() || device.is_willed() {
            return;
        }
        device.until = device.until.max(now.mono + device.record.ttl());
        let confirmed = device.stage == Stage::Unconfirmed;
        device.stage = Stage::Live;
        person.heard_at = now.mono;
        if confirmed {
            self.settle(&from.user, now);
        }
    }

    /// Somebody in `lobby` asks who is here: answer after a random delay.
    pub fn handle_seek(&mut self, lobby: &Channel, now: Now) {
        self.own.handle_seek(lobby, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.own.handle_timeout(now, &mut self.effects);
        while self.timers.first().is_some_and(|(due, _)| *due <= now.mono) {
            let (_, user) = self.timers.pop_first().expect("first() saw an element");
            let person = self
                .people
                .get_mut(&user)
                .expect("a user that goes takes its timer along");
            person.filed = None;
            person.expire_texts(now.mono);
            if self.sight == Sight::Cut {
                if person.is_news() {
                    self.tell(&user, now);
                }
                self.file(&user, now);
                continue;
            }
            person.expire(self.config.grace, now.mono);
            person.flapping.calm_down(now.mono);
            let forgotten = person.is_forgotten(self.config.rejoin, now.mono);
            if forgotten && !self.telling.owes(&user) {
                self.forget(&user, now);
            } else {
                self.settle(&user, now);
            }
        }
        self.handle_telling(now);
        if self.flush_at.is_some_and(|at| at <= now.mono) {
            self.flush();
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let lease = self.timers.first().map(|(due, _)| *due);
        let all = [
            self.own.poll_timeout(),
            lease,
            self.flush_at,
            self.telling.poll_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// How `user` looks.
    pub fn view(&self, user: &UserId) -> Option<PresenceView> {
        self.people.get(user).map(Person::view)
    }

    /// Everybody known, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&UserId, PresenceView)> {
        let mut all: Vec<_> = self.people.iter().collect();
        all.sort_unstable_by_key(|(user, _)| *user);
        all.into_iter().map(|(user, person)| (user, person.view()))
    }

    /// How many are how, of `users`; who is not known counts as unknown (P11).
    pub fn counts<'a>(&self, users: impl Iterator<Item = &'a UserId>) -> Counts {
        let mut counts = Counts::default();
        for user in users {
            let person = self.people.get(user);
            counts.add(person.map_or(Status::Unknown, Person::status));
        }
        counts
    }

    /// Whose presence this is.
    pub fn user(&self) -> &UserId {
        &self.me.user
    }

    /// How we ourselves look.
    pub fn mine(&self) -> PresenceView {
        self.own.view()
    }

    /// How long our records hold.
    pub fn ttl(&self) -> Duration {
        self.own.ttl()
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<PresenceEvent> {
        &mut self.effects
    }

    /// After anything that may change a user's view: notes it, tells it, files the next look.
    fn settle(&mut self, user: &UserId, now: Now) {
        let Some(person) = self.people.get_mut(user) else {
            return;
        };
        let current = self.sight == Sight::Current;
        if person.note_turn(now.mono, current) && current {
            person.flapping.flip(now.mono);
        }
        let (news, row_due) = (current && person.is_news(), person.is_row_due());
        if news {
            self.tell(user, now);
        }
        if row_due {
            self.dirty.insert(user.clone());
            self.flush_at.get_or_insert(now.mono + FLUSH);
        }
        self.file(user, now);
    }

    /// Puts the next look at `user` into the timer index, unless an earlier one is there.
    pub(super) fn file(&mut self, user: &UserId, now: Now) {
        let Some(person) = self.people.get_mut(user) else {
            return;
        };
        let due = match self.sight {
            Sight::Cut => person.text_due(),
            // Who is owed a word in a crowd is remembered for that long.
            _ if self.telling.owes(user) => {
                let due = person.due(self.config.grace, self.config.rejoin, now.mono);
                due.map(|due| due.max(now.mono + self.config.crowd_every))
            }
            _ => person.due(self.config.grace, self.config.rejoin, now.mono),
        };
        let Some(due) = due else {
            return;
        };
        match person.filed {
            Some(filed) if filed <= due => return,
            Some(filed) => {
                self.timers.remove(&(filed, user.clone()));
            }
            None => {}
        }
        person.filed = Some(due);
        self.timers.insert((due, user.clone()));
    }

    /// At the bound: forgets the stranger that was not heard from for longest.
    pub(super) fn make_room(&mut self, now: Now) {
        while self.load >= self.config.max_watched {
            let Some((ranked, user)) = self.strangers.pop_first() else {
                return;
            };
            let person = self
                .people
                .get_mut(&user)
                .expect("a stranger that goes takes its rank along");
            if person.heard_at > ranked {
                person.ranked = person.heard_at;
                self.strangers.insert((person.heard_at, user));
                continue;
            }
            mark("presence-evicted");
            let seen_here = person
                .told
                .as_ref()
                .is_some_and(|told| told.status.is_here());
            if seen_here && self.sight == Sight::Current && !self.telling.is_crowd() {
                for (_, device) in &mut person.devices {
                    device.stage = Stage::Unconfirmed;
                }
                let view = person.view();
                self.effects.emit(PresenceEvent::Changed {
                    user: user.clone(),
                    view,
                });
            }
            self.forget(&user, now);
        }
    }

    pub(super) fn forget(&mut self, user: &UserId, now: Now) {
        if let Some(person) = self.people.remove(user) {
            self.load -= person.devices.len();
            self.strangers.remove(&(person.ranked, user.clone()));
            self.dirty.remove(user);
            if let Some(filed) = person.filed {
                self.timers.remove(&(filed, user.clone()));
            }
            self.telling.forget(user);
            self.count_heads(now);
        }
    }
}

/// Last activity by the subject's own account and our clock, rounded down to a minute (P9).
fn note_seen(person: &mut Person, record: &wire::presence::Presence, now: Now) {
    if let Some(idle) = record.idle_min {
        let at = now.wall.0.saturating_sub(u64::from(idle) * MINUTE_MS);
        person.last_seen = person
            .last_seen
            .max(Some(UnixMillis(at / MINUTE_MS * MINUTE_MS)));
    }
}
