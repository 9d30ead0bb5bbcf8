//! The core: negotiation, send, receive, the whole cycle, replay of an outbox, and growth with
//! the number of conversations. Signatures are left out but for one row. Yardsticks in the same
//! run: rumqttc's QoS 1 state and quinn-proto carrying 100 bytes to its reader.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::{Crypto, Drained, Pair, drain, endpoint};
use bytes::{Bytes, BytesMut};
use chat_core::content::Content;
use chat_core::id::{ConvId, TxnId, UserId};
use chat_core::session::SessionEvent;
use chat_core::time::Timestamp;
use chat_core::{Endpoint, Event};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn txn(n: u64) -> TxnId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    TxnId(id)
}

fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.bench_function("request, accept, confirm", |b| {
        b.iter_batched(
            || {
                (
                    endpoint("alice", 1, Crypto::Off),
                    endpoint("bob", 2, Crypto::Off),
                )
            },
            |_| Pair::open(Crypto::Off),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Alice with `n` open conversations.
fn busy(n: u32) -> (Endpoint, Vec<ConvId>, Timestamp) {
    let now = Timestamp::from_secs(2);
    let mut alice = endpoint("alice", 1, Crypto::Off);
    let mut bob = endpoint("bob", 2, Crypto::Off);
    let mut drained = Drained::default();
    drain(&mut alice, now, &mut drained);
    drain(&mut bob, now, &mut drained);
    let mut convs = Vec::new();
    for i in 0..n {
        // Each peer is a stranger that asks; its frames are bob's under another name.
        let peer = peer(i);
        let invite = ask(&mut alice, &peer, i, now);
        convs.push(alice.accept(invite, now).expect("the request stands"));
        drain(&mut alice, now, &mut Drained::default());
    }
    (alice, convs, now)
}

fn peer(i: u32) -> UserId {
    UserId::new(&format!("peer-{i}")).expect("a valid name")
}

fn ask(alice: &mut Endpoint, peer: &UserId, i: u32, now: Timestamp) -> chat_core::id::InviteId {
    use chat_core::channel::Channel;
    use chat_core::identity::PublicKey;
    use chat_core::wire::{self, BoundedStr, session::Request};
    let mut key = [9; 32];
    key[..4].copy_from_slice(&i.to_le_bytes());
    let mut invite = [1; 16];
    invite[..4].copy_from_slice(&i.to_le_bytes());
    let body = Request {
        invite,
        secret: [2; 32],
        to: BoundedStr::truncated("alice"),
        note: BoundedStr::default(),
        ttl_ms: 86_400_000,
        sent_at: 1_800_000_000_000,
    };
    let channel = Channel::Inbox(alice.user().clone());
    let signer = benches::NoCrypto(PublicKey(key));
    let frame = wire::encode(&body.into(), peer, &channel, &signer).expect("it fits");
    alice.handle_inbound(&channel, &frame, true, now);
    let mut drained = Drained::default();
    drain(alice, now, &mut drained);
    drained
        .events
        .iter()
        .find_map(|event| match event {
            Event::Session(SessionEvent::Requested { invite, .. }) => Some(*invite),
            _ => None,
        })
        .expect("the request is shown")
}

fn send(c: &mut Criterion) {
    let mut group = c.benchmark_group("send");
    for n in [10u32, 1_000, 100_000] {
        let (mut alice, convs, now) = busy(n);
        let mut i = 0u64;
        group.bench_function(BenchmarkId::new("text 64 B, conversations", n), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    // Spread over the conversations, and never beyond a window: what piles up is
                    // another bench.
                    let conv = convs[(i % convs.len() as u64) as usize];
                    i += 1;
                    let content = Content::text("x".repeat(64));
                    let start = Instant::now();
                    let id = alice.send(conv, txn(i), content, now);
                    drain(&mut alice, now, &mut Drained::default());
                    spent += start.elapsed();
                    alice.cancel_send(&id.expect("open"), now);
                    drain(&mut alice, now, &mut Drained::default());
                    if alice.stats().outbox > 5_000 {
                        // Acknowledging is measured elsewhere; start over.
                        alice = busy(n).0;
                    }
                }
                spent
            });
        });
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

fn cycle(c: &mut Criterion) {
    let mut group = c.benchmark_group("cycle");
    group.throughput(Throughput::Elements(1));
    for crypto in [Crypto::Off, Crypto::Real] {
        let mut pair = Pair::open(crypto);
        group.bench_function(
            format!("send, deliver, ack, receipt; signatures {crypto:?}"),
            |b| b.iter(|| pair.cycle(100)),
        );
    }
    group.bench_function("yardstick: quinn-proto, 100 B to the reader", |b| {
        let mut quic = Quic::open();
        b.iter(|| quic.carry(100));
    });
    group.finish();
}

fn outbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox");
    for n in [100u64, 1_000] {
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
    config = Criterion::default().sample_size(20);
    targets = session, send, cycle, outbox
}
criterion_main!(all);
