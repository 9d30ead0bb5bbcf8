//! The HTTP upgrade: who is refused before there is a WebSocket.

use std::collections::BTreeSet;

use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::http::{self, StatusCode};

use crate::proto::{MAX_TOKEN, SUBPROTOCOL};

const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Which web pages may connect. A request without `Origin` comes from no browser and passes.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    pub(super) any: bool,
    pub(super) listed: BTreeSet<String>,
}

impl Origins {
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            _ if self.any => true,
            (Some(origin), None) => {
                (origin.to_str()).is_ok_and(|o| self.listed.contains(&o.to_ascii_lowercase()))
            }
            (Some(_), Some(_)) => false,
        }
    }
}

fn refuse(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = http::Response::new(Some(text.to_owned()));
    *response.status_mut() = status;
    response
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && token.len() <= MAX_TOKEN)
        .then(|| token.trim().to_owned())
}

/// Checks a request; the token in its header, and the response with our subprotocol.
pub(super) fn check(
    path: &str,
    origins: &Origins,
    request: &Request,
    mut response: Response,
) -> Result<(Response, Option<String>), ErrorResponse> {
    let headers = request.headers();
    let bytes: usize = (headers.iter())
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(refuse(status, "too many headers"));
    }
    if request.uri().path() != path {
        return Err(refuse(StatusCode::NOT_FOUND, "no hub here"));
    }
    if request.uri().query().is_some() {
        // Tokens in a query end in access logs.
        let text = "no query: the token goes into a header or the first frame";
        return Err(refuse(StatusCode::BAD_REQUEST, text));
    }
    if !origins.allows(headers) {
        return Err(refuse(StatusCode::FORBIDDEN, "this page may not connect"));
    }
    let ours = (headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL);
    if !ours {
        let text = "name the subprotocol chat.hub.v1";
        return Err(refuse(StatusCode::BAD_REQUEST, text));
    }
    response.headers_mut().insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok((response, bearer(headers)))
}
