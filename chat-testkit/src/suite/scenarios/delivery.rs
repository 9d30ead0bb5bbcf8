//! Messages: order, the ladder, taking back, transactions, contents (Q1–Q3, Q5, Q6, Q8, Q16, Q17,
//! ID8).

use std::time::Duration;

use chat_core::Event;
use chat_core::content::{Content, ContentError};
use chat_core::delivery::{Ack, DeliveryEvent, FailReason, SendError, TimelineItem, Unsendable};
use chat_core::id::{ConvId, MessageId};

use crate::suite::{Answer, CONTENT_TTL, Command, Node, OUTBOX, Refusal, Stage, UNREAD, World};

async fn pair<W: World>(s: &mut Stage<W>) -> (Node, Node, ConvId) {
    let (alice, bob) = (s.join("alice").await, s.join("bob").await);
    let conv = s.chat(alice, bob).await;
    (alice, bob, conv)
}

/// Three times what is in flight at once.
pub async fn q1_a_burst_beyond_the_window_arrives_once_and_in_order<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say_all(alice, conv, "alice", 0..200).await;
    s.hears_all(bob, "alice", 0..200).await;
    s.hears_nothing(bob).await;
    assert_eq!(s.texts(bob, conv).await.len(), 200);
}

/// Both talk at once: each is heard in its own order.
pub async fn q1_crossing_bursts_keep_each_sender_in_order<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    for number in 0..40 {
        s.say(alice, conv, &format!("alice {number}")).await;
        s.say(bob, conv, &format!("bob {number}")).await;
    }
    s.hears_all(bob, "alice", 0..40).await;
    s.hears_all(alice, "bob", 0..40).await;
    assert_eq!(s.same_screens(&[alice, bob], conv).await.len(), 80);
}

/// Somebody who is away holds up nobody else.
pub async fn q1_conversations_do_not_wait_for_each_other<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let carol = s.join("carol").await;
    let other = s.chat(alice, carol).await;
    s.stop(bob).await;
    s.say_all(alice, conv, "to bob", 0..100).await;
    s.say(alice, other, "to carol").await;
    s.hears(carol, &["to carol"]).await;
    s.revive(bob).await;
    s.hears_all(bob, "to bob", 0..100).await;
}

fn rungs(event: &Event, id: MessageId) -> Option<Ack> {
    match event {
        Event::Delivery(DeliveryEvent::Accepted { id: told, .. }) if *told == id => {
            Some(Ack::Queued)
        }
        Event::Delivery(DeliveryEvent::Progress { id: told, ack }) if *told == id => Some(*ack),
        _ => None,
    }
}

/// Queued, handed off, delivered, displayed; only upwards.
pub async fn q16_a_message_climbs_the_ladder<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.hold(alice).await;
    s.forget(alice);
    let id = s.say(alice, conv, "look").await;
    let message = s.message(bob).await;
    assert_eq!(message.id, id);
    s.hold(alice).await;
    let up_to = message.sort;
    s.ask(bob, Command::MarkRead { conv, up_to }).await;
    s.hold(alice).await;
    let seen = s.kept(alice, |event| rungs(event, id));
    assert!(seen.is_sorted(), "the ladder only goes up: {seen:?}");
    for rung in [Ack::Queued, Ack::HandedOff, Ack::Delivered, Ack::Displayed] {
        let times = seen.iter().filter(|ack| **ack == rung).count();
        // The receiver's word may overtake the broker's.
        let at_least = usize::from(rung != Ack::HandedOff);
        assert!((at_least..=1).contains(&times), "{rung:?}: {seen:?}");
    }
}

/// What the broker has is not what the peer has.
pub async fn q16_handed_off_is_not_delivered<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.stop(bob).await;
    let id = s.say(alice, conv, "anybody?").await;
    s.reaches(alice, id, Ack::HandedOff).await;
    s.never(alice, "a delivery to nobody", |event| {
        rungs(event, id).is_some_and(|ack| ack >= Ack::Delivered)
    })
    .await;
    s.revive(bob).await;
    s.reaches(alice, id, Ack::Delivered).await;
}

