//! WebSocket transport for `chat-client`, and behind the feature `hub` the relay it talks to.
//!
//! [`WsConnector`] opens connections to a hub. The hub is a broker in a box: it sees channels,
//! opaque bytes and classes, and knows nothing of chat. What both speak is in [`proto`].

pub(crate) mod client;
#[cfg(feature = "hub")]
pub mod hub;
pub mod proto;

pub use client::{AddressError, CAPABILITIES, TokenSource, WsConnector};

/// The program in the README is a doc test.
#[cfg(all(doctest, feature = "hub"))]
#[doc = include_str!("../README.md")]
mod readme {}
