//! MQTT by hand, either side: a broker that does what a test says, and a client that may ask for
//! what ours never would.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use chat_transport_mqtt::{MqttConnector, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use chat_testkit::peer::within;

/// A packet as one side sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Connect(Hello),
    ConnAck {
        session: bool,
        code: u8,
    },
    Publish {
        topic: String,
        id: Option<u16>,
        retain: bool,
        dup: bool,
        payload: Bytes,
    },
    PubAck(u16),
    Subscribe {
        id: u16,
        filter: String,
        options: u8,
    },
    SubAck(u16),
    Unsubscribe {
        id: u16,
        filter: String,
    },
    Ping,
    Pong,
    Disconnect,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) expiry: Option<u32>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) max_packet: Option<u32>,
    /// Topic, payload, retained, delay.
    pub(crate) will: Option<(String, Bytes, bool, Option<u32>)>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

fn string(bytes: &mut Bytes) -> String {
    let len = bytes.get_u16().into();
    String::from_utf8(bytes.split_to(len).to_vec()).unwrap()
}

/// Properties with numbers; the tests meet no others.
fn properties(bytes: &mut Bytes) -> Vec<(u8, u32)> {
    let len = usize::from(bytes.get_u8());
    let mut body = bytes.split_to(len);
    let mut found = Vec::new();
    while body.has_remaining() {
        let name = body.get_u8();
        let value = match name {
            0x11 | 0x18 | 0x27 | 0x02 => body.get_u32(),
            0x13 | 0x21 | 0x22 => body.get_u16().into(),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a | 0x01 => body.get_u8().into(),
            0x12 | 0x1f => {
                string(&mut body);
                0
            }
            other => panic!("a property that no test expects: {other:#x}"),
        };
        found.push((name, value));
    }
    found
}

fn property(all: &[(u8, u32)], name: u8) -> Option<u32> {
    all.iter()
        .find(|(it, _)| *it == name)
        .map(|(_, value)| *value)
}

/// Client ids differ: who shares one ends the other's connection.
static DIALED: AtomicU64 = AtomicU64::new(0);

/// One end of a connection.
pub(crate) struct Wire {
    stream: TcpStream,
    buf: BytesMut,
    version: Version,
}

