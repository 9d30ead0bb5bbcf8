//! Seeded runs with loss, copies, reordering, crashes, restored backups and expiry.

use super::net::Net;
use super::*;

#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    nodes: usize,
    crashes: bool,
    rollback: bool,
    expiry: bool,
    /// The last node is admitted halfway.
    joins: bool,
    /// The second node stops for good after a while, and is waited for by nobody.
    dead: bool,
}

/// Who stops in a plan with a dead member, and when.
const DEAD: usize = 1;
const DIES_AT: u64 = 60;

impl Plan {
    fn living(self) -> impl Iterator<Item = usize> {
        (0..self.nodes).filter(move |n| !self.dead || *n != DEAD)
    }
}

fn config(plan: Plan) -> DeliveryConfig {
    let mut config = DeliveryConfig {
        rto_first: Duration::from_millis(400),
        rto_max: Duration::from_secs(4),
        ack_delay: Duration::from_millis(50),
        group_ack_delay: Duration::from_millis(200),
        window: 8,
        retransmit_rate: 200,
        ..DeliveryConfig::default()
    };
    if plan.expiry {
        config.content_ttl = Duration::from_secs(6);
    }
    config
}

/// One run; what the checkers found.
fn run(seed: u64, plan: Plan) -> Option<String> {
    let mut net = Net::new(plan.nodes, plan.nodes > 2, config(plan), seed);
    let mut sent = vec![0u64; plan.nodes];
    let mut backup = None;
    let newest = plan.nodes - 1;
    let all: Vec<usize> = (0..plan.nodes).collect();
    // What was said before the last node came is not for it.
    let mut before = vec![0; plan.nodes];
    if plan.joins {
        for n in 0..newest {
            net.open(n, &all[..newest], 1, 0);
        }
        net.leave(newest);
    }
    for step in 0..220u64 {
        let mut n = net.rng.below(plan.nodes as u64) as usize;
        if plan.joins && step == 110 {
            before.clone_from(&sent);
            for n in 0..plan.nodes {
                net.open(n, &all, 5, if n == newest { 5 } else { 0 });
            }
        }
        if plan.joins && step < 110 && n == newest {
            n = 0;
        }
        if plan.dead && step >= DIES_AT && n == DEAD {
            n = 0;
        }
        if plan.dead && step == DIES_AT {
            net.down(DEAD);
        }
        match net.rng.below(100) {
            0..=24 => {
                sent[n] += 1;
                let says = format!("{n}:{}", sent[n]);
                net.send(n, &says);
            }
            25..=44 => {
                net.commit(n);
            }
            45..=79 => {
                for _ in 0..4 {
                    if net.wire.is_empty() {
                        break;
                    }
                    let at = net.rng.below(net.wire.len() as u64) as usize;
                    match net.rng.below(10) {
                        0 | 1 => {
                            net.wire.swap_remove(at);
                        }
                        2 => {
                            let copy = net.wire[at].clone();
                            net.hand_over(&copy);
                        }
                        _ => net.deliver(at),
                    }
                }
            }
            80..=92 => {
                let by = Duration::from_millis(net.rng.below(400));
                net.pass(by);
            }
            93 | 94 => {
                net.down(n);
            }
            95 | 96 => net.up(n),
            97 | 98 if plan.crashes => {
                net.now.wall = net.now.wall.plus(Duration::from_millis(5));
                net.crash(n);
            }
            99 if plan.expiry => net.pass(Duration::from_secs(7)),
            _ => {}
        }
        if net
            .nodes
            .iter()
            .any(|node| node.machine.outbox_size().0 > 200)
        {
            break;
        }
        if plan.rollback && step == 90 {
            backup = Some((net.nodes[0].disk.clone(), net.nodes[0].log.clone()));
        }
        if plan.rollback && step == 150 {
            net.rolled_back = true;
            net.now.wall = net.now.wall.plus(Duration::from_millis(5));
            let (disk, log) = backup.clone().unwrap();
            net.nodes[0].log = log;
            net.restart(0, disk);
        }
        if net.found.is_some() {
            return net.found;
        }
    }
    for n in plan.living() {
        if !net.nodes[n].up {
            net.up(n);
        }
    }
    net.settle();
    // A last word of everybody tells what of the tail was lost.
    for n in plan.living() {
        net.send(n, &format!("{n}:{}", sent[n] + 1));
    }
    net.settle();
    net.check_order();
    if !plan.rollback {
        check_arrival(&mut net, plan, &before);
    }
    if net.found.is_none()
        && !plan.dead
        && let Some(n) = (0..plan.nodes).find(|n| net.nodes[*n].machine.outbox_size().0 > 0)
    {
        return Some(format!("ID4: node {n} still owes after everything healed"));
    }
    net.found
}

