mod laws;
mod transcripts;
mod units;
mod world;
