//! Runs a [`chat_core::Endpoint`] on tokio over any transport and store.

pub mod store;
pub mod transport;
