//! The suite over the bare core.

use chat_testkit::suite::pure::{PureWorld, block_on};

chat_testkit::conformance!(virtual: PureWorld, block_on);
