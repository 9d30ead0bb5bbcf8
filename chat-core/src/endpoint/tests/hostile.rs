//! What strangers cannot do: junk, floods, moved and replayed frames, borrowed names.

use std::time::Duration;

use super::net::{Net, identity, user};
use crate::channel::{Channel, TopicId};
use crate::config::{BudgetConfig, Config};
use crate::event::{Event, Fault};
use crate::id::{GroupId, InviteId, LobbyName};
use crate::identity::{DeviceKey, IdentityEvent, Signer};
use crate::rng::Rng;
use crate::session::{SessionEvent, SessionState};
use crate::wire::{self, Body, BoundedStr, DecodeError, session::Request};

fn request_frame(from: &str, key: u8, to: &str, invite: u8) -> (Channel, bytes::Bytes) {
    request_at(super::net::WALL.0, from, key, to, invite)
}

fn request_at(sent_at: u64, from: &str, key: u8, to: &str, invite: u8) -> (Channel, bytes::Bytes) {
    let channel = Channel::Inbox(user(to));
    let body = Request {
        invite: [invite; 16],
        secret: [7; 32],
        to: BoundedStr::truncated(to),
        note: BoundedStr::default(),
        ttl_ms: 600_000,
        sent_at,
    };
    let signer = identity(from, key).signer;
    let frame = wire::encode(&body.into(), &user(from), &channel, &*signer).unwrap();
    (channel, frame)
}

/// Ann with Bob, and Mallory who can write anywhere but sign for nobody else.
#[test]
fn an_honest_peer_is_served_under_a_flood_of_junk() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    let SessionState::Active { channel: topic, .. } = net.nodes[0].endpoint.session(&user("bob"))
    else {
        panic!("the session is open")
    };
    let bobs_key = DeviceKey::from_secret([2; 32]).public_key();
    let mut rng = Rng::from_seed([66; 32]);
    let channels = [
        Channel::Inbox(user("ann")),
        topic,
        Channel::Conv(TopicId([1; 16])),
        Channel::Group(GroupId([1; 32])),
        Channel::Presence(user("bob")),
        Channel::Lobby(LobbyName::new("l").unwrap()),
    ];
    let (_, whole) = request_frame("mallory", 66, "ann", 1);
    for i in 0..3_000u64 {
        let mut junk = whole.to_vec();
        match i % 4 {
            // Anything at all.
            0 => junk = (0..rng.below(300)).map(|_| rng.next_u64() as u8).collect(),
            // A frame with one byte changed.
            1 => {
                let at = rng.below(junk.len() as u64) as usize;
                junk[at] ^= 1 << rng.below(8);
            }
            // Bob's key over a signature that is not his.
            2 => junk[4..36].copy_from_slice(&bobs_key.0),
            // Too large.
            _ => junk.resize(70_000, 0),
        }
        let channel = &channels[rng.below(channels.len() as u64) as usize];
        net.nodes[0]
            .endpoint
            .handle_inbound(channel, &junk, true, net.now);
        net.nodes[0].drain(net.now);
    }
    let told = |net: &Net| {
        net.nodes[0]
            .events
            .iter()
            .filter(|e| matches!(e, Event::PeerFault { .. }))
            .count()
    };
    assert!(told(&net) < 20, "a flood of junk is no flood of events");
    net.say(1, conv, "still here");
    net.run(Duration::from_secs(5));
    assert_eq!(net.nodes[0].heard(), ["still here"]);
    assert!(net.nodes[0].endpoint.stats().faults > 2_000);
}

#[test]
fn a_stranger_that_signs_a_flood_is_cut_off_and_others_are_not() {
    let mut config = Config::lan();
    config.budget = BudgetConfig::default();
    let mut net = Net::with(&["ann", "bob"], &config);
    let conv = net.chat();
    for i in 0..12_000u32 {
        let sent_at = super::net::WALL.0 + u64::from(i / 8);
        let (channel, frame) = request_at(sent_at, "mallory", 66, "ann", (i % 251) as u8);
        net.nodes[0]
            .endpoint
            .handle_inbound(&channel, &frame, true, net.now);
    }
    net.nodes[0].drain(net.now);
    let flood = net.nodes[0].events.iter().any(|event| {
        matches!(
            event,
            Event::PeerFault {
                fault: Fault::Flood,
                ..
            }
        )
    });
    assert!(flood, "its budget ended");
    let prompts = net.nodes[0]
        .events
        .iter()
        .filter(|event| matches!(event, Event::Session(SessionEvent::Requested { .. })))
        .count();
    assert!(
        prompts <= 3,
        "a second of its clock is worth two prompts: {prompts}"
    );
    net.say(1, conv, "still here");
    net.run(Duration::from_secs(5));
    assert_eq!(net.nodes[0].heard(), ["still here"]);
}

#[test]
fn a_frame_moved_to_another_channel_is_refused() {
    let mut net = Net::new(&["ann", "bob"]);
    let (_, frame) = request_frame("mallory", 66, "bob", 1);
    let ann = Channel::Inbox(user("ann"));
    net.nodes[0]
        .endpoint
        .handle_inbound(&ann, &frame, true, net.now);
    net.nodes[0].drain(net.now);
    assert!(net.nodes[0].events.iter().any(|event| matches!(
        event,
        Event::PeerFault {
            fault: Fault::Decode(DecodeError::BadSignature),
            ..
        }
    )));
    assert_eq!(net.nodes[0].endpoint.sessions(), []);
}

