//! Proof for the chat library: one scenario suite for every cell, and a deterministic simulator
//! with its oracles.

pub mod suite;
