//! Two branches of the log: what a place in the log takes, which branch wins, what is undone.

use bytes::Bytes;

use super::super::chain::Chain;
use super::super::entry::{Draft, Entry};
use super::super::op::{Op, Warrant};
use super::super::types::Change;
use super::super::*;
use super::log::{ANN, BOB, begin, draft, first, meta, next, takes, with_bob};
use super::net::{FakeVerifier, Net, name, user};
use crate::identity::Signer;

fn hashes(entries: &[Entry]) -> Vec<Hash> {
    entries.iter().map(|entry| entry.hash).collect()
}

/// Bob's claim behind `chain`, alone of two.
fn bobs_claim(chain: &Chain) -> Bytes {
    let device = BOB.public_key().device();
    let mut claim = draft(chain, Op::Claim(Warrant::Certificate(Vec::new())));
    claim.author = user("bob");
    claim.term = Term {
        round: 2,
        majority: false,
        seniority: chain.roster.seats[&device].seniority,
        claimant: device,
    };
    Entry::sign(claim, &BOB).unwrap().bytes
}

#[test]
fn g6_a_branch_that_wins_undoes_and_tells_all_from_where_the_two_part() {
    let mut base = with_bob();
    let last = next(&base, meta("w"), &ANN);
    base.accept(&[last], &FakeVerifier);
    let (mut ours, mut theirs) = (base.clone(), base.clone());
    for text in ["x", "y"] {
        let entry = next(&ours, meta(text), &ANN);
        ours.accept(&[entry], &FakeVerifier);
    }
    let mut branch = vec![bobs_claim(&base)];
    theirs.accept(&branch, &FakeVerifier);
    branch.push(next(&theirs, meta("z"), &BOB));
    theirs.accept(&branch[1..], &FakeVerifier);
    let lost: Vec<_> = (4..=5).map(|index| ours.entry(index).unwrap()).collect();
    let done = ours.accept(&branch, &FakeVerifier);
    assert_eq!(done.from, Some(4));
    assert_eq!(hashes(&done.undone), hashes(&lost));
    let how = Passing::Succeeded { majority: false };
    let bob = user("bob");
    let led = Change::Leader {
        user: bob.clone(),
        how,
    };
    let named = Change::Renamed { name: name("z") };
    let news = [(4, 2, (bob.clone(), led)), (5, 2, (bob, named))];
    assert_eq!(done.news, news);
    assert_eq!(ours.roster, theirs.roster);
    assert_eq!(ours.head(), theirs.head());
    // The branch that lost comes again: it is told whole, and changes nothing.
    let again: Vec<_> = lost.iter().map(|entry| entry.bytes.clone()).collect();
    let done = ours.accept(&again, &FakeVerifier);
    assert_eq!((done.from, done.undone.len()), (None, 0));
    assert_eq!(hashes(&done.lower), hashes(&lost));
}

#[test]
fn g13_the_machine_tells_a_fork_and_what_follows_once() {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], 130);
    let id = net.full();
    net.pass(1_000);
    let index = net.nodes[2].groups.view(id).unwrap().index;
    net.split(&[&[0, 2, 3], &[1]]);
    net.run(0, |g, now| g.rename(id, &name("x"), now)).unwrap();
    net.run(3, |g, now| g.leave(id, now)).unwrap();
    net.pass(1_000);
    net.take_events(2);
    // Cat supported bob in a part of the world that it does not remember.
    let chain = net.nodes[1].groups.chain(id).unwrap();
    let (bob, cat) = (&net.nodes[1], &net.nodes[2]);
    let cause = proof::Cause {
        group: id,
        round: 2,
        base: chain.head(),
        candidate: bob.me.device,
    };
    let support = proof::SupportProof::sign(&cause, &*cat.signer);
    let claim = Draft {
        group: id,
        term: Term {
            round: 2,
            majority: false,
            seniority: chain.roster.seats[&bob.me.device].seniority,
            claimant: bob.me.device,
        },
        index: index + 1,
        prev: chain.hash(),
        op: Op::Claim(Warrant::Certificate(vec![support])),
        author: user("bob"),
        at: UnixMillis(1),
    };
    let claim = Entry::sign(claim, &*bob.signer).unwrap().bytes;
    net.run(2, |g, now| g.absorb(id, &[claim], now));
    let events = net.take_events(2);
    let renamed = Change::Renamed { name: name("x") };
    let left = Change::Left { user: user("dan") };
    let forked = GroupEvent::Forked {
        group: id,
        leader: user("bob"),
        round: 2,
        common: index,
        undone: vec![(user("ann"), renamed), (user("ann"), left)],
    };
    let how = Passing::Succeeded { majority: false };
    let led = Change::Leader {
        user: user("bob"),
        how,
    };
    let changed = GroupEvent::Changed {
        group: id,
        change: led,
        by: user("bob"),
        round: 2,
        index: index + 1,
    };
    assert_eq!(events, [forked, changed]);
    // The rows are those of the log.
    net.crash(2);
    net.restart(2);
    assert_eq!(net.nodes[2].groups.view(id).unwrap().index, index + 1);
}

#[test]
fn ig12_a_first_entry_counts_by_its_name_and_its_signature() {
    let good = first(&ANN);
    let id = GroupId(good.hash);
    assert!(Chain::found(&good.bytes, id, &FakeVerifier).is_some());
    assert!(Chain::found(&good.bytes, GroupId([9; 32]), &FakeVerifier).is_none());
    let mut bytes = good.bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let bad = Entry::open(&bytes.into()).unwrap();
    assert!(Chain::found(&bad.bytes, GroupId(bad.hash), &FakeVerifier).is_none());
}

