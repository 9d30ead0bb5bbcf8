//! Starting from stored rows.

use super::{Endpoint, Faults, Identity, OpenError, Stats, own};
use crate::channel::Channel;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::effect::{RestoreError, Row, RowOp, Table};
use crate::group::Groups;
use crate::id::Epoch;
use crate::identity::{Budget, Pins, Sender};
use crate::link::Link;
use crate::lobby::Lobbies;
use crate::output::PersistId;
use crate::presence::{Companies, PresenceMachine};
use crate::rng::Rng;
use crate::session::Sessions;
use crate::slots::Slots;
use crate::time::{Clock, Timestamp, UnixMillis};

/// This life's epoch: eight bytes, little-endian.
pub(crate) const EPOCH_KEY: &[u8] = b"epoch";
/// Whose store this is: the device id, then the user's name.
const OWNER_KEY: &[u8] = b"owner";

impl Endpoint {
    /// Opens an endpoint over the rows that its store returned (all tables but the on-demand
    /// ones, ordered by table and key). `seed` must be fresh and secret in production: invite
    /// secrets come from it. `wall` is the wall clock at `now`.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed then.
    pub fn open(
        identity: Identity,
        config: Config,
        seed: [u8; 32],
        rows: impl IntoIterator<Item = Row>,
        wall: UnixMillis,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        config.validate()?;
        let mut clock = Clock::new(wall, now);
        let now = clock.read(now);
        let Identity {
            user,
            signer,
            verifier,
            sealer,
        } = identity;
        let me = Sender {
            user,
            device: signer.public_key().device(),
        };
        let rng = Rng::from_seed(seed);

        let (meta, rest): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.table == Table::Meta);
        let stored = read_meta(&meta, &me)?;
        // A restored backup carries an old epoch; the wall clock lifts this life above the one
        // that was lost (reliability 2.2).
        let epoch = Epoch(stored.map_or(0, |e| e.0.saturating_add(1)).max(wall.0));
        let epoch = if crate::probe::planted("endpoint-epoch-not-bumped") {
            stored.unwrap_or(epoch)
        } else {
            epoch
        };

        let mut endpoint = Self {
            pins: Pins::new(&config.budget, &rng),
            budget: Budget::new(&config.budget, &rng),
            sessions: Sessions::new(me.clone(), config.session, rng.child("session")),
            company: Companies::new(config.presence.clone()),
            presence: PresenceMachine::new(
                me.clone(),
                epoch,
                config.presence,
                rng.child("presence"),
            ),
            lobbies: Lobbies::new(rng.child("lobby")),
            delivery: Delivery::new(
                me.clone(),
                epoch,
                config.delivery,
                sealer,
                rng.child("delivery"),
            ),
            groups: Groups::new(
                me.clone(),
                signer.clone(),
                verifier.clone(),
                config.group,
                rng.child("group"),
            ),
            link: Link::new(config.link, rng.child("link")),
            me,
            signer,
            verifier,
            siblings: Default::default(),
            rng: rng.child("own"),
            clock,
            topics: Slots::new(&rng),
            private: Slots::new(&rng),
            rooms: Default::default(),
            faults: Faults::default(),
            stats: Stats::default(),
            rows: Vec::new(),
            staged: Vec::new(),
            parked: Default::default(),
            tracked: Default::default(),
            out: Default::default(),
            next_persist: 1,
            durable: None,
            epoch_row: PersistId(1),
            connect_waits: false,
            next_transmit: 1,
            max_frame: usize::MAX,
        };
        endpoint
            .rows
            .push(put_meta(EPOCH_KEY, epoch.0.to_le_bytes().to_vec()));
        if meta.is_empty() {
            endpoint.rows.push(put_meta(OWNER_KEY, owner(&endpoint.me)));
        }
        for row in &meta {
            if row.key == own::SIBLINGS_KEY {
                endpoint.restore_siblings(row)?;
            }
        }
        for row in &rest {
            endpoint.restore(row, now)?;
        }
        let user = endpoint.me.user.clone();
        endpoint
            .pins
            .handle_claim(&endpoint.signer.public_key(), &user, now);
        endpoint.pins.keep(&user);
        endpoint.link.subscribe(Channel::Inbox(user), now);
        let watched: Vec<_> = endpoint.presence.watched().cloned().collect();
        for user in watched {
            endpoint.link.subscribe(Channel::Presence(user), now);
        }
        endpoint.sessions.resume(now);
        endpoint.groups.resume(now);
        let groups: Vec<_> = endpoint.groups.iter().collect();
        for group in groups {
            endpoint.sync_group(group, now);
        }
        // Routes first, so that what is told again finds its conversation open.
        endpoint.settle(now);
        endpoint.delivery.resume(now);
        endpoint.settle(now);
        Ok(endpoint)
    }

    fn restore(&mut self, row: &Row, now: crate::time::Now) -> Result<(), RestoreError> {
        match row.table {
            Table::Pins => self.pins.restore(row),
            Table::Sessions => self.sessions.restore(row, now),
            Table::Conversations | Table::Outbox | Table::Streams | Table::Inbox => {
                self.delivery.restore(row, now)
            }
            Table::Groups | Table::Chain => self.groups.restore(row, now),
            Table::Contacts => self.presence.restore(row, now),
            Table::Meta | Table::Timeline | Table::DeadLetters => Ok(()),
        }
    }
}

fn put_meta(key: &'static [u8], value: Vec<u8>) -> RowOp {
    RowOp::Put {
        table: Table::Meta,
        key: key.into(),
        value: value.into(),
    }
}

fn owner(me: &Sender) -> Vec<u8> {
    [me.device.as_bytes(), me.user.as_str().as_bytes()].concat()
}

fn read_meta(meta: &[Row], me: &Sender) -> Result<Option<Epoch>, OpenError> {
    let mut epoch = None;
    for row in meta {
        if row.key == EPOCH_KEY {
            let bytes: [u8; 8] = row.value[..]
                .try_into()
                .map_err(|_| RestoreError::of(row))?;
            epoch = Some(Epoch(u64::from_le_bytes(bytes)));
        } else if row.key == OWNER_KEY && row.value != owner(me) {
            return Err(OpenError::ForeignStore);
        }
    }
    Ok(epoch)
}
