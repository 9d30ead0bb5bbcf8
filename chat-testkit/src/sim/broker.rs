//! A broker as brokers are: sessions with bounded mailboxes that silently drop the newest, last
//! values, wills, takeover, amnesia. It keeps state only; the world moves the frames.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use chat_core::channel::Channel;

/// A frame on its way.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Where to.
    pub(crate) channel: Channel,
    /// The signed bytes.
    pub(crate) bytes: Bytes,
    /// Kept for subscribers that are away.
    pub(crate) durable: bool,
    /// Kept as the channel's last value.
    pub(crate) retain: bool,
    /// True time after which it is worth nothing.
    pub(crate) expires: u64,
    /// The publishing node.
    pub(crate) from: usize,
    /// For the dedup window.
    pub(crate) dedup: Option<[u8; 16]>,
}

/// What a broker remembers of one client (a device).
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The client's node.
    pub(crate) node: usize,
    /// Its connection, if it has one.
    pub(crate) conn: Option<u64>,
    /// What it asked for.
    pub(crate) subs: BTreeSet<Channel>,
    /// What waits for its return.
    pub(crate) mailbox: VecDeque<Rc<Frame>>,
    /// Published when the connection dies.
    pub(crate) will: Option<Rc<Frame>>,
}

/// One broker.
#[derive(Debug)]
pub(crate) struct Broker {
    /// It runs.
    pub(crate) up: bool,
    /// By device number.
    pub(crate) sessions: BTreeMap<u64, Session>,
    retained: BTreeMap<Channel, Rc<Frame>>,
    seen: BTreeSet<[u8; 16]>,
    mailboxes: bool,
    mailbox_cap: usize,
    retains: bool,
    dedups: bool,
}

/// Where a published frame goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The client.
    pub(crate) client: u64,
    /// Its node.
    pub(crate) node: usize,
    /// Its connection.
    pub(crate) conn: u64,
}

impl Broker {
    /// An empty broker with these abilities.
    pub(crate) fn new(mailboxes: bool, mailbox_cap: usize, retains: bool, dedups: bool) -> Self {
        Self {
            up: true,
            sessions: BTreeMap::new(),
            retained: BTreeMap::new(),
            seen: BTreeSet::new(),
            mailboxes,
            mailbox_cap,
            retains,
            dedups,
        }
    }

    /// Opens connection `conn` of `client`. Returns the will of a connection that it takes over,
    /// and whether the session was kept.
    pub(crate) fn connect(
        &mut self,
        client: u64,
        node: usize,
        conn: u64,
        will: Option<Rc<Frame>>,
    ) -> (Option<Rc<Frame>>, bool) {
        let known = self.mailboxes && self.sessions.contains_key(&client);
        let session = self.sessions.entry(client).or_default();
        let old = session.conn.take().and(session.will.take());
        if !known {
            *session = Session::default();
        }
        (session.node, session.conn, session.will) = (node, Some(conn), will);
        (old, known)
    }

    /// Ends connection `conn` of `client`; returns the will to publish, unless it said goodbye.
    pub(crate) fn disconnect(
        &mut self,
        client: u64,
        conn: u64,
        goodbye: bool,
    ) -> Option<Rc<Frame>> {
        let session = self.sessions.get_mut(&client)?;
        if session.conn != Some(conn) {
            return None;
        }
        session.conn = None;
        let will = session.will.take();
        if !self.mailboxes {
            self.sessions.remove(&client);
        }
        will.filter(|_| !goodbye)
    }

    /// True when `client` is connected by `conn`.
    pub(crate) fn has(&self, client: u64, conn: u64) -> bool {
        self.up
            && self
                .sessions
                .get(&client)
                .is_some_and(|s| s.conn == Some(conn))
    }

    /// Adds a subscription; returns the channel's last value.
    pub(crate) fn subscribe(&mut self, client: u64, channel: &Channel) -> Option<Rc<Frame>> {
        self.sessions.get_mut(&client)?.subs.insert(channel.clone());
        self.retained.get(channel).cloned()
    }

