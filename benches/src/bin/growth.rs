//! One kind of step over and over, for an instruction counter: `growth send|receive|ack N ROUNDS`
//! with N open conversations. `scripts/growth.sh` runs it under callgrind, which counts what
//! happens inside [`measured`] only.

use benches::Busy;

/// What is counted.
#[inline(never)]
fn measured<T>(step: impl FnOnce() -> T) -> T {
    step()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, step, conversations, rounds] = &args[..] else {
        eprintln!("usage: growth send|receive|ack CONVERSATIONS ROUNDS");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u32>().expect("a number");
    let mut busy = Busy::open(number(conversations));
    for _ in 0..number(rounds) {
        match step.as_str() {
            "send" => {
                let sent = measured(|| busy.send());
                assert_eq!(busy.frames_out(), 1, "the message left");
                let (inbox, ack) = busy.ack(sent);
                busy.inbound(&inbox, &ack);
                busy.clear();
            }
            "ack" => {
                let sent = busy.send();
                let (inbox, ack) = busy.ack(sent);
                measured(|| busy.inbound(&inbox, &ack));
                assert_eq!(busy.alice.stats().outbox, 0, "it was acknowledged");
            }
            _ => {
                let (channel, frame) = busy.text();
                measured(|| busy.inbound(&channel, &frame));
                assert_eq!(busy.told(), 1, "the message was told");
                busy.acknowledge();
                busy.pass();
            }
        }
    }
}
