//! A hub in a process of its own, killed with SIGKILL at random instants: what it accepted is
//! still there, in order.

#[path = "../../examples/hub.rs"]
mod hub;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use chat_client::transport::{Inbound, Outbound, SendOutcome};
use chat_core::channel::Class;
use chat_testkit::sim::Draw;
use chat_transport_ws::hub::{Hub, HubError};
use tokio::sync::watch;

/// How the child learns its arguments: it is this very program, told to run one test.
const ARGS: &str = "CHAT_HUB_ARGS";
const KILLS: usize = 10;
/// Frames of one publisher without an answer.
const WINDOW: u32 = 8;
/// Decides the instants of the kills.
const SEED: u64 = 1;

/// The hub's process; killed when dropped.
struct Process {
    child: Child,
    url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    fn start(state: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kill::the_hub_as_a_child",
                "--ignored",
                "--nocapture",
            ])
            .env(ARGS, format!("--state\n{}", state.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("the hub is at ")?.1.trim().to_owned()))
            .expect("the hub says where it is");
        Self { child, url }
    }

    /// `kill -9`.
    fn kill(&mut self) {
        // It may be dead already; it must be reaped either way.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// From now on it keeps what comes for `b`, who is away.
    async fn open_mailbox(&self) {
        let b = self.who("b").join(&[inbox("b")]).await;
        b.close().await.unwrap();
    }

    fn who(&self, name: &'static str) -> Who {
        Who {
            url: self.url.clone(),
            name,
            device: 1,
            token: None,
            will: None,
        }
    }
}

#[test]
#[ignore = "the child process of the other tests"]
fn the_hub_as_a_child() {
    // Nothing to do for somebody who runs all that is ignored.
    let Ok(args) = std::env::var(ARGS) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(hub::serve(args.lines().map(str::to_owned)));
    served.unwrap();
}

/// A publisher's frame: who, and which of theirs.
fn frame(who: u8, n: u32) -> Vec<u8> {
    [&[who][..], &n.to_be_bytes()].concat()
}

fn number(bytes: &[u8]) -> (u8, u32) {
    let (who, n) = bytes.split_first().unwrap();
    (*who, u32::from_be_bytes(n.try_into().unwrap()))
}

/// Publishes from `next` on until the hub is gone; returns the first number whose fate is
/// unknown. Everything below it was accepted.
async fn publish(who: Who, mark: u8, mut next: u32, accepted: Arc<watch::Sender<u32>>) -> u32 {
    let Ok(mut peer) = who.connect().await else {
        return next;
    };
    loop {
        for n in next..next + WINDOW {
            let (_, item) = peer.frame(&inbox("b"), Class::Durable, &frame(mark, n));
            if peer.put(item).await.is_err() {
                return next;
            }
        }
        let last = next + WINDOW;
        if peer.flush().await.is_err() {
            return next;
        }
        while next < last {
            match peer.next().await {
                Ok(Inbound::Sent { outcome, .. }) => {
                    assert_eq!(outcome, SendOutcome::Accepted);
                    next += 1;
                    accepted.send_modify(|n| *n += 1);
                }
                Ok(_) => {}
                Err(_) => return next,
            }
        }
    }
}

/// Takes what waits for `b`, and acknowledges the first `acks` of it.
async fn fetch(who: Who, acks: usize) -> Vec<(u8, u32)> {
    let mut b = who.connect().await.unwrap();
    assert!(b.resumed, "the session outlives the hub");
    let mut got = Vec::new();
    for (at, inbound) in b.backlog().await.into_iter().enumerate() {
        match inbound {
            Inbound::Received { bytes, handle, .. } => {
                got.push(number(&bytes));
                if at < acks {
                    b.put(Outbound::Ack(handle.unwrap())).await.unwrap();
                }
            }
            other => panic!("{other:?} in the backlog"),
        }
    }
    b.flush().await.unwrap();
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_frames_survive_ten_kills() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("hub.redb");
    let mut random = Draw::new(SEED, "kills");
    let mut process = Process::start(&state);
    process.open_mailbox().await;

    let accepted = Arc::new(watch::Sender::new(0));
    let mut next = [0, 0];
    let mut got = Vec::new();
    for _ in 0..KILLS {
        let publishers = [("p", 0), ("q", 1)].map(|(name, mark)| {
            let from = next[usize::from(mark)];
            tokio::spawn(publish(process.who(name), mark, from, accepted.clone()))
        });
        // Now and then at once: while they connect.
        let more = random.below(5).min(1) * (16 + random.below(64));
        let until = *accepted.borrow() + u32::try_from(more).unwrap();
        let mut answers = accepted.subscribe();
        within(answers.wait_for(|now| *now >= until)).await.unwrap();
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        process.kill();
        for (publisher, next) in publishers.into_iter().zip(&mut next) {
            *next = within(publisher).await.unwrap();
        }
        process = Process::start(&state);
        if random.below(2) == 0 {
            let acks = usize::try_from(random.below(40)).unwrap();
            got.extend(fetch(process.who("b"), acks).await);
        }
    }
    got.extend(fetch(process.who("b"), 0).await);

    for (mark, next) in [0, 1].into_iter().zip(next) {
        let mut first = Vec::new();
        for (_, n) in got.iter().filter(|(who, _)| *who == mark) {
            if !first.contains(n) {
                first.push(*n);
            }
        }
        // Beyond what was accepted may lie what was stored without an answer.
        assert!(first.len() >= next as usize, "{mark}: {first:?}");
        let want = 0..u32::try_from(first.len()).unwrap();
        assert!(first.iter().copied().eq(want), "{mark}: {first:?}");
    }
}

#[tokio::test]
async fn a_torn_file_opens_or_says_that_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("hub.redb");
    let mut process = Process::start(&state);
    process.open_mailbox().await;
    let accepted = Arc::new(watch::Sender::new(0));
    let publisher = tokio::spawn(publish(process.who("p"), 0, 0, accepted.clone()));
    let mut answers = accepted.subscribe();
    within(answers.wait_for(|now| *now >= 100)).await.unwrap();
    process.kill();
    within(publisher).await.unwrap();

    let whole = std::fs::read(&state).unwrap();
    let mut random = Draw::new(SEED, "tears");
    let (mut opened, mut refused) = (0, 0);
    for at in 0..60 {
        let mut bytes = whole.clone();
        let cut = usize::try_from(random.below(whole.len() as u64)).unwrap();
        match at % 3 {
            0 => bytes.truncate(cut),
            // The length is there, the blocks are not.
            1 => bytes[cut..].fill(0),
            // One block was not written.
            _ => bytes[cut..].iter_mut().take(4096).for_each(|b| *b = 0),
        }
        // A file of its own: the thread of the hub before may not have closed the last one.
        let torn = dir.path().join(format!("torn{at}.redb"));
        std::fs::write(&torn, bytes).unwrap();
        match Hub::builder().allow_all().store(&torn).start() {
            Ok(_) => opened += 1,
            Err(HubError::Store(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(opened > 0 && refused > 0, "{opened} and {refused}");
}
