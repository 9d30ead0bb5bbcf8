//! Heads that are shown: what a member, a leader and an outsider make of them (G11, R6, IG5).

use super::super::op::Admission;
use super::super::op::Op;
use super::super::serve::{RATE, Served};
use super::super::term::Head;
use super::super::*;
use super::net::{Net, name, user};
use super::succession::{MINUTE, strict};
use crate::wire::group::{Entries, Fetch, GroupAck, GroupBeat, Place, Removed};
use crate::wire::{BoundedBytes, BoundedVec};

fn head(net: &Net, node: usize, id: GroupId) -> Head {
    net.nodes[node].groups.chain(id).unwrap().head()
}

fn moved(head: Head, by: i64) -> Head {
    Head {
        index: head.index.wrapping_add_signed(by),
        ..head
    }
}

fn held(net: &mut Net, node: usize, id: GroupId) -> &mut Group {
    net.nodes[node].groups.groups.get_mut(&id).unwrap()
}

/// What `to` sends when `from` shows this head in a beat.
fn beat(net: &mut Net, to: usize, from: usize, id: GroupId, head: Head) -> Vec<Outgoing> {
    let from = net.nodes[from].me.clone();
    let beat = GroupBeat {
        group: id.0,
        head: head.into(),
        commit: 0,
    };
    net.frames(to, |g, now| g.handle_frame(&from, &beat.into(), now))
}

/// What `to` sends when `from` reports this head.
fn report(net: &mut Net, to: usize, from: &Sender, id: GroupId, head: Head) -> Vec<Outgoing> {
    let ack = GroupAck {
        group: id.0,
        head: head.into(),
    };
    net.frames(to, |g, now| g.handle_frame(from, &ack.into(), now))
}

fn fetches(frames: &[Outgoing]) -> usize {
    let fetch = |frame: &&Outgoing| matches!(frame.body, Body::Fetch(_));
    frames.iter().filter(fetch).count()
}

fn heads(frames: &[Outgoing]) -> usize {
    let ack = |frame: &&Outgoing| matches!(frame.body, Body::GroupAck(_));
    frames.iter().filter(ack).count()
}

/// Ann leads bob; cat was kicked.
fn with_outsider(seed: u64) -> (Net, GroupId) {
    let mut net = Net::new(&["ann", "bob", "cat"], seed);
    let id = net.full();
    net.run(0, |g, now| g.kick(id, &user("cat"), "", now))
        .unwrap();
    net.pass(5_000);
    assert_eq!(net.mine(2, id), Some(Membership::Kicked));
    net.split(&[&[0], &[1], &[2]]);
    (net, id)
}

#[test]
fn ig5_an_outsider_is_recalled_by_a_greater_head_only() {
    for (by, recalled) in [(-1, false), (0, false), (1, true)] {
        let (mut net, id) = with_outsider(200);
        let shown = moved(head(&net, 2, id), by);
        let bob = net.nodes[1].me.clone();
        report(&mut net, 2, &bob, id, shown);
        assert_eq!(held(&mut net, 2, id).recalled, recalled, "{by}");
    }
}

#[test]
fn ig5_a_greater_head_is_asked_for_whoever_shows_it() {
    let (mut net, id) = with_outsider(201);
    let cat = net.nodes[2].me.clone();
    for (by, asks) in [(-1, 0), (0, 0), (1, 1)] {
        let shown = moved(head(&net, 0, id), by);
        assert_eq!(fetches(&report(&mut net, 0, &cat, id, shown)), asks, "{by}");
        net.pass(2_000);
    }
}

