//! One scenario suite for every cell: the bare core, the client on a paused clock, each real
//! transport. A scenario is written once against [`World`]; [`conformance!`](crate::conformance)
//! expands to one test per scenario, each named by the rule that it proves.
//!
//! To prove a transport of your own, implement its `Connector` and write
//! `chat_testkit::conformance!(ClientWorld<YourCell>);` in a test file.

pub mod pure;
pub mod scenarios;
mod world;

pub use world::{Answer, Command, Fault, Node, Refusal, Stage, World};