    /// Takes a subscription away.
    pub(crate) fn unsubscribe(&mut self, client: u64, channel: &Channel) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.subs.remove(channel);
        }
    }

    /// Takes a frame; false when its dedup id was seen. Queues it for those who are away and
    /// returns those who are here.
    pub(crate) fn publish(&mut self, frame: &Rc<Frame>, targets: &mut Vec<Target>) -> bool {
        if let Some(id) = frame.dedup
            && self.dedups
            && !self.seen.insert(id)
        {
            return false;
        }
        if frame.retain && self.retains {
            self.retained.insert(frame.channel.clone(), frame.clone());
        }
        for (client, session) in &mut self.sessions {
            if !session.subs.contains(&frame.channel) {
                continue;
            }
            match session.conn {
                Some(conn) => targets.push(Target {
                    client: *client,
                    node: session.node,
                    conn,
                }),
                None if frame.durable && session.mailbox.len() < self.mailbox_cap => {
                    session.mailbox.push_back(frame.clone());
                }
                None => {}
            }
        }
        true
    }

    /// Puts back what was on its way when the connection died.
    pub(crate) fn requeue(&mut self, client: u64, frame: &Rc<Frame>) {
        if let Some(session) = self.sessions.get_mut(&client)
            && self.mailboxes
            && session.mailbox.len() < self.mailbox_cap
        {
            session.mailbox.push_back(frame.clone());
        }
    }

    /// Takes the mailbox of `client`.
    pub(crate) fn drain(&mut self, client: u64) -> VecDeque<Rc<Frame>> {
        self.sessions
            .get_mut(&client)
            .map(|session| core::mem::take(&mut session.mailbox))
            .unwrap_or_default()
    }

    /// Stops: every connection is gone (returned as node and connection), and with it all state
    /// unless it has a memory.
    pub(crate) fn stop(&mut self, memory: bool) -> Vec<(usize, u64)> {
        self.up = false;
        let mut gone = Vec::new();
        for session in self.sessions.values_mut() {
            gone.extend(session.conn.take().map(|conn| (session.node, conn)));
            session.will = None;
        }
        if !memory || !self.mailboxes {
            self.sessions.clear();
        }
        if !memory {
            self.retained.clear();
            self.seen.clear();
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_core::id::UserId;

    fn frame(retain: bool) -> Rc<Frame> {
        Rc::new(Frame {
            channel: channel(),
            bytes: Bytes::from_static(b"x"),
            durable: true,
            retain,
            expires: u64::MAX,
            from: 0,
            dedup: Some([1; 16]),
        })
    }

    fn channel() -> Channel {
        Channel::Inbox(UserId::new("a").expect("a fine name"))
    }

    #[test]
    fn a_full_mailbox_drops_the_newest_and_the_rest_waits() {
        let mut broker = Broker::new(true, 2, true, false);
        assert!(!broker.connect(7, 0, 1, Some(frame(false))).1);
        assert!(broker.subscribe(7, &channel()).is_none());
        assert!(broker.disconnect(7, 1, false).is_some());
        let mut targets = Vec::new();
        for _ in 0..3 {
            assert!(broker.publish(&frame(true), &mut targets));
        }
        assert_eq!(targets, []);
        assert!(broker.connect(7, 0, 2, None).1);
        assert_eq!(broker.drain(7).len(), 2);
        assert!(broker.subscribe(7, &channel()).is_some());
        broker.publish(&frame(false), &mut targets);
        assert_eq!(
            targets,
            [Target {
                client: 7,
                node: 0,
                conn: 2
            }]
        );
    }

    #[test]
    fn a_repeated_dedup_id_is_swallowed_and_amnesia_forgets() {
        let mut broker = Broker::new(true, 2, true, true);
        assert!(broker.publish(&frame(true), &mut Vec::new()));
        assert!(!broker.publish(&frame(true), &mut Vec::new()));
        broker.connect(7, 3, 1, None);
        assert_eq!(broker.stop(false), [(3, 1)]);
        broker.up = true;
        assert!(!broker.connect(7, 3, 2, None).1);
        assert!(broker.subscribe(7, &channel()).is_none());
    }
}
