//! Runs a [`chat_core::Endpoint`] on tokio over any transport and store.

mod slot;
pub mod store;
pub mod transport;
