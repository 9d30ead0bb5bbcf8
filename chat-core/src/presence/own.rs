//! Our own presence: what is published, where and when (rules P8–P10, P12, IP5).

use core::time::Duration;
use std::collections::BTreeMap;

use super::record::{MAX_TEXT_TTL, MAX_TTL, code};
use super::{PresenceEvent, PresenceView, Status};
use crate::channel::Channel;
use crate::config::PresenceConfig;
use crate::effect::{Effects, Outgoing};
use crate::id::{Epoch, UserId};
use crate::rng::Rng;
use crate::time::{Now, Timestamp};
use crate::wire::BoundedStr;
use crate::wire::presence::Presence;

/// Without activity for this long, an application that reports activity shows its user as idle.
const IDLE_AFTER: Duration = Duration::from_secs(300);
/// The longest delay before a lobby's question is answered.
const ANSWER_SPREAD: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Default)]
struct Lobby {
    answer_at: Option<Timestamp>,
    published_at: Option<Timestamp>,
}

/// Our own presence. The lobbies are as many as the application enters.
#[derive(Debug)]
pub(super) struct Own {
    channel: Channel,
    incarnation: Epoch,
    /// The connection that is up, or was last.
    conn: u64,
    /// The connection whose last will was handed out last.
    willed: u64,
    seq: u64,
    chosen: Option<Status>,
    idle: bool,
    text: BoundedStr<256>,
    /// When the text is over (P1).
    text_until: Option<Timestamp>,
    active_at: Option<Timestamp>,
    /// Connected and not said goodbye.
    speaking: bool,
    publish_at: Option<Timestamp>,
    beat_at: Option<Timestamp>,
    published_at: Option<Timestamp>,
    lobbies: BTreeMap<Channel, Lobby>,
    beat: Duration,
    debounce: Duration,
    spread: Duration,
    ttl: Duration,
    share_last_seen: bool,
    /// At least one; see [`Self::set_crowding`].
    crowding: u32,
    rng: Rng,
}

impl Own {
    pub(super) fn new(
        user: &UserId,
        incarnation: Epoch,
        config: &PresenceConfig,
        rng: Rng,
    ) -> Self {
        Self {
            channel: Channel::Presence(user.clone()),
            incarnation,
            conn: 0,
            willed: 0,
            seq: 0,
            chosen: None,
            idle: false,
            text: BoundedStr::default(),
            text_until: None,
            active_at: None,
            speaking: false,
            publish_at: None,
            beat_at: None,
            published_at: None,
            lobbies: BTreeMap::new(),
            beat: config.beat,
            debounce: config.debounce,
            spread: config.spread,
            ttl: config.ttl.min(MAX_TTL),
            share_last_seen: config.share_last_seen,
            crowding: 1,
            rng,
        }
    }

    pub(super) const fn ttl(&self) -> Duration {
        self.ttl
    }

    fn status(&self) -> Status {
        self.chosen.unwrap_or(if self.idle {
            Status::Idle
        } else {
            Status::Active
        })
    }

    pub(super) fn view(&self) -> PresenceView {
        PresenceView {
            status: self.status(),
            last_known: None,
            text: self.text.to_string(),
            last_seen: None,
            unstable: false,
        }
    }

    pub(super) fn set(
        &mut self,
        status: Status,
        text: &str,
        text_ttl: Option<Duration>,
        now: Now,
        out: &mut Effects<PresenceEvent>,
    ) {
        let status = if status.is_here() {
            status
        } else {
            Status::Away
        };
        let text = BoundedStr::truncated(text);
        let until = text_ttl.map(|ttl| now.mono + ttl.min(MAX_TEXT_TTL));
        let changed = self.status() != status || self.text != text || self.text_until != until;
        self.chosen = Some(status);
        self.text = text;
        self.text_until = until.filter(|_| !self.text.is_empty());
        self.active_at = Some(now.mono);
        self.idle = false;
        if changed {
            self.publish_soon(now, out);
        }
    }

