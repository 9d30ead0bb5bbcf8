//! Brokers that do not keep their word, to show what the suite notices and what the core survives.

use std::cell::Cell;

/// What a broker does wrong; by default nothing. A count of zero means never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flaw {
    /// Every so many frames one vanishes, acknowledged to its sender.
    pub drops: u64,
    /// Every so many frames one comes twice.
    pub repeats: u64,
    /// Every so many frames one comes after those that follow it.
    pub shuffles: u64,
    /// Every so many subscriptions one is confirmed and not made.
    pub deaf: u64,
    /// A connection that ends loses its subscriptions, and the next one is called resumed.
    pub forgets: bool,
    /// Nothing is kept for who is away, and nothing says so.
    pub swallows: bool,
    /// It only passes frames on, and says so: no mailbox, last will, last value or mark of the
    /// backlog.
    pub bare: bool,
}

thread_local! {
    static FLAW: Cell<Flaw> = const {
        Cell::new(Flaw {
            drops: 0,
            repeats: 0,
            shuffles: 0,
            deaf: 0,
            forgets: false,
            swallows: false,
            bare: false,
        })
    };
}

impl Flaw {
    /// Gives it to the broker of every world that starts on this thread from now on.
    pub fn plant(self) {
        FLAW.set(self);
    }

    pub(super) fn planted() -> Self {
        FLAW.get()
    }
}
