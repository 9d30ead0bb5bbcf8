//! What the rule tests say often, in one word.

use super::net::{CONV, Net, sender};
use super::*;
use crate::wire::delivery as frames;

/// A network with defaults: 1:1 between two, a group of more.
pub(super) fn net(nodes: usize) -> Net {
    Net::new(nodes, nodes > 2, DeliveryConfig::default(), 1)
}

/// What is not delivered runs out after five seconds.
pub(super) fn short_lived() -> DeliveryConfig {
    DeliveryConfig {
        content_ttl: Duration::from_secs(5),
        ..DeliveryConfig::default()
    }
}

pub(super) fn logs(net: &Net, n: usize) -> Vec<&str> {
    net.nodes[n].log.iter().map(|(_, says)| &says[..]).collect()
}

pub(super) fn count(net: &Net, n: usize, is: impl Fn(&DeliveryEvent) -> bool) -> usize {
    net.nodes[n].events.iter().filter(|e| is(e)).count()
}

/// Messages that came so far, to be counted.
pub(super) fn progress(to: Ack) -> impl Fn(&DeliveryEvent) -> bool {
    move |event| matches!(event, DeliveryEvent::Progress { ack, .. } if *ack == to)
}

pub(super) fn first_data(net: &Net) -> frames::Data {
    let data = net.wire.iter().find_map(|frame| match &frame.body {
        Body::Data(data) => Some(data.clone()),
        _ => None,
    });
    data.expect("a message is on the wire")
}

/// Says that everything up to `contig` of the stream of `id` is there.
pub(super) fn stream_ack(id: MessageId, contig: u64) -> frames::StreamAck {
    frames::StreamAck {
        device: id.stream.device.0,
        conv: CONV.0,
        epoch: id.stream.epoch.0,
        contig,
        bitmap: 0,
        window: 128,
        read: 0,
        refused: wire::BoundedVec::default(),
    }
}

impl Net {
    pub(super) fn send_all<const N: usize>(&mut self, n: usize, texts: [&str; N]) {
        for text in texts {
            self.send(n, text);
        }
    }

    /// The place of what was told last.
    pub(super) fn last_received(&self, n: usize) -> SortKey {
        let told = self.nodes[n].events.iter().rev().find_map(|e| match e {
            DeliveryEvent::Received(received) => Some(received.sort),
            _ => None,
        });
        told.expect("something was received")
    }

    /// The user has seen all that was told.
    pub(super) fn read_all(&mut self, n: usize) {
        let sort = self.last_received(n);
        self.nodes[n].machine.mark_read(CONV, sort, self.now);
        self.drain(n);
    }

    /// Hands over an acknowledgement that `from` may never have sent.
    pub(super) fn hear_ack(&mut self, n: usize, from: usize, ack: frames::StreamAck) {
        let ack = frames::Ack {
            streams: wire::BoundedVec::take_from([ack]),
        };
        let machine = &mut self.nodes[n].machine;
        machine.handle_ack(&sender(from), &ack, self.now);
        self.drain(n);
    }

    /// All rows become durable, and all frames are lost.
    pub(super) fn lose(&mut self) {
        self.commit_all();
        self.wire.clear();
    }

    /// Kills a node and starts it again a little later: the wall clock gives another epoch.
    pub(super) fn crash_later(&mut self, n: usize) {
        self.now.wall = self.now.wall.plus(Duration::from_millis(40));
        self.crash(n);
    }
}