#[test]
fn ig12_an_entry_fits_one_place_of_one_log() {
    let chain = with_bob();
    let signed = |spoil: fn(&mut Draft)| {
        let mut draft = draft(&chain, meta("x"));
        spoil(&mut draft);
        Entry::sign(draft, &ANN).unwrap().bytes
    };
    let wrong: [fn(&mut Draft); 4] = [
        |draft| draft.group = GroupId([9; 32]),
        |draft| draft.index += 1,
        |draft| draft.index -= 1,
        |draft| draft.prev = [9; 32],
    ];
    for spoil in wrong {
        let entry = signed(spoil);
        assert!(!takes(&chain, entry.clone()));
        assert!(chain.clone().extend(&entry, &FakeVerifier).is_none());
    }
    let right = signed(|_| {});
    assert!(chain.clone().extend(&right, &FakeVerifier).is_some());
    // In its place, and not allowed there.
    let bobs = next(&chain, meta("x"), &BOB);
    assert!(chain.clone().extend(&bobs, &FakeVerifier).is_none());
}

#[test]
fn a_digest_covers_every_part_of_the_state() {
    let base = with_bob().roster;
    let bob = BOB.public_key().device();
    let mut rosters = vec![base.clone(); 10];
    rosters[1].quorum = 3;
    rosters[2].policy = Policy::Strict;
    rosters[3].name = name("y");
    rosters[4].term.round = 2;
    rosters[5].leader.user = user("bob");
    rosters[6].seats.get_mut(&bob).unwrap().nonce = [9; 16];
    rosters[7].fences.insert(base.term, 2);
    rosters[8].voided.insert([1; 32]);
    let gone = roster::Gone {
        user: user("bob"),
        since: 1,
        until: 2,
        way: roster::Way::Left,
    };
    rosters[9].gone.insert((bob, [1; 16]), gone);
    let digests: BTreeSet<_> = rosters.iter().map(roster::Roster::digest).collect();
    assert_eq!(digests.len(), rosters.len());
}

#[test]
fn a_page_is_as_full_as_a_frame_allows() {
    let limit = chain::PAGE;
    // The last entry makes the page exactly full, or one byte too long.
    for over in [0, 1] {
        let mut chain = begin(&ANN, &FakeVerifier);
        let mut bytes = chain.bytes(1).unwrap().len() + 2;
        let grow = |chain: &mut Chain, text: &str| {
            let entry = next(chain, meta(text), &ANN);
            chain.accept(std::slice::from_ref(&entry), &FakeVerifier);
            entry.len() + 2
        };
        let most = "x".repeat(256);
        let long = next(&chain, meta(&most), &ANN).len() + 2;
        let short = long - 250;
        while limit - bytes > long + short {
            bytes += grow(&mut chain, &most);
        }
        if limit - bytes > long {
            let half = 256 + (limit - bytes) / 2 - long;
            bytes += grow(&mut chain, &"x".repeat(half));
        }
        let fitting = (1..=256)
            .map(|len| "x".repeat(len))
            .find(|text| next(&chain, meta(text), &ANN).len() + 2 == limit - bytes + over)
            .expect("a name of this length");
        grow(&mut chain, &fitting);
        let last = chain.index();
        grow(&mut chain, "x");
        let page = chain.page(1, chain.index());
        assert!(last < 32, "the count of entries does not bound it");
        assert_eq!(page.entries.len() as u64, last - over as u64);
        let all: Vec<_> = (1..=chain.index())
            .map(|index| chain.bytes(index).unwrap().clone())
            .collect();
        let shown = orphans::pages(chain.group, &all);
        assert_eq!(shown[0].entries.len() as u64, last - over as u64);
    }
}

#[test]
fn a_log_is_restored_unbroken_or_not_at_all() {
    let mut net = Net::new(&["ann"], 131);
    let id = net.create();
    net.run(0, |g, now| g.rename(id, &name("x"), now)).unwrap();
    let rows: Vec<_> = net.nodes[0].disk.clone().into_iter().collect();
    let now = net.clock();
    let restore = |keys: [u64; 2]| {
        let mut again = Net::new(&["ann"], 131);
        let mut keys = keys.into_iter();
        let groups = &mut again.nodes[0].groups;
        rows.iter().all(|((table, key), value)| {
            let chained = *table == Table::Chain;
            let key = if chained {
                rows::chain_key(id, keys.next().unwrap()).into()
            } else {
                key.clone()
            };
            let row = Row {
                table: *table,
                key,
                value: value.clone(),
            };
            groups.restore(&row, now).is_ok()
        })
    };
    assert!(restore([1, 2]));
    assert!(!restore([2, 3]), "the first row is missing");
    assert!(!restore([2, 2]), "the first row is elsewhere");
    assert!(!restore([1, 3]), "one in between is missing");
}

#[test]
fn a_row_under_a_name_that_is_none_is_refused() {
    let mut net = Net::new(&["ann"], 132);
    let (id, now) = (net.create(), net.clock());
    for (more, fits) in [(vec![], true), (vec![1], false)] {
        let key = [rows::ticket_key(id), more].concat();
        let row = Row {
            table: Table::Groups,
            key: key.into(),
            value: Bytes::from_static(&[1]),
        };
        let taken = net.nodes[0].groups.restore(&row, now);
        assert_eq!(taken.is_ok(), fits);
    }
}
