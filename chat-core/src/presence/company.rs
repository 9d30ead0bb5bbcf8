//! Who of a group is here (P11).
//!
//! - Up to `crowd` members, whoever wants to know follows each of them, and is told each change.
//! - Above it only the leader follows everybody. It says on the group's channel how many are how,
//!   with a sample of those that changed: at most once per `crowd_every`, and once per beat when
//!   nothing changed. So a change costs one frame to the leader, however many there are, and what
//!   everybody hears grows with their number and not with its square.
//!
//! Guarantees: only the reigning leader's word counts, and it is a lease like any record (P3);
//! while we are cut off nobody is known (P7). The devices of one group need the same `crowd`.
//!
//! Bounds: one entry per group that we are in; members that are followed for groups' sake are at
//! most half of `max_watched`, beyond that they stay unknown.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::record::{code, status};
use super::{Counts, PresenceEvent, PresenceMachine, PresenceView, RoomPresence, Status};
use crate::channel::Channel;
use crate::config::PresenceConfig;
use crate::effect::{Effects, Outgoing};
use crate::id::{GroupId, UserId};
use crate::probe::{mark, planted};
use crate::time::Timestamp;
use crate::wire;
use crate::wire::presence::MAX_SAMPLE;
use crate::wire::{BoundedStr, BoundedVec};

/// Whether a user is to be followed for groups' sake from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Yes.
    Begin(UserId),
    /// No longer.
    End(UserId),
}

/// What a leader said last.
#[derive(Debug)]
struct Word {
    counts: Counts,
    sample: Vec<(UserId, PresenceView)>,
    until: Timestamp,
}

#[derive(Debug, Default)]
struct Company {
    /// The members are those of the log, and the application knows of it what there is to know.
    settled: bool,
    /// Without ourselves.
    members: BTreeSet<UserId>,
    followed: BTreeSet<UserId>,
    leads: bool,
    watched: bool,
    /// Changed, and not told yet.
    changed: BTreeSet<UserId>,
    due: Option<Timestamp>,
    told_at: Option<Timestamp>,
    word: Option<Word>,
}

/// The members of all groups of one device.
#[derive(Debug)]
pub struct Companies {
    config: PresenceConfig,
    rooms: BTreeMap<GroupId, Company>,
    /// For which groups a user is followed.
    follows: BTreeMap<UserId, BTreeSet<GroupId>>,
    turns: VecDeque<Follow>,
    /// Nothing is due before.
    next: Option<Timestamp>,
    effects: Effects<PresenceEvent>,
}

impl Companies {
    /// In no group.
    pub fn new(config: PresenceConfig) -> Self {
        Self {
            config,
            rooms: BTreeMap::new(),
            follows: BTreeMap::new(),
            turns: VecDeque::new(),
            next: None,
            effects: Effects::default(),
        }
    }

    /// The application wants to see who is here; [`Self::set`] follows.
    pub fn watch(&mut self, group: GroupId) {
        let company = self.rooms.entry(group).or_default();
        company.settled &= company.watched;
        company.watched = true;
    }

    /// No longer.
    pub fn unwatch(&mut self, group: GroupId) {
        if let Some(company) = self.rooms.get_mut(&group) {
            company.watched = false;
            self.follow(group);
        }
    }

    /// True for a group whose members the application wants to see.
    pub fn is_watched(&self, group: GroupId) -> bool {
        self.rooms
            .get(&group)
            .is_some_and(|company| company.watched)
    }

    /// True when so many devices may be those of a large group.
    pub const fn may_be_large(&self, devices: usize) -> bool {
        devices > self.config.crowd
    }

    /// Who is in `group` besides ourselves, and whether we lead it.
    pub fn set(&mut self, group: GroupId, members: BTreeSet<UserId>, leads: bool, now: Timestamp) {
        let company = self.rooms.entry(group).or_default();
        if company.settled && company.members == members && company.leads == leads {
            return;
        }
        company.settled = true;
        if company.leads != leads {
            company.word = None;
        }
        company.changed.retain(|user| members.contains(user));
        (company.members, company.leads) = (members, leads);
        self.follow(group);
        self.schedule(group, now);
    }

    /// We are in `group` no more. What the application wants is kept, for when it comes back.
    pub fn leave(&mut self, group: GroupId) {
        let Some(company) = self.rooms.get_mut(&group) else {
            return;
        };
        let watched = company.watched;
        (company.members, company.leads) = (BTreeSet::new(), false);
        self.follow(group);
        self.rooms.remove(&group);
        if watched {
            self.watch(group);
        }
    }

    /// What is to be done about following; see [`Follow`].
    pub fn poll_follow(&mut self) -> Option<Follow> {
        self.turns.pop_front()
    }

