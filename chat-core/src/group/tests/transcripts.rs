//! The life of a group as readable transcripts: `testdata/*.txt`. A stanza `world` starts afresh;
//! each input line is one act. `REWRITE=1` writes what happens into the files: read the diff.

use super::super::*;
use super::net::{Net, name, user};

#[test]
fn g_transcripts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/group/testdata");
    datadriven::walk(dir, |file| {
        let mut world = World::new(&[]);
        file.run(|case| {
            match case.directive.as_str() {
                "world" => {
                    let names = case.take_args::<String>("of").unwrap();
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    world = World::new(&names);
                }
                "run" => {}
                other => panic!("no directive {other}"),
            }
            case.expect_empty().unwrap();
            let mut out = String::new();
            for line in case.input.lines() {
                out += &format!("> {line}\n");
                out += &world.act(line);
            }
            out
        });
    });
}

struct World {
    net: Net,
    id: GroupId,
}

impl World {
    fn new(names: &[&str]) -> Self {
        Self {
            net: Net::new(names, 7),
            id: GroupId([0; 32]),
        }
    }

    fn act(&mut self, line: &str) -> String {
        let words: Vec<_> = line.split(' ').collect();
        let refused = if words[0] == "pass" {
            self.net.pass(words[1].parse::<u64>().unwrap() * 1_000);
            None
        } else {
            let node = self.node(words[0]);
            let rest = words[2..].join(" ");
            self.command(node, words[1], &rest).err()
        };
        let mut out = String::new();
        for line in core::mem::take(&mut self.net.trace) {
            out += &format!("{line}\n");
        }
        for node in 0..self.net.nodes.len() {
            let who = self.net.nodes[node].me.user.clone();
            for event in self.net.take_events(node) {
                out += &format!("  {who} is told {}\n", tell(&event));
            }
        }
        if let Some(error) = refused {
            out += &format!("  refused: {error}\n");
        }
        out
    }

    fn node(&self, who: &str) -> usize {
        let named = |node: &super::net::Node| node.me.user.as_str() == who;
        self.net.nodes.iter().position(named).unwrap()
    }

    fn command(&mut self, node: usize, verb: &str, rest: &str) -> Result<(), GroupError> {
        let id = self.id;
        let net = &mut self.net;
        let request = net.nodes[node].groups.view(id).and_then(|view| {
            let of = |one: &&JoinRequest| rest.starts_with(one.user.as_str());
            view.requests.iter().find(of).map(|one| one.request)
        });
        let request = request.unwrap_or(RequestId([0; 16]));
        let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "create" => {
                self.id = net.run(node, |g, now| g.create(&name(rest), Rules::default(), now))?
            }
            "join" => drop(net.run(node, |g, now| g.join(id, rest, now))?),
            "withdraw" => net.run(node, |g, now| g.withdraw(id, now))?,
            "approve" => net.run(node, |g, now| g.approve(id, request, now))?,
            "deny" => net.run(node, |g, now| g.deny(id, request, text, now))?,
            "kick" => net.run(node, |g, now| g.kick(id, &user(first), text, now))?,
            "rename" => net.run(node, |g, now| g.rename(id, &name(rest), now))?,
            "invite" => net.run(node, |g, now| g.invite(id, &user(rest), now))?,
            "leave" => net.run(node, |g, now| g.leave(id, now))?,
            "offer" => net.run(node, |g, now| g.hand_over(id, &user(rest), now))?,
            "accept" => net.run(node, |g, now| g.answer_offer(id, true, now))?,
            "decline" => net.run(node, |g, now| g.answer_offer(id, false, now))?,
            "up" => net.up(node),
            "down" => net.down(node),
            "crash" => net.crash(node),
            "restart" => net.restart(node),
            "looks" => {
                let line = net.nodes[node].groups.view(id).map_or_else(
                    || "nothing".to_owned(),
                    |view| {
                        let users: Vec<_> = view.roster.iter().map(|m| m.user.as_str()).collect();
                        format!(
                            "{:?} in {} round {} index {}: {}",
                            view.mine,
                            view.name,
                            view.round,
                            view.index,
                            users.join(" ")
                        )
                    },
                );
                net.trace.push(format!("  {line}"));
            }
            other => panic!("no verb {other}"),
        }
        Ok(())
    }
}

fn tell(event: &GroupEvent) -> String {
    match event {
        GroupEvent::Changed {
            change,
            by,
            round,
            index,
            ..
        } => format!("{round}.{index} {change:?} by {by}"),
        GroupEvent::Joined { .. } => "Joined".to_owned(),
        GroupEvent::Denied { reason, .. } => format!("Denied: {reason}"),
        GroupEvent::JoinExpired { .. } => "JoinExpired".to_owned(),
        GroupEvent::Removed { by, reason, .. } => format!("Removed by {by}: {reason}"),
        GroupEvent::JoinRequested { request, .. } => {
            format!("JoinRequested by {}: {}", request.user, request.note)
        }
        GroupEvent::JoinSettled { .. } => "JoinSettled".to_owned(),
        GroupEvent::LeadOffered { by, .. } => format!("LeadOffered by {by}"),
        GroupEvent::LeadDeclined { by, .. } => format!("LeadDeclined by {by}"),
        GroupEvent::Forked {
            leader,
            round,
            common,
            undone,
            ..
        } => format!("Forked after {common}: {leader} leads in round {round}, undone {undone:?}"),
        GroupEvent::Invited { by, name, .. } => format!("Invited by {by} to {name}"),
        GroupEvent::Equivocation { leader, .. } => format!("Equivocation by {leader}"),
    }
}
