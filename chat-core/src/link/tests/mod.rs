//! Helpers for the tests of the connection.

mod laws;
mod retries;
mod subscriptions;

use core::time::Duration;

use super::*;
use crate::config::{Config, LinkConfig};
use crate::id::UserId;
use crate::rng::Rng;
use crate::time::{Now, UnixMillis};

fn at(millis: u64) -> Now {
    Now {
        mono: Timestamp::from_millis(millis),
        wall: UnixMillis(1_000_000 + millis),
    }
}

fn channel(n: u8) -> Channel {
    Channel::Inbox(UserId::new(&format!("user-{n}")).unwrap())
}

fn link(seed: u8) -> Link {
    Link::new(LinkConfig::default(), Rng::from_seed([seed; 32]))
}

fn drain(link: &mut Link) -> Vec<LinkOutput> {
    core::iter::from_fn(|| link.poll_output()).collect()
}

const fn up(resumed: bool, marks_backlog: bool) -> LinkEvent {
    LinkEvent::Up {
        resumed,
        marks_backlog,
    }
}

const fn down(reason: DownReason) -> LinkEvent {
    LinkEvent::Down {
        reason,
        retry_after: None,
    }
}

/// The pause after a failure at `now`, with the timer run.
fn pause(link: &mut Link, now: Now) -> Duration {
    let LinkState::Disconnected {
        since, retry_at, ..
    } = link.state().clone()
    else {
        panic!("not waiting: {:?}", link.state());
    };
    assert_eq!(since, now.mono);
    assert_eq!(link.poll_timeout(), Some(retry_at));
    retry_at.saturating_since(since)
}