    /// Brings those that are followed for `group` in line with who is in it.
    fn follow(&mut self, group: GroupId) {
        let crowd = self.config.crowd;
        let Some(company) = self.rooms.get_mut(&group) else {
            return;
        };
        let wanted = if company.is_large(crowd) {
            company.leads || planted("presence-everybody-follows-everybody")
        } else {
            company.watched
        };
        let over: Vec<_> = company
            .followed
            .iter()
            .filter(|user| !wanted || !company.members.contains(*user))
            .cloned()
            .collect();
        for user in over {
            company.followed.remove(&user);
            if let Some(groups) = self.follows.get_mut(&user) {
                groups.remove(&group);
                if groups.is_empty() {
                    self.follows.remove(&user);
                    self.turns.push_back(Follow::End(user));
                }
            }
        }
        if !wanted {
            company.due = None;
            return;
        }
        for user in &company.members {
            if company.followed.contains(user) {
                continue;
            }
            let known = self.follows.contains_key(user);
            if !known && self.follows.len() >= (self.config.max_watched / 2).max(1) {
                mark("company-full");
                continue;
            }
            company.followed.insert(user.clone());
            self.follows.entry(user.clone()).or_default().insert(group);
            if !known {
                self.turns.push_back(Follow::Begin(user.clone()));
            }
        }
    }

    /// Something changed: it is told now, or when the next word is due.
    fn schedule(&mut self, group: GroupId, now: Timestamp) {
        let every = self.config.crowd_every;
        let crowd = self.config.crowd;
        let Some(company) = self.rooms.get_mut(&group) else {
            return;
        };
        let large = company.is_large(crowd);
        let speaks = if large {
            company.leads
        } else {
            company.watched
        };
        if !speaks {
            return;
        }
        let earliest = match company.told_at {
            Some(at) if large => (at + every).max(now),
            _ => now,
        };
        company.due = Some(company.due.map_or(earliest, |due| due.min(earliest)));
        self.wake(earliest);
    }

    fn wake(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// What the presence machine told.
    pub fn handle_event(&mut self, event: &PresenceEvent, now: Timestamp) {
        let (users, all): (Vec<&UserId>, bool) = match event {
            PresenceEvent::Changed { user, .. } => (vec![user], false),
            PresenceEvent::Resynced { joined, left } => {
                (joined.iter().chain(left).collect(), false)
            }
            PresenceEvent::Crowd { sample, .. } => {
                (sample.iter().map(|(user, _)| user).collect(), true)
            }
            PresenceEvent::Room { .. } => return,
        };
        let mut concerned = BTreeSet::new();
        for user in users {
            for group in self.follows.get(user).into_iter().flatten() {
                if let Some(company) = self.rooms.get_mut(group) {
                    company.changed.insert(user.clone());
                    concerned.insert(*group);
                }
            }
        }
        if all {
            concerned.extend(self.rooms.keys());
        }
        for group in concerned {
            self.schedule(group, now);
        }
    }

    /// The reigning leader of `group` says who is here.
    pub fn handle_word(&mut self, group: GroupId, word: &wire::presence::Company, now: Timestamp) {
        let Some(company) = self.rooms.get_mut(&group) else {
            return;
        };
        if company.leads || !company.is_large(self.config.crowd) {
            mark("company-word-not-needed");
            return;
        }
        let sample = word.sample.iter().filter_map(|(name, code)| {
            let user = UserId::new(name).ok()?;
            let status = status(*code)?;
            company
                .members
                .contains(&user)
                .then(|| (user, plain(status)))
        });
        let word = Word {
            counts: Counts {
                active: word.active,
                idle: word.idle,
                away: word.away,
                do_not_disturb: word.do_not_disturb,
                left: word.left,
                lost: word.lost,
                unknown: word.unknown,
            },
            sample: sample.collect(),
            until: now + self.config.ttl,
        };
        mark("company-word");
        let until = word.until;
        company.word = Some(word);
        self.wake(until);
        self.emit_word(group);
    }

    /// Tells the application what the leader said, or that nothing is known.
    fn emit_word(&mut self, group: GroupId) {
        let Some(company) = self.rooms.get(&group).filter(|company| company.watched) else {
            return;
        };
        let (counts, sample) = company.said();
        self.effects.emit(PresenceEvent::Room {
            group,
            members: company.count(),
            counts,
            sample,
        });
    }

    /// Cut off: what the leaders said holds no more (P7).
    pub fn handle_down(&mut self) {
        let heard: Vec<_> = self
            .rooms
            .iter_mut()
            .filter_map(|(group, company)| company.word.take().map(|_| *group))
            .collect();
        for group in heard {
            self.emit_word(group);
        }
    }

    /// When to call [`Self::tell`].
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.next
    }

