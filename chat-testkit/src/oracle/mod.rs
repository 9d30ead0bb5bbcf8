//! What must hold in every run, judged from the outside: commands given, events told, frames on
//! the wire, disks lost. Nothing here shares code with the machines of `chat-core`.

mod agreement;
mod always;
mod branches;
pub(crate) mod certificate;
pub(crate) mod chain;
mod conduct;
mod delivery;
pub(crate) mod entry;
mod groups;
mod lobby;
mod marks;
mod order;
mod presence;
mod sessions;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::delivery::TimelineItem;
use chat_core::effect::{Row, RowOp, Table};
use chat_core::id::{ConvId, DeviceId, GroupId, InviteId, LobbyName, MessageId, UserId};
use chat_core::time::Timestamp;
use chat_core::{Endpoint, Event, Transmit};

pub use always::Always;
pub use delivery::Delivery;
pub use groups::Groups;
pub use lobby::Lobby;
pub use order::Order;
pub use presence::Presence;
pub use sessions::Sessions;

use marks::Marks;

use crate::sim::{Ledger, Rows, Suite, Swarm, rows_of};

/// An invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, as reliability.md names it, or the rule of semantics.md.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
}

impl Violation {
    /// A violation of `rule`.
    pub fn new(rule: &'static str, text: impl Into<String>) -> Self {
        Self {
            rule,
            text: text.into(),
        }
    }
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// What an oracle says of one observation.
pub type Verdict = Result<(), Violation>;

/// Where and when something was seen.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// True time, µs.
    pub now: u64,
    /// The node's monotonic time.
    pub mono: Timestamp,
    /// The node.
    pub node: usize,
    /// Its user.
    pub user: &'a UserId,
    /// Its device.
    pub device: DeviceId,
}

/// A command that the endpoint took.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the arguments of the endpoint's commands of the same name
pub enum Act {
    Connect,
    Disconnect,
    Request {
        peer: UserId,
        invite: InviteId,
    },
    Accept {
        invite: InviteId,
    },
    Reject {
        invite: InviteId,
        silent: bool,
    },
    Cancel {
        invite: InviteId,
    },
    Close {
        peer: UserId,
    },
    Block {
        peer: UserId,
    },
    Unblock {
        peer: UserId,
    },
    /// `to` names the devices that the sender's own view says it is for.
    Send {
        conv: ConvId,
        id: MessageId,
        body: String,
        to: Vec<(UserId, DeviceId)>,
    },
    CancelSend {
        id: MessageId,
    },
    Created {
        group: GroupId,
    },
    Renamed {
        group: GroupId,
        name: String,
    },
    Join {
        group: GroupId,
    },
    Withdraw {
        group: GroupId,
    },
    Kick {
        group: GroupId,
        user: UserId,
    },
    Leave {
        group: GroupId,
    },
}

