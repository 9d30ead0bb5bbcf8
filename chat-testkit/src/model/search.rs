//! Depth first, with a memory of the states seen and how much of a path was left there.

use std::collections::HashMap;

use super::Case;
use super::state::{Act, State, World};
use crate::oracle::Violation;

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Events tried.
    pub events: u64,
    /// The first violation, and what led there.
    pub violation: Option<(Violation, Vec<Act>)>,
}

struct Search {
    world: World,
    seen: HashMap<u64, u8>,
    events: u64,
    path: Vec<Act>,
}

/// Tries everything that `case` allows.
pub fn search(case: &Case) -> Found {
    let (world, first) = State::begin(case);
    let mut search = Search {
        world,
        seen: HashMap::new(),
        events: 0,
        path: Vec::new(),
    };
    let violation = search.from(&first, case.depth).err();
    Found {
        states: search.seen.len(),
        events: search.events,
        violation: violation.map(|violation| (violation, search.path)),
    }
}

impl Search {
    fn from(&mut self, state: &State, left: u8) -> Result<(), Violation> {
        let hash = state.hash();
        match self.seen.get(&hash) {
            Some(before) if *before >= left => return Ok(()),
            _ => drop(self.seen.insert(hash, left)),
        }
        if left == 0 {
            return Ok(());
        }
        for act in state.choices(&self.world) {
            self.events += 1;
            self.path.push(act);
            let (next, verdict) = state.after(&mut self.world, act);
            verdict?;
            self.from(&next, left - 1)?;
            self.path.pop();
        }
        Ok(())
    }
}
