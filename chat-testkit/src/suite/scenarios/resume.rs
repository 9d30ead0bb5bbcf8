//! Connections and processes that come and go (S11–S14, Q7–Q9, Q14).

use std::time::Duration;

use chat_core::Event;
use chat_core::delivery::{Ack, DeliveryEvent};
use chat_core::id::ConvId;
use chat_core::link::LinkState;

use crate::suite::{Command, Fault, Node, Stage, World};

async fn pair<W: World>(s: &mut Stage<W>) -> (Node, Node, ConvId) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    (alice, bob, conv)
}

/// The receiver's cable is cut amid the burst, and everything is there once, in order.
pub async fn s11_a_burst_survives_a_cut_of_the_receiver<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say_all(alice, conv, "alice", 0..50).await;
    s.hears_all(bob, "alice", 0..10).await;
    s.cut(bob).await;
    s.say_all(alice, conv, "alice", 50..100).await;
    s.mend(bob).await;
    s.hears_all(bob, "alice", 10..100).await;
    s.hears_nothing(bob).await;
}

/// The sender's cable is cut amid the burst, and everything is there once, in order.
pub async fn s11_a_burst_survives_a_cut_of_the_sender<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say_all(alice, conv, "alice", 0..50).await;
    s.cut(alice).await;
    s.say_all(alice, conv, "alice", 50..100).await;
    s.mend(alice).await;
    s.hears_all(bob, "alice", 0..100).await;
    s.hears_nothing(bob).await;
}

/// A bad line: every few messages it breaks, on one side or the other.
pub async fn s11_a_line_that_keeps_breaking_loses_nothing<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    for round in 0..6 {
        let victim = if round % 2 == 0 { alice } else { bob };
        s.say_all(alice, conv, "alice", 10 * round..10 * round + 5)
            .await;
        s.cut(victim).await;
        s.say_all(alice, conv, "alice", 10 * round + 5..10 * round + 10)
            .await;
        s.mend(victim).await;
    }
    s.hears_all(bob, "alice", 0..60).await;
    s.hears_nothing(bob).await;
}

/// The broker comes back over its disk, and nobody has to do anything.
pub async fn s12_everybody_talks_on_after_a_restart_of_the_broker<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say(alice, conv, "before").await;
    s.hears(bob, &["before"]).await;
    s.restart_broker(&[alice, bob]).await;
    s.say(alice, conv, "after").await;
    s.hears(bob, &["after"]).await;
    s.say(bob, conv, "indeed").await;
    s.hears(alice, &["indeed"]).await;
}

/// The broker goes down amid the burst.
pub async fn s13_a_burst_survives_a_restart_of_the_broker<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say_all(alice, conv, "alice", 0..50).await;
    s.world.fault(Fault::RestartBroker).await;
    s.say_all(alice, conv, "alice", 50..100).await;
    s.hears_all(bob, "alice", 0..100).await;
    s.hears_nothing(bob).await;
}

/// Connected is told first, then the backlog, then that it is in.
pub async fn s14_connected_is_not_yet_caught_up<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(bob).await;
    s.say(alice, conv, "backlog").await;
    s.world.wait(Duration::from_millis(50)).await;
    s.forget(bob);
    s.world.fault(Fault::Mend(bob)).await;
    s.hold(bob).await;
    let story = s.kept(bob, |event| match event {
        Event::Link(LinkState::Connected { .. }) => Some("connected"),
        Event::Link(LinkState::CaughtUp) => Some("caught up"),
        _ => None,
    });
    assert_eq!(story, ["connected", "caught up"]);
    s.hears(bob, &["backlog"]).await;
}

/// What was written offline leaves at once when the network is back, in order.
pub async fn q7_what_was_written_offline_is_sent_on_return<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    s.say_all(alice, conv, "alice", 0..100).await;
    s.hears_nothing(bob).await;
    s.mend(alice).await;
    s.hears_all(bob, "alice", 0..100).await;
}

/// The acknowledgement is lost: the message is sent again and told once.
pub async fn q8_a_lost_acknowledgement_tells_nothing_twice<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let id = s.say(alice, conv, "once").await;
    s.hears(bob, &["once"]).await;
    // Before the delayed acknowledgement is on its way.
    s.cut(alice).await;
    s.kill(bob).await;
    s.revive(bob).await;
    s.mend(alice).await;
    s.reaches(alice, id, Ack::Delivered).await;
    s.hears_nothing(bob).await;
    assert_eq!(s.texts(alice, conv).await, ["once"]);
}

/// The sender dies with unsent messages: they leave in its next life, under the same ids.
pub async fn q9_unsent_messages_outlive_their_sender<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    let id = s.say(alice, conv, "alice 0").await;
    s.say_all(alice, conv, "alice", 1..30).await;
    s.world.wait(Duration::from_millis(50)).await;
    s.kill(alice).await;
    s.world.fault(Fault::Revive(alice)).await;
    s.mend(alice).await;
    let first = s.message(bob).await;
    assert_eq!(first.id, id);
    s.hears_all(bob, "alice", 1..30).await;
    s.opened(alice, bob).await;
    s.say(alice, conv, "alice 30").await;
    s.hears_all(bob, "alice", 30..31).await;
    s.hears_nothing(bob).await;
}

