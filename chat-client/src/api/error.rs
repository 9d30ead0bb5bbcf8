//! What can go wrong for an application.

use std::sync::Arc;

use chat_core::delivery::FailReason;
use chat_core::group::GroupError;
use chat_core::id::{IdError, UserId};
use chat_core::session::{AnswerError, CloseReason, RequestError};

use crate::store::StoreError;

/// The client does not run any more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It was shut down.
    #[error("the client was shut down; open another")]
    Closed,
    /// Its store failed, so it stopped at once. What reached the disk is unknown: open it anew.
    #[error("the client stopped because {0}; open it anew")]
    Store(#[source] Arc<StoreError>),
}

/// Why a client did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No store was given.
    #[error("no store is set; give the builder one")]
    NoStore,
    /// No transport was given.
    #[error("no transport is set; give the builder a connector")]
    NoTransport,
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The core refuses the configuration or the rows.
    #[error(transparent)]
    Core(#[from] chat_core::OpenError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Entropy(String),
}

/// Why a call failed: it was refused, or the client does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The call was refused, for this reason.
    #[error(transparent)]
    Refused(E),
    /// The client does not run any more.
    #[error(transparent)]
    Stopped(#[from] ClientError),
}

impl<E> CallError<E> {
    /// Why it was refused, if it was.
    pub fn refused(self) -> Option<E> {
        match self {
            Self::Refused(why) => Some(why),
            Self::Stopped(_) => None,
        }
    }

    /// True when this client runs no more.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }
}

/// Why a message was not taken; see [`chat_core::delivery::SendError`].
pub type SendError = CallError<chat_core::delivery::SendError>;

impl SendError {
    /// True when the same message may be taken later, without another step first.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Refused(chat_core::delivery::SendError::Full { .. })
        )
    }
}

/// Why a message will not reach what was waited for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// It will not arrive.
    #[error("the message will not arrive: {0:?}")]
    Message(FailReason),
    /// The client does not run any more. The message is durable and is sent after the next open.
    #[error("the message is kept, but {0}")]
    Stopped(#[from] ClientError),
}

impl Failed {
    /// True when the message may still arrive.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }
}

/// Why a chat request led to no chat.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFailed {
    /// The peer's name is no name.
    #[error(transparent)]
    Name(#[from] IdError),
    /// The request was not made.
    #[error(transparent)]
    Refused(#[from] RequestError),
    /// The peer said no, and told us.
    #[error("the request was rejected: {reason}")]
    Rejected {
        /// In the peer's words.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("nobody answered in time; ask again later")]
    Expired,
    /// It was taken back here.
    #[error("the request was cancelled")]
    Cancelled,
    /// It ended in another way.
    #[error("the request ended: {0:?}")]
    Ended(CloseReason),
    /// The client does not run any more. The request stands: ask again after the next open.
    #[error(transparent)]
    Stopped(#[from] ClientError),
}

impl RequestFailed {
    /// True when asking again later may help.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Expired | Self::Refused(RequestError::CoolingDown { .. }) | Self::Stopped(_)
        )
    }
}

impl From<CloseReason> for RequestFailed {
    fn from(why: CloseReason) -> Self {
        match why {
            CloseReason::Rejected { reason } => Self::Rejected { reason },
            CloseReason::Expired => Self::Expired,
            CloseReason::Cancelled => Self::Cancelled,
            other => Self::Ended(other),
        }
    }
}

/// Why we did not get into a group.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinFailed {
    /// The request was not made.
    #[error(transparent)]
    Refused(#[from] GroupError),
    /// The leader said no.
    #[error("the leader refused: {reason}")]
    Denied {
        /// In the leader's words.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("nobody answered in time; ask again later")]
    Expired,
    /// We were removed.
    #[error("{by} removed you: {reason}")]
    Removed {
        /// Who did it.
        by: UserId,
        /// In their words.
        reason: String,
    },
    /// The client does not run any more. The request stands.
    #[error(transparent)]
    Stopped(#[from] ClientError),
}

impl JoinFailed {
    /// True when asking again later may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Expired | Self::Stopped(_))
    }
}

impl<E> From<CallError<E>> for RequestFailed
where
    Self: From<E>,
{
    fn from(error: CallError<E>) -> Self {
        match error {
            CallError::Refused(why) => why.into(),
            CallError::Stopped(why) => why.into(),
        }
    }
}

/// Why an answer, a cancel or a close was refused.
pub type AnswerFailed = CallError<AnswerError>;
/// Why a group command was refused.
pub type GroupFailed = CallError<GroupError>;
