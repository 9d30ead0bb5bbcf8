//! Bounds that are met exactly, and steps that are one command of their own.

use super::super::entry::{Draft, Entry};
use super::super::op::{Admission, MAX_BATCH, MAX_DEVICES, MAX_SUPPORTS, Op, Warrant};
use super::super::rows::{Grant, Waiting};
use super::super::*;
use super::log::{ANN, draft, with_bob};
use super::net::{Net, name, user};
use super::succession::{MINUTE, strict};
use crate::wire::group::{JoinAnswer, JoinReq, MAX_ENTRY};
use crate::wire::{BoundedBytes, BoundedStr};

/// Ann leads `devices` devices of each of these people.
fn crowd(people: &[(&str, usize)], seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(&["ann", "bob"], seed);
    let id = net.create();
    let mut all = Vec::new();
    for (person, devices) in people {
        for _ in 0..*devices {
            let mark = all.len() as u8;
            all.push(Admission {
                user: user(person),
                device: DeviceId([mark + 100; 32]),
                nonce: [mark; 16],
            });
        }
    }
    for some in all.chunks(MAX_BATCH) {
        net.run(0, |g, now| g.append(id, Op::Admit(some.to_vec()), now))
            .unwrap();
    }
    (net, id)
}

fn kick(who: &str) -> BatchStep {
    BatchStep::Kick {
        user: user(who),
        reason: String::new(),
    }
}

fn last_op(net: &Net, id: GroupId) -> Op {
    let chain = net.nodes[0].groups.chain(id).unwrap();
    chain.entry(chain.index()).unwrap().draft.op
}

#[test]
fn a_text_of_the_longest_length_is_taken() {
    let mut net = Net::new(&["ann", "bob"], 170);
    let id = net.create();
    let longest = "x".repeat(512);
    let too_long = format!("{longest}x");
    let refused = net.run(1, |g, now| g.join(id, &too_long, now));
    assert_eq!(refused, Err(GroupError::TooLong { bytes: 513 }));
    net.run(1, |g, now| g.join(id, &longest, now)).unwrap();
}

#[test]
fn g19_a_batch_removes_so_many_people_and_no_more() {
    let names: Vec<_> = (0..=MAX_BATCH).map(|n| format!("u{n}x")).collect();
    let people: Vec<_> = names.iter().map(|one| (one.as_str(), 1)).collect();
    let (mut net, id) = crowd(&people, 171);
    let steps: Vec<_> = names.iter().map(|one| kick(one)).collect();
    let refused = net.run(0, |g, now| g.apply(id, &steps, now));
    let why = Box::new(GroupError::Full {
        what: "removals at a time",
        max: MAX_BATCH,
    });
    let step = MAX_BATCH;
    assert_eq!(refused, Err(GroupError::InBatch { step, why }));
    net.run(0, |g, now| g.apply(id, &steps[..MAX_BATCH], now))
        .unwrap();
    assert_eq!(net.nodes[0].groups.size(id), 2);
}

#[test]
fn g19_a_batch_removes_so_many_devices_and_no_more() {
    for (more, fits) in [(0, true), (1, false)] {
        let (mut net, id) = crowd(&[("bob", 32), ("cat", MAX_DEVICES - 32 + more)], 172);
        let done = net.run(0, |g, now| g.apply(id, &[kick("bob"), kick("cat")], now));
        let why = Box::new(GroupError::Full {
            what: "devices removed at a time",
            max: MAX_DEVICES,
        });
        let refused = Err(GroupError::InBatch { step: 1, why });
        assert_eq!(done, if fits { Ok(()) } else { refused });
    }
}

