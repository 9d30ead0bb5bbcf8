//! The demo's parts: `args` reads the command line, `broker` finds the transport of a URL, `host` keeps one client per user and the bot,
//! `http` serves the page and its WebSocket, `bridge` speaks JSON with one page.

pub mod args;
pub mod bot;
pub mod bridge;
pub mod broker;
pub mod host;
pub mod http;
