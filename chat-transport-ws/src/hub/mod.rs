//! The relay hub: a broker in a box, in one process.
//!
//! ```no_run
//! # async fn f() -> Result<(), chat_transport_ws::hub::HubError> {
//! use chat_transport_ws::hub::Hub;
//!
//! let hub = Hub::builder().allow_all().in_memory().bind(([127, 0, 0, 1], 0).into()).await?;
//! println!("connect to {}", hub.url());
//! # Ok(()) }
//! ```
//!
//! The rules are in a state machine without sockets (`state`); `server` and `link` run it on
//! tokio; `store` is its file. See [`CloseReason`](crate::proto::CloseReason) for what the close
//! codes mean.

mod admission;
mod ahead;
mod auth;
mod builder;
mod driver;
mod handshake;
mod limits;
mod link;
mod server;
mod state;
mod store;

pub use auth::{
    AccessRules, AllowAll, AuthError, Authenticator, Credentials, Grant, OwnerRules, StaticTokens,
};
pub use builder::{HubBuilder, HubError};
pub use limits::Limits;
pub use server::{Hub, HubHandle, Upgrade};
pub use state::{HubStats, RestoreError};
pub use store::StoreError;
