//! A transport that does not keep its word, under the real client: what the suite notices, and
//! what end-to-end acknowledgements make good.

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;

use chat_client::transport::memory::MemoryBroker;
use chat_testkit::broken::{Broken, Vices};
use chat_testkit::scenario_table;
use chat_testkit::suite::client::{self, ClientWorld, run_paused};

thread_local! {
    static VICES: Cell<Vices> = Cell::default();
}

/// The broker in memory, over transports with the vices of this thread.
#[derive(Debug)]
struct BrokenCell(Broken<MemoryBroker>, MemoryBroker);

impl client::Cell for BrokenCell {
    const VIRTUAL_TIME: bool = true;

    type Connector = Broken<MemoryBroker>;

    async fn start() -> Self {
        let broker = MemoryBroker::new();
        Self(Broken::new(broker.clone(), VICES.get()), broker)
    }

    fn connector(&self) -> Broken<MemoryBroker> {
        self.0.clone()
    }

    async fn restart(&mut self) {
        self.1.bounce();
    }
}

fn failing(vices: Vices) -> BTreeSet<&'static str> {
    VICES.set(vices);
    common::failing(scenario_table!(ClientWorld<BrokenCell>, run_paused))
}

#[test]
fn a_transport_that_drops_every_fiftieth_frame_loses_no_message() {
    let failed = failing(Vices {
        drops: 50,
        ..Vices::default()
    });
    assert_eq!(failed, BTreeSet::new());
}

#[test]
fn a_transport_that_repeats_and_shuffles_is_survived() {
    let failed = failing(Vices {
        repeats: 3,
        shuffles: 4,
        ..Vices::default()
    });
    assert_eq!(failed, BTreeSet::new());
}

#[test]
fn a_transport_that_says_nothing_of_every_third_frame_is_survived() {
    let failed = failing(Vices {
        mute: 3,
        ..Vices::default()
    });
    assert_eq!(failed, BTreeSet::new());
}

/// `resumed` is a promise: whoever breaks it is deaf to what was subscribed before.
#[test]
fn a_transport_that_forgets_and_calls_it_resumed_is_caught() {
    let failed = failing(Vices {
        forgets: true,
        ..Vices::default()
    });
    assert!(failed.len() > 10, "{failed:?}");
    assert!(failed.contains("s12_everybody_talks_on_after_a_restart_of_the_broker"));
}

#[test]
fn a_transport_that_forgets_to_subscribe_is_caught() {
    let failed = failing(Vices {
        deaf: 5,
        ..Vices::default()
    });
    assert!(failed.len() > 10, "{failed:?}");
    assert!(failed.contains("g10_a_message_reaches_every_member"));
}
