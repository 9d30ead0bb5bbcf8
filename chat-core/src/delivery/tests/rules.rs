//! One test per rule.

use super::net::Net;
use super::*;

fn net(nodes: usize) -> Net {
    Net::new(nodes, nodes > 2, DeliveryConfig::default(), 1)
}

fn logs(net: &Net, n: usize) -> Vec<&str> {
    net.nodes[n].log.iter().map(|(_, says)| &says[..]).collect()
}

#[test]
fn q1_messages_arrive_once_in_order_and_are_called_delivered() {
    let mut net = net(2);
    for says in ["0:1", "0:2", "0:3"] {
        net.send(0, says);
    }
    net.settle();
    assert_eq!(logs(&net, 1), ["0:1", "0:2", "0:3"]);
    assert_eq!(net.nodes[0].machine.outbox_size(), (0, 0));
    assert_eq!(net.found, None);
    let delivered = net.nodes[0]
        .events
        .iter()
        .filter(|e| matches!(e, DeliveryEvent::Progress { ack, .. } if *ack == Ack::Delivered));
    assert_eq!(delivered.count(), 3);
}
