//! One simulated device: an endpoint with its clock, its disk and its connection. It holds state;
//! the world drives it.

use std::collections::VecDeque;

use chat_core::id::{DeviceId, MessageId, UserId};
use chat_core::{Endpoint, Output, PersistId};

use super::clock::NodeClock;
use super::disk::{Disk, Rows};
use super::event::Input;

/// A device and everything around it.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its place in the world.
    pub(crate) index: usize,
    /// The user's number.
    pub(crate) user_index: usize,
    /// The user.
    pub(crate) user: UserId,
    /// Numbers devices over the whole run; a lost disk means a new one.
    pub(crate) device_number: u64,
    /// The device.
    pub(crate) device: DeviceId,
    /// The broker it uses.
    pub(crate) broker: usize,
    /// The running process.
    pub(crate) endpoint: Option<Endpoint>,
    /// Counts processes: what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    /// It never comes back.
    pub(crate) killed: bool,
    /// Its disk was lost once: the directory names its device.
    pub(crate) replaced: bool,
    /// The application wants to be online.
    pub(crate) wanted: bool,
    /// The latest message it sent.
    pub(crate) last_sent: Option<MessageId>,
    /// Its clocks.
    pub(crate) clock: NodeClock,
    /// Its disk.
    pub(crate) disk: Disk,
    /// A backup of the disk.
    pub(crate) backup: Option<Rows>,
    /// The highest batch known to be durable in this life.
    pub(crate) durable: Option<PersistId>,
    /// Outputs that wait for a batch.
    pub(crate) held: VecDeque<(PersistId, Output)>,
    /// An fsync is under way.
    pub(crate) syncing: bool,
    /// Fsyncs take this long (µs) until `slow_until`.
    pub(crate) slow_fsync: u64,
    /// See `slow_fsync`.
    pub(crate) slow_until: u64,
    /// Writes are refused until then.
    pub(crate) full_until: u64,
    /// The next fsync fails; start again after this many ms.
    pub(crate) fail_fsync: Option<u64>,
    /// Crash after so many effects, start again after so many ms.
    pub(crate) crash_in: Option<(u32, u64)>,
    /// When the endpoint wants to be called (true time).
    pub(crate) wake_at: u64,
    /// The current connection or attempt.
    pub(crate) conn: Option<u64>,
    /// That connection is up.
    pub(crate) up: bool,
    /// Numbers connections.
    pub(crate) next_conn: u64,
    /// Stands still until then.
    pub(crate) paused_until: u64,
    /// What came while it stood still.
    pub(crate) backlog: VecDeque<Input>,
    /// Frames from it are lost until then.
    pub(crate) cut_up: u64,
    /// Frames to it are lost until then.
    pub(crate) cut_down: u64,
    /// Frames wait until then.
    pub(crate) clogged: u64,
    /// The broker takes none of its messages until then.
    pub(crate) barred_until: u64,
    /// Uplink order.
    pub(crate) last_up: u64,
    /// Downlink order, per publisher.
    pub(crate) last_down: Vec<u64>,
    /// Wakes in the current second, to find hot loops.
    pub(crate) wakes: (u64, u32),
    /// Outputs since the last input.
    pub(crate) burst: u32,
}

impl Node {
    /// A device that never ran.
    pub(crate) fn new(
        index: usize,
        user_index: usize,
        user: UserId,
        broker: usize,
        clock: NodeClock,
        nodes: usize,
    ) -> Self {
        Self {
            index,
            user_index,
            user,
            device_number: 0,
            device: DeviceId([0; 32]),
            broker,
            endpoint: None,
            life: 0,
            killed: false,
            replaced: false,
            wanted: false,
            last_sent: None,
            clock,
            disk: Disk::default(),
            backup: None,
            durable: None,
            held: VecDeque::new(),
            syncing: false,
            slow_fsync: 0,
            slow_until: 0,
            full_until: 0,
            fail_fsync: None,
            crash_in: None,
            wake_at: u64::MAX,
            conn: None,
            up: false,
            next_conn: 1,
            paused_until: 0,
            backlog: VecDeque::new(),
            cut_up: 0,
            cut_down: 0,
            clogged: 0,
            barred_until: 0,
            last_up: 0,
            last_down: vec![0; nodes + 1],
            wakes: (0, 0),
            burst: 0,
        }
    }

    /// Clears everything that dies with the process.
    pub(crate) fn clear_process(&mut self) {
        self.endpoint = None;
        self.life += 1;
        self.durable = None;
        self.held.clear();
        self.syncing = false;
        self.fail_fsync = None;
        self.crash_in = None;
        self.wake_at = u64::MAX;
        self.up = false;
        self.backlog.clear();
        self.paused_until = 0;
    }
}
