//! What the server says outside of any answer: denied subjects, revoked credentials, overload, a
//! shutdown. NATS tells the caller nothing of these; they are matched to their cause here.

use async_nats::{Client, ClientError, Event, ServerError};
use chat_client::transport::TransportError;
use chat_core::link::DownReason;
use tokio::sync::mpsc;

/// Events that wait for the connection's task; more are dropped, and what they say shows in the
/// end of the connection or in a deadline.
const QUEUE: usize = 256;

/// Something that happened to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    /// Publishing to this subject is not allowed.
    PublishDenied(String),
    /// Subscribing to this filter is not allowed.
    SubscribeDenied(String),
    /// The answer to [`mark`]: what the server said about everything before it has been heard.
    Mark,
    /// We read too slowly, and messages of some subscription were dropped.
    Overflow,
    /// The connection ends, or has ended, for this reason.
    Ends(DownReason),
    /// It has ended, for the reason told before or for none.
    Ended,
}

/// Asks the server for a word that comes the same way as its complaints, and so after those about
/// everything sent before. The subject has a wildcard amid tokens: by the protocol the server says
/// `Invalid Subject` to that and keeps the connection.
pub(crate) async fn mark(client: &Client, inbox: &str) -> Result<(), TransportError> {
    let mark = client.subscribe(format!("{inbox}.>.mark")).await;
    mark.map(|_subscriber| ())
        .map_err(|_| TransportError::lost())
}

pub(crate) type Incidents = mpsc::Receiver<Incident>;

/// Where a client library's events go, and the end that reads what they mean.
pub(crate) fn queue() -> (mpsc::Sender<Incident>, Incidents) {
    mpsc::channel(QUEUE)
}

/// What an event means; `None` when nothing needs to be done.
pub(crate) fn incident(event: Event) -> Option<Incident> {
    match event {
        Event::Disconnected | Event::Closed => Some(Incident::Ended),
        Event::ClientError(ClientError::MaxReconnects) => Some(Incident::Ended),
        Event::LameDuckMode => Some(Incident::Ends(DownReason::TryLater)),
        Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => {
            Some(Incident::Overflow)
        }
        Event::ServerError(ServerError::AuthorizationViolation) => Some(Incident::Ends(
            refused_credentials("authorization violation"),
        )),
        Event::ServerError(ServerError::Other(text)) => said(&text),
        Event::Connected | Event::Draining | Event::ClientError(_) => None,
    }
}

fn refused_credentials(text: &str) -> DownReason {
    DownReason::Refused(format!("the server refuses the credentials: {text}"))
}

/// What an error line of the server means.
fn said(text: &str) -> Option<Incident> {
    let lower = text.to_ascii_lowercase();
    if lower == "invalid subject" {
        return Some(Incident::Mark);
    }
    let denied = |after: &str| {
        lower
            .strip_prefix("permissions violation for ")?
            .strip_prefix(after)?;
        text.split('"').nth(1).map(str::to_owned)
    };
    if let Some(subject) = denied("publish") {
        return Some(Incident::PublishDenied(subject));
    }
    if let Some(subject) = denied("subscription") {
        return Some(Incident::SubscribeDenied(subject));
    }
    let has = |what: &str| lower.contains(what);
    let reason = if has("authentication") || has("authorization") {
        refused_credentials(text)
    } else if has("stale connection") {
        DownReason::Lost
    } else if has("maximum connections") || has("maximum account active connections") {
        DownReason::TryLater
    } else {
        DownReason::Other(format!("the server says: {text}"))
    };
    Some(Incident::Ends(reason))
}

/// Why connecting failed.
pub(crate) fn connect_error(error: &async_nats::ConnectError) -> TransportError {
    use async_nats::ConnectErrorKind as Kind;
    let text = error.to_string();
    TransportError::new(match error.kind() {
        Kind::AuthorizationViolation | Kind::Authentication => refused_credentials(&text),
        Kind::ServerParse => DownReason::Refused(text),
        // Perhaps a certificate that somebody must look at, perhaps a broken handshake.
        Kind::Tls => DownReason::Other(text),
        Kind::TimedOut | Kind::Dns => DownReason::Lost,
        _ => {
            // What the server said instead of welcoming us is inside.
            let server = core::error::Error::source(error)
                .and_then(|source| source.downcast_ref::<ServerError>());
            match server {
                Some(ServerError::Other(text)) => match said(text) {
                    Some(Incident::Ends(reason)) => reason,
                    _ => DownReason::Other(text.clone()),
                },
                _ => {
                    tracing::debug!(%error, "no connection to the server");
                    DownReason::Lost
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Option<Incident> {
        incident(Event::ServerError(ServerError::Other(text.to_owned())))
    }

    #[test]
    fn a_denied_subject_is_named() {
        assert_eq!(
            server("Permissions Violation for Publish to \"chat.v1.in.inbox.Bob\""),
            Some(Incident::PublishDenied("chat.v1.in.inbox.Bob".into()))
        );
        assert_eq!(
            server(
                "Permissions Violation for Subscription to \"chat.v1.out.*.inbox.Bob\" using queue \"q\""
            ),
            Some(Incident::SubscribeDenied("chat.v1.out.*.inbox.Bob".into()))
        );
    }

    #[test]
    fn refused_credentials_are_final_and_a_full_server_is_not() {
        let ends = |text: &str| match server(text) {
            Some(Incident::Ends(reason)) => reason,
            other => panic!("{other:?}"),
        };
        for text in [
            "User Authentication Revoked",
            "User Authentication Expired",
            "Authentication Timeout",
        ] {
            assert!(matches!(ends(text), DownReason::Refused(_)), "{text}");
        }
        assert_eq!(ends("Stale Connection"), DownReason::Lost);
        assert_eq!(ends("maximum connections exceeded"), DownReason::TryLater);
        assert_eq!(server("Invalid Subject"), Some(Incident::Mark));
        assert!(matches!(ends("Slow Consumer"), DownReason::Other(_)));
        assert!(matches!(
            ends("Permissions Violation"),
            DownReason::Other(_)
        ));
        let shutdown = incident(Event::LameDuckMode);
        assert_eq!(shutdown, Some(Incident::Ends(DownReason::TryLater)));
    }
}
