//! A line that is slower than any wait: repeats must not fill it (Q5, Q8). It carries one frame per
//! second, so that a full window takes two minutes, and acknowledgements at once.

use std::collections::VecDeque;

use super::net::Net;
use super::*;

const MESSAGES: usize = 300;
/// With something else, for so many seconds.
const BUSY: u32 = 120;
const SECOND: Duration = Duration::from_secs(1);

/// How many frames were sent until all messages arrived, or in an hour.
fn frames() -> usize {
    let mut net = Net::new(2, false, DeliveryConfig::default(), 1);
    for n in 0..MESSAGES {
        net.send(0, &format!("0:{n}"));
        net.commit_all();
    }
    let mut line = VecDeque::new();
    let (mut frames, mut received) = (0, 0);
    for second in 0..3_600 {
        let (slow, mut fast): (Vec<_>, Vec<_>) = net.wire.drain(..).partition(|it| it.to == 1);
        frames += slow.len();
        line.extend(slow);
        if second >= BUSY {
            fast.extend(line.pop_front());
        }
        for frame in fast {
            net.hand_over(&frame);
            net.commit_all();
        }
        let told = net.nodes[1].events.drain(..);
        received += told
            .filter(|event| matches!(event, DeliveryEvent::Received(_)))
            .count();
        if received == MESSAGES {
            break;
        }
        net.pass(SECOND);
    }
    frames
}

#[test]
fn q8_a_line_that_is_slower_than_every_wait_is_not_filled_with_repeats() {
    let frames = frames();
    assert!(frames < MESSAGES + MESSAGES / 4, "{frames}");
}

#[cfg(feature = "probe")]
#[test]
fn repeats_that_fill_the_line_are_noticed() {
    crate::probe::plant(Some("delivery-repeats-fill-the-line"));
    let frames = frames();
    crate::probe::plant(None);
    assert!(frames > 2 * MESSAGES, "{frames}");
}
