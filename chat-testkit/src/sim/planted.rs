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

/// All planted bugs.
pub const BUGS: &[Bug] = &[bug("endpoint-ungated-frames", Suite::Delivery, 2_000)];

/// Runs seeds with `bug` planted until a violation shows.
pub fn hunt(bug: Bug) -> Caught {
    probe::plant(Some(bug.name));
    let by = (0..bug.budget).find_map(|seed| {
        let violation = run(bug.suite, seed, false).violation?;
        Some((seed, violation.rule))
    });
    probe::plant(None);
    Caught { bug, by }
}
