//! Brokers that do not keep their word, to show what the suite notices and what the core survives.

use std::fmt::Debug;

/// What a broker does wrong. A count of zero means never.
pub trait Flaw: Debug + 'static {
    /// Every so many frames one vanishes, acknowledged to its sender.
    const DROPS: u64 = 0;
    /// Every so many frames one comes twice.
    const REPEATS: u64 = 0;
    /// Every so many frames one comes after those that follow it.
    const SHUFFLES: u64 = 0;
    /// A connection that ends loses its subscriptions, and the next one is called resumed.
    const FORGETS: bool = false;
    /// Nothing is kept for who is away.
    const SWALLOWS: bool = false;
}

/// Nothing.
#[derive(Clone, Copy, Debug)]
pub struct Sound;

impl Flaw for Sound {}

/// Loses every fifth frame.
#[derive(Clone, Copy, Debug)]
pub struct Drops;

impl Flaw for Drops {
    const DROPS: u64 = 5;
}

/// Delivers every third frame twice.
#[derive(Clone, Copy, Debug)]
pub struct Repeats;

impl Flaw for Repeats {
    const REPEATS: u64 = 3;
}

/// Delivers every third frame late.
#[derive(Clone, Copy, Debug)]
pub struct Shuffles;

impl Flaw for Shuffles {
    const SHUFFLES: u64 = 3;
}

/// Forgets subscriptions and says that it kept them.
#[derive(Clone, Copy, Debug)]
pub struct Forgets;

impl Flaw for Forgets {
    const FORGETS: bool = true;
}

/// Has no mailboxes.
#[derive(Clone, Copy, Debug)]
pub struct Swallows;

impl Flaw for Swallows {
    const SWALLOWS: bool = true;
}
