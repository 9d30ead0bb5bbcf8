//! Several changes in one entry (G19).

use std::collections::BTreeSet;

use super::super::chain::Chain;
use super::super::entry::{Draft, Entry};
use super::super::op::{Admission, Op, Removal};
use super::super::*;
use super::net::{Fake, FakeVerifier, Net, name, user};
use crate::identity::PublicKey;

const MINUTE: u64 = 60_000;

fn approve(request: &RequestId) -> BatchStep {
    BatchStep::Approve(*request)
}

fn kick(who: &str) -> BatchStep {
    BatchStep::Kick {
        user: user(who),
        reason: "out".into(),
    }
}

/// Node 0 leads `members`, the rest asks.
fn waiting(names: &[&str], members: usize, rules: Rules) -> (Net, GroupId, Vec<RequestId>) {
    let mut net = Net::new(names, 70);
    net.rules = rules;
    let id = net.create();
    for joiner in 1..members {
        net.admit(0, joiner, id);
    }
    net.pass(MINUTE);
    let requests = (members..names.len())
        .map(|node| net.run(node, |g, now| g.join(id, "", now)).unwrap())
        .collect();
    net.pass(1_000);
    (net, id, requests)
}

fn index(net: &Net, id: GroupId) -> u64 {
    net.nodes[0].groups.view(id).unwrap().index
}

#[test]
fn g19_removals_and_admissions_are_one_entry_and_each_is_told() {
    let names = ["ann", "bob", "cat", "dan", "eve", "fay"];
    for rules in [Rules::default(), Rules::strict()] {
        let (mut net, id, requests) = waiting(&names, 4, rules);
        let before = index(&net, id);
        net.take_events(3);
        let steps = match rules.policy {
            Policy::Available => {
                let out = [kick("bob"), kick("cat")];
                [&out[..], &requests.iter().map(approve).collect::<Vec<_>>()].concat()
            }
            // Four before, three of them after: any three of four meet any two of three.
            Policy::Strict => vec![approve(&requests[0]), approve(&requests[1])],
        };
        net.run(0, |g, now| g.apply(id, &steps, now)).unwrap();
        net.pass(10_000);
        assert_eq!(index(&net, id), before + 1);
        let told = net.take_events(3);
        let changes = told.iter().filter_map(|event| match event {
            GroupEvent::Changed { change, index, .. } if *index == before + 1 => Some(change),
            _ => None,
        });
        let changes: Vec<_> = changes.cloned().collect();
        let admitted = |who: &str| Change::Admitted { user: user(who) };
        assert_eq!(changes.len(), steps.len());
        assert_eq!(
            changes[changes.len() - 2..],
            [admitted("eve"), admitted("fay")]
        );
        for node in [4, 5] {
            assert_eq!(net.mine(node, id), Some(Membership::Member));
            assert_eq!(net.users(node, id), net.users(0, id));
        }
        if rules.policy == Policy::Available {
            assert_eq!(net.users(0, id), ["ann", "dan", "eve", "fay"]);
            for node in [1, 2] {
                assert_eq!(net.mine(node, id), Some(Membership::Kicked));
                let reason = "out".to_owned();
                let by = user("ann");
                let removed = GroupEvent::Removed {
                    group: id,
                    by,
                    reason,
                };
                assert!(net.take_events(node).contains(&removed));
            }
        }
    }
}

#[test]
fn g19_a_batch_names_the_step_that_fails_and_changes_nothing() {
    let (mut net, id, requests) = waiting(&["ann", "bob", "cat", "dan"], 3, Rules::default());
    let (state, dan) = (net.nodes[0].groups.view(id).unwrap(), approve(&requests[0]));
    let nobody = GroupError::NoSuchMember { user: user("eve") };
    let long = BatchStep::Kick {
        user: user("bob"),
        reason: "x".repeat(513),
    };
    for (steps, step, why) in [
        (vec![dan.clone(), kick("eve")], 1, nobody),
        (
            vec![kick("bob"), BatchStep::Rename(name("x"))],
            1,
            GroupError::Mixed,
        ),
        (
            vec![BatchStep::HandOver(user("bob")), kick("cat")],
            0,
            GroupError::Mixed,
        ),
        (
            vec![
                BatchStep::Rename(name("x")),
                BatchStep::HandOver(user("bob")),
            ],
            0,
            GroupError::Mixed,
        ),
        (
            vec![kick("bob"), dan.clone(), kick("bob")],
            2,
            GroupError::NamedTwice,
        ),
        (vec![dan.clone(), dan.clone()], 1, GroupError::NamedTwice),
        (vec![kick("bob"), kick("ann")], 1, GroupError::Oneself),
        (
            vec![dan.clone(), long],
            1,
            GroupError::TooLong { bytes: 513 },
        ),
        (
            vec![kick("bob"), approve(&RequestId([9; 16]))],
            1,
            GroupError::NoSuchRequest,
        ),
    ] {
        let refused = net.run(0, |g, now| g.apply(id, &steps, now));
        let why = Box::new(why);
        assert_eq!(refused, Err(GroupError::InBatch { step, why }), "{steps:?}");
        assert_eq!(net.nodes[0].groups.view(id).unwrap(), state, "{steps:?}");
    }
    let leader = user("ann");
    let refused = net.run(1, |g, now| g.apply(id, &[dan.clone(), kick("cat")], now));
    assert_eq!(refused, Err(GroupError::NotLeader { leader }));
    // One step alone is the command of that name; none is nothing.
    net.run(0, |g, now| g.apply(id, &[], now)).unwrap();
    assert_eq!(index(&net, id), state.index);
    net.run(0, |g, now| {
        g.apply(id, &[BatchStep::Rename(name("x"))], now)
    })
    .unwrap();
    net.run(0, |g, now| g.apply(id, &[dan], now)).unwrap();
    assert_eq!(index(&net, id), state.index + 2);
}

