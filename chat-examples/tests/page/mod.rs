//! The demo's page without a browser: its WebSocket and what is told over it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// The longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The connection is gone: whether the call was obeyed is unknown.
#[derive(Debug)]
pub(crate) struct Lost;

/// The value of `future`, or a panic that names `what` after the deadline.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {DEADLINE:?}"),
    }
}

/// A page: one WebSocket, and what was told over it.
pub(crate) struct Page {
    socket: WebSocketStream<TcpStream>,
    next_id: u64,
    /// Requests that wait for an answer, by who asks.
    pub(crate) requests: BTreeMap<String, String>,
    /// Chats by conversation.
    pub(crate) chats: BTreeMap<String, Value>,
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Page {
    pub(crate) async fn open(port: u16) -> Result<Self, Lost> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await;
        let url = format!("ws://127.0.0.1:{port}/ws");
        let (socket, _) = client_async(url, tcp.map_err(|_| Lost)?)
            .await
            .map_err(|_| Lost)?;
        Ok(Self {
            socket,
            next_id: 0,
            requests: BTreeMap::new(),
            chats: BTreeMap::new(),
        })
    }

    /// Opens the page at `port` and logs in.
    pub(crate) async fn log_in(name: &str, port: u16) -> Result<Self, Lost> {
        let mut page = Self::open(port).await?;
        let id = page.ask(json!({"t": "login", "name": name})).await?;
        page.answer(id)
            .await?
            .unwrap_or_else(|why| panic!("{name} may log in: {why}"));
        Ok(page)
    }

    pub(crate) async fn ask(&mut self, mut call: Value) -> Result<u64, Lost> {
        self.next_id += 1;
        call["id"] = self.next_id.into();
        let sent = self.socket.send(Message::text(call.to_string())).await;
        sent.map(|()| self.next_id).map_err(|_| Lost)
    }

    /// The next frame, already noted.
    pub(crate) async fn heard(&mut self) -> Result<Value, Lost> {
        loop {
            let frame = within("frame", self.socket.next()).await;
            let text = match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Lost),
                Some(Ok(_)) => continue,
            };
            let value: Value = serde_json::from_str(&text).expect("the demo writes JSON");
            self.note(&value);
            return Ok(value);
        }
    }

    fn note(&mut self, value: &Value) {
        match value["t"].as_str() {
            Some("state") => {
                for request in value["requests"].as_array().into_iter().flatten() {
                    self.note_request(request);
                }
                for chat in value["chats"].as_array().into_iter().flatten() {
                    self.chats.insert(text(&chat["conv"]), chat.clone());
                }
            }
            Some("request") => self.note_request(value),
            Some("chat") => {
                self.chats.insert(text(&value["conv"]), value.clone());
            }
            _ => {}
        }
    }

    fn note_request(&mut self, request: &Value) {
        let (peer, invite) = (text(&request["peer"]), text(&request["invite"]));
        self.requests.insert(peer, invite);
    }

    /// The answer to call `id`: its value, or what the demo refuses with.
    pub(crate) async fn answer(&mut self, id: u64) -> Result<Result<Value, String>, Lost> {
        loop {
            let value = self.heard().await?;
            if value["id"] == id && value["t"] == "ok" {
                return Ok(Ok(value));
            }
            if value["id"] == id && value["t"] == "error" {
                return Ok(Err(text(&value["text"])));
            }
        }
    }
}
