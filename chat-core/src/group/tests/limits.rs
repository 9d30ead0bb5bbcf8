//! Bounds that are met exactly, and steps that are one command of their own.

use super::super::chain::SOFT_ENTRIES;
use super::super::entry::{Draft, Entry};
use super::super::op::{Admission, MAX_BATCH, MAX_DEVICES, MAX_SUPPORTS, Op, Warrant};
use super::super::*;
use super::log::{ANN, draft, with_bob};
use super::net::{FakeVerifier, Net, name, user};
use crate::wire::group::MAX_ENTRY;

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
    let mut net = Net::with(&["ann", "bob", "cat1", "cat2", "dan", "eve"], 174, &config);
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
    let eve = net.run(5, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    let refused = net.run(0, |g, now| g.approve(id, eve, now));
    assert_eq!(refused, full);
    assert_eq!(net.nodes[0].groups.size(id), 3);
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

#[test]
fn g19_a_batch_that_fits_no_entry_says_so() {
    let names: Vec<_> = (0..20).map(|n| format!("{n:0>250}x")).collect();
    let people: Vec<_> = names.iter().map(|one| (one.as_str(), 1)).collect();
    let (mut net, id) = crowd(&people, 183);
    let steps: Vec<_> = names
        .iter()
        .map(|one| BatchStep::Kick {
            user: user(one),
            reason: "y".repeat(512),
        })
        .collect();
    let refused = net.run(0, |g, now| g.apply(id, &steps, now));
    let full = GroupError::Full {
        what: "bytes of one entry",
        max: MAX_ENTRY,
    };
    assert_eq!(refused, Err(full));
    assert_eq!(net.nodes[0].groups.size(id), 21);
}

/// Who shares no more than the first entry gets no log, so the second is always named.
#[test]
fn ig5_a_fetch_names_the_second_entry_of_a_very_long_log_and_of_many_branches() {
    let mut chain = super::log::begin(&ANN, &FakeVerifier);
    let names = |chain: &Chain| {
        let have = chain.have().have;
        let places: Vec<_> = have.iter().map(|place| place.index).collect();
        assert!(places.ends_with(&[2, 1]), "{}: {places:?}", chain.index());
    };
    let grow = |chain: &mut Chain, to: u64| {
        while chain.index() < to {
            let entry = super::log::next(chain, super::log::meta("x"), &ANN);
            chain.extend(&entry, &FakeVerifier).unwrap();
        }
    };
    grow(&mut chain, 700);
    let mut forked = chain.clone();
    grow(&mut forked, 702);
    for text in ["a", "b", "c", "d", "e"] {
        let other = super::log::next(&chain, super::log::meta(text), &ANN);
        forked.accept(&[other], &FakeVerifier);
    }
    names(&forked);
    grow(&mut chain, 4_200);
    names(&chain);
}

#[test]
fn ig11_a_long_log_lets_people_go_and_nobody_in() {
    let config = GroupConfig {
        checkpoint_every: 0,
        ..GroupConfig::default()
    };
    let mut net = Net::with(&["ann", "bob", "cat"], 184, &config);
    let id = net.create();
    net.admit(0, 1, id);
    net.split(&[&[0, 2], &[1]]);
    let request = net.run(2, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    let ann = &mut net.nodes[0];
    let held = ann.groups.groups.get_mut(&id).unwrap();
    let chain = held.chain.as_mut().unwrap();
    while chain.index() < SOFT_ENTRIES - 1 {
        let entry = super::log::next(chain, super::log::meta("x"), &*ann.signer);
        chain.extend(&entry, &FakeVerifier).unwrap();
    }
    net.run(0, |g, now| g.rename(id, &name("y"), now)).unwrap();
    let full = Err(GroupError::Full {
        what: "log entries",
        max: SOFT_ENTRIES as usize,
    });
    let refused = net.run(0, |g, now| g.rename(id, &name("z"), now));
    assert_eq!(refused, full);
    let refused = net.run(0, |g, now| g.approve(id, request, now));
    assert_eq!(refused, full);
    let have = net.nodes[0].groups.chain(id).unwrap().have().have;
    let places: Vec<_> = have.iter().map(|place| place.index).collect();
    assert!(places.ends_with(&[2, 1]), "{places:?}");
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.run(0, |g, now| g.leave(id, now)).unwrap();
    assert_eq!(net.mine(0, id), Some(Membership::Left));
}
