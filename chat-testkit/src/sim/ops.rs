//! Operations of the script: faults and workload, and the end of all faults.

use core::time::Duration;

use chat_core::content::Content;
use chat_core::delivery::SendError;
use chat_core::group::{BatchStep, Membership, Rules};
use chat_core::id::{ConvId, DeviceId, GroupId, GroupName, MessageId, TxnId, UserId};
use chat_core::link::LinkState;
use chat_core::presence::Status;
use chat_core::session::SessionState;

use super::event::{Happening, Reaction};
use super::script::Op;
use super::swarm::Suite;
use super::world::{MS, World};
use crate::oracle::{Act, Seen, Violation};

/// Status texts are over before most runs are.
const TEXT_TTL: Duration = Duration::from_secs(20);

impl World {
    pub(super) fn op(&mut self, index: usize) {
        let op = self.script[index].1;
        self.note(&[13, index as u64], || format!("-- {op:?}"));
        let now = self.now;
        match op {
            Op::Crash {
                node,
                effects,
                down,
            } => {
                self.nodes[node].crash_in = Some((effects, down));
            }
            Op::Kill { node } => {
                // Somebody must be left to converge with.
                if self.nodes.iter().filter(|node| !node.killed).count() > 1 {
                    self.crash(node, 0);
                    self.nodes[node].killed = true;
                    self.see(node, Seen::Killed);
                }
            }
            // A process that is not there cannot stand still.
            Op::Pause { node, .. } if self.nodes[node].endpoint.is_none() => {}
            Op::Pause { node, ms } => {
                let until = now + ms * MS;
                self.nodes[node].paused_until = until;
                self.push(until, Happening::Resume(node));
            }
            Op::Backup { node } => {
                if !self.nodes[node].killed {
                    let rows = self.nodes[node].disk.synced().clone();
                    self.nodes[node].backup = Some(rows);
                    self.see(node, Seen::BackedUp);
                }
            }
            Op::Rollback { node, down } => drop(self.roll_back(node, down)),
            Op::LoseDisk { node, down } => self.lose_disk(node, down),
            Op::SlowDisk { node, fsync, ms } => {
                self.nodes[node].slow_fsync = fsync * MS;
                self.nodes[node].slow_until = now + ms * MS;
            }
            Op::FullDisk { node, ms } => self.nodes[node].full_until = now + ms * MS,
            Op::FlipBit { node, pick } => self.flip_bit(node, pick),
            Op::FailFsync { node, down } => self.nodes[node].fail_fsync = Some(down),
            Op::StepWall { node, by } => {
                self.nodes[node].clock.step(by);
                let wall = self.nodes[node].clock.wall(now);
                self.command(
                    node,
                    |endpoint, now| endpoint.handle_wall(wall, now),
                    |_, ()| {},
                );
            }
            Op::Cut { node, up, down, ms } => {
                let until = now + ms * MS;
                if up {
                    self.nodes[node].cut_up = until;
                }
                if down {
                    self.nodes[node].cut_down = until;
                }
                let keepalive = now + self.net.range(15_000, 45_000) * MS;
                if keepalive < until {
                    self.break_connection(node, keepalive + 300 * MS, keepalive);
                }
            }
            Op::Bar { node, ms } => self.nodes[node].barred_until = now + ms * MS,
            Op::Clog { node, ms } => self.nodes[node].clogged = now + ms * MS,
            Op::Drop { node } => {
                let (client, broker) = (self.net.range(1, 3_000), self.net.range(1, 20_000));
                self.break_connection(node, now + client * MS, now + broker * MS);
            }
            Op::BrokerDown { broker, ms, memory } => self.stop_broker(broker, ms, memory),
            Op::CutBridge { ms } => self.bridge_cut = now + ms * MS,
            Op::Forge { node, pick } => self.forge(node, pick),
            _ => self.work(op),
        }
    }

    /// False when there is no backup.
    fn roll_back(&mut self, n: usize, down: u64) -> bool {
        let Some(rows) = self.nodes[n]
            .backup
            .clone()
            .filter(|_| !self.nodes[n].killed)
        else {
            return false;
        };
        self.crash(n, down);
        self.nodes[n].disk.replace(rows);
        self.mark("sim-rollback");
        self.see(n, Seen::RolledBack);
        true
    }

