//! A deterministic simulator for [`chat_core::Endpoint`] (reliability section 4.2).
//!
//! A run is a function of (suite, seed, script): virtual clocks, a broker model, disks that lose
//! what was not synced, crashes between any two effects. It has two phases: *safety*, in which
//! anything may fail, then *liveness*, in which nothing fails any more and everything must
//! converge within a bound.

mod app;
mod broker;
mod clock;
mod crypto;
mod disk;
mod event;
mod exec;
mod forge;
mod net;
mod node;
mod ops;
mod planted;
mod rng;
mod run;
mod scale;
mod script;
mod shrink;
mod swarm;
#[cfg(test)]
mod tests;
mod trace;
mod traitor;
mod world;

pub(crate) use disk::{Rows, rows_of};

pub use crypto::{FakeSigner, FakeVerifier, Ledger};
pub use planted::{BUGS, Bug, Caught, hunt};
pub use rng::{Draw, endpoint_seed};
pub use run::{Outcome, REQUIRED_MARKS, run, run_script};
pub use scale::{Cost, Scale, scale};
pub use script::{Op, Script, expand};
pub use shrink::shrink;
pub use swarm::{Suite, Swarm};
