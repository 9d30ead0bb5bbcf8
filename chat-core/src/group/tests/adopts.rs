//! What is taken over from a branch that lost, and when it is over (G6, R8, R9).

use bytes::Bytes;

use super::super::chain::Chain;
use super::super::entry::Entry;
use super::super::op::{Admission, Op};
use super::super::roster::{Gone, Way};
use super::super::rows::{Grant, Waiting};
use super::super::*;
use super::keeps::{between, claim};
use super::log::next;
use super::net::{FakeVerifier, Net, user};
use super::succession::{MINUTE, agreed, halves};

const ZED: (DeviceId, [u8; 16]) = (DeviceId([77; 32]), [7; 16]);

/// Dan follows cat, and ann leads the other half; nothing passes between any two.
fn apart(seed: u64) -> (Net, GroupId) {
    let (mut net, id) = halves(seed);
    let all: Vec<_> = (0..net.nodes.len()).collect();
    let alone: Vec<_> = all.iter().map(std::slice::from_ref).collect();
    net.split(&alone);
    (net, id)
}

fn held(net: &mut Net, id: GroupId) -> &mut Group {
    net.nodes[3].groups.groups.get_mut(&id).unwrap()
}

/// What dan is shown: ann does all this on her branch.
fn branch(net: &Net, id: GroupId, ops: Vec<Op>) -> Vec<Bytes> {
    let (ann, dan) = (&net.nodes[0], &net.nodes[3]);
    let theirs = ann.groups.chain(id).unwrap();
    let common = theirs.common_with(dan.groups.chain(id).unwrap());
    let mut chain = Chain::begin(theirs.bytes(1).unwrap(), id).unwrap();
    for index in 2..=common {
        chain
            .extend(theirs.bytes(index).unwrap(), &FakeVerifier)
            .unwrap();
    }
    let sign = |op| {
        let entry = next(&chain, op, &*ann.signer);
        chain.extend(&entry, &FakeVerifier).expect("it may do this");
        entry
    };
    ops.into_iter().map(sign).collect()
}

fn absorb(net: &mut Net, id: GroupId, ops: Vec<Op>) {
    let entries = branch(net, id, ops);
    net.run(3, |g, now| g.absorb(id, &entries, now));
}

fn admit((device, nonce): (DeviceId, [u8; 16])) -> Op {
    Op::Admit(vec![Admission {
        user: user("zed"),
        device,
        nonce,
    }])
}

fn kick(instance: (DeviceId, [u8; 16])) -> Op {
    Op::Kick {
        user: user("zed"),
        instances: vec![instance],
        reason: String::new(),
    }
}

fn seat(net: &Net, node: usize, id: GroupId) -> (DeviceId, [u8; 16]) {
    let device = net.nodes[node].me.device;
    let roster = &net.nodes[3].groups.chain(id).unwrap().roster;
    (device, roster.seats[&device].nonce)
}

#[test]
fn g6_an_admission_is_adopted_unless_it_is_known_or_undone() {
    let (mut net, id) = apart(240);
    absorb(&mut net, id, vec![admit(ZED)]);
    let joins: Vec<_> = held(&mut net, id).joins.values().cloned().collect();
    assert_eq!(joins.len(), 1);
    assert_eq!((joins[0].device, joins[0].grant), (ZED.0, Grant::Adopted));
    let (net, id) = apart(240);
    let sits = seat(&net, 4, id);
    for ops in [
        vec![admit(sits)],
        vec![admit(ZED), kick(ZED)],
        vec![kick(ZED), admit(ZED)],
    ] {
        let (mut net, id) = apart(240);
        absorb(&mut net, id, ops.clone());
        assert!(held(&mut net, id).joins.is_empty(), "{ops:?}");
    }
    let (mut net, id) = apart(240);
    let gone = Gone {
        user: user("zed"),
        since: 2,
        until: 3,
        way: Way::Left,
    };
    let roster = &mut held(&mut net, id).chain.as_mut().unwrap().roster;
    roster.gone.insert(ZED, gone);
    absorb(&mut net, id, vec![admit(ZED)]);
    assert!(held(&mut net, id).joins.is_empty(), "it went here");
}

