//! Hubs, and who connects to them.

use bytes::Bytes;
use chat_client::transport::{ConnectOptions, TransportError};
use chat_core::Will;
use chat_core::channel::Channel;
use chat_core::id::{DeviceId, GroupId};
pub(crate) use chat_testkit::peer::{DEADLINE, Peer, inbox, presence, user, within};
use chat_transport_ws::WsConnector;
use chat_transport_ws::hub::{Hub, HubBuilder, HubHandle, HubStats};

pub(crate) fn group() -> Channel {
    Channel::Group(GroupId([7; 32]))
}

pub(crate) fn memory() -> HubBuilder {
    Hub::builder().allow_all().in_memory()
}

pub(crate) async fn bind(builder: HubBuilder) -> HubHandle {
    within(builder.bind(([127, 0, 0, 1], 0).into()))
        .await
        .unwrap()
}

pub(crate) struct Who {
    pub(crate) url: String,
    pub(crate) name: &'static str,
    pub(crate) device: u8,
    pub(crate) token: Option<&'static str>,
    pub(crate) will: Option<Will>,
}

pub(crate) fn who(hub: &HubHandle, name: &'static str) -> Who {
    Who {
        url: hub.url(),
        name,
        device: 1,
        token: None,
        will: None,
    }
}

impl Who {
    pub(crate) fn device(self, device: u8) -> Self {
        Self { device, ..self }
    }

    pub(crate) fn token(self, token: &'static str) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    pub(crate) fn will(self, channel: Channel, bytes: &'static [u8]) -> Self {
        Self {
            will: Some(Will {
                channel,
                bytes: Bytes::from_static(bytes),
            }),
            ..self
        }
    }

    pub(crate) async fn connect(self) -> Result<Peer, TransportError> {
        let mut connector = WsConnector::new(&self.url).unwrap();
        if let Some(token) = self.token {
            connector = connector.with_token(token).unwrap();
        }
        let options = ConnectOptions::new(user(self.name), DeviceId([self.device; 32]), self.will);
        Peer::connect_as(&connector, options).await
    }

    pub(crate) async fn join(self, channels: &[Channel]) -> Peer {
        let mut peer = self.connect().await.unwrap();
        for channel in channels {
            assert!(peer.subscribe(channel).await, "subscribe {channel:?}");
        }
        peer
    }
}

/// Waits until the hub's counters say so.
pub(crate) async fn until(hub: &HubHandle, check: impl Fn(HubStats) -> bool) {
    within(async {
        while !check(hub.stats()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
