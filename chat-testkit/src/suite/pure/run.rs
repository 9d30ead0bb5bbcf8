//! Time, processes and their disks.

use super::*;

impl PureWorld {
    pub(super) fn after(&mut self, wait: Duration, what: Happens) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), what);
    }

    pub(super) fn boot(&mut self, node: usize) {
        let device = &mut self.devices[node];
        device.life += 1;
        let signer: Arc<dyn Signer> = Arc::new(DeviceKey::from_secret(device.key));
        let identity = Identity {
            user: device.user.clone(),
            signer,
            verifier: Arc::new(Ed25519),
            sealer: Box::new(Plain),
        };
        let rows = device
            .disk
            .iter()
            .filter(|((table, _), _)| !table.is_on_demand())
            .map(|((table, key), value)| Row {
                table: *table,
                key: key.clone(),
                value: value.clone(),
            })
            .collect::<Vec<_>>();
        let mut seed = device.key;
        seed[31] = device.life as u8;
        let wall = UnixMillis(WALL + self.now.as_micros() / 1_000);
        let mut endpoint =
            Endpoint::open(identity, self.config.clone(), seed, rows, wall, self.now)
                .expect("its own rows open");
        endpoint.connect(self.now);
        device.process = Some(Process {
            endpoint,
            pending: VecDeque::new(),
            held: VecDeque::new(),
            durable: None,
            connected: false,
        });
        self.drain(node);
    }

    /// Does what the endpoint wants, in order.
    pub(super) fn drain(&mut self, node: usize) {
        while let Some(process) = &mut self.devices[node].process {
            let Some(output) = process.endpoint.poll_output() else {
                break;
            };
            let life = self.devices[node].life;
            match output {
                Output::Persist { id, rows } => {
                    let process = self.devices[node].process.as_mut().expect("seen above");
                    process.pending.push_back((id, rows));
                    self.after(FSYNC, Happens::Durable { node, life, id });
                }
                other => {
                    let process = self.devices[node].process.as_mut().expect("seen above");
                    let must_wait = gate(&other)
                        .is_some_and(|id| process.durable.is_none_or(|durable| id > durable));
                    // One queue for all: a frame never overtakes an earlier one that waits.
                    if must_wait || !process.held.is_empty() {
                        process.held.push_back(other);
                    } else {
                        self.obey(node, other);
                    }
                }
            }
        }
    }

    pub(super) fn release(&mut self, node: usize) {
        while let Some(process) = &mut self.devices[node].process {
            let ready = process.held.front().is_some_and(|output| {
                gate(output).is_none_or(|id| process.durable.is_some_and(|durable| id <= durable))
            });
            if !ready {
                break;
            }
            let output = process.held.pop_front().expect("the front was ready");
            self.obey(node, output);
        }
    }

    pub(super) fn happen(&mut self, what: Happens) {
        let (node, life) = match &what {
            Happens::Frame { node, life, .. }
            | Happens::Durable { node, life, .. }
            | Happens::Acked { node, life, .. }
            | Happens::Link { node, life, .. }
            | Happens::Released { node, life } => (*node, *life),
        };
        let now = self.now;
        let device = &mut self.devices[node];
        if device.life != life {
            // A frame on its way to a process that died goes back to the mailbox: it was not
            // acknowledged.
            if let Happens::Frame {
                channel,
                bytes,
                live: true,
                class: Class::Durable,
                ..
            } = what
                && device.subscribed.contains(&channel)
            {
                device.mailbox.push_back((channel, bytes));
            }
            return;
        }
        let Some(process) = &mut device.process else {
            if let Happens::Frame {
                channel,
                bytes,
                live: true,
                class: Class::Durable,
                ..
            } = what
            {
                device.mailbox.push_back((channel, bytes));
            }
            return;
        };
        match what {
            Happens::Frame {
                channel,
                bytes,
                live,
                class,
                ..
            } => {
                if process.connected {
                    process.endpoint.handle_inbound(&channel, &bytes, live, now);
                } else if live && class == Class::Durable {
                    device.mailbox.push_back((channel, bytes));
                }
            }
            Happens::Durable { id, .. } => {
                while process
                    .pending
                    .front()
                    .is_some_and(|(first, _)| *first <= id)
                {
                    let (_, rows) = process.pending.pop_front().expect("seen above");
                    for op in rows {
                        match op {
                            RowOp::Put { table, key, value } => {
                                device.disk.insert((table, key), value);
                            }
                            RowOp::Delete { table, key } => {
                                device.disk.remove(&(table, key));
                            }
                        }
                    }
                }
                process.durable = process.durable.max(Some(id));
                process.endpoint.handle_persisted(id, now);
                self.after(Duration::ZERO, Happens::Released { node, life });
            }
            Happens::Acked { id, fate, .. } => process.endpoint.handle_acked(id, fate, now),
            Happens::Link { event, .. } => {
                let stale = !process.connected && !matches!(event, LinkEvent::Down { .. });
                if !stale {
                    process.endpoint.handle_link(&event, now);
                }
            }
            Happens::Released { .. } => self.release(node),
        }
        self.drain(node);
    }

    /// The next moment at which something happens, no later than `until`.
    pub(super) fn step(&mut self, until: Timestamp) -> bool {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let due = self
            .devices
            .iter()
            .enumerate()
            .filter_map(|(node, device)| {
                Some((device.process.as_ref()?.endpoint.poll_timeout()?, node))
            })
            .min();
        let next = match (queued, due) {
            (Some(a), Some((b, _))) => a.min(b),
            (Some(a), None) => a,
            (None, Some((b, _))) => b,
            (None, None) => return false,
        };
        if next > until {
            return false;
        }
        self.now = self.now.max(next);
        if queued == Some(next) {
            let (_, what) = self.queue.pop_first().expect("seen above");
            self.happen(what);
        } else if let Some((_, node)) = due {
            let now = self.now;
            if let Some(process) = &mut self.devices[node].process {
                process.endpoint.handle_timeout(now);
            }
            self.drain(node);
        }
        true
    }

    pub(super) fn advance(&mut self, until: Timestamp) {
        let mut steps = 0u32;
        while self.step(until) {
            steps += 1;
            assert!(
                steps < 2_000_000,
                "the world makes no progress at {:?}",
                self.now
            );
        }
        self.now = self.now.max(until);
    }
}

fn gate(output: &Output) -> Option<PersistId> {
    match output {
        Output::Transmit(frame) => frame.after,
        Output::Event { after, .. } => *after,
        _ => None,
    }
}
