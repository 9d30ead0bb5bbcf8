//! The simulator itself: the same seed gives the same run, and a handful of seeds per suite hold.

use super::{BUGS, REQUIRED_MARKS, Suite, Swarm, expand, run, run_script};

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for suite in Suite::ALL {
        let (first, second) = (run(suite, 7, true), run(suite, 7, true));
        assert!(first.steps > 100, "{suite:?} does something");
        assert_eq!(first.trace, second.trace);
        assert_eq!(first.digest, second.digest);
        let other = run(suite, 8, false);
        assert_ne!(first.digest, other.digest);
    }
}

#[test]
fn tracing_changes_nothing() {
    let (quiet, traced) = (
        run(Suite::Delivery, 3, false),
        run(Suite::Delivery, 3, true),
    );
    assert_eq!(quiet.digest, traced.digest);
    assert!(quiet.trace.is_empty());
}

#[test]
fn a_handful_of_seeds_per_suite_holds() {
    for suite in Suite::ALL {
        for seed in 0..12 {
            let outcome = run(suite, seed, false);
            assert_eq!(outcome.violation, None, "{suite:?} seed {seed}");
        }
    }
}

/// Each broke a rule once: IG5 and IG6 by who sits by an older membership or holds more of the log
/// than who leads; ID4 and ID7 by who writes while it leaves, and by a place of a branch that lost;
/// ID4 by a person with two devices who goes; ID9 by a roster that the reader or the author did not
/// have; ID4 by a wall clock that was set forward; IG6 by who leads while it asks to come back; R9 by a
/// leader that heard nobody; IG5 by who left and showed nobody the log.
#[test]
fn seeds_that_broke_a_rule_hold() {
    let available = [
        4111, 5118, 6315, 7431, 8663, 18270, 20672, 20793, 20878, 21877, 23455, 27545, 27587,
        27641, 31571, 34266, 36121, 39636, 39653, 43355,
    ];
    let strict = [1808, 4109, 4138, 6856, 9038, 11313, 13884, 78968];
    // Who was kicked on a branch was not shown the claim that ends it; a leave of an earlier
    // membership of who leads now could not be logged; a leader alone, back from a leave, kept that.
    let siege = [67, 3850, 6837];
    for (suite, seeds) in [
        (Suite::Groups, &available[..]),
        (Suite::Strict, &strict),
        (Suite::Siege, &siege),
    ] {
        for seed in seeds {
            let outcome = run(suite, *seed, false);
            assert_eq!(outcome.violation, None, "{suite:?} seed {seed}");
        }
    }
}

#[test]
fn a_script_may_lose_operations() {
    let swarm = Swarm::new(Suite::Delivery, 5);
    let script: Vec<_> = expand(&swarm, 5).into_iter().step_by(3).collect();
    let outcome = run_script(swarm, 5, script, false);
    assert_eq!(outcome.violation, None);
}

#[test]
fn tables_name_every_suite_and_no_bug_twice() {
    for suite in Suite::ALL {
        assert!(
            REQUIRED_MARKS
                .iter()
                .any(|(of, marks)| *of == suite && !marks.is_empty())
        );
    }
    let mut names: Vec<_> = BUGS.iter().map(|bug| bug.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), BUGS.len());
}
