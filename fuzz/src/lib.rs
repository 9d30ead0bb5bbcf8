//! What the targets call: the entries and plays that the stable tests of `chat-core` call too. Each
//! takes any bytes and panics when a promise is broken.

#[path = "../../chat-core/tests/it/entries.rs"]
mod entries;
#[path = "../../chat-core/tests/it/fill.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod fill;
#[path = "../../chat-core/tests/it/play/mod.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod play;

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident = $entry:path;)*) => {
        $( $(#[$doc])* pub fn $name(bytes: &[u8]) { let _ = $entry(bytes); } )*
    };
}

targets! {
    /// Any bytes as a frame whose signature holds.
    frame_decode = entries::frame_decode;
    /// Any body of any kind, encoded and decoded.
    frame_roundtrip = entries::frame_roundtrip;
    /// Any bytes as the signed form of a channel, and as its id.
    channel_codec = entries::channel_codec;
    /// Any text as a name and as a piece of an address.
    escape = entries::escaping;
    /// Any bytes as the content of a message.
    content_decode = entries::content_decode;
    /// Any inputs of one endpoint: commands, frames, reports, time.
    core_ops = play::core_ops;
    /// Two endpoints over a network that loses, repeats and reorders.
    two_nodes = play::two_nodes;
    /// Three members of a group and any logs.
    chain_merge = play::chain_merge;
    /// Any presence records, in any order.
    presence_merge = play::presence_merge;
    /// Any rows as the store of an endpoint.
    store_recover = play::store_recover;
    /// Any bytes as a message between a client and a hub.
    hub_proto = chat_transport_ws::proto::decode_any;
}
