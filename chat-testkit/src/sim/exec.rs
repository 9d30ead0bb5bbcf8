//! Running an endpoint: its start, its inputs, its outputs in order, its death at any boundary
//! between two effects.

use std::sync::Arc;

use chat_core::effect::Row;
use chat_core::link::LinkEvent;
use chat_core::{Endpoint, Identity, Output, PersistId};

use super::broker::Frame;
use super::crypto::FakeSigner;
use super::event::{Happening, Input, ToBroker};
use super::rng::endpoint_seed;
use super::world::{MS, World};
use crate::oracle::{Seen, Violation};

/// More outputs than this after one input are a flood.
const MAX_BURST: u32 = 4_000;
/// More wakes than this in one second are a hot loop.
const MAX_WAKES: u32 = 2_000;

impl World {
    /// Starts a process on what its disk holds.
    pub(super) fn start(&mut self, n: usize) {
        if self.nodes[n].killed {
            return;
        }
        if self.nodes[n].disk.recover() {
            self.mark("sim-torn-batch");
        }
        let (signer, verifier) = self.keys(n);
        let local = self.disk.range(1, 1_000_000_000);
        let seed = endpoint_seed(self.seed, &format!("node{n}/life{}", self.nodes[n].life));
        let node = &mut self.nodes[n];
        node.clock.boot(self.now, local);
        let identity = Identity {
            user: node.user.clone(),
            signer,
            verifier,
            sealer: Box::new(chat_core::sealer::Plain),
        };
        let (wall, mono) = (node.clock.wall(self.now), node.clock.mono(self.now));
        let opened = Endpoint::open(
            identity,
            self.config.clone(),
            seed,
            node.disk.load(),
            wall,
            mono,
        );
        let life = node.life;
        match opened {
            Ok(endpoint) => node.endpoint = Some(endpoint),
            Err(error) => {
                let text = format!("node {n} does not open on its own disk: {error}");
                self.judge(Err(Violation::new("open", text)));
                return;
            }
        }
        self.note(&[1, n as u64, life], || {
            format!("n{n} starts, life {life}, wall {}", wall.0)
        });
        self.see(n, Seen::Started);
        if self.faulty && self.disk.chance(self.swarm.failed_starts) {
            self.nodes[n].fail_fsync = Some(self.disk.range(100, 5_000));
        }
        self.pump(n);
        if self.nodes[n].life == life {
            self.boot_app(n);
        }
    }

    /// True when an endpoint of `n` opens on `rows`. It is asked, and dropped: it signs nothing.
    pub(super) fn opens_on(&self, n: usize, rows: Vec<Row>) -> bool {
        let node = &self.nodes[n];
        let (_, verifier) = self.keys(n);
        let identity = Identity {
            user: node.user.clone(),
            signer: Arc::new(FakeSigner::new(node.device_number, Arc::default())),
            verifier,
            sealer: Box::new(chat_core::sealer::Plain),
        };
        let (wall, mono) = (node.clock.wall(self.now), node.clock.mono(self.now));
        let seed = endpoint_seed(self.seed, "damaged");
        let opened = Endpoint::open(identity, self.config.clone(), seed, rows, wall, mono);
        let Ok(mut endpoint) = opened else {
            return false;
        };
        while endpoint.poll_output().is_some() {}
        endpoint.handle_timeout(mono);
        true
    }

