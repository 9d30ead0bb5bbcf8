//! CPU time of the measuring thread: on a machine that does other work too, wall time says little.

use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Measures what this thread spends. Reading the clock is a system call: a step that is timed alone
/// shows some 0.1 to 0.2 microseconds more than it takes.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTime;

impl ThreadTime {
    /// What this thread has spent since it started.
    pub fn now() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let part = |value| u64::try_from(value).expect("the clock counts up from 0");
        Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
    }
}

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// The benches' criterion.
pub type Cpu = Criterion<ThreadTime>;

/// How all benches measure.
pub fn criterion() -> Cpu {
    Criterion::default()
        .with_measurement(ThreadTime)
        .sample_size(20)
}
