//! One scenario suite for every cell: the bare core, the client on a paused clock, each real
//! transport. A scenario is written once against [`World`]; [`conformance!`](crate::conformance)
//! expands to one test per scenario, each named by the rule that it proves.

mod apply;
pub mod client;
pub mod pure;
pub mod scenarios;
mod stage;
mod together;
mod world;

pub use stage::Stage;
pub use together::Together;
pub use world::{
    Answer, CONTENT_TTL, CROWD, Command, Fault, INVITE_TTL, JOIN_TTL, Node, OUTBOX, Refusal,
    UNREAD, World, config,
};
