//! Three group machines that pass each other their logs: whole, hurt, repeated, in any order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_core::channel::Channel;
use chat_core::config::GroupConfig;
use chat_core::effect::{Effect, Outgoing, Row, RowOp, Table};
use chat_core::group::{GroupView, Groups, Member, Membership, Rules};
use chat_core::id::{GroupId, GroupName};
use chat_core::identity::{Sender, Signer, Verifier};
use chat_core::rng::Rng;
use chat_core::time::{Now, Timestamp, UnixMillis};
use chat_core::wire::group::Head;
use chat_core::wire::{Body, BoundedVec};

use super::Script;
use super::node::user;
use crate::entries::{AcceptAll, Checksum, Keyed};

/// Inputs of one play.
const MAX_INPUTS: usize = 300;
/// Frames under way.
const MAX_WIRE: usize = 128;
const NAMES: [&str; 3] = ["ann", "bob", "cyd"];

fn config() -> GroupConfig {
    let mut config = super::node::config().group;
    config.max_roster = 8;
    config
}

struct Machine {
    me: Sender,
    key: u8,
    groups: Groups,
    rows: BTreeMap<(Table, Bytes), Bytes>,
    /// The greatest head that it had.
    seen: (u64, u64),
    /// An older state of its disk.
    backup: BTreeMap<(Table, Bytes), Bytes>,
}

fn now_of(mono: Timestamp) -> Now {
    let since = mono.saturating_since(Timestamp::ZERO);
    Now {
        mono,
        wall: UnixMillis(1_800_000_000_000).plus(since),
    }
}

struct Play {
    /// Somebody's disk went back in time: two branches may stand for ever.
    restored: bool,
    machines: Vec<Machine>,
    wire: VecDeque<(usize, Outgoing)>,
    group: GroupId,
    now: Timestamp,
    verifier: Arc<dyn Verifier>,
}

fn machine(key: u8, verifier: &Arc<dyn Verifier>) -> Machine {
    let signer = Arc::new(Keyed(key));
    let me = Sender {
        user: user(NAMES[usize::from(key) - 1]),
        device: signer.public_key().device(),
    };
    let rng = Rng::from_seed([key; 32]);
    let groups = Groups::new(me.clone(), signer, verifier.clone(), config(), rng);
    Machine {
        me,
        key,
        groups,
        rows: BTreeMap::new(),
        seen: (0, 0),
        backup: BTreeMap::new(),
    }
}

/// Any log, any answer, any order: nothing panics, a head never decreases, what is stored reads
/// back as it was; and when every signature is checked and no disk went back in time, all members
/// agree in the end.
pub(crate) fn chain_merge(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let checked = script.flag();
    let verifier: Arc<dyn Verifier> = if checked {
        Arc::new(Checksum)
    } else {
        Arc::new(AcceptAll)
    };
    let mut play = Play {
        restored: false,
        machines: (1..=3).map(|key| machine(key, &verifier)).collect(),
        wire: VecDeque::new(),
        group: GroupId([0; 32]),
        now: Timestamp::from_secs(100),
        verifier,
    };
    let now = play.now();
    for machine in &mut play.machines {
        machine.groups.resume(now);
        machine.groups.handle_up(now);
    }
    let name = GroupName::new("club").expect("a valid name");
    play.group = play.machines[0]
        .groups
        .create(&name, Rules::default(), now)
        .expect("the first group");
    for machine in &mut play.machines[1..] {
        machine
            .groups
            .join(play.group, "", now)
            .expect("nothing stands in the way");
    }
    play.settle();
    for _ in 0..MAX_INPUTS {
        if script.is_over() {
            break;
        }
        play.input(&mut script);
        play.settle();
    }
    for at in 0..play.machines.len() {
        play.restart(at);
    }
    if checked && !play.restored {
        play.agree();
    }
}

impl Play {
    fn now(&self) -> Now {
        now_of(self.now)
    }

