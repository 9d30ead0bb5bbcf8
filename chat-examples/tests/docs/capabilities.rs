//! The matrix of capabilities, from the constants of the transports.
//!
//! `REGENERATE=1 cargo test -p chat-examples --test docs` writes it into the pages.

use chat_client::transport::{Capabilities, Mailbox, memory};

use super::{read, root};

/// One column per transport.
const TRANSPORTS: [Capabilities; 6] = [
    memory::CAPABILITIES,
    chat_transport_ws::CAPABILITIES,
    chat_transport_mqtt::CAPABILITIES,
    chat_transport_mqtt::CAPABILITIES_V311,
    chat_transport_nats::JETSTREAM,
    chat_transport_nats::CORE,
];

struct Line {
    capability: &'static str,
    value: String,
    /// What the core does where it is missing.
    instead: &'static str,
    /// Shown in the README as well.
    short: bool,
}

fn line(capability: &'static str, value: impl Into<String>, instead: &'static str) -> Line {
    Line {
        capability,
        value: value.into(),
        instead,
        short: false,
    }
}

fn main_line(capability: &'static str, value: impl Into<String>, instead: &'static str) -> Line {
    Line {
        short: true,
        ..line(capability, value, instead)
    }
}

/// All lines of one transport. Taking the struct apart makes a new field an error here.
fn lines(capabilities: &Capabilities) -> Vec<Line> {
    let Capabilities {
        name: _,
        broker_ack,
        reason_codes,
        no_receiver_hint,
        manual_ack,
        mailbox,
        last_will,
        last_value,
        backlog_marker,
        dedup,
        ttl,
        no_echo,
        acl_subscribe,
        acl_publish,
        cas,
        max_frame,
    } = *capabilities;
    let yes = |it: bool| if it { "yes" } else { "–" };
    let mailbox = match mailbox {
        Mailbox::None => "–",
        Mailbox::Bounded => "bounded",
        Mailbox::Log => "log",
        _ => panic!("name the new kind of mailbox here"),
    };
    vec![
        main_line(
            "keeps messages for who is away",
            mailbox,
            "the sender keeps and repeats them until they are acknowledged or expire",
        ),
        main_line(
            "waits until a message is durable at the receiver",
            yes(manual_ack),
            "what was lost between the two is repeated by the sender",
        ),
        main_line(
            "acknowledges frames",
            yes(broker_ack),
            "a frame counts as handed off once it is written; recipients acknowledge either way",
        ),
        line(
            "says why it refuses a frame",
            yes(reason_codes),
            "a refused frame is repeated until it expires",
        ),
        line(
            "says when nobody will get a frame",
            yes(no_receiver_hint),
            "nothing: it is a hint",
        ),
        main_line(
            "publishes a last will",
            yes(last_will),
            "the lease runs out: `Lost` is told after `ttl` and not after `grace`",
        ),
        main_line(
            "keeps a last value per channel",
            yes(last_value),
            "people appear with their next beat",
        ),
        main_line(
            "says when the backlog is in",
            yes(backlog_marker),
            "quiet for `link.settle` counts as caught up",
        ),
        line(
            "drops duplicates by id",
            yes(dedup),
            "the receiver drops them, without a limit in time",
        ),
        line(
            "drops frames past their time",
            yes(ttl),
            "the receiver drops them",
        ),
        line(
            "does not send our frames back",
            yes(no_echo),
            "the endpoint drops its own frames unread",
        ),
        main_line(
            "refuses forbidden subscriptions",
            yes(acl_subscribe),
            "whoever reaches the broker can read",
        ),
        main_line(
            "refuses forbidden frames",
            yes(acl_publish),
            "signatures are checked by every receiver, and floods have a budget",
        ),
        line(
            "grants leases by compare-and-set",
            yes(cas),
            "the signed log of a group decides alone: a lease only shortens a failover",
        ),
        line(
            "largest frame",
            format!("{} KiB", max_frame / 1024),
            "content ends at 48 KiB, so that it fits everywhere",
        ),
    ]
}

/// The table, whole or as an excerpt.
fn matrix(whole: bool) -> String {
    let columns: Vec<Vec<Line>> = TRANSPORTS.iter().map(lines).collect();
    let mut head = String::from("| the broker … |");
    let mut rule = String::from("|---|");
    for transport in &TRANSPORTS {
        head += &format!(" {} |", transport.name);
        rule += "---|";
    }
    if whole {
        head += " where it does not |";
        rule += "---|";
    }
    let mut text = format!("{head}\n{rule}\n");
    for (row, first) in columns[0].iter().enumerate() {
        if !whole && !first.short {
            continue;
        }
        text += &format!("| {} |", first.capability);
        for column in &columns {
            text += &format!(" {} |", column[row].value);
        }
        if whole {
            text += &format!(" {} |", first.instead);
        }
        text += "\n";
    }
    text
}

const START: &str = "<!-- from the code: capabilities -->\n";
const END: &str = "<!-- end -->";

/// What stands between the marks on a page, which is written anew when the variable is set.
fn check(path: &str, table: &str) {
    let page = read(path);
    let (before, rest) = page.split_once(START).expect("the page has its mark");
    let (shown, after) = rest.split_once(END).expect("the mark ends");
    if std::env::var_os("REGENERATE").is_some() {
        let page = format!("{before}{START}{table}{END}{after}");
        std::fs::write(root().join(path), page).expect("the page can be written");
        return;
    }
    assert_eq!(
        shown, table,
        "{path} is out of date: REGENERATE=1 cargo test -p chat-examples --test docs"
    );
}

#[test]
fn the_matrix_of_capabilities_is_that_of_the_code() {
    check("docs/capabilities.md", &matrix(true));
    check("README.md", &matrix(false));
}
