//! Shrinking: drops operations from a script, large chunks first, while the same rule is broken.

use super::run::run_script;
use super::script::Script;
use super::swarm::Swarm;

/// The smallest script found within `budget` runs that still breaks `rule`.
pub fn shrink(
    swarm: &Swarm,
    seed: u64,
    script: Script,
    rule: &'static str,
    budget: usize,
) -> Script {
    let mut best = script;
    let mut runs = 0;
    let mut breaks = |script: &Script| {
        runs += 1;
        let outcome = run_script(swarm.clone(), seed, script.clone(), false);
        (
            runs <= budget,
            outcome
                .violation
                .is_some_and(|violation| violation.rule == rule),
        )
    };
    let mut chunk = best.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let before = best.len();
        while at < best.len() {
            let mut fewer = best.clone();
            fewer.drain(at..(at + chunk).min(best.len()));
            let (more, still) = breaks(&fewer);
            if still {
                best = fewer;
            } else {
                at += chunk;
            }
            if !more {
                return best;
            }
        }
        if chunk == 1 && best.len() == before {
            return best;
        }
        chunk = (chunk / 2).max(1);
    }
}
