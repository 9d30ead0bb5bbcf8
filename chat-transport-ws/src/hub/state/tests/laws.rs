//! Whatever happens, what was accepted arrives once and in order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Connect(usize),
    Drop(usize),
    Publish(usize),
    /// Pull, and acknowledge the frames whose bit is set.
    Read(usize, u8),
    Write,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3usize).prop_map(Step::Connect),
        1 => (0..3usize).prop_map(Step::Drop),
        6 => (0..3usize).prop_map(Step::Publish),
        4 => (0..3usize, any::<u8>()).prop_map(|(who, mask)| Step::Read(who, mask)),
        4 => Just(Step::Write),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

const NAMES: [&str; 3] = ["x", "y", "z"];

proptest! {
    /// Whatever happens, an accepted frame reaches every other subscriber, in order, and not
    /// again once its ack is on disk.
    #[test]
    fn accepted_frames_reach_everybody_in_order(steps in steps()) {
        let mut b = Bench::new(Limits { queue_frames: 3, ..Limits::default() }, true);
        let mut conns: [Option<ConnId>; 3] = [None; 3];
        for who in 0..3 {
            let id = b.open(NAMES[who]);
            b.subscribe(id, group());
            conns[who] = Some(id);
        }
        b.write_batch();
        let mut next = 1u64;
        let mut accepted: Vec<(usize, u64)> = Vec::new();
        let mut seen: [Vec<u64>; 3] = Default::default();
        let mut last: [u64; 3] = [0; 3];
        let read = |b: &mut Bench, id: ConnId, who: usize, mask: u8,
                        accepted: &mut Vec<(usize, u64)>, last: &mut [u64; 3],
                        seen: &mut [Vec<u64>; 3]| -> Result<(), TestCaseError> {
            for (n, got) in b.pull(id).iter().enumerate() {
                match got {
                    Got::Frame { seq, bytes, .. } => {
                        prop_assert!(*seq > last[who], "in order");
                        last[who] = *seq;
                        seen[who].push(u64::from_be_bytes(bytes[..].try_into().unwrap()));
                        if mask & (1 << (n % 8)) != 0 {
                            b.ack(id, got);
                        }
                    }
                    Got::Sent(token, outcome) => {
                        prop_assert_eq!(*outcome, "accepted");
                        accepted.push((who, *token));
                    }
                    Got::Gap => prop_assert!(false, "nothing overflows here"),
                    _ => {}
                }
            }
            Ok(())
        };
        for step in steps {
            match step {
                Step::Connect(who) => {
                    conns[who] = Some(b.open(NAMES[who]));
                    last[who] = 0;
                }
                Step::Drop(who) => if let Some(id) = conns[who].take() {
                    b.machine.handle_closed(id, b.now);
                },
                Step::Publish(who) => if let Some(id) = conns[who] {
                    b.publish(id, next, &next.to_be_bytes());
                    next += 1;
                },
                Step::Read(who, mask) => if let Some(id) = conns[who] {
                    read(&mut b, id, who, mask, &mut accepted, &mut last, &mut seen)?;
                },
                Step::Write => {
                    b.pass(Duration::from_secs(1));
                    b.write_batch();
                    for id in conns.into_iter().flatten() {
                        b.machine.handle_heard(id, b.now);
                    }
                }
                Step::Restart => {
                    b.restart();
                    conns = [None; 3];
                }
            }
        }
        for who in 0..3 {
            let id = b.open(NAMES[who]);
            last[who] = 0;
            read(&mut b, id, who, 0xff, &mut accepted, &mut last, &mut seen)?;
        }
        for (from, token) in &accepted {
            for (who, seen) in seen.iter().enumerate() {
                prop_assert_eq!(seen.contains(token), who != *from, "{} to {}", token, who);
            }
        }
        for id in b.machine.conns.ids() {
            b.machine.handle_closed(id, b.now);
        }
        b.pass(Duration::from_secs(2));
        b.write_batch();
        b.restart();
        for name in NAMES {
            let id = b.open(name);
            prop_assert_eq!(b.frames(id).len(), 0, "all was acknowledged");
        }
        prop_assert_eq!(b.machine.stats().stored_bytes, 0);
        prop_assert_eq!(b.log_rows(), 0);
    }
}
