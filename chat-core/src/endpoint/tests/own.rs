//! What our own devices share, and who learns of it.

use std::time::Duration;

use super::net::{Net, WALL, open, user};
use crate::Event;
use crate::channel::Channel;
use crate::id::UserId;
use crate::identity::{DeviceKey, Ed25519, Signer};
use crate::session::SessionEvent;
use crate::wire::{self, Body};

/// Two devices of ann that trust each other and have met.
fn two_devices() -> Net {
    let mut net = Net::new(&["ann", "ann"]);
    let devices = [0, 1].map(|n: usize| net.nodes[n].endpoint.device());
    for (n, other) in [(0, devices[1]), (1, devices[0])] {
        let now = net.now;
        net.nodes[n].endpoint.trust(&user("ann"), other, now);
    }
    net.run(Duration::from_secs(1));
    net
}

fn changes(net: &Net, node: usize) -> Vec<(UserId, bool)> {
    let events = net.nodes[node].events.iter();
    let told = events.filter_map(|event| match event {
        Event::Session(SessionEvent::BlockChanged { peer, blocked }) => {
            Some((peer.clone(), *blocked))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn s5_what_our_devices_share_is_sealed() {
    let mut net = two_devices();
    let (now, mallory) = (net.now, user("mallory"));
    net.nodes[0].endpoint.block(&mallory, now);
    net.nodes[0].drain(now);
    let frames = net.nodes[0].frames.clone();
    assert_eq!(frames.len(), 1, "one for the one other device");
    let (channel, bytes) = &frames[0];
    assert_eq!(*channel, Channel::Inbox(user("ann")));
    assert!(!bytes.windows(7).any(|window| window == b"mallory"));
    let opened = wire::open(wire::header(bytes).unwrap(), channel, &Ed25519).unwrap();
    let Body::Blocks(blocks) = opened.body else {
        panic!("another body");
    };
    assert_eq!(blocks.sealed.len() % 1_024, 0, "padded");
    // Whoever else reads the inbox has no way in: the secret takes one of the two keys.
    let eve = DeviceKey::from_secret([9; 32]);
    assert_ne!(
        eve.agree(&opened.key),
        DeviceKey::from_secret([2; 32]).agree(&opened.key)
    );
    net.run(Duration::from_secs(1));
    assert_eq!(changes(&net, 1), [(mallory, true)]);
    assert_eq!(changes(&net, 0), [], "told where it is news");
}

#[test]
fn s5_of_two_words_the_later_one_counts_on_all_devices() {
    let mut net = two_devices();
    let (now, bob) = (net.now, user("bob"));
    // Both decide before they hear of each other.
    net.nodes[0].endpoint.block(&bob, now);
    net.nodes[1].endpoint.block(&bob, now);
    let later = now + Duration::from_secs(5);
    net.nodes[1].endpoint.unblock(&bob, later);
    net.now = later;
    net.run(Duration::from_secs(1));
    assert_eq!(changes(&net, 0), [(bob.clone(), false)]);
    assert_eq!(changes(&net, 1), []);
    // At the same moment the block counts.
    let now = net.now;
    net.nodes[0].endpoint.block(&bob, now);
    net.run(Duration::from_secs(1));
    assert_eq!(changes(&net, 1), [(bob, true)]);
}

#[test]
fn s5_only_trusted_devices_of_our_own_are_believed_and_told() {
    let mut net = Net::new(&["ann", "ann", "bob"]);
    let now = net.now;
    net.nodes[0].endpoint.block(&user("cyd"), now);
    net.run(Duration::from_secs(1));
    assert_eq!(changes(&net, 1), [], "nobody trusts anybody yet");
    // A frame of ann's, put into bob's inbox or said by bob, is none.
    let hello = wire::session::OwnHello { ask: true };
    let key = DeviceKey::from_secret([3; 32]);
    let inbox = Channel::Inbox(user("ann"));
    let bytes = wire::encode(&Body::OwnHello(hello), &user("bob"), &inbox, &key).unwrap();
    let faults = net.nodes[0].endpoint.stats().faults;
    net.nodes[0]
        .endpoint
        .handle_inbound(&inbox, &bytes, true, net.now);
    assert_eq!(net.nodes[0].endpoint.stats().faults, faults + 1);
    net.nodes[0].drain(net.now);
    assert!(net.nodes[0].frames.is_empty(), "bob is told nothing");
}

#[test]
fn s5_a_device_that_is_gone_is_not_told_and_keys_survive_a_restart() {
    let mut net = two_devices();
    let (now, bob) = (net.now, user("bob"));
    let rows = net.nodes[0].rows();
    let mut again = open("ann", 1, rows, WALL, now).unwrap();
    again.connect(now);
    net.nodes[0].endpoint = again;
    net.nodes[0].drain(now);
    net.nodes[0].frames.clear();
    net.nodes[0].endpoint.block(&bob, now);
    net.nodes[0].drain(now);
    assert_eq!(net.nodes[0].frames.len(), 1, "its key was kept");
    net.carry();
    assert_eq!(changes(&net, 1), [(bob.clone(), true)]);
    let device = net.nodes[1].endpoint.device();
    assert!(net.nodes[0].endpoint.distrust(&user("ann"), device, now));
    net.nodes[0].endpoint.unblock(&bob, now);
    net.nodes[0].drain(now);
    assert!(net.nodes[0].frames.is_empty());
    let me = net.nodes[0].endpoint.device();
    assert!(!net.nodes[0].endpoint.distrust(&user("ann"), me, now));
}
