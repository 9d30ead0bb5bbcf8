//! Chromium over its debugging WebSocket: just enough to type, click, read and take pictures.
//! Every wait has a deadline.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// For anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

type Sink = SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>;
type Calls = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// A browser of our own; dies with this.
pub(crate) struct Browser {
    child: Child,
    wire: Arc<Wire>,
    _profile: tempfile::TempDir,
}

struct Wire {
    sink: tokio::sync::Mutex<Sink>,
    calls: Calls,
    next: AtomicU64,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have died already; either way it must be reaped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn find() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").expect("PATH is set");
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file())
        .expect("Chromium is missing: apt-get install chromium, or set CHAT_TEST_BROWSER=skip")
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let child = Command::new(find())
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Chromium starts");
        let port = wait_for("Chromium's port", || {
            let text = std::fs::read_to_string(profile.path().join("DevToolsActivePort")).ok()?;
            let mut lines = text.lines();
            Some(format!("ws://127.0.0.1:{}{}", lines.next()?, lines.next()?))
        })
        .await;
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        let (socket, _) = connect_async_with_config(&port, Some(config), true)
            .await
            .expect("it listens");
        let (sink, mut stream) = socket.split();
        let calls = Calls::default();
        let waiting = calls.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let Ok(text) = message.into_text() else {
                    continue;
                };
                let value: Value = serde_json::from_str(&text).expect("the protocol is JSON");
                let id = value["id"].as_u64();
                let call = id.and_then(|id| waiting.lock().expect("no holder panics").remove(&id));
                if let Some(call) = call {
                    call.send(value).ok();
                }
            }
        });
        let wire = Arc::new(Wire {
            sink: tokio::sync::Mutex::new(sink),
            calls,
            next: AtomicU64::new(1),
        });
        Self {
            child,
            wire,
            _profile: profile,
        }
    }

    /// A page in a profile of its own.
    pub(crate) async fn page(&self, url: &str) -> Page {
        let context = self
            .wire
            .call("", "Target.createBrowserContext", json!({}))
            .await;
        let context = context["browserContextId"]
            .as_str()
            .expect("a context")
            .to_owned();
        let target = self
            .wire
            .call(
                "",
                "Target.createTarget",
                json!({"url": url, "browserContextId": context}),
            )
            .await;
        let target = target["targetId"].as_str().expect("a target").to_owned();
        let attach = json!({"targetId": target, "flatten": true});
        let session = self.wire.call("", "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().expect("a session").to_owned();
        let page = Page {
            wire: self.wire.clone(),
            session,
        };
        // Without it a page in the background gets neither focus nor typed text.
        page.call(
            "Emulation.setFocusEmulationEnabled",
            json!({"enabled": true}),
        )
        .await;
        page.size(1100, 720).await;
        page
    }
}

impl Wire {
    async fn call(&self, session: &str, method: &str, params: Value) -> Value {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.calls
            .lock()
            .expect("no holder panics")
            .insert(id, sender);
        let mut call = json!({"id": id, "method": method, "params": params});
        if !session.is_empty() {
            call["sessionId"] = session.into();
        }
        self.sink
            .lock()
            .await
            .send(Message::text(call.to_string()))
            .await
            .expect("Chromium listens");
        let answer = tokio::time::timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| panic!("Chromium did not answer {method}"))
            .expect("Chromium lives");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }
}

/// One page.
pub(crate) struct Page {
    wire: Arc<Wire>,
    session: String,
}

impl Page {
    async fn call(&self, method: &str, params: Value) -> Value {
        self.wire.call(&self.session, method, params).await
    }

    /// Closes the tab, as its user does.
    pub(crate) async fn close(self) {
        self.call("Page.close", json!({})).await;
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700,
        });
        self.call("Emulation.setDeviceMetricsOverride", params)
            .await;
    }

    pub(crate) async fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// The value of an expression.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) {
        let start = Instant::now();
        loop {
            if self.eval(&format!("Boolean({expression})")).await == true {
                return;
            }
            if start.elapsed() > PATIENCE {
                let shown = self.eval("document.body.innerText").await;
                panic!("waited {PATIENCE:?} for {what}; the page shows:\n{shown}");
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// Waits for an element and clicks it with the mouse.
    pub(crate) async fn click(&self, selector: &str) {
        let found = format!("document.querySelector({})", json!(selector));
        self.until(
            selector,
            &format!("{found} && {found}.offsetParent !== null"),
        )
        .await;
        let spot = self
            .eval(&format!(
                "(() => {{ const e = {found}; e.scrollIntoView({{block: 'center'}}); \
                 const r = e.getBoundingClientRect(); \
                 return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
            ))
            .await;
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({
                "type": kind, "x": spot[0], "y": spot[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", params).await;
        }
    }

    /// Types into what has the focus.
    pub(crate) async fn type_text(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    pub(crate) async fn key(&self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" {
                "\r"
            } else {
                ""
            };
            let params = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    pub(crate) async fn picture(&self, path: &Path) {
        let answer = self
            .call("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        let data = answer["data"].as_str().expect("a picture");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, base64(data)).expect("it can be written");
    }
}

/// Waits until `find` gives something.
pub(crate) async fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => u32::from(c - b'A'),
        b'a'..=b'z' => u32::from(c - b'a') + 26,
        b'0'..=b'9' => u32::from(c - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        bits = bits << 6 | value(c);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).expect("masked to a byte"));
        }
    }
    out
}
