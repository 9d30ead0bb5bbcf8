//! When a message is sent, and sent again (reliability 2.3 "retransmit", rules Q1, Q6–Q8,
//! S11–S13).
//!
//! Guarantees: nothing is sent while the connection is down; copies beyond the first, and hellos,
//! share a token bucket; the wait doubles up to its cap with jitter and is reset by any
//! acknowledgement, but for what it grew by because much came too late: that is forgotten with the next
//! thing that was sent once, so that a line slower than the wait is not filled with repeats; every copy
//! carries the current base and a new attempt number.

use core::time::Duration;

use super::Delivery;
use super::outbox::At;
use super::send::FRAME_OVERHEAD;
use super::state::ConvAt;
use crate::channel::Class;
use crate::config::DeliveryConfig;
use crate::effect::{Carried, Outgoing};
use crate::id::{Epoch, MessageId, Seq, StreamId};
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::rng::Rng;
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire::delivery::{MAX_BATCH, MAX_BODY};
use crate::wire::{self, BoundedVec};

/// From this many silent rounds on only the first missing message of each epoch is sent, as a
/// probe: who is away would only find copies in its mailbox.
const PROBE_FROM: u32 = 3;
/// What a message needs besides its body when it is not the first of its frame, at the most.
const MESSAGE_OVERHEAD: usize = 64;
/// What a causal hint needs, at the most.
const HINT: usize = 40;
/// Epochs listed in one hello, the oldest: what expired lies in the first of them.
const MAX_OPEN: usize = 12;
/// What expired is announced for another time to live, but at least for so long.
const NOTICE_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The smoothed round trip of one conversation, in microseconds (RFC 6298 in integers).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    smoothed: u64,
    deviation: u64,
    pub(super) silent: u32,
    /// How often much was repeated to somebody who answers, since the last measurement: each
    /// doubles the wait. What comes back after a repeat measures nothing, so a line that is slower
    /// than the wait would else be filled with repeats for ever (RFC 6298, 5.7).
    late: u32,
}

/// The most of [`Rtt::late`].
const MAX_LATE: u32 = 10;
/// So many messages overdue at once are much. Fewer are what a bad line loses.
const MUCH: usize = 16;
/// What was measured may be waited for so many times longer than who is silent.
const PATIENCE: u32 = 32;

impl Rtt {
    /// Takes a measurement of a message that was sent once.
    pub(super) fn sample(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 8);
        self.late = 0;
        if self.smoothed == 0 {
            self.smoothed = took.max(1);
            self.deviation = took / 2;
        } else {
            let off = self.smoothed.abs_diff(took);
            self.deviation = self.deviation - self.deviation / 4 + off / 4;
            self.smoothed = (self.smoothed - self.smoothed / 8 + took / 8).max(1);
        }
    }

    /// A round is over, in which so many messages were overdue.
    fn round(&mut self, overdue: usize) {
        let fills = planted("delivery-repeats-fill-the-line");
        if overdue >= MUCH && self.silent == 0 && !fills {
            self.late = (self.late + 1).min(MAX_LATE);
        }
        self.silent = self.silent.saturating_add(1);
    }

    /// A new connection, or nothing is owed any more: what was lost before says nothing.
    pub(super) fn begin(&mut self) {
        self.silent = 0;
        self.late = 0;
    }

    /// The wait when the other side answers.
    fn answered(self, config: &DeliveryConfig, group: bool) -> Duration {
        Self { silent: 0, ..self }.wait(config, group)
    }

    /// The next wait, without jitter.
    pub(super) fn wait(&self, config: &DeliveryConfig, group: bool) -> Duration {
        let slack = if group {
            config.group_ack_delay
        } else {
            config.ack_delay
        };
        let measured = if self.smoothed == 0 {
            config.rto_first
        } else {
            Duration::from_micros(
                self.smoothed
                    .saturating_add(self.deviation.saturating_mul(4)),
            )
        };
        let floor = (config.rto_first / 4).max(slack * 2);
        let answers = measured
            .max(floor)
            .saturating_mul(1 << self.late)
            .min(config.rto_max.saturating_mul(PATIENCE));
        answers
            .saturating_mul(1 << self.silent.min(16))
            .min(config.rto_max.max(answers))
    }
}

/// A token bucket: one second's worth of tokens, in millionths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: u64,
    level: u64,
    at: Timestamp,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    pub(super) fn new(rate: u32) -> Self {
        let rate = u64::from(rate);
        Self {
            rate,
            level: rate * TOKEN,
            at: Timestamp::ZERO,
        }
    }

    /// Takes one token; otherwise says how long until there is one.
    pub(super) fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let passed = u64::try_from(now.saturating_since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        self.level = self
            .level
            .saturating_add(passed.saturating_mul(self.rate))
            .min(self.rate * TOKEN);
        if self.level >= TOKEN {
            self.level -= TOKEN;
            return Ok(());
        }
        Err(Duration::from_micros(
            (TOKEN - self.level) / self.rate.max(1) + 1,
        ))
    }
}

