//! The client and the hub over real sockets.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod basic;
mod chat;
mod common;
mod durable;
mod hostile;
mod kill;
mod tokens;
