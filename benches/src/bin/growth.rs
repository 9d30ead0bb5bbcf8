//! One kind of step over and over, for callgrind (`scripts/growth.sh`), which counts what happens
//! inside [`measured`] only: `growth count|time send|receive|ack CONVERSATIONS SET`. SET of the open
//! conversations take turns. Each of them was used before: what is counted is the life of a chat,
//! not its first message. `time` prints the CPU nanoseconds of a step; the clock does not run under
//! callgrind.

use std::time::Duration;

use benches::{Busy, ThreadTime};

/// Steps that are counted, and that are timed.
const COUNTED: u32 = 500;
const TIMED: u32 = 20_000;

/// What is counted.
#[inline(never)]
fn measured<T>(step: impl FnOnce() -> T) -> T {
    step()
}

/// What to do with a step.
enum Look<'a> {
    Away,
    Count,
    Time(&'a mut Duration),
}

impl Look<'_> {
    fn at<T>(self, step: impl FnOnce() -> T) -> T {
        match self {
            Self::Away => step(),
            Self::Count => measured(step),
            Self::Time(spent) => {
                let start = ThreadTime::now();
                let result = step();
                *spent += ThreadTime::now() - start;
                result
            }
        }
    }
}

fn round(busy: &mut Busy, step: &str, look: Look<'_>) {
    match step {
        "send" => {
            let sent = look.at(|| busy.send());
            assert_eq!(busy.frames_out(), 1, "the message left");
            let (inbox, ack) = busy.ack(sent);
            busy.inbound(&inbox, &ack);
            busy.clear();
        }
        "ack" => {
            let sent = busy.send();
            let (inbox, ack) = busy.ack(sent);
            look.at(|| busy.inbound(&inbox, &ack));
            assert_eq!(busy.alice.stats().outbox, 0, "it was acknowledged");
        }
        _ => {
            let (channel, frame) = busy.text();
            look.at(|| busy.inbound(&channel, &frame));
            assert_eq!(busy.told(), 1, "the message was told");
            busy.acknowledge();
            busy.pass();
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, how, step, conversations, set] = &args[..] else {
        eprintln!("usage: growth count|time send|receive|ack CONVERSATIONS SET");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u32>().expect("a number");
    let (conversations, set) = (number(conversations), number(set));
    let mut busy = Busy::open(conversations);
    busy.dwell(set);
    for _ in 0..2 * set.max(COUNTED) {
        round(&mut busy, step, Look::Away);
    }
    if how == "count" {
        for _ in 0..COUNTED {
            round(&mut busy, step, Look::Count);
        }
        return;
    }
    let mut spent = Duration::ZERO;
    for _ in 0..TIMED {
        round(&mut busy, step, Look::Time(&mut spent));
    }
    println!("{}", spent.as_nanos() / u128::from(TIMED));
}
