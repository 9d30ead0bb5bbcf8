//! A seed expands to an explicit script of timed operations: faults and workload. Shrinking drops
//! operations; everything else of a run follows from the seed.

use super::rng::Draw;
use super::swarm::{Suite, Swarm};

/// One operation. Nodes and users are indices; durations (`down`, `ms`, `away`, `fsync`) are ms.
#[allow(missing_docs)] // the fields are the same few words everywhere
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The process dies after `effects` more effects and starts again after `down`.
    Crash {
        node: usize,
        effects: u32,
        down: u64,
    },
    /// The process dies and never comes back.
    Kill { node: usize },
    /// The process stands still; its input queues.
    Pause { node: usize, ms: u64 },
    /// A backup of the synced disk is taken.
    Backup { node: usize },
    /// The process dies and starts from its backup.
    Rollback { node: usize, down: u64 },
    /// The process dies and starts with an empty disk, as another device.
    LoseDisk { node: usize, down: u64 },
    /// Every fsync takes this long, for this long.
    SlowDisk { node: usize, fsync: u64, ms: u64 },
    /// The next fsync fails: the process stops and starts again after `down`.
    FailFsync { node: usize, down: u64 },
    /// The disk takes no more writes: the process stops, and again at every start, until then.
    FullDisk { node: usize, ms: u64 },
    /// A bit of a stored row flips: the store refuses to open, and what there is of a backup takes
    /// its place.
    FlipBit { node: usize, pick: u64 },
    /// The wall clock steps.
    StepWall { node: usize, by: i64 },
    /// Frames from (`up`) or to (`down`) the node are lost.
    Cut {
        node: usize,
        up: bool,
        down: bool,
        ms: u64,
    },
    /// Frames from and to the node wait.
    Clog { node: usize, ms: u64 },
    /// The broker refuses the node's messages for good, for so long.
    Bar { node: usize, ms: u64 },
    /// The connection breaks.
    Drop { node: usize },
    /// The broker is away, and forgets everything unless `memory`.
    BrokerDown {
        broker: usize,
        ms: u64,
        memory: bool,
    },
    /// The bridge between the brokers is cut.
    CutBridge { ms: u64 },
    /// A frame that was seen is sent again to a node: mutated, moved or as it was.
    Forge { node: usize, pick: u64 },

    /// Goes online.
    Connect { node: usize },
    /// Says goodbye, and comes back after `away`.
    Disconnect { node: usize, away: u64 },
    /// Asks for a session.
    Request { node: usize, user: usize },
    /// Takes the request back.
    Cancel { node: usize, user: usize },
    /// Leaves the session.
    Close { node: usize, user: usize },
    /// Blocks.
    Block { node: usize, user: usize },
    /// Lifts the block.
    Unblock { node: usize, user: usize },
    /// Sends to a user.
    Send { node: usize, user: usize },
    /// Sends to the group.
    SendGroup { node: usize },
    /// Takes the latest message back.
    CancelSend { node: usize },
    /// Types.
    Typing { node: usize, user: usize },
    /// Sets the presence status (by number).
    Status { node: usize, status: u8 },
    /// Creates the group.
    CreateGroup { node: usize },
    /// Asks to join.
    Join { node: usize },
    /// Takes the request back.
    Withdraw { node: usize },
    /// Removes a user, if it leads.
    Kick { node: usize, user: usize },
    /// Leaves the group.
    Leave { node: usize },
    /// Offers the lead.
    HandOver { node: usize, user: usize },
    /// Renames the group.
    Rename { node: usize },
}

/// A script: operations by time in ms, in order.
pub type Script = Vec<(u64, Op)>;

/// The script of `seed`.
pub fn expand(swarm: &Swarm, seed: u64) -> Script {
    let mut script = Vec::new();
    setup(swarm, &mut Draw::new(seed, "setup"), &mut script);
    faults(swarm, &mut Draw::new(seed, "faults"), &mut script);
    work(swarm, &mut Draw::new(seed, "work"), &mut script);
    siege(swarm, &mut Draw::new(seed, "siege"), &mut script);
    if swarm.dead {
        let mut draw = Draw::new(seed, "dead");
        for node in 0..swarm.users.len() {
            if draw.chance(350) {
                script.push((draw.range(1_000, swarm.safety_ms), Op::Kill { node }));
            }
        }
    }
    script.sort_by_key(|(at, _)| *at);
    script
}