impl Wire {
    /// Breaks the connection, as a network does.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// The next packet; `None` at the end of the connection.
    pub(crate) async fn read(&mut self) -> Option<Seen> {
        loop {
            if let Some((head, mut body)) = self.split() {
                return Some(self.parse(head, &mut body));
            }
            let read = within(self.stream.read_buf(&mut self.buf)).await;
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// The next packet that is no ping; pings are answered.
    pub(crate) async fn next(&mut self) -> Option<Seen> {
        loop {
            match self.read().await {
                Some(Seen::Ping) => self.write(&[0xd0, 0]).await,
                other => return other,
            }
        }
    }

    fn split(&mut self) -> Option<(u8, Bytes)> {
        let (mut len, mut place) = (0, 1);
        loop {
            let byte = *self.buf.get(place)?;
            len |= usize::from(byte & 0x7f) << (7 * (place - 1));
            place += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.buf.len() < place + len {
            return None;
        }
        let head = self.buf[0];
        self.buf.advance(place);
        Some((head, self.buf.split_to(len).freeze()))
    }

    fn parse(&self, head: u8, body: &mut Bytes) -> Seen {
        let v5 = self.version == Version::V5;
        match head >> 4 {
            1 => Seen::Connect(self.hello(body)),
            2 => Seen::ConnAck {
                session: body.get_u8() & 1 == 1,
                code: body.get_u8(),
            },
            3 => {
                let topic = string(body);
                let id = ((head >> 1) & 3 != 0).then(|| body.get_u16());
                if v5 {
                    properties(body);
                }
                Seen::Publish {
                    topic,
                    id,
                    retain: head & 1 == 1,
                    dup: head & 8 == 8,
                    payload: body.clone(),
                }
            }
            4 => Seen::PubAck(body.get_u16()),
            8 => {
                let id = body.get_u16();
                if v5 {
                    properties(body);
                }
                Seen::Subscribe {
                    id,
                    filter: string(body),
                    options: body.get_u8(),
                }
            }
            9 => Seen::SubAck(body.get_u16()),
            10 => {
                let id = body.get_u16();
                if v5 {
                    properties(body);
                }
                Seen::Unsubscribe {
                    id,
                    filter: string(body),
                }
            }
            12 => Seen::Ping,
            13 => Seen::Pong,
            14 => Seen::Disconnect,
            other => panic!("a packet that no test expects: {other}"),
        }
    }

    fn hello(&self, body: &mut Bytes) -> Hello {
        assert_eq!(string(body), "MQTT");
        let v5 = self.version == Version::V5;
        assert_eq!(body.get_u8(), if v5 { 5 } else { 4 });
        let flags = body.get_u8();
        let keep_alive = body.get_u16();
        let all = if v5 { properties(body) } else { Vec::new() };
        let client_id = string(body);
        let will = (flags & 4 != 0).then(|| {
            let delay = if v5 {
                property(&properties(body), 0x18)
            } else {
                None
            };
            let topic = string(body);
            let len = body.get_u16().into();
            (topic, body.split_to(len), flags & 0x20 != 0, delay)
        });
        Hello {
            client_id,
            clean: flags & 2 != 0,
            keep_alive,
            expiry: property(&all, 0x11),
            receive_maximum: property(&all, 0x21).map(|it| it.try_into().unwrap()),
            max_packet: property(&all, 0x27),
            will,
            user: (flags & 0x80 != 0).then(|| string(body)),
            password: (flags & 0x40 != 0).then(|| string(body)),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    fn packet(head: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![head];
        let mut len = body.len();
        loop {
            let more = if len > 127 { 0x80 } else { 0 };
            out.push(u8::try_from(len & 0x7f).unwrap() | more);
            len >>= 7;
            if more == 0 {
                break;
            }
        }
        [out, body.to_vec()].concat()
    }

    pub(crate) async fn put(&mut self, head: u8, body: &[u8]) {
        self.write(&Self::packet(head, body)).await;
    }

    fn text(text: &str) -> Vec<u8> {
        [
            &u16::try_from(text.len()).unwrap().to_be_bytes(),
            text.as_bytes(),
        ]
        .concat()
    }

    // As a broker.

    /// CONNACK with `code` and, in MQTT 5, raw properties.
    pub(crate) async fn connack(&mut self, session: bool, code: u8, properties: &[u8]) {
        let mut body = vec![u8::from(session), code];
        if self.version == Version::V5 {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend_from_slice(properties);
        }
        self.put(0x20, &body).await;
    }

    pub(crate) async fn puback(&mut self, id: u16, reason: u8) {
        let mut body = id.to_be_bytes().to_vec();
        if reason != 0 {
            body.push(reason);
        }
        self.put(0x40, &body).await;
    }

    pub(crate) async fn suback(&mut self, id: u16, code: u8) {
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        body.push(code);
        self.put(0x90, &body).await;
    }

    pub(crate) async fn unsuback(&mut self, id: u16) {
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.extend([0, 0]);
        }
        self.put(0xb0, &body).await;
    }

    pub(crate) async fn publish(
        &mut self,
        topic: &str,
        id: Option<u16>,
        retain: bool,
        payload: &[u8],
    ) {
        let mut body = Self::text(topic);
        if let Some(id) = id {
            body.extend(id.to_be_bytes());
        }
        if self.version == Version::V5 {
            body.push(0);
        }
        body.extend_from_slice(payload);
        let head = 0x30 | u8::from(id.is_some()) << 1 | u8::from(retain);
        self.put(head, &body).await;
    }

    // As a client of 3.1.1.

    pub(crate) async fn dial(address: std::net::SocketAddr, name: &str) -> Self {
        let stream = within(TcpStream::connect(address)).await.unwrap();
        let mut wire = Self {
            stream,
            buf: BytesMut::new(),
            version: Version::V311,
        };
        let mut body = Self::text("MQTT");
        // A clean session and a user name.
        body.extend([4, 0x82, 0, 60]);
        let number = DIALED.fetch_add(1, Ordering::Relaxed);
        body.extend(Self::text(&format!("raw-{number}")));
        body.extend(Self::text(name));
        wire.put(0x10, &body).await;
        assert_eq!(
            wire.read().await,
            Some(Seen::ConnAck {
                session: false,
                code: 0
            })
        );
        wire
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) {
        let body = [vec![0, 1], Self::text(filter), vec![1]].concat();
        self.put(0x82, &body).await;
        while self.read().await.unwrap() != Seen::SubAck(1) {}
    }
}

/// A broker that does what a test says.
pub(crate) struct Script {
    listener: TcpListener,
    version: Version,
}

impl Script {
    pub(crate) async fn new(version: Version) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self { listener, version }
    }

    pub(crate) fn connector(&self) -> MqttConnector {
        let url = format!("mqtt://{}", self.listener.local_addr().unwrap());
        MqttConnector::from_url(&url).unwrap().version(self.version)
    }

    /// The next connection, of which nothing was read yet.
    pub(crate) async fn accept(&self) -> Wire {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        Wire {
            stream,
            buf: BytesMut::new(),
            version: self.version,
        }
    }

    /// The next connection, welcomed.
    pub(crate) async fn welcome(&self, session: bool, properties: &[u8]) -> (Wire, Hello) {
        let mut wire = self.accept().await;
        let Some(Seen::Connect(hello)) = wire.read().await else {
            panic!("CONNECT comes first");
        };
        wire.connack(session, 0, properties).await;
        (wire, hello)
    }
}
