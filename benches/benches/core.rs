//! The core: negotiation, send, receive, the whole cycle, replay of an outbox, and growth with
//! the number of conversations. Signatures are left out but for one row. Yardsticks in the same
//! run: rumqttc's QoS 1 state and quinn-proto carrying 100 bytes to its reader.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::{Busy, Cpu, Crypto, Drained, Pair, ThreadTime, drain};
use bytes::{Bytes, BytesMut};
use chat_core::content::Content;
use chat_core::id::TxnId;
use criterion::{BatchSize, BenchmarkId, Throughput, criterion_group, criterion_main};

fn txn(n: u64) -> TxnId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    TxnId(id)
}

fn session(c: &mut Cpu) {
    let mut group = c.benchmark_group("session");
    for crypto in [Crypto::Off, Crypto::Real] {
        group.bench_function(
            format!("request, accept, confirm; signatures {crypto:?}"),
            |b| {
                b.iter_batched(
                    || Pair::apart(crypto),
                    |mut pair| {
                        pair.negotiate();
                        pair
                    },
                    BatchSize::SmallInput,
                );
            },
        );
    }
    group.finish();
}

/// How many conversations are open. Setting up the largest takes seconds, too long for a trial.
fn sizes() -> &'static [u32] {
    if benches::measuring() {
        &[10, 1_000, 100_000]
    } else {
        &[10, 100]
    }
}

fn receive(c: &mut Cpu) {
    let mut group = c.benchmark_group("receive");
    for &n in sizes() {
        let mut busy = Busy::open(n);
        group.bench_function(BenchmarkId::new("text 64 B, conversations", n), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let (channel, frame) = busy.text();
                    let start = ThreadTime::now();
                    busy.inbound(&channel, &frame);
                    spent += ThreadTime::now() - start;
                    assert_eq!(busy.told(), 1, "the message was told");
                    busy.acknowledge();
                    busy.pass();
                }
                spent
            });
        });
        let again = busy.text();
        busy.inbound(&again.0, &again.1);
        group.bench_function(BenchmarkId::new("the same again, conversations", n), |b| {
            b.iter(|| busy.inbound(black_box(&again.0), black_box(&again.1)));
        });
    }
    group.finish();
}

fn send(c: &mut Cpu) {
    let mut group = c.benchmark_group("send");
    for &n in sizes() {
        let mut busy = Busy::open(n);
        // What was sent is acknowledged at once: the outbox stays as small as in a chat.
        for time_ack in [false, true] {
            let what = if time_ack { "ack" } else { "text 64 B" };
            group.bench_function(BenchmarkId::new(format!("{what}, conversations"), n), |b| {
                b.iter_custom(|rounds| {
                    let mut spent = [Duration::ZERO; 2];
                    for _ in 0..rounds {
                        let start = ThreadTime::now();
                        let sent = busy.send();
                        spent[0] += ThreadTime::now() - start;
                        assert_eq!(busy.frames_out(), 1, "the message left");
                        let (inbox, ack) = busy.ack(sent);
                        let start = ThreadTime::now();
                        busy.inbound(&inbox, &ack);
                        spent[1] += ThreadTime::now() - start;
                        busy.clear();
                    }
                    assert_eq!(busy.alice.stats().outbox, 0, "all is acknowledged");
                    spent[usize::from(time_ack)]
                });
            });
        }
    }
    group.bench_function("yardstick: rumqttc state, QoS 1 out and its ack", |b| {
        use rumqttc::{MqttState, Packet, PubAck, Publish, QoS, Request};
        let mut state = MqttState::new(100, false);
        let payload = vec![0u8; 160];
        b.iter(|| {
            let publish = Publish::new(
                "chat/v1/conv/0123456789abcdef",
                QoS::AtLeastOnce,
                payload.clone(),
            );
            let packet = state
                .handle_outgoing_packet(Request::Publish(publish))
                .expect("the window is open")
                .expect("a publish goes out");
            let Packet::Publish(publish) = &packet else {
                unreachable!("we sent a publish")
            };
            let pkid = publish.pkid;
            let mut wire = BytesMut::with_capacity(256);
            packet.write(&mut wire, 1 << 20).expect("it fits");
            state
                .handle_incoming_packet(Packet::PubAck(PubAck::new(pkid)))
                .expect("ours");
            state.events.clear();
            black_box(wire);
        });
    });
    group.finish();
}

