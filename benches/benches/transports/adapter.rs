//! A transport of ours without the core above it: what the adapter costs.

use core::future::poll_fn;
use core::task::{Context, Poll};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use chat_client::transport::{
    ConnectOptions, Connector, Inbound, Outbound, SendOutcome, Token, Transport,
};
use chat_core::channel::{Channel, Class};
use chat_core::id::{DeviceId, GroupId, UserId};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::path::{Open, Path, Tally};

/// Deliveries taken before what they caused is written.
const TURN: usize = 32;

/// What waits for the publisher's connection: as much as the load has under way.
#[derive(Default)]
struct Waiting {
    messages: RefCell<VecDeque<String>>,
    more: Notify,
}

struct Adapter {
    waiting: Rc<Waiting>,
    _tasks: JoinSet<()>,
}

#[async_trait::async_trait(?Send)]
impl Path for Adapter {
    async fn send(&mut self, message: String) {
        let mut messages = self.waiting.messages.borrow_mut();
        if messages.is_empty() {
            self.waiting.more.notify_one();
        }
        messages.push_back(message);
    }
}

/// A connection and what is to go out on it.
struct Line {
    transport: Box<dyn Transport>,
    out: VecDeque<Outbound>,
    unflushed: bool,
    /// Taken since the last write.
    taken: usize,
}

impl Line {
    async fn connect(connector: &dyn Connector, name: &str, number: usize) -> Self {
        let mut device = [0; 32];
        device[..8].copy_from_slice(&number.to_le_bytes());
        let user = UserId::new(&format!("{name}-{number}")).expect("a valid name");
        let options = ConnectOptions::new(user, DeviceId(device), None);
        let transport = connector.connect(options).await.expect("it connects");
        Self {
            transport,
            out: VecDeque::new(),
            unflushed: false,
            taken: 0,
        }
    }

    /// Takes what came, and writes what waits in between: as the client's loop does it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        loop {
            if self.taken < TURN
                && let Poll::Ready(inbound) = self.transport.poll_recv(cx)
            {
                self.taken += 1;
                return Poll::Ready(inbound.expect("it stays up"));
            }
            while !self.out.is_empty() && self.transport.poll_ready(cx).map(up).is_ready() {
                let item = self.out.pop_front().expect("there is one");
                self.transport.start_send(item).expect("it is up");
                self.unflushed = true;
            }
            if self.unflushed && self.transport.poll_flush(cx).map(up).is_ready() {
                self.unflushed = false;
            }
            if self.taken < TURN {
                return Poll::Pending;
            }
            self.taken = 0;
        }
    }
}

fn up<E: core::fmt::Debug>(result: Result<(), E>) {
    result.expect("it stays up");
}

/// Opens it; a class that is acknowledged is acknowledged by the subscribers too.
pub(crate) async fn open(
    connector: Arc<dyn Connector>,
    name: &str,
    class: Class,
    subscribers: usize,
) -> Open {
    let durable = class == Class::Durable;
    let tally = Tally::new(subscribers, durable);
    let mut tasks = JoinSet::new();
    let channel = Channel::Group(GroupId([if durable { 8 } else { 9 }; 32]));
    for number in 1..=subscribers {
        let mut line = Line::connect(&*connector, name, number).await;
        line.out.push_back(Outbound::Subscribe(channel.clone()));
        let (there, subscribed) = oneshot::channel();
        tasks.spawn_local(subscriber(line, there, Rc::clone(&tally)));
        subscribed.await.expect("the broker confirms");
    }
    let line = Line::connect(&*connector, name, 0).await;
    let waiting = Rc::new(Waiting::default());
    let messages = Rc::clone(&waiting);
    tasks.spawn_local(publisher(line, channel, class, messages, Rc::clone(&tally)));
    let path = Box::new(Adapter {
        waiting,
        _tasks: tasks,
    });
    Open { path, tally }
}

async fn subscriber(mut line: Line, there: oneshot::Sender<()>, tally: Rc<Tally>) {
    let (mut last, mut there) = (0, Some(there));
    loop {
        match poll_fn(|cx| line.poll(cx)).await {
            Inbound::Received { bytes, handle, .. } => {
                tally.take(&mut last, &bytes);
                line.out.extend(handle.map(Outbound::Ack));
            }
            Inbound::Subscribed { granted, .. } => {
                assert!(granted, "the broker lets us subscribe");
                if let Some(there) = there.take() {
                    there.send(()).expect("the opener waits");
                }
            }
            _ => {}
        }
    }
}

async fn publisher(
    mut line: Line,
    channel: Channel,
    class: Class,
    waiting: Rc<Waiting>,
    tally: Rc<Tally>,
) {
    let mut token = 0;
    loop {
        let inbound = poll_fn(|cx| {
            while let Some(message) = waiting.messages.borrow_mut().pop_front() {
                token += 1;
                line.out.push_back(Outbound::Send {
                    token: Token(token),
                    channel: channel.clone(),
                    bytes: Bytes::from(message),
                    class,
                    ttl: None,
                    last_value: false,
                    dedup: None,
                });
            }
            line.poll(cx)
        });
        tokio::select! {
            biased;
            () = waiting.more.notified() => {}
            inbound = inbound => {
                if let Inbound::Sent { outcome, .. } = inbound {
                    assert_eq!(outcome, SendOutcome::Accepted);
                    tally.confirm();
                }
            }
        }
    }
}