/// The local echo needs no network, and keeps its id and its place.
pub async fn q16_the_local_echo_comes_before_any_network<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    let id = s.say(alice, conv, "echo").await;
    let place = s
        .expect(alice, "the local echo", |event| match event {
            Event::Delivery(DeliveryEvent::Accepted { id: told, sort, .. }) if *told == id => {
                Some(*sort)
            }
            _ => None,
        })
        .await;
    assert_eq!(s.texts(alice, conv).await, ["echo"]);
    s.mend(alice).await;
    let message = s.message(bob).await;
    assert_eq!((message.id, message.sort), (id, place));
    s.reaches(alice, id, Ack::Delivered).await;
    assert_eq!(s.texts(alice, conv).await, ["echo"]);
}

/// Marking as read covers everything before, and is told once for each.
pub async fn q16_reading_covers_everything_before<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let first = s.say(alice, conv, "one").await;
    let last = s.say(alice, conv, "two").await;
    s.message(bob).await;
    let up_to = s.message(bob).await.sort;
    s.ask(bob, Command::MarkRead { conv, up_to }).await;
    s.reaches(alice, first, Ack::Displayed).await;
    s.reaches(alice, last, Ack::Displayed).await;
}

/// What the broker refuses for good is told and keeps its place; those behind it wait, what nobody
/// sees by itself goes past it, and once the broker allows it a retry sends all in order.
pub async fn q2_what_the_broker_never_takes_waits_for_a_decision<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.say(alice, conv, "one").await;
    s.hears(bob, &["one"]).await;
    s.bar(alice).await;
    let stuck = s.say(alice, conv, "two").await;
    assert_eq!(s.is_wedged(alice, stuck).await, Unsendable::Denied);
    let last = s.say(alice, conv, "three").await;
    s.unbar(alice).await;
    let reaction = Content::Other {
        kind: 0xc001,
        fallback: "+1".to_owned(),
        payload: vec![1],
    };
    s.send(alice, conv, reaction).await;
    s.hears(bob, &["+1"]).await;
    let again = s.ask(alice, Command::RetrySend(stuck)).await;
    assert_eq!(again, Answer::Retried(true));
    s.hears(bob, &["two", "three"]).await;
    s.reaches(alice, last, Ack::Delivered).await;
    let again = s.ask(alice, Command::RetrySend(stuck)).await;
    assert_eq!(again, Answer::Retried(false), "it is not wedged any more");
}

/// A wedged message is one in the next life too; given up, it holds up nobody.
pub async fn q2_a_wedged_message_outlives_its_process_and_is_given_up<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.bar(alice).await;
    let stuck = s.say(alice, conv, "no").await;
    s.is_wedged(alice, stuck).await;
    s.say(alice, conv, "yes").await;
    s.cut(alice).await;
    s.kill(alice).await;
    s.revive_offline(alice).await;
    s.is_wedged(alice, stuck).await;
    let back = s.ask(alice, Command::CancelSend(stuck)).await;
    assert_eq!(back, Answer::Cancelled(true));
    assert_eq!(s.fails(alice, stuck).await, FailReason::Cancelled);
    s.unbar(alice).await;
    s.mend(alice).await;
    s.hears(bob, &["yes"]).await;
    s.hears_nothing(bob).await;
}

/// It never left, so nobody hears of it, and nobody waits for it.
pub async fn q3_a_message_taken_back_before_it_left_is_never_seen<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    s.say(alice, conv, "one").await;
    let regretted = s.say(alice, conv, "oops").await;
    s.say(alice, conv, "three").await;
    let back = s.ask(alice, Command::CancelSend(regretted)).await;
    assert_eq!(back, Answer::Cancelled(true));
    assert_eq!(s.fails(alice, regretted).await, FailReason::Cancelled);
    s.mend(alice).await;
    s.hears(bob, &["one", "three"]).await;
    s.hears_nothing(bob).await;
    assert_eq!(s.texts(bob, conv).await, ["one", "three"]);
}

/// What was delivered cannot be taken back.
pub async fn q3_taking_back_can_come_too_late<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let id = s.say(alice, conv, "said is said").await;
    s.hears(bob, &["said is said"]).await;
    let back = s.ask(alice, Command::CancelSend(id)).await;
    assert_eq!(back, Answer::Cancelled(false));
}