    fn input(&mut self, script: &mut Script<'_>) {
        let at = usize::from(script.byte()) % self.machines.len();
        let (group, now) = (self.group, self.now());
        let other = user(script.pick(&NAMES).expect("three"));
        let groups = &mut self.machines[at].groups;
        let requests = groups.view(group).map_or(Vec::new(), |view| view.requests);
        let request = requests.first().map(|request| request.request);
        // Refusals are answers like any other.
        match (script.byte() % 24, request) {
            (0..=4, _) => {
                if let Some((to, frame)) = self.take(script) {
                    self.deliver(to, &frame);
                }
            }
            (5 | 6, _) => {
                if let Some((to, frame)) = self.take(script) {
                    self.deliver(to, &frame);
                    self.wire.push_back((to, frame));
                }
            }
            (7..=9, _) => {
                if let Some((to, mut frame)) = self.take(script) {
                    hurt(&mut frame.body, script);
                    self.deliver(to, &frame);
                }
            }
            (10, _) => drop(self.take(script)),
            (11 | 12, _) => {
                let millis = u64::from(script.byte()) * 200;
                self.now = self.now + Duration::from_millis(millis);
            }
            (13 | 14, Some(request)) => drop(groups.approve(group, request, now)),
            (15, Some(request)) => drop(groups.deny(group, request, "no", now)),
            (16, _) => drop(groups.kick(group, &other, "out", now)),
            (17, _) => drop(groups.leave(group, now)),
            (18, _) => drop(groups.hand_over(group, &other, now)),
            (19, _) => drop(groups.answer_offer(group, script.flag(), now)),
            (20, _) => drop(groups.join(group, "again", now)),
            (21, _) => {
                let name = format!("club {}", script.byte());
                let name = GroupName::new(&name).expect("a valid name");
                drop(groups.rename(group, &name, now));
            }
            (22, _) => match script.byte() % 4 {
                0 => self.machines[at].backup = self.machines[at].rows.clone(),
                1 => self.restore_backup(at),
                _ => self.restart(at),
            },
            _ if script.flag() => groups.handle_down(now),
            _ => groups.handle_up(now),
        }
    }

    fn take(&mut self, script: &mut Script<'_>) -> Option<(usize, Outgoing)> {
        let at = usize::from(script.byte()).checked_rem(self.wire.len())?;
        self.wire.remove(at)
    }

    fn deliver(&mut self, from: usize, frame: &Outgoing) {
        let sender = self.machines[from].me.clone();
        let now = self.now();
        for machine in &mut self.machines {
            let meant = match &frame.channel {
                Channel::Inbox(user) => *user == machine.me.user,
                _ => true,
            };
            if meant {
                machine.groups.handle_frame(&sender, &frame.body, now);
            }
        }
    }

    /// A machine with the same rows: it looks as before.
    fn restart(&mut self, at: usize) {
        self.settle();
        let now = self.now();
        let old = &mut self.machines[at];
        let before = old.groups.view(self.group);
        let mut new = machine(old.key, &self.verifier);
        for ((table, key), value) in &old.rows {
            let row = Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            };
            new.groups.restore(&row, now).expect("its own row");
        }
        let standing = |view: &Option<GroupView>| {
            let view = view.as_ref()?;
            Some((view.index, view.round, view.mine, view.roster.clone()))
        };
        assert_eq!(standing(&new.groups.view(self.group)), standing(&before));
        new.groups.resume(now);
        new.groups.handle_up(now);
        new.rows = std::mem::take(&mut old.rows);
        new.backup = std::mem::take(&mut old.backup);
        new.seen = old.seen;
        *old = new;
        self.settle();
    }

    /// Somebody copies an old disk back: a leader may then sign another branch of the log.
    fn restore_backup(&mut self, at: usize) {
        let group = self.group;
        let machine = &mut self.machines[at];
        if machine.backup.is_empty() {
            return;
        }
        machine.rows = machine.backup.clone();
        let mut old = self::machine(machine.key, &self.verifier);
        for ((table, key), value) in &machine.rows {
            let row = Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            };
            old.groups
                .restore(&row, now_of(self.now))
                .expect("its own row");
        }
        let head = old.groups.view(group).map(|view| (view.round, view.index));
        machine.seen = head.unwrap_or_default();
        machine.groups = old.groups;
        self.restored = true;
        self.restart(at);
    }

    fn settle(&mut self) {
        let now = self.now();
        for (at, machine) in self.machines.iter_mut().enumerate() {
            machine.groups.handle_timeout(now);
            let due = machine.groups.poll_timeout();
            assert!(due.is_none_or(|due| due > now.mono), "{due:?} is due");
            while let Some(effect) = machine.groups.effects().pop() {
                match effect {
                    Effect::Row(RowOp::Put { table, key, value }) => {
                        machine.rows.insert((table, key), value);
                    }
                    Effect::Row(RowOp::Delete { table, key }) => {
                        machine.rows.remove(&(table, key));
                    }
                    Effect::Send(frame) => self.wire.push_back((at, frame)),
                    Effect::Emit { .. } => {}
                }
            }
            if let Some(view) = machine.groups.view(self.group) {
                // Another reign may begin on an earlier entry; within one, the log only grows.
                assert!(
                    view.round >= machine.seen.0,
                    "the round went back: {view:?}"
                );
                machine.seen.0 = view.round;
                assert!(view.roster.len() <= config().max_roster);
            }
            assert!(machine.groups.iter().count() <= config().max_groups);
        }
        self.wire.truncate(MAX_WIRE);
    }

    /// With a kind network all members come to hold the same log.
    fn agree(&mut self) {
        let now = self.now();
        for machine in &mut self.machines {
            machine.groups.handle_up(now);
        }
        for _ in 0..1_200 {
            self.settle();
            for (from, frame) in std::mem::take(&mut self.wire) {
                self.deliver(from, &frame);
            }
            self.now = self.now + Duration::from_millis(500);
            if self.is_agreed() {
                return;
            }
        }
        let views = self.machines.iter().map(|m| m.groups.view(self.group));
        panic!("no agreement: {:#?}", views.collect::<Vec<_>>());
    }

    fn is_agreed(&self) -> bool {
        let sits = |mine| {
            matches!(
                mine,
                Membership::Member | Membership::Leader | Membership::Leaving
            )
        };
        let views = self
            .machines
            .iter()
            .filter_map(|m| m.groups.view(self.group));
        let logs: Vec<(u64, u64, Vec<Member>)> = views
            .filter(|view| sits(view.mine))
            .map(|view| (view.round, view.index, view.roster))
            .collect();
        logs.windows(2).all(|pair| pair[0] == pair[1])
    }
}