    /// The process dies now; `keep` decides how many pending batches made it to the disk.
    pub(super) fn crash(&mut self, n: usize, down_ms: u64) {
        if self.nodes[n].endpoint.is_none() {
            return;
        }
        let pending = self.nodes[n].disk.pending();
        let keep = self.disk.index(pending + 1);
        let mut torn = 0;
        if pending > 0 {
            self.mark("sim-crash-with-pending-batches");
            torn = self.disk.index(8);
        }
        self.note(&[2, n as u64, keep as u64], || {
            format!("n{n} CRASHES, {keep} of {pending} pending batches survive")
        });
        let node = &mut self.nodes[n];
        let kept = node.disk.crash(keep, torn);
        let (conn, client) = (node.conn.take(), node.device_number);
        node.clear_process();
        let life = node.life;
        for rows in &kept {
            self.see(n, Seen::Stored(rows));
        }
        if let Some(conn) = conn {
            // The network notices by a reset, or only after a while.
            let late = if self.net.chance(500) {
                20 * MS
            } else {
                self.net.range(1, 30) * 1_000 * MS
            };
            self.push(
                self.now + late,
                Happening::AtBroker {
                    node: n,
                    client,
                    conn,
                    what: ToBroker::Broken,
                },
            );
        }
        self.see(n, Seen::Died);
        self.push(self.now + down_ms * MS, Happening::Start { node: n, life });
    }

    /// Input for a process; dropped when that process is gone, queued while it stands still.
    pub(super) fn input(&mut self, n: usize, life: u64, input: Input) {
        let node = &mut self.nodes[n];
        if node.life != life || node.endpoint.is_none() {
            return;
        }
        if node.paused_until > self.now {
            node.backlog.push_back(input);
            return;
        }
        self.feed(n, input);
    }

    /// A pause ends: what queued comes in order.
    pub(super) fn resume(&mut self, n: usize) {
        if self.nodes[n].paused_until > self.now {
            return;
        }
        let life = self.nodes[n].life;
        let backlog = core::mem::take(&mut self.nodes[n].backlog);
        for input in backlog {
            self.input(n, life, input);
        }
    }

    fn feed(&mut self, n: usize, input: Input) {
        let now = self.nodes[n].clock.mono(self.now);
        let current = self.nodes[n].conn;
        let is_current = |conn: u64| current == Some(conn);
        if let Input::React(reaction) = input {
            self.react(n, reaction);
            return;
        }
        if let Input::Frame(_, frame, _) | Input::Forged(frame) = &input {
            if matches!(&input, Input::Frame(conn, ..) if !is_current(*conn)) {
                return;
            }
            let live = !matches!(input, Input::Frame(_, _, false));
            let (len, kind) = (
                frame.bytes.len() as u64,
                frame.bytes.get(3).copied().unwrap_or(0),
            );
            self.note(&[3, n as u64, len, u64::from(kind)], || {
                let what = super::trace::frame(&frame.channel, &frame.bytes);
                format!(
                    "n{n} <- n{} {what}{}",
                    frame.from,
                    if live { "" } else { " (last value)" }
                )
            });
            self.see(n, Seen::Arrives(&frame.channel, &frame.bytes, live));
        }
        let node = &mut self.nodes[n];
        let Some(endpoint) = node.endpoint.as_mut() else {
            return;
        };
        match input {
            Input::Wake => {
                if node.wake_at > self.now {
                    return;
                }
                node.wake_at = u64::MAX;
                endpoint.handle_timeout(now);
                self.pump(n);
                self.check_progress(n);
                return;
            }
            Input::Synced(upto) => return self.synced(n, upto),
            Input::Up(conn, resumed) if is_current(conn) => {
                node.up = true;
                let marks_backlog = self.swarm.marks_backlog;
                endpoint.handle_link(
                    &LinkEvent::Up {
                        resumed,
                        marks_backlog,
                    },
                    now,
                );
                self.note(&[4, n as u64, conn], || {
                    format!("n{n} up (resumed: {resumed})")
                });
            }
            Input::Down(conn, reason) if is_current(conn) => {
                (node.up, node.conn) = (false, None);
                let event = LinkEvent::Down {
                    reason: reason.clone(),
                    retry_after: None,
                };
                endpoint.handle_link(&event, now);
                self.note(&[5, n as u64, conn], || format!("n{n} down ({reason:?})"));
            }
            Input::Subscribed(conn, channel) if is_current(conn) => {
                endpoint.handle_link(&LinkEvent::Subscribed(channel), now);
            }
            Input::CaughtUp(conn) if is_current(conn) => {
                endpoint.handle_link(&LinkEvent::CaughtUp, now);
            }
            Input::Acked(conn, id, fate) if conn.is_none_or(is_current) => {
                endpoint.handle_acked(id, fate, now);
            }
            Input::Frame(_, frame, live) => {
                endpoint.handle_inbound(&frame.channel, &frame.bytes, live, now);
            }
            Input::Forged(frame) => {
                endpoint.handle_inbound(&frame.channel, &frame.bytes, true, now);
            }
            _ => return,
        }
        self.pump(n);
    }