/// The same transaction is the same message, also in the sender's next life.
pub async fn q17_a_transaction_is_taken_once<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let txn = s.txn();
    let content = Content::text("pay once");
    let id = s.send_as(alice, conv, txn, content.clone()).await;
    assert_eq!(id, s.send_as(alice, conv, txn, content.clone()).await);
    s.hears(bob, &["pay once"]).await;
    s.reaches(alice, id, Ack::Delivered).await;
    assert_eq!(id, s.send_as(alice, conv, txn, content.clone()).await);
    s.kill(alice).await;
    s.revive(alice).await;
    s.opened(alice, bob).await;
    assert_eq!(id, s.send_as(alice, conv, txn, content).await);
    s.hears_nothing(bob).await;
}

/// Other content under the same transaction is a mistake of the caller.
pub async fn q17_a_transaction_names_one_content<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let txn = s.txn();
    s.send_as(alice, conv, txn, Content::text("this")).await;
    let content = Content::text("that");
    let again = Command::Send {
        conv,
        txn,
        content: content.clone(),
    };
    let refusal = s.refused(alice, again).await;
    assert_eq!(refusal, Refusal::Send(SendError::TxnReused(content)));
    s.hears(bob, &["this"]).await;
    s.hears_nothing(bob).await;
}

/// A full outbox says so and loses nothing; when it is drained there is room again.
pub async fn q5_a_full_outbox_refuses_and_loses_nothing<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    let all = u32::try_from(OUTBOX).expect("small");
    s.say_all(alice, conv, "alice", 0..all).await;
    let content = Content::text("one too many");
    let txn = s.txn();
    let command = Command::Send {
        conv,
        txn,
        content: content.clone(),
    };
    let refusal = s.refused(alice, command.clone()).await;
    let limit = "max_outbox";
    assert_eq!(refusal, Refusal::Send(SendError::Full { content, limit }));
    s.mend(alice).await;
    s.hears_all(bob, "alice", 0..all).await;
    s.hold(alice).await;
    s.ask(alice, command).await;
    s.hears(bob, &["one too many"]).await;
}

/// An application that does not read is not flooded, and gets the rest when it reads.
pub async fn q5_who_reads_slowly_is_not_flooded<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let (fits, all) = (UNREAD, u32::try_from(UNREAD).expect("small") + 60);
    s.say_all(alice, conv, "alice", 0..all).await;
    s.hold(bob).await;
    let arrived = s.kept(bob, |event| match event {
        Event::Delivery(DeliveryEvent::Received(_)) => Some(()),
        _ => None,
    });
    assert_eq!(arrived.len(), fits, "what is unread is bounded");
    s.hears_all(bob, "alice", 0..all).await;
    s.hears_nothing(bob).await;
}

/// A refused message comes back to the caller.
pub async fn q5_a_refused_message_is_handed_back<W: World>(s: &mut Stage<W>) {
    let (alice, _bob, conv) = pair(s).await;
    let nowhere = ConvId([9; 32]);
    let content = Content::text("hello?");
    let txn = s.txn();
    let command = Command::Send {
        conv: nowhere,
        txn,
        content: content.clone(),
    };
    let refusal = s.refused(alice, command).await;
    assert_eq!(refusal, Refusal::Send(SendError::NotOpen(content)));
    let content = Content::text("");
    let txn = s.txn();
    let command = Command::Send {
        conv,
        txn,
        content: content.clone(),
    };
    let why = ContentError::Empty;
    let refusal = s.refused(alice, command).await;
    assert_eq!(refusal, Refusal::Send(SendError::Content { content, why }));
}

/// Somebody may be away for longer than a message is tried: both sides learn what was lost.
pub async fn q6_an_expired_message_fails_here_and_is_a_gap_there<W: World>(s: &mut Stage<W>) {
    s.world.config().delivery.content_ttl = s.lasting(CONTENT_TTL, 12);
    let (alice, bob, conv) = pair(s).await;
    s.say(alice, conv, "before").await;
    s.hears(bob, &["before"]).await;
    s.stop(bob).await;
    s.cut(alice).await;
    let first = s.say(alice, conv, "too old 1").await;
    let second = s.say(alice, conv, "too old 2").await;
    assert_eq!(s.fails(alice, first).await, FailReason::Expired);
    assert_eq!(s.fails(alice, second).await, FailReason::Expired);
    s.say(alice, conv, "after").await;
    s.mend(alice).await;
    s.revive(bob).await;
    let (who, count) = s
        .expect(bob, "a gap", |event| match event {
            Event::Delivery(DeliveryEvent::Gap { from, count, .. }) => Some((from.clone(), *count)),
            _ => None,
        })
        .await;
    assert_eq!((who, count), (s.user(alice), 2));
    s.hears(bob, &["after"]).await;
    assert_eq!(s.texts(bob, conv).await, ["before", "<gap of 2>", "after"]);
}

