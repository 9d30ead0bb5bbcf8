//! What applications use: [`Client`] and what it hands out.

mod by_id;
mod chat;
mod client;
mod conversation;
mod error;
mod events;
mod people;
mod room;
mod timeline;

pub use chat::{Chat, IncomingRequest, PendingChat, Request};
pub use client::{Builder, Client, Identity, ShutdownReport, Stats};
pub use conversation::{Conversation, Sent};
pub use error::{
    AnswerFailed, CallError, ClientError, Failed, GroupFailed, JoinFailed, OpenError,
    RequestFailed, SendError,
};
pub use events::{Event, EventStream};
pub use people::IntoUser;
pub use room::{IncomingJoin, Leave, PendingJoin, Room};
pub use timeline::{Timeline, TimelineBuilder, TimelineError};
