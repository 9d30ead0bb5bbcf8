//! IP6: after a broker comes back, its clients do not come all at once.

use std::time::Duration;

use chat_core::config::Config;
use chat_core::link::{DownReason, Link, LinkEvent, LinkOutput};
use chat_core::rng::Rng;
use chat_core::time::{Clock, Timestamp, UnixMillis};

const CLIENTS: usize = 1_000;

/// When each client is connected again after an outage, in ms since its beginning, and how often all
/// of them tried in vain.
fn outage(length: Duration) -> (Vec<u64>, usize) {
    let start = Timestamp::from_secs(1_000);
    let over = start + length;
    let (mut back, mut vain) = (Vec::new(), 0);
    for client in 0..CLIENTS {
        let mut clock = Clock::new(UnixMillis(1_760_000_000_000), Timestamp::from_secs(1));
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(client as u64).to_le_bytes());
        let mut link = Link::new(Config::default().link, Rng::from_seed(seed));
        link.open(clock.read(Timestamp::from_secs(1)));
        let up = LinkEvent::Up {
            resumed: true,
            marks_backlog: true,
        };
        let lost = LinkEvent::Down {
            reason: DownReason::Lost,
            retry_after: None,
        };
        link.handle_link(&up, clock.read(Timestamp::from_secs(2)));
        link.handle_link(&LinkEvent::CaughtUp, clock.read(Timestamp::from_secs(3)));
        while link.poll_output().is_some() {}
        let mut now = start;
        link.handle_link(&lost, clock.read(now));
        loop {
            let attempts = core::iter::from_fn(|| link.poll_output())
                .filter(|output| matches!(output, LinkOutput::Connect))
                .count();
            if attempts > 0 && now >= over {
                back.push((now.as_micros() - start.as_micros()) / 1_000);
                break;
            }
            vain += attempts;
            if attempts > 0 {
                // Refused at once, as by a port that nobody listens on.
                link.handle_link(&lost, clock.read(now));
                continue;
            }
            now = link
                .poll_timeout()
                .expect("a link that is down tries again");
            link.handle_timeout(clock.read(now));
        }
    }
    back.sort_unstable();
    (back, vain)
}

/// The most clients that come within one second.
fn peak(times: &[u64]) -> usize {
    let within = |from: usize| times[from..].partition_point(|at| at - times[from] < 1_000);
    (0..times.len()).map(within).max().unwrap_or(0)
}

#[test]
fn ip6_after_an_outage_the_clients_come_back_spread_out() {
    // A tenth from half a minute on. Whoever was cut off for a moment comes back in a moment: there
    // the last backoff is the bound.
    for (seconds, limit) in [(10, 5), (30, 10), (60, 10), (120, 10)] {
        let (back, vain) = outage(Duration::from_secs(seconds));
        assert_eq!(back.len(), CLIENTS, "everybody comes back");
        let (last, peak) = (back[CLIENTS - 1], peak(&back));
        println!(
            "outage {seconds} s: at most {peak} of {CLIENTS} in a second, the last after {last} ms, \
             {vain} vain attempts"
        );
        assert!(peak <= CLIENTS / limit, "{peak} at once after {seconds} s");
    }
}
