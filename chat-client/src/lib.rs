//! Chat for applications: a [`chat_core::Endpoint`] driven on tokio over any [`transport`] and
//! [`store`].
//!
//! [`Client::builder`] opens a client; [`Client::request`] and [`Client::create_group`] lead to
//! conversations, [`Conversation::send`] to messages, [`Conversation::timeline`] and
//! [`Client::events`] to what arrives.

mod api;
mod clock;
mod driver;
pub mod keyfile;
mod slot;
pub mod store;
pub mod transport;

pub use api::*;
pub use clock::{SystemWall, TokioWall, WallClock};

/// The programs in the README are doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