/// Away for half as long as messages are tried, and nothing is missing.
pub async fn q6_a_long_absence_loses_nothing_that_is_still_tried<W: World>(s: &mut Stage<W>) {
    let ttl = s.lasting(CONTENT_TTL, 30);
    s.world.config().delivery.content_ttl = ttl;
    let (alice, bob, conv) = pair(s).await;
    s.stop(bob).await;
    s.say_all(alice, conv, "alice", 0..100).await;
    s.world.wait(ttl / 2).await;
    s.revive(bob).await;
    s.hears_all(bob, "alice", 0..100).await;
    s.hears_nothing(bob).await;
}

/// Replies name what they answer, and both screens are the same.
pub async fn id8_a_conversation_with_replies_looks_the_same_on_both_sides<W: World>(
    s: &mut Stage<W>,
) {
    let (alice, bob, conv) = pair(s).await;
    let mut last = s.say(alice, conv, "question 0").await;
    for number in 1..10 {
        let from = if number % 2 == 1 { bob } else { alice };
        assert_eq!(s.message(from).await.id, last);
        let content = Content::Text {
            text: format!("answer {number}"),
            reply_to: Some(last),
        };
        last = s.send(from, conv, content).await;
        s.world.wait(Duration::from_millis(5)).await;
    }
    s.message(alice).await;
    let screen = s.same_screens(&[alice, bob], conv).await;
    assert_eq!(screen.len(), 10);
    for pair in screen.windows(2) {
        let Content::Text { reply_to, .. } = &pair[1].1 else {
            panic!("no text: {:?}", pair[1]);
        };
        assert_eq!(
            *reply_to,
            Some(pair[0].0),
            "a reply stands below its question"
        );
    }
}

/// Both wrote while they were cut off: the screens agree, and what came above is called late.
pub async fn id8_messages_written_apart_find_one_order<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    s.cut(alice).await;
    s.cut(bob).await;
    s.say(alice, conv, "alice 0").await;
    s.world.wait(Duration::from_millis(20)).await;
    s.say(bob, conv, "bob 0").await;
    s.world.wait(Duration::from_millis(20)).await;
    s.say(alice, conv, "alice 1").await;
    s.mend(alice).await;
    s.mend(bob).await;
    let late = s.message(alice).await;
    assert!(late.late, "it belongs above what alice said last");
    s.hears(bob, &["alice 0", "alice 1"]).await;
    s.same_screens(&[alice, bob], conv).await;
    assert_eq!(s.texts(bob, conv).await, ["alice 0", "bob 0", "alice 1"]);
}

/// A kind that this build does not know arrives whole, with the text to show instead.
pub async fn q13_a_content_of_an_unknown_kind_is_kept_whole<W: World>(s: &mut Stage<W>) {
    let (alice, bob, conv) = pair(s).await;
    let content = Content::Other {
        kind: 0x9000,
        fallback: "alice sent a poll".to_owned(),
        payload: (0..=255).collect(),
    };
    s.send(alice, conv, content.clone()).await;
    assert_eq!(s.message(bob).await.content, content);
    let items = s.world.timeline(bob, conv).await;
    let [TimelineItem::Received(message)] = &items[..] else {
        panic!("one message: {items:?}");
    };
    assert_eq!(message.content, content);
}

/// Names and texts of any script arrive as they were written.
pub async fn id1_any_script_arrives_as_written<W: World>(s: &mut Stage<W>) {
    let zoe = s.join("Zoë Müller").await;
    let other = s.join("日本/語+#*").await;
    let conv = s.chat(zoe, other).await;
    s.say(zoe, conv, "¿qué tal? 👩‍👩‍👧 \u{202e}rtl\u{0}").await;
    s.hears(other, &["¿qué tal? 👩‍👩‍👧 \u{202e}rtl\u{0}"]).await;
    s.say(other, conv, "元気").await;
    s.hears(zoe, &["元気"]).await;
}
