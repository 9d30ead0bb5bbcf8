//! The load: numbered messages along one path, every delivery checked and its delay taken.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

/// The size of a message, as text.
const PAYLOAD: usize = 100;
const DEADLINE: Duration = Duration::from_secs(60);

/// One publisher and its subscribers over one way to carry messages. What its tasks see they say
/// in its [`Tally`].
#[async_trait::async_trait(?Send)]
pub(crate) trait Path {
    /// Takes one message; may wait for room.
    async fn send(&mut self, message: String);
}

/// A path that is ready to carry.
pub(crate) struct Open {
    pub(crate) path: Box<dyn Path>,
    pub(crate) tally: Rc<Tally>,
}

/// What the subscribers got, and what the publisher knows of it.
pub(crate) struct Tally {
    started: Instant,
    subscribers: u64,
    /// The publisher learns what became of each message.
    confirms: bool,
    received: Cell<u64>,
    confirmed: Cell<u64>,
    disordered: Cell<u64>,
    delays: RefCell<Vec<Duration>>,
    wanted: Cell<u64>,
    reached: Notify,
}

impl Tally {
    pub(crate) fn new(subscribers: usize, confirms: bool) -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            subscribers: subscribers as u64,
            confirms,
            received: Cell::default(),
            confirmed: Cell::default(),
            disordered: Cell::default(),
            delays: RefCell::default(),
            wanted: Cell::default(),
            reached: Notify::new(),
        })
    }

    fn message(&self, number: u64) -> String {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).expect("it runs for minutes");
        format!("{number:016x}{nanos:016x}{:x>1$}", "", PAYLOAD - 32)
    }

    /// A subscriber got `message`; `last` is the number that it got before.
    pub(crate) fn take(&self, last: &mut u64, message: &[u8]) {
        assert_eq!(message.len(), PAYLOAD, "a message of ours");
        let field = |from: usize| {
            let digits = core::str::from_utf8(&message[from..from + 16]).expect("digits");
            u64::from_str_radix(digits, 16).expect("digits")
        };
        let number = field(0);
        // What is lost, doubled or late breaks the row of numbers.
        if number != *last + 1 {
            self.disordered.set(self.disordered.get() + 1);
        }
        *last = number;
        let delay = self.started.elapsed() - Duration::from_nanos(field(16));
        self.delays.borrow_mut().push(delay);
        self.received.set(self.received.get() + 1);
        self.look();
    }

    /// One more message is known to be where it should be.
    pub(crate) fn confirm(&self) {
        self.confirmed.set(self.confirmed.get() + 1);
        self.look();
    }

    fn arrived(&self) -> u64 {
        self.received.get() / self.subscribers
    }

    fn done(&self) -> u64 {
        if self.confirms {
            self.arrived().min(self.confirmed.get())
        } else {
            self.arrived()
        }
    }

    fn look(&self) {
        if self.arrived().max(self.done()) >= self.wanted.get() {
            self.reached.notify_one();
        }
    }

    async fn reach(&self, wanted: u64, now: impl Fn(&Self) -> u64) {
        self.wanted.set(wanted);
        while now(self) < wanted {
            let changed = timeout(DEADLINE, self.reached.notified()).await;
            assert!(
                changed.is_ok(),
                "{wanted} messages were to arrive: {} deliveries to {} subscribers, {} confirmed",
                self.received.get(),
                self.subscribers,
                self.confirmed.get(),
            );
        }
    }
}

impl Open {
    fn sent(&self) -> u64 {
        // Every carry ends when all is done.
        self.tally.arrived()
    }

    /// Carries so many messages with at most `window` of them not done: not confirmed to the
    /// publisher, or not everywhere where nobody confirms.
    pub(crate) async fn carry(&mut self, messages: u64, window: u64) {
        let mut sent = self.sent();
        let end = sent + messages;
        while sent < end {
            let until = end.min(self.tally.done() + window);
            while sent < until {
                sent += 1;
                self.path.send(self.tally.message(sent)).await;
            }
            // Half a window at a time, as a program that does other things as well.
            let wanted = end.min((sent + 1).saturating_sub(window / 2).max(1));
            self.tally.reach(wanted, Tally::done).await;
        }
        self.tally.reach(end, Tally::done).await;
    }

    /// Carries one message after the other, each as soon as the last one is everywhere; returns
    /// how long each delivery took.
    pub(crate) async fn one_by_one(&mut self, messages: u64) -> Vec<Duration> {
        self.tally.delays.borrow_mut().clear();
        let end = self.sent() + messages;
        while self.sent() < end {
            let next = self.sent() + 1;
            self.path.send(self.tally.message(next)).await;
            self.tally.reach(next, Tally::arrived).await;
        }
        let delays = self.tally.delays.take();
        self.tally.reach(end, Tally::done).await;
        delays
    }

    /// # Panics
    /// When anything was lost, doubled or out of order.
    pub(crate) fn check(&self, name: &str) {
        assert_eq!(self.tally.disordered.get(), 0, "{name} is out of order");
        let exact = self.tally.received.get() % self.tally.subscribers;
        assert_eq!(exact, 0, "{name} lost or doubled something");
    }
}