/// The sender dies between sending and the acknowledgement, again and again.
pub async fn q9_a_sender_that_keeps_dying_sends_everything_once<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    for life in 0..4 {
        s.say_all(alice, conv, "alice", 10 * life..10 * life + 10)
            .await;
        s.world.wait(Duration::from_millis(10)).await;
        s.kill(alice).await;
        s.revive(alice).await;
        s.opened(alice, bob).await;
    }
    s.hears_all(bob, "alice", 0..40).await;
    s.hears_nothing(bob).await;
    s.same_screens(&[alice, bob], conv).await;
}

/// The receiver dies again and again; what was told and not acknowledged is told again as such.
pub async fn q14_a_receiver_that_keeps_dying_hears_everything<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say_all(alice, conv, "alice", 0..40).await;
    for round in 0..4 {
        s.hears_all(bob, "alice", 10 * round..10 * round + 10).await;
        s.kill(bob).await;
        s.revive(bob).await;
        s.opened(bob, alice).await;
    }
    s.hears_nothing(bob).await;
    s.same_screens(&[alice, bob], conv).await;
}

/// Killed before the application was done with it.
pub async fn q14_an_unacknowledged_message_is_told_again_as_redelivered<W: World>(
    s: &mut Stage<W>,
) {
    let (alice, bob, conv) = pair(s).await;
    s.say(alice, conv, "done").await;
    s.say(alice, conv, "half done").await;
    assert!(!s.message(bob).await.redelivered);
    let first = s.unread(bob).await;
    assert!(!first.redelivered);
    s.kill(bob).await;
    s.revive(bob).await;
    let again = s.unread(bob).await;
    assert!(again.redelivered);
    assert_eq!((again.id, again.pos), (first.id, first.pos));
    let pos = again.pos;
    s.ask(bob, Command::Acknowledge { conv, pos }).await;
    s.kill(bob).await;
    s.revive(bob).await;
    s.hears_nothing(bob).await;
    assert_eq!(s.texts(bob, conv).await, ["done", "half done"]);
}

/// Never online together: the broker keeps it.
pub async fn q9_two_who_are_never_there_together_reach_each_other<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.stop(bob).await;
    let id = s.say(alice, conv, "for later").await;
    s.reaches(alice, id, Ack::HandedOff).await;
    s.stop(alice).await;
    s.revive(bob).await;
    s.meet(alice).await;
    s.hears(bob, &["for later"]).await;
    s.opened(bob, alice).await;
    if !s.has_mailbox() {
        s.reaches(alice, id, Ack::Delivered).await;
        s.stop(alice).await;
    }
    let answer = s.say(bob, conv, "got it").await;
    s.reaches(bob, answer, Ack::HandedOff).await;
    s.stop(bob).await;
    s.revive(alice).await;
    s.meet(bob).await;
    s.hears(alice, &["got it"]).await;
    s.same_screens(&[alice], conv).await;
    assert_eq!(s.texts(alice, conv).await, ["for later", "got it"]);
}

/// Both die at the same moment amid talk in both directions.
pub async fn q14_both_sides_die_and_nothing_is_lost<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say_all(alice, conv, "alice", 0..30).await;
    s.say_all(bob, conv, "bob", 0..30).await;
    s.kill(alice).await;
    s.kill(bob).await;
    s.revive(alice).await;
    s.revive(bob).await;
    s.hears_all(bob, "alice", 0..30).await;
    s.hears_all(alice, "bob", 0..30).await;
    s.hears_nothing(alice).await;
    s.hears_nothing(bob).await;
    s.same_screens(&[alice, bob], conv).await;
}

/// A process that says goodbye loses nothing of what it was told to send.
pub async fn q9_stopping_in_good_order_keeps_what_is_unsent<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    s.say_all(alice, conv, "alice", 0..20).await;
    s.stop(alice).await;
    s.world.fault(Fault::Revive(alice)).await;
    s.mend(alice).await;
    s.hears_all(bob, "alice", 0..20).await;
    s.hears_nothing(bob).await;
}

/// Nothing of the ladder is lost with the process: the delivery is told in the next life.
pub async fn q9_the_delivery_is_told_to_the_next_life<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.stop(bob).await;
    let id = s.say(alice, conv, "later").await;
    s.reaches(alice, id, Ack::HandedOff).await;
    s.kill(alice).await;
    s.revive(alice).await;
    s.revive(bob).await;
    s.hears(bob, &["later"]).await;
    s.expect(alice, "the delivery", |event| match event {
        Event::Delivery(DeliveryEvent::Progress { id: told, ack })
            if *told == id && *ack == Ack::Delivered =>
        {
            Some(())
        }
        _ => None,
    })
    .await;
}
