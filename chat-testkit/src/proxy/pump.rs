//! Moves the bytes of one connection, as the line allows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Direction, Line, State};

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Chunks under way in one direction; then nothing more is read.
const UNDER_WAY: usize = 16;
/// How many pieces a second a limited line is cut into.
const PIECES: u32 = 50;

/// What a connection has moved since the line was last set.
#[derive(Default)]
struct Meter {
    sets: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// How many of `wanted` bytes may still go, when the connection ends after `limit`.
    fn take(&self, sets: u64, limit: u64, wanted: usize) -> usize {
        if self.sets.swap(sets, Ordering::Relaxed) != sets {
            self.bytes.store(0, Ordering::Relaxed);
        }
        let wanted = wanted as u64;
        let before = self.bytes.fetch_add(wanted, Ordering::Relaxed);
        let granted = limit.saturating_sub(before).min(wanted);
        usize::try_from(granted).expect("no more than was wanted")
    }
}

/// What was read from one side.
enum Piece {
    Bytes(Vec<u8>),
    /// It has nothing more to say.
    Goodbye,
    /// It broke the connection.
    Broken,
}

/// Runs until both sides have said goodbye; an error when one of them broke the connection, or
/// the line did.
pub(super) async fn both(
    client: &mut TcpStream,
    server: &mut TcpStream,
    state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let meter = Meter::default();
    let up = pump(from_client, to_server, Direction::Up, state.clone(), &meter);
    let down = pump(from_server, to_client, Direction::Down, state, &meter);
    tokio::try_join!(up, down).map(|_| ())
}

async fn pump(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    direction: Direction,
    state: watch::Receiver<State>,
    meter: &Meter,
) -> std::io::Result<()> {
    let (pieces, queue) = mpsc::channel(UNDER_WAY);
    let writer = Writer {
        to,
        direction,
        state,
        meter,
    };
    let read = async {
        read(from, pieces).await;
        Ok(())
    };
    // A broken writer does not wait for its reader.
    tokio::try_join!(read, writer.run(queue)).map(|_| ())
}

/// Also an end takes as long as the bytes before it: the writer learns it from the queue.
async fn read(mut from: impl AsyncRead + Unpin, pieces: mpsc::Sender<(Instant, Piece)>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let piece = match from.read(&mut buffer).await {
            Ok(0) => Piece::Goodbye,
            Ok(count) => Piece::Bytes(buffer[..count].to_vec()),
            Err(_) => Piece::Broken,
        };
        let last = !matches!(piece, Piece::Bytes(_));
        if pieces.send((Instant::now(), piece)).await.is_err() || last {
            return;
        }
    }
}

struct Writer<'a, W> {
    to: W,
    direction: Direction,
    state: watch::Receiver<State>,
    meter: &'a Meter,
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    async fn run(mut self, mut queue: mpsc::Receiver<(Instant, Piece)>) -> std::io::Result<()> {
        while let Some((read_at, piece)) = queue.recv().await {
            match piece {
                Piece::Bytes(bytes) => self.write(read_at, &bytes).await?,
                Piece::Goodbye => {
                    self.passable(read_at).await;
                    self.to.shutdown().await?;
                }
                Piece::Broken => {
                    self.passable(read_at).await;
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        Ok(())
    }

    /// Waits until something read at `read_at` may pass; returns how the line is then.
    async fn passable(&mut self, read_at: Instant) -> State {
        loop {
            let state = *self.state.borrow_and_update();
            let opens = match state.line {
                Line::Dead => None,
                Line::OneWay(open) if open != self.direction => None,
                Line::Slow(delay) => Some(read_at + delay),
                _ => return state,
            };
            if opens.is_some_and(|opens| opens <= Instant::now()) {
                return state;
            }
            tokio::select! {
                () = sleep_until(opens.unwrap_or_else(Instant::now)), if opens.is_some() => {}
                changed = self.state.changed() => {
                    if changed.is_err() {
                        // The proxy is gone, and this with it in a moment.
                        core::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    async fn write(&mut self, read_at: Instant, mut rest: &[u8]) -> std::io::Result<()> {
        while !rest.is_empty() {
            let State { line, sets, .. } = self.passable(read_at).await;
            let (count, pause) = match line {
                Line::Rate(rate) => {
                    let count = (rate / PIECES).max(1);
                    let pause = Duration::from_secs(1) * count / rate.max(1);
                    (rest.len().min(count as usize), Some(pause))
                }
                Line::Dribble(pause) => (1, Some(pause)),
                Line::ResetAfter(limit) => (self.meter.take(sets, limit, rest.len()), None),
                _ => (rest.len(), None),
            };
            self.to.write_all(&rest[..count]).await?;
            if matches!(line, Line::ResetAfter(_)) && count < rest.len() {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            rest = &rest[count..];
            if let Some(pause) = pause {
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = self.state.changed() => {}
                }
            }
        }
        Ok(())
    }
}