#[test]
fn g19_ig7_a_strict_batch_is_one_change_whose_majorities_meet() {
    let names = ["ann", "bob", "cat", "dan", "eve", "fay"];
    let (mut net, id, requests) = waiting(&names, 5, Rules::strict());
    let before = index(&net, id);
    let two = [kick("bob"), approve(&requests[0])];
    let refused = net.run(0, |g, now| g.apply(id, &two, now));
    assert_eq!(refused, Err(GroupError::TooWide { seats: 2 }));
    assert_eq!(index(&net, id), before);
    net.run(0, |g, now| g.approve(id, requests[0], now))
        .unwrap();
    // Of six, two may go at once, as soon as a majority holds what was before.
    let two = [kick("bob"), kick("cat")];
    let refused = net.run(0, |g, now| g.apply(id, &two, now));
    assert_eq!(refused, Err(GroupError::NotCommitted));
    net.pass(MINUTE);
    net.run(0, |g, now| g.apply(id, &two, now)).unwrap();
    net.pass(MINUTE);
    assert_eq!(index(&net, id), before + 2);
    for node in [0, 3, 4, 5] {
        assert_eq!(net.users(node, id), ["ann", "dan", "eve", "fay"]);
    }
}

#[test]
fn g6_a_batch_of_a_branch_that_lost_falls_apart_into_its_parts() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan", "eve", "fay"], 71);
    let id = net.create();
    for joiner in 1..5 {
        net.admit(0, joiner, id);
    }
    let request = net.run(5, |g, now| g.join(id, "", now)).unwrap();
    net.pass(1_000);
    // Ann and bob here, the others there; fay hears ann only.
    net.split(&[&[0, 1, 5], &[2, 3, 4]]);
    net.pass(3 * MINUTE);
    assert_eq!(
        net.nodes[2].groups.view(id).unwrap().mine,
        Membership::Leader
    );
    let steps = [kick("dan"), kick("eve"), approve(&request)];
    net.run(0, |g, now| g.apply(id, &steps, now)).unwrap();
    net.pass(5_000);
    assert_eq!(net.users(0, id), ["ann", "bob", "cat", "fay"]);
    net.cut.clear();
    net.pass(6 * MINUTE);
    for node in [0, 1, 2, 5] {
        let mut users = net.users(node, id);
        users.sort();
        assert_eq!(users, ["ann", "bob", "cat", "fay"], "node {node}");
        assert_eq!(net.nodes[node].groups.view(id).unwrap().unsettled, 0);
    }
    for node in [3, 4] {
        assert_eq!(net.mine(node, id), Some(Membership::Kicked), "node {node}");
    }
}

/// A strict group of so many, led by the first, and its chain.
fn strict_chain(members: u8) -> (Chain, Vec<DeviceId>) {
    let keys: Vec<_> = (1..=members + 4)
        .map(|n| Fake(PublicKey([n; 32])))
        .collect();
    let mut net = Net::new(&["ann"], 72);
    net.rules = Rules::strict();
    let id = net.create();
    let mut chain = net.nodes[0].groups.groups[&id].chain.clone().unwrap();
    for key in &keys[1..usize::from(members)] {
        let admit = Op::Admit(vec![admission(key.0.device())]);
        assert!(takes(&mut chain, admit));
    }
    (chain, keys.iter().map(|key| key.0.device()).collect())
}

fn admission(device: DeviceId) -> Admission {
    Admission {
        user: user("other"),
        device,
        nonce: [7; 16],
    }
}

fn removal(device: DeviceId) -> Removal {
    Removal {
        user: user("other"),
        instances: vec![(device, [7; 16])],
        reason: String::new(),
    }
}

fn takes(chain: &mut Chain, op: Op) -> bool {
    let draft = Draft {
        group: chain.group,
        term: chain.roster.term,
        index: chain.index() + 1,
        prev: chain.hash(),
        op,
        author: chain.roster.leader.user.clone(),
        at: UnixMillis(9),
    };
    let entry = Entry::sign(draft, &Fake(PublicKey([1; 32]))).unwrap();
    chain.accept(&[entry.bytes], &FakeVerifier).from.is_some()
}

