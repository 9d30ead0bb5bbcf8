//! The suite over the real client, on a paused clock and an in-process broker.

use chat_testkit::suite::client::{ClientWorld, MemoryCell, run_paused};

chat_testkit::conformance!(virtual: ClientWorld<MemoryCell>, run_paused);
