//! The negotiation table as readable transcripts: `testdata/*.txt`. A stanza `world` starts afresh;
//! each input line is one act. `REWRITE=1` writes what happens into the files: read the diff.

use core::time::Duration;

use super::world::{World, user};
use crate::id::{ConvId, InviteId};
use crate::identity::Sender;
use crate::session::{Rejection, SessionState};

#[test]
fn s_transcripts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/session/testdata");
    datadriven::walk(dir, |file| {
        let mut world = World::new(&[], 0);
        file.run(|case| {
            match case.directive.as_str() {
                "world" => {
                    let names = case.take_args::<String>("of").unwrap();
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    let low = case.try_take_arg::<String>("lowest").unwrap();
                    world = World::with_lowest(&names, low.as_deref().unwrap_or(names[0]));
                }
                "run" => {}
                other => panic!("no directive {other}"),
            }
            case.expect_empty().unwrap();
            world.log.clear();
            for line in case.input.lines() {
                act(&mut world, line);
            }
            world.log.clone()
        });
    });
}

fn standing(world: &World, at: &str, peer: &str) -> InviteId {
    match world.nodes[at].sessions.state(&user(peer)) {
        SessionState::Invited { invite } | SessionState::Inviting { invite } => invite,
        // A request beside an open session.
        _ => world.nodes[at]
            .sessions
            .peers
            .record(&user(peer))
            .and_then(|r| r.inn.as_ref())
            .map_or(InviteId([0; 16]), |inn| inn.invite),
    }
}

fn span(text: &str) -> Duration {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap();
    let (count, unit) = text.split_at(split);
    let count: u64 = count.parse().unwrap();
    match unit {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "min" => Duration::from_secs(60 * count),
        "d" => Duration::from_secs(86_400 * count),
        other => panic!("no unit {other}"),
    }
}

fn flights(world: &World, wanted: &[&str]) -> Vec<usize> {
    let matches = |f: &super::world::Flight, w: &str| match w.strip_prefix('#') {
        Some(number) => f.number == number.parse::<usize>().unwrap(),
        None => f.to == w,
    };
    if wanted.is_empty() {
        return world.flights.iter().map(|f| f.number).collect();
    }
    wanted
        .iter()
        .flat_map(|w| {
            let hits: Vec<_> = world.flights.iter().filter(|f| matches(f, w)).collect();
            assert!(!hits.is_empty(), "nothing in flight for {w}\n{}", world.log);
            hits.into_iter().map(|f| f.number).collect::<Vec<_>>()
        })
        .collect()
}

fn index(world: &World, number: usize) -> usize {
    let found = world.flights.iter().position(|f| f.number == number);
    found.expect("this frame is in flight")
}

fn outcome<T: core::fmt::Debug, E: core::fmt::Display>(
    world: &mut World,
    at: &str,
    result: Result<T, E>,
) {
    if let Err(error) = result {
        world.log.push_str(&format!("{at}! {error}\n"));
    }
}

fn act(world: &mut World, line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["deliver", ref wanted @ ..] => {
            // Without a choice: everything, and what it causes.
            if wanted.is_empty() {
                return world.deliver_all();
            }
            for number in flights(world, wanted) {
                world.deliver(index(world, number), false);
            }
        }
        ["duplicate", ref wanted @ ..] => {
            for number in flights(world, wanted) {
                world.deliver(index(world, number), true);
            }
        }
        ["drop", ref wanted @ ..] => {
            let gone = flights(world, wanted);
            world.flights.retain(|f| !gone.contains(&f.number));
        }
        ["sleep", time] => world.sleep(span(time)),
        ["add", name] => world.add(name),
        ["states"] => {
            let names: Vec<_> = world.nodes.keys().cloned().collect();
            for name in names {
                let peers: Vec<_> = world.nodes[&name]
                    .sessions
                    .iter()
                    .map(|(peer, _)| peer.to_string())
                    .collect();
                if peers.is_empty() {
                    world.log.push_str(&format!("{name} = Idle\n"));
                }
                for peer in peers {
                    let state = world.state(&name, &peer);
                    world
                        .log
                        .push_str(&format!("{name} with {peer} = {state}\n"));
                }
            }
        }
        [at, "request", peer, ref note @ ..] => {
            let result = world.with(at, |s, now| s.request(&user(peer), &note.join(" "), now));
            outcome(world, at, result);
        }
        [at, "accept", peer] => {
            let invite = standing(world, at, peer);
            let result = world.with(at, |s, now| s.accept(invite, now));
            outcome(world, at, result);
        }
        [at, "reject", peer, ref told @ ..] => {
            let how = match told {
                [] => Rejection::Silent,
                words => Rejection::Told {
                    reason: words.join(" "),
                },
            };
            let invite = standing(world, at, peer);
            let result = world.with(at, |s, now| s.reject(invite, &how, now));
            outcome(world, at, result);
        }
        [at, "cancel", peer] => {
            let invite = standing(world, at, peer);
            let result = world.with(at, |s, now| s.cancel(invite, now));
            outcome(world, at, result);
        }
        [at, "close", peer, ref reason @ ..] => {
            let reason = reason.join(" ");
            let result = world.with(at, |s, now| s.close(&user(peer), &reason, now));
            outcome(world, at, result);
        }
        [at, "block", peer] => world.with(at, |s, now| s.block(&user(peer), now)),
        [at, "unblock", peer] => world.with(at, |s, now| s.unblock(&user(peer), now)),
        [at, "forget", peer] => {
            let done = world.with(at, |s, now| s.forget(&user(peer), now));
            world.log.push_str(&format!("{at} forgets: {done}\n"));
        }
        [at, "down"] => world.with(at, |s, now| s.handle_down(now)),
        [at, "up"] => world.with(at, |s, now| s.handle_up(now)),
        [at, "caught-up"] => world.with(at, |s, now| s.handle_caught_up(now)),
        [at, "restart"] => world.restart(at),
        [at, "sends-data-to", to] => {
            let from: Sender = world.nodes[at].me.clone();
            let conv = ConvId::between(&from.user, &world.nodes[to].me.user);
            world.with(to, |s, now| s.handle_stray(&from, conv, now));
        }
        _ => panic!("no such act: {line}"),
    }
}
