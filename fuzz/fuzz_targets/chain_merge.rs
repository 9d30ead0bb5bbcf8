//! Three members of a group and any logs.
#![no_main]

#[path = "../../chat-core/tests/it/entries.rs"]
#[allow(dead_code)]
mod entries;
#[path = "../../chat-core/tests/it/fill.rs"]
#[allow(dead_code)]
mod fill;
#[path = "../../chat-core/tests/it/play/mod.rs"]
#[allow(dead_code, unused_imports)]
mod play;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    play::chain_merge(bytes);
});
