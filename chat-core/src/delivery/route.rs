//! Conversations open, change their recipients, and close (rules S15, Q15, G10, G16).

use super::Delivery;
use super::outbox::{Peer, Who};
use super::state::Dues;
use super::types::{FailReason, Route};
use crate::id::ConvId;
use crate::probe::mark;
use crate::time::Now;

impl Delivery {
    /// Opens a conversation or changes who gets its messages. Messages that wait only for a
    /// recipient that is gone are done; who is new gets what is sent from now on. In 1:1 a new
    /// device of the peer gets what is still in the outbox too, and a set that became empty
    /// changes nothing: there, nobody to deliver to does not mean delivered.
    pub fn open(&mut self, conv: ConvId, mut route: Route, now: Now) {
        route
            .recipients
            .retain(|(_, device), _| *device != self.me.device);
        let epoch = self.epoch;
        let conv = self.conv_at(conv);
        let it = &mut self.convs[conv];
        it.out.settle();
        let fresh = it.route.is_none();
        // A member that was out meanwhile is another recipient than it was.
        let returned = |who: &Who, peer: &Peer| {
            let since = route.recipients.get(who);
            since.is_some_and(|since| *since != peer.since)
        };
        let peers = it.out.peers.iter();
        let back: Vec<_> = peers
            .filter(|(who, peer)| returned(who, peer))
            .map(|(who, _)| who.clone())
            .collect();
        for who in back {
            mark("delivery-recipient-returned");
            let newly = self.convs[conv].out.leave(&who);
            self.count_off(conv, newly, now);
        }
        let it = &mut self.convs[conv];
        let next = it.out.lives.get(&epoch).map_or(1, |life| life.next);
        let mut oldest_new = None;
        for (who, since) in &route.recipients {
            if !it.out.peers.contains_key(who) {
                oldest_new = Some(oldest_new.map_or(*since, |least: u64| least.min(*since)));
            }
            it.out.join(who.clone(), *since, (epoch, next));
        }
        let gone: Vec<_> = if route.group || !route.recipients.is_empty() {
            it.out
                .peers
                .keys()
                .filter(|who| !route.recipients.contains_key(*who))
                .cloned()
                .collect()
        } else {
            Vec::new()
        };
        let group = route.group;
        it.route = Some(route);
        for who in gone {
            mark("delivery-recipient-gone");
            let it = &mut self.convs[conv];
            let newly = it.out.leave(&who);
            self.count_off(conv, newly, now);
        }
        self.convs[conv].recall_heard(oldest_new);
        if group {
            self.count_off_unowed(conv, now);
        }
        self.release_parked(conv, now);
        self.pump(conv, now);
        if self.up && fresh && self.owing.contains(&conv) {
            self.on_hello_due(conv, now);
        }
    }

    /// Closes it: what is unacknowledged fails with `why` (Q15). Who sent what stays known, so
    /// that a copy that comes later is no news (S15).
    pub fn close(&mut self, conv: ConvId, why: FailReason, now: Now) {
        let Some(conv) = self.convs.slot(&conv) else {
            return;
        };
        let it = &mut self.convs[conv];
        if it.route.take().is_none() && it.out.entries.is_empty() {
            return;
        }
        it.out.leave_all();
        it.typing = None;
        let owed: Vec<_> = it.out.entries.keys().copied().collect();
        let streams = it.streams.clone();
        for at in owed {
            self.fail(conv, at, &why, now);
        }
        self.convs[conv].out.notice = None;
        for stream in streams {
            self.flush_stream(stream, now);
        }
        self.put_conv(conv);
        self.owing.remove(&conv);
        self.set_dues(conv, |dues| *dues = Dues::default());
    }
}
