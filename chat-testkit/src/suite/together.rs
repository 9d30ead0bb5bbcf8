//! Scenarios that mostly wait: all at once, and each is told to the test of its name.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

type Runs = Vec<(&'static str, Mutex<Option<JoinHandle<()>>>)>;

/// The scenarios of one world that wait for long. Whoever asks for the first starts them all, so
/// that they take no more time than the longest of them, however few tests run side by side.
#[doc(hidden)]
#[derive(Debug)]
pub struct Together {
    scenarios: &'static [(&'static str, fn())],
    runs: OnceLock<Runs>,
}

impl Together {
    #[must_use]
    pub const fn new(scenarios: &'static [(&'static str, fn())]) -> Self {
        Self {
            scenarios,
            runs: OnceLock::new(),
        }
    }

    /// Waits for a scenario.
    ///
    /// # Panics
    /// When it did.
    pub fn wait(&self, name: &str) {
        let runs = self.runs.get_or_init(|| self.start());
        let (_, run) = runs
            .iter()
            .find(|(known, _)| *known == name)
            .expect("it is listed");
        let run = run.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = run.expect("each is waited for once").join();
        if let Err(cause) = ended {
            // Said once more, as the output of this test.
            let said = cause.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| cause.downcast_ref::<&str>().copied());
            panic!("{}", said.unwrap_or("it panicked without a word"));
        }
    }

    fn start(&self) -> Runs {
        let start = |(name, scenario): &(&'static str, fn())| {
            let thread = std::thread::Builder::new().name((*name).to_owned());
            let run = thread.spawn(*scenario).expect("the system has threads");
            (*name, Mutex::new(Some(run)))
        };
        self.scenarios.iter().map(start).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    static BOTH: Barrier = Barrier::new(2);

    #[test]
    fn all_run_at_once_and_each_fails_in_its_own_name() {
        static TOGETHER: Together = Together::new(&[
            ("good", || {
                BOTH.wait();
            }),
            ("bad", || {
                BOTH.wait();
                panic!("it is {}", "bad");
            }),
        ]);
        TOGETHER.wait("good");
        let cause = std::panic::catch_unwind(|| TOGETHER.wait("bad")).unwrap_err();
        assert_eq!(cause.downcast_ref::<String>().unwrap(), "it is bad");
    }
}
