//! Typing: shown while it is fresh, stored nowhere (Q4, Q6).

use std::time::Duration;

use chat_core::Event;
use chat_core::delivery::DeliveryEvent;
use chat_core::id::ConvId;

use crate::suite::{Command, Node, Stage, World};

async fn typing<W: World>(s: &mut Stage<W>, at: Node, by: Node, wanted: bool) {
    let who = s.user(by);
    s.expect(at, "typing", |event| match event {
        Event::Delivery(DeliveryEvent::Typing { user, active, .. })
            if *user == who && *active == wanted =>
        {
            Some(())
        }
        _ => None,
    })
    .await;
}

fn is_typing(event: &Event) -> bool {
    matches!(event, Event::Delivery(DeliveryEvent::Typing { .. }))
}

async fn pair<W: World>(s: &mut Stage<W>) -> (Node, Node, ConvId) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    // Typing is not repeated: both must hear each other before it is worth anything.
    s.say(alice, conv, "hello").await;
    s.hears(bob, &["hello"]).await;
    s.say(bob, conv, "hello").await;
    s.hears(alice, &["hello"]).await;
    (alice, bob, conv)
}

/// It starts, and it stops.
pub async fn q4_typing_is_shown_while_it_lasts<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.ask(bob, Command::Typing { conv, active: true }).await;
    typing(s, alice, bob, true).await;
    let active = false;
    s.ask(bob, Command::Typing { conv, active }).await;
    typing(s, alice, bob, false).await;
}

/// The message says that the typing is over.
pub async fn q4_typing_ends_with_the_message<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.ask(bob, Command::Typing { conv, active: true }).await;
    typing(s, alice, bob, true).await;
    s.say(bob, conv, "there").await;
    typing(s, alice, bob, false).await;
    s.hears(alice, &["there"]).await;
}

/// Nobody is told of yesterday's typing.
pub async fn q4_typing_is_not_kept_for_who_is_away<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    s.ask(bob, Command::Typing { conv, active: true }).await;
    s.say(bob, conv, "you missed nothing").await;
    s.world.wait(Duration::from_millis(100)).await;
    s.mend(alice).await;
    s.hears(alice, &["you missed nothing"]).await;
    s.never(alice, "typing of earlier", is_typing).await;
}

/// A device that dies while typing does not type for ever.
pub async fn q6_typing_lapses_by_itself<W: World>(s: &mut Stage<W>) {
    let ttl = s.world.config().delivery.typing_ttl;
    s.world.config().delivery.typing_ttl = s.lasting(ttl, 4);
    let (alice, bob, conv) = pair(s).await;
    s.ask(bob, Command::Typing { conv, active: true }).await;
    typing(s, alice, bob, true).await;
    s.kill(bob).await;
    typing(s, alice, bob, false).await;
}
