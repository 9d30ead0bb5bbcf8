//! What the connection cannot carry.

use std::time::Duration;

use super::net::{Net, user};
use crate::Event;
use crate::content::Content;
use crate::delivery::{DeliveryEvent, SendError, Unsendable};
use crate::event::Fault;
use crate::id::TxnId;
use crate::link::{DownReason, LinkEvent};

#[test]
fn q5_what_the_connection_cannot_carry_is_refused() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    let now = net.now;
    let ann = &mut net.nodes[0].endpoint;
    ann.handle_link(&LinkEvent::MaxFrame(4_096), now);
    let long = Content::text("x".repeat(4_000));
    let refused = ann.send(conv, TxnId([1; 16]), long.clone(), now);
    let Err(SendError::TooLarge { content, max, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((content, max), (long.clone(), 4_096), "handed back");
    net.say(0, conv, &"y".repeat(3_000));
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[1].heard(), ["y".repeat(3_000)]);
    // Another connection may carry it.
    let now = net.now;
    let ann = &mut net.nodes[0].endpoint;
    ann.handle_link(&LinkEvent::MaxFrame(65_536), now);
    ann.send(conv, TxnId([2; 16]), long, now).unwrap();
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[1].heard().len(), 2);
}

#[test]
fn q2_what_was_written_offline_and_is_too_large_is_wedged_until_it_is_cancelled() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    let now = net.now;
    let down = LinkEvent::Down {
        reason: DownReason::Lost,
        retry_after: None,
    };
    net.nodes[0].endpoint.handle_link(&down, now);
    net.say(0, conv, &"x".repeat(4_000));
    net.say(0, conv, "short");
    net.nodes[0]
        .endpoint
        .handle_link(&LinkEvent::MaxFrame(4_096), now);
    net.run(Duration::from_secs(5));
    let wedged = net.nodes[0].events.iter().find_map(|event| match event {
        Event::Delivery(DeliveryEvent::Wedged { id, why }) => Some((*id, *why)),
        _ => None,
    });
    let Some((id, Unsendable::TooLarge)) = wedged else {
        panic!("{wedged:?}");
    };
    assert_eq!(net.nodes[0].endpoint.wedged(conv), wedged);
    assert!(net.nodes[1].heard().is_empty(), "the next one waits");
    let now = net.now;
    assert!(net.nodes[0].endpoint.cancel_send(&id, now));
    net.run(Duration::from_secs(5));
    assert_eq!(net.nodes[1].heard(), ["short"]);
    assert_eq!(net.nodes[0].endpoint.stats().outbox, 0);
}

#[test]
fn any_other_frame_that_is_too_large_is_told_and_not_sent() {
    let mut net = Net::new(&["ann", "bob"]);
    let now = net.now;
    let ann = &mut net.nodes[0];
    ann.endpoint.handle_link(&LinkEvent::MaxFrame(300), now);
    let note = "please ".repeat(60);
    ann.endpoint.request(&user("bob"), &note, now).unwrap();
    ann.drain(now);
    assert!(ann.frames.iter().all(|(_, bytes)| bytes.len() <= 300));
    let told = ann.events.iter().any(|event| {
        matches!(
            event,
            Event::PeerFault {
                fault: Fault::TooLarge,
                ..
            }
        )
    });
    assert!(told);
}
