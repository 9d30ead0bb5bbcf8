//! From an address to an open connection: TCP, the upgrade, `Hello` and the hub's answer. The
//! caller's deadline covers all of it; dropping the future drops the socket.

use core::time::Duration;
use std::sync::Arc;

use chat_client::transport::{ConnectOptions, TransportError};
use chat_core::link::DownReason;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::http::{Response, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::socket::{WsTransport, closed, lost};
use super::{AddressError, WsConnector};
use crate::proto::{
    ClientOp, CloseReason, Frames, Hello, HubOp, MAX_MESSAGE, MAX_WILL, SUBPROTOCOL, Welcome,
    WireWill,
};

/// Host and port of a `ws://` address.
pub(super) fn authority(url: &str) -> Result<Arc<str>, AddressError> {
    let bad = || AddressError::Url {
        url: url.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(bad)?;
    let has_login = uri.authority().is_some_and(|a| a.as_str().contains('@'));
    if uri.scheme_str() != Some("ws") || has_login {
        return Err(bad());
    }
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)).into())
}

/// Small buffers and our own limits: the defaults hold 128 KiB per connection and take 64 MiB.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(1024 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

pub(super) async fn connect(
    to: &WsConnector,
    options: &ConnectOptions,
) -> Result<WsTransport, TransportError> {
    let refused = |text: &str| TransportError::new(DownReason::Refused(text.to_owned()));
    if options
        .will
        .as_ref()
        .is_some_and(|w| w.bytes.len() > MAX_WILL)
    {
        return Err(refused("the last will is too large"));
    }
    let mut request = (to.url.as_str())
        .into_client_request()
        .map_err(|e| refused(&e.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let fresh =
        match &to.tokens {
            Some(tokens) => Some(tokens.token().await.map_err(|why| {
                TransportError::new(DownReason::Other(format!("no token: {why}")))
            })?),
            None => to.token.as_deref().map(str::to_owned),
        };
    if let Some(token) = fresh {
        if !super::fits(&token) {
            return Err(refused("the token does not fit a header"));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| refused("the token does not fit a header"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }

    let tcp = TcpStream::connect(&*to.authority).await.map_err(|error| {
        tracing::debug!(%error, "no connection to the hub");
        TransportError::lost()
    })?;
    tcp.set_nodelay(true).map_err(|_| TransportError::lost())?;
    let (mut ws, _) = tokio_tungstenite::client_async_with_config(request, tcp, Some(config()))
        .await
        .map_err(|error| match error {
            Error::Http(response) => turned_away(&response),
            error => lost(&error),
        })?;

    let mut hello = Vec::new();
    ClientOp::Hello(Hello {
        user: options.user.clone(),
        device: options.device,
        resume: to.resume,
        token: None,
        will: options.will.as_ref().map(|will| WireWill {
            channel: will.channel.clone(),
            bytes: &will.bytes,
        }),
    })
    .encode(&mut hello);
    ws.send(Message::binary(hello))
        .await
        .map_err(|e| lost(&e))?;
    let (welcome, rest) = answer(&mut ws).await?;
    WsTransport::open(ws, &welcome, &rest, to.tokens.clone())
}

/// The hub's answer to `Hello`, and what came in the same message.
async fn answer(ws: &mut WebSocketStream<TcpStream>) -> Result<(Welcome, Vec<u8>), TransportError> {
    loop {
        match ws.next().await {
            Some(Ok(Message::Binary(message))) => {
                let mut frames = Frames::from_hub(&message);
                match frames.next() {
                    Some(Ok(HubOp::Welcome(welcome))) => {
                        return Ok((welcome, frames.remainder().to_vec()));
                    }
                    Some(Ok(HubOp::Refused {
                        code,
                        text,
                        retry_ms,
                    })) => {
                        let mut error = closed(code, text);
                        error.retry_after = retry_ms.map(|ms| Duration::from_millis(ms.into()));
                        return Err(error);
                    }
                    _ => return Err(closed(CloseReason::Protocol.code(), "no welcome")),
                }
            }
            Some(Ok(Message::Close(frame))) => {
                return Err(
                    frame.map_or_else(TransportError::lost, |f| closed(f.code.into(), &f.reason))
                );
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(&error)),
            None => return Err(TransportError::lost()),
        }
    }
}

/// The upgrade was answered with an HTTP error.
fn turned_away(response: &Response<Option<Vec<u8>>>) -> TransportError {
    let status = response.status();
    let reason = match status.as_u16() {
        429 | 503 => DownReason::TryLater,
        400..=499 => DownReason::Refused(format!("the hub answers {status}")),
        _ => DownReason::Other(format!("the hub answers {status}")),
    };
    let seconds = (response.headers().get(RETRY_AFTER))
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    TransportError {
        reason,
        retry_after: seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(&*authority("ws://h/x").unwrap(), "h:80");
        assert_eq!(&*authority("ws://[::1]:9/x").unwrap(), "[::1]:9");
        for bad in ["", "h:1", "http://h", "wss://h", "ws://", "ws://u:p@h/"] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }
}
