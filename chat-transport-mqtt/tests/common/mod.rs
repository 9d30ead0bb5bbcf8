//! A mosquitto of its own per test.
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Broker {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    extra: String,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::with("allow_anonymous true\n")
    }

    pub(crate) fn with(extra: &str) -> Self {
        let mut broker = Self {
            folder: tempfile::tempdir().expect("a folder"),
            port: 0,
            child: None,
            extra: extra.to_owned(),
        };
        for _ in 0..20 {
            let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
            broker.port = probe.local_addr().expect("bound").port();
            drop(probe);
            if broker.boot() {
                return broker;
            }
        }
        panic!("mosquitto does not start: {}", broker.log());
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn boot(&mut self) -> bool {
        let dir = self.folder.path().to_str().expect("UTF-8").to_owned();
        let config = format!(
            "user root\nlistener {} 127.0.0.1\npersistence true\npersistence_location {dir}/\nautosave_interval 1\nset_tcp_nodelay true\nlog_dest file {dir}/log\nlog_type all\nconnection_messages true\n{}",
            self.port,
            self.extra.replace("{dir}", &dir)
        );
        let file = self.folder.path().join("mosquitto.conf");
        std::fs::File::create(&file)
            .and_then(|mut file| file.write_all(config.as_bytes()))
            .expect("a file");
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("apt-get install mosquitto");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            let child = self.child.as_mut().expect("just started");
            if child.try_wait().expect("it is ours").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn end(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            Command::new("kill").arg(signal).arg(child.id().to_string()).status().expect("kill");
            child.wait().expect("it is ours");
        }
    }

    pub(crate) fn kill(&mut self) {
        self.end("-KILL");
    }

    pub(crate) fn stop(&mut self) {
        self.end("-TERM");
    }

    pub(crate) fn again(&mut self) {
        assert!(self.boot(), "it starts on its old port: {}", self.log());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }
}