    /// After a wake the next deadline must lie ahead, and wakes must be few.
    fn check_progress(&mut self, n: usize) {
        let second = self.now / 1_000_000;
        let node = &mut self.nodes[n];
        let Some(endpoint) = &node.endpoint else {
            return;
        };
        let mono = node.clock.mono(self.now);
        if let Some(next) = endpoint.poll_timeout()
            && next <= mono
        {
            let text =
                format!("node {n}: after handle_timeout({mono}) the next deadline is {next}");
            self.judge(Err(Violation::new("progress", text)));
            return;
        }
        if node.wakes.0 != second {
            node.wakes = (second, 0);
        }
        node.wakes.1 += 1;
        if node.wakes.1 > MAX_WAKES {
            let text = format!("node {n} woke {MAX_WAKES} times within one second");
            self.judge(Err(Violation::new("progress", text)));
        }
    }

    /// Drains the endpoint and obeys; then asks when to call it again.
    pub(super) fn pump(&mut self, n: usize) {
        self.nodes[n].burst = 0;
        while self.broken.is_none() {
            let Some(endpoint) = self.nodes[n].endpoint.as_mut() else {
                return;
            };
            let Some(output) = endpoint.poll_output() else {
                break;
            };
            match &output {
                Output::Transmit(transmit) => self.see(n, Seen::Transmit(transmit)),
                Output::Event { event, .. } => self.see(n, Seen::Queued(event)),
                _ => {}
            }
            self.nodes[n].burst += 1;
            if self.nodes[n].burst > MAX_BURST {
                let text = format!("node {n}: one input made more than {MAX_BURST} outputs");
                self.judge(Err(Violation::new("bounded output", text)));
                return;
            }
            let after = match &output {
                Output::Transmit(transmit) => transmit.after,
                Output::Event { after, .. } => *after,
                _ => None,
            };
            let node = &mut self.nodes[n];
            match after.filter(|id| node.durable.is_none_or(|durable| *id > durable)) {
                Some(id) => node.held.push_back((id, output)),
                None => self.effect(n, output),
            }
        }
        self.arm(n);
    }

    fn arm(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(endpoint) = &node.endpoint else {
            return;
        };
        let at = endpoint
            .poll_timeout()
            .map_or(u64::MAX, |at| node.clock.true_at(at));
        let at = at.max(self.now);
        // An earlier wake that is no longer wanted is spurious, which every endpoint must bear.
        if at != u64::MAX && at < node.wake_at {
            node.wake_at = at;
            self.push_input(at, n, Input::Wake);
        } else if at > node.wake_at {
            node.wake_at = at;
            if at != u64::MAX {
                self.push_input(at, n, Input::Wake);
            }
        }
    }

