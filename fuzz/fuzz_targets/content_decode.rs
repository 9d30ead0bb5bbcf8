//! Any bytes as the content of a message.
#![no_main]

#[path = "../../chat-core/tests/it/entries.rs"]
#[allow(dead_code)]
mod entries;
#[path = "../../chat-core/tests/it/fill.rs"]
#[allow(dead_code)]
mod fill;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    entries::content_decode(bytes);
});
