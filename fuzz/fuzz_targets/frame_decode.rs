//! Any bytes as a frame whose signature holds.
#![no_main]

#[path = "../../chat-core/tests/it/entries.rs"]
#[allow(dead_code)]
mod entries;
#[path = "../../chat-core/tests/it/fill.rs"]
#[allow(dead_code)]
mod fill;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = entries::frame_decode(bytes);
});
