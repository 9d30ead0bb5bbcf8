//! Tests of the group machine. Names carry the rule that they prove.

mod adopts;
mod batch;
mod beats;
mod candidate;
mod certificates;
mod edges;
mod forks;
mod former;
mod holes;
mod hostile;
mod keeps;
mod limits;
mod log;
mod meeting;
mod net;
mod offers;
mod promises;
mod proofs;
mod requests;
mod rules;
mod runs;
mod silence;
mod storm;
mod succession;
mod tickets;
mod transcripts;
