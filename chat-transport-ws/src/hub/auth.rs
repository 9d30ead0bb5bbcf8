//! Who may connect, and who may read and write which channel.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use chat_core::channel::Channel;
use chat_core::id::{DeviceId, UserId};

/// What a client offers.
#[derive(Clone)]
#[non_exhaustive]
pub struct Credentials {
    /// From the `Authorization` header, else from the first frame.
    pub token: Option<String>,
    /// Who it says it is.
    pub user: UserId,
    /// Which device.
    pub device: DeviceId,
    /// Where it comes from, when the hub knows.
    pub peer: Option<SocketAddr>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("device", &self.device)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Why a client may not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The token is missing, wrong or expired, or is not this user's.
    #[error("{text}")]
    Denied {
        /// Told to the client.
        text: String,
    },
    /// It cannot be decided now.
    #[error("try again later")]
    TryLater {
        /// Not before.
        after: Duration,
    },
}

/// Whom a connection speaks for, and for how long that was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The user; must be the claimed one.
    pub user: UserId,
    /// After this the connection is closed, unless a newer token came.
    pub holds: Option<Duration>,
}

impl Grant {
    /// For `user`, for as long as the connection lives.
    pub fn new(user: UserId) -> Self {
        Self { user, holds: None }
    }

    /// For no longer than this.
    #[must_use]
    pub fn holding(mut self, time: Duration) -> Self {
        self.holds = Some(time);
        self
    }
}

/// Decides who connects. Asked once per connection, before anything of it is taken, and again with
/// every newer token that it offers.
#[async_trait::async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Whom this connection speaks for.
    ///
    /// # Errors
    /// [`AuthError`].
    async fn authenticate(&self, credentials: Credentials) -> Result<Grant, AuthError>;
}

/// Lets everybody be whoever they say: for demos and tests on one machine. Frames are still
/// signed end to end, but anybody can take over a device's session and read an inbox.
#[derive(Debug, Clone, Copy)]
pub struct AllowAll;

#[async_trait::async_trait]
impl Authenticator for AllowAll {
    async fn authenticate(&self, credentials: Credentials) -> Result<Grant, AuthError> {
        Ok(Grant::new(credentials.user))
    }
}

/// A fixed token per user.
#[derive(Clone, Default)]
pub struct StaticTokens(BTreeMap<UserId, String>);

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl StaticTokens {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// And `user` with `token`.
    #[must_use]
    pub fn with(mut self, user: UserId, token: impl Into<String>) -> Self {
        self.0.insert(user, token.into());
        self
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[async_trait::async_trait]
impl Authenticator for StaticTokens {
    async fn authenticate(&self, credentials: Credentials) -> Result<Grant, AuthError> {
        let offered = credentials.token.as_deref().unwrap_or_default();
        match self.0.get(&credentials.user) {
            Some(token) if same(token.as_bytes(), offered.as_bytes()) => {
                Ok(Grant::new(credentials.user))
            }
            // The same answer for an unknown user, so that nobody learns who exists.
            _ => Err(AuthError::Denied {
                text: "the token is missing or wrong".to_owned(),
            }),
        }
    }
}

/// Who may read and write which channel. Asked at every subscribe, publish and last will.
pub trait AccessRules: fmt::Debug + Send + Sync + 'static {
    /// May `user` receive this channel?
    fn may_subscribe(&self, user: &UserId, channel: &Channel) -> bool;

    /// May `user` publish there?
    fn may_publish(&self, user: &UserId, channel: &Channel) -> bool;
}

/// An inbox is read by its owner and written by anyone; presence the other way round; a
/// conversation or group belongs to whoever knows its id; a lobby to everybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnerRules;

impl AccessRules for OwnerRules {
    fn may_subscribe(&self, user: &UserId, channel: &Channel) -> bool {
        match channel {
            Channel::Inbox(owner) => owner == user,
            Channel::Conv(_) | Channel::Group(_) | Channel::Presence(_) | Channel::Lobby(_) => true,
            _ => false,
        }
    }

    fn may_publish(&self, user: &UserId, channel: &Channel) -> bool {
        match channel {
            Channel::Presence(owner) => owner == user,
            Channel::Conv(_) | Channel::Group(_) | Channel::Inbox(_) | Channel::Lobby(_) => true,
            _ => false,
        }
    }
}
