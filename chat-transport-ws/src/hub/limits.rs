//! What a hub allows. Every queue and table has its bound here.

use core::time::Duration;

/// The limits of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest payload. At most [`MAX_FRAME`](crate::proto::MAX_FRAME).
    pub max_frame: usize,
    /// The hub pings this often; a connection silent for two intervals is dead.
    pub ping: Duration,
    /// The whole handshake, and then the first frame, must come within this.
    pub handshake: Duration,
    /// A connection whose socket takes nothing for this long is closed.
    pub flush: Duration,
    /// Bytes queued for one connection; beyond them durable frames wait in the log and ephemeral
    /// ones replace each other.
    pub queue_bytes: usize,
    /// Frames queued for one connection.
    pub queue_frames: usize,
    /// Durable frames kept per channel; beyond them the oldest is dropped and a gap told (Q5).
    pub mailbox_frames: usize,
    /// Bytes of durable frames kept per channel.
    pub mailbox_bytes: usize,
    /// A frame older than this is dropped with a gap; a session away longer is forgotten.
    pub mailbox_age: Duration,
    /// Bytes kept in all; beyond them durable frames are refused.
    pub stored_bytes: usize,
    /// Sessions kept; beyond them new devices are asked to try later.
    pub sessions: usize,
    /// Channels known.
    pub channels: usize,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Open connections.
    pub connections: usize,
    /// Open connections from one address.
    pub connections_per_ip: usize,
    /// Open connections of one user.
    pub connections_per_user: usize,
    /// Frames that one connection may publish per second, on average; 0: as many as it likes.
    /// Announced; what comes faster is refused and told when to come back.
    pub publish_per_second: u32,
    /// Frames that it may publish at once after a pause.
    pub publish_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: crate::proto::MAX_FRAME,
            ping: Duration::from_secs(20),
            handshake: Duration::from_secs(5),
            flush: Duration::from_secs(10),
            queue_bytes: 256 * 1024,
            queue_frames: 1024,
            mailbox_frames: 10_000,
            mailbox_bytes: 16 * 1024 * 1024,
            mailbox_age: Duration::from_secs(30 * 24 * 60 * 60),
            stored_bytes: 512 * 1024 * 1024,
            sessions: 100_000,
            channels: 200_000,
            subscriptions: 4096,
            connections: 10_000,
            connections_per_ip: 256,
            connections_per_user: 64,
            publish_per_second: 2_000,
            publish_burst: 20_000,
        }
    }
}
