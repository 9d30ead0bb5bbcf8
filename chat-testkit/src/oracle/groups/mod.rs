//! Groups: IG1–IG9, IG11, IG12 and G12; the end of a run is judged in `settled`, and how soon they
//! agree in `agreement`. The logs come from the disks, entry by entry as they become durable, and
//! are judged by the second judge in `certificate`; rosters and leads come from views and told
//! events.

mod settled;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chat_core::config::GroupConfig;
use chat_core::effect::{RowOp, Table};
use chat_core::event::Event;
use chat_core::group::{Change, GroupEvent, GroupView, Membership, Passing};
use chat_core::id::GroupId;
use chat_core::link::LinkState;
use chat_core::wire::{self, Body};

use super::agreement::Agreement;
use super::branches::Branches;
use super::certificate::Fold;
use super::chain::Log;
use super::conduct::Conduct;
use super::entry::{Entry, Hash, Instance, Op, Term};
use super::{Act, At, Marks, Seen, Verdict, View, Violation};
use crate::sim::{FakeVerifier, Ledger};

const ENTRIES: u8 = 0x42;
const REMOVED: u8 = 0x48;
const CANVASS: u8 = 0x49;
/// Rows that a group may keep beside its log: requests, kicks, leaves, branches, our own part.
const MAX_ROWS: usize = 256 + 2 * 1_024 + 8 + 2;

/// What one device keeps of the log.
#[derive(Clone, Debug, Default)]
struct Disk {
    entries: BTreeMap<u64, Hash>,
    /// The greatest head so far.
    head: Option<Hash>,
    /// Kicks that it applied.
    kicked: BTreeMap<Instance, Hash>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Groups {
    verifier: FakeVerifier,
    log: Log,
    conduct: Conduct,
    branches: Branches,
    /// Who stands at each place of each term.
    places: HashMap<(Term, u64), Hash>,
    group: Option<GroupId>,
    disks: BTreeMap<usize, Disk>,
    backups: BTreeMap<usize, Disk>,
    /// What was committed in a strict group: by index the entry and the head that said so.
    committed: BTreeMap<u64, (Hash, Hash)>,
    /// Nodes whose application left in this process and did not ask to come back.
    left: BTreeSet<usize>,
    /// Nothing happens but that one member goes away and comes back (IG9).
    calm: bool,
    patience: u64,
    /// Nodes that are not connected, as far as they said.
    offline: BTreeSet<usize>,
    agreement: Agreement,
    /// They agree too late.
    overdue: Option<Violation>,
    marks: Marks,
}

impl Groups {
    /// For one run; `calm` when its only fault is that a member is away; `patience` is when, in µs,
    /// who is out of reach is given up.
    pub fn new(ledger: Arc<Ledger>, config: &GroupConfig, calm: bool, patience: u64) -> Self {
        Self {
            verifier: FakeVerifier(ledger.clone()),
            log: Log::new(ledger.clone()),
            conduct: Conduct::new(ledger, config.beat, config.suspect),
            branches: Branches::new(config.suspect),
            places: HashMap::new(),
            group: None,
            disks: BTreeMap::new(),
            backups: BTreeMap::new(),
            committed: BTreeMap::new(),
            left: BTreeSet::new(),
            calm,
            patience,
            offline: BTreeSet::new(),
            agreement: Agreement::new(config),
            overdue: None,
            marks: Marks::default(),
        }
    }

    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        let mut marks = self.marks.clone();
        marks.add("oracle-entry-decoded", self.log.len() as u64);
        marks.list()
    }

    /// What the log that ends with this entry folds to.
    pub(crate) fn fold(&mut self, head: Hash) -> Option<Fold> {
        self.log.fold(head)?.as_ref().as_ref().ok().cloned()
    }

