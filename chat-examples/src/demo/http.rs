//! HTTP: the page's files, built in, and the upgrade to the page's WebSocket.
//!
//! The upgrade is done here and handed to tungstenite, so that one copy of it serves hub and page.
//! Only pages of this very host may open the socket: a foreign `Origin` is refused.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::bridge;
use super::host::Host;

/// The largest JSON frame from a page.
const MAX_CALL: usize = 64 * 1024;
const POLICY: &str = "default-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

macro_rules! files {
    ($($path:literal => $file:literal, $kind:literal;)*) => {
        const FILES: &[(&str, &str, &str)] = &[
            $(($path, include_str!(concat!("../../web/", $file)), $kind),)*
        ];
    };
}
files! {
    "/" => "index.html", "text/html; charset=utf-8";
    "/style.css" => "style.css", "text/css; charset=utf-8";
    "/main.js" => "main.js", "text/javascript; charset=utf-8";
    "/net.js" => "net.js", "text/javascript; charset=utf-8";
    "/model.js" => "model.js", "text/javascript; charset=utf-8";
    "/dom.js" => "dom.js", "text/javascript; charset=utf-8";
    "/sidebar.js" => "sidebar.js", "text/javascript; charset=utf-8";
    "/conversation.js" => "conversation.js", "text/javascript; charset=utf-8";
}

/// The routes.
pub fn router(host: Arc<Host>) -> Router {
    let mut router = Router::new().route("/ws", any(upgrade));
    for (path, text, kind) in FILES {
        router = router.route(path, get(move || async move { file(text, kind) }));
    }
    router.with_state(host)
}

fn file(text: &'static str, kind: &'static str) -> Response {
    Response::builder()
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_SECURITY_POLICY, POLICY)
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(Body::from(text))
        .expect("constant headers are valid")
}

fn refuse(status: StatusCode, why: &'static str) -> Response {
    Response::builder()
        .status(status)
        .body(Body::from(why))
        .expect("a status and a text are valid")
}

/// True when no browser asks, or a page of this host.
fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    matches!((origin, host), (Some((_, origin)), Some(host)) if origin == host)
}

async fn upgrade(State(host): State<Arc<Host>>, mut request: Request) -> Response {
    let headers = request.headers();
    let is = |name, value: &str| {
        headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
            .is_some_and(|v| {
                v.split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(value))
            })
    };
    let asks = request.method() == Method::GET
        && is(UPGRADE, "websocket")
        && is(CONNECTION, "upgrade")
        && is(SEC_WEBSOCKET_VERSION, "13");
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()));
    let (true, Some(accept)) = (asks, key) else {
        return refuse(
            StatusCode::UPGRADE_REQUIRED,
            "this address speaks WebSocket\n",
        );
    };
    if !is_own_page(headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a page of another site may not connect\n",
        );
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // A browser that goes away before the upgrade is done needs nothing from us.
        let Ok(io) = upgraded.await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(16 * 1024)
            .max_write_buffer_size(4 * 1024 * 1024)
            .max_message_size(Some(MAX_CALL))
            .max_frame_size(Some(MAX_CALL));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config)).await;
        bridge::serve(host, socket).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(Body::empty())
        .expect("constant headers and a base64 key are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8080"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn only_own_pages_may_connect() {
        assert!(is_own_page(&headers(None)));
        assert!(is_own_page(&headers(Some("http://127.0.0.1:8080"))));
        assert!(!is_own_page(&headers(Some("http://127.0.0.1:8081"))));
        assert!(!is_own_page(&headers(Some("http://evil.example"))));
        assert!(!is_own_page(&headers(Some("null"))));
    }
}
