//! A user's client as all its pages share it: one task turns the client's events into what pages
//! are told, and remembers what only events tell (who asks to chat, who asks us to lead).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat_client::{Client, ClientError, Event};
use chat_core::content::Content;
use chat_core::delivery::{Ack, DeliveryEvent, SortKey, TimelineItem};
use chat_core::event::{GroupEvent, IdentityEvent, LobbyEvent, PresenceEvent, SessionEvent};
use chat_core::group::{Change, GroupView, Membership};
use chat_core::id::{ConvId, GroupId, InviteId, MessageId, TxnId, UserId};
use chat_core::presence::RoomPresence;
use tokio::sync::broadcast;

use super::dto::{Me, Say};
use super::names::{hex, message};
use super::{dto, show};
use crate::demo::host::Host;

/// Events kept for a slow page; beyond it the page gets the whole state anew.
const BACKLOG: usize = 512;
/// Unread messages are counted up to here.
const MAX_UNREAD: usize = 99;

/// A user's client and what its pages need to know beside it.
#[derive(Debug)]
pub struct Account {
    user: UserId,
    /// Taken when the account stops.
    client: Mutex<Option<Client>>,
    notes: Mutex<Notes>,
    says: broadcast::Sender<Say>,
}

#[derive(Debug, Default)]
struct Notes {
    requests: BTreeMap<InviteId, (UserId, String)>,
    offers: BTreeMap<GroupId, UserId>,
    /// Who led each group when it was last told.
    leaders: BTreeMap<GroupId, UserId>,
    /// Groups whose members are followed.
    watched: BTreeSet<GroupId>,
    /// What is being sent, by transaction: the acceptance names no text.
    sending: BTreeMap<TxnId, String>,
}