/// A wait with jitter: between the wait and one and a half times as long.
pub(super) fn spread(wait: Duration, rng: &mut Rng) -> Duration {
    wait + rng.jitter(wait / 2)
}

impl Delivery {
    /// Sends what is durable, has not been sent and fits the window of somebody, in order; what
    /// waits together shares frames.
    pub(super) fn pump(&mut self, conv: ConvAt, now: Now) {
        if !self.up {
            return;
        }
        let mut above = (Epoch(0), 0);
        loop {
            let out = &self.convs[conv].out;
            let Some(&first) = out.unsent.range(above..).next() else {
                break;
            };
            if !out.wedged.is_empty() {
                let rest = (first.0, out.limit(first.0, u64::MAX));
                self.pump_past(conv, first, rest, now);
                above = (first.0, u64::MAX);
                continue;
            }
            let rest = (first.0, out.limit(first.0, first.1 + MAX_BATCH as u64));
            let next = (first.0, first.1 + 1);
            let fits = out.unsent.range(next..).take_while(|at| **at <= rest);
            let most = if out.alone { 0 } else { MAX_BATCH - 1 };
            let more: Vec<At> = fits.take(most).copied().collect();
            // What cannot be sent now holds up its own epoch only.
            above = if first <= rest && self.transmit(conv, first, &more, now) > 0 {
                first
            } else {
                (first.0, u64::MAX)
            };
        }
        self.arm(conv, now);
    }

    /// The same for one epoch where something is wedged: what lies before it, and what passes it,
    /// each alone (Q2).
    fn pump_past(&mut self, conv: ConvAt, first: At, rest: At, now: Now) {
        if first > rest {
            return;
        }
        let out = &self.convs[conv].out;
        let may: Vec<At> = out
            .unsent
            .range(first..=rest)
            .copied()
            .filter(|at| out.may_leave(*at))
            .collect();
        for at in may {
            if self.transmit(conv, at, &[], now) == 0 {
                return;
            }
        }
    }

    /// Sends a copy of `first`, and in the same frame as many of `more`, in order, as may travel
    /// with it. Returns how many went: none when `first` cannot be sent now.
    fn transmit(&mut self, conv: ConvAt, first: At, more: &[At], now: Now) -> usize {
        let lives_apart = self.epoch_at_start.0.saturating_sub(first.0.0);
        let most = MAX_BODY.min(self.max_frame.saturating_sub(FRAME_OVERHEAD));
        let it = &mut self.convs[conv];
        let Some(route) = &it.route else {
            return 0;
        };
        let stream = StreamId {
            conv: it.id,
            device: self.me.device,
            epoch: first.0,
        };
        let base = it.out.base(first.0);
        let base_roster = it.out.base_roster(first.0);
        let sent_before = it
            .out
            .lives
            .get(&first.0)
            .map_or(0, |life| life.sent_before);
        let prior = it.out.prior(first.0).map(Box::new);
        let wedged = it.out.is_past_a_wedge(first);
        let mut carried: Option<(Carried, wire::delivery::Data)> = None;
        let mut others = Vec::new();
        let (mut room, mut longest) = (most, Duration::ZERO);
        for at in core::iter::once(&first).chain(more) {
            let Some(entry) = it.out.entries.get_mut(at) else {
                break;
            };
            let step = at.1 - first.1;
            let alike = carried.as_ref().is_none_or(|(_, data)| {
                at.0 == first.0 && step < 64 && entry.roster == data.roster
            });
            if !alike || entry.storing > 0 || entry.expires <= now.wall {
                break;
            }
            let seq = Seq(at.1);
            let sealed = if entry.body.is_empty() {
                Some(Vec::new())
            } else {
                self.sealer.seal(&MessageId { stream, seq }, &entry.body)
            };
            let Some(sealed) = sealed else {
                mark("delivery-not-sealed");
                break;
            };
            let takes = sealed.len() + MESSAGE_OVERHEAD + entry.deps.len() * HINT;
            if carried.is_some() && takes > room {
                break;
            }
            room = room.saturating_sub(takes);
            // A body that outgrew the frame by sealing waits too: its time to live ends it.
            let Ok(body) = sealed.try_into() else {
                mark("delivery-not-sealed");
                break;
            };
            let left = entry.expires.saturating_since(now.wall);
            longest = longest.max(left);
            entry.sends = entry.sends.saturating_add(1);
            entry.sent_at = now.mono;
            entry.copies = entry.copies.saturating_add(1);
            let message = wire::delivery::Message {
                seq: at.1,
                hlc: entry.hlc.0,
                ttl_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                deps: BoundedVec::take_from(entry.deps.iter().copied()),
                body,
            };
            it.out.unsent.remove(at);
            if let Some((carried, _)) = &mut carried {
                mark("delivery-shared-frame");
                carried.more |= 1 << (step - 1);
                others.push(message);
                continue;
            }
            // Attempts of a new life start above those of the old ones, so that a broker's window
            // of ids never takes a new copy for an old one.
            let attempt = u32::try_from(lives_apart & 0x7fff_ffff)
                .expect("31 bits fit")
                .saturating_add(entry.sends);
            let data = wire::delivery::Data {
                conv: it.id.0,
                epoch: first.0.0,
                base,
                sent_before,
                base_roster,
                prev_roster: entry.prev_roster,
                roster: entry.roster,
                attempt,
                push: false,
                prior: prior.clone(),
                wedged,
                first: message,
                more: BoundedVec::default(),
            };
            let id = MessageId { stream, seq };
            carried = Some((
                Carried {
                    first: id,
                    attempt,
                    more: 0,
                },
                data,
            ));
        }
        let Some((carried, mut data)) = carried else {
            return 0;
        };
        let sent = 1 + others.len();
        data.more = BoundedVec::take_from(others);
        let next = it.out.unsent.range(first..=(first.0, u64::MAX)).next();
        data.push = next.is_none_or(|at| *at > (at.0, it.out.limit(at.0, at.1)));
        let mut frame = Outgoing::durable(route.channel.clone(), data).with_ttl(longest);
        frame.carries = Some(carried);
        self.effects.send(frame);
        sent
    }

