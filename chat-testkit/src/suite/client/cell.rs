//! Where the clients of a world meet.

use std::future::Future;

use chat_client::transport::Connector;
use chat_client::transport::memory::MemoryBroker;

/// A broker and the way to it: what a transport provides to be proved.
#[allow(
    async_fn_in_trait,
    reason = "a cell is driven by one test, its futures need not be Send"
)]
pub trait Cell: core::fmt::Debug + Sized {
    /// True when it runs on a paused clock: nothing in it may wait for the world outside.
    const VIRTUAL_TIME: bool;

    /// Opens connections to the broker.
    type Connector: Connector;

    /// An empty broker of its own.
    async fn start() -> Self;

    /// A connector, which must still work after [`Self::restart`].
    fn connector(&self) -> Self::Connector;

    /// Stops the broker and starts it again over what it stored.
    async fn restart(&mut self);
}

/// The in-process broker, on a paused clock: run it with [`run_paused`].
#[derive(Debug)]
pub struct MemoryCell(MemoryBroker);

impl Cell for MemoryCell {
    const VIRTUAL_TIME: bool = true;

    type Connector = MemoryBroker;

    async fn start() -> Self {
        Self(MemoryBroker::new())
    }

    fn connector(&self) -> MemoryBroker {
        self.0.clone()
    }

    async fn restart(&mut self) {
        self.0.bounce();
    }
}

/// Runs a future on a paused clock, which jumps to the next deadline when nothing is left to do.
///
/// # Panics
/// When no runtime can be made.
pub fn run_paused<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be made")
        .block_on(future)
}

/// Runs a future in real time, on this thread.
///
/// # Panics
/// When no runtime can be made.
pub fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives us a runtime")
        .block_on(future)
}