fn setup(swarm: &Swarm, draw: &mut Draw, script: &mut Script) {
    let nodes = swarm.users.len();
    for node in 0..nodes {
        script.push((draw.range(1, 500), Op::Connect { node }));
    }
    if swarm.suite.is_groups() || swarm.suite == Suite::Delivery && nodes > 2 {
        script.push((600, Op::CreateGroup { node: 0 }));
        for node in 1..nodes {
            script.push((draw.range(700, 4_000), Op::Join { node }));
        }
    }
    if swarm.suite == Suite::Presence && swarm.feature(2) {
        script.push((draw.range(600, 20_000), Op::CreateGroup { node: 0 }));
    }
    if swarm.suite == Suite::Delivery {
        for node in 1..nodes {
            script.push((draw.range(600, 900), Op::Request { node, user: 0 }));
        }
    }
}

fn faults(swarm: &Swarm, draw: &mut Draw, script: &mut Script) {
    let nodes = swarm.users.len();
    // Short times scale with the profile, so that both see the same mix.
    let unit = if swarm.lan { 1 } else { 5 };
    let span = swarm.safety_ms;
    let mut each = |count: u32, draw: &mut Draw, make: &mut dyn FnMut(&mut Draw, usize) -> Op| {
        for _ in 0..count {
            let at = draw.range(1_000, span);
            let node = draw.index(nodes);
            let op = make(draw, node);
            script.push((at, op));
            if let Op::Rollback { node, .. } | Op::FlipBit { node, .. } = op {
                script.push((draw.range(500, at), Op::Backup { node }));
            }
        }
    };
    each(swarm.crashes * nodes as u32, draw, &mut |draw, node| {
        Op::Crash {
            node,
            effects: draw.below(30) as u32,
            down: draw.range(1, 4_000 * unit),
        }
    });
    each(swarm.kills, draw, &mut |_, node| Op::Kill { node });
    each(swarm.pauses, draw, &mut |draw, node| Op::Pause {
        node,
        ms: draw.pick(&[200, 3_000, 15_000]) * unit,
    });
    each(swarm.rollbacks, draw, &mut |draw, node| Op::Rollback {
        node,
        down: draw.range(1, 3_000 * unit),
    });
    each(swarm.lost_disks, draw, &mut |draw, node| Op::LoseDisk {
        node,
        down: draw.range(1, 3_000 * unit),
    });
    each(swarm.bad_disks, draw, &mut |draw, node| {
        if draw.chance(400) {
            Op::FailFsync {
                node,
                down: draw.range(100, 5_000),
            }
        } else {
            let ms = draw.range(500, 8_000 * unit);
            Op::SlowDisk {
                node,
                fsync: draw.pick(&[30, 300, ms]),
                ms,
            }
        }
    });
    each(swarm.wall_steps, draw, &mut |draw, node| Op::StepWall {
        node,
        // A clock set back by an hour makes a cool-down last an hour longer, which nobody waits for.
        by: if swarm.suite == Suite::Sessions {
            draw.pick(&[-5_000, 700, 90_000, 86_400_000])
        } else {
            draw.pick(&[-3_600_000, -5_000, 700, 90_000, 86_400_000])
        },
    });
    each(swarm.cuts, draw, &mut |draw, node| {
        let (up, down) = draw.pick(&[(true, true), (true, false), (false, true)]);
        Op::Cut {
            node,
            up,
            down,
            ms: draw.range(300, 12_000 * unit),
        }
    });
    each(swarm.clogs, draw, &mut |draw, node| Op::Clog {
        node,
        ms: draw.range(300, 6_000 * unit),
    });
    each(swarm.drops, draw, &mut |_, node| Op::Drop { node });
    each(swarm.broker_restarts, draw, &mut |draw, node| {
        Op::BrokerDown {
            broker: swarm.brokers[node],
            ms: draw.range(100, 6_000 * unit),
            memory: !swarm.amnesia,
        }
    });
    each(swarm.bridge_cuts, draw, &mut |draw, _| Op::CutBridge {
        ms: draw.range(1_000, 20_000 * unit),
    });
    each(swarm.forgeries, draw, &mut |draw, node| Op::Forge {
        node,
        pick: draw.draw(),
    });
    each(swarm.full_disks, draw, &mut |draw, node| Op::FullDisk {
        node,
        ms: draw.range(100, 8_000 * unit),
    });
    each(swarm.flipped_bits, draw, &mut |draw, node| Op::FlipBit {
        node,
        pick: draw.draw(),
    });
    each(swarm.bars, draw, &mut |draw, node| Op::Bar {
        node,
        ms: draw.range(300, 12_000 * unit),
    });
}

