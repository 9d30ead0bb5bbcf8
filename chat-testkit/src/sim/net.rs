//! The network and the brokers' side of it: FIFO per connection upwards and per publisher
//! downwards, each delivery with its own fate.

use std::rc::Rc;

use chat_core::channel::Class;
use chat_core::delivery::Unsendable;
use chat_core::link::DownReason;
use chat_core::{Fate, Transmit, wire};

use super::broker::{Frame, Target};
use super::event::{Happening, Input, ToBroker};
use super::world::{MS, World};
use crate::oracle::Seen;

/// The kind of frames with messages.
const DATA: u8 = 0x20;

impl World {
    pub(super) fn transmit(&mut self, n: usize, transmit: Transmit) {
        let now = self.now;
        let node = &self.nodes[n];
        let (id, conn) = (transmit.id, node.conn);
        let len = transmit.bytes.len() as u64;
        self.note(&[11, n as u64, len], || {
            format!(
                "n{n} -> {}",
                super::trace::frame(&transmit.channel, &transmit.bytes)
            )
        });
        self.see(n, Seen::Sent(&transmit));
        if !self.nodes[n].up {
            self.push_input(now, n, Input::Acked(None, id, Fate::NotTaken));
            return;
        }
        let ttl = transmit.ttl.map_or(u64::MAX, |ttl| ttl.as_micros() as u64);
        let frame = Rc::new(Frame {
            channel: transmit.channel,
            bytes: transmit.bytes,
            durable: transmit.class == Class::Durable,
            retain: transmit.last_value,
            expires: now.saturating_add(ttl),
            from: n,
            dedup: transmit.dedup,
        });
        if !self.denies(n, &frame) {
            if self.recent.len() == 64 {
                self.recent.pop_front();
            }
            self.recent.push_back(frame.clone());
        }
        if !frame.durable {
            // Written to the socket is all that will ever be known.
            self.push_input(now, n, Input::Acked(conn, id, Fate::Taken));
        }
        self.uplink(n, ToBroker::Publish(id, frame));
    }

    /// Sends to the broker over the current connection, in order.
    pub(super) fn uplink(&mut self, n: usize, what: ToBroker) {
        let Some(conn) = self.nodes[n].conn else {
            return;
        };
        let lossy = matches!(what, ToBroker::Publish(..) | ToBroker::Subscribe(_));
        if self.now < self.nodes[n].cut_up || lossy && self.lost() {
            self.mark("sim-lost-up");
            return;
        }
        let delay = self.delay();
        let node = &mut self.nodes[n];
        let at = (self.now + delay).max(node.last_up).max(node.clogged);
        node.last_up = at;
        let client = node.device_number;
        self.push(
            at,
            Happening::AtBroker {
                node: n,
                client,
                conn,
                what,
            },
        );
    }

    fn lost(&mut self) -> bool {
        self.faulty && self.net.chance(self.swarm.loss)
    }

    fn delay(&mut self) -> u64 {
        let mean = if self.faulty {
            self.swarm.delay_ms
        } else {
            self.swarm.delay_ms.min(50)
        };
        self.net.exponential(mean * MS).min(2_000 * MS)
    }

    pub(super) fn at_broker(&mut self, n: usize, client: u64, conn: u64, what: ToBroker) {
        let b = self.nodes[n].broker;
        if !self.brokers[b].up {
            if matches!(what, ToBroker::Connect(_)) {
                self.answer(n, Input::Down(conn, DownReason::Lost));
            }
            return;
        }
        if let ToBroker::Connect(will) = what {
            // An attempt that the client gave up meanwhile still arrives; brokers cannot know.
            let (old, resumed) = self.brokers[b].connect(client, n, conn, will);
            if let Some(will) = old {
                self.mark("sim-takeover");
                self.will(b, will);
            }
            self.answer(n, Input::Up(conn, resumed));
            let waiting = self.brokers[b].drain(client);
            for frame in waiting {
                self.deliver(
                    b,
                    &Target {
                        client,
                        node: n,
                        conn,
                    },
                    &frame,
                    true,
                );
            }
            if self.swarm.marks_backlog {
                self.answer(n, Input::CaughtUp(conn));
            }
            return;
        }
        if !self.brokers[b].has(client, conn) {
            return;
        }
        match what {
            ToBroker::Publish(id, frame) if self.denies(n, &frame) => {
                self.mark("sim-denied");
                // Nobody but the broker has seen it.
                self.recent.retain(|seen| !Rc::ptr_eq(seen, &frame));
                let fate = Fate::Never(Unsendable::Denied);
                self.answer(n, Input::Acked(Some(conn), id, fate));
            }
            ToBroker::Publish(id, frame) => {
                if frame.durable {
                    self.answer(n, Input::Acked(Some(conn), id, Fate::Taken));
                }
                self.publish(b, &frame, false);
            }
            ToBroker::Subscribe(channel) => {
                let last = self.brokers[b].subscribe(client, &channel);
                self.answer(n, Input::Subscribed(conn, channel));
                if let Some(frame) = last {
                    self.deliver(
                        b,
                        &Target {
                            client,
                            node: n,
                            conn,
                        },
                        &frame,
                        false,
                    );
                }
            }
            ToBroker::Unsubscribe(channel) => self.brokers[b].unsubscribe(client, &channel),
            ToBroker::Goodbye => drop(self.brokers[b].disconnect(client, conn, true)),
            ToBroker::Broken => {
                if let Some(will) = self.brokers[b].disconnect(client, conn, false) {
                    self.will(b, will);
                }
            }
            ToBroker::Connect(_) => {}
        }
    }

