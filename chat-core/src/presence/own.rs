//! Our own presence: what is published, where and when (rules P8–P10, P12, IP5).

use core::time::Duration;
use std::collections::BTreeMap;

use super::record::{MAX_TTL, code};
use super::{PresenceEvent, Status};
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

    pub(super) fn set(
        &mut self,
        status: Status,
        text: &str,
        now: Now,
        out: &mut Effects<PresenceEvent>,
    ) {
        let status = if status.is_here() {
            status
        } else {
            Status::Away
        };
        let text = BoundedStr::truncated(text);
        let changed = self.status() != status || self.text != text;
        self.chosen = Some(status);
        self.text = text;
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

    /// Somebody asks: answer once, after a random delay, and not more often than statuses change.
    pub(super) fn handle_seek(&mut self, lobby: &Channel, now: Now) {
        if !self.speaking {
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
        let mut will = self.record(6, None);
        will.conn = self.willed;
        will.seq = u64::MAX;
        will.text = BoundedStr::default();
        will
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
        let mut goodbye = self.record(5, self.idle_min(now));
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
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now.mono);
        if due(self.publish_at) || due(self.beat_at) {
            self.publish(now, out);
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
        let own = [self.idle_at(), self.publish_at, self.beat_at];
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
            self.publish(now, out);
        } else {
            self.publish_at = Some(earliest);
        }
    }

    fn publish(&mut self, now: Now, out: &mut Effects<PresenceEvent>) {
        self.publish_at = None;
        self.published_at = Some(now.mono);
        self.beat_at = Some(now.mono + self.beat.max(Duration::from_millis(1)));
        self.seq += 1;
        let record = self.record(code(self.status()), self.idle_min(now));
        out.send(Outgoing {
            last_value: true,
            ..Outgoing::ephemeral(self.channel.clone(), record).with_ttl(self.ttl)
        });
        let lobbies: Vec<Channel> = self.lobbies.keys().cloned().collect();
        for lobby in lobbies {
            self.publish_in(&lobby, now, out);
        }
    }

    /// Strangers learn no last activity (P9).
    fn publish_in(&mut self, lobby: &Channel, now: Now, out: &mut Effects<PresenceEvent>) {
        self.seq += 1;
        let record = self.record(code(self.status()), None);
        out.send(Outgoing::ephemeral(lobby.clone(), record).with_ttl(self.ttl));
        if let Some(place) = self.lobbies.get_mut(lobby) {
            *place = Lobby {
                answer_at: None,
                published_at: Some(now.mono),
            };
        }
    }

    fn record(&self, status: u8, idle_min: Option<u32>) -> Presence {
        Presence {
            incarnation: self.incarnation.0,
            conn: self.conn,
            seq: self.seq,
            status,
            text: self.text.clone(),
            ttl_ms: u64::try_from(self.ttl.as_millis()).expect("the cap fits 64 bits"),
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
