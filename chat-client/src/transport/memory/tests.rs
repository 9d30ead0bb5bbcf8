use core::future::poll_fn;

use super::*;
use crate::transport::Token;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn connect(broker: &MemoryBroker, name: &str, will: Option<Will>) -> Box<dyn Transport> {
    let options = ConnectOptions::new(user(name), DeviceId([1; 32]), will);
    broker.connect(options).await.unwrap()
}

fn send(transport: &mut Box<dyn Transport>, to: &Channel, bytes: &'static [u8], class: Class) {
    let item = Outbound::Send {
        token: Token(7),
        channel: to.clone(),
        bytes: Bytes::from_static(bytes),
        class,
        ttl: None,
        last_value: false,
        dedup: None,
    };
    transport.start_send(item).unwrap();
}

async fn read(transport: &mut Box<dyn Transport>) -> Vec<Inbound> {
    let mut items = Vec::new();
    poll_fn(|cx| {
        while let Poll::Ready(item) = transport.poll_recv(cx) {
            items.push(item.unwrap());
        }
        Poll::Ready(())
    })
    .await;
    items
}

fn frame(channel: &Channel, bytes: &'static [u8], handle: Option<u64>, live: bool) -> Inbound {
    Inbound::Received {
        channel: channel.clone(),
        bytes: Bytes::from_static(bytes),
        handle: handle.map(Handle),
        live,
    }
}

#[tokio::test]
async fn a_mailbox_keeps_what_is_not_acknowledged() {
    let broker = MemoryBroker::new();
    let inbox = Channel::Inbox(user("bob"));
    let mut bob = connect(&broker, "bob", None).await;
    bob.start_send(Outbound::Subscribe(inbox.clone())).unwrap();
    let first = read(&mut bob).await;
    assert!(matches!(first[0], Inbound::Up { resumed: false, .. }));
    assert!(matches!(
        first[1],
        Inbound::Subscribed { granted: true, .. }
    ));
    assert_eq!(first[2..], [Inbound::CaughtUp]);
    broker.cut(&user("bob"));
    let ended = poll_fn(|cx| bob.poll_recv(cx)).await;
    assert_eq!(ended, Err(TransportError::lost()));
    drop(bob);

    let mut alice = connect(&broker, "alice", None).await;
    send(&mut alice, &inbox, b"a", Class::Durable);
    send(&mut alice, &inbox, b"b", Class::Durable);
    send(&mut alice, &inbox, b"e", Class::Ephemeral);

    for _ in 0..2 {
        let mut bob = connect(&broker, "bob", None).await;
        let items = read(&mut bob).await;
        assert!(matches!(items[0], Inbound::Up { resumed: true, .. }));
        let [
            Inbound::Received {
                handle: Some(a), ..
            },
            Inbound::Received { .. },
            Inbound::CaughtUp,
        ] = &items[1..]
        else {
            panic!("not both frames and the marker: {items:?}")
        };
        assert_eq!(items[1], frame(&inbox, b"a", Some(a.0), true));
        assert_eq!(broker.stored(&user("bob"), DeviceId([1; 32])), 2);
    }
    let mut bob = connect(&broker, "bob", None).await;
    for item in read(&mut bob).await {
        if let Inbound::Received {
            handle: Some(handle),
            ..
        } = item
        {
            bob.start_send(Outbound::Ack(handle)).unwrap();
        }
    }
    assert_eq!(broker.stored(&user("bob"), DeviceId([1; 32])), 0);
}

#[tokio::test]
async fn an_acknowledgement_of_another_connection_changes_nothing() {
    let broker = MemoryBroker::new();
    let inbox = Channel::Inbox(user("bob"));
    let mut bob = connect(&broker, "bob", None).await;
    bob.start_send(Outbound::Subscribe(inbox.clone())).unwrap();
    let mut alice = connect(&broker, "alice", None).await;
    send(&mut alice, &inbox, b"a", Class::Durable);
    let handle = read(&mut bob)
        .await
        .into_iter()
        .find_map(|item| match item {
            Inbound::Received { handle, .. } => handle,
            _ => None,
        });
    let mut again = connect(&broker, "bob", None).await;
    again.start_send(Outbound::Ack(handle.unwrap())).unwrap();
    assert_eq!(broker.stored(&user("bob"), DeviceId([1; 32])), 1);
    let ended = poll_fn(|cx| bob.poll_recv(cx)).await;
    assert_eq!(ended, Err(TransportError::new(DownReason::Conflict)));
}

#[tokio::test]
async fn a_will_is_published_on_a_cut_and_kept_as_last_value_but_not_after_a_close() {
    let broker = MemoryBroker::new();
    let channel = Channel::Presence(user("alice"));
    let will = Will {
        channel: channel.clone(),
        bytes: Bytes::from_static(b"gone"),
    };
    let mut bob = connect(&broker, "bob", None).await;
    bob.start_send(Outbound::Subscribe(channel.clone()))
        .unwrap();
    read(&mut bob).await;

    let mut alice = connect(&broker, "alice", Some(will.clone())).await;
    poll_fn(|cx| alice.poll_close(cx)).await.unwrap();
    drop(alice);
    assert_eq!(read(&mut bob).await, []);

    let _alice = connect(&broker, "alice", Some(will)).await;
    broker.cut(&user("alice"));
    assert_eq!(read(&mut bob).await, [frame(&channel, b"gone", None, true)]);

    let mut carol = connect(&broker, "carol", None).await;
    carol
        .start_send(Outbound::Subscribe(channel.clone()))
        .unwrap();
    assert_eq!(
        read(&mut carol).await[2],
        frame(&channel, b"gone", None, false)
    );
}

#[tokio::test]
async fn the_sender_learns_what_became_of_a_frame() {
    let broker = MemoryBroker::new();
    let inbox = Channel::Inbox(user("bob"));
    let mut alice = connect(&broker, "alice", None).await;
    read(&mut alice).await;
    let outcome = |outcome| {
        vec![Inbound::Sent {
            token: Token(7),
            outcome,
        }]
    };
    send(&mut alice, &inbox, b"x", Class::Durable);
    assert_eq!(read(&mut alice).await, outcome(SendOutcome::NoReceiver));
    let mut bob = connect(&broker, "bob", None).await;
    bob.start_send(Outbound::Subscribe(inbox.clone())).unwrap();
    read(&mut bob).await;
    broker.drop_next(1);
    send(&mut alice, &inbox, b"lost", Class::Durable);
    assert_eq!(read(&mut alice).await, outcome(SendOutcome::Accepted));
    assert_eq!(read(&mut bob).await, []);
    broker.stall(&user("bob"));
    send(&mut alice, &inbox, b"y", Class::Durable);
    assert_eq!(read(&mut bob).await, []);
    broker.resume(&user("bob"));
    assert_eq!(read(&mut bob).await.len(), 1);
}