    /// Tells what is due: to the application, and as a leader to the group.
    pub fn tell(&mut self, presence: &PresenceMachine, now: Timestamp) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let due: Vec<GroupId> = self
            .rooms
            .iter()
            .filter(|(_, company)| company.due.is_some_and(|due| due <= now))
            .map(|(group, _)| *group)
            .collect();
        for group in due {
            self.tell_of(group, presence, now);
        }
        let over: Vec<GroupId> = self
            .rooms
            .iter_mut()
            .filter_map(|(group, company)| {
                company
                    .word
                    .take_if(|word| word.until <= now)
                    .map(|_| *group)
            })
            .collect();
        for group in over {
            mark("company-word-over");
            self.emit_word(group);
        }
        let times = self.rooms.values().flat_map(|company| {
            let until = company.word.as_ref().map(|word| word.until);
            company.due.into_iter().chain(until)
        });
        self.next = times.min();
    }

    fn tell_of(&mut self, group: GroupId, presence: &PresenceMachine, now: Timestamp) {
        let repeat: Duration = self.config.beat.max(self.config.crowd_every);
        let (crowd, sampled) = (self.config.crowd, self.config.crowd_sample.min(MAX_SAMPLE));
        let Some(company) = self.rooms.get_mut(&group) else {
            return;
        };
        company.due = None;
        company.told_at = Some(now);
        let large = company.is_large(crowd);
        let most = if large { sampled } else { usize::MAX };
        let mut sample = Vec::new();
        while sample.len() < most
            && let Some(user) = company.changed.pop_first()
        {
            let view = presence.view(&user).unwrap_or_else(unknown);
            sample.push((user, view));
        }
        let counts = company.counted(presence);
        if large {
            let more = !company.changed.is_empty();
            company.due = Some(
                now + if more {
                    self.config.crowd_every
                } else {
                    repeat
                },
            );
            let body = word(group, company.count(), counts, &sample);
            let frame = Outgoing::ephemeral(Channel::Group(group), body);
            self.effects.send(frame.with_ttl(repeat));
        }
        if company.watched {
            self.effects.emit(PresenceEvent::Room {
                group,
                members: company.count(),
                counts,
                sample,
            });
        }
    }

    /// Who of `group` is here; `None` when nobody wants to know, or we are not in it.
    pub fn view(&self, group: GroupId, presence: &PresenceMachine) -> Option<RoomPresence> {
        let company = self.rooms.get(&group).filter(|company| company.watched)?;
        if company.is_large(self.config.crowd) && !company.leads {
            let (counts, people) = company.said();
            return Some(RoomPresence {
                members: company.count(),
                counts,
                people,
                whole: false,
            });
        }
        let people = company.members.iter().map(|user| {
            let view = presence.view(user).unwrap_or_else(unknown);
            (user.clone(), view)
        });
        let mut people: Vec<_> = people.collect();
        people.push((presence.user().clone(), presence.mine()));
        people.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Some(RoomPresence {
            members: company.count(),
            counts: company.counted(presence),
            people,
            whole: true,
        })
    }

    /// What it wants done.
    pub fn effects(&mut self) -> &mut Effects<PresenceEvent> {
        &mut self.effects
    }
}

impl Company {
    fn is_large(&self, crowd: usize) -> bool {
        self.members.len() >= crowd
    }

    /// How many are in, ourselves included.
    fn count(&self) -> u32 {
        u32::try_from(self.members.len() + 1).unwrap_or(u32::MAX)
    }

    fn counted(&self, presence: &PresenceMachine) -> Counts {
        let mut counts = presence.counts(self.members.iter());
        counts.add(presence.mine().status);
        counts
    }

    fn said(&self) -> (Counts, Vec<(UserId, PresenceView)>) {
        match &self.word {
            Some(word) => (word.counts, word.sample.clone()),
            None => {
                let unknown = self.count();
                let counts = Counts {
                    unknown,
                    ..Counts::default()
                };
                (counts, Vec::new())
            }
        }
    }
}

fn plain(status: Status) -> PresenceView {
    PresenceView {
        status,
        last_known: None,
        text: String::new(),
        last_seen: None,
        unstable: false,
    }
}

fn unknown() -> PresenceView {
    plain(Status::Unknown)
}

fn word(
    group: GroupId,
    members: u32,
    counts: Counts,
    sample: &[(UserId, PresenceView)],
) -> wire::presence::Company {
    let named = sample
        .iter()
        .map(|(user, view)| (BoundedStr::truncated(user.as_str()), code(view.status)));
    wire::presence::Company {
        group: group.0,
        members,
        active: counts.active,
        idle: counts.idle,
        away: counts.away,
        do_not_disturb: counts.do_not_disturb,
        left: counts.left,
        lost: counts.lost,
        unknown: counts.unknown,
        sample: BoundedVec::take_from(named),
    }
}