    /// Carries out one effect, or dies before it.
    fn effect(&mut self, n: usize, output: Output) {
        if let Some((left, down)) = &mut self.nodes[n].crash_in {
            if *left == 0 {
                let down = *down;
                self.crash(n, down);
                return;
            }
            *left -= 1;
        }
        if self.faulty && self.disk.in_ten_thousand(self.swarm.effect_crashes) {
            let down = self.disk.range(1, 4_000);
            self.mark("sim-crash-at-an-effect");
            self.crash(n, down);
            return;
        }
        match output {
            Output::Persist { .. } if self.now < self.nodes[n].full_until => {
                // A write that fails is like an fsync that fails: stop, and try again later.
                self.mark("sim-full-disk");
                let down = self.disk.range(100, 3_000);
                self.crash(n, down);
            }
            Output::Persist { id, rows } => {
                self.note(&[6, n as u64, id.0, rows.len() as u64], || {
                    format!("n{n} persist #{} ({} rows)", id.0, rows.len())
                });
                self.nodes[n].disk.write(id, rows);
                self.fsync(n);
            }
            Output::Transmit(transmit) => self.transmit(n, transmit),
            Output::Subscribe(channel) => self.uplink(n, ToBroker::Subscribe(channel)),
            Output::Unsubscribe(channel) => self.uplink(n, ToBroker::Unsubscribe(channel)),
            Output::Connect { will } => {
                let node = &mut self.nodes[n];
                node.conn = Some(node.next_conn);
                node.next_conn += 1;
                node.up = false;
                let will = will.map(|will| {
                    std::rc::Rc::new(Frame {
                        channel: will.channel,
                        bytes: will.bytes,
                        durable: false,
                        retain: true,
                        expires: u64::MAX,
                        from: n,
                        dedup: None,
                    })
                });
                self.note(&[7, n as u64], || format!("n{n} connects"));
                self.uplink(n, ToBroker::Connect(will));
            }
            Output::Disconnect => {
                self.note(&[8, n as u64], || format!("n{n} disconnects"));
                self.uplink(n, ToBroker::Goodbye);
                (self.nodes[n].conn, self.nodes[n].up) = (None, false);
            }
            Output::Event { event, .. } => {
                self.note(&[9, n as u64], || {
                    format!("n{n} told {}", super::trace::event(&event))
                });
                self.see(n, Seen::Event(&event));
                self.told(n, event);
            }
            _ => {
                let text = format!("node {n}: an output that this driver does not know");
                self.judge(Err(Violation::new("output", text)));
            }
        }
    }

    fn fsync(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        if node.syncing || node.disk.pending() == 0 {
            return;
        }
        node.syncing = true;
        let slow = if now < node.slow_until {
            node.slow_fsync
        } else {
            0
        };
        let at = now + slow + self.disk.range(200, 8 * MS);
        let upto = PersistId(u64::MAX);
        self.push_input(at, n, Input::Synced(upto));
    }

    fn synced(&mut self, n: usize, upto: PersistId) {
        let now = self.nodes[n].clock.mono(self.now);
        self.nodes[n].syncing = false;
        if let Some(down) = self.nodes[n].fail_fsync.take() {
            // A failed fsync leaves nobody knows what: stop, never try again.
            self.mark("sim-failed-fsync");
            self.crash(n, down);
            return;
        }
        let done = self.nodes[n].disk.sync(upto);
        let last = done.last().map(|(id, _)| *id);
        self.nodes[n].durable = last.max(self.nodes[n].durable);
        for (_, rows) in &done {
            self.see(n, Seen::Stored(rows));
        }
        for (id, _) in done {
            let life = self.nodes[n].life;
            while let Some((after, _)) = self.nodes[n].held.front()
                && *after <= id
            {
                let (_, output) = self.nodes[n]
                    .held
                    .pop_front()
                    .expect("the front was just seen");
                self.effect(n, output);
                if self.nodes[n].life != life || self.broken.is_some() {
                    return;
                }
            }
            self.note(&[10, n as u64, id.0], || format!("n{n} durable #{}", id.0));
            let Some(endpoint) = self.nodes[n].endpoint.as_mut() else {
                return;
            };
            endpoint.handle_persisted(id, now);
            self.pump(n);
            if self.nodes[n].life != life {
                return;
            }
        }
        self.fsync(n);
    }
}
