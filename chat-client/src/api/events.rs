//! What happens, as a stream.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use chat_core::channel::Channel;
use chat_core::delivery::{DeliveryEvent, Received};
use chat_core::event::{Fault, GroupEvent, IdentityEvent, LobbyEvent, PresenceEvent, SessionEvent};
use chat_core::id::{ConvId, UserId};
use chat_core::link::LinkState;
use futures_core::Stream;
use tokio::sync::mpsc;

use super::client::WeakClient;
use super::{IncomingJoin, IncomingRequest};
use crate::driver::{Done, Told};

/// Something happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer asks to chat: accept or reject.
    Request(IncomingRequest),
    /// Somebody asks to join a group that we lead: approve or deny.
    JoinRequest(IncomingJoin),
    /// A message arrived.
    Message(Received),
    /// What else became of messages.
    Delivery(DeliveryEvent),
    /// A session.
    Session(SessionEvent),
    /// A group.
    Group(GroupEvent),
    /// Somebody's presence.
    Presence(PresenceEvent),
    /// A lobby.
    Lobby(LobbyEvent),
    /// The connection.
    Link(LinkState),
    /// A key was pinned or changed.
    Identity(IdentityEvent),
    /// A peer or a broker sent what it should not.
    PeerFault {
        /// Who signed it, when that is proven.
        from: Option<UserId>,
        /// Where it came.
        channel: Channel,
        /// What was wrong.
        fault: Fault,
        /// How many such since the last event.
        count: u64,
    },
    /// The stream was full: so many events were left out whose content can be asked for again
    /// (presence, lobby, connection, typing, receipts). Or, before the first stream was opened,
    /// so many events of any kind but messages: these are all told.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// A stream of events. It holds 1 024; when it is full, events that can be asked for again are
/// left out and counted, and for the others the client receives nothing more until there is room:
/// read it, or drop it.
///
/// Taking the next event acknowledges a message taken before, unless
/// [`manual_ack`](Self::manual_ack) was chosen: a message that was being handled when the program
/// died is told again, as `redelivered`. The stream ends when the client has stopped; it does not
/// keep the client running.
#[derive(Debug)]
#[must_use = "a stream that is not read stops the client from receiving"]
pub struct EventStream {
    queue: mpsc::Receiver<Told>,
    done: Arc<Done>,
    client: WeakClient,
    taken: Option<(ConvId, u64)>,
    manual: bool,
}

impl EventStream {
    pub(super) fn new(queue: mpsc::Receiver<Told>, done: Arc<Done>, client: WeakClient) -> Self {
        Self {
            queue,
            done,
            client,
            taken: None,
            manual: false,
        }
    }

    /// Leaves acknowledging to
    /// [`Conversation::acknowledge`](super::Conversation::acknowledge).
    pub fn manual_ack(self) -> Self {
        Self {
            manual: true,
            ..self
        }
    }

    /// The next event; `None` when the client has stopped.
    ///
    /// # Cancel safety
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        core::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn event(&mut self, told: Told) -> Event {
        let event = match told {
            Told::Event(event) => event,
            Told::Missed(missed) => return Event::Lagged { missed },
        };
        match event {
            chat_core::Event::Session(SessionEvent::Requested { peer, invite, note }) => {
                Event::Request(IncomingRequest::new(
                    self.client.clone(),
                    peer,
                    note,
                    invite,
                ))
            }
            chat_core::Event::Group(GroupEvent::JoinRequested { group, request }) => {
                Event::JoinRequest(IncomingJoin::new(self.client.clone(), group, request))
            }
            chat_core::Event::Delivery(DeliveryEvent::Received(received)) => {
                self.taken = Some((received.id.stream.conv, received.pos));
                Event::Message(received)
            }
            chat_core::Event::Delivery(event) => Event::Delivery(event),
            chat_core::Event::Session(event) => Event::Session(event),
            chat_core::Event::Group(event) => Event::Group(event),
            chat_core::Event::Presence(event) => Event::Presence(event),
            chat_core::Event::Lobby(event) => Event::Lobby(event),
            chat_core::Event::Link(state) => Event::Link(state),
            chat_core::Event::Identity(event) => Event::Identity(event),
            chat_core::Event::PeerFault {
                from,
                channel,
                fault,
                count,
            } => Event::PeerFault {
                from,
                channel,
                fault,
                count,
            },
            // The core and this crate have one version: a new kind is added here with it.
            _ => Event::Lagged { missed: 1 },
        }
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some((conv, pos)) = self.taken.take()
            && !self.manual
        {
            self.done.post(conv, pos);
        }
        let told = ready!(self.queue.poll_recv(cx));
        Poll::Ready(told.map(|told| self.event(told)))
    }
}
