//! Between one page and one client: JSON calls in, answers and events out.
//!
//! `account` is a user's client as all its pages share it; `calls` answers what a page asks;
//! `show` and `names` turn the client's types into text; `dto` is that text's shape.

mod account;
mod calls;
pub mod dto;
mod names;
mod show;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

pub use account::Account;
use dto::{Ask, Call, Say, Value};

use super::host::Host;

/// A page that takes no byte for so long is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Serves one page until its socket closes.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    host: Arc<Host>,
    mut socket: WebSocketStream<S>,
) {
    let mut page = Page {
        host,
        account: None,
    };
    page.run(&mut socket).await;
    page.log_out().await;
}

struct Page {
    host: Arc<Host>,
    account: Option<(Arc<Account>, tokio::sync::broadcast::Receiver<Say>)>,
}

#[allow(
    clippy::large_enum_variant,
    reason = "one lives for one turn, on the stack"
)]
enum Woke {
    Frame(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
    Event(Result<Say, RecvError>),
}

impl Page {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: &mut WebSocketStream<S>) {
        loop {
            let woke = match &mut self.account {
                Some((_, events)) => tokio::select! {
                    frame = socket.next() => Woke::Frame(frame),
                    event = events.recv() => Woke::Event(event),
                },
                None => Woke::Frame(socket.next().await),
            };
            let says = match woke {
                Woke::Frame(Some(Ok(Message::Text(text)))) => self.called(&text).await,
                Woke::Frame(Some(Ok(Message::Close(_)) | Err(_)) | None) => return,
                Woke::Frame(Some(Ok(_))) => Vec::new(),
                Woke::Event(Ok(say)) => vec![say],
                // The page was too slow for single events: it gets the whole state anew.
                Woke::Event(Err(RecvError::Lagged(_))) => self.state().await,
                Woke::Event(Err(RecvError::Closed)) => return,
            };
            if !write(socket, says).await {
                return;
            }
        }
    }

    async fn called(&mut self, text: &str) -> Vec<Say> {
        let Ok(call) = serde_json::from_str::<Call>(text) else {
            let id = serde_json::from_str::<serde_json::Value>(text)
                .ok()
                .and_then(|value| value.get("id")?.as_u64())
                .unwrap_or(0);
            let text = "this server does not know that call; reload the page".to_owned();
            return vec![Say::Error {
                id,
                code: "unknown",
                text,
            }];
        };
        match (call.ask, &self.account) {
            (Ask::Login { name }, None) => match self.host.enter(&name).await {
                Ok(account) => {
                    let events = account.events();
                    self.account = Some((account, events));
                    let mut says = self.state().await;
                    says.push(Say::Ok {
                        id: call.id,
                        value: Value::Done {},
                    });
                    says
                }
                Err(error) => {
                    vec![Say::Error {
                        id: call.id,
                        code: "login",
                        text: error.to_string(),
                    }]
                }
            },
            (Ask::Login { .. }, Some(_)) => {
                let text = "this page is logged in; log out first".to_owned();
                vec![Say::Error {
                    id: call.id,
                    code: "login",
                    text,
                }]
            }
            (Ask::Logout, _) => {
                self.log_out().await;
                vec![Say::Ok {
                    id: call.id,
                    value: Value::Done {},
                }]
            }
            (_, None) => {
                let text = "log in first".to_owned();
                vec![Say::Error {
                    id: call.id,
                    code: "login",
                    text,
                }]
            }
            (ask, Some((account, _))) => vec![match account.call(ask).await {
                Ok(value) => Say::Ok { id: call.id, value },
                Err(refusal) => Say::Error {
                    id: call.id,
                    code: refusal.code,
                    text: refusal.text,
                },
            }],
        }
    }

    async fn state(&self) -> Vec<Say> {
        let Some((account, _)) = &self.account else {
            return Vec::new();
        };
        match account.state().await {
            Ok(state) => vec![state],
            Err(error) => vec![Say::Notice {
                text: error.to_string(),
            }],
        }
    }

    async fn log_out(&mut self) {
        if let Some((account, _)) = self.account.take() {
            self.host.clone().exit(account.user().clone()).await;
        }
    }
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    says: Vec<Say>,
) -> bool {
    let writing = async {
        for say in says {
            let text = serde_json::to_string(&say).expect("our own types always serialise");
            socket.feed(Message::text(text)).await?;
        }
        socket.flush().await
    };
    matches!(
        tokio::time::timeout(WRITE_DEADLINE, writing).await,
        Ok(Ok(()))
    )
}