#[test]
fn hole_10_an_outsider_corrects_a_lower_beat_and_asks_about_a_greater_one() {
    let (mut net, id) = with_outsider(202);
    let ours = head(&net, 2, id);
    held(&mut net, 2, id).recalled = true;
    for _ in 0..40 {
        assert_eq!(beat(&mut net, 2, 0, id, ours).len(), 0);
    }
    let answers: usize = (0..40)
        .map(|_| beat(&mut net, 2, 0, id, moved(ours, -1)))
        .map(|frames| {
            assert_eq!(fetches(&frames), 0);
            heads(&frames)
        })
        .sum();
    assert_eq!(answers, RATE as usize);
    // Of many beats some make it ask: most often its removal stands.
    let mut asked = 0;
    for _ in 0..40 {
        net.now = net.now + Duration::from_secs(3);
        asked += fetches(&beat(&mut net, 2, 0, id, moved(ours, 1)));
    }
    assert!((1..25).contains(&asked), "{asked}");
}

#[test]
fn hole_10_an_outsider_corrects_a_lower_head_that_is_shown_to_it_alone() {
    for (by, corrects) in [(-1, 1), (0, 0), (1, 0)] {
        let (mut net, id) = with_outsider(209);
        let shown = moved(head(&net, 2, id), by);
        let bob = net.nodes[1].me.clone();
        let frames = report(&mut net, 2, &bob, id, shown);
        assert_eq!(heads(&frames), corrects, "{by}");
    }
}

#[test]
fn ig9_only_a_beat_of_the_reigning_term_by_its_leader_counts() {
    let mut net = Net::new(&["ann", "bob", "cat"], 203);
    let id = net.full();
    net.pass(5_000);
    let ours = head(&net, 1, id);
    let mut stale = ours;
    stale.term.round = 0;
    for (from, shown, counts) in [(2, ours, false), (0, stale, false), (0, ours, true)] {
        held(&mut net, 1, id).beat_at = None;
        beat(&mut net, 1, from, id, shown);
        assert_eq!(held(&mut net, 1, id).beat_at.is_some(), counts);
    }
    held(&mut net, 1, id).beat_at = None;
    let cat = net.nodes[2].me.device;
    held(&mut net, 1, id).chain.as_mut().unwrap().roster.heir = Some(roster::Heir {
        device: cat,
        agreed: true,
    });
    beat(&mut net, 1, 0, id, ours);
    assert!(held(&mut net, 1, id).beat_at.is_none(), "it handed over");
}

#[test]
fn g11_who_is_out_follows_the_log_no_more() {
    let (mut net, id) = with_outsider(204);
    net.run(0, |g, now| g.rename(id, &name("x"), now)).unwrap();
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let (index, entry) = (chain.index(), chain.bytes(chain.index()).unwrap().to_vec());
    let entry: BoundedBytes<{ crate::wire::group::MAX_ENTRY }> = entry.try_into().unwrap();
    let bodies: [Body; 2] = [
        Entries {
            group: id.0,
            head: index,
            entries: BoundedVec::take_from([entry.clone()]),
        }
        .into(),
        Removed { group: id.0, entry }.into(),
    ];
    let ann = net.nodes[0].me.clone();
    for body in bodies {
        net.run(2, |g, now| g.handle_frame(&ann, &body, now));
        assert_eq!(head(&net, 2, id).index, index - 1);
    }
}

#[test]
fn g11_a_page_that_is_not_the_last_makes_us_ask_for_the_next_at_once() {
    let mut net = Net::new(&["ann", "bob"], 205);
    let id = net.full();
    net.pass(5_000);
    net.split(&[&[0], &[1]]);
    let mut pages = Vec::new();
    for text in ["x", "y"] {
        net.run(0, |g, now| g.rename(id, &name(text), now)).unwrap();
        let chain = net.nodes[0].groups.chain(id).unwrap();
        pages.push(chain.page(chain.index(), chain.index()));
    }
    let last = head(&net, 0, id).index;
    let ann = net.nodes[0].me.clone();
    for mut page in pages {
        page.head = last;
        let more = head(&net, 1, id).index + 1 < last;
        held(&mut net, 1, id).recalled = true;
        let frames = net.frames(1, |g, now| g.handle_frame(&ann, &page.into(), now));
        assert_eq!(fetches(&frames), usize::from(more));
        assert_eq!(held(&mut net, 1, id).recalled, more);
    }
}