#[test]
fn ig11_adopted_admissions_count_among_the_requests() {
    let (mut net, id) = apart(241);
    net.nodes[3].groups.config.max_joins = 0;
    absorb(&mut net, id, vec![admit(ZED)]);
    assert!(held(&mut net, id).joins.is_empty());
    // Who asks here as well takes no second place.
    let (mut net, id) = apart(241);
    net.nodes[3].groups.config.max_joins = 1;
    let waiting = Waiting {
        user: user("zed"),
        device: ZED.0,
        nonce: ZED.1,
        note: String::new(),
        since: net.clock().wall,
        grant: Grant::Open,
    };
    let name = RequestId([3; 16]);
    held(&mut net, id).joins.insert(name, waiting);
    absorb(&mut net, id, vec![admit(ZED)]);
    let joins = &held(&mut net, id).joins;
    assert_eq!(joins.len(), 1);
    assert_eq!(joins[&name].grant, Grant::Adopted);
}

#[test]
fn r9_of_a_fenced_term_no_order_is_adopted() {
    let (mut net, id) = apart(242);
    let term = net.nodes[0].groups.chain(id).unwrap().roster.term;
    let eve = seat(&net, 4, id);
    let roster = &mut held(&mut net, id).chain.as_mut().unwrap().roster;
    roster.fences.insert(term, 1);
    absorb(&mut net, id, vec![admit(ZED), kick(eve)]);
    let held = held(&mut net, id);
    assert!(held.joins.is_empty() && held.sticky.is_empty());
}

#[test]
fn ig4_a_kick_is_kept_until_the_log_shows_that_its_victim_went_for_good() {
    let rows = |net: &Net| {
        let of =
            |(table, key): &&(Table, Bytes)| *table == Table::Groups && key.get(32) == Some(&b'k');
        net.nodes[3].disk.keys().filter(of).count()
    };
    for (way, keeps) in [(Way::Replaced, 1), (Way::Left, 0), (Way::Kicked, 0)] {
        let (mut net, id) = apart(243);
        let eve = seat(&net, 4, id);
        absorb(&mut net, id, vec![kick(eve)]);
        assert_eq!((held(&mut net, id).sticky.len(), rows(&net)), (1, 1));
        let gone = Gone {
            user: user("eve"),
            since: 2,
            until: 3,
            way,
        };
        let roster = &mut held(&mut net, id).chain.as_mut().unwrap().roster;
        roster.gone.insert(eve, gone);
        net.run(3, |g, _| g.hide(id));
        let left = (held(&mut net, id).sticky.len(), rows(&net));
        assert_eq!(left, (keeps, keeps), "{way:?}");
    }
    let (mut net, id) = apart(243);
    let eve = seat(&net, 4, id);
    absorb(&mut net, id, vec![kick(eve)]);
    let term = net.nodes[0].groups.chain(id).unwrap().roster.term;
    let roster = &mut held(&mut net, id).chain.as_mut().unwrap().roster;
    roster.fences.insert(term, 1);
    net.run(3, |g, _| g.hide(id));
    assert_eq!((held(&mut net, id).sticky.len(), rows(&net)), (0, 0));
}

#[test]
fn g6_what_another_branch_decided_shows_and_is_settled_once() {
    let (mut net, id, branch) = between(244);
    let view = net.nodes[3].groups.view(id).unwrap();
    let names = |members: &[Member]| {
        let mut names: Vec<_> = members.iter().map(|m| m.user.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&view.hidden), ["bob", "eve"]);
    assert_eq!(names(&view.roster), ["ann", "cat", "dan"]);
    assert_eq!(view.unsettled, 3);
    net.cut.clear();
    net.pass(5 * MINUTE);
    agreed(&net, id);
    for node in [0, 2, 3, 5] {
        net.run(node, |g, now| g.absorb(id, &branch, now));
        let held = &net.nodes[node].groups.groups[&id];
        let kept = [held.sticky.len(), held.lefts.len(), held.joins.len()];
        assert_eq!(kept, [0, 0, 0], "node {node}");
        assert!(held.orphans.is_empty() && held.hidden.is_empty());
    }
}

#[test]
fn g14_a_request_that_the_log_answered_waits_no_longer_unless_the_leader_shows_it() {
    let mut net = Net::new(&["ann", "bob", "cat"], 245);
    let id = net.full();
    let nonce = net.nodes[2].groups.seat(id).unwrap();
    for (node, grant, stays) in [
        (0, Grant::Open, true),
        (0, Grant::Approved, false),
        (1, Grant::Open, false),
    ] {
        let waiting = Waiting {
            user: user("cat"),
            device: net.nodes[2].me.device,
            nonce,
            note: String::new(),
            since: net.clock().wall,
            grant,
        };
        let held = net.nodes[node].groups.groups.get_mut(&id).unwrap();
        held.joins.insert(RequestId([3; 16]), waiting);
        net.run(node, |g, _| g.hide(id));
        let held = &net.nodes[node].groups.groups[&id];
        assert_eq!(!held.joins.is_empty(), stays, "{node} {grant:?}");
    }
}

