//! What the endpoint promises its driver.

use std::time::Duration;

use super::net::{Net, Node, WALL, open, user};
use crate::content::Content;
use crate::effect::{RowOp, Table};
use crate::id::{Epoch, TxnId};
use crate::identity::Ed25519;
use crate::link::{DownReason, LinkEvent};
use crate::time::{Timestamp, UnixMillis};
use crate::{Endpoint, OpenError, Output, PersistId};

const NOW: Timestamp = Timestamp::from_secs(1);

fn up(endpoint: &mut Endpoint) {
    endpoint.connect(NOW);
    endpoint.handle_link(
        &LinkEvent::Up {
            resumed: true,
            marks_backlog: true,
        },
        NOW,
    );
}

#[test]
fn the_rows_of_one_input_are_one_batch_and_come_before_what_waits_for_them() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    let ann = &mut net.nodes[0].endpoint;
    ann.send(conv, TxnId([1; 16]), Content::text("x"), net.now)
        .unwrap();
    let mut batch: Option<PersistId> = None;
    while let Some(output) = ann.poll_output() {
        match output {
            Output::Persist { id, rows } => {
                assert_eq!(batch, None, "one input, one batch");
                assert!(rows.iter().any(|op| matches!(
                    op,
                    RowOp::Put {
                        table: Table::Outbox,
                        ..
                    }
                )));
                batch = Some(id);
            }
            Output::Event { after, .. } => assert_eq!(after, batch),
            other => panic!("no message before its outbox row: {other:?}"),
        }
    }
    ann.handle_persisted(batch.expect("a message has rows"), net.now);
    assert!(ann.poll_timeout().unwrap() <= net.now, "it may leave now");
    let Some(Output::Transmit(frame)) = ann.poll_output() else {
        panic!("the message leaves");
    };
    assert_eq!((frame.after, ann.poll_output()), (None, None));
}

#[test]
fn messages_that_become_durable_together_share_a_frame() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    let ann = &mut net.nodes[0].endpoint;
    let mut send = |n| {
        ann.send(conv, TxnId([n; 16]), Content::text("x"), net.now)
            .unwrap();
        let outputs: Vec<_> = core::iter::from_fn(|| ann.poll_output()).collect();
        outputs.into_iter().find_map(|output| match output {
            Output::Persist { id, .. } => Some(id),
            _ => None,
        })
    };
    let batches = [send(1), send(2), send(3)];
    // The first is durable: it does not wait for the others.
    for (batch, messages) in [(0, 1), (2, 2)] {
        let now = net.now;
        net.nodes[0]
            .endpoint
            .handle_persisted(batches[batch].unwrap(), now);
        let frames: Vec<_> = core::iter::from_fn(|| net.nodes[0].endpoint.poll_output()).collect();
        let [Output::Transmit(frame)] = &frames[..] else {
            panic!("{frames:?}");
        };
        let header = crate::wire::header(&frame.bytes).unwrap();
        let opened = crate::wire::open(header, &frame.channel, &Ed25519).unwrap();
        let crate::wire::Body::Data(data) = opened.body else {
            panic!("a message leaves");
        };
        assert_eq!(data.messages().count(), messages);
        assert_eq!(frame.after, None);
    }
}

#[test]
fn no_frame_leaves_before_the_epoch_of_this_life_is_durable() {
    let mut endpoint = open("ann", 1, Vec::new(), WALL, NOW).unwrap();
    endpoint.request(&user("bob"), "", NOW).unwrap();
    up(&mut endpoint);
    let mut first = None;
    let mut frames = 0;
    while let Some(output) = endpoint.poll_output() {
        match output {
            Output::Subscribe(channel) => {
                endpoint.handle_link(&LinkEvent::Subscribed(channel), NOW);
            }
            Output::Persist { id, .. } => first = first.or(Some(id)),
            Output::Transmit(frame) => {
                assert!(frame.after >= first && frame.after.is_some());
                frames += 1;
            }
            _ => {}
        }
    }
    assert!(frames > 0);
}

#[test]
fn p2_no_will_is_given_before_the_epoch_of_this_life_is_durable() {
    let mut endpoint = open("ann", 1, Vec::new(), WALL, NOW).unwrap();
    endpoint.connect(NOW);
    let wills = |endpoint: &mut Endpoint| {
        let outputs = core::iter::from_fn(|| endpoint.poll_output());
        outputs
            .filter(|output| matches!(output, Output::Connect { .. }))
            .count()
    };
    assert_eq!(wills(&mut endpoint), 0);
    endpoint.disconnect(NOW);
    endpoint.handle_persisted(PersistId(1), NOW);
    assert_eq!(wills(&mut endpoint), 0, "it was called off");
    endpoint.connect(NOW);
    assert_eq!(wills(&mut endpoint), 1);
    let mut endpoint = open("ann", 1, Vec::new(), WALL, NOW).unwrap();
    endpoint.connect(NOW);
    assert_eq!(wills(&mut endpoint), 0);
    endpoint.handle_persisted(PersistId(1), NOW);
    assert_eq!(wills(&mut endpoint), 1, "it waited");
}