    /// Sets the retransmit timer where something is owed and none runs; stops it where not.
    pub(super) fn arm(&mut self, conv: ConvAt, now: Now) {
        let it = &self.convs[conv];
        let owes = it.owes();
        if owes {
            self.owing.insert(conv);
        } else {
            self.owing.remove(&conv);
            // Everybody answered: what comes next does not wait for what was lost before.
            if !planted("delivery-backoff-stays") {
                self.convs[conv].out.rtt.begin();
            }
        }
        let it = &self.convs[conv];
        let idle = !owes || !self.up || it.route.is_none() || it.out.awaits_decision();
        if idle {
            self.set_dues(conv, |dues| dues.retry = None);
        } else if self.convs[conv].dues.retry.is_none() {
            self.rearm(conv, now);
        }
    }

    /// Sets the retransmit timer, or pulls it closer: it is never pushed back, so that those who
    /// answer cannot starve one who does not.
    pub(super) fn rearm(&mut self, conv: ConvAt, now: Now) {
        let it = &self.convs[conv];
        let Some(route) = &it.route else { return };
        let wait = it.out.rtt.wait(&self.config, route.group);
        let due = now.mono + spread(wait, &mut self.rng);
        let moves = self.up && !it.out.awaits_decision();
        if moves && it.dues.retry.is_none_or(|old| due < old) {
            self.set_dues(conv, |dues| dues.retry = Some(due));
        }
    }

    /// The retransmit timer fired.
    pub(super) fn on_retry(&mut self, conv: ConvAt, now: Now) {
        if !self.up {
            return;
        }
        // A wall clock that was set forward: what ran out by that is not sent, and its timer was
        // set by the old one.
        self.on_expiry(conv, now);
        self.pump(conv, now);
        let it = &self.convs[conv];
        if it.route.is_none() {
            return;
        }
        let rto = it.out.rtt.answered(&self.config, it.is_group());
        let mut due = Vec::new();
        let mut next: Option<Timestamp> = None;
        for at in it.out.wanted() {
            let Some(entry) = it.out.entries.get(&at).filter(|entry| entry.sends > 0) else {
                continue;
            };
            if it.out.unsent.contains(&at) || !it.out.may_leave(at) {
                continue;
            }
            let aged = entry.sent_at + rto;
            if aged <= now.mono {
                due.push((aged, at));
            } else {
                next = Some(next.map_or(aged, |next| next.min(aged)));
            }
        }
        if it.out.rtt.silent >= PROBE_FROM {
            due.dedup_by_key(|(_, at)| at.0);
        }
        // What waits longest goes first: a round that runs out of tokens goes on where it ended,
        // so that what one recipient never takes does not keep others from theirs.
        due.sort_unstable();
        if due.is_empty()
            && let Some(next) = next
        {
            self.set_dues(conv, |dues| dues.retry = Some(next));
            return;
        }
        let mut sent = false;
        let (overdue, nothing_due) = (due.len(), due.is_empty());
        while let Some(&(_, first)) = due.first() {
            match self.bucket.take(now.mono) {
                Ok(()) => {
                    mark("delivery-retransmit");
                    let mut more: Vec<At> = due.iter().map(|(_, at)| *at).collect();
                    more.retain(|at| at.0 == first.0 && at.1 > first.1);
                    more.sort_unstable();
                    let out = &self.convs[conv].out;
                    let alone = out.alone || !out.wedged.is_empty();
                    more.truncate(if alone { 0 } else { MAX_BATCH - 1 });
                    let went = self.transmit(conv, first, &more, now);
                    sent |= went > 0;
                    more.truncate(went.saturating_sub(1));
                    due.retain(|(_, at)| *at != first && !more.contains(at));
                }
                Err(wait) => {
                    mark("delivery-bucket-empty");
                    // A round that used up the tokens is over, and what is left over is due in
                    // the next one: otherwise a full window would never back off.
                    if sent {
                        break;
                    }
                    let soon = now.mono + spread(wait, &mut self.rng);
                    self.set_dues(conv, |dues| dues.retry = Some(soon));
                    return;
                }
            }
        }
        if nothing_due && !self.say_where_we_stand(conv, now) {
            return;
        }
        let it = &mut self.convs[conv];
        if sent || nothing_due {
            it.out.rtt.round(overdue);
        }
        self.arm(conv, now);
        if self.owing.contains(&conv) {
            self.rearm(conv, now);
        }
    }

