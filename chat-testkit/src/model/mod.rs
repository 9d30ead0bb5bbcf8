//! Exhaustive search of small cases: the real group machine of two to four members, every order of
//! a bounded number of events, and in every state the judges that the simulator uses too.
//!
//! An event is: a frame in flight arrives (a frame that never arrives is a lost one, and a cut link
//! is many of them); time passes at one member alone, until it says something or the time of
//! suspicion is over (so clocks may run as differently as they like); a member is told to do
//! something; a member crashes in the middle of one of these, before or after its rows became durable,
//! and starts again. Each is bounded per path, and so is the length of a path. Liveness is the
//! simulator's business.

mod hash;
mod search;
mod state;

pub use search::{Found, search};
pub use state::Act;

/// Who leads by what right, and how long nobody heard the leader.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// A majority decides.
    pub strict: bool,
    /// How many are in.
    pub members: usize,
    /// How many are not, and may be told to ask.
    pub guests: usize,
    /// The members heard nothing of their leader for almost so long that one of them asks.
    pub silent: bool,
    /// Events on a path.
    pub depth: u8,
    /// Of these, so often time passes.
    pub waits: u8,
    /// So often somebody is told to do something.
    pub commands: u8,
    /// So many crashes.
    pub crashes: u8,
}

impl core::fmt::Display for Case {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} {} members, {} guests, {}, depth {}, {} waits, {} commands, {} crashes",
            if self.strict { "strict" } else { "available" },
            self.members,
            self.guests,
            if self.silent { "silent" } else { "calm" },
            self.depth,
            self.waits,
            self.commands,
            self.crashes
        )
    }
}

/// The cases of a search of `depth` events, under both policies: a succession with a crash, among
/// three and four; two changes at once; a change and a crash; somebody who asks, is let in and removed, by
/// a leader that is there and while the lead passes.
pub fn cases(depth: u8) -> Vec<Case> {
    let mut cases = Vec::new();
    for strict in [false, true] {
        let case = |members, silent, waits, commands, crashes| Case {
            strict,
            members,
            guests: 0,
            silent,
            depth,
            waits,
            commands,
            crashes,
        };
        let asked = |case| Case { guests: 1, ..case };
        cases.extend([
            case(3, true, 4, 0, 1),
            case(4, true, 3, 0, 1),
            case(3, false, 2, 2, 0),
            case(4, false, 1, 1, 0),
            case(3, false, 1, 1, 1),
            asked(case(2, false, 1, 4, 0)),
            asked(case(2, false, 0, 3, 1)),
            asked(case(3, true, 2, 2, 0)),
        ]);
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_core::probe;

    fn case(strict: bool, members: usize, depth: u8, crashes: u8) -> Case {
        Case {
            strict,
            members,
            guests: 0,
            silent: true,
            depth,
            waits: 2,
            commands: 0,
            crashes,
        }
    }

    #[test]
    fn every_order_of_a_few_events_keeps_the_laws() {
        for strict in [false, true] {
            let found = search(&case(strict, 3, 4, 1));
            assert!(found.violation.is_none(), "{:?}", found.violation);
            assert!(found.states > 100, "{} states are no search", found.states);
        }
    }

    /// Somebody asks, that arrives, it is let in and removed at once.
    #[test]
    fn ig7_a_removal_before_the_admission_is_committed_is_found() {
        for strict in [false, true] {
            let small = Case {
                guests: 1,
                silent: false,
                waits: 0,
                commands: 3,
                ..case(strict, 2, 4, 0)
            };
            let found = search(&small);
            assert!(found.violation.is_none(), "{:?}", found.violation);
            probe::plant(Some("group-two-uncommitted-changes"));
            let found = search(&small);
            probe::plant(None);
            let rule = found.violation.map(|(violation, _)| violation.rule);
            assert_eq!(rule, strict.then_some("IG7 ground"));
        }
    }

    #[test]
    fn ig1_two_promises_for_one_round_are_found() {
        for strict in [false, true] {
            let small = case(strict, 4, 4, 0);
            assert!(search(&small).violation.is_none());
            probe::plant(Some("group-promises-twice"));
            let found = search(&small);
            probe::plant(None);
            let (violation, path) = found.violation.expect("the search bites");
            assert_eq!(violation.rule, "IG1 promise", "{violation} {path:?}");
        }
    }
}
