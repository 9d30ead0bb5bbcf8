//! A stranger that sends everything there is: nothing that others signed changes.

use super::super::{GroupId, Rng, serve};
use super::net::Net;
use crate::effect::Effect;
use crate::wire::Body;
use crate::wire::group::*;
use crate::wire::{BoundedBytes, BoundedStr, BoundedVec};

/// A frame of any kind; numbers are small, so that they hit what is there.
fn frame(rng: &mut Rng, id: GroupId, known: &[Vec<u8>]) -> Body {
    let group = id.0;
    let (round, index) = (rng.below(4), rng.below(8));
    let hash = rng.bytes();
    let head = Head {
        term: Term {
            round,
            majority: index % 2 == 0,
            since_round: 1,
            since_index: 1,
            since_place: 0,
            claimant: rng.bytes(),
        },
        index,
        hash,
    };
    let bytes = match rng.below(3) {
        0 => rng.bytes::<200>().to_vec(),
        1 => known[rng.below(known.len() as u64) as usize].clone(),
        _ => {
            let mut copy = known[rng.below(known.len() as u64) as usize].clone();
            let at = rng.below(copy.len() as u64) as usize;
            copy[at] ^= 1 << rng.below(8);
            copy
        }
    };
    let entry: BoundedBytes<MAX_ENTRY> = bytes.try_into().unwrap();
    match rng.below(13) {
        0 => GroupBeat {
            group,
            head,
            commit: index,
        }
        .into(),
        1 => GroupAck { group, head }.into(),
        9 => Canvass {
            group,
            round,
            base: head,
        }
        .into(),
        10 => Support {
            group,
            round,
            base: hash,
            proof: BoundedBytes::try_from(rng.bytes::<96>().to_vec()).unwrap(),
        }
        .into(),
        11 => Refuse {
            group,
            why: (index % 5) as u8,
            head,
            promised: round,
            heard_ms: 0,
        }
        .into(),
        12 => GroupInvite {
            group,
            name: BoundedStr::truncated("x"),
            ticket: BoundedBytes::try_from(rng.bytes::<112>().to_vec()).unwrap(),
        }
        .into(),
        2 => Entries {
            group,
            head: index,
            entries: BoundedVec::take_from([entry]),
        }
        .into(),
        3 => Fetch {
            group,
            have: BoundedVec::take_from([Place { index, hash }]),
        }
        .into(),
        4 => JoinReq {
            group,
            request: rng.bytes(),
            nonce: rng.bytes(),
            note: BoundedStr::default(),
            ticket: BoundedBytes::default(),
            withdrawn: index == 0,
        }
        .into(),
        5 => JoinAnswer {
            group,
            request: rng.bytes(),
            answer: round as u8,
            retry: 0,
            reason: BoundedStr::default(),
        }
        .into(),
        6 => Propose {
            group,
            action: round as u8,
            index,
            proof: BoundedBytes::try_from(rng.bytes::<112>().to_vec()).unwrap(),
        }
        .into(),
        7 => Offer {
            group,
            offer: index,
        }
        .into(),
        _ => Removed { group, entry }.into(),
    }
}

#[test]
fn ig12_a_stranger_changes_no_log_and_gets_few_answers() {
    let mut net = Net::new(&["ann", "bob", "eve"], 31);
    let id = net.create();
    net.admit(0, 1, id);
    net.pass(10_000);
    let heads = [0, 1].map(|node| net.nodes[node].groups.chain(id).unwrap().head());
    let chain = net.nodes[0].groups.chain(id).unwrap();
    let known: Vec<_> = (1..=chain.index())
        .map(|index| chain.bytes(index).unwrap().to_vec())
        .collect();
    let eve = net.nodes[2].me.clone();
    let mut rng = Rng::from_seed([3; 32]);
    let now = net.clock();
    for node in [0, 1] {
        let mut sent = 0;
        for _ in 0..5_000 {
            let body = frame(&mut rng, id, &known);
            let groups = &mut net.nodes[node].groups;
            groups.handle_frame(&eve, &body, now);
            while let Some(effect) = groups.effects().pop() {
                sent += u32::from(matches!(effect, Effect::Send(_)));
            }
        }
        // Answers to it, and one question for what it claims to hold.
        assert!(sent <= serve::RATE + 1, "{sent} frames in one second");
        let groups = &net.nodes[node].groups;
        assert_eq!(groups.chain(id).unwrap().head(), heads[node]);
        assert!(
            groups.groups[&id].joins.len() <= 1,
            "one request per device"
        );
        assert!(groups.groups[&id].settled.len() <= 256);
    }
}
