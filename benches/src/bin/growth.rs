//! One kind of step over and over, for callgrind (`scripts/growth.sh`), which counts what happens
//! inside [`measured`] only: `growth count|time send|receive|ack CONVERSATIONS SET`, or
//! `group-send|group-ack|group-receipt MEMBERS MEMBERS`. SET of the open conversations take turns. Each of them was used before: what is counted is the life of a chat,
//! not its first message. `time` prints the CPU nanoseconds of a step; the clock does not run under
//! callgrind.

use std::time::Duration;

use benches::{Busy, Crowd, ThreadTime};

/// Steps that are counted, and that are timed.
const COUNTED: u32 = 500;
const TIMED: u32 = 20_000;
/// Before that, time passes once in so many rounds: an hour of simulated time is not what is counted,
/// and takes callgrind as long.
const WARM: u32 = 100;

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

fn round(busy: &mut Busy, step: &str, look: Look<'_>, passes: bool) {
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
            if passes {
                busy.pass();
            }
        }
    }
}

/// The same in a group: a message to all, its first acknowledgement, and the first word that it
/// was seen. All others answer too, and are not counted.
fn group_round(crowd: &mut Crowd, step: &str, look: Look<'_>) {
    let (mut send, mut ack, mut receipt) = (Look::Away, Look::Away, Look::Away);
    match step {
        "group-send" => send = look,
        "group-ack" => ack = look,
        _ => receipt = look,
    }
    crowd.counts();
    let id = send.at(|| crowd.send());
    assert_eq!(crowd.counts().0, 1, "the message left");
    ack.at(|| crowd.ack(0, id, false));
    receipt.at(|| crowd.ack(0, id, true));
    for who in 1..crowd.others() {
        crowd.ack(who, id, true);
    }
    assert!(crowd.counts().1 > crowd.others(), "all were told");
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, how, step, conversations, set] = &args[..] else {
        eprintln!("usage: growth count|time STEP CONVERSATIONS|MEMBERS SET");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u32>().expect("a number");
    let (conversations, set) = (number(conversations), number(set));
    let in_group = step.starts_with("group-");
    let mut busy = Busy::open(if in_group { 1 } else { conversations });
    let mut crowd = Crowd::open(if in_group { conversations } else { 1 });
    busy.dwell(if in_group { 1 } else { set });
    let warm = if in_group { COUNTED } else { set.max(COUNTED) };
    let mut go = |look: Look<'_>, passes: bool| match in_group {
        true => group_round(&mut crowd, step, look),
        false => round(&mut busy, step, look, passes),
    };
    for n in 1..=2 * warm {
        go(Look::Away, n % WARM == 0);
    }
    if how == "count" {
        for _ in 0..COUNTED {
            go(Look::Count, true);
        }
        return;
    }
    let mut spent = Duration::ZERO;
    for _ in 0..TIMED {
        go(Look::Time(&mut spent), true);
    }
    println!("{}", spent.as_nanos() / u128::from(TIMED));
}