fn work(swarm: &Swarm, draw: &mut Draw, script: &mut Script) {
    let nodes = swarm.users.len();
    let users = swarm.users.iter().max().map_or(1, |user| user + 1);
    for _ in 0..swarm.work {
        let at = draw.range(1_000, swarm.safety_ms);
        let node = draw.index(nodes);
        let user = draw.index(users);
        let other = if user == swarm.users[node] {
            (user + 1) % users
        } else {
            user
        };
        let op = match swarm.suite {
            Suite::Delivery => delivery(swarm, draw, node, other),
            Suite::Sessions => session(swarm, draw, node, other),
            Suite::Presence => presence(draw, node),
            Suite::Groups | Suite::Strict if swarm.calm => calm(draw, node, nodes),
            _ => group(swarm, draw, node, other),
        };
        script.push((at, op));
        if let Op::Request { node, user } = op
            && swarm.feature(1)
            && draw.chance(400)
        {
            // Soon enough to cross the answer (S2).
            script.push((at + draw.range(50, 3_000), Op::Cancel { node, user }));
        }
    }
}

fn delivery(swarm: &Swarm, draw: &mut Draw, node: usize, user: usize) -> Op {
    let grouped = swarm.users.len() > 2;
    match draw.below(100) {
        0..10 if swarm.cancels => Op::CancelSend { node },
        10..14 => Op::Disconnect {
            node,
            away: draw.range(100, 20_000),
        },
        14..18 => Op::Typing { node, user },
        18..60 if grouped => Op::SendGroup { node },
        // Sessions are with the first user: somebody else's peer is the first.
        _ if node == 0 => Op::Send { node, user },
        _ => Op::Send { node, user: 0 },
    }
}

fn session(swarm: &Swarm, draw: &mut Draw, node: usize, user: usize) -> Op {
    match draw.below(100) {
        0..14 if swarm.feature(1) => Op::Cancel { node, user },
        14..26 if swarm.feature(2) => Op::Close { node, user },
        26..34 if swarm.feature(3) => Op::Block { node, user },
        34..38 if swarm.feature(3) => Op::Unblock { node, user },
        38..44 => Op::Disconnect {
            node,
            away: draw.range(100, 20_000),
        },
        44..60 => Op::Send { node, user },
        _ => Op::Request { node, user },
    }
}

fn presence(draw: &mut Draw, node: usize) -> Op {
    match draw.below(100) {
        0..40 => Op::Status {
            node,
            status: draw.below(4) as u8,
        },
        40..65 => Op::Disconnect {
            node,
            away: draw.range(100, 60_000),
        },
        65..80 => Op::Rename { node },
        _ => Op::Drop { node },
    }
}

/// The bridge is cut for so long that both halves may elect. When both had time to, they decide
/// against each other; when they meet, some of them crash or hear for a while nothing.
fn siege(swarm: &Swarm, draw: &mut Draw, script: &mut Script) {
    let nodes = swarm.users.len();
    let mut at = 8_000;
    for _ in 0..swarm.sieges {
        let ms = draw.range(12_000, 26_000);
        script.push((at, Op::CutBridge { ms }));
        let meet = at + ms;
        for _ in 0..draw.range(2, 7) {
            let node = draw.index(nodes);
            let user = (node + 1 + draw.index(nodes - 1)) % nodes;
            let op = match draw.below(100) {
                0..40 => Op::Kick { node, user },
                40..50 => Op::Leave { node },
                50..75 => Op::Join { node },
                75..90 => Op::HandOver { node, user },
                _ => Op::Rename { node },
            };
            script.push((draw.range(at + ms / 2, meet), op));
        }
        for node in 0..nodes {
            if draw.chance(300) {
                let (effects, down) = (draw.below(12) as u32, draw.range(1, 2_000));
                let crash = Op::Crash {
                    node,
                    effects,
                    down,
                };
                script.push((meet + draw.below(3_000), crash));
            }
        }
        if draw.chance(400) {
            let cut = Op::Cut {
                node: draw.index(nodes),
                up: draw.chance(300),
                down: true,
                ms: draw.range(4_000, 14_000),
            };
            script.push((meet + draw.below(4_000), cut));
        }
        at = meet + draw.range(5_000, 14_000);
    }
}

/// Talk, while the last member comes and goes.
fn calm(draw: &mut Draw, node: usize, nodes: usize) -> Op {
    match draw.below(100) {
        0..30 => Op::Disconnect {
            node: nodes - 1,
            away: draw.range(100, 60_000),
        },
        _ => Op::SendGroup { node },
    }
}

fn group(swarm: &Swarm, draw: &mut Draw, node: usize, user: usize) -> Op {
    match draw.below(100) {
        0..14 if swarm.feature(1) => Op::Kick { node, user },
        14..24 if swarm.feature(2) => Op::Leave { node },
        24..36 if swarm.feature(3) => Op::HandOver { node, user },
        36..42 if swarm.feature(4) => Op::Withdraw { node },
        42..48 => Op::Rename { node },
        48..54 => Op::Disconnect {
            node,
            away: draw.range(100, 30_000),
        },
        54..75 => Op::SendGroup { node },
        _ => Op::Join { node },
    }
}
