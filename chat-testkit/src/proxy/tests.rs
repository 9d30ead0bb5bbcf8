use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);
/// Long enough for bytes on a good line, short enough to wait for in vain.
const SHORT: Duration = Duration::from_millis(50);

async fn within<T>(future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.expect("within the deadline")
}

/// A proxy with one connection through it.
struct Pair {
    proxy: Proxy,
    broker: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    async fn new() -> Self {
        let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(broker.local_addr().unwrap()).await.unwrap();
        let (client, server) = connect(&proxy, &broker).await;
        Self {
            proxy,
            broker,
            client,
            server,
        }
    }
}

async fn connect(proxy: &Proxy, broker: &TcpListener) -> (TcpStream, TcpStream) {
    let client = within(TcpStream::connect(proxy.address())).await.unwrap();
    let (server, _) = within(broker.accept()).await.unwrap();
    (client, server)
}

async fn read(from: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    within(from.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Reads until the end; true when it is a goodbye.
async fn end(from: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let goodbye = within(from.read_to_end(&mut bytes)).await.is_ok();
    (bytes, goodbye)
}

/// Nothing comes for a while, not even an end.
async fn silent(from: &mut TcpStream) -> bool {
    let read = from.read_u8();
    tokio::time::timeout(SHORT, read).await.is_err()
}

#[tokio::test]
async fn a_good_line_carries_both_ways_and_the_goodbye() {
    let mut pair = Pair::new().await;
    let long = vec![7; 1_000_000];
    let (sent, got) = tokio::join!(
        pair.client.write_all(&long),
        read(&mut pair.server, long.len())
    );
    sent.unwrap();
    assert_eq!(got, long);
    pair.server.write_all(b"yes").await.unwrap();
    drop(pair.server);
    assert_eq!(end(&mut pair.client).await, (b"yes".to_vec(), true));
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_nothing_else() {
    let mut pair = Pair::new().await;
    pair.proxy.cut();
    assert!(!end(&mut pair.client).await.1);
    assert!(!end(&mut pair.server).await.1);
    let (mut client, mut server) = connect(&pair.proxy, &pair.broker).await;
    client.write_all(b"on").await.unwrap();
    assert_eq!(read(&mut server, 2).await, b"on");
}

#[tokio::test]
async fn a_refusing_line_cuts_takes_nobody_and_opens_again() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Refused);
    assert!(!end(&mut pair.client).await.1);
    let refused = within(async {
        loop {
            if let Err(error) = TcpStream::connect(pair.proxy.address()).await {
                return error.kind();
            }
        }
    });
    assert_eq!(refused.await, std::io::ErrorKind::ConnectionRefused);
    pair.proxy.set(Line::Open);
    within(async { while TcpStream::connect(pair.proxy.address()).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_dead_line_moves_nothing_and_loses_nothing() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Dead);
    pair.client.write_all(b"late").await.unwrap();
    assert!(silent(&mut pair.server).await);
    // Also a new connection looks alive and is not.
    let (mut second, mut behind) = connect(&pair.proxy, &pair.broker).await;
    behind.write_all(b"hello").await.unwrap();
    assert!(silent(&mut second).await);
    pair.proxy.set(Line::Open);
    assert_eq!(read(&mut pair.server, 4).await, b"late");
    assert_eq!(read(&mut second, 5).await, b"hello");
}

#[tokio::test]
async fn a_dead_line_hides_the_end_of_the_other_side() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Dead);
    pair.client.set_zero_linger().unwrap();
    drop(pair.client);
    assert!(silent(&mut pair.server).await);
    pair.proxy.set(Line::Open);
    assert!(!end(&mut pair.server).await.1);
}

#[tokio::test]
async fn one_way_moves_one_way() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::OneWay(Direction::Up));
    pair.client.write_all(b"up").await.unwrap();
    pair.server.write_all(b"down").await.unwrap();
    assert_eq!(read(&mut pair.server, 2).await, b"up");
    assert!(silent(&mut pair.client).await);
    pair.proxy.set(Line::OneWay(Direction::Down));
    assert_eq!(read(&mut pair.client, 4).await, b"down");
}

#[tokio::test]
async fn a_slow_line_delays_every_byte_alike() {
    let mut pair = Pair::new().await;
    let delay = Duration::from_millis(500);
    pair.proxy.set(Line::Slow(delay));
    let start = Instant::now();
    for _ in 0..10 {
        pair.client.write_all(b"x").await.unwrap();
    }
    assert_eq!(read(&mut pair.server, 10).await, b"xxxxxxxxxx");
    let took = start.elapsed();
    assert!(took >= delay, "{took:?}");
    assert!(took < delay * 9, "a delay is no rate: {took:?}");
}

#[tokio::test]
async fn a_limited_rate_holds_back_and_a_change_frees_at_once() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Rate(10_000));
    let start = Instant::now();
    pair.client.write_all(&[1; 2_000]).await.unwrap();
    read(&mut pair.server, 1_000).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(70), "{took:?}");
    pair.proxy.set(Line::Rate(1));
    pair.proxy.set(Line::Open);
    read(&mut pair.server, 1_000).await;
}

#[tokio::test]
async fn a_dribble_comes_byte_by_byte() {
    let mut pair = Pair::new().await;
    pair.proxy.set(Line::Dribble(Duration::from_millis(5)));
    let start = Instant::now();
    pair.client.write_all(&[1; 20]).await.unwrap();
    let mut largest = 0;
    let mut got = 0;
    let mut buffer = [0; 64];
    while got < 20 {
        let count = within(pair.server.read(&mut buffer)).await.unwrap();
        largest = largest.max(count);
        got += count;
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(19 * 5), "{took:?}");
    assert!(largest < 20, "{largest} bytes at once");
}

#[tokio::test]
async fn a_reset_in_the_midst_comes_after_that_many_bytes_of_every_connection() {
    let mut pair = Pair::new().await;
    pair.client.write_all(b"before").await.unwrap();
    assert_eq!(read(&mut pair.server, 6).await, b"before");
    pair.proxy.set(Line::ResetAfter(5));
    pair.client.write_all(b"a frame").await.unwrap();
    assert_eq!(end(&mut pair.server).await, (b"a fra".to_vec(), false));
    assert!(!end(&mut pair.client).await.1);
    let (mut client, mut server) = connect(&pair.proxy, &pair.broker).await;
    client.write_all(b"again").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"again");
    server.write_all(b"no").await.unwrap();
    assert_eq!(end(&mut client).await, (Vec::new(), false));
}

#[tokio::test]
async fn a_broker_that_is_down_resets() {
    let pair = Pair::new().await;
    drop(pair.broker);
    let mut client = within(TcpStream::connect(pair.proxy.address()))
        .await
        .unwrap();
    assert!(!end(&mut client).await.1);
}
