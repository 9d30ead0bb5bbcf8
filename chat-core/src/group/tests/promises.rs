//! Who is supported, and what a refusal says (R2, R3).

use super::super::chain::Chain;
use super::super::promise::{LIVES, LOWER, MAX_STEP, PROMISED};
use super::super::term::Head;
use super::super::*;
use super::net::{Net, user};
use super::succession::MINUTE;
use crate::wire::group::Canvass;

const STRANGER: u8 = 4;

/// How bob answers node `from`, and whether he asks it for entries.
fn ask(net: &mut Net, id: GroupId, from: usize, round: u64, base: Head) -> (Result<(), u8>, bool) {
    let from = net.nodes[from].me.clone();
    let canvass = Canvass {
        group: id.0,
        round,
        base: base.into(),
    };
    let frames = net.frames(1, |g, now| g.handle_frame(&from, &canvass.into(), now));
    let answer = frames.iter().find_map(|frame| match &frame.body {
        Body::Support(_) => Some(Ok(())),
        Body::Refuse(refuse) => Some(Err(refuse.why)),
        _ => None,
    });
    let fetches = |frame: &Outgoing| matches!(frame.body, Body::Fetch(_));
    (answer.expect("an answer"), frames.iter().any(fetches))
}

/// Bob did not hear ann for longer than the time of suspicion.
fn silent(seed: u64) -> (Net, GroupId, Head) {
    let mut net = Net::new(&["ann", "bob", "cat", "dan"], seed);
    let id = net.full();
    net.crash(0);
    net.pass(40_000);
    net.split(&[&[1], &[2, 3]]);
    let head = net.nodes[1].groups.chain(id).unwrap().head();
    (net, id, head)
}

fn held(net: &mut Net, id: GroupId) -> &mut Group {
    net.nodes[1].groups.groups.get_mut(&id).unwrap()
}

#[test]
fn r3_only_a_head_that_is_at_least_ours_is_supported() {
    let (mut net, id, head) = silent(190);
    let mut lower = head;
    lower.index -= 1;
    assert_eq!(ask(&mut net, id, 2, 2, lower), (Err(LOWER), false));
    let mut greater = head;
    greater.index += 1;
    assert_eq!(ask(&mut net, id, 3, 2, greater), (Ok(()), true));
    assert_eq!(ask(&mut net, id, 2, 3, head), (Ok(()), false));
}

#[test]
fn r2_one_round_is_promised_once_for_one_head() {
    let (mut net, id, head) = silent(191);
    let mut other = head;
    other.hash = [0; 32];
    assert_eq!(ask(&mut net, id, 2, 5, head).0, Ok(()));
    assert_eq!(ask(&mut net, id, 2, 5, head).0, Ok(()), "the same again");
    net.now = net.now + Duration::from_secs(1);
    assert_eq!(ask(&mut net, id, 2, 5, other).0, Err(PROMISED));
    assert_eq!(ask(&mut net, id, 3, 5, head).0, Err(PROMISED));
    assert_eq!(ask(&mut net, id, 3, 4, head).0, Err(PROMISED));
    assert_eq!(ask(&mut net, id, 3, 6, head).0, Ok(()));
    assert_eq!(ask(&mut net, id, 2, 5, head).0, Err(PROMISED), "it is over");
}

#[test]
fn r2_a_round_lies_beyond_the_reigning_one_and_not_too_far() {
    for (promised, round, answer) in [
        (0, 1, Err(PROMISED)),
        (0, 2, Ok(())),
        (0, 1 + MAX_STEP, Ok(())),
        (0, 2 + MAX_STEP, Err(PROMISED)),
        (10, 10 + MAX_STEP, Ok(())),
        (10, 11 + MAX_STEP, Err(PROMISED)),
    ] {
        let (mut net, id, head) = silent(192);
        held(&mut net, id).record.promised.round = promised;
        assert_eq!(
            ask(&mut net, id, 2, round, head).0,
            answer,
            "{promised} {round}"
        );
    }
}