#[test]
fn g17_a_membership_that_we_did_not_ask_for_is_left_again() {
    let (mut net, id) = with_outsider(206);
    net.cut.clear();
    net.run(2, |g, now| g.join(id, "", now)).unwrap();
    let cat = net.nodes[2].me.clone();
    let late = Admission {
        user: cat.user,
        device: cat.device,
        nonce: [6; 16],
    };
    net.run(0, |g, now| {
        let index = g.append(id, Op::Admit(vec![late]), now).unwrap();
        g.publish(id, index);
    });
    net.pass(20_000);
    let roster = &net.nodes[0].groups.chain(id).unwrap().roster;
    assert!(roster.went(cat.device, [6; 16]));
    assert_eq!(net.mine(2, id), Some(Membership::Asking));
}

#[test]
fn r6_who_promised_a_greater_round_is_not_counted_also_when_it_leads() {
    for (promised, commits) in [(1, true), (2, false)] {
        let mut net = strict(&["ann", "bob", "cat"], 207);
        let id = net.full();
        net.pass(MINUTE);
        net.split(&[&[0], &[1], &[2]]);
        let before = net.nodes[0].groups.view(id).unwrap().committed;
        net.run(0, |g, now| g.rename(id, &name("x"), now)).unwrap();
        held(&mut net, 0, id).record.promised.round = promised;
        let (bob, shown) = (net.nodes[1].me.clone(), head(&net, 0, id));
        report(&mut net, 0, &bob, id, shown);
        let after = net.nodes[0].groups.view(id).unwrap().committed;
        assert_eq!(after > before, commits, "{promised}");
    }
}

#[test]
fn r6_who_answered_long_ago_does_not_live() {
    let mut net = Net::new(&["ann", "bob"], 208);
    let id = net.full();
    net.pass(15_000);
    let bob = net.nodes[1].me.device;
    let at = net.nodes[0].groups.groups[&id].acks[&bob].at;
    let lives = |net: &Net| {
        let groups = &net.nodes[0].groups;
        groups.is_live(&groups.groups[&id], bob, net.clock())
    };
    let suspect = GroupConfig::default().suspect;
    net.now = at + (suspect - Duration::from_micros(1));
    assert!(lives(&net));
    net.now = at + suspect;
    assert!(!lives(&net));
}

/// Of a large group the most senior acknowledge every beat, of the others some.
#[test]
fn ig11_a_leader_of_many_hears_few() {
    let mut net = Net::new(&["ann", "bob", "zoe"], 209);
    let id = net.create();
    net.admit(0, 1, id);
    for some in 0..4u8 {
        let list = (0..20).map(|n| Admission {
            user: user("cat"),
            device: DeviceId([100 + some * 20 + n; 32]),
            nonce: [n; 16],
        });
        let op = Op::Admit(list.collect());
        net.run(0, |g, now| {
            let index = g.append(id, op, now).unwrap();
            g.publish(id, index);
        });
    }
    net.admit(0, 2, id);
    net.pass(MINUTE);
    net.split(&[&[0], &[1], &[2]]);
    let mut acks = [0; 3];
    let shown = head(&net, 0, id);
    for _ in 0..100 {
        for node in [1, 2] {
            let beat = GroupBeat {
                group: id.0,
                head: shown.into(),
                commit: 0,
            };
            let ann = net.nodes[0].me.clone();
            net.nodes[node].groups.timers.remove(&(id, Timer::Ack));
            net.run(node, |g, now| g.handle_frame(&ann, &beat.into(), now));
            let due = net.nodes[node].groups.timers.due(&(id, Timer::Ack));
            acks[node] += u32::from(due.is_some());
        }
    }
    assert_eq!(acks[1], 100);
    assert!((5..60).contains(&acks[2]), "16 of 83 on average: {acks:?}");
    // News are worth a word of everybody, and a strict leader must hear a majority.
    let mut acks = [0; 2];
    for (strict, news) in [(false, true), (true, false)] {
        let chain = held(&mut net, 2, id).chain.as_mut().unwrap();
        if strict {
            chain.roster.policy = Policy::Strict;
        }
        for _ in 0..100 {
            net.nodes[2].groups.timers.remove(&(id, Timer::Ack));
            net.frames(2, |g, now| g.schedule_ack(id, news, now));
            let due = net.nodes[2].groups.timers.due(&(id, Timer::Ack));
            acks[usize::from(strict)] += u32::from(due.is_some());
        }
    }
    assert_eq!(acks, [100, 100]);
}

