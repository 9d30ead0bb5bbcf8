//! Messages on a stage.

use chat_core::Event;
use chat_core::content::Content;
use chat_core::delivery::{Ack, DeliveryEvent, FailReason, Received, TimelineItem, Unsendable};
use chat_core::id::{ConvId, MessageId, TxnId};

use super::Stage;
use crate::suite::world::{Answer, Command, Node, World};

impl<W: World> Stage<W> {
    /// A transaction id that was not used before.
    pub fn txn(&mut self) -> TxnId {
        self.txn += 1;
        let mut txn = [0; 16];
        txn[..8].copy_from_slice(&self.txn.to_be_bytes());
        TxnId(txn)
    }

    /// Sends a text; returns its id.
    pub async fn say(&mut self, node: Node, conv: ConvId, text: &str) -> MessageId {
        self.send(node, conv, Content::text(text)).await
    }

    /// Sends a content; returns its id.
    pub async fn send(&mut self, node: Node, conv: ConvId, content: Content) -> MessageId {
        let txn = self.txn();
        self.send_as(node, conv, txn, content).await
    }

    /// Sends a content under a transaction; returns its id.
    pub async fn send_as(
        &mut self,
        node: Node,
        conv: ConvId,
        txn: TxnId,
        content: Content,
    ) -> MessageId {
        match self.ask(node, Command::Send { conv, txn, content }).await {
            Answer::Message(id) => id,
            other => panic!("a send gave {other:?}"),
        }
    }

    /// Waits for the next message of any text, and leaves it unacknowledged.
    pub async fn unread(&mut self, node: Node) -> Received {
        self.expect(node, "a message", |event| match event {
            Event::Delivery(DeliveryEvent::Received(message)) => Some(message.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the next message of any text, and is done with it.
    pub async fn message(&mut self, node: Node) -> Received {
        let message = self.unread(node).await;
        let done = Command::Acknowledge {
            conv: message.id.stream.conv,
            pos: message.pos,
        };
        self.ask(node, done).await;
        message
    }

    /// Waits for these texts, in this order, and for no other before them.
    pub async fn hears(&mut self, node: Node, texts: &[&str]) {
        for text in texts {
            let message = self.message(node).await;
            assert_eq!(message.content.fallback(), *text, "on {node:?}");
        }
    }

    /// Sends numbered texts.
    pub async fn say_all(
        &mut self,
        node: Node,
        conv: ConvId,
        who: &str,
        numbers: core::ops::Range<u32>,
    ) {
        for number in numbers {
            self.say(node, conv, &format!("{who} {number}")).await;
        }
    }

    /// Waits for numbered texts, in order, and for no other before them.
    pub async fn hears_all(&mut self, node: Node, who: &str, numbers: core::ops::Range<u32>) {
        for number in numbers {
            self.hears(node, &[&format!("{who} {number}")]).await;
        }
    }

    /// Asserts that no message comes, and none waits.
    pub async fn hears_nothing(&mut self, node: Node) {
        self.never(node, "a message", |event| {
            matches!(event, Event::Delivery(DeliveryEvent::Received(_)))
        })
        .await;
    }

    /// Waits until `id` got as far as `ack`.
    pub async fn reaches(&mut self, node: Node, id: MessageId, ack: Ack) {
        self.expect(
            node,
            &format!("{ack:?} of a message"),
            |event| match event {
                Event::Delivery(DeliveryEvent::Progress { id: told, ack: got })
                    if *told == id && *got >= ack =>
                {
                    Some(())
                }
                _ => None,
            },
        )
        .await;
    }

    /// Waits until `id` is wedged.
    pub async fn is_wedged(&mut self, node: Node, id: MessageId) -> Unsendable {
        self.expect(node, "a message that is wedged", |event| match event {
            Event::Delivery(DeliveryEvent::Wedged { id: told, why }) if *told == id => Some(*why),
            _ => None,
        })
        .await
    }

    /// Waits until `id` has failed.
    pub async fn fails(&mut self, node: Node, id: MessageId) -> FailReason {
        self.expect(node, "the failure of a message", |event| match event {
            Event::Delivery(DeliveryEvent::Failed { id: told, why }) if *told == id => {
                Some(why.clone())
            }
            _ => None,
        })
        .await
    }

    /// The texts that `conv` shows on `node`, in display order.
    pub async fn texts(&mut self, node: Node, conv: ConvId) -> Vec<String> {
        let items = self.world.timeline(node, conv).await;
        items
            .iter()
            .map(|item| match item {
                TimelineItem::Received(message) => message.content.fallback().to_owned(),
                TimelineItem::Sent { content, .. } => content.fallback().to_owned(),
                TimelineItem::Gap { count, .. } => format!("<gap of {count}>"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    /// Asserts that `conv` shows the same messages in the same order on all `nodes`; returns them.
    pub async fn same_screens(
        &mut self,
        nodes: &[Node],
        conv: ConvId,
    ) -> Vec<(MessageId, Content)> {
        let mut screens = Vec::new();
        for node in nodes {
            let items = self.world.timeline(*node, conv).await;
            let screen: Vec<_> = items.iter().map(shown).collect();
            screens.push(screen);
        }
        for (node, screen) in nodes.iter().zip(&screens) {
            assert_eq!(*screen, screens[0], "{node:?} differs from {:?}", nodes[0]);
        }
        screens.remove(0)
    }
}

fn shown(item: &TimelineItem) -> (MessageId, Content) {
    match item {
        TimelineItem::Received(message) => (message.id, message.content.clone()),
        TimelineItem::Sent { id, content, .. } => (*id, content.clone()),
        other => panic!("no message on the screen: {other:?}"),
    }
}