    pub(super) fn touch(&mut self, now: Now, out: &mut Effects<PresenceEvent>) {
        self.active_at = Some(now.mono);
        if core::mem::take(&mut self.idle) && self.chosen.is_none() {
            self.publish_soon(now, out);
        }
    }

    pub(super) fn enter(&mut self, lobby: Channel, now: Now, out: &mut Effects<PresenceEvent>) {
        if self.lobbies.contains_key(&lobby) {
            return;
        }
        self.lobbies.insert(lobby.clone(), Lobby::default());
        if self.speaking && self.published_at.is_some() {
            self.publish_in(&lobby, now, out);
        }
    }

    pub(super) fn exit(&mut self, lobby: &Channel) {
        self.lobbies.remove(lobby);
    }

    /// Somebody asks: answer once (in a crowd some of us do, P11), after a random delay, and not more often than statuses change.
    pub(super) fn handle_seek(&mut self, lobby: &Channel, now: Now) {
        if !self.speaking || self.is_left_out() {
            return;
        }
        let delay = self.rng.jitter(ANSWER_SPREAD.min(self.spread));
        if let Some(place) = self.lobbies.get_mut(lobby)
            && place.answer_at.is_none()
        {
            let earliest = place.published_at.map_or(now.mono, |at| at + self.debounce);
            place.answer_at = Some((now.mono + delay).max(earliest));
        }
    }

    /// Each will is for a connection of its own: one that breaks before we ever spoke on it must
    /// not outrank the next.
    pub(super) fn will(&mut self) -> Presence {
        self.willed = self.willed.max(self.conn) + 1;
        Presence {
            conn: self.willed,
            seq: u64::MAX,
            ..self.record(6, None)
        }
    }

    pub(super) fn handle_up(&mut self, now: Now) {
        self.conn = self.willed.max(self.conn + 1);
        self.seq = 0;
        self.speaking = true;
        self.published_at = None;
        self.beat_at = None;
        self.publish_at = Some(now.mono + self.rng.jitter(self.spread));
    }

    pub(super) fn handle_down(&mut self) {
        self.speaking = false;
        self.publish_at = None;
        self.beat_at = None;
        for place in self.lobbies.values_mut() {
            *place = Lobby::default();
        }
    }