fn fetch(net: &mut Net, to: usize, from: &Sender, id: GroupId, have: &[Place]) -> Vec<Outgoing> {
    let fetch = Fetch {
        group: id.0,
        have: BoundedVec::take_from(have.to_vec()),
    };
    net.frames(to, |g, now| g.handle_frame(from, &fetch.into(), now))
}

fn entries(frames: &[Outgoing]) -> usize {
    let page = |frame: &&Outgoing| matches!(frame.body, Body::Entries(_));
    frames.iter().filter(page).count()
}

#[test]
fn g11_who_names_an_entry_beyond_the_first_is_served_and_asked_for_its_branch() {
    let mut net = Net::new(&["ann", "bob"], 210);
    let id = net.full();
    net.pass(5_000);
    let zed = Sender {
        user: user("zed"),
        device: DeviceId([99; 32]),
    };
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let place = |index| Place {
        index,
        hash: chain.place(index).unwrap().hash,
    };
    let (one, two) = (place(1), place(2));
    let unknown = |index| Place {
        index,
        hash: [9; 32],
    };
    let served = |frames: Vec<Outgoing>| (entries(&frames), fetches(&frames));
    net.run(0, |g, now| g.rename(id, &name("x"), now)).unwrap();
    assert_eq!(served(fetch(&mut net, 0, &zed, id, &[one])), (0, 0));
    assert_eq!(served(fetch(&mut net, 0, &zed, id, &[two])), (1, 0));
    net.pass(2_000);
    let branch = [two, unknown(3)];
    assert_eq!(served(fetch(&mut net, 0, &zed, id, &branch)), (1, 1));
    // A member is asked only for what lies beyond our head.
    let bob = net.nodes[1].me.clone();
    for (index, asks) in [(2, 0), (3, 0), (4, 1)] {
        net.pass(2_000);
        let frames = fetch(&mut net, 0, &bob, id, &[unknown(index)]);
        assert_eq!(fetches(&frames), asks, "{index}");
    }
}

#[test]
fn g11_a_member_is_asked_before_a_stranger_and_nobody_while_we_are_cut_off() {
    let mut net = Net::new(&["ann", "bob", "cat"], 211);
    let id = net.full();
    net.pass(5_000);
    let source = |net: &mut Net| held(net, 1, id).source.clone().map(|it| it.to_string());
    let now = net.clock();
    held(&mut net, 1, id).fetched = Some(now.mono);
    for (who, chosen) in [
        ("zed", "zed"),
        ("ann", "ann"),
        ("zed", "ann"),
        ("cat", "cat"),
    ] {
        net.run(1, |g, now| g.want(id, &user(who), now));
        assert_eq!(source(&mut net).as_deref(), Some(chosen));
    }
    net.down(1);
    held(&mut net, 1, id).source = None;
    let frames = net.frames(1, |g, now| g.want(id, &user("ann"), now));
    assert_eq!(frames.len(), 0);
    assert_eq!(source(&mut net), None);
    held(&mut net, 1, id).source = Some(user("ann"));
    let frames = net.frames(1, |g, now| g.fetch(id, now));
    assert_eq!(frames.len(), 0);
}

#[test]
fn ig11_so_many_devices_are_served_in_one_second() {
    let mut served = Served::default();
    let group = GroupId([1; 32]);
    let device = |n: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        DeviceId(bytes)
    };
    let now = Timestamp::from_secs(9);
    assert!((0..4_096).all(|n| served.admit(group, device(n), now)));
    assert!(!served.admit(group, device(4_096), now));
    assert!(served.admit(group, device(5), now), "it is one of them");
    let later = Timestamp::from_secs(10);
    assert!(served.admit(group, device(4_096), later));
}
