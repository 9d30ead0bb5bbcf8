//! Any text as a name and as a piece of an address.
#![no_main]

#[path = "../../chat-core/tests/it/entries.rs"]
#[allow(dead_code)]
mod entries;
#[path = "../../chat-core/tests/it/fill.rs"]
#[allow(dead_code)]
mod fill;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    entries::escaping(bytes);
});