    /// The entry at `index` of the log that ends with this entry.
    pub(crate) fn entry(&self, head: Hash, index: u64) -> Option<Entry> {
        self.log.entry(&self.log.back(head, index)?).cloned()
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// IG1, IG2, IG7, IG8 or IG9.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        let kept = self.disks.get(&at.node).and_then(|disk| disk.head);
        self.conduct.see(at, seen, kept, &mut self.log)?;
        self.branches.see(at, seen);
        match seen {
            Seen::Started | Seen::Died => {
                self.left.remove(&at.node);
                self.offline.insert(at.node);
            }
            Seen::Queued(Event::Link(LinkState::Connected { .. } | LinkState::CaughtUp)) => {
                self.offline.remove(&at.node);
            }
            Seen::Queued(Event::Link(_)) => drop(self.offline.insert(at.node)),
            Seen::BackedUp => {
                let disk = self.disks.entry(at.node).or_default().clone();
                self.backups.insert(at.node, disk);
            }
            Seen::RolledBack => {
                self.log.forgets(at.device.0);
                let disk = self.backups.get(&at.node).cloned().unwrap_or_default();
                self.disks.insert(at.node, disk);
            }
            Seen::DiskLost => drop(self.disks.remove(&at.node)),
            Seen::Act(Act::Leave { .. }) => drop(self.left.insert(at.node)),
            Seen::Act(Act::Join { .. }) => drop(self.left.remove(&at.node)),
            Seen::Act(Act::Created { group }) => self.group = Some(*group),
            Seen::Stored(rows) => return self.stored(at, rows),
            Seen::Arrives(channel, bytes, _)
                if matches!(wire::peek_kind(bytes), Some(ENTRIES | REMOVED)) =>
            {
                let opened = wire::header(bytes)
                    .and_then(|header| wire::open(header, channel, &self.verifier));
                match opened.map(|opened| opened.body) {
                    Ok(Body::Entries(entries)) => {
                        for entry in entries.entries.iter() {
                            self.log.add(entry);
                        }
                    }
                    Ok(Body::Removed(removed)) => drop(self.log.add(&removed.entry)),
                    _ => {}
                }
            }
            Seen::Transmit(transmit) if wire::peek_kind(&transmit.bytes) == Some(CANVASS) => {
                self.marks.hit("oracle-canvass");
                if self.offline.contains(&at.node) {
                    let text = format!("node {} canvasses and is not connected", at.node);
                    return Err(Violation::new("IG9", text));
                }
                let opened = wire::header(&transmit.bytes)
                    .and_then(|header| wire::open(header, &transmit.channel, &self.verifier));
                if let Ok(Body::Canvass(canvass)) = opened.map(|opened| opened.body) {
                    self.branches.asks(at.node, canvass.base.term.round);
                }
                if self.calm {
                    let text = format!("node {} canvasses, the leader is there", at.node);
                    return Err(Violation::new("IG9", text));
                }
            }
            Seen::Event(Event::Group(event)) => self.event(at, event),
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, at: At<'_>, event: &GroupEvent) {
        match event {
            // A leader whose successor declines stays.
            GroupEvent::LeadDeclined { .. } => drop(self.left.remove(&at.node)),
            GroupEvent::Changed { change, .. } => match change {
                Change::Admitted { .. } => self.marks.hit("oracle-admitted"),
                Change::Kicked { .. } => self.marks.hit("oracle-kicked"),
                Change::Leader { how, .. } => {
                    self.marks.hit("oracle-new-leader");
                    match how {
                        Passing::HandedOver => self.marks.hit("oracle-handed-over"),
                        Passing::Succeeded { majority: true } => {
                            self.marks.hit("oracle-by-majority")
                        }
                        Passing::Succeeded { majority: false } => {
                            self.marks.hit("oracle-by-minority")
                        }
                        _ => {}
                    }
                }
                _ => {}
            },
            GroupEvent::Forked { .. } => self.marks.hit("oracle-forked"),
            GroupEvent::Joined { .. } | GroupEvent::Denied { .. } => {
                self.marks.hit("oracle-join-answered");
            }
            _ => {}
        }
    }

    /// The disk of a node changed: its log must be one (IG8, IG12), and greater than it ever was
    /// (IG2); in a strict group it keeps what was committed (IG7).
    fn stored(&mut self, at: At<'_>, rows: &[RowOp]) -> Verdict {
        let Some(group) = self.group else {
            return Ok(());
        };
        let node = at.node;
        let mut lost = Vec::new();
        self.branches.rows(node, &group.0, rows);
        let index = |key: &[u8]| -> Option<u64> {
            let (of, index) = key.split_at_checked(32)?;
            let mine = of == group.0;
            Some(u64::from_be_bytes(index.try_into().ok()?)).filter(|_| mine)
        };
        let mut changed = false;
        for row in rows {
            match row {
                RowOp::Put {
                    table: Table::Chain,
                    key,
                    value,
                } => {
                    let Some(index) = index(key) else { continue };
                    let Some(hash) = self.log.add(value) else {
                        let text =
                            format!("node {node} stores an entry {index} that nobody signed");
                        return Err(Violation::new("IG12", text));
                    };
                    self.keep(hash)?;
                    if let Some(entry) = self.log.entry(&hash) {
                        self.conduct.keeps(at.device.0, entry)?;
                    }
                    let disk = self.disks.entry(node).or_default();
                    lost.extend(disk.entries.insert(index, hash).filter(|old| *old != hash));
                    changed = true;
                }
                RowOp::Delete {
                    table: Table::Chain,
                    key,
                } => {
                    let Some(index) = index(key) else { continue };
                    lost.extend(self.disks.entry(node).or_default().entries.remove(&index));
                    changed = true;
                }
                _ => {}
            }
        }
        if changed {
            self.moved(at, &lost)
        } else {
            Ok(())
        }
    }

    /// An entry that somebody keeps: its place is taken.
    ///
    /// # Errors
    /// IG1: the owner of the term signed another entry for it, which somebody kept.
    fn keep(&mut self, hash: Hash) -> Verdict {
        let Some(entry) = self.log.entry(&hash) else {
            return Ok(());
        };
        let first = *self.places.entry((entry.term, entry.index)).or_insert(hash);
        if first == hash || self.log.may_differ(&entry.term) {
            return Ok(());
        }
        let text = format!(
            "two entries at round {}, index {}: {:?} and {:?}",
            entry.term.round,
            entry.index,
            self.log.entry(&first).map(|first| &first.op),
            entry.op
        );
        Err(Violation::new("IG1", text))
    }

    fn moved(&mut self, at: At<'_>, lost: &[Hash]) -> Verdict {
        let node = at.node;
        let disk = self.disks.entry(node).or_default();
        let Some((index, head)) = disk.entries.last_key_value().map(|(i, h)| (*i, *h)) else {
            disk.head = None;
            return Ok(());
        };
        let before = disk.head;
        let whole = disk.entries.len() as u64 == index;
        let fold = self.log.fold(head);
        let fold = match fold.as_deref() {
            Some(Ok(fold)) if whole => fold,
            Some(Err(why)) => {
                let entry = self.log.entry(&head);
                let text = format!("node {node} keeps a log that is none: {why} ({entry:?})");
                return Err(Violation::new("IG8", text));
            }
            _ => {
                let text = format!("node {node} keeps a log with holes up to {index}");
                return Err(Violation::new("IG8", text));
            }
        };
        if let Some(before) = before
            && let Some(older) = self.log.fold(before)
            && let Ok(older) = &*older
            && older.rank() > fold.rank()
        {
            let text = format!(
                "node {node} went from {:?}, index {}, to {:?}, index {}",
                older.term, older.index, fold.term, fold.index
            );
            return Err(Violation::new("IG2", text));
        }
        // An entry stands for all before it.
        for (at, (hash, said)) in self.committed.iter().rev() {
            let kept = self.disks[&node].entries.get(at) == Some(hash);
            let said = self.log.fold(*said);
            let Some(Ok(said)) = said.as_deref() else {
                continue;
            };
            if fold.rank() <= said.rank() {
                continue;
            }
            if kept {
                break;
            }
            let text = format!(
                "node {node} at {:?}, index {}, lacks entry {at} that was committed at {:?}, index {}",
                fold.term, fold.index, said.term, said.index
            );
            return Err(Violation::new("IG7", text));
        }
        let lost: Vec<_> = lost
            .iter()
            .filter_map(|hash| self.log.entry(hash))
            .cloned()
            .collect();
        let before = before.and_then(|before| self.log.good(before));
        self.branches
            .moved(at, before.as_ref(), fold, &lost, &self.log)?;
        self.remember(node, head);
        Ok(())
    }

    /// Notes the kicks that this log applied, so that they stick (IG4).
    fn remember(&mut self, node: usize, head: Hash) {
        let disk = self.disks.entry(node).or_default();
        disk.head = Some(head);
        let mut kicks = Vec::new();
        for hash in disk.entries.values() {
            let Some(entry) = self.log.entry(hash) else {
                continue;
            };
            if let Op::Kick(instances) | Op::Batch(instances, _) = &entry.op {
                kicks.extend(instances.iter().map(|instance| (*instance, entry.hash)));
            }
        }
        for (instance, hash) in kicks {
            disk.kicked.entry(instance).or_insert(hash);
        }
    }

    fn views<'a>(&self, nodes: &'a [View<'a>]) -> Vec<(&'a View<'a>, GroupView)> {
        let Some(group) = self.group else {
            return Vec::new();
        };
        let view = |node: &'a View<'a>| Some((node, node.endpoint?.group(group)?));
        nodes.iter().filter_map(view).collect()
    }

    /// IG3, IG4, IG7, IG11 and G12 at one moment.
    ///
    /// # Errors
    /// The first view that breaks them.
    pub fn probe(&mut self, nodes: &[View<'_>]) -> Verdict {
        if let Some(overdue) = self.overdue.take() {
            return Err(overdue);
        }
        for node in nodes {
            let count = node.rows_of(Table::Groups, &[]);
            if count.count() > MAX_ROWS {
                let text = format!("node {} keeps too many rows of a group", node.at.node);
                return Err(Violation::new("IG11", text));
            }
        }
        for (node, view) in self.views(nodes) {
            self.look(node.at.node, &view)?;
        }
        self.prefixes()
    }

    /// Judges what one member shows.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn look(&mut self, n: usize, view: &GroupView) -> Verdict {
        if self.left.contains(&n) && view.mine == Membership::Member {
            let text = format!("node {n} left, and is a member again unasked");
            return Err(Violation::new("G12", text));
        }
        if view.index > 0 {
            self.folds(n, view)?;
            self.commits(n, view)?;
            if let Some(fold) = self.log.good(view.hash) {
                self.conduct.commits(n, view, &fold, &mut self.log)?;
            }
        }
        self.branches.probe(n)
    }

    /// For a search, whose paths share one memory of entries.
    pub(crate) fn with_log<'a>(&'a mut self, log: &'a mut Log) -> Borrowed<'a> {
        core::mem::swap(&mut self.log, log);
        Borrowed { groups: self, log }
    }

    /// The group that is judged.
    pub(crate) fn founded(&mut self, group: GroupId) {
        self.group = Some(group);
    }

    /// IG3: the members and the leader are what the log folds to; IG4: who was kicked is hidden.
    fn folds(&mut self, n: usize, view: &GroupView) -> Verdict {
        let fold = self.log.fold(view.hash);
        let Some(fold) = fold.as_deref() else {
            // Its disk is behind, and nobody has heard of the entry yet.
            return Ok(());
        };
        let Ok(fold) = fold else {
            let text = format!("node {n} follows a log that is none: {fold:?}");
            return Err(Violation::new("IG8", text));
        };
        let mut seen = BTreeMap::new();
        for member in view.roster.iter().chain(&view.hidden) {
            let user = member.user.as_str().to_owned();
            seen.insert(member.device.0, (user, member.since));
        }
        let seats = fold.members.iter();
        let expected: BTreeMap<_, _> = seats
            .map(|(device, seat)| (*device, (seat.user.clone(), seat.since.1)))
            .collect();
        // Whoever is not in may not know who leads.
        let leads = view
            .leader_device
            .is_none_or(|leader| leader.0 == fold.leader);
        if seen != expected || !leads || (view.round, view.index) != (fold.term.round, fold.index) {
            let text = format!(
                "node {n} at round {} index {} has {seen:?} under {:?}, its log says {expected:?}",
                view.round, view.index, view.leader_device
            );
            return Err(Violation::new("IG3", text));
        }
        let Some(disk) = self.disks.get(&n) else {
            return Ok(());
        };
        for member in &view.roster {
            let device = member.device.0;
            let Some(seat) = fold.members.get(&device) else {
                continue;
            };
            let Some(kick) = disk.kicked.get(&(device, seat.nonce)) else {
                continue;
            };
            if !self.excused(fold, device, kick) {
                let text = format!("node {n} shows {member:?} again, which was removed");
                return Err(Violation::new("IG4", text));
            }
        }
        Ok(())
    }

    /// A kick that the log voids, that came after its leader's end, or that names who reigns now.
    fn excused(&self, fold: &Fold, device: [u8; 32], kick: &Hash) -> bool {
        let fenced = self.log.entry(kick).is_some_and(|entry| {
            let term = (entry.term.round, entry.term.claimant);
            fold.fences.contains_key(&term)
        });
        fold.voided.contains(kick) || fold.leader == device || fenced
    }

    /// IG7: what a strict group calls committed is in every greater log.
    fn commits(&mut self, n: usize, view: &GroupView) -> Verdict {
        use chat_core::group::Policy;
        if view.policy != Policy::Strict || view.committed == 0 {
            return Ok(());
        }
        let Some(disk) = self.disks.get(&n) else {
            return Ok(());
        };
        let Some(hash) = disk.entries.get(&view.committed).copied() else {
            return Ok(());
        };
        let first = self
            .committed
            .entry(view.committed)
            .or_insert((hash, view.hash));
        if first.0 != hash {
            let text = format!("two different entries {} are committed", view.committed);
            return Err(Violation::new("IG7", text));
        }
        self.marks.hit("oracle-committed");
        Ok(())
    }

    /// IG3: of two logs under one term the shorter begins the longer.
    fn prefixes(&mut self) -> Verdict {
        let mut longest: BTreeMap<(u64, [u8; 32]), (usize, u64)> = BTreeMap::new();
        for (node, disk) in &self.disks {
            let Some(entry) = disk.head.and_then(|head| self.log.entry(&head)) else {
                continue;
            };
            let reign = (entry.term.round, entry.term.claimant);
            let (other, index) = *longest.entry(reign).or_insert((*node, entry.index));
            let common = index.min(entry.index);
            let theirs = self.disks[&other].entries.get(&common);
            if disk.entries.get(&common) != theirs && !self.log.may_differ(&entry.term) {
                let text = format!("nodes {other} and {node} differ at {common} under one term");
                return Err(Violation::new("IG3", text));
            }
            if entry.index > index {
                longest.insert(reign, (*node, entry.index));
            }
        }
        Ok(())
    }
}

/// The judges with a memory of entries that is not theirs.
pub(crate) struct Borrowed<'a> {
    groups: &'a mut Groups,
    log: &'a mut Log,
}

impl Borrowed<'_> {
    pub(crate) fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        self.groups.see(at, seen)
    }

    /// Somebody keeps an entry.
    #[cfg(test)]
    pub(crate) fn keep(&mut self, hash: Hash) -> Verdict {
        self.groups.keep(hash)
    }

    /// Judges what one member shows, and that all logs of one term are one.
    pub(crate) fn look(&mut self, n: usize, view: &GroupView) -> Verdict {
        self.groups.look(n, view)?;
        self.groups.prefixes()
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        core::mem::swap(&mut self.groups.log, self.log);
    }
}
