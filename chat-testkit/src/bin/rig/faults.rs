//! What goes wrong, and for how long.

use std::time::Duration;

use chat_testkit::broker::{BrokerError, Memory};
use chat_testkit::proxy::{Direction, Line};
use chat_testkit::rig::Note;

use super::cell::Setup;
use super::lead;
use super::world::{Failure, World};

/// A kind of fault.
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// Rounds for every hundred that are asked for.
    pub(super) rounds: u64,
    pub(super) setup: Setup,
    /// One round: something breaks, and is mended.
    pub(super) round: fn(&mut World) -> Result<(), Failure>,
}

const fn fault(
    name: &'static str,
    rounds: u64,
    setup: Setup,
    round: fn(&mut World) -> Result<(), Failure>,
    what: &'static str,
) -> Fault {
    Fault {
        name,
        what,
        rounds,
        setup,
        round,
    }
}

use Setup::{Bridged, Durable, Tight, Volatile};

#[rustfmt::skip]
pub(super) const FAULTS: &[Fault] = &[
    fault("kill", 50, Durable, kill, "the broker is killed with -9 and comes back with its disk"),
    fault("amnesia", 50, Volatile, amnesia, "the broker is killed with -9 and comes back empty"),
    fault("freeze", 8, Durable, freeze, "the broker stands still (SIGSTOP)"),
    fault("freeze-long", 2, Durable, freeze_long, "it stands still for longer than keep-alives and sessions last"),
    fault("refuse", 8, Durable, refuse, "nobody listens where the broker was"),
    fault("cut", 20, Durable, cut, "all connections are reset at once"),
    fault("amid", 20, Durable, amid, "connections are reset amid a frame"),
    fault("dead", 6, Durable, dead, "one client's line is half-open: nothing moves, nothing ends"),
    fault("one-way", 6, Durable, one_way, "one client's line carries one direction only"),
    fault("slow", 6, Durable, slow, "every byte is late"),
    fault("rate", 6, Durable, rate, "few bytes a second"),
    fault("dribble", 6, Durable, dribble, "one byte at a time"),
    fault("client-kill", 1_000, Durable, client_kill, "a client is killed with -9"),
    fault("client-freeze", 10, Durable, client_freeze, "a client stands still (SIGSTOP)"),
    fault("client-disk", 20, Durable, client_disk, "the disk of a client runs full amid a commit"),
    fault("client-freeze-long", 2, Durable, client_freeze_long, "the same of a client, whose lead and lease are over then"),
    fault("deaf", 6, Durable, deaf, "the application of a client does not read"),
    fault("slow-reader", 6, Tight, slow_reader, "a client stands still amid bursts, and queues are short"),
    fault("overflow", 1, Tight, overflow, "10,000 messages for somebody who is away, and queues are short"),
    fault("broker-disk", 10, Durable, broker_disk, "the broker's disk runs full, then it is killed"),
    fault("bridge", 10, Bridged, bridge, "the line between two bridged brokers breaks"),
    fault("lead-kill", 100, Durable, lead::kill, "the group's leader is killed with -9"),
    fault("lead-pass", 50, Durable, lead::pass, "the leader hands over to another member"),
    fault("lead-leave", 20, Durable, lead::leave, "the leader leaves, and joins again"),
    fault("lead-split", 3, Bridged, lead::split, "two bridged brokers part until both halves have a leader"),
];

fn kill(world: &mut World) -> Result<(), Failure> {
    world.pause(20, 200);
    world.kill_broker();
    world.pause(0, 100);
    world.broker.restart(Memory::Kept)?;
    world.recover()
}

fn amnesia(world: &mut World) -> Result<(), Failure> {
    world.pause(20, 200);
    world.kill_broker();
    world.pause(0, 100);
    world.broker.restart(Memory::Lost)?;
    world.recover()
}

fn freeze(world: &mut World) -> Result<(), Failure> {
    freeze_for(world, 200, 3_000)
}

fn freeze_long(world: &mut World) -> Result<(), Failure> {
    freeze_for(world, 20_000, 30_000)
}

fn freeze_for(world: &mut World, low: u64, high: u64) -> Result<(), Failure> {
    world.pause(20, 200);
    world.broker.freeze()?;
    world.pause(low, high);
    world.broker.thaw()?;
    world.recover()
}

/// Every line is `line` for a while.
fn lines(world: &mut World, line: Line, low: u64, high: u64) -> Result<(), Failure> {
    world.pause(20, 200);
    world.all_lines(line);
    world.pause(low, high);
    world.all_lines(Line::Open);
    world.recover()
}

/// The line of one client is `line` for a while.
fn one_line(world: &mut World, line: Line, low: u64, high: u64) -> Result<(), Failure> {
    world.pause(20, 200);
    let one = world.draw.index(world.proxies.len());
    world.proxies[one].set(line);
    world.pause(low, high);
    world.proxies[one].set(Line::Open);
    world.recover()
}

fn refuse(world: &mut World) -> Result<(), Failure> {
    lines(world, Line::Refused, 100, 800)
}

fn cut(world: &mut World) -> Result<(), Failure> {
    world.pause(20, 200);
    for proxy in &world.proxies {
        proxy.cut();
    }
    world.recover()
}

fn amid(world: &mut World) -> Result<(), Failure> {
    let bytes = world.draw.range(1, 20_000);
    lines(world, Line::ResetAfter(bytes), 200, 600)
}

fn dead(world: &mut World) -> Result<(), Failure> {
    one_line(world, Line::Dead, 500, 4_000)
}

fn one_way(world: &mut World) -> Result<(), Failure> {
    let way = world.draw.pick(&[Direction::Up, Direction::Down]);
    one_line(world, Line::OneWay(way), 500, 4_000)
}

