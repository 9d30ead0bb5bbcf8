//! rumqttc alone, MQTT 5: QoS 0, and QoS 1 with the broker's acknowledgement at both ends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::path::{Open, Path, Tally};

/// Requests that wait for the connection.
const QUEUE: usize = 1_024;

struct Raw {
    client: AsyncClient,
    topic: &'static str,
    qos: QoS,
    _tasks: JoinSet<()>,
}

#[async_trait::async_trait(?Send)]
impl Path for Raw {
    async fn send(&mut self, message: String) {
        let sent = self.client.publish(self.topic, self.qos, false, message);
        sent.await.expect("its event loop runs");
    }
}

fn connect(address: SocketAddr, id: String, in_flight: u16) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", address.port());
    options
        .set_keep_alive(Duration::from_secs(60))
        .set_receive_maximum(Some(in_flight))
        .set_outgoing_inflight_upper_limit(in_flight);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    AsyncClient::new(options, QUEUE)
}

/// Opens it; with acknowledgements it has at most `in_flight` of them under way.
pub(crate) async fn open(
    address: SocketAddr,
    acked: bool,
    subscribers: usize,
    in_flight: u16,
) -> Open {
    let (topic, qos) = if acked {
        ("raw/one", QoS::AtLeastOnce)
    } else {
        ("raw/zero", QoS::AtMostOnce)
    };
    let tally = Tally::new(subscribers, acked);
    let mut tasks = JoinSet::new();
    for number in 1..=subscribers {
        let (client, events) = connect(address, format!("{topic}/{number}"), in_flight);
        client.subscribe(topic, qos).await.expect("a new queue");
        let (there, subscribed) = oneshot::channel();
        tasks.spawn_local(subscriber(client, events, there, Rc::clone(&tally)));
        subscribed.await.expect("the broker confirms");
    }
    let (client, events) = connect(address, format!("{topic}/0"), in_flight);
    tasks.spawn_local(publisher(events, Rc::clone(&tally)));
    let path = Box::new(Raw {
        client,
        topic,
        qos,
        _tasks: tasks,
    });
    Open { path, tally }
}

async fn subscriber(
    client: AsyncClient,
    mut events: EventLoop,
    there: oneshot::Sender<()>,
    tally: Rc<Tally>,
) {
    let (mut last, mut there) = (0, Some(there));
    loop {
        match events.poll().await.expect("it stays up") {
            Event::Incoming(Packet::Publish(publish)) => tally.take(&mut last, &publish.payload),
            Event::Incoming(Packet::SubAck(_)) => {
                let there = there.take().expect("one subscription");
                there.send(()).expect("the opener waits");
            }
            // The event loop ends with its last client.
            _ => _ = &client,
        }
    }
}

async fn publisher(mut events: EventLoop, tally: Rc<Tally>) {
    loop {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("it stays up") {
            tally.confirm();
        }
    }
}