/// Every majority of the one meets every majority of the other, by looking at all of them.
fn all_meet(before: &BTreeSet<DeviceId>, after: &BTreeSet<DeviceId>) -> bool {
    let everybody: Vec<_> = before.union(after).collect();
    let majority = |of: &BTreeSet<DeviceId>, picks: u32| {
        let picked = everybody
            .iter()
            .enumerate()
            .filter(|(at, device)| picks >> at & 1 == 1 && of.contains(device));
        picked.count() > of.len() / 2
    };
    let subsets = 0..1_u32 << everybody.len();
    let mut first = subsets.clone().filter(|picks| majority(before, *picks));
    first.all(|one| {
        subsets
            .clone()
            .all(|other| one & other != 0 || !majority(after, other))
    })
}

#[test]
fn ig7_a_strict_batch_is_valid_exactly_when_all_majorities_meet() {
    for members in 1..=6_u8 {
        let (chain, devices) = strict_chain(members);
        let before: BTreeSet<_> = devices[..usize::from(members)].iter().copied().collect();
        for out in 0..usize::from(members) {
            for new in 0..=3_usize {
                if out + new == 0 {
                    continue;
                }
                let gone = &devices[1..=out];
                let fresh = &devices[usize::from(members)..usize::from(members) + new];
                let mut after = before.clone();
                after.retain(|device| !gone.contains(device));
                after.extend(fresh);
                let op = Op::Batch {
                    removals: gone.iter().copied().map(removal).collect(),
                    admissions: fresh.iter().copied().map(admission).collect(),
                };
                let taken = takes(&mut chain.clone(), op);
                assert_eq!(taken, all_meet(&before, &after), "{members} -{out} +{new}");
            }
        }
    }
}

#[test]
fn g19_a_batch_that_contradicts_itself_or_kicks_the_leader_is_no_entry() {
    let mut net = Net::new(&["ann"], 73);
    let id = net.create();
    let mut chain = net.nodes[0].groups.groups[&id].chain.clone().unwrap();
    let ann = net.nodes[0].me.device;
    let (bob, cat) = (DeviceId([2; 32]), DeviceId([3; 32]));
    assert!(takes(&mut chain, Op::Admit(vec![admission(bob)])));
    let batch = |removals: Vec<Removal>, admissions: Vec<Admission>| Op::Batch {
        removals,
        admissions,
    };
    let nobody = Removal {
        instances: Vec::new(),
        ..removal(bob)
    };
    for bad in [
        batch(Vec::new(), Vec::new()),
        batch(vec![nobody], vec![admission(cat)]),
        batch(vec![removal(ann)], vec![admission(cat)]),
        batch(Vec::new(), vec![admission(ann)]),
        batch(vec![removal(bob), removal(bob)], Vec::new()),
        batch(vec![removal(bob)], vec![admission(bob)]),
        batch(Vec::new(), vec![admission(cat), admission(cat)]),
    ] {
        assert!(!takes(&mut chain.clone(), bad.clone()), "{bad:?}");
    }
    assert!(takes(
        &mut chain,
        batch(vec![removal(bob)], vec![admission(cat)])
    ));
    assert_eq!(
        chain.roster.seats.keys().copied().collect::<Vec<_>>(),
        [cat, ann]
    );
}

#[test]
fn a_batch_is_these_bytes() {
    let op = Op::Batch {
        removals: vec![Removal {
            user: user("bob"),
            instances: vec![(DeviceId([2; 32]), [3; 16])],
            reason: "rude".into(),
        }],
        admissions: vec![admission(DeviceId([4; 32]))],
    };
    let mut bytes = vec![1, 3];
    bytes.extend(b"bob\x01");
    bytes.extend([2; 32]);
    bytes.extend([3; 16]);
    bytes.extend(b"\x04rude\x01\x05other");
    bytes.extend([4; 32]);
    bytes.extend([7; 16]);
    assert_eq!(op.encode(), (11, bytes.clone()));
    assert_eq!(Op::decode(11, &bytes), Some(op));
    for len in 0..bytes.len() {
        assert_eq!(Op::decode(11, &bytes[..len]), None);
    }
}

#[cfg(feature = "probe")]
#[test]
fn planted_bugs_of_batches_are_found() {
    let laws: [(&str, fn()); 2] = [
        (
            "group-batch-too-wide",
            ig7_a_strict_batch_is_valid_exactly_when_all_majorities_meet,
        ),
        (
            "group-batch-half",
            g19_removals_and_admissions_are_one_entry_and_each_is_told,
        ),
    ];
    for (bug, law) in laws {
        crate::probe::plant(Some(bug));
        let found = std::panic::catch_unwind(law).is_err();
        crate::probe::plant(None);
        assert!(found, "{bug} survives");
    }
}
