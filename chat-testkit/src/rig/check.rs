//! The verdict over a history.
//!
//! An application does with a message what it does together with acknowledging its place in the
//! inbox. So a message told again for the same place is one message; told for two places, or told
//! again without saying so, it is a duplicate.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Note};

/// How many problems are spelled out.
const EXAMPLES: usize = 20;

/// What became of all messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Messages that some client tried to send.
    pub attempts: u64,
    /// Those that the library took.
    pub acked: u64,
    /// Those that it refused.
    pub refused: u64,
    /// Attempts that were under way when their process died and were taken all the same, at once
    /// or when repeated.
    pub recovered: u64,
    /// Attempts of which nobody knows what became.
    pub unknown: u64,
    /// Messages that were taken and that every other member was told.
    pub delivered: u64,
    /// Messages that were taken and that some other member was never told, or does not show.
    pub lost: u64,
    /// Messages that somebody got twice.
    pub duplicated: u64,
    /// Messages told before an earlier one of the same sender, or shown in another order than
    /// others show them.
    pub reordered: u64,
    /// Messages that nobody sent, or that were refused.
    pub unexpected: u64,
    /// Messages that were told to have failed, and gaps.
    pub given_up: u64,
    /// From the end of each fault to the first message that was sent after it, at the slowest
    /// client concerned; in microseconds, sorted.
    pub recoveries: Vec<u64>,
    /// Faults after which the next came before everybody had heard something new.
    pub unmeasured: u64,
    /// The first problems, in words.
    pub problems: Vec<String>,
}

impl Verdict {
    /// True when nothing was lost, doubled, put out of order, invented or given up.
    pub fn is_clean(&self) -> bool {
        let bad = self.lost + self.duplicated + self.reordered + self.unexpected + self.given_up;
        bad == 0
    }

    /// Adds the numbers of another history.
    pub fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.acked += other.acked;
        self.refused += other.refused;
        self.recovered += other.recovered;
        self.unknown += other.unknown;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unexpected += other.unexpected;
        self.given_up += other.given_up;
        self.unmeasured += other.unmeasured;
        self.recoveries.extend(other.recoveries);
        self.recoveries.sort_unstable();
        let room = EXAMPLES.saturating_sub(self.problems.len());
        self.problems.extend(other.problems.into_iter().take(room));
    }

    /// The recovery time that this share of the faults did not exceed, in microseconds.
    pub fn recovery(&self, per_cent: usize) -> u64 {
        let rank = (self.recoveries.len() * per_cent).div_ceil(100);
        let at = rank.saturating_sub(1);
        self.recoveries.get(at).copied().unwrap_or_default()
    }

    fn problem(&mut self, what: impl FnOnce() -> String) {
        if self.problems.len() < EXAMPLES {
            self.problems.push(what());
        }
    }
}

/// A message: whose, and which of theirs.
type Key<'a> = (&'a str, u64);

#[derive(Default)]
struct Message<'a> {
    conv: &'a str,
    invoked: u64,
    taken: bool,
    refused: bool,
    /// Its process died, and nobody knew.
    in_doubt: bool,
    told: BTreeMap<&'a str, u64>,
}

/// Judges a history in the order of time. Its end must be quiet: every client runs, nothing is under way, and each has
/// shown its timelines, if any has.
pub fn check(history: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut members: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in history {
        if let Note::Member { conv, .. } = &entry.note {
            members.entry(conv).or_default().insert(&entry.who);
        }
    }
    let mut messages: BTreeMap<Key<'_>, Message<'_>> = BTreeMap::new();
    // The last number told of a sender in a conversation to a client.
    let mut last: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let mut shown: BTreeMap<(&str, &str), Vec<Key<'_>>> = BTreeMap::new();
    for Entry { at, who, note } in history {
        match note {
            Note::Begin => {
                let mine = messages.range_mut((who.as_str(), 0)..=(who.as_str(), u64::MAX));
                for (_, message) in mine {
                    message.in_doubt |= !message.taken && !message.refused;
                }
            }
            Note::Invoke { conv, n } => {
                let message = messages.entry((who, *n)).or_default();
                message.conv = conv;
                if message.invoked == 0 {
                    message.invoked = *at;
                }
            }
            Note::Ok { n } => messages.entry((who, *n)).or_default().taken = true,
            Note::Refused { n } => messages.entry((who, *n)).or_default().refused = true,
            Note::Failed { n } => {
                verdict.given_up += 1;
                verdict.problem(|| format!("{who}: {n} is said to have failed"));
            }
            Note::Gap { conv, count } => {
                verdict.given_up += count;
                verdict.problem(|| format!("{who}: a gap of {count} in {conv}"));
            }
            Note::Received {
                conv,
                from,
                n,
                pos,
                again,
            } => {
                let Some(message) = messages.get_mut(&(from.as_str(), *n)) else {
                    verdict.unexpected += 1;
                    verdict.problem(|| format!("{who} got {n} of {from}, who sent no such"));
                    continue;
                };
                if let Some(first) = message.told.get(who.as_str()) {
                    if first != pos || !again {
                        verdict.duplicated += 1;
                        let places = format!("at {first} and at {pos}, again: {again}");
                        verdict.problem(|| format!("{who} got {n} of {from} {places}"));
                    }
                    continue;
                }
                message.told.insert(who, *pos);
                let last = last.entry((who, conv, from)).or_default();
                if *last > *n {
                    verdict.reordered += 1;
                    verdict.problem(|| format!("{who} got {n} of {from} after {last}"));
                }
                *last = (*last).max(*n);
            }
            Note::Shown { conv, from, n } => {
                shown.entry((conv, who)).or_default().push((from, *n));
            }
            Note::Over
            | Note::Member { .. }
            | Note::Leads { .. }
            | Note::Up
            | Note::Down
            | Note::Stopped => {}
        }
    }
    fates(&mut verdict, &messages, &members, &shown);
    orders(&mut verdict, &shown);
    recoveries(&mut verdict, history, &messages);
    verdict
}