    /// The broker does not let `n` write messages for now.
    fn denies(&self, n: usize, frame: &Frame) -> bool {
        self.now < self.nodes[n].barred_until && wire::peek_kind(&frame.bytes) == Some(DATA)
    }

    fn will(&mut self, broker: usize, frame: Rc<Frame>) {
        let late = if self.swarm.late_wills && self.faulty {
            self.mark("sim-late-will");
            self.net.range(1, 60_000) * MS
        } else {
            0
        };
        self.push(
            self.now + late,
            Happening::Publish {
                broker,
                frame,
                bridged: false,
            },
        );
    }

    /// A broker takes a frame: to those who are here, to mailboxes, over the bridge.
    pub(super) fn publish(&mut self, broker: usize, frame: &Rc<Frame>, bridged: bool) {
        if !self.brokers[broker].up || frame.expires < self.now {
            return;
        }
        let mut targets = Vec::new();
        if !self.brokers[broker].publish(frame, &mut targets) {
            self.mark("sim-broker-dedup");
            return;
        }
        for target in targets {
            self.deliver(broker, &target, frame, true);
        }
        if !bridged && self.brokers.len() == 2 {
            let other = 1 - broker;
            if self.now < self.bridge_cut && !(frame.durable && self.swarm.mailboxes) {
                self.mark("sim-bridge-lost");
                return;
            }
            let at = (self.now + self.delay())
                .max(self.bridge_cut)
                .max(self.bridge_last[other]);
            self.bridge_last[other] = at;
            let frame = frame.clone();
            self.push(
                at,
                Happening::Publish {
                    broker: other,
                    frame,
                    bridged: true,
                },
            );
        }
    }

    /// One delivery to one client, with its fate.
    fn deliver(&mut self, broker: usize, target: &Target, frame: &Rc<Frame>, live: bool) {
        let n = target.node;
        if frame.expires < self.now {
            return;
        }
        if self.now < self.nodes[n].cut_down {
            self.mark("sim-lost-down");
            if frame.durable && self.net.chance(500) {
                self.brokers[broker].requeue(target.client, frame);
            }
            return;
        }
        if self.lost() {
            return;
        }
        let delay = self.delay();
        let reorder = self.swarm.reorder && self.faulty;
        let node = &mut self.nodes[n];
        let mut at = (self.now + delay).max(node.clogged);
        if !reorder {
            at = at.max(node.last_down[frame.from]);
            node.last_down[frame.from] = at;
        }
        self.push_input(at, n, Input::Frame(target.conn, frame.clone(), live));
        if self.faulty && self.net.chance(self.swarm.dup) {
            self.push_input(at, n, Input::Frame(target.conn, frame.clone(), live));
        }
        if self.faulty && live && self.net.chance(self.swarm.late_dup) {
            let at = self.now + self.net.range(2_000, 120_000) * MS;
            let (client, frame) = (target.client, frame.clone());
            self.push(
                at,
                Happening::LateCopy {
                    broker,
                    client,
                    frame,
                },
            );
        }
    }

    pub(super) fn late_copy(&mut self, broker: usize, client: u64, frame: &Rc<Frame>) {
        let Some(session) = self.brokers[broker].sessions.get(&client) else {
            return;
        };
        if let Some(conn) = session.conn {
            let node = session.node;
            self.push_input(self.now, node, Input::Frame(conn, frame.clone(), true));
        }
    }

    /// What a broker says to a client about its connection: in order with nothing, never lost by
    /// chance, but a cut swallows it.
    fn answer(&mut self, n: usize, input: Input) {
        if self.now < self.nodes[n].cut_down {
            return;
        }
        let delay = self.delay();
        let node = &mut self.nodes[n];
        let place = node.last_down.len() - 1;
        let at = (self.now + delay)
            .max(node.clogged)
            .max(node.last_down[place]);
        node.last_down[place] = at;
        self.push_input(at, n, input);
    }

    /// The connection of `n` breaks; both ends notice, each when it does.
    pub(super) fn break_connection(&mut self, n: usize, client_notices: u64, broker_notices: u64) {
        let node = &self.nodes[n];
        let Some(conn) = node.conn else { return };
        let client = node.device_number;
        self.push_input(client_notices, n, Input::Down(conn, DownReason::Lost));
        self.push(
            broker_notices,
            Happening::AtBroker {
                node: n,
                client,
                conn,
                what: ToBroker::Broken,
            },
        );
    }

    pub(super) fn stop_broker(&mut self, broker: usize, down_ms: u64, memory: bool) {
        if !self.brokers[broker].up {
            return;
        }
        for (node, conn) in self.brokers[broker].stop(memory) {
            self.push_input(self.now + 5 * MS, node, Input::Down(conn, DownReason::Lost));
        }
        self.push(self.now + down_ms * MS, Happening::BrokerUp(broker));
    }
}