impl Account {
    /// Starts telling what happens to `client`.
    ///
    /// # Errors
    /// [`ClientError`] when it stopped already.
    pub async fn start(client: Client) -> Result<Arc<Self>, ClientError> {
        let mut events = client.events().await?;
        let account = Arc::new(Self {
            user: client.user().clone(),
            client: Mutex::new(Some(client)),
            notes: Mutex::default(),
            says: broadcast::channel(BACKLOG).0,
        });
        let this = account.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                this.handle(event).await;
            }
        });
        Ok(account)
    }

    /// Whose account it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Say> {
        self.says.subscribe()
    }

    /// Says goodbye and closes the store.
    pub async fn stop(&self, deadline: Duration) {
        let client = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(client) = client {
            // What it could not hand over is durable and goes out after the next login.
            client.shutdown(deadline).await.ok();
        }
    }

    /// The client, while the account is not stopped.
    pub(super) fn client(&self) -> Result<Client, ClientError> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.clone().ok_or(ClientError::Closed)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, say: Say) {
        // Nobody listening is fine: the next page gets the whole state.
        self.says.send(say).ok();
    }

    /// Remembers the text of a send until it is accepted or refused.
    pub(super) fn sending(&self, txn: TxnId, text: Option<&str>) {
        let mut notes = self.notes();
        match text {
            Some(text) => notes.sending.insert(txn, text.to_owned()),
            None => notes.sending.remove(&txn),
        };
    }

    pub(super) fn settled(&self, invite: InviteId) {
        if self.notes().requests.remove(&invite).is_some() {
            self.tell(Say::RequestGone {
                invite: hex(invite.as_bytes()),
            });
        }
    }

    pub(super) fn offer_answered(&self, group: GroupId) {
        self.notes().offers.remove(&group);
    }

    /// Everything a page shows.
    ///
    /// # Errors
    /// [`ClientError`] when the client stopped.
    pub async fn state(&self) -> Result<Say, ClientError> {
        let client = self.client()?;
        let people = client.people().await?;
        let sessions = client.sessions().await?;
        let groups = client.groups().await?;
        let listings = client.listings(&Host::lobby()).await?;
        let link = show::link(&client.link(), client.retry_in().await?);
        let mut chats: Vec<dto::Chat> = sessions
            .iter()
            .filter_map(|(peer, state)| show::chat(&self.user, peer, state))
            .collect();
        for view in &groups {
            let company = self.company(&client, view).await;
            let notes = self.notes();
            let offer = notes.offers.get(&view.group);
            chats.push(show::group(view, offer, company.as_ref()));
        }
        let convs = sessions
            .iter()
            .filter(|(peer, state)| show::chat(&self.user, peer, state).is_some())
            .map(|(peer, _)| ConvId::between(&self.user, peer))
            .chain(groups.iter().map(|view| ConvId::from(view.group)));
        for (conv, chat) in convs.collect::<Vec<_>>().into_iter().zip(&mut chats) {
            let (unread, last_read) = unread(&client, conv).await?;
            chat.unread = Some(unread);
            chat.last_read = Some(
                last_read
                    .as_ref()
                    .map(super::names::place)
                    .unwrap_or_default(),
            );
        }
        let requests = self
            .notes()
            .requests
            .iter()
            .map(|(invite, (peer, note))| show::request(peer, *invite, note))
            .collect();
        Ok(Say::State {
            me: Me {
                user: self.user.as_str().to_owned(),
            },
            link,
            people: people
                .iter()
                .map(|(user, view)| show::person(user, view))
                .collect(),
            requests,
            chats,
            listings: listings.iter().map(show::listing).collect(),
        })
    }

    async fn handle(&self, event: Event) {
        match event {
            Event::Request(request) => {
                let (peer, note) = (request.peer().clone(), request.note().to_owned());
                self.tell(Say::Request(show::request(&peer, request.invite(), &note)));
                self.notes().requests.insert(request.invite(), (peer, note));
            }
            Event::Session(event) => self.on_session(event).await,
            Event::Message(received) => self.tell(Say::Message {
                conv: hex(received.id.stream.conv.as_bytes()),
                item: show::received(&received),
            }),
            Event::Delivery(event) => self.on_delivery(event),
            Event::JoinRequest(join) => self.tell_group(join.group()).await,
            Event::Group(event) => self.on_group(event).await,
            Event::Presence(event) => self.on_presence(event).await,
            Event::Lobby(LobbyEvent::GroupListed { listing, .. }) => {
                self.tell(Say::Listing(show::listing(&listing)));
            }
            Event::Lobby(LobbyEvent::GroupUnlisted { group, .. }) => {
                self.tell(Say::Unlisted {
                    group: hex(group.as_bytes()),
                });
            }
            Event::Link(state) => {
                let Ok(client) = self.client() else { return };
                let retry_in = client.retry_in().await.unwrap_or_default();
                self.tell(Say::Link(show::link(&state, retry_in)));
            }
            Event::Identity(IdentityEvent::KeyChanged { user, device, .. }) => {
                let (user, device) = (user.as_str().to_owned(), hex(device.as_bytes()));
                self.tell(Say::KeyChanged { user, device });
            }
            Event::Lagged { .. } => {
                if let Ok(state) = self.state().await {
                    self.tell(state);
                }
            }
            _ => {}
        }
    }

    async fn on_session(&self, event: SessionEvent) {
        match event {
            SessionEvent::Withdrawn { invite, .. } => self.settled(invite),
            SessionEvent::Opened { peer, .. } | SessionEvent::Closed { peer, .. } => {
                self.tell_chat(&peer).await;
            }
            _ => {}
        }
    }

    /// Tells how the chat with `peer` stands.
    pub(super) async fn tell_chat(&self, peer: &UserId) {
        let Ok(client) = self.client() else { return };
        if let Ok(state) = client.session(peer).await
            && let Some(chat) = show::chat(&self.user, peer, &state)
        {
            self.tell(Say::Chat(chat));
        }
    }

    /// Tells how a group stands.
    pub(super) async fn tell_group(&self, group: GroupId) {
        let Ok(client) = self.client() else { return };
        let Ok(groups) = client.groups().await else {
            return;
        };
        let say = match groups.iter().find(|view| view.group == group) {
            Some(view) => {
                let company = self.company(&client, view).await;
                let mut notes = self.notes();
                if let Some(leader) = &view.leader {
                    notes.leaders.insert(group, leader.clone());
                }
                Say::Chat(show::group(
                    view,
                    notes.offers.get(&group),
                    company.as_ref(),
                ))
            }
            None => Say::ChatGone {
                conv: hex(group.as_bytes()),
            },
        };
        self.tell(say);
    }

    /// Who of a group is here; from the first time on it is followed.
    async fn company(&self, client: &Client, view: &GroupView) -> Option<RoomPresence> {
        if !matches!(view.mine, Membership::Member | Membership::Leader) {
            return None;
        }
        let room = client.group(view.group).await.ok()??;
        if self.notes().watched.insert(view.group) {
            room.watch().await.ok()?;
        }
        room.presence().await.ok()?
    }

    async fn tell_company(&self, group: GroupId) {
        let Ok(client) = self.client() else { return };
        let Ok(Some(room)) = client.group(group).await else {
            return;
        };
        if let Ok(Some(presence)) = room.presence().await {
            self.tell(Say::Company {
                conv: hex(group.as_bytes()),
                company: show::company(&presence),
            });
        }
    }

    async fn on_group(&self, event: GroupEvent) {
        match &event {
            GroupEvent::LeadOffered { group, by } => {
                self.notes().offers.insert(*group, by.clone());
            }
            GroupEvent::Changed {
                group,
                change,
                round,
                ..
            } => {
                let mut notes = self.notes();
                notes.offers.remove(group);
                let before = notes.leaders.get(group).cloned();
                drop(notes);
                if let Change::Leader { user, how } = change {
                    let before = before.as_ref().map_or("the leader before", UserId::as_str);
                    self.tell(Say::Lead {
                        conv: hex(group.as_bytes()),
                        leader: user.as_str().to_owned(),
                        term: *round,
                        why: show::passing(before, *how),
                    });
                }
            }
            GroupEvent::Removed { group, .. } => {
                self.notes().offers.remove(group);
            }
            GroupEvent::LeadDeclined { by, .. } => {
                self.tell(Say::Notice {
                    text: format!("{by} does not want to lead"),
                });
            }
            GroupEvent::Denied { .. } => {
                self.tell(Say::Notice {
                    text: "you were not let in".to_owned(),
                });
            }
            _ => {}
        }
        self.tell_group(event.group()).await;
    }

    async fn on_presence(&self, event: PresenceEvent) {
        match event {
            PresenceEvent::Changed { user, view } => {
                self.tell(Say::Person(show::person(&user, &view)));
            }
            PresenceEvent::Room { group, .. } => self.tell_company(group).await,
            PresenceEvent::Crowd { sample, .. } => {
                for (user, view) in sample {
                    self.tell(Say::Person(show::person(&user, &view)));
                }
            }
            _ => {
                let Ok(client) = self.client() else { return };
                for (user, view) in client.people().await.unwrap_or_default() {
                    self.tell(Say::Person(show::person(&user, &view)));
                }
            }
        }
    }

    fn on_delivery(&self, event: DeliveryEvent) {
        let conv = |id: &MessageId| hex(id.stream.conv.as_bytes());
        match event {
            DeliveryEvent::Accepted { id, txn, sort } => {
                let Some(text) = self.notes().sending.remove(&txn) else {
                    return;
                };
                let sent = TimelineItem::Sent {
                    id,
                    content: Content::text(text),
                    sort,
                    ack: Ack::Queued,
                    failed: None,
                    wedged: None,
                };
                let Some(item) = show::item(&self.user, &sent) else {
                    return;
                };
                self.tell(Say::Accepted {
                    conv: conv(&id),
                    txn: hex(&txn.0),
                    item,
                });
            }
            DeliveryEvent::Progress { id, ack } => {
                self.tell(Say::Ack {
                    conv: conv(&id),
                    id: message(&id),
                    ack: show::ack(ack),
                });
            }
            DeliveryEvent::Wedged { id, why } => {
                self.tell(Say::Wedged {
                    conv: conv(&id),
                    id: message(&id),
                    why: show::stuck(why),
                });
            }
            DeliveryEvent::Failed { id, why } => {
                let why = show::failure(&why);
                self.tell(Say::Failed {
                    conv: conv(&id),
                    id: message(&id),
                    why,
                });
            }
            DeliveryEvent::Gap {
                conv,
                from,
                first,
                count,
                sort,
            } => {
                let gap = TimelineItem::Gap {
                    from,
                    first,
                    count,
                    sort,
                };
                if let Some(item) = show::item(&self.user, &gap) {
                    self.tell(Say::Message {
                        conv: hex(conv.as_bytes()),
                        item,
                    });
                }
            }
            DeliveryEvent::Typing { conv, user, active } => self.tell(Say::Typing {
                conv: hex(conv.as_bytes()),
                user: user.as_str().to_owned(),
                active,
            }),
            DeliveryEvent::DeadLetter { from, .. } => self.tell(Say::Notice {
                text: format!("a message from {from} could not be read and was put aside"),
            }),
            _ => {}
        }
    }
}

/// The messages of others above the read mark, and the mark.
async fn unread(
    client: &Client,
    conv: ConvId,
) -> Result<(Vec<String>, Option<SortKey>), ClientError> {
    let mark = client.conversation(conv).last_read().await?;
    // A history that cannot be read shows no number; opening the chat tells why.
    let newest = client
        .conversation(conv)
        .latest(MAX_UNREAD)
        .await
        .unwrap_or_default();
    let unread = newest.iter().filter_map(|item| match item {
        TimelineItem::Received(received) if Some(received.sort) > mark => {
            Some(message(&received.id))
        }
        _ => None,
    });
    Ok((unread.collect(), mark))
}
