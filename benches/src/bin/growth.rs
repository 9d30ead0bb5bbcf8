//! One kind of step over and over, for an instruction counter: `growth send|receive|ack N ROUNDS`
//! with N open conversations. `scripts/growth.sh` runs it under callgrind, which counts what
//! happens inside [`measured`] only.

use benches::Busy;

/// What is counted.
#[inline(never)]
fn measured<T>(step: impl FnOnce() -> T) -> T {
    step()
}

fn round(busy: &mut Busy, step: &str, count: bool) {
    match step {
        "send" => {
            let sent = if count {
                measured(|| busy.send())
            } else {
                busy.send()
            };
            assert_eq!(busy.frames_out(), 1, "the message left");
            let (inbox, ack) = busy.ack(sent);
            busy.inbound(&inbox, &ack);
            busy.clear();
        }
        "ack" => {
            let sent = busy.send();
            let (inbox, ack) = busy.ack(sent);
            if count {
                measured(|| busy.inbound(&inbox, &ack));
            } else {
                busy.inbound(&inbox, &ack);
            }
            assert_eq!(busy.alice.stats().outbox, 0, "it was acknowledged");
        }
        _ => {
            let (channel, frame) = busy.text();
            if count {
                measured(|| busy.inbound(&channel, &frame));
            } else {
                busy.inbound(&channel, &frame);
            }
            assert_eq!(busy.told(), 1, "the message was told");
            busy.acknowledge();
            busy.pass();
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, step, conversations, rounds] = &args[..] else {
        eprintln!("usage: growth send|receive|ack CONVERSATIONS ROUNDS");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u32>().expect("a number");
    let (conversations, rounds) = (number(conversations), number(rounds));
    let mut busy = Busy::open(conversations);
    // Maps, queues and the allocator settle first.
    for count in [false, true] {
        for _ in 0..rounds {
            round(&mut busy, step, count);
        }
    }
}
