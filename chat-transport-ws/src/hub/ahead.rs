//! Reads more of a socket than was asked for, and keeps the rest until it is asked for.
//!
//! A WebSocket reads into a buffer that it keeps as long as it lives, so a hub with many connections
//! that mostly rest gives it a small one. Here a burst is one read all the same, and a connection
//! that rests holds nothing.

use core::mem::MaybeUninit;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that one read brings, and that waits.
const AHEAD: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct ReadAhead<S> {
    io: S,
    rest: Bytes,
}

impl<S> ReadAhead<S> {
    pub(super) fn new(io: S) -> Self {
        let rest = Bytes::new();
        Self { io, rest }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            let now = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest[..now]);
            self.rest.advance(now);
            if self.rest.is_empty() {
                self.rest = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let mut space = [const { MaybeUninit::uninit() }; AHEAD];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let read = read.filled();
        let (now, rest) = read.split_at(read.len().min(buf.remaining()));
        buf.put_slice(now);
        if !rest.is_empty() {
            self.rest = Bytes::copy_from_slice(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_in_order_and_is_not_kept() {
        let (mut there, here) = tokio::io::duplex(64 * 1024);
        let sent: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        there.write_all(&sent).await.unwrap();
        drop(there);
        let mut here = ReadAhead::new(here);
        let (mut all, mut some) = (Vec::new(), [0; 300]);
        loop {
            let n = here.read(&mut some).await.unwrap();
            if n == 0 {
                break;
            }
            all.extend_from_slice(&some[..n]);
            assert!(here.rest.len() < AHEAD);
        }
        assert_eq!(all, sent);
        assert!(here.rest.is_empty());
    }
}
