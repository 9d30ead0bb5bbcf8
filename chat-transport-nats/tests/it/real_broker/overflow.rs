//! Mailboxes of 20: the server drops the oldest of each conversation.

use chat_testkit::clients::ten_thousand_messages_to_who_is_away_all_arrive_in_order;

use super::{builder, jetstream, url};

/// Frames that the server stored and no longer has.
async fn dropped(raw: &async_nats::Client) -> u64 {
    let info = raw.request("$JS.API.STREAM.INFO.chat_v1_log", "".into());
    let info: serde_json::Value = serde_json::from_slice(&info.await.unwrap().payload).unwrap();
    let count = |name: &str| info["state"][name].as_u64().unwrap();
    count("last_seq") - count("messages")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_overflows_costs_no_message() {
    let broker = jetstream();
    // Per channel: each conversation has a window of 64, so this drops some of each.
    let to = builder(&broker).mailbox(20).build().unwrap();
    let raw = async_nats::connect(url(&broker)).await.unwrap();
    let overflowed = async || dropped(&raw).await >= 100;
    ten_thousand_messages_to_who_is_away_all_arrive_in_order(&to, overflowed).await;
}