    /// A store that checks what it reads refuses a damaged row; one that does not must still not
    /// bring the endpoint down.
    fn flip_bit(&mut self, n: usize, pick: u64) {
        if self.nodes[n].killed {
            return;
        }
        if let Some(rows) = self.nodes[n].disk.load_damaged(pick) {
            let refused = !self.opens_on(n, rows);
            self.mark(if refused {
                "sim-damage-refused"
            } else {
                "sim-damage-unseen"
            });
        }
        let down = 500 + pick % 2_000;
        if self.swarm.rollbacks == 0 || !self.roll_back(n, down) {
            self.lose_disk(n, down);
        }
    }

    fn lose_disk(&mut self, n: usize, down: u64) {
        if self.nodes[n].killed {
            return;
        }
        self.crash(n, down);
        self.nodes[n].disk.replace(super::disk::Rows::new());
        self.nodes[n].backup = None;
        self.new_device(n);
        self.nodes[n].replaced = true;
        self.mark("sim-lost-disk");
        self.see(n, Seen::DiskLost);
        // The directory knows the new device after a while, and tells who is running.
        let (user, device) = (self.nodes[n].user.clone(), self.nodes[n].device);
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            self.later(other, 2_000, Reaction::Trust(user.clone(), device));
        }
    }

    /// The end of all faults: everybody who lives is started, reachable and wants to be online.
    pub(super) fn heal(&mut self) {
        self.note(&[14], || "-- faults end".to_owned());
        self.faulty = false;
        self.bridge_cut = 0;
        for broker in 0..self.brokers.len() {
            self.brokers[broker].up = true;
        }
        for n in 0..self.nodes.len() {
            let now = self.now;
            let node = &mut self.nodes[n];
            (node.cut_up, node.cut_down, node.clogged, node.slow_until) = (0, 0, now, 0);
            (node.crash_in, node.fail_fsync, node.full_until) = (None, None, 0);
            node.barred_until = 0;
            node.wanted = true;
            if node.paused_until > now {
                node.paused_until = now;
                self.resume(n);
            }
            let offline = self.nodes[n].endpoint.as_ref().is_some_and(|endpoint| {
                matches!(
                    endpoint.link(),
                    LinkState::Closed | LinkState::Failed { .. }
                )
            });
            if offline {
                self.connect(n);
            }
        }
    }

    pub(super) fn act(&mut self, n: usize, act: &Act) {
        self.note(&[15, n as u64], || format!("n{n} did {act:?}"));
        self.see(n, Seen::Act(act));
    }

    fn user(&self, index: usize) -> UserId {
        let found = self.nodes.iter().find(|node| node.user_index == index);
        found.expect("every user has a node").user.clone()
    }

    fn work(&mut self, op: Op) {
        match op {
            Op::Connect { node } => self.connect(node),
            Op::Disconnect { node, away } => {
                self.nodes[node].wanted = false;
                self.command(
                    node,
                    |endpoint, now| endpoint.disconnect(now),
                    |world, ()| world.act(node, &Act::Disconnect),
                );
                self.later(node, away, Reaction::Connect);
            }
            Op::Request { node, user } => self.request(node, &self.user(user)),
            Op::Cancel { node, user } => {
                let peer = self.user(user);
                let Some(endpoint) = &self.nodes[node].endpoint else {
                    return;
                };
                if let SessionState::Inviting { invite } = endpoint.session(&peer) {
                    self.command(
                        node,
                        |endpoint, now| endpoint.cancel(invite, now),
                        |world, result| {
                            if result.is_ok() {
                                world.act(node, &Act::Cancel { invite });
                            }
                        },
                    );
                }
            }
            Op::Close { node, user } => {
                let peer = self.user(user);
                self.command(
                    node,
                    |endpoint, now| endpoint.close_session(&peer, "bye", now),
                    |world, result| {
                        if result.is_ok() {
                            world.act(node, &Act::Close { peer: peer.clone() });
                        }
                    },
                );
            }
            Op::Block { node, user } => {
                let peer = self.user(user);
                self.command(
                    node,
                    |endpoint, now| endpoint.block(&peer, now),
                    |world, ()| world.act(node, &Act::Block { peer: peer.clone() }),
                );
            }
            Op::Unblock { node, user } => {
                let peer = self.user(user);
                self.command(
                    node,
                    |endpoint, now| endpoint.unblock(&peer, now),
                    |world, ()| world.act(node, &Act::Unblock { peer: peer.clone() }),
                );
            }
            Op::Send { node, user } => {
                let peer = self.user(user);
                let conv = ConvId::between(&self.nodes[node].user, &peer);
                let Some(endpoint) = &self.nodes[node].endpoint else {
                    return;
                };
                let to = match endpoint.session(&peer) {
                    SessionState::Active { devices, .. } => devices
                        .into_iter()
                        .map(|device| (peer.clone(), device))
                        .collect(),
                    _ => Vec::new(),
                };
                let open = self.send(node, conv, to);
                if !open && self.swarm.suite == Suite::Delivery {
                    self.request(node, &peer);
                }
            }
            Op::SendGroup { node } => self.send_group(node),
            Op::CancelSend { node } => self.cancel_send(node),
            Op::Typing { node, user } => {
                let conv = ConvId::between(&self.nodes[node].user, &self.user(user));
                self.command(node, |e, now| e.set_typing(conv, true, now), |_, ()| {});
            }
            Op::Status { node, status } => {
                let status = match status {
                    0 => Status::Active,
                    1 => Status::Idle,
                    2 => Status::Away,
                    _ => Status::DoNotDisturb,
                };
                self.command(
                    node,
                    |e, now| e.set_presence(status, "here", Some(TEXT_TTL), now),
                    |_, ()| {},
                );
            }
            _ => self.group_work(op),
        }
    }

    fn request(&mut self, node: usize, peer: &UserId) {
        self.command(
            node,
            |endpoint, now| endpoint.request(peer, "hello", now),
            |world, result| {
                if let Ok(invite) = *result {
                    world.act(
                        node,
                        &Act::Request {
                            peer: peer.clone(),
                            invite,
                        },
                    );
                }
            },
        );
    }

    /// False when the conversation is not open.
    pub(super) fn send(&mut self, n: usize, conv: ConvId, to: Vec<(UserId, DeviceId)>) -> bool {
        self.next_text += 1;
        let body = format!("m{}", self.next_text);
        let mut txn = [0; 16];
        txn[..8].copy_from_slice(&self.next_text.to_le_bytes());
        let txn = TxnId(txn);
        // Reactions and the like, which nobody sees by themselves (Q2).
        let delivering = self.swarm.suite == Suite::Delivery && self.swarm.feature(22);
        let content = if delivering && self.app.chance(200) {
            Content::Other {
                kind: 0xc001,
                fallback: body.clone(),
                payload: Vec::new(),
            }
        } else {
            Content::text(body.clone())
        };
        let again = self.app.chance(50).then(|| content.clone());
        let mut sent: Option<MessageId> = None;
        let result = self.command(
            n,
            |endpoint, now| endpoint.send(conv, txn, content, now),
            |world, result| match result {
                Ok(id) => {
                    sent = Some(*id);
                    world.act(
                        n,
                        &Act::Send {
                            conv,
                            id: *id,
                            body,
                            to,
                        },
                    );
                }
                Err(SendError::Full { .. }) => world.mark("sim-outbox-full"),
                Err(_) => {}
            },
        );
        if let (Some(id), Some(content)) = (sent, again) {
            let repeated = self.command(
                n,
                |endpoint, now| endpoint.send(conv, txn, content, now),
                |_, _| {},
            );
            if let Some(repeated) = repeated
                && repeated.as_ref() != Ok(&id)
            {
                let text = format!("node {n}: one transaction gave {id:?} and then {repeated:?}");
                self.judge(Err(Violation::new("idempotent send", text)));
            }
        }
        self.nodes[n].last_sent = sent.or(self.nodes[n].last_sent);
        !matches!(result, Some(Err(SendError::NotOpen(_))))
    }

    fn cancel_send(&mut self, n: usize) {
        if let Some(id) = self.nodes[n].last_sent {
            self.give_up(n, id);
        }
    }

    pub(super) fn give_up(&mut self, n: usize, id: MessageId) {
        self.command(
            n,
            |endpoint, now| endpoint.cancel_send(&id, now),
            |world, taken| {
                if *taken {
                    world.act(n, &Act::CancelSend { id });
                }
            },
        );
    }

    fn send_group(&mut self, n: usize) {
        let (Some(group), Some(endpoint)) = (self.group, &self.nodes[n].endpoint) else {
            return;
        };
        let me = self.nodes[n].device;
        let to = endpoint.group(group).map_or(Vec::new(), |view| {
            let others = view.roster.into_iter().filter(|member| member.device != me);
            others.map(|member| (member.user, member.device)).collect()
        });
        self.send(n, group.into(), to);
    }

    fn group_work(&mut self, op: Op) {
        if let Op::CreateGroup { node } = op {
            let name = GroupName::new("ops").expect("a plain name");
            let rules = if self.swarm.is_strict() {
                Rules::strict()
            } else {
                Rules::default()
            };
            self.command(
                node,
                |endpoint, now| endpoint.create_group_with(&name, rules, now),
                |world, result| {
                    if let Ok(group) = *result {
                        world.group = Some(group);
                        world.act(node, &Act::Created { group });
                    }
                },
            );
            return;
        }
        let Some(group) = self.group else { return };
        let op = self.by_leader(group, op);
        match op {
            Op::Join { node } => {
                self.group_act(node, Act::Join { group }, |e, now| {
                    e.join(group, "let me in", now).is_ok()
                });
            }
            Op::Withdraw { node } => {
                self.group_act(node, Act::Withdraw { group }, |e, now| {
                    e.withdraw(group, now).is_ok()
                });
            }
            Op::Kick { node, user } if self.swarm.batches() => self.batch(group, node, user),
            Op::Kick { node, user } => {
                let user = self.user(user);
                let act = Act::Kick {
                    group,
                    user: user.clone(),
                };
                self.group_act(node, act, |e, now| {
                    e.kick(group, &user, "spam", now).is_ok()
                });
            }
            Op::Leave { node } => {
                self.group_act(node, Act::Leave { group }, |e, now| {
                    e.leave(group, now).is_ok()
                });
            }
            Op::HandOver { node, user } => {
                let user = self.user(user);
                self.command(node, |e, now| e.hand_over(group, &user, now), |_, _| {});
            }
            Op::Rename { node } => {
                self.next_text += 1;
                let name = GroupName::new(&format!("ops{}", self.next_text)).expect("a plain name");
                let act = Act::Renamed {
                    group,
                    name: name.as_str().to_owned(),
                };
                self.group_act(node, act, |e, now| {
                    e.rename_group(group, &name, now).is_ok()
                });
            }
            _ => {}
        }
    }

    /// Removes this user and the next, and lets in who asks, in one entry (G19).
    fn batch(&mut self, group: GroupId, node: usize, user: usize) {
        let endpoint = self.nodes[node].endpoint.as_ref();
        let view = endpoint.and_then(|endpoint| endpoint.group(group));
        let Some(view) = view else { return };
        let inside = |user: &UserId| view.roster.iter().any(|member| member.user == *user);
        let users = self.nodes.iter().map(|node| node.user_index);
        let next = (user + 1) % users.max().map_or(1, |last| last + 1);
        let mut out = vec![self.user(user), self.user(next)];
        out.retain(|user| inside(user) && *user != self.nodes[node].user);
        let kicks = out.iter().map(|user| BatchStep::Kick {
            user: user.clone(),
            reason: "spam".into(),
        });
        let requests = view.requests.iter();
        let approvals = requests.map(|request| BatchStep::Approve(request.request));
        let steps: Vec<_> = approvals.chain(kicks).collect();
        self.command(
            node,
            |e, now| e.apply(group, &steps, now).is_ok(),
            |world, done| {
                for user in out.into_iter().filter(|_| *done) {
                    world.act(node, &Act::Kick { group, user });
                }
            },
        );
    }

    /// What only a leader may do is asked of one, where there is one.
    fn by_leader(&self, group: GroupId, op: Op) -> Op {
        let leads = |n: &usize| {
            let endpoint = self.nodes[*n].endpoint.as_ref();
            let view = endpoint.and_then(|endpoint| endpoint.group(group));
            view.is_some_and(|view| view.mine == Membership::Leader)
        };
        let asked = |node: usize| {
            let count = self.nodes.len();
            (0..count)
                .map(|step| (node + step) % count)
                .find(leads)
                .unwrap_or(node)
        };
        match op {
            Op::Kick { node, user } => Op::Kick {
                node: asked(node),
                user,
            },
            Op::HandOver { node, user } => Op::HandOver {
                node: asked(node),
                user,
            },
            Op::Rename { node } => Op::Rename { node: asked(node) },
            op => op,
        }
    }

    fn group_act(
        &mut self,
        node: usize,
        act: Act,
        give: impl FnOnce(&mut chat_core::Endpoint, chat_core::time::Timestamp) -> bool,
    ) {
        self.command(node, give, |world, done| {
            if *done {
                world.act(node, &act);
            }
        });
    }
}