#[test]
fn an_epoch_grows_with_each_life_and_outgrows_a_lost_one() {
    let first = open("ann", 1, Vec::new(), WALL, NOW).unwrap();
    assert_eq!(first.epoch(), Epoch(WALL.0));
    let node = Node::new("ann", 1, NOW);
    let again = open("ann", 1, node.rows(), UnixMillis(5), NOW).unwrap();
    assert_eq!(
        again.epoch(),
        Epoch(WALL.0 + 1),
        "also when the wall clock stepped back"
    );
    let later = UnixMillis(WALL.0 + 60_000);
    let restored = open("ann", 1, node.rows(), later, NOW).unwrap();
    assert_eq!(
        restored.epoch(),
        Epoch(later.0),
        "a backup comes back above what was lost"
    );
}

#[test]
fn a_store_of_another_identity_is_refused() {
    let node = Node::new("ann", 1, NOW);
    let other_device = open("ann", 2, node.rows(), WALL, NOW);
    assert!(matches!(other_device, Err(OpenError::ForeignStore)));
    let other_user = open("bob", 1, node.rows(), WALL, NOW);
    assert!(matches!(other_user, Err(OpenError::ForeignStore)));
}

#[test]
fn a_damaged_row_is_named_and_nothing_is_dropped() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    net.say(0, conv, "kept");
    net.nodes[1].endpoint.handle_link(
        &LinkEvent::Down {
            reason: DownReason::Lost,
            retry_after: None,
        },
        net.now,
    );
    net.nodes[0].drain(net.now);
    let rows = net.nodes[0].rows();
    for table in [
        Table::Sessions,
        Table::Conversations,
        Table::Outbox,
        Table::Pins,
    ] {
        let mut rows = rows.clone();
        let row = rows
            .iter_mut()
            .find(|row| row.table == table)
            .expect("the table is in use");
        row.value = bytes::Bytes::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
        match open("ann", 1, rows, WALL, NOW) {
            Err(OpenError::Restore(error)) => assert_eq!(error.table, table),
            other => panic!("a damaged row of {table:?} gave {other:?}"),
        }
    }
}

#[test]
fn poll_timeout_means_now_while_output_is_queued_and_time_never_runs_back() {
    let mut endpoint = open("ann", 1, Vec::new(), WALL, NOW).unwrap();
    assert_eq!(endpoint.poll_timeout(), Some(NOW));
    while endpoint.poll_output().is_some() {}
    assert_eq!(
        endpoint.poll_timeout(),
        None,
        "nothing is due before it connects"
    );
    let later = NOW + Duration::from_secs(10);
    endpoint.handle_timeout(later);
    endpoint.request(&user("bob"), "", NOW).unwrap();
    assert_eq!(
        endpoint.poll_timeout(),
        Some(later),
        "an earlier now reads as the latest"
    );
}

/// A run of everything, as text.
fn trace() -> Vec<String> {
    let mut net = Net::new(&["ann", "bob", "cid"]);
    let conv = net.chat();
    for i in 0..20 {
        net.say(i % 2, conv, &format!("message {i}"));
    }
    let group = net.nodes[0]
        .endpoint
        .create_group(&"ops".parse().unwrap(), net.now)
        .unwrap();
    net.run(Duration::from_secs(1));
    net.nodes[2]
        .endpoint
        .join(group, "me too", net.now)
        .unwrap();
    net.run(Duration::from_secs(2));
    let request = net.nodes[0].endpoint.group(group).unwrap().requests[0].request;
    net.nodes[0]
        .endpoint
        .approve(group, request, net.now)
        .unwrap();
    net.run(Duration::from_secs(2));
    net.say(2, group.into(), "hello ops");
    net.run(Duration::from_secs(30));
    assert_eq!(
        net.nodes[0].heard().last().map(String::as_str),
        Some("hello ops")
    );
    net.nodes.into_iter().flat_map(|node| node.trace).collect()
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    let (one, two) = (trace(), trace());
    assert!(one.len() > 200, "something happened");
    for (a, b) in one.iter().zip(&two) {
        assert_eq!(a, b);
    }
    assert_eq!(one.len(), two.len());
}

#[test]
fn undrained_output_is_legal() {
    let mut net = Net::new(&["ann", "bob"]);
    let conv = net.chat();
    let ann = &mut net.nodes[0].endpoint;
    for i in 0..50u8 {
        ann.send(conv, TxnId([i; 16]), Content::text(format!("{i}")), net.now)
            .unwrap();
        ann.handle_timeout(net.now + Duration::from_millis(u64::from(i)));
    }
    net.run(Duration::from_secs(10));
    let want: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(net.nodes[1].heard(), want);
}

#[test]
fn what_a_machine_asked_for_while_cut_off_goes_out_with_the_next_connection() {
    let mut net = Net::new(&["ann", "bob"]);
    let down = LinkEvent::Down {
        reason: DownReason::Lost,
        retry_after: None,
    };
    net.nodes[0].endpoint.handle_link(&down, net.now);
    net.nodes[0]
        .endpoint
        .request(&user("bob"), "", net.now)
        .unwrap();
    net.nodes[0]
        .endpoint
        .handle_link(&LinkEvent::Reachable, net.now);
    net.run(Duration::from_secs(2));
    assert_eq!(net.nodes[1].endpoint.sessions().len(), 1, "bob was asked");
}