#[test]
fn r9_a_branch_of_a_branch_is_kept_with_what_it_stands_on() {
    let (mut net, id) = apart(248);
    let cat = &*net.nodes[2].signer;
    let trunk = net.nodes[3].groups.chain(id).unwrap().clone();
    let alone = next(&trunk, kick(ZED), cat);
    let mut longer = trunk.clone();
    let mut two = Vec::new();
    for text in ["a", "b"] {
        two.push(next(&longer, super::log::meta(text), cat));
        longer.extend(&two[two.len() - 1], &FakeVerifier).unwrap();
    }
    for entries in [two.as_slice(), core::slice::from_ref(&alone)] {
        net.run(3, |g, now| g.absorb(id, entries, now));
    }
    let last = Entry::open(&alone).unwrap().hash;
    assert_eq!(
        held(&mut net, id).orphans[&last],
        std::slice::from_ref(&alone)
    );
    // Bob and ann each claim, and theirs is the greater log.
    let theirs = net.nodes[0].groups.chain(id).unwrap();
    let common = theirs.common_with(&trunk);
    let mut other = Chain::begin(theirs.bytes(1).unwrap(), id).unwrap();
    for index in 2..=common {
        other
            .extend(theirs.bytes(index).unwrap(), &FakeVerifier)
            .unwrap();
    }
    let (ann, bob) = (&*net.nodes[0].signer, &*net.nodes[1].signer);
    claim(&mut other, bob, "bob", Some(ann));
    claim(&mut other, ann, "ann", Some(bob));
    let greater: Vec<_> = (common + 1..=other.index())
        .map(|index| other.bytes(index).unwrap().clone())
        .collect();
    net.run(3, |g, now| g.absorb(id, &greater, now));
    let chain = net.nodes[3].groups.chain(id).unwrap();
    assert_eq!(chain.head(), other.head());
    let mut whole: Vec<_> = (common + 1..=trunk.index())
        .map(|index| trunk.bytes(index).unwrap().clone())
        .collect();
    whole.push(alone);
    let kept = held(&mut net, id).orphans.clone();
    assert_eq!(kept, BTreeMap::from([(last, whole)]));
    net.crash(3);
    net.restart(3);
    assert_eq!(held(&mut net, id).orphans, kept);
}

#[test]
fn strict_a_removal_that_had_to_wait_is_told_to_its_victim_first() {
    let mut net = super::succession::strict(&["ann", "bob", "cat", "dan"], 246);
    let id = net.full();
    net.pass(MINUTE);
    net.trace.clear();
    net.run(0, |g, now| g.kick(id, &user("dan"), "", now))
        .unwrap();
    let told = |line: &String| line == "ann to dan: you are out";
    let all = |line: &String| line.starts_with("ann to all: entries");
    let place = |what: &dyn Fn(&String) -> bool| net.trace.iter().position(what);
    let (first, second) = (place(&told), place(&all));
    assert!(first.is_some() && first < second, "{:#?}", net.trace);
}

#[test]
fn an_entry_of_a_full_frame_has_a_page_of_its_own() {
    let mut net = Net::new(&["ann"], 247);
    let id = net.create();
    let kick = |n: u8, reason: usize| op::Removal {
        user: user(&"x".repeat(256)),
        instances: vec![(DeviceId([n; 32]), [n; 16])],
        reason: "y".repeat(reason),
    };
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let sign = |reason: usize, last: usize| {
        let mut removals: Vec<_> = (100..117).map(|n| kick(n, 400)).collect();
        removals[0] = kick(100, reason);
        removals[1] = kick(101, last);
        let op = Op::Batch {
            removals,
            admissions: Vec::new(),
        };
        next(chain, op, &*net.nodes[0].signer)
    };
    let missing = chain::PAGE - sign(200, 200).len();
    let longest = sign(200 + missing / 2, 200 + missing - missing / 2);
    assert_eq!(longest.len(), chain::PAGE);
    let mut chain = chain.clone();
    chain.accept(std::slice::from_ref(&longest), &FakeVerifier);
    assert_eq!(chain.page(2, 2).entries.len(), 1);
    assert_eq!(orphans::pages(id, std::slice::from_ref(&longest)).len(), 1);
    assert!(Entry::open(&longest).is_some());
}