fn slow(world: &mut World) -> Result<(), Failure> {
    let delay = Duration::from_millis(world.draw.range(50, 400));
    lines(world, Line::Slow(delay), 1_000, 2_000)
}

fn rate(world: &mut World) -> Result<(), Failure> {
    let bytes = world.draw.range(2_000, 50_000);
    let bytes = u32::try_from(bytes).expect("few");
    lines(world, Line::Rate(bytes), 1_000, 2_000)
}

fn dribble(world: &mut World) -> Result<(), Failure> {
    let pause = Duration::from_millis(world.draw.range(1, 20));
    lines(world, Line::Dribble(pause), 1_000, 2_000)
}

fn client_kill(world: &mut World) -> Result<(), Failure> {
    world.pause(0, 60);
    let one = world.draw.index(world.mates.len());
    world.mates[one].kill();
    world.client_kills += 1;
    world.log.note(&world.mates[one].name, Note::Over);
    world.mates[one].start()?;
    Ok(())
}

fn client_freeze(world: &mut World) -> Result<(), Failure> {
    client_freeze_for(world, 200, 3_000)
}

fn client_freeze_long(world: &mut World) -> Result<(), Failure> {
    client_freeze_for(world, 20_000, 30_000)
}

fn client_freeze_for(world: &mut World, low: u64, high: u64) -> Result<(), Failure> {
    world.pause(20, 200);
    let one = world.draw.index(world.mates.len());
    world.mates[one].signal("STOP")?;
    world.pause(low, high);
    world.mates[one].signal("CONT")?;
    world.recover()
}

fn client_disk(world: &mut World) -> Result<(), Failure> {
    world.pause(20, 200);
    let one = world.draw.index(world.mates.len());
    world.mates[one].order("full");
    let name = world.mates[one].name.clone();
    let from = world.log.lock().entries.len();
    let stops = |log: &super::log::Log| {
        let since = log.entries.iter().skip(from);
        let mut mine = since.filter(|entry| entry.who == name);
        mine.any(|entry| entry.note == Note::Stopped)
    };
    world.log.wait(
        "a client that stops on a full disk",
        Duration::from_secs(20),
        stops,
    )?;
    world.mates[one].kill();
    world.mates[one].start()?;
    world.recover()
}

fn deaf(world: &mut World) -> Result<(), Failure> {
    world.pause(20, 200);
    let one = world.draw.index(world.mates.len());
    world.mates[one].order("read false");
    for mate in &mut world.mates {
        mate.order("burst 600");
    }
    world.pause(500, 1_500);
    world.mates[one].order("read true");
    world.recover()
}

fn slow_reader(world: &mut World) -> Result<(), Failure> {
    let one = world.draw.index(world.mates.len());
    world.mates[one].signal("STOP")?;
    for at in (0..world.mates.len()).filter(|at| *at != one) {
        world.mates[at].order("burst 500");
    }
    world.pause(1_000, 2_500);
    world.mates[one].signal("CONT")?;
    world.recover()
}

fn overflow(world: &mut World) -> Result<(), Failure> {
    const MANY: u64 = 10_000;
    world.talk(Duration::ZERO);
    let away = world.mates.len() - 1;
    world.mates[away].kill();
    let name = world.mates[0].name.clone();
    let absent = world.mates[away].name.clone();
    let (before, conv) = {
        let mut log = world.log.lock();
        let before = log.known(&name).next;
        let theirs = log.known(&absent).convs.clone();
        let mine = &log.known(&name).convs;
        let mut ours = mine.keys().filter(|conv| theirs.get(*conv) == Some(&2));
        let conv = ours.next().cloned();
        (before, conv.ok_or("no chat with who is away")?)
    };
    world.mates[0].order(&format!("burst {MANY} {conv}"));
    let taken = |log: &super::log::Log| {
        let known = &log.clients[&name];
        known.next >= before + MANY && known.doubtful.is_empty()
    };
    world
        .log
        .wait("10,000 messages taken", Duration::from_secs(120), taken)?;
    world.mates[away].start()?;
    // So short a queue makes of a quick stream a slow one.
    world
        .log
        .wait("10,000 messages told", Duration::from_secs(300), |log| {
            log.owed.is_empty()
        })?;
    world.talk(super::PAUSE);
    world.recover()
}

fn broker_disk(world: &mut World) -> Result<(), Failure> {
    world.kill_broker();
    let room = world.draw.range(1, 64);
    world.broker.limit_files(Some(room));
    // Some do not even start with so little room.
    let cramped = world.broker.restart(Memory::Kept);
    world.pause(300, 800);
    world.kill_broker();
    world.broker.limit_files(None);
    // Mosquitto refuses a file that it could not write to its end: its operator removes that.
    let after = world.broker.restart(Memory::Kept);
    if let Err(BrokerError::NotReady { .. }) = after {
        world.broker.restart(Memory::Lost)?;
    } else {
        after?;
    }
    match cramped {
        Err(error) if !matches!(error, BrokerError::NotReady { .. }) => Err(error.into()),
        _ => world.recover(),
    }
}

fn bridge(world: &mut World) -> Result<(), Failure> {
    let line = match world.draw.below(3) {
        0 => Line::Refused,
        1 => Line::Dead,
        _ => Line::ResetAfter(world.draw.range(1, 5_000)),
    };
    world.pause(20, 200);
    let (_, between) = world
        .bridged
        .as_ref()
        .ok_or("the brokers are not bridged")?;
    between.set(line);
    let millis = world.draw.range(200, 1_500);
    std::thread::sleep(Duration::from_millis(millis));
    between.set(Line::Open);
    world.recover()
}
