//! Proof for the chat library: one scenario suite for every cell, a deterministic simulator with
//! its oracles, and real brokers to be killed.
//!
//! ```text
//! cargo run --release -p chat-testkit --bin sim -- delivery --seeds 0..1000
//! ```

#[cfg(feature = "tls")]
pub mod authority;
pub mod broken;
#[cfg(unix)]
pub mod broker;
pub mod clients;
#[cfg(feature = "suites")]
pub mod model;
#[cfg(feature = "suites")]
pub mod oracle;
pub mod peer;
#[cfg(unix)]
pub mod proxy;
pub mod rig;
#[cfg(feature = "suites")]
pub mod sim;
#[cfg(feature = "suites")]
pub mod suite;
