//! From the client's types to what the page shows.

use std::time::{Duration, SystemTime};

use chat_core::delivery::{Ack, FailReason, Received, SortKey, Standing, TimelineItem, Unsendable};
use chat_core::group::{GroupView, Membership, Passing};
use chat_core::id::{ConvId, InviteId, UserId};
use chat_core::link::LinkState;
use chat_core::lobby::GroupListing;
use chat_core::presence::{PresenceView, RoomPresence, Status};
use chat_core::session::{CloseReason, SessionState};

use super::dto::{Chat, Company, Item, JoinRequest, Link, Listing, Person, Request};
use super::names::{hex, message, place};

/// How the page calls a status.
pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Idle => "idle",
        Status::Away => "away",
        Status::DoNotDisturb => "dnd",
        Status::Left => "left",
        Status::Lost => "lost",
        _ => "unknown",
    }
}

/// Somebody's presence.
pub(super) fn person(user: &UserId, view: &PresenceView) -> Person {
    Person {
        user: user.as_str().to_owned(),
        status: status(view.status),
        last_known: view.last_known.map(status),
        text: view.text.clone(),
        last_seen: view.last_seen.map(|at| at.0),
        unstable: view.unstable,
    }
}

/// Who of a group is here.
pub(super) fn company(presence: &RoomPresence) -> Company {
    let people = presence.people.iter();
    Company {
        here: presence.counts.here(),
        members: presence.members,
        people: people.map(|(user, view)| person(user, view)).collect(),
    }
}

/// A group in the lobby.
pub(super) fn listing(listing: &GroupListing) -> Listing {
    Listing {
        group: hex(listing.group.as_bytes()),
        name: listing.name.as_str().to_owned(),
        leader: listing.leader.as_str().to_owned(),
        members: listing.members,
    }
}

/// A request to chat.
pub(super) fn request(peer: &UserId, invite: InviteId, note: &str) -> Request {
    Request {
        invite: hex(invite.as_bytes()),
        peer: peer.as_str().to_owned(),
        note: note.to_owned(),
    }
}

/// The connection, and when it is tried again.
pub(super) fn link(state: &LinkState, retry_in: Option<Duration>) -> Link {
    let plain = |state| Link {
        state,
        retry_at: None,
        reason: None,
    };
    match state {
        LinkState::Connecting { .. } => plain("connecting"),
        LinkState::Connected { .. } => plain("connected"),
        LinkState::CaughtUp => plain("caught_up"),
        LinkState::Closed => plain("closed"),
        LinkState::Disconnected { reason, .. } => Link {
            state: "disconnected",
            retry_at: retry_in.map(|wait| wall(SystemTime::now() + wait)),
            reason: Some(reason.to_string()),
        },
        LinkState::Failed { reason } => Link {
            state: "failed",
            retry_at: None,
            reason: Some(reason.to_string()),
        },
        _ => plain("connecting"),
    }
}

fn wall(at: SystemTime) -> u64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why a chat is over, in words.
pub(super) fn why(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Left { by, reason } if reason.is_empty() => format!("{by} left"),
        CloseReason::Left { by, reason } => format!("{by} left: {reason}"),
        CloseReason::Rejected { reason } if reason.is_empty() => "the request was declined".into(),
        CloseReason::Rejected { reason } => format!("the request was declined: {reason}"),
        CloseReason::Expired => "nobody answered in time".into(),
        CloseReason::Cancelled => "the request was taken back".into(),
        CloseReason::Superseded => "another request took its place".into(),
        CloseReason::Blocked => "blocked".into(),
        CloseReason::AnsweredElsewhere { .. } => "answered on another device".into(),
        _ => "the other side has no such chat any more".into(),
    }
}

/// A chat of two; `None` for states that the list does not show as a chat.
pub(super) fn chat(me: &UserId, peer: &UserId, state: &SessionState) -> Option<Chat> {
    let (shown, reason, invite) = match state {
        SessionState::Inviting { invite } => ("asking", String::new(), Some(*invite)),
        SessionState::Active { .. } => ("open", String::new(), None),
        SessionState::Closing => ("closed", "you left".into(), None),
        SessionState::Closed(reason) => ("closed", why(reason), None),
        _ => return None,
    };
    Some(Chat {
        conv: hex(ConvId::between(me, peer).as_bytes()),
        kind: "dm",
        title: peer.as_str().to_owned(),
        state: shown,
        why: reason,
        peer: Some(peer.as_str().to_owned()),
        invite: invite.map(|invite| hex(invite.as_bytes())),
        leader: None,
        term: None,
        roster: None,
        company: None,
        requests: None,
        offer: None,
        unread: None,
        last_read: None,
    })
}

