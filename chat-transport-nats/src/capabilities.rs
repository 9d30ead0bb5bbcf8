//! What a connection can do.

use chat_client::transport::{Capabilities, Mailbox};

/// The largest frame that this transport carries; a server may allow less.
pub(crate) const MAX_FRAME: usize = 256 * 1024;

/// With JetStream.
pub const JETSTREAM: Capabilities = Capabilities {
    name: "nats jetstream",
    broker_ack: true,
    reason_codes: true,
    no_receiver_hint: false,
    manual_ack: true,
    mailbox: Mailbox::Log,
    last_will: false,
    last_value: true,
    backlog_marker: true,
    dedup: true,
    ttl: false,
    no_echo: false,
    acl_subscribe: true,
    acl_publish: true,
    cas: true,
    max_frame: MAX_FRAME,
};

/// Without JetStream: frames reach who is there.
pub const CORE: Capabilities = Capabilities {
    name: "nats core",
    broker_ack: false,
    manual_ack: false,
    mailbox: Mailbox::None,
    last_value: false,
    backlog_marker: false,
    dedup: false,
    cas: false,
    ..JETSTREAM
};
