//! The demo: a hub, one client per logged-in user, a bot and a web page in one process.
//!
//! `cargo run -p chat-examples --bin demo` starts it; the smaller programs are in `examples/`.

pub mod demo;
