//! What the fault rig writes down and how it is judged.
//!
//! Every client of the rig is a process of its own that says what it does and what it is told, one
//! line each, before or after it happens as [`Note`] says. [`check`] reads all lines together and
//! finds what was lost, doubled or put out of order, whatever happened to clients and brokers in
//! between.

mod check;
mod history;
#[cfg(test)]
mod tests;

pub use check::{Verdict, check};
pub use history::{Entry, Note, NoteError};