#[test]
fn g19_a_single_step_is_the_command_of_that_name() {
    let (mut net, id) = crowd(&[("cat", 1), ("dan", 1)], 173);
    net.run(0, |g, now| g.apply(id, &[kick("cat")], now))
        .unwrap();
    assert!(matches!(last_op(&net, id), Op::Kick { .. }));
    let request = net.run(1, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    let step = BatchStep::Approve(request);
    net.run(0, |g, now| g.apply(id, &[step], now)).unwrap();
    assert!(matches!(last_op(&net, id), Op::Admit(_)));
    let step = BatchStep::HandOver(user("dan"));
    net.run(0, |g, now| g.apply(id, &[step], now)).unwrap();
    assert!(net.nodes[0].groups.groups[&id].record.offer.is_some());
    // No step changes nothing, so anybody may.
    net.run(1, |g, now| g.apply(id, &[], now)).unwrap();
}

#[test]
fn g19_a_roster_has_the_size_of_the_configuration() {
    let config = GroupConfig {
        max_roster: 3,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob", "cat1", "cat2", "dan"], 174, &config);
    let id = net.create();
    net.admit(0, 1, id);
    let cat = net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.run(3, |g, now| g.join(id, "", now)).unwrap();
    let dan = net.run(4, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    let full = Err(GroupError::Full {
        what: "members",
        max: 3,
    });
    let refused = net.run(0, |g, now| g.approve(id, cat, now));
    assert_eq!(refused, full, "two devices");
    net.run(0, |g, now| g.approve(id, dan, now)).unwrap();
    let refused = net.run(0, |g, now| g.approve(id, cat, now));
    assert_eq!(refused, full);
    assert_eq!(net.nodes[0].groups.size(id), 3);
}

/// A request that waits at ann, whatever its membership.
fn waits(net: &mut Net, id: GroupId, name: u8, nonce: [u8; 16], grant: Grant) {
    let waiting = Waiting {
        user: net.nodes[1].me.user.clone(),
        device: net.nodes[1].me.device,
        nonce,
        note: String::new(),
        since: net.clock().wall,
        grant,
    };
    let held = net.nodes[0].groups.groups.get_mut(&id).unwrap();
    held.joins.insert(RequestId([name; 16]), waiting);
}

#[test]
fn g17_an_approval_logs_no_membership_that_is_or_was() {
    let mut net = Net::new(&["ann", "bob", "cat"], 175);
    let id = net.full();
    let nonce = net.nodes[1].groups.seat(id).unwrap();
    let index = |net: &Net| net.nodes[0].groups.view(id).unwrap().index;
    let sits = index(&net);
    waits(&mut net, id, 7, nonce, Grant::Open);
    net.run(0, |g, now| g.approve(id, RequestId([7; 16]), now))
        .unwrap();
    assert_eq!(index(&net), sits);
    waits(&mut net, id, 7, nonce, Grant::Open);
    let steps = [BatchStep::Approve(RequestId([7; 16])), kick("cat")];
    net.run(0, |g, now| g.apply(id, &steps, now)).unwrap();
    assert!(last_op(&net, id).admissions().is_empty());
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    let went = index(&net);
    waits(&mut net, id, 7, nonce, Grant::Open);
    net.run(0, |g, now| g.approve(id, RequestId([7; 16]), now))
        .unwrap();
    assert_eq!(index(&net), went);
}

/// Bob asks anew under the name 8, for this membership.
fn asks(net: &mut Net, id: GroupId, nonce: [u8; 16]) -> Vec<JoinAnswer> {
    let asks = JoinReq {
        group: id.0,
        request: [8; 16],
        nonce,
        note: BoundedStr::truncated(""),
        ticket: BoundedBytes::default(),
        withdrawn: false,
    };
    let bob = net.nodes[1].me.clone();
    let frames = net.frames(0, |g, now| g.handle_frame(&bob, &asks.into(), now));
    let answers = frames.into_iter().filter_map(|frame| match frame.body {
        Body::JoinAnswer(answer) => Some(answer),
        _ => None,
    });
    answers.collect()
}

#[test]
fn g14_a_request_named_anew_stays_granted_for_the_same_membership_only() {
    for (held, nonce, grant) in [
        (Grant::Approved, [7; 16], Grant::Approved),
        (Grant::Approved, [6; 16], Grant::Open),
        (Grant::Open, [7; 16], Grant::Open),
    ] {
        let mut net = strict(&["ann", "bob", "cat", "dan"], 176);
        let id = net.create();
        net.admit(0, 2, id);
        net.admit(0, 3, id);
        net.pass(MINUTE);
        // A change that no majority holds yet keeps what was approved waiting.
        net.split(&[&[0], &[2, 3]]);
        net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
            .unwrap();
        waits(&mut net, id, 7, [7; 16], held);
        asks(&mut net, id, nonce);
        let joins = &net.nodes[0].groups.groups[&id].joins;
        assert_eq!(joins.len(), 1);
        assert_eq!(joins[&RequestId([8; 16])].grant, grant);
        // A request that was given up is refused when a copy comes late.
        let settled = &net.nodes[0].groups.groups[&id].settled;
        let given_up = settled.iter().any(|(name, ..)| *name == RequestId([7; 16]));
        assert_eq!(
            given_up,
            (held, grant) != (Grant::Approved, Grant::Approved)
        );
    }
}

#[test]
fn g14_only_who_is_told_busy_is_told_when_to_ask_again() {
    for (max, code, retry) in [(1, 1, 0), (0, 4, 60)] {
        let config = GroupConfig {
            max_joins: max,
            ..GroupConfig::default()
        };
        let mut net = Net::with(&["ann", "bob"], 177, &config);
        let id = net.create();
        let answers = asks(&mut net, id, [7; 16]);
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].answer, answers[0].retry), (code, retry));
    }
}

