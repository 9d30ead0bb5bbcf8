//! Tests of the group machine. Names carry the rule that they prove.

mod batch;
mod edges;
mod holes;
mod hostile;
mod log;
mod meeting;
mod net;
mod proofs;
mod rules;
mod runs;
mod storm;
mod succession;
mod transcripts;
