//! Faults of the one who leads the group, and how long it takes until another leads.

use std::time::Duration;

use chat_testkit::proxy::Line;
use chat_testkit::rig::Note;

use super::log::{Led, Log};
use super::wall_micros;
use super::world::{Failure, World};

/// Quiet before a member leaves, so that nothing under way is owed to who is out.
const QUIET: Duration = Duration::from_secs(20);

/// `failover p50=… p99=… max=… ms over N changes of the leader`.
pub(super) fn summary(mut micros: Vec<u64>) -> String {
    micros.sort_unstable();
    let count = micros.len();
    let at = |percent: usize| micros[(count * percent).div_ceil(100).clamp(1, count) - 1] / 1_000;
    format!(
        "failover p50={} p99={} max={} ms over {count} changes of the leader",
        at(50),
        at(99),
        at(100)
    )
}

/// The one leader and term that everybody sees, once all see the same and `members` of them.
fn agreed(log: &Log, members: usize) -> Option<Led> {
    let mut all = log.clients.values().map(|known| known.led.as_ref());
    let first = all.next().flatten()?;
    let same = |led: &Led| led.by == first.by && led.round == first.round && led.members == members;
    let rest = all.all(|led| led.is_some_and(same));
    (same(first) && rest).then(|| first.clone())
}

impl World {
    /// Waits until everybody sees one leader and everybody else.
    fn agree(&mut self) -> Result<Led, Failure> {
        let members = self.mates.len();
        let mut led = None;
        self.log
            .wait("agreement on one leader", self.patience, |log| {
                led = agreed(log, members);
                led.is_some()
            })?;
        Ok(led.expect("it was waited for"))
    }

    fn leader(&self, led: &Led) -> Result<usize, Failure> {
        let mut names = self.mates.iter().map(|mate| &mate.name);
        let at = names.position(|name| *name == led.by);
        at.ok_or_else(|| format!("{} leads, whom nobody knows", led.by).into())
    }

    /// Waits until everybody but the old leader sees another under a greater term; notes how long
    /// that took since `start`.
    fn succeeded(&mut self, old: &Led, start: u64) -> Result<(), Failure> {
        let mut last = 0;
        self.log.wait("another leader", self.patience, |log| {
            let rest = log.clients.iter().filter(|(name, _)| **name != old.by);
            let led: Vec<_> = rest.map(|(_, known)| known.led.as_ref()).collect();
            let newer = |led: &Led| led.by != old.by && led.round > old.round;
            last = led.iter().flatten().map(|led| led.at).max().unwrap_or(0);
            led.iter().all(|led| led.is_some_and(newer))
        })?;
        self.failovers.push(last.saturating_sub(start));
        Ok(())
    }
}

pub(super) fn kill(world: &mut World) -> Result<(), Failure> {
    let led = world.agree()?;
    let at = world.leader(&led)?;
    world.pause(20, 300);
    let start = wall_micros();
    world.mates[at].kill();
    world.client_kills += 1;
    world.succeeded(&led, start)?;
    world.log.note(&led.by, Note::Over);
    world.mates[at].start()?;
    world.agree()?;
    Ok(())
}

pub(super) fn pass(world: &mut World) -> Result<(), Failure> {
    let led = world.agree()?;
    let at = world.leader(&led)?;
    let to = (at + 1 + world.draw.index(world.mates.len() - 1)) % world.mates.len();
    let to = world.mates[to].name.clone();
    let start = wall_micros();
    let order = format!("pass {} {to}", world.group);
    world.mates[at].order(&order);
    world.succeeded(&led, start)?;
    let now = world.agree()?;
    if now.by == to {
        Ok(())
    } else {
        Err(format!("{} leads, and was not asked", now.by).into())
    }
}

pub(super) fn leave(world: &mut World) -> Result<(), Failure> {
    world.talk(Duration::ZERO);
    world
        .log
        .wait("everything arriving", QUIET, Log::is_quiet)?;
    let led = world.agree()?;
    let at = world.leader(&led)?;
    let start = wall_micros();
    let order = format!("leave {}", world.group);
    world.mates[at].order(&order);
    world.succeeded(&led, start)?;
    // It leads no more; it is out a little later.
    let left = world.mates.len() - 1;
    world.log.wait("a leave", world.patience, |log| {
        let rest = log.clients.iter().filter(|(name, _)| **name != led.by);
        let mut rest = rest.map(|(_, known)| known.led.as_ref());
        rest.all(|now| now.is_some_and(|now| now.members == left))
    })?;
    let order = format!("join {}", world.group);
    world.mates[at].order(&order);
    world.agree()?;
    Ok(())
}

pub(super) fn split(world: &mut World) -> Result<(), Failure> {
    let led = world.agree()?;
    let at = world.leader(&led)?;
    let (_, between) = world
        .bridged
        .as_ref()
        .ok_or("the brokers are not bridged")?;
    between.set(Line::Dead);
    // Whoever is on the leader's side keeps it; the others are at the other broker.
    let side = world.mates[at].far;
    let others = world.mates.iter().filter(|mate| mate.far != side);
    let others: Vec<_> = others.map(|mate| mate.name.clone()).collect();
    world
        .log
        .wait("a leader of the other half", world.patience, |log| {
            others.iter().all(|name| {
                let led_there = log.clients.get(name).and_then(|known| known.led.as_ref());
                led_there.is_some_and(|there| there.round > led.round)
            })
        })?;
    let name = format!("eve{}", world.mates.len());
    let group = world.group.clone();
    let guest = world.add_guest(&name)?;
    guest.order(&format!("knock {group}"));
    world.pause(0, 1_500);
    let (_, between) = world.bridged.as_ref().expect("it was there");
    between.set(Line::Open);
    world.agree()?;
    world.recover()
}
