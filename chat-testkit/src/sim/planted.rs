//! The test of the tests: one-line bugs planted in the core, each of which must be caught within
//! its budget of seeds.

use chat_core::probe;

use super::run::run;
use super::swarm::Suite;

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// Its name in the core.
    pub name: &'static str,
    /// The suite that must catch it.
    pub suite: Suite,
    /// Within so many seeds.
    pub budget: u64,
}

/// What a hunt found.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The bug.
    pub bug: Bug,
    /// The first seed that caught it and the rule it broke.
    pub by: Option<(u64, &'static str)>,
}

const fn bug(name: &'static str, suite: Suite, budget: u64) -> Bug {
    Bug {
        name,
        suite,
        budget,
    }
}

/// The planted bugs that runs of whole endpoints must catch. Some others of the core bite in its own
/// tests only: `delivery-window-ignored` needs more messages in flight than a run sends,
/// `session-forget-cancel` a cancel that overtakes its request, `group-asks-before-it-reads` a process
/// that stood still, `presence-everybody-follows-everybody` a crowd; `group-lame-beats-count` is masked
/// by the lame leader's own hand-over, `group-kicked-returns` by leaders that never let such a one in.
/// `delivery-in-step` needs a loss as regular as a clock, `delivery-backoff-stays` many losses in one
/// connection.
/// `session-never-affirms` is masked since farewells last ten minutes.
pub const BUGS: &[Bug] = &[
    bug("delivery-ack-before-persist", Suite::Delivery, 1_500),
    bug("delivery-ack-max", Suite::Delivery, 1_500),
    bug("delivery-passes-twice", Suite::Delivery, 1_500),
    bug("delivery-wedge-silent", Suite::Delivery, 1_500),
    bug("delivery-base-stays", Suite::Delivery, 1_500),
    bug("delivery-hints-ignored", Suite::Delivery, 1_500),
    bug("delivery-new-epoch-first", Suite::Delivery, 1_500),
    bug("delivery-no-hello", Suite::Delivery, 1_500),
    bug("delivery-no-inbox-row", Suite::Delivery, 1_500),
    bug("delivery-no-notice", Suite::Delivery, 1_500),
    bug("delivery-no-retired", Suite::Delivery, 1_500),
    bug("delivery-out-of-order", Suite::Delivery, 1_500),
    bug("delivery-publish-before-persist", Suite::Delivery, 1_500),
    bug("delivery-rollback-settles-all", Suite::Delivery, 5_000),
    bug("delivery-silent-gap", Suite::Delivery, 1_500),
    bug("delivery-silent-tail", Suite::Delivery, 1_500),
    bug("disk-keeps-torn-batches", Suite::Delivery, 1_500),
    bug("delivery-sort-by-arrival", Suite::Delivery, 1_500),
    bug("endpoint-epoch-not-bumped", Suite::Delivery, 1_500),
    bug("endpoint-ungated-frames", Suite::Delivery, 1_500),
    bug("link-connected-early", Suite::Delivery, 1_500),
    bug("link-no-resubscribe", Suite::Delivery, 1_500),
    bug("pins-accept-changed-key", Suite::Sessions, 1_500),
    bug("session-block-leaks", Suite::Sessions, 1_500),
    bug(
        "session-glare-higher-wins-on-one-side",
        Suite::Sessions,
        1_500,
    ),
    bug("session-send-before-persist", Suite::Sessions, 1_500),
    bug("session-silent-reject-tells", Suite::Sessions, 1_500),
    bug("endpoint-will-before-epoch", Suite::Presence, 5_000),
    bug("lobby-card-from-anybody", Suite::Presence, 1_500),
    bug("lobby-old-card-wins", Suite::Presence, 1_500),
    bug("presence-merge-by-arrival", Suite::Presence, 1_500),
    bug("presence-offline-when-cut", Suite::Presence, 1_500),
    bug("presence-trust-last-value", Suite::Presence, 1_500),
    bug("group-asks-once", Suite::Groups, 100),
    bug("group-certificate-too-small", Suite::Groups, 100),
    bug("group-counts-silence-offline", Suite::Groups, 100),
    bug("group-entry-by-anyone", Suite::Groups, 100),
    bug("group-head-decreases", Suite::Groups, 1_500),
    bug("group-kick-one-device", Suite::Groups, 100),
    bug("group-leave-not-sticky", Suite::Groups, 100),
    bug("group-left-ignored", Suite::Groups, 100),
    bug("group-one-suffices", Suite::Groups, 100),
    bug("group-orphan-kick-dropped", Suite::Siege, 200),
    bug("group-support-by-stranger", Suite::Groups, 300),
    bug("group-batch-half", Suite::Groups, 1_000),
    bug("group-batch-too-wide", Suite::Strict, 1_000),
    bug("group-two-uncommitted-changes", Suite::Strict, 100),
    bug("group-term-ignores-majority", Suite::Siege, 200),
    bug("group-promises-twice", Suite::Siege, 200),
    bug("group-promise-not-stored", Suite::Siege, 1_000),
    bug("group-supports-lower-head", Suite::Siege, 200),
    bug("group-publish-before-persist", Suite::Siege, 200),
    bug("group-stale-beats-count", Suite::Siege, 200),
    bug("group-no-lease", Suite::Siege, 200),
    bug("group-sticky-not-stored", Suite::Siege, 200),
    bug("group-commit-counts-old-terms", Suite::Siege, 1_000),
    bug("group-orphan-admit-dropped", Suite::Siege, 200),
    bug("group-beats-after-handover", Suite::Siege, 200),
    bug("group-no-defence", Suite::Siege, 200),
    bug("group-fence-ignored", Suite::Siege, 200),
    bug("group-fence-early", Suite::Siege, 200),
    bug("group-lame-to-anyone", Suite::Siege, 200),
    bug("group-former-writes-on", Suite::Siege, 200),
    bug("group-support-unsigned", Suite::Siege, 200),
    bug("group-leave-unsigned", Suite::Siege, 200),
    bug("group-majority-unchecked", Suite::Siege, 200),
    bug("group-acks-after-promise", Suite::Siege, 200),
    bug("group-request-stays", Suite::Siege, 200),
    bug("group-serves-members-only", Suite::Siege, 1_000),
    bug("group-branch-not-shown", Suite::Siege, 1_000),
    bug("group-rounds-never-skip", Suite::Siege, 200),
    bug("group-decline-accepts", Suite::Siege, 200),
];

/// Runs seeds with `bug` planted until a violation shows.
pub fn hunt(bug: Bug) -> Caught {
    let by = (0..bug.budget).find_map(|seed| {
        probe::plant(Some(bug.name));
        let violation = run(bug.suite, seed, false).violation;
        probe::plant(None);
        let rule = violation?.rule;
        // What fails without the bug too says nothing about it.
        let clean = run(bug.suite, seed, false).violation.is_none();
        clean.then_some((seed, rule))
    });
    Caught { bug, by }
}
