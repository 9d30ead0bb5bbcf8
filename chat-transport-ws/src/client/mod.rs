//! The client side: opens one connection to a hub and speaks [`proto`](crate::proto) over it.
//!
//! Guarantees (the ten rules of `chat_client::transport`): nothing is retried; every token gets
//! its `Sent` or the connection ends; received payloads are private copies; the connection is
//! given up when the hub was silent for two of its ping intervals.

mod connect;
mod socket;

use std::sync::Arc;

#[cfg(feature = "hub")]
pub(crate) use connect::config;

use chat_client::transport::{
    Capabilities, ConnectOptions, Connector, Mailbox, Transport, TransportError,
};

use crate::proto::{MAX_FRAME, MAX_TOKEN};

/// What a connection to a hub can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    name: "ws hub",
    broker_ack: true,
    reason_codes: true,
    no_receiver_hint: true,
    manual_ack: true,
    mailbox: Mailbox::Bounded,
    last_will: true,
    last_value: true,
    backlog_marker: true,
    dedup: true,
    ttl: true,
    no_echo: true,
    acl_subscribe: true,
    acl_publish: true,
    cas: false,
    max_frame: MAX_FRAME,
};

/// Why an address or a token is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not `ws://host[:port][/path]`.
    #[error("{url:?} is no hub address; write ws://host:port/path (TLS belongs to a proxy)")]
    Url {
        /// What was given.
        url: String,
    },
    /// The token cannot travel in a header.
    #[error("the token is empty, over {MAX_TOKEN} bytes or not printable ASCII; ask for another")]
    Token,
}

/// True for a token that can travel in a header.
fn fits(token: &str) -> bool {
    let printable = token.bytes().all(|b| b.is_ascii_graphic());
    printable && !token.is_empty() && token.len() <= MAX_TOKEN
}

/// Where tokens that run out come from.
#[async_trait::async_trait]
pub trait TokenSource: core::fmt::Debug + Send + Sync + 'static {
    /// A token that is good now. Asked at every connection, and after three quarters of the time
    /// that the hub says it holds. The future may be dropped.
    ///
    /// # Errors
    /// In words; the connection is tried again later, or lives until its token runs out.
    async fn token(&self) -> Result<String, String>;
}

/// Opens connections to a hub.
#[derive(Clone)]
pub struct WsConnector {
    /// The whole URL.
    url: String,
    /// Host and port to dial.
    authority: Arc<str>,
    token: Option<Arc<str>>,
    tokens: Option<Arc<dyn TokenSource>>,
    resume: bool,
}

impl core::fmt::Debug for WsConnector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The token is a secret.
        f.debug_struct("WsConnector")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl WsConnector {
    /// A connector for `ws://host[:port][/path]`.
    ///
    /// # Errors
    /// [`AddressError::Url`].
    pub fn new(url: &str) -> Result<Self, AddressError> {
        Ok(Self {
            authority: connect::authority(url)?,
            url: url.to_owned(),
            token: None,
            tokens: None,
            resume: true,
        })
    }

    /// Sends `token` as `Authorization: Bearer`.
    ///
    /// # Errors
    /// [`AddressError::Token`].
    pub fn with_token(mut self, token: &str) -> Result<Self, AddressError> {
        if !fits(token) {
            return Err(AddressError::Token);
        }
        self.token = Some(token.into());
        Ok(self)
    }

    /// Asks `tokens` for the token of every connection, and for a newer one before it runs out.
    #[must_use]
    pub fn with_tokens(mut self, tokens: impl TokenSource) -> Self {
        self.tokens = Some(Arc::new(tokens));
        self
    }

    /// Asks the hub to forget, at every connect, what it kept for this device before.
    #[must_use]
    pub fn without_resume(mut self) -> Self {
        self.resume = false;
        self
    }
}

#[async_trait::async_trait]
impl Connector for WsConnector {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(connect::connect(self, &options).await?))
    }
}
