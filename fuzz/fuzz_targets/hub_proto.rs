//! Any bytes as a message between a client and a hub.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    chat_transport_ws::proto::decode_any(bytes);
});