/// Changes a frame as an enemy on the way might who can sign.
fn hurt(body: &mut Body, script: &mut Script<'_>) {
    match body {
        Body::Entries(entries) => {
            let mut list = std::mem::take(&mut entries.entries).into_inner();
            let at = usize::from(script.byte()).checked_rem(list.len());
            match (script.byte() % 6, at) {
                (0, Some(at)) => drop(list.remove(at)),
                (1, Some(at)) => list.swap(0, at),
                (2, Some(at)) => list.push(list[at].clone()),
                (3, _) => {
                    let made_up = script.bytes().to_vec();
                    list.extend(made_up.try_into());
                }
                (_, Some(at)) => {
                    let hurt = script.hurt(&list[at]);
                    list[at] = hurt.try_into().expect("it did not grow");
                }
                _ => {}
            }
            entries.head = entries.head.wrapping_add(u64::from(script.byte() % 3));
            entries.entries = BoundedVec::take_from(list);
        }
        Body::GroupBeat(beat) => {
            hurt_head(&mut beat.head, script);
            beat.commit = beat.commit.wrapping_add(u64::from(script.byte() % 3));
        }
        Body::GroupAck(ack) => {
            hurt_head(&mut ack.head, script);
        }
        Body::Canvass(canvass) => {
            canvass.round = canvass.round.wrapping_add(u64::from(script.byte() % 3));
            hurt_head(&mut canvass.base, script);
        }
        Body::Support(support) => {
            support.round = support.round.wrapping_add(u64::from(script.byte() % 2));
            let proof = script.hurt(&support.proof);
            support.proof = proof.try_into().expect("it did not grow");
        }
        Body::Refuse(refuse) => {
            refuse.why = script.byte() % 5;
            refuse.promised = refuse.promised.wrapping_add(u64::from(script.byte()));
            hurt_head(&mut refuse.head, script);
        }
        Body::Fetch(fetch) => {
            let mut have = std::mem::take(&mut fetch.have).into_inner();
            for place in &mut have {
                place.index = place.index.wrapping_sub(u64::from(script.byte() % 4));
            }
            fetch.have = BoundedVec::take_from(have);
        }
        Body::Propose(propose) => {
            propose.action = script.byte() % 5;
            let proof = script.hurt(&propose.proof);
            propose.proof = proof.try_into().expect("it did not grow");
        }
        Body::Removed(removed) => {
            let entry = script.hurt(&removed.entry);
            removed.entry = entry.try_into().expect("it did not grow");
        }
        Body::JoinAnswer(answer) => answer.answer = script.byte(),
        Body::Offer(offer) => offer.offer = offer.offer.wrapping_add(u64::from(script.byte() % 2)),
        _ => {}
    }
}

fn hurt_head(head: &mut Head, script: &mut Script<'_>) {
    head.term.round = head.term.round.wrapping_add(u64::from(script.byte() % 3));
    let index = head.index.wrapping_add(u64::from(script.byte() % 3));
    head.index = index.wrapping_sub(1);
    head.hash[0] ^= script.byte();
}