    pub(super) fn leave(&mut self, now: Now, out: &mut Effects<PresenceEvent>) {
        if !self.speaking {
            return;
        }
        let mut goodbye = self.worded(self.record(5, self.idle_min(now)), now);
        goodbye.seq = u64::MAX;
        out.send(Outgoing {
            last_value: true,
            ..Outgoing::ephemeral(self.channel.clone(), goodbye.clone())
        });
        goodbye.idle_min = None;
        for lobby in self.lobbies.keys() {
            out.send(Outgoing::ephemeral(lobby.clone(), goodbye.clone()).with_ttl(self.ttl));
        }
        self.handle_down();
    }

    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Effects<PresenceEvent>) {
        if self.idle_at().is_some_and(|at| at <= now.mono) {
            self.idle = true;
            self.publish_soon(now, out);
        }
        if self.text_until.is_some_and(|at| at <= now.mono) {
            // Everybody else counts for themselves: nothing needs to be said before the next beat.
            self.text_until = None;
            self.text = BoundedStr::default();
        }
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now.mono);
        if due(self.publish_at) {
            self.publish(true, now, out);
        } else if due(self.beat_at) {
            self.publish(false, now, out);
        }
        let asked: Vec<Channel> = self
            .lobbies
            .iter()
            .filter(|(_, place)| due(place.answer_at))
            .map(|(lobby, _)| lobby.clone())
            .collect();
        for lobby in asked {
            self.publish_in(&lobby, now, out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let answers = self.lobbies.values().filter_map(|place| place.answer_at);
        let own = [
            self.idle_at(),
            self.publish_at,
            self.beat_at,
            self.text_until,
        ];
        own.into_iter().flatten().chain(answers).min()
    }

    fn idle_at(&self) -> Option<Timestamp> {
        let automatic = self.chosen.is_none() && !self.idle;
        self.active_at
            .filter(|_| automatic)
            .map(|at| at + IDLE_AFTER)
    }

    /// A change: at once, or once the last publish is `debounce` ago.
    fn publish_soon(&mut self, now: Now, out: &mut Effects<PresenceEvent>) {
        if !self.speaking || self.publish_at.is_some() {
            return;
        }
        let earliest = self.published_at.map_or(now.mono, |at| at + self.debounce);
        if earliest <= now.mono {
            self.publish(true, now, out);
        } else {
            self.publish_at = Some(earliest);
        }
    }

    fn publish(&mut self, news: bool, now: Now, out: &mut Effects<PresenceEvent>) {
        self.publish_at = None;
        self.published_at = Some(now.mono);
        self.beat_at = Some(now.mono + self.beat.max(Duration::from_millis(1)));
        self.seq += 1;
        let record = self.worded(self.record(code(self.status()), self.idle_min(now)), now);
        out.send(Outgoing {
            last_value: true,
            ..Outgoing::ephemeral(self.channel.clone(), record).with_ttl(self.ttl)
        });
        let lobbies: Vec<Channel> = self.lobbies.keys().cloned().collect();
        for lobby in lobbies {
            if self.speaks_in(&lobby, news, now) {
                self.publish_in(&lobby, now, out);
            }
        }
    }

    /// In a crowd every lobby hears us less often the more people there are, and of our news only
    /// now and then (P11); the lease there is longer by as much.
    fn speaks_in(&mut self, lobby: &Channel, news: bool, now: Now) -> bool {
        let Some(at) = self.lobbies.get(lobby).and_then(|place| place.published_at) else {
            return true;
        };
        let due = now.mono.saturating_since(at) + self.beat / 2 >= self.beat * self.crowding;
        due || news && !self.is_left_out()
    }

    /// In a crowd one of many speaks for all.
    fn is_left_out(&mut self) -> bool {
        self.crowding > 1 && self.rng.below(u64::from(self.crowding)) != 0
    }

    /// How many times too many people are known for everybody to hear everybody.
    pub(super) fn set_crowding(&mut self, times: usize) {
        let most = MAX_TTL.saturating_sub(self.ttl).as_millis() / self.beat.as_millis().max(1);
        let most = u32::try_from(most).unwrap_or(u32::MAX).saturating_add(1);
        self.crowding = u32::try_from(times).unwrap_or(u32::MAX).clamp(1, most);
    }

    /// Strangers learn no last activity (P9).
    fn publish_in(&mut self, lobby: &Channel, now: Now, out: &mut Effects<PresenceEvent>) {
        self.seq += 1;
        let mut record = self.worded(self.record(code(self.status()), None), now);
        let ttl = self.ttl + self.beat * (self.crowding - 1);
        record.ttl_ms = millis(ttl);
        out.send(Outgoing::ephemeral(lobby.clone(), record).with_ttl(ttl));
        if let Some(place) = self.lobbies.get_mut(lobby) {
            *place = Lobby {
                answer_at: None,
                published_at: Some(now.mono),
            };
        }
    }

    /// With our text and how much longer it holds (P1).
    fn worded(&self, record: Presence, now: Now) -> Presence {
        let left = |until: Timestamp| millis(until.saturating_since(now.mono));
        Presence {
            text: self.text.clone(),
            text_ttl_ms: self.text_until.map(left),
            ..record
        }
    }

    fn record(&self, status: u8, idle_min: Option<u32>) -> Presence {
        Presence {
            incarnation: self.incarnation.0,
            conn: self.conn,
            seq: self.seq,
            status,
            text: BoundedStr::default(),
            text_ttl_ms: None,
            ttl_ms: millis(self.ttl),
            idle_min,
        }
    }

    /// While the user is there this stays zero (P10).
    fn idle_min(&self, now: Now) -> Option<u32> {
        if !self.share_last_seen {
            return None;
        }
        let since = match (self.status(), self.active_at) {
            (Status::Idle | Status::Away, Some(at)) => now.mono.saturating_since(at),
            _ => Duration::ZERO,
        };
        Some(u32::try_from(since.as_secs() / 60).unwrap_or(u32::MAX))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("leases and texts are capped")
}