#[test]
fn g14_who_is_told_busy_waits_as_long_as_it_is_told() {
    let config = GroupConfig {
        max_joins: 0,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob"], 178, &config);
    let id = net.create();
    net.run(1, |g, now| g.join(id, "", now)).unwrap();
    // What was due when the answer came is the last for a minute.
    net.pass(4_000);
    net.trace.clear();
    net.pass(54_000);
    let asked = net
        .trace
        .iter()
        .filter(|line| line.contains("join request"));
    assert_eq!(asked.count(), 0);
    net.pass(30_000);
    let asked = net
        .trace
        .iter()
        .filter(|line| line.contains("join request"));
    assert_eq!(asked.count(), 1);
}

#[test]
fn an_entry_of_the_longest_length_is_one() {
    let chain = with_bob();
    let kick = |n: u8, reason: usize| op::Removal {
        user: user(&"x".repeat(256)),
        instances: vec![(DeviceId([n; 32]), [n; 16])],
        reason: "y".repeat(reason),
    };
    let sign = |reason: usize, last: usize| {
        let mut removals: Vec<_> = (0..17).map(|n| kick(n, 400)).collect();
        removals[0] = kick(0, reason);
        removals[1] = kick(1, last);
        let op = Op::Batch {
            removals,
            admissions: Vec::new(),
        };
        Entry::sign(draft(&chain, op), &ANN)
    };
    let base = sign(200, 200).expect("far from the bound").bytes.len();
    let missing = MAX_ENTRY - base;
    let (one, two) = (200 + missing / 2, 200 + missing - missing / 2);
    let longest = sign(one, two).expect("it just fits");
    assert_eq!(longest.bytes.len(), MAX_ENTRY);
    assert!(Entry::open(&longest.bytes).is_some());
    assert!(sign(one, two + 1).is_none());
}

#[test]
fn ig8_a_certificate_is_whole_and_bounded() {
    let decode = |bytes: usize| Op::decode(5, &[vec![2], vec![7; bytes]].concat());
    for count in [0, 1, MAX_SUPPORTS] {
        let Some(Op::Claim(Warrant::Certificate(list))) = decode(96 * count) else {
            panic!("{count} supports are a certificate");
        };
        assert_eq!(list.len(), count);
    }
    assert_eq!(decode(95), None);
    assert_eq!(decode(97), None);
    assert_eq!(decode(96 * MAX_SUPPORTS + 96), None);
}

#[test]
fn g14_what_a_leader_approved_is_open_again_when_it_leads_no_more() {
    let mut net = strict(&["ann", "bob", "cat", "dan", "eve"], 179);
    let id = net.create();
    net.admit(0, 2, id);
    net.admit(0, 3, id);
    net.admit(0, 4, id);
    net.pass(MINUTE);
    net.split(&[&[0, 1], &[2, 3, 4]]);
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    waits(&mut net, id, 7, [7; 16], Grant::Approved);
    net.pass(4 * MINUTE);
    net.cut.clear();
    net.pass(10_000);
    assert!(!net.nodes[0].groups.leading(id));
    let held = &net.nodes[0].groups.groups[&id];
    assert!(held.joins.values().all(|one| one.grant == Grant::Open));
    assert!(held.record.wanted.is_empty());
    assert!(held.acks.is_empty());
}

#[test]
fn a_checkpoint_follows_each_time_that_so_many_entries_were_added() {
    for every in [0, 3] {
        let config = GroupConfig {
            checkpoint_every: every,
            ..GroupConfig::default()
        };
        let mut net = Net::with(&["ann"], 180, &config);
        let id = net.create();
        for n in 0..9 {
            net.run(0, |g, now| g.rename(id, &name(&format!("{n}")), now))
                .unwrap();
        }
        let chain = net.nodes[0].groups.chain(id).unwrap();
        let checks = |index: &u64| {
            let Draft { op, .. } = chain.entry(*index).unwrap().draft;
            matches!(op, Op::Checkpoint { .. })
        };
        let places: Vec<_> = (1..=chain.index()).filter(checks).collect();
        assert_eq!(places, if every == 0 { vec![] } else { vec![4, 8, 12] });
    }
}