fn cycle(c: &mut Cpu) {
    let mut group = c.benchmark_group("cycle");
    group.throughput(Throughput::Elements(1));
    for crypto in [Crypto::Off, Crypto::Real] {
        let mut pair = Pair::open(crypto);
        group.bench_function(
            format!("send, deliver, ack, receipt; signatures {crypto:?}"),
            |b| b.iter(|| pair.cycle(100)),
        );
    }
    for waiting in [8, 32] {
        let mut pair = Pair::open(Crypto::Real);
        group.throughput(Throughput::Elements(waiting));
        let n = usize::try_from(waiting).expect("a few");
        group.bench_function(
            format!("{waiting} that wait together; signatures Real"),
            |b| b.iter(|| pair.burst(n, 100)),
        );
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("yardstick: quinn-proto, 100 B to the reader", |b| {
        let mut quic = Quic::open();
        b.iter(|| quic.carry(100));
    });
    group.finish();
}

fn outbox(c: &mut Cpu) {
    let mut group = c.benchmark_group("outbox");
    let sizes: &[u64] = if benches::measuring() {
        &[100, 1_000]
    } else {
        &[100]
    };
    for &n in sizes {
        group.throughput(Throughput::Elements(n));
        group.bench_function(BenchmarkId::new("replay after a reconnect", n), |b| {
            b.iter_batched(
                || {
                    let mut pair = Pair::open(Crypto::Off);
                    let down = chat_core::link::LinkEvent::Down {
                        reason: chat_core::link::DownReason::Lost,
                        retry_after: None,
                    };
                    pair.alice.handle_link(&down, pair.now);
                    drain(&mut pair.alice, pair.now, &mut Drained::default());
                    for i in 0..n {
                        let content = Content::text("x".repeat(64));
                        pair.alice
                            .send(pair.conv, txn(i), content, pair.now)
                            .expect("open");
                    }
                    pair
                },
                |mut pair| {
                    for _ in 0..10_000 {
                        pair.now = pair.now + Duration::from_millis(250);
                        pair.alice.handle_timeout(pair.now);
                        pair.bob.handle_timeout(pair.now);
                        pair.settle();
                        if pair.alice.stats().outbox == 0 {
                            return pair;
                        }
                    }
                    panic!("the outbox did not drain")
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Two quinn-proto endpoints joined in memory, one stream open from client to server.
struct Quic {
    client: (
        quinn_proto::Endpoint,
        quinn_proto::ConnectionHandle,
        quinn_proto::Connection,
    ),
    server: (
        quinn_proto::Endpoint,
        quinn_proto::ConnectionHandle,
        quinn_proto::Connection,
    ),
    stream: quinn_proto::StreamId,
    started: bool,
    now: Instant,
}

impl Quic {
    fn open() -> Self {
        use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let cert = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a name");
        let der = cert.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(cert.signing_key.serialize_der().into());
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .expect("a fresh certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der).expect("a fresh certificate");
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("known versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = quinn_proto::ServerConfig::with_crypto(Arc::new(
            QuicServerConfig::try_from(server).expect("has an initial suite"),
        ));
        let client = quinn_proto::ClientConfig::new(Arc::new(
            QuicClientConfig::try_from(client).expect("has an initial suite"),
        ));
        let config = Arc::new(quinn_proto::EndpointConfig::default());
        let mut near = quinn_proto::Endpoint::new(config.clone(), None, false, None);
        let mut far = quinn_proto::Endpoint::new(config, Some(Arc::new(server)), false, None);
        let now = Instant::now();
        let (far_addr, near_addr) = (address(1), address(2));
        let (near_handle, mut near_conn) = near
            .connect(now, client, far_addr, "localhost")
            .expect("valid");
        let mut accepted: Option<(quinn_proto::ConnectionHandle, quinn_proto::Connection)> = None;
        let mut buf = Vec::new();
        for _ in 0..50 {
            while let Some(t) = near_conn.poll_transmit(now, 1, &mut buf) {
                let datagram = BytesMut::from(&buf[..t.size]);
                buf.clear();
                let mut reply = Vec::new();
                match far.handle(now, near_addr, None, None, datagram, &mut reply) {
                    Some(quinn_proto::DatagramEvent::NewConnection(incoming)) => {
                        accepted =
                            Some(far.accept(incoming, now, &mut reply, None).expect("valid"));
                    }
                    Some(quinn_proto::DatagramEvent::ConnectionEvent(_, event)) => {
                        accepted.as_mut().expect("accepted").1.handle_event(event);
                    }
                    _ => {}
                }
            }
            if let Some((handle, conn)) = &mut accepted {
                shuttle(now, conn, &mut near, &mut near_conn, far_addr);
                events(&mut far, *handle, conn);
            }
            events(&mut near, near_handle, &mut near_conn);
        }
        let (far_handle, far_conn) = accepted.expect("the handshake reached the server");
        let stream = near_conn
            .streams()
            .open(quinn_proto::Dir::Uni)
            .expect("the handshake is done");
        Self {
            client: (near, near_handle, near_conn),
            server: (far, far_handle, far_conn),
            stream,
            started: false,
            now,
        }
    }

    fn carry(&mut self, len: usize) {
        let payload = vec![7u8; len];
        let mut written = 0;
        while written < len {
            written += self
                .client
                .2
                .send_stream(self.stream)
                .write(&payload[written..])
                .expect("flow control keeps up");
        }
        let mut read = 0;
        while read < len {
            shuttle(
                self.now,
                &mut self.client.2,
                &mut self.server.0,
                &mut self.server.2,
                address(2),
            );
            events(&mut self.server.0, self.server.1, &mut self.server.2);
            if !self.started {
                self.started = self
                    .server
                    .2
                    .streams()
                    .accept(quinn_proto::Dir::Uni)
                    .is_some();
            }
            read += self.read();
            shuttle(
                self.now,
                &mut self.server.2,
                &mut self.client.0,
                &mut self.client.2,
                address(1),
            );
            events(&mut self.client.0, self.client.1, &mut self.client.2);
            self.now += Duration::from_millis(1);
            self.client.2.handle_timeout(self.now);
            self.server.2.handle_timeout(self.now);
        }
    }

    fn read(&mut self) -> usize {
        let mut stream = self.server.2.recv_stream(self.stream);
        let Ok(mut chunks) = stream.read(true) else {
            return 0;
        };
        let mut total = 0;
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            let bytes: Bytes = chunk.bytes;
            total += bytes.len();
        }
        let _ = chunks.finalize();
        total
    }
}

fn address(n: u8) -> std::net::SocketAddr {
    ([127, 0, 0, n], 4_433).into()
}

fn shuttle(
    now: Instant,
    from: &mut quinn_proto::Connection,
    to: &mut quinn_proto::Endpoint,
    to_conn: &mut quinn_proto::Connection,
    from_addr: std::net::SocketAddr,
) {
    let mut buf = Vec::with_capacity(1_500);
    while let Some(t) = from.poll_transmit(now, 1, &mut buf) {
        let datagram = BytesMut::from(&buf[..t.size]);
        buf.clear();
        let mut reply = Vec::new();
        if let Some(quinn_proto::DatagramEvent::ConnectionEvent(_, event)) =
            to.handle(now, from_addr, None, None, datagram, &mut reply)
        {
            to_conn.handle_event(event);
        }
    }
}

fn events(
    endpoint: &mut quinn_proto::Endpoint,
    handle: quinn_proto::ConnectionHandle,
    conn: &mut quinn_proto::Connection,
) {
    while let Some(event) = conn.poll_endpoint_events() {
        if let Some(event) = endpoint.handle_event(handle, event) {
            conn.handle_event(event);
        }
    }
    while conn.poll().is_some() {}
}

criterion_group! {
    name = all;
    config = benches::criterion();
    targets = session, send, receive, cycle, outbox
}
criterion_main!(all);
