//! What the page and the server say to each other: JSON text frames, apart from the wire types.
//! Unknown fields are ignored on both sides; an unknown `t` from the page gets an error.

use serde::{Deserialize, Serialize};

/// A call from the page. `id` comes back in the answer.
#[derive(Debug, Deserialize)]
pub struct Call {
    /// Correlates the answer.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What a page can ask for.
#[derive(Debug, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the client's call of that name")]
pub enum Ask {
    Login {
        name: String,
    },
    Logout,
    Reconnect,
    Request {
        peer: String,
        note: String,
    },
    Accept {
        invite: String,
    },
    Reject {
        invite: String,
        told: bool,
        reason: String,
    },
    Cancel {
        invite: String,
    },
    Close {
        peer: String,
    },
    Block {
        peer: String,
    },
    Send {
        conv: String,
        txn: String,
        text: String,
    },
    Retry {
        conv: String,
        message: String,
    },
    Discard {
        conv: String,
        message: String,
    },
    Read {
        conv: String,
        up_to: String,
    },
    Typing {
        conv: String,
        active: bool,
    },
    History {
        conv: String,
        before: Option<String>,
        limit: usize,
    },
    CreateGroup {
        name: String,
    },
    Join {
        group: String,
        note: String,
    },
    Withdraw {
        group: String,
    },
    Approve {
        group: String,
        request: String,
    },
    Deny {
        group: String,
        request: String,
        reason: String,
    },
    Kick {
        group: String,
        user: String,
        reason: String,
    },
    PlanLeave {
        group: String,
    },
    Leave {
        group: String,
    },
    HandOver {
        group: String,
        user: String,
    },
    AnswerOffer {
        group: String,
        accept: bool,
    },
    Status {
        status: String,
        text: String,
    },
    Trust {
        user: String,
        device: String,
    },
}

/// What the server says.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is named after what it shows")]
pub enum Say {
    Ok {
        id: u64,
        #[serde(flatten)]
        value: Value,
    },
    Error {
        id: u64,
        code: &'static str,
        text: String,
    },
    State {
        me: Me,
        link: Link,
        people: Vec<Person>,
        requests: Vec<Request>,
        chats: Vec<Chat>,
        listings: Vec<Listing>,
    },
    Link(Link),
    Person(Person),
    Request(Request),
    RequestGone {
        invite: String,
    },
    Listing(Listing),
    Unlisted {
        group: String,
    },
    Chat(Chat),
    ChatGone {
        conv: String,
    },
    Message {
        conv: String,
        item: Item,
    },
    Accepted {
        conv: String,
        txn: String,
        item: Item,
    },
    Ack {
        conv: String,
        id: String,
        ack: &'static str,
    },
    Wedged {
        conv: String,
        id: String,
        why: &'static str,
    },
    Failed {
        conv: String,
        id: String,
        why: &'static str,
    },
    Typing {
        conv: String,
        user: String,
        active: bool,
    },
    /// Who of a group is here changed.
    Company {
        conv: String,
        company: Company,
    },
    KeyChanged {
        user: String,
        device: String,
    },
    Notice {
        text: String,
    },
    /// The lead of a group passed on; its `Chat` follows.
    Lead {
        conv: String,
        leader: String,
        term: u64,
        why: String,
    },
}

/// The value of a call.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "each is named after what it holds")]
pub enum Value {
    Done {},
    Conv {
        conv: String,
    },
    Items {
        items: Vec<Item>,
    },
    Plan {
        successor: Option<String>,
        closes: bool,
    },
}

/// Whose page it is.
#[derive(Debug, Clone, Serialize)]
pub struct Me {
    /// The user.
    pub user: String,
}

/// The connection between the server's client and the broker.
#[derive(Debug, Clone, Serialize)]
pub struct Link {
    /// `connecting`, `connected`, `caught_up`, `disconnected`, `failed`, `closed`.
    pub state: &'static str,
    /// While disconnected: the next attempt, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<u64>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Somebody's presence.
#[derive(Debug, Clone, Serialize)]
pub struct Person {
    /// Who.
    pub user: String,
    /// `active`, `idle`, `away`, `dnd`, `left`, `lost`, `unknown`.
    pub status: &'static str,
    /// While unknown: what it was.
    pub last_known: Option<&'static str>,
    /// Status text.
    pub text: String,
    /// ms since 1970.
    pub last_seen: Option<u64>,
    /// Comes and goes.
    pub unstable: bool,
}

/// Somebody asks to chat.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// The request.
    pub invite: String,
    /// Who.
    pub peer: String,
    /// In their words.
    pub note: String,
}

/// A group in the lobby.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// The group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Who leads.
    pub leader: String,
    /// How many are in.
    pub members: u32,
}

/// A conversation in the list.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// The conversation; for a group its id.
    pub conv: String,
    /// `dm` or `group`.
    pub kind: &'static str,
    /// What the list shows.
    pub title: String,
    /// `asking`, `open`, `leaving`, `closed`.
    pub state: &'static str,
    /// While closed: why.
    pub why: String,
    /// Of a dm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Of a dm that we asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
    /// Of a group: who leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Of a group: the number of the term; grows whenever the lead passes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Of a group: who is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roster: Option<Vec<String>>,
    /// Of a group that we are in: who is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<Company>,
    /// Of a group that we lead: who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Vec<JoinRequest>>,
    /// Of a group: who asks us to lead.
    pub offer: Option<String>,
    /// The messages not read, by name: one that is told again counts once. Only in a full state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<Vec<String>>,
    /// Up to where it was read; only in a full state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_read: Option<String>,
}

/// Who of a group is here.
#[derive(Debug, Clone, Serialize)]
pub struct Company {
    /// How many people are here.
    pub here: u32,
    /// Of how many.
    pub members: u32,
    /// Everybody; in a large group some of those that changed.
    pub people: Vec<Person>,
}

/// Somebody asks to be let in.
#[derive(Debug, Clone, Serialize)]
pub struct JoinRequest {
    /// The request.
    pub request: String,
    /// Who.
    pub user: String,
    /// In their words.
    pub note: String,
}

/// A row of a timeline. `sort` is text that sorts as the rows show.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each field is named after what it shows")]
pub enum Item {
    Received {
        id: String,
        sort: String,
        at: u64,
        from: String,
        text: String,
        late: bool,
        former: bool,
        clock_suspect: bool,
    },
    Sent {
        id: String,
        sort: String,
        at: u64,
        from: String,
        text: String,
        ack: &'static str,
        failed: Option<&'static str>,
        wedged: Option<&'static str>,
    },
    Gap {
        id: String,
        sort: String,
        at: u64,
        from: String,
        count: u64,
    },
}