fn fates(
    verdict: &mut Verdict,
    messages: &BTreeMap<Key<'_>, Message<'_>>,
    members: &BTreeMap<&str, BTreeSet<&str>>,
    shown: &BTreeMap<(&str, &str), Vec<Key<'_>>>,
) {
    let sets: BTreeMap<_, BTreeSet<_>> = shown
        .iter()
        .map(|(place, items)| (*place, items.iter().copied().collect()))
        .collect();
    for ((from, n), message) in messages {
        verdict.attempts += 1;
        verdict.acked += u64::from(message.taken);
        verdict.refused += u64::from(message.refused);
        verdict.recovered += u64::from(message.in_doubt && message.taken);
        verdict.unknown += u64::from(!message.taken && !message.refused);
        if message.refused && !message.told.is_empty() {
            verdict.unexpected += 1;
            verdict.problem(|| format!("{n} of {from} was refused, and told"));
        }
        if !message.taken {
            continue;
        }
        let everybody = members.get(message.conv).into_iter().flatten();
        let lacking: Vec<_> = everybody
            .filter(|member| {
                let told = *member == from || message.told.contains_key(*member);
                let shows = sets.get(&(message.conv, **member));
                // Where nobody showed anything, being told is all there is.
                !told || shows.map_or(!shown.is_empty(), |items| !items.contains(&(*from, *n)))
            })
            .collect();
        if lacking.is_empty() {
            verdict.delivered += 1;
        } else {
            verdict.lost += 1;
            verdict.problem(|| format!("{lacking:?} lack {n} of {from} in {}", message.conv));
        }
    }
}

/// Each item once, each sender's in its order, and all in the same order everywhere.
fn orders(verdict: &mut Verdict, shown: &BTreeMap<(&str, &str), Vec<Key<'_>>>) {
    let mut agreed: BTreeMap<&str, (&str, BTreeMap<Key<'_>, usize>)> = BTreeMap::new();
    for ((conv, who), items) in shown {
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (from, n) in items {
            if !seen.insert((*from, *n)) {
                verdict.duplicated += 1;
                verdict.problem(|| format!("{who} shows {n} of {from} twice in {conv}"));
            }
            let last = last.entry(from).or_default();
            if *last > *n {
                verdict.reordered += 1;
                verdict.problem(|| format!("{who} shows {n} of {from} after {last} in {conv}"));
            }
            *last = (*last).max(*n);
        }
        let (other, places) = agreed.entry(conv).or_insert_with(|| {
            let places = items.iter().copied().zip(0..).collect();
            (who, places)
        });
        // What only one of them has is lost, and counted there.
        let common = items.iter().filter_map(|item| places.get(item));
        if !common.is_sorted() {
            verdict.reordered += 1;
            verdict.problem(|| format!("{who} and {other} show {conv} in different orders"));
        }
    }
}

fn recoveries(verdict: &mut Verdict, history: &[Entry], messages: &BTreeMap<Key<'_>, Message<'_>>) {
    let clients: BTreeSet<&str> = history
        .iter()
        .filter(|entry| entry.note == Note::Begin)
        .map(|entry| entry.who.as_str())
        .collect();
    // Faults that are over, with those that have not yet heard anything new.
    let mut open: Vec<(u64, &str, BTreeSet<&str>)> = Vec::new();
    for Entry { at, who, note } in history {
        match note {
            Note::Over => {
                let concerned = if who == "rig" {
                    clients.clone()
                } else {
                    BTreeSet::from([who.as_str()])
                };
                open.retain(|(_, before, _)| {
                    let replaced = before == who;
                    verdict.unmeasured += u64::from(replaced);
                    !replaced
                });
                open.push((*at, who, concerned));
            }
            Note::Received { from, n, .. } => {
                let Some(message) = messages.get(&(from.as_str(), *n)) else {
                    continue;
                };
                for (over, _, waiting) in &mut open {
                    if message.invoked > *over {
                        waiting.remove(who.as_str());
                    }
                }
                open.retain(|(over, _, waiting)| {
                    if waiting.is_empty() {
                        verdict.recoveries.push(at.saturating_sub(*over));
                    }
                    !waiting.is_empty()
                });
            }
            _ => {}
        }
    }
    verdict.unmeasured += open.len() as u64;
    verdict.recoveries.sort_unstable();
}
