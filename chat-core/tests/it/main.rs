//! Tests of the public surface: the wire format, hostile input and the protocol document.

mod document;
mod entries;
mod fill;
mod golden;
mod hostile;
mod laws;
mod play;
mod played;
mod schema;
mod sizes;
mod support;
