//! Chat as pure state machines: no socket, no clock, no thread, no randomness of its own.
//!
//! An [`Endpoint`] is one device of one user. Feed it commands, bytes from a transport, reports of
//! what became durable, and the time; drain [`Endpoint::poll_output`]; call it again no later than
//! [`Endpoint::poll_timeout`]. The same seed and the same inputs give the same outputs, byte for
//! byte.
//!
//! The whole loop, in six steps:
//!
//! ```
#![doc = include_str!("../examples/custom_loop.rs")]
//! ```

pub mod channel;
pub mod config;
pub mod content;
pub mod deadline;
pub mod delivery;
pub mod effect;
mod endpoint;
pub mod event;
pub mod group;
pub mod hlc;
pub mod id;
pub mod identity;
pub mod link;
pub mod lobby;
mod output;
pub mod presence;
#[cfg_attr(not(feature = "probe"), allow(dead_code))]
pub mod probe;
pub mod rng;
pub mod sealer;
pub mod session;
mod slots;
pub mod time;
pub mod wire;

pub use endpoint::{Endpoint, Identity, OpenError, Stats};
pub use event::{Event, Fault};
pub use output::{Fate, Output, PersistId, Transmit, TransmitId, Will};
