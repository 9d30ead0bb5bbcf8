//! The demo over every broker: two demos that name the same one meet there, and two people chat
//! from one page to the other.

mod page;
mod process;

use std::process::Command;

use page::{Page, text, within};
use process::Demo;
use serde_json::{Value, json};

/// Calls, and waits for the answer.
async fn call(page: &mut Page, call: Value) -> Value {
    let id = page.ask(call).await.expect("the page is open");
    let answer = within("answer", page.answer(id)).await;
    answer.expect("the page is open").expect("it is obeyed")
}

async fn until<T>(page: &mut Page, what: &str, found: impl Fn(&Page) -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = found(page) {
                return found;
            }
            page.heard().await.expect("the page is open");
        }
    })
    .await
}

/// The conversation of an open chat with `peer`.
fn open_with(page: &Page, peer: &str) -> Option<String> {
    let mut chats = page.chats.values();
    let chat = chats.find(|chat| chat["peer"] == peer && chat["state"] == "open")?;
    Some(text(&chat["conv"]))
}

async fn hears(page: &mut Page, wanted: &str) {
    within(wanted, async {
        loop {
            let frame = page.heard().await.expect("the page is open");
            if frame["t"] == "message" && frame["item"]["text"] == wanted {
                return;
            }
        }
    })
    .await;
}

/// Two demos with a page each, started with `over`.
async fn two_people_chat(over: impl Fn(&mut Command) -> &mut Command) {
    let state = tempfile::tempdir().expect("a temporary folder");
    let here = Demo::start(&state.path().join("here"), 0, &over);
    let there = Demo::start(&state.path().join("there"), 0, &over);
    let log_in = |name, port| async move {
        let page = within("login", Page::log_in(name, port)).await;
        page.expect("the demo runs")
    };
    let mut alice = log_in("alice", here.port()).await;
    let mut bob = log_in("bob", there.port()).await;
    call(
        &mut alice,
        json!({"t": "request", "peer": "bob", "note": "hello"}),
    )
    .await;
    let invite = until(&mut bob, "the request", |page| {
        page.requests.get("alice").cloned()
    })
    .await;
    call(&mut bob, json!({"t": "accept", "invite": invite})).await;
    let conv = until(&mut alice, "the chat", |page| open_with(page, "bob")).await;
    until(&mut bob, "the chat", |page| open_with(page, "alice")).await;
    let send = |n: u8, text: &str| {
        let txn = format!("{n:032x}");
        json!({"t": "send", "conv": conv, "txn": txn, "text": text})
    };
    call(&mut alice, send(1, "over there?")).await;
    hears(&mut bob, "over there?").await;
    call(&mut bob, send(2, "here!")).await;
    hears(&mut alice, "here!").await;
}

fn url(url: String) -> impl Fn(&mut Command) -> &mut Command {
    move |command| command.args(["--url", &url])
}

#[tokio::test]
async fn the_demo_runs_over_a_hub_elsewhere() {
    let hub = chat_transport_ws::hub::Hub::builder()
        .allow_all()
        .in_memory()
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port");
    two_people_chat(url(hub.url())).await;
}

#[test]
fn a_url_that_names_no_broker_is_refused_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--port", "0", "--url", "http://localhost", "--state"])
        .arg(tempfile::tempdir().expect("a temporary folder").path())
        .output()
        .expect("the demo starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && words.contains("names no broker"),
        "{words}"
    );
}

mod real_broker {
    use chat_testkit::broker::{Broker, Mosquitto, NatsServer};

    use super::*;

    #[tokio::test]
    async fn the_demo_runs_over_mqtt() {
        let broker = Broker::start(Mosquitto::new()).expect("mosquitto");
        two_people_chat(url(format!("mqtt://{}", broker.address()))).await;
    }

    #[tokio::test]
    async fn the_demo_runs_over_nats() {
        let broker = Broker::start(NatsServer::new().jetstream()).expect("nats-server");
        two_people_chat(url(format!("nats://{}", broker.address()))).await;
    }

    #[tokio::test]
    async fn host_and_port_of_a_broker_are_taken_from_the_environment() {
        let broker = Broker::start(Mosquitto::new()).expect("mosquitto");
        let address = broker.address();
        two_people_chat(move |command| {
            command
                .env("BROKER_HOST", address.ip().to_string())
                .env("BROKER_PORT", address.port().to_string())
        })
        .await;
    }
}