#[test]
fn ig4_who_is_out_or_hidden_is_not_supported() {
    let (mut net, id, head) = silent(193);
    let nonce = net.nodes[2].groups.seat(id).unwrap();
    let cat = net.nodes[2].me.device;
    held(&mut net, id).hidden.insert((cat, nonce));
    assert_eq!(ask(&mut net, id, 2, 2, head).0, Err(STRANGER));
    net.nodes[3].me.user = user("eve");
    assert_eq!(ask(&mut net, id, 3, 2, head).0, Err(STRANGER));
}

#[test]
fn ig9_a_leader_that_lives_is_not_replaced() {
    let (mut net, id, head) = silent(194);
    let now = net.clock();
    held(&mut net, id).heard = Some(now.mono);
    assert_eq!(ask(&mut net, id, 2, 2, head).0, Err(LIVES));
    // The leader itself never takes another for it.
    let mut net = Net::new(&["bob", "ann", "cat"], 195);
    let id = net.create();
    net.admit(0, 1, id);
    net.run(0, |g, now| g.hand_over(id, &user("ann"), now))
        .unwrap();
    net.pass(1_000);
    net.run(1, |g, now| g.answer_offer(id, true, now)).unwrap();
    net.pass(MINUTE);
    net.split(&[&[0], &[1]]);
    net.pass(50_000);
    let head = net.nodes[1].groups.chain(id).unwrap().head();
    assert_eq!(ask(&mut net, id, 0, 9, head).0, Err(LIVES));
}

#[test]
fn r8_after_a_hand_over_the_heir_is_supported_at_once_and_others_are_not() {
    let (mut net, id, _) = silent(196);
    let now = net.clock();
    let (ann, cat) = (net.nodes[0].me.clone(), net.nodes[2].me.device);
    let group = held(&mut net, id);
    group.heard = Some(now.mono);
    let chain: &mut Chain = group.chain.as_mut().unwrap();
    assert_eq!(chain.roster.leader, ann);
    chain.roster.heir = Some(roster::Heir {
        device: cat,
        agreed: true,
    });
    let head = chain.head();
    assert_eq!(ask(&mut net, id, 3, 2, head).0, Err(LIVES));
    assert_eq!(ask(&mut net, id, 2, 2, head).0, Ok(()));
}

#[test]
fn g7_a_leader_that_signed_two_things_is_not_waited_for() {
    let (mut net, id, head) = silent(197);
    let now = net.clock();
    let mut term = head.term;
    let group = held(&mut net, id);
    group.heard = Some(now.mono);
    group.distrust = Some(term);
    assert_eq!(ask(&mut net, id, 2, 2, head).0, Ok(()));
    term.round += 1;
    held(&mut net, id).distrust = Some(term);
    assert_eq!(ask(&mut net, id, 3, 3, head).0, Err(LIVES), "another term");
}

#[test]
fn hole_10_a_former_member_corrects_who_asks_with_a_lower_head() {
    let mut net = Net::new(&["ann", "bob", "cat"], 198);
    let id = net.full();
    net.run(0, |g, now| g.kick(id, &user("bob"), "", now))
        .unwrap();
    net.pass(3_000);
    assert_eq!(net.mine(1, id), Some(Membership::Kicked));
    let ours = net.nodes[1].groups.chain(id).unwrap().head();
    let says = |net: &mut Net, change: i64| {
        let mut base = ours;
        base.index = base.index.wrapping_add_signed(change);
        let canvass = Canvass {
            group: id.0,
            round: 2,
            base: base.into(),
        };
        let cat = net.nodes[2].me.clone();
        let frames = net.frames(1, |g, now| g.handle_frame(&cat, &canvass.into(), now));
        let heads = frames.iter().map(|frame| match &frame.body {
            Body::GroupAck(_) => true,
            other => panic!("no member answers a canvass: {other:?}"),
        });
        heads.count()
    };
    assert_eq!(says(&mut net, 0), 0);
    assert_eq!(says(&mut net, 1), 0);
    let answers: usize = (0..20).map(|_| says(&mut net, -1)).sum();
    assert_eq!(answers, serve::RATE as usize);
}