#[test]
fn a_message_replayed_later_is_told_once() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    net.say(1, conv, "once");
    net.nodes[1].drain(net.now);
    let frames = net.nodes[1].frames.clone();
    net.run(Duration::from_secs(2));
    for _ in 0..50 {
        net.run(Duration::from_millis(500));
        for (channel, bytes) in &frames {
            net.nodes[0]
                .endpoint
                .handle_inbound(channel, bytes, true, net.now);
        }
    }
    net.run(Duration::from_secs(2));
    assert_eq!(net.nodes[0].heard(), ["once"]);
}

#[test]
fn a_new_key_for_a_known_user_is_refused_until_it_is_trusted() {
    let mut net = Net::new(&["ann", "bob"]);
    net.chat();
    let (channel, frame) = request_frame("bob", 99, "ann", 3);
    net.nodes[0]
        .endpoint
        .handle_inbound(&channel, &frame, true, net.now);
    net.nodes[0].drain(net.now);
    let claimed = net.nodes[0].events.iter().find_map(|event| match event {
        Event::Identity(IdentityEvent::KeyChanged { device, .. }) => Some(*device),
        _ => None,
    });
    let device = claimed.expect("the change is told");
    assert!(!prompted(&net, 3), "and what it signs is refused");
    net.nodes[0].endpoint.trust(&user("bob"), device, net.now);
    net.nodes[0]
        .endpoint
        .handle_inbound(&channel, &frame, true, net.now);
    net.nodes[0].drain(net.now);
    assert!(prompted(&net, 3));
}

/// Ann heard Bob's request, was restarted and then said yes.
#[test]
fn who_was_accepted_after_a_restart_is_pinned() {
    let mut net = Net::new(&["ann"]);
    let (channel, frame) = request_frame("bob", 2, "ann", 1);
    let now = net.now;
    net.nodes[0]
        .endpoint
        .handle_inbound(&channel, &frame, true, now);
    net.nodes[0].drain(now);
    let rows = net.nodes[0].rows();
    net.nodes[0].endpoint = super::net::open("ann", 1, rows, super::net::WALL, now).unwrap();
    net.nodes[0].endpoint.connect(now);
    net.nodes[0].drain(now);
    net.nodes[0]
        .endpoint
        .accept(InviteId([1; 16]), now)
        .unwrap();
    net.nodes[0].drain(now);
    let (channel, frame) = request_at(super::net::WALL.0 + 1_000, "bob", 99, "ann", 3);
    net.nodes[0]
        .endpoint
        .handle_inbound(&channel, &frame, true, now);
    net.nodes[0].drain(now);
    assert!(!prompted(&net, 3), "an impostor is believed");
}

fn prompted(net: &Net, invite: u8) -> bool {
    net.nodes[0].events.iter().any(|event| {
        matches!(event, Event::Session(SessionEvent::Requested { invite: i, .. })
            if i.0 == [invite; 16])
    })
}

#[test]
fn names_made_of_wildcards_and_controls_reach_nobody_else() {
    let hostile = [
        "+",
        "#",
        "*",
        ">",
        "a/b",
        "$SYS",
        "\0",
        "\u{202E}nna",
        "..",
        "_INBOX.x",
    ];
    let mut net = Net::new(&["ann", "bob"]);
    net.chat();
    for (name, key) in hostile.iter().zip(100u8..) {
        let (channel, frame) = request_frame(name, key, "ann", key);
        net.nodes[0]
            .endpoint
            .handle_inbound(&channel, &frame, true, net.now);
        net.nodes[0].drain(net.now);
        assert!(prompted(&net, key), "{name:?} is a name like any other");
        let (_, path) = Channel::Inbox(user(name)).path();
        assert!(
            path.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b))
        );
    }
    let long = "x".repeat(65_536);
    assert!(crate::id::UserId::new(&long).is_err());
}

#[test]
fn kinds_from_the_wrong_channel_are_counted_and_do_nothing() {
    let mut net = Net::new(&["ann", "bob"]);
    net.chat();
    let inbox = Channel::Inbox(user("ann"));
    let signer = identity("bob", 2).signer;
    let typing = Body::Typing(wire::delivery::Typing {
        conv: [0; 32],
        active: true,
    });
    let frame = wire::encode(&typing, &user("bob"), &inbox, &*signer).unwrap();
    let before = net.nodes[0].endpoint.stats().faults;
    net.nodes[0]
        .endpoint
        .handle_inbound(&inbox, &frame, true, net.now);
    let other = Channel::Inbox(user("bob"));
    let frame = wire::encode(&typing, &user("bob"), &other, &*signer).unwrap();
    net.nodes[0]
        .endpoint
        .handle_inbound(&other, &frame, true, net.now);
    assert_eq!(net.nodes[0].endpoint.stats().faults, before + 2);
}
