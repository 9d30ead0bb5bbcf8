//! A server that speaks as much NATS as a test wants, and misbehaves where one would not.

use core::time::Duration;

use chat_transport_nats::{Builder, NatsConnector};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use chat_testkit::peer::{Peer, within};

/// The deadline of every connector here.
pub(crate) const DEADLINE: Duration = Duration::from_millis(700);

pub(crate) struct Script(pub(crate) TcpListener);

/// Something that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Publish { subject: String, body: Vec<u8> },
    Subscribe { subject: String, sid: String },
}

impl Said {
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Publish { subject, .. } | Self::Subscribe { subject, .. } => subject,
        }
    }
}

/// The server's end of a connection.
pub(crate) struct Wire {
    io: BufReader<TcpStream>,
    /// The subscription of the client's own inbox.
    own: Option<(String, String)>,
    /// Subjects with this in them are denied.
    pub(crate) denied: Option<&'static str>,
}

impl Script {
    pub(crate) async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn builder(&self) -> Builder {
        let address = self.0.local_addr().unwrap();
        NatsConnector::builder(&format!("nats://{address}"))
            .core_only()
            .deadline(DEADLINE)
    }

    pub(crate) fn connector(&self) -> NatsConnector {
        self.builder().build().unwrap()
    }

    /// Takes a connection and greets it.
    pub(crate) async fn welcome(&self, max_payload: usize) -> Wire {
        let (stream, _) = within(self.0.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut wire = Wire {
            io: BufReader::new(stream),
            own: None,
            denied: None,
        };
        let info = format!(
            "INFO {{\"server_id\":\"s\",\"version\":\"2.9.10\",\"go\":\"\",\"host\":\"h\",\
             \"port\":1,\"headers\":true,\"max_payload\":{max_payload},\"proto\":1}}\r\n"
        );
        wire.write(&info).await;
        wire
    }

    /// A connection that is up, from both ends.
    pub(crate) async fn pair(&self, max_payload: usize) -> (Peer, Wire) {
        let connector = self.connector();
        let serve = async {
            let mut wire = self.welcome(max_payload).await;
            // A barrier: then the connection is up.
            wire.echo().await;
            wire
        };
        let (peer, wire) = tokio::join!(Peer::connect(&connector, "alice"), serve);
        (peer.unwrap(), wire)
    }
}

impl Wire {
    pub(crate) async fn write(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Ends the connection after what was written; dropping it instead may take that back.
    pub(crate) async fn hang_up(mut self) {
        self.io.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // How the client ends its side is its own affair.
        within(self.io.read_to_end(&mut rest)).await.ok();
    }

    /// A server complains before it does anything else.
    async fn judge(&mut self, what: &str, subject: &str) {
        if self.denied.is_some_and(|part| subject.contains(part)) {
            let line = format!("-ERR 'Permissions Violation for {what} to \"{subject}\"'\r\n");
            self.write(&line).await;
        }
    }

    /// The next thing of interest; pings are answered. `None` when the client closed.
    pub(crate) async fn said(&mut self) -> Option<Said> {
        loop {
            let mut line = String::new();
            match within(self.io.read_line(&mut line)).await {
                Err(_) | Ok(0) => return None,
                Ok(_) => {}
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let size = |at: usize| words[at].parse::<usize>().unwrap();
            match words[0] {
                "PING" => self.write("PONG\r\n").await,
                "CONNECT" | "PONG" | "UNSUB" => {}
                "SUB" if words[1].contains(".>.") => self.write("-ERR 'Invalid Subject'\r\n").await,
                "SUB" => {
                    let (subject, sid) = (words[1].to_owned(), words[2].to_owned());
                    self.judge("Subscription", &subject).await;
                    if subject.starts_with("_INBOX") {
                        self.own = Some((subject.trim_end_matches('*').to_owned(), sid.clone()));
                    }
                    return Some(Said::Subscribe { subject, sid });
                }
                "PUB" | "HPUB" => {
                    let subject = words[1].to_owned();
                    let mut body = vec![0; size(words.len() - 1) + 2];
                    within(self.io.read_exact(&mut body)).await.ok()?;
                    body.truncate(body.len() - 2);
                    self.judge("Publish", &subject).await;
                    return Some(Said::Publish { subject, body });
                }
                other => panic!("a client does not say {other}"),
            }
        }
    }

    /// What the client publishes, before its next barrier; returns that barrier's subject.
    pub(crate) async fn until_barrier(&mut self) -> (Vec<Said>, String) {
        let mut before = Vec::new();
        loop {
            let said = self.said().await.expect("it is connected");
            let (inbox, _) = self.own.clone().unwrap_or_default();
            match said {
                Said::Publish { subject, .. }
                    if !inbox.is_empty() && subject.starts_with(&inbox) =>
                {
                    return (before, subject);
                }
                other => before.push(other),
            }
        }
    }

    /// Returns the next barrier, as a server does; and what came before it.
    pub(crate) async fn echo(&mut self) -> Vec<Said> {
        let (before, subject) = self.until_barrier().await;
        self.answer(&subject).await;
        before
    }

    /// An empty message to the client's inbox.
    pub(crate) async fn answer(&mut self, subject: &str) {
        let sid = self.own.as_ref().unwrap().1.clone();
        self.deliver(subject, &sid, b"").await;
    }

    pub(crate) async fn deliver(&mut self, subject: &str, sid: &str, body: &[u8]) {
        let head = format!("MSG {subject} {sid} {}\r\n", body.len());
        self.write(&head).await;
        self.io.write_all(body).await.unwrap();
        self.write("\r\n").await;
    }
}