/// ID4 and ID7: everything accepted is with everybody, or failed and covered by a gap.
fn check_arrival(net: &mut Net, plan: Plan, before: &[u64]) {
    for from in plan.living() {
        let before = before[from];
        let accepted = net.accepted[from].clone();
        for to in plan.living().filter(|to| *to != from) {
            let mut lost = 0;
            for (id, says) in &accepted {
                if net.nodes[to].log.iter().any(|(got, _)| got == id) {
                    continue;
                }
                let number = says.split(':').nth(1).and_then(|n| n.parse().ok());
                if plan.joins && to == plan.nodes - 1 && number <= Some(before) {
                    continue;
                }
                lost += 1;
                if !net.failed.contains(id) {
                    let what = format!("ID4: {says:?} ({id:?}) never reached {to}");
                    net.found.get_or_insert(what);
                }
            }
            let told = net.gaps(to, from);
            if told < lost {
                let what = format!("ID7: {to} lost {lost} of {from}, was told of {told}");
                net.found.get_or_insert(what);
            }
            if !plan.expiry && told > 0 {
                let what = format!("ID7: {to} was told of {told} lost by {from}, none was");
                net.found.get_or_insert(what);
            }
        }
    }
}

fn plans() -> [Plan; 11] {
    let plan = Plan {
        nodes: 2,
        ..Plan::default()
    };
    [
        plan,
        Plan {
            crashes: true,
            ..plan
        },
        Plan {
            nodes: 3,
            crashes: true,
            ..plan
        },
        Plan {
            expiry: true,
            ..plan
        },
        Plan {
            nodes: 3,
            crashes: true,
            expiry: true,
            ..plan
        },
        Plan {
            nodes: 3,
            joins: true,
            ..plan
        },
        Plan {
            nodes: 3,
            joins: true,
            crashes: true,
            ..plan
        },
        Plan {
            crashes: true,
            rollback: true,
            ..plan
        },
        Plan {
            nodes: 4,
            crashes: true,
            dead: true,
            ..plan
        },
        Plan {
            nodes: 3,
            crashes: true,
            dead: true,
            expiry: true,
            ..plan
        },
        Plan {
            nodes: 4,
            crashes: true,
            dead: true,
            joins: true,
            ..plan
        },
    ]
}

#[test]
fn id1_id2_id3_id4_id6_id7_hold_in_seeded_chaos() {
    let seeds: u64 = 10;
    for seed in 0..seeds {
        for plan in plans() {
            if let Some(found) = run(seed, plan) {
                panic!("seed {seed}, {plan:?}: {found}");
            }
        }
    }
}

/// Every checker bites: each one-line bug is found within a few seeds.
#[cfg(feature = "probe")]
#[test]
fn the_checkers_find_every_planted_bug() {
    for bug in [
        "delivery-ack-before-persist",
        "delivery-publish-before-persist",
        "delivery-ack-max",
        "delivery-no-retired",
        "delivery-silent-gap",
        "delivery-silent-tail",
        "delivery-out-of-order",
        "delivery-new-epoch-first",
        "delivery-prior-ignored",
        "delivery-base-stays",
        "delivery-no-inbox-row",
    ] {
        crate::probe::plant(Some(bug));
        let caught = (0..60).find_map(|seed| {
            plans().into_iter().find_map(|plan| {
                // A bug may also break an expectation inside the machine.
                let run = std::panic::AssertUnwindSafe(|| run(seed, plan));
                match std::panic::catch_unwind(run) {
                    Ok(found) => found.map(|found| (seed, found)),
                    Err(_) => Some((seed, "panicked".into())),
                }
            })
        });
        crate::probe::plant(None);
        let (seed, found) = caught.unwrap_or_else(|| panic!("{bug} was not caught"));
        println!("{bug}: seed {seed}: {found}");
    }
}
