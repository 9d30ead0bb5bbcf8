//! The broker: subscriptions, mailboxes, last values, last wills, and what is wrong with it.

use chat_core::delivery::Unsendable;

use super::*;

impl PureWorld {
    pub(super) fn obey(&mut self, node: usize, output: Output) {
        let life = self.devices[node].life;
        match output {
            Output::Transmit(frame) => {
                let connected = self.devices[node]
                    .process
                    .as_ref()
                    .is_some_and(|process| process.connected);
                let written = matches!(frame.channel, Channel::Conv(_) | Channel::Group(_));
                let denied = self.devices[node].barred && written;
                let fate = match denied {
                    true => Fate::Never(Unsendable::Denied),
                    false => Fate::Taken,
                };
                let id = frame.id;
                let told = Happens::Acked {
                    node,
                    life,
                    id,
                    fate,
                };
                if connected {
                    self.after(2 * HOP, told);
                }
                if connected && !denied {
                    self.publish(
                        node,
                        &frame.channel,
                        &frame.bytes,
                        frame.class,
                        frame.last_value,
                    );
                }
            }
            Output::Subscribe(channel) => self.subscribe(node, channel),
            Output::Unsubscribe(channel) => {
                self.devices[node].subscribed.remove(&channel);
            }
            Output::Connect { will } => {
                if self.devices[node].cut {
                    let event = LinkEvent::Down {
                        reason: DownReason::Lost,
                        retry_after: None,
                    };
                    self.after(HOP, Happens::Link { node, life, event });
                    return;
                }
                let bare = self.flaw.bare;
                self.devices[node].will = will.filter(|_| !bare);
                if bare {
                    self.devices[node].subscribed.clear();
                    self.devices[node].mailbox.clear();
                }
                let known = !self.devices[node].subscribed.is_empty();
                let resumed = known || (self.flaw.forgets && self.devices[node].life > 1);
                if let Some(process) = &mut self.devices[node].process {
                    process.connected = true;
                }
                let event = LinkEvent::Up {
                    resumed,
                    marks_backlog: !bare,
                };
                self.after(HOP, Happens::Link { node, life, event });
                for (channel, bytes) in core::mem::take(&mut self.devices[node].mailbox) {
                    self.after(
                        2 * HOP,
                        Happens::Frame {
                            node,
                            life,
                            channel,
                            bytes,
                            live: true,
                            class: Class::Durable,
                        },
                    );
                }
                if !bare {
                    let event = LinkEvent::CaughtUp;
                    self.after(4 * HOP, Happens::Link { node, life, event });
                }
            }
            Output::Disconnect => {
                self.devices[node].will = None;
                if let Some(process) = &mut self.devices[node].process {
                    process.connected = false;
                }
            }
            Output::Event { event, .. } => self.devices[node].events.push_back(event),
            other => unreachable!("an output that this world does not know: {other:?}"),
        }
    }

    pub(super) fn subscribe(&mut self, node: usize, channel: Channel) {
        let deaf = self.flaw.deaf;
        let device = &mut self.devices[node];
        if !device.process.as_ref().is_some_and(|it| it.connected) {
            return;
        }
        let life = device.life;
        self.subscriptions += 1;
        if deaf == 0 || !self.subscriptions.is_multiple_of(deaf) {
            device.subscribed.insert(channel.clone());
        }
        let event = LinkEvent::Subscribed(channel.clone());
        self.after(2 * HOP, Happens::Link { node, life, event });
        if let Some((from, bytes)) = self.last_values.get(&channel).cloned()
            && from != node
        {
            self.after(
                2 * HOP,
                Happens::Frame {
                    node,
                    life,
                    channel,
                    bytes,
                    live: false,
                    class: Class::Ephemeral,
                },
            );
        }
    }

    pub(super) fn publish(
        &mut self,
        from: usize,
        channel: &Channel,
        bytes: &Bytes,
        class: Class,
        last: bool,
    ) {
        self.published += 1;
        let flaw = self.flaw;
        let every = |count: u64| count != 0 && self.published.is_multiple_of(count);
        if every(flaw.drops) {
            return;
        }
        let copies = if every(flaw.repeats) { 2 } else { 1 };
        let late = if every(flaw.shuffles) {
            LATE
        } else {
            Duration::ZERO
        };
        if last && !flaw.bare {
            self.last_values
                .insert(channel.clone(), (from, bytes.clone()));
        }
        for node in 0..self.devices.len() {
            let device = &mut self.devices[node];
            if node == from || !device.subscribed.contains(channel) {
                continue;
            }
            if device.process.as_ref().is_some_and(|it| it.connected) {
                let life = device.life;
                for _ in 0..copies {
                    let frame = Happens::Frame {
                        node,
                        life,
                        channel: channel.clone(),
                        bytes: bytes.clone(),
                        live: true,
                        class,
                    };
                    self.after(2 * HOP + late, frame);
                }
            } else if class == Class::Durable && !flaw.swallows && !flaw.bare {
                device.mailbox.push_back((channel.clone(), bytes.clone()));
            }
        }
    }

    /// The connection dies without a goodbye: the broker publishes the will.
    pub(super) fn sever(&mut self, node: usize) {
        if let Some(process) = &mut self.devices[node].process {
            process.connected = false;
        }
        if self.flaw.forgets {
            self.devices[node].subscribed.clear();
        }
        if let Some(will) = self.devices[node].will.take() {
            self.publish(node, &will.channel, &will.bytes, Class::Ephemeral, true);
        }
    }
}
