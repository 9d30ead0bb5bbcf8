//! When a member asks to lead, and when it supports somebody who does (R3, R8, IG9).

use super::super::roster::Heir;
use super::super::*;
use super::net::Net;

/// Bob of three heard ann for the last time just now.
fn group(seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(&["ann", "bob", "cat"], seed);
    let id = net.full();
    net.crash(0);
    net.frames(1, |g, now| g.hear(id, now));
    (net, id)
}

fn held(net: &mut Net, id: GroupId) -> &mut Group {
    net.nodes[1].groups.groups.get_mut(&id).unwrap()
}

fn later(net: &mut Net, by: Duration) {
    net.now = net.now + by;
}

/// True when bob's wait, over now, makes him ask.
fn asks(net: &mut Net, id: GroupId) -> bool {
    net.frames(1, |g, now| g.succeed(id, Duration::ZERO, now));
    held(net, id).canvass.take().is_some()
}

fn is_silent(net: &Net, id: GroupId) -> bool {
    let groups = &net.nodes[1].groups;
    groups.is_silent(&groups.groups[&id], net.clock())
}

const TICK: Duration = Duration::from_micros(1);

#[test]
fn r3_a_member_asks_after_its_patience_and_not_before() {
    let (mut net, id) = group(230);
    let patience = GroupConfig::default().succeed;
    later(&mut net, patience - TICK);
    assert!(!asks(&mut net, id));
    later(&mut net, TICK);
    assert!(asks(&mut net, id));
}

#[test]
fn r3_a_lost_lease_makes_a_silent_leader_suspect_sooner() {
    let config = GroupConfig::default();
    let (net, _) = group(231);
    let device = |node: usize| net.nodes[node].me.device;
    for (hint, limit) in [
        (None, config.suspect),
        (Some(LeaseHint::Held(device(0))), config.suspect),
        (Some(LeaseHint::Held(device(2))), config.beat * 3 / 2),
        (Some(LeaseHint::Lost), config.beat * 3 / 2),
    ] {
        let (mut net, id) = group(231);
        held(&mut net, id).lease = hint;
        later(&mut net, limit - TICK);
        assert!(!is_silent(&net, id), "{hint:?}");
        later(&mut net, TICK);
        assert!(is_silent(&net, id), "{hint:?}");
    }
}

#[test]
fn r8_an_heir_and_who_was_deposed_ask_at_once_and_nobody_else() {
    let (mut net, id) = group(232);
    let now = net.clock();
    let (bob, cat) = (net.nodes[1].me.device, net.nodes[2].me.device);
    let hand_over = |net: &mut Net, device| {
        let roster = &mut held(net, id).chain.as_mut().unwrap().roster;
        roster.heir = Some(Heir {
            device,
            agreed: true,
        });
    };
    assert!(!asks(&mut net, id));
    hand_over(&mut net, cat);
    assert!(!asks(&mut net, id));
    hand_over(&mut net, bob);
    assert!(asks(&mut net, id));
    let (mut net, id) = group(232);
    held(&mut net, id).deposed = Some((cat, now.mono));
    assert!(!asks(&mut net, id));
    held(&mut net, id).deposed = Some((bob, now.mono));
    assert!(asks(&mut net, id));
}

#[test]
fn g7_a_leader_that_signed_two_things_is_succeeded_at_once() {
    let (mut net, id) = group(233);
    let mut term = held(&mut net, id).chain.as_ref().unwrap().roster.term;
    term.round += 1;
    held(&mut net, id).distrust = Some(term);
    assert!(!asks(&mut net, id), "another term");
    term.round -= 1;
    held(&mut net, id).distrust = Some(term);
    assert!(asks(&mut net, id));
}

#[test]
fn ig9_who_looks_for_a_lease_leads_or_hears_no_leader() {
    let (mut net, id) = group(234);
    let needs = |net: &Net, node: usize| net.nodes[node].groups.lease_needs(net.clock());
    let due = |net: &Net, node: usize| net.nodes[node].groups.lease_due();
    let beat = GroupConfig::default().beat;
    assert_eq!(due(&net, 1), Some(net.now + beat * 3 / 2));
    later(&mut net, beat * 3 / 2 - TICK);
    assert_eq!(needs(&net, 1), []);
    later(&mut net, TICK);
    assert_eq!(needs(&net, 1), [(id, LeaseNeed::Look)]);
    let cat = net.nodes[2].me.device;
    let roster = &mut held(&mut net, id).chain.as_mut().unwrap().roster;
    roster.heir = Some(Heir {
        device: cat,
        agreed: true,
    });
    net.frames(1, |g, _| g.arm_lease(id));
    assert_eq!(needs(&net, 1), [], "it passes anyway");
    let mut net = Net::new(&["ann", "bob"], 235);
    let id = net.full();
    assert_eq!(needs(&net, 0), [(id, LeaseNeed::Hold)]);
    assert_eq!(due(&net, 0), Some(Timestamp::ZERO));
    net.down(0);
    assert_eq!((needs(&net, 0), due(&net, 0)), (vec![], None));
}