/// Why the lead passed on, in words.
pub(super) fn passing(before: &str, how: Passing) -> String {
    match how {
        Passing::HandedOver => format!("{before} handed the lead over"),
        Passing::Succeeded { majority: true } => {
            format!("{before} was silent or had to go, and most members stand behind it")
        }
        Passing::Succeeded { majority: false } => {
            format!("{before} was silent or had to go, and those who are here stand behind it")
        }
        _ => "the members asked for a new term".to_owned(),
    }
}

/// A group in the list of chats.
pub(super) fn group(
    view: &GroupView,
    offer: Option<&UserId>,
    company: Option<&RoomPresence>,
) -> Chat {
    let (state, why) = match view.mine {
        Membership::Asking => ("asking", ""),
        Membership::Leaving => ("leaving", ""),
        Membership::Left => ("closed", "you left"),
        Membership::Kicked => ("closed", "you were removed"),
        Membership::Denied => ("closed", "you were not let in"),
        _ => ("open", ""),
    };
    let mut roster: Vec<String> = view
        .roster
        .iter()
        .map(|member| member.user.as_str().to_owned())
        .collect();
    roster.dedup();
    let requests = view.requests.iter().map(|request| JoinRequest {
        request: hex(request.request.as_bytes()),
        user: request.user.as_str().to_owned(),
        note: request.note.clone(),
    });
    Chat {
        conv: hex(view.group.as_bytes()),
        kind: "group",
        title: view.name.as_str().to_owned(),
        state,
        why: why.to_owned(),
        peer: None,
        invite: None,
        leader: view
            .leader
            .as_ref()
            .map(|leader| leader.as_str().to_owned()),
        term: view.leader.is_some().then_some(view.round),
        roster: Some(roster),
        company: company.map(self::company),
        requests: Some(requests.collect()),
        offer: offer.map(|user| user.as_str().to_owned()),
        unread: None,
        last_read: None,
    }
}

/// How far a message got.
pub(super) fn ack(ack: Ack) -> &'static str {
    match ack {
        Ack::Queued => "queued",
        Ack::HandedOff => "handed_off",
        Ack::Delivered => "delivered",
        Ack::Displayed => "displayed",
        _ => "queued",
    }
}

/// Why a message will not arrive.
pub(super) fn failure(why: &FailReason) -> &'static str {
    match why {
        FailReason::Expired => "expired",
        FailReason::Refused { .. } => "refused",
        FailReason::Cancelled => "cancelled",
        FailReason::Unsendable(why) => stuck(*why),
        _ => "gone",
    }
}

/// Why the broker will never take a message as it is.
pub(super) fn stuck(why: Unsendable) -> &'static str {
    match why {
        Unsendable::TooLarge => "too_large",
        _ => "denied",
    }
}

fn at(sort: &SortKey) -> u64 {
    sort.hlc.wall().0
}

/// A message that arrived.
pub(super) fn received(received: &Received) -> Item {
    Item::Received {
        id: message(&received.id),
        sort: place(&received.sort),
        at: at(&received.sort),
        from: received.from.as_str().to_owned(),
        text: received.content.fallback().to_owned(),
        late: received.late,
        former: received.standing == Standing::Former,
        clock_suspect: received.clock_suspect,
    }
}

/// A row of the timeline of `me`.
pub(super) fn item(me: &UserId, item: &TimelineItem) -> Option<Item> {
    Some(match item {
        TimelineItem::Received(message) => received(message),
        TimelineItem::Sent {
            id,
            content,
            sort,
            ack: got,
            failed,
            wedged,
        } => Item::Sent {
            id: message(id),
            sort: place(sort),
            at: at(sort),
            from: me.as_str().to_owned(),
            text: content.fallback().to_owned(),
            ack: ack(*got),
            failed: failed.as_ref().map(failure),
            wedged: wedged.map(stuck),
        },
        TimelineItem::Gap {
            from,
            first,
            count,
            sort,
        } => Item::Gap {
            id: format!("gap-{}", message(first)),
            sort: place(sort),
            at: at(sort),
            from: from.as_str().to_owned(),
            count: *count,
        },
        _ => return None,
    })
}
