//! How it works, and why.
//!
//! # JetStream: a log, client-held cursors, no consumer per device
//!
//! Durable frames go to `<prefix>.in.<kind>.<id>`, into one stream with a bound per channel. The
//! server republishes each stored frame on `<prefix>.out.log.<kind>.<id>` with its place in the log
//! and the place of the one before it on that channel. A subscriber has one plain subscription per
//! channel. A frame that follows on the last one is delivered at once; one that does not shows that
//! something was missed, and the log is read from where the subscriber stands, by a pull consumer
//! that lives for one page.
//!
//! - A durable consumer per device and channel was the other way. Newer servers allow 1,000
//!   consumers per stream unless told otherwise, each costs 25 to 40 kB of server memory, and one
//!   that is not acknowledged stalls at its `max_ack_pending`. A cursor is a number.
//! - The server's fan-out is that of core NATS, for any number of readers.
//! - Loss is seen exactly: a slow reader whose queue overflowed, or a page that was pruned, shows
//!   as a place that does not follow. What is still in the log is read again; what is not is told
//!   as a gap.
//!
//! Cursors are kept on the server, one key per device: the channels that it subscribed and how far
//! each is durable at the device. A subscription is granted once the key says so; cursors are
//! written half a second after they moved, later with many channels, since losing one only delivers
//! again. The key is written with compare-and-set and watched: a second connection of the same device
//! ends the first with `Conflict`. A key that is older than one this process has seen, or that belongs
//! to a log that was made anew, is not resumed.
//!
//! What it costs: coming back reads each channel once, by a consumer that lives for one request (0.3
//! to 0.5 ms of the server); a device with more channels than fit into one message is refused the
//! rest.
//!
//! # Core only
//!
//! All frames go to `<prefix>.out.now.<kind>.<id>` and reach who is there. Clients with JetStream
//! hear them too, and a core-only client hears what the server republishes.
//!
//! # What NATS does not tell
//!
//! - A denied publish or subscription is an error line without a number, and the client library
//!   hands it out beside the messages. Behind every batch of plain publishes and subscriptions goes
//!   an empty message to our own inbox, and a subscription that the server must call invalid: its
//!   `Invalid Subject` comes after every complaint about what was sent before. Hence `Refused`, and
//!   `granted: false`. Permissions hold for a connection, so ephemeral frames ask once per channel;
//!   from then on they are accepted as soon as the client library has them.
//! - A timed-out acknowledgement is *unknown*, never *failed*: it ends the connection, and the core
//!   repeats under the same id. The server drops a duplicate of the same attempt for two minutes.
//! - "Acknowledged" means: in the page cache of the server. That survives `kill -9`, not always a
//!   power cut; `sync_interval: always` (nats-server 2.10) is the setting for more. The outbox of
//!   the sender until the end-to-end acknowledgement is the guarantee.
//! - There is no last will. The lease of presence runs out, see the matrix of capabilities.
//!
//! # What it takes from the client library, and what not
//!
//! The library reconnects and resubscribes by itself. Both belong to the core, so as soon as a
//! connection is up it is given an address that nobody listens on to reconnect to, and it ends at
//! the first disconnect. The few requests of JetStream are written here: the library's decoder
//! refuses answers of nats-server 2.9, and its consumers repeat by themselves.
//!
//! # Streams
//!
//! Made at the first connect, unless
//! [`without_provisioning`](crate::Builder::without_provisioning) is set. For `chat.v1`:
//!
//! | stream | subjects | republished as | needs |
//! |---|---|---|---|
//! | `chat_v1_log` | `chat.v1.in.>` | `chat.v1.out.log.>` | limits retention, discard old, `max_msgs_per_subject`, `max_age`, direct get |
//! | `KV_chat_v1_last` | `$KV.chat_v1_last.>` | `chat.v1.out.last.>` | a bucket with history 1, direct get |
//! | `KV_chat_v1_session` | `$KV.chat_v1_session.>` | `chat.v1.session.>` | a bucket with history 1, direct get |
//! | `KV_chat_v1_lease` | `$KV.chat_v1_lease.>` | – | the same; its `max_age` is the time to live of a lease |
//!
//! # Permissions
//!
//! `examples/nats-server/permissions.conf` in this crate is a configuration that is tested: what each
//! person may publish and read, and nothing else. Every request for the log carries its channel in
//! the subject, so that an account is limited to its own inbox.