/// Something seen at one node.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A process started.
    Started,
    /// The process died.
    Died,
    /// The disk was copied.
    BackedUp,
    /// The disk went back to the copy.
    RolledBack,
    /// The disk is empty and the device is new.
    DiskLost,
    /// The node is gone for good.
    Killed,
    /// A command was taken.
    Act(&'a Act),
    /// The endpoint wants a frame sent (it may still wait for a batch).
    Transmit(&'a Transmit),
    /// The frame leaves now.
    Sent(&'a Transmit),
    /// The endpoint wants the application told (it may still wait for a batch).
    Queued(&'a Event),
    /// The application was told.
    Event(&'a Event),
    /// Rows became durable, as one transaction.
    Stored(&'a [RowOp]),
    /// A frame is handed to the endpoint.
    Arrives(&'a Channel, &'a [u8], bool),
}

/// A node as the oracles see it between events.
#[derive(Debug)]
pub struct View<'a> {
    /// Where and when.
    pub at: At<'a>,
    /// The running process; `None` while it is down.
    pub endpoint: Option<&'a Endpoint>,
    /// It never comes back.
    pub killed: bool,
    /// Stands still now.
    pub paused: bool,
    /// Its durable rows.
    pub(crate) rows: &'a Rows,
}

impl<'a> View<'a> {
    /// The durable rows of `table` whose keys begin with `prefix`, in the order of their keys.
    fn rows_of(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> + use<'a> {
        rows_of(self.rows, table, prefix)
    }

    /// What its disk shows of the conversations whose ids begin with `conv`.
    fn timeline(&self, conv: &[u8]) -> impl Iterator<Item = TimelineItem> + use<'a> {
        self.rows_of(Table::Timeline, conv)
            .filter_map(|(key, value)| {
                let row = Row {
                    table: Table::Timeline,
                    key: key.clone(),
                    value: value.clone(),
                };
                chat_core::delivery::Delivery::read_timeline(&row).ok()
            })
    }
}

/// Why a run that did not converge is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Everything converged.
    Yes,
    /// It cannot: not enough members are left. Counted, not hidden.
    Exempt,
}

/// All oracles of a run.
#[derive(Debug)]
pub struct Oracles {
    suite: Suite,
    always: Always,
    delivery: Delivery,
    sessions: Sessions,
    presence: Presence,
    groups: Groups,
    order: Order,
    lobby: Lobby,
}

impl Oracles {
    /// For a run of `swarm`.
    pub fn new(swarm: &Swarm, lobby: LobbyName, ledger: std::sync::Arc<Ledger>) -> Self {
        let config = swarm.config();
        Self {
            suite: swarm.suite,
            always: Always::new(&config),
            delivery: Delivery::new(swarm.users.len(), ledger.clone()),
            sessions: Sessions::default(),
            presence: Presence::new(&config.presence, ledger.clone()),
            groups: Groups::new(
                ledger,
                &config.group,
                swarm.calm,
                (swarm.safety_ms + 900_000) * 1_000,
            ),
            order: Order::default(),
            lobby: Lobby::new(lobby),
        }
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        // The families whose frames are decoded a second time are judged where they matter.
        self.sessions.see(at, seen)?;
        self.order.see(at, seen)?;
        match self.suite {
            Suite::Delivery | Suite::Sessions => self.delivery.see(at, seen),
            Suite::Presence => {
                self.lobby.see(at, seen)?;
                self.presence.see(at, seen)
            }
            Suite::Groups | Suite::Strict | Suite::Siege => {
                self.delivery.see(at, seen)?;
                self.groups.see(at, seen)
            }
        }
    }

    /// Judges all nodes at one moment.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn probe(&mut self, nodes: &[View<'_>]) -> Verdict {
        self.always.probe(nodes)?;
        self.order.probe(nodes)?;
        match self.suite {
            Suite::Delivery | Suite::Sessions => Ok(()),
            Suite::Presence => self.presence.probe(nodes),
            Suite::Groups | Suite::Strict | Suite::Siege => self.groups.probe(nodes),
        }
    }

    /// Whether everything converged, some time after the last fault.
    ///
    /// # Errors
    /// What is still missing.
    pub fn settled(&mut self, nodes: &[View<'_>]) -> Result<Settled, Violation> {
        let settled = match self.suite {
            Suite::Delivery => self.delivery.settled(nodes)?,
            Suite::Sessions => {
                self.sessions.settled(nodes)?;
                self.delivery.settled(nodes)?
            }
            Suite::Presence => {
                self.lobby.settled(nodes)?;
                self.presence.settled(nodes)?
            }
            Suite::Groups | Suite::Strict | Suite::Siege => {
                let groups = self.groups.settled(nodes)?;
                self.delivery.settled(nodes)?;
                groups
            }
        };
        self.order.settled(nodes)?;
        Ok(settled)
    }

    /// How many messages were owed to somebody at the end, and how many of those are missing for a
    /// legal reason.
    pub fn exempt(&self) -> (u64, u64) {
        self.delivery.exempt()
    }

    /// What the log that ends with this entry folds to, by the second judge.
    pub(crate) fn fold(&mut self, head: entry::Hash) -> Option<certificate::Fold> {
        self.groups.fold(head)
    }

    /// The entry at `index` of the log that ends with this entry.
    pub(crate) fn entry(&self, head: entry::Hash, index: u64) -> Option<entry::Entry> {
        self.groups.entry(head, index)
    }

    /// Own marks: what a run must have reached to prove anything.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        let mut marks = self.delivery.marks();
        marks.extend(self.sessions.marks());
        marks.extend(self.presence.marks());
        marks.extend(self.groups.marks());
        marks.extend(self.order.marks());
        marks.extend(self.lobby.marks());
        marks.retain(|(_, count)| *count > 0);
        marks
    }
}