    /// Nothing can be sent: asks for a window, or announces a base. False when nothing is owed.
    fn say_where_we_stand(&mut self, conv: ConvAt, now: Now) -> bool {
        let it = &mut self.convs[conv];
        if it.out.entries.is_empty() {
            let over = it.out.notice.is_none_or(|until| until <= now.wall);
            if over || !it.out.owes_notice() {
                it.out.notice = None;
                self.put_conv(conv);
                self.arm(conv, now);
                return false;
            }
            it.out.hellos = it.out.hellos.saturating_add(1);
        }
        if self.bucket.take(now.mono).is_ok() {
            self.send_hello(conv);
        }
        true
    }

    /// How long what expires now is announced to those who do not answer.
    pub(super) fn notice_until(&self, now: Now) -> UnixMillis {
        now.wall.plus(self.config.content_ttl.max(NOTICE_FOR))
    }

    /// A recipient shows that it is there: what nobody told it of is announced soon.
    pub(super) fn notice_sign(&mut self, conv: ConvAt, from: &Sender, now: Now) {
        let it = &mut self.convs[conv];
        if it.out.notice.is_none() {
            return;
        }
        let who = (from.user.clone(), from.device);
        let peer = it.out.peers.get(&who);
        if peer.is_some_and(|peer| it.out.is_owed_notice(peer)) {
            mark("delivery-sign-of-the-unaware");
            it.out.rtt.silent = 0;
            self.rearm(conv, now);
        }
    }

    /// The connection is up: says what is owed before anything is repeated (S11–S13).
    pub(super) fn on_hello_due(&mut self, conv: ConvAt, now: Now) {
        if !self.up {
            return;
        }
        let it = &self.convs[conv];
        if it.route.is_none() || !it.owes() {
            return;
        }
        let known =
            it.out.notice.is_some() || it.out.entries.values().next().is_some_and(|e| e.copies > 0);
        if known {
            if let Err(wait) = self.bucket.take(now.mono) {
                let soon = now.mono + spread(wait, &mut self.rng);
                self.set_dues(conv, |dues| dues.hello = Some(soon));
                return;
            }
            self.send_hello(conv);
        }
        self.pump(conv, now);
    }

    /// Announces every open epoch with its base.
    pub(super) fn send_hello(&mut self, conv: ConvAt) {
        let it = &self.convs[conv];
        let Some(route) = &it.route else { return };
        if planted("delivery-no-hello")
            || (it.out.notice.is_some() && planted("delivery-no-notice"))
        {
            return;
        }
        let open: Vec<_> = it
            .out
            .lives
            .iter()
            .take(MAX_OPEN)
            .map(|(epoch, life)| it.out.stands(*epoch, *life))
            .collect();
        mark("delivery-hello");
        let hello = wire::delivery::Hello {
            conv: it.id.0,
            open: BoundedVec::take_from(open),
        };
        let mut frame = Outgoing::durable(route.channel.clone(), hello).gated();
        // Only news of a base is worth keeping for who is away.
        if it.out.notice.is_none() || it.out.hellos > 1 {
            frame.class = Class::Ephemeral;
        }
        self.effects.send(frame);
    }

    pub(super) fn own_id(&self, conv: ConvAt, at: At) -> MessageId {
        MessageId {
            stream: StreamId {
                conv: self.convs[conv].id,
                device: self.me.device,
                epoch: at.0,
            },
            seq: Seq(at.1),
        }
    }
}
