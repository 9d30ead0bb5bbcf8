//! Groups: IG1–IG6, IG12 and G12, from told events, views and the log on the wire, which the second
//! reader in `chain` folds by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chat_core::event::Event;
use chat_core::group::{Change, GroupEvent, GroupView, Membership};
use chat_core::id::{DeviceId, GroupId};
use chat_core::wire::{self, Body};

use super::chain::Log;
use super::{Act, At, Seen, Settled, Verdict, View, Violation};
use crate::sim::{FakeVerifier, Ledger};

const ENTRIES: u8 = 0x42;
const REMOVED: u8 = 0x48;

/// See the module.
#[derive(Debug)]
pub struct Groups {
    verifier: FakeVerifier,
    log: Log,
    group: Option<GroupId>,
    /// The greatest head that a device showed in this process, and that it told at all.
    shown: BTreeMap<usize, (u64, u64)>,
    told: BTreeMap<DeviceId, (u64, u64)>,
    /// Nodes whose application left in this process and did not ask to come back.
    left: BTreeSet<usize>,
    marks: BTreeMap<&'static str, u64>,
}

impl Groups {
    /// For one run.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            verifier: FakeVerifier(ledger.clone()),
            log: Log::new(ledger),
            group: None,
            shown: BTreeMap::new(),
            told: BTreeMap::new(),
            left: BTreeSet::new(),
            marks: BTreeMap::new(),
        }
    }

    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        let mut marks: Vec<_> = self
            .marks
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect();
        marks.push(("oracle-entry-decoded", self.log.len() as u64));
        marks
    }

    fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// IG1 or IG2.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::Started | Seen::Died => {
                self.shown.remove(&at.node);
                self.left.remove(&at.node);
            }
            Seen::Act(Act::Leave { .. }) => drop(self.left.insert(at.node)),
            Seen::Act(Act::Join { .. }) => drop(self.left.remove(&at.node)),
            Seen::Act(Act::Created { group }) => self.group = Some(*group),
            Seen::Arrives(channel, bytes, _)
                if matches!(wire::peek_kind(bytes), Some(ENTRIES | REMOVED)) =>
            {
                let opened = wire::header(bytes)
                    .and_then(|header| wire::open(header, channel, &self.verifier));
                match opened.map(|opened| opened.body) {
                    Ok(Body::Entries(entries)) => {
                        for entry in entries.entries.iter() {
                            self.log.add(entry)?;
                        }
                    }
                    Ok(Body::Removed(removed)) => self.log.add(&removed.entry)?,
                    _ => {}
                }
            }
            Seen::Event(Event::Group(event)) => self.event(at, event),
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, at: At<'_>, event: &GroupEvent) {
        // A leader whose successor declines stays.
        if let GroupEvent::LeadDeclined { .. } = event {
            self.left.remove(&at.node);
        }
        match event {
            GroupEvent::Changed {
                change,
                round,
                index,
                ..
            } => {
                let told = self.told.entry(at.device).or_default();
                *told = (*told).max((*round, *index));
                match change {
                    Change::Admitted { .. } => self.mark("oracle-admitted"),
                    Change::Kicked { .. } => self.mark("oracle-kicked"),
                    Change::Leader { .. } => self.mark("oracle-new-leader"),
                    _ => {}
                }
            }
            GroupEvent::Joined { .. } | GroupEvent::Denied { .. } => {
                self.mark("oracle-join-answered");
            }
            _ => {}
        }
    }

    fn views<'a>(&self, nodes: &'a [View<'a>]) -> Vec<(&'a View<'a>, GroupView)> {
        let Some(group) = self.group else {
            return Vec::new();
        };
        let view = |node: &'a View<'a>| Some((node, node.endpoint?.group(group)?));
        nodes.iter().filter_map(view).collect()
    }

    /// IG2, IG3 and G12 at one moment.
    ///
    /// # Errors
    /// The first view that breaks them.
    pub fn probe(&mut self, nodes: &[View<'_>]) -> Verdict {
        let mut rosters: BTreeMap<(u64, u64), (usize, GroupView)> = BTreeMap::new();
        for (node, view) in self.views(nodes) {
            let head = (view.round, view.index);
            if view.index == 0 {
                continue;
            }
            let n = node.at.node;
            let shown = self.shown.entry(n).or_default();
            let told = self.told.get(&node.at.device).copied().unwrap_or_default();
            if head < *shown || head < told {
                let text = format!("node {n} went from {shown:?}, told {told:?}, to {head:?}");
                return Err(Violation::new("IG2", text));
            }
            *shown = head;
            if self.left.contains(&n) && view.mine == Membership::Member {
                let text = format!("node {n} left, and is a member again unasked");
                return Err(Violation::new("G12", text));
            }
            let (first, other) = rosters.entry(head).or_insert_with(|| (n, view.clone()));
            // Whoever is not in may not know who leads.
            let leaders = other.leader.as_ref().zip(view.leader.as_ref());
            if other.roster != view.roster || leaders.is_some_and(|(a, b)| a != b) {
                let text = format!(
                    "at {head:?} node {first} sees {:?} and node {n} sees {:?}",
                    other.roster, view.roster
                );
                return Err(Violation::new("IG3", text));
            }
            self.folds(n, &view)?;
        }
        Ok(())
    }

    /// IG3: the roster is the fold of the chain, by the second reader.
    fn folds(&self, n: usize, view: &GroupView) -> Verdict {
        let leader = view
            .roster
            .iter()
            .filter(|member| Some(&member.user) == view.leader.as_ref());
        for leader in leader {
            let Some(fold) = self.log.fold(view.round, view.index, leader.device.0) else {
                continue;
            };
            let mut seen = BTreeMap::new();
            for member in &view.roster {
                seen.insert(
                    member.device.0,
                    (member.user.as_str().to_owned(), member.since),
                );
            }
            let expected: BTreeMap<_, _> = fold
                .members
                .iter()
                .map(|(device, (user, _, since))| (*device, (user.clone(), *since)))
                .collect();
            if seen != expected || fold.leader != Some(leader.device.0) {
                let text = format!(
                    "node {n} at round {} index {} has {seen:?}, its log says {expected:?}",
                    view.round, view.index
                );
                return Err(Violation::new("IG3", text));
            }
        }
        Ok(())
    }

    /// IG5 and IG6 at the end: one head, one live leader, everybody answered.
    ///
    /// # Errors
    /// What is still missing.
    pub fn settled(&self, nodes: &[View<'_>]) -> Result<Settled, Violation> {
        let missing = |rule: &'static str, text: String| Err(Violation::new(rule, text));
        if let Some(node) = nodes
            .iter()
            .find(|node| !node.killed && node.endpoint.is_none())
        {
            return missing("IG5", format!("node {} is down", node.at.node));
        }
        let views = self.views(nodes);
        let inside = |view: &GroupView| {
            matches!(
                view.mine,
                Membership::Member | Membership::Leader | Membership::Leaving
            )
        };
        let Some((best_at, best)) = views
            .iter()
            .filter(|(_, view)| inside(view))
            .max_by_key(|(_, view)| (view.round, view.index))
        else {
            // Nobody is in any more, or the group never was: nobody can answer.
            return Ok(Settled::Exempt);
        };
        let alive = |device: DeviceId| {
            nodes
                .iter()
                .any(|node| node.at.device == device && !node.killed)
        };
        let leads = |member: &&chat_core::group::Member| Some(&member.user) == best.leader.as_ref();
        let leaders: Vec<_> = best
            .roster
            .iter()
            .filter(leads)
            .map(|member| member.device)
            .collect();
        if !leaders.iter().any(|device| alive(*device)) {
            return Ok(Settled::Exempt);
        }
        for device in &leaders {
            let heir = self
                .log
                .fold(best.round, best.index, device.0)
                .and_then(|fold| fold.heir);
            if heir.is_some_and(|heir| !alive(DeviceId(heir))) {
                return Ok(Settled::Exempt);
            }
        }
        // A leader that leaves waits for its successor, which may be gone.
        let waits = views.iter().any(|(node, view)| {
            view.mine == Membership::Leaving && leaders.contains(&node.at.device)
        });
        if waits && best.roster.iter().any(|member| !alive(member.device)) {
            return Ok(Settled::Exempt);
        }
        let reigning = views
            .iter()
            .filter(|(_, view)| view.mine == Membership::Leader)
            .count();
        if reigning != 1 {
            return missing("IG5", format!("{reigning} nodes lead"));
        }
        for (node, view) in &views {
            if node.killed {
                continue;
            }
            let n = node.at.node;
            let listed = best
                .roster
                .iter()
                .any(|member| member.device == node.at.device);
            let head = (view.round, view.index, &view.leader, &view.roster);
            let wanted = (best.round, best.index, &best.leader, &best.roster);
            if view.mine == Membership::Asking {
                return missing("IG6", format!("node {n} still asks to join"));
            }
            if view.mine == Membership::Leaving {
                return missing("IG6", format!("node {n} is still leaving"));
            }
            if inside(view) != listed {
                return missing(
                    "IG4",
                    format!(
                        "node {n} is {:?}, listed by node {}: {listed}",
                        view.mine, best_at.at.node
                    ),
                );
            }
            if listed && head != wanted {
                return missing(
                    "IG5",
                    format!("node {n} is at {head:?}, the head is {wanted:?}"),
                );
            }
            if view.mine == Membership::Leader && !view.requests.is_empty() {
                return missing("IG6", format!("the leader keeps {:?}", view.requests));
            }
        }
        Ok(Settled::Yes)
    }
}
