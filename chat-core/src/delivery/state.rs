//! What delivery keeps of conversations and of the users in them, and where it lies.
//!
//! A frame's ids are looked up once; from there on everything goes by slot, also timers and sets,
//! so that no step depends on how many conversations or people there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::causal::{Head, Heard, head};
use super::inbox::Stream;
use super::outbox::Outbox;
use super::types::{FailReason, Route, SortKey};
use super::{Delivery, rows};
use crate::config::DeliveryConfig;
use crate::effect::Table;
use crate::id::{ConvId, DeviceId, MessageId, UserId};
use crate::slots::Slot;
use crate::time::Timestamp;

/// A conversation.
pub(super) type ConvAt = Slot<ConvId>;
/// A user.
pub(super) type UserAt = Slot<UserId>;
/// What one device sends to one conversation.
pub(super) type StreamKey = (ConvAt, DeviceId);
/// A stream that arrives.
pub(super) type StreamAt = Slot<StreamKey>;

/// What a deadline is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Key {
    /// The earliest of [`Dues`].
    Conv(ConvAt),
    /// Acknowledge what this user sent.
    Ack(UserAt),
    /// What is held will not be completed any more.
    Flush(StreamAt),
    /// What waits for other messages has waited long enough.
    Parked(StreamAt),
    /// Typing lapses.
    Typing(ConvAt, UserId),
}

/// What is due in a conversation that we owe something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dues {
    /// Say what is owed.
    pub(super) hello: Option<Timestamp>,
    /// Send again.
    pub(super) retry: Option<Timestamp>,
    /// The oldest message runs out.
    pub(super) expiry: Option<Timestamp>,
}

impl Dues {
    fn earliest(&self) -> Option<Timestamp> {
        [self.hello, self.retry, self.expiry]
            .into_iter()
            .flatten()
            .min()
    }
}

/// A send that is known by its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Txn {
    pub(super) id: MessageId,
    pub(super) hash: [u8; 16],
    /// Why the message will not arrive.
    pub(super) end: Option<FailReason>,
}

/// What one user takes up of the inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) told: usize,
    pub(super) held: usize,
}

/// Acknowledgements that wait for one sender.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) streams: BTreeSet<StreamAt>,
    /// Something durable is new.
    pub(super) news: bool,
}

/// A user whose messages we hear.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) share: Share,
    pub(super) waiting: Waiting,
    /// How many streams are this user's.
    pub(super) streams: usize,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Conv {
    pub(super) id: ConvId,
    pub(super) route: Option<Route>,
    pub(super) out: Outbox,
    pub(super) dues: Dues,
    /// What arrives here, in the order in which it was first heard of.
    pub(super) streams: Vec<StreamAt>,
    /// The same by how a causal hint names them.
    pub(super) heads: BTreeMap<Head, StreamAt>,
    /// What others said, the latest of each device, oldest first (ID9).
    pub(super) heard: VecDeque<Heard>,
    /// Streams of which something waits for other messages.
    pub(super) parked: Vec<StreamAt>,
    /// Told and not acknowledged, with whose it is.
    pub(super) inbox: BTreeMap<u64, UserAt>,
    /// The last place used in the inbox log.
    pub(super) pos: u64,
    /// The lowest item on the screen.
    pub(super) shown: Option<SortKey>,
    /// How far the user has read.
    pub(super) read: Option<SortKey>,
    /// We said that we type; again not before this.
    pub(super) typing: Option<Timestamp>,
}

impl Conv {
    fn new(id: ConvId, config: &DeliveryConfig) -> Self {
        Self {
            id,
            route: None,
            out: Outbox::new(config.window),
            dues: Dues::default(),
            streams: Vec::new(),
            heads: BTreeMap::new(),
            heard: VecDeque::new(),
            parked: Vec::new(),
            inbox: BTreeMap::new(),
            pos: 0,
            shown: None,
            read: None,
            typing: None,
        }
    }

    pub(super) fn is_group(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.group)
    }

    pub(super) fn owes(&self) -> bool {
        !self.out.entries.is_empty() || self.out.notice.is_some()
    }
}

impl Delivery {
    /// The conversation `id`, new when it is.
    pub(super) fn conv_at(&mut self, id: ConvId) -> ConvAt {
        let config = &self.config;
        self.convs
            .slot_or_insert_with(&id, || Conv::new(id, config))
    }

    /// Changes what is due in a conversation.
    pub(super) fn set_dues(&mut self, conv: ConvAt, change: impl FnOnce(&mut Dues)) {
        let dues = &mut self.convs[conv].dues;
        let before = dues.earliest();
        change(dues);
        let after = dues.earliest();
        if before != after {
            self.file(conv);
        }
    }

    /// Files the next look at a conversation.
    pub(super) fn file(&mut self, conv: ConvAt) {
        match self.convs[conv].dues.earliest() {
            Some(at) => self.timers.set(Key::Conv(conv), at),
            None => {
                self.timers.remove(&Key::Conv(conv));
            }
        }
    }

    /// The stream of a device, new when it is.
    pub(super) fn stream_at(&mut self, conv: ConvAt, device: DeviceId, user: &UserId) -> StreamAt {
        if let Some(at) = self.streams.slot(&(conv, device)) {
            return at;
        }
        let account = self.account(user);
        self.users[account].streams += 1;
        let at = self.streams.slot_or_insert_with(&(conv, device), || {
            Stream::new(conv, device, user.clone(), account)
        });
        let it = &mut self.convs[conv];
        it.streams.push(at);
        it.heads.insert(head(&device), at);
        at
    }

    /// Forgets a stream.
    pub(super) fn drop_stream(&mut self, at: StreamAt) {
        let (conv, device) = *self.streams.key(at);
        let account = self.streams[at].account;
        self.streams.remove(&(conv, device));
        let it = &mut self.convs[conv];
        it.streams.retain(|other| *other != at);
        it.heads.remove(&head(&device));
        self.starved.remove(&at);
        self.timers.remove(&Key::Flush(at));
        let id = self.convs[conv].id;
        self.effects
            .delete(Table::Streams, rows::stream_key(id, device));
        let user = &mut self.users[account];
        user.waiting.streams.remove(&at);
        user.streams -= 1;
        self.let_go(account);
    }

    /// What is kept of a user, new when it is.
    pub(super) fn account(&mut self, user: &UserId) -> UserAt {
        self.users.slot_or_insert_with(user, Account::default)
    }

    /// Forgets a user of whom nothing is left.
    pub(super) fn let_go(&mut self, user: UserAt) {
        let account = &self.users[user];
        if account.streams == 0
            && account.share == Share::default()
            && account.waiting.streams.is_empty()
        {
            self.timers.remove(&Key::Ack(user));
            let name = self.users.key(user).clone();
            self.users.remove(&name);
        }
    }
}
