//! One run from its seed to its verdict, and the marks that a set of runs must reach.

use std::collections::BTreeMap;

use chat_core::probe;

use super::script::{Script, expand};
use super::swarm::{Suite, Swarm};
use super::world::{MS, World};
use crate::oracle::{Settled, Violation};

/// How long after the last fault everything must have converged: several times the longest
/// retransmit, beat and lease.
const LIVENESS_MS: u64 = 1_800_000;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first violation.
    pub violation: Option<Violation>,
    /// It could not converge, for a legal reason.
    pub exempt: bool,
    /// How long after the last fault everything had converged, ms; `None` when it could not.
    pub converged: Option<u64>,
    /// Messages owed to somebody at the end, and those of them that are missing for a legal reason.
    pub owed: (u64, u64),
    /// Events handled.
    pub steps: u64,
    /// Simulated time, µs.
    pub simulated: u64,
    /// Digest of everything that happened.
    pub digest: u64,
    /// How often each mark was reached.
    pub marks: BTreeMap<&'static str, u64>,
    /// The readable trace, if asked for.
    pub trace: String,
}

/// Runs `seed` of `suite`.
pub fn run(suite: Suite, seed: u64, traced: bool) -> Outcome {
    let swarm = Swarm::new(suite, seed);
    let script = expand(&swarm, seed);
    run_script(swarm, seed, script, traced)
}

/// Runs an explicit script with the features and randomness of `seed`.
pub fn run_script(swarm: Swarm, seed: u64, script: Script, traced: bool) -> Outcome {
    drop(probe::take_marks());
    let safety_ms = swarm.safety_ms;
    let mut world = World::new(seed, swarm, script, traced);
    world.run(LIVENESS_MS);
    let mut marks = core::mem::take(&mut world.marks);
    for (name, count) in probe::take_marks() {
        *marks.entry(name).or_default() += count;
    }
    Outcome {
        seed,
        exempt: world.settled == Some(Settled::Exempt),
        converged: (world.settled == Some(Settled::Yes))
            .then(|| (world.now / MS).saturating_sub(safety_ms)),
        owed: world.oracles.exempt(),
        steps: world.steps,
        simulated: world.now,
        digest: world.digest,
        marks,
        trace: world.take_trace(),
        violation: world.broken,
    }
}

/// The marks that many runs of a suite must reach, or they prove nothing.
pub const REQUIRED_MARKS: &[(Suite, &[&str])] = &[
    (
        Suite::Delivery,
        &[
            "sim-crash-with-pending-batches",
            "sim-failed-fsync",
            "sim-rollback",
            "sim-torn-batch",
            "sim-full-disk",
            "sim-crash-at-an-effect",
            "sim-damage-refused",
            "oracle-held-row",
            "oracle-order-compared",
            "sim-lost-disk",
            "sim-lost-up",
            "sim-lost-down",
            "sim-takeover",
            "sim-broker-dedup",
            "sim-bridge-lost",
            "sim-replayed",
            "sim-mutated",
            "sim-moved",
            "sim-outbox-full",
            "oracle-accepted",
            "oracle-received",
            "oracle-redelivered",
            "oracle-gap",
            "oracle-expired",
            "oracle-cancelled",
            "oracle-delivered",
            "oracle-group-message",
            // Q2
            "oracle-wedged",
            "delivery-refused-together",
            "delivery-wedge-cancelled",
            "delivery-wedge-retried",
            "delivery-wedge-skipped",
            "delivery-wedge-told-again",
            // ID9
            "oracle-causal-gap",
            "delivery-parked",
            "delivery-parked-in-time",
            "delivery-parked-over-a-restart",
        ],
    ),
    (
        Suite::Sessions,
        &[
            "sim-crash-with-pending-batches",
            "oracle-opened",
            "oracle-session-closed",
            "oracle-silent-reject",
            "oracle-blocked",
            "oracle-glare",
        ],
    ),
    (
        Suite::Presence,
        &[
            "sim-late-will",
            "oracle-told-lost",
            "oracle-told-left",
            "oracle-told-present",
            "oracle-late-will-ignored",
            "oracle-listed",
            "oracle-unlisted",
            "sim-forged-card",
            "sim-full-disk",
        ],
    ),
    (Suite::Groups, GROUP_MARKS),
    (Suite::Groups, &["group-batch"]),
    (Suite::Strict, GROUP_MARKS),
    (Suite::Siege, SIEGE_MARKS),
];

const SIEGE_MARKS: &[&str] = &[
    "oracle-by-majority",
    "oracle-by-minority",
    "oracle-committed",
    "oracle-forked",
    "oracle-handed-over",
    "sim-false-beat",
    "sim-forged-support",
    "sim-revenge",
    "sim-unsigned-leave",
    "sim-stranger-writes",
    "sim-false-majority",
    "group-defence",
    "group-fence",
    "group-fenced-order",
    "group-lame-hands-over",
    "group-orphan-admit",
    "group-orphan-kick",
    "group-orphan-left",
    "group-sticky-logged",
];

const GROUP_MARKS: &[&str] = &[
    "oracle-admitted",
    "oracle-kicked",
    "oracle-new-leader",
    "oracle-join-answered",
    "oracle-entry-decoded",
    "oracle-by-majority",
    "oracle-canvass",
    "oracle-forked",
    "sim-forged-order",
    "sim-forged-claim",
    "sim-forged-leave",
    "sim-forged-refusal",
    "group-woke-late",
    "oracle-causal-gap",
    "delivery-parked",
    "delivery-parked-in-time",
];
