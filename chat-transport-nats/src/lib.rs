//! NATS transport for `chat-client`.
//!
//! [`NatsConnector`] opens connections in one of two modes. With **JetStream** the server keeps a
//! log of durable frames, a session per device and last values: [`JETSTREAM`]. **Core only**
//! passes frames on to who is there and keeps nothing: [`CORE`]; the outbox of the sender covers
//! the rest. Clients of both modes understand each other.
//!
//! How it works, and why, is in the module [`design`].

mod api;
mod capabilities;
mod config;
mod connect;
pub mod design;
mod events;
mod lane;
mod leases;
mod run;
mod session;
mod subject;

pub use capabilities::{CORE, JETSTREAM};
pub use config::{Builder, ConfigError, Counters, NatsConnector};
pub use subject::PrefixError;

/// The program in the README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
