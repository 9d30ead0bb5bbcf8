//! The scenario suite of `chat-testkit` over real sockets: every scenario has a hub of its own,
//! with a file, on a port of its own.

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use chat_client::transport::{Capabilities, ConnectOptions, Connector, Transport, TransportError};
use chat_testkit::suite::client::{Cell, ClientWorld, run};
use chat_transport_ws::hub::{Hub, HubHandle};
use chat_transport_ws::{CAPABILITIES, WsConnector};
use tempfile::TempDir;

#[derive(Debug)]
struct HubCell {
    folder: TempDir,
    hub: Option<HubHandle>,
    way: Way,
}

/// To wherever the hub listens now: another process may take its port while it is down.
#[derive(Clone, Debug)]
struct Way(Arc<Mutex<String>>);

#[async_trait::async_trait]
impl Connector for Way {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        let url = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let connector = WsConnector::new(&url).expect("a hub names its address");
        connector.connect(options).await
    }
}

impl HubCell {
    async fn listen(&mut self) {
        let file = self.folder.path().join("hub.redb");
        let builder = Hub::builder().allow_all().store(file);
        let hub = builder.bind(([127, 0, 0, 1], 0).into()).await;
        let hub = hub.expect("a hub over its own file");
        *self.way.0.lock().unwrap_or_else(PoisonError::into_inner) = hub.url();
        self.hub = Some(hub);
    }
}

impl Cell for HubCell {
    const VIRTUAL_TIME: bool = false;

    type Connector = Way;

    async fn start() -> Self {
        let mut cell = Self {
            folder: tempfile::tempdir().expect("a folder"),
            hub: None,
            way: Way(Arc::default()),
        };
        cell.listen().await;
        cell
    }

    fn connector(&self) -> Way {
        self.way.clone()
    }

    async fn restart(&mut self) {
        let hub = self.hub.take().expect("it runs");
        assert!(hub.shutdown(Duration::from_secs(10)).await, "in good order");
        self.listen().await;
    }
}

chat_testkit::conformance!(real: ClientWorld<HubCell>, run);
