//! Proof for the chat library: one scenario suite for every cell, and a deterministic simulator
//! with its oracles.
//!
//! ```text
//! cargo run --release -p chat-testkit --bin sim -- delivery --seeds 0..1000
//! ```

pub mod oracle;
pub mod sim;
pub mod suite;
